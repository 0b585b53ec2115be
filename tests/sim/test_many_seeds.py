"""Many worlds: 64 seeds of 100 nodes with every fault, short ones of 1,000, one of 10,000 (docs/spec/simulator.md §10).

Messages travel as objects here; worlds of real bytes are in ``test_scenarios``. A failing seed is replayed by
``python -m agentmesh.sim replay chaos --nodes 100 --seed N`` with the settings below as ``--set``.
"""

from __future__ import annotations

import gc

import pytest

from agentmesh.sim.runner import Report, Run
from agentmesh.sim.scenario import load

CHAOS = ["world.encoding=counted", "world.agents=0.05", "settle_s=6"]
#: Seeds that once failed stay for ever.
SEEDS = range(1, 65)


def run(name: str, nodes: int, seed: int, *settings: str) -> Report:
    try:
        return Run(load(name, list(settings)), nodes, seed).execute(lambda: 0.0)
    finally:
        # A large world is a web of cycles, which would stand beside the next one; small ones go by themselves in time.
        if nodes >= 1_000:
            gc.collect()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_hundred_nodes_keep_their_rules_through_every_fault_at_once(seed: int) -> None:
    report = run("chaos", 100, seed, *CHAOS)
    assert report.violations == []
    assert report.figures["forged_accepted"] == 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_broadcast_reaches_all_of_a_thousand_nodes_over_bad_links(seed: int) -> None:
    short = ("settle_s=9", "duration_s=7", "measures.0.warmup=2", "measures.0.count=3", "measures.0.deadline_s=5")
    report = run("broadcast", 1_000, seed, *short)
    assert report.violations == []
    assert (report.figures["missed"], report.figures["false_deaths"]) == (0, 0)
    assert report.figures["latency_p99_ms"] < 1_000


@pytest.mark.timeout(1_200)
def test_a_broadcast_reaches_all_of_ten_thousand_nodes_that_have_just_started() -> None:
    short = ("world.encoding=counted", "world.boot_s=0.8", "settle_s=1.2", "duration_s=1.8")
    report = run(
        "broadcast", 10_000, 1, *short, *(f"measures.0.{one}" for one in ("warmup=0", "count=1", "deadline_s=1.5"))
    )
    assert report.violations == []
    assert report.figures["deliveries"] == 9_999
    assert (report.figures["missed"], report.figures["false_deaths"]) == (0, 0)
