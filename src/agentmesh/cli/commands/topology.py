"""``agentmesh topology``: machines, agents and who called whom."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, Styled, age, clip
from agentmesh.cli.verb import single
from agentmesh.errors import UsageError

if TYPE_CHECKING:
    from agentmesh.wire.topology_views import EdgeView, StatsView, TopologyView

_WINDOW = re.compile(r"([0-9]{1,6})(s|m|h)?")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600}
#: Columns from which all of an edge is shown.
_WIDE = 110
_LOOKS = {"healthy": "ok", "unhealthy": "fail", "unknown": "dim", "gone": "dim"}
_STATES = {"alive": "ok", "suspect": "warn", "dead": "fail", "left": "dim", "unreached": "fail"}


def topology(
    out: Output,
    window: Annotated[str, typer.Option(help="Calls of this time, 1m to 60m.")] = "5m",
    source: Annotated[
        str, typer.Option(help="Only machines found so: mdns, static, dht, inbound, federation, wan.")
    ] = "",
    zone: Annotated[str, typer.Option(help="Only machines of this zone.")] = "",
    stats: Annotated[bool, typer.Option("--stats", help="Show this node in figures instead: the last hour.")] = False,
) -> None:
    """Show machines, their agents, and who called whom, as this node saw it.

    \b
    agentmesh topology
    agentmesh topology --window 60m --source mdns
    agentmesh topology --stats
    agentmesh topology --json | jq '.edges[] | select(.failures > 0)'

    This machine is always shown: each call that it saw began or ended here. The page Topology of the console shows the same
    rows, with the same count and digest.
    """
    from agentmesh.cli.connect import connect

    seconds = seconds_of(window)
    with connect(out) as mesh:
        figures = mesh.stats() if stats else None
        view = None if stats else mesh.topology(window_s=seconds, source=source, zone=zone)
    if out.json:
        from agentmesh.cli.commands.up import as_dict

        out.data(as_dict(figures if view is None else view))
    elif figures is not None:
        show_stats(out, figures)
    elif view is not None:
        show(out, view)


def seconds_of(window: str) -> int:
    """Return the seconds that a window names: "300", "300s", "5m", "1h". Raises UsageError."""
    found = _WINDOW.fullmatch(window.strip())
    if found is None:
        raise UsageError(f"{window[:20]!r} is no window", code="topology.window", hint="--window 5m")
    return int(found[1]) * _UNITS[found[2] or ""]


def show(out: Output, view: TopologyView) -> None:
    """Print the topology: machines, agents, edges, and the line that the console shows too."""
    names = {machine.node_id: machine.name for machine in view.machines}
    out.table(
        ["MACHINE", "STATE", "PATH", "RTT", "FOUND", "ZONE", "AGENTS"],
        [
            [
                (clip(machine.name, 24) or "-", "name"),
                (machine.state, _STATES[machine.state]),
                machine.path or "-",
                _ms(machine.rtt_ms),
                clip(", ".join(machine.sources), 32) or "-",
                clip(machine.zone, 24) or "-",
                str(machine.agents),
            ]
            for machine in view.machines
        ],
    )
    if view.agents:
        out.line("")
        out.table(
            ["AGENT", "MACHINE", "KIND", "HEALTH", "TRUST"],
            [
                [
                    (clip(agent.name, 32) or "-", "name"),
                    clip(names.get(agent.node_id, "-"), 24) or "-",
                    agent.kind,
                    (agent.health, _LOOKS[agent.health]),
                    f"{agent.trust_tier} {agent.trust_score:.2f}",
                ]
                for agent in view.agents
            ],
        )
    if view.edges:
        out.line("")
        head = ["CALLER", "CALLEE", "CALLS", "FAILED", "/MIN", "P50", "P99", "PATH"]
        is_wide = out.width >= _WIDE
        if is_wide:
            head += ["REFUSED", "RUNNING"]
        out.table(head, [_edge_row(edge, names, is_wide=is_wide) for edge in view.edges])
    out.line("")
    out.line((footer(view), "dim"))
    for text in missing(view):
        out.note(("! ", "warn"), text)
    if not view.agents:
        out.next("agentmesh demo --keep", i18n.t("no agents yet"))
    elif not view.edges:
        out.next('agentmesh run --to AGENT "…"', i18n.t("no calls in this time"))


def footer(view: TopologyView) -> str:
    """Return the line by which two readers compare what they see."""
    return (
        f"{len(view.machines)} machines · {len(view.agents)} agents · {len(view.edges)} edges · "
        f"{view.calls} calls in {age(view.covered_s)} · digest {view.digest}"
    )


def missing(view: TopologyView) -> list[str]:
    """Return what is not shown."""
    rows = (("machines", view.machines_more), ("agents", view.agents_more), ("edges", view.edges_more))
    return [
        i18n.t("{count} more {rows} are not shown", count=count, rows=i18n.t(what)) for what, count in rows if count
    ]


def _edge_row(edge: EdgeView, names: dict[str, str], *, is_wide: bool) -> list[Styled]:
    caller = i18n.t("you") if edge.caller_kind == "you" else edge.caller_name
    if edge.caller_kind == "node":
        caller = "@" + caller
    elif edge.caller_kind == "agent" and (place := names.get(edge.caller_node)):
        caller = f"{caller}@{place}"
    callee = f"{edge.callee_name}@{names.get(edge.callee_node, '-')}"
    row: list[Styled] = [
        (clip(caller, 32), "name"),
        (clip(callee, 32), "name"),
        str(edge.calls),
        (str(edge.failures), "fail" if edge.failures else "plain"),
        f"{edge.per_minute:.1f}",
        _ms(edge.p50_ms),
        _ms(edge.p99_ms),
        (edge.path or "-", "warn" if edge.path == "relayed" else "plain"),
    ]
    return [*row, str(edge.refusals), str(edge.running)] if is_wide else row


def show_stats(out: Output, view: StatsView) -> None:
    """Print the node in figures."""
    calls, failures = view.hour.calls, view.hour.failures
    out.check("ok", "agents", f"{view.agents} · {i18n.t('{count} here', count=view.agents_local)}")
    out.check("ok", "machines", f"{view.machines} · {i18n.t('{count} answer', count=view.machines_alive)}")
    now = i18n.t(
        "{rate} per minute · {running} under way", rate=f"{view.calls_per_minute:g}", running=view.calls_running
    )
    out.check("ok", "calls", f"{now} · {i18n.t('{count} in the last hour', count=calls)}")
    out.check("ok", "runs", i18n.t("{rate} per minute", rate=f"{view.runs_per_minute:g}"))
    out.check("warn" if failures else "ok", "failures", i18n.t("{count} in the last hour", count=failures))
    refused = sum(reason.count for reason in view.refusals)
    reasons = ", ".join(f"{reason.count} {reason.code}" for reason in view.refusals[:8])
    text = i18n.t("{count} in the last hour", count=refused)
    out.check("warn" if refused else "ok", "refusals", text + (f": {reasons}" if reasons else ""))
    for agent in view.failing:
        out.check("fail", "failing", f"{clip(agent.name, 32)}@{clip(agent.node_name, 24)}  {clip(agent.detail, 80)}")
    if view.failing_more:
        out.note(
            ("! ", "warn"), i18n.t("{count} more {rows} are not shown", count=view.failing_more, rows=i18n.t("agents"))
        )


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1000:.1f} s" if value >= 10_000 else f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"


def build() -> Any:
    """Return the command."""
    return single(topology)
