"""One daemon per home, with real processes: a lock that a crash frees, and a note that names only a live holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agentmesh.daemon.home import Home
from agentmesh.daemon.launch import stop
from agentmesh.daemon.lock import (
    DaemonLock,
    Holder,
    RunFile,
    is_held,
    live_holder,
    process_start,
    read_runfile,
    remove_runfile,
    require_running,
    running,
    write_runfile,
)
from agentmesh.errors import NoRoute, StateError

HOLD = """
import signal, sys
from agentmesh.daemon.home import Home
from agentmesh.daemon.lock import DaemonLock
lock = DaemonLock(Home(sys.argv[1]))
lock.acquire()
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@contextlib.contextmanager
def holder(home: Home, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Give a process that holds the home's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def note(pid: int) -> RunFile:
    return RunFile(pid=pid, port=1, node_id="did:key:z", version="0", started=0.0)


def test_a_second_daemon_of_the_same_home_is_refused_with_the_pid_of_the_first(home: Home) -> None:
    with holder(home) as first:
        assert live_holder(home) == Holder(pid=first.pid, process_start=process_start(first.pid) or "")
        with pytest.raises(StateError) as caught:
            DaemonLock(home).acquire()
        assert caught.value.code == "daemon.running"
        assert caught.value.extra["pid"] == first.pid


def test_a_killed_holder_frees_the_lock_at_once(home: Home) -> None:
    with holder(home) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert not is_held(home)
    with DaemonLock(home):
        assert is_held(home)
        assert (found := live_holder(home)) is not None
        assert found.pid == os.getpid()
    assert not is_held(home)


def test_looking_at_a_free_lock_leaves_no_trace(home: Home) -> None:
    assert not is_held(home)
    assert live_holder(home) is None
    assert not home.lock.exists()


def test_a_glance_at_the_lock_does_not_keep_a_daemon_from_starting(home: Home) -> None:
    done = threading.Event()

    def glance() -> None:
        while not done.is_set():
            is_held(home)

    with DaemonLock(home):
        pass
    glancing = threading.Thread(target=glance)
    glancing.start()
    try:
        for _ in range(50):
            with DaemonLock(home):
                pass
    finally:
        done.set()
        glancing.join()


def test_a_stale_note_names_nobody_even_if_its_pid_lives_again(home: Home) -> None:
    write_runfile(home, note(os.getpid()))
    home.lock.write_bytes(msgspec.json.encode(Holder(pid=os.getpid(), process_start="long ago")))
    assert running(home) is None
    with holder(home) as first:
        assert running(home) is None, "the note is of another process than the holder"
        write_runfile(home, note(first.pid))
        assert (found := running(home)) is not None
        assert found.pid == first.pid


def test_stop_never_signals_a_process_that_does_not_hold_the_lock(home: Home) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        write_runfile(home, note(stranger.pid))
        home.lock.write_bytes(
            msgspec.json.encode(Holder(pid=stranger.pid, process_start=process_start(stranger.pid) or ""))
        )
        assert stop(home).pid is None
        assert stranger.poll() is None, "a stranger was stopped"
        stranger.kill()


def test_stop_refuses_when_the_lock_is_held_by_someone_it_cannot_name(home: Home) -> None:
    with holder(home) as first:
        home.lock.write_bytes(msgspec.json.encode(Holder(pid=os.getpid(), process_start="another")))
        with pytest.raises(StateError) as caught:
            stop(home)
        assert caught.value.code == "daemon.unknown_holder"
        assert first.poll() is None


def test_stop_is_content_when_a_dying_holder_lets_go_while_it_looks(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.lock.touch()
    dying = os.open(home.lock, os.O_RDWR)
    fcntl.flock(dying, fcntl.LOCK_EX)
    monkeypatch.setattr(time, "sleep", lambda _s: os.close(dying))
    assert stop(home).pid is None


def test_stop_ends_the_holder_and_removes_its_note(home: Home) -> None:
    with holder(home) as first:
        write_runfile(home, note(first.pid))
        stopped = stop(home, grace_s=10)
    assert (stopped.pid, stopped.killed) == (first.pid, False)
    assert read_runfile(home) is None
    assert not is_held(home)


def test_stop_kills_a_deaf_daemon_after_the_grace_and_says_so(home: Home) -> None:
    told: list[int] = []
    with holder(home, "deaf") as first:
        stopped = stop(home, grace_s=0.2, on_kill=told.append)
    assert (stopped.pid, stopped.killed, told) == (first.pid, True, [first.pid])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff" * 100, b"[" * 10_000])
def test_garbage_in_the_notes_is_nobody(home: Home, content: bytes) -> None:
    home.runfile.write_bytes(content)
    with holder(home):
        home.lock.write_bytes(content)
        assert live_holder(home) is None
        assert running(home) is None


def test_only_our_own_note_is_removed(home: Home) -> None:
    write_runfile(home, note(1))
    remove_runfile(home)
    assert home.runfile.exists()
    write_runfile(home, note(os.getpid()))
    assert home.runfile.stat().st_mode & 0o077 == 0
    remove_runfile(home)
    assert not home.runfile.exists()


def test_no_daemon_is_unreachable_with_the_command_that_starts_one(home: Home) -> None:
    with pytest.raises(NoRoute) as caught:
        require_running(home)
    assert (caught.value.code, caught.value.hint) == ("daemon.unreachable", "agentmesh up")


def test_the_start_of_a_process_that_is_gone_is_none() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        assert process_start(process.pid) is None
