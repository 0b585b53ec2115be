"""Run a command tree: the one door through which every error of the CLI leaves, with its exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from agentmesh.cli import exits, i18n
from agentmesh.cli.output import Output
from agentmesh.errors import EXIT_INTERRUPTED, EXIT_OK, MeshError


def run_tree(build: Callable[[], Any], program: str, args: list[str]) -> int:
    """Run one command line and return the exit code; never raises.

    Errors are shown in the manner the command line asked for, even when it could not be parsed.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a sign gets a question mark, not a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # pyright: ignore
    out = _first_look(args)
    try:
        result = build().main(args=args, prog_name=program, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else EXIT_OK
    except typer.Exit as done:
        return done.exit_code
    except MeshError as error:
        return out.problem(error)
    except (KeyboardInterrupt, typer.Abort):
        out.note(i18n.t("interrupted"))
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as done:
        # Typer ends so after it has printed a completion script, and with 1 when the reader of our output has gone.
        if isinstance(done.__context__, BrokenPipeError):
            return _reader_gone()
        return done.code if isinstance(done.code, int) else EXIT_OK
    except Exception as error:  # noqa: BLE001 - one of the three doors: nothing may leave as a bare traceback
        known = exits.from_click(error)
        if known is not None:
            return out.problem(known, trace=error)
        return out.problem(exits.bug(error), trace=error)


def _reader_gone() -> int:
    """End well when nobody reads on, as in ``agentmesh discover | head -1``; keep Python from telling it at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_OK


def _first_look(args: list[str]) -> Output:
    """Read the flags that shape error output straight from the command line, before and whether or not it parses."""
    own = args[: args.index("--")] if "--" in args else args
    lang, home = (_value_of(own, flag) for flag in ("--lang", "--home"))
    verbose = sum(len(a) - 1 for a in own if a.startswith("-v") and set(a[1:]) == {"v"}) + own.count("--verbose")
    return Output(
        json="--json" in own,
        quiet="-q" in own or "--quiet" in own,
        verbose=verbose,
        color="--no-color" not in own,
        lang=i18n.use(lang if lang in i18n.LANGUAGES else None),
        home=home,
    )


def _value_of(args: list[str], flag: str) -> str | None:
    """Return what follows ``--flag`` or ``--flag=``, None if it is not there."""
    after = next((args[i + 1] for i, a in enumerate(args[:-1]) if a == flag), None)
    return next((a.split("=", 1)[1] for a in args if a.startswith(flag + "=")), after)
