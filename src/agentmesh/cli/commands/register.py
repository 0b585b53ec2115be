"""``agentmesh register URL``: bring an agent that already runs into the mesh, unchanged."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output
from agentmesh.cli.verb import single
from agentmesh.errors import UsageError

DOORS = ("auto", "a2a", "http", "sdk")


def register(
    out: Output,
    url: Annotated[str, typer.Argument(help="Where the agent answers.")],
    name: Annotated[str | None, typer.Option("--name", help="Name in the mesh, if its own will not do.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="Description, likewise.")] = None,
    door: Annotated[str, typer.Option("--door", help="Its protocol: auto, a2a, http or sdk.")] = "auto",
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Without a signature: low trust everywhere.")] = False,
) -> None:
    """Bring an agent that already runs into the mesh.

    \b
    agentmesh register http://127.0.0.1:9000
    agentmesh register http://127.0.0.1:8000/rpc --door http --name mine

    Any A2A server (1.0 or 0.3) or plain HTTP agent, unchanged; it is kept across restarts of the node.
    """
    from agentmesh.cli.commands.discover import show_agents
    from agentmesh.cli.connect import connect

    if door not in DOORS:
        raise UsageError(f"unknown door {door[:40]!r}", hint=f"--door {' | '.join(DOORS)}")
    with connect(out) as mesh:
        agents = mesh.register(url, door=door, name=name, description=description, unsigned=unsigned)
    if out.json:
        from agentmesh.cli.commands.up import as_dict

        out.data({"agents": [as_dict(agent) for agent in agents]})
        return
    show_agents(out, agents)
    if unsigned:
        out.note(("! ", "warn"), i18n.t("unsigned: others see it as low trust"))
    if agents:
        out.next(f'agentmesh run --to {agents[0].name} "…"')


def build() -> Any:
    """Return the command."""
    return single(register)
