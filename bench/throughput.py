"""Calls per second through two nodes with 64 in flight, 1 KB in and out, on loopback; the rivals under the same load.

The median of five rounds, in which the mesh and its rivals take turns.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import uvloop

from bench.pair import calls, per_second
from bench.rivals import grpc_call, nats_call

IN_FLIGHT = 64
ROUNDS, SECONDS = 5, 3.0


async def _run() -> list[dict[str, Any]]:
    async with calls() as (through, direct), nats_call() as nats, grpc_call() as grpc:
        rivals = {"direct HTTP": direct, "nats-py request/reply": nats, "grpc.aio unary": grpc}
        rounds: dict[str, list[float]] = {name: [] for name in ("mesh", *rivals)}
        for _ in range(ROUNDS):  # turn by turn, so that all meet the same machine
            for name, call in {"mesh": through, **rivals}.items():
                rounds[name].append(await per_second(call, IN_FLIGHT, SECONDS))
        found = {name: median(values) for name, values in rounds.items()}
        mesh = found.pop("mesh")
    return [
        {
            "what": "calls through two nodes, 64 in flight",
            "value": round(mesh),
            "unit": "1/s",
            "goal": "≥ 1,500" if name == "direct HTTP" else None,
            "rival": name,
            "rival_value": round(rival),
            "ratio": round(mesh / rival, 3),
        }
        for name, rival in found.items()
    ]


def run() -> list[dict[str, Any]]:
    """Measure; about a minute and a half."""
    return uvloop.run(_run())
