"""Orders: what was signed reads back, and nothing else reads at all."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.codec.canonical import canonical, parse_strict
from agentmesh.errors import DecodeError, MeshError, ReplayError, SignatureError, UsageError
from agentmesh.identity.jws import b64url, sign_compact, unb64url
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.order import (
    ENTRIES_MAX,
    ORDER_CHARS_MAX,
    ORDER_TYP,
    SEQ_MAX,
    SKEW_S,
    STOP_EVENT,
    Body,
    Lists,
    Resume,
    Revoke,
    Stop,
    check_time,
    parse_order,
    read_order,
    sign_order,
)

KEY, OTHER = KeyPair.generate(b"o" * 32), KeyPair.generate(b"x" * 32)
NODES = tuple(sorted(KeyPair.generate(bytes([i]) * 32).did for i in range(1, 5)))
NOW = 1_800_000_000

_texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cf")), max_size=200)
_entries = st.lists(
    st.text(string.ascii_letters + string.digits + ":-_.", min_size=1, max_size=40), max_size=8, unique=True
)
_bodies: st.SearchStrategy[Body] = st.one_of(
    st.builds(Stop, _texts, st.none() | st.integers(1, 2**35)),
    st.builds(Resume, _entries.map(tuple)),
    st.builds(Lists, _entries.map(tuple), _entries.map(tuple), _entries.map(tuple)),
    st.builds(Revoke, st.lists(st.sampled_from(NODES), unique=True).map(tuple), _texts),
)


def signed(body: Body | None = None, **more: Any) -> str:
    return sign_order(KEY, body or Stop("drill"), **{"seq": 7, "iat": NOW, "jti": "j-1", **more})


def tampered(change: Any) -> str:
    """Sign claims that were changed by hand, with the right key."""
    claims: Any = parse_strict(unb64url(signed().split(".")[1]), bytes_max=9999, depth_max=8)
    change(claims)
    return sign_compact(KEY, claims, typ=ORDER_TYP)


@given(body=_bodies, seq=st.integers(0, SEQ_MAX), audience=st.lists(st.sampled_from(NODES)).map(tuple))
def test_any_order_reads_back_as_what_was_signed(body: Body, seq: int, audience: tuple[str, ...]) -> None:
    order = read_order(sign_order(KEY, body, seq=seq, iat=NOW, jti="j", txn="t", audience=audience))
    assert (order.operator, order.body, order.seq, order.iat, order.jti, order.txn) == (
        KEY.did,
        body,
        seq,
        NOW,
        "j",
        "t",
    )
    assert order.audience == tuple(sorted(set(audience)))
    assert all(order.is_for(node) == (not audience or node in audience) for node in NODES)


def test_an_order_is_a_plain_security_event_token() -> None:
    header, payload, _ = signed().split(".")
    assert parse_strict(unb64url(header), bytes_max=999, depth_max=4)["typ"] == "secevent+jwt"  # type: ignore[index,call-overload]
    claims: Any = parse_strict(unb64url(payload), bytes_max=9999, depth_max=8)
    assert claims["sub_id"] == {"format": "did", "url": KEY.did}
    assert claims["events"] == {STOP_EVENT: {"mode": "read-only", "reason": "drill"}}
    assert claims["aud"] == "*"
    assert claims["txn"] == claims["jti"] == "j-1"


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("order.exp", lambda c: c.update(exp=NOW + 60)),
        ("order.exp", lambda c: c.update(nbf=NOW)),
        ("claims.missing", lambda c: c.pop("seq")),
        ("claims.malformed", lambda c: c.update(seq=-1)),
        ("claims.malformed", lambda c: c.update(seq=True)),
        ("claims.malformed", lambda c: c.update(seq="7")),
        ("claims.malformed", lambda c: c.update(iat=0)),
        ("claims.malformed", lambda c: c.update(jti="")),
        ("claims.malformed", lambda c: c.update(iss="did:web:example.org")),
        ("order.subject", lambda c: c["sub_id"].update(url=OTHER.did)),
        ("claims.malformed", lambda c: c.update(aud="everybody")),
        ("order.audience", lambda c: c.update(aud=[])),
        ("order.audience", lambda c: c.update(aud=[NODES[1], NODES[0]])),
        ("order.audience", lambda c: c.update(aud=[NODES[0], NODES[0]])),
        ("claims.malformed", lambda c: c.update(aud=[NODES[0]] * 65)),
        ("order.events", lambda c: c.update(events={})),
        ("order.events", lambda c: c["events"].update({"https://example.org/other": {}})),
        ("order.events", lambda c: c.update(events={"https://example.org/other": {}})),
        ("order.events", lambda c: c.update(events={STOP_EVENT: []})),
        ("order.mode", lambda c: c["events"][STOP_EVENT].update(mode="off")),
        ("claims.malformed", lambda c: c["events"][STOP_EVENT].update(reason="a\x1b[2J")),
        ("claims.malformed", lambda c: c["events"][STOP_EVENT].update(until="soon")),
    ],
)
def test_an_order_that_breaks_a_rule_is_refused_although_its_signature_holds(code: str, change: Any) -> None:
    with pytest.raises(DecodeError) as refused:
        read_order(tampered(change))
    assert refused.value.code == code


def test_an_order_under_another_name_key_type_or_algorithm_is_refused() -> None:
    claims: Any = parse_strict(unb64url(signed().split(".")[1]), bytes_max=9999, depth_max=8)
    header, payload, signature = signed().split(".")
    for raw in (
        sign_compact(OTHER, claims, typ=ORDER_TYP),
        sign_compact(KEY, claims, typ="JWT"),
        sign_compact(KEY, claims, typ=ORDER_TYP, with_jwk=True),
        f"{b64url(canonical({'alg': 'none', 'typ': ORDER_TYP}))}.{payload}.{signature}",
        f"{header}.{payload}.{'A' * 86}",
        f"{header}.{signed(seq=8).split('.')[1]}.{signature}",
    ):
        with pytest.raises(SignatureError):
            read_order(raw)


@pytest.mark.parametrize("raw", ["", "a", "a.b", "a.b.c", "x" * (ORDER_CHARS_MAX + 1), ".." * 20_000, "\ud800.a.b"])
def test_what_is_no_order_is_refused(raw: str) -> None:
    with pytest.raises(MeshError):
        parse_order(raw)


def test_a_list_that_is_too_long_is_neither_signed_nor_read() -> None:
    keys = tuple(f"tag:{i}" for i in range(ENTRIES_MAX + 1))
    with pytest.raises(UsageError) as refused:
        signed(Lists(keys[:300], keys[300:]))
    assert refused.value.code == "order.entries"
    with pytest.raises(UsageError):
        signed(Lists(deny=("same", "same")))
    long = tuple(f"{i:0>128}" for i in range(ENTRIES_MAX))
    with pytest.raises(UsageError) as large:
        signed(Lists(deny=long))
    assert large.value.code == "order.too_large"


def test_of_one_seq_the_hash_decides_so_that_all_nodes_agree() -> None:
    one, two = read_order(signed(Stop("a"))), read_order(signed(Resume()))
    assert one.rank != two.rank
    assert (one.rank > two.rank) == (one.mark > two.mark)


def test_only_what_loosens_is_refused_for_coming_from_the_future() -> None:
    ahead = {"iat": NOW + SKEW_S + 1}
    for body in (Resume(), Lists(allow=("x",))):
        check_time(read_order(signed(body, iat=NOW + SKEW_S)), NOW)
        with pytest.raises(ReplayError) as early:
            check_time(read_order(signed(body, **ahead)), NOW)
        assert early.value.code == "order.not_yet_valid"
    for body in (Stop(), Revoke(NODES[:1])):
        check_time(read_order(signed(body, **ahead)), NOW)
    check_time(read_order(signed(Resume())), NOW + 10**8)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_fail_in_another_way(raw: bytes) -> None:
    with pytest.raises(MeshError):
        read_order(raw.decode("latin-1"))


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_character_is_found(position: int, offset: int) -> None:
    raw = signed()
    at = position % len(raw)
    changed = raw[:at] + chr(33 + (ord(raw[at]) - 33 + offset) % 94) + raw[at + 1 :]
    if changed != raw:
        with pytest.raises(MeshError):
            read_order(changed)
