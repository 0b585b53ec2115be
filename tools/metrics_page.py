"""Write docs/reference/metrics.md from the table of metrics: ``make docs``; ``--check`` only says if it is fresh."""

from __future__ import annotations

import sys
from pathlib import Path

from agentmesh.obs.meters import CALL_S, SHARES, SHORT_S
from agentmesh.obs.metrics import GROUPS, Metric

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "metrics.md"

HEAD = """\
# Metrics

Written by `make docs` from `src/agentmesh/obs/metrics.py`; do not edit.

`GET /metrics` answers in the text format 0.0.4 of Prometheus, or in OpenMetrics 1.0 to whoever asks for it by `Accept`. It needs
the scope `read`, unless the setting [`metrics_open`](configuration.md#metrics_open) opens it to programs on this machine; a
tenant's key does not open it. [Watch with Prometheus](../howto/watch-with-prometheus.md) shows how to scrape it and brings a
dashboard.

* Everything is of this one node since its daemon started; sum over nodes in Prometheus. A call between two nodes is counted by
  both, once with `direction="out"` and once with `direction="in"`.
* A series that nothing was counted for is not there.
* Labels are bounded. What a stranger chose (names and ids of agents elsewhere, texts) is never a label; own agents and codes
  beyond the first 100 count as `other`.
* Durations are measured by clocks that nobody sets, so none is negative.
* Recording costs a call 1 µs at each end; a scrape reads 10,000 agents in slices of 2 ms (`python -m bench metrics`).
* The histogram of trust is one of a state, not of what happened: its buckets rise and fall. The text format 0.0.4 has no type
  for that, so there its sum and count are the gauges `agentmesh_agent_trust_gsum` and `agentmesh_agent_trust_gcount`.
* Of OpenTelemetry's GenAI metrics none fits a mesh: they time requests to models and split tokens by their kind, which agents do
  not say here. Spans carry the GenAI names.
"""

BUCKETS = """\

## Buckets

| histogram | upper bounds |
|---|---|
| `agentmesh_call_seconds`, `agentmesh_call_queue_seconds` | {calls} |
| `agentmesh_token_check_seconds`, `agentmesh_loop_lag_seconds` | {short} |
| `agentmesh_agent_trust` | {shares} |

## The process

Where the system tells them (Linux), as every Prometheus client library does: `process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_start_time_seconds`, `process_open_fds`,
`process_max_fds`.
"""


def row(metric: Metric) -> str:
    """Return one row of a table."""
    return f"| `{metric.name}` | {metric.kind} | {metric.help} | {metric.values} |"


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for title, metrics in GROUPS:
        parts.append(f"\n## {title}\n\n| metric | type | what | labels |\n|---|---|---|---|\n")
        parts.append("\n".join(map(row, metrics)) + "\n")
    bounds = {"calls": CALL_S, "short": SHORT_S, "shares": SHARES}
    parts.append(BUCKETS.format(**{name: ", ".join(f"{one:g}" for one in some) for name, some in bounds.items()}))
    return "".join(parts)


def main() -> int:
    """Write the page, or with ``--check`` compare it; exit code 1 if it is stale."""
    fresh = page()
    if "--check" in sys.argv[1:]:
        stale = not PAGE.exists() or PAGE.read_text("utf-8") != fresh
        if stale:
            print(f"{PAGE.relative_to(ROOT)} is stale; next: make docs", file=sys.stderr)
        return int(stale)
    PAGE.write_text(fresh, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
