"""``agentmesh bridge add|list|status|remove``: other registries that agents cross to and from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, Styled, clip, printable
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.wire.bridge_views import BridgeChange, BridgeView

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_STYLE: dict[str, str] = {"up": "ok", "connecting": "dim", "off": "dim", "down": "fail"}
_Url = Annotated[str, typer.Argument(help="etcd://HOST:PORT/PREFIX or consul://HOST:PORT/, with options as query.")]


def add(
    out: Output,
    url: _Url,
    way: Annotated[str | None, typer.Option("--way", help="What crosses: in, out or both.")] = None,
) -> None:
    """Join this node to another registry, now and whenever it starts.

    \b
    agentmesh bridge add etcd://127.0.0.1:2379/agents
    agentmesh bridge add consul://127.0.0.1:8500/ --way in
    agentmesh bridge add "etcd://10.0.0.5:2379/agents?way=out&agent=calc"

    Agents registered there appear beside this node; agents beside this node appear there, for as long as it lives.
    """
    from agentmesh.cli.connect import connect

    if way is not None:
        url = f"{url}{'&' if '?' in url else '?'}way={way}"
    with connect(out) as mesh:
        change = mesh.add_bridge(url)
    _tell(out, change, "added")
    if not out.json:
        out.next("agentmesh bridge status")


def remove(out: Output, url: _Url) -> None:
    """Take a bridge away: what it took in leaves the mesh, what it sent out is withdrawn.

    \b
    agentmesh bridge remove etcd://127.0.0.1:2379/agents
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        change = mesh.remove_bridge(url)
    _tell(out, change, "removed")


def _tell(out: Output, change: BridgeChange, what: str) -> None:
    if out.json:
        out.data(change)
        return
    out.check("ok", change.bridge.name, i18n.t(what))
    if not change.kept:
        out.note(("! ", "warn"), i18n.t("until the daemon stops: the environment or a flag says otherwise"))


def list_(out: Output) -> None:
    """List the bridges of this node.

    \b
    agentmesh bridge list
    """
    found = _found(out)
    if found is None:
        return
    rows: list[list[Styled]] = [
        [
            (one.name, "name"),
            one.way,
            (one.incoming, _STYLE[one.incoming]),
            (one.outgoing, _STYLE[one.outgoing]),
            str(one.taken),
            str(len(one.posted)),
            str(one.refused),
        ]
        for one in found
    ]
    out.table(["BRIDGE", "WAY", "IN", "OUT", "TAKEN IN", "SENT OUT", "REFUSED"], rows)


def status(out: Output) -> None:
    """Show how each bridge is, what it took in and sent out, and what it refused and why.

    \b
    agentmesh bridge status
    """
    found = _found(out)
    for one in found or ():
        out.line((one.name, "name"), "  ", one.url.partition("?")[2])
        out.line("  in      ", (one.incoming, _STYLE[one.incoming]), f"  {one.taken} taken, {one.waiting} waiting")
        out.line("  out     ", (one.outgoing, _STYLE[one.outgoing]), f"  {clip(' '.join(one.posted), 80)}")
        if one.error:
            out.line("  error   ", (printable(one.error), "fail"))
        if one.left_out:
            out.line("          ", i18n.t("{count} entries more than it takes", count=one.left_out))
        if one.mesh:
            out.line("          ", i18n.t("{count} entries of mesh nodes are left alone", count=one.mesh))
        if one.refusals:
            out.line(f"  refused {one.refused}")
            out.table(
                ["ENTRY", "CODE", "WHY"],
                [[clip(printable(r.key), 40), r.code, clip(printable(r.reason), 100)] for r in one.refusals],
            )


def _found(out: Output) -> list[BridgeView] | None:
    """Return the bridges; None when that was said already."""
    from agentmesh.cli.connect import connect
    from agentmesh.wire.bridge_views import BridgeList

    with connect(out) as mesh:
        found = mesh.bridges()
    nothing = i18n.t("no bridges: this node knows no other registry")
    then = "agentmesh bridge add etcd://127.0.0.1:2379/agents"
    return found if out.listing(found, BridgeList(bridges=found), nothing, then) else None


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Other registries that agents cross to and from.")(group(list_))
    for name, body in (("add", add), ("list", list_), ("status", status), ("remove", remove)):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
