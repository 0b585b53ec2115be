"""``agentmesh sub PATTERN…``: follow what is published."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.commands.inbox import body_of
from agentmesh.cli.output import Output, printable
from agentmesh.cli.verb import single
from agentmesh.errors import UsageError

if TYPE_CHECKING:
    from agentmesh.wire.message_views import CloudEventView


def sub(
    out: Output,
    patterns: Annotated[
        list[str], typer.Argument(help="Subjects: a.b; '*' is one word, '>' all further words. Quote them.")
    ],
    durable: Annotated[str, typer.Option("--durable", help="Read from this durable topic.")] = "",
    begin: Annotated[int, typer.Option("--from", help="From this offset of the durable topic on.", min=0)] = 0,
    since: Annotated[str, typer.Option("--since", help="From so long ago on, such as 5m; of a durable topic.")] = "",
    every: Annotated[bool, typer.Option("--all", help="From the oldest that is kept.")] = False,
    last: Annotated[bool, typer.Option("--last", help="First the last value of each subject.")] = False,
    group: Annotated[
        str, typer.Option("--group", help="As a member of this consumer group: its members share the work.")
    ] = "",
    count: Annotated[int, typer.Option("--count", "-n", help="End after so many; 0 = go on until Ctrl-C.", min=0)] = 0,
) -> None:
    """Follow what is published under some subjects, until Ctrl-C.

    \b
    agentmesh sub 'build.*' 'deploy.>'
    agentmesh sub '>' --durable jobs --since 5m --json

    With --json there is one CloudEvent per line. It goes on by itself after the node was restarted.
    """
    from agentmesh.cli.connect import connect

    if (begin or since or every or group) and not durable:
        raise UsageError(
            "--from, --since, --all and --group need --durable",
            code="usage.sub",
            why="only a durable topic keeps what was published",
            hint="agentmesh topic list",
        )
    options: dict[str, Any] = {"topic": durable, "offset": begin, "group": group}
    if since:
        from agentmesh.cli.commands.keys import seconds_in

        options["since"] = max(1.0, time.time() - seconds_in(since))
    if every or last:
        options["start"] = "all" if every else "last"
    seen = 0
    with connect(out) as mesh, mesh.subscribe(*patterns, retry_for_s=86_400, **options) as events:
        out.note(i18n.t("following; Ctrl-C ends"))
        for event in events:
            _show(out, event.view)
            seen += 1
            if count and seen >= count:
                break


def _show(out: Output, event: CloudEventView) -> None:
    if out.json:
        out.data(event)
        return
    if event.lost:
        out.note(("! ", "warn"), i18n.t("{count} were lost: this reader is too slow", count=event.lost))
    mark = "  " + i18n.t("retained") if event.retained else f"  {event.offset}" if event.offset else ""
    out.line((printable(event.subject), "name"), "  ", printable(body_of(event.data, event.data_base64)), (mark, "dim"))


def build() -> Any:
    """Return the command."""
    return single(sub)
