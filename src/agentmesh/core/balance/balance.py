"""Choose replicas and learn from how their calls end. Pure: time and chance are arguments."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from agentmesh.core.balance.breaker import BreakerState
from agentmesh.core.balance.config import BalanceConfig, Strategy
from agentmesh.core.balance.load import Load
from agentmesh.core.balance.strategies import (
    Option,
    by_key,
    by_latency,
    by_running,
    by_turn,
    by_weight,
    pooled_ratio,
)

#: "dropped" says nothing of the replica: the caller gave up, or the fault was here.
Outcome = Literal["answered", "failed", "dropped"]
WEIGHT_MAX = 100


class Replica(NamedTuple):
    """One replica that may be called.

    Attributes:
        agent_id: Who.
        kind: Whose it is: own before signed before unsigned or from another registry. No strategy and no fault moves a call to
            a later kind while replicas of an earlier one are left.
        quiet: Its node let a call go unanswered a moment ago.
        distance: How far its node is; the less the better. Strategies choose among the nearest.
        weight: For the strategy "weighted"; 1 … ``WEIGHT_MAX``, what is outside is cut.
        trust: 0 … 1.
    """

    agent_id: str
    kind: int = 0
    quiet: bool = False
    distance: int = 0
    weight: int = 1
    trust: float = 1.0


class Balance:
    """Knows how the calls of this node went, by replica, and says whom to try next.

    Args:
        config: Bounds and rates.
        rng: Draws the pairs of the strategy "latency".
    """

    def __init__(self, config: BalanceConfig, rng: random.Random) -> None:
        self._config, self._rng = config, rng
        self._loads: dict[str, Load] = {}
        #: Stands for every replica that was never chosen; never written to.
        self._blank = Load(config)
        self._turn = 0

    def order(
        self, replicas: Sequence[Replica], strategy: Strategy, key: str, now_s: float, count_max: int
    ) -> list[int]:
        """Return positions in ``replicas``, best first, each at most once.

        Kinds come first; within a kind those of quiet nodes and those set back by their breaker come last (never more than
        half of a kind is set back); then the nearest; among those the strategy decides. With "sticky" a key has its replica
        wherever that is, so distance does not count.

        Args:
            replicas: Different agents, in any order.
            strategy: "auto" is "sticky" for calls with a key and "latency" for all others; so is "sticky" without a key.
            key: What sticks: the conversation.
            now_s: Monotonic seconds.
            count_max: How many are wanted at most.
        """
        if len(replicas) == 1:
            return [0][:count_max]
        sticky = strategy in ("auto", "sticky") and key != ""
        states = self._states(replicas, now_s)
        avoided = self._avoided(replicas, states)
        groups: dict[tuple[int, bool, bool, int], list[Option]] = {}
        for place, replica in enumerate(replicas):
            rank = (replica.kind, replica.quiet, place in avoided, 0 if sticky else replica.distance)
            load = self._loads.get(replica.agent_id, self._blank)
            option = Option(place, replica.agent_id, load, _weight_of(replica), replica.trust)
            if (group := groups.get(rank)) is None:
                groups[rank] = [option]
            else:
                group.append(option)
        order: list[int] = []
        for rank in sorted(groups):
            count = count_max - len(order)
            if count <= 0:
                break
            options = groups[rank]
            if sticky:
                chosen = by_key(options, key, count)
            else:
                # A replica that was set back has served its time: the next call is its probe.
                probes = [o for o in options if states.get(o.place) == "half-open"][:count] if states else []
                rest = [o for o in options if states.get(o.place) != "half-open"] if probes else options
                chosen = probes[:1] + (self._by(strategy, rest, now_s, count) if rest else []) + probes[1:]
            order += [option.place for option in chosen[:count]]
        return order

    def _by(self, strategy: Strategy, options: list[Option], now_s: float, count: int) -> list[Option]:
        if strategy == "least-connections":
            return by_running(options, count)
        if strategy == "round-robin":
            return by_turn(options, count)
        if strategy == "weighted":
            return by_weight(options, count)
        return by_latency(options, now_s, count, self._rng)

    def _states(self, replicas: Sequence[Replica], now_s: float) -> dict[int, BreakerState]:
        """Return the states of the breakers that are not closed, by position."""
        states: dict[int, BreakerState] = {}
        for place, replica in enumerate(replicas):
            load = self._loads.get(replica.agent_id)
            if load is not None and (state := load.breaker.state(now_s)) != "closed":
                states[place] = state
        return states

    def _avoided(self, replicas: Sequence[Replica], states: dict[int, BreakerState]) -> frozenset[int]:
        """Return the positions of the replicas that are set back: at most half of each kind, the worst of them."""
        if not states:
            return frozenset()
        kinds: dict[int, int] = {}
        for replica in replicas:
            kinds[replica.kind] = kinds.get(replica.kind, 0) + 1
        avoided: list[int] = []
        for kind, number in kinds.items():
            opened = [p for p, state in states.items() if state == "open" and replicas[p].kind == kind]
            opened.sort(key=lambda p: (-self._loads[replicas[p].agent_id].breaker.length_s, replicas[p].agent_id))
            avoided += opened[: number // 2]
        return frozenset(avoided)

    def began(self, replica: Replica, now_s: float) -> None:
        """Note that a call goes to a replica; ``ended`` must follow."""
        load = self._loads.pop(replica.agent_id, None) or Load(self._config)
        self._loads[replica.agent_id] = load  # now the last to be forgotten
        self._turn += 1
        load.turn = self._turn
        load.running += 1
        load.passed += 1.0 / _weight_of(replica)
        load.breaker.began(now_s)
        while len(self._loads) > self._config.replicas_max:
            del self._loads[next(iter(self._loads))]

    def ended(self, agent_id: str, outcome: Outcome, began_s: float, now_s: float, others: Iterable[str] = ()) -> None:
        """Note how a call ended.

        Args:
            agent_id: As given to ``began``.
            outcome: What it says of the replica.
            began_s: When ``began`` was told.
            now_s: Monotonic seconds.
            others: The other replicas of the same agent, to compare failures with.
        """
        load = self._loads.get(agent_id)
        if load is None:
            return  # forgotten meanwhile
        load.running = max(0, load.running - 1)
        seconds = max(0.0, now_s - began_s)
        if outcome == "answered":
            load.succeeded(seconds, now_s)
            load.breaker.succeeded(began_s, now_s)
        elif outcome == "failed":
            load.failed(seconds, now_s)
            load.breaker.failed(began_s, now_s, is_outlier=self._is_outlier(load, others, now_s))
        else:
            load.dropped(seconds, now_s)
            load.breaker.dropped(began_s)

    def _is_outlier(self, load: Load, others: Iterable[str], now_s: float) -> bool:
        config = self._config
        volume, ratio = pooled_ratio([load], now_s)
        if volume < config.volume_min or ratio < config.ratio_over:
            return False
        known = [self._loads[other] for other in others if other in self._loads]
        volume, usual = pooled_ratio([other for other in known if other is not load], now_s)
        return volume >= config.volume_min and ratio - usual >= config.ratio_over

    def running(self, agent_id: str) -> int:
        """Return how many calls of this node run at a replica."""
        load = self._loads.get(agent_id)
        return 0 if load is None else load.running

    def state(self, agent_id: str, now_s: float) -> BreakerState:
        """Return the state of a replica's breaker."""
        load = self._loads.get(agent_id)
        return "closed" if load is None else load.breaker.state(now_s)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken."""
        assert len(self._loads) <= self._config.replicas_max
        assert all(load.running >= 0 for load in self._loads.values())


def _weight_of(replica: Replica) -> int:
    return min(max(1, replica.weight), WEIGHT_MAX)
