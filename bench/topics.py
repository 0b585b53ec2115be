"""Publish to 100 local subscribers, and to a durable topic; nats-py with its server, and JetStream, in the same run.

Ours: one node in this process, 100 subscriptions each read by a task, 256 bytes; the publisher waits for room when a ring is
nearly full, so that nothing is lost. Rival: nats-py, one connection, 100 subscriptions with a callback each, through a server on
loopback. Counted is until the last subscriber has the last message.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from agentmesh.node.node import Node
from agentmesh.wire.message_views import PublishRequest, SubscribeRequest, TopicRequest
from bench.rivals import free_port, process

SUBSCRIBERS = 100
MESSAGES = 2_000
DURABLE = 20_000
PUBLISHERS = 256
ROUNDS = 5
BODY = "x" * 256


def run() -> list[dict[str, Any]]:
    """Measure."""
    return asyncio.run(_run())


async def _run() -> list[dict[str, Any]]:
    ours: list[float] = []
    theirs: list[float] = []
    kept: list[float] = []
    stream: list[float] = []
    with tempfile.TemporaryDirectory() as root:
        async with _node(Path(root)) as node, _nats(Path(root) / "js") as client:
            for round_ in range(ROUNDS):  # in turns, so that a slow moment of the machine meets both
                ours.append(await _fan_out(node, f"bench.{round_}"))
                theirs.append(await _nats_fan_out(client, f"bench.{round_}"))
            await node.topics.create(TopicRequest(name="kept", subjects=["kept"]))
            await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
            js, raw = client.jetstream(), BODY.encode()
            for _ in range(3):
                kept.append(await _gathered(lambda: node.topics.publish("kept", PublishRequest(text=BODY)), DURABLE))
                stream.append(await _gathered(lambda: js.publish("kept", raw), DURABLE // 4))
    fan, rival = statistics.median(ours), statistics.median(theirs)
    durable, jetstream = statistics.median(kept), statistics.median(stream)
    return [
        {
            "what": f"publications/s to {SUBSCRIBERS} local subscribers, 256 B",
            "value": fan,
            "unit": "1/s",
            "goal": "≥ nats-py",
            "rival": "nats-py",
            "rival_value": rival,
            "ratio": fan / rival,
        },
        {
            "what": f"publications/s kept in a durable topic (signed, fsync in groups), {PUBLISHERS} at once",
            "value": durable,
            "unit": "1/s",
            "goal": "≥ JetStream",
            "rival": "JetStream, nats-py, sync_interval always",
            "rival_value": jetstream,
            "ratio": durable / jetstream,
        },
    ]


async def _gathered(publish: Callable[[], Awaitable[Any]], count: int) -> float:
    """Return how many publications a second are acknowledged to so many publishers at once."""
    left = count

    async def publisher() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await publish()

    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(PUBLISHERS):
            group.create_task(publisher())
    return count / (time.perf_counter() - began_s)


async def _fan_out(node: Node, subject: str) -> float:
    counts = [0] * SUBSCRIBERS
    topics = node.topics

    async def follow(place: int) -> None:
        async for event in topics.subscribe(SubscribeRequest(subjects=[subject])):
            assert not event.lost
            counts[place] += 1
            if counts[place] == MESSAGES:
                return

    async with asyncio.TaskGroup() as group:
        for place in range(SUBSCRIBERS):
            group.create_task(follow(place))
        while _following(node) < SUBSCRIBERS:  # noqa: ASYNC110 each subscribes on its first step
            await asyncio.sleep(0)
        began_s = time.perf_counter()
        request = PublishRequest(text=BODY)
        for number in range(MESSAGES):
            await topics.publish(subject, request)
            while number - min(counts) > 500:  # noqa: ASYNC110 they read in this very loop
                await asyncio.sleep(0)
    return MESSAGES / (time.perf_counter() - began_s)


def _following(node: Node) -> int:
    return len(node._topics.fanout)


async def _nats_fan_out(client: Any, subject: str) -> float:
    total, done = 0, asyncio.Event()

    async def heard(_message: Any) -> None:
        nonlocal total
        total += 1
        if total == MESSAGES * SUBSCRIBERS:
            done.set()

    subscriptions = [await client.subscribe(subject, cb=heard) for _ in range(SUBSCRIBERS)]
    await client.flush()
    began_s = time.perf_counter()
    raw = BODY.encode()
    for _ in range(MESSAGES):
        await client.publish(subject, raw)
    await done.wait()
    took_s = time.perf_counter() - began_s
    for one in subscriptions:
        await one.unsubscribe()
    return MESSAGES / took_s


@contextlib.asynccontextmanager
async def _nats(store: Path) -> AsyncIterator[Any]:
    """Yield a connected client of a server of its own, with JetStream that syncs always."""
    import nats

    port = free_port()
    server = str(Path(sys.executable).parent / "nats-server")
    config = store.parent / "nats.conf"
    config.write_text(
        f'listen: 127.0.0.1:{port}\njetstream {{ store_dir: "{store}", sync_interval: always }}\nmax_pending: 512MB\n'
    )
    with process([server, "-c", str(config)], first_line=False):
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            await asyncio.sleep(0.05)
        client: Any = await nats.connect(f"nats://127.0.0.1:{port}", pending_size=64 * 1024 * 1024)
        try:
            yield client
        finally:
            await client.close()


@contextlib.asynccontextmanager
async def _node(root: Path) -> AsyncIterator[Node]:
    """Yield a node alone, with all its parts and stores."""
    from tests.unit.node.world import world

    async with world(root, 1) as [member]:
        yield member.node
