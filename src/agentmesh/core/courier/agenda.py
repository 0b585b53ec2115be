"""When to look at which session next: one timer for all of them (docs/spec/courier.md §3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from math import inf

from agentmesh.core.courier.session import Session
from agentmesh.core.machine import Outbox, Timer

WAKE = "courier.wake"


class Agenda:
    """A heap of (time, session), of which each session's ``wake_s`` names the valid entry.

    Args:
        sessions: All sessions, by id.
    """

    __slots__ = ("_armed_s", "_heap", "_sessions", "_token")

    def __init__(self, sessions: Mapping[int, Session]) -> None:
        self._sessions = sessions
        self._heap: list[tuple[float, int]] = []
        self._armed_s = inf
        self._token = 0

    def wake(self, session: Session, at_s: float) -> None:
        """Look at a session at that time, if not before."""
        if at_s >= session.wake_s:
            return
        session.wake_s = at_s
        heap = self._heap
        heappush(heap, (at_s, session.id))
        if len(heap) > 4 * len(self._sessions) + 64:
            heap[:] = [(each.wake_s, each.id) for each in self._sessions.values() if each.wake_s < inf]
            heapify(heap)

    def arm(self, now_s: float, out: Outbox) -> None:
        """Ask for a timer if none comes early enough."""
        heap = self._heap
        if heap and heap[0][0] < self._armed_s:
            self._armed_s = heap[0][0]
            self._token += 1
            out.after(max(0.0, self._armed_s - now_s), Timer(WAKE, self._token))

    def due(self, timer: Timer, now_s: float) -> list[Session]:
        """Return the sessions to be looked at; none for a stale timer."""
        due: list[Session] = []
        if timer.token != self._token:
            return due
        self._armed_s = inf
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            at_s, number = heappop(heap)
            session = self._sessions.get(number)
            if session is not None and session.wake_s == at_s:
                session.wake_s = inf
                due.append(session)
        return due

    def assert_invariants(self) -> None:
        """Raise AssertionError if the heap grew beyond its bound, or a session's entry is not there."""
        assert len(self._heap) <= 4 * len(self._sessions) + 65
        entries = set(self._heap)
        assert all((each.wake_s, each.id) in entries for each in self._sessions.values() if each.wake_s < inf)
