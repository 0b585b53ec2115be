"""The gate of an agent: never too much, nobody starved, and times to come back that are true (docs/spec/guard.md §2–§3)."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.core.budget.bucket import Bucket
from agentmesh.core.budget.gate import Gate, Ticket
from agentmesh.core.budget.limits import CallerLimits, GateLimits
from agentmesh.errors import UsageError


class Model:
    """A dumb keeper of the books: what was admitted when, and whether that was too much."""

    def __init__(self, limits: GateLimits) -> None:
        self.limits = limits
        self.passed_s: list[float] = []
        self.running: list[Ticket] = []

    def check(self, gate: Gate, callers: dict[str, CallerLimits]) -> None:
        limits = self.limits
        assert len(self.running) == gate.running <= limits.concurrency
        assert 0 <= gate.waiting <= limits.queue
        for name, own in callers.items():
            if own.concurrency is not None:
                assert sum(t.caller == name for t in self.running) <= own.concurrency
        if limits.qps is not None and limits.burst is not None:
            for i, begin_s in enumerate(self.passed_s):
                for n, end_s in enumerate(self.passed_s[i:], 1):
                    assert n <= limits.burst + limits.qps * (end_s - begin_s) + 1e-6


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("abcd"), st.integers(0, 9), st.floats(0.01, 20)),
        st.tuples(st.just("pass"), st.floats(0, 5)),
        st.tuples(st.just("end"), st.integers(0, 100)),
        st.tuples(st.just("give up"), st.integers(0, 100)),
    ),
    max_size=120,
)


@given(
    steps,
    st.builds(
        GateLimits,
        concurrency=st.integers(1, 4),
        qps=st.none() | st.floats(0.2, 20),
        burst=st.integers(1, 5),
        queue=st.integers(0, 6),
    ),
    st.dictionaries(
        st.sampled_from("abcd"),
        st.builds(
            CallerLimits,
            qps=st.none() | st.floats(0.2, 20),
            concurrency=st.none() | st.integers(1, 2),
            queue=st.none() | st.integers(0, 3),
            weight=st.integers(1, 3),
            last=st.booleans(),
        ),
    ),
)
@settings(max_examples=200)
def test_never_more_is_let_in_than_any_limit_allows_and_every_call_has_one_end(
    steps: list[tuple[object, ...]], limits: GateLimits, callers: dict[str, CallerLimits]
) -> None:
    now_s = 100.0
    gate, model = Gate(limits, now_s), Model(limits)
    waiting: list[Ticket] = []

    def take(changed: list[Ticket]) -> None:
        for ticket in changed:
            waiting.remove(ticket)
            if ticket.state == "running":
                model.running.append(ticket)
                model.passed_s.append(now_s)
            else:
                assert ticket.state == "refused"
                assert ticket.why
                assert 0 < ticket.retry_after_s <= 3600

    for step in steps:
        match step:
            case ("ask", str(caller), int(priority), float(life_s)):
                ticket, changed = gate.ask(
                    caller,
                    now_s,
                    until_s=now_s + life_s,
                    priority=priority,
                    limits=callers.get(caller, CallerLimits()),
                )
                waiting.append(ticket)
                take([*changed, ticket] if ticket.state != "waiting" else changed)
            case ("pass", float(seconds)):
                now_s += seconds
                take(gate.settle(now_s))
            case ("end", int(n)) if model.running:
                take(gate.leave(model.running.pop(n % len(model.running)), now_s))
            case ("give up", int(n)) if waiting:
                ticket = waiting.pop(n % len(waiting))
                take(gate.leave(ticket, now_s))
            case _:
                pass
        assert gate.waiting == len(waiting)
        model.check(gate, callers)
        wake_s = gate.wake_s(now_s)
        assert (wake_s is None) == (not waiting), "whoever waits has an end in sight"
        if wake_s is not None:
            assert all(t.until_s > now_s for t in waiting)


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.floats(0.001, 2.0), st.integers(1, 5)), min_size=5, max_size=60),
    st.floats(0.5, 30),
)
def test_a_bucket_lets_pass_no_more_than_a_burst_and_what_time_brings(
    burst: int, asks: list[tuple[float, int]], rate: float
) -> None:
    bucket, now_s = Bucket(rate, burst, 0.0), 0.0
    passed: list[float] = []
    for seconds, tries in asks:
        now_s += seconds
        for _ in range(tries):
            if bucket.take(now_s):
                passed.append(now_s)
    for i, begin_s in enumerate(passed):
        for n, end_s in enumerate(passed[i:], 1):
            assert n <= burst + rate * (end_s - begin_s) + 1e-6


def test_a_clock_that_jumps_gives_a_burst_at_most_and_never_stops_a_bucket() -> None:
    bucket = Bucket(10.0, 3, 1_000.0)
    assert sum(bucket.take(1_000.0) for _ in range(9)) == 3
    assert sum(bucket.take(9e9) for _ in range(9)) == 3, "a year ahead"
    assert sum(bucket.take(0.0) for _ in range(9)) == 0, "back to the beginning of time"
    assert sum(bucket.take(0.1) for _ in range(9)) == 1


@pytest.mark.parametrize(
    ("rate", "burst"), [(0, 1), (-1.0, 1), (float("nan"), 1), (float("inf"), 1), (1.0, 0), (1.0, 10**30)]
)
def test_a_rate_that_is_none_is_refused(rate: float, burst: int) -> None:
    with pytest.raises(UsageError):
        Bucket(rate, burst, 0.0)


def overload(
    asks_per_s: dict[str, float], limits: GateLimits, *, seconds: float = 60.0, service_s: float = 1.0, seed: int = 1
) -> tuple[Counter[str], int]:
    """Play callers that ask at random times, whatever they are told; return who was served, and how often in all."""
    rng = random.Random(seed)
    gate = Gate(limits, 0.0)
    arrivals = sorted(
        (at_s, name)
        for name, rate in asks_per_s.items()
        for at_s in (rng.uniform(0, seconds) for _ in range(int(rate * seconds)))
    )
    ends: list[tuple[float, int, Ticket]] = []
    served: Counter[str] = Counter()
    now_s = 0.0

    def take(changed: list[Ticket]) -> None:
        for ticket in changed:
            if ticket.state == "running":
                served[ticket.caller] += 1
                ends.append((now_s + service_s * rng.uniform(0.5, 1.5), ticket.number, ticket))

    while True:
        coming = [
            arrivals[0][0] if arrivals else seconds,
            min(ends, default=(seconds,))[0],
            gate.wake_s(now_s) or seconds,
        ]
        now_s = max(now_s + 1e-9, min(coming))
        if now_s >= seconds:
            return served, sum(served.values())
        while ends and min(ends)[0] <= now_s:
            over = min(ends)
            ends.remove(over)
            take(gate.leave(over[2], now_s))
        while arrivals and arrivals[0][0] <= now_s:
            ticket, changed = gate.ask(arrivals.pop(0)[1], now_s, until_s=now_s + 30)
            take([*changed, ticket])
        take(gate.settle(now_s))


@pytest.mark.parametrize("limits", [GateLimits(4, queue=40), GateLimits(1000, qps=4.0, burst=4, queue=40)])
def test_equal_callers_have_equal_shares_at_ten_times_the_load_that_can_be_served(limits: GateLimits) -> None:
    served, total = overload({f"c{i}": 5.0 for i in range(8)}, limits)
    assert max(served.values()) / min(served.values()) <= 1.2
    assert 0.9 * 4 * 60 <= total <= 4 * 60 + 8, "all that can be served is served, and no more"


def test_a_caller_with_ten_thousand_calls_takes_nothing_from_others() -> None:
    served, _ = overload({"hog": 10_000 / 60, "a": 1.0, "b": 1.0, "c": 1.0}, GateLimits(4, queue=40))
    fair = 4 * 60 / 4
    assert min(served[name] for name in "abc") >= fair * 0.8
    assert served["hog"] >= fair * 0.8, "what is left over is the hog's"


def test_a_caller_that_holds_every_place_is_behind_the_first_that_holds_none() -> None:
    gate = Gate(GateLimits(2), 0.0)
    hog = [gate.ask("hog", 0.0, until_s=99, priority=9)[0] for _ in range(20)]
    late, _ = gate.ask("late", 1.0, until_s=99, priority=0)
    assert late.state == "waiting"
    assert gate.leave(hog[0], 2.0) == [late]


def test_one_caller_fills_the_queue_and_keeps_nobody_out_of_it() -> None:
    gate = Gate(GateLimits(1, queue=10), 0.0)
    hog = [gate.ask("hog", 0.0, until_s=99)[0] for _ in range(10_000)]
    assert gate.waiting == 10
    others = [gate.ask(f"o{i}", 1.0, until_s=99) for i in range(9)]
    assert [t.state for t, _ in others] == ["waiting"] * 9
    pushed = [t for _, changed in others for t in changed]
    assert [t.state for t in pushed] == ["refused"] * 9
    assert [t.number for t in pushed] == sorted((t.number for t in hog[2:11]), reverse=True), (
        "the least urgent go first"
    )
    assert gate.ask("o0", 2.0, until_s=99)[0].why == "queue", "no caller pushes out one that has no more than itself"


def test_the_calls_of_one_caller_go_by_priority_then_deadline_and_never_before_those_of_others() -> None:
    gate = Gate(GateLimits(1, wait_s=100), 0.0)
    first, _ = gate.ask("a", 0.0, until_s=99)
    low, _ = gate.ask("a", 0.0, until_s=50, priority=1)
    later, _ = gate.ask("a", 0.0, until_s=60, priority=7)
    sooner, _ = gate.ask("a", 0.0, until_s=55, priority=7)
    other, _ = gate.ask("b", 0.0, until_s=99, priority=0)
    order: list[Ticket] = []
    running = first
    for _ in range(4):
        (running,) = gate.leave(running, 1.0)
        order.append(running)
    assert [t for t in order if t.caller == "a"] == [sooner, later, low]
    assert order.index(other) <= 1


def test_a_caller_that_comes_last_gets_what_others_leave_and_keeps_nobody_out() -> None:
    gate, grey = Gate(GateLimits(1, queue=4, wait_s=100), 0.0), CallerLimits(last=True)
    running, _ = gate.ask("a", 0.0, until_s=99)
    waiting = [gate.ask("grey", 0.0, until_s=99, priority=9, limits=grey)[0] for _ in range(4)]
    for _ in range(3):
        ticket, changed = gate.ask("b", 0.0, until_s=99, priority=0)
        assert (ticket.state, [one.caller for one in changed]) == ("waiting", ["grey"])
    assert gate.ask("grey", 0.0, until_s=99, limits=grey)[0].state == "refused", "it pushes out nobody"
    order: list[str] = []
    for _ in range(4):
        (running,) = gate.leave(running, 1.0)
        order.append(running.caller)
    assert order == ["b", "b", "b", "grey"]
    assert sum(one.state == "refused" for one in waiting) == 3


def test_a_heavier_caller_has_as_many_more_turns() -> None:
    gate = Gate(GateLimits(1, queue=100, wait_s=100), 0.0)
    running, _ = gate.ask("x", 0.0, until_s=99)
    for _ in range(30):
        gate.ask("light", 0.0, until_s=99)
        gate.ask("heavy", 0.0, until_s=99, limits=CallerLimits(weight=3))
    served: Counter[str] = Counter()
    for _ in range(24):
        (running,) = gate.leave(running, 1.0)
        served[running.caller] += 1
    assert served == {"heavy": 18, "light": 6}


@given(st.integers(0, 8), st.floats(0.1, 20), st.integers(1, 5))
def test_who_comes_back_when_told_passes_if_nobody_else_came_and_not_before(ahead: int, qps: float, burst: int) -> None:
    gate = Gate(GateLimits(1_000, qps=qps, burst=burst, queue=0), 0.0)
    for _ in range(burst + ahead):
        gate.ask("a", 0.0, until_s=99)
    refused, _ = gate.ask("b", 0.0, until_s=99)
    assert refused.why == "qps"
    early = refused.retry_after_s * 0.9
    if early > 0.05:
        assert gate.ask("b", early, until_s=99)[0].state == "refused"
    assert gate.ask("b", refused.retry_after_s, until_s=99)[0].state == "running"


def test_a_caller_beyond_its_own_rate_keeps_nobody_else_waiting() -> None:
    gate = Gate(GateLimits(10), 0.0)
    slow = CallerLimits(qps=1.0, burst=1)
    assert gate.ask("slow", 0.0, until_s=99, limits=slow)[0].state == "running"
    held, _ = gate.ask("slow", 0.0, until_s=99, limits=slow)
    assert held.state == "waiting"
    assert gate.ask("other", 0.0, until_s=99)[0].state == "running"
    assert gate.wake_s(0.0) == pytest.approx(1.0)
    assert gate.settle(1.0) == [held]


def test_who_waits_too_long_is_told_so() -> None:
    gate = Gate(GateLimits(1, wait_s=5), 0.0)
    gate.ask("a", 0.0, until_s=99)
    held, _ = gate.ask("a", 0.0, until_s=99)
    assert gate.wake_s(0.0) == 5.0
    assert gate.settle(5.0) == [held]
    assert (held.state, held.why) == ("refused", "waited")
    assert gate.wake_s(5.0) is None


def test_new_limits_hold_at_once_and_give_nobody_a_new_burst() -> None:
    gate = Gate(GateLimits(1, qps=1.0, burst=5), 0.0)
    running, _ = gate.ask("a", 0.0, until_s=99)
    held, _ = gate.ask("a", 0.0, until_s=99)
    assert gate.change(GateLimits(2, qps=1.0, burst=5), 0.0) == [held]
    gate.leave(running, 0.0)
    gate.leave(held, 0.0)
    gate.change(GateLimits(10, qps=2.0, burst=50), 0.0)
    assert [gate.ask("a", 0.0, until_s=99, may_wait=False)[0].state for _ in range(4)].count("running") == 3


def test_a_flood_of_callers_is_bounded_and_forgets_only_those_that_hold_nothing() -> None:
    gate = Gate(GateLimits(5, queue=0, callers=5), 0.0)
    kept = [gate.ask(f"k{i}", 0.0, until_s=99)[0] for i in range(5)]
    assert gate.ask("one more", 0.0, until_s=99)[0].why == "callers"
    gate.leave(kept[0], 1.0)
    assert gate.ask("one more", 1.0, until_s=99)[0].state == "running"
