"""Which messages came lately, so that none comes twice (docs/spec/mail.md §6). Bounded: two generations."""

from __future__ import annotations

from collections.abc import Collection

#: Seconds that an id is remembered at least, unless more than ``SEEN_MAX`` came meanwhile.
SEEN_S = 600.0
#: Ids of one generation; two are kept. About 100 bytes each.
SEEN_MAX = 131_072
_NOTHING: frozenset[bytes] = frozenset()


class Seen:
    """Remember ids by sender and recipient for ``SEEN_S`` to twice that.

    Args:
        now_s: Monotonic time.
    """

    def __init__(self, now_s: float) -> None:
        self._young: dict[bytes, set[bytes]] = {}
        self._old: dict[bytes, set[bytes]] = {}
        #: Ids in the young generation; who adds to it counts.
        self.count = 0
        self._turned_s = now_s

    def of(self, ends: bytes) -> tuple[set[bytes], Collection[bytes]]:
        """Return what came lately from one agent to another: a set to add to, and what is older. For one batch only."""
        young = self._young.get(ends)
        if young is None:
            young = self._young[ends] = set()
        return young, self._old.get(ends, _NOTHING)

    def tidy(self, now_s: float) -> None:
        """Drop what is old enough, or too much; called for every batch."""
        if self.count >= SEEN_MAX or now_s - self._turned_s >= SEEN_S:
            self._old, self._young = self._young, {}
            self.count, self._turned_s = 0, now_s

    def __len__(self) -> int:
        return sum(map(len, self._young.values())) + sum(map(len, self._old.values()))
