"""Announced ids whose payload is not here yet, and when to fetch each from whom (docs/spec/plumtree.md §4)."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from agentmesh.ids import NodeId

#: Announcers remembered per id; more are not needed to get it.
ANNOUNCERS_MAX = 8


@dataclass(slots=True, eq=False)
class Missing:
    """One id that is awaited.

    Attributes:
        announcers: Who has it, in the order of telling, with the hops told; the first one carries it on its account.
        due_s: When to fetch it, from somebody else if it was asked for before.
        asked: Who was asked, in order.
        asked_s: When the last one was asked.
        waiting: Who is to deliver now.
        size_bytes: As offered, 0 = small or unknown.
        declined: The eager neighbours were told not to push it.
    """

    announcers: list[tuple[NodeId, int]]
    due_s: float
    asked: list[NodeId] = field(default_factory=list[NodeId])
    asked_s: float = 0.0
    waiting: NodeId | None = None
    size_bytes: int = 0
    declined: bool = False


class MissingTable:
    """All awaited ids, and which is due next."""

    __slots__ = ("_due", "_seq", "by_id")

    def __init__(self) -> None:
        self.by_id: dict[bytes, Missing] = {}
        self._due: list[tuple[float, int, bytes]] = []
        self._seq = 0

    def admit(self, id_: bytes, missing: Missing) -> None:
        """Await an id that is not awaited yet."""
        self.by_id[id_] = missing
        self._push(id_, missing.due_s)

    def postpone(self, id_: bytes, missing: Missing, due_s: float) -> None:
        """Set when an id is due, earlier or later than before."""
        missing.due_s = due_s
        self._push(id_, due_s)

    def expire(self, id_: bytes) -> Missing | None:
        """Await an id no longer."""
        return self.by_id.pop(id_, None)

    def take_due(self, now_s: float) -> list[tuple[bytes, Missing]]:
        """Take what is due by now, soonest first; each must be postponed or expired by the caller."""
        due: list[tuple[bytes, Missing]] = []
        heap = self._due
        while heap and heap[0][0] <= now_s:
            at_s, _, id_ = heapq.heappop(heap)
            missing = self.by_id.get(id_)
            if missing is not None and missing.due_s == at_s:
                due.append((id_, missing))
        return due

    def next_due_s(self) -> float | None:
        """Return when the next id is due, or None."""
        heap = self._due
        while heap:
            at_s, _, id_ = heap[0]
            missing = self.by_id.get(id_)
            if missing is not None and missing.due_s == at_s:
                return at_s
            heapq.heappop(heap)
        return None

    def _push(self, id_: bytes, due_s: float) -> None:
        self._seq += 1
        heapq.heappush(self._due, (due_s, self._seq, id_))
        if len(self._due) > 64 + 4 * len(self.by_id):
            self._due = [entry for entry in self._due if self._is_live(entry)]
            heapq.heapify(self._due)

    def _is_live(self, entry: tuple[float, int, bytes]) -> bool:
        missing = self.by_id.get(entry[2])
        return missing is not None and missing.due_s == entry[0]

    def assert_invariants(self, missing_max: int) -> None:
        """Raise AssertionError if a bound or rule is broken."""
        assert len(self.by_id) <= missing_max
        assert len(self._due) <= 65 + 4 * max(len(self.by_id), missing_max)
        queued = {(id_, at_s) for at_s, _, id_ in self._due}
        for id_, missing in self.by_id.items():
            assert (id_, missing.due_s) in queued, "an id is awaited that never falls due"
            assert len(missing.announcers) <= ANNOUNCERS_MAX
