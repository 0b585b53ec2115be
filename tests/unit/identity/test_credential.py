"""Device credentials: one link from a root to a node, for a day at most, of use to the node alone."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import MeshError, UsageError
from agentmesh.identity.credential import (
    CREDENTIAL_CHARS_MAX,
    CREDENTIAL_TYP,
    LIFE_S_MAX,
    Credential,
    read_credential,
    sign_credential,
)
from agentmesh.identity.jws import jwk_of
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.token import SKEW_S
from agentmesh.ids import key_id
from tests.support.records import EPOCH, key
from tests.support.tokens import forged, payload, refusal

ROOT, NODE, THIEF, STRANGER = key(60), key(61), key(62), key(63)


def signed(root: KeyPair = ROOT, node: KeyPair = NODE, **over: Any) -> str:
    return sign_credential(root, node.did, **{"id": "c-1", "iat": EPOCH, **over})


def read(raw: str, *, now: int = EPOCH, node: KeyPair = NODE, roots: tuple[KeyPair, ...] = (ROOT,)) -> Credential:
    return read_credential(raw, now=now, node=node.did, roots=tuple(root.did for root in roots))


def forge(body: dict[str, Any], pair: KeyPair = ROOT, **head: Any) -> str:
    return forged({"alg": "EdDSA", "kid": key_id(pair.did), "typ": CREDENTIAL_TYP, **head}, body, pair)


def test_a_credential_reads_back_as_what_the_root_certified() -> None:
    credential = read(signed())
    assert (credential.root, credential.node) == (ROOT.did, NODE.did)
    assert (credential.id, credential.iat, credential.exp) == ("c-1", EPOCH, EPOCH + LIFE_S_MAX)


def test_a_common_library_reads_it_as_the_token_that_the_draft_describes() -> None:
    raw = signed()
    public = Ed25519PublicKey.from_public_bytes(ROOT.public)
    claims = jwt.decode(raw, public, algorithms=["EdDSA"], options={"verify_exp": False, "verify_iat": False})
    assert claims["cnf"] == {"jwk": {**jwk_of(NODE.public), "alg": "EdDSA"}}
    assert jwt.get_unverified_header(raw)["typ"] == "wit+jwt"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (signed(THIEF), "credential.root"),
        (signed(node=THIEF), "credential.node"),
        (forge({**payload(signed()), "cnf": {"jwk": jwk_of(THIEF.public)}}), "credential.key"),
        (forge({**payload(signed()), "exp": EPOCH + LIFE_S_MAX + 1}), "credential.life"),
        (forge({**payload(signed()), "exp": EPOCH - 1}), "credential.life"),
        (forge(payload(signed()), THIEF), "signature.kid"),
        (
            forged({"alg": "EdDSA", "kid": key_id(ROOT.did), "typ": CREDENTIAL_TYP}, payload(signed()), THIEF),
            "signature.invalid",
        ),
        (forge(payload(signed()), typ="at+jwt"), "signature.type"),
        (forge(payload(signed()), typ=None), "signature.type"),
        (forge(payload(signed()), alg="none"), "signature.algorithm"),
        (forge(payload(signed()), crit=["x"]), "signature.critical"),
        (signed().rpartition(".")[0] + ".AAAA", "signature.size"),
        (signed() + "A" * CREDENTIAL_CHARS_MAX, "credential.too_large"),
        ("", "jws.malformed"),
        (forge({k: v for k, v in payload(signed()).items() if k != "cnf"}), "claims.missing"),
        (forge({**payload(signed()), "cnf": {}}), "signature.curve"),
        (forge({**payload(signed()), "exp": str(EPOCH + 10)}), "claims.malformed"),
        (forge({**payload(signed()), "iat": float(EPOCH)}), "json.float"),
        (forge({**payload(signed()), "jti": ""}), "claims.malformed"),
    ],
)
def test_what_is_no_credential_of_this_node_and_root_is_refused_by_name(raw: str, code: str) -> None:
    assert refusal(read, raw)[1] == code


def test_a_stolen_credential_is_of_no_use_with_another_key() -> None:
    assert refusal(read, signed(), node=THIEF)[1] == "credential.node"
    stolen = {**payload(signed()), "sub": THIEF.did}
    assert refusal(read, forge(stolen, THIEF), node=THIEF)[1] in ("credential.key", "signature.kid")


def test_a_certified_node_certifies_nobody() -> None:
    """A chain has one link: root → node. NODE, certified itself, is no root for others."""
    assert read(signed())
    assert refusal(read, signed(NODE, THIEF), node=THIEF)[1] == "credential.root"
    claims = {**payload(signed(NODE, THIEF)), "chain": [signed()]}
    assert refusal(read, forge(claims, NODE), node=THIEF)[1] == "credential.root"
    assert refusal(read, forge({**payload(signed()), "sub": ROOT.did}), node=ROOT)[1] == "credential.node"


def test_clocks_may_differ_by_half_a_minute_and_no_more() -> None:
    raw = signed(life_s=600)
    for now in (EPOCH - SKEW_S, EPOCH + 600 + SKEW_S):
        assert read(raw, now=now)
    assert refusal(read, raw, now=EPOCH - SKEW_S - 1)[1] == "credential.not_yet_valid"
    assert refusal(read, raw, now=EPOCH + 600 + SKEW_S + 1)[1] == "credential.expired"


@pytest.mark.parametrize(
    ("over", "code"), [({"life_s": 0}, "life"), ({"life_s": LIFE_S_MAX + 1}, "life"), ({"node": ROOT}, "self")]
)
def test_nothing_is_signed_that_nobody_would_take(over: dict[str, Any], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        signed(**over)
    assert caught.value.code == f"credential.{code}"


@given(st.data())
def test_a_changed_character_anywhere_is_found(data: st.DataObject) -> None:
    raw = signed()
    at = data.draw(st.integers(0, len(raw) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_. \n\u4f60").filter(lambda c: c != raw[at]))
    with pytest.raises(MeshError):
        read(raw[:at] + other + raw[at + 1 :])


@given(
    st.text() | st.binary().map(lambda b: b.decode("latin-1")), st.dictionaries(st.text(), st.integers() | st.text())
)
def test_any_text_is_refused_without_harm(text: str, claims: dict[str, Any]) -> None:
    for raw in (text, forge(json.loads(json.dumps(claims, ensure_ascii=True)))):
        with pytest.raises(MeshError):
            read(raw)
