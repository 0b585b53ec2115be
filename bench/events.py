"""Events into the log: durable ones per second and their latency, cost per event, start on a large log, loss after SIGKILL."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentmesh.store.eventlog import EventLog
from agentmesh.wire.event import EventV1, encode_json
from bench.soak_kill9 import soak

EVENTS = 100_000
BATCH = 500
CLIENTS = 8
#: The rivals sync once per event, so fewer of them take long enough to measure.
RIVAL_EVENTS = 1_500
LATENCIES = 2_000
LARGE = 200_000
KILLS = 10
_rng = random.Random(7)


def make(count: int) -> list[EventV1]:
    """Return events like those of real calls: about 500 bytes, 5 per task, 2 tasks per run."""
    return [
        EventV1(
            id=f"{_rng.getrandbits(128):032x}",
            ts=1_700_000_000_000_000 + n,
            kind="message",
            run_id=f"{n // 10 * 2654435761 % 2**128:032x}",
            task_id=f"{n // 5 * 40503 % 2**128:032x}",
            node_id="did:key:z6Mk" + "x" * 44,
            agent_id="did:key:z6Mk" + "y" * 44,
            agent="echo",
            lamport=n % 10,
            payload={"role": "agent", "parts": [{"text": "all work and no play " * 5}]},
        )
        for n in range(count)
    ]


async def _ingest(directory: Path) -> dict[str, float]:
    log = await EventLog.open(directory)
    events = make(EVENTS)

    async def client(mine: list[EventV1]) -> None:
        for start in range(0, len(mine), BATCH):
            await log.append_durable(mine[start : start + BATCH])

    start, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client(events[n::CLIENTS]) for n in range(CLIENTS)))
    await log.flush()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert log.count == EVENTS

    one_by_one = make(20_000)
    loop_s = 0.0
    for begin in range(0, len(one_by_one), 200):
        before = time.thread_time()
        for event in one_by_one[begin : begin + 200]:
            log.append(event)
        loop_s += time.thread_time() - before
        await log.flush()
    await log.aclose()
    return {"per_s": EVENTS / wall, "cpu_us": cpu / EVENTS * 1e6, "loop_us": loop_s / len(one_by_one) * 1e6}


async def _latency(directory: Path) -> tuple[float, float]:
    """Return p50 and p99 of one durable event at a time, in milliseconds."""
    log = await EventLog.open(directory)
    times: list[float] = []
    for event in make(LATENCIES):
        start = time.perf_counter()
        await log.append_durable([event])
        times.append(time.perf_counter() - start)
    await log.aclose()
    times.sort()
    return times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3


async def _start(directory: Path) -> tuple[float, float]:
    """Return seconds to open a healthy log of 200,000 events, and one whose index is gone."""
    log = await EventLog.open(directory)
    for _ in range(LARGE // 5000):
        await log.append_durable(make(5000))
    await log.aclose()
    found: list[float] = []
    for _ in range(2):
        start = time.perf_counter()
        log = await EventLog.open(directory)
        found.append(time.perf_counter() - start)
        assert log.count == LARGE
        await log.aclose()
        (directory / "index.sqlite").unlink()
    return found[0], found[1]


def _sqlite_each(directory: Path) -> float:
    """Insert the same events into plain SQLite, a commit with full sync for each; return events per second."""
    db = sqlite3.connect(directory / "rival.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE events(seq INTEGER PRIMARY KEY, id TEXT UNIQUE, run TEXT, task TEXT, body BLOB)")
    db.execute("CREATE INDEX by_run ON events(run)")
    rows = [(e.id, e.run_id, e.task_id, encode_json(e)) for e in make(RIVAL_EVENTS)]
    start = time.perf_counter()
    for row in rows:
        db.execute("INSERT INTO events(id,run,task,body) VALUES (?,?,?,?)", row)
    rate = len(rows) / (time.perf_counter() - start)
    db.close()
    return rate


def _fsync_each(directory: Path) -> float:
    """Append the same lines to a plain file, a sync for each, no index at all; return events per second."""
    sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
    events = make(RIVAL_EVENTS)
    with (directory / "rival.jsonl").open("ab", buffering=0) as file:
        start = time.perf_counter()
        for event in events:
            file.write(encode_json(event) + b"\n")
            sync(file.fileno())
        return len(events) / (time.perf_counter() - start)


def run() -> list[dict[str, Any]]:
    """Measure; about half a minute. The disk is that of the temporary directory ($TMPDIR)."""
    with tempfile.TemporaryDirectory(prefix="agentmesh-bench-") as name:
        directory = Path(name)
        sqlite_per_s, fsync_per_s = _sqlite_each(directory), _fsync_each(directory)
        ingest = asyncio.run(_ingest(directory / "ingest"))
        p50, p99 = asyncio.run(_latency(directory / "latency"))
        healthy, rebuilt = asyncio.run(_start(directory / "start"))
    kills = soak(KILLS, seed=11)
    what = f"events ingested, durable and indexed ({CLIENTS} clients × {BATCH})"

    def row(
        what: str, value: float, unit: str, goal: str | None, rival: str | None = None, other: float = 0
    ) -> dict[str, Any]:
        ratio = round(value / other, 2) if rival else None
        return {
            "what": what,
            "value": value,
            "unit": unit,
            "goal": goal,
            "rival": rival,
            "rival_value": round(other, 3) if rival else None,
            "ratio": ratio,
        }

    per_s = round(ingest["per_s"])
    return [
        row(what, per_s, "1/s", "≥ 20,000", "sqlite3, commit per event, synchronous=FULL", round(sqlite_per_s)),
        row(what, per_s, "1/s", None, "JSONL, fsync per event, no index", round(fsync_per_s)),
        row("CPU per event, all threads", round(ingest["cpu_us"], 1), "µs", "≤ 25"),
        row("CPU per append on the loop thread", round(ingest["loop_us"], 1), "µs", "≤ 10"),
        row(
            "append_durable of one event, p50",
            round(p50, 2),
            "ms",
            None,
            "sqlite3, commit per event",
            1e3 / sqlite_per_s,
        ),
        row("append_durable of one event, p99", round(p99, 2), "ms", None),
        row(f"opening a healthy log of {LARGE:,} events", round(healthy, 3), "s", "≤ 0.5"),
        row(f"opening it without its index ({LARGE:,} events)", round(rebuilt, 2), "s", None),
        row(f"acknowledged events lost in {KILLS} kills (of {kills['acknowledged']:,})", kills["lost"], "events", "0"),
    ]
