"""Two daemons over each transport by itself: they meet, one calls the other's agent, both tell the same trace."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from bench.rivals import process
from tests.support.daemons import Mesh, sees_agent, wait_until

pytestmark = pytest.mark.e2e

LOOPBACK: dict[str, Any] = {"listen_tls": "127.0.0.1:0", "listen_ws": "127.0.0.1:0"}


@pytest.mark.parametrize("scheme", ["iroh", "tls", "ws"])
def test_a_call_crosses_every_transport(mesh: Mesh, scheme: str) -> None:
    a, b = mesh.pair(transports=(scheme,), **LOOPBACK)
    with process([sys.executable, "-m", "bench.agent"]) as port:
        b.post("/api/v1/agents", {"url": f"http://127.0.0.1:{port}", "door": "http", "name": "far"})
        wait_until(lambda: sees_agent(a, "far"), "node a to see the agent")
        reply = a.post("/api/v1/calls", {"to": "far", "text": "hello"})
        assert (reply["text"], reply["path"], reply["node_id"]) == ("y" * 1000, "direct", b.node_id)
        assert [p["scheme"] for p in a.get("/api/v1/peers")["peers"]] == [scheme]
        traces = [node.get(f"/api/v1/runs/{reply['run_id']}/events") for node in (a, b)]
        assert traces[0]["digest"] == traces[1]["digest"]


def test_nodes_that_share_only_one_transport_meet_on_it(mesh: Mesh) -> None:
    a = mesh.node("a", transports=("iroh", "tls"), **LOOPBACK)
    address = next(x for x in a.get("/api/v1/status")["addresses"] if x.startswith("tls:"))
    b = mesh.node("b", transports=("tls",), seeds=(f"tls:{a.node_id}@{address.removeprefix('tls:')}",), **LOOPBACK)
    wait_until(
        lambda: [p["scheme"] for p in b.get("/api/v1/peers")["peers"] if p["connected"]] == ["tls"],
        "b to reach a by TLS",
    )


def test_a_seed_with_another_key_than_answers_is_refused_and_said_so(mesh: Mesh) -> None:
    a, b = mesh.node("a"), mesh.node("b")
    stranger = b.node_id
    address = a.seed().rpartition("@")[2]
    c = mesh.node("c", seeds=(f"{stranger}@{address}",))
    peer = wait_until(
        lambda: next((p for p in c.get("/api/v1/peers")["peers"] if p["last_error"]), None), "the refusal to be told"
    )
    assert peer["node_id"] == stranger
    assert not peer["connected"]
    assert "key" in peer["last_error"]
