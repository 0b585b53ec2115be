"""Which known words a slip of the keyboard may have meant. Pure, bounded.

Words are found by the trigrams they share with the mistyped one, then judged by the slips between them.
"""

from __future__ import annotations

from array import array
from collections import Counter

from agentmesh.core.search.text import is_near, trigrams

WORDS_MAX = 100_000
#: Shorter words are left alone: too many others are one slip away.
_CHARS_MIN = 4
#: A word of this length and more may hold two slips.
_TWO_SLIPS_CHARS_MIN = 8
_CANDIDATES_MAX = 40
#: Words looked at for one trigram; of commoner ones the rest is passed over.
_LIST_MAX = 6_000


class Spelling:
    """A set of known words."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._known: set[str] = set()
        self._lists: dict[str, array[int]] = {}

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, word: str) -> bool:
        return word in self._known

    def add(self, word: str) -> None:
        """Learn a word; beyond ``WORDS_MAX`` nothing is learned."""
        if word in self._known or len(word) < _CHARS_MIN or len(self._words) >= WORDS_MAX:
            return
        number = len(self._words)
        self._words.append(word)
        self._known.add(word)
        for three in trigrams(word):
            self._lists.setdefault(three, array("I")).append(number)

    def near(self, word: str, most: int = 3) -> list[tuple[str, int]]:
        """Return known words that this one may mean, with the number of slips, fewest first.

        Args:
            word: Folded; one that is known is near to itself only.
            most: Words returned at most.
        """
        if word in self._known:
            return [(word, 0)]
        if len(word) < _CHARS_MIN:
            return []
        slips = 2 if len(word) >= _TWO_SLIPS_CHARS_MIN else 1
        shared: Counter[int] = Counter()
        for three in sorted(trigrams(word)):
            shared.update(self._lists.get(three, ())[:_LIST_MAX])
        found: list[tuple[int, int, str]] = []
        for number, count in sorted(shared.items(), key=lambda one: (-one[1], one[0]))[: _CANDIDATES_MAX * 4]:
            known = self._words[number]
            if abs(len(known) - len(word)) <= slips and len(found) < _CANDIDATES_MAX:
                if is_near(word, known, 1):
                    found.append((1, -count, known))
                elif slips == 2 and is_near(word, known, 2):
                    found.append((2, -count, known))
        found.sort()
        return [(known, count) for count, _, known in found if count == found[0][0]][:most]
