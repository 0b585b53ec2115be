"""JWTs of issuers: PyJWT makes them, and every known way to pass off another one is tried (research: standards §4.3)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from agentmesh.api import issuers as issuers_module
from agentmesh.api.access import Access
from agentmesh.api.issuers import Issuers
from agentmesh.errors import ConfigError, Unauthorized
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import key_id
from tests.api.node_double import FakeBackend
from tests.api.serving import TOKEN, Shelf, ask_app, build

NOW = 1_800_000_000
URL = "https://login.example"
HOST = (b"host", b"127.0.0.1:6374")
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
OTHER = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, kid: str = "", **more: Any) -> dict[str, Any]:
    public = key.public_key()
    maker = (
        RSAAlgorithm
        if isinstance(key, rsa.RSAPrivateKey)
        else ECAlgorithm
        if isinstance(key, ec.EllipticCurvePrivateKey)
        else OKPAlgorithm
    )
    found = json.loads(maker.to_jwk(public))
    found.pop("key_ops", None)
    return {**found, **({"kid": kid} if kid else {}), **more}


JWKS = {"keys": [jwk(RSA_KEY, "r"), jwk(EC_KEY, "e"), jwk(ED_KEY, "d")]}
CONFIG = f"""
[[issuer]]
issuer = "{URL}"
audience = "agentmesh"
keys = "login.jwks.json"
scopes = {{ "mesh.read" = ["read"], "mesh.call" = ["call:echo"], "mesh.all" = ["call", "register"] }}
"""


def write(home: Path, config: str = CONFIG, keys: Any = JWKS) -> Path:
    path = home / "issuers.toml"
    path.write_text(config, "utf-8")
    path.chmod(0o600)
    file = home / "login.jwks.json"
    file.write_text(json.dumps(keys), "utf-8")
    file.chmod(0o600)
    return path


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(tmp_path: Path, clock: Clock) -> Access:
    return Access(TOKEN, Shelf(), issuers=Issuers(write(tmp_path)), now=clock)


def claims(**changed: Any) -> dict[str, Any]:
    full = {
        "iss": URL,
        "aud": "agentmesh",
        "sub": "alice",
        "iat": NOW,
        "exp": NOW + 600,
        "scope": "mesh.read openid",
        **changed,
    }
    return {name: value for name, value in full.items() if value is not None}


def token(key: Any = ED_KEY, alg: str = "EdDSA", kid: str | None = "d", typ: str = "at+jwt", **changed: Any) -> str:
    headers: dict[str, Any] = {"typ": typ, **({"kid": kid} if kid else {})}
    return jwt.encode(claims(**changed), key, algorithm=alg, headers=headers)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: dict[str, Any] | str, payload: dict[str, Any] | str, signature: bytes = b"x" * 64) -> str:
    parts = (
        header if isinstance(header, str) else json.dumps(header),
        payload if isinstance(payload, str) else json.dumps(payload),
    )
    return ".".join([*(b64(part.encode()) for part in parts), b64(signature)])


def signed(header: str, payload: str, key: ed25519.Ed25519PrivateKey = ED_KEY) -> str:
    """Sign any two texts as header and payload."""
    covered = f"{b64(header.encode())}.{b64(payload.encode())}"
    return f"{covered}.{b64(key.sign(covered.encode()))}"


def refusal(access: Access, raw: str, scheme: str = "Bearer", request: dict[str, Any] | None = None) -> str:
    with pytest.raises(Unauthorized) as error:
        access.rights_of(f"{scheme} {raw}".encode(), request or {})
    return error.value.code


# -- what is good -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "alg", "kid"),
    [
        (ED_KEY, "EdDSA", "d"),
        (EC_KEY, "ES256", "e"),
        (RSA_KEY, "RS256", "r"),
        (ED_KEY, "EdDSA", None),
        (EC_KEY, "ES256", None),
    ],
)
@pytest.mark.parametrize("typ", ["at+jwt", "JWT", "application/at+jwt"])
def test_a_jwt_of_an_accepted_issuer_opens_what_its_scopes_are_mapped_to(
    access: Access, key: Any, alg: str, kid: str | None, typ: str
) -> None:
    rights = access.rights_of(b"Bearer " + token(key, alg, kid, typ).encode())
    assert (rights.scopes, rights.agents, rights.tenant, rights.who) == ({"read"}, None, "", f"alice of {URL}")
    assert rights.until == NOW + 600 + 30


@pytest.mark.parametrize(
    ("scope", "scopes", "agents"),
    [
        ("mesh.read mesh.call", {"read", "call"}, {"echo"}),
        (["mesh.call"], {"call"}, {"echo"}),
        ("mesh.call mesh.all", {"call", "register"}, None),
        ("read admin call", set(), None),
        ("", set(), None),
        (None, set(), None),
        (7, set(), None),
        ([1, {"mesh.read": 1}, "mesh.read "], set(), None),
        ("MESH.READ", set(), None),
    ],
)
def test_words_open_only_what_the_operator_mapped(
    access: Access, scope: Any, scopes: set[str], agents: set[str] | None
) -> None:
    rights = access.rights_of(b"Bearer " + token(scope=scope).encode())
    assert (rights.scopes, rights.agents) == (scopes, agents)


def test_a_did_key_is_an_issuer_without_a_key_file(tmp_path: Path, clock: Clock) -> None:
    own = KeyPair.generate(os.urandom(32))
    config = f'[[issuer]]\nissuer = "{own.did}"\naudience = "mesh"\nscopes = {{ "read" = ["read"] }}\n'
    access = Access(TOKEN, issuers=Issuers(write(tmp_path, config)), now=clock)
    payload = json.dumps(claims(iss=own.did, aud=["x", "mesh"], scope="read"))
    covered = (
        f"{b64(json.dumps({'alg': 'EdDSA', 'typ': 'JWT', 'kid': key_id(own.did)}).encode())}.{b64(payload.encode())}"
    )
    raw = f"{covered}.{b64(own.sign(covered.encode()))}"
    assert access.rights_of(b"Bearer " + raw.encode()).scopes == {"read"}
    assert refusal(access, token(iss=own.did, aud="mesh")) == "jwt.signature.kid"


async def test_a_jwt_is_used_on_the_api_like_a_key(access: Access) -> None:
    app = build(FakeBackend(), access=access)
    headers = [HOST, (b"authorization", b"Bearer " + token(scope="mesh.call").encode())]
    assert (await ask_app(app, "POST", "/api/v1/calls", b'{"to":"echo","text":"x"}', headers=headers)).status == 200
    other = await ask_app(app, "POST", "/api/v1/calls", b'{"to":"calc","text":"x"}', headers=headers)
    assert other.status in (403, 404)
    assert (await ask_app(app, "GET", "/api/v1/status", headers=headers)).problem().code == "refused.scope"
    assert (await ask_app(app, "GET", "/health", headers=headers)).status == 200


# -- time and audience ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"aud": "other"}, "jwt.audience"),
        ({"aud": None}, "jwt.audience"),
        ({"aud": []}, "jwt.audience"),
        ({"aud": ["agentmesh2", "agent"]}, "jwt.audience"),
        ({"exp": None}, "jwt.claims.missing"),
        ({"iat": None}, "jwt.claims.missing"),
        ({"exp": NOW + 600.5}, "jwt.json.float"),
        ({"exp": str(NOW)}, "jwt.claims.malformed"),
        ({"exp": True}, "jwt.claims.malformed"),
        ({"iat": NOW - 700, "exp": NOW - 31}, "jwt.expired"),
        ({"iat": NOW + 31}, "jwt.not_yet_valid"),
        ({"nbf": NOW + 31}, "jwt.not_yet_valid"),
        ({"nbf": "soon"}, "jwt.claims.malformed"),
        ({"exp": NOW + 90_000}, "jwt.life"),
        ({"iat": NOW, "exp": NOW}, "jwt.life"),
        ({"iss": "https://evil.example"}, "refused.token"),
        ({"iss": [URL]}, "refused.token"),
    ],
)
def test_a_jwt_out_of_its_time_or_for_others_is_refused(access: Access, changed: dict[str, Any], code: str) -> None:
    raw = signed('{"alg":"EdDSA","kid":"d","typ":"JWT"}', json.dumps(claims(**changed)))
    assert refusal(access, raw) == code


def test_clocks_may_differ_by_half_a_minute(access: Access) -> None:
    for changed in ({"iat": NOW - 700, "exp": NOW - 29}, {"iat": NOW + 29}, {"nbf": NOW + 29}):
        access.rights_of(b"Bearer " + token(**changed).encode())


def test_a_jwt_that_was_good_is_refused_when_it_ends(access: Access, clock: Clock) -> None:
    raw = token()
    access.rights_of(b"Bearer " + raw.encode())
    clock.now += 629
    access.rights_of(b"Bearer " + raw.encode())
    clock.now += 1
    assert refusal(access, raw) == "jwt.expired"


# -- forgery ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alg",
    ["none", "None", "NONE", "", None, "HS256", "HS512", "RS512", "PS256", "ES384", "ES256K", "Ed448", ["EdDSA"], 1],
)
def test_an_algorithm_that_is_not_on_the_list_is_refused_before_its_signature(access: Access, alg: Any) -> None:
    for signature in (b"x", b"\0" * 64):
        assert refusal(access, forged({"alg": alg, "typ": "JWT", "kid": "d"}, claims(), signature)) == "jwt.algorithm"


@pytest.mark.parametrize("key", [RSA_KEY, EC_KEY, ED_KEY])
def test_a_public_key_is_no_hmac_secret(access: Access, key: Any) -> None:
    import hmac

    public = key.public_key()
    secrets = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk(key)).encode(),
    ]
    for secret in secrets:
        for alg in ("HS256", "RS256", "ES256", "EdDSA"):
            covered = forged({"alg": alg, "typ": "JWT"}, claims()).rpartition(".")[0]
            raw = f"{covered}.{b64(hmac.new(secret, covered.encode(), 'sha256').digest())}"
            assert refusal(access, raw).startswith("jwt.")


@pytest.mark.parametrize(("alg", "kid"), [("RS256", "d"), ("ES256", "r"), ("EdDSA", "e"), ("ES256", "d")])
def test_a_key_is_good_for_its_own_algorithm_only(access: Access, alg: str, kid: str) -> None:
    assert refusal(access, forged({"alg": alg, "typ": "JWT", "kid": kid}, claims())) == "jwt.signature.kid"


def test_a_signature_of_another_key_or_over_another_text_does_not_hold(access: Access) -> None:
    assert refusal(access, token(OTHER)) == "jwt.signature.invalid"
    good = token().split(".")
    assert refusal(access, f"{good[0]}.{token(sub='mallory').split('.')[1]}.{good[2]}") == "jwt.signature.invalid"
    for key, alg, kid in (
        (ec.generate_private_key(ec.SECP256R1()), "ES256", "e"),
        (rsa.generate_private_key(65537, 2048), "RS256", "r"),
    ):
        assert refusal(access, token(key, alg, kid)) == "jwt.signature.invalid"


@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\0" * 63, b"\xff" * 64, b"x" * 256])
@pytest.mark.parametrize(("alg", "kid"), [("EdDSA", "d"), ("ES256", "e"), ("RS256", "r")])
def test_a_signature_of_any_bytes_is_refused(access: Access, alg: str, kid: str, signature: bytes) -> None:
    assert refusal(access, forged({"alg": alg, "typ": "JWT", "kid": kid}, claims(), signature)).startswith("jwt.")


def test_a_signature_in_der_is_refused(access: Access) -> None:
    from cryptography.hazmat.primitives.hashes import SHA256

    covered = forged({"alg": "ES256", "typ": "JWT", "kid": "e"}, claims()).rpartition(".")[0]
    der = EC_KEY.sign(covered.encode(), ec.ECDSA(SHA256()))
    assert refusal(access, f"{covered}.{b64(der)}") == "jwt.signature.size"


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c", "x5t"])
def test_a_token_cannot_bring_its_own_key(access: Access, monkeypatch: pytest.MonkeyPatch, member: str) -> None:
    import socket

    monkeypatch.setattr(socket, "socket", None)  # whoever follows an address trips over this
    value: Any = jwk(OTHER, "d") if member == "jwk" else ["MIIB"] if member == "x5c" else "http://127.0.0.1:1/jwks.json"
    raw = jwt.encode(claims(), OTHER, algorithm="EdDSA", headers={"typ": "JWT", "kid": "d", member: value})
    assert refusal(access, raw) == "jwt.signature.invalid"


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1", "x", "", 7, None, ["d"]])
def test_a_kid_is_looked_up_and_nothing_else(access: Access, kid: Any) -> None:
    raw = signed(json.dumps({"alg": "EdDSA", "typ": "JWT", "kid": kid}), json.dumps(claims()), OTHER)
    assert refusal(access, raw).startswith("jwt.")


@pytest.mark.parametrize("typ", ["dpop+jwt", "secevent+jwt", "logout+jwt", "id+jwt", "", None, 5])
def test_a_token_of_another_type_is_refused(access: Access, typ: Any) -> None:
    raw = signed(json.dumps({"alg": "EdDSA", "kid": "d", "typ": typ}), json.dumps(claims()))
    assert refusal(access, raw) == "jwt.type"
    assert refusal(access, signed('{"alg":"EdDSA","kid":"d"}', json.dumps(claims()))) == "jwt.type"


@pytest.mark.parametrize("member", ["crit", "b64"])
def test_an_extension_that_is_demanded_is_refused(access: Access, member: str) -> None:
    raw = signed(json.dumps({"alg": "EdDSA", "kid": "d", "typ": "JWT", member: ["exp"]}), json.dumps(claims()))
    assert refusal(access, raw) == "jwt.critical"


def test_a_member_that_stands_twice_is_refused(access: Access) -> None:
    header, payload = '{"alg":"EdDSA","kid":"d","typ":"JWT"}', json.dumps(claims())
    assert refusal(access, signed(header, payload[:-1] + ',"aud":"agentmesh"}')) == "jwt.json.duplicate"
    assert refusal(access, signed(header[:-1] + ',"alg":"EdDSA"}', payload)) == "jwt.json.duplicate"


@pytest.mark.parametrize(
    "raw",
    [
        "a.b.c",
        "..",
        "....",
        "e30.e30.",
        "e30.e30.AA",
        token() + "=",
        token().replace(".", ".\n", 1),
        "x" * 9000,
        " . . ",
    ],
)
def test_what_is_no_jwt_is_refused(access: Access, raw: str) -> None:
    assert refusal(access, raw).startswith(("jwt.", "refused.token"))


def test_deep_and_large_payloads_are_refused(access: Access) -> None:
    header = '{"alg":"EdDSA","kid":"d","typ":"JWT"}'
    deep = json.dumps(claims())[:-1] + ',"x":' + "[" * 2000 + "]" * 2000 + "}"
    assert refusal(access, signed(header, deep)) == "jwt.json.too_deep"
    assert refusal(access, signed(header, json.dumps(claims(x="y" * 9000)))) in ("jwt.too_large", "refused.token")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=100))
def test_no_bytes_open_anything_or_break_anything(access: Access, one: bytes, two: bytes, three: bytes) -> None:
    for raw in (b".".join([one, two, three]), ".".join([b64(one), b64(two), b64(three)]).encode()):
        with pytest.raises(Unauthorized):
            access.rights_of(b"Bearer " + raw)


# -- proofs of possession ---------------------------------------------------------------------------------------------

REQUEST = {
    "method": "GET", "path": "/api/v1/status", "raw_path": b"/api/v1/status", "query_string": b"", "headers": [HOST],
}  # fmt: skip
HOLDER = ec.generate_private_key(ec.SECP256R1())
ED_HOLDER = ed25519.Ed25519PrivateKey.generate()


def thumbprint(key: Any) -> str:
    members = {name: value for name, value in jwk(key).items() if name in ("crv", "e", "kty", "n", "x", "y")}
    return b64(hashlib.sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest())


def bound(key: Any = HOLDER) -> str:
    return token(cnf={"jkt": thumbprint(key)})


def proof(raw: str, key: Any = HOLDER, typ: str = "dpop+jwt", with_jwk: Any = None, **changed: Any) -> str:
    said = {
        "jti": b64(os.urandom(12)), "htm": "GET", "htu": "http://127.0.0.1:6374/api/v1/status", "iat": NOW,
        "ath": b64(hashlib.sha256(raw.encode()).digest()), **changed,
    }  # fmt: skip
    alg = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "EdDSA"
    return jwt.encode(
        {k: v for k, v in said.items() if v is not None},
        key,
        algorithm=alg,
        headers={"typ": typ, "jwk": with_jwk or jwk(key)},
    )


def asking(*proofs: str, **changed: Any) -> dict[str, Any]:
    return {**REQUEST, "headers": [HOST, *((b"dpop", one.encode()) for one in proofs)], **changed}


@pytest.mark.parametrize("key", [HOLDER, ED_HOLDER])
def test_a_bound_token_opens_with_a_proof_of_its_key(access: Access, key: Any) -> None:
    raw = bound(key)
    assert access.rights_of(f"DPoP {raw}".encode(), asking(proof(raw, key))).scopes == {"read"}


def test_a_stolen_bound_token_opens_nothing(access: Access) -> None:
    raw = bound()
    good = proof(raw)
    assert refusal(access, raw, "Bearer", asking(good)) == "dpop.missing"
    assert refusal(access, raw, "DPoP", asking()) == "dpop.missing"
    assert refusal(access, raw, "DPoP", asking(good, good)) == "dpop.missing"
    assert refusal(access, raw, "DPoP", asking(proof(raw, ED_HOLDER))) == "dpop.key"
    assert refusal(access, raw, "DPoP", asking(proof(raw, ED_HOLDER, with_jwk=jwk(HOLDER)))) == "dpop.key"
    other = proof(raw, ec.generate_private_key(ec.SECP256R1()), with_jwk=jwk(HOLDER))
    assert refusal(access, raw, "DPoP", asking(other)) == "jwt.signature.invalid"
    assert refusal(access, token(), "DPoP", asking(proof(token()))) == "dpop.unbound"


def test_a_proof_is_good_for_one_request(access: Access, clock: Clock) -> None:
    raw = bound()
    once = proof(raw)
    access.rights_of(f"DPoP {raw}".encode(), asking(once))
    assert refusal(access, raw, "DPoP", asking(once)) == "dpop.replayed"
    clock.now += 89
    assert refusal(access, raw, "DPoP", asking(once)) == "dpop.replayed"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"htm": "POST"}, "dpop.target"), ({"htu": "http://127.0.0.1:6374/api/v1/runs"}, "dpop.target"),
        ({"htu": "https://127.0.0.1:6374/api/v1/status"}, "dpop.target"), ({"htm": None}, "jwt.claims.missing"),
        ({"iat": NOW - 91}, "dpop.time"), ({"iat": NOW + 31}, "dpop.time"), ({"iat": None}, "jwt.claims.missing"),
        ({"ath": None}, "dpop.token"), ({"ath": b64(b"x" * 32)}, "dpop.token"), ({"jti": None}, "jwt.claims.missing"),
        ({"jti": ""}, "jwt.claims.malformed"), ({"typ": "JWT"}, "dpop.type"),
    ],
)  # fmt: skip
def test_a_proof_for_another_request_token_or_time_is_refused(
    access: Access, changed: dict[str, Any], code: str
) -> None:
    raw = bound()
    assert refusal(access, raw, "DPoP", asking(proof(raw, **changed))) == code


def test_a_proof_from_before_the_start_is_refused_since_it_may_have_been_used(tmp_path: Path, clock: Clock) -> None:
    raw = bound()
    old = proof(raw, iat=NOW - 40)
    access = Access(TOKEN, issuers=Issuers(write(tmp_path)), now=clock)
    assert refusal(access, raw, "DPoP", asking(old)) == "dpop.time"


@pytest.mark.parametrize("cnf", [{}, {"x5t#S256": "x"}, "x", None, {"jkt": 5}, {"jkt": "short"}])
def test_a_token_that_is_bound_by_something_else_is_refused(access: Access, cnf: Any) -> None:
    raw = signed('{"alg":"EdDSA","kid":"d","typ":"JWT"}', json.dumps({**claims(), "cnf": cnf}))
    assert refusal(access, raw) == "jwt.claims.cnf"


def test_a_proof_whose_header_holds_the_private_key_is_refused(access: Access) -> None:
    raw = bound()
    private = {**jwk(HOLDER), "d": b64(b"x" * 32)}
    assert refusal(access, raw, "DPoP", asking(proof(raw, with_jwk=private))) == "jwt.signature.private"


async def test_the_proof_is_compared_with_the_request_as_it_came(access: Access) -> None:
    app = build(FakeBackend(), access=access)
    raw = bound()
    headers = [HOST, (b"authorization", f"DPoP {raw}".encode()), (b"dpop", proof(raw).encode())]
    assert (await ask_app(app, "GET", "/api/v1/status", headers=headers)).status == 200
    again = await ask_app(app, "GET", "/api/v1/status", headers=headers)
    assert (again.problem().code, again.headers["www-authenticate"]) == ("dpop.replayed", 'DPoP algs="EdDSA ES256"')


# -- what the operator writes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "keys", "why"),
    [
        ("[[issuer]", JWKS, "line 1"),
        ("[[issuer]]\nissuer = 5", JWKS, "issuer"),
        (CONFIG + "colour = 1", JWKS, "colour"),
        (CONFIG + CONFIG, JWKS, "twice"),
        (CONFIG.replace('audience = "agentmesh"', 'audience = ""'), JWKS, "audience"),
        (CONFIG.replace('keys = "login.jwks.json"', ""), JWKS, "key file"),
        (CONFIG.replace("login.jwks", "absent.jwks"), JWKS, "does not exist"),
        (CONFIG.replace('["read"]', '["raed"]'), JWKS, "raed"),
        (CONFIG + 'tenant = "a"\ntenant_claim = "b"', JWKS, "tenant"),
        (CONFIG.replace('["read"]', '["admin"]') + 'tenant = "a"', JWKS, "admin"),
        (CONFIG + 'algorithms = ["HS256"]', JWKS, "HS256"),
        (CONFIG + 'algorithms = ["none"]', JWKS, "none"),
        (CONFIG, {"keys": []}, "0 keys"),
        (CONFIG, [], "JWKS"),
        (CONFIG, {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}, "not public"),
        (CONFIG, {"keys": [{**jwk(ED_KEY), "d": b64(b"x" * 32)}]}, "not public"),
        (CONFIG, {"keys": [jwk(ed448.Ed448PrivateKey.generate(), "d")]}, "0 keys"),
        (CONFIG, {"keys": [{"kty": "OKP", "crv": "X25519", "x": b64(b"x" * 32), "kid": "d"}]}, "0 keys"),
        (CONFIG, {"keys": [jwk(ec.generate_private_key(ec.SECP384R1()), "d")]}, "0 keys"),
        (CONFIG, {"keys": [jwk(rsa.generate_private_key(65537, 1024), "r")]}, "0 keys"),
        (CONFIG, {"keys": [jwk(ED_KEY, "d", use="enc")]}, "0 keys"),
        (CONFIG, {"keys": [jwk(RSA_KEY, "r", alg="HS256")]}, "0 keys"),
    ],
)  # fmt: skip
def test_a_file_with_an_error_lets_no_node_start_and_says_why(tmp_path: Path, config: str, keys: Any, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        Issuers(write(tmp_path, config, keys))
    assert why in str(error.value.why)


@pytest.mark.parametrize("name", ["issuers.toml", "login.jwks.json"])
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    path = write(tmp_path)
    (tmp_path / name).chmod(mode)
    with pytest.raises(ConfigError) as error:
        Issuers(path)
    assert error.value.code == "issuers.permissions"


def test_a_change_counts_at_once_and_one_with_an_error_not_at_all(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(issuers_module, "_LOOK_S", 0.0)
    access = Access(TOKEN, issuers=Issuers(write(tmp_path)), now=clock)
    raw = token()
    access.rights_of(b"Bearer " + raw.encode())
    write(tmp_path, CONFIG + "colour = 1")
    access.rights_of(b"Bearer " + raw.encode())
    assert "colour" in caplog.text
    write(tmp_path, keys={"keys": [jwk(OTHER, "d")]})
    assert refusal(access, raw) == "jwt.signature.invalid"
    access.rights_of(b"Bearer " + token(OTHER).encode())
    (tmp_path / "issuers.toml").unlink()
    assert refusal(access, token(OTHER)) == "refused.token"


def test_without_issuers_a_jwt_is_a_wrong_token_and_nothing_of_it_is_read(tmp_path: Path, clock: Clock) -> None:
    access = Access(TOKEN, issuers=Issuers(tmp_path / "issuers.toml"), now=clock)
    assert refusal(access, token()) == "refused.token"


def test_a_tenant_is_taken_from_its_claim_and_none_is_never_the_operator(tmp_path: Path, clock: Clock) -> None:
    access = Access(TOKEN, issuers=Issuers(write(tmp_path, CONFIG + 'tenant_claim = "org"')), now=clock)
    assert access.rights_of(b"Bearer " + token(org="acme").encode()).tenant == "acme"
    for org in (None, "", 5, "a/b", ["acme"], "../x"):
        assert refusal(access, token(org=org)) == "jwt.tenant"
