"""The network as a graph, and what it costs to idle in it."""

from __future__ import annotations

from agentmesh.sim.brains import shape_figures
from agentmesh.sim.node import UP
from agentmesh.sim.probes.base import Figures, Probe, quantile


class TopologyProbe(Probe):
    """Take the graph of all neighbours once and compute its shape."""

    def open(self) -> None:
        """Plan the look."""
        self._figures: Figures = {}
        self.world.call(self.at(0), self._look)

    def _look(self) -> None:
        nodes = [node for node in self.world.nodes if node.state == UP]
        self._figures = shape_figures({node.node_id: node.brain for node in nodes}, self.world.rng)

    def figures(self) -> Figures:
        """Return clustering, path length, tail exponent, and what stays connected when nodes go."""
        return self._figures


class TrafficProbe(Probe):
    """Count bytes and messages from ``at_s`` to the end."""

    def open(self) -> None:
        """Plan the first count."""
        self._before: list[int] = []
        self._kinds: dict[str, tuple[int, int]] = {}
        self._began_s = 0.0
        self.world.call(self.at(0), self._begin)

    def _begin(self) -> None:
        self._began_s = self.world.now_s
        self._before = [node.bytes_out for node in self.world.nodes]
        self._kinds = {cls.__name__: (kind.count, kind.bytes) for cls, kind in self.world.carriage.kinds.items()}

    def figures(self) -> Figures:
        """Return bytes sent per node and second (UDP and IP headers and envelopes included), and links per node."""
        passed_s = self.world.now_s - self._began_s
        nodes = [node for node in self.world.nodes if node.state == UP]
        if passed_s <= 0 or not nodes:
            return {}
        rates = [(node.bytes_out - self._before[node.index]) / passed_s for node in nodes]
        return {
            "bytes_per_s_per_node": round(sum(rates) / len(rates), 1),
            "bytes_per_s_p99": round(quantile(rates, 0.99), 1),
            "links_per_node": round(sum(len(node.links) for node in nodes) / len(nodes), 2),
        }

    def by_kind(self) -> dict[str, tuple[float, float]]:
        """Return messages and bytes per node and second by class of messages, most bytes first."""
        scale = max(1e-9, self.world.now_s - self._began_s) * len(self.world.nodes)
        table: dict[str, tuple[float, float]] = {}
        for cls, kind in self.world.carriage.kinds.items():
            count, size = self._kinds.get(cls.__name__, (0, 0))
            table[cls.__name__] = ((kind.count - count) / scale, (kind.bytes - size) / scale)
        return dict(sorted(table.items(), key=lambda row: (-row[1][1], row[0])))
