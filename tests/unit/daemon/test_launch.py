"""Ports on loopback and the command line of a daemon, without starting one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentmesh.daemon.__main__ import main, parser
from agentmesh.daemon.home import Home
from agentmesh.daemon.knob_table import table
from agentmesh.daemon.launch import ask_health, bind_loopback, daemon_argv, daemon_environ, held_back, log_tail
from agentmesh.errors import EXIT_USAGE, StateError


@contextlib.contextmanager
def closing_all(sockets: list[socket.socket]) -> Iterator[None]:
    try:
        yield
    finally:
        for one in sockets:
            one.close()


def test_a_taken_port_is_stepped_over() -> None:
    first, port = bind_loopback(0)
    with closing_all(first):
        second, other = bind_loopback(port)
        with closing_all(second):
            assert other > port
            assert {s.getsockname()[1] for s in second} == {other}


def test_a_strict_port_that_is_taken_is_an_error() -> None:
    first, port = bind_loopback(0)
    with closing_all(first), pytest.raises(StateError) as caught:
        bind_loopback(port, strict=True)
    assert caught.value.code == "port.taken"
    assert str(port) in caught.value.detail


def test_nothing_listens_beyond_loopback() -> None:
    sockets, _ = bind_loopback(0)
    with closing_all(sockets):
        assert {s.getsockname()[0] for s in sockets} <= {"127.0.0.1", "::1"}
        assert sockets[0].getsockname()[0] == "127.0.0.1"


def test_a_port_that_a_stranger_holds_on_ipv6_only_is_not_used() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as stranger:
        try:
            stranger.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        stranger.listen()
        port = stranger.getsockname()[1]
        sockets, got = bind_loopback(port)
        with closing_all(sockets):
            assert got != port


def test_health_of_a_port_where_nothing_or_garbage_answers_is_none() -> None:
    sockets, port = bind_loopback(0)
    with closing_all(sockets):
        assert ask_health(port, timeout_s=0.1) is None
    assert ask_health(port, timeout_s=0.1) is None


def test_the_daemon_reads_the_command_line_that_is_made_for_it() -> None:
    given = {
        "home": Path("/tmp/h"),
        "port": 7000,
        "mdns": False,
        "port_strict": True,
        "seeds": ["a", "b"],
        "call_timeout_s": 2.5,
    }
    argv = daemon_argv(given)
    assert argv[1:3] == ["-m", "agentmesh.daemon"]
    read = vars(parser().parse_args(argv[3:]))
    assert read["seeds"] == ["a", "b"]
    assert (read["mdns"], read["port_strict"]) == (False, True)
    assert (read["home"], read["port"], read["call_timeout_s"]) == ("/tmp/h", "7000", "2.5")
    assert {row.key for row in table()} <= set(read)


def test_the_daemon_gets_one_malloc_arena_unless_told_otherwise() -> None:
    assert daemon_environ({})["MALLOC_ARENA_MAX"] == "1"
    assert daemon_environ({"MALLOC_ARENA_MAX": "4"})["MALLOC_ARENA_MAX"] == "4"


def test_a_daemon_with_a_wrong_setting_ends_with_the_three_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", str(tmp_path), "--port", "many"]) == EXIT_USAGE
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0].split("[")[0] for line in lines] == ["error", "why", "next"]
    assert list(tmp_path.iterdir()) == [], "a daemon that cannot start leaves nothing behind"


def test_the_tail_of_the_log_is_bounded(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert log_tail(home, 5) == []
    home.log.write_bytes(b"old\n" + b"".join(b"line %d\n" % i for i in range(20_000)) + b"\xff last\n")
    assert log_tail(home, 2) == ["line 19999", "\ufffd last"]
    assert len(log_tail(home, 1_000_000)) < 20_000


def test_a_signal_while_a_process_is_spawned_waits_until_its_handle_is_held() -> None:
    with held_back() as came:
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert reached
    assert came == [signal.SIGINT]
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
