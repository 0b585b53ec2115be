"""The daemon's life as the CLI shows it: up, status, down, a taken port, a crash, a start that fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentmesh.daemon import launch
from agentmesh.daemon.home import Home
from agentmesh.daemon.lock import is_held, process_start
from tests.support.daemons import Done, run_cli

pytestmark = pytest.mark.e2e

QUIET = {
    "AGENTMESH_MDNS": "off",
    "AGENTMESH_LISTEN": "127.0.0.1:0",
    "AGENTMESH_LISTEN_UDP": "127.0.0.1:0",
    "AGENTMESH_PORT": "0",
}


class Person:
    """Someone with a home who types commands."""

    def __init__(self, home: Home) -> None:
        self.home = home
        keep = {k: v for k, v in os.environ.items() if not k.startswith("AGENTMESH_")}
        self.env = {**keep, **QUIET, "AGENTMESH_HOME": str(home), "NO_COLOR": "1"}

    def types(self, *args: str, **env: str) -> Done:
        return run_cli(*args, env={**self.env, **env})

    def daemon(self, *args: str, **env: str) -> Done:
        done = subprocess.run(
            [str(Path(sys.executable).parent / "agentmeshd"), *args],
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    home = Home(tmp_path / "home")
    try:
        yield Person(home)
    finally:
        launch.stop(home, grace_s=10)


def test_up_twice_status_and_down_twice(person: Person) -> None:
    first = person.types("up")
    assert first.code == 0, first
    assert "created" in first.out
    assert "next:  " not in first.out
    assert "next: agentmesh demo" in first.err
    second = person.types("up", "--json").json()
    assert second["already_running"] is True
    status = person.types("status", "--json").json()
    for key in ("node_id", "pid", "port", "version", "uptime_s", "rss_bytes", "peers", "agents"):
        assert key in status
    assert status["pid"] == second["pid"], "a second daemon was started"
    shown = person.types("status")
    assert str(status["pid"]) in shown.out
    assert status["seed"] in shown.out
    down = person.types("down", "--json").json()
    assert down == {"stopped": True, "pid": status["pid"], "killed": False}
    assert process_start(status["pid"]) is None
    assert not person.home.runfile.exists()
    assert person.types("down").code == 0
    assert person.types("status").code == 4


def test_a_port_that_another_program_holds_is_stepped_over_and_named(person: Person) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        up = person.types("up", AGENTMESH_PORT=str(port))
    assert up.code == 0, up
    assert f"port {port} is taken by another program" in up.err
    assert person.types("status", "--json").json()["port"] != port


def test_a_strict_port_that_is_taken_ends_the_start_with_the_reason(person: Person) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        started = person.daemon("start", "-b", "--port", str(port), "--port-strict")
    assert started.code == 2
    assert started.err.startswith("error[daemon.failed]")
    assert f"port {port} is taken" in started.err
    assert "next: " in started.err
    assert not is_held(person.home)


def test_a_killed_daemon_starts_again_under_the_same_identity(person: Person) -> None:
    before = person.types("up", "--json").json()
    token = process_start(before["pid"])
    os.kill(before["pid"], 9)
    while process_start(before["pid"]) == token:
        os.sched_yield()
    assert person.types("status").code == 4
    after = person.types("up", "--json").json()
    assert after["already_running"] is False
    assert after["node_id"] == before["node_id"]
    assert after["pid"] != before["pid"]


def test_the_foreground_daemon_keeps_its_pid_and_ends_on_sigterm(person: Person) -> None:
    binary = str(Path(sys.executable).parent / "agentmeshd")
    with subprocess.Popen(
        [binary, "start", "--name", "front"], env=person.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            run = launch.wait_ready(person.home, 30, process=process)
            assert run.pid == process.pid
            assert person.daemon("status", "--json").json()["node_name"] == "front"
            second = person.daemon("start")
            assert second.code == 2
            assert "error[daemon.running]" in second.err
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert not is_held(person.home)


def test_config_that_was_set_is_in_force_after_a_restart(person: Person) -> None:
    assert person.types("config", "set", "name", "renamed").code == 0
    assert person.types("up", "--json").json()["node_name"] == "renamed"
    changed = person.types("config", "set", "name", "again")
    assert "next: agentmesh down && agentmesh up" in changed.err


def test_doctor_is_content_with_a_fresh_node_and_gives_nothing_away(person: Person) -> None:
    person.types("up")
    done = person.types("doctor", "--json")
    report = done.json()
    assert report["ok"] is True
    states = {check["check"]: check["state"] for check in report["checks"]}
    for name in ("home", "keys", "config", "daemon", "iroh", "transport", "mdns", "events", "peers", "a2a-sdk", "mcp"):
        assert states[name] in ("ok", "warn"), report
    secret = person.home.api_token.read_text().strip()
    node_id = person.types("status", "--json").json()["node_id"]
    assert secret not in done.out
    assert node_id not in done.out


def test_doctor_finds_a_key_that_others_can_read(person: Person) -> None:
    person.types("up")
    person.types("down")
    person.home.node_key.chmod(0o644)
    done = person.types("doctor")
    assert done.code == 1
    assert f"chmod 600 {person.home.node_key}" in done.out


def test_logs_show_what_the_daemon_wrote(person: Person) -> None:
    person.types("up")
    assert "listens on" in person.types("logs").out
