"""Ten minutes of everything under kills and pauses, with books that must balance (issue 7): ``make soak``.

AGENTMESH_SOAK_S sets another time. A short run of the same is part of every test run (``e2e/test_everyday.py``).
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.support.daemons import Mesh
from tests.support.everyday import Everyday, three_nodes

RUN_S = float(os.environ.get("AGENTMESH_SOAK_S", "600"))


@pytest.mark.soak
@pytest.mark.timeout(RUN_S + 400)
async def test_everything_that_was_acknowledged_is_accounted_for_after_ten_minutes_of_kills(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    seed = random.SystemRandom().getrandbits(32)
    try:
        everyday = Everyday(three_nodes(mesh), seed)
        figures = await everyday.run(RUN_S)
    finally:
        mesh.aclose()
    print(f"seed {seed}: {figures}")
    assert everyday.books.trouble == [], (seed, figures)
    assert figures["kills"] > RUN_S / 60
    assert figures["sent"] > RUN_S
