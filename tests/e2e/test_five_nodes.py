"""Five real daemons under load: whichever is killed, no call is lost that another replica can serve. And a chain of three."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daemons import Daemon, Mesh, connected, sees_agent, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CALLERS = 6


@pytest.fixture
def agent() -> Iterator[str]:
    """The URL of a plain HTTP agent of this process: it outlives every daemon."""

    class Agent(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps({"text": body["text"]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Load:
    """Steady calls through one node, from several threads; every outcome is kept with its times."""

    def __init__(self, caller: Daemon, to: str) -> None:
        self.done: list[tuple[float, float, str, str]] = []
        self._caller, self._to = caller, to
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(CALLERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, caller: int) -> None:
        number = 0
        while not self._stop.wait(0.02):
            number += 1
            text = f"call {number} of {caller}"
            begin = time.monotonic()
            status, answer = self._caller.ask("POST", "/api/v1/calls", {"to": self._to, "text": text})
            outcome = "" if status == 200 and answer["text"] == text else answer.get("code", f"wrong: {answer}")
            node = answer.get("node_id", "") if status == 200 else ""
            self.done.append((begin, time.monotonic(), outcome, node))

    def until(self, more: int) -> None:
        """Wait until so many more calls have begun and ended."""
        now = time.monotonic()
        wait_until(lambda: sum(begin > now for begin, *_ in self.done) >= more, f"{more} further calls", 60)


def whole(status: dict[str, Any]) -> dict[str, Any] | None:
    """Return the status once the node is in a zone of three."""
    return status if status["members"] == 3 else None


def replicas(daemon: Daemon, name: str) -> list[str]:
    agents = daemon.get("/api/v1/agents")["agents"]
    return [a["node_id"] for a in agents if a["name"] == name and a["status"] == "healthy"]


def test_killing_any_of_five_nodes_loses_no_call_that_another_replica_can_serve(mesh: Mesh, agent: str) -> None:
    seed = mesh.node("seed")
    first, second, third, caller = (mesh.node(n, seeds=(seed.seed(),)) for n in ("one", "two", "three", "caller"))
    for node in (first, second, third):
        node.post("/api/v1/agents", {"url": agent, "door": "http", "name": "trio"})
    wait_until(lambda: len(replicas(caller, "trio")) == 3, "the caller to see three replicas")
    kills: list[float] = []
    with Load(caller, "trio") as load:
        load.until(60)
        for victim in (seed, first, second):
            kills.append(time.monotonic())
            victim.kill()
            load.until(150)
    failed = [call for call in load.done if call[2]]
    # A call that the dead node had taken may have had its effect there: its caller is told that nobody knows. It began
    # before the kill; what began later, or was not taken yet, went to another replica.
    for begin, end, code, _ in failed:
        assert code == "unreached.closed", code
        assert any(begin <= kill + 0.2 and end >= kill for kill in kills), (begin, end, kills)
    assert len(failed) <= CALLERS * len(kills)
    assert {node for *_, code, node in load.done[-20:] if not code} == {third.node_id}
    assert len(load.done) > 500


def test_a_node_that_knows_only_the_second_sees_and_calls_the_agent_of_the_first(mesh: Mesh, agent: str) -> None:
    first = mesh.node("first")
    first.post("/api/v1/agents", {"url": agent, "door": "http", "name": "far"})
    second = mesh.node("second", seeds=(first.seed(),))
    wait_until(lambda: connected(second, first), "the second to reach the first")
    third = mesh.node("third", seeds=(second.seed(),))
    found = wait_until(lambda: sees_agent(third, "far"), "the third to see the agent of the first")
    assert found["node_id"] == first.node_id
    reply: dict[str, Any] = third.post("/api/v1/calls", {"to": "far", "text": "through the middle"})
    assert (reply["text"], reply["node_id"]) == ("through the middle", first.node_id)
    peers = {p["node_name"]: p for p in third.get("/api/v1/peers")["peers"]}
    assert {"first", "second"} <= set(peers)
    assert all(p["role"] in ("zone", "long", "link") for p in peers.values())
    shape = third.get("/api/v1/net")
    assert (shape["nodes"], shape["components"], shape["complete"]) == (3, 1, True)
    status = wait_until(lambda: whole(third.get("/api/v1/status")), "the third to be in one zone with the others")
    assert (status["zone"], status["cut_off"]) == ("/", None)


def test_a_node_whose_peers_all_died_says_that_it_is_cut_off_and_goes_on_working(mesh: Mesh, agent: str) -> None:
    a = mesh.node("a")
    b, c = (mesh.node(name, seeds=(a.seed(),)) for name in ("b", "c"))
    a.post("/api/v1/agents", {"url": agent, "door": "http", "name": "home"})
    wait_until(lambda: connected(a, b) and connected(a, c), "the three to meet")
    wait_until(lambda: a.get("/api/v1/status")["members"] == 3, "one zone of three")
    for victim in (b, c):
        victim.kill()
    cut_off = wait_until(lambda: a.get("/api/v1/status")["cut_off"], "the node to notice", 60)
    wait_until(lambda: (a.get("/api/v1/status")["cut_off"] or {}).get("isolated"), "it to know that it is alone", 60)
    assert cut_off["known"] >= 2
    assert "cut off" in a.cli("status").out
    assert a.post("/api/v1/calls", {"to": "home", "text": "still"})["text"] == "still"
    b.open()
    wait_until(lambda: sees_agent(b, "home"), "the returned node to see the agent again", 40)
    c.open()
    wait_until(lambda: a.get("/api/v1/status")["cut_off"] is None, "the node to know that it is whole again", 40)
