"""Broadcasts: an agent appears behind a random node; when does every other node's directory have it?"""

from __future__ import annotations

from agentmesh.core.directory.messages import AgentChanged
from agentmesh.ids import AgentId
from agentmesh.sim.node import UP, SimNode
from agentmesh.sim.probes.base import Figures, Probe, quantile, spread_ms


class _Shot:
    """One broadcast.

    Attributes:
        at_s: When it was published.
        origin: By whom.
        due: The run that each node had then, by index; who is in another run at the deadline is not asked for it.
        took_s: By node index: when its directory had it.
    """

    __slots__ = ("at_s", "due", "origin", "took_s")

    def __init__(self, at_s: float, origin: SimNode, due: dict[int, int]) -> None:
        self.at_s, self.origin, self.due = at_s, origin, due
        self.took_s: dict[int, float] = {}


class BroadcastProbe(Probe):
    """Publish agents at intervals, and watch them arrive at every honest node that lives through the broadcast.

    RMR (Leitão et al. 2007) = payloads received / payloads received for the first time − 1, over everything that is
    broadcast while the counted ones are: an agent's manifest is followed by its node's record and its zone's report.
    """

    def open(self) -> None:
        """Plan the broadcasts."""
        self.shots: dict[AgentId, _Shot] = {}
        self.latencies_s: list[float] = []
        self.worst_s: list[float] = []
        self.missed = self.reached = self.wanted = 0
        self._received_before = self._repeated_before = 0
        self._fired = 0
        self.world.on_event.setdefault(AgentChanged, []).append(self._on_changed)
        for number in range(self.measure.warmup + self.measure.count):
            self.world.call(self.at(number * self.measure.interval_s), self._fire)

    def _fire(self) -> None:
        honest = self.world.honest()
        self._fired += 1
        counted = self._fired > self.measure.warmup
        if self._fired == self.measure.warmup + 1:
            self._received_before, self._repeated_before = self._payloads()
        origin = self.world.rng.choice(honest)
        shot = _Shot(self.world.now_s, origin, {node.index: node.life for node in honest if node is not origin})
        agent = self.world.duties.new_agent(origin, f"skill-{self._fired % self.world.scenario.world.skills}")
        if counted:
            self.shots[agent] = shot
            self.world.call(self.measure.deadline_s, lambda: self._judge(agent))

    def _payloads(self) -> tuple[int, int]:
        """Return how many payloads the living nodes received, and how many of these they had already."""
        trees = [node.brain.plumtree for node in self.world.alive()]
        return sum(tree.received for tree in trees), sum(tree.duplicates for tree in trees)

    def _on_changed(self, node: SimNode, changed: AgentChanged) -> None:
        shot = self.shots.get(changed.agent_id)
        if shot is not None and node.index not in shot.took_s and node is not shot.origin:
            shot.took_s[node.index] = self.world.now_s - shot.at_s

    def _judge(self, agent: AgentId) -> None:
        """At the deadline: who lived through it and does not have it?"""
        shot = self.shots.pop(agent)
        nodes = self.world.nodes
        lived = [i for i, life in shot.due.items() if nodes[i].state == UP and nodes[i].life == life]
        took_s = [shot.took_s[i] for i in lived if i in shot.took_s]
        if shot.origin.state == UP:
            self.wanted += len(lived)
            self.missed += len(lived) - len(took_s)
        self.latencies_s += took_s
        self.reached += len(shot.took_s)
        if took_s:
            self.worst_s.append(max(took_s))
        if shot.origin.state == UP and len(took_s) < len(lived):
            lost = [i for i in lived if i not in shot.took_s][:5]
            self.world.note(f"broadcast of node {shot.origin.index} at {shot.at_s:.3f} s missed by {lost}")

    def figures(self) -> Figures:
        """Return latency, misses and redundancy."""
        figures = spread_ms("latency", self.latencies_s)
        figures |= {"missed": self.missed, "deliveries": self.reached}
        received, repeated = self._payloads()
        received, repeated = received - self._received_before, repeated - self._repeated_before
        if received > repeated:
            figures["rmr"] = round(repeated / (received - repeated), 4)
        if self.worst_s:
            figures["reach_all_p99_ms"] = round(1000 * quantile(self.worst_s, 0.99), 1)
        if self.wanted:
            figures["delivered_ratio"] = round(1 - self.missed / self.wanted, 6)
        return figures

    def misses(self) -> int:
        """Return the deliveries that did not happen by the deadline."""
        return self.missed
