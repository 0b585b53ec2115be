"""One run of a scenario: the world, its faults and measures, what is checked at the end, and the report."""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from agentmesh.errors import UsageError
from agentmesh.sim import boot, checks
from agentmesh.sim.brains import new_brain
from agentmesh.sim.byzantine import mask_some
from agentmesh.sim.faults import Faults
from agentmesh.sim.probes.base import Probe
from agentmesh.sim.probes.broadcast import BroadcastProbe
from agentmesh.sim.probes.mail import MailProbe
from agentmesh.sim.probes.members import Deaths, DetectProbe, PartitionProbe
from agentmesh.sim.probes.orders import OrdersProbe
from agentmesh.sim.probes.search import FindProbe, JoinProbe, LookupProbe, ReplicasProbe
from agentmesh.sim.probes.shape import TopologyProbe, TrafficProbe
from agentmesh.sim.probes.state import StateProbe
from agentmesh.sim.scenario import Scenario
from agentmesh.sim.world import Maker, StuckError, World

NODES_MAX = 65_536
_PROBES: dict[str, type[Probe]] = {
    "broadcast": BroadcastProbe,
    "detect": DetectProbe,
    "find": FindProbe,
    "join": JoinProbe,
    "lookup": LookupProbe,
    "mail": MailProbe,
    "orders": OrdersProbe,
    "partition": PartitionProbe,
    "replicas": ReplicasProbe,
    "state": StateProbe,
    "topology": TopologyProbe,
    "traffic": TrafficProbe,
}
#: Simulated seconds between two looks at the wall clock.
_STEP_S = 0.25


class Report(msgspec.Struct, kw_only=True):
    """What a run found; printed as JSON by ``--json``.

    Attributes:
        scenario, nodes, seed: What was run.
        digest: Of all inputs of all brains in order: equal for equal scenario, size, seed and code, whatever the machine does.
        wall_s: Real seconds the whole run took.
        simulated_s: Seconds that passed in the world.
        events: Inputs that brains took.
        violations: Broken invariants and failed checks, with time and node.
        figures: What was measured; the keys carry their unit.
        goals: Per goal of the scenario: its bounds and whether the figure is within.
        notes: Details of what was missed.
        traffic: Per class of messages: sent per node and second, and their bytes.
    """

    scenario: str
    nodes: int
    seed: int
    digest: str
    wall_s: float
    simulated_s: float
    events: int
    violations: list[dict[str, Any]]
    figures: dict[str, float | int]
    goals: dict[str, dict[str, Any]]
    notes: list[str]
    traffic: dict[str, dict[str, float]]


