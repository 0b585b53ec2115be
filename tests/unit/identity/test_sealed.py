"""Sealed mail: read by other libraries, opened by one agent only, and what is refused before anything is computed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import OKPKey
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS
from nacl.bindings import crypto_scalarmult

from agentmesh.codec.canonical import canonical
from agentmesh.errors import DecodeError, LimitError, MeshError, ReplayError, SignatureError, UsageError
from agentmesh.identity.agreement import (
    KEEP_S,
    Agreement,
    AgreementKey,
    agreement_param,
    read_agreement,
)
from agentmesh.identity.agreement import jwk_of as agreement_jwk
from agentmesh.identity.jws import b64url, jwk_of, sign_compact, unb64url
from agentmesh.identity.sealed import (
    AGE_S_MAX,
    BODY_BYTES_MAX,
    SEALED_BYTES_MAX,
    SKEW_S_MAX,
    TYP,
    Unsealed,
    read_outside,
    seal,
    unseal,
)
from agentmesh.ids import AgentId, key_id
from tests.support.records import EPOCH, key

ALICE, BOB, CAROL = key(1), key(2), key(3)
BOBS, CAROLS = AgreementKey(b"b" * 32, EPOCH, EPOCH + 86_400), AgreementKey(b"c" * 32, EPOCH, EPOCH + 86_400)
BODY = b"meet at noon \x00\xff"


def sealed(body: bytes = BODY, **over: Any) -> bytes:
    parts: dict[str, Any] = {"sender": ALICE, "recipient": BOB.did, "agreement": BOBS.public, "iat": EPOCH}
    return seal(body, **{**parts, **over})


LETTER = sealed()


def opened(raw: bytes, **over: Any) -> Unsealed:
    parts: dict[str, Any] = {"recipient": BOB.did, "keys": {BOBS.kid: BOBS.secret}, "now": EPOCH}
    return unseal(raw, **{**parts, **over})


def refusal(call: Any, *args: Any, **over: Any) -> tuple[type[MeshError], str]:
    with pytest.raises(MeshError) as caught:
        call(*args, **over)
    return type(caught.value), caught.value.code


def wrapped(inner: str, **over: Any) -> bytes:
    """Seal anything to Bob with a header of one's own choice; None leaves a member out."""
    header: dict[str, Any] = {
        "alg": "ECDH-ES",
        "enc": "A256GCM",
        "kid": BOBS.kid,
        "apu": b64url(ALICE.did.encode()),
        "apv": b64url(BOB.did.encode()),
        "cty": "JWT",
    }
    header = {name: value for name, value in {**header, **over}.items() if value is not None}
    registry = jwe.JWERegistry(algorithms=["ECDH-ES", "A256GCM", "A128GCM", "DEF"], strict_check_header=False)
    return jwe.encrypt_compact(
        header, inner, OKPKey.import_key(cast("Any", agreement_jwk(BOBS.x))), registry=registry
    ).encode()


def signed(sender: Any = ALICE, typ: str = TYP, **over: Any) -> str:
    claims = {"aud": BOB.did, "body": b64url(BODY), "iat": EPOCH, "iss": ALICE.did}
    return sign_compact(sender, {name: v for name, v in {**claims, **over}.items() if v is not None}, typ=typ)


@given(st.binary(max_size=2000))
def test_what_was_sealed_is_what_is_opened_with_its_sender_and_time(body: bytes) -> None:
    assert opened(sealed(body)) == Unsealed(AgentId(ALICE.did), body, EPOCH)


def test_a_letter_of_the_largest_size_travels_and_a_larger_one_is_refused() -> None:
    raw = sealed(bytes(BODY_BYTES_MAX))
    assert len(raw) <= SEALED_BYTES_MAX
    assert opened(raw).body == bytes(BODY_BYTES_MAX)
    assert refusal(sealed, bytes(BODY_BYTES_MAX + 1)) == (LimitError, "sealed.too_large")
    for call in (opened, read_outside):
        assert refusal(call, b"." * (SEALED_BYTES_MAX + 1)) == (DecodeError, "sealed.too_large")


def test_another_library_opens_and_verifies_a_letter_by_the_standards_alone() -> None:
    private = JWK(**agreement_jwk(BOBS.x), d=b64url(BOBS.secret))
    outer: Any = JWE(algs=["ECDH-ES", "A256GCM"])
    outer.deserialize(LETTER.decode(), key=private)
    header = json.loads(outer.objects["protected"])
    assert {name: header[name] for name in ("alg", "enc", "cty", "kid")} == {
        "alg": "ECDH-ES",
        "enc": "A256GCM",
        "cty": "JWT",
        "kid": private.thumbprint(),
    }
    assert unb64url(header["apu"]).decode() == ALICE.did
    assert unb64url(header["apv"]).decode() == BOB.did
    inner: Any = JWS()
    inner.deserialize(outer.payload.decode())
    inner.verify(JWK(**jwk_of(ALICE.public)))
    assert json.loads(inner.payload) == {"aud": BOB.did, "body": b64url(BODY), "iat": EPOCH, "iss": ALICE.did}
    assert json.loads(inner.objects["protected"])["typ"] == TYP


