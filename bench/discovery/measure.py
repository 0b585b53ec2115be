"""Ask a searcher all queries of a set, once, and judge what it answered under any mix of weights."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from agentmesh.core.search.model import Document
from agentmesh.core.search.rank import HEALTH, Parts, Weights, ranked
from agentmesh.daemon.home import find_home
from agentmesh.embed.base import Embedder
from agentmesh.embed.choose import open_embedder
from agentmesh.embed.models import MINILM, is_present, models_in
from agentmesh.errors import ConfigError
from bench.discovery import sets
from bench.discovery.baselines import Plain, Remembering, Searcher, TfIdf
from bench.discovery.metrics import K, Metrics, judge, mean
from bench.discovery.sets import Agent, Query

#: Candidates by text that trust and health may reorder: as many as the node asks its index for, for ten answers.
DEPTH = 110
#: Text alone: a set says what fits, not who is trusted.
TEXT_ALONE = Weights(1.0, 0.0, 0.0)
#: Rivals, which are no index: words alone, and the vectors of the local model alone.
TFIDF, PLAIN = "tfidf", "minilm-plain"
RIVALS = (TFIDF, PLAIN)
#: What is taken if no name is given, and what the report walks through.
DEFAULT = "builtin"
NAMES = (*RIVALS, DEFAULT, MINILM.name)


class Fused:
    """The search engine of this project.

    Args:
        path: Its file.
        embedder: Any name that ``open_embedder`` knows.
        remember: See ``searcher``.

    Raises:
        ConfigError: the embedder is not here, or the engine answers by another one, whose figures these would be.
    """

    def __init__(self, path: Path, embedder: str, remember: bool) -> None:
        from agentmesh.node.search.engine import Engine

        chosen = embedder if embedder == DEFAULT else opened(embedder, path.parent, remember)
        self._engine = Engine.open(path, chosen)
        wanted = chosen if isinstance(chosen, str) else chosen.name
        if self._engine.embedder != wanted:
            self._engine.close()
            raise ConfigError(f"the engine answers by {self._engine.embedder!r}, not {wanted!r}", code="bench.embedder")

    def update(self, documents: Sequence[Document]) -> None:
        """Take in agents."""
        self._engine.update(documents)

    def search(self, query: str, limit: int) -> list[tuple[str, float]]:
        """Return ids and text scores in the order of the answer."""
        return [(hit.agent_id, hit.text) for hit in self._engine.search(query, limit=limit).hits]

    def close(self) -> None:
        """Close the index."""
        self._engine.close()


#: Trust and health of each agent, 0 … 1.
Standings = Mapping[str, tuple[float, float]]


class Asked(NamedTuple):
    """What a searcher answered.

    Attributes:
        queries: Those that can be judged, in their order.
        answers: For each, ids and text scores, the best first, at most ``DEPTH``.
        unanswerable: How many queries were left out because no agent is an answer.
        build_s, query_ms: What it cost; the second is the mean of a query.
    """

    queries: list[Query]
    answers: list[list[tuple[str, float]]]
    unanswerable: int
    build_s: float
    query_ms: float


class Judged(NamedTuple):
    """The figures of a set.

    Attributes:
        overall, kinds: Means over all queries, and over those of each kind.
        counts: Queries of each kind.
        missed: Queries whose best agents are not among the first ten, with the first three that are.
    """

    overall: Metrics
    kinds: dict[str, Metrics]
    counts: dict[str, int]
    missed: list[tuple[Query, list[str]]]


def searcher(name: str, folder: Path, *, remember: bool = True) -> Searcher:
    """Open a rival or the engine with an embedder.

    Args:
        name: Of either.
        folder: For the index; empty.
        remember: Embed no text twice in this process, which costs memory.

    Raises:
        ConfigError: there is no embedder of this name, or its model is not here.
    """
    if name == TFIDF:
        return TfIdf()
    if name == PLAIN:
        return Plain(opened(MINILM.name, folder, remember))
    return Fused(folder / "search.sqlite", name, remember)


def opened(name: str, home: Path, remember: bool) -> Embedder:
    """Open an embedder. Raises as ``open_embedder``."""
    embedder = open_embedder(name, home, models=models())
    return Remembering(embedder) if remember else embedder


def models() -> Path:
    """Return where local models are: beside the tests' environment, where ``make test`` puts them, or in the home."""
    beside = Path(sys.prefix) / "models"
    return beside if is_present(MINILM, beside) else models_in(find_home()[0].path)


def ask(name: str, agents: Sequence[Agent], queries: Sequence[Query]) -> Asked:
    """Index the agents in an empty place and ask the queries one by one."""
    asked = [one for one in queries if any(grade > 0 for grade in one.relevant.values())]
    with tempfile.TemporaryDirectory(prefix="agentmesh-bench-") as folder:
        engine = searcher(name, Path(folder))
        try:
            begin_s = time.perf_counter()
            engine.update([sets.document(one) for one in agents])
            built_s = time.perf_counter()
            answers = [engine.search(one.query, DEPTH) for one in asked]
            end_s = time.perf_counter()
        finally:
            engine.close()
    cost_ms = (end_s - built_s) / len(asked) * 1000 if asked else 0.0
    return Asked(asked, answers, len(queries) - len(asked), built_s - begin_s, cost_ms)


def standings_of(agents: Sequence[Agent]) -> Standings:
    """Return what the lines of the set say of trust and health."""
    return {
        one.id: (
            sets.TRUST if one.trust is None else one.trust,
            HEALTH[sets.HEALTH_STATE if one.health is None else one.health],
        )
        for one in agents
    }


def ordered(answer: Sequence[tuple[str, float]], standings: Standings, mix: Weights) -> list[str]:
    """Order candidates by the mix, as ``discover`` does; by text alone, exactly as they came."""
    if mix.trust == mix.health == 0:
        return [name for name, _ in answer]
    parts = [(name, Parts(text, *standings[name])) for name, text in answer]
    return [one.agent_id for one in ranked(parts, mix)]


def judged(asked: Asked, standings: Standings, mix: Weights = TEXT_ALONE) -> Judged:
    """Judge the answers under a mix."""
    rankings = [ordered(answer, standings, mix) for answer in asked.answers]
    rows: dict[str, list[Metrics]] = {}
    missed: list[tuple[Query, list[str]]] = []
    for query, ranking in zip(asked.queries, rankings, strict=True):
        rows.setdefault(query.kind, []).append(judge(ranking, query.relevant))
        best = max(query.relevant.values())
        if not any(query.relevant.get(name) == best for name in ranking[:K]):
            missed.append((query, ranking[:3]))
    return Judged(
        overall=mean(row for kind in rows.values() for row in kind),
        kinds={kind: mean(some) for kind, some in rows.items()},
        counts={kind: len(some) for kind, some in rows.items()},
        missed=missed,
    )


def of_split(asked: Asked, split: str) -> Asked:
    """Return the part of the answers that belongs to one split."""
    kept = [n for n, one in enumerate(asked.queries) if split == "all" or one.split in (None, split)]
    return asked._replace(queries=[asked.queries[n] for n in kept], answers=[asked.answers[n] for n in kept])
