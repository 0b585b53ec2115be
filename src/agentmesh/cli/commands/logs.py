"""``agentmesh logs [-f]``: the daemon's log; works whether or not the daemon runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli.output import Output, printable
from agentmesh.cli.verb import single
from agentmesh.errors import RecordNotFound, UsageError

if TYPE_CHECKING:
    from agentmesh.cli.log_lines import Line

LINES_MAX = 100_000


def logs(
    out: Output,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.")] = 50,
    level: Annotated[str, typer.Option("--level", help="Only this level and worse: debug, info, warning, error.")] = "",
    run: Annotated[str, typer.Option("--run", help="Only lines of this run, task or trace; a prefix will do.")] = "",
    agent: Annotated[str, typer.Option("--agent", help="Only calls from or to this agent (name or id).")] = "",
) -> None:
    """Show the daemon's log: with --json its lines as they are, else readable ones.

    \b
    agentmesh logs
    agentmesh logs -f --level warning
    agentmesh logs --agent summarize -n 20
    """
    from agentmesh.cli import log_lines
    from agentmesh.cli.connect import home_of

    if not 0 <= lines <= LINES_MAX:
        raise UsageError(f"--lines {lines} is out of range", hint=f"--lines 0 to {LINES_MAX}")
    if level and level.lower() not in log_lines.LEVELS:
        raise UsageError(f"there is no level {level[:40]!r}", hint="--level debug, info, warning or error")
    home = home_of(out)
    if not home.log.exists():
        raise RecordNotFound(
            "there is no log yet", code="log.missing", why=f"{home.log} does not exist", hint="agentmesh up"
        )
    wanted = log_lines.Wanted(level.lower(), run.removeprefix("run_").removeprefix("task_"), agent)
    follower = log_lines.Follower(home.log) if follow else None
    for line in log_lines.newest(home.log, lines, wanted, None if follower is None else follower.begin):
        _show(out, line)
    if follower is None:
        return
    for line in log_lines.follow(follower):
        if wanted.has(line):
            _show(out, line)


def _show(out: Output, line: Line) -> None:
    from agentmesh.cli.log_lines import shown

    if not out.json:
        out.raw("".join(printable(one) + "\n" for one in shown(line).split("\n")))
    elif line.fields is None:
        out.data({"line": line.text})
    else:
        out.raw(line.text + "\n")


def build() -> Any:
    """Return the command."""
    return single(logs)
