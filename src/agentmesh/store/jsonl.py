"""The JSONL segments of the event log: the truth that the index is derived from.

``events/000001.jsonl`` holds one event per line; the highest number is being written, the others are closed and never
change. A line ends with a newline or it was never acknowledged. Only the writer thread calls ``SegmentWriter``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agentmesh.errors import Full
from agentmesh.store.promote import read_line
from agentmesh.wire.event import EVENT_BYTES_MAX

#: Bytes of a torn line that are kept aside, and how many such files, at most.
TORN_BYTES_MAX = 64 * 1024
TORN_FILES_MAX = 16
_SEGMENT = re.compile(r"(\d{6,12})\.jsonl")
_READ_GAP_MAX = 16 * 1024
_READ_SPAN_MAX = 1 << 20
#: macOS has no fdatasync.
_sync = getattr(os, "fdatasync", os.fsync)


class Line(NamedTuple):
    """One complete line: where it starts, its length with the newline, and its bytes without; None when overlong."""

    offset: int
    size: int
    data: bytes | None


class Torn(NamedTuple):
    """What ``repair_tail`` did: bytes cut and where they are kept; ``cut`` 0 when only the newline was missing."""

    cut: int
    kept: str


def segment_path(directory: Path, number: int) -> Path:
    """Return the path of a segment."""
    return directory / f"{number:06d}.jsonl"


def list_segments(directory: Path) -> tuple[dict[int, int], list[str]]:
    """Return number → size in bytes of every segment in ascending order, and names of ``*.jsonl`` that are none.

    Raises:
        OSError: the directory cannot be read.
    """
    found: dict[int, int] = {}
    strangers: list[str] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.endswith(".jsonl"):
                continue
            match = _SEGMENT.fullmatch(entry.name)
            if match and int(match[1]) > 0 and entry.name == segment_path(directory, int(match[1])).name:
                found[int(match[1])] = entry.stat().st_size
            else:
                strangers.append(entry.name)
    return dict(sorted(found.items())), sorted(strangers)


def read_lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[Line]:
    """Yield the complete lines of a segment from byte ``start`` to byte ``end``; what follows the last newline is left out.

    Memory stays under one event whatever the file holds.

    Raises:
        OSError: the file cannot be read.
    """
    limit = EVENT_BYTES_MAX + 2
    with path.open("rb", buffering=1 << 18) as file:
        offset = file.seek(start)
        while end is None or offset < end:
            data = file.readline(limit)
            size = len(data)
            while data and not data.endswith(b"\n"):
                # Either the end of the file, or a line no event can have: pass over it piece by piece.
                data = file.readline(limit)
                size += len(data)
                if data.endswith(b"\n"):
                    yield Line(offset, size, None)
                    offset += size
                    break
            else:
                if not data:
                    return
                yield Line(offset, size, data[:-1])
                offset += size


def repair_tail(path: Path) -> Torn | None:
    """Make a segment end with a newline: complete a whole last line, or cut a torn one and keep it aside.

    Returns:
        None when nothing was wrong.

    Raises:
        OSError: the file cannot be read or written.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        start = _last_newline(fd, size) + 1
        if start == size:
            return None
        tail = os.pread(fd, min(size - start, EVENT_BYTES_MAX + 1), start)
        if start + len(tail) == size and _is_event(tail):
            os.lseek(fd, 0, os.SEEK_END)
            os.write(fd, b"\n")
            _sync(fd)
            return Torn(0, "")
        kept = _keep_aside(path, start, tail[:TORN_BYTES_MAX])
        os.ftruncate(fd, start)
        os.fsync(fd)
        return Torn(size - start, kept)
    finally:
        os.close(fd)


def _is_event(line: bytes) -> bool:
    from agentmesh.errors import DecodeError

    try:
        read_line(line)
    except DecodeError:
        return False
    return True


def _last_newline(fd: int, size: int) -> int:
    """Return the offset of the last newline, -1 if there is none."""
    end = size
    while end > 0:
        start = max(0, end - (1 << 16))
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at
        end = start
    return -1


