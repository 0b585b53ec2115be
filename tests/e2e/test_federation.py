"""Three daemons, two organisations: one agent is shown and called, the other is not there; withdrawn and revoked means gone."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.daemons import Daemon, Mesh, run_cli, script, sees_agent, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

AGENTS = """
from agentmesh import agent, run

@agent
async def contracts(text: str) -> str:
    "Checks rental contracts."
    return "checked " + text

@agent
async def payroll(text: str) -> str:
    "Pays people."
    return "paid " + text

run(contracts, payroll)
"""


class World(NamedTuple):
    """A's daemon, B's two, and the homes of the organisations' keys."""

    a: Daemon
    b: Daemon
    b2: Daemon
    keys: Path
    org_a: str
    org_b: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def org(keys: Path, *args: str) -> Any:
    env = {"AGENTMESH_HOME": str(keys), "NO_COLOR": "1", "PATH": "/usr/bin:/bin"}
    return run_cli("org", *args, "--json", env=env).json()


def share(b: Daemon, org_a: str, a_url: str, agents: str) -> None:
    file = b.home.path / "federation.toml"
    file.write_text(f'[partners.aacme]\nkey = "{org_a}"\nagents = [{agents}]\nhint = "{a_url}"\n', "utf-8")
    file.chmod(0o600)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("federation")
    mesh, keys = Mesh(root), root / "keys"
    file = root / "agents.py"
    file.write_text(AGENTS, "utf-8")
    a_port, b_port = free_port(), free_port()
    a_url, b_url = f"http://127.0.0.1:{a_port}", f"http://127.0.0.1:{b_port}"
    try:
        org_a = org(keys, "create", "aacme")["organisation"]
        org_b = org(keys, "create", "globex")["organisation"]
        a = mesh.node(
            "a", federation_listen=f"127.0.0.1:{a_port}", federation_seeds=(f"{org_b}@{b_url}",), policy="closed"
        )
        b = mesh.node("b", federation_listen=f"127.0.0.1:{b_port}", policy="closed")
        b2 = mesh.node("b2", seeds=(b.seed(),), policy="closed")
        for daemon, name in ((a, "aacme"), (b, "globex"), (b2, "globex")):
            voucher = root / f"{daemon.name}.jwt"
            org(keys, "vouch", daemon.node_id, "--org", name, "--out", str(voucher))
            assert daemon.cli("org", "join", str(voucher)).code == 0
        policies = b.home.path / "policies"
        policies.mkdir(exist_ok=True)
        lists = policies / "lists.toml"
        lists.write_text(f'allow = ["organisation:aacme"]\n[organisations.aacme]\nkeys = ["{org_a}"]\n', "utf-8")
        lists.chmod(0o600)
        share(b, org_a, a_url, '"contracts"')
        with script([sys.executable, str(file)], b.env):
            wait_until(lambda: sees_agent(b2, "payroll"), "the agents to be known in B's mesh")
            yield World(a, b, b2, keys, org_a, org_b)
    finally:
        mesh.aclose()


def seen(daemon: Daemon, name: str) -> Any:
    agents = daemon.get("/api/v1/agents")["agents"]
    return next((agent for agent in agents if agent["name"] == name), None)


def test_the_exported_agent_is_found_shown_and_called_and_the_other_one_is_not_there(world: World) -> None:
    a, b = world.a, world.b
    agent = wait_until(lambda: seen(a, "contracts"), "the exported agent to be seen at A")
    assert agent["organisation"] == world.org_b
    assert agent["node_id"] == b.node_id
    assert "contracts" in a.cli("discover", "rental").out
    assert "contracts" in a.cli("show", "contracts").out
    done = a.cli("run", "--to", "contracts", "the lease")
    assert done.code == 0, f"{done.err}\n{b.log()}"
    assert "checked the lease" in done.out
    # The other one is neither shown nor callable, also for who knows its id.
    assert seen(a, "payroll") is None
    assert a.cli("show", "payroll").code == 6
    hidden = seen(b, "payroll")["agent_id"]
    assert a.cli("run", "--to", hidden, "me").code == 6
    assert "payroll" not in str(a.get("/api/v1/federation"))
    status = a.cli("federation", "status").out
    assert "1" in status
    assert "contracts" in b.cli("federation", "status").out


def test_the_meshes_stay_two(world: World) -> None:
    a, b, b2 = world.a, world.b, world.b2
    assert a.cli("run", "--to", "contracts", "x").code == 0  # the link is up
    for daemon, others in ((a, (b, b2)), (b, (a,)), (b2, (a,))):
        peers = {peer["node_id"] for peer in daemon.get("/api/v1/peers")["peers"]}
        assert not peers & {other.node_id for other in others}, daemon.name
    assert seen(b2, "contracts") is not None
    assert a.get("/api/v1/status")["peers"] == 0
    # Nothing that A imported goes on into a mesh, nor does B show what it was not told to.
    assert a.get("/api/v1/status")["network_size"] <= 2


def test_an_export_that_is_withdrawn_is_gone_at_the_partner_within_seconds(world: World) -> None:
    a, b = world.a, world.b
    wait_until(lambda: seen(a, "contracts"), "the exported agent")
    listen = a.get("/api/v1/federation")["listen"]
    share(b, world.org_a, listen, '"nothing-else"')
    wait_until(lambda: seen(a, "contracts") is None, "the agent to be gone", timeout_s=10)
    assert a.cli("run", "--to", "contracts", "x").code == 6
    share(b, world.org_a, listen, '"contr*"')
    wait_until(lambda: seen(a, "contracts"), "the agent to be back", timeout_s=10)
    assert a.cli("run", "--to", "contracts", "x").code == 0


def test_a_bad_file_names_its_line_and_leaves_what_was_in_force(world: World) -> None:
    a, b = world.a, world.b
    wait_until(lambda: seen(a, "contracts"), "the exported agent")
    file = b.home.path / "federation.toml"
    good = file.read_text("utf-8")
    file.write_text(good.replace("agents =", "agent ="), "utf-8")
    problem = wait_until(lambda: b.get("/api/v1/federation")["problem"], "the error to be told")
    assert "federation.toml:3" in problem
    assert "agent" in problem
    assert seen(a, "contracts")
    file.write_text(good, "utf-8")
    wait_until(lambda: not b.get("/api/v1/federation")["problem"], "the file to be well again")


def test_what_was_federated_is_there_again_after_a_restart(world: World) -> None:
    a = world.a
    wait_until(lambda: seen(a, "contracts"), "the exported agent")
    a.aclose()
    a.open()
    wait_until(lambda: seen(a, "contracts"), "the agent to be there again")
    wait_until(lambda: a.get("/api/v1/federation")["seeds"][0]["lag_s"] is not None, "a pull to end")
    assert a.cli("run", "--to", "contracts", "again").code == 0


def test_revoking_the_organisation_ends_it(world: World) -> None:
    a, b = world.a, world.b
    wait_until(lambda: seen(a, "contracts"), "the exported agent")
    key = (world.keys / "organisations" / "globex.key").read_bytes()
    directory = b.home.path / "organisations"
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "globex.key").write_bytes(key)
    (directory / "globex.key").chmod(0o600)
    done = b.cli("org", "revoke", "--org", "globex", "--yes", "--reason", "test")
    assert done.code == 0, done.err
    wait_until(lambda: seen(a, "contracts") is None, "the agents of the organisation to be gone", timeout_s=45)
    assert a.cli("run", "--to", "contracts", "x").code != 0
    assert a.get("/api/v1/federation")["seeds"][0]["error"].startswith("refused.organisation")
