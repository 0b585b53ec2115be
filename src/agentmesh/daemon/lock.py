"""One daemon per home: the lock, and the note about who holds it.

``daemon.lock`` is locked with flock, so a crash frees it at once and there is no stale lock to clean. Its holder writes its
process id and the start time of that process into it: a pid alone may have been given to a stranger since. ``daemon.json``
says where the running daemon answers; it is a note, the lock is the truth.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from agentmesh.daemon.home import Home, storage_error, write_atomic
from agentmesh.errors import NoRoute, StateError

_NOTE_BYTES_MAX = 16 * 1024
_GLANCES_MAX, _GLANCE_S = 25, 0.01
_T = TypeVar("_T")


class RunFile(msgspec.Struct, kw_only=True):
    """Content of ``daemon.json``.

    Attributes:
        pid: Process id of the daemon.
        port: HTTP port on loopback.
        node_id: did:key of the node.
        version: AgentMesh version that runs.
        started: Unix seconds.
        name: Node name.
    """

    pid: int
    port: int
    node_id: str
    version: str
    started: float
    name: str = ""


class Holder(msgspec.Struct, kw_only=True):
    """Who holds the lock: pid and a token that changes when the pid is given to another process."""

    pid: int
    process_start: str


def process_start(pid: int) -> str | None:
    """Return a token for when a process started, None if there is no such process.

    Linux: ticks since boot (``/proc/PID/stat`` field 22). Elsewhere: the start time as ``ps`` prints it.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        import subprocess  # slow to load, and not needed on Linux

        shown = subprocess.run(  # noqa: S603
            ["ps", "-o", "lstart=", "-p", str(pid)],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        return shown.stdout.strip() or None
    except (OSError, ProcessLookupError):
        return None
    # The command name stands in parentheses and may itself hold spaces and parentheses: split after the last one.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


class DaemonLock:
    """Hold the home's lock for as long as the daemon lives.

    Raises (from ``acquire``):
        StateError: code "daemon.running", with the holder's pid. No state changed.
        Full: the lock file cannot be opened. No state changed.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock or raise; never waits."""
        try:
            descriptor = os.open(self._home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise storage_error(error, self._home.lock) from error
        if not self._lock(descriptor):
            os.close(descriptor)
            holder = read_holder(self._home)
            raise StateError(
                f"the daemon of {self._home} is already running",
                code="daemon.running",
                why=f"process {holder.pid} holds {self._home.lock}" if holder else f"{self._home.lock} is locked",
                hint="agentmesh status",
                extra={"pid": holder.pid if holder else None},
            )
        note = Holder(pid=os.getpid(), process_start=process_start(os.getpid()) or "")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(note), 0)
        self._descriptor = descriptor

    def _lock(self, descriptor: int) -> bool:
        """Lock without waiting for a daemon, but outlast a glance of ``is_held``, which locks for microseconds."""
        for _ in range(_GLANCES_MAX):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if read_holder(self._home) is not None and live_holder(self._home) is not None:
                    return False
                time.sleep(_GLANCE_S)
            else:
                return True
        return False

    def release(self) -> None:
        """Give the lock back. Idempotent; the file stays, so that no two processes ever lock different files."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> DaemonLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_held(home: Home) -> bool:
    """Say whether a live process holds the home's lock; touches nothing."""
    try:
        descriptor = os.open(home.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_holder(home: Home) -> Holder | None:
    """Return who wrote the lock note last, None if it cannot be read."""
    return _read(home.lock, Holder)


def live_holder(home: Home) -> Holder | None:
    """Return the holder if the lock is held and the process that wrote the note is still the same one; else None."""
    if not is_held(home):
        return None
    holder = read_holder(home)
    if holder is None or holder.pid <= 1 or process_start(holder.pid) != holder.process_start:
        return None
    return holder


def read_runfile(home: Home) -> RunFile | None:
    """Return ``daemon.json``, None if there is none or it makes no sense."""
    return _read(home.runfile, RunFile)


def running(home: Home) -> RunFile | None:
    """Return where the live daemon of this home answers; None while none runs or it is still starting."""
    holder = live_holder(home)
    note = read_runfile(home)
    return note if holder is not None and note is not None and note.pid == holder.pid else None


def require_running(home: Home) -> RunFile:
    """Return the running daemon of a home.

    Raises:
        NoRoute: code "daemon.unreachable"; none runs.
        StateError: code "daemon.starting"; it holds the lock but does not answer yet.
    """
    run = running(home)
    if run is not None:
        return run
    if is_held(home):
        raise StateError("the daemon is still starting", code="daemon.starting", hint="agentmesh status")
    raise NoRoute(
        "the daemon is not running",
        code="daemon.unreachable",
        why=f"nothing holds {home.lock}",
        hint="agentmesh up",
    )


def write_runfile(home: Home, note: RunFile) -> None:
    """Write ``daemon.json`` atomically. Raises Full."""
    write_atomic(home.runfile, msgspec.json.encode(note))


def remove_runfile(home: Home) -> None:
    """Remove ``daemon.json`` if it is ours; another process's note stays."""
    note = read_runfile(home)
    if note is not None and note.pid == os.getpid():
        with contextlib.suppress(OSError):
            home.runfile.unlink()


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(_NOTE_BYTES_MAX), type=kind)
    except (OSError, msgspec.DecodeError, RecursionError):
        return None
