"""What goes wrong, and when: the fault lines of a scenario turned into events (docs/spec/simulator.md §6)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from agentmesh.sim.node import DOWN, PAUSED, UP, SimNode
from agentmesh.sim.scenario import Fault

if TYPE_CHECKING:
    from agentmesh.sim.world import World


class Faults:
    """Strike a world with its scenario's faults.

    Args:
        world: The world.
        start_s: When measuring begins; ``at_s`` counts from there.

    Attributes:
        crashed: When each node that is down crashed, simulated seconds, in order of the crash.
        healed_s: When the last partition healed.
        cut: Nodes of the minority side of the last partition.
        on_crash: Called with each node that crashes.
    """

    def __init__(self, world: World, start_s: float) -> None:
        self._world = world
        self._rng = random.Random(f"faults/{world.seed}")  # noqa: S311 a simulation
        self.crashed: dict[SimNode, float] = {}
        self.healed_s: float | None = None
        self.cut: list[SimNode] = []
        self.on_crash: list[Callable[[SimNode], None]] = []
        for fault in world.scenario.faults:
            world.call(start_s + fault.at_s - world.now_s, lambda f=fault: self._begin(f))

    def _begin(self, fault: Fault) -> None:
        self.strike(fault)
        if fault.every_s > 0:
            self._world.call(fault.every_s, lambda: self._begin(fault))

    def strike(self, fault: Fault) -> None:
        """Let a fault happen now, once."""
        match fault.kind:
            case "crash":
                for node in self._victims(fault):
                    self.crash(node)
            case "restart":
                down = [node for node in self.crashed if node.state == DOWN]
                for node in self._drawn(down, fault):
                    self.restart(node)
            case "pause":
                self._pause(fault)
            case "partition":
                self._partition(fault)
            case "churn":
                self._churn(fault)
            case "skew":
                for node in self._victims(fault):
                    node.skew_s += self._rng.uniform(-fault.amount, fault.amount)
            case "slow":
                self._slow(fault)
            case "leave":
                for node in self._victims(fault):
                    self._world.duties.leave(node)
            case "loss" | "duplicate" | "reorder" | "flip":
                self._change_ether(fault.kind, fault)

    def _victims(self, fault: Fault) -> list[SimNode]:
        alive = [node for node in self._world.nodes if node.state == UP]
        if fault.hubs:
            alive.sort(key=lambda node: -node.capacity)
            return alive[: fault.count or round(fault.share * len(alive))]
        return self._drawn(alive, fault)

    def _drawn(self, nodes: list[SimNode], fault: Fault) -> list[SimNode]:
        wanted = min(len(nodes), fault.count or round(fault.share * len(nodes)))
        return sorted(self._rng.sample(nodes, wanted), key=lambda node: node.index)

    def crash(self, node: SimNode) -> None:
        """Cut a node's power."""
        self.crashed[node] = self._world.now_s
        self._world.crash(node)
        for tell in self.on_crash:
            tell(node)

    def restart(self, node: SimNode) -> None:
        """Start a crashed node again, with what it had stored."""
        if node.state == DOWN:
            self.crashed.pop(node, None)
            self._world.boot(node)

    def _pause(self, fault: Fault) -> None:
        struck = self._victims(fault)
        for node in struck:
            node.state = PAUSED
            self._world.call(fault.for_s, lambda n=node, life=node.life: self._world.resume(n, life))
        self._world.carriage.watch_silence(struck)

    def _partition(self, fault: Fault) -> None:
        world = self._world
        self.cut = self._drawn(list(world.nodes), fault)
        for node in self.cut:
            node.side = 1
        world.carriage.cuts.add((1, 0))
        if not fault.one_way:
            world.carriage.cuts.add((0, 1))
        world.carriage.watch_silence(self.cut)
        if fault.for_s > 0:
            world.call(fault.for_s, self._heal)

    def _heal(self) -> None:
        self.healed_s = self._world.now_s
        self._world.carriage.heal()

    def _churn(self, fault: Fault) -> None:
        """Crash nodes at random times, evenly at the wanted rate; each comes back after ``down_s``."""
        until_s = self._world.now_s + (fault.for_s or float("inf"))
        wait_s = 60.0 / max(1e-9, fault.per_min * len(self._world.nodes))

        def one() -> None:
            if self._world.now_s >= until_s:
                return
            alive = [node for node in self._world.nodes if node.state == UP]
            if len(alive) > 2:
                node = self._rng.choice(alive)
                self.crash(node)
                self._world.call(fault.down_s * self._rng.uniform(0.5, 1.5), lambda: self.restart(node))
            self._world.call(wait_s * self._rng.expovariate(1.0), one)

        self._world.call(wait_s * self._rng.expovariate(1.0), one)

    def _slow(self, fault: Fault) -> None:
        struck = self._victims(fault)
        for node in struck:
            node.slow, node.lag_us = max(1.0, fault.amount), int(fault.lag_ms * 1000)

        def over() -> None:
            for node in struck:
                node.slow, node.lag_us = 1.0, 0

        if fault.for_s > 0:
            self._world.call(fault.for_s, over)

    def _change_ether(self, name: str, fault: Fault) -> None:
        ether, before = self._world.ether, getattr(self._world.scenario.links, name)
        setattr(ether, name, fault.amount)
        if fault.for_s > 0:
            self._world.call(fault.for_s, lambda: setattr(ether, name, before))
