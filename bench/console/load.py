"""Runs and agents in any number, for the console to show: stored through the API as agents of other programs would."""

from __future__ import annotations

import random
import threading
import time
from types import TracebackType
from typing import Any

from tests.support.daemons import Daemon

#: Events that one request may carry.
BATCH = 5_000
_STEP_US = 1_500


def run_id(name: str) -> str:
    """Return the id of a made-up run."""
    return random.Random(name).randbytes(16).hex()


def events(run: str, count: int, *, tasks: int = 0, seed: int = 1, begin_us: int = 0) -> list[dict[str, Any]]:
    """Make the events of one run: tasks that call each other, begin, work, say something and end.

    Args:
        run: Its id.
        count: Events.
        tasks: Calls among which they are dealt out; 0 = one for every 40 events.
        seed: Decides everything.
        begin_us: Time of the first, microseconds since 1970; 0 = as if the last one were now.
    """
    rng = random.Random(seed)
    calls = [rng.randbytes(16).hex() for _ in range(tasks or max(1, count // 40))]
    ts = begin_us or int(time.time() * 1e6) - count * _STEP_US
    made: list[dict[str, Any]] = []
    begun: set[int] = set()
    for number in range(count):
        at = min(len(calls) - 1, rng.randrange(max(1, len(calls) * (number + 1) // count + 1)))
        ts += rng.randrange(1, 2 * _STEP_US)
        kind, payload = "message", {"role": "agent", "parts": [{"text": f"step {number} of the work, as told"}]}
        if at not in begun:
            begun.add(at)
            kind, payload = "status", {"state": "submitted", "skill": "work"}
        elif number % 7 == 0:
            kind, payload = "tool", {"name": "look_up", "args": {"number": number}}
        elif number % 11 == 0:
            kind, payload = "status", {"state": rng.choice(("working", "completed", "failed"))}
        made.append(
            {
                "id": rng.randbytes(16).hex(),
                "ts": ts,
                "kind": kind,
                "run_id": run,
                "task_id": calls[at],
                "parent_task_id": calls[(at - 1) // 3] if at else None,
                "agent": f"agent-{at % 12}",
                "lamport": number + 1,
                "payload": payload,
            }
        )
    return made


def store(node: Daemon, made: list[dict[str, Any]]) -> int:
    """Store events; returns the last position in the log."""
    last = 0
    for start in range(0, len(made), BATCH):
        last = node.post("/api/v1/events", {"events": made[start : start + BATCH]})["last_seq"]
    return int(last)


class Pour:
    """Stores events at a steady rate in a thread of its own until the block ends.

    Args:
        node: Where.
        run: Which run they belong to.
        per_s: Events per second.
        tasks: Calls that are open at the same time.
    """

    def __init__(self, node: Daemon, run: str, *, per_s: int, tasks: int) -> None:
        self._node, self._run, self._per_s, self._tasks = node, run, per_s, tasks
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._pour, daemon=True)
        self.stored = 0
        self.late_s = 0.0

    def __enter__(self) -> Pour:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(30)

    def _pour(self) -> None:
        begin, step = time.monotonic(), max(1, self._per_s // 10)
        while not self._over.is_set():
            batch = events(self._run, step, tasks=self._tasks, seed=self.stored + 7, begin_us=int(time.time() * 1e6))
            for number, event in enumerate(batch):
                event["lamport"] = self.stored + number + 1
                event["task_id"] = f"{number % self._tasks:032x}"
                event["parent_task_id"] = None if number % self._tasks == 0 else f"{0:032x}"
            self._node.post("/api/v1/events", {"events": batch})
            self.stored += step
            due = begin + self.stored / self._per_s
            self.late_s = max(self.late_s, time.monotonic() - due)
            self._over.wait(max(0.0, due - time.monotonic()))
