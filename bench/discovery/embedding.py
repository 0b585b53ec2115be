"""What an embedder costs: ``python -m bench.discovery.embedding minilm``. A query alone, passages in bulk, start and memory.

CPU time stands beside the time on the clock: on a machine that does other things as well, the first says what the embedder costs,
the second what somebody waited. Of an endpoint only the clock says anything.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentmesh.embed.choose import Source, choose
from agentmesh.errors import MeshError
from bench.discovery import sets

WARM_UP, ROUNDS = 5, 200
PASSAGES = 512


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the milliseconds that it took, on the clock and of the CPU."""
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - begin_s) * 1000, (time.process_time() - begin_cpu_s) * 1000


def measured(name: str, source: Source) -> dict[str, Any]:
    """Measure one embedder in this process, which should be a fresh one. Raises MeshError."""
    before_mb = rss_mb()
    begin_s = time.perf_counter()
    chosen = choose(name, source)
    embedder = chosen.embedder
    load_ms = (time.perf_counter() - begin_s) * 1000
    agents, queries = sets.read(sets.AGENTS, sets.QUERIES)
    asked = [one.query for one in queries if one.split != "test"]
    passages = [text for one in agents for text in passages_of(sets.document(one))][:PASSAGES]
    try:
        for text in asked[:WARM_UP]:
            embedder.embed([text], "query")
        turns = (asked * ROUNDS)[:ROUNDS]
        alone = [timed(lambda text=text: embedder.embed([text], "query")) for text in turns]
        bulk_ms, bulk_cpu_ms = timed(lambda: embedder.embed(passages, "passage"))
    finally:
        embedder.close()
    wall, cpu = (sorted(column) for column in zip(*alone, strict=True))
    return {
        "embedder": embedder.name,
        "fallback": chosen.fallback,
        "load_ms": round(load_ms, 1),
        "query_ms": {"p50": round(statistics.median(wall), 2), "p99": round(wall[int(ROUNDS * 0.99) - 1], 2)},
        "query_cpu_ms": {"p50": round(statistics.median(cpu), 2), "p99": round(cpu[int(ROUNDS * 0.99) - 1], 2)},
        "passages": len(passages),
        "passages_per_s": round(len(passages) / bulk_ms * 1000, 1),
        "passages_per_cpu_s": round(len(passages) / bulk_cpu_ms * 1000, 1),
        "rss_before_mb": round(before_mb, 1),
        "rss_mb": round(rss_mb(), 1),
        "rss_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1),
    }


def passages_of(document: Any) -> list[str]:
    """Return the texts of a document that get a vector each."""
    return [passage.text for passage in document.passages]


def rss_mb() -> float:
    """Return the memory of this process that is in RAM now, MB."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> int:
    """Print the figures of one embedder."""
    one = argparse.ArgumentParser(
        prog="python -m bench.discovery.embedding", description="Measure what an embedder costs."
    )
    one.add_argument("embedder", nargs="?", default="minilm", help="builtin, minilm, or the address of an endpoint")
    one.add_argument("--models", type=Path, default=Path(sys.prefix) / "models", help="directory of local models")
    one.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = one.parse_args()
    try:
        told = measured(args.embedder, Source(args.models))
    except MeshError as error:
        print(f"error[{error.code}] {error.detail}" + (f": {error.why}" if error.why else ""), file=sys.stderr)
        return 1
    print(json.dumps(told) if args.json else "\n".join(f"  {key:<20}{value}" for key, value in told.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
