"""How fast the command line is: one line of text on the screen, measured from outside as a person waits for it.

Each command runs in a process of its own; the daemon it asks runs in a home of the measurement. Rivals are the floor under
any Python program (``python -c pass``) and a compiled program that people call quick (``git --version``).
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agentmesh.daemon import launch
from agentmesh.daemon.home import Home
from agentmesh.daemon.settings import load

ROUNDS = 15
GOALS_MS = {"--version": 120, "status": 300, "discover": 2000}


def wall_ms(argv: list[str], env: dict[str, str]) -> float:
    """Return the median wall time of a command in milliseconds, after one run that warms the disk cache."""
    times: list[float] = []
    for _ in range(ROUNDS + 1):
        begin = time.perf_counter()
        subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        times.append((time.perf_counter() - begin) * 1000)
    return round(statistics.median(times[1:]), 1)


def row(what: str, value: float, goal: float, rival: str, rival_value: float) -> dict[str, Any]:
    """Return one figure beside its rival; a ratio under 1 would be quicker than the rival."""
    return {
        "what": what,
        "value": value,
        "unit": "ms",
        "goal": goal,
        "rival": rival,
        "rival_value": rival_value,
        "ratio": round(value / rival_value, 2),
    }


def run() -> list[dict[str, Any]]:
    """Measure and return the figures."""
    program = str(Path(sys.executable).parent / "agentmesh")
    keep = {k: v for k, v in os.environ.items() if not k.startswith("AGENTMESH_")}
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        given = {"home": home.path, "port": 0, "listen": "127.0.0.1:0", "listen_udp": "127.0.0.1:0", "mdns": False}
        env = {**keep, "AGENTMESH_HOME": str(home), "NO_COLOR": "1"}
        launch.start(load(given, {}).settings, given, environ=keep)
        try:
            rivals = {"python -c pass": wall_ms([sys.executable, "-c", "pass"], env)}
            if git := shutil.which("git"):
                rivals["git --version"] = wall_ms([git, "--version"], env)
            figures: list[dict[str, Any]] = []
            for command, goal in GOALS_MS.items():
                ours = wall_ms([program, command], env)
                figures += [row(f"agentmesh {command}", ours, goal, name, theirs) for name, theirs in rivals.items()]
            return figures
        finally:
            launch.stop(home)


if __name__ == "__main__":
    for figure in run():
        print(figure)
