"""``agentmesh trace REF [-f | --rows]``, ``agentmesh trace --list``: what happened in a run, from every node that took part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.connect import run_ids, short_run
from agentmesh.cli.output import Output
from agentmesh.cli.verb import single
from agentmesh.errors import UsageError

if TYPE_CHECKING:
    from agentmesh.cli.timeline import Timeline
    from agentmesh.sdk.sync import SyncMesh
    from agentmesh.wire.views import TraceView


def trace(
    out: Output,
    ref: Annotated[
        str, typer.Argument(help="Run or task id, a unique prefix of it, 'last' or 'last~1'.", autocompletion=run_ids)
    ] = "last",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show events as they happen, until the run ends.")
    ] = False,
    local: Annotated[bool, typer.Option("--local", help="Only what this node knows; ask no other.")] = False,
    rows: Annotated[
        bool, typer.Option("--rows", help="One line per event without its payload; filters apply.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="List runs, newest first; filters apply.")] = False,
    agent: Annotated[str, typer.Option("--agent", help="Only of this agent: its name or id.")] = "",
    state: Annotated[
        str, typer.Option("--state", help="Only in these states, divided by commas: failed,working.")
    ] = "",
    kind: Annotated[str, typer.Option("--kind", help="Only with these kinds of events, divided by commas.")] = "",
    task: Annotated[str, typer.Option("--task", help="Only of these calls, divided by commas (rows).")] = "",
    since: Annotated[str, typer.Option("--since", help="Not before: 2026-11-21T08:30 (UTC), or 15m ago.")] = "",
    until: Annotated[str, typer.Option("--until", help="Not after.")] = "",
    limit: Annotated[int, typer.Option("--limit", help="At most so many; 0 for all rows, or 20 runs.", min=0)] = 0,
    after: Annotated[int, typer.Option("--after", help="Only rows with a higher position (seq).", min=0)] = 0,
    before: Annotated[int, typer.Option("--before", help="Go on with a list: its 'next'.", min=0)] = 0,
) -> None:
    """Show what happened in a run, on every node.

    \b
    agentmesh trace last
    agentmesh trace run_7f3a -f
    agentmesh trace last --kind error,status
    agentmesh trace --list --state failed --since 1h

    Two readers that print the same digest hold the same events. A filter means --rows.
    """
    from agentmesh.cli.connect import connect
    from agentmesh.cli.rows import moment, show_rows, show_runs
    from agentmesh.cli.timeline import Timeline

    filters: dict[str, Any] = {
        "agent": agent,
        "state": state,
        "kind": kind,
        "since": moment(since),
        "until": moment(until),
    }
    rows = rows or bool(any(filters.values()) or task or limit or after)
    if (list_ or rows) and follow:
        raise UsageError("--follow tells whole events: leave --rows, --list and filters out", code="usage.trace")
    if list_:
        with connect(out) as mesh:
            show_runs(out, mesh, min(limit, 1_000), {**filters, "before": before})
        return
    if rows:
        with connect(out) as mesh:
            show_rows(out, mesh, ref, limit, remote=not local, filters={**filters, "task": task, "after": after})
        return
    with connect(out) as mesh:
        view = mesh.trace(ref, remote=not local)
        timeline = Timeline(out)
        timeline.add(view)
        if follow and not view.complete:
            view = _follow(mesh, view, timeline, remote=not local)
        if not out.json:
            _foot(out, view)
        elif not follow:
            from agentmesh.cli.commands.up import as_dict

            out.data(as_dict(view))


def _follow(mesh: SyncMesh, view: TraceView, timeline: Timeline, *, remote: bool) -> TraceView:
    """Show events as they come until every task of the run has ended, then fetch what other nodes saw."""
    last = max((event.seq for event in view.events), default=0)
    if not timeline.ended:
        for event in mesh.follow(run=view.run_id, after=last):
            timeline.event(event)
            if timeline.ended:
                break
    view = mesh.trace(view.run_id, remote=remote)
    timeline.add(view)
    return view


def _foot(out: Output, view: TraceView) -> None:
    out.line((i18n.t("{count} events · digest {digest}", count=view.count, digest=view.digest), "head"))
    if foreign := [one for one in view.trace_ids if one != view.run_id]:
        out.line((i18n.t("part of trace {ids}", ids=", ".join(foreign)), "dim"))
    if view.missing_nodes:
        from agentmesh.ids import short

        names = ", ".join(view.nodes.get(node) or short(node) for node in view.missing_nodes)
        out.note(("! ", "warn"), i18n.t("not every node could be asked: {nodes}", nodes=names))
    if view.receipts:
        out.next(f"agentmesh receipt show {short_run(view.run_id)}")


def build() -> Any:
    """Return the command."""
    return single(trace)
