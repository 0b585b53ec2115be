"""A set of numbers from 1 on that is nearly a prefix: of letters acknowledged, delivered, taken (docs/spec/courier.md §4)."""

from __future__ import annotations

from bisect import bisect_left


class Ranges:
    """Numbers 1 … ``upto`` and some above.

    Attributes:
        upto: All numbers up to here are in; 0 = none.
        more: [lo, hi, lo, hi, …] rising, of further ones; between two ranges at least one number is missing.
        count: How many are in.
    """

    __slots__ = ("count", "more", "upto")

    def __init__(self) -> None:
        self.upto = self.count = 0
        self.more: list[int] = []

    def __contains__(self, number: int) -> bool:
        if number <= self.upto:
            return True
        more = self.more
        if not more:
            return False
        at = bisect_left(more, number)
        return at < len(more) and (at & 1 == 1 or more[at] == number)

    def add(self, lo: int, hi: int) -> list[tuple[int, int]]:
        """Put in lo … hi (1 ≤ lo ≤ hi); return which of these are new, as ranges, rising."""
        upto, more = self.upto, self.more
        if lo <= upto:
            lo = upto + 1
        if lo > hi:
            return []
        if not more and lo == upto + 1:
            self.upto = hi
            self.count += hi - upto
            return [(lo, hi)]
        # The first range that ends at lo - 1 or later, and all up to one that begins beyond hi + 1, melt into one.
        first = at = bisect_left(more, lo - 1) & ~1
        low, high, new, here = lo, hi, list[tuple[int, int]](), lo
        while at < len(more) and more[at] <= hi + 1:
            start, end = more[at], more[at + 1]
            if here < start:
                new.append((here, start - 1))
            here = end + 1
            low, high = min(low, start), max(high, end)
            at += 2
        if here <= hi:
            new.append((here, hi))
        more[first:at] = (low, high)
        if more[0] == upto + 1:
            self.upto = more[1]
            del more[:2]
        self.count += sum(end - start + 1 for start, end in new)
        return new

    def add_all(self, numbers: list[int]) -> int:
        """Put in distinct numbers; return how many were new."""
        before = self.count
        lo, hi = min(numbers), max(numbers)
        if hi - lo + 1 == len(numbers):
            self.add(lo, hi)
        else:
            lo = hi = -1
            for number in sorted(numbers):
                if number != hi + 1:
                    if lo > 0:
                        self.add(lo, hi)
                    lo = number
                hi = number
            self.add(lo, hi)
        return self.count - before

    def flat(self, ranges_max: int) -> list[int]:
        """Return [lo, hi, …] of the lowest ranges, at most so many."""
        if self.upto:
            return [1, self.upto, *self.more[: 2 * ranges_max - 2]]
        return self.more[: 2 * ranges_max]

    def assert_invariants(self) -> None:
        """Raise AssertionError if the ranges are not what they must be."""
        last, count = self.upto, self.upto
        assert len(self.more) % 2 == 0
        for at in range(0, len(self.more), 2):
            lo, hi = self.more[at], self.more[at + 1]
            assert last + 1 < lo <= hi, f"ranges {self.upto} {self.more}"
            last, count = hi, count + hi - lo + 1
        assert count == self.count
