"""``agentmesh send TO TEXT``: send a message, which waits until it is delivered or its time is over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from agentmesh.cli import i18n
from agentmesh.cli.connect import agent_names
from agentmesh.cli.given import payload
from agentmesh.cli.output import Output, clip
from agentmesh.cli.verb import single
from agentmesh.errors import Timeout, UsageError

if TYPE_CHECKING:
    from agentmesh.sdk.sync import SyncMesh
    from agentmesh.wire.message_views import SentView

_POLL_S = 0.2
_ENDED = ("delivered", "read", "expired", "dead")


def send(
    out: Output,
    to: Annotated[
        str, typer.Argument(help="Agent: name, name@node or id; group:NAME; '*' = all.", autocompletion=agent_names)
    ],
    text: Annotated[str | None, typer.Argument(help="What to say; '-' reads stdin.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Structured content, as JSON.")] = None,
    file: Annotated[str | None, typer.Option("--file", help="Read the text from a file.")] = None,
    sender: Annotated[str, typer.Option("--from", help="In the name of this local agent; the node if left out.")] = "",
    reply_to: Annotated[str, typer.Option("--reply-to", help="Id of the message that this one answers.")] = "",
    conversation: Annotated[
        str, typer.Option("--conversation", help="Messages of one conversation arrive in order.")
    ] = "",
    kind: Annotated[
        str, typer.Option("--kind", help="command, query, response, broadcast, heartbeat or state-sync.")
    ] = "command",
    priority: Annotated[str, typer.Option("--priority", help="low, normal, high or critical.")] = "normal",
    delivery: Annotated[
        str, typer.Option("--delivery", help="at-most-once, at-least-once or effectively-once.")
    ] = "at-least-once",
    ttl: Annotated[
        str, typer.Option("--ttl", help="Give up after so long, such as 90s or 2d; a day if left out.")
    ] = "",
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait until it is delivered.", min=0.0)] = 0.0,
) -> None:
    """Send a message; it is kept until the recipient's node has it, also while one of the two is away.

    \b
    agentmesh send planner "the build is green"
    agentmesh send group:team --data '{"done": 3}' --from worker

    With --wait it ends with 7 if the message was not delivered in time; the message goes on.
    """
    from agentmesh.cli.connect import connect
    from agentmesh.wire.message_views import DeliveryName, MessageKind, PriorityName

    given = payload(text, file, data, f'agentmesh send {to} "text"')
    options: dict[str, Any] = {
        "kind": choice("--kind", kind, get_args(MessageKind)),
        "priority": choice("--priority", priority, get_args(PriorityName)),
        "delivery": choice("--delivery", delivery, get_args(DeliveryName)),
    }
    if ttl:
        from agentmesh.cli.commands.keys import seconds_in

        options["ttl_s"] = seconds_in(ttl)
    if sender:
        options["sender"] = sender
    if "data" in given:
        options["data"] = given["data"]
    with connect(out) as mesh:
        view = mesh.send(to, given.get("text"), conversation=conversation, reply_to=reply_to, **options)
        view = _wait(out, mesh, view, wait)
    show_sent(out, view)
    if wait and view.state not in ("delivered", "read"):
        raise Timeout(
            f"the message is {view.state}, not delivered, after {wait:g} s",
            code="mail.waiting",
            why=view.reason or None,
            hint="agentmesh inbox --sent",
        )


def choice(flag: str, given: str, known: tuple[str, ...]) -> str:
    """Return what was given if it is one of the known words. Raises UsageError."""
    if given not in known:
        raise UsageError(f"{flag} is one of {', '.join(known)}", code="usage.choice", hint=f"{flag} {known[0]}")
    return given


def show_sent(out: Output, view: SentView) -> None:
    """Print what became of a message."""
    if out.json:
        out.data(view)
        return
    mark = "fail" if view.state in ("expired", "dead") else "ok"
    copies = f" · {i18n.t('{count} copies', count=view.copies)}" if view.copies > 1 else ""
    reason = f" · {view.reason}" if view.reason else ""
    out.check(mark, view.state, f"{clip(view.recipient_name or view.to, 60)}  {view.message_id}{copies}{reason}")


def _wait(out: Output, mesh: SyncMesh, view: SentView, wait_s: float) -> SentView:
    begin_s = time.monotonic()
    waiting = out.waiting(i18n.t("waiting until it is delivered"))
    while view.state not in _ENDED and (waited_s := time.monotonic() - begin_s) < wait_s:
        waiting(waited_s)
        time.sleep(min(_POLL_S, max(0.0, wait_s - waited_s)))
        view = mesh.sent(view.message_id)
    out.clear_status()
    return view


def build() -> Any:
    """Return the command."""
    return single(send)
