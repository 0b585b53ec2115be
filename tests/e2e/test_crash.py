"""Daemons that die at a bad moment: what was acknowledged is there again, and people are told what was repaired."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import Daemon, Mesh, sees_agent, wait_until

pytestmark = pytest.mark.e2e


def event(run_id: str, number: int) -> dict[str, Any]:
    return {
        "id": f"{number:032x}",
        "ts": 1_700_000_000_000_000 + number,
        "kind": "message",
        "run_id": run_id,
        "lamport": number,
        "payload": {"role": "agent", "parts": [{"text": f"n {number}"}]},
    }


def test_events_acknowledged_before_a_kill_are_in_jsonl_and_index_after_it(mesh: Mesh) -> None:
    node = mesh.node("a")
    run_id = uuid.uuid4().hex
    acknowledged: list[int] = []

    def feed() -> None:
        with contextlib.suppress(OSError, AssertionError):
            for number in range(100_000):
                node.post("/api/v1/events", {"events": [event(run_id, number)]})
                acknowledged.append(number)

    feeder = threading.Thread(target=feed)
    feeder.start()
    wait_until(lambda: len(acknowledged) > 200, "some acknowledged events")
    node.kill()
    feeder.join(30)
    node.open()
    view = node.get(f"/api/v1/runs/{run_id}/events")
    kept = {e["payload"]["parts"][0]["text"] for e in view["events"]}
    assert {f"n {number}" for number in acknowledged} <= kept
    lines = [json.loads(line) for file in sorted(node.home.events.glob("*.jsonl")) for line in file.open("rb")]
    assert len([e for e in lines if e["run_id"] == run_id]) == view["count"]


def test_a_corrupt_index_is_rebuilt_from_the_jsonl_and_status_says_so(mesh: Mesh) -> None:
    node = mesh.node("a")
    run_id = uuid.uuid4().hex
    node.post("/api/v1/events", {"events": [event(run_id, n) for n in range(300)]})
    before = node.get(f"/api/v1/runs/{run_id}/events")
    node.aclose()
    index = next(node.home.events.glob("*.sqlite"))
    index.write_bytes(b"this is no database" * 1000)
    node.open()
    after = node.get(f"/api/v1/runs/{run_id}/events")
    assert (after["count"], after["digest"]) == (before["count"], before["digest"]) == (300, before["digest"])
    warnings = node.get("/api/v1/status")["warnings"]
    assert any("index" in w for w in warnings), warnings
    with contextlib.closing(sqlite3.connect(index)) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_torn_last_line_is_cut_counted_and_reported(mesh: Mesh) -> None:
    node = mesh.node("a")
    run_id = uuid.uuid4().hex
    node.post("/api/v1/events", {"events": [event(run_id, n) for n in range(10)]})
    node.kill()
    with open(sorted(node.home.events.glob("*.jsonl"))[-1], "ab") as log:
        log.write(b'{"schema_version":"1","id":"torn","ts":1,"kind":"mess')
    node.open()
    assert node.get(f"/api/v1/runs/{run_id}/events")["count"] == 10
    assert any("torn" in w or "incomplete" in w for w in node.get("/api/v1/status")["warnings"])


def test_an_older_event_record_is_read_and_promoted(mesh: Mesh, tmp_path: Path) -> None:
    events = tmp_path / "old" / "events"
    events.mkdir(parents=True)
    (tmp_path / "old").chmod(0o700)
    old = {
        "ts": "2026-02-19T10:00:00Z",
        "run_id": "older-run-1",
        "event_type": "message",
        "message": "from before",
        "step": "s",
    }
    (events / "000001.jsonl").write_text(json.dumps(old) + "\n", "utf-8")
    node = mesh.node("old")
    view = node.get("/api/v1/runs/older-run-1/events")
    assert [(e["kind"], e["payload"], e["schema_version"]) for e in view["events"]] == [
        ("message", {"text": "from before"}, "1")
    ]


def test_a_killed_node_comes_back_under_its_name_with_its_agents_and_peers(mesh: Mesh, http_agent: str) -> None:
    a, b = mesh.pair()
    b.post("/api/v1/agents", {"url": http_agent, "door": "http", "name": "keeper"})
    wait_until(lambda: sees_agent(a, "keeper"), "a to see the agent")
    seq = sees_agent(a, "keeper")["seq"]
    b.kill()
    b.open()
    wait_until(lambda: (sees_agent(a, "keeper") or {"seq": 0})["seq"] > seq, "a to see the agent again", 60)
    reply = a.post("/api/v1/calls", {"to": "keeper", "text": "hello"})
    assert reply["state"] == "completed"


@pytest.fixture
def http_agent() -> Any:
    """The URL of a plain HTTP agent of this process."""
    import http.server

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


def test_a_call_whose_node_dies_tells_that_the_outcome_is_unknown_or_goes_elsewhere(
    mesh: Mesh, http_agent: str
) -> None:
    a = mesh.node("a")
    b, c = (mesh.node(name, seeds=(a.seed(),)) for name in ("b", "c"))
    for node in (b, c):
        node.post("/api/v1/agents", {"url": http_agent, "door": "http", "name": "twin"})
    wait_until(lambda: _twins(a) == 2, "a to see both replicas")
    b.kill()
    for number in range(6):
        reply = a.post("/api/v1/calls", {"to": "twin", "text": f"call {number}"})
        assert reply["text"] == f"call {number}"
        assert reply["node_id"] == c.node_id


def _twins(daemon: Daemon) -> int:
    return sum(a["name"] == "twin" and a["status"] == "healthy" for a in daemon.get("/api/v1/agents")["agents"])
