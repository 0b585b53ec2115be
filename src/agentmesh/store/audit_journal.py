"""The journal of calls that are under way: so that one that the process does not live to record is recorded at the next start.

    open.jsonl   a line for each call that began; written anew without those that are over when these are most of it

A line was handed to the operating system when ``begin`` returned: it survives the death of the process, not that of the machine.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from agentmesh.errors import UsageError

_log = logging.getLogger("agentmesh.audit")

JOURNAL_NAME = "open.jsonl"
#: The journal is written anew when it is so large and mostly of calls that are over, bytes.
_BYTES_MIN = 1024 * 1024
_LINE_BYTES_MAX = 64 * 1024
_encoder = msgspec.json.Encoder()


class CallJournal:
    """One journal, empty and open.

    Args:
        directory: Where it is.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / JOURNAL_NAME
        self._open: dict[int, bytes] = {}
        self._next = 0
        self._bytes = 0
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, 0)

    def begin(self, body: dict[str, Any], at: int) -> int:
        """Note that a call begins, and return its number.

        Args:
            body: Its record as far as it is known.
            at: How many records the log has.

        Raises:
            OSError: it cannot be written. Nothing was noted.
            UsageError: it is no JSON. Nothing was noted.
        """
        number = self._next
        try:
            line = _encoder.encode({"n": number, "at": at, "body": body}) + b"\n"
        except (TypeError, ValueError) as error:
            raise UsageError(f"no audit record: {error}", code="audit.record") from error
        if os.write(self._fd, line) != len(line):
            os.ftruncate(self._fd, self._bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._next += 1
        self._bytes += len(line)
        self._open[number] = line
        return number

    def end(self, number: int) -> None:
        """Note that a call is recorded."""
        self._open.pop(number, None)

    def shorten(self) -> None:
        """Drop the calls that are recorded, when they are most of it."""
        if self._fd < 0 or self._bytes < _BYTES_MIN:
            return
        live = b"".join(self._open.values())
        if self._bytes < 4 * len(live):
            return
        temporary = self._path.with_suffix(".tmp")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.write(fd, live) != len(live):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.replace(temporary, self._path)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            _log.warning("the journal of calls cannot be shortened: %s", error)
            return
        os.close(self._fd)
        self._fd, self._bytes = fd, len(live)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def call_of(data: dict[str, Any]) -> str:
    """Return what tells calls apart: the same in the journal and in the record."""
    return "\n".join(str(data.get(name, "")) for name in ("action", "resource", "task", "proof"))


def left_in(directory: Path) -> dict[str, tuple[int, dict[str, Any]]]:
    """Return the calls that a process left: key → (records at its beginning, body). A torn line never began. Raises OSError."""
    calls: dict[str, tuple[int, dict[str, Any]]] = {}
    try:
        file = (directory / JOURNAL_NAME).open("rb")
    except FileNotFoundError:
        return calls
    with file:
        while line := file.readline(_LINE_BYTES_MAX):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                body: dict[str, Any] = entry["body"]
                calls[call_of(body["data"])] = int(entry["at"]), body
    return calls
