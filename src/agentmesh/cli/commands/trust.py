"""``agentmesh trust``, ``trust AGENT`` and ``trust report AGENT``: how far this node trusts others, and why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from agentmesh.cli import i18n
from agentmesh.cli.connect import agent_names
from agentmesh.cli.output import Output, Styled, age, clip, printable
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.wire.trust_views import TrustView

#: Width of the longest bar.
_BAR = 40
_OPTIONS = {"help_option_names": ["-h", "--help"]}
_STYLE: dict[str, str] = {"own": "ok", "high": "ok", "medium": "plain", "low": "warn", "unknown": "dim"}
_Agent = Annotated[
    str, typer.Argument(help="Name, name@node or id of an agent, or a node id.", autocompletion=agent_names)
]


class _ShowGroup(typer.core.TyperGroup):
    """A group that takes the name of an agent in place of a command: 'trust calc' is 'trust show calc'."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; what is none is an agent."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


def list_(
    out: Output,
    tier: Annotated[str, typer.Option("--tier", help="Only this one: low, unknown, medium, high, own.")] = "",
    query: Annotated[str, typer.Option("--query", help="Only with this in name, id or node's name.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most so many agents.", min=1, max=10_000)] = 50,
) -> None:
    """Show how far this node trusts every agent it knows, the least trusted first.

    \b
    agentmesh trust
    agentmesh trust list --tier low
    """
    from agentmesh.cli.connect import connect
    from agentmesh.ids import short

    with connect(out) as mesh:
        view = mesh.trust_list(tier=tier, query=query, limit=limit)
    if out.json:
        out.data(view)
        return
    most = max((one.count for one in view.histogram), default=0)
    for one in view.histogram:
        bar = "█" * (-(-one.count * _BAR // most) if most else 0)
        own = f"  ({i18n.t('{count} of your own', count=one.own)})" if one.own else ""
        out.line(f"  {one.low:.1f} - {one.high:.1f}  {one.count:>6}  ", (bar, "name"), (own, "dim"))
    out.line("  " + " · ".join(f"{name} {count}" for name, count in view.tiers.items()))
    days = f"{view.half_life_s / 86_400:g}"
    out.note(i18n.t("evidence counts half after {days} days, and an hour adds only so much", days=days))
    if view.agents:
        out.line("")
        rows: list[list[Styled]] = [
            [
                (clip(printable(row.name), 24), "name"),
                f"{row.score:.2f}",
                (row.tier, _STYLE.get(row.tier, "plain")),
                clip(printable(row.node_name), 20) or "-",
                short(row.organisation) if row.organisation else "-",
                str(row.receipts),
            ]
            for row in view.agents
        ]
        out.table(["NAME", "SCORE", "TIER", "NODE", "ORGANISATION", "RECEIPTS"], rows)
    shown = i18n.t(
        "{shown} of {matching} that match, {count} agents",
        shown=len(view.agents),
        matching=view.matching,
        count=view.count,
    )
    out.note(f"{shown} · digest {view.digest}")
    if not view.count:
        out.next("agentmesh demo --keep")


def show(out: Output, agent: _Agent) -> None:
    """Show how far this node trusts an agent or node, and what that rests on.

    \b
    agentmesh trust calc
    agentmesh trust show calc --json

    The score goes from 0 to 1. Others see other things, so another node may come to another score.
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        view = mesh.trust(agent)
    _tell(out, view)


def report(
    out: Output,
    agent: _Agent,
    reason: Annotated[str, typer.Option("--reason", help="What it did, in one line.")],
) -> None:
    """Report abuse by an agent or node: it counts as much as twenty failed calls.

    \b
    agentmesh trust report calc --reason "sent me advertising"

    Neighbours learn that this node saw something bad, not who reported what.
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        view = mesh.report_abuse(agent, reason)
    _tell(out, view)


def _tell(out: Output, view: TrustView) -> None:
    if out.json:
        out.data(view)
        return
    style = _STYLE.get(view.tier, "plain")
    name = view.name or view.subject
    out.line((printable(name), "name"), f"  {view.score:.2f}  ", (view.tier, style))
    out.line("  id      ", view.subject)
    out.line("  where   ", f"{printable(view.node_name) or '-'}  {view.node_id}")
    if view.tier == "own":
        out.note(i18n.t("this is your own: nobody is judge of its own agents"))
        return
    out.line("  own     ", f"+{view.good:.2f}  -{view.bad:.2f}")
    out.line("  others  ", f"+{view.others_good:.2f}  -{view.others_bad:.2f}")
    if view.events:
        now_s = time.time()
        rows: list[list[Styled]] = [
            [age(max(0.0, now_s - event.ts / 1e6)), event.kind, (f"{event.weight:+.2f}", "ok" if event.weight > 0 else "warn"),
             clip(printable(event.detail), 72)]
            for event in view.events
        ]  # fmt: skip
        out.line("")
        out.table(["AGO", "WHAT", "WEIGHT", "DETAIL"], rows)
    else:
        out.note(i18n.t("nothing has happened with it yet"))
    if view.words:
        out.line("")
        out.table(
            ["NODE", "ITS WORD COUNTS", "GOOD", "BAD"],
            [
                [printable(word.issuer_name), f"{word.weight:.0%}", f"+{word.good:.2f}", f"-{word.bad:.2f}"]
                for word in view.words
            ],
        )


def build() -> Any:
    """Return the group."""
    app = new_app(cls=_ShowGroup, context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Show how far this node trusts agents and nodes; report abuse.")(
        group(list_)
    )
    for name, body in (("list", list_), ("show", show), ("report", report)):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
