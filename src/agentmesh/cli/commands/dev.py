"""``agentmesh dev FILE``: serve the agents of a Python file, reloading it when it is saved."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentmesh.cli.output import Output
from agentmesh.cli.verb import single
from agentmesh.errors import UsageError


def dev(out: Output, file: Annotated[str, typer.Argument(help="A Python file with @agent functions.")]) -> int:
    """Serve the agents of a Python file and reload it on change.

    \b
    agentmesh dev hello.py

    Ctrl-C withdraws them.
    """
    import os
    from pathlib import Path

    from agentmesh.cli.connect import ensure_running, home_of

    path = Path(file)
    if not path.is_file():
        raise UsageError(f"{file} is not a file", code="usage.file", hint="agentmesh dev FILE.py")
    home = home_of(out)
    ensure_running(out, home)
    os.environ["AGENTMESH_HOME"] = str(home)
    from agentmesh.sdk.dev import run_dev

    return run_dev(path)


def build() -> Any:
    """Return the command."""
    return single(dev, own_timeout=True)
