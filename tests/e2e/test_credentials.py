"""Device credentials with real daemons and the real command: certify, require, renew, rotate, revoke."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import ECHO, Daemon, Mesh, connected, run_cli, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def root(tmp_path: Path) -> tuple[Path, str]:
    """Make a root key away from all nodes."""
    path = tmp_path / "drawer" / "root.key"
    path.parent.mkdir(0o700)
    env = {**os.environ, "AGENTMESH_HOME": str(tmp_path / "office")}
    return path, run_cli("identity", "root", "init", "--root", str(path), "--json", env=env).json()["root"]


def certify(node: Daemon, path: Path) -> None:
    """Certify a node from where the root key is, and bring the credential to it in a file."""
    done = node.cli(
        "identity", "root", "certify", node.node_id, "--root", str(path), "--out", str(node.home.credential)
    )
    assert done.code == 0, done.err


def last_error(node: Daemon, peer: Daemon) -> str:
    return next((p["last_error"] for p in node.get("/api/v1/peers")["peers"] if p["node_id"] == peer.node_id), "")


def test_only_certified_nodes_are_served_and_a_credential_is_found_while_running(
    mesh: Mesh, root: tuple[Path, str], tmp_path: Path
) -> None:
    path, did = root
    file = tmp_path / "echo_agent.py"
    file.write_text(ECHO, "utf-8")
    a = mesh.node("a", require_credentials_of=(did,))
    assert a.get("/api/v1/status")["udp"] is None
    b = mesh.node("b", seeds=(a.seed(),))
    wait_until(lambda: "device credential" in last_error(b, a), "b to be turned away")
    with script([sys.executable, str(file)], a.env):
        wait_until(lambda: sees_agent(a, "echo"), "the agent to register")
        assert not sees_agent(b, "echo")
        certify(b, path)
        wait_until(lambda: b.cli("identity", "root", "show", "--json").json()["credential"], "the credential")
        b.post("/api/v1/peers", {"seeds": [a.seed()]})
        wait_until(lambda: sees_agent(b, "echo"), "b to be let in")
        assert b.post("/api/v1/calls", {"to": "echo", "text": "hello"})["text"] == "hello"
    # Withdrawn: the link goes, and no other is made.
    assert a.cli("identity", "root", "revoke", b.node_id).code == 0
    wait_until(lambda: not connected(a, b), "the link to go")
    wait_until(lambda: "was revoked" in last_error(b, a), "b to be told")


def test_a_rotated_node_comes_back_with_another_id_and_its_agents_keep_theirs(
    mesh: Mesh, root: tuple[Path, str], tmp_path: Path
) -> None:
    path, did = root
    given: dict[str, Any] = {"require_credentials_of": (did,)}
    a = mesh.node("a", **given)
    b = mesh.node("b", **given)
    old, argv = b.node_id, ("--root", str(path), "--json")
    for node in (a, b):
        certify(node, path)
    with script([sys.executable, "-m", "tests.agents.plain_http", "0"]) as agent:
        assert agent.stdout is not None
        port = int(agent.stdout.readline().strip().rpartition(":")[2].strip("/") or 0)
        b.post("/api/v1/agents", {"url": f"http://127.0.0.1:{port}", "door": "http", "name": "far"})
        b.post("/api/v1/peers", {"seeds": [a.seed()]})
        before = wait_until(lambda: sees_agent(a, "far"), "a to see the agent")
        busy = b.cli("identity", "root", "rotate", *argv)
        assert busy.code != 0
        assert "running" in busy.err
        b.aclose()
        rotated = b.cli("identity", "root", "rotate", *argv).json()
        assert rotated["old"] == old
        assert a.cli("identity", "root", "revoke", old).code == 0
        b.given["seeds"] = (a.seed(),)
        b.open()
        assert b.node_id == rotated["new"] != old
        wait_until(lambda: connected(a, b), "the new key to be let in")
        after = wait_until(lambda: (v := sees_agent(a, "far")) and v["node_id"] == b.node_id and v, "the agent again")
        assert after["agent_id"] == before["agent_id"]
        assert a.post("/api/v1/calls", {"to": "far", "text": "hi"})["node_id"] == b.node_id
    # What the old key signed into the audit log stays, closed and verifiable, beside the log of the new one.
    for directory, key in ((rotated["audit"], old), (str(b.home.audit), b.node_id)):
        verified = b.cli("audit", "verify", directory, "--key", key)
        assert verified.code == 0, verified.err


def test_a_node_that_holds_the_root_key_renews_itself(mesh: Mesh, root: tuple[Path, str]) -> None:
    path, did = root
    a = mesh.node("a", root_key=str(path), require_credentials_of=(did,))
    shown = a.cli("identity", "root", "show", "--json").json()
    assert shown["credential"]["root"] == did
    assert shown["credential"]["left_s"] > 80_000
    assert a.get("/api/v1/status")["warnings"] == []
    a.home.credential.write_text("damaged", "utf-8")
    said = wait_until(lambda: a.get("/api/v1/status")["warnings"], "the damage to be told")
    assert "device credential" in said[0]
    assert "device credential" in a.cli("doctor").out
