"""``agentmesh discover [QUERY]``: the agents of the mesh as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, Styled, clip
from agentmesh.cli.verb import single

if TYPE_CHECKING:
    from agentmesh.wire.views import AgentView

TRUST: dict[str, Styled] = {
    "own": ("●●● own", "ok"),
    "signed": ("●●○ signed", "ok"),
    "low": ("●○○ low", "warn"),
}
_STATUS_STYLE = {"healthy": "ok", "unhealthy": "fail", "unknown": "dim", "gone": "dim"}
_SKILLS_SHOWN = 4


def discover(
    out: Output,
    query: Annotated[str, typer.Argument(help="Words to look for in names, skills and descriptions.")] = "",
    healthy: Annotated[bool, typer.Option("--healthy", help="Leave out agents that cannot be called now.")] = False,
) -> None:
    """List the agents of the mesh, or those that match a question.

    \b
    agentmesh discover
    agentmesh discover "can do arithmetic"
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        agents = [a for a in mesh.discover(query) if not healthy or a.status == "healthy"]
    if out.json:
        from agentmesh.cli.commands.up import as_dict

        out.data({"agents": [as_dict(agent) for agent in agents]})
        return
    if not agents:
        out.note(i18n.t("no agent matches {query}", query=repr(query)) if query else i18n.t("no agents yet"))
        out.next("agentmesh discover" if query else "agentmesh register URL    or    agentmesh demo")
        return
    show_agents(out, agents)
    first = next((a for a in agents if a.status == "healthy"), None)
    if first is not None:
        out.next(f'agentmesh run --to {first.name} "…"')


def show_agents(out: Output, agents: Sequence[AgentView]) -> None:
    """Print agents as a table; low trust and bad health are shown as such."""
    out.table(["NAME", "SKILL", "TRUST", "WHERE", "PATH", "STATUS"], [_row(agent) for agent in agents])


def _row(agent: AgentView) -> list[Styled]:
    skills = [skill.id for skill in agent.skills]
    shown = ",".join(skills[:_SKILLS_SHOWN]) + (
        f",+{len(skills) - _SKILLS_SHOWN}" if len(skills) > _SKILLS_SHOWN else ""
    )
    here = agent.trust == "own" or agent.path == "local"
    state = agent.status + (f": {clip(agent.detail, 60)}" if agent.detail and agent.status != "healthy" else "")
    return [
        (agent.name, "name"),
        clip(shown, 40),
        _trust(agent),
        clip(("this node" if here else agent.node_name) or agent.node_id[-6:], 24),
        agent.path,
        (state, _STATUS_STYLE.get(agent.status, "plain")),
    ]


def _trust(agent: AgentView) -> Styled:
    """Return who vouches for the manifest, and for agents of others what this node thinks of their conduct, if it met them."""
    vouched = TRUST.get(agent.trust, agent.trust)
    if agent.trust_tier in ("own", "unknown") or isinstance(vouched, str):
        return vouched
    text, style = vouched
    return f"{text} {agent.trust_tier}", "warn" if agent.trust_tier == "low" else style


def build() -> Any:
    """Return the command."""
    return single(discover)
