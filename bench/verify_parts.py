"""What the cost of a verified call consists of: each part timed while one node of a process calls another.

The nodes are linked in memory, and every function named here is wrapped by a clock. A part is the tenth percentile of its
times, multiplied by how often a call does it, so that other work on the machine counts little. What lies within another part is
marked by "of". The sum is that of what stands between a caller and its answer, one after the other. However a node is arranged,
it does not answer sooner than two signatures, two verifications and one sync take.
"""

from __future__ import annotations

import inspect
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import uvloop

from agentmesh.identity import jws
from agentmesh.identity.keys import KeyPair
from agentmesh.node.audit import Audit
from agentmesh.node.callee import Callee
from agentmesh.node.guard import Guard
from agentmesh.node.policy.check import PolicyCheck
from agentmesh.node.proof import Proofs, Witness
from agentmesh.store import audit_files
from agentmesh.store.calls import CallStore
from agentmesh.wire.views import CallRequest
from bench.audit import echo
from tests.unit.node.world import until, world

CALLS, WARM = 1_000, 200
#: What, where it is, and whether the caller waits for it in turn with the others.
PARTS: tuple[tuple[str, Any, str, bool], ...] = (
    ("the caller signs a token", Proofs, "sign", True),
    ("the callee checks it", Proofs, "admit", True),
    ("of it: has it been used, and from now on it has", CallStore, "note_token", False),
    ("was the task done before", Callee, "_tell_again", True),
    ("policy", PolicyCheck, "enter", True),
    ("limits and budgets", Guard, "enter", True),
    ("the callee notes in the journal that it begins", Audit, "enter", True),
    ("the caller notes in the journal that it goes out", Audit, "calling", True),
    ("both hash the answer", Witness, "add", True),
    ("the callee signs a receipt", Proofs, "attest", True),
    ("the callee records the call and waits for the disk", Audit, "ended", True),
    ("of it, and at the caller: write and sync", audit_files.AuditFiles, "_write", False),
    ("the caller checks the receipt", Proofs, "accept", True),
    ("of both: keep the receipt", CallStore, "keep", False),
    ("the caller makes its record, which nobody waits for", Audit, "called", True),
    ("of these: two Ed25519 verifications", jws, "verify", False),
    ("of these: two Ed25519 signatures, and those of checkpoints", KeyPair, "sign", False),
)


def _timed(real: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(real):

        async def wait(*args: Any, **named: Any) -> Any:
            begin_s = time.perf_counter()
            try:
                return await real(*args, **named)
            finally:
                times.append(time.perf_counter() - begin_s)

        return wait

    def run_it(*args: Any, **named: Any) -> Any:
        begin_s = time.perf_counter()
        try:
            return real(*args, **named)
        finally:
            times.append(time.perf_counter() - begin_s)

    return run_it


async def _run() -> list[dict[str, Any]]:
    times: dict[str, list[float]] = defaultdict(list)
    patches = [
        mock.patch.object(where, name, _timed(getattr(where, name), times[what])) for what, where, name, _ in PARTS
    ]
    with tempfile.TemporaryDirectory() as temp:
        async with world(Path(temp), 2) as (a, b):
            await b.serve("echo", echo)
            await until(lambda: any(e.name == "echo" for e in a.node.agents()))
            for patch in patches:
                patch.start()
            try:
                for number in range(WARM + CALLS):
                    if number == WARM:
                        for one in times.values():
                            one.clear()
                    await (await a.node.call(CallRequest(to="echo", text="x" * 1000))).reply()
            finally:
                for patch in patches:
                    patch.stop()
    rows: list[dict[str, Any]] = []
    total_us = 0.0
    for what, _, _, in_turn in PARTS:
        taken = sorted(times[what])
        part_us = taken[len(taken) // 10] * len(taken) / CALLS * 1e6
        total_us += part_us if in_turn else 0.0
        rows.append({"what": what, "value": round(part_us, 1), "unit": "µs"})
    rows.append({"what": "sum of those in turn", "value": round(total_us), "unit": "µs"})
    return rows


def run() -> list[dict[str, Any]]:
    """Measure; a few seconds on a quiet machine."""
    return uvloop.run(_run())
