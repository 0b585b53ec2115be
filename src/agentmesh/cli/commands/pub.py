"""``agentmesh pub SUBJECT TEXT``: publish to all who follow a subject."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.given import payload
from agentmesh.cli.output import Output
from agentmesh.cli.verb import single


def pub(
    out: Output,
    subject: Annotated[str, typer.Argument(help="Words divided by dots, such as build.linux.done.")],
    text: Annotated[str | None, typer.Argument(help="What to say; '-' reads stdin.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Structured content, as JSON.")] = None,
    file: Annotated[str | None, typer.Option("--file", help="Read the text from a file.")] = None,
    sender: Annotated[str, typer.Option("--from", help="In the name of this local agent; the node if left out.")] = "",
    retain: Annotated[
        bool, typer.Option("--retain", help="Keep it as the last value, for those who follow later.")
    ] = False,
) -> None:
    """Publish to all who follow a subject, on every node.

    \b
    agentmesh pub build.linux.done "commit 4f2a is green"
    agentmesh pub sensors.room1 --data '{"celsius": 21.5}' --retain
    """
    from agentmesh.cli.connect import connect

    given = payload(text, file, data, f'agentmesh pub {subject} "text"')
    options: dict[str, Any] = {"data": given["data"]} if "data" in given else {}
    if sender:
        options["sender"] = sender
    with connect(out) as mesh:
        view = mesh.publish(subject, given.get("text"), retain=retain, **options)
    if out.json:
        out.data(view)
        return
    kept = f" · {view.topic} {view.offset}" if view.topic else ""
    heard = i18n.t("{count} subscribers here", count=view.subscribers)
    out.check("ok", "published", f"{view.subject}  {heard}{kept}")


def build() -> Any:
    """Return the command."""
    return single(pub)
