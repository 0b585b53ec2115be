"""A run as rows: the first look, later windows, filters and what came since, beside telling the whole run; the loop meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from agentmesh.net.tasks import TaskScope
from agentmesh.store.base import EventLogConfig
from agentmesh.store.eventlog import EventLog
from agentmesh.store.runrows import RunTables
from agentmesh.wire.event import EventV1, digest
from agentmesh.wire.rows import RowQuery

SIZES = {1_000: 20, 10_000: 150, 100_000: 500}
LONG = 300_000
TASKS = 100
RUN = "b" * 32
#: Of the part under load: events a second, looks a second, seconds.
RATE, LOOKS, LOAD_S = 1_000, 10, 20.0
_TRIES = 5
_rng = random.Random(7)
_NODE = "did:key:z6Mk" + "x" * 44


def make(start: int, count: int) -> list[EventV1]:
    """Return events of a run of 100 calls at once, about 500 bytes each, every tenth out of order by up to 200 places."""
    out: list[EventV1] = []
    for n in range(start, start + count):
        payload: dict[str, Any] = {"role": "agent", "parts": [{"text": f"all work and no play {n}"}], "delta": True}
        if n % 20 == 0:
            payload = {"state": "working", "detail": f"step {n} of many"}
        elif n % 20 == 7:
            payload = {"name": "search", "args": {"query": f"cats {n}", "limit": 5}}
        out.append(
            EventV1(
                id=f"{_rng.getrandbits(128):032x}",
                ts=1_700_000_000_000_000 + n * 1_000,
                kind="status" if n % 20 == 0 else "tool" if n % 20 == 7 else "message",
                run_id=RUN,
                task_id=f"{n % TASKS * 40503:032x}",
                node_id=_NODE,
                agent_id="did:key:z6Mk" + "y" * 44,
                agent=f"echo-{n % 7}",
                lamport=max(0, n - (_rng.randrange(200) if n % 10 == 0 else 0)),
                payload=payload,
            )
        )
    return out


async def _fill(log: EventLog, start: int, count: int) -> None:
    for at in range(start, start + count, 5_000):
        await log.append_durable(make(at, min(5_000, start + count - at)))


async def _took_ms(ask: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = await ask()
    msgspec.json.encode(answer)
    return (time.perf_counter() - start) * 1e3, answer


async def _look(log: EventLog, **query: Any) -> Any:
    return (await log.rows(RUN, RowQuery(**query)))[0]


async def _first_look(log: EventLog) -> tuple[float, float]:
    """Return milliseconds of a first window without anything kept, and of the processor's time in it: the best of a few."""
    best = cpu = 1e9
    for _ in range(_TRIES):
        log._tables = RunTables(log._lines, log.config.rows_bytes_max)  # as after a restart
        start = time.process_time()
        best = min(best, (await _took_ms(lambda: _look(log)))[0])
        cpu = min(cpu, (time.process_time() - start) * 1e3)
    return best, cpu


async def _whole(log: EventLog) -> Any:
    events = await log.run_events(RUN)
    return digest(events), events


@contextlib.asynccontextmanager
async def _stalls(out: list[float]) -> AsyncIterator[None]:
    """Note how late the loop wakes up from sleeps of 2 ms, in milliseconds."""

    async def sleep() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.002)
            out.append((time.perf_counter() - start) * 1e3 - 2)

    scope = TaskScope("bench")
    scope.spawn(sleep())
    try:
        yield
    finally:
        await scope.aclose()


