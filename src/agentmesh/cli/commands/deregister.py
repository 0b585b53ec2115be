"""``agentmesh deregister NAME``: take a local agent out of the mesh; the agent itself runs on."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.connect import agent_names
from agentmesh.cli.output import Output
from agentmesh.cli.verb import single


def deregister(
    out: Output,
    agent: Annotated[str, typer.Argument(help="Name or id of an agent of this node.", autocompletion=agent_names)],
) -> None:
    """Take an agent of this node out of the mesh.

    \b
    agentmesh deregister calc

    The other nodes learn it by a signed withdrawal. The agent's own process is not touched.
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        view = mesh.deregister(agent)
    if out.json:
        from agentmesh.cli.commands.up import as_dict

        out.data(as_dict(view))
        return
    out.check("ok", view.name, i18n.t("withdrawn"))


def build() -> Any:
    """Return the command."""
    return single(deregister)
