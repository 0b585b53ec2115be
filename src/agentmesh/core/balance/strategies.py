"""The order in which a strategy would try replicas that are equally near. Pure; ties go to the one that rested longest."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from hashlib import blake2b

from agentmesh.core.balance.load import Load

#: Least trust that counts: a replica of no trust at all still has a cost that can be compared.
TRUST_MIN = 0.05


class Option:
    """One replica to choose from.

    Args:
        place: Its position in what the caller gave.
        agent_id: Who.
        load: What is known of it.
        weight: Share of calls relative to the others, ≥ 1.
        trust: 0 … 1.
    """

    __slots__ = ("agent_id", "load", "place", "trust", "weight")

    def __init__(self, place: int, agent_id: str, load: Load, weight: int, trust: float) -> None:
        self.place, self.agent_id, self.load, self.weight, self.trust = place, agent_id, load, weight, trust


def by_latency(options: list[Option], now_s: float, count: int, rng: random.Random) -> list[Option]:
    """Of two drawn at random the one where a call is expected to end sooner, again and again (P2C over peak EWMA).

    Two random ones and not the best of all: many callers with the same old news would all run to the same replica.
    """
    left, order = list(options), list[Option]()
    while left and len(order) < count:
        first = rng.randrange(len(left))
        if len(left) > 1:
            second = (first + 1 + rng.randrange(len(left) - 1)) % len(left)
            first = min(first, second, key=lambda i: (_cost(left[i], now_s), left[i].load.turn, left[i].agent_id))
        left[first], left[-1] = left[-1], left[first]
        order.append(left.pop())
    return order


def _cost(option: Option, now_s: float) -> float:
    trust = option.trust if option.trust >= TRUST_MIN else TRUST_MIN  # what is no number counts as none
    return option.load.cost_s(now_s) / trust


def by_running(options: list[Option], count: int) -> list[Option]:
    """The fewest calls of this node running first."""
    return heapq.nsmallest(count, options, key=lambda o: (o.load.running, o.load.turn, o.agent_id))


def by_turn(options: list[Option], count: int) -> list[Option]:
    """One after the other."""
    return heapq.nsmallest(count, options, key=lambda o: (o.load.turn, o.agent_id))


def by_weight(options: list[Option], count: int) -> list[Option]:
    """In proportion to weights, evenly interleaved (stride scheduling)."""
    # Who is new or was away is not owed what it missed, at most its share of one round.
    lag = 1.0 / min(o.weight for o in options)
    floor = max(o.load.passed for o in options) - lag
    for option in options:
        if option.load.turn:  # who was never chosen shares one blank
            option.load.passed = max(option.load.passed, floor)
    return heapq.nsmallest(
        count, options, key=lambda o: (max(o.load.passed, floor) + 1.0 / o.weight, o.load.turn, o.agent_id)
    )


def by_key(options: list[Option], key: str, count: int) -> list[Option]:
    """The same key to the same replica (rendezvous hashing): when one goes, only its keys move."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).digest()
    return heapq.nsmallest(count, options, key=lambda o: (_score(digest, o.agent_id), o.agent_id))


def _score(digest: bytes, agent_id: str) -> bytes:
    return blake2b(agent_id.encode(), key=digest, digest_size=8).digest()


def pooled_ratio(loads: Sequence[Load], now_s: float) -> tuple[float, float]:
    """Return (number of outcomes, share of failures) of several replicas together."""
    good = bad = 0.0
    for load in loads:
        its_good, its_bad = load.outcomes(now_s)
        good, bad = good + its_good, bad + its_bad
    return good + bad, bad / (good + bad) if good + bad else 0.0
