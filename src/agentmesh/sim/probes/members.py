"""Membership: deaths told and how soon, deaths told wrongly, partitions and their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentmesh.core.messages import MemberDead
from agentmesh.ids import AgentId
from agentmesh.sim.brains import is_cut_off
from agentmesh.sim.node import DOWN, UP, SimNode
from agentmesh.sim.probes.base import Figures, Probe, quantile, spread_s

if TYPE_CHECKING:
    from agentmesh.sim.world import World

_POLL_S = 0.25


class Deaths:
    """Count what every brain says of dead members; always on, whatever the scenario measures.

    A death is false if the node was not down when it was told.

    Attributes:
        told: Right ones.
        false: Wrong ones, with time, watcher and the node that lives; the first 100.
        false_count: How many.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.told = self.false_count = 0
        self.false: list[tuple[float, int, int]] = []
        self.took_s: list[float] = []
        self.crashed_s: dict[int, float] = {}
        self.first_s: dict[int, float] = {}
        world.on_event.setdefault(MemberDead, []).append(self._on_dead)

    def _on_dead(self, watcher: SimNode, dead: MemberDead) -> None:
        node = self._world.by_id.get(dead.node)
        if node is None or watcher.mask is not None:
            return
        if node.state != DOWN:
            self.false_count += 1
            if len(self.false) < 100:
                self.false.append((round(self._world.now_s, 3), watcher.index, node.index))
            return
        self.told += 1
        crashed_s = self.crashed_s.get(node.index)
        if crashed_s is not None:
            took_s = self._world.now_s - crashed_s
            self.took_s.append(took_s)
            self.first_s.setdefault(node.index, took_s)


class DetectProbe(Probe):
    """Crash nodes one after the other; when does each node that watches them declare them dead?"""

    def open(self) -> None:
        """Plan the crashes."""
        self._deaths = self.deaths
        self._crashed: list[SimNode] = []
        for number in range(self.measure.count):
            self.world.call(self.at(number * self.measure.interval_s), self._crash)

    def _crash(self) -> None:
        node = self.world.rng.choice(self.world.honest())
        self._crashed.append(node)
        self._deaths.crashed_s[node.index] = self.world.now_s
        self._deaths.first_s.pop(node.index, None)
        self.faults.crash(node)

    def figures(self) -> Figures:
        """Return the times from the crash to each verdict, and how many crashes nobody noticed."""
        first_s = [self._deaths.first_s[n.index] for n in self._crashed if n.index in self._deaths.first_s]
        return {
            **spread_s("detect", self._deaths.took_s),
            **spread_s("detect_first", first_s),
            "crashes": len(self._crashed),
            "crashes_unnoticed": self.misses(),
        }

    def misses(self) -> int:
        """Return the crashes that no node declared, though there was time."""
        limit_s = self.world.now_s - self.measure.deadline_s
        return sum(
            1
            for node in self._crashed
            if node.index not in self._deaths.first_s and self._deaths.crashed_s[node.index] < limit_s
        )


class PartitionProbe(Probe):
    """Publish on both sides of a partition; after the heal, when do all directories hold all of it?

    ``heal_s`` runs from the moment packets pass again to the first look (4 a second) at which every honest node holds the
    latest record of every agent there is.
    """

    def open(self) -> None:
        """Plan the records and the looks."""
        self._published: dict[AgentId, SimNode] = {}
        self.heal_s: float | None = None
        self._cut_off: list[float] = []
        for number in range(self.measure.count):
            self.world.call(self.at(number * self.measure.interval_s), self._publish)
        self.world.call(self.at(0), self._look)

    def _publish(self) -> None:
        sides: list[list[SimNode]] = [[], []]
        for node in self.world.honest():
            sides[node.side].append(node)
        for side in sides:
            if side:
                node = self.world.rng.choice(side)
                self._published[self.world.duties.new_agent(node, "skill-0")] = node

    def _look(self) -> None:
        world, healed_s = self.world, self.faults.healed_s
        if world.carriage.cuts:
            minority = [node for node in self.faults.cut if node.state == UP]
            known = sum(1 for node in minority if is_cut_off(node.brain))
            self._cut_off.append(known / max(1, len(minority)))
        if healed_s is not None and self.heal_s is None and world.disagreements(1) == 0:
            self.heal_s = world.now_s - healed_s
        if self.heal_s is None:
            world.call(_POLL_S, self._look)

    def figures(self) -> Figures:
        """Return the time to agreement, what was lost, and how many of the minority knew that they are cut off."""
        honest = self.world.honest()
        lost = [
            agent
            for agent, owner in self._published.items()
            if owner.state == UP and any(node.brain.entry(agent) is None for node in honest)
        ]
        figures: Figures = {"published": len(self._published), "lost_writes": len(lost)}
        if self.heal_s is not None:
            figures["heal_s"] = round(self.heal_s, 2)
        if self._cut_off:
            figures["cut_off_known_max_ratio"] = round(quantile(self._cut_off, 1.0), 3)
        return figures

    def misses(self) -> int:
        """Return 1 if directories never agreed again."""
        return 0 if self.faults.healed_s is None or self.heal_s is not None else 1
