"""What every command shares: the global flags, the error door and how a function becomes a command.

    @verb
    def show(out: Output, agent: Annotated[str, typer.Argument(help="…")]) -> None: ...

The function gets an ``Output`` built from the global flags; its other parameters are its own flags. The flags work before
and after the verb alike.
"""

from __future__ import annotations

import contextlib
import inspect
import signal
import threading
from collections.abc import Callable, Generator
from typing import Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output
from agentmesh.cli.plain import read_plainly
from agentmesh.errors import Timeout, UsageError

TIMEOUT_MIN_S, TIMEOUT_MAX_S = 0.05, 86_400.0


def _flag(kind: Any, *names: str, help: str, default: Any, **options: Any) -> tuple[Any, Any]:
    return Annotated[kind, typer.Option(*names, help=help, **options)], default


#: The global flags: name → (annotation, default). The same on every command.
GLOBALS: dict[str, tuple[Any, Any]] = {
    "json_": _flag(bool, "--json", help="One JSON object on stdout; one per line for streams.", default=False),
    "quiet": _flag(bool, "--quiet", "-q", help="Only data and errors.", default=False),
    "verbose": _flag(
        int, "--verbose", "-v", help="Say more; -vv shows tracebacks.", default=0, count=True, show_default=False
    ),
    "no_color": _flag(bool, "--no-color", help="No colour (also NO_COLOR).", default=False),
    "home": _flag(str | None, "--home", help="Home directory of the node [$AGENTMESH_HOME].", default=None),
    "profile": _flag(str | None, "--profile", "-p", help="Profile of config.toml [$AGENTMESH_PROFILE].", default=None),
    "timeout": _flag(float | None, "--timeout", help="Seconds that the command may take.", default=None),
    "yes": _flag(bool, "--yes", "-y", help="Answer yes to every question.", default=False),
    "no_autostart": _flag(bool, "--no-autostart", help="Never offer to start the daemon.", default=False),
    "lang": _flag(str | None, "--lang", help="Language: en or zh [$LANG].", default=None),
}

Body = Callable[..., int | None]


def verb(body: Body, *, own_timeout: bool = False) -> Callable[..., None]:
    """Give a command the global flags; its return value is the exit code (None is 0).

    ``--timeout`` ends the command from outside unless ``own_timeout`` says that it minds the flag itself.
    """
    own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
    wants_context = bool(own) and own[0].annotation is typer.Context

    def command(ctx: typer.Context, **given: Any) -> None:
        flags = {name: given.pop(name) for name in GLOBALS}
        out = remember(ctx, flags)
        if wants_context:
            given[own[0].name] = ctx
        with _deadline(None if own_timeout else out.timeout_s):
            code = body(out, **given)
        if code:
            raise typer.Exit(code)

    hidden = own[1:] if wants_context else own
    _sign(command, hidden, body)
    return command


def group(body: Callable[..., None] | None = None) -> Callable[..., None]:
    """Give a group the global flags; ``body(out)`` runs when no command of the group is named, else its help."""

    def callback(ctx: typer.Context, **given: Any) -> None:
        out = remember(ctx, given)
        if ctx.invoked_subcommand is None:
            if body is None:
                typer.echo(ctx.get_help())
            else:
                body(out)

    _sign(callback, [], body or callback)
    return callback


def remember(ctx: typer.Context, flags: dict[str, Any]) -> Output:
    """Lay flags over those given further left (``agentmesh --json status``) and return the output they ask for."""
    before: dict[str, Any] = ctx.obj.get("flags", {}) if isinstance(ctx.obj, dict) else {}  # pyright: ignore
    merged = {**before, **{k: v for k, v in flags.items() if v not in (None, False, 0)}}
    ctx.obj = {"flags": merged}
    lang = merged.get("lang")
    if lang and lang not in i18n.LANGUAGES:
        raise UsageError(f"unknown language {lang[:20]!r}", hint="--lang en or --lang zh")
    if merged.get("timeout") is not None and not TIMEOUT_MIN_S <= merged["timeout"] <= TIMEOUT_MAX_S:
        raise UsageError(
            f"--timeout {merged['timeout']:g} is out of range", hint=f"--timeout {TIMEOUT_MIN_S:g} to {TIMEOUT_MAX_S:g}"
        )
    return output_of(merged)


def output_of(flags: dict[str, Any]) -> Output:
    """Build the output for a set of global flags and switch to its language."""
    return Output(
        json=bool(flags.get("json_")),
        quiet=bool(flags.get("quiet")),
        verbose=int(flags.get("verbose") or 0),
        color=not flags.get("no_color"),
        lang=i18n.use(flags.get("lang")),
        home=flags.get("home"),
        profile=flags.get("profile") or "",
        timeout_s=flags.get("timeout"),
        yes=bool(flags.get("yes")),
        autostart=not flags.get("no_autostart"),
    )


def _sign(function: Any, own: list[inspect.Parameter], documented: Any) -> None:
    """Give a wrapper the signature from which Typer reads the flags."""
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in GLOBALS.items()
    ]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    function.__signature__ = inspect.Signature([context, *own, *shared])
    function.__annotations__ = {"ctx": typer.Context, **{p.name: p.annotation for p in [*own, *shared]}}
    function.__doc__ = documented.__doc__


@contextlib.contextmanager
def _deadline(seconds: float | None) -> Generator[None]:
    """Raise Timeout in the body once the time is over (SIGALRM, so main thread only)."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: Any) -> None:
        raise Timeout(
            f"the command took longer than {seconds:g} s", why="--timeout ended it", hint="a larger --timeout"
        )

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def new_app(**options: Any) -> typer.Typer:
    """Return a Typer without what we do ourselves: completion flags, tracebacks, boxes."""
    options = {"add_completion": False, **options}
    return typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, **options)


def built(app: typer.Typer) -> Any:
    """Return the command or group that a Typer describes."""
    return read_plainly(typer.main.get_command(app))


def single(body: Body, *, own_timeout: bool = False) -> Any:
    """Return one function as a command."""
    app = new_app()
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(verb(body, own_timeout=own_timeout))
    return built(app)
