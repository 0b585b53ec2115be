"""One call through two nodes: client → node A → iroh → node B → HTTP agent and back, 1 KB in and out, on loopback.

"Added" is the quantile through the mesh less the quantile of the same agent called directly by the same client. All kinds
of calls take turns in one run. Every call through the mesh is traced on both nodes, as always.
"""

from __future__ import annotations

from typing import Any

import uvloop

from bench.pair import calls, latencies, quantile
from bench.rivals import grpc_call, nats_call

ROUNDS = 3000


async def _run() -> list[dict[str, Any]]:
    async with calls() as (through, direct), nats_call() as nats, grpc_call() as grpc:
        named = {"mesh": through, "direct HTTP": direct, "nats-py request/reply": nats, "grpc.aio unary": grpc}
        times = await latencies(named, ROUNDS)
    rows: list[dict[str, Any]] = []
    for q, label, goal in ((0.5, "p50", "≤ 2"), (0.99, "p99", "≤ 5")):
        mesh = quantile(times["mesh"], q)
        base = quantile(times["direct HTTP"], q)
        rows.append({"what": f"added {label}", "value": round(mesh - base, 3), "unit": "ms", "goal": goal})
        for name in list(times)[1:]:
            rival = quantile(times[name], q)
            rows.append(
                {
                    "what": f"whole call, {label}",
                    "value": round(mesh, 3),
                    "unit": "ms",
                    "rival": name,
                    "rival_value": round(rival, 3),
                    "ratio": round(mesh / rival, 2),
                }
            )
    return rows


def run() -> list[dict[str, Any]]:
    """Measure; about a minute."""
    return uvloop.run(_run())
