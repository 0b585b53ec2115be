"""A run as lines of text: time since its start, node, kind, who to whom, what.

+0.000  anna   status   you → calc   submitted
+0.011  ben    message  calc → you   "2"
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec

from agentmesh.cli.output import Output, clip, pad
from agentmesh.wire.event import TERMINAL_STATES, EventV1
from agentmesh.wire.rows import describe

if TYPE_CHECKING:
    from agentmesh.wire.views import TraceView

_STYLES = {"error": "fail", "status": "dim", "reasoning": "dim", "tool": "name", "artifact": "name", "message": "plain"}
_NODE_CELLS, _WHO_CELLS, _PIPE_CELLS = 14, 24, 240
#: Most events remembered to tell what was shown already; a longer run may show an event twice, never leave one out.
_SHOWN_MAX = 200_000


class Timeline:
    """Print events once each, in the order given; with ``--json`` only those that come live, one per line."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._nodes: dict[str, str] = {}
        self._callers: dict[str, str] = {}
        self._open: set[str] = set()
        self._shown: set[str] = set()
        self._start: int | None = None
        self._width = shutil.get_terminal_size((_PIPE_CELLS, 24)).columns if out.stdout.isatty() else _PIPE_CELLS

    @property
    def ended(self) -> bool:
        """True when at least one task was seen and every one has come to its end."""
        return bool(self._callers) and not self._open

    def add(self, view: TraceView) -> None:
        """Print the events of a trace that were not shown yet."""
        self._nodes.update(view.nodes)
        for event in view.events:
            self.event(event, live=False)

    def event(self, event: EventV1, *, live: bool = True) -> None:
        """Print one event unless it was shown before."""
        if event.id in self._shown:
            return
        if len(self._shown) < _SHOWN_MAX:
            self._shown.add(event.id)
        if self._start is None:
            self._start = event.ts
        self._track(event)
        if self._out.json:
            if live:
                self._out.data(msgspec.to_builtins(event))
            return
        since_s = (event.ts - self._start) / 1_000_000
        node = self._nodes.get(event.node_id) or event.node_id[-6:]
        front = f"{since_s:+8.3f}  {pad(clip(node, _NODE_CELLS), _NODE_CELLS)}  "
        who = pad(clip(self._who(event), _WHO_CELLS), _WHO_CELLS)
        room = max(20, self._width - len(front) - 10 - _WHO_CELLS - 4)
        what = describe(event)
        self._out.line(
            (front, "dim"),
            (f"{event.kind:<10}", _STYLES[event.kind]),
            who + "  ",
            what if self._out.verbose else clip(what, room),
        )

    def _track(self, event: EventV1) -> None:
        task = event.task_id or ""
        state = str(event.payload.get("state")) if event.kind == "status" else ""
        if state == "submitted":
            caller = str(event.payload.get("from") or "you")
            # A call that no agent made comes from the person or program at that node.
            by_person = event.parent_task_id is None and caller == self._nodes.get(event.node_id)
            self._callers[task] = "you" if by_person else caller
            self._open.add(task)
        elif state in TERMINAL_STATES or state == "input-required":
            self._callers.setdefault(task, "you")
            self._open.discard(task)

    def _who(self, event: EventV1) -> str:
        agent = event.agent or (event.agent_id or "")[-6:] or "-"
        caller = self._callers.get(event.task_id or "", "you")
        if event.kind == "status" and event.payload.get("state") == "submitted":
            return f"{caller} → {agent}"
        if event.kind == "message":
            return f"{agent} → {caller}" if event.payload.get("role", "agent") != "user" else f"{caller} → {agent}"
        return agent
