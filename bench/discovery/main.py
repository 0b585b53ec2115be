"""Measure discovery: ``python -m bench discovery [--embedder NAME] [--agents FILE --queries FILE] [--json]``.

Prints recall@10, nDCG@10 and MRR overall and for each kind of query, on our own set or on any set of the same format (the format:
``docs/reference/discovery-quality.md``). ``--report`` renews that page; ``--scale N`` measures speed and size with N agents.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentmesh.core.search.rank import Weights
from agentmesh.errors import ConfigError, MeshError, UsageError
from bench.discovery import measure, report, scale, sets
from bench.discovery.metrics import Metrics

AGENTS_MAX = 1_000_000
#: Embedder, what it is compared with, and its goal for recall@10.
GOALS = ((measure.DEFAULT, measure.TFIDF, "≥ 0.45"), (measure.MINILM.name, measure.PLAIN, "≥ 0.75"))
#: Agents, and the goal for the p99 of a query.
SCALES = ((10_000, "≤ 10"), (100_000, "≤ 30"))


def main(arguments: Sequence[str]) -> int:
    """Run the command line; exit code 2 for a wrong file or flag, which is named."""
    args = parser().parse_args(arguments)
    try:
        if args.report:
            return report.write(args.embedder)
        if args.scale is not None:
            return _scale(args)
        if args.vectors is not None:
            return _vectors(args)
        return _measure(args)
    except MeshError as error:
        print(f"error: {error}" + (f"\n  next: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 2


def run() -> list[dict[str, Any]]:
    """Measure what the page of benchmarks shows: quality on the held-back split, speed and size."""
    agents, queries = sets.read(sets.AGENTS, sets.QUERIES)
    held = sets.of_split(queries, "test")
    rows: list[dict[str, Any]] = []
    for name, rival, goal in GOALS:
        try:
            ours, theirs = (measure.judged(measure.ask(one, agents, held), {}) for one in (name, rival))
        except ConfigError as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)
            continue
        for what, value, other, wanted in (
            ("recall@10", ours.overall.recall, theirs.overall.recall, goal),
            ("nDCG@10", ours.overall.ndcg, theirs.overall.ndcg, None),
            ("recall@10, keywords and typos", _spelled(ours), _spelled(theirs), "≥ 0.95"),
        ):
            rows.append(
                {
                    "what": f"{name}: {what}",
                    "value": value,
                    "unit": "0 … 1",
                    "goal": wanted,
                    "rival": rival,
                    "rival_value": other,
                    "ratio": value / other if other else None,
                }
            )
    for count, within in SCALES:
        told = scale.measured(measure.DEFAULT, count)
        report.keep("scale", f"{measure.DEFAULT}/{count}", told)
        head = f"{measure.DEFAULT}, {count:,} agents"
        rows += [
            {"what": f"{head}: query p99", "value": told["p99_ms"], "unit": "ms", "goal": within},
            {"what": f"{head}: query p99, CPU time", "value": told["p99_cpu_ms"], "unit": "ms"},
            {"what": f"{head}: indexed", "value": told["build_per_s"], "unit": "agents/s", "goal": "≥ 2,000"},
            {"what": f"{head}: indexed, CPU time", "value": told["build_per_cpu_s"], "unit": "agents/s"},
            {"what": f"{head}: memory, peak", "value": told["rss_peak_mb"], "unit": "MB", "goal": "≤ 400"},
            {"what": f"{head}: file", "value": told["file_mb"], "unit": "MB"},
        ]
    return rows


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    one = argparse.ArgumentParser(prog="python -m bench discovery", description="Measure how well agents are found.")
    one.add_argument("--agents", type=Path, default=sets.AGENTS, metavar="FILE", help="JSON lines; ours if not given")
    one.add_argument("--queries", type=Path, default=sets.QUERIES, metavar="FILE", help="JSON lines; ours if not given")
    one.add_argument(
        "--embedder",
        metavar="NAME",
        help=f"{', '.join(measure.NAMES)}; {measure.DEFAULT} if not given, with --report all",
    )
    one.add_argument("--split", choices=("dev", "test", "all"), default="all", help="which queries; default all")
    one.add_argument("--weights", metavar="A,B,C", help="text, trust and health; text alone if not given")
    one.add_argument(
        "--misses", action="store_true", help="name the queries that fail; not those of the held-back split"
    )
    one.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    one.add_argument("--report", action="store_true", help="measure our set in every way and renew the page")
    one.add_argument("--scale", type=_count, metavar="N", help="build N agents out of our texts: speed and size")
    one.add_argument(
        "--vectors",
        type=_count,
        metavar="N",
        help="search N made-up vectors: exact, by numpy, by the graph with its recall",
    )
    return one


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


def figures(row: Metrics, count: int) -> dict[str, Any]:
    """Return one row for programs."""
    return {
        "queries": count,
        "recall@10": round(row.recall, 4),
        "ndcg@10": round(row.ndcg, 4),
        "mrr": round(row.mrr, 4),
    }


def _spelled(got: measure.Judged) -> float:
    """Return the recall of the queries that say the words of the agent, rightly or not."""
    those = [kind for kind in ("keyword", "typo") if kind in got.kinds]
    return sum(got.kinds[kind].recall * got.counts[kind] for kind in those) / sum(got.counts[kind] for kind in those)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= AGENTS_MAX:
        raise argparse.ArgumentTypeError(f"1 to {AGENTS_MAX:,}")
    return int(text)


def _scale(args: argparse.Namespace) -> int:
    name = args.embedder or measure.DEFAULT
    told = scale.measured(name, args.scale)
    report.keep("scale", f"{name}/{args.scale}", told)
    print(json.dumps(told) if args.json else "\n".join(f"  {key:<16}{value}" for key, value in told.items()))
    return 0


def _vectors(args: argparse.Namespace) -> int:
    from bench.discovery import vectors  # needs numpy and usearch, the others do not

    told = vectors.run(args.vectors)
    print(json.dumps(told) if args.json else "\n".join(f"  {key:<16}{value}" for key, value in told.items()))
    return 0


def _measure(args: argparse.Namespace) -> int:
    agents, queries = sets.read(args.agents, args.queries)
    chosen = sets.of_split(queries, args.split)
    mix = measure.TEXT_ALONE if args.weights is None else weights(args.weights)
    name = args.embedder or measure.DEFAULT
    asked = measure.ask(name, agents, chosen)
    got = measure.judged(asked, measure.standings_of(agents), mix)
    head = {
        "embedder": name,
        "split": args.split,
        "weights": [round(one, 4) for one in mix],
        "agents": len(agents),
        "queries": len(chosen),
        "unanswerable": asked.unanswerable,
        "build_s": round(asked.build_s, 3),
        "query_ms": round(asked.query_ms, 3),
    }
    overall = {"overall": figures(got.overall, len(asked.queries))}
    kinds = {kind: figures(row, got.counts[kind]) for kind, row in got.kinds.items()}
    misses = [
        {"qid": one.qid, "query": one.query, "relevant": one.relevant, "first": first}
        for one, first in got.missed
        if one.split != "test"
    ]
    if args.json:
        told = {**head, **overall, "kinds": kinds, **({"misses": misses} if args.misses else {})}
        print(json.dumps(told, ensure_ascii=False))
        return 0
    print("  ".join(f"{key} {value}" for key, value in head.items()))
    for kind, row in {**overall, **kinds}.items():
        print(f"  {kind:<14}" + "  ".join(f"{key} {value:<7}" for key, value in row.items()).rstrip())
    for miss in misses if args.misses else ():
        print(f"  {miss['qid']}  {miss['query']}")
        print(f"      wanted {', '.join(miss['relevant'])}; first {', '.join(miss['first'])}")
    return 0