async def _sizes(directory: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    log = await EventLog.open(directory, config=EventLogConfig(rows_idle_s=3600))
    filled = 0
    for size, goal_ms in SIZES.items():
        await _fill(log, filled, size - filled)
        filled = size
        first, cpu = await _first_look(log)
        whole = min([(await _took_ms(lambda: _whole(log)))[0] for _ in range(3 if size < 100_000 else 1)])
        what = f"{size:,} events, first look: 5,000 rows, count, digest, calls"
        rows.append(_row(what, first, "ms", f"≤ {goal_ms}", "the whole run with payloads (TraceView)", whole))
        rows.append(_row(f"{size:,} events, first look: processor time", cpu, "ms"))
    stalls: list[float] = []
    async with _stalls(stalls):
        await _first_look(log)
    rows.append(_row("longest wait of the loop meanwhile (100,000 events)", max(stalls), "ms", "≤ 20"))
    for what, query in (
        ("a window of 5,000 rows in the middle", {"start": 50_000}),
        ("5,000 of 5,000 rows that fit a filter, first time", {"kinds": ("tool",)}),
        ("the same again", {"kinds": ("tool",)}),
    ):
        took, answer = await _took_ms(lambda query=query: _look(log, **query))
        assert len(answer.rows.seq) == 5_000
        rows.append(_row(f"100,000 events, {what}", took, "ms"))
    await _fill(log, filled, LONG - filled)
    for size in (LONG,):
        upto = (await _look(log, limit=1)).upto
        times: list[float] = []
        for n in range(50):
            await log.append_durable(make(size + n * 100, 100))
            took, answer = await _took_ms(lambda upto=upto: _look(log, after=upto))
            upto = answer.upto
            times.append(took)
            assert len(answer.rows.seq) == 100
        rows.append(_row(f"{size:,} events, 100 that came since, p50", sorted(times)[25], "ms", "≤ 10"))
    table = next(iter(log._tables._tables.values()))
    rows.append(_row("memory of a table, by its own account", table.bytes / table.count, "B/event"))
    await log.aclose()
    return rows


async def _load(directory: Path) -> list[dict[str, Any]]:
    """Follow a long run of 100 calls while 1,000 events/s come."""
    log = await EventLog.open(directory, config=EventLogConfig(rows_idle_s=3600))
    await _fill(log, 0, LONG)
    held = (await _look(log, limit=1)).upto
    stalls: list[float] = []
    looks: list[float] = []
    seen = sent = 0
    async with _stalls(stalls):
        begin = time.perf_counter()
        while (now := time.perf_counter() - begin) < LOAD_S:
            due = int(now * RATE) - sent
            if due:
                for event in make(LONG + sent, due):
                    log.append(event)
                sent += due
            took, answer = await _took_ms(lambda held=held: _look(log, after=held))
            held, seen = answer.upto, seen + len(answer.rows.seq)
            looks.append(took)
            await asyncio.sleep(1 / LOOKS)
    answer = await _look(log, after=held)
    seen += len(answer.rows.seq)
    await log.aclose()
    looks.sort()
    stalls.sort()
    what = f"{LONG:,} events, {RATE:,} more a second, {LOOKS} looks a second"
    return [
        _row(f"{what}: a look, p95", looks[len(looks) * 95 // 100], "ms"),
        _row(f"{what}: wait of the loop, p99", stalls[len(stalls) * 99 // 100], "ms", "≤ 20"),
        _row(f"{what}: events lost", float(sent - seen), "events", "0"),
        _row("resident memory at the end, peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB"),
    ]


def _row(
    what: str, value: float, unit: str, goal: str | None = None, rival: str | None = None, other: float = 0.0
) -> dict[str, Any]:
    return {
        "what": what,
        "value": round(value, 2),
        "unit": unit,
        "goal": goal,
        "rival": rival,
        "rival_value": round(other, 2) if rival else None,
        "ratio": round(value / other, 2) if rival else None,
    }


def run() -> list[dict[str, Any]]:
    """Measure; about a minute and a half. The disk is that of the temporary directory ($TMPDIR)."""
    with tempfile.TemporaryDirectory(prefix="agentmesh-bench-") as name:
        return [*asyncio.run(_sizes(Path(name) / "sizes")), *asyncio.run(_load(Path(name) / "load"))]
