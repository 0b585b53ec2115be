"""Every file in ``examples/`` is run as a reader would run it, beside a real daemon, and called through it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import Daemon, Mesh, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"
MESH_AGENTS = {"echo.py": "echo", "calc.py": "calc", "reviewer.py": "reviewer", "hello.py": "hello"}
#: Run by the last test, since it talks to another one of itself.
CHAT = "chat.py"
STRANGERS = {"plain_http.py": "shouter", "a2a_server.py": "backwards"}


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A node beside which every example runs."""
    mesh = Mesh(tmp_path_factory.mktemp("examples"))
    node = mesh.node("examples")
    with ExitStack() as stack:
        stack.callback(mesh.aclose)
        for file in MESH_AGENTS:
            stack.enter_context(script([sys.executable, str(EXAMPLES / file)], env=node.env))
        for file, name in STRANGERS.items():
            port = free_port()
            stack.enter_context(script([sys.executable, str(EXAMPLES / file), str(port)], env=node.env))
            body = {"url": f"http://127.0.0.1:{port}", "door": "auto"}
            wait_until(lambda body=body: node.ask("POST", "/api/v1/agents", body)[0] == 200, f"{name} to be registered")
        for name in (*MESH_AGENTS.values(), *STRANGERS.values()):
            wait_until(lambda name=name: sees_agent(node, name), f"{name} to be healthy")
        yield node


def call(daemon: Daemon, to: str, **fields: Any) -> dict[str, Any]:
    return daemon.post("/api/v1/calls", {"to": to, **fields})


def test_every_example_is_run_here_and_short() -> None:
    files = {path.name for path in EXAMPLES.glob("*.py")}
    assert files == {*MESH_AGENTS, *STRANGERS, CHAT}
    assert all(len((EXAMPLES / file).read_text("utf-8").splitlines()) <= 40 for file in files)


@pytest.mark.parametrize(
    ("to", "fields", "text"),
    [
        ("hello", {"text": "Ben"}, "你好 Ben"),
        ("echo", {"text": "one  two é"}, "one  two é"),
        ("calc", {"text": "1+1"}, "2"),
        ("calc", {"text": "2*21"}, "42"),
        ("calc", {"text": "(1 + 2) * 3 / 2"}, "4.5"),
        ("calc", {"data": {"a": 1.5, "b": 2}, "skill": "add"}, "3.5"),
        ("calc", {"text": '{"a": 3, "b": 2.5}', "skill": "mul"}, "7.5"),
        ("reviewer", {"text": "6*7"}, "reviewed: 6*7 = 42"),
        ("shouter", {"text": "quiet"}, "QUIET"),
        ("backwards", {"text": "abc"}, "cba"),
    ],
)
def test_an_example_answers(daemon: Daemon, to: str, fields: dict[str, Any], text: str) -> None:
    reply = call(daemon, to, **fields)
    assert (reply["state"], reply["text"]) == ("completed", text)


@pytest.mark.parametrize("text", ["__import__('os')", "2**9999", "a+1", "2*", ""])
def test_calc_evaluates_arithmetic_and_nothing_else(daemon: Daemon, text: str) -> None:
    status, problem = daemon.ask("POST", "/api/v1/calls", {"to": "calc", "text": text})
    assert status == 502, problem
    assert problem["code"] == "agent.failed"


def test_a_chain_of_calls_is_one_run(daemon: Daemon) -> None:
    reply = call(daemon, "reviewer", text="6*7")
    trace = daemon.get(f"/api/v1/runs/{reply['run_id']}/events")
    assert {event["agent"] for event in trace["events"]} == {"reviewer", "calc", "echo"}
    assert any(event["kind"] == "reasoning" for event in trace["events"])
    children = {e["task_id"] for e in trace["events"] if e["parent_task_id"] == reply["task_id"]}
    assert len(children) == 2


def test_an_example_that_ends_is_withdrawn(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "brief.py"
    file.write_text((EXAMPLES / "hello.py").read_text("utf-8").replace("hello", "brief"), "utf-8")
    with script([sys.executable, str(file)], env=daemon.env):
        wait_until(lambda: sees_agent(daemon, "brief"), "brief to be healthy")
    assert not sees_agent(daemon, "brief")


def test_two_that_chat_answer_each_other_publish_and_count(daemon: Daemon) -> None:
    chat = [sys.executable, str(EXAMPLES / CHAT)]
    daemon.ask("PUT", "/api/v1/topics", {"name": "chats", "subjects": ["chat.>"]})
    with script([*chat, "bob"], env=daemon.env) as bob:
        wait_until(lambda: sees_agent(daemon, "bob"), "bob to be registered")
        amy = subprocess.run(
            [*chat, "amy", "bob", "hello"], env=daemon.env, capture_output=True, text=True, timeout=60, check=True
        )
        assert amy.stdout.startswith("bob: hello to you, too (")
        assert bob.stdout is not None
        assert bob.stdout.readline() == "amy: hello (1 said)\n"
    assert daemon.get("/api/v1/state/chat/said")["value"] == 2
    assert daemon.get("/api/v1/topics")["topics"][0]["next"] == 3
