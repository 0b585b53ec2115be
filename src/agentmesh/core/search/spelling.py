"""Which known words a slip of the keyboard may have meant. Pure, bounded.

Words are found by the trigrams they share with the mistyped one, then judged by the slips between them.
"""

from __future__ import annotations

from array import array
from collections import Counter

from agentmesh.core.search.text import slips, trigrams

WORDS_MAX = 100_000
#: Shorter words are left alone: too many others are one slip away.
_CHARS_MIN = 4
#: A word of this length and more may hold two slips.
_TWO_SLIPS_CHARS_MIN = 8
_CANDIDATES_MAX = 24
#: Words looked at for one trigram and one length; of commoner ones the rest is passed over.
_LIST_MAX = 2_000


class Spelling:
    """A set of known words."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._known: set[str] = set()
        self._lists: dict[tuple[str, int], array[int]] = {}  # trigram and length of the word → numbers of words

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
            self._lists.setdefault((three, len(word)), array("I")).append(number)

    def near(self, word: str, most: int = 3) -> list[tuple[str, int]]:
        """Return known words that this one may mean, with the number of slips; only those with the fewest.

        Args:
            word: Folded; one that is known is near to itself only.
            most: Words returned at most.
        """
        if word in self._known:
            return [(word, 0)]
        if len(word) < _CHARS_MIN:
            return []
        allowed = 2 if len(word) >= _TWO_SLIPS_CHARS_MIN else 1
        shared: Counter[int] = Counter()
        for three in sorted(trigrams(word)):
            for length in range(len(word) - allowed, len(word) + allowed + 1):
                shared.update(self._lists.get((three, length), ())[:_LIST_MAX])
        found: list[tuple[int, int, str]] = []
        for number, count in shared.most_common(_CANDIDATES_MAX):
            known = self._words[number]
            if (made := slips(word, known, allowed)) is not None:
                found.append((made, -count, known))
        found.sort()
        return [(known, made) for made, _, known in found if made == found[0][0]][:most]
