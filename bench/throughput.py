"""Calls per second through two nodes with 64 in flight, 1 KB in and out, on loopback; the rivals under the same load."""

from __future__ import annotations

from typing import Any

import uvloop

from bench.pair import calls, per_second
from bench.rivals import grpc_call, nats_call

IN_FLIGHT = 64
SECONDS = 8.0


async def _run() -> list[dict[str, Any]]:
    async with calls() as (through, direct), nats_call() as nats, grpc_call() as grpc:
        mesh = await per_second(through, IN_FLIGHT, SECONDS)
        rivals = {"direct HTTP": direct, "nats-py request/reply": nats, "grpc.aio unary": grpc}
        found = {name: await per_second(call, IN_FLIGHT, SECONDS / 2) for name, call in rivals.items()}
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
    """Measure; about half a minute."""
    return uvloop.run(_run())
