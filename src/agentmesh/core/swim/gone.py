"""Former members that are dead or left: kept for a while, so that one that is back is noticed (docs/spec/swim.md §6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agentmesh.core.swim.config import SwimConfig
from agentmesh.identity.node_record import NodeRecord
from agentmesh.ids import NodeId


@dataclass(slots=True, eq=False)
class Departed:
    """A former member.

    Attributes:
        record: Its newest known record.
        left: It said so itself; else it was declared dead.
        since_s: When.
    """

    record: NodeRecord
    left: bool
    since_s: float


class Gone:
    """The departed, longest departed first; the oldest gives way.

    Args:
        config: Bounds and intervals.
    """

    __slots__ = ("_burst_due_s", "_config", "_due_s", "_last_death_s", "_nodes", "_pinged")

    def __init__(self, config: SwimConfig) -> None:
        self._config = config
        self._nodes: dict[NodeId, Departed] = {}
        self._pinged = 0
        self._due_s = self._burst_due_s = 0.0
        self._last_death_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def get(self, node: NodeId) -> Departed | None:
        """Return what is known of a departed node."""
        return self._nodes.get(node)

    def admit(self, record: NodeRecord, now_s: float, *, left: bool) -> None:
        """Remember a node that departed."""
        self._nodes.pop(record.node_id, None)
        if len(self._nodes) >= self._config.dead_max:
            del self._nodes[next(iter(self._nodes))]
        self._nodes[record.node_id] = Departed(record, left, now_s)
        if not left:
            self._last_death_s = now_s

    def drop(self, node: NodeId) -> None:
        """Forget a departed node."""
        self._nodes.pop(node, None)

    def dead(self) -> Iterator[tuple[NodeId, Departed]]:
        """Go through those that did not leave on purpose, longest dead first."""
        return ((node, departed) for node, departed in self._nodes.items() if not departed.left)

    def pick_due(self, now_s: float) -> tuple[NodeId, Departed] | None:
        """Return the dead node whose turn it is to be pinged, if a ping is due; forgets the oldest when its time is over."""
        if now_s < self._due_s or not self._nodes:
            return None
        recent = now_s - self._last_death_s < self._config.dead_recent_s
        self._due_s = now_s + (self._config.dead_interval_s if recent else self._config.dead_late_interval_s)
        oldest = next(iter(self._nodes))
        if now_s - self._nodes[oldest].since_s > self._config.dead_keep_s:
            del self._nodes[oldest]
        dead = list(self.dead())
        if not dead:
            return None
        self._pinged += 1
        return dead[self._pinged % len(dead)]

    def pick_burst(self, now_s: float) -> list[tuple[NodeId, Departed]]:
        """Return all the dead, to be pinged at once because one of them came back; at most once per ``dead_interval_s``."""
        if now_s < self._burst_due_s:
            return []
        self._burst_due_s = now_s + self._config.dead_interval_s
        return list(self.dead())

    def assert_invariants(self) -> None:
        """Raise AssertionError if the bound is broken."""
        assert len(self._nodes) <= self._config.dead_max