def test_a_letter_made_by_another_library_opens_here() -> None:
    jws: Any = JWS(canonical({"aud": BOB.did, "body": b64url(BODY), "iat": EPOCH, "iss": ALICE.did}))
    seed = JWK(**jwk_of(ALICE.public), d=b64url(ALICE.seed))
    jws.add_signature(seed, "EdDSA", json.dumps({"alg": "EdDSA", "kid": key_id(ALICE.did), "typ": TYP}))
    header = {
        "alg": "ECDH-ES",
        "enc": "A256GCM",
        "cty": "JWT",
        "kid": BOBS.kid,
        "apu": b64url(ALICE.did.encode()),
        "apv": b64url(BOB.did.encode()),
    }
    outer: Any = JWE(jws.serialize(compact=True).encode(), json.dumps(header), algs=["ECDH-ES", "A256GCM"])
    outer.add_recipient(JWK(**agreement_jwk(BOBS.x)))
    assert opened(outer.serialize(compact=True).encode()) == Unsealed(AgentId(ALICE.did), BODY, EPOCH)


def test_the_agreement_is_that_of_rfc_8037_a_6() -> None:
    """Bob's key as it stands there, the private half from RFC 7748 §6.1, and the shared secret through the same library."""
    bob = AgreementKey(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"), 1, 2)
    assert agreement_jwk(bob.x)["x"] == "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"
    ephemeral = {"crv": "X25519", "kty": "OKP", "x": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"}
    private = OKPKey.import_key(cast("Any", {**agreement_jwk(bob.x), "d": b64url(bob.secret)}))
    shared = private.exchange_derive_key(OKPKey.import_key(cast("Any", ephemeral)))
    assert shared.hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert crypto_scalarmult(bob.secret, unb64url(ephemeral["x"])) == shared, "sessions agree by the other library"


@given(st.data())
def test_a_letter_altered_in_any_byte_or_cut_anywhere_does_not_open(data: st.DataObject) -> None:
    place, change = data.draw(st.integers(0, len(LETTER) - 1)), data.draw(st.integers(1, 255))
    altered = bytearray(LETTER)
    altered[place] ^= change
    for raw in (bytes(altered), LETTER[:place], LETTER + b"A", LETTER + b"="):
        with pytest.raises((DecodeError, SignatureError)):
            opened(raw)


@given(st.binary(max_size=300) | st.text(".eyJhbGciOiJF", max_size=300).map(str.encode))
def test_garbage_is_no_letter(raw: bytes) -> None:
    for call in (opened, read_outside):
        with pytest.raises((DecodeError, SignatureError)):
            call(raw)


def test_only_the_recipient_with_the_key_opens_it() -> None:
    assert refusal(opened, LETTER, recipient=CAROL.did) == (SignatureError, "sealed.recipient")
    assert refusal(opened, LETTER, keys={}) == (DecodeError, "sealed.key_gone")
    assert refusal(opened, LETTER, keys={BOBS.kid: CAROLS.secret}) == (DecodeError, "sealed.ciphertext")


def test_a_recipient_cannot_pass_a_letter_on_as_if_it_had_been_written_to_another() -> None:
    to_carol = signed(aud=CAROL.did)
    assert refusal(opened, wrapped(to_carol)) == (SignatureError, "sealed.recipient")


def test_nobody_seals_in_anothers_name() -> None:
    assert refusal(opened, wrapped(signed(CAROL))) == (SignatureError, "signature.kid"), "Carol signs as Alice"
    assert refusal(opened, wrapped(signed(CAROL, iss=CAROL.did)))[1] == "sealed.sender", "outside it says Alice"
    head, payload, signature = signed().split(".")
    assert refusal(opened, wrapped(f"{head}.{payload}.{b64url(bytes(64))}"))[1] == "signature.invalid"
    other = canonical({"aud": BOB.did, "body": b64url(b"pay"), "iat": EPOCH, "iss": ALICE.did})
    assert refusal(opened, wrapped(f"{head}.{b64url(other)}.{signature}"))[1] == "signature.invalid"
    assert refusal(opened, wrapped(signed(typ="at+jwt")))[1] == "signature.type", "signed for something else"


@pytest.mark.parametrize(
    "over",
    [
        {"enc": "A128GCM"},
        {"zip": "DEF"},
        {"cty": None},
        {"cty": "text"},
        {"kid": None},
        {"apu": None},
        {"jku": "https://example.com/keys"},
        {"x5u": "https://example.com/keys"},
    ],
    ids=str,
)
def test_a_letter_sealed_in_another_way_is_refused_by_its_header(over: dict[str, Any]) -> None:
    assert refusal(opened, wrapped(signed(), **over)) == (SignatureError, "sealed.header")


def test_other_curves_algorithms_and_second_keys_in_the_header_are_refused_before_they_are_used() -> None:
    head, rest = LETTER.decode().split(".", 1)
    good = json.loads(unb64url(head))
    others: list[dict[str, Any]] = [
        {"alg": "dir"},
        {"alg": "ECDH-ES+A256KW"},
        {"alg": ["ECDH-ES"]},
        {"epk": {**good["epk"], "crv": "X448"}},
        {"epk": {**good["epk"], "d": good["epk"]["x"]}},
        {"epk": {"kty": "EC", "crv": "P-256", "x": good["epk"]["x"]}},
        {"epk": []},
        {"crit": ["b64"]},
    ]
    for over in others:
        raw = f"{b64url(canonical({**good, **over}))}.{rest}".encode()
        assert refusal(opened, raw) == (SignatureError, "sealed.header"), over
    for over in ({"apu": "AAAA"}, {"apv": 5}, {"kid": 7}, {"kid": "k" * 129}, {"epk": {**good["epk"], "x": "AA"}}):
        raw = f"{b64url(canonical({**good, **over}))}.{rest}".encode()
        assert refusal(opened, raw) == (DecodeError, "sealed.malformed"), over
    low = f"{b64url(canonical({**good, 'epk': {**good['epk'], 'x': b64url(bytes(32))}}))}.{rest}".encode()
    assert refusal(opened, low) == (DecodeError, "sealed.ciphertext")


def test_a_letter_is_opened_in_its_time_only() -> None:
    assert opened(LETTER, now=EPOCH + AGE_S_MAX)
    assert opened(LETTER, now=EPOCH - SKEW_S_MAX)
    for now in (EPOCH + AGE_S_MAX + 1, EPOCH - SKEW_S_MAX - 1):
        assert refusal(opened, LETTER, now=now) == (ReplayError, "sealed.time")


@pytest.mark.parametrize(
    "over", [{"iat": None}, {"iat": "1"}, {"iss": None}, {"iss": "did:web:x"}, {"body": 5}], ids=str
)
def test_claims_of_other_types_are_refused(over: dict[str, Any]) -> None:
    assert refusal(opened, wrapped(signed(**over)))[0] is DecodeError


def test_nothing_is_sealed_to_a_key_past_its_time_or_of_low_order() -> None:
    assert refusal(sealed, iat=BOBS.public.exp + 1) == (UsageError, "sealed.key_old")
    assert refusal(sealed, agreement=Agreement("k", bytes(32), EPOCH)) == (UsageError, "sealed.key")


def test_a_carrier_reads_who_it_is_for_and_nothing_else() -> None:
    outside = read_outside(LETTER)
    assert (outside.sender, outside.recipient, outside.kid) == (ALICE.did, BOB.did, BOBS.kid)
    assert b64url(BODY).encode() not in LETTER
    assert BODY not in LETTER


def test_a_manifest_names_the_key_and_a_reader_judges_it() -> None:
    param = agreement_param(BOBS.public)
    assert read_agreement({"key_agreement": param}) == BOBS.public
    assert KEEP_S > 7 * 86_400
    assert read_agreement({}) is None
    for over in (
        {"crv": "Ed25519"},
        {"kty": "EC"},
        {"d": "x"},
        {"x": "AA"},
        {"x": 5},
        {"kid": "k"},
        {"exp": True},
        {"exp": -1},
    ):
        assert refusal(read_agreement, {"key_agreement": {**param, **over}}) == (DecodeError, "agreement.malformed"), (
            over
        )
    assert refusal(read_agreement, {"key_agreement": {**param, "kid": CAROLS.kid}})[1] == "agreement.malformed"
    assert refusal(read_agreement, {"key_agreement": "x"})[1] == "agreement.malformed"


def test_a_private_agreement_key_is_never_shown() -> None:
    assert BOBS.secret.hex() not in repr(BOBS)
    assert repr(BOBS) == f"<AgreementKey {BOBS.kid}>"
    assert refusal(AgreementKey, b"short", 1, 2) == (LimitError, "agreement.size")


def test_joserfc_is_loaded_with_the_first_letter_only() -> None:
    code = "import sys, agentmesh.identity.sealed; print([m for m in sys.modules if m.startswith(('joserfc', 'cryptography'))])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"
