"""The audit log: whether every call and refusal is in it after ``kill -9`` under load, and what recording adds to a call.

Coverage is counted with real daemons: the callee's node, then the caller's, is killed at a random moment while 16 callers call.
Each call that was answered or refused, and each that the agent saw, must be in the log afterwards, and the log must
verify. The cost is that of calls between two nodes of one process whose records take turns: with the log, and without.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import uvloop

from agentmesh.node.door import Happening, Invocation
from agentmesh.node.node import Node
from agentmesh.store.audit_check import check_log
from agentmesh.store.audit_read import select
from agentmesh.wire.views import CallRequest
from bench.pair import quantile
from tests.support.daemons import Daemon, Mesh, script, sees_agent, wait_until
from tests.unit.node.world import until, world

ROUNDS, WARM = 1_500, 150
KILLS, CALLERS, LOAD_S = 6, 16, 2.0

AGENT = """
import os, sys
from agentmesh import Context, agent, run

seen = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@agent
async def echo(text: str, ctx: Context) -> str:
    "Says what it hears, and writes down that it did."
    os.write(seen, (ctx.task_id + "\\\\n").encode())
    return text

run(echo)
""".replace("\\\\", "\\")


def _load(
    near: Daemon, refusal: tuple[dict[str, Any], str], until_s: float, told: set[str], lock: threading.Lock
) -> None:
    """Call, and now and then make a call that must be refused, until the time is over or the node is gone."""
    odd, code = refusal
    rng = random.Random(uuid.uuid4().int)
    with contextlib.suppress(OSError, AssertionError, ValueError, HTTPException):
        while time.monotonic() < until_s:
            task = uuid.uuid4().hex
            asked = {"to": "echo", "text": "x", "task_id": task, **(odd if rng.random() < 0.2 else {})}
            status, body = near.ask("POST", "/api/v1/calls", asked)
            if status == 200 or (body or {}).get("code") == code:
                with lock:
                    told.add(task)


def coverage(kills: int = KILLS) -> tuple[int, int, int, int]:
    """Return (told or seen, of these missing in a log, records in both logs, of these wrong)."""
    wanted = missing = 0
    with tempfile.TemporaryDirectory() as temp:
        root = Path(temp)
        (root / "agent.py").write_text(AGENT, "utf-8")
        seen_file = root / "seen"
        mesh = Mesh(root)
        try:
            far = mesh.node("far")
            near = mesh.node("near", seeds=(far.seed(),))
            with script([sys.executable, str(root / "agent.py"), str(seen_file)], far.env):
                wait_until(lambda: sees_agent(near, "echo"), "the agent")
                agent_id = near.get("/api/v1/agents")["agents"][0]["agent_id"]
                for round_ in range(kills):
                    victim, refusal = (
                        (far, ({"budget": {"wall_ms": 0}}, "budget.wall")),
                        (near, ({"hops": [agent_id]}, "refused.loop")),
                    )[round_ % 2]
                    before = _lines(seen_file)
                    told: set[str] = set()
                    lock = threading.Lock()
                    until_s = time.monotonic() + LOAD_S + 1
                    load = [
                        threading.Thread(target=_load, args=(near, refusal, until_s, told, lock))
                        for _ in range(CALLERS)
                    ]
                    for one in load:
                        one.start()
                    time.sleep(random.uniform(0.3, 1.0) * LOAD_S)
                    victim.kill()
                    for one in load:
                        one.join()
                    victim.open()
                    wait_until(lambda: sees_agent(near, "echo") and _answers(near), "the agent again", 60)
                    seen = _lines(seen_file) - before
                    victim.get("/api/v1/audit/records?limit=1")  # what nobody waits for is on disk when this answers
                    tasks = {str(r.data.get("task")) for r in select(victim.home.audit) if r.action.startswith("call")}
                    wanted += len(told | seen)
                    missing += len((told | seen) - tasks)
            records = wrong = 0
            for node in (far, near):
                checked = check_log(node.home.audit, node=node.node_id)
                records, wrong = records + checked.size, wrong + len(checked.findings) + checked.more
        finally:
            mesh.aclose()
    return wanted, missing, records, wrong


def _answers(near: Daemon) -> bool:
    status, _ = near.ask("POST", "/api/v1/calls", {"to": "echo", "text": "again"})
    return status == 200


def _lines(path: Path) -> set[str]:
    return set(path.read_text("ascii").splitlines()) if path.exists() else set()


class _Nothing:
    """In place of the audit log: records nothing."""

    async def enter(self, visit: Any) -> None:
        """Let everything pass."""

    def leave(self, visit: Any, ended: Any) -> None:
        """Nothing was taken."""

    async def ended(self, visit: Any, ended: Any) -> None:
        """Record nothing."""

    async def turned_away(self, peer: Any, message: Any, error: Any) -> None:
        """Record nothing."""

    def calling(self, attempt: Any) -> int:
        """Record nothing."""
        return 0

    def called(self, begun: int, attempt: Any, error: Any) -> None:
        """Record nothing."""


def _swap(node: Node, old: Any, new: Any) -> None:
    """Put one thing in the place of another among a node's checks and recorders. The product has no such switch."""
    calls: Any = node._calls  # pyright: ignore[reportPrivateUsage]
    callee: Any = calls._callee
    callee._checks = tuple(new if one is old else one for one in callee._checks)
    callee._recorders = tuple(new if one is old else one for one in callee._recorders)
    calls._outward = new


async def echo(call: Invocation) -> AsyncIterator[Happening]:
    """Answer with what was asked, in this process."""
    yield Happening("message", {"role": "agent", "parts": call.parts})
    yield Happening("status", {"state": "completed"})


async def _cost(rounds: int) -> tuple[list[float], list[float]]:
    """Return milliseconds of calls with and without the log."""
    nothing = _Nothing()
    times: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as temp:
        async with world(Path(temp), 2) as (a, b):
            await b.serve("echo", echo)
            await until(lambda: any(e.name == "echo" for e in a.node.agents()))
            for round_ in range(2 * (WARM + rounds)):
                without = round_ % 2
                for node in (a.node, b.node):
                    if without:
                        _swap(node, node.audit, nothing)
                    else:
                        _swap(node, nothing, node.audit)
                begin = time.perf_counter()
                await (await a.node.call(CallRequest(to="echo", text="x" * 1000))).reply()
                if round_ >= 2 * WARM:
                    times[without].append((time.perf_counter() - begin) * 1000)
    return times


def run() -> list[dict[str, Any]]:
    """Measure; about a minute."""
    with_log, without = uvloop.run(_cost(ROUNDS))
    rows: list[dict[str, Any]] = []
    for q, label in ((0.5, "p50"), (0.99, "p99")):
        added = quantile(with_log, q) - quantile(without, q)
        rows.append({"what": f"recording a call on both nodes, added {label}", "value": round(added, 3), "unit": "ms"})
    wanted, missing, records, wrong = coverage()
    covered = 100 * (wanted - missing) / max(1, wanted)
    what = f"calls and refusals on record after {KILLS} × kill -9 under load ({wanted:,} of them)"
    rows.append({"what": what, "value": round(covered, 4), "unit": "%", "goal": "100"})
    rows.append({"what": f"wrong among {records:,} records of both logs", "value": wrong, "unit": "", "goal": "0"})
    return rows


if __name__ == "__main__":
    json.dump(run(), sys.stdout, indent=2)
    os.write(1, b"\n")
