"""What must hold when a scenario ends. A breach is a violation: the run fails, and its seed replays it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentmesh.sim.runner import Run


def verify(run: Run) -> None:
    """Check what the scenario names in ``checks``, and every brain's invariants; record breaches in the world."""
    world = run.world
    for node in world.alive():
        try:
            node.brain.assert_invariants()
        except AssertionError as error:
            world.violate(f"invariant: {error}", node)
    for check in run.scenario.checks:
        match check:
            case "directories_equal":
                if wrong := world.disagreements():
                    world.violate(f"{wrong} entries are missing or old in directories that should be equal")
            case "nothing_missed":
                _expect_none(run, "broadcast")
                _expect_none(run, "orders")
            case "all_joined":
                _expect_none(run, "join")
            case "nothing_lost":
                for kind in ("partition", "replicas"):
                    _expect_none(run, kind)
            case "mail_balances":
                _expect_none(run, "mail")
            case "state_agrees":
                _expect_none(run, "state")
            case "no_false_deaths":
                for at_s, watcher, node in run.deaths.false[:10]:
                    world.violate(f"node {watcher} declared node {node} dead at {at_s} s while it ran")
            case "nothing_forged":
                if count := forged(run):
                    world.violate(f"{count} forged records are in directories")


def _expect_none(run: Run, kind: str) -> None:
    for measure, probe in zip(run.scenario.measures, run.probes, strict=True):
        if measure.kind == kind and (count := probe.misses()):
            run.world.violate(f"measure {kind}: {count} of what had to happen did not")


def forged(run: Run) -> int:
    """Count the records in honest directories that nobody signed whose name they bear."""
    published = run.world.duties.published
    return sum(
        1
        for node in run.world.honest()
        for entry in node.brain.entries()
        if not entry.manifest.tombstone and entry.manifest.raw not in published
    )
