"""Federation: 10,000 agents pulled and verified over HTTP, 1 % of them changed, every fifth request lost, entries forged.

The seed is a process of its own on loopback with the product's listener; what stands beside the first pull as a rival is the
same listener's data as plain JSON, read page by page without looking at a single signature, as registries do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from agentmesh.adapters.fetch import PlainFetch
from agentmesh.api.federation import FederationApp
from agentmesh.errors import Timeout
from agentmesh.identity.federation_proof import origin_of
from agentmesh.node.federation.imports import Answer
from agentmesh.node.federation.pages import Source, read_entries
from agentmesh.node.federation.rules import Seed
from agentmesh.wire.federation import CatalogEntry, CatalogPage
from tests.support.federation import Puller, Site, key_of

AGENTS, PAGE = 10_000, 200
_CHANGES, _BATCHES = 100, 20
_FORGED = 2_000


def seed(port: int, agents: int) -> None:
    """Serve a seed until stdin ends; each line of stdin changes so many agents."""
    import uvicorn

    site = Site("seed", key_of("org puller"))
    for n in range(agents):
        site.put(f"agent{n}")
    site.desk.origin = origin_of(f"http://127.0.0.1:{port}")
    inner = FederationApp(site.desk)
    entries = [msgspec.json.encode(entry) for entry in _all(site)]
    turn = [0]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/plain":
            start = int(scope["query_string"] or b"0")
            body = b'{"entries":[' + b",".join(entries[start : start + PAGE]) + b"]}"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
        elif scope["path"] == "/change":
            turn[0] += 1
            for n in range(int(scope["query_string"])):
                site.put(f"agent{(turn[0] * 37 + n * 101) % agents}", 1 + turn[0])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})
        else:
            await inner(scope, receive, send)

    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, lifespan="off", http="httptools")
    server = uvicorn.Server(config)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), lambda: setattr(server, "should_exit", True))
        await server.serve()

    asyncio.run(serve())


def _all(site: Site) -> list[CatalogEntry]:
    """Return every entry that the partner sees."""
    partner = next(iter(site.rules.partners.values()))
    found: list[CatalogEntry] = []
    cursor, more = "", True
    while more:
        page = site.exports.page(partner, cursor=cursor, updated_since="", limit=500)
        found += page.entries
        cursor, more = page.metadata.next_cursor, page.metadata.mesh.more
    return found


@contextlib.asynccontextmanager
async def _serving(agents: int) -> AsyncIterator[str]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bench.federation", str(port), str(agents)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: ASYNC220 before anything is measured
    fetch = PlainFetch()
    try:
        for _ in range(1_200):
            with contextlib.suppress(Exception):
                await fetch("GET", f"http://127.0.0.1:{port}/plain?0", {}, None, timeout_s=5, bytes_max=1 << 24)
                break
            await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        await fetch.aclose()
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


async def _until(holds: Any, timeout_s: float = 120.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 polled, so that measuring costs the loop little
            await asyncio.sleep(0.005)


async def _plain_s(url: str, fetch: PlainFetch) -> float:
    """Return the seconds of a pull that verifies nothing."""
    started_s = time.perf_counter()
    table: dict[str, CatalogEntry] = {}
    for start in range(0, AGENTS, PAGE):
        answer = await fetch("GET", f"{url}/plain?{start}", {}, None, timeout_s=20, bytes_max=1 << 24)
        for entry in msgspec.json.decode(answer.body, type=CatalogPage).entries:
            table[entry.identifier] = entry
    assert len(table) == AGENTS
    return time.perf_counter() - started_s


def _held(puller: Puller, url: str) -> dict[str, int]:
    return {agent: item.seq for agent, item in puller.imports.machine.seeds[url].held.items()}


async def _measure() -> list[dict[str, Any]]:
    fetch = PlainFetch()
    rng = random.Random(11)
    failing = [0.0]
    lost = [0, 0]

    async def flaky(*args: Any, **kwargs: Any) -> Answer:
        lost[1] += 1
        if rng.random() < failing[0]:
            lost[0] += 1
            raise Timeout("lost on purpose")
        return await fetch(*args, **kwargs)

    rows: list[dict[str, Any]] = []
    async with _serving(AGENTS) as url, contextlib.AsyncExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory())
        stack.push_async_callback(fetch.aclose)
        plain_s = await _plain_s(url, fetch)
        started_s, cpu_s = time.perf_counter(), time.process_time()
        knobs: dict[str, Any] = {"interval_s": 30.0, "backoff_base_s": 1.0, "backoff_max_s": 300.0}
        puller = Puller(Path(root), flaky, (Seed(url),), **knobs)
        stack.push_async_callback(puller.aclose)
        await _until(
            lambda: url in puller.imports.machine.seeds and puller.imports.machine.seeds[url].done_s is not None
        )
        first_s, first_cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        assert len(_held(puller, url)) == AGENTS
        what = f"first pull of {AGENTS:,} entries, verified and stored"
        rival = "plain JSON pull, nothing verified"
        rows.append(
            {"what": what, "value": first_s, "unit": "s", "goal": "≤ 10", "rival": rival, "rival_value": plain_s}
        )
        rows.append({"what": "the same, CPU of the puller", "value": first_cpu_s, "unit": "s CPU"})
        node = key_of("node seed").did
        org = key_of("org seed").did

        async def change(count: int) -> int:
            before = sum(_held(puller, url).values())
            await fetch("GET", f"{url}/change?{count}", {}, None, timeout_s=60, bytes_max=1 << 16)
            return before

        async def settled(turn: int) -> None:
            wanted = {key_of(f"agent agent{(turn * 37 + n * 101) % AGENTS}").did for n in range(_CHANGES)}
            await _until(lambda: all(_held(puller, url)[agent] > turn for agent in wanted))

        await change(_CHANGES)
        started_s = time.perf_counter()
        puller.imports.heard(org, node, [])
        await settled(1)
        rows.append(
            {
                "what": "1 % changed, from the hint to the last change",
                "value": time.perf_counter() - started_s,
                "unit": "s",
                "goal": "≤ 1",
            }
        )
        failing[0] = 0.2
        lags: list[float] = []
        lost[:] = [0, 0]
        for turn in range(2, 2 + _BATCHES):
            await change(_CHANGES)
            started_s = time.perf_counter()
            puller.imports.heard(org, node, [])
            with contextlib.suppress(TimeoutError):
                await settled(turn)
                lags.append(time.perf_counter() - started_s)
        rows.append(
            {
                "what": f"changes that arrived, {lost[0]} of {lost[1]} requests lost",
                "value": 100.0 * len(lags) / _BATCHES,
                "unit": f"% of {_CHANGES * _BATCHES:,}",
                "goal": "> 99.9",
            }
        )
        rows.append({"what": "the same, slowest 100 changes", "value": max(lags, default=-1.0), "unit": "s"})
    admitted = _forged_admitted()
    rows.append({"what": f"forged entries admitted of {_FORGED:,}", "value": admitted, "unit": "", "goal": "0"})
    return rows


def _forged_admitted() -> int:
    """Return how many of many entries with one changed byte, or another's signature, pass for what they are not."""
    site, rng = Site("seed", key_of("org puller")), random.Random(3)
    entries = [(site.put(f"agent{n}"), None)[0] for n in range(20)]
    assert site.org is not None
    source = Source(site.node.did, site.org.did)
    forged: list[CatalogEntry] = []
    for n in range(_FORGED):
        manifest = entries[n % len(entries)]
        raw = bytearray(manifest.raw)
        at = rng.randrange(len(raw))
        raw[at] ^= 1 << rng.randrange(7)
        forged.append(CatalogEntry(identifier=manifest.agent_id, data=msgspec.Raw(bytes(raw))))
    items = read_entries(forged, source, now=int(time.time()))
    return sum(not item.refused for item in items)


def run() -> list[dict[str, Any]]:
    """Measure and return rows of the benchmark table."""
    return asyncio.run(_measure())


if __name__ == "__main__":
    os.set_blocking(sys.stdin.fileno(), False)
    seed(int(sys.argv[1]), int(sys.argv[2]))
