"""A stage for small plays: clients as generators, in virtual time, replayed exactly from a seed."""

from __future__ import annotations

from collections.abc import Generator
from heapq import heappop, heappush
from itertools import count

#: A client yields for how many seconds it sleeps.
Part = Generator[float, None, None]
#: Steps of one play; a client that never ends is a bug of the play.
STEPS_MAX = 1_000_000


class Play:
    """Run generators in order of virtual time, equal times in the order in which they were put there."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._next = count().__next__
        self._heap: list[tuple[float, int, Part]] = []

    def start(self, part: Part, delay_s: float = 0.0) -> None:
        """Let a client begin after so many seconds."""
        heappush(self._heap, (self.now_s + delay_s, self._next(), part))

    def run(self, until_s: float = float("inf")) -> None:
        """Run until all have ended, or to that time; those that still sleep then are left there."""
        for _ in range(STEPS_MAX):
            if not self._heap or self._heap[0][0] > until_s:
                return
            self.now_s, _, part = heappop(self._heap)
            for sleep_s in part:
                heappush(self._heap, (self.now_s + sleep_s, self._next(), part))
                break
        raise AssertionError("a play without an end")
