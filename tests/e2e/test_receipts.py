"""Receipts as people meet them: shown, taken to another machine in a file, verified there, and found changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import ECHO, Daemon, Mesh, run_cli, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("receipts")
    mesh = Mesh(root)
    file = root / "echo_agent.py"
    file.write_text(ECHO, "utf-8")
    try:
        far = mesh.node("far")
        near = mesh.node("near", seeds=(far.seed(),))
        with script([sys.executable, str(file)], far.env):
            wait_until(lambda: sees_agent(near, "echo"), "the far agent to be known")
            yield near
    finally:
        mesh.aclose()


def exported(caller: Daemon) -> dict[str, Any]:
    caller.post("/api/v1/calls", {"to": "echo", "text": "hello", "purpose": "to test"})
    done = caller.cli("receipt", "show", "last", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_receipt_is_shown_with_who_asked_whom_for_what_and_how_it_ended(caller: Daemon) -> None:
    exported(caller)
    shown = caller.cli("receipt", "show", "last").out
    assert "completed" in shown
    assert "to test" in shown
    assert "agentmesh receipt verify" in caller.cli("receipt", "show", "last").err
    assert "1 receipt holds" in caller.cli("receipt", "verify", "last").out
    trace = caller.cli("trace", "last")
    assert "agentmesh receipt show" in trace.err, "the trace leads to its receipts"
    missing = caller.cli("receipt", "show", "feedbeef")
    assert missing.code != 0
    assert "receipt" in missing.err


def test_the_purpose_given_on_the_command_line_stands_on_the_receipt(caller: Daemon) -> None:
    assert caller.cli("run", "--to", "echo", "--purpose", "to check a contract", "hello").code == 0
    assert "to check a contract" in caller.cli("receipt", "show", "last").out
    refused = caller.cli("run", "--to", "echo", "--purpose", "two\nlines", "hello")
    assert refused.code != 0
    assert "purpose" in refused.err


def test_a_file_of_receipts_verifies_on_a_machine_that_has_no_node_and_no_keys(caller: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "receipts.json"
    file.write_text(json.dumps(exported(caller)), "utf-8")
    empty = {"HOME": str(tmp_path / "home"), "AGENTMESH_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    done = run_cli("receipt", "verify", str(file), "--offline", "--no-autostart", env=empty)
    assert done.code == 0, done.err
    assert "1 receipt holds" in done.out


@pytest.mark.parametrize("member", ["receipt", "token", "hash", "task_id", "callee", "caller"])
def test_whatever_is_changed_in_the_file_is_found(caller: Daemon, tmp_path: Path, member: str) -> None:
    listing, other = exported(caller), exported(caller)
    entry = listing["receipts"][0]
    if entry[member] == other["receipts"][0][member]:
        entry["callee"], entry["caller"] = entry["caller"], entry["callee"]
    else:
        entry[member] = other["receipts"][0][member]
    file = tmp_path / "receipts.json"
    file.write_text(json.dumps(listing), "utf-8")
    done = caller.cli("receipt", "verify", str(file))
    assert done.code != 0
    assert "receipt" in done.err


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"receipts": [{"hash": 1}]}', "\x00"])
def test_a_file_that_holds_no_receipts_is_said_to_be_none(caller: Daemon, tmp_path: Path, text: str) -> None:
    file = tmp_path / "receipts.json"
    file.write_text(text, "utf-8")
    done = caller.cli("receipt", "verify", str(file))
    assert done.code != 0
    assert "no list of receipts" in done.err
