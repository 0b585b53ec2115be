"""Contenders of a lock against a compare-and-set register, each with a clock of its own, in any order of steps."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from agentmesh.core.locks import (
    RECORD_BYTES_MAX,
    UNREADABLE,
    Contender,
    Keep,
    Lease,
    Take,
    Wait,
    read_lease,
    write_lease,
)

TTL_MS = 10_000


class Register:
    """What an engine keeps of one lock."""

    def __init__(self) -> None:
        self.raw: bytes | None = None
        self.revision = 0
        self.writes = 0

    def put(self, raw: bytes | None, expect: int) -> int | None:
        if (self.revision if self.raw is not None else 0) != expect:
            return None
        self.writes += 1
        self.raw, self.revision = raw, self.writes
        return self.writes


class Node:
    """A contender, its clock, and the belief of its one holder."""

    def __init__(self, name: str, offset_s: float, rate: float) -> None:
        self.name = name
        self.offset_s, self.rate = offset_s, rate
        self.contender = Contender()
        self.token = 0
        self.until_s = -math.inf
        self.pending: tuple[Take | Keep, float] | None = None

    def now(self, t: float) -> float:
        return self.offset_s + t * self.rate

    def look(self, register: Register, t: float) -> None:
        seen = self.contender.see("l", register.raw, register.revision, self.now(t))
        step = self.contender.judge(seen, self.name, self.name, self.now(t))
        self.pending = (step, self.now(t)) if not isinstance(step, Wait) else None

    def write(self, register: Register, sent_at: float) -> int | None:
        """Write what the last look decided; return the token if the lock changed hands."""
        if self.pending is None:
            return None
        step, _ = self.pending
        self.pending = None
        token = step.token if isinstance(step, Keep) else 0
        raw = write_lease(Lease(self.name, self.name, TTL_MS, token))
        revision = register.put(raw, step.expect)
        if revision is None:
            return None
        seen = self.contender.see("l", raw, revision, self.now(sent_at))
        assert seen is not None
        self.token, self.until_s = seen.token, seen.until_s
        return seen.token if isinstance(step, Take) else None

    def believes(self, t: float) -> bool:
        return self.now(t) < self.until_s


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["look", "write", "look+write", "release"]), st.integers(0, 8)),
    max_size=60,
)


def run(nodes: list[Node], steps: list[tuple[int, str, float]]) -> None:
    register, t, last, overlaps = Register(), 0.0, 0, False
    for who, what, wait_s in steps:
        t += wait_s
        node = nodes[who]
        if what.startswith("look"):
            node.look(register, t)
        if what.endswith("write"):
            token = node.write(register, t)
            if token is not None:
                assert token > last
                last = token
        if what == "release" and node.believes(t):
            seen = node.contender.see("l", register.raw, register.revision, node.now(t))
            if seen is not None and seen.lease.holder == node.name:
                register.put(None, seen.revision)
                node.contender.forget("l")
                node.until_s = -math.inf
        overlaps = overlaps or sum(one.believes(t) for one in nodes) > 1
    if len({one.rate for one in nodes}) == 1:
        assert not overlaps


@given(steps=STEPS, offsets=st.lists(st.integers(-(10**6), 10**6), min_size=3, max_size=3))
def test_two_never_hold_it_at_once_while_clocks_run_alike(steps: Any, offsets: list[int]) -> None:
    run([Node(f"n{i}", offset, 1.0) for i, offset in enumerate(offsets)], steps)


@given(steps=STEPS, rates=st.lists(st.floats(0.01, 100), min_size=3, max_size=3))
def test_tokens_rise_with_each_new_holder_however_clocks_run(steps: Any, rates: list[float]) -> None:
    run([Node(f"n{i}", 0.0, rate) for i, rate in enumerate(rates)], steps)


def test_a_holder_that_is_gone_is_followed_after_its_time_to_live_as_seen_here() -> None:
    register = Register()
    one, two = Node("one", 0, 1), Node("two", 5000, 1)
    one.look(register, 0)
    assert one.write(register, 0) == 1
    two.look(register, 9)
    assert two.pending is None
    two.look(register, 18.9)
    assert two.pending is None
    two.look(register, 19)
    assert two.write(register, 19) == 2


def test_renewing_keeps_the_token_and_begins_the_time_anew() -> None:
    register = Register()
    one, two = Node("one", 0, 1), Node("two", 0, 1)
    for t in (0, 6, 12, 18):
        one.look(register, t)
        one.write(register, t)
        two.look(register, t + 1)
        assert two.pending is None
    assert (one.token, register.revision) == (1, 4)


def test_a_record_of_nobody_is_held_for_as_long_as_one_can_be() -> None:
    for raw in (
        b"",
        b"\xff",
        b"\x94\xa1x\xa1y\x00\x00",
        write_lease(Lease("h" * 200, "n", 5)),
        bytes(RECORD_BYTES_MAX + 1),
    ):
        assert read_lease(raw) is UNREADABLE
    contender = Contender()
    seen = contender.see("l", b"\xff", 3, 0.0)
    assert isinstance(contender.judge(seen, "a", "b", 3599.0), Wait)
    assert contender.judge(seen, "a", "b", 3600.0) == Take(3)


@given(st.binary(max_size=64))
def test_no_bytes_upset_the_reader(raw: bytes) -> None:
    assert 0 < read_lease(raw).ttl_ms <= 3_600_000


def test_what_was_seen_is_bounded() -> None:
    contender = Contender(seen_max=2)
    raw = write_lease(Lease("a", "b", 1000))
    for name in ("one", "two", "three"):
        contender.see(name, raw, 1, 0.0)
    fresh = contender.see("one", raw, 1, 5.0)
    assert fresh is not None
    assert fresh.since_s == 5.0
