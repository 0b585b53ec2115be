"""``agentmesh group set|list|remove``: groups of agents that get a message together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, clip
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.wire.message_views import GroupView

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_Name = Annotated[str, typer.Argument(help="Name of the group.")]


def list_(out: Output) -> None:
    """List the groups that agents of this node are in or made.

    \b
    agentmesh group list
    """
    from agentmesh.cli.connect import connect
    from agentmesh.wire.message_views import GroupList

    with connect(out) as mesh:
        found = mesh.groups()
    if out.listing(found, GroupList(groups=found), i18n.t("no groups yet"), "agentmesh group set NAME AGENT…"):
        rows = [[one.name, str(len(one.members)), str(one.epoch), clip(_names(one), 70)] for one in found]
        out.table(["GROUP", "MEMBERS", "EPOCH", "WHO"], rows)


def set_(
    out: Output, name: _Name, members: Annotated[list[str], typer.Argument(help="Names or ids of all its agents.")]
) -> None:
    """Make a group, or change who is in it; whoever left cannot read what is sent from then on.

    \b
    agentmesh group set team amy bob@laptop
    agentmesh send group:team "standup in five minutes"
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        _tell(out, mesh.set_group(name, members), "")


def remove(out: Output, name: _Name) -> None:
    """End a group.

    \b
    agentmesh group remove team
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        _tell(out, mesh.remove_group(name), i18n.t("removed"))


def _tell(out: Output, view: GroupView, word: str) -> None:
    if out.json:
        out.data(view)
    else:
        out.check("ok", view.name, word or f"{clip(_names(view), 100)} · epoch {view.epoch}")


def _names(view: GroupView) -> str:
    return ", ".join(view.member_names or view.members)


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Groups of agents: who gets a message together.")(group(list_))
    for name, body in (("list", list_), ("set", set_), ("remove", remove)):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
