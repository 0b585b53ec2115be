"""The table of who calls whom, beside a model that keeps every call; its bounds; and what it says of its own gaps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentmesh.core.traffic.table import MINUTES, OTHER, Minutes, Traffic, TrafficConfig, percentile

OWN = "node-own"
OUTCOMES = st.sampled_from(["ok", "failed", "refused", "canceled"])
WAYS = st.sampled_from(["local", "direct", "relayed", ""])


@dataclass
class Told:
    """One call, as the model keeps it."""

    edge: tuple[str, str]
    minute: int
    outcome: str
    way: str
    took_s: float | None


@dataclass
class Model:
    """Every call that ever was."""

    calls: list[Told] = field(default_factory=list[Told])

    def window(self, minute: int, whole: int, edge: tuple[str, str] | None = None) -> list[Told]:
        return [c for c in self.calls if minute - whole <= c.minute <= minute and edge in (None, c.edge)]


def count_of(told: list[Told]) -> tuple[int, int, int, int]:
    return (
        len(told),
        sum(c.outcome == "failed" for c in told),
        sum(c.outcome == "refused" for c in told),
        sum(c.way == "relayed" for c in told),
    )


class TrafficMachine(RuleBasedStateMachine):
    """Any calls at any time: what the table shows is what the model counts, as long as nothing had to make room."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0
        self.table = Traffic(OWN, self.now_s, TrafficConfig(latencies_max=8))
        self.model = Model()
        self.open: list[Any] = []
        self.took: dict[tuple[str, str], list[Told]] = {}

    @property
    def minute(self) -> int:
        return int(self.now_s // 60)

    @rule(seconds=st.sampled_from([0.0, 0.5, 30.0, 60.0, 61.0, 600.0, 3_540.0, 3_600.0, 4_000.0, 90_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(caller=st.sampled_from("abc"), callee=st.sampled_from("xy"))
    def a_call_begins(self, caller: str, callee: str) -> None:
        edge = self.table.edge(caller, OWN, callee, OWN, self.now_s)
        self.table.begin(edge, f"run-{caller}", self.now_s)
        self.open.append(edge)

    @rule(which=st.integers(0, 50), outcome=OUTCOMES, way=WAYS, took_s=st.none() | st.floats(0, 10, width=32))
    def a_call_ends(self, which: int, outcome: Any, way: Any, took_s: float | None) -> None:
        if self.open:
            edge = self.open.pop(which % len(self.open))
            self.table.end(edge, outcome, way, took_s, self.now_s)
            self.model.calls.append(Told((edge.caller, edge.callee), self.minute, outcome, way, took_s))

    @rule(caller=st.sampled_from("abc"), callee=st.sampled_from("xy"))
    def a_call_is_refused(self, caller: str, callee: str) -> None:
        edge = self.table.edge(caller, OWN, callee, OWN, self.now_s)
        self.table.count(edge, "refused", "", None, self.now_s)
        self.model.calls.append(Told((caller, callee), self.minute, "refused", "", None))

    @rule(whole=st.sampled_from([1, 5, 59, MINUTES]))
    def the_window_shows_what_the_model_counts(self, whole: int) -> None:
        shown = {(edge.caller, edge.callee): (edge, count) for edge, count in self.table.edges(self.now_s, whole)}
        for key in {c.edge for c in self.model.calls} | set(shown):
            told = self.model.window(self.minute, whole, key)
            running = sum((e.caller, e.callee) == key for e in self.open)
            assert (key in shown) == bool(told or running)
            if key in shown:
                edge, count = shown[key]
                assert tuple(count) == count_of(told)
                assert edge.running == running
                # The latest eight latencies that were ever told, of which those of the window are shown.
                latest = [c for c in self.model.calls if c.edge == key and c.took_s is not None][-8:]
                kept = sorted(c.took_s for c in latest if c.minute >= self.minute - whole and c.took_s is not None)
                assert edge.latencies(self.minute, whole) == kept
        assert self.table.totals(self.now_s, whole)[:3] == count_of(self.model.window(self.minute, whole))[:3]
        assert self.table.dropped(self.now_s, whole) == 0

    @invariant()
    def it_holds(self) -> None:
        self.table.assert_invariants()
        assert len(self.table.hour(self.now_s)) == MINUTES


TestTraffic = TrafficMachine.TestCase
TestTraffic.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.floats(0, 100), max_size=300), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_the_smallest_value_that_enough_others_do_not_exceed(values: list[float], share: float) -> None:
    rising = sorted(values)
    found = percentile(rising, share)
    if not rising:
        assert found is None
        return
    assert found in rising
    assert sum(v <= found for v in rising) >= share * len(rising) - 1e-9
    assert sum(v < found for v in rising) < share * len(rising) + 1e-9


def test_a_full_table_lets_the_quietest_edge_go_and_says_so() -> None:
    table = Traffic(OWN, 0.0, TrafficConfig(edges_max=3))
    for minute, caller in enumerate("abcd"):
        now_s = minute * 60.0
        table.count(table.edge(caller, OWN, "x", OWN, now_s), "ok", "local", 0.1, now_s)
    assert [edge.caller for edge, _ in table.edges(180.0, 60)] == ["b", "c", "d"]
    assert table.dropped(180.0, 60) == 1
    assert table.totals(180.0, 60).calls == 4, "no call is lost to the totals"


def test_an_edge_that_is_used_again_is_not_the_quietest() -> None:
    table = Traffic(OWN, 0.0, TrafficConfig(edges_max=2))
    for now_s, caller in ((0.0, "a"), (60.0, "b"), (120.0, "a"), (180.0, "c")):
        table.count(table.edge(caller, OWN, "x", OWN, now_s), "ok", "local", None, now_s)
    assert {edge.caller for edge, _ in table.edges(180.0, 60)} == {"a", "c"}


def test_a_call_that_ends_after_its_edge_made_room_is_counted_in_the_totals() -> None:
    table = Traffic(OWN, 0.0, TrafficConfig(edges_max=1))
    first = table.edge("a", OWN, "x", OWN, 0.0)
    table.begin(first, "r", 0.0)
    table.edge("b", OWN, "x", OWN, 1.0)
    table.end(first, "failed", "direct", 1.0, 2.0)
    assert table.totals(2.0, 5) == (1, 1, 0, 0)
    table.assert_invariants()


def test_a_node_with_callers_without_end_is_one_caller_beyond_its_share() -> None:
    table = Traffic(OWN, 0.0, TrafficConfig(edges_max=100, node_edges_max=10))
    table.count(table.edge("mine", OWN, "x", OWN, 0.0), "ok", "local", None, 0.0)
    for number in range(1_000):
        table.count(table.edge(f"sybil-{number}", "node-bad", "x", OWN, 1.0), "ok", "direct", None, 1.0)
    edges = {edge.caller: count.calls for edge, count in table.edges(1.0, 5)}
    assert len(edges) == 12
    assert edges["mine"] == 1, "what others did is still shown"
    assert edges["node-bad"] == 990
    assert sum(edges.values()) == 1_001


def test_reasons_beyond_the_bound_count_as_other_until_old_ones_are_forgotten() -> None:
    table = Traffic(OWN, 0.0, TrafficConfig(reasons_max=2))
    for reason in ("a", "b", "c", "d", "a"):
        table.refuse(reason, 0.0)
    assert table.reasons(0.0) == {OTHER: 2, "a": 2, "b": 1}
    table.refuse("e", 2 * 3_600.0)
    assert table.reasons(2 * 3_600.0) == {"e": 1}


def test_a_run_counts_once_while_it_is_remembered() -> None:
    table = Traffic(OWN, 0.0, TrafficConfig(runs_max=2))
    for run in ("r1", "r1", "r2", "r1", "r3", "r1"):
        table.run(run, 0.0)
    assert table.runs(0.0, 1) == 4, "r1 was pushed out by r3 and counts again"


def test_rates_are_read_by_the_time_that_the_counts_cover() -> None:
    table = Traffic(OWN, 30.0)
    assert table.covered_s(31.0, 5) == 60.0, "a node that just began has no thousand calls a minute"
    assert table.covered_s(30.0 + 200.0, 5) == 200.0
    assert table.covered_s(3_600.0 + 15.0, 5) == 315.0


def test_a_minute_that_is_over_counts_as_the_one_that_runs() -> None:
    minutes = Minutes(1, 10)
    for minute in (12, 11):
        minutes.cells[minutes.at(minute)] += 1
    assert [minutes.of(m) for m in (10, 11, 12, 13)] == [(0,), (0,), (2,), (0,)]
