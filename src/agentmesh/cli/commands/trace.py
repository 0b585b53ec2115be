"""``agentmesh trace REF [-f]``: what happened in a run, in order, from every node that took part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.connect import run_ids, short_run
from agentmesh.cli.output import Output
from agentmesh.cli.verb import single

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
) -> None:
    """Show what happened in a run, on every node.

    \b
    agentmesh trace last
    agentmesh trace run_7f3a -f

    Two readers that print the same digest hold the same events.
    """
    from agentmesh.cli.connect import connect
    from agentmesh.cli.timeline import Timeline

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
