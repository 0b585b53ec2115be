"""``python -m bench discovery --report``: measure our set in every way and put the tables into ``discovery-quality.md``.

What was measured is kept in ``bench/results/discovery-quality.json``, embedder by embedder, so that one that is not there today
(a model, an endpoint) keeps its row.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentmesh.core.search.rank import Weights
from agentmesh.errors import MeshError
from bench.__main__ import RESULTS, ROOT, machine
from bench.discovery import conduct, measure, sets
from bench.discovery.measure import Asked, Judged, Standings
from bench.discovery.metrics import Metrics
from bench.discovery.sets import Agent, Query

KEPT = RESULTS / "discovery-quality.json"
PAGE = ROOT / "docs" / "reference" / "discovery-quality.md"
SPLITS = ("dev", "test")
_COMMAND = "python -m bench discovery"

Table = list[list[str]]


def write(chosen: str | None) -> int:
    """Measure the embedders that are here, or one, and renew the page.

    Returns:
        Exit code: 1 if a bad agent came before one that says the same, with the usual weights.
    """
    agents, queries = sets.read(sets.AGENTS, sets.QUERIES)
    broken = False
    for name in [chosen] if chosen else measure.NAMES:
        try:
            told = everything(name, agents, queries)
        except MeshError as error:
            if chosen:
                raise
            print(f"{name}: not measured: {error}" + (f"; next: {error.hint}" if error.hint else ""), file=sys.stderr)
            continue
        keep("embedders", name, told)
        usual = next(row for row in told["mixes"] if tuple(row["weights"]) == Weights())
        if share := usual["outranked"]["same text"]:
            print(
                f"error: {name}: a bad agent came before one that says the same in {share:.1%} of queries",
                file=sys.stderr,
            )
            broken = True
        print(f"{name}: measured")
    render()
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 1 if broken else 0


def everything(name: str, agents: Sequence[Agent], queries: Sequence[Query]) -> dict[str, Any]:
    """Measure one embedder: text alone by split and kind, and each mix of weights with its costs and its use."""
    asked = measure.ask(name, agents, queries)
    others = sets.read(*sets.SECOND)
    second = measure.judged(measure.ask(name, *others), measure.standings_of(others[0]))
    neutral, dealt = measure.standings_of(agents), conduct.dealt(agents)
    worlds = {one: conduct.world(agents, queries, one) for one in conduct.EXPERIMENTS}
    among = {one: measure.ask(name, world.agents, world.queries) for one, world in worlds.items()}
    return {
        "machine": machine(),
        "build_s": round(asked.build_s, 3),
        "query_ms": round(asked.query_ms, 3),
        "splits": {
            **{split: _split(measure.judged(measure.of_split(asked, split), neutral)) for split in SPLITS},
            "second": _split(second),
        },
        "mixes": [
            {
                "weights": list(mix),
                **{split: _mixed(asked, split, dealt, mix) for split in SPLITS},
                "outranked": {one: round(conduct.outranked(among[one], worlds[one], mix), 4) for one in worlds},
            }
            for mix in conduct.MIXES
        ],
    }


def keep(part: str, name: str, what: dict[str, Any]) -> None:
    """Replace one result among those that are kept."""
    kept = _kept()
    kept.setdefault(part, {})[name] = what
    RESULTS.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")


def render(page: Path = PAGE) -> None:
    """Put every kept result between its markers in the page."""
    kept = _kept()
    embedders = kept.get("embedders", {})
    known = [name for name in measure.NAMES if name in embedders] + sorted(set(embedders) - set(measure.NAMES))
    those = {name: embedders[name] for name in known}
    scales = [kept["scale"][key] for key in sorted(kept.get("scale", {}), key=_by_size)]
    tables = {
        "embedders": (_embedders(those), f"{_COMMAND} --embedder NAME --split dev|test"),
        "kinds": (_kinds(those), f"{_COMMAND} --embedder NAME --split test"),
        "weights": (_weights(those), f"{_COMMAND} --report"),
        "twins": (_twins(those), f"{_COMMAND} --report"),
        "scale": (_scale(scales), f"{_COMMAND} --scale N --embedder NAME"),
    }
    text = page.read_text("utf-8")
    for name, (table, command) in tables.items():
        head, *rows = table
        lines = [
            "| " + " | ".join(head) + " |",
            "|" + "---|" * len(head),
            *("| " + " | ".join(row) + " |" for row in rows),
        ]
        body = "\n".join([*lines, "", f"`{command}`"])
        pattern = re.compile(rf"(<!-- discovery:{name} -->\n).*?(<!-- /discovery:{name} -->)", re.DOTALL)
        text = pattern.sub(lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text)
    page.write_text(text, "utf-8")


def _kept() -> dict[str, Any]:
    return json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}


def _by_size(key: str) -> tuple[str, int]:
    name, _, count = key.rpartition("/")
    return name, int(count)


def _split(got: Judged) -> dict[str, Any]:
    kinds = {kind: {"queries": got.counts[kind], **_figures(row)} for kind, row in sorted(got.kinds.items())}
    return {"queries": sum(got.counts.values()), **_figures(got.overall), "kinds": kinds}


def _mixed(asked: Asked, split: str, standings: Standings, mix: Weights) -> dict[str, float]:
    return _figures(measure.judged(measure.of_split(asked, split), standings, mix).overall)


def _figures(row: Metrics) -> dict[str, float]:
    return {name: round(value, 4) for name, value in row._asdict().items()}


def _embedders(embedders: dict[str, Any]) -> Table:
    columns = (*SPLITS, "second")
    head = ["embedder", *(f"{name}: recall@10 / nDCG@10 / MRR" for name in columns), "index", "a query"]
    return [
        head,
        *(
            [
                f"`{name}`",
                *(_three(one["splits"][column]) for column in columns),
                f"{one['build_s']:.2f} s",
                f"{one['query_ms']:.1f} ms",
            ]
            for name, one in embedders.items()
        ),
    ]


def _kinds(embedders: dict[str, Any]) -> Table:
    rows = [["held back", "kind", *(f"`{name}`" for name in embedders)]]
    for split in ("test", "second"):
        kinds = sorted({kind for one in embedders.values() for kind in one["splits"][split]["kinds"]})
        rows.extend(
            [split, f"`{kind}`", *(_three(one["splits"][split]["kinds"][kind]) for one in embedders.values())]
            for kind in kinds
        )
    return rows


def _weights(embedders: dict[str, Any]) -> Table:
    rows = [["embedder", "text, trust, health", "dev: recall@10 / nDCG@10 / MRR", "test: recall@10 / nDCG@10 / MRR"]]
    for name, one in embedders.items():
        for mix in one["mixes"]:
            rows.append([f"`{name}`", _mix(mix["weights"]), *(_three(mix[split]) for split in SPLITS)])
    return rows


def _twins(embedders: dict[str, Any]) -> Table:
    rows = [["embedder", "text, trust, health", *conduct.EXPERIMENTS]]
    for name, one in embedders.items():
        rows.extend(
            [f"`{name}`", _mix(mix["weights"]), *(f"{mix['outranked'][one]:.1%}" for one in conduct.EXPERIMENTS)]
            for mix in one["mixes"]
        )
    return rows


def _scale(scales: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            "embedder",
            "agents",
            "indexed per s (of CPU)",
            "first query",
            "p50",
            "p99",
            "file",
            "RSS before",
            "RSS after",
            "RSS peak",
        ]
    ]
    rows.extend(
        [
            f"`{one['embedder']}`",
            f"{one['agents']:,}",
            f"{one['build_per_s']:,.0f} ({one['build_per_cpu_s']:,.0f})",
            f"{one['first_query_ms']:.1f} ms",
            f"{one['p50_ms']:.1f} ({one['p50_cpu_ms']:.1f}) ms",
            f"{one['p99_ms']:.1f} ({one['p99_cpu_ms']:.1f}) ms",
            f"{one['file_mb']:,.0f} MB",
            *(f"{one[key]:,.0f} MB" for key in ("rss_before_mb", "rss_mb", "rss_peak_mb")),
        ]
        for one in scales
    )
    return rows


def _three(row: dict[str, float]) -> str:
    return " / ".join(f"{row[what]:.3f}" for what in ("recall", "ndcg", "mrr"))


def _mix(weights: Sequence[float]) -> str:
    return ", ".join(f"{one:g}" for one in weights)
