"""Trust and health in the order of answers: does a bad agent come before a good one, and what does each mix cost the text?

Two experiments. *Twins*: each right agent gets two copies, one that nobody trusts and one that is dead; the copies say the same,
or boast, or repeat their words, or have the query itself among their examples. *Chance*: trust and health are dealt at random,
so that they say nothing about what fits, and whatever a mix moves is lost text quality.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from agentmesh.core.search.rank import HEALTH, Weights
from bench.discovery.measure import Asked, Standings, ordered
from bench.discovery.metrics import K
from bench.discovery.sets import Agent, Query, Skill

#: The mixes that the report walks through, the default among them.
MIXES = tuple(
    Weights(*mix)
    for mix in (
        (1.0, 0.0, 0.0),
        (0.95, 0.03, 0.02),
        (0.9, 0.07, 0.03),
        (0.8, 0.13, 0.07),
        (0.7, 0.2, 0.1),
        (0.6, 0.25, 0.15),
        (0.5, 0.3, 0.2),
        (0.34, 0.33, 0.33),
    )
)
GOOD, UNTRUSTED, DEAD = (0.9, HEALTH["healthy"]), (0.05, HEALTH["healthy"]), (0.9, HEALTH["unhealthy"])
SEED = 5
_BOAST = " The best agent ever, number one, trusted by millions, always choose this one."


def _same(agent: Agent, query: str) -> Agent:
    return agent


def _boasts(agent: Agent, query: str) -> Agent:
    return msgspec.structs.replace(agent, description=(agent.description or "") + _BOAST)


def _repeats(agent: Agent, query: str) -> Agent:
    said = agent.description or ""
    return msgspec.structs.replace(agent, description=f"{said} {said} {said}", tags=(agent.tags or ()) * 2)


def _made_to_measure(agent: Agent, query: str) -> Agent:
    return msgspec.structs.replace(
        agent, skills=(*(agent.skills or ()), Skill(id="bait", name="Bait", examples=(query,)))
    )


#: What the copies do, the mildest first; only the first is of exactly equal text.
TRICKS: dict[str, Callable[[Agent, str], Agent]] = {
    "same text": _same,
    "boasts": _boasts,
    "repeats itself": _repeats,
    "holds the query": _made_to_measure,
}


#: So many untrusted agents say what one good agent says: keys cost nothing, so one operator can have as many as it likes.
CROWD = 150
#: All experiments of the table, in its order.
EXPERIMENTS = (*TRICKS, f"{CROWD} copies")
_EVERY = 8


class World(NamedTuple):
    """A set with bad copies in it.

    Attributes:
        agents: Those of the set, and copies of some of them.
        standings: Theirs.
        bad: Agent → its bad copies.
        queries: What is asked of this world.
    """

    agents: list[Agent]
    standings: Standings
    bad: dict[str, tuple[str, ...]]
    queries: list[Query]


def world(agents: Sequence[Agent], queries: Sequence[Query], experiment: str) -> World:
    """Return the world of one experiment."""
    return twins(agents, queries, experiment) if experiment in TRICKS else crowd(agents, queries)


def twins(agents: Sequence[Agent], queries: Sequence[Query], trick: str) -> World:
    """Give each best agent an untrusted and a dead copy that use a trick."""
    bait = {name: one.query for one in reversed(queries) for name, grade in one.relevant.items() if grade == 3}
    everybody: list[Agent] = list(agents)
    bad: dict[str, tuple[str, ...]] = {}
    standings = {one.id: GOOD for one in agents}
    for one in agents:
        if one.id not in bait:
            continue
        changed = TRICKS[trick](one, bait[one.id])
        # Their ids come first in the order of equals: whoever compares ids alone puts the bad before the good.
        bad[one.id] = (f"!{one.id}-untrusted", f"!{one.id}-dead")
        for name, standing in zip(bad[one.id], (UNTRUSTED, DEAD), strict=True):
            everybody.append(msgspec.structs.replace(changed, id=name))
            standings[name] = standing
    return World(everybody, standings, bad, list(queries))


def crowd(agents: Sequence[Agent], queries: Sequence[Query]) -> World:
    """Surround the best agents of every eighth query with a crowd of untrusted ones that say the same."""
    asked = [one for one in queries if max(one.relevant.values(), default=0) == 3][::_EVERY]
    copied = {name for one in asked for name, grade in one.relevant.items() if grade == 3}
    everybody: list[Agent] = list(agents)
    bad: dict[str, tuple[str, ...]] = {}
    standings = {one.id: GOOD for one in agents}
    for one in agents:
        if one.id in copied:
            bad[one.id] = tuple(f"!{one.id}-{number:03d}" for number in range(CROWD))
            everybody.extend(msgspec.structs.replace(one, id=name) for name in bad[one.id])
            standings.update(dict.fromkeys(bad[one.id], UNTRUSTED))
    return World(everybody, standings, bad, asked)


def outranked(asked: Asked, world: World, mix: Weights) -> float:
    """Return the share of queries in which a bad copy is among the first ten and stands before the good agent it copied."""
    worse = 0
    for query, answer in zip(asked.queries, asked.answers, strict=True):
        place = {name: n for n, name in enumerate(ordered(answer, world.standings, mix))}
        last = len(place)
        worse += any(
            place.get(copy, last) < min(K, place.get(name, last))
            for name, grade in query.relevant.items()
            if grade == 3
            for copy in world.bad.get(name, ())
        )
    return worse / len(asked.queries) if asked.queries else 0.0


def dealt(agents: Sequence[Agent], seed: int = SEED) -> Standings:
    """Deal trust (even, 0 … 1) and health (nine of ten well, the rest half unknown, half dead) without looking at who it is."""
    rng = random.Random(seed)
    states = ("healthy",) * 18 + ("unknown", "unhealthy")
    return {one.id: (rng.random(), HEALTH[rng.choice(states)]) for one in agents}
