"""The story of a run: every input of chosen nodes, or the last ones before the first violation (``replay``)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from agentmesh.core.machine import Timer
from agentmesh.core.messages import Received
from agentmesh.sim.node import SimNode
from agentmesh.sim.world import World

_LAST_MAX = 200
_TEXT_MAX = 160


class Story:
    """Tell what happens.

    Args:
        world: The world; its tracing is taken over.
        nodes: Tell of these nodes only, as it happens; None = keep the last inputs of all.
        tell: Prints one line.
    """

    def __init__(self, world: World, nodes: list[int] | None, tell: Callable[[str], None]) -> None:
        self._world, self._tell = world, tell
        self._nodes = None if nodes is None else dict.fromkeys(nodes, True)
        self._last: deque[tuple[int, SimNode, Any, int]] = deque(maxlen=_LAST_MAX)
        world.on_trace = self._on_input

    def _on_input(self, at_us: int, node: SimNode, incoming: Any, size: int) -> None:
        if self._nodes is None:
            if not self._world.violations:
                self._last.append((at_us, node, incoming, size))
        elif node.index in self._nodes:
            self._tell(self._line(at_us, node, incoming, size))

    def finish(self) -> None:
        """Tell the last inputs before the first violation, if there was one and no node was chosen."""
        if self._nodes is None and self._world.violations:
            for entry in self._last:
                self._tell(self._line(*entry))

    def _line(self, at_us: int, node: SimNode, incoming: Any, size: int) -> str:
        head = f"{at_us / 1e6:12.6f} s  node {node.index:<5}"
        if isinstance(incoming, Received):
            peer = self._world.by_id.get(incoming.peer)
            origin = f"node {peer.index}" if peer is not None else "a stranger"
            return f"{head} ← {origin}: {_short(incoming.message)} ({size} bytes)"
        if isinstance(incoming, Timer):
            return f"{head} timer {incoming.name} {incoming.token}"
        return f"{head} {_short(incoming)}"


def _short(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 1] + "…"
