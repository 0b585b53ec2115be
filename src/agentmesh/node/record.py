"""Making events: ids, wall time and logical time are given here and nowhere else on a node."""

from __future__ import annotations

import os
import time
import weakref
from typing import Any

from agentmesh.codec.tracecontext import TraceContext
from agentmesh.ids import NodeId
from agentmesh.wire.event import EventV1, Kind

_ID_BYTES = 16
_POOL_IDS = 256
_pool: list[str] = []


def new_id() -> str:
    """Return 128 random bits as 32 hex digits: the id of a run, task or event.

    The system's randomness is read for many ids at once: a system call per event shows in a profile.
    """
    if not _pool:
        drawn = os.urandom(_ID_BYTES * _POOL_IDS).hex()
        width = 2 * _ID_BYTES
        _pool.extend(drawn[i : i + width] for i in range(0, len(drawn), width))
    return _pool.pop()


def new_span_id() -> str:
    """Return 64 random bits as 16 hex digits, not all zero: the id of a span."""
    while not int(span := new_id()[:16], 16):
        pass
    return span


def trace_mark(trace: TraceContext) -> dict[str, Any]:
    """Return what the first event of a call at a node says of its span (docs/reference/events.md)."""
    mark = {"traceparent": trace.traceparent}
    return {**mark, "parent_span": trace.parent_id} if trace.parent_id else mark


class RunClock:
    """The logical time of one run at this node: every event made or seen here moves it forward, whichever task it is of."""

    __slots__ = ("__weakref__", "lamport")

    def __init__(self) -> None:
        self.lamport = 0

    def saw(self, lamport: int) -> None:
        """Move past an event that arrived from elsewhere."""
        if lamport > self.lamport:
            self.lamport = lamport


class RunClocks:
    """The clocks of the runs that have a task at this node now; a clock goes when its last task does."""

    def __init__(self) -> None:
        self._clocks: weakref.WeakValueDictionary[str, RunClock] = weakref.WeakValueDictionary()

    def of(self, run_id: str, lamport: int) -> RunClock:
        """Return the clock of a run, at ``lamport`` or later."""
        clock = self._clocks.get(run_id)
        if clock is None:
            clock = self._clocks[run_id] = RunClock()
        clock.saw(lamport)
        return clock


class TaskStory:
    """The events of one task as this node tells them.

    Its tasks share the clock of their run, so that order follows cause and effect whatever the wall clocks say: what an
    agent answers after it called another comes after everything that call brought back.
    """

    __slots__ = ("agent", "agent_id", "clock", "node_id", "parent_task_id", "run_id", "task_id")

    def __init__(
        self, node_id: NodeId, run_id: str, task_id: str, *, parent_task_id: str | None, clock: RunClock
    ) -> None:
        self.node_id = node_id
        self.run_id = run_id
        self.task_id = task_id
        self.parent_task_id = parent_task_id
        self.clock = clock
        self.agent_id: str | None = None
        self.agent: str | None = None

    @property
    def lamport(self) -> int:
        """Logical time of the run at this node."""
        return self.clock.lamport

    def event(self, kind: Kind, payload: dict[str, Any], metadata: dict[str, Any] | None = None) -> EventV1:
        """Make the next event of this task."""
        self.clock.lamport += 1
        return EventV1(
            id=new_id(),
            ts=time.time_ns() // 1000,
            kind=kind,
            run_id=self.run_id,
            task_id=self.task_id,
            parent_task_id=self.parent_task_id,
            node_id=self.node_id,
            agent_id=self.agent_id,
            agent=self.agent,
            lamport=self.clock.lamport,
            payload=payload,
            metadata=metadata or {},
        )

    def saw(self, lamport: int) -> None:
        """Move the clock past an event that arrived from elsewhere."""
        self.clock.saw(lamport)