def _keep_aside(path: Path, offset: int, data: bytes) -> str:
    """Write a torn line into a file of its own; return its name, or "" when that was not possible."""
    name = f"torn-{path.stem}-{offset}.bin"
    with contextlib.suppress(OSError):
        for old in sorted(path.parent.glob("torn-*.bin"))[: -TORN_FILES_MAX + 1]:
            old.unlink()
        (path.parent / name).write_bytes(data)
        return name
    return ""


def read_spans(path: Path, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the bytes of each (offset, size), which must ascend; near ones are fetched by one read.

    A span beyond the end of the file comes back short, hence unreadable as an event.

    Raises:
        OSError: the file cannot be read.
    """
    out: list[bytes] = []
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if spans and _is_one_read(spans):
            _fetch(fd, spans, out)
            return out
        group: list[tuple[int, int]] = []
        for span in spans:
            if group:
                end = group[-1][0] + group[-1][1]
                if not end <= span[0] <= end + _READ_GAP_MAX or span[0] + span[1] - group[0][0] > _READ_SPAN_MAX:
                    _fetch(fd, group, out)
                    group = []
            group.append(span)
        _fetch(fd, group, out)
    finally:
        os.close(fd)
    return out


def _is_one_read(spans: Sequence[tuple[int, int]]) -> bool:
    """Say whether spans lie so close that one read fetches them all, and little else."""
    width = spans[-1][0] + spans[-1][1] - spans[0][0]
    return 0 < width <= _READ_SPAN_MAX and width <= 2 * sum([size for _, size in spans])


def _fetch(fd: int, group: Sequence[tuple[int, int]], out: list[bytes]) -> None:
    if group:
        start = group[0][0]
        data = os.pread(fd, group[-1][0] + group[-1][1] - start, start)
        out.extend(data[offset - start : offset - start + size] for offset, size in group)


def sync_directory(directory: Path) -> None:
    """Make the creation or removal of a file in a directory durable, where the platform can."""
    with contextlib.suppress(OSError):
        fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def full_error(error: OSError, directory: Path) -> Full:
    """Return what a failed write means to the caller: disk full, read-only, no permission, or an I/O error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        code, why, hint = "store.full", "no space left for it", f"free some space:   df -h {directory}"
    elif error.errno == errno.EROFS:
        code, why, hint = (
            "store.read_only",
            "the file system is read-only",
            f"remount it, or move the home:   df {directory}",
        )
    elif error.errno in (errno.EACCES, errno.EPERM):
        code, why, hint = "store.permission", "no permission", f"make it yours:   ls -ld {directory}"
    else:
        code, why, hint = "store.io", os.strerror(error.errno or 0), f"check the disk of {directory}"
    return Full(f"cannot write to {directory}: {error.strerror or error}", code=code, why=why, hint=hint)


class SegmentWriter:
    """Append whole groups of lines to the newest segment, all or nothing.

    Args:
        directory: Where the segments are.
        number: The segment to go on with; made if absent.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, directory: Path, number: int) -> None:
        self.directory = directory
        self.number = number
        self._fd = -1
        self._broken = False
        self._open(number)

    def _open(self, number: int) -> None:
        path = segment_path(self.directory, number)
        new = not path.exists()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.number, self._broken = fd, number, False
        self.size = os.fstat(fd).st_size
        if new:
            sync_directory(self.directory)

    def rotate(self) -> None:
        """Close this segment and begin the next. Raises OSError; the old one then stays in use."""
        self._open(self.number + 1)

    def append(self, data: bytes) -> int:
        """Write and sync; return the offset at which ``data`` starts.

        Raises:
            OSError: nothing of it counts as written; the segment is cut back to what it held before.
        """
        if self._broken:
            self._cut_back()
        start = self.size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            self._broken = True
            with contextlib.suppress(OSError):
                self._cut_back()
            raise
        try:
            _sync(self._fd)
        except OSError:
            # After a failed sync nobody knows which pages reached the disk: cut, and go on in a fresh file.
            self._broken = True
            with contextlib.suppress(OSError):
                self._cut_back()
                self.rotate()
            raise
        self.size = start + len(data)
        return start

    def _cut_back(self) -> None:
        os.ftruncate(self._fd, self.size)
        self._broken = False

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
