"""Kill a writing process again and again with SIGKILL and count what was acknowledged and is gone. The goal is 0.

    python -m bench.soak_kill9 --kills 100 [--seed N] [--json]

One process appends events, durable and not, and tells every position and id only after it was acknowledged. It is killed
at a random moment; then the log is opened, index and JSONL are compared event by event, and the next process goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from agentmesh.store.base import EventLogConfig
from agentmesh.store.eventlog import EventLog
from agentmesh.store.jsonl import list_segments, read_lines, segment_path
from agentmesh.wire.event import EventV1, decode_json
from agentmesh.wire.rows import RunQuery

ROOT = Path(__file__).resolve().parent.parent
CONFIG = EventLogConfig(segment_bytes_max=2_000_000, events_bytes_max=0)
WRITERS = 8
#: A process is killed at the latest this many seconds after its first acknowledgement.
LIFE_S_MAX = 0.25


def _event(rng: random.Random) -> EventV1:
    return EventV1(
        id=f"{rng.getrandbits(128):032x}",
        ts=1_700_000_000_000_000 + rng.randrange(10**9),
        kind="message",
        run_id=f"{rng.randrange(50):032x}",
        task_id=f"task-{rng.randrange(500)}",
        agent="soak",
        payload={"text": "x" * rng.randrange(1000)},
    )


async def _write(directory: Path, seed: int) -> None:
    rng = random.Random(seed)
    log = await EventLog.open(directory, config=CONFIG)

    async def client() -> None:
        while True:
            if rng.random() < 0.3:
                log.append(_event(rng))
            events = [_event(rng) for _ in range(rng.randrange(1, 40))]
            await log.append_durable(events)
            # One write below the size of a pipe's buffer: it arrives whole or not at all.
            os.write(1, "".join(f"{event.seq} {event.id}\n" for event in events).encode())

    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(client())


def _live_and_die(directory: Path, seed: int, delay_s: float) -> dict[int, str]:
    """Run a writer, kill it, and return what it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.soak_kill9", "--write", str(directory), "--seed", str(seed)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert child.stdout is not None
    output = [child.stdout.readline()]
    # The pipe is emptied while the process lives, or it would wait for us instead of the disk.
    reader = threading.Thread(target=lambda: output.extend(child.stdout or ()))
    reader.start()
    time.sleep(delay_s)
    child.kill()
    child.wait()
    reader.join()
    child.stdout.close()
    lines = [line.split() for line in output if line.endswith(b"\n")]
    return {int(seq): event_id.decode() for seq, event_id in lines}


async def _check(directory: Path, acknowledged: dict[int, str]) -> tuple[int, int, float]:
    """Open the log; return how many acknowledged events are gone, how many rows and lines differ, and seconds to open."""
    start = time.perf_counter()
    log = await EventLog.open(directory, config=CONFIG)
    opened_s = time.perf_counter() - start
    indexed: dict[int, str] = {}
    if log.last_seq:
        async for event in log.follow(0):
            indexed[event.seq] = event.id
            if event.seq == log.last_seq:
                break
    written: dict[int, str] = {}
    for number in list_segments(directory)[0]:
        for line in read_lines(segment_path(directory, number)):
            event = decode_json(line.data or b"")
            written[event.seq] = event.id
    by_run = sum(row.count for row in (await log.runs(RunQuery(limit=1000))).rows)
    await log.aclose()
    lost = sum(indexed.get(seq) != event_id for seq, event_id in acknowledged.items())
    differ = len(set(indexed.items()) ^ set(written.items())) + abs(by_run - len(written))
    return lost, differ, opened_s


def soak(kills: int, seed: int) -> dict[str, Any]:
    """Kill ``kills`` writers; return acknowledged, lost, differing and torn counts."""
    rng = random.Random(seed)
    total = lost = differ = torn = 0
    slowest_s = 0.0
    with tempfile.TemporaryDirectory(prefix="agentmesh-soak-") as directory:
        base = Path(directory)
        for number in range(kills):
            # A new log now and then keeps the comparison quick.
            log = base / f"log{number // 10}"
            acknowledged = _live_and_die(log, rng.getrandbits(32), rng.random() * LIFE_S_MAX)
            total += len(acknowledged)
            gone, different, opened_s = asyncio.run(_check(log, acknowledged))
            lost, differ, slowest_s = lost + gone, differ + different, max(slowest_s, opened_s)
            torn = sum(len(list(path.glob("torn-*.bin"))) for path in base.iterdir())
    return {
        "kills": kills,
        "seed": seed,
        "acknowledged": total,
        "lost": lost,
        "differ": differ,
        "torn_lines_repaired": torn,
        "slowest_open_s": round(slowest_s, 3),
    }


def main() -> int:
    """Run the soak; exit code 1 when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().getrandbits(32)
    if given.write:
        asyncio.run(_write(given.write, seed))
        return 0
    found = soak(given.kills, seed)
    if given.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['kills']} kills, {found['acknowledged']} events acknowledged, {found['lost']} lost, "
            f"{found['differ']} rows differ from the JSONL, {found['torn_lines_repaired']} torn lines repaired, "
            f"slowest opening {found['slowest_open_s']} s (seed {found['seed']})"
        )
    return 1 if found["lost"] or found["differ"] or not found["acknowledged"] else 0


if __name__ == "__main__":
    sys.exit(main())
