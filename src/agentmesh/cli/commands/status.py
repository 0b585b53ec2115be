"""``agentmesh status`` and ``agentmeshd status``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from agentmesh.cli import i18n
from agentmesh.cli.output import Output
from agentmesh.cli.verb import single

if TYPE_CHECKING:
    from agentmesh.wire.net_views import CutOffView
    from agentmesh.wire.views import StatusView


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
    if view.read_only:
        out.check("warn", "read-only", view.warnings[0] if view.warnings else i18n.t("on: this node is read-only"))
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
    if view.zone:
        out.check("ok", "zone", zone_text(view))
    if view.cut_off is not None:
        out.check("warn", "mesh", cut_off_text(view.cut_off))
    ways = ", ".join(view.discovery) or "-"
    out.check("ok", "transport", f"{', '.join(view.transports) or '-'} · discovery {ways}")
    if view.udp is not None:
        dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(view.udp.dropped.items()))
        counts = f"{view.udp.sent} sent, {view.udp.received} taken" + (f", dropped: {dropped}" if dropped else "")
        out.check("ok", "datagrams", f"{view.udp.address or '-'} · {counts}")
    if (spans := view.otel) is not None:
        counts = i18n.t(
            "{sent} spans sent, {lost} lost, {waiting} waiting",
            sent=spans.sent,
            lost=spans.failed + spans.dropped,
            waiting=spans.waiting,
        )
        out.check("warn" if spans.problem else "ok", "otel", f"{spans.endpoint} · {counts}")
    out.check("ok", "home", view.home)
    if view.seed:
        out.check("ok", "seed", view.seed)
    if not view.require_signed_registration:
        out.check("warn", "trust", "unsigned agents are admitted (require_signed_registration is off)")
    for warning in view.warnings[1 if view.read_only else 0 :]:
        out.check("warn", "warning", warning)
    out.next("agentmesh discover" if view.agents else "agentmesh demo")


def zone_text(view: StatusView) -> str:
    """Return the node's zone, its members, the long links and how large the mesh is, in one line."""
    text = i18n.t(
        "{zone} · members {members} · long links {links}", zone=view.zone, members=view.members, links=view.long_links
    )
    if view.network_size is not None:
        text += " · " + i18n.t("nodes in all: about {count}", count=view.network_size)
    return text


def cut_off_text(cut_off: CutOffView) -> str:
    """Return what was lost and since when, in one line."""
    since = time.strftime("%H:%M", time.localtime(cut_off.since))
    if cut_off.isolated:
        return i18n.t(
            "cut off from everybody: none of {known} known nodes answers since {since} "
            "(still trying; agents here go on working)",
            known=cut_off.known,
            since=since,
        )
    return i18n.t(
        "cut off: {lost} of {known} known nodes unreachable since {since} (still trying; agents here go on working)",
        lost=cut_off.lost,
        known=cut_off.known,
        since=since,
    )


def build() -> Any:
    """Return the command."""
    return single(status)
