"""How well a passage answers a need, 0 … 1: the share of what the need means that the passage covers. Pure.

A need is a row of units (a word, a term, a few signs). A passage covers a unit by its words, or by a concept that both name;
a concept that is only broader or narrower covers part of it. What the passage leaves out and the agent says elsewhere counts
in part as well: "in German" often stands once for all skills. Each unit counts by how rare it is. How often a passage says a
thing, and how long it is, does not matter; one that says very much of everything is damped.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from agentmesh.embed.builtin import Unit


class Tuning(msgspec.Struct, frozen=True):
    """The figures of the score; found on the dev split of bench/discovery, never on queries of the other.

    Attributes:
        concept: What a concept says of the same unit that its very words say with 1.
        elsewhere: What it is worth that the agent says it in another passage.
        prior_agents: So many imagined agents are counted in, that rarity means something in a small index.
        prior_share: How many of them have any given feature.
        unknown: Weight of a unit that no agent here covers, by its rarest feature.
        crowd: Features of a passage from which on it is damped.
        both: What the weaker way adds when words and concepts both cover a unit.
        cover, cover_foreign: Share of words and concepts beside a model's vectors, for a need in English, and for one in
            another language if the model reads only English.
    """

    concept: float = 1.0
    elsewhere: float = 0.5
    prior_agents: float = 300.0
    prior_share: float = 0.003
    unknown: float = 0.5
    crowd: int = 50
    both: float = 0.15
    cover: float = 0.35
    cover_foreign: float = 0.7


class Path(NamedTuple):
    """One feature by which a unit may be covered: which unit, how much of it, and whether it is one of its words."""

    unit: int
    gain: float
    is_word: bool


class Need(msgspec.Struct):
    """One need, weighed.

    Attributes:
        text: As it stands.
        paths: Feature key → what it covers.
        features: Feature → the most it can bring, for finding candidates.
        most: What each unit can be covered by at most.
        total: Their sum, and what nobody covers.
    """

    text: str
    paths: dict[int, list[Path]]
    features: dict[str, float]
    most: list[float]
    total: float


class Scored(NamedTuple):
    """How well one agent answers one need."""

    text: float
    lexical: float
    concept: float
    passage: int


class Packed(NamedTuple):
    """The features of one passage: their keys, ascending, and each one's strength, 0 … 255."""

    keys: array[int]
    strengths: bytes


def rarity(count: int, agents: int, tuning: Tuning) -> float:
    """Return how much a feature of so many agents says: 1 for one that nobody has, 0 for one that all have."""
    whole = agents + tuning.prior_agents
    having = count + tuning.prior_agents * tuning.prior_share
    return max(0.02, math.log((whole + 1) / (having + 0.5)) / math.log(whole + 1))


def weighed(
    text: str,
    units: Sequence[Unit],
    count_of: Callable[[str], int],
    key_of: Callable[[str], int],
    agents: int,
    tuning: Tuning,
) -> Need:
    """Weigh the units of a need by how rare their features are here."""
    need = Need(text, {}, {}, [], 0.0)
    rare: dict[str, tuple[int, float]] = {}
    for unit in units:
        here = len(need.most)
        words = list(dict.fromkeys(unit.words))
        for feature in (*words, *(name for name, _ in unit.means)):
            if feature not in rare:
                count = count_of(feature)
                rare[feature] = count, rarity(count, agents, tuning)
        gains: list[tuple[str, float, bool]] = []
        of_words = sum(rare[word][1] for word in words) / max(1, len(words))
        of_all = sum(rare[word][1] for word in words) or 1.0
        for word in words:  # a term of three words is covered by two of them to two thirds
            gains.append((word, unit.weight * of_words * rare[word][1] / of_all, True))
        for concept, strength in unit.means:
            gains.append((concept, unit.weight * rare[concept][1] * strength * tuning.concept, False))
        by_words = sum(gain for feature, gain, is_word in gains if is_word and rare[feature][0])
        most = max(
            [by_words, *(gain for feature, gain, is_word in gains if not is_word and rare[feature][0])], default=0.0
        )
        need.most.append(most)
        floor = max([of_words * unit.weight, *(gain for _, gain, is_word in gains if not is_word)], default=0.0)
        need.total += max(most, floor * tuning.unknown)
        for feature, gain, is_word in gains:
            if rare[feature][0]:
                need.paths.setdefault(key_of(feature), []).append(Path(here, gain, is_word))
                need.features[feature] = need.features.get(feature, 0.0) + gain
    return need


def scored(need: Need, passages: Sequence[Packed], tuning: Tuning) -> Scored:
    """Return how well the best passage answers, with the help of what the others say."""
    if need.total <= 0:
        return _NOTHING
    rows: list[tuple[int, dict[int, float], dict[int, float]]] = []
    words_best: dict[int, float] = {}
    concepts_best: dict[int, float] = {}
    for number, (keys, strengths) in enumerate(passages):
        words, concepts = _covered(need.paths, keys, strengths, tuning)
        if words or concepts:
            rows.append((number, words, concepts))
            for unit, worth in words.items():
                if worth > words_best.get(unit, 0.0):
                    words_best[unit] = worth
            for unit, worth in concepts.items():
                if worth > concepts_best.get(unit, 0.0):
                    concepts_best[unit] = worth
    if not rows:
        return _NOTHING
    # What each unit is worth if only other passages cover it, and how much more it is where a passage covers it itself.
    part, most = tuning.elsewhere, need.most
    elsewhere: dict[int, float] = {}
    for unit in {**words_best, **concepts_best}:
        said = words_best.get(unit, 0.0) * part, concepts_best.get(unit, 0.0) * part
        elsewhere[unit] = min(most[unit], max(said) + tuning.both * min(said))
    best, best_row = -1.0, rows[0]
    for row in rows:
        _, words, concepts = row
        text = 0.0
        for unit in {**words, **concepts}:
            word = max(words.get(unit, 0.0), words_best.get(unit, 0.0) * part)
            concept = max(concepts.get(unit, 0.0), concepts_best.get(unit, 0.0) * part)
            high, low = (word, concept) if word > concept else (concept, word)
            text += min(most[unit], high + tuning.both * low) - elsewhere[unit]
        if text > best:
            best, best_row = text, row
    number, words, concepts = best_row
    lexical = sum(max(words.get(unit, 0.0), worth * part) for unit, worth in words_best.items())
    concept = sum(max(concepts.get(unit, 0.0), worth * part) for unit, worth in concepts_best.items())
    text = sum(elsewhere.values()) + best
    return Scored(min(1.0, text / need.total), min(1.0, lexical / need.total), min(1.0, concept / need.total), number)


_NOTHING = Scored(0.0, 0.0, 0.0, 0)


def _covered(
    paths: dict[int, list[Path]], keys: array[int], strengths: bytes, tuning: Tuning
) -> tuple[dict[int, float], dict[int, float]]:
    """Return what the words and what the concepts of one passage cover of each unit; units that they leave out are not there."""
    words: dict[int, float] = {}
    concepts: dict[int, float] = {}
    common = paths.keys() & set(keys)
    if common:
        damp = (1.0 if len(keys) <= tuning.crowd else math.sqrt(tuning.crowd / len(keys))) / 255
        for key in common:
            strength = strengths[bisect_left(keys, key)] * damp
            for unit, gain, is_word in paths[key]:
                worth = gain * strength
                if is_word:
                    words[unit] = words.get(unit, 0.0) + worth
                elif worth > concepts.get(unit, 0.0):
                    concepts[unit] = worth
    return words, concepts
