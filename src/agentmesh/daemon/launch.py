"""Start, stop and look at the daemon from outside, and bind its port from inside.

``start`` spawns ``python -m agentmesh.daemon`` detached and waits until it answers; ``stop`` asks the verified holder of the
lock to end. The port is 6374 on loopback, or the next free one, which is named to the person.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from agentmesh.daemon.home import Home, storage_error
from agentmesh.daemon.knob_table import show_value, table
from agentmesh.daemon.knobs import Settings
from agentmesh.daemon.lock import Holder, RunFile, is_held, live_holder, process_start, read_runfile, running
from agentmesh.errors import StateError, Timeout, Unreached

LOG_BYTES_MAX = 10 * 1024 * 1024
PORTS_TRIED_MAX = 100
_POLL_S = 0.02
_HEALTH_BYTES_MAX = 64 * 1024


class Started(NamedTuple):
    """Outcome of ``start``: where it answers, whether it had been running, and whether its node key is new."""

    run: RunFile
    already: bool
    created: bool


class Stopped(NamedTuple):
    """Outcome of ``stop``: the pid that ended (None: none was running), whether it had to be killed, how long it took."""

    pid: int | None
    killed: bool
    seconds: float


def bind_loopback(port: int, *, strict: bool = False) -> tuple[list[socket.socket], int]:
    """Bind one port on 127.0.0.1 and, where the machine has IPv6, on ::1, and listen there.

    Args:
        port: Wanted port; 0 takes any free one.
        strict: Fail instead of trying the next ports.

    Returns:
        The listening sockets (IPv4 first) and the port, which differs from the wanted one if that was taken.

    Raises:
        StateError: code "port.taken". Nothing stays bound.
    """
    tries = 1 if strict else PORTS_TRIED_MAX
    for candidate in range(port, min(port + tries, 65536)):
        sockets = _bind_both(candidate)
        if sockets:
            return sockets, sockets[0].getsockname()[1]
    last = min(port + tries, 65536) - 1
    raise StateError(
        f"port {port} is taken" if last == port else f"ports {port} to {last} are all taken",
        code="port.taken",
        why="another program listens there",
        hint="agentmesh config set port 0",
    )


def _bind_both(port: int) -> list[socket.socket]:
    """Bind the port on both loopback addresses, or on none: an IPv6 stranger on our port would get our callers."""
    four = _bind(socket.AF_INET, "127.0.0.1", port)
    if four is None:
        return []
    try:
        six = _bind(socket.AF_INET6, "::1", four.getsockname()[1])
    except OSError:
        return [four]
    if six is None:
        four.close()
        return []
    return [four, six]


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket | None:
    """Bind one address; None when it is taken. Raises OSError when the family does not exist here."""
    # Naming the protocol lets asyncio turn Nagle off on the connections it accepts; without it small answers wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise
    listener.setblocking(False)
    return listener


def ask_health(port: int, timeout_s: float = 1.0) -> dict[str, Any] | None:
    """Return what ``GET /health`` on loopback answers, None if nothing sensible does. Never raises."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        body: Any = msgspec.json.decode(answer.read(_HEALTH_BYTES_MAX)) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, msgspec.DecodeError, RecursionError):
        return None
    finally:
        connection.close()
    return body if isinstance(body, dict) else None  # pyright: ignore[reportUnknownVariableType]


def daemon_argv(given: dict[str, Any]) -> list[str]:
    """Return the command line of a daemon with these flags, by settings key."""
    out = [sys.executable, "-m", "agentmesh.daemon"]
    for row in table():
        value = given.get(row.key)
        if value is None:
            continue
        if row.many:
            for one in value:
                out += [row.flag, str(one)]
        elif isinstance(value, bool):
            out.append(row.flag if value else "--no-" + row.flag[2:])
        else:
            out += [row.flag, show_value(value)]
    return out


