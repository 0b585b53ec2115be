"""Writes and reads of critical state, 256 bytes, against the engine itself asked by its own client in the same run.

Rivals: nats-py's compare-and-set of a key-value store (``update``) and ``get`` on the same servers; for etcd the same
transaction as one bare request by aiohttp. A read on a NATS cluster is confirmed (docs/spec/engines.md §3), nats-py's is not,
so it may be old. Servers are real, on loopback, NATS with ``sync_interval: always``; three of them share this machine's disk
and cores.
"""

from __future__ import annotations

import asyncio
import base64
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agentmesh.engines.base import CriticalStore, TopicSpec
from agentmesh.engines.choose import choose_critical
from agentmesh.engines.nats_topics import NatsTopics
from agentmesh.engines.place import read_place
from agentmesh.errors import MeshError
from agentmesh.ids import NodeId
from agentmesh.node.locks import Locks
from agentmesh.wire.state_views import LockRequest
from tests.support.servers import EtcdServers, NatsServers, Servers, running

ROUNDS = 300
BODY = b"x" * 256
RECORDS, BATCH = 4_096, 64


def run() -> list[dict[str, Any]]:
    """Measure."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as root:
        rows += asyncio.run(_engine("SQLite", f"sqlite:{root}/critical.sqlite", None))
        for name, servers in (
            ("NATS, one server", NatsServers(_under(root, "one"), 1)),
            ("NATS, three servers", NatsServers(_under(root, "three"), 3)),
            ("etcd, one server", EtcdServers(_under(root, "etcd"), 1)),
            ("etcd, three servers", EtcdServers(_under(root, "etcds"), 3)),
        ):
            with running(servers):
                alone = servers.scheme == "nats" and servers.count == 1
                rows += asyncio.run(_engine(name, servers.url + ("?replicas=1" if alone else ""), servers))
    return rows


def _under(root: str, name: str) -> Path:
    path = Path(root) / name
    path.mkdir()
    return path


async def _engine(name: str, url: str, servers: Servers | None) -> list[dict[str, Any]]:
    store = choose_critical(url, Path("never"))
    try:
        await _ready(store)
        rival: dict[str, float] = {}
        revision = await store.put("bench", BODY)

        async def put() -> None:
            nonlocal revision
            revision = await store.put("bench", BODY, expect=revision)

        rows = [
            await _row(f"{name}: compare-and-set", put, rival),
            await _row(f"{name}: read", lambda: store.get("bench"), rival),
        ]
        locks = Locks(NodeId("did:key:zBench"), store)

        async def lock() -> None:
            await locks.acquire("bench", LockRequest(holder="h"))
            await locks.release("bench", "h")

        rows.append(await _row(f"{name}: take a lock and give it back", lock, rival))
        if servers is not None:
            times = await (_nats(servers) if servers.scheme == "nats" else _etcd(servers))
            for row, (rival_name, value) in zip(rows, times, strict=False):
                row.update(rival=rival_name, rival_value=value, ratio=round(row["value"] / value, 2))
        if servers is not None and servers.scheme == "nats":
            rows.append(await _append(name, url))
        return rows
    finally:
        await store.aclose()


async def _row(what: str, once: Callable[[], Awaitable[Any]], rival: dict[str, float]) -> dict[str, Any]:
    return {"what": f"{what}, p50", "value": await _median_ms(once), "unit": "ms", "goal": "", **rival}


async def _median_ms(once: Callable[[], Awaitable[Any]]) -> float:
    times: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await once()
        times.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(times[ROUNDS // 10 :]), 3)


async def _ready(store: CriticalStore) -> None:
    for _ in range(600):
        try:
            await store.put("ready", b"")
            return
        except MeshError:
            await asyncio.sleep(0.1)
    raise TimeoutError(store.url)


async def _nats(servers: Servers) -> list[tuple[str, float]]:
    import nats

    client = await nats.connect([f"nats://127.0.0.1:{port}" for port in servers.ports])
    kv = await client.jetstream().create_key_value(bucket="rival", replicas=servers.count, history=1)
    last = await kv.put("bench", BODY)

    async def put() -> None:
        nonlocal last
        last = await kv.update("bench", BODY, last=last)

    found = [("nats-py update", await _median_ms(put)), ("nats-py get", await _median_ms(lambda: kv.get("bench")))]
    await client.close()
    return found


async def _etcd(servers: Servers) -> list[tuple[str, float]]:
    import aiohttp

    base, key = f"http://127.0.0.1:{servers.ports[0]}/v3/kv", base64.b64encode(b"rival").decode()
    async with aiohttp.ClientSession() as session:

        async def ask(path: str, body: dict[str, Any]) -> Any:
            async with session.post(f"{base}/{path}", json=body) as response:
                return await response.json()

        value = base64.b64encode(BODY).decode()
        last = (await ask("put", {"key": key, "value": value}))["header"]["revision"]

        async def put() -> None:
            nonlocal last
            compare = {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": last}
            done = await ask("txn", {"compare": [compare], "success": [{"request_put": {"key": key, "value": value}}]})
            assert done["succeeded"]
            last = done["header"]["revision"]

        return [
            ("bare transaction", await _median_ms(put)),
            ("bare range", await _median_ms(lambda: ask("range", {"key": key}))),
        ]


async def _append(name: str, url: str) -> dict[str, Any]:
    """Keep records on JetStream in batches, against nats-py awaiting as many acknowledgements at once."""
    import nats

    topics = NatsTopics(read_place(url))
    try:
        await topics.create(TopicSpec("bench", ("bench.>",)))
        began = time.perf_counter()
        for first in range(0, RECORDS, BATCH):
            await topics.append("bench", [("bench.x", BODY, str(first + i)) for i in range(BATCH)])
        ours = RECORDS / (time.perf_counter() - began)
        client = await nats.connect([f"nats://{one}" for one in read_place(url).servers])
        js = client.jetstream()
        await js.add_stream(name="RIVAL", subjects=["rival"], num_replicas=read_place(url).replicas)
        began = time.perf_counter()
        for first in range(0, RECORDS, BATCH):
            await asyncio.gather(
                *(js.publish("rival", BODY, headers={"Nats-Msg-Id": str(first + i)}) for i in range(BATCH))
            )
        theirs = RECORDS / (time.perf_counter() - began)
        await client.close()
    finally:
        await topics.aclose()
    return {
        "what": f"{name}: records kept, {BATCH} at once",
        "value": round(ours),
        "unit": "1/s",
        "goal": "",
        "rival": "nats-py publish",
        "rival_value": round(theirs),
        "ratio": round(ours / theirs, 2),
    }
