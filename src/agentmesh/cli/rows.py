"""Runs as a list, and one run as rows: what the console shows, on a terminal."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agentmesh.cli import i18n
from agentmesh.cli.connect import short_run
from agentmesh.cli.output import Output, age, clip, pad
from agentmesh.errors import UsageError

if TYPE_CHECKING:
    from agentmesh.sdk.sync import SyncMesh
    from agentmesh.wire.console_views import TraceRows
    from agentmesh.wire.views import RunView

#: Rows asked for at a time, and runs listed unless the user says otherwise.
_PAGE = 20_000
RUNS_SHOWN = 20
_NODE_CELLS, _AGENT_CELLS, _LABEL_CELLS = 14, 16, 120


def moment(text: str) -> int:
    """Return a time in microseconds since 1970 UTC; 0 for "".

    Args:
        text: An ISO 8601 time or its beginning (2026-11-21T08:30, UTC unless it says otherwise), how long ago (15m, 2d), or
            microseconds since 1970.

    Raises:
        UsageError: none of these.
    """
    from agentmesh.cli.commands.keys import seconds_in

    text = text.strip()
    if not text:
        return 0
    if text.isascii() and text.isdigit() and len(text) > 8:
        return min(int(text), 2**53)
    try:
        when = datetime.fromisoformat(text)
        return max(0, int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1_000_000))
    except (ValueError, OverflowError):
        pass
    try:
        return max(0, int((time.time() - seconds_in(text)) * 1_000_000))
    except UsageError as error:
        raise UsageError(
            f"{text[:40]!r} is no time",
            code="usage.time",
            why="a time is 2026-11-21T08:30 (UTC), 15m for a quarter of an hour ago, or microseconds since 1970",
            hint="agentmesh trace --list --since 1h",
        ) from error


def show_runs(out: Output, mesh: SyncMesh, limit: int, filters: Any) -> None:
    """List runs that fit, newest first."""
    found = mesh.find_runs(limit or RUNS_SHOWN, **filters)
    none, then = (
        ("no run fits", "agentmesh trace --list")
        if any(filters.values())
        else ("no runs yet", "agentmesh run --to NAME 'text'")
    )
    if not out.listing(found.runs, found, i18n.t(none), then):
        return
    now_s = time.time()
    head = ["RUN", "STATE", "AGENTS", "CALLS", "EVENTS", "AGO", "TOOK"]
    out.table(head, [_run_cells(run, now_s) for run in found.runs])
    if found.next:
        out.note(i18n.t("{shown} of {total} runs", shown=len(found.runs), total=found.total))
    out.next(f"agentmesh trace {short_run(found.runs[0].run_id)}")


def _run_cells(run: RunView, now_s: float) -> list[str]:
    names = ", ".join(run.agents) or run.agent
    ago_s = max(0.0, now_s - run.first_ts / 1_000_000)
    took = f"{(run.last_ts - run.first_ts) / 1_000_000:.3f} s"
    return [
        short_run(run.run_id),
        clip(run.state, 16),
        clip(names, 40),
        str(run.tasks),
        str(run.count),
        age(ago_s),
        took,
    ]


def show_rows(out: Output, mesh: SyncMesh, ref: str, limit: int, *, remote: bool, filters: Any) -> None:
    """Show a run without payloads: all rows that fit, or the first ``limit``."""
    whole = rows_of(mesh, ref, limit, remote=remote, filters=filters)
    if out.json:
        out.data(whole)
        return
    rows = whole.rows
    start = min((task.first_ts for task in whole.tasks), default=rows.ts[0] if rows.ts else 0)
    for at in range(len(rows.seq)):
        node = whole.node_ids[rows.node[at]] if rows.node[at] >= 0 else ""
        task = whole.tasks[rows.task[at]] if rows.task[at] >= 0 else None
        name = "" if task is None else "  " * min(task.depth, 4) + task.agent
        out.line(
            (f"{(rows.ts[at] - start) / 1_000_000:+8.3f}  ", "dim"),
            pad(clip(whole.nodes.get(node) or node[-6:], _NODE_CELLS), _NODE_CELLS) + "  ",
            (f"{whole.kinds[rows.kind[at]]:<10}", "fail" if whole.kinds[rows.kind[at]] == "error" else "plain"),
            pad(clip(name, _AGENT_CELLS), _AGENT_CELLS) + "  ",
            clip(rows.label[at], _LABEL_CELLS),
        )
    if len(rows.seq) < whole.count:
        shown = i18n.t("{shown} of {matching} rows that fit", shown=len(rows.seq), matching=whole.matching)
        out.line((shown, "dim"))
    out.line((i18n.t("{count} events · digest {digest}", count=whole.count, digest=whole.digest), "head"))


def rows_of(mesh: SyncMesh, ref: str, limit: int, *, remote: bool, filters: Any) -> TraceRows:
    """Return the rows that fit, page after page of the run as it was at the first. Raises as ``SyncMesh.rows``."""
    import msgspec

    wanted = limit or 1 << 53
    whole = mesh.rows(ref, remote=remote, limit=min(wanted, _PAGE), **filters)
    page = whole
    while page.more and len(whole.rows.seq) < wanted:
        held = len(whole.rows.seq)
        window: dict[str, Any] = {"start": held, "limit": min(wanted - held, _PAGE), "upto": whole.upto}
        page = mesh.rows(whole.run_id, remote=False, **filters, **window)
        for name in msgspec.structs.fields(page.rows):
            getattr(whole.rows, name.name).extend(getattr(page.rows, name.name))
    whole.more = page.more
    return whole
