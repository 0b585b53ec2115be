"""``agentmesh tenants set|list|remove``: who else lives on this node, and what each may have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, Styled, clip
from agentmesh.cli.verb import built, group, new_app, verb

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_Name = Annotated[str, typer.Argument(help="Small letters, digits and '-'.")]


def set_(
    out: Output,
    name: _Name,
    share: Annotated[
        list[str] | None,
        typer.Option(
            "--share", help="Name or id of an agent outside it that it sees and may call; repeat it for several."
        ),
    ] = None,
    publish: Annotated[bool, typer.Option("--publish", help="Announce its agents to the mesh.")] = False,
    calls_at_once: Annotated[int, typer.Option("--calls-at-once", help="Most calls running.")] = 64,
    calls_per_s: Annotated[
        float, typer.Option("--calls-per-s", help="Most calls begun per second on average.")
    ] = 100.0,
    agents_max: Annotated[int, typer.Option("--agents", help="Most agents registered.")] = 100,
    events_mb: Annotated[int, typer.Option("--events-mb", help="Most megabytes of events stored per day.")] = 1024,
) -> None:
    """Make a tenant, or change what is settled for it; what is left out takes its default.

    \b
    agentmesh tenants set acme --share summarize --calls-at-once 8
    agentmesh keys add acme-ci --tenant acme --scope read --scope call

    A tenant sees its own agents and what is shared with it, and the calls that it made; nothing of others.
    """
    from agentmesh.cli.connect import connect
    from agentmesh.wire.access import TenantRequest

    request = TenantRequest(
        name=name,
        share=share or [],
        publish=publish,
        calls_at_once=calls_at_once,
        calls_per_s=calls_per_s,
        agents_max=agents_max,
        events_bytes_per_day=events_mb * 1024 * 1024,
    )
    with connect(out) as mesh:
        settled = mesh.save_tenant(request)
    if out.json:
        out.data(settled)
        return
    out.check("ok", settled.name, i18n.t("settled"))
    out.next(f"agentmesh keys add NAME --tenant {settled.name} --scope read --scope call")


def list_(out: Output) -> None:
    """List the tenants: what is settled for each and what it uses now.

    \b
    agentmesh tenants list
    """
    from agentmesh.cli.connect import connect
    from agentmesh.wire.access import TenantList

    with connect(out) as mesh:
        found = mesh.tenants()
    nothing = i18n.t("no tenants: everything here is the operator's")
    if not out.listing(found, TenantList(tenants=found), nothing, "agentmesh tenants set NAME"):
        return
    rows: list[list[Styled]] = [
        [
            (one.name, "name"),
            f"{one.agents}/{one.agents_max}",
            f"{one.calls_running}/{one.calls_at_once}",
            f"{one.calls_per_s:g}/s",
            f"{one.events_bytes_today >> 20}/{one.events_bytes_per_day >> 20} MB",
            "yes" if one.publish else "no",
            clip(" ".join(one.share), 60) or "-",
        ]
        for one in found
    ]
    out.table(["NAME", "AGENTS", "CALLS", "RATE", "EVENTS TODAY", "PUBLISHED", "SHARED WITH IT"], rows)


def remove(out: Output, name: _Name) -> None:
    """Remove a tenant with its keys, its agents and its running calls.

    \b
    agentmesh tenants remove acme
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        removed = mesh.remove_tenant(name)
    if out.json:
        out.data(removed)
    else:
        out.check("ok", removed.name, i18n.t("removed"))


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(invoke_without_command=True, help="Tenants: who else lives on this node.")(group(list_))
    for name, body in (("set", set_), ("list", list_), ("remove", remove)):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
