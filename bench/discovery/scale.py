"""Speed and size with many agents, in a fresh process: ``python -m bench discovery --scale 10000 --embedder builtin``.

The agents are recombined from the texts of our set, each with a few words of its own. They share a small vocabulary, so every
word stands in far more agents than it would in life: hard on the index, not kind to it.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentmesh.core.search.model import Document
from agentmesh.errors import ConfigError, UsageError
from bench.discovery import measure, sets
from bench.discovery.sets import Agent, Query

#: Agents that are handed to the index at a time: what is measured is the index, not the texts it was built from.
BATCH = 500
QUERIES, WARM_UP = 300, 30
SEED = 11
_SYLLABLES = (
    "ba",
    "cor",
    "del",
    "fi",
    "gan",
    "ho",
    "lin",
    "mar",
    "nex",
    "or",
    "pra",
    "qui",
    "ros",
    "sol",
    "tur",
    "ven",
    "wex",
    "zy",
)


def documents(agents: Sequence[Agent], count: int, seed: int = SEED) -> Iterator[list[Document]]:
    """Recombine texts: name of one, description of another, skills of a third, all of one language; in batches."""
    rng = random.Random(seed)
    tongues: dict[bool, list[Agent]] = {}
    for one in agents:
        tongues.setdefault(not (one.description or "").isascii(), []).append(one)
    batch: list[Document] = []
    for number in range(count):
        a, b, c = rng.choices(tongues[not (rng.choice(agents).description or "").isascii()], k=3)
        own = " ".join("".join(rng.choices(_SYLLABLES, k=3)) for _ in range(3))
        mixed = msgspec.structs.replace(
            a,
            id=f"agent-{number:07d}",
            name=f"{a.name} {own}",
            description=f"{b.description} {own}",
            skills=c.skills,
            tags=b.tags,
        )
        batch.append(sets.document(mixed))
        if len(batch) == BATCH or number == count - 1:
            yield batch
            batch = []


def asked(queries: Sequence[Query], count: int, seed: int = SEED) -> list[str]:
    """Return ``count`` texts, no two the same: those of the set, then halves of two of them joined."""
    rng = random.Random(seed)
    texts = dict.fromkeys(one.query for one in queries)
    while len(texts) < count:
        one, other = (rng.choice(queries).query for _ in range(2))
        texts[one[: len(one) // 2] + other[len(other) // 2 :]] = None
    found = list(texts)[:count]
    rng.shuffle(found)
    return found


def run(name: str, count: int) -> dict[str, Any]:
    """Measure in this process; it should be a fresh one."""
    agents, queries = sets.read(sets.AGENTS, sets.QUERIES)
    before_mb = rss_mb()
    with tempfile.TemporaryDirectory(prefix="agentmesh-bench-") as folder:
        engine = measure.searcher(name, Path(folder), remember=False)
        try:
            build_s = build_cpu_s = 0.0
            for batch in documents(agents, count):
                begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
                engine.update(batch)
                build_s += time.perf_counter() - begin_s
                build_cpu_s += time.process_time() - begin_cpu_s
            built_mb = rss_mb()
            spent_ms: list[float] = []
            cpu_ms: list[float] = []
            for text in asked(queries, QUERIES + WARM_UP):
                begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
                engine.search(text, 10)
                spent_ms.append((time.perf_counter() - begin_s) * 1000)
                cpu_ms.append((time.process_time() - begin_cpu_s) * 1000)
            after_mb = rss_mb()
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        finally:
            engine.close()
    return {
        "embedder": name,
        "agents": count,
        "build_per_s": round(count / build_s, 1),
        "first_query_ms": round(spent_ms[0], 2),
        "p50_ms": round(statistics.median(spent_ms[WARM_UP:]), 3),
        "p99_ms": round(_p99(spent_ms[WARM_UP:]), 3),
        "build_per_cpu_s": round(count / build_cpu_s, 1),
        "p50_cpu_ms": round(statistics.median(cpu_ms[WARM_UP:]), 3),
        "p99_cpu_ms": round(_p99(cpu_ms[WARM_UP:]), 3),
        "file_mb": round(size / 1e6, 1),
        "rss_before_mb": round(before_mb, 1),
        "rss_built_mb": round(built_mb, 1),
        "rss_mb": round(after_mb, 1),
        "rss_peak_mb": round(rss_mb("VmHWM"), 1),
    }


def measured(name: str, count: int) -> dict[str, Any]:
    """Measure in a process of its own.

    Raises:
        UsageError: a rival was named: those take in all agents at once and are no index.
        ConfigError: that process failed; the message has its last words.
    """
    if name in measure.RIVALS:
        raise UsageError(f"{name!r} is no index; name an embedder", hint="--embedder builtin")
    command = [sys.executable, "-m", "bench.discovery.scale", name, str(count)]
    done = subprocess.run(command, cwd=sets.HERE.parent.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(
            f"measuring {count:,} agents with {name!r} failed", why=done.stderr.strip()[-500:], code="bench.scale"
        )
    return json.loads(done.stdout)


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99) - 1]


def rss_mb(which: str = "VmRSS") -> float:
    """Return what this program holds in memory now, or has held at most ("VmHWM"); 0 where the system does not tell.

    Not ``getrusage``: its peak outlives an exec, so it would be that of the process which started this one.
    """
    try:
        found = re.search(rf"^{which}:\s+(\d+) kB$", Path("/proc/self/status").read_text("ascii"), re.MULTILINE)
    except OSError:
        return 0.0
    return int(found[1]) * 1024 / 1e6 if found else 0.0


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
