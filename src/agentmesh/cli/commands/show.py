"""``agentmesh show AGENT``: its card, skills, replicas and A2A address."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentmesh.cli.connect import agent_names
from agentmesh.cli.output import Output, clip, printable
from agentmesh.cli.verb import single


def show(
    out: Output,
    agent: Annotated[str, typer.Argument(help="Name, name@node or id.", autocompletion=agent_names)],
) -> None:
    """Show one agent: what it can do, who vouches for it, and where it is.

    \b
    agentmesh show calc
    agentmesh show calc --json | jq .card
    """
    from agentmesh.cli.commands.discover import TRUST, show_agents
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        detail = mesh.agent(agent)
    if out.json:
        from agentmesh.cli.commands.up import as_dict

        out.data(as_dict(detail))
        return
    view = detail.agent
    out.line((view.name, "name"), f"  {view.version}", ("  " + clip(printable(view.description), 100), "dim"))
    trust = TRUST.get(view.trust, view.trust)
    out.line("  trust   ", trust, *([] if view.trust == "own" else [f"  {view.trust_tier} {view.trust_score:.2f}"]))
    out.line("  status  ", f"{view.status}{f': {clip(view.detail, 80)}' if view.detail else ''}")
    out.line("  where   ", f"{view.node_name or '-'}  {view.path}  {view.node_id}")
    if view.organisation:
        out.line("  org     ", view.organisation)
    if view.origin:
        out.line("  origin  ", printable(view.origin))
    out.line("  id      ", view.agent_id)
    if detail.a2a_url:
        out.line("  a2a     ", detail.a2a_url)
    for skill in view.skills:
        out.line("  skill   ", (skill.id, "head"), f"  {clip(printable(skill.description), 90)}")
    if len(detail.replicas) > 1:
        out.line("")
        show_agents(out, detail.replicas)
    out.next(f'agentmesh run --to {view.name} "…"')


def build() -> Any:
    """Return the command."""
    return single(show)