def daemon_environ(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a daemon: the given one, or ours, and what every daemon gets.

    One malloc arena: threads of the QUIC engine otherwise keep arenas of their own; measured, it lowers resident memory.
    """
    return {"MALLOC_ARENA_MAX": "1", **(os.environ if environ is None else environ), "PYTHONUNBUFFERED": "1"}


def start(
    settings: Settings,
    given: dict[str, Any],
    *,
    profile: str = "",
    timeout_s: float = 20.0,
    waiting: Callable[[float], None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Started:
    """Start the daemon in the background and wait until it answers; if it runs already, say so.

    Args:
        settings: Checked settings, to find the home and to fail early.
        given: The flags that were given, by key; the daemon reads the other sources itself.
        profile: Profile of config.toml, "" for none.
        timeout_s: How long it may take to answer. It is stopped when it does not.
        waiting: Called now and then with the seconds waited so far.
        environ: The daemon's environment; ours when left out.

    Raises:
        StateError: code "daemon.failed": it ended while starting; ``extra["log"]`` holds the last lines of its log.
        Timeout: it did not answer in time and was stopped.
        ConfigError, Full: the home cannot be used. Nothing was started.
    """
    home = settings.paths
    home.prepare()
    if is_held(home):
        try:
            return Started(wait_ready(home, timeout_s, waiting=waiting), already=True, created=False)
        except StateError:
            if is_held(home):
                raise
            # It was going down, not coming up (a killed process keeps its lock until its last thread ends); start ours.
    created = not home.node_key.exists()
    argv = daemon_argv({**given, "home": home.path})
    if profile:
        argv += ["--profile", profile]
    log_from = _rotate_log(home)
    try:
        with open(home.log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as log, held_back() as came:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=daemon_environ(environ),
                cwd=home.path,
            )
    except OSError as error:
        raise storage_error(error, home.log) from error
    try:
        if came:
            raise KeyboardInterrupt
        return Started(wait_ready(home, timeout_s, process=process, waiting=waiting), already=False, created=created)
    except (Unreached, KeyboardInterrupt):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        if process.poll() is None:
            process.kill()
            process.wait()
        raise
    except StateError as error:
        lines = log_tail(home, 8, log_from)
        error.extra["log"] = lines
        error.why = _reason(lines) or error.why
        raise


@contextlib.contextmanager
def held_back() -> Generator[list[int]]:
    """Hold signals that would interrupt us back while a process is spawned, so that its handle is never lost.

    Yields the signals that came, for the caller to act on once it holds the handle. In threads nothing is done, since
    signals never interrupt them.
    """
    came: list[int] = []
    before: list[tuple[int, Any]] = []
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            # Only Python's own handlers raise in mid-call; what is ignored or deadly stays so, for the child as well.
            if callable(handler):
                before.append((number, signal.signal(number, lambda n, _: came.append(n))))
    try:
        yield came
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def wait_ready(
    home: Home,
    timeout_s: float,
    *,
    process: subprocess.Popen[bytes] | None = None,
    waiting: Callable[[float], None] | None = None,
) -> RunFile:
    """Wait until the daemon of a home answers ``/health`` with the node id of ``daemon.json``.

    Raises:
        StateError: code "daemon.failed": ``process`` ended first, or the lock was let go.
        Timeout: no answer in time.
    """
    begin = time.monotonic()
    while (waited := time.monotonic() - begin) < timeout_s:
        run = running(home)
        if run is not None and (process is None or run.pid == process.pid):
            health = ask_health(run.port, timeout_s=min(1.0, timeout_s))
            if health is not None and health.get("node_id") == run.node_id:
                return run
        if process is not None and process.poll() is not None:
            # A second starter may have won the race for the lock; then its daemon is ours as well.
            if live_holder(home) is not None:
                process = None
                continue
            raise StateError(
                "the daemon ended while it was starting",
                code="daemon.failed",
                why=f"exit code {process.returncode}",
                hint="agentmesh logs",
            )
        if process is None and not is_held(home):
            raise StateError(
                "the daemon ended while we waited for it",
                code="daemon.failed",
                hint=f"agentmesh up    its log: {home.log}",
            )
        if waiting is not None:
            waiting(waited)
        time.sleep(_POLL_S)
    raise Timeout(
        f"the daemon did not answer within {timeout_s:g} s",
        code="daemon.timeout",
        why="; ".join(log_tail(home, 1)) or None,
        hint="agentmesh logs",
    )


def stop(
    home: Home,
    *,
    grace_s: float = 15.0,
    on_kill: Callable[[int], None] | None = None,
    waiting: Callable[[float], None] | None = None,
) -> Stopped:
    """Stop the daemon of a home: SIGTERM, wait, and SIGKILL with notice when the grace is over.

    Only a process that holds the home's lock and started when the lock note says is ever signalled.

    Raises:
        StateError: the lock is held by a process we cannot identify, or that belongs to another user. Nothing was signalled.
    """
    begin = time.monotonic()
    holder = _await_holder(home)
    if holder is None:
        return Stopped(None, False, time.monotonic() - begin)
    killed = False
    _signal(holder.pid, signal.SIGTERM)
    deadline = begin + grace_s
    while process_start(holder.pid) == holder.process_start:
        now = time.monotonic()
        if now >= deadline and not killed:
            if on_kill is not None:
                on_kill(holder.pid)
            _signal(holder.pid, signal.SIGKILL)
            killed = True
        if waiting is not None:
            waiting(now - begin)
        _reap(holder.pid)
        time.sleep(_POLL_S)
    note = read_runfile(home)
    if note is not None and note.pid == holder.pid:
        with contextlib.suppress(OSError):
            home.runfile.unlink()
    return Stopped(holder.pid, killed, time.monotonic() - begin)


def _await_holder(home: Home) -> Holder | None:
    """Give a process that has just taken the lock, or is giving it up, a moment; None once nobody holds it."""
    for _ in range(25):
        holder = live_holder(home)
        if holder is not None or not is_held(home):
            return holder
        time.sleep(_POLL_S)
    raise StateError(
        f"the lock {home.lock} is held by a process that cannot be identified",
        code="daemon.unknown_holder",
        why="its note names no live process; nothing was signalled",
        hint=f"fuser -v {home.lock}",
    )


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise StateError(
            f"process {pid} belongs to another user", code="daemon.not_ours", hint="run this as that user"
        ) from error


def _reap(pid: int) -> None:
    """Collect the daemon if it is our own child, so that it does not linger as a zombie."""
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)


def log_tail(home: Home, lines_max: int, from_byte: int = 0) -> list[str]:
    """Return the last lines of daemon.log, at most ``lines_max`` and 64 KiB, from ``from_byte`` on; [] if it is missing."""
    try:
        with open(home.log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(from_byte, size - 65_536))
            text = file.read(65_536).decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return lines[-lines_max:] if lines_max else []


def _rotate_log(home: Home) -> int:
    """Move a large log aside; return the size of the present one, where the new daemon's lines will begin."""
    try:
        size = home.log.stat().st_size
        if size > LOG_BYTES_MAX:
            os.replace(home.log, home.log.with_suffix(".log.1"))
            return 0
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise storage_error(error, home.log) from error
    return size


def _reason(lines: Sequence[str]) -> str:
    """Return the line of a failed start that tells most: our own error line, else the last one."""
    for line in reversed(lines):
        if line.startswith("error["):
            return line
    return lines[-1] if lines else ""
