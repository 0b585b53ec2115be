"""Which agents may answer a need, and how well: lists of features and near vectors bring up a few, the exact score orders them.

The work for one need is bounded: rarest features first, a fixed number of list entries, a fixed number of exact scores.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import NamedTuple

from agentmesh.core.search.model import Document, Filters, Hit, Passage
from agentmesh.node.search.dense import Dense, Near
from agentmesh.node.search.packed import missed_by, read_document, traits_asked, unpacked
from agentmesh.node.search.score import Need, Scored, Tuning, scored
from agentmesh.node.search.vectors import Question
from agentmesh.store.search import SearchStore

#: Entries of lists that one need may read, and agents that are then scored exactly.
_ENTRIES_MAX = 25_000
_EXACT_MIN, _EXACT_MAX = 120, 2_000
#: From this length on a list is only read if somebody new in it could still be among the best.
_LONG_LIST = 1_500
#: Documents looked at in one go until there are enough hits.
_JUDGED_AT_ONCE = 32
#: Below this nothing speaks for an agent.
_TEXT_MIN = 0.04
#: Agents that filters leave are all compared with a need's vector up to this number, else only the nearest.
_WITHIN_MAX = 2_000
#: Agents near a need's vector that are scored exactly.
_NEAREST_AGENTS = 100
_COUNTS_MAX = 100_000


class Candidates:
    """Finds and scores agents in an index; keeps only how many have a feature.

    Args:
        store: The index.
        tuning: Figures of the score.
    """

    def __init__(self, store: SearchStore, tuning: Tuning) -> None:
        self._store = store
        self.tuning = tuning
        self._counts: dict[str, int] = {}

    def changed(self) -> None:
        """Forget what was counted: agents came or went."""
        self._counts.clear()

    def count(self, feature: str) -> int:
        """Return how many agents have a feature. Raises StoreError."""
        found = self._counts.get(feature)
        if found is None:
            if len(self._counts) >= _COUNTS_MAX:
                self._counts.clear()
            found = self._counts[feature] = self._store.count_of(feature)
        return found

    def within(self, filters: Filters) -> Within | None:
        """Return what the lists are cut down to; None without filters."""
        if filters == Filters():
            return None
        by_figures = filters.context_window_min > 0 or filters.price_micros_max is not None
        figures = (filters.context_window_min, filters.price_micros_max)
        return Within(traits_asked(filters), frozenset(self._store.agents_with(*figures)) if by_figures else None)

    def answers(
        self, need: Asked, filters: Filters, within: Within | None, limit: int, near: int, *, needs: int = 1
    ) -> tuple[list[Hit], list[Hit]]:
        """Return hits and near misses of one need, which is one of so many."""
        exact = min(_EXACT_MAX, max(_EXACT_MIN // needs, limit + limit // 4))
        hits, nearly = self._judged(self._candidates(need, within, exact), filters, limit, near)
        if within is not None and near:
            nearly += self._judged(self._candidates(need, None, exact), filters, 0, near)[1]
        best: dict[str, Hit] = {hit.agent_id: hit for hit in nearly}
        return ordered(hits), ordered(best.values())[:near]

    def _judged(
        self, scores: Sequence[tuple[int, Scored]], filters: Filters, limit: int, near: int
    ) -> tuple[list[Hit], list[Hit]]:
        """Return the best that meet the filters, and the best that do not."""
        hits: list[Hit] = []
        nearly: list[Hit] = []
        for start in range(0, len(scores), _JUDGED_AT_ONCE):
            if len(hits) >= limit and (limit > 0 or len(nearly) >= near):
                break
            part = scores[start : start + _JUDGED_AT_ONCE]
            documents = self._store.documents([number for number, _ in part])
            for number, one in part:
                if number in documents:
                    hit = _hit(read_document(documents[number]), one, filters)
                    (nearly if hit.missed else hits).append(hit)
        return hits[:limit], nearly[:near]

    def _candidates(self, asked: Asked, within: Within | None, exact: int) -> list[tuple[int, Scored]]:
        """Return agents that may answer with their exact scores, the best first."""
        chosen = self._listed(asked.need, within, exact)
        near: dict[int, Near] = {}
        if asked.question is not None:
            dense, vector = asked.question
            chosen = [*dict.fromkeys([*chosen, *self._nearest(asked.question, within)])]
            near = dense.near(vector, chosen)
        results: list[tuple[int, Scored]] = []
        for number, raw in self._store.features(chosen).items():
            one = scored(asked.need, unpacked(raw), self.tuning)
            if asked.question is not None:
                one = _fused(one, near.get(number), asked.question.dense, asked.cover)
            if one.text >= _TEXT_MIN:
                results.append((number, one))
        results.sort(key=lambda one: (-one[1].text, one[0]))
        return results

    def _listed(self, need: Need, within: Within | None, most: int) -> list[int]:
        """Return the agents that the lists of a need's features bring up, the most promising first."""
        worth: dict[int, float] = {}
        traits = within.traits if within is not None else ()
        only = within.numbers if within is not None else None
        left = _ENTRIES_MAX
        features = sorted(need.features, key=lambda one: (self.count(one), one))
        more = sum(need.features.values())  # what an agent that no list named yet can still come to
        for feature in features:
            count, gain = self.count(feature), need.features[feature]
            if worth and (count > left or (count > _LONG_LIST and len(worth) >= most and more < _last(worth, most))):
                break  # commoner ones only order what rarer ones brought up, and the exact score does that
            more -= gain
            found = self._store.agents_of(feature, *traits)[: max(left, 0)]
            left -= len(found)
            if only is not None:
                found = [number for number in found if number in only]
            for number in found:
                worth[number] = worth.get(number, 0.0) + gain
        return [number for number, _ in heapq.nlargest(most, worth.items(), key=itemgetter(1))]

    def _nearest(self, question: Question, within: Within | None) -> list[int]:
        """Return the agents that a model brings up."""
        if within is None:
            return question.dense.nearest(question.vector)[:_NEAREST_AGENTS]
        left = within.numbers
        if within.traits:
            having = frozenset(self._store.agents_of(*within.traits))
            left = having if left is None else left & having
        if left is None or len(left) > _WITHIN_MAX:
            return [one for one in question.dense.nearest(question.vector) if left is None or one in left]
        return sorted(left)


