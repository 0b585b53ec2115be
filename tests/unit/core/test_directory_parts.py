"""The parts of the directory that stand alone: range sums against a dumb model, wants, reports, search keys."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.core.directory.messages import AGENT, NODE
from agentmesh.core.directory.nodes import node_position, word_value
from agentmesh.core.directory.ranges import RangeSet, children, is_prefix
from agentmesh.core.directory.wants import Wants
from agentmesh.errors import DecodeError, ReplayError, SignatureError, UsageError
from agentmesh.identity.search_keys import KEYS_MAX, search_keys
from agentmesh.identity.statement import sign_statement
from agentmesh.identity.zone_report import (
    DEAD,
    LIFE_S,
    LIVES,
    ROWS_MAX,
    read_zone_report,
    zone_report_body,
)
from agentmesh.ids import NodeId, capability_key, dht_key
from tests.support.records import EPOCH, key, record, tombstone

positions = st.binary(min_size=1, max_size=2).map(lambda head: head.ljust(32, b"\x07"))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), positions, st.integers(0, 2**128 - 1)), max_size=40))
def test_range_sums_are_those_of_a_plain_dict_whatever_came_and_went(steps: list[tuple[bool, bytes, int]]) -> None:
    held: RangeSet[bytes] = RangeSet()
    model: dict[bytes, int] = {}
    for put, position, value in steps:
        if put:
            held.put(position, value, position)
            model[position] = value
        else:
            held.discard(position)
            model.pop(position, None)
        held.assert_invariants()
    assert len(held) == len(model)
    for prefix in ("", "0", "07", "f", "abc", "00070", "07" * 32):
        inside = sorted(p for p in model if p.hex().startswith(prefix))
        assert held.items(prefix) == inside
        assert held.total(prefix) == (len(inside), sum(model[p] for p in inside) % 2**128)
    for position in model:
        assert held.get(position) == position
    assert held.get(b"\x01" * 32) is None


def test_the_children_of_a_range_are_the_range() -> None:
    held: RangeSet[int] = RangeSet()
    rng = random.Random(1)
    for number in range(500):
        held.put(rng.randbytes(32), rng.getrandbits(128), number)
    for prefix in ("", "3", "a0"):
        parts = [held.total(child) for child in children(prefix)]
        count, total = held.total(prefix)
        assert (count, total) == (sum(c for c, _ in parts), sum(t for _, t in parts) % 2**128)
    assert children("0" * 64) == []


@pytest.mark.parametrize("text", ["A", "g", "0x", " ", "0" * 65, "٣", "é"])
def test_what_is_no_prefix_of_hex_digits_is_refused(text: str) -> None:
    assert not is_prefix(text)
    assert all(map(is_prefix, ("", "0f", "a" * 64)))


def test_words_and_agents_never_share_a_position() -> None:
    own = dht_key(key(1).public)
    assert node_position(own) != own
    assert node_position(node_position(own)) == own
    assert word_value(NODE, own, 1, 0) != word_value(NODE, own, 2, 0) != word_value(AGENT, own, 2, 0)


def test_a_want_is_asked_once_then_again_after_a_while_and_of_whom_is_known() -> None:
    wants = Wants(2.0, 3)
    low, high = (True, 1, False, 0), (True, 2, False, 0)
    me, other = NodeId(key(1).did), NodeId(key(2).did)
    assert wants.ask(b"a", low, me, 0.0)
    assert not wants.ask(b"a", low, other, 1.0)
    assert wants.asked_of(b"a", me)
    assert not wants.asked_of(b"a", other)
    assert wants.ask(b"a", high, other, 1.0), "a newer one is another matter"
    assert wants.ask(b"a", high, me, 3.1)
    wants.came(b"a")
    assert wants.ask(b"a", low, me, 3.2)
    for each in (b"b", b"c", b"d"):
        assert wants.ask(each, low, me, 4.0)
    assert len(wants) == 1, "bounded by forgetting"
    wants.expire(20.0)
    assert len(wants) == 0


# Zone reports


def signed(owner: int, **members: object) -> bytes:
    fields: dict[str, object] = {"site": "", "depth": 0, "seq": 5, "iat": EPOCH, "rows": ((b"x" * 8, 3, DEAD),)}
    return sign_statement(key(owner), b"zone", zone_report_body(**{**fields, **members}))  # pyright: ignore[reportArgumentType]


def test_a_zone_report_says_what_was_signed() -> None:
    own = dht_key(key(1).public)
    report = read_zone_report(signed(1, depth=64, rows=((own[:8], 7, LIVES),), site="lab"), now=EPOCH)
    assert (report.reporter, report.site, report.depth, report.seq) == (key(1).did, "lab", 64, 5)
    assert report.rows == ((own[:8], 7, LIVES),)
    assert not report.grave
    assert read_zone_report(signed(1), now=EPOCH).grave


def test_a_reporter_can_speak_of_its_own_zone_only() -> None:
    own = dht_key(key(1).public)
    other = bytes([own[0] ^ 0x80]) + own[1:8]
    with pytest.raises(DecodeError, match="outside"):
        read_zone_report(signed(1, depth=1, rows=((own[:8], 1, LIVES), (other, 1, DEAD))), now=EPOCH)


def test_reports_of_one_zone_have_one_name_and_those_of_others_have_not() -> None:
    near = [read_zone_report(signed(n), now=EPOCH).zone_key for n in (1, 2)]
    assert near[0] == near[1]
    assert read_zone_report(signed(1, site="b"), now=EPOCH).zone_key != near[0]
    assert read_zone_report(signed(1, depth=1, rows=()), now=EPOCH).zone_key != near[0]


def test_zone_reports_out_of_time_or_forged_are_refused() -> None:
    with pytest.raises(ReplayError) as error:
        read_zone_report(signed(1), now=EPOCH + LIFE_S + 1)
    assert error.value.code == "zone_report.expired"
    with pytest.raises(ReplayError) as error:
        read_zone_report(signed(1), now=EPOCH - 301)
    assert error.value.code == "zone_report.not_yet_valid"
    forged = bytearray(signed(1))
    forged[-20] ^= 1
    with pytest.raises(SignatureError):
        read_zone_report(bytes(forged), now=EPOCH)
    with pytest.raises(SignatureError):
        read_zone_report(sign_statement(key(1), b"node", b"\x90"), now=EPOCH)


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 65},
        {"seq": 0},
        {"seq": (EPOCH + 2) * 1000},
        {"site": "Not a site"},
        {"rows": ((b"short", 1, DEAD),)},
        {"rows": ((b"x" * 8, -1, DEAD),)},
        {"rows": ((b"x" * 8, 1, 3),)},
        {"rows": ((b"x" * 8, 1, DEAD),) * (ROWS_MAX + 1)},
    ],
)
def test_what_no_honest_reporter_writes_is_neither_signed_nor_read(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        signed(1, **change)


def test_a_report_of_a_whole_zone_is_small() -> None:
    rows = tuple((dht_key(key(n).public)[:8], EPOCH + n, n == 3) for n in range(16))
    assert len(signed(1, rows=rows)) < 450


# Search keys


def test_an_agent_is_found_by_itself_its_name_its_skills_and_their_tags() -> None:
    skills = [{"id": "sum", "name": "Sum", "description": "Adds.", "tags": ["math", "Math", "adds"]}]
    manifest = record(key(1), key(2).did, name="adder", skills=skills)
    assert search_keys(manifest) == (
        dht_key(key(1).public),
        *(capability_key(text) for text in ("adder", "sum", "math", "adds")),
    )
    assert search_keys(tombstone(key(1), key(2).did)) == (dht_key(key(1).public),)


def test_a_card_of_a_thousand_tags_has_few_keys() -> None:
    skills = [{"id": f"s{n}", "name": "S", "description": "d", "tags": [f"t{n}a", f"t{n}b"]} for n in range(300)]
    assert len(search_keys(record(key(1), key(2).did, skills=skills))) == KEYS_MAX
