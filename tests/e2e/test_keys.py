"""API keys as people meet them: made, used from the environment, listed and revoked on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import ECHO, Daemon, Mesh, run_cli, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("keys")
    mesh = Mesh(root)
    file = root / "echo_agent.py"
    file.write_text(ECHO, "utf-8")
    try:
        node = mesh.node("one")
        with script([sys.executable, str(file)], node.env):
            wait_until(lambda: sees_agent(node, "echo"), "the agent to be known")
            yield node
    finally:
        mesh.aclose()


def test_a_key_made_on_the_command_line_opens_what_it_says_and_ends_when_it_is_revoked(node: Daemon) -> None:
    made = node.cli("keys", "add", "ci", "--scope", "call:echo", "--expires", "30d")
    assert made.code == 0, made.err
    secret = made.out.strip()
    assert secret.startswith("amk_")
    program = {**node.env, "AGENTMESH_API_KEY": secret}
    assert run_cli("run", "--to", "echo", "hello", "--json", env=program).json()["text"] == "hello"
    refused = run_cli("discover", "--json", env=program)
    assert refused.code == 3
    assert "refused.scope" in refused.err
    assert run_cli("keys", "list", env=program).code == 3
    listed = node.cli("keys", "list")
    assert "ci" in listed.out
    assert "call:echo" in listed.out
    assert secret not in listed.out + node.log(10_000)
    assert node.cli("keys", "revoke", "ci").code == 0
    gone = run_cli("run", "--to", "echo", "hello", env=program)
    assert gone.code == 3
    assert "refused.key" in gone.err


def test_a_key_outlives_a_restart_and_its_end_is_shown(node: Daemon) -> None:
    secret = node.cli("keys", "add", "later", "--scope", "read", "--expires", "12h", "--json").json()["secret"]
    node.aclose()
    node.open()
    assert run_cli("status", "--json", env={**node.env, "AGENTMESH_API_KEY": secret}).code == 0
    assert "in 12 h" in node.cli("keys", "list").out
    node.cli("keys", "revoke", "later")


@pytest.mark.parametrize(
    "args",
    [
        ["--scope", "fly"],
        [],
        ["--scope", "read", "--expires", "soon"],
        ["--scope", "call:*"],
        ["--scope", "read", "--expires", "0s"],
    ],
)
def test_what_makes_no_key_says_why(node: Daemon, args: list[str]) -> None:
    done = node.cli("keys", "add", "bad", *args)
    assert done.code == 2
    assert done.out == ""
    assert "next:" in done.err


def test_two_tenants_on_one_node_know_nothing_of_each_other(node: Daemon, tmp_path: Path) -> None:
    keys: dict[str, dict[str, str]] = {}
    for name in ("acme", "globex"):
        assert node.cli("tenants", "set", name, "--calls-at-once", "4").code == 0
        scopes = [word for scope in ("read", "call", "register", "events") for word in ("--scope", scope)]
        secret = node.cli("keys", "add", f"{name}-key", "--tenant", name, *scopes).out.strip()
        keys[name] = {**node.env, "AGENTMESH_API_KEY": secret}
    file = tmp_path / "echo_agent.py"
    file.write_text(ECHO, "utf-8")
    with script([sys.executable, str(file)], keys["acme"]):
        listed = lambda env: [a["name"] for a in run_cli("discover", "--json", env=env).json()["agents"]]  # noqa: E731
        wait_until(lambda: listed(keys["acme"]) == ["echo"], "the agent of the tenant to be known")
        assert listed(keys["globex"]) == []
        answer = run_cli("run", "--to", "echo", "only for acme", "--json", env=keys["acme"]).json()
        assert answer["text"] == "only for acme"
        for args in (["trace", "last"], ["trace", answer["run_id"]], ["receipt", "show", answer["task_id"]]):
            assert run_cli(*args, env=keys["acme"]).code == 0
            refused = run_cli(*args, env=keys["globex"])
            assert refused.code == 6
            assert "only for acme" not in refused.out + refused.err
        assert run_cli("run", "--to", "echo", "x", env=keys["globex"]).code == 6
        assert run_cli("peers", env=keys["acme"]).code == 3
        assert "1/100" in node.cli("tenants", "list").out
    assert node.cli("tenants", "remove", "acme").code == 0
    assert run_cli("discover", env=keys["acme"]).code == 3
    assert run_cli("discover", env=keys["globex"]).code == 0
