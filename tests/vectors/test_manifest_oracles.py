"""Our signatures in other people's verifiers, and theirs in ours: PyJWT and the A2A SDK are the oracles."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from a2a.types import AgentCard
from a2a.utils.signing import (
    InvalidSignaturesError,
    ProtectedHeader,
    create_agent_card_signer,
    create_signature_verifier,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.codec.canonical import canonical
from agentmesh.errors import UsageError
from agentmesh.identity.jws import b64url
from agentmesh.identity.manifest import TOMBSTONE_TYP, read_record, sign_card, sign_tombstone
from agentmesh.ids import key_id, public_key_of
from tests.support.records import EPOCH, card, key

AGENT, NODE = key(1), key(2)


def jwk(public: bytes) -> jwt.PyJWK:
    return jwt.PyJWK({"kty": "OKP", "crv": "Ed25519", "x": b64url(public)}, algorithm="EdDSA")


def private(pair: Any) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(pair.seed)


def provider(kid: str | None, _jku: str | None) -> jwt.PyJWK:
    """Decode the key from the kid, as any outsider can: it is a did:key URL."""
    assert kid is not None
    return jwk(public_key_of(kid.partition("#")[0]))


verify_as_a2a = create_signature_verifier(provider, ["EdDSA"])

CARDS = [
    {},
    {"name": "计算器", "description": "四则运算。支持中文、emoji 😀 und Umlaute äöü.", "version": "二"},
    {"description": 'quotes " and \\ and </script> and \u2060 and \x7f'.replace("\x7f", "")},
    {"params": {"qps_budget": 5, "context_window": 2**53 - 1, "pricing": [{"amount": "100", "asset": "usd"}]}},
    {"params": {"nested": json.loads("[" * 20 + '"x"' + "]" * 20)}},
    {"streaming": False, "input_modes": ["text/plain", "application/json"]},
    {"params": {"Z": "1", "a": "2", "_": "3", "A.b": "4", "a b": "5"}},
]


@pytest.mark.parametrize("members", CARDS)
def test_the_a2a_sdk_verifies_our_signed_card(members: dict[str, Any]) -> None:
    signed = sign_card(AGENT, card(AGENT, NODE.did, **members))
    verify_as_a2a(ParseDict(json.loads(canonical(signed)), AgentCard()))


def test_the_a2a_sdk_refuses_our_card_when_it_was_changed() -> None:
    signed = sign_card(AGENT, card(AGENT, NODE.did))
    with pytest.raises(InvalidSignaturesError):
        verify_as_a2a(ParseDict({**signed, "description": "changed"}, AgentCard()))


@pytest.mark.parametrize("members", CARDS)
def test_we_verify_a_card_that_the_a2a_sdk_signed(members: dict[str, Any]) -> None:
    header = ProtectedHeader(kid=key_id(AGENT.did), alg="EdDSA", jku=None, typ="JOSE")
    message = ParseDict(card(AGENT, NODE.did, **members), AgentCard())
    theirs = create_agent_card_signer(private(AGENT), header)(message)  # type: ignore[arg-type]
    # Their JSON has protobuf's whole floats; any JSON writer of another language may print them as integers.
    raw = canonical(whole(MessageToDict(theirs)))
    manifest = read_record(raw, now=EPOCH, require_signed=True)
    assert manifest.agent_id == AGENT.did


def whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def test_we_verify_a_card_that_pyjwt_signed() -> None:
    bare = card(AGENT, NODE.did, name="回声")
    token = jwt.api_jws.encode(
        canonical(bare), private(AGENT), algorithm="EdDSA", headers={"kid": key_id(AGENT.did), "typ": "JOSE"}
    )
    protected, _, signature = token.split(".")
    raw = canonical({**bare, "signatures": [{"protected": protected, "signature": signature}]})
    assert read_record(raw, now=EPOCH, require_signed=True).name == "回声"


def test_pyjwt_verifies_our_tombstone_and_we_verify_one_of_pyjwt() -> None:
    raw = sign_tombstone(AGENT, node_id=NODE.did, name="echo", seq=4, iat=EPOCH, exp=EPOCH + 60)
    token = json.loads(raw)["tombstone"]
    claims = jwt.decode(
        token, jwk(AGENT.public), algorithms=["EdDSA"], options={"verify_exp": False, "verify_iat": False}
    )
    assert claims == {
        "agent_id": AGENT.did,
        "node_id": NODE.did,
        "name": "echo",
        "seq": "4",
        "iat": EPOCH,
        "exp": EPOCH + 60,
    }
    theirs = jwt.encode(
        claims, private(AGENT), algorithm="EdDSA", headers={"kid": key_id(AGENT.did), "typ": TOMBSTONE_TYP}
    )
    assert read_record(canonical({"tombstone": theirs}), now=EPOCH, require_signed=True).tombstone


def through_protobuf(value: dict[str, Any]) -> bytes:
    """Canonicalise as the A2A SDK does: through protobuf, without empties, by its own JCS."""
    from a2a.utils import signing

    return signing._canonicalize_agent_card(ParseDict(value, AgentCard())).encode()  # pyright: ignore[reportPrivateUsage]


def sorted_dump(value: dict[str, Any]) -> bytes:
    """Canonicalise as a plain script would."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


safe_texts = st.text(min_size=1, max_size=20)
safe_values = st.recursive(
    safe_texts | st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans(),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.text("abcXYZ_.-9", min_size=1, max_size=6), inner, min_size=1, max_size=3)
    ),
    max_leaves=10,
)


@given(safe_texts, safe_texts, st.dictionaries(st.text("abcXYZ_09", min_size=1, max_size=8), safe_values, max_size=4))
def test_a_card_that_we_sign_has_one_canonical_form_for_every_reader(
    description: str, skill: str, params: dict[str, Any]
) -> None:
    made = card(AGENT, NODE.did, description=description, params=params)
    made["skills"][0]["description"] = skill
    try:
        sign_card(AGENT, made)
    except UsageError:
        return  # outside the canonical-safe rule: nobody will ever see it signed
    assert canonical(made) == sorted_dump(made) == through_protobuf(made)


def test_the_rule_is_needed_the_readers_disagree_on_what_it_refuses() -> None:
    for change in ({"iconUrl": ""}, {"provider": {}}):
        made = {**card(AGENT, NODE.did), **change}
        assert canonical(made) != through_protobuf(made)
        with pytest.raises(UsageError):
            sign_card(AGENT, made)
