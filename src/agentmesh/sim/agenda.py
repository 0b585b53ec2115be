"""What is still to happen in a world, in order of time (docs/spec/simulator.md §2.1).

Most events lie seconds ahead: timers. They wait unsorted in slots of 16 ms; only the slot that time has reached is a heap,
small enough for the processor's caches however large the world is.
"""

from __future__ import annotations

from collections import defaultdict
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentmesh.sim.node import SimNode

Event = tuple[int, int, "SimNode | None", int, Any, int]
#: A slot is 2^this microseconds long.
_SLOT_BITS = 14


class Agenda:
    """Events by time, then by the order in which they were put in.

    Attributes:
        near: A heap of the events before ``near_until_us``; who takes events takes them from here.
        near_until_us: Later events wait in slots.
    """

    __slots__ = ("_far", "_next", "_slots", "near", "near_until_us")

    def __init__(self) -> None:
        self.near: list[Event] = []
        self.near_until_us = 0
        self._far: defaultdict[int, list[Event]] = defaultdict(list)
        self._slots: list[int] = []
        self._next = count(1).__next__

    def __len__(self) -> int:
        return len(self.near) + sum(map(len, self._far.values()))

    def push(self, at_us: int, node: SimNode | None, life: int, payload: Any, size: int) -> None:
        """Put an event in; it comes after all others of the same time."""
        if at_us < self.near_until_us:
            heappush(self.near, (at_us, self._next(), node, life, payload, size))
            return
        slot = self._far[at_us >> _SLOT_BITS]
        if not slot:
            heappush(self._slots, at_us >> _SLOT_BITS)
        slot.append((at_us, self._next(), node, life, payload, size))

    def advance(self, until_us: int) -> bool:
        """Fill ``near``, which is empty, with the next slot; False if nothing begins by ``until_us``."""
        if self.near or not self._slots or self._slots[0] << _SLOT_BITS > until_us:
            return False
        slot = heappop(self._slots)
        self.near_until_us = (slot + 1) << _SLOT_BITS
        self.near += self._far.pop(slot)
        heapify(self.near)
        return True
