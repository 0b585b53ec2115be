"""Measure discovery: ``python -m bench discovery [--embedder NAME] [--agents FILE --queries FILE] [--json]``.

Prints recall@10, nDCG@10 and MRR overall and for each kind of query, on our own set or on any set of the same format (the format:
``docs/reference/discovery-quality.md``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentmesh.core.search.rank import HEALTH, Parts, Weights, ranked
from agentmesh.errors import MeshError, UsageError
from bench.discovery import sets
from bench.discovery.baselines import Searcher, TfIdf
from bench.discovery.metrics import K, Metrics, judge, mean
from bench.discovery.sets import Agent, Query

#: Candidates by text that trust and health may reorder, as the node takes them.
DEPTH = 50
#: Text alone: a set says what fits, not who is trusted.
TEXT_ALONE = Weights(1.0, 0.0, 0.0)
RIVALS = {"tfidf": TfIdf}


class Measured(NamedTuple):
    """What a run gave.

    Attributes:
        overall, kinds: The figures.
        counts: Queries of each kind that were measured.
        missed: Queries of which the best agent is not among the first ten, with what stands first instead.
        build_s, query_ms: What it cost, with the mean of a query.
    """

    overall: Metrics
    kinds: dict[str, Metrics]
    counts: dict[str, int]
    missed: list[tuple[Query, list[str]]]
    build_s: float
    query_ms: float


def searcher(name: str, folder: Path) -> Searcher:
    """Open a rival or the engine with an embedder.

    Raises:
        UsageError: there is no embedder of this name.
    """
    if name in RIVALS:
        return RIVALS[name]()
    raise UsageError(f"no embedder named {name!r}", why=f"there are {', '.join(RIVALS)}")


def standing(agent: Agent) -> tuple[float, float]:
    """Return trust and health of an agent as figures."""
    trust = sets.TRUST if agent.trust is None else agent.trust
    return trust, HEALTH[sets.HEALTH_STATE if agent.health is None else agent.health]


def ordered(found: Sequence[tuple[str, float]], standings: dict[str, tuple[float, float]], mix: Weights) -> list[str]:
    """Order candidates by the mix, as ``discover`` does."""
    parts = [(name, Parts(text, *standings[name])) for name, text in found]
    return [one.agent_id for one in ranked(parts, mix)]


def measure(name: str, agents: Sequence[Agent], queries: Sequence[Query], mix: Weights = TEXT_ALONE) -> Measured:
    """Index the agents, ask the queries, judge the answers."""
    with tempfile.TemporaryDirectory(prefix="agentmesh-bench-") as folder:
        engine = searcher(name, Path(folder))
        try:
            begin_s = time.perf_counter()
            engine.update([sets.document(one) for one in agents])
            built_s = time.perf_counter()
            asked = [one for one in queries if any(grade > 0 for grade in one.relevant.values())]
            answers = [engine.search(one.query, DEPTH) for one in asked]
            end_s = time.perf_counter()
        finally:
            engine.close()
    standings = {one.id: standing(one) for one in agents}
    rankings = [ordered(answer, standings, mix) for answer in answers]
    judged = [judge(ranking, one.relevant) for one, ranking in zip(asked, rankings, strict=True)]
    kinds = list(dict.fromkeys(one.kind for one in asked))
    of_kind = {kind: [row for one, row in zip(asked, judged, strict=True) if one.kind == kind] for kind in kinds}
    missed = [
        (one, ranking[:3])
        for one, ranking in zip(asked, rankings, strict=True)
        if max(one.relevant, key=lambda agent: one.relevant[agent]) not in ranking[:K]
    ]
    return Measured(
        overall=mean(judged),
        kinds={kind: mean(rows) for kind, rows in of_kind.items()},
        counts={kind: len(rows) for kind, rows in of_kind.items()},
        missed=missed,
        build_s=built_s - begin_s,
        query_ms=(end_s - built_s) / len(asked) * 1000 if asked else 0.0,
    )


def figures(row: Metrics, count: int) -> dict[str, Any]:
    """Return one row for programs."""
    return {
        "queries": count,
        "recall@10": round(row.recall, 4),
        "ndcg@10": round(row.ndcg, 4),
        "mrr": round(row.mrr, 4),
    }


def weights(text: str) -> Weights:
    """Read ``0.7,0.2,0.1``: text, trust, health.

    Raises:
        UsageError: not three numbers, or numbers that are no weights.
    """
    try:
        alpha, beta, gamma = (float(one) for one in text.split(","))
    except ValueError:
        raise UsageError(f"weights are three numbers, not {text!r}", hint="--weights 0.7,0.2,0.1") from None
    return Weights(alpha, beta, gamma).scaled()


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    one = argparse.ArgumentParser(prog="python -m bench discovery", description="Measure how well agents are found.")
    one.add_argument("--agents", type=Path, default=sets.AGENTS, metavar="FILE", help="JSON lines; ours if not given")
    one.add_argument("--queries", type=Path, default=sets.QUERIES, metavar="FILE", help="JSON lines; ours if not given")
    one.add_argument(
        "--embedder", default="tfidf", metavar="NAME", help=f"an embedder, or a rival: {', '.join(RIVALS)}"
    )
    one.add_argument("--split", choices=("dev", "test", "all"), default="all", help="which queries; default all")
    one.add_argument("--weights", metavar="A,B,C", help="text, trust and health; text alone if not given")
    one.add_argument(
        "--misses", action="store_true", help="name the queries that fail; not those of the held-back split"
    )
    one.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return one


def main(arguments: Sequence[str]) -> int:
    """Run the command line; exit code 2 for a wrong file or flag, which is named."""
    try:
        return _run(parser().parse_args(arguments))
    except MeshError as error:
        print(f"error: {error}" + (f"\n  next: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    agents, queries = sets.read(args.agents, args.queries)
    chosen = sets.of_split(queries, args.split)
    mix: Weights = TEXT_ALONE if args.weights is None else weights(args.weights)
    got = measure(args.embedder, agents, chosen, mix)
    head = {
        "embedder": args.embedder,
        "split": args.split,
        "weights": [round(one, 4) for one in mix],
        "agents": len(agents),
        "queries": len(chosen),
        "unanswerable": len(chosen) - sum(got.counts.values()),
        "build_s": round(got.build_s, 3),
        "query_ms": round(got.query_ms, 3),
    }
    rows = {"overall": figures(got.overall, sum(got.counts.values()))}
    kinds = {kind: figures(row, got.counts[kind]) for kind, row in got.kinds.items()}
    misses = [
        {"qid": one.qid, "query": one.query, "relevant": one.relevant, "first": first}
        for one, first in got.missed
        if one.split != "test"
    ]
    if args.json:
        print(
            json.dumps(
                {**head, **rows, "kinds": kinds, **({"misses": misses} if args.misses else {})}, ensure_ascii=False
            )
        )
        return 0
    print("  ".join(f"{name} {value}" for name, value in head.items()))
    for name, row in {**rows, **kinds}.items():
        print(f"  {name:<14}" + "  ".join(f"{key} {value:<7}" for key, value in row.items()).rstrip())
    if args.misses:
        for miss in misses:
            print(
                f"  {miss['qid']}  {miss['query']}\n      wanted {', '.join(miss['relevant'])}; first {', '.join(miss['first'])}"
            )
    return 0