class Run:
    """A scenario, about to run.

    Args:
        scenario: What to run.
        size: Nodes.
        seed: Seed.
        maker: Makes brains; tests put broken ones here.

    Raises:
        UsageError: the size or seed makes no world (codes "sim.nodes", "sim.seed").
    """

    def __init__(self, scenario: Scenario, size: int, seed: int, maker: Maker = new_brain) -> None:
        if not 2 <= size <= NODES_MAX:
            raise UsageError(f"{size} nodes; a world has 2 to {NODES_MAX}", code="sim.nodes")
        if not 0 <= seed < 2**63:
            raise UsageError(f"seed {seed} is out of range (0 to 2^63-1)", code="sim.seed")
        self.scenario, self.size, self.seed = scenario, size, seed
        self.memory_before_kb = memory_kb()
        arrivals = max((m.count for m in scenario.measures if m.kind == "join"), default=0)
        self.world = World(scenario, size + arrivals, seed, maker)
        self.world.newcomers = boot.start(self.world, arrivals)
        if scenario.byzantine.share > 0:
            mask_some(self.world)
        self.faults = Faults(self.world, scenario.settle_s)
        self.deaths = Deaths(self.world)
        self.probes = [
            _PROBES[m.kind](self.world, self.faults, self.deaths, m, scenario.settle_s) for m in scenario.measures
        ]
        self.end_s = scenario.settle_s + scenario.duration_s

    def execute(
        self,
        clock: Callable[[], float],
        progress: Callable[[float, int], None] | None = None,
        until_s: float | None = None,
    ) -> Report:
        """Let the world run and return what was found.

        Args:
            clock: Returns real seconds; only ``wall_s`` and speeds depend on it.
            progress: Called now and then with the simulated seconds and the events so far.
            until_s: Stop early, at this simulated second.
        """
        began_s = clock()
        end_s = self.end_s if until_s is None else min(until_s, self.end_s)
        gc.disable()  # millions of objects live till the end, and cycles are few: do not walk them again and again
        try:
            measured = self._run(clock, progress, end_s)
        finally:
            gc.unfreeze()
            gc.enable()
        if until_s is None:
            checks.verify(self)
        figures = self._figures()
        if measured is not None:
            figures |= self._speeds(clock() - measured[0], _cpu_s() - measured[1], self.world.events - measured[2])
        return Report(
            scenario=self.scenario.name,
            nodes=self.size,
            seed=self.seed,
            digest=self.world.digest(),
            wall_s=round(clock() - began_s, 3),
            simulated_s=round(self.world.now_s, 6),
            events=self.world.events,
            violations=self.world.violations,
            figures=figures,
            goals=self._goals(figures),
            notes=self.world.notes,
            traffic=self._traffic(),
        )

    def _run(
        self, clock: Callable[[], float], progress: Callable[[float, int], None] | None, end_s: float
    ) -> tuple[float, float, int] | None:
        """Let the world run; return real seconds, CPU seconds and events at the end of settling, None if it is not over."""
        measured: tuple[float, float, int] | None = None
        while self.world.now_s < end_s:
            if measured is None and self.world.now_s >= self.scenario.settle_s:
                gc.collect()
                gc.freeze()
                measured = (clock(), _cpu_s(), self.world.events)
            try:
                self.world.run(min(self.world.now_s + _STEP_S, end_s))
            except StuckError as error:
                self.world.violate(f"stuck: {error}")
                break
            if progress is not None:
                progress(self.world.now_s, self.world.events)
        return measured

    def _figures(self) -> dict[str, float | int]:
        figures: dict[str, float | int] = {}
        for probe in self.probes:
            figures |= probe.figures()
        hours = sum(1 for node in self.world.nodes if node.life) * self.world.now_s / 3600
        if self.deaths.across:
            figures["deaths_across_partition"] = self.deaths.across
        figures |= {
            "deaths_told": self.deaths.told,
            "false_deaths": self.deaths.false_count,
            "node_hours": round(hours, 3),
            "forged_accepted": int(figures.get("forged_accepted", 0)) + checks.forged(self),
        }
        return figures

    def _speeds(self, wall_s: float, cpu_s: float, events: int) -> dict[str, float | int]:
        """Return what depends on the machine; no digest covers it."""
        passed_s = self.world.now_s - self.scenario.settle_s
        if passed_s <= 0 or wall_s <= 0:
            return {}
        return {
            "speed_x_real_time": round(passed_s / wall_s, 2),
            "events_per_wall_s": round(events / wall_s),
            "cpu_us_per_node_s": round(1e6 * cpu_s / (passed_s * self.size), 1),
            "memory_kb_per_node": round((memory_kb() - self.memory_before_kb) / self.size, 1),
        }

    def _goals(self, figures: dict[str, float | int]) -> dict[str, dict[str, Any]]:
        goals: dict[str, dict[str, Any]] = {}
        for name, goal in self.scenario.goals.items():
            value = figures.get(name)
            met = (
                value is not None
                and (goal.max is None or value <= goal.max)
                and (goal.min is None or value >= goal.min)
            )
            bounds = {key: bound for key, bound in (("max", goal.max), ("min", goal.min)) if bound is not None}
            goals[name] = {**bounds, "met": met}
        return goals

    def _traffic(self) -> dict[str, dict[str, float]]:
        for probe in self.probes:
            if isinstance(probe, TrafficProbe):
                return {
                    name: {"messages_per_s": round(messages, 4), "bytes_per_s": round(size, 2)}
                    for name, (messages, size) in probe.by_kind().items()
                }
        return {}


def memory_kb() -> int:
    """Return the most memory this process ever held, in KB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def _cpu_s() -> float:
    used = os.times()
    return used.user + used.system
