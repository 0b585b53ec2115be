"""What it costs that calls prove themselves: the same two-node call with token, receipt, guard and audit, and without them.

Two pairs of real daemons take turns in one run; one of them runs with the verification taken out (``bench/bare``). "Added" is the
quantile with it less the quantile without. The rival's figure is what its own documents say of a governed interaction.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from bench.pair import calls, latencies, per_second, quantile

CALLS, IN_FLIGHT, ROUNDS, SECONDS = 3000, 64, 5, 3.0
_BARE = Path(__file__).parent / "bare"


@contextlib.contextmanager
def _bare() -> Iterator[None]:
    """Let the daemons that are started meanwhile verify nothing."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_BARE), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


async def _run() -> list[dict[str, Any]]:
    async with contextlib.AsyncExitStack() as stack:
        verified, _ = await stack.enter_async_context(calls())
        with _bare():
            plain, _ = await stack.enter_async_context(calls())
        times = await latencies({"verified": verified, "plain": plain}, CALLS)
        rates: dict[str, list[float]] = {"verified": [], "plain": []}
        for _ in range(ROUNDS):
            for name, call in (("verified", verified), ("plain", plain)):
                rates[name].append(await per_second(call, IN_FLIGHT, SECONDS))
    rows: list[dict[str, Any]] = []
    for q, label, goal in ((0.5, "p50", "≤ 0.6"), (0.99, "p99", "≤ 2")):
        with_it, without = (quantile(times[name], q) for name in ("verified", "plain"))
        rows.append(
            {
                "what": f"added by verification, {label}",
                "value": round(with_it - without, 3),
                "unit": "ms",
                "goal": goal,
                "rival": "governed interaction, Microsoft AgentMesh (its documents: 5 to 50 ms)",
                "rival_value": 5.0,
                "ratio": round((with_it - without) / 5.0, 3),
            }
        )
    with_it, without = (median(rates[name]) for name in ("verified", "plain"))
    rows.append(
        {
            "what": f"verified calls through two nodes, {IN_FLIGHT} in flight",
            "value": round(with_it),
            "unit": "1/s",
            "goal": "≥ 1,000",
            "rival": "the same without verification",
            "rival_value": round(without),
            "ratio": round(with_it / without, 3),
        }
    )
    return rows


def run() -> list[dict[str, Any]]:
    """Measure; about a minute and a half."""
    return uvloop.run(_run())
