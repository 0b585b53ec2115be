"""Daemons in a network whose CA admits nodes: calls cross it, outsiders stay out, certificates change without a restart."""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentmesh.daemon.settings import load
from agentmesh.errors import ConfigError
from bench.rivals import process
from tests.support.authority import Authority, write_files
from tests.support.daemons import Daemon, Mesh, connected, sees_agent, wait_until

pytestmark = pytest.mark.e2e

LOOPBACK: dict[str, Any] = {"listen_tls": "127.0.0.1:0", "listen_ws": "127.0.0.1:0"}


def settings(directory: Path, authority: Authority, **issue: Any) -> dict[str, Any]:
    files = write_files(directory, authority.issue(**issue), authority.pem)
    return {"tls_ca": str(files.ca), "tls_cert": str(files.cert), "tls_key": str(files.key), **LOOPBACK}


def last_error(node: Daemon, peer: Daemon) -> str:
    return next((p["last_error"] for p in node.get("/api/v1/peers")["peers"] if p["node_id"] == peer.node_id), "")


@pytest.mark.parametrize("scheme", ["tls", "ws"])
def test_calls_cross_a_network_that_a_ca_guards_and_outsiders_stay_out(mesh: Mesh, tmp_path: Path, scheme: str) -> None:
    authority = Authority()
    a = mesh.node("a", transports=(scheme,), **settings(tmp_path / "pa", authority, name="a", organisation="Acme"))
    b = mesh.node("b", seeds=(a.seed(),), transports=(scheme,), **settings(tmp_path / "pb", authority, name="b"))
    wait_until(lambda: connected(a, b), "a to see b")
    with process([sys.executable, "-m", "bench.agent"]) as port:
        b.post("/api/v1/agents", {"url": f"http://127.0.0.1:{port}", "door": "http", "name": "far"})
        wait_until(lambda: sees_agent(a, "far"), "node a to see the agent")
        assert a.post("/api/v1/calls", {"to": "far", "text": "hello"})["node_id"] == b.node_id
    plain = mesh.node("plain", seeds=(a.seed(),), transports=(scheme,), **LOOPBACK)
    stranger = mesh.node(
        "stranger", seeds=(a.seed(),), transports=(scheme,), **settings(tmp_path / "px", Authority("Other CA"))
    )
    for outsider in (plain, stranger):
        wait_until(lambda outsider=outsider: last_error(outsider, a), "the outsider to be turned away")
        assert not connected(outsider, a)
        assert outsider.get("/api/v1/agents")["agents"] == []
    assert "certificate" in last_error(stranger, a)
    assert a.get("/api/v1/status")["udp"] is None


def test_certificates_change_without_a_restart(mesh: Mesh, tmp_path: Path) -> None:
    authority = Authority()
    a = mesh.node("a", transports=("tls",), **settings(tmp_path / "pa", authority, ends=timedelta(hours=30)))
    assert any("ends in 1.2 days" in w for w in a.get("/api/v1/status")["warnings"])
    write_files(tmp_path / "pa", Authority("Other CA").issue(), authority.pem)
    assert any("the old ones are" in w for w in a.get("/api/v1/status")["warnings"])
    # The organisation moves to another CA: the running node follows, and only the new network's nodes get in.
    new = Authority("New CA")
    settings(tmp_path / "pa", new)
    os.kill(a.pid, signal.SIGHUP)
    wait_until(lambda: a.get("/api/v1/status")["warnings"] == [], "the warnings to go")
    b = mesh.node("b", seeds=(a.seed(),), transports=("tls",), **settings(tmp_path / "pb", new))
    wait_until(lambda: connected(a, b), "a to see b")
    late = mesh.node("late", seeds=(a.seed(),), transports=("tls",), **settings(tmp_path / "pc", authority))
    wait_until(lambda: last_error(late, a), "the node of the old CA to be turned away")
    assert a.get("/api/v1/status")["pid"] == a.pid


def test_a_guarded_network_leaves_no_other_door_open(tmp_path: Path) -> None:
    given = settings(tmp_path / "p", Authority())
    for flags, code in (
        ({**given, "home": tmp_path / "h"}, "config.tls_iroh"),
        ({"tls_ca": given["tls_ca"], "home": tmp_path / "h"}, "config.tls_incomplete"),
        ({"tls_key": given["tls_key"], "home": tmp_path / "h"}, "config.tls_incomplete"),
        ({"tls_ca": "ca.pem", "home": tmp_path / "h"}, "config.value"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(flags, environ={})
        assert caught.value.code == code
    loaded = load({**given, "tls_ca_only": False, "home": tmp_path / "h"}, environ={}).settings
    assert loaded.transports == ("iroh",)
