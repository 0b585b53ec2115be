"""``agentmesh status`` and ``agentmeshd status``."""

from __future__ import annotations

from typing import Any

from agentmesh.cli.output import Output
from agentmesh.cli.verb import single


def status(out: Output) -> None:
    """Show whether this machine's node runs, where, and what it knows.

    \b
    agentmesh status
    agentmesh status --json | jq .seed

    Ends with 0 when it runs and with 4 when it does not.
    """
    from agentmesh.cli.connect import connect, home_of
    from agentmesh.cli.output import age
    from agentmesh.daemon.lock import require_running
    from agentmesh.ids import short

    require_running(home_of(out))
    with connect(out) as mesh:
        view = mesh.status()
    if out.json:
        from agentmesh.cli.commands.up import as_dict

        out.data(as_dict(view))
        return
    out.check("ok", "node", f"{view.node_name}  {short(view.node_id)}")
    out.check(
        "ok",
        "daemon",
        f"pid {view.pid} · http://127.0.0.1:{view.port} · {view.version} · up {age(view.uptime_s)} · "
        f"{view.rss_bytes / 1_048_576:.0f} MB",
    )
    out.check(
        "ok", "mesh", f"{view.peers} peers · {view.agents} agents, {view.agents_local} here · {view.events} events"
    )
    ways = ", ".join(view.discovery) or "-"
    out.check("ok", "transport", f"{', '.join(view.transports) or '-'} · discovery {ways}")
    out.check("ok", "home", view.home)
    if view.seed:
        out.check("ok", "seed", view.seed)
    if not view.require_signed_registration:
        out.check("warn", "trust", "unsigned agents are admitted (require_signed_registration is off)")
    for warning in view.warnings:
        out.check("warn", "warning", warning)
    out.next("agentmesh discover" if view.agents else "agentmesh demo")


def build() -> Any:
    """Return the command."""
    return single(status)
