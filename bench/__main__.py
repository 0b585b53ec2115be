"""Run measurements, print a table or JSON, keep the result in ``bench/results/NAME.json``.

``--write`` also renews the tables in ``docs/reference/benchmarks.md`` from what is kept. A measurement in ``OWN`` reads what
follows its name itself: ``python -m bench discovery --help``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "reference" / "benchmarks.md"
#: Name on the command line → module, in the order of the page. Each is described by its module's docstring.
NAMES = {
    "idle": "bench.idle",
    "call": "bench.call",
    "throughput": "bench.throughput",
    "verify": "bench.verify",
    "verify-parts": "bench.verify_parts",
    "lan": "bench.lan",
    "failover": "bench.failover",
    "bulk": "bench.transport",
    "events": "bench.events",
    "topics": "bench.topics",
    "ticks": "bench.ticks",
    "rows": "bench.rows",
    "metrics": "bench.metrics",
    "topology": "bench.topology",
    "policy": "bench.policy",
    "guard": "bench.guard",
    "killswitch": "bench.killswitch",
    "cli": "bench.cli",
    "audit": "bench.audit",
    "discovery": "bench.discovery.main",
    "federation": "bench.federation",
    "mail": "bench.mail",
    "courier": "bench.courier",
    "engines": "bench.engines",
    "state": "bench.state",
}
#: Measurements that also have a command line of their own, if they are named first: ``main(arguments) -> exit code``.
OWN = {"discovery": "bench.discovery.main", "console": "bench.console.main"}
COLUMNS = ("what", "value", "unit", "goal", "rival", "rival_value", "ratio")


def machine() -> dict[str, Any]:
    """Name what the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    memory = 0
    if sys.platform == "linux":
        models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
        cpu = models[0] if models else cpu
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def measure(name: str) -> dict[str, Any]:
    """Run one measurement and keep its result."""
    rows = importlib.import_module(NAMES[name]).run()
    result = {"name": name, "machine": machine(), "figures": [{c: row.get(c) for c in COLUMNS} for row in rows]}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return result


def cell(value: Any) -> str:
    """Show one value: three digits that mean something, nothing for nothing."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def lines_of(result: dict[str, Any]) -> list[list[str]]:
    """Return the table of one result as text cells, header first."""
    return [list(COLUMNS), *[[cell(row[c]) for c in COLUMNS] for row in result["figures"]]]


def show(result: dict[str, Any]) -> None:
    """Print one result for a person."""
    table = lines_of(result)
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
    m = result["machine"]
    print(f"{result['name']}   ({m['cpu']}, {m['cores']} cores, {m['memory_gb']} GB, {m['kernel']}, {m['python']})")
    for row in table:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def write_page() -> None:
    """Put every kept result between its markers in the page."""
    text = PAGE.read_text("utf-8")
    for name in NAMES:
        kept = RESULTS / f"{name}.json"
        if not kept.exists():
            continue
        result = json.loads(kept.read_text("utf-8"))
        head, *rows = lines_of(result)
        m = result["machine"]
        body = "\n".join(
            [
                "| " + " | ".join(head) + " |",
                "|" + "---|" * len(head),
                *("| " + " | ".join(row) + " |" for row in rows),
                "",
                f"Measured on {m['cpu']}, {m['cores']} cores, {m['memory_gb']} GB, {m['kernel']}, {m['python']}.",
            ]
        )
        pattern = re.compile(rf"(<!-- bench:{name} -->\n).*?(<!-- /bench:{name} -->)", re.DOTALL)
        text = pattern.sub(lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text)
    PAGE.write_text(text, "utf-8")


def main() -> int:
    """Parse the command line and run; exit code 1 if a measurement failed."""
    if len(sys.argv) > 1 and sys.argv[1] in OWN and (sys.argv[1] not in NAMES or "--write" not in sys.argv):
        return int(importlib.import_module(OWN[sys.argv[1]]).main(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure this project.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which ones; all if none: {', '.join(NAMES)}; with arguments of its own, named first: {', '.join(OWN)}",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per measurement instead of tables")
    parser.add_argument("--write", action="store_true", help=f"renew {PAGE.relative_to(ROOT)}")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        parser.error(f"no measurement named {unknown[0]!r}; there are {', '.join(NAMES)}")
    failed: list[str] = []
    for name in args.names or NAMES:
        try:
            result = measure(name)
        except Exception as error:  # noqa: BLE001 - one broken measurement must not cost the others
            print(f"error: {name}: {error}", file=sys.stderr)
            failed.append(name)
            continue
        if args.json:
            print(json.dumps(result, ensure_ascii=False))
        else:
            show(result)
    if args.write:
        write_page()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
