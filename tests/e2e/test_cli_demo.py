"""The demo, as promised on the first page: it works, it prints the given JSON, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentmesh.daemon.lock import process_start
from tests.support.daemons import run_cli, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment whose temporary directory and home are the test's own."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith("AGENTMESH_")}
    return {**keep, "TMPDIR": str(tmp_path), "AGENTMESH_HOME": str(tmp_path / "own"), "NO_COLOR": "1"}


def processes_in(root: Path) -> list[int]:
    """Return the pids of processes that work in a directory below ``root``."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").resolve().is_relative_to(root):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="reads /proc")


def test_the_demo_finds_calls_and_traces_across_two_nodes(env: dict[str, str], tmp_path: Path) -> None:
    report: dict[str, Any] = run_cli("demo", "--json", env=env, timeout_s=90).json()
    assert report["ok"] is True
    assert len({node["node_id"] for node in report["nodes"]}) == 2
    assert len({node["pid"] for node in report["nodes"]}) == 2
    place = {agent["name"]: agent["node_id"] for agent in report["agents"]}
    assert place["echo"] == place["calc"] != place["reviewer"]
    calls = {call["to"]: call for call in report["calls"]}
    assert (calls["calc"]["input"], calls["calc"]["output"], calls["calc"]["path"]) == ("1+1", "2", "direct")
    assert calls["reviewer"]["output"] == "correct: 6 * 7 = 42"
    assert report["trace"]["run_id"] == calls["reviewer"]["run_id"]
    assert report["trace"]["count"] >= 12
    assert list(tmp_path.iterdir()) == [], "the demo left something behind"


def test_the_demo_shows_agents_calls_trace_and_the_next_command(env: dict[str, str]) -> None:
    done = run_cli("demo", env=env, timeout_s=90)
    assert done.code == 0, done
    assert "'1+1' → '2'" in done.out
    assert "reviewer → calc → echo" in done.out
    assert "digest" in done.out
    assert "next: agentmesh up" in done.err


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_cleans_up(env: dict[str, str], tmp_path: Path, number: signal.Signals) -> None:
    binary = str(Path(sys.executable).parent / "agentmesh")
    with subprocess.Popen([binary, "demo"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: list(tmp_path.glob("agentmesh-demo-*/node-a/daemon.json")), "the first node to run")
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@needs_proc
def test_a_kept_demo_runs_on_until_it_is_stopped(env: dict[str, str], tmp_path: Path) -> None:
    done = run_cli("demo", "--keep", "--json", env=env, timeout_s=90)
    report = done.json()
    try:
        pids = [node["pid"] for node in report["nodes"]]
        assert all(process_start(pid) for pid in pids)
        home = str(Path(report["dir"]) / "node-a")
        assert run_cli("run", "-q", "--home", home, "--to", "calc", "6*7", env=env).out == "42\n"
    finally:
        stopped = run_cli("demo", "--stop", report["dir"], "--json", env=env)
    assert stopped.json() == {"stopped": 5}
    assert processes_in(tmp_path) == []
    assert not Path(report["dir"]).exists()


def test_a_directory_that_is_no_demo_is_not_touched(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    assert run_cli("demo", "--stop", str(tmp_path), env=env).code == 2
    assert (tmp_path / "precious").exists()


def test_a_demo_that_cannot_start_says_why_and_shows_the_log(env: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    (broken / "agentmesh_broken").mkdir(parents=True)
    (broken / "sitecustomize.py").write_text(
        "import sys\nif 'agentmesh.sdk.toys.calc' in ' '.join(sys.orig_argv):\n    sys.exit('calc has a bad day')\n"
    )
    done = run_cli("demo", env={**env, "PYTHONPATH": str(broken)}, timeout_s=90)
    assert done.code == 2, done
    assert "error[demo.failed]" in done.err
    assert "calc has a bad day" in done.err
    assert list(tmp_path.glob("agentmesh-demo-*")) == []
