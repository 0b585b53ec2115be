"""Manifests: what is signed, what is taken in, and what is refused by which code."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.codec.canonical import canonical
from agentmesh.errors import DecodeError, LimitError, MeshError, ReplayError, SignatureError, UsageError
from agentmesh.identity.jws import b64url, sign_compact, sign_detached, unb64url
from agentmesh.identity.manifest import (
    EXT,
    LIFE_S_MAX,
    MANIFEST_BYTES_MAX,
    SKEW_S_MAX,
    read_record,
    sign_card,
    sign_tombstone,
)
from agentmesh.ids import key_id
from agentmesh.wire import v1
from tests.support.records import EPOCH, card, key, record, tombstone

AGENT, NODE, OTHER = key(1), key(2), key(3)
Card = dict[str, Any]


def signed(**members: Any) -> Card:
    return sign_card(AGENT, card(AGENT, NODE.did, **members))


def read(value: Any, *, now: int = EPOCH, require_signed: bool = True) -> Any:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_record(raw, now=now, require_signed=require_signed)


def forced(change: Callable[[Card], Any]) -> bytes:
    """Return a card changed beyond the rules and signed all the same, as a hostile owner could."""
    changed = card(AGENT, NODE.did)
    change(changed)
    protected, signature = sign_detached(
        AGENT, json.dumps(changed, sort_keys=True, separators=(",", ":")).encode(), typ="JOSE"
    )
    return json.dumps({**changed, "signatures": [{"protected": protected, "signature": signature}]}).encode()


def params(value: Card) -> Card:
    return value["capabilities"]["extensions"][0]["params"]


def test_a_signed_card_reads_back_as_what_was_put_in() -> None:
    manifest = read(
        signed(name="计算器", seq=7, params={"qps_budget": 5, "models": ["m"], "pricing": [{"amount": "1"}]})
    )
    assert (manifest.agent_id, manifest.node_id, manifest.name, manifest.seq) == (AGENT.did, NODE.did, "计算器", 7)
    assert (manifest.iat, manifest.exp) == (EPOCH, EPOCH + 86_400)
    assert manifest.signed
    assert not manifest.tombstone
    assert manifest.params["qps_budget"] == 5
    assert manifest.params["seq"] == "7"
    assert manifest.skills[0]["id"] == "say"
    assert manifest.description == "Repeats what it hears. 重复所听。"
    assert manifest.card["securitySchemes"] == {"dpop": {"httpAuthSecurityScheme": {"scheme": "DPoP"}}}
    assert manifest.card["supportedInterfaces"][0]["protocolBinding"] == EXT


def test_a_record_is_kept_in_canonical_form_however_it_was_spelled() -> None:
    value = signed()
    spelled = json.dumps(value, indent=3, ensure_ascii=True).encode()
    assert read(spelled).raw == canonical(value)
    assert read(spelled).mark == read(canonical(value)).mark
    assert read(read(spelled).raw) == read(spelled)


def test_signing_again_replaces_the_former_signature() -> None:
    assert sign_card(AGENT, signed()) == signed()


def test_the_protected_header_is_as_a2a_asks() -> None:
    header = json.loads(unb64url(signed()["signatures"][0]["protected"]))
    assert header == {"alg": "EdDSA", "typ": "JOSE", "kid": key_id(AGENT.did)}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: c.pop("description"), "manifest.required"),
        (lambda c: c.pop("skills"), "manifest.required"),
        (lambda c: c.update(skills=[]), "manifest.empty"),
        (lambda c: c.update(description=""), "manifest.empty"),
        (lambda c: c.update(provider={}), "manifest.empty"),
        (lambda c: c["skills"][0].update(examples=[]), "manifest.empty"),
        (lambda c: c["skills"][0].pop("tags"), "manifest.required"),
        (lambda c: c["skills"][0].update(tags="demo"), "manifest.malformed"),
        (lambda c: c["skills"].append("skill"), "manifest.malformed"),
        (lambda c: c["capabilities"].update(pushNotifications=False), "manifest.default"),
        (lambda c: c.update(iconUrl=None), "manifest.default"),
        (lambda c: params(c).update(qps_budget=0), "manifest.default"),
        (lambda c: params(c).update(qps_budget=1.5), "json.float"),
        (lambda c: params(c).update(big=2**53), "json.integer"),
        (lambda c: params(c).update({"größe": 1}), "manifest.member_name"),
        (lambda c: c.update(description="\x1b[2Jboo"), "manifest.control"),
        (lambda c: c.update(description="abc\u202edcb"), "manifest.control"),
        (lambda c: c.update(name="a b"), "manifest.name"),
        (lambda c: c.update(name=7), "manifest.malformed"),
        (lambda c: c.update(version=["1"]), "manifest.malformed"),
        (lambda c: c.update(capabilities=["x"]), "manifest.malformed"),
        (lambda c: c.update(defaultInputModes=[1]), "manifest.malformed"),
        (lambda c: c["capabilities"]["extensions"].append({"uri": EXT, "params": {"a": "b"}}), "manifest.extension"),
        (lambda c: c["capabilities"].update(extensions=[{"uri": "urn:x"}]), "manifest.extension"),
        (lambda c: c["supportedInterfaces"][0].update(url="agentmesh:///elsewhere"), "manifest.interface"),
        (lambda c: params(c).update(node_id="did:key:z6Mkwrong"), "id.malformed"),
        (lambda c: params(c).update(agent_id=7), "id.malformed"),
        (lambda c: params(c).update(seq=7), "manifest.seq"),
        (lambda c: params(c).update(seq="07"), "manifest.seq"),
        (lambda c: params(c).update(seq="-1"), "manifest.seq"),
        (lambda c: params(c).update(seq="٣"), "manifest.seq"),
        (lambda c: params(c).update(seq=str(2**53)), "manifest.seq"),
        (lambda c: params(c).update(exp=EPOCH), "manifest.time"),
        (lambda c: params(c).update(iat=True), "manifest.time"),
        (lambda c: params(c).update(exp=str(EPOCH + 5)), "manifest.time"),
        (lambda c: params(c).update(exp=EPOCH + LIFE_S_MAX + 1), "manifest.life"),
    ],
)
def test_a_card_outside_the_rules_is_refused_on_intake_though_its_signature_holds(
    change: Callable[[Card], Any], code: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        read(forced(change))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(description=""),
        lambda c: c.update(iconUrl=None),
        lambda c: params(c).update(rate=1.5),
        lambda c: params(c).update(big=2**53),
        lambda c: c["skills"][0].pop("tags"),
        lambda c: params(c).update(deep=json.loads("[" * 40 + "1" + "]" * 40)),
        lambda c: params(c).update(what=b"bytes"),
    ],
)
def test_a_card_outside_the_rules_is_never_signed(change: Callable[[Card], Any]) -> None:
    changed = card(AGENT, NODE.did)
    change(changed)
    with pytest.raises(UsageError) as caught:
        sign_card(AGENT, changed)
    assert caught.value.code.startswith("manifest.")


def test_empties_of_a_foreign_description_are_left_out_when_a_card_is_composed() -> None:
    skills = [{"id": "a", "name": "A", "description": "x\x07y", "tags": ["t", ""], "examples": [], "extra": None}]
    manifest = read(signed(skills=skills, params={"pricing": None, "models": [], "context_window": 8}))
    assert manifest.skills == [{"id": "a", "name": "A", "description": "xy", "tags": ["t"]}]
    assert set(manifest.params) == {"agent_id", "node_id", "seq", "iat", "exp", "context_window"}


def test_the_agents_own_params_cannot_replace_identity() -> None:
    manifest = read(signed(params={"agent_id": OTHER.did, "seq": "99", "exp": EPOCH + 1}))
    assert (manifest.agent_id, manifest.seq, manifest.exp) == (AGENT.did, 1, EPOCH + 86_400)


def test_another_agents_card_is_never_signed() -> None:
    with pytest.raises(UsageError) as caught:
        sign_card(OTHER, card(AGENT, NODE.did))
    assert caught.value.code == "manifest.other_key"


def test_a_card_that_would_not_travel_is_not_signed_and_names_the_size() -> None:
    with pytest.raises((LimitError, UsageError)) as caught:
        signed(description="x" * MANIFEST_BYTES_MAX)
    assert caught.value.code == "manifest.too_large"
    assert MANIFEST_BYTES_MAX == v1.MANIFEST_BYTES_MAX


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"x" * 10_000_000, "json.too_large"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "json.too_deep"),
        (b"[" * 5_000 + b"]" * 5_000, "json.too_deep"),
        (b"[]", "manifest.malformed"),
        (b"7", "manifest.malformed"),
        (b"{}", "manifest.empty"),
        (b'{"name":"echo"}', "manifest.required"),
        (b"\xff", "json.utf8"),
    ],
)
def test_bytes_that_are_no_record_are_a_decode_error(raw: bytes, code: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read(raw)
    assert caught.value.code == code


def with_header(header: dict[str, Any], signer: Any = AGENT) -> Card:
    """Return a card signed under any protected header."""
    bare = card(AGENT, NODE.did)
    protected = b64url(json.dumps(header).encode())
    signature = b64url(signer.sign(f"{protected}.{b64url(canonical(bare))}".encode()))
    return {**bare, "signatures": [{"protected": protected, "signature": signature}]}


KID = key_id(AGENT.did)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "EdDSA", "typ": "JOSE", "kid": KID},
        {"alg": "Ed25519", "typ": "JOSE", "kid": KID},
        {"alg": "EdDSA", "kid": KID},
        {"alg": "EdDSA", "typ": "JOSE", "kid": KID, "jku": "https://evil.example/keys", "jwk": {"kty": "OKP"}},
    ],
)
def test_lawful_headers_of_other_signers_are_accepted(header: dict[str, Any]) -> None:
    assert read(with_header(header)).signed


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"alg": "none", "typ": "JOSE", "kid": KID}, "signature.algorithm"),
        ({"alg": "HS256", "typ": "JOSE", "kid": KID}, "signature.algorithm"),
        ({"alg": "Ed448", "typ": "JOSE", "kid": KID}, "signature.algorithm"),
        ({"alg": ["EdDSA"], "typ": "JOSE", "kid": KID}, "signature.algorithm"),
        ({"typ": "JOSE", "kid": KID}, "signature.algorithm"),
        ({"alg": "EdDSA", "typ": "JWT", "kid": KID}, "signature.type"),
        ({"alg": "EdDSA", "typ": "agentmesh-tombstone+jwt", "kid": KID}, "signature.type"),
        ({"alg": "EdDSA", "typ": "JOSE"}, "signature.kid"),
        ({"alg": "EdDSA", "typ": "JOSE", "kid": AGENT.did}, "signature.kid"),
        ({"alg": "EdDSA", "typ": "JOSE", "kid": key_id(OTHER.did)}, "signature.kid"),
        ({"alg": "EdDSA", "typ": "JOSE", "kid": KID, "crit": ["exp"]}, "signature.critical"),
        ({"alg": "EdDSA", "typ": "JOSE", "kid": KID, "b64": False}, "signature.critical"),
    ],
)
def test_unlawful_headers_are_refused_though_the_signature_holds(header: dict[str, Any], code: str) -> None:
    with pytest.raises(SignatureError) as caught:
        read(with_header(header))
    assert caught.value.code == code


def test_a_card_signed_by_another_key_is_refused() -> None:
    with pytest.raises(SignatureError) as caught:
        read(with_header({"alg": "EdDSA", "typ": "JOSE", "kid": KID}, signer=OTHER))
    assert caught.value.code == "signature.invalid"


@pytest.mark.parametrize(
    "tamper",
    [
        lambda c: c.update(description="Something else."),
        lambda c: c.update(name="bank"),
        lambda c: params(c).update(seq="2"),
        lambda c: params(c).update(exp=EPOCH + 86_401),
        lambda c: c["skills"][0].update(id="other"),
        lambda c: c.update(extraMember="x"),
    ],
)
def test_a_card_changed_after_signing_is_refused(tamper: Callable[[Card], Any]) -> None:
    changed = copy.deepcopy(signed())
    tamper(changed)
    with pytest.raises(SignatureError) as caught:
        read(changed)
    assert caught.value.code == "signature.invalid"


def test_strangers_cannot_make_variants_of_a_record() -> None:
    value = signed()
    only = value["signatures"][0]
    last = only["signature"][-1]
    stray = only["signature"][:-1] + chr(ord(last) + 1)  # the same bytes in a lax base64 decoder, or a forged one
    for signatures in (
        [only, only],
        [{**only, "header": {"note": "x"}}],
        [{**only, "signature": only["signature"] + "="}],
        [{**only, "signature": stray}],
        [{**only, "protected": only["protected"] + "\n"}],
        [{**only, "signature": "A"}],
        [{**only, "protected": b64url(b"[]")}],
        [{**only, "protected": b64url(b'{"alg":"EdDSA","alg":"EdDSA"}')}],
        [{**only, "protected": "A" * 3000}],
        {},
        [],
        None,
        "x",
    ):
        with pytest.raises((DecodeError, SignatureError)):
            read({**value, "signatures": signatures})


def test_an_unsigned_card_is_admitted_only_where_that_is_allowed_and_is_marked() -> None:
    bare = card(AGENT, NODE.did)
    with pytest.raises(SignatureError) as caught:
        read(bare)
    assert caught.value.code == "manifest.unsigned"
    manifest = read(bare, require_signed=False)
    assert not manifest.signed
    assert manifest.raw == canonical(bare)
    assert read(signed(), require_signed=False).signed


def test_a_forged_card_is_not_admitted_as_unsigned() -> None:
    with pytest.raises(SignatureError):
        read(with_header({"alg": "EdDSA", "typ": "JOSE", "kid": KID}, signer=OTHER), require_signed=False)


@pytest.mark.parametrize(("off_s", "code"), [(-3600, "manifest.not_yet_valid"), (86_400 + 3600, "manifest.expired")])
def test_a_clock_off_by_an_hour_is_named_as_the_likely_cause(off_s: int, code: str) -> None:
    for value, require_signed in (
        (signed(), True),
        (card(AGENT, NODE.did), False),
        (tombstone(AGENT, NODE.did).raw, True),
    ):
        with pytest.raises(ReplayError) as caught:
            read(value, now=EPOCH + off_s, require_signed=require_signed)
        assert caught.value.code == code
        assert "clock" in (caught.value.hint or "")


def test_a_clock_five_minutes_behind_is_tolerated() -> None:
    assert read(signed(), now=EPOCH - SKEW_S_MAX)
    assert read(signed(), now=EPOCH + 86_400)


def test_a_tombstone_reads_back_and_is_signed() -> None:
    manifest = tombstone(AGENT, NODE.did, name="计算器", seq=9)
    assert manifest.tombstone
    assert manifest.signed
    assert (manifest.agent_id, manifest.node_id, manifest.name, manifest.seq) == (AGENT.did, NODE.did, "计算器", 9)
    assert manifest.card == {}
    assert json.loads(manifest.raw).keys() == {"tombstone"}


def dead(signer: Any = AGENT, typ: str = "agentmesh-tombstone+jwt", **change: Any) -> bytes:
    claims = {"agent_id": AGENT.did, "node_id": NODE.did, "name": "echo", "seq": "2", "iat": EPOCH, "exp": EPOCH + 60}
    claims = {name: value for name, value in {**claims, **change}.items() if value is not None}
    return canonical({"tombstone": sign_compact(signer, claims, typ=typ)})


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (dead(signer=OTHER), "signature.kid"),
        (dead(typ="JOSE"), "signature.type"),
        (dead(extra="x"), "manifest.malformed"),
        (dead(name=None), "manifest.malformed"),
        (dead(name="a b"), "manifest.malformed"),
        (dead(seq=3), "manifest.seq"),
        (dead(exp=EPOCH + LIFE_S_MAX + 1), "manifest.life"),
        (b'{"tombstone":7}', "manifest.malformed"),
        (b'{"tombstone":"a.b"}', "jws.malformed"),
        (b'{"tombstone":"..."}', "jws.malformed"),
        (b'{"tombstone":".."}', "jws.base64"),
        (b'{"tombstone":"a.b.c","name":"x"}', "manifest.malformed"),
        (canonical({"tombstone": f"{'A' * 4}.{'A' * 60_000}.{'A' * 86}"}), "jws.malformed"),
    ],
)
def test_a_tombstone_that_does_not_hold_is_refused(raw: bytes, code: str) -> None:
    with pytest.raises(MeshError) as caught:
        read(raw)
    assert caught.value.code == code


def test_a_tombstone_of_another_agent_cannot_be_made_from_ones_own() -> None:
    header, payload, signature = json.loads(dead())["tombstone"].split(".")
    claims = json.loads(unb64url(payload))
    forged = b64url(canonical({**claims, "agent_id": OTHER.did}))
    with pytest.raises(SignatureError):
        read({"tombstone": f"{header}.{forged}.{signature}"})


def test_a_tombstone_with_an_unusable_name_is_not_signed() -> None:
    with pytest.raises(UsageError):
        sign_tombstone(AGENT, node_id=NODE.did, name="a b", seq=1, iat=EPOCH, exp=EPOCH + 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["name", "skills", "capabilities", "supportedInterfaces", "signatures", "defaultInputModes"]),
    json_values,
)
def test_any_member_may_be_anything_without_harm(member: str, value: Any) -> None:
    try:
        manifest = read({**signed(), member: value}, require_signed=False)
    except (DecodeError, SignatureError):
        return
    assert manifest.card.get(member) == value


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read_without_harm(raw: bytes) -> None:
    with pytest.raises((DecodeError, SignatureError)):
        read(raw, require_signed=False)


def test_a_flipped_byte_anywhere_is_refused_or_harmless() -> None:
    raw = canonical(signed())
    original = record(AGENT, NODE.did)
    for i in range(0, len(raw), 7):
        changed = raw[:i] + bytes([raw[i] ^ 0x01]) + raw[i + 1 :]
        with pytest.raises((DecodeError, SignatureError, ReplayError)):
            read(changed)
    assert read(raw) == original
