"""Membership: deaths told and how soon, deaths told wrongly, partitions and their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentmesh.core.messages import MemberDead
from agentmesh.ids import AgentId
from agentmesh.sim.brains import is_cut_off, watches
from agentmesh.sim.node import DOWN, UP, SimNode
from agentmesh.sim.probes.base import Figures, Probe, quantile, spread_s

if TYPE_CHECKING:
    from agentmesh.sim.world import World

_POLL_S = 0.25
_FALSE_MAX = 100


class Deaths:
    """Count what every brain says of dead members; always on, whatever the scenario measures.

    A death is false if an honest node tells it of an honest one that is not down and not cut off from it.

    Attributes:
        told: Right ones.
        across: Those told across a partition, where nobody can know better.
        false_count: Wrong ones.
        false: The first 100 of these: time, watcher, and the node that lives.
        verdicts_s: By crashed node, while somebody measures it: when each watcher declared it dead, by watcher.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.told = self.across = self.false_count = 0
        self.false: list[tuple[float, int, int]] = []
        self.verdicts_s: dict[int, dict[int, float]] = {}
        world.on_event.setdefault(MemberDead, []).append(self._on_dead)

    def _on_dead(self, watcher: SimNode, dead: MemberDead) -> None:
        node = self._world.by_id.get(dead.node)
        if node is None or watcher.mask is not None:
            return
        if node.state == DOWN:
            self.told += 1
            verdicts = self.verdicts_s.get(node.index)
            if verdicts is not None:
                verdicts.setdefault(watcher.index, self._world.now_s)
            return
        if node.mask is not None:
            return
        if not self._world.carriage.passes(watcher, node) or not self._world.carriage.passes(node, watcher):
            self.across += 1
            return
        self.false_count += 1
        if len(self.false) < _FALSE_MAX:
            self.false.append((round(self._world.now_s, 3), watcher.index, node.index))


class _Crash:
    """One crash: when, and the run of each node that had the crashed one for a neighbour then."""

    __slots__ = ("at_s", "node", "watchers")

    def __init__(self, node: SimNode, at_s: float, watchers: dict[int, int]) -> None:
        self.node, self.at_s, self.watchers = node, at_s, watchers


class DetectProbe(Probe):
    """Crash nodes one after the other; when does each node that has the crashed one for a neighbour declare it dead?

    Watchers that crash or restart meanwhile do not count; paused ones do.
    """

    def open(self) -> None:
        """Plan the crashes."""
        self._crashes: list[_Crash] = []
        for number in range(self.measure.count):
            self.world.call(self.at(number * self.measure.interval_s), self._crash)

    def _crash(self) -> None:
        world = self.world
        node = world.rng.choice(world.honest())
        watchers = {
            other.index: other.life
            for other in world.honest()
            if other is not node and watches(other.brain, node.node_id)
        }
        self.deaths.verdicts_s[node.index] = {}
        self._crashes.append(_Crash(node, world.now_s, watchers))
        self.faults.crash(node)

    def _took_s(self) -> list[list[float | None]]:
        """Return per crash what each watcher that lived on took; None for one that said nothing in time."""
        table: list[list[float | None]] = []
        for crash in self._crashes:
            if crash.node.state != DOWN or self.world.now_s - crash.at_s < self.measure.deadline_s:
                continue
            verdicts = self.deaths.verdicts_s[crash.node.index]
            row: list[float | None] = []
            for index, life in crash.watchers.items():
                other = self.world.nodes[index]
                if other.life == life and other.state != DOWN:
                    at_s = verdicts.get(index)
                    row.append(
                        None if at_s is None or at_s - crash.at_s > self.measure.deadline_s else at_s - crash.at_s
                    )
            table.append(row)
        return table

    def figures(self) -> Figures:
        """Return the times from the crash to the first verdict (as memberlist's figures), to each one, and who stayed silent."""
        table = self._took_s()
        all_s = [took for row in table for took in row if took is not None]
        first_s = [min(took for took in row if took is not None) for row in table if any(t is not None for t in row)]
        return {
            **spread_s("detect", first_s),
            **spread_s("detect_all", all_s),
            "crashes": len(table),
            "crashes_unnoticed": self.misses(),
            "watchers_silent": sum(1 for row in table for took in row if took is None),
            "watchers": sum(len(row) for row in table),
        }

    def misses(self) -> int:
        """Return the crashes that no watcher declared, though there was time."""
        return sum(1 for row in self._took_s() if row and all(took is None for took in row))


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
