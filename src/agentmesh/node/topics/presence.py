"""Who is there, who said goodbye, and who was lost: this node's own view of the agents of the mesh (docs/spec/topics.md §9)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from agentmesh.core.directory.messages import AgentChanged, AgentGone
from agentmesh.core.directory.nodes import LEFT
from agentmesh.core.directory.table import Entry
from agentmesh.wire.message_views import PresenceView

State = Literal["join", "leave", "lost"]
#: Agents whose state is remembered; those that are gone are dropped first.
PRESENCE_MAX, _GONE_MAX = 20_000, 2_000


class _Seen(NamedTuple):
    state: State
    ts: int
    name: str
    node: str


class Presence:
    """Remember since when each agent is there, or gone.

    Args:
        entry: The living agent of an id.
        on_change: Told of every change.
        now_us: The wall clock, unix microseconds.
    """

    def __init__(
        self,
        entry: Callable[[str], Entry | None],
        on_change: Callable[[PresenceView], None],
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self._entry, self._on_change, self._now_us = entry, on_change, now_us
        self._seen: dict[str, _Seen] = {}
        self._gone: dict[str, None] = {}

    def changed(self, event: AgentChanged) -> None:
        """Take note that an agent is there, or that its node is not any longer."""
        entry = self._entry(event.agent_id)
        if entry is None:
            return
        state: State = "join"
        if not entry.local and not entry.node.up:
            state = "leave" if entry.node.best[1] >= LEFT else "lost"
        self._note(event.agent_id, state, entry.manifest.name, entry.manifest.node_id)

    def gone(self, event: AgentGone) -> None:
        """Take note that an agent left the directory; one that only made room for another left nobody."""
        old = self._seen.get(event.agent_id)
        if old is None:
            return
        if event.why == "evicted":
            self._forget(event.agent_id)
        elif old.state == "join":
            self._note(event.agent_id, "leave" if event.why == "withdrawn" else "lost", old.name, old.node)

    def _note(self, agent_id: str, state: State, name: str, node: str) -> None:
        old = self._seen.get(agent_id)
        if old is not None and old.state == state and (old.name, old.node) == (name, node):
            return
        self._forget(agent_id)
        while len(self._gone) >= _GONE_MAX:
            self._forget(next(iter(self._gone)))
        if len(self._seen) >= PRESENCE_MAX:
            self._forget(next(iter(self._gone or self._seen)))
        self._seen[agent_id] = seen = _Seen(state, self._now_us(), name, node)
        if state != "join":
            self._gone[agent_id] = None
        self._on_change(_view(agent_id, seen))

    def _forget(self, agent_id: str) -> None:
        self._seen.pop(agent_id, None)
        self._gone.pop(agent_id, None)

    def views(self) -> list[PresenceView]:
        """Return everybody, the newest change first."""
        views = [_view(agent_id, seen) for agent_id, seen in self._seen.items()]
        return sorted(views, key=lambda view: (-view.ts, view.agent_id))


def _view(agent_id: str, seen: _Seen) -> PresenceView:
    return PresenceView(agent_id=agent_id, name=seen.name, node_id=seen.node, state=seen.state, ts=seen.ts)
