"""``agentmesh inbox``: read what came for an agent of this node; what was sent, and what was given up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.connect import agent_names
from agentmesh.cli.output import Output, age, clip, clock, printable
from agentmesh.cli.verb import single
from agentmesh.errors import UsageError

if TYPE_CHECKING:
    from agentmesh.sdk.sync import SyncMesh
    from agentmesh.wire.message_views import MessageView


def inbox(
    out: Output,
    agent: Annotated[
        str, typer.Argument(help="Agent of this node; the node itself if left out.", autocompletion=agent_names)
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for what comes, until Ctrl-C.")] = False,
    peek: Annotated[bool, typer.Option("--peek", help="Only look; nothing is taken out.")] = False,
    ack: Annotated[
        bool, typer.Option("--ack/--no-ack", help="Acknowledge what is shown; without, it comes again later.")
    ] = True,
    limit: Annotated[int, typer.Option("--limit", "-n", help="End after so many; 0 = all.", min=0)] = 0,
    sent: Annotated[bool, typer.Option("--sent", help="Show what this node sent and what still waits.")] = False,
    dead: Annotated[bool, typer.Option("--dead", help="Show messages that were given up, and why.")] = False,
    retry: Annotated[str, typer.Option("--retry", help="Send the dead letter with this id again.")] = "",
) -> None:
    """Read what came for an agent of this node, and take it out of the inbox.

    \b
    agentmesh inbox planner
    agentmesh inbox planner --follow --json
    agentmesh inbox --dead

    With --json there is one message per line.
    """
    from agentmesh.cli.connect import connect

    if sum((peek, follow, sent, dead, bool(retry))) > 1:
        raise UsageError(
            "--peek, --follow, --sent, --dead and --retry are different questions",
            code="usage.inbox",
            hint="agentmesh inbox --help",
        )
    with connect(out) as mesh:
        if retry:
            from agentmesh.cli.commands.send import show_sent

            show_sent(out, mesh.retry(retry))
        elif dead:
            _show_dead(out, mesh, limit or 100)
        elif sent:
            _show_mail(out, mesh)
        elif peek:
            found = mesh.peek(agent, limit=min(limit or 100, 1000))
            for view in found:
                _show(out, view)
            if not found:
                _empty(out)
        else:
            _read(out, mesh, agent, follow=follow, ack=ack, limit=limit)


def _read(out: Output, mesh: SyncMesh, agent: str, *, follow: bool, ack: bool, limit: int) -> None:
    count = 0
    # One at a time where the command ends early, so that nothing else is held back by its lease.
    fetched = min(16, limit or 16)
    with mesh.inbox(agent, wait_s=None if follow else 0, limit=fetched, auto_ack=ack, retry_for_s=86_400) as messages:
        for message in messages:
            _show(out, message.view)
            count += 1
            if limit and count >= limit:
                break
    if not count:
        _empty(out)


def _empty(out: Output) -> None:
    out.note(i18n.t("nothing waits"))


def _show(out: Output, view: MessageView) -> None:
    if out.json:
        out.data(view)
        return
    out.line(
        (clock(view.ts) + "  ", "dim"),
        (clip(view.sender_name or view.sender, 24), "name"),
        ("  " + view.kind if view.kind != "command" else "", "dim"),
        ("  " + clip(view.conversation, 24) if view.conversation else "", "dim"),
        ("  " + view.message_id, "dim"),
    )
    out.line("  " + printable(body_of(view.data, view.data_base64)).replace("\n", "\n  "))


def body_of(data: Any, data_base64: str | None) -> str:
    """Return a payload for a terminal."""
    if data_base64 is not None:
        return i18n.t("{count} bytes", count=len(data_base64) * 3 // 4)
    if isinstance(data, str):
        return data
    import msgspec

    return msgspec.json.encode(data).decode()


def _show_dead(out: Output, mesh: SyncMesh, limit: int) -> None:
    found = mesh.dead_letters(limit=min(limit, 1000))
    if not out.listing(found.letters, found, i18n.t("no message was given up"), "agentmesh inbox --sent"):
        return
    now_s = time.time()
    out.table(
        ["ID", "FROM", "TO", "AGO", "REASON", "WHY"],
        [
            [
                letter.message.message_id,
                clip(letter.message.sender_name or letter.message.sender, 24),
                clip(letter.message.recipient_name or letter.message.recipient, 24),
                age(max(0.0, now_s - letter.ended_ts / 1e6)),
                (letter.reason, "warn"),
                clip(letter.why, 60),
            ]
            for letter in found.letters
        ],
    )
    out.next(f"agentmesh inbox --retry {found.letters[0].message.message_id}")


def _show_mail(out: Output, mesh: SyncMesh) -> None:
    view = mesh.mail()
    if out.json:
        out.data(view)
        return
    ended = f"delivered {view.delivered} · expired {view.expired} · dead {view.dead}"
    out.check("ok", "sent", f"{view.sent}  {ended} · queued {view.queued}")
    out.check("ok", "received", f"{view.received}  waiting {view.inbox} · repeated {view.repeated}")
    out.check("ok", "carried", f"{view.carried}  {view.carried_bytes} bytes")
    if view.outgoing:
        out.table(
            ["ID", "TO", "STATE", "TRIES", "REASON"],
            [
                [one.message_id, clip(one.recipient_name or one.to, 40), one.state, str(one.tries), one.reason or "-"]
                for one in view.outgoing
            ],
        )


def build() -> Any:
    """Return the command."""
    return single(inbox)
