"""Statements, node records, provider records and the reader: what is signed reads back, all else is refused by its code."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.errors import DecodeError, LimitError, MeshError, ReplayError, SignatureError, UsageError
from agentmesh.identity import node_record as nodes
from agentmesh.identity import provider as providers
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.node_record import NodeRecord, node_body, read_node_record, sign_node_record
from agentmesh.identity.provider import Provider, read_provider, sign_provider
from agentmesh.identity.reader import Reader
from agentmesh.identity.statement import STATEMENT_BYTES_MAX, read_statement, sign_statement
from agentmesh.ids import AgentId, Key, dht_key

NODE, AGENT = KeyPair(bytes(range(32))), KeyPair(bytes(range(1, 33)))
NOW = 1_800_000_000
AT = Key(bytes(range(64, 96)))


def node_record(**fields: Any) -> bytes:
    given_: dict[str, Any] = {"seq": 1, "iat": NOW, "wire": 1, "addresses": ("udp:192.0.2.7:6376",), **fields}
    return sign_node_record(NODE, node_body(**given_))


def provider(**fields: Any) -> bytes:
    given_: dict[str, Any] = {"agent": AgentId(AGENT.did), "seq": 1, "iat": NOW, "addresses": (), **fields}
    return sign_provider(NODE, AT, **given_)


def code_of(call: Any, *args: Any, **kwargs: Any) -> tuple[type[MeshError], str]:
    with pytest.raises(MeshError) as caught:
        call(*args, **kwargs)
    return type(caught.value), caught.value.code


def spellings(raw: bytes) -> list[bytes]:
    """Spell a statement with longer headers: the same values, the same signature, other bytes."""
    public, body, signature = msgspec.msgpack.decode(raw)
    return [
        b"\xdc\x00\x03" + raw[1:],
        b"\xdd\x00\x00\x00\x03" + raw[1:],
        b"\x93\xc5\x00\x20" + public + raw[35:],
        b"\x93\xc6\x00\x00\x00\x20" + public + raw[35:],
        raw[:-66] + b"\xc5\x00\x40" + signature,
        raw + b"\xc0",
        msgspec.msgpack.encode([public, body, signature, None]),
        msgspec.msgpack.encode([public.hex(), body, signature]),
        msgspec.msgpack.encode({"public": public, "body": body, "signature": signature}),
    ]


# -- statements -------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=2_000), st.binary(max_size=40).filter(lambda c: b"\n" not in c))
def test_a_statement_reads_back_in_its_own_context(body: bytes, context: bytes) -> None:
    raw = sign_statement(NODE, context, body)
    assert read_statement(raw, context) == (NODE.did, body)
    assert code_of(read_statement, raw, context + b"x") == (SignatureError, "signature.invalid")


def test_any_flipped_bit_of_a_statement_is_refused() -> None:
    raw = sign_statement(NODE, b"node", b"body")
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((DecodeError, SignatureError)):
            read_statement(bytes(flipped), b"node")


@pytest.mark.parametrize("spelling", range(9))
def test_another_spelling_of_a_statement_is_refused_though_its_signature_holds(spelling: int) -> None:
    raw = node_record()
    other = spellings(raw)[spelling]
    assert other != raw
    assert code_of(read_node_record, other, now=NOW) == (DecodeError, "statement.malformed")


def test_a_context_cannot_reach_into_the_body() -> None:
    assert code_of(sign_statement, NODE, b"no\nde", b"x") == (UsageError, "statement.context")
    raw = sign_statement(NODE, b"node", b"x\ny")
    assert code_of(read_statement, raw, b"node x") == (SignatureError, "signature.invalid")


def test_a_statement_is_bounded_on_both_sides() -> None:
    assert code_of(sign_statement, NODE, b"node", bytes(STATEMENT_BYTES_MAX)) == (LimitError, "statement.too_large")
    large = msgspec.msgpack.encode([NODE.public, bytes(STATEMENT_BYTES_MAX), bytes(64)])
    assert code_of(read_statement, large, b"node") == (DecodeError, "statement.too_large")


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_as_a_statement_without_harm(raw: bytes) -> None:
    with pytest.raises((DecodeError, SignatureError)):
        read_statement(raw, b"node")


# -- node records -----------------------------------------------------------------------------------------------------

_printable = st.characters(codec="utf-8", categories=["L", "N", "P"])


@given(
    seq=st.integers(1, 2**53 - 1),
    wire=st.integers(1, 100),
    addresses=st.lists(st.from_regex(r"[a-z][a-z0-9+.-]{0,15}:[!-~]{1,239}", fullmatch=True), max_size=8).map(tuple),
    life_s=st.integers(1, nodes.LIFE_S_MAX),
    site=st.from_regex(r"([a-z0-9][a-z0-9._-]{0,31})?", fullmatch=True),
    capacity=st.integers(0, nodes.CAPACITY_MAX),
    leaving=st.booleans(),
    sick=st.lists(st.binary(min_size=8, max_size=8), max_size=nodes.SICK_MAX).map(tuple),
    name=st.text(_printable, max_size=32),
)
def test_a_node_record_reads_back_as_what_was_put_in(**fields: Any) -> None:
    raw = node_record(**fields)
    record = read_node_record(raw, now=NOW)
    assert {name: getattr(record, name) for name in fields if name != "life_s"} == {
        name: value for name, value in fields.items() if name != "life_s"
    }
    assert (record.node_id, record.key, record.raw) == (NODE.did, dht_key(NODE.public), raw)
    assert (record.iat, record.exp) == (NOW, NOW + fields["life_s"])


GOOD: list[Any] = [1, NOW, 60, 1, ["udp:192.0.2.7:1"], "", 0, False, [], ""]


def forced(place: int, value: Any) -> bytes:
    """Return a record with one field beyond the rules, signed all the same, as a hostile node could."""
    body = list(GOOD)
    body[place] = value
    return sign_statement(NODE, nodes.CONTEXT, msgspec.msgpack.encode(body))


@pytest.mark.parametrize(
    ("place", "value", "code"),
    [
        (0, 0, "node_record.number"),
        (0, 2**53, "node_record.number"),
        (0, True, "node_record.malformed"),
        (0, 1.5, "node_record.malformed"),
        (1, 0, "node_record.number"),
        (1, -5, "node_record.number"),
        (2, 0, "node_record.number"),
        (2, nodes.LIFE_S_MAX + 1, "node_record.number"),
        (3, 0, "node_record.number"),
        (4, ["udp:a"] * 9, "node_record.address"),
        (4, [""], "node_record.address"),
        (4, ["192.0.2.7:1"], "node_record.address"),
        (4, ["udp:a b"], "node_record.address"),
        (4, ["udp:\x1b[2J"], "node_record.address"),
        (4, ["udp:" + "x" * 240], "node_record.address"),
        (4, ["udp:a\n"], "node_record.address"),
        (4, [b"udp:a"], "node_record.malformed"),
        (5, "Berlin", "node_record.site"),
        (5, "a\n", "node_record.site"),
        (5, "x" * 33, "node_record.site"),
        (6, 5, "node_record.capacity"),
        (6, -1, "node_record.capacity"),
        (7, 1, "node_record.malformed"),
        (8, [bytes(8)] * 65, "node_record.sick"),
        (8, [bytes(7)], "node_record.sick"),
        (9, "x" * 33, "node_record.name"),
        (9, "a\x1b[31m", "node_record.name"),
        (9, "\u202egnirts", "node_record.name"),
    ],
)
def test_a_node_record_outside_the_rules_is_refused_though_its_signature_holds(
    place: int, value: Any, code: str
) -> None:
    assert read_node_record(forced(0, 1), now=NOW).seq == 1
    assert code_of(read_node_record, forced(place, value), now=NOW) == (DecodeError, code)


def test_a_node_record_of_a_wrong_shape_or_context_is_refused() -> None:
    for body in (b"", b"\xc1", msgspec.msgpack.encode([*GOOD, 1]), msgspec.msgpack.encode(GOOD[:-1]), b"\x91" * 2_000):
        raw = sign_statement(NODE, nodes.CONTEXT, body)
        assert code_of(read_node_record, raw, now=NOW) == (DecodeError, "node_record.malformed")
    raw = sign_statement(NODE, b"zone", msgspec.msgpack.encode(GOOD))
    assert code_of(read_node_record, raw, now=NOW) == (SignatureError, "signature.invalid")


def test_nothing_out_of_range_is_signed() -> None:
    for field, value, code in [
        ("seq", 0, "node_record.number"),
        ("site", "Berlin", "node_record.site"),
        ("addresses", ("nowhere",), "node_record.address"),
        ("sick", (b"x",), "node_record.sick"),
        ("capacity", 9, "node_record.capacity"),
    ]:
        assert code_of(node_record, **{field: value}) == (UsageError, code)
    cut = read_node_record(node_record(addresses=("udp:a",) * 9, sick=(bytes(8),) * 99, name="n" * 40), now=NOW)
    assert (len(cut.addresses), len(cut.sick), len(cut.name)) == (8, 64, 32)


def test_a_node_record_holds_from_a_little_before_its_time_until_its_end() -> None:
    raw = node_record(life_s=100)
    for now in (NOW - nodes.SKEW_S_MAX, NOW, NOW + 100):
        assert read_node_record(raw, now=now).seq == 1
    early, late = NOW - nodes.SKEW_S_MAX - 1, NOW + 101
    assert code_of(read_node_record, raw, now=early) == (ReplayError, "node_record.not_yet_valid")
    assert code_of(read_node_record, raw, now=late) == (ReplayError, "node_record.expired")


# -- provider records -------------------------------------------------------------------------------------------------


@given(
    seq=st.integers(1, 2**53 - 1),
    addresses=st.lists(st.from_regex(r"udp:[!-~]{1,60}", fullmatch=True), max_size=3).map(tuple),
    life_s=st.integers(1, providers.LIFE_S_MAX),
)
def test_a_provider_record_reads_back_under_its_own_key_only(seq: int, addresses: tuple[str, ...], life_s: int) -> None:
    raw = provider(seq=seq, addresses=addresses, life_s=life_s)
    found = read_provider(raw, AT, now=NOW)
    assert (found.key, found.agent_id, found.node_id, found.raw) == (AT, AGENT.did, NODE.did, raw)
    assert (found.seq, found.addresses, found.exp) == (seq, addresses, NOW + life_s)
    elsewhere = Key(bytes(32))
    assert code_of(read_provider, raw, elsewhere, now=NOW) == (SignatureError, "signature.invalid")


@pytest.mark.parametrize(
    ("place", "value", "code"),
    [
        (0, bytes(31), "provider.agent"),
        (0, "a" * 32, "provider.malformed"),
        (1, 0, "provider.number"),
        (1, 2**53, "provider.number"),
        (2, 0, "provider.number"),
        (3, 0, "provider.number"),
        (3, providers.LIFE_S_MAX + 1, "provider.number"),
        (4, ["udp:a"] * 4, "provider.address"),
        (4, ["udp:a b"], "provider.address"),
    ],
)
def test_a_provider_record_outside_the_rules_is_refused_though_its_signature_holds(
    place: int, value: Any, code: str
) -> None:
    body: list[Any] = [AGENT.public, 1, NOW, 60, []]
    context = b"provider " + AT.hex().encode()
    assert read_provider(sign_statement(NODE, context, msgspec.msgpack.encode(body)), AT, now=NOW).seq == 1
    body[place] = value
    raw = sign_statement(NODE, context, msgspec.msgpack.encode(body))
    assert code_of(read_provider, raw, AT, now=NOW) == (DecodeError, code)


def test_a_provider_record_holds_for_an_hour_at_most_and_nothing_out_of_range_is_signed() -> None:
    raw = provider()
    assert read_provider(raw, AT, now=NOW + providers.LIFE_S_MAX).seq == 1
    late, early = NOW + providers.LIFE_S_MAX + 1, NOW - providers.SKEW_S_MAX - 1
    assert code_of(read_provider, raw, AT, now=late) == (ReplayError, "provider.expired")
    assert code_of(read_provider, raw, AT, now=early) == (ReplayError, "provider.not_yet_valid")
    assert code_of(provider, seq=0) == (UsageError, "provider.number")
    assert code_of(provider, life_s=providers.LIFE_S_MAX + 1) == (UsageError, "provider.number")


@given(st.data())
def test_any_change_of_a_signed_record_is_refused(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([node_record(), provider()])))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    for read in (lambda r: read_node_record(r, now=NOW), lambda r: read_provider(r, AT, now=NOW)):
        with pytest.raises((DecodeError, SignatureError)):
            read(bytes(raw))


# -- the reader -------------------------------------------------------------------------------------------------------


def test_the_reader_checks_a_signature_once_and_the_time_always(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentmesh.identity import statement

    checked: list[bytes] = []
    real = statement.verify
    monkeypatch.setattr(statement, "verify", lambda p, m, s: (checked.append(m), real(p, m, s))[1])
    reader, raw, value = Reader(), node_record(life_s=100), provider(life_s=100)
    assert reader.node(raw, NOW) is reader.node(bytes(bytearray(raw)), NOW + 100)
    assert reader.provider(value, AT, NOW) is reader.provider(value, AT, NOW + 100)
    assert len(checked) == 2
    assert code_of(reader.node, raw, NOW + 101) == (ReplayError, "node_record.expired")
    assert code_of(reader.node, raw, NOW - 999) == (ReplayError, "node_record.not_yet_valid")
    assert code_of(reader.provider, value, AT, NOW + 101) == (ReplayError, "provider.expired")
    assert len(checked) == 2


def test_the_reader_never_takes_a_record_for_another_key_or_kind() -> None:
    reader, raw, value = Reader(), node_record(), provider()
    reader.node(raw, NOW)
    reader.provider(value, AT, NOW)
    assert code_of(reader.provider, value, Key(bytes(32)), NOW) == (SignatureError, "signature.invalid")
    assert code_of(reader.node, value, NOW) == (SignatureError, "signature.invalid")
    assert code_of(reader.provider, raw, AT, NOW) == (SignatureError, "signature.invalid")


def test_the_reader_remembers_no_failure_and_a_bounded_number() -> None:
    reader = Reader(memory_max=4)
    raw = node_record()
    bad = raw[:-1] + bytes([raw[-1] ^ 1])
    for _ in range(2):
        assert code_of(reader.node, bad, NOW) == (SignatureError, "signature.invalid")
    kept = [reader.node(node_record(seq=n), NOW) for n in range(1, 10)]
    reader.assert_invariants()
    assert reader.node(kept[-1].raw, NOW) is kept[-1]
    assert reader.node(kept[0].raw, NOW) is not kept[0]


def test_large_records_cannot_fill_the_memory_of_the_reader() -> None:
    from agentmesh.identity.manifest import sign_card
    from tests.support.records import EPOCH, card
    from tests.support.records import key as key_of

    reader = Reader(memory_max=20)  # and so 40 KB
    for n in range(1, 12):
        signed = sign_card(key_of(1), card(key_of(1), NODE.did, seq=n, description="x" * 15_000))
        manifest = reader.manifest(msgspec.json.encode(signed), EPOCH, require_signed=True)
        assert manifest.seq == n
        reader.assert_invariants()
    raw = msgspec.json.encode(signed)
    assert reader.manifest(raw, EPOCH, require_signed=True) is manifest
    assert code_of(reader.manifest, raw, EPOCH - 10_000, require_signed=True) == (
        ReplayError,
        "manifest.not_yet_valid",
    )


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_by_the_reader_without_harm(raw: bytes) -> None:
    reader = Reader(memory_max=2)
    for read in (
        lambda: reader.node(raw, NOW),
        lambda: reader.provider(raw, AT, NOW),
        lambda: reader.manifest(raw, NOW, require_signed=False),
    ):
        with pytest.raises((DecodeError, SignatureError)):
            read()


def test_records_cannot_be_changed_once_read() -> None:
    record: NodeRecord = read_node_record(node_record(), now=NOW)
    found: Provider = read_provider(provider(), AT, now=NOW)
    for value in (record, found):
        with pytest.raises(AttributeError):
            value.seq = 2  # type: ignore[misc]
