"""A process that writes is killed with SIGKILL; what it acknowledged is there, and index and JSONL agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_nothing_acknowledged_is_lost_when_the_writer_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.soak_kill9", "--kills", "3", "--json"],
        cwd=ROOT,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["acknowledged"] > 0
    assert (found["lost"], found["differ"]) == (0, 0), f"python -m bench.soak_kill9 --kills 3 --seed {found['seed']}"
