"""Subjects, patterns, rules and the judge of publications."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.machine import Outbox, WallTime
from agentmesh.core.messages import Delivered
from agentmesh.core.topics.config import TopicsConfig
from agentmesh.core.topics.intake import TOPIC, TopicHeard, TopicIntake
from agentmesh.core.topics.rules import RULES_MAX, Rule, check_rules, may, rule_of
from agentmesh.core.topics.subjects import PatternTable, check_pattern, is_subject, matches, overlaps
from agentmesh.errors import LimitError, MeshError, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.publication import Publication, read_publication, sign_publication
from agentmesh.ids import NodeId

KEY = KeyPair.generate(b"p" * 32)
OTHER = KeyPair.generate(b"o" * 32)
UNIX_S = 1_700_000_000.0
VIA = NodeId(OTHER.did)

_word = st.sampled_from(["a", "b", "c1", "x-y", "Z_"])
_subjects = st.lists(_word, min_size=1, max_size=5).map(".".join)
_patterns = st.tuples(st.lists(_word | st.just("*"), max_size=4), st.booleans()).map(
    lambda made: ".".join([*made[0], *([">"] if made[1] or not made[0] else [])])
)


def model(pattern: str) -> re.Pattern[str]:
    """The same pattern as a regular expression."""
    words = [r"[^.]+" if w == "*" else r"[^.]+(?:\.[^.]+)*" if w == ">" else re.escape(w) for w in pattern.split(".")]
    return re.compile(r"\.".join(words))


@given(_patterns, _subjects)
def test_a_pattern_fits_what_its_regular_expression_fits(pattern: str, subject: str) -> None:
    assert matches(pattern, subject) is bool(model(pattern).fullmatch(subject))


@given(st.lists(_patterns, max_size=20), st.lists(st.integers(0, 19), max_size=10), _subjects)
def test_a_table_finds_the_patterns_that_fit_whatever_came_and_went(
    patterns: list[str], gone: list[int], subject: str
) -> None:
    table: PatternTable[int] = PatternTable(100)
    for place, pattern in enumerate(patterns):
        table.add(pattern, place)
    left = dict(enumerate(patterns))
    for place in gone:
        assert table.remove(patterns[place] if place < len(patterns) else "a", place) is (place in left)
        left.pop(place, None)
    assert len(table) == len(left)
    assert sorted(table.match(subject)) == [place for place, pattern in left.items() if matches(pattern, subject)]


@given(_patterns, _patterns, _subjects)
def test_two_patterns_that_fit_one_subject_overlap(one: str, other: str, subject: str) -> None:
    if matches(one, subject) and matches(other, subject):
        assert overlaps(one, other)
    assert overlaps(one, other) is overlaps(other, one)


def test_two_patterns_that_no_subject_fits_do_not_overlap() -> None:
    subjects = [".".join(words) for n in (1, 2, 3) for words in product("ab", repeat=n)]
    patterns = ["a", "a.b", "*", "*.b", "a.>", ">", "b.*.a", "*.>", "a.*"]
    for one, other in product(patterns, repeat=2):
        assert overlaps(one, other) is any(matches(one, s) and matches(other, s) for s in subjects), (one, other)


@pytest.mark.parametrize(
    "text",
    ["", ".", "a.", ".a", "a..b", "a b", "ä", "a/b", "*", "a.>", "a$b", "a.$b", "x" * 257, ".".join("a" * 17), "a\n"],
)
def test_what_is_no_subject_is_refused(text: str) -> None:
    assert not is_subject(text)


@pytest.mark.parametrize(
    "text", ["", "a.>.b", "a*", ">.a", "a.b>", "$", "*.$a", "x" * 257, ".".join("*" * 17), "a.*\n"]
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as met:
        check_pattern(text)
    assert met.value.code == "topic.pattern"


def test_subjects_of_the_mesh_are_found_only_by_their_own_first_word() -> None:
    table: PatternTable[str] = PatternTable(10)
    for pattern in (">", "*.jobs", "$topics.>", "$topics.*"):
        table.add(pattern, pattern)
    assert table.match("$topics.jobs") == ["$topics.>", "$topics.*"]
    assert [p for p in (">", "*.jobs", "$topics.>") if matches(p, "$topics.jobs")] == ["$topics.>"]


def test_a_full_table_refuses_and_stays_as_it_is() -> None:
    table: PatternTable[int] = PatternTable(2)
    table.add("a", 1)
    table.add("a", 1)
    with pytest.raises(LimitError):
        table.add("b", 1)
    assert table.match("b") == []
    assert table.remove("a", 1)
    assert table.match("a") == [1]
    assert table.remove("a", 1)
    assert not table.remove("a", 1)
    assert table.match("a") == []


def test_a_million_patterns_that_come_and_go_leave_nothing_behind() -> None:
    table: PatternTable[int] = PatternTable(1_000)
    for i in range(20_000):
        table.add(f"t{i}.x.y", i)
        assert table.remove(f"t{i}.x.y", i)
    assert len(table) == 0
    assert table.branches == 1


def test_the_first_rule_that_fits_decides() -> None:
    rules = (Rule("ops.secret", ("a",), ("a", "org:x")), Rule("ops.>", ("b",)), Rule("*", (), ()))
    assert rule_of(rules, "ops.secret") is rules[0]
    assert rule_of(rules, "ops.other") is rules[1]
    assert rule_of(rules, "x.y") is None
    assert may(rules[0].subscribe, {"did", "org:x"})
    assert not may(rules[0].subscribe, {"b"})
    assert may(rules[1].subscribe, set())
    assert not may(rules[2].publish, {"anybody"})


@pytest.mark.parametrize(
    "rules",
    [
        [Rule("a..b")],
        [Rule("a", ("",))],
        [Rule("a", ("x" * 300,))],
        [Rule("a")] * (RULES_MAX + 1),
        [Rule("a", ("n",) * 300)],
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: list[Rule]) -> None:
    with pytest.raises(MeshError):
        check_rules(rules)


# Publications


def publication(**changed: Any) -> Publication:
    given_: dict[str, Any] = {
        "id": b"i" * 16,
        "publisher": KEY.public,
        "ts_ms": int(UNIX_S * 1000),
        "subject": "a.b",
        "payload": b"hello",
    }
    return Publication(**{**given_, **changed})


def test_a_signed_publication_reads_back_as_what_was_put_in() -> None:
    one = publication(headers={"ce-type": "x"}, retain=True, content_type="application/json")
    raw = sign_publication(KEY, one)
    assert read_publication(raw) == one
    assert one.did == KEY.did


@given(st.binary(max_size=300))
def test_any_bytes_are_no_publication_and_do_no_harm(raw: bytes) -> None:
    with pytest.raises(MeshError):
        read_publication(raw)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_changed_byte_breaks_a_publication(at: int, flip: int) -> None:
    raw = bytearray(sign_publication(KEY, publication()))
    raw[at % len(raw)] ^= flip
    with pytest.raises(MeshError):
        read_publication(bytes(raw))


@pytest.mark.parametrize(
    "changed",
    [
        {"payload": b"x" * 65_537},
        {"id": b"short"},
        {"ts_ms": 0},
        {"subject": "x" * 300},
        {"content_type": ""},
        {"content_type": "a\nb"},
        {"headers": {str(i): "x" for i in range(17)}},
        {"headers": {"a": "x" * 600}},
        {"publisher": OTHER.public},
        {"payload": b"x" * 65_536, "headers": {str(i): "x" * 500 for i in range(16)}},
    ],
)
def test_a_publication_out_of_bounds_is_not_signed(changed: dict[str, Any]) -> None:
    with pytest.raises(MeshError):
        sign_publication(KEY, publication(**changed))


# The judge


def intake(**config: Any) -> TopicIntake:
    wall = WallTime()
    wall.set(UNIX_S, 0.0)
    return TopicIntake(TopicsConfig(**config), wall)


def numbered(number: int, key: KeyPair = KEY, **changed: Any) -> bytes:
    return sign_publication(key, publication(id=number.to_bytes(16, "big"), publisher=key.public, **changed))


def test_a_good_publication_is_told_to_the_node_once() -> None:
    judge, raw, out = intake(), numbered(1), Outbox()
    assert judge.judge(raw, 1.0) == "new"
    judge.handle(Delivered(TOPIC, raw, VIA, 1), 1.0, out)
    [heard] = out.events
    assert isinstance(heard, TopicHeard)
    assert (heard.publication.payload, heard.raw, heard.via) == (b"hello", raw, VIA)
    assert judge.judge(raw, 2.0) == "stale"


def test_an_id_names_one_publication_of_its_publisher_whatever_it_says_the_second_time() -> None:
    judge = intake()
    assert judge.judge(numbered(1), 1.0) == "new"
    assert judge.judge(numbered(1, payload=b"other"), 1.0) == "stale"
    assert judge.judge(numbered(1, OTHER), 1.0) == "new"


@pytest.mark.parametrize(("off_s", "verdict"), [(-7_100, "new"), (7_100, "new"), (-7_300, "stale"), (7_300, "stale")])
def test_clocks_an_hour_off_do_no_harm_and_old_publications_are_dropped(off_s: int, verdict: str) -> None:
    assert intake().judge(numbered(1, ts_ms=int((UNIX_S + off_s) * 1000)), 0.0) == verdict


@pytest.mark.parametrize("subject", ["presence.x", "a..b", "a.>", "*"])
def test_what_nobody_honest_publishes_is_held_against_who_brings_it(subject: str) -> None:
    judge = intake()
    assert judge.judge(numbered(1, subject=subject), 0.0) == "bad"
    assert judge.judge(b"junk" * 30, 0.0) == "bad"
    assert judge.judge(numbered(2)[:-1] + b"!", 0.0) == "bad"


def test_one_publisher_that_says_too_much_is_bounded_and_others_are_not() -> None:
    judge = intake(rate=10.0, burst=5)
    verdicts = [judge.judge(numbered(i), 0.0) for i in range(10)]
    assert verdicts == ["new"] * 5 + ["stale"] * 5
    assert judge.judge(numbered(1, OTHER), 0.0) == "new"
    assert judge.judge(numbered(20), 1.0) == "new"
    assert judge.dropped == 5


def test_tables_of_the_judge_are_bounded() -> None:
    judge = intake(seen_max=20, publishers_max=4, rate_all=1e6, burst_all=10**6)
    for i in range(60):
        judge.judge(numbered(i, KeyPair.generate(i.to_bytes(32, "big"))), float(i))
    judge.assert_invariants()
