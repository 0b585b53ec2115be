"""``agentmesh logs [-f]``: the daemon's log; works whether or not the daemon runs."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from agentmesh.cli.output import Output, printable
from agentmesh.cli.verb import single
from agentmesh.errors import RecordNotFound, UsageError

_POLL_S = 0.2
LINES_MAX = 100_000
_CHUNK_BYTES = 65_536


def logs(
    out: Output,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.")] = 50,
) -> None:
    """Show the daemon's log.

    \b
    agentmesh logs
    agentmesh logs -f
    """
    from agentmesh.cli.connect import home_of
    from agentmesh.daemon.launch import log_tail

    if not 0 <= lines <= LINES_MAX:
        raise UsageError(f"--lines {lines} is out of range", hint=f"--lines 0 to {LINES_MAX}")
    home = home_of(out)
    if not home.log.exists():
        raise RecordNotFound(
            "there is no log yet", code="log.missing", why=f"{home.log} does not exist", hint="agentmesh up"
        )
    for line in log_tail(home, lines):
        _show(out, line)
    if not follow:
        return
    with open(home.log, "rb") as file:
        file.seek(0, 2)
        held = b""
        while True:
            chunk = file.read(_CHUNK_BYTES)
            if not chunk:
                if home.log.exists() and home.log.stat().st_size < file.tell():
                    file.seek(0)  # a new daemon began a new file of the same name
                time.sleep(_POLL_S)
                continue
            *whole, held = (held + chunk).split(b"\n")
            for line in whole:
                _show(out, line.decode("utf-8", "replace"))


def _show(out: Output, line: str) -> None:
    if out.json:
        out.data({"line": line})
    else:
        out.raw(printable(line) + "\n")


def build() -> Any:
    """Return the command."""
    return single(logs)
