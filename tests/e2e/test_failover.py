"""Replicas on real daemons: one is killed under load, one hangs, and what the command line says of it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.daemons import Daemon, Mesh, wait_until

pytestmark = pytest.mark.e2e


class Agent:
    """A plain HTTP agent of this process that answers with its name, or holds every call while it is told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.holds = False
        self.asked: list[str] = []
        self._released = threading.Event()
        agent = self

        class Door(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                agent.asked.append(body["text"])
                if agent.holds:
                    agent._released.wait(60)
                answer = json.dumps({"text": f"{agent.name}: {body['text']}"}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                return None

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def agents() -> Iterator[list[Agent]]:
    every = [Agent(name) for name in ("one", "two", "three")]
    yield every
    for agent in every:
        agent.close()


def replicas(mesh: Mesh, agents: list[Agent]) -> tuple[Daemon, list[Daemon]]:
    """Start a node that calls, and one beside each agent; all agents bear one name."""
    caller = mesh.node("caller")
    nodes = [mesh.node(agent.name, seeds=(caller.seed(),)) for agent in agents]
    for node, agent in zip(nodes, agents, strict=True):
        node.post("/api/v1/agents", {"url": agent.url, "door": "http", "name": "twin"})
    wait_until(lambda: _reached(caller) == len(agents), "the caller to reach every replica", 60)
    return caller, nodes


def _reached(caller: Daemon) -> int:
    agents = caller.get("/api/v1/agents")["agents"]
    return sum(a["name"] == "twin" and a["status"] == "healthy" and a["path"] == "direct" for a in agents)


def test_no_idempotent_call_fails_when_the_node_of_one_of_three_replicas_is_killed(
    mesh: Mesh, agents: list[Agent]
) -> None:
    caller, nodes = replicas(mesh, agents)
    agents[0].holds = True

    def call(number: int) -> Any:
        body = {"to": "twin", "text": str(number), "idempotent": True, "balance": "round-robin"}
        return caller.ask("POST", "/api/v1/calls", body, timeout_s=60)

    with ThreadPoolExecutor(12) as pool:
        calls = [pool.submit(call, number) for number in range(60)]
        wait_until(lambda: len(agents[0].asked) >= 4, "calls that are held by the first replica")
        nodes[0].kill()
        answers = [one.result(60) for one in calls]
    assert [status for status, _ in answers] == [200] * 60
    lost = [reply for _, reply in answers if nodes[0].node_id in reply["tried"]]
    assert len(lost) >= 4
    assert all(reply["node_id"] in (nodes[1].node_id, nodes[2].node_id) for _, reply in answers)
    assert all(reply["text"].endswith(f": {number}") for number, (_, reply) in enumerate(answers))
    events = caller.get(f"/api/v1/runs/{lost[0]['run_id']}/events?remote=false")["events"]
    told = [e["payload"].get("detail", "") for e in events if e["kind"] == "status"]
    assert any("trying another replica" in detail for detail in told), told


def test_a_hedged_call_on_the_command_line_is_answered_though_a_replica_hangs(mesh: Mesh, agents: list[Agent]) -> None:
    caller, _ = replicas(mesh, agents[:2])
    agents[0].holds = True
    flags = ("--idempotent", "--hedge", "50ms", "--balance", "round-robin", "--timeout", "20")
    for number in range(4):
        done = caller.cli("run", "--to", "twin", *flags, f"call {number}")
        assert done.code == 0, done.err
        assert f"two: call {number}" in done.out
    assert agents[0].asked, "the one that hangs was asked as well"


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--hedge", "50ms"), "--idempotent"),
        (("--idempotent", "--hedge", "soon"), "200ms"),
        (("--idempotent", "--hedge", "0ms"), "200ms"),
        (("--idempotent", "--hedge", "999999s"), "200ms"),
        (("--balance", "dice"), "round-robin"),
    ],
)
def test_flags_that_make_no_sense_are_refused_with_the_next_step(mesh: Mesh, flags: tuple[str, ...], word: str) -> None:
    done = mesh.node("lone").cli("run", "--to", "twin", *flags, "x")
    assert done.code == 2
    assert word in done.err
