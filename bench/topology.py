"""What it costs to know who calls whom: per call, per edge that is kept, and per answer of 1,000 agents and 5,000 edges."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from agentmesh.core.traffic.table import Traffic, TrafficConfig
from agentmesh.node.callee import Ended
from agentmesh.node.traffic import TrafficWatch
from tests.unit.node.world import world

CALLS, AGENTS, EDGES = 20_000, 1_000, 5_000
OWN = "did:key:own"


def run() -> list[dict[str, Any]]:
    """Measure and return the figures."""
    whole_ms, held_ms, size = asyncio.run(_answers())
    return [
        _row("a call at an agent here: begun and counted", _best(_served), "µs CPU", "≤ 2"),
        _row("a call that leaves: begun and counted", _best(_gone), "µs CPU", "≤ 2"),
        _row("an edge that is kept, with 256 latencies", _kept(), "kB"),
        _row(f"an answer of {AGENTS:,} agents and {EDGES:,} edges", whole_ms, "ms"),
        _row("the longest that it holds up other work", held_ms, "ms", "≤ 20"),
        _row("its size", size / 1e6, "MB"),
    ]


def _row(what: str, value: float, unit: str, goal: str = "") -> dict[str, Any]:
    return {"what": what, "value": round(value, 2), "unit": unit, "goal": goal or None}


def _best(measure: Callable[[TrafficWatch, list[Any]], None]) -> float:
    """Return µs of CPU per call, the best of five."""
    took: list[float] = []
    for _ in range(5):
        registry, links = SimpleNamespace(get=lambda _: None), SimpleNamespace(peer=lambda _: None)
        watch: Any = TrafficWatch(OWN, registry, links)  # type: ignore[arg-type]
        rng = random.Random(1)
        # In a node a call is warm in the caches by then: it was just read, verified and served.
        calls = [_Key(_call(rng.randrange(20), rng.randrange(20))) for _ in range(CALLS // 50)] * 50
        begin = time.process_time()
        measure(watch, calls)
        took.append(time.process_time() - begin)
    return min(took) / CALLS * 1e6


def _call(caller: int, callee: int) -> Any:
    manifest = SimpleNamespace(agent_id=f"did:key:agent{callee}", name=f"agent-{callee}", node_id="did:key:there")
    message = SimpleNamespace(caller=f"did:key:caller{caller}", caller_name="c", run_id=f"run-{caller}-{callee}")
    return SimpleNamespace(
        message=message,
        agent=SimpleNamespace(manifest=manifest),
        candidate=SimpleNamespace(entry=SimpleNamespace(manifest=manifest)),
        token=SimpleNamespace(caller=message.caller),
        peer=OWN,
        state="completed",
        path="direct",
    )


class _Key:
    """A call by its identity, as real ones are."""

    __slots__ = ("agent", "candidate", "message", "path", "peer", "state", "token")

    def __init__(self, call: Any) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(call, name))


def _served(watch: Any, calls: list[Any]) -> None:
    ended = Ended("completed")
    for visit in calls:
        _step(watch.enter(visit))
        _step(watch.ended(visit, ended))


def _gone(watch: Any, calls: list[Any]) -> None:
    for attempt in calls:
        watch.goes(attempt)
        watch.went(attempt, None)


def _step(coroutine: Any) -> None:
    """Run a coroutine that never waits, as ``await`` does."""
    try:
        coroutine.send(None)
    except StopIteration:
        return


def _filled(own: str, now_s: float) -> Traffic:
    table, rng = Traffic(own, now_s - 300, TrafficConfig()), random.Random(1)
    for number in range(EDGES):
        edge = table.edge(
            f"did:key:a{number % AGENTS}", own, f"did:key:a{number // 5 % AGENTS}-{number % 7}", own, now_s
        )
        for _ in range(256):
            table.count(edge, "ok", "direct", rng.random(), now_s)
    return table


def _kept() -> float:
    tracemalloc.start()
    table = _filled(OWN, 1_000.0)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / len(table) / 1e3


async def _answers() -> tuple[float, float, int]:
    """Return ms of an answer, ms that the loop was held, and bytes, of a node with a full table."""
    with tempfile.TemporaryDirectory() as root:
        async with world(Path(root), 1) as (member,):
            node = member.node
            table, rng = node.traffic.table, random.Random(1)
            now_s = node.traffic.mono_s()
            agents = [f"did:key:agent{number}" for number in range(AGENTS)]
            while len(table) < EDGES:
                caller, callee = rng.choice(agents), rng.choice(agents)
                edge = table.edge(caller, node.node_id, callee, node.node_id, now_s)
                for _ in range(256):
                    table.count(edge, "ok", "local", rng.random(), now_s)
            held = 0.0

            async def watch() -> None:
                nonlocal held
                while True:
                    before = time.perf_counter()
                    await asyncio.sleep(0)
                    held = max(held, time.perf_counter() - before)

            watching = asyncio.get_running_loop().create_task(watch())
            took: list[tuple[float, float, int]] = []
            for _ in range(5):
                held, begin = 0.0, time.perf_counter()
                view = await node.topology(300)
                took.append((time.perf_counter() - begin, held, len(msgspec.json.encode(view))))
            watching.cancel()
    whole_s, held_s, size = min(took)
    return whole_s * 1e3, held_s * 1e3, size
