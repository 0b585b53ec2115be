"""The built-in reading of a text: its words and the concepts they name, no model and no download (docs/explain/discovery.md).

A text is read into *features*. A word is its stem ("tenanc"); a pair of Chinese signs is a word as well. A concept is the name
of a line of the lexicon behind an underscore ("_rental"), which no word begins with; it comes with its broader concepts, each
step with less strength. Concepts are the same in every language, so a German need finds a Chinese agent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from agentmesh.core.search.common import chinese_nothing, english_grammar, foreign_grammar, weight_of
from agentmesh.core.search.text import Token, letters_of, pairs, tokens, trigrams
from agentmesh.embed.base import Dense, Role, Sparse
from agentmesh.embed.concepts import Lexicon, lexicon_files, read_lexicon

#: What a word inside a longer term still says ("contract" in "rental contract"), and a part of a compound word.
_INNER, _COMPOUND = 0.5, 0.8
#: Of a term that stands in 1, 2, 3 and more concepts: each is meant with this strength.
_AMBIGUOUS = (1.0, 0.85, 0.7)
#: What is said behind a "not" is mostly what an agent does not do.
_NEGATED, _NEGATED_TOKENS = 0.3, 10
_NOT = {
    *(
        "not",
        "no",
        "never",
        "nor",
        "neither",
        "dont",
        "doesnt",
        "cannot",
        "cant",
        "wont",
        "without",
        "exclud",
        "except",
    ),
    *("nicht", "kein", "keine", "sin", "sans"),
}
_NOT_CHINESE = (
    "不支持",
    "不处理",
    "不提供",
    "不包括",
    "不负责",
    "不做",
    "不含",
    "除外",
    "除了",
    "不适用",
    "不受理",
    "不涉及",
)
#: Compound words of German and its neighbours are tried from this length on; letters that join their parts.
_COMPOUND_CHARS_MIN, _PART_CHARS_MIN = 9, 4
#: Endings that are taken off a word of another language, and what must be left of it.
_ENDING_CHARS_MAX, _HEAD_CHARS_MIN = 3, 5
_JOINTS = ("", "s", "es", "n", "en", "e")
_RUN_PAIRS_MAX = 400
_TRIGRAM_SHARE = 0.3

Means = tuple[tuple[str, float], ...]


class Unit(NamedTuple):
    """One thing that a text says: a word, a term of several words, or a few signs.

    Attributes:
        plain: As it stands, folded.
        words: Its stems or pairs of signs, those of no weight left out.
        means: Concepts with their strength, broader ones included, the strongest first.
        weight: How much it can say at most, 0 … 1.
        negated: It stands behind a "not".
        known: The lexicon or the list of common words has it; an unknown word may be a slip of the keyboard.
        foreign: It is not English.
    """

    plain: str
    words: tuple[str, ...]
    means: Means
    weight: float
    negated: bool
    known: bool
    foreign: bool = False


class Gloss(NamedTuple):
    """English names of what a text says in other languages, and which part of it is in them, 0 … 1."""

    english: str
    foreign: float


class Reader:
    """Reads texts by a lexicon; keeps no text.

    Args:
        lexicon: The concepts; None reads those of the program, which takes most of a second.
        language: Of Latin words, as Snowball names it.
    """

    def __init__(self, lexicon: Lexicon | None = None, language: str = "english") -> None:
        self.lexicon = read_lexicon(lexicon_files()) if lexicon is None else lexicon
        self.language = language
        self._names = ["_" + one for one in self.lexicon.ids]
        self._single = lru_cache(maxsize=65_536)(self._read_single)
        self._term = lru_cache(maxsize=16_384)(self._read_term)

    @property
    def version(self) -> str:
        """Changes when the same text would be read into other features."""
        return f"builtin-2-{self.language}-{self.lexicon.mark}"

    def units(self, text: str) -> list[Unit]:
        """Return what a text says, in its order; the longest terms of the lexicon stay whole, and words of no weight go."""
        found: list[Unit] = []
        longest, foreign_longest = self.lexicon.longest, self.lexicon.foreign_longest
        pending = [*tokens(text, self.language)]
        at, negated = 0, 0
        while at < len(pending):
            one = pending[at]
            if one.kind == "end":
                negated = 0
                at += 1
                continue
            if one.kind == "run":
                negated = self._read_run(one.text, negated, found)
                at += 1
                continue
            taken = self._longest(pending, at) if one.text in longest or one.plain in foreign_longest else 1
            if one.plain in _NOT or one.text in _NOT:
                negated = _NEGATED_TOKENS
            unit = self._term(tuple(pending[at : at + taken])) if taken > 1 else self._single(one)
            if unit.weight > 0:
                found.append(unit._replace(negated=True) if negated and one.text not in _NOT else unit)
            negated = max(0, negated - 1)
            at += taken
        return found

    def features(self, text: str) -> dict[str, float]:
        """Return the features of a passage with their strength, 0 … 1; how often it says something does not matter."""
        found: dict[str, float] = {}
        for unit in self.units(text):
            share = _NEGATED if unit.negated else 1.0
            for word in unit.words:
                if found.get(word, 0.0) < share:
                    found[word] = share
            for concept, strength in unit.means:
                if found.get(concept, 0.0) < strength * share:
                    found[concept] = strength * share
        return found

    def gloss(self, text: str) -> Gloss:
        """Return the English names of what a text says in other languages, for models that read only English.

        Words of Latin script are read as English wherever grammar shows the text to be so.
        """
        names: dict[str, None] = {}
        foreign = plain = 0
        latin_too = self._is_foreign(text)
        for unit in self.units(text):
            if not unit.foreign or (not latin_too and unit.plain < "\u0370"):
                plain += unit.known and unit.weight > 0
                continue
            foreign += 1
            for concept, strength in unit.means:
                if strength >= _AMBIGUOUS[-1] and (name := self.lexicon.glosses[self._index[concept]]):
                    names.setdefault(name)
        return Gloss(", ".join(names), foreign / max(1, foreign + plain))

    def _is_foreign(self, text: str) -> bool:
        """Say whether a text of Latin script is hardly English: by its grammar, or by accents if it has none."""
        words = [one.plain for one in tokens(text, self.language) if one.kind == "word"]
        english = sum(word in english_grammar() for word in words)
        foreign = sum(word in foreign_grammar() for word in words)
        if english == foreign:
            known = [unit for unit in self.units(text) if unit.means and unit.plain < "\u0370"]
            return bool(known) and sum(unit.foreign for unit in known) == len(known)
        return foreign > english

    @property
    def _index(self) -> dict[str, int]:
        index: dict[str, int] | None = self.__dict__.get("_index_made")
        if index is None:
            index = {name: number for number, name in enumerate(self._names)}
            self.__dict__["_index_made"] = index
        return index

    def breadth(self, concept: str) -> int:
        """Return how many concepts are narrower than this feature; 0 for words."""
        number = self._index.get(concept)
        return 0 if number is None else self.lexicon.breadth[number]

    def _longest(self, pending: list[Token], at: int) -> int:
        """Return of how many tokens the longest term is that begins here; 1 if there is none."""
        lexicon = self.lexicon
        most = max(lexicon.longest.get(pending[at].text, 1), lexicon.foreign_longest.get(pending[at].plain, 1))
        for count in range(min(most, len(pending) - at), 1, -1):
            some = pending[at : at + count]
            if any(one.kind == "end" for one in some):
                continue
            if self._concepts(some):
                return count
        return 1

    def _concepts(self, some: Sequence[Token]) -> tuple[int, ...]:
        """Return the concepts of a term: the English ones, else those of another language."""
        found = self.lexicon.terms.get(" ".join(one.text for one in some))
        return found or self.lexicon.foreign.get(" ".join(one.plain for one in some), ())

    def _means(self, concepts: tuple[int, ...], share: float = 1.0) -> dict[str, float]:
        found: dict[str, float] = {}
        share *= _AMBIGUOUS[min(len(concepts), len(_AMBIGUOUS)) - 1] if concepts else 0.0
        for one in concepts:
            for number, strength in self.lexicon.closures[one]:
                name = self._names[number]
                found[name] = max(found.get(name, 0.0), strength * share)
        return found

    def _read_single(self, token: Token) -> Unit:
        text, plain = token.text, token.plain
        concepts = self._concepts((token,))
        foreign = (bool(concepts) and text not in self.lexicon.terms) or text >= "\u0370"
        weight = weight_of(text)
        if len(text) == 1 and not concepts and text < "\u0370":
            weight = 0.0
        known = bool(concepts) or weight < 1 or plain in self.lexicon.words
        means = self._means(concepts)
        words = [text]
        if not concepts and weight == 1.0:
            for part in letters_of(plain):
                means = {**self._means(self.lexicon.terms.get(part, ()), _INNER), **means}
                words.append(part)
            if not known and plain.isalpha():
                means = self._inflected(plain)
                if not means and len(plain) >= _COMPOUND_CHARS_MIN:
                    means = self._compound(plain)
                foreign = foreign or bool(means)
        if not concepts and plain.isdigit():
            weight = min(weight, 0.45)
            known = True
        return Unit(plain, tuple(words), _sorted(means), weight, False, known, foreign)

    def _read_term(self, found: tuple[Token, ...]) -> Unit:
        """Read several tokens that are one term."""
        means = self._means(self._concepts(found))
        words: list[str] = []
        for one in found:
            if one.kind == "run":
                words += pairs(one.text)
                continue
            inner = self._single(one)
            if inner.weight > 0:
                words += inner.words
                if inner.weight == 1.0:
                    for concept, strength in inner.means:
                        means[concept] = max(means.get(concept, 0.0), strength * _INNER)
        foreign = " ".join(one.text for one in found) not in self.lexicon.terms
        return Unit(" ".join(one.plain for one in found), tuple(words), _sorted(means), 1.0, False, True, foreign)

    def _inflected(self, plain: str) -> dict[str, float]:
        """Return the concepts of a word of another language in another form ("Mietverträgen")."""
        for cut in range(1, _ENDING_CHARS_MAX + 1):
            head = plain[:-cut]
            for form in (head, head + "e", head + "en") if len(head) >= _HEAD_CHARS_MIN else ():
                if form in self.lexicon.foreign:
                    return self._means(self.lexicon.foreign[form], _COMPOUND)
        return {}

    def _compound(self, plain: str) -> dict[str, float]:
        """Return the concepts of a word made of two that the lexicon has ("Mietvertragsprüfung")."""
        for cut in range(len(plain) - _PART_CHARS_MIN, _PART_CHARS_MIN - 1, -1):
            last = self._part(plain[cut:])
            if not last:
                continue
            for joint in _JOINTS:
                head = plain[: cut - len(joint)] if joint else plain[:cut]
                if plain[:cut] == head + joint and len(head) >= _PART_CHARS_MIN and (first := self._part(head)):
                    return {**self._means(last, _COMPOUND), **self._means(first, _COMPOUND)}
        return {}

    def _part(self, plain: str) -> tuple[int, ...]:
        for form in (plain, plain + "e", plain + "en"):
            if form in self.lexicon.foreign:
                return self.lexicon.foreign[form]
        return self.lexicon.terms.get(self.lexicon.words.get(plain, plain), ())

    def _read_run(self, run: str, negated: int, found: list[Unit]) -> int:
        """Read signs without spaces: the longest terms of the lexicon, and the pairs of what is left. Returns what is negated."""
        lexicon, nothing = self.lexicon, chinese_nothing()
        at, left = 0, 0
        while at <= len(run):
            taken = 0
            for count in (
                range(min(lexicon.runs_longest.get(run[at], 0), len(run) - at), 0, -1) if at < len(run) else ()
            ):
                if run[at : at + count] in lexicon.runs:
                    taken = count
                    break
            blank = 0 if at == len(run) else _blank(run, at, nothing)
            if at == len(run) or taken or blank:
                self._read_rest(run[left:at], bool(negated), found)
                if at == len(run):
                    break
                if run.startswith(_NOT_CHINESE, at):
                    negated = _NEGATED_TOKENS
                if taken >= blank:
                    term = run[at : at + taken]
                    means = self._means(lexicon.runs[term])
                    for inner in range(len(term) - 1) if taken > 2 else ():
                        for count in range(2, taken - inner + (inner > 0)):
                            if (concepts := lexicon.runs.get(term[inner : inner + count])) is not None:
                                for concept, strength in self._means(concepts, _INNER).items():
                                    means[concept] = max(means.get(concept, 0.0), strength)
                    found.append(Unit(term, tuple(pairs(term)), _sorted(means), 1.0, bool(negated), True, True))
                at += max(taken, blank)
                left = at
            else:
                at += 1
        return max(0, negated - len(run) // 2)

    def _read_rest(self, rest: str, negated: bool, found: list[Unit]) -> None:
        for pair in pairs(rest)[:_RUN_PAIRS_MAX] if rest else ():
            found.append(Unit(pair, (pair,), (), 1.0 if len(pair) > 1 else 0.6, negated, True, True))


def _blank(run: str, at: int, nothing: frozenset[str]) -> int:
    """Return of how many signs the longest string is that begins here and says nothing."""
    for count in (4, 3, 2, 1):
        if run[at : at + count] in nothing and at + count <= len(run):
            return count
    return 0


def _sorted(means: dict[str, float]) -> Means:
    return tuple(sorted(means.items(), key=lambda one: (-one[1], one[0])))


class BuiltinEmbedder:
    """The reading of a text as a sparse vector of length 1.

    Args:
        reader: See ``Reader``; None makes one when it is needed.
    """

    name = "builtin"
    dims = 0

    def __init__(self, reader: Reader | None = None) -> None:
        self._reader = reader

    @property
    def reader(self) -> Reader:
        """What reads the texts."""
        if self._reader is None:
            self._reader = Reader()
        return self._reader

    @property
    def version(self) -> str:
        """Of the lexicon and of this code."""
        return self.reader.version

    def embed(self, texts: Sequence[str], role: Role) -> list[Dense | Sparse]:
        """Return one sparse vector for each text; both roles are read alike. Raises nothing."""
        return [self._embed(text) for text in texts]

    def _embed(self, text: str) -> Sparse:
        found: dict[str, float] = {}
        for unit in self.reader.units(text):
            share = unit.weight * (_NEGATED if unit.negated else 1.0)
            for word in unit.words:
                found[word] = max(found.get(word, 0.0), share)
            for concept, strength in unit.means:
                worth = share * strength / (1.0 + 0.25 * math.log2(1 + self.reader.breadth(concept)))
                found[concept] = max(found.get(concept, 0.0), worth)
            if not unit.known:
                near = trigrams(unit.plain)
                for three in near:
                    found["3" + three] = _TRIGRAM_SHARE / math.sqrt(len(near))
        length = math.sqrt(sum(worth * worth for worth in found.values()))
        return {name: worth / length for name, worth in sorted(found.items())}

    def close(self) -> None:
        """Nothing is held."""
