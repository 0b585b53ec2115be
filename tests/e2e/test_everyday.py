"""A short day of three nodes: messages, topics, state and locks while daemons are killed; ``make soak`` has the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemons import Mesh
from tests.support.everyday import Everyday, three_nodes

RUN_S = 12.0


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_everything_that_was_acknowledged_is_accounted_for_though_daemons_are_killed(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    try:
        everyday = Everyday(three_nodes(mesh), seed=7)
        figures = await everyday.run(RUN_S)
    finally:
        mesh.aclose()
    assert everyday.books.trouble == [], figures
    assert figures["kills"] + figures["pauses"] > 0
