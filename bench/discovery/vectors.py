"""Vector search with many passages: exact, by numpy alone for comparison, and by the graph with its recall.

``python -m bench discovery --vectors 300000``. The vectors are made up: 384 figures around 2,000 centres, as texts gather
around subjects. Vectors without any such order would make the graph look worse, and real ones of one small set better.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentmesh.embed.base import Dense as Figures
from agentmesh.embed.base import Role, Sparse
from agentmesh.node.search import dense
from agentmesh.store.search import SearchStore
from bench.discovery.scale import rss_mb

DIMS, CENTRES, PASSAGES = 384, 2_000, 3
QUERIES, BEST = 100, 10
_BATCH = 1_000


class Clouds:
    """An embedder whose vectors lie around centres; which one depends on the text alone."""

    name, version, dims = "clouds", "clouds-1", DIMS

    def __init__(self) -> None:
        import numpy as np

        self._np = np
        self._centres = np.random.default_rng(3).standard_normal((CENTRES, DIMS), dtype=np.float32)

    def embed(self, texts: Sequence[str], role: Role) -> list[Figures | Sparse]:
        """Return one vector for each text."""
        found: list[Any] = []
        for text in texts:
            seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
            rng = self._np.random.default_rng(seed)
            vector = self._centres[rng.integers(CENTRES)] + rng.standard_normal(DIMS, dtype=self._np.float32)
            found.append(vector / self._np.linalg.norm(vector))
        return found

    def close(self) -> None:
        """Nothing is held."""


def run(count: int) -> dict[str, Any]:
    """Measure with so many vectors."""
    clouds = Clouds()
    with tempfile.TemporaryDirectory(prefix="agentmesh-bench-") as folder:
        store = SearchStore.open(Path(folder) / "search.sqlite")
        before_mb = rss_mb()
        dense.STEP_TEXTS = _BATCH  # a model takes few texts at a time; these cost nothing
        index = dense.Dense(store, clouds)
        for start in range(0, count // PASSAGES, _BATCH):
            numbers = range(start + 1, min(start + _BATCH, count // PASSAGES) + 1)
            index.add([(number, [f"passage {number}.{n}" for n in range(PASSAGES)]) for number in numbers])
            while index.waiting:
                index.step()
        loaded_mb = rss_mb() - before_mb
        asked = [index.query(f"need {n}") for n in range(QUERIES)]
        told: dict[str, Any] = {"vectors": len(index), "dims": DIMS, "memory_mb": round(loaded_mb, 1)}
        exact, told["exact_p50_ms"], told["exact_p99_ms"] = _timed(index.nearest, asked)
        _, told["numpy_p50_ms"], _ = _timed(_by_numpy(index), asked[:10])
        dense.EXACT_ROWS_MAX = 0
        begin_s = time.perf_counter()
        while index.is_growing:
            index.grow()
        told["graph_build_s"] = round(time.perf_counter() - begin_s, 1)
        walked, told["graph_p50_ms"], told["graph_p99_ms"] = _timed(index.nearest, asked)
        same = sum(len(set(one[:BEST]) & set(other[:BEST])) for one, other in zip(exact, walked, strict=True))
        told[f"graph_recall@{BEST}"] = round(same / sum(len(one[:BEST]) for one in exact), 4)
        told["graph_memory_mb"] = round(rss_mb() - before_mb - loaded_mb, 1)
        store.close()
    return told


def _by_numpy(index: dense.Dense) -> Callable[[Any], list[int]]:
    """Return the same search by numpy alone, which has no product of whole numbers that uses the processor well."""
    import numpy as np

    matrix = index.matrix

    def scan(vector: Any) -> list[int]:
        found = np.empty(len(matrix), np.float32)
        for start in range(0, len(matrix), 8_192):
            found[start : start + 8_192] = matrix[start : start + 8_192].astype(np.float32) @ vector
        return np.argpartition(-found, dense.NEAREST)[: dense.NEAREST].tolist()

    return scan


def _timed(ask: Callable[[Any], list[int]], asked: Sequence[Any]) -> tuple[list[list[int]], float, float]:
    ask(asked[0])
    answers: list[list[int]] = []
    spent_ms: list[float] = []
    for one in asked:
        begin_s = time.perf_counter()
        answers.append(ask(one))
        spent_ms.append((time.perf_counter() - begin_s) * 1000)
    spent_ms.sort()
    return answers, round(statistics.median(spent_ms), 2), round(spent_ms[max(0, int(len(spent_ms) * 0.99) - 1)], 2)
