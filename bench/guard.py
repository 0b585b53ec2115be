"""The guard at ten times the load that an agent takes: is anybody let in too many, and does everybody get the same share?

Eight equal callers ask at random times for ten times what an agent takes, whatever they are told, for ten seconds of a clock that
runs as fast as the gate decides. Once its rate is the limit, once its places. Then one of them asks a hundred times as often as
the others, who ask for less than they are due; a bare ``asyncio.Semaphore`` with the same places and askers is the yardstick.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from agentmesh.core.budget.gate import Gate, Ticket
from agentmesh.core.budget.limits import GateLimits

CALLERS, SECONDS, OVERLOAD = 8, 10.0, 10.0
QPS, PLACES, SERVICE_S = 200.0, 10, 0.05
#: One of the callers asks so many times as often as the others, in the case with a flood.
FLOOD = 100.0


class _Door:
    """A gate driven as ``node.guard`` drives it, with a clock that runs as fast as the machine can play."""

    def __init__(self, limits: GateLimits) -> None:
        self.gate = Gate(limits, 0.0)
        self.served: Counter[str] = Counter()
        self.passed_s: list[float] = []
        self.ends: list[tuple[float, int, Ticket]] = []
        self.most = 0

    def take(self, changed: list[Ticket], now_s: float) -> None:
        for ticket in changed:
            if ticket.state == "running":
                self.served[ticket.caller] += 1
                self.passed_s.append(now_s)
                self.ends.append((now_s + SERVICE_S, ticket.number, ticket))
        self.most = max(self.most, self.gate.running)


def _play(limits: GateLimits, rates: dict[str, float], seed: int) -> tuple[_Door, float]:
    """Ask at random times; return what happened, and the mean cost of one decision in µs."""
    rng = random.Random(seed)
    asks = sorted((rng.uniform(0, SECONDS), n) for n, rate in rates.items() for _ in range(int(rate * SECONDS)))
    door, decisions, spent_s, now_s = _Door(limits), 0, 0.0, 0.0
    for at_s, name in asks:
        while True:
            next_end_s = door.ends[0][0] if door.ends else float("inf")
            wake_s = door.gate.wake_s(now_s)
            due_s = min(next_end_s, float("inf") if wake_s is None else wake_s)
            if due_s > at_s:
                break
            now_s = due_s
            begin_s = time.perf_counter()
            is_end = next_end_s <= due_s
            changed = door.gate.leave(door.ends.pop(0)[2], due_s) if is_end else door.gate.settle(due_s)
            spent_s, decisions = spent_s + time.perf_counter() - begin_s, decisions + 1
            door.take(changed, due_s)
        begin_s = time.perf_counter()
        now_s = at_s
        ticket, changed = door.gate.ask(name, at_s, until_s=at_s + 10)
        spent_s, decisions = spent_s + time.perf_counter() - begin_s, decisions + 1
        door.take([*changed, ticket], at_s)
    return door, spent_s / decisions * 1e6


def _most_over(passed_s: list[float], qps: float, burst: int) -> int:
    """Return by how many the worst window exceeds ``burst + qps × length``, 0 if none does."""
    # With f(i) = i - qps × t(i), a window from i to j lets pass f(j) - f(i) + 1 more than its length allows.
    least, worst = float("inf"), 0.0
    for i, at_s in enumerate(passed_s):
        level = i - qps * at_s
        least = min(least, level)
        worst = max(worst, level - least + 1 - burst)
    return int(worst + 1e-6)


async def _semaphore(rates: dict[str, float], scale: float) -> Counter[str]:
    """Serve the same askers behind a plain semaphore, first come first served, in real time cut by ``scale``."""
    room, served = asyncio.Semaphore(PLACES), Counter[str]()

    async def ask(name: str) -> None:
        async with room:
            served[name] += 1
            await asyncio.sleep(SERVICE_S * scale)

    rng = random.Random(1)
    asks = sorted((rng.uniform(0, SECONDS), n) for n, rate in rates.items() for _ in range(int(rate * SECONDS)))
    begin_s = time.monotonic()
    tasks: set[asyncio.Task[None]] = set()
    for at_s, name in asks:
        if (left_s := begin_s + at_s * scale - time.monotonic()) > 0:
            await asyncio.sleep(left_s)
        tasks.add(asyncio.create_task(ask(name)))  # noqa: TID251 - kept in the set, ended below
    await asyncio.sleep(max(0.0, begin_s + SECONDS * scale - time.monotonic()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return served


def _share(served: Counter[str], names: list[str]) -> float:
    counts = [served[name] for name in names]
    return max(counts) / max(1, min(counts))


def run() -> list[dict[str, Any]]:
    """Measure; a few seconds."""
    names = [f"caller-{n}" for n in range(CALLERS)]
    rows: list[dict[str, Any]] = []

    def add(what: str, value: float, unit: str = "", **more: Any) -> None:
        rows.append({"what": what, "value": value, "unit": unit, **more})

    per_s: dict[str, Callable[[], GateLimits]] = {
        f"{QPS:g} calls a second": lambda: GateLimits(100_000, qps=QPS, burst=int(QPS), queue=400),
        f"{PLACES} places": lambda: GateLimits(PLACES, queue=400),
    }
    equal = dict.fromkeys(names, QPS * OVERLOAD / CALLERS)
    for label, limits in per_s.items():
        door, cost_us = _play(limits(), equal, 1)
        allowed = QPS * SECONDS + (QPS if door.gate.limits.qps else PLACES)
        over = _most_over(door.passed_s, QPS, int(QPS)) if door.gate.limits.qps else max(0, door.most - PLACES)
        asked = sum(int(rate * SECONDS) for rate in equal.values())
        add(f"{label}, {asked:,} asked: let in", sum(door.served.values()), "calls", goal=f"≤ {allowed:,.0f}")
        add(f"{label}: let in beyond the limit, worst window", over, "calls", goal="0")
        add(
            f"{label}: max/min share of {CALLERS} equal callers", round(_share(door.served, names), 3), "", goal="≤ 1.2"
        )
        add(f"{label}: one decision", round(cost_us, 1), "µs")
    flood = {name: QPS * OVERLOAD / CALLERS / (FLOOD if name != names[0] else 1) * 10 for name in names}
    door, _ = _play(per_s[f"{PLACES} places"](), flood, 2)
    plain = asyncio.run(_semaphore(flood, 0.5))
    others = names[1:]
    fair = {name: min(int(flood[name] * SECONDS), QPS * SECONDS / CALLERS) for name in others}
    mine = min(door.served[name] / fair[name] for name in others)
    theirs = min(plain[name] / fair[name] for name in others)
    add(
        f"one caller asks {FLOOD:g} times as often: least share of what another is due",
        round(mine, 3),
        "",
        goal="≥ 0.8",
        rival="asyncio.Semaphore",
        rival_value=round(theirs, 3),
        ratio=round(mine / theirs, 1) if theirs else None,
    )
    return rows
