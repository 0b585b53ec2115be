"""Agents cross between the mesh and a real etcd: found there by one daemon, called through the mesh from another."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import consul, etcd
from tests.support.daemons import ECHO, Daemon, Mesh, script, sees_agent, wait_until
from tests.support.pages import ROOT, blocks, commands

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(etcd.why_not()), reason=etcd.why_not())]

AGENTS = Path(__file__).parents[1] / "agents"


class World:
    """An etcd, an A2A agent that knows nothing of the mesh, and two nodes; ``near`` has a bridge."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.etcd = etcd.Etcd(root)
        stack.callback(self.etcd.kill)
        self.mesh = Mesh(root)
        stack.callback(self.mesh.aclose)
        self.near, self.far = self.mesh.pair()
        agent = stack.enter_context(script([sys.executable, str(AGENTS / "a2a_official.py"), "0", "jsonrpc"]))
        self.agent = agent
        self.agent_url = self._url(agent)
        file = root / "echo_agent.py"
        file.write_text(ECHO, "utf-8")
        stack.enter_context(script([sys.executable, str(file)], self.near.env))
        wait_until(lambda: sees_agent(self.near, "echo"), "the node's own agent")
        self.bridge = f"etcd://127.0.0.1:{self.etcd.port}/agents"

    @staticmethod
    def _url(agent: subprocess.Popen[str]) -> str:
        assert agent.stdout is not None
        return agent.stdout.readline().strip()

    def view(self, daemon: Daemon | None = None) -> Any:
        """Return the one bridge of a node."""
        return (daemon or self.near).get("/api/v1/bridges")["bridges"][0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        world = World(tmp_path_factory.mktemp("bridges"), stack)
        done = world.near.cli("bridge", "add", world.bridge)
        assert done.code == 0, done.err
        yield world


def test_an_agent_that_another_program_registered_in_etcd_is_called_from_a_second_node(world: World) -> None:
    world.etcd.put("agents/words", json.dumps({"url": world.agent_url, "name": "words", "team": "not for us"}))
    seen = wait_until(lambda: sees_agent(world.far, "words"), "the agent in etcd to be known at the far node")
    assert seen["origin"] == "etcd"
    near = sees_agent(world.near, "words")
    assert near["origin"] == f"{world.bridge}/words"
    done = world.far.cli("run", "--to", "words", "hello bridge")
    assert done.code == 0, done.err
    assert done.out.startswith("bridge"), done.out
    world.etcd.delete("agents/words")
    wait_until(lambda: not sees_agent(world.far, "words"), "the agent to leave with its entry")


def test_own_agents_stand_in_etcd_with_a_card_that_an_a2a_client_can_use_and_vanish_with_the_bridge(
    world: World,
) -> None:
    own = sees_agent(world.near, "echo")
    key = f"agents/{own['agent_id']}"
    wait_until(lambda: key in world.etcd.all("agents/"), "the node's own agent to stand in etcd")
    entry = json.loads(world.etcd.all("agents/")[key])
    assert entry["origin"] == world.near.node_id
    assert entry["url"] == f"{world.near.url}/a2a/echo"
    assert entry["card"]["supportedInterfaces"][0]["url"] == entry["url"]
    # A stranger's node that reads the same prefix leaves it alone.
    other = world.mesh.node("stranger", bridges=(f"{world.bridge}?way=in",))
    wait_until(lambda: world.view(other)["mesh"] == 1, "the stranger to have read the entry")
    assert world.view(other)["taken"] == 0
    assert not sees_agent(other, "echo")
    other.aclose()


def test_etcd_may_die_and_come_back_changed_while_the_mesh_goes_on(world: World) -> None:
    for name in ("stays", "goes"):
        world.etcd.put(f"agents/{name}", json.dumps({"url": world.agent_url, "name": name}))
    wait_until(lambda: sees_agent(world.far, "stays") and sees_agent(world.far, "goes"), "both agents")
    world.etcd.kill()
    wait_until(lambda: world.view()["incoming"] == world.view()["outgoing"] == "down", "the bridge to notice", 40)
    assert any(world.bridge in warning for warning in world.near.get("/api/v1/status")["warnings"])
    done = world.far.cli("run", "--to", "stays", "hello anyway")
    assert done.out.startswith("anyway"), (done.out, done.err)
    world.etcd.start()
    world.etcd.delete("agents/goes")
    world.etcd.put("agents/comes", json.dumps({"url": world.agent_url, "name": "comes"}))
    wait_until(lambda: sees_agent(world.far, "comes"), "what came meanwhile", 40)
    wait_until(lambda: not sees_agent(world.far, "goes"), "what went meanwhile to leave")
    wait_until(lambda: world.view()["incoming"] == world.view()["outgoing"] == "up", "the bridge to be well", 40)
    own = sees_agent(world.near, "echo")["agent_id"]
    wait_until(lambda: f"agents/{own}" in world.etcd.all("agents/"), "the own agent to stand there again", 40)
    for name in ("stays", "comes"):
        world.etcd.delete(f"agents/{name}")
    wait_until(lambda: not sees_agent(world.near, "comes"), "the end")


def test_a_daemon_that_is_killed_leaves_nothing_behind_and_comes_back_with_its_bridge(world: World) -> None:
    own = sees_agent(world.near, "echo")["agent_id"]
    world.etcd.put("agents/words", json.dumps({"url": world.agent_url, "name": "words"}))
    wait_until(lambda: sees_agent(world.far, "words"), "the agent in etcd")
    wait_until(lambda: f"agents/{own}" in world.etcd.all("agents/"), "the entry")
    world.near.kill()
    wait_until(lambda: f"agents/{own}" not in world.etcd.all("agents/"), "the lease of the dead node to run out", 60)
    world.near.open()
    wait_until(lambda: sees_agent(world.near, "words"), "the bridge of config.toml to be open again")
    wait_until(lambda: f"agents/{own}" in world.etcd.all("agents/"), "the entry to be back", 40)
    done = world.near.cli("bridge", "remove", world.bridge)
    assert done.code == 0, done.err
    assert not sees_agent(world.near, "words")
    assert list(world.etcd.all("agents/")) == ["agents/words"]
    assert "no bridges" in world.near.cli("bridge", "list").err


def test_the_commands_of_the_guide_do_what_it_says(world: World) -> None:
    """Run after the others: the guide begins with a node that has no bridge."""
    page = (ROOT / "docs" / "howto" / "bridges.md").read_text("utf-8")
    other = consul.Consul()
    node = world.mesh.node("reader")
    try:
        for block in blocks(ROOT / "docs" / "howto" / "bridges.md"):
            text = block.text.replace(":2379", f":{world.etcd.port}").replace(":8500", f":{other.port}")
            for words in commands(text) if block.kind == "sh" and "agentmesh bridge" in text else ():
                done = node.cli(*words[1:])
                assert done.code == 0, (words, done.err)
        names = [one["name"] for one in node.get("/api/v1/bridges")["bridges"]]
        assert names == [world.bridge, f"consul://127.0.0.1:{other.port}"], "what was added, less what was removed"
        bridges = (node.home.path / "config.toml").read_text("utf-8")
        assert "published" not in bridges
        assert "/agents" in bridges
        # The entry that the guide shows is one.
        [(key, value)] = re.findall(r"etcdctl put (\S+) '(.*?)'", page)
        world.etcd.put(key, value.replace("http://127.0.0.1:9000", world.agent_url))
        wait_until(lambda: sees_agent(node, "billing"), "the agent of the guide")
        other.put("tool", {"url": world.agent_url, "name": "tool"})
        wait_until(lambda: sees_agent(node, "tool"), "the agent in Consul")
        assert {sees_agent(node, name)["origin"].partition(":")[0] for name in ("billing", "tool")} == {
            "etcd",
            "consul",
        }
    finally:
        node.aclose()
        other.kill()
