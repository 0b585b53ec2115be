"""What every measure has: a world, its scenario line, and figures at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentmesh.sim.scenario import Measure

if TYPE_CHECKING:
    from agentmesh.sim.faults import Faults
    from agentmesh.sim.probes.members import Deaths
    from agentmesh.sim.world import World

Figures = dict[str, float | int]


class Probe:
    """One measure of one run.

    Args:
        world: The world.
        faults: What goes wrong in it.
        measure: The line of the scenario.
        deaths: What brains said of dead members.
        start_s: When the measured part begins, simulated seconds.
    """

    def __init__(self, world: World, faults: Faults, deaths: Deaths, measure: Measure, start_s: float) -> None:
        self.world, self.faults, self.deaths, self.measure = world, faults, deaths, measure
        self.start_s = start_s + measure.at_s
        self.open()

    def open(self) -> None:
        """Put events into the world; called once, before it begins."""
        raise NotImplementedError

    def figures(self) -> Figures:
        """Return what was measured; names carry their unit."""
        raise NotImplementedError

    def misses(self) -> int:
        """Return how many things that had to happen did not."""
        return 0

    def at(self, after_s: float) -> float:
        """Return the delay from now until ``after_s`` seconds into this measure."""
        return self.start_s + after_s - self.world.now_s


def quantile(values: list[float], share: float) -> float:
    """Return the value below which that share lies (nearest rank), NaN for none."""
    if not values:
        return float("nan")
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, int(share * len(ranked) + 0.999999) - 1))]


def spread_ms(name: str, values_s: list[float]) -> Figures:
    """Return the 50th and 99th percentile and the maximum of times, in milliseconds."""
    if not values_s:
        return {}
    return {
        f"{name}_p50_ms": round(1000 * quantile(values_s, 0.5), 1),
        f"{name}_p99_ms": round(1000 * quantile(values_s, 0.99), 1),
        f"{name}_max_ms": round(1000 * max(values_s), 1),
    }


def spread_s(name: str, values_s: list[float]) -> Figures:
    """Return the 50th and 99th percentile and the maximum of times, in seconds."""
    if not values_s:
        return {}
    return {
        f"{name}_p50_s": round(quantile(values_s, 0.5), 2),
        f"{name}_p99_s": round(quantile(values_s, 0.99), 2),
        f"{name}_max_s": round(max(values_s), 2),
    }
