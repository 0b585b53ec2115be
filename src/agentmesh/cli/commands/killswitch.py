"""``agentmesh killswitch on|off|status``: stop every node that obeys this operator, and let them go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, clip
from agentmesh.cli.verb import built, group, new_app, verb

if TYPE_CHECKING:
    from agentmesh.cli.orders import Desk
    from agentmesh.wire.net_views import NetView
    from agentmesh.wire.order_views import OrdersView

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_POLL_S = 0.1
_Wait = Annotated[
    float, typer.Option("--wait", help="Seconds to wait until every node that answers says so; 0 = do not.")
]
_Local = Annotated[bool, typer.Option("--local", help="This node only.")]


def on(
    out: Output,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for everybody who is refused.")] = "",
    for_s: Annotated[
        int, typer.Option("--for", help="Seconds after which it ends by itself; 0 = when it is released.")
    ] = 0,
    local: _Local = False,
    wait_s: _Wait = 10.0,
) -> None:
    """Stop every node that obeys this operator: reads go on, calls and other writes are refused, what runs is ended.

    \b
    agentmesh killswitch on --reason "runaway spending"
    agentmesh killswitch on --local --for 600

    Works without a running daemon too: the node then starts stopped. A missing operator's key is made.
    """
    from agentmesh.cli.connect import home_of
    from agentmesh.cli.orders import desk
    from agentmesh.errors import UsageError
    from agentmesh.node.operator import stop_order

    if for_s < 0 or wait_s < 0:
        raise UsageError("--for and --wait are seconds, 0 or more")
    with desk(out) as node:
        raw = stop_order(home_of(out).operator_key, node.orders(), reason=reason, for_s=for_s, local=local)
        begin_s = time.monotonic()
        taken = node.take_order(raw)
        jti = taken.order.jti
        view = None if local else _wait(out, node, wait_s, lambda stops: jti in stops)
        _tell(out, node, view, begin_s, stopped=True, local=local)
        if taken.problem:
            out.note(("! ", "warn"), taken.problem)
    out.next("agentmesh killswitch off")


def off(out: Output, local: _Local = False, wait_s: _Wait = 10.0) -> None:
    """Let the nodes go on: end this operator's stop, and those of other operators that are in force here.

    \b
    agentmesh killswitch off
    """
    from agentmesh.cli.connect import home_of
    from agentmesh.cli.orders import desk
    from agentmesh.node.operator import resume_order

    with desk(out) as node:
        raw = resume_order(home_of(out).operator_key, node.orders(), local=local)
        begin_s = time.monotonic()
        taken = node.take_order(raw)
        view = None if local else _wait(out, node, wait_s, lambda stops: not stops)
        _tell(out, node, view, begin_s, stopped=False, local=local)
        if taken.problem:
            out.note(("! ", "warn"), taken.problem)
    out.next("agentmesh status")


def status(out: Output) -> None:
    """Show whether this node is stopped, by whom and why; also without a running daemon.

    \b
    agentmesh killswitch status
    agentmesh killswitch status --json | jq .read_only
    """
    from agentmesh.cli.orders import desk
    from agentmesh.ids import short

    with desk(out) as node:
        view = node.orders()
    if out.json:
        out.data(view)
        return
    if view.problem:
        out.check("fail" if view.read_only else "warn", "orders", view.problem)
    if view.read_only:
        out.check("warn", "kill switch", i18n.t("on: this node is read-only"))
    else:
        out.check("ok", "kill switch", i18n.t("off"))
    for one in view.orders:
        if one.jti in view.stops:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.iat))
            end = time.strftime(" → %H:%M:%S", time.localtime(one.until)) if one.until else ""
            out.check("warn", "stop", f"{clip(one.reason, 80) or '-'} · {short(one.operator)} · {since}{end}")
    obeyed = ", ".join(map(short, view.operators)) or "-"
    out.check("ok" if view.operators else "warn", "operators", obeyed)
    if view.read_only:
        out.next("agentmesh killswitch off")
    elif not view.operators:
        out.next("agentmesh operator init")


def _wait(out: Output, node: Desk, wait_s: float, holds: Callable[[list[str]], bool]) -> NetView | None:
    """Ask the mesh until every node that answers confirms, or the time is over; None if nobody can be asked."""
    begin_s = time.monotonic()
    waiting = out.waiting(i18n.t("waiting for the nodes"))
    while True:
        view = node.net()
        if view is None:
            return None
        view.map = [one for one in view.map if one.answered] + [one for one in view.map if not one.answered]
        confirmed = all(holds(one.stops) for one in view.map if one.answered)
        waited_s = time.monotonic() - begin_s
        if confirmed or waited_s >= wait_s:
            out.clear_status()
            return view
        waiting(waited_s)
        time.sleep(_POLL_S)


def _tell(out: Output, node: Desk, view: NetView | None, begin_s: float, *, stopped: bool, local: bool) -> None:
    """Say how many nodes confirmed, and which did not."""
    took_s = time.monotonic() - begin_s
    here: OrdersView = node.orders()
    answered = [one for one in view.map if one.answered] if view is not None else []
    confirmed = [one for one in answered if bool(one.stops) == stopped]
    silent = [one for one in view.map if not one.answered] if view is not None else []
    if out.json:
        out.data(
            {
                "read_only": here.read_only,
                "stops": here.stops,
                "asked": len(answered) + len(silent),
                "confirmed": len(confirmed),
                "others": [one.node_id for one in answered if one not in confirmed],
                "silent": [one.node_id for one in silent],
                "seconds": round(took_s, 3),
                "local": local or view is None,
            }
        )
        return
    mark = "ok" if here.read_only == stopped else "fail"
    if view is None:
        text = i18n.t("this node is read-only") if here.read_only else i18n.t("this node is not read-only")
        out.check(mark, "kill switch", text)
        if not local:
            out.note(i18n.t("the daemon does not run: other nodes hear of it when this one starts"))
        return
    head = i18n.t("{count} of {asked} nodes are read-only") if stopped else i18n.t("{count} of {asked} nodes go on")
    text = head.format(count=len(confirmed), asked=len(answered) + len(silent))
    out.check(mark if len(confirmed) == len(answered) else "warn", "kill switch", f"{text} · {took_s:.1f} s")
    for one in answered:
        if one not in confirmed:
            out.check("warn", clip(one.node_name, 12), i18n.t("did not confirm: it may obey other operators"))
    for one in silent:
        out.check("warn", clip(one.node_name, 12), i18n.t("does not answer: it hears of it when it is back"))


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    about = "Stop every node that obeys this operator, and let them go on."
    app.callback(invoke_without_command=True, help=about)(group(status))
    for name, body in (("on", on), ("off", off), ("status", status)):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
