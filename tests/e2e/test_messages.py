"""Readers of an inbox and of a durable topic outlive the daemon: killed, started again, nothing lost and nothing seen twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from agentmesh.sdk.client import Mesh
from tests.support.daemons import Daemon
from tests.support.daemons import Mesh as Nodes

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A node with the agents amy and bob."""
    nodes = Nodes(tmp_path_factory.mktemp("messages"))
    try:
        node = nodes.node("node")
        for name in ("amy", "bob"):
            node.post("/api/v1/agents", {"url": f"mailbox:{name}"})
        yield node
    finally:
        nodes.aclose()


async def read(reader: Any, count: int, into: list[str]) -> None:
    """Read so many things."""
    async with asyncio.timeout(60):
        while len(into) < count:
            into.append((await anext(reader)).text)


async def test_readers_go_on_after_the_daemon_was_killed(daemon: Daemon) -> None:
    letters: list[str] = []
    events: list[str] = []
    async with Mesh(home=daemon.home.path) as mesh:
        await mesh.create_topic("log", ["log.>"])
        async with (
            mesh.inbox("bob") as inbox,
            mesh.subscribe("log.>", topic="log", start="all", retry_for_s=60) as topic,
        ):
            for n in range(3):
                await mesh.send("bob", f"letter {n}", sender="amy", delivery="effectively-once")
                await mesh.publish("log.a", f"event {n}")
            await asyncio.gather(read(inbox, 3, letters), read(topic, 3, events))
            reading = asyncio.gather(read(inbox, 6, letters), read(topic, 6, events))
            await asyncio.to_thread(daemon.kill)
            await asyncio.to_thread(daemon.open)
            async with Mesh(home=daemon.home.path) as other:
                for n in range(3, 6):
                    await other.send("bob", f"letter {n}", sender="amy", delivery="effectively-once")
                    await other.publish("log.a", f"event {n}")
                await reading
    # The third letter was at work when the daemon was killed: this reader has seen it, so it does not see it again.
    assert letters == [f"letter {n}" for n in range(6)]
    assert events == [f"event {n}" for n in range(6)]


async def test_what_was_taken_is_there_after_a_kill_and_comes_to_whoever_reads_then(daemon: Daemon) -> None:
    sent = daemon.cli("send", "bob", "keep this", "--from", "amy", "--json").json()
    daemon.kill()
    daemon.open()
    said = daemon.cli("inbox", "bob", "--json").json()
    assert (said["message_id"], said["data"]) == (sent["message_id"], "keep this")
    assert daemon.cli("inbox", "bob").out == ""


async def test_a_lock_outlives_the_daemon_and_is_still_its_holders(daemon: Daemon) -> None:
    async with Mesh(home=daemon.home.path) as mesh:
        lock = await mesh.lock("nightly", ttl_s=60).acquire()
        daemon.kill()
        daemon.open()
        held = await mesh.show_lock("nightly")
        assert (held.holder, held.token) == (lock.holder, lock.token)
        await lock.release()
        assert not (await mesh.show_lock("nightly")).held
