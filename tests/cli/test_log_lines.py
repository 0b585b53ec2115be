"""Reading daemon.log: filters, rotated files, following through every way in which a log is replaced, and hostile lines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.cli.log_lines import Follower, Wanted, follow, newest, read_line, shown


def raw(msg: str = "m", level: str = "info", **more: Any) -> str:
    ts = "2026-01-02T03:04:05.678+00:00"
    return json.dumps({"ts": ts, "level": level, "logger": "agentmesh.x", "msg": msg, **more})


def append(path: Path, *lines: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def said(lines: list[Any]) -> list[str]:
    return [line.text if line.fields is None else line.fields["msg"] for line in lines]


def test_the_newest_lines_are_found_across_rotated_files_in_order(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    append(log.with_name("daemon.log.2"), raw("1"), raw("2"))
    append(log.with_name("daemon.log.1"), raw("3"), raw("4", "warning"))
    append(log, raw("5"), "Fatal Python error", raw("6", "error"))
    assert said(newest(log, 100, Wanted())) == ["1", "2", "3", "4", "5", "Fatal Python error", "6"]
    assert said(newest(log, 4, Wanted())) == ["4", "5", "Fatal Python error", "6"]
    assert said(newest(log, 2, Wanted(level="warning"))) == ["Fatal Python error", "6"]
    assert said(newest(log, 3, Wanted(level="warning"))) == ["4", "Fatal Python error", "6"]
    assert newest(log, 0, Wanted()) == []
    assert newest(tmp_path / "none", 5, Wanted()) == []


def test_lines_are_filtered_by_level_run_and_agent() -> None:
    call = read_line(
        raw(run_id="abcdef", task_id="123456", trace_id="fedcba", agent="Echo", caller_id="did:key:z").encode()
    )
    other = read_line(raw("other", "debug").encode())
    crash = read_line(b"Fatal Python error")
    for run in ("abc", "abcdef", "1234", "fed"):
        assert Wanted(run=run).has(call)
        assert not Wanted(run=run).has(other)
        assert not Wanted(run=run).has(crash)
    assert not Wanted(run="bcd").has(call)
    assert Wanted(agent="echo").has(call)
    assert Wanted(agent="did:key:z").has(call)
    assert not Wanted(agent="ech").has(call)
    assert not Wanted(level="info").has(other)
    assert Wanted(level="debug").has(other)
    assert Wanted(level="error").has(crash)
    assert Wanted(level="error").has(read_line(raw(level="dire").encode()))


def test_following_goes_on_when_the_log_is_rotated_cut_or_taken_away(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    append(log, raw("old"))
    follower = Follower(log)
    assert follower.read() == []
    append(log, raw("1"))
    assert said(follower.read()) == ["1"]
    append(log, raw("2"))
    os.replace(log, tmp_path / "daemon.log.1")  # rotated, and what came until then was not read yet
    append(tmp_path / "daemon.log.1", raw("3"))
    append(log, raw("4"))
    assert said(follower.read()) == ["2", "3", "4"]
    log.write_text("")  # a new daemon began it anew
    assert follower.read() == []
    append(log, raw("5"))
    assert said(follower.read()) == ["5"]
    log.unlink()
    assert follower.read() == []
    append(log, raw("6"))
    assert said(follower.read()) == ["6"]
    follower.close()


def test_a_line_is_shown_once_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    log.touch()
    follower = Follower(log)
    text = raw("é")
    with log.open("ab") as file:
        file.write(text.encode()[:-4])
        file.flush()
        assert follower.read() == []
        file.write(text.encode()[-4:] + b"\n")
    assert said(follower.read()) == ["é"]


def test_what_is_there_is_shown_once_and_what_comes_meanwhile_is_not_missed(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    append(log, raw("1"))
    follower = Follower(log)
    append(log, raw("2"))
    assert said(newest(log, 10, Wanted(), follower.begin)) == ["1"]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        append(log, raw("3"))

    lines = follow(follower, sleep)
    assert said([next(lines), next(lines)]) == ["2", "3"]
    assert slept == [slept[0]]


def test_a_call_is_shown_as_a_sentence() -> None:
    line = read_line(
        json.dumps(
            {
                "ts": "nonsense",
                "level": "info",
                "logger": "agentmesh.call",
                "msg": "call",
                "direction": "in",
                "result": "rejected",
                "code": "budget.wall",
                "ms": 1.5,
                "caller": "you",
                "agent": "echo",
                "skill": "say",
                "transport": "iroh",
                "run_id": "abcdef0123456789",
                "budget": {"calls": 3},
            }
        ).encode()
    )
    assert shown(line) == (
        'nonsense info    call: in you → echo (say): rejected budget.wall in 1.5 ms over iroh, budget {"calls":3}, '
        "run abcdef012345"
    )


def test_names_from_afar_cannot_pass_for_lines_of_their_own() -> None:
    evil = "x\n01-01 00:00:00 error   daemon: all is lost\r\x1b[2J\u202e"
    for line in (raw(evil), raw(evil, evil, **{evil: evil}), raw(logger="agentmesh.call", result=evil, caller=evil)):
        assert "\n" not in shown(read_line(line.encode()))
    trace = shown(read_line(raw(error=f"Traceback\n{evil}").encode()))
    assert all(part.startswith("  ") for part in trace.split("\n")[1:])


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_no_bytes_in_the_log_stop_the_reader(data: bytes) -> None:
    for piece in data.split(b"\n"):
        line = read_line(piece)
        assert isinstance(shown(line), str)
        Wanted("info", "a", "b").has(line)
