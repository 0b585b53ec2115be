"""Every scenario of the simulator at its own size, and many seeds of the hard ones: hours (docs/reference/network-figures.md)."""

from __future__ import annotations

import sys
from timeit import default_timer

import msgspec
import pytest

from agentmesh.sim.runner import Report, Run
from agentmesh.sim.scenario import load, names

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7_200)]


def run(name: str, seed: int, nodes: int | None = None, *settings: str) -> Report:
    scenario = load(name, list(settings))
    report = Run(scenario, nodes or scenario.nodes, seed).execute(default_timer)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    return report


@pytest.mark.parametrize("name", names())
def test_a_scenario_at_its_own_size_breaks_no_rule(name: str) -> None:
    assert run(name, 1).violations == []


@pytest.mark.parametrize("name", ["join", "crash-detect", "idle"])
def test_ten_thousand_nodes_break_no_rule_either(name: str) -> None:
    assert run(name, 1, 10_000).violations == []


@pytest.mark.parametrize("seed", range(1_001, 1_257))
def test_two_hundred_nodes_keep_their_rules_through_every_fault_at_once(seed: int) -> None:
    report = run("chaos", seed, 200)
    assert report.violations == []
    assert report.figures["forged_accepted"] == 0


@pytest.mark.parametrize("seed", range(1_001, 1_101))
@pytest.mark.parametrize("name", ["mail-lossy", "mail-partition", "mail-chaos"])
def test_the_books_of_all_mail_agree_whatever_happens(name: str, seed: int) -> None:
    report = run(name, seed)
    assert report.violations == []
    assert report.figures["mail_lost"] == report.figures["mail_disordered"] == report.figures["mail_unended"] == 0
