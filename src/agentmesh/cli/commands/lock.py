"""``agentmesh lock NAME -- COMMAND``: run a command while holding a lock; list, show and release locks."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, clip
from agentmesh.cli.verb import built, group, new_app, verb
from agentmesh.errors import MeshError, StateError, UsageError

if TYPE_CHECKING:
    from agentmesh.sdk.sync_state import SyncLock
    from agentmesh.wire.state_views import LockView

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_Name = Annotated[str, typer.Argument(help="Name of the lock.")]
#: The command finds the fencing token here.
TOKEN_VARIABLE = "AGENTMESH_LOCK_TOKEN"  # noqa: S105 - a fencing token is no secret
_POLL_S = 0.1


class _RunGroup(typer.core.TyperGroup):
    """A group that takes the name of a lock in place of a command: 'lock x -- make' is 'lock run x -- make'."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; what is none is a lock."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


def run(
    out: Output,
    name: _Name,
    command: Annotated[list[str], typer.Argument(help="What to run while the lock is held, after '--'.")],
    ttl: Annotated[
        float, typer.Option("--ttl", help="Seconds after which it ends if this program dies.", min=1, max=3600)
    ] = 30.0,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for it.", min=0, max=3600)] = 0.0,
) -> int:
    """Run a command while holding a lock; ends with the command's exit code.

    \b
    agentmesh lock nightly --wait 60 -- make report

    The command finds the fencing token in AGENTMESH_LOCK_TOKEN. If the lock is lost the command gets SIGTERM, and this
    ends with 2: hand the token to whatever the lock protects, so that it can refuse a holder that is late.
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        lock = mesh.lock(name, ttl_s=ttl, wait_s=wait)
        try:
            lock.acquire()
            out.note(i18n.t("holding {name}, fencing token {token}", name=name, token=lock.token))
            return _run(out, lock, command)
        finally:
            if lock.view.held:
                with contextlib.suppress(MeshError):
                    lock.release()


def _run(out: Output, lock: SyncLock, command: list[str]) -> int:
    """Run the command and renew the lock; return its exit code. Raises StateError (code "lock.lost")."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's own command, which is the point
            command, env={**os.environ, TOKEN_VARIABLE: str(lock.token)}
        )
    except OSError as error:
        raise UsageError(
            f"cannot run {command[0][:80]!r}", code="lock.command", why=str(error), hint="agentmesh lock --help"
        ) from error
    lost: MeshError | None = None
    kept_s = time.monotonic()
    while (code := process.poll()) is None:
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            pass
        except KeyboardInterrupt:
            process.wait()
            raise
        if lost is None and time.monotonic() - kept_s >= lock.renew_after_s:
            lost, kept_s = _renew(lock, kept_s)
            if lost is not None:
                out.note(("! ", "warn"), i18n.t("the lock is lost; the command gets SIGTERM"))
                process.terminate()
    if lost is not None:
        raise lost
    return code if code >= 0 else 128 - code


def _renew(lock: SyncLock, kept_s: float) -> tuple[MeshError | None, float]:
    """Renew; return why it is lost, if it is, and when it was kept last."""
    asked_s = time.monotonic()
    try:
        lock.renew()
    except StateError as error:
        return error, kept_s
    except MeshError as error:
        return _if_over(lock, kept_s, error), kept_s
    return None, asked_s


def _if_over(lock: SyncLock, kept_s: float, error: MeshError) -> MeshError | None:
    """Say that the lock is lost if it could not be renewed for as long as it lives."""
    if time.monotonic() - kept_s < lock.renew_after_s * 3:
        return None
    return StateError("the lock could not be renewed in time", code="lock.lost", why=error.detail)


def list_(out: Output, prefix: Annotated[str, typer.Argument(help="Only names that begin so.")] = "") -> None:
    """List locks that are held.

    \b
    agentmesh lock list
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        found = mesh.locks(prefix)
    if out.listing(found.locks, found, i18n.t("no lock is held"), "agentmesh lock NAME -- COMMAND"):
        rows = [[one.name, clip(one.holder, 40), str(one.token), f"{one.ttl_s:.0f} s"] for one in found.locks]
        out.table(["LOCK", "HOLDER", "TOKEN", "LEFT"], rows)


def show(out: Output, name: _Name) -> None:
    """Show who holds a lock.

    \b
    agentmesh lock show nightly
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        _tell(out, mesh.show_lock(name))


def release(
    out: Output,
    name: _Name,
    holder: Annotated[str, typer.Option("--holder", help="Whose hold ends, as 'lock show' names it.")],
) -> None:
    """Give a lock back in the name of its holder, if that one is gone for good.

    \b
    agentmesh lock release nightly --holder HOLDER
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        _tell(out, mesh.release_lock(name, holder))


def _tell(out: Output, view: LockView) -> None:
    if out.json:
        out.data(view)
    elif view.held:
        out.check("ok", "held", f"{view.name}  {clip(view.holder, 60)} · token {view.token} · {view.ttl_s:.0f} s")
    else:
        out.check("ok", "free", view.name)


def build() -> Any:
    """Return the group."""
    app = new_app(cls=_RunGroup, context_settings=_OPTIONS)
    about = "Hold a lock while a command runs: agentmesh lock NAME -- COMMAND."
    app.callback(invoke_without_command=True, help=about)(group(list_))
    for name, body in (("run", run), ("list", list_), ("show", show), ("release", release)):
        app.command(name, context_settings=_OPTIONS)(verb(body))
    return built(app)
