"""Making events: ids, wall time and logical time are given here and nowhere else on a node."""

from __future__ import annotations

import os
import time
from typing import Any

from agentmesh.ids import NodeId
from agentmesh.wire.event import EventV1, Kind


def new_id() -> str:
    """Return 128 random bits as 32 hex digits: the id of a run, task or event."""
    return os.urandom(16).hex()


class TaskStory:
    """The events of one task as this node tells them.

    Keeps the logical clock of the task: every event made here, and every one that arrives, moves it forward, so that order
    follows cause and effect whatever the wall clocks say.
    """

    __slots__ = ("agent", "agent_id", "lamport", "node_id", "parent_task_id", "run_id", "task_id")

    def __init__(self, node_id: NodeId, run_id: str, task_id: str, *, parent_task_id: str | None, lamport: int) -> None:
        self.node_id = node_id
        self.run_id = run_id
        self.task_id = task_id
        self.parent_task_id = parent_task_id
        self.lamport = lamport
        self.agent_id: str | None = None
        self.agent: str | None = None

    def event(self, kind: Kind, payload: dict[str, Any], metadata: dict[str, Any] | None = None) -> EventV1:
        """Make the next event of this task."""
        self.lamport += 1
        return EventV1(
            id=os.urandom(16).hex(),
            ts=time.time_ns() // 1000,
            kind=kind,
            run_id=self.run_id,
            task_id=self.task_id,
            parent_task_id=self.parent_task_id,
            node_id=self.node_id,
            agent_id=self.agent_id,
            agent=self.agent,
            lamport=self.lamport,
            payload=payload,
            metadata=metadata or {},
        )

    def saw(self, lamport: int) -> None:
        """Move the logical clock past an event that arrived from elsewhere."""
        if lamport > self.lamport:
            self.lamport = lamport
