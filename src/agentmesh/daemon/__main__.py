"""``python -m agentmesh.daemon``: the daemon's process. Reads the flags, takes the lock, runs ``app.serve``.

Its flags are those of ``agentmeshd start``, drawn from the same table. It says what went wrong in the three lines of the
CLI on stderr (which is daemon.log when it was started in the background) and ends with the published exit codes.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from agentmesh.daemon.lock import DaemonLock, remove_runfile
from agentmesh.daemon.settings import Loaded, load, table
from agentmesh.errors import EXIT_BUG, EXIT_INTERRUPTED, MeshError, row_of


def parser() -> argparse.ArgumentParser:
    """Return the parser of the daemon's flags, one per setting."""
    out = argparse.ArgumentParser(prog="agentmeshd", description="Run one AgentMesh node.", allow_abbrev=False)
    for row in table():
        text = row.knob.effect.replace("%", "%%")
        if row.default is True or row.default is False:
            out.add_argument(row.flag, dest=row.key, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif row.many:
            out.add_argument(row.flag, dest=row.key, action="append", default=None, help=text)
        else:
            out.add_argument(row.flag, dest=row.key, default=None, help=text)
    out.add_argument("--profile", default=None, help="Lay [profile.NAME] of config.toml over it.")
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the daemon until it is asked to stop; return the exit code."""
    given: dict[str, Any] = vars(parser().parse_args(argv))
    profile = given.pop("profile")
    try:
        loaded = load(given, profile=profile)
        home = loaded.settings.paths
        home.prepare()
        with DaemonLock(home):
            try:
                return _run(loaded, profile)
            finally:
                remove_runfile(home)
    except MeshError as error:
        print(f"error[{error.code}] {error.detail}", file=sys.stderr)
        if error.why:
            print(f"why: {error.why}", file=sys.stderr)
        if error.hint:
            print(f"next: {error.hint}", file=sys.stderr)
        return row_of(error).exit or EXIT_BUG
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _run(loaded: Loaded, profile: str | None) -> int:
    """Run the composition root on uvloop where it is installed, else on asyncio."""
    import asyncio

    from agentmesh.daemon.app import serve

    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(serve(loaded, profile))


if __name__ == "__main__":
    sys.exit(main())
