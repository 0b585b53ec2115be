"""A hundred thousand histories of shared state, locks and compare-and-set: minutes."""

from __future__ import annotations

import pytest

from agentmesh.sim.histories import suite

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7_200)]


@pytest.mark.parametrize("seed", range(100_000, 200_000, 10_000))
def test_ten_thousand_more_histories_break_no_rule(seed: int) -> None:
    summary = suite.run(10_000, seed)
    assert summary.wrong == []
