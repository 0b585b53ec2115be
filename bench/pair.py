"""What ``call`` and ``throughput`` share: two real daemons over iroh, an HTTP agent behind the second, and the clock."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from agentmesh.wire.views import Reply
from bench.lean_http import Client
from bench.rivals import Call, process
from tests.support.daemons import Mesh, sees_agent, wait_until

TEXT = "x" * 1000


@contextlib.asynccontextmanager
async def calls() -> AsyncIterator[tuple[Call, Call]]:
    """Yield (call through two nodes, the same agent called directly); both by the same lean client."""
    with tempfile.TemporaryDirectory() as temp, process([sys.executable, "-m", "bench.agent"]) as port:
        mesh = Mesh(Path(temp))
        try:
            a, b = mesh.pair(transports=("iroh",))
            agent = f"http://127.0.0.1:{port}"
            b.post("/api/v1/agents", {"url": agent, "door": "http", "name": "bench"})
            wait_until(lambda: sees_agent(a, "bench"), "node a to see the agent")
            through = Client(
                f"{a.url}/api/v1/calls",
                msgspec.json.encode({"to": "bench", "text": TEXT}),
                {"Authorization": f"Bearer {a.token}"},
            )
            direct = Client(f"{agent}/rpc", msgspec.json.encode({"text": TEXT}))

            async def call_through() -> None:
                status, body = await through.post()
                assert status == 200, body
                reply = msgspec.json.decode(body, type=Reply)
                assert len(reply.text) == 1000, reply
                assert reply.path != "local", reply

            async def call_direct() -> None:
                status, body = await direct.post()
                assert status == 200, body
                assert len(msgspec.json.decode(body)["text"]) == 1000

            yield call_through, call_direct
            through.close()
            direct.close()
        finally:
            mesh.aclose()


def quantile(values: list[float], q: float) -> float:
    """Return the nearest-rank quantile."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


async def latencies(named: dict[str, Call], rounds: int, warm: int = 200) -> dict[str, list[float]]:
    """Time each call ``rounds`` times, one after the other and turn by turn, so that all meet the same machine; ms."""
    for call in named.values():
        for _ in range(warm):
            await call()
    out: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(rounds):
        for name, call in named.items():
            begin = time.perf_counter()
            await call()
            out[name].append((time.perf_counter() - begin) * 1000)
    return out


async def per_second(call: Call, in_flight: int, seconds: float, warm_s: float = 1.0) -> float:
    """Return calls per second with ``in_flight`` of them always under way."""
    done = 0
    begin = time.perf_counter()

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() - begin < warm_s + seconds:
            await call()
            if time.perf_counter() - begin > warm_s:
                done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())
    return done / (time.perf_counter() - begin - warm_s)
