"""Orders in a small world that loses packets, is cut in two and lies: everybody honest obeys in time."""

from __future__ import annotations

import pytest

from agentmesh.sim.runner import Run
from agentmesh.sim.scenario import load


@pytest.mark.parametrize(("seed", "mode"), [(1, "retransmit"), (2, "lossy")])
def test_every_honest_node_obeys_in_time_though_packets_get_lost_and_some_withhold_and_invent(
    seed: int, mode: str
) -> None:
    report = Run(load("orders", [f'links.mode="{mode}"', "measures.0.count=5"]), 40, seed).execute(lambda: 0.0)
    assert report.violations == []
    assert report.figures["orders_missed"] == 0
    assert report.figures["order_max_ms"] <= 2_000
    assert report.figures["order_healed_max_ms"] <= 2_000
