"""The daemon's own log: the standard ``logging``, one JSON object per line, bounded on disk.

Events of runs are not logged here, they go to the event log. Nothing secret is ever passed to ``logging``, so nothing is
redacted. A log that cannot be written never stops the daemon.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

import msgspec

from agentmesh.errors import ConfigError, MeshError

LEVELS = ("debug", "info", "warning", "error")
#: A file that reached this size becomes ``daemon.log.1``; three old ones are kept.
LOG_BYTES_MAX = 8 << 20
LOG_FILES_KEPT = 3
#: Messages and stack traces are cut to this many characters.
MESSAGE_MAX = 8000
_KNOWN = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Format a record as one JSON line: ts (ISO 8601 UTC), level, logger, msg, then what ``extra=`` gave, then error."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline; values that are not JSON-ready appear as text."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": _message(record),
        }
        for name, value in record.__dict__.items():
            if name not in _KNOWN and name not in line:
                line[name] = value
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            if isinstance(error, MeshError):
                line["code"] = error.code
            line["error"] = self.formatException(record.exc_info)[-MESSAGE_MAX:]
        return msgspec.json.encode(line, enc_hook=str).decode()


class TextFormatter(logging.Formatter):
    """Format a record for a person at a terminal: time, level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and below it the stack trace if there is one."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        text = f"{time} {record.levelname.lower():7} {record.name.removeprefix('agentmesh.')}: {_message(record)}"
        if record.exc_info and record.exc_info[1] is not None:
            text += "\n" + self.formatException(record.exc_info)[-MESSAGE_MAX:]
        return text


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except (TypeError, ValueError):
        # Arguments that do not fit their format are a bug of the caller, and the text is still worth keeping.
        text = f"{record.msg} {record.args!r}"
    # Lone surrogates from undecodable file names would break the encoder.
    return text[:MESSAGE_MAX].encode("utf-8", "replace").decode()


class Lost:
    """Lines that could not be written since the process began.

    Attributes:
        lines: How many.
    """

    lines = 0


class _Quiet:
    """What a handler does when its log cannot be written: nothing but count."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the record; a full disk must not fill stderr as well."""
        Lost.lines += 1


class _File(_Quiet, logging.FileHandler):
    """A file that is moved aside when it is large. ``logging.handlers`` has one too, and 0.5 MB of sockets beside it."""

    def __init__(self, file: Path, bytes_max: int, files_kept: int) -> None:
        self._bytes_max, self._files_kept = bytes_max, files_kept
        super().__init__(file, encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, into a new file if the old one is full or was taken away."""
        try:
            self._look()
        except OSError:
            self.handleError(record)
        else:
            super().emit(record)

    def _look(self) -> None:
        """Move a file aside that reached its size, and begin another one if this one was taken away. Raises OSError."""
        stream: Any = self.stream
        if stream is None:  # it could not be opened again
            stream = self.stream = self._open()
        held = os.fstat(stream.fileno())
        try:
            there = os.stat(self.baseFilename)
            is_ours = (there.st_ino, there.st_dev) == (held.st_ino, held.st_dev)
        except FileNotFoundError:
            is_ours = False
        if is_ours and held.st_size >= self._bytes_max:
            try:
                for number in range(self._files_kept - 1, 0, -1):
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(f"{self.baseFilename}.{number}", f"{self.baseFilename}.{number + 1}")
                os.replace(self.baseFilename, f"{self.baseFilename}.1")
            except OSError:
                os.truncate(self.baseFilename, 0)  # the newest lines are worth more than the old ones
            is_ours = False
        if not is_ours:
            self.stream = None  # pyright: ignore[reportAttributeAccessIssue] as the library does
            stream.close()
            self.stream = self._open()

    def _open(self) -> Any:
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return os.fdopen(fd, "a", encoding="utf-8", errors="replace")


class _Stream(_Quiet, logging.StreamHandler[TextIO]):
    pass


def setup_logging(
    level: str = "info",
    *,
    file: Path | None = None,
    stderr: bool = True,
    style: Literal["json", "text"] | None = None,
) -> None:
    """Send the root logger's records to a file, to stderr, or both; replaces what an earlier call set up.

    Args:
        level: "debug", "info", "warning" or "error". Other libraries are held at "warning" unless it is "debug".
        file: Where JSON lines go, with rotation; None for nowhere.
        stderr: Whether to write to stderr as well.
        style: Of stderr; "text" on a terminal and "json" elsewhere when left out.

    Raises:
        ConfigError: unknown level ("log.level"), or the file cannot be opened ("log.file"). Nothing changed.
    """
    if level.lower() not in LEVELS:
        raise ConfigError(f"log level {level[:40]!r}", code="log.level", hint=f"one of {', '.join(LEVELS)}")
    handlers: list[logging.Handler] = []
    if file is not None:
        try:
            handler = _File(file, LOG_BYTES_MAX, LOG_FILES_KEPT)
        except OSError as error:
            raise ConfigError(
                f"cannot write the log {file}: {error.strerror}", code="log.file", hint=f"ls -ld {file.parent}"
            ) from error
        handler.setFormatter(JsonFormatter())
        handlers.append(handler)
    if stderr:
        stream = _Stream(sys.stderr)
        plain = style == "text" or (style is None and sys.stderr.isatty())
        stream.setFormatter(TextFormatter() if plain else JsonFormatter())
        handlers.append(stream)
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old, _Quiet):
            root.removeHandler(old)
            old.close()
    for handler in handlers:
        root.addHandler(handler)
    number = getattr(logging, level.upper())
    root.setLevel(number if level.lower() == "debug" else max(number, logging.WARNING))
    logging.getLogger("agentmesh").setLevel(number)
