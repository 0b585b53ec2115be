"""One of three replicas is killed with SIGKILL while calls run: how many fail, and how long the others take meanwhile.

Client → node A → iroh → one of three nodes → HTTP agent that takes 50 ms, 16 calls in flight, all on loopback. The nodes of the
replicas are killed one after the other; each comes back before the next one goes. "Added" is the quantile of the calls that
ended within three seconds after a kill less the quantile of those before it. Without ``idempotent`` it is measured as well.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvloop

from bench.lean_http import Client
from bench.pair import quantile
from bench.rivals import process
from tests.support.daemons import Daemon, Mesh, wait_until

IN_FLIGHT, AGENT_MS = 16, 50
#: Seconds of load before and after each kill.
BEFORE_S, AFTER_S = 3.0, 3.0


class Done(NamedTuple):
    """One call: when it ended, how long it took (ms), whether it was answered, and what the node said."""

    end_s: float
    ms: float
    is_good: bool
    said: bytes


async def _load(client: Client, until_s: float, done: list[Done]) -> None:
    while time.perf_counter() < until_s:
        begin_s = time.perf_counter()
        status, body = await client.post()
        end_s = time.perf_counter()
        done.append(Done(end_s, (end_s - begin_s) * 1000, status == 200, body))


async def _kill_under_load(client: Client, victim: Daemon) -> tuple[list[Done], float]:
    """Return the calls around the kill of one node, and when it was killed."""
    done: list[Done] = []
    begin_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(_load(client, begin_s + BEFORE_S + AFTER_S, done))
        await asyncio.sleep(BEFORE_S)
        killed_s = time.perf_counter()
        os.kill(victim.pid, signal.SIGKILL)
    return done, killed_s


def _twins(caller: Daemon) -> int:
    agents = caller.get("/api/v1/agents")["agents"]
    return sum(a["name"] == "twin" and a["status"] == "healthy" and a["path"] == "direct" for a in agents)


def _rows(
    rounds: list[tuple[list[Done], float]], label: str, goals: tuple[str | None, str | None]
) -> list[dict[str, Any]]:
    before = [
        d.ms for done, killed_s in rounds for d in done if d.is_good and 1.0 < killed_s - d.end_s + 1.0 < BEFORE_S
    ]
    after = [d.ms for done, killed_s in rounds for d in done if d.is_good and d.end_s > killed_s]
    every = [d for done, _ in rounds for d in done]
    for one in [d for d in every if not d.is_good][:3]:
        print(f"failed: {one.said[:300]!r}", file=sys.stderr)
    p99 = quantile(after, 0.99) - quantile(before, 0.99)
    return [
        {
            "what": f"failed of {len(every)} calls, {label}",
            "value": sum(not d.is_good for d in every),
            "unit": "calls",
            "goal": goals[0],
        },
        {"what": f"p50 before the kill, {label}", "value": round(quantile(before, 0.5), 1), "unit": "ms"},
        {"what": f"added p99 after it, {label}", "value": round(p99, 1), "unit": "ms", "goal": goals[1]},
        {"what": f"slowest after it, {label}", "value": round(max(after), 1), "unit": "ms"},
    ]


async def _run() -> list[dict[str, Any]]:
    with (
        tempfile.TemporaryDirectory() as temp,
        process([sys.executable, "-m", "bench.agent", "--delay-ms", str(AGENT_MS)]) as port,
    ):
        mesh = Mesh(Path(temp))
        rows: list[dict[str, Any]] = []
        try:
            caller = mesh.node("caller", transports=("iroh",))
            replicas = [mesh.node(f"replica{i}", seeds=(caller.seed(),), transports=("iroh",)) for i in range(3)]
            for node in replicas:
                node.post("/api/v1/agents", {"url": f"http://127.0.0.1:{port}", "door": "http", "name": "twin"})
            for is_idempotent, label in ((True, "idempotent"), (False, "not idempotent")):
                rounds: list[tuple[list[Done], float]] = []
                for victim in replicas:
                    wait_until(lambda: _twins(caller) == 3, "the caller to see and reach three replicas", 120)
                    client = Client(
                        f"{caller.url}/api/v1/calls",
                        msgspec.json.encode({"to": "twin", "text": "x", "idempotent": is_idempotent}),
                        {"Authorization": f"Bearer {caller.token}"},
                    )
                    rounds.append(await _kill_under_load(client, victim))
                    client.close()
                    victim.kill()  # is gone already; this waits for it
                    victim.open()
                rows += _rows(rounds, label, ("0", "≤ 1,000") if is_idempotent else (None, None))
        finally:
            mesh.aclose()
    return rows


def run() -> list[dict[str, Any]]:
    """Measure; about a minute and a half."""
    return uvloop.run(_run())
