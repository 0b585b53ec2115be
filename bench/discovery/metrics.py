"""How good a ranking is: recall, graded nDCG and reciprocal rank of the first ten. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

#: How many answers a caller looks at.
K = 10


class Metrics(NamedTuple):
    """The figures of one query, or the means of several; each 0 … 1.

    Attributes:
        recall: Share of the relevant agents that stand among the first ten (of ten, if more are relevant).
        ndcg: The same with grades and places: an agent of grade g is worth 2^g - 1, less the lower it stands.
        mrr: 1 / place of the first relevant agent, 0 if none is among the first ten.
    """

    recall: float
    ndcg: float
    mrr: float


def judge(ranking: Sequence[str], relevant: Mapping[str, float]) -> Metrics:
    """Judge one ranking.

    Args:
        ranking: Agent ids, the best first; a double counts where it stands first.
        relevant: Grade of each agent that is an answer; a grade of 0 means it is none.

    Raises:
        ValueError: no agent is relevant, so there is nothing to measure.
    """
    grades = {name: grade for name, grade in relevant.items() if grade > 0}
    if not grades:
        raise ValueError("no agent is relevant")
    first = list(dict.fromkeys(ranking))[:K]
    places = [place for place, name in enumerate(first) if name in grades]
    ideal = _gain(sorted(grades.values(), reverse=True)[:K])
    return Metrics(
        recall=len(places) / min(len(grades), K),
        ndcg=min(1.0, _gain([grades.get(name, 0.0) for name in first]) / ideal),
        mrr=1 / (places[0] + 1) if places else 0.0,
    )


def mean(rows: Iterable[Metrics]) -> Metrics:
    """Return the mean of each figure; zeros of nothing."""
    kept = list(rows)
    return (
        Metrics(*(math.fsum(column) / len(kept) for column in zip(*kept, strict=True)))
        if kept
        else Metrics(0.0, 0.0, 0.0)
    )


def _gain(grades: Sequence[float]) -> float:
    return math.fsum((2**grade - 1) / math.log2(place + 2) for place, grade in enumerate(grades))