class Asked(NamedTuple):
    """One need: what words and concepts cover, what a model makes of it, and the share of the first."""

    need: Need
    question: Question | None
    cover: float


class Within(NamedTuple):
    """What filters leave: agents that have these traits and, if figures were asked for, are among these."""

    traits: list[str]
    numbers: frozenset[int] | None


def _fused(one: Scored, near: Near | None, dense: Dense, cover: float) -> Scored:
    """Return what words, concepts and vectors say together; the passage is that of the stronger side."""
    if near is None:  # its vectors are still being made
        return one
    nearness = dense.nearness(near.cosine)
    passage = near.passage if (1 - cover) * nearness > cover * one.text else one.passage
    return Scored(cover * one.text + (1 - cover) * nearness, one.lexical, nearness, passage)


def ordered(hits: Iterable[Hit]) -> list[Hit]:
    """Return hits the best first, of equals the one of the smaller id."""
    return sorted(hits, key=lambda hit: (-hit.text, hit.agent_id))


def _last(worth: dict[int, float], most: int) -> float:
    """Return the value that an agent must have to be among the best so many."""
    return heapq.nlargest(most, worth.values())[-1]


def _hit(document: Document, one: Scored, filters: Filters) -> Hit:
    passages = document.passages
    passage = passages[one.passage] if one.passage < len(passages) else Passage("agent", "", document.name)
    return Hit(document.agent_id, one.text, passage, missed_by(document, filters), one.lexical, one.concept)
