"""``agentmeshd start``, ``agentmesh serve``: the daemon in the foreground (service managers) or, with ``-b``, in the background.

Its flags are the settings table: one flag per row.
"""

from __future__ import annotations

import inspect
import os
import sys
from typing import Annotated, Any

import typer

from agentmesh.cli.output import Output
from agentmesh.cli.verb import single


def start(out: Output, background: bool = False, **given: Any) -> int:
    """Run this machine's node.

    \b
    agentmeshd start                       in the foreground; Ctrl-C or SIGTERM ends it
    agentmeshd start -b --port 7000        in the background
    agentmesh serve --federation.seeds=https://mesh.partner.example:7443

    A flag beats the environment (AGENTMESH_*), which beats config.toml: 'agentmesh config explain' shows each value.
    """
    flags = {key: value for key, value in given.items() if value not in (None, [], ())}
    if background:
        from agentmesh.cli.commands.up import show_started

        show_started(out, flags)
        return 0
    return _foreground(out, flags)


def _foreground(out: Output, flags: dict[str, Any]) -> int:
    """Become the daemon: same process id, so that a service manager watches the right one."""
    from agentmesh.daemon.launch import daemon_argv, daemon_environ
    from agentmesh.daemon.settings import load

    flags = {**flags, **({"home": out.home} if out.home else {})}
    load(flags, profile=out.profile or None)  # fail here, in the manner of the CLI, rather than after the exec
    argv = daemon_argv(flags) + (["--profile", out.profile] if out.profile else [])
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(argv[0], argv, daemon_environ())  # noqa: S606 - our own interpreter and module


def _with_settings(body: Any) -> Any:
    """Give the body one flag per row of the settings table."""
    from agentmesh.daemon.knob_table import table

    parameters = list(inspect.signature(body).parameters.values())
    own = [
        parameters[0].replace(annotation=Output),
        inspect.Parameter(
            "background",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, typer.Option("--background", "-b", help="Start it and return when it answers.")],
        ),
    ]
    for row in table():
        if row.key == "home":
            continue
        names = [row.flag]
        kind: Any = str | None
        if row.default is True or row.default is False:
            kind, names = bool | None, [f"{row.flag}/--no-{row.flag[2:]}"]
        elif row.many:
            kind = list[str] | None
        option = typer.Option(*names, help=row.knob.effect, show_default=False)
        own.append(
            inspect.Parameter(row.key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])
        )

    def command(out: Output, **given: Any) -> int:
        return body(out, **given)

    command.__signature__ = inspect.Signature(own)  # pyright: ignore[reportFunctionMemberAccess]
    command.__doc__ = body.__doc__
    return command


def build() -> Any:
    """Return the command."""
    return single(_with_settings(start), own_timeout=True)
