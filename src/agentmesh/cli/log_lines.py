"""Reading daemon.log: its newest lines across rotated files, what comes after, which lines are wanted, how they look."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

LEVELS = ("debug", "info", "warning", "error", "critical")
#: Old files that are looked into, as many as the daemon keeps (``obs.log``).
_FILES_KEPT = 3
_CHUNK_BYTES = 65_536
#: A longer line is shown in pieces: no line of the daemon is, and memory is bounded.
_LINE_BYTES_MAX = 1 << 20
_POLL_S = 0.2
_RUNS = ("run_id", "task_id", "trace_id")
_AGENTS = ("agent", "agent_id", "caller", "caller_id", "claimed_id")
#: What is shown of a call line by itself, and needs no second look.
_SHOWN = frozenset({"ts", "level", "logger", "msg", "error"})
_decoder = msgspec.json.Decoder(dict[str, Any])


class Line(NamedTuple):
    """One line.

    Attributes:
        text: As it stands in the file.
        fields: Its members; None for what is no JSON, such as the last words of an interpreter.
    """

    text: str
    fields: dict[str, Any] | None


class Wanted(NamedTuple):
    """Which lines are wanted.

    Attributes:
        level: This one and those that are worse; "" for all.
        run: Beginning of the id of a run, task or trace; "" for all.
        agent: Name or id of an agent, as caller or callee; "" for all.
    """

    level: str = ""
    run: str = ""
    agent: str = ""

    def has(self, line: Line) -> bool:
        """Say whether a line is wanted. What is no JSON is shown unless something of a call is asked for."""
        fields = line.fields
        if fields is None:
            return not self.run and not self.agent
        if self.level and _rank(fields.get("level")) < LEVELS.index(self.level):
            return False
        if self.run and not any(str(fields.get(name, "")).startswith(self.run) for name in _RUNS):
            return False
        agent = self.agent.casefold()
        return not agent or any(str(fields.get(name, "")).casefold() == agent for name in _AGENTS)


def _rank(level: object) -> int:
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)


def read_line(raw: bytes) -> Line:
    """Return one line of the file, without its newline."""
    text = raw.decode("utf-8", "replace").rstrip("\r")
    try:
        return Line(text, _decoder.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Line(text, None)


def newest(log: Path, count: int, wanted: Wanted, upto: int | None = None) -> list[Line]:
    """Return the newest wanted lines, oldest first, from the log and the files that it was rotated to.

    Args:
        log: The newest file.
        count: How many.
        wanted: Which.
        upto: Bytes of the newest file that are looked at, a ``Follower`` reads the rest; all of it if left out.
    """
    found: list[Line] = []
    for path in (log, *(log.with_name(f"{log.name}.{number}") for number in range(1, _FILES_KEPT + 1))):
        if len(found) >= count:
            break
        try:
            with path.open("rb") as file:
                lines = _lines_of(file, upto if path == log else None)
                kept = deque((line for line in lines if wanted.has(line)), maxlen=count - len(found))
        except OSError:
            continue
        found = [*kept, *found]
    return found


def _lines_of(file: BinaryIO, upto: int | None) -> Iterator[Line]:
    while (upto is None or file.tell() < upto) and (raw := file.readline(_LINE_BYTES_MAX)):
        if raw != b"\n":
            yield read_line(raw.rstrip(b"\n"))


class Follower:
    """Reads what is added to a log, also when it is rotated, emptied or begun anew by another daemon.

    Args:
        log: The file; it need not be there.
        at_end: Leave out what stands in it now.
    """

    def __init__(self, log: Path, *, at_end: bool = True) -> None:
        self._log = log
        self._file: BinaryIO | None = None
        self._held = b""
        self._open(at_end=at_end)
        #: Where it begins: what stands before that in the file it leaves out.
        self.begin = 0 if self._file is None else self._file.tell()

    def _open(self, *, at_end: bool) -> None:
        try:
            self._file = self._log.open("rb")
        except OSError:
            return
        if at_end:
            self._file.seek(0, os.SEEK_END)

    def read(self) -> list[Line]:
        """Return the lines that were added since the last time, as far as they are whole."""
        lines: list[Line] = []
        if self._file is None:
            self._open(at_end=False)
        if self._file is None:
            return lines
        # Asked before the rest is read: what was added until it was rotated is read then, and nothing comes after.
        is_over = self._was_replaced(self._file)
        while chunk := self._file.read(_CHUNK_BYTES):
            *whole, held = (self._held + chunk).split(b"\n")
            lines += [read_line(raw) for raw in whole if raw]
            if len(held) > _LINE_BYTES_MAX:
                lines.append(read_line(held))
                held = b""
            self._held = held
        if is_over:
            if self._held:
                lines.append(read_line(self._held))
            self._held = b""
            self._file.close()
            self._file = None
            self._open(at_end=False)
            return lines + self.read() if self._file is not None else lines
        return lines

    def _was_replaced(self, file: BinaryIO) -> bool:
        """Say whether the file at that path is another one by now, or was cut."""
        held = os.fstat(file.fileno())
        if held.st_size < file.tell():
            return True
        try:
            there = self._log.stat()
        except OSError:
            return False  # between two files; the next look finds the new one
        return (there.st_ino, there.st_dev) != (held.st_ino, held.st_dev)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None


def follow(follower: Follower, sleep: Callable[[float], None] = time.sleep) -> Iterator[Line]:
    """Yield every line that is added, for ever."""
    while True:
        lines = follower.read()
        yield from lines
        if not lines:
            sleep(_POLL_S)


def shown(line: Line) -> str:
    """Return a line for people: local time, level, where from, what; below it the trace of an error, if there is one."""
    fields = line.fields
    if fields is None:
        return line.text
    where = _text(fields.get("logger")).removeprefix("agentmesh.")
    what = _call(fields) if where == "call" and "result" in fields else _other(fields)
    trace = str(fields.get("error") or "").splitlines()
    # Lines below are indented, so that no text from afar can pass for a line of its own.
    return "\n  ".join([f"{_time(fields.get('ts'))} {_text(fields.get('level')):7} {where}: {what}", *trace])


def _time(ts: object) -> str:
    from datetime import datetime

    try:
        return datetime.fromisoformat(str(ts)).astimezone().strftime("%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return _text(ts)[:24]


def _other(fields: dict[str, Any]) -> str:
    more = " ".join(f"{_text(name)}={_text(value)}" for name, value in fields.items() if name not in _SHOWN)
    return _text(fields.get("msg")) + (f"  ({more})" if more else "")


def _call(fields: dict[str, Any]) -> str:
    """Return what a call line says: who → whom, result, how long, and how to see more."""
    who = _text(fields.get("caller") or fields.get("claimed_id") or "?")
    whom = _text(fields.get("agent") or fields.get("agent_id") or "?")
    skill = f" ({_text(fields['skill'])})" if fields.get("skill") else ""
    code = f" {_text(fields['code'])}" if fields.get("code") else ""
    budget = fields.get("budget")
    bound = f", budget {_text(budget)}" if budget else ""
    run = f", run {_text(fields['run_id'])[:12]}" if fields.get("run_id") else ""
    way = _text(fields.get("transport", ""))
    return (
        f"{_text(fields.get('direction'))} {who} → {whom}{skill}: {_text(fields.get('result'))}{code} "
        f"in {_text(fields.get('ms'))} ms over {way}{bound}{run}"
    )


def _text(value: object) -> str:
    """Return a value on one line, whatever is in it."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return "".join(c if c.isprintable() else "·" for c in text)
