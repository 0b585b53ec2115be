"""The order of answers: ``score = α·text + β·trust + γ·health`` (RQ0 §4.3), with its parts, and why an agent is no answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from agentmesh.errors import UsageError

Health = Literal["healthy", "unknown", "unhealthy"]
#: How much a state of health is worth: an agent that was not checked yet is neither well nor dead.
HEALTH = {"healthy": 1.0, "unknown": 0.5, "unhealthy": 0.0}


class Weights(NamedTuple):
    """The mix. What is given is scaled so that the three sum to 1.

    Attributes:
        text: α, how much it counts that the agent says it does what is asked for.
        trust: β, how much its conduct counts.
        health: γ, how much it counts that it answers now.
    """

    text: float = 0.7
    trust: float = 0.2
    health: float = 0.1

    def scaled(self) -> Weights:
        """Return the same mix with a sum of 1.

        Raises:
            UsageError: a weight is negative or no number, or all are 0 (code "discover.weights").
        """
        total = sum(self)
        if not all(math.isfinite(one) and one >= 0 for one in self) or not (math.isfinite(total) and total > 0):
            raise UsageError(
                "weights are three numbers of 0 or more, not all 0",
                code="discover.weights",
                hint='agentmesh discover "…" --weights 0.7,0.2,0.1   (text, trust, health)',
            )
        return Weights(*(one / total for one in self))


class Parts(NamedTuple):
    """The parts of a score, each 0 … 1 before it is weighted."""

    text: float
    trust: float
    health: float


class Ranked(NamedTuple):
    """One agent in its place.

    Attributes:
        agent_id: Which one.
        score: 0 … 1.
        parts: What it is made of.
    """

    agent_id: str
    score: float
    parts: Parts


def score_of(parts: Parts, weights: Weights) -> float:
    """Return the weighted sum; ``weights`` are scaled already."""
    return weights.text * parts.text + weights.trust * parts.trust + weights.health * parts.health


def ranked(found: Iterable[tuple[str, Parts]], weights: Weights) -> list[Ranked]:
    """Order agents by score, the best first; of equals the one of the smaller id.

    Args:
        found: Agent ids, each once, with their parts.
        weights: Scaled here.

    Raises:
        UsageError: see ``Weights.scaled``.
    """
    mix = weights.scaled()
    scored = [Ranked(agent_id, score_of(parts, mix), parts) for agent_id, parts in found]
    return sorted(scored, key=lambda one: (-one.score, one.agent_id))


def merged(parts: Sequence[Sequence[Ranked]]) -> list[Ranked]:
    """Merge answers of several places by rank: each agent once, with its best score."""
    best: dict[str, Ranked] = {}
    for answer in parts:
        for one in answer:
            if one.agent_id not in best or one.score > best[one.agent_id].score:
                best[one.agent_id] = one
    return sorted(best.values(), key=lambda one: (-one.score, one.agent_id))
