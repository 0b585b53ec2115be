"""Balancing: each strategy, the breaker, the retry budget, and those who try to bend them."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.balance.balance import Balance, Outcome, Replica
from agentmesh.core.balance.breaker import Breaker
from agentmesh.core.balance.budget import RetryBudget
from agentmesh.core.balance.config import STRATEGIES, BalanceConfig, Strategy
from agentmesh.core.balance.load import Load

CONFIG = BalanceConfig()
SPREADING: tuple[Strategy, ...] = ("latency", "least-connections", "round-robin", "weighted")


def replicas(count: int, **more: object) -> list[Replica]:
    return [Replica(f"agent-{i}", **more) for i in range(count)]  # type: ignore[arg-type]


class Calls:
    """Calls that take as long as the test says, one after the other or many at once."""

    def __init__(self, strategy: Strategy = "latency", seed: int = 1) -> None:
        self.balance = Balance(CONFIG, random.Random(seed))
        self.strategy: Strategy = strategy
        self.now_s = 1_000.0
        self.taken: Counter[str] = Counter()

    def begin(self, among: list[Replica], key: str = "") -> tuple[Replica, float]:
        place = self.balance.order(among, self.strategy, key, self.now_s, 3)[0]
        self.balance.began(among[place], self.now_s)
        self.taken[among[place].agent_id] += 1
        return among[place], self.now_s

    def end(
        self, begun: tuple[Replica, float], outcome: Outcome = "answered", among: list[Replica] | None = None
    ) -> None:
        others = [r.agent_id for r in among or []]
        self.balance.ended(begun[0].agent_id, outcome, begun[1], self.now_s, others)

    def one(self, among: list[Replica], seconds: float = 0.01, outcome: Outcome = "answered", key: str = "") -> str:
        begun = self.begin(among, key)
        self.now_s += seconds
        self.end(begun, outcome, among)
        return begun[0].agent_id


def test_round_robin_takes_one_after_the_other() -> None:
    calls, among = Calls("round-robin"), replicas(3)
    assert [calls.one(among) for _ in range(6)] == [r.agent_id for r in among] * 2


def test_least_connections_takes_the_one_with_the_fewest_calls_running() -> None:
    calls, among = Calls("least-connections"), replicas(3)
    begun = [calls.begin(among) for _ in range(9)]
    assert set(calls.taken.values()) == {3}
    for call in begun:
        if call[0].agent_id == "agent-1":
            calls.end(call)
    assert [calls.begin(among)[0].agent_id for _ in range(3)] == ["agent-1"] * 3


def test_weights_are_kept_exactly_and_evenly_interleaved() -> None:
    calls = Calls("weighted")
    among = [Replica("one", weight=1), Replica("three", weight=3)]
    order = [calls.one(among) for _ in range(40)]
    assert Counter(order) == {"one": 10, "three": 30}
    assert all("one" in order[i : i + 5] for i in range(36)), "never more than a round without the light one"


def test_a_weight_beyond_the_bound_attracts_no_more_than_the_bound() -> None:
    calls = Calls("weighted")
    among = [Replica("modest", weight=50), Replica("greedy", weight=10**9), Replica("odd", weight=-5)]
    for _ in range(1_510):
        calls.one(among)
    assert calls.taken["greedy"] <= 1_001
    assert calls.taken["odd"] >= 9


def test_who_was_away_is_not_owed_the_calls_it_missed() -> None:
    calls, among = Calls("weighted"), replicas(2)
    for _ in range(1_000):
        calls.one(among[:1])
    calls.taken.clear()
    for _ in range(20):
        calls.one(among)
    assert calls.taken["agent-1"] <= 11


def test_the_latency_strategy_prefers_the_faster_replica_and_does_not_forget_the_slower() -> None:
    calls, among = Calls("latency"), replicas(2)
    for _ in range(2_000):
        begun = calls.begin(among)
        calls.now_s += 0.005 if begun[0].agent_id == "agent-0" else 0.1
        calls.end(begun)
    assert calls.taken["agent-0"] > 20 * calls.taken["agent-1"]
    calls.now_s += 60  # old news fades
    assert "agent-1" in {calls.one(among) for _ in range(3)}


def test_the_latency_strategy_spreads_a_burst_over_equal_replicas() -> None:
    calls, among = Calls("latency"), replicas(4)
    for replica in among:
        calls.balance.began(replica, calls.now_s)
        calls.balance.ended(replica.agent_id, "answered", calls.now_s - 0.01, calls.now_s)
    for _ in range(400):
        calls.begin(among)
    assert max(calls.taken.values()) <= 1.2 * min(calls.taken.values())


def test_a_longer_call_counts_at_once_and_a_shorter_one_bit_by_bit() -> None:
    load = Load(CONFIG)
    load.took(0.01, 0.0)
    load.took(2.0, 0.1)
    assert load.latency_s(0.1) == 2.0
    load.took(0.01, 0.2)
    assert 1.5 < (load.latency_s(0.2) or 0) < 2.0
    assert (load.latency_s(60.2) or 0) < 0.01


@pytest.mark.parametrize("strategy", SPREADING)
def test_failing_at_once_attracts_no_calls(strategy: Strategy) -> None:
    calls, among = Calls(strategy), replicas(3)
    for _ in range(600):
        begun = calls.begin(among)
        bad = begun[0].agent_id == "agent-0"
        calls.now_s += 0.0001 if bad else 0.05
        calls.end(begun, "failed" if bad else "answered", among)
    assert calls.taken["agent-0"] < 0.05 * 600


def test_a_replica_that_takes_calls_and_stays_silent_gets_fewer_and_fewer() -> None:
    calls, among = Calls("latency"), replicas(3)
    for _ in range(600):
        begun = calls.begin(among)
        if begun[0].agent_id != "agent-0":
            calls.now_s += 0.05
            calls.end(begun)
    assert calls.taken["agent-0"] <= 30


def test_sticky_calls_of_one_conversation_stay_together_and_conversations_spread() -> None:
    calls, among = Calls("sticky"), replicas(5)
    homes = {f"c{i}": {calls.one(among, key=f"c{i}") for _ in range(3)} for i in range(500)}
    assert all(len(home) == 1 for home in homes.values())
    spread = Counter(home.pop() for home in homes.values())
    assert len(spread) == 5
    assert min(spread.values()) > 50


@given(st.integers(2, 20), st.data())
def test_when_a_replica_goes_only_its_own_conversations_move(count: int, data: st.DataObject) -> None:
    calls, among = Calls("sticky"), replicas(count)
    gone = data.draw(st.sampled_from(among))
    left = data.draw(st.permutations([r for r in among if r is not gone]))
    for i in range(30):
        before = among[calls.balance.order(among, "sticky", f"c{i}", 0.0, 1)[0]]
        after = left[calls.balance.order(left, "sticky", f"c{i}", 0.0, 1)[0]]
        assert after == before or before == gone


def test_auto_is_sticky_for_conversations_only() -> None:
    calls, among = Calls("auto"), replicas(4)
    assert len({calls.one(among, key="talk") for _ in range(20)}) == 1
    for _ in range(40):
        calls.begin(among)
    assert len(calls.taken) == 4


def test_a_conversation_stays_where_it_is_when_its_replica_is_farther_away_than_others() -> None:
    calls, near = Calls("sticky"), replicas(4)
    home = near[calls.balance.order(near, "sticky", "talk", 0.0, 1)[0]].agent_id
    moved = [r._replace(distance=5) if r.agent_id == home else r for r in near]
    assert moved[calls.balance.order(moved, "sticky", "talk", 0.0, 1)[0]].agent_id == home


@pytest.mark.parametrize("strategy", SPREADING)
def test_own_before_signed_before_unsigned_then_answering_then_near(strategy: Strategy) -> None:
    among = [
        Replica("unsigned", kind=2),
        Replica("far", kind=1, distance=3),
        Replica("near", kind=1, distance=1),
        Replica("near but quiet", kind=1, distance=1, quiet=True),
        Replica("own", kind=0, distance=9),
    ]
    order = Balance(CONFIG, random.Random(1)).order(among, strategy, "", 0.0, 10)
    assert [among[i].agent_id for i in order] == ["own", "near", "far", "near but quiet", "unsigned"]


def test_trust_weighs_against_latency_and_what_is_no_number_counts_as_none() -> None:
    calls = Calls("latency")
    among = [Replica("trusted", trust=1.0), Replica("doubtful", trust=0.1), Replica("broken", trust=float("nan"))]
    for _ in range(300):
        calls.one(among)
    # Two of three are drawn: the trusted one is among them in two thirds of all draws.
    assert calls.taken["trusted"] > 0.55 * 300


# -- the breaker ------------------------------------------------------------------------------------------------------


def opened(now_s: float = 100.0) -> Breaker:
    breaker = Breaker(CONFIG)
    for _ in range(CONFIG.strikes):
        breaker.failed(now_s - 1, now_s, is_outlier=False)
    assert breaker.state(now_s) == "open"
    return breaker


def test_the_breaker_opens_after_failures_in_a_row_and_a_success_between_them_starts_anew() -> None:
    breaker = Breaker(CONFIG)
    for _ in range(10):
        for _ in range(CONFIG.strikes - 1):
            breaker.failed(0.0, 1.0, is_outlier=False)
        breaker.succeeded(0.0, 1.0)
    assert breaker.state(1.0) == "closed"


def test_after_its_time_one_probe_goes_through_and_its_outcome_decides() -> None:
    breaker = opened()
    assert breaker.state(100 + CONFIG.set_back_s) == "half-open"
    breaker.began(105.0)
    assert breaker.state(105.1) == "open", "one probe, not two"
    breaker.failed(105.0, 105.2, is_outlier=False)
    assert breaker.length_s == 2 * CONFIG.set_back_s
    assert breaker.state(105.2 + 2 * CONFIG.set_back_s) == "half-open"
    breaker.began(120.0)
    breaker.succeeded(120.0, 120.1)
    assert breaker.state(120.1) == "closed"


def test_a_probe_that_says_nothing_gives_way_to_the_next() -> None:
    breaker = opened()
    breaker.began(105.0)
    breaker.dropped(105.0)
    assert breaker.state(105.1) == "half-open"
    breaker.began(106.0)
    assert breaker.state(106.0 + CONFIG.probe_s_max) == "half-open"


def test_what_began_before_it_opened_neither_closes_nor_prolongs_it() -> None:
    breaker = opened()
    breaker.succeeded(99.5, 101.0)
    breaker.failed(99.5, 101.0, is_outlier=True)
    assert breaker.state(101.0) == "open"
    assert breaker.length_s == CONFIG.set_back_s


def test_who_flaps_is_set_back_longer_each_time_up_to_a_bound_and_good_conduct_is_rewarded() -> None:
    breaker, now_s, lengths = Breaker(CONFIG), 0.0, list[float]()
    for _ in range(12):
        for _ in range(CONFIG.strikes):
            breaker.failed(now_s, now_s, is_outlier=False)
        lengths.append(breaker.length_s)
        now_s += breaker.length_s
        breaker.began(now_s)
        breaker.succeeded(now_s, now_s)
    assert lengths == sorted(lengths)
    assert lengths[:3] == [5.0, 10.0, 20.0]
    assert lengths[-1] == CONFIG.set_back_s_max
    now_s += 20 * CONFIG.forgive_s
    for _ in range(CONFIG.strikes):
        breaker.failed(now_s, now_s, is_outlier=False)
    assert breaker.length_s == CONFIG.set_back_s


def test_a_clock_that_jumps_never_locks_a_replica_away() -> None:
    breaker = opened(now_s=1_000_000.0)
    assert breaker.state(5.0) == "half-open", "back by days"
    assert breaker.state(1e12) == "half-open"
    breaker.began(5.0)
    breaker.succeeded(5.0, 5.1)
    assert breaker.state(5.1) == "closed"


def test_a_replica_that_fails_more_than_the_others_is_set_back_though_it_answers_in_between() -> None:
    calls, among = Calls("round-robin"), replicas(4)
    for i in range(400):
        begun = calls.begin(among)
        calls.now_s += 0.01
        bad = begun[0].agent_id == "agent-0" and i % 8 < 4  # every other of its calls
        calls.end(begun, "failed" if bad else "answered", among)
    assert calls.taken["agent-0"] < 40
    assert calls.balance.state("agent-0", calls.now_s) == "open"


def test_calls_that_fail_everywhere_alike_make_nobody_an_outlier() -> None:
    calls, among = Calls("round-robin"), replicas(4)
    rng = random.Random(3)
    for _ in range(800):
        calls.one(among, outcome="failed" if rng.random() < 0.3 else "answered")
    assert min(calls.taken.values()) > 0.7 * max(calls.taken.values())


OUTCOMES = st.sampled_from(["answered", "failed", "dropped"])


@given(
    st.lists(st.tuples(st.integers(0, 6), OUTCOMES, st.floats(-50, 50)), max_size=150),
    st.integers(1, 7),
    st.sampled_from(STRATEGIES),
    st.integers(1, 8),
)
def test_whatever_happens_every_replica_is_offered_once_and_at_most_half_of_a_kind_is_set_back(
    history: list[tuple[int, Outcome, float]], count: int, strategy: Strategy, wanted: int
) -> None:
    balance, now_s = Balance(CONFIG, random.Random(7)), 1_000.0
    among = [Replica(f"agent-{i}", kind=i % 2) for i in range(count)]
    ids = [r.agent_id for r in among]
    for number, outcome, step_s in history:
        replica = among[number % count]
        balance.began(replica, now_s)
        began_s, now_s = now_s, now_s + step_s  # clocks jump
        balance.ended(replica.agent_id, outcome, began_s, now_s, ids)
    balance.assert_invariants()
    order = balance.order(among, strategy, "", now_s, count)
    assert sorted(order) == list(range(count))
    assert [among[i].kind for i in order] == sorted(r.kind for r in among)
    assert len(balance.order(among, strategy, "k", now_s, wanted)) == min(wanted, count)
    states = balance._states(among, now_s)
    avoided = balance._avoided(among, states)
    for kind in (0, 1):
        of_kind = [i for i in range(count) if among[i].kind == kind]
        assert sum(i in avoided for i in of_kind) <= len(of_kind) // 2


@given(st.lists(st.tuples(st.integers(0, 40), OUTCOMES), max_size=200))
def test_running_calls_are_counted_right_and_the_table_is_bounded(history: list[tuple[int, Outcome]]) -> None:
    balance = Balance(BalanceConfig(replicas_max=10), random.Random(7))
    for number, outcome in history:
        replica = Replica(f"agent-{number}")
        balance.began(replica, 1.0)
        assert balance.running(replica.agent_id) == 1
        balance.ended(replica.agent_id, outcome, 1.0, 2.0)
        assert balance.running(replica.agent_id) == 0
        balance.assert_invariants()


def test_a_thousand_replicas_of_one_name_are_spread_over() -> None:
    for strategy in SPREADING:
        calls, among = Calls(strategy), replicas(1_000)
        for _ in range(300):
            calls.begin(among)
        assert len(calls.taken) >= 250, strategy


# -- the retry budget -------------------------------------------------------------------------------------------------


def spend(budget: RetryBudget, now_s: float) -> int:
    taken = 0
    while budget.take(now_s):
        taken += 1
    return taken


def test_retries_are_bounded_to_a_share_of_the_calls() -> None:
    budget = RetryBudget(CONFIG, 0.0)
    assert spend(budget, 0.0) == CONFIG.retry_reserve
    taken = 0
    for i in range(10_000):  # 1,000 calls per second, every one of which would like to be retried
        budget.earn(i / 1_000)
        taken += budget.take(i / 1_000)
    assert taken <= 10_000 * CONFIG.retry_ratio + 10 * CONFIG.retry_per_s + 1
    assert taken >= 10_000 * CONFIG.retry_ratio * 0.5


def test_what_was_earned_long_ago_is_gone() -> None:
    budget = RetryBudget(CONFIG, 0.0)
    for _ in range(100_000):
        budget.earn(0.0)
    assert spend(budget, 200.0) <= CONFIG.retry_reserve + 1


@given(st.lists(st.tuples(st.booleans(), st.floats(-1e6, 1e6)), max_size=300))
def test_no_clock_makes_the_budget_grow_beyond_its_bound(steps: list[tuple[bool, float]]) -> None:
    budget, now_s, earned, taken = RetryBudget(CONFIG, 0.0), 0.0, 0.0, 0
    passed_s = 0.0
    for earns, step_s in steps:
        now_s, passed_s = now_s + step_s, passed_s + max(0.0, step_s)
        if earns:
            budget.earn(now_s)
            earned += CONFIG.retry_ratio
        else:
            taken += budget.take(now_s)
        assert 0.0 <= budget.left(now_s) <= CONFIG.retry_reserve + earned + 1e-6
    assert taken <= CONFIG.retry_reserve + earned + CONFIG.retry_per_s * passed_s + 1e-6
