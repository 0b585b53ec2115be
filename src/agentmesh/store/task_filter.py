"""Which tasks certainly have no receipt here, so that a new task costs no look into the database.

A Bloom filter over ids: it never says of a task that it is not there when it is; of one that is not there it says "perhaps" in a
few of a hundred cases. ``hash`` is keyed by the process, so nobody can choose ids that fill it.
"""

from __future__ import annotations

#: Bits; 256 KB. With 200,000 ids two of a hundred others look known.
_BITS = 1 << 21
_MASK = _BITS - 1


class TaskFilter:
    """One filter, empty."""

    __slots__ = ("_bits", "count")

    def __init__(self) -> None:
        self._bits = bytearray(_BITS >> 3)
        self.count = 0

    def add(self, task_id: str) -> None:
        """Note an id."""
        seed, bits = hash(task_id), self._bits
        for place in (seed & _MASK, seed >> 21 & _MASK, seed >> 42 & _MASK):
            bits[place >> 3] |= 1 << (place & 7)
        self.count += 1

    def __contains__(self, task_id: str) -> bool:
        seed, bits = hash(task_id), self._bits
        one, two, three = seed & _MASK, seed >> 21 & _MASK, seed >> 42 & _MASK
        return bool(
            bits[one >> 3] & 1 << (one & 7) and bits[two >> 3] & 1 << (two & 7) and bits[three >> 3] & 1 << (three & 7)
        )
