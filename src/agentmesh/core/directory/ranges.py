"""The set of what is held, ordered by position, with sums over any range of it (docs/spec/directory.md §4).

Positions are 32 bytes spread evenly, so a prefix of hex digits cuts the set into ranges of about equal size. Each item has a
value of 128 bits, from a hash of what it is; a range's sum does not depend on the order of arrival. The sums of everything
and of the 16 largest ranges are kept up to date, smaller ones are added up when asked for, which happens only where two
nodes differ: 60 µs per range of 600 items, and no memory.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from typing import Generic, TypeVar

T = TypeVar("T")

_MASK = 2**128 - 1
_PREFIX = re.compile(r"[0-9a-f]{0,64}", re.ASCII)
_DIGITS = "0123456789abcdef"


class RangeSet(Generic[T]):
    """Items by position, with range sums."""

    __slots__ = ("_items", "_positions", "_sums", "_values")

    def __init__(self) -> None:
        self._positions: list[bytes] = []
        self._values: list[int] = []
        self._items: list[T] = []
        self._sums = [0] * 16

    def __len__(self) -> int:
        return len(self._positions)

    def get(self, position: bytes) -> T | None:
        """Return the item at a position."""
        at = bisect_left(self._positions, position)
        return self._items[at] if at < len(self._positions) and self._positions[at] == position else None

    def put(self, position: bytes, value: int, item: T) -> None:
        """Insert or replace the item at a position."""
        at = bisect_left(self._positions, position)
        top = position[0] >> 4
        if at < len(self._positions) and self._positions[at] == position:
            self._sums[top] = (self._sums[top] + value - self._values[at]) & _MASK
            self._values[at], self._items[at] = value, item
            return
        self._sums[top] = (self._sums[top] + value) & _MASK
        self._positions.insert(at, position)
        self._values.insert(at, value)
        self._items.insert(at, item)

    def discard(self, position: bytes) -> None:
        """Take out the item at a position, if there is one."""
        at = bisect_left(self._positions, position)
        if at < len(self._positions) and self._positions[at] == position:
            top = position[0] >> 4
            self._sums[top] = (self._sums[top] - self._values[at]) & _MASK
            del self._positions[at], self._values[at], self._items[at]

    def total(self, prefix: str) -> tuple[int, int]:
        """Return count and sum of the range of this prefix (``is_prefix``)."""
        low, high = self._bounds(prefix)
        if len(prefix) > 1:
            return high - low, sum(self._values[low:high]) & _MASK
        return high - low, self._sums[int(prefix, 16)] if prefix else sum(self._sums) & _MASK

    def items(self, prefix: str) -> list[T]:
        """Return the items of a range, by rising position."""
        low, high = self._bounds(prefix)
        return self._items[low:high]

    def _bounds(self, prefix: str) -> tuple[int, int]:
        if not prefix:
            return 0, len(self._positions)
        low = bisect_left(self._positions, bytes.fromhex(prefix.ljust(64, "0")))
        return low, bisect_right(self._positions, bytes.fromhex(prefix.ljust(64, "f")), low)

    def assert_invariants(self) -> None:
        """Raise AssertionError if order or sums are off."""
        assert all(a < b for a, b in zip(self._positions, self._positions[1:], strict=False))
        assert len(self._positions) == len(self._values) == len(self._items)
        sums = [0] * 16
        for position, value in zip(self._positions, self._values, strict=True):
            sums[position[0] >> 4] = (sums[position[0] >> 4] + value) & _MASK
        assert sums == self._sums


def is_prefix(text: str) -> bool:
    """Say whether a text names a range."""
    return bool(_PREFIX.fullmatch(text))


def children(prefix: str) -> list[str]:
    """Return the 16 ranges that make up a range; none if it holds one position only."""
    return [prefix + digit for digit in _DIGITS] if len(prefix) < 64 else []
