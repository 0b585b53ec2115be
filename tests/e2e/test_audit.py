"""The audit log as people meet it: shown, verified on a copy, proven elsewhere; and whole after a crash under load."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.audit import coverage
from tests.support.daemons import Daemon, Mesh, run_cli, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e

AGENT = """
from agentmesh import Context, agent, run

@agent
async def shop(text: str, ctx: Context) -> str:
    "Orders what it is told to."
    ctx.undo("cancel_order", order="4711")
    return "ordered"

run(shop)
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    root = tmp_path_factory.mktemp("audit")
    mesh = Mesh(root)
    file = root / "shop_agent.py"
    file.write_text(AGENT, "utf-8")
    try:
        far = mesh.node("far")
        near = mesh.node("near", seeds=(far.seed(),))
        with script([sys.executable, str(file)], far.env):
            wait_until(lambda: sees_agent(near, "shop"), "the far agent to be known")
            near.post("/api/v1/calls", {"to": "shop", "text": "a secret wish", "purpose": "to test"})
            yield near, far
    finally:
        mesh.aclose()


def nowhere(tmp_path: Path) -> dict[str, str]:
    """Environment of a machine without node and keys."""
    return {"HOME": str(tmp_path / "home"), "AGENTMESH_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}


def test_a_call_is_shown_with_who_what_why_and_what_would_undo_it(nodes: tuple[Daemon, Daemon]) -> None:
    near, far = nodes
    table = far.cli("audit", "show").out
    assert "to test" in table
    assert "undo" in table
    one = far.cli("audit", "show", "last").out
    assert near.node_id in one
    assert 'to undo: {"arguments":{"order":"4711"},"skill":"cancel_order"}' in one
    assert "call.out" in near.cli("audit", "show").out
    assert "secret" not in far.cli("audit", "export").out
    exported = [json.loads(line) for line in far.cli("audit", "export", "--agent", "shop").out.splitlines()]
    assert {"call", "register"} <= {record["data"]["action"] for record in exported}
    assert far.cli("audit", "export", "--since", "2200").out == ""
    assert far.cli("audit", "show", "feedbeef").code == 6


def test_a_copy_verifies_on_a_machine_without_node_and_keys_until_one_byte_differs(
    nodes: tuple[Daemon, Daemon], tmp_path: Path
) -> None:
    near, far = nodes
    copy = tmp_path / "copy"
    shutil.copytree(far.home.audit, copy)
    env = nowhere(tmp_path)
    done = run_cli("audit", "verify", str(copy), "--key", far.node_id, "--json", env=env)
    assert done.json()["node_id"] == far.node_id
    other = run_cli("audit", "verify", str(copy), "--key", near.node_id, env=env)
    assert other.code == 1
    assert "another node" in other.err
    pinned = tmp_path / "pinned.txt"
    pinned.write_text(done.json()["checkpoint"], "utf-8")
    assert run_cli("audit", "verify", str(copy), "--checkpoint", str(pinned), env=env).code == 0
    segment = copy / "000000000000.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"completed"', b'"failed"'))
    changed = run_cli("audit", "verify", str(copy), env=env)
    assert changed.code == 1
    assert "was changed" in changed.err
    assert run_cli("audit", "verify", str(tmp_path), env=env).code == 2


def test_a_proof_is_checked_elsewhere_with_nothing_but_the_id_of_the_node(
    nodes: tuple[Daemon, Daemon], tmp_path: Path
) -> None:
    near, far = nodes
    proof = tmp_path / "proof.json"
    proof.write_text(far.cli("audit", "prove", "last").out, "utf-8")
    env = nowhere(tmp_path)
    done = run_cli("audit", "verify-proof", str(proof), "--key", far.node_id, env=env)
    assert done.code == 0, done.err
    assert f"that {far.node_id} signed" in done.out
    assert run_cli("audit", "verify-proof", str(proof), "--key", near.node_id, env=env).code == 3
    proof.write_text(proof.read_text("utf-8").replace("completed", "failed"), "utf-8")
    assert run_cli("audit", "verify-proof", str(proof), env=env).code == 3
    proof.write_text("{}", "utf-8")
    assert run_cli("audit", "verify-proof", str(proof), env=env).code == 2


def test_every_call_and_refusal_is_on_record_after_kill_9_under_load() -> None:
    wanted, missing, records, wrong = coverage(kills=2)
    assert (missing, wrong) == (0, 0)
    assert records >= wanted > 0
