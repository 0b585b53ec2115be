"""The files of an audit log, and what one thread may do with them: append, read back, and be checked against the last signature.

    000000000000.jsonl   records, one per line, in segments named by the number of their first record
    tree.bin             all hashes of the Merkle tree, as ``codec.merkle.stored_at`` places them; derived, made anew if it lacks
    checkpoint           the last signed checkpoint
    reserve.bin          ballast: given up when the disk is full, so that calls that run can still be recorded

Nothing here ever removes a record. What does not match the checkpoint is left as it is, and nothing is added to it.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentmesh.codec.merkle import EMPTY_ROOT, HASH_BYTES, Frontier, frontier_of, leaf_hash, stored_at, stored_count
from agentmesh.errors import Corrupt, MeshError, StoreError, UsageError
from agentmesh.identity.audit_record import RECORD_BYTES_MAX
from agentmesh.identity.checkpoint import CHECKPOINT_BYTES_MAX, Checkpoint, read_checkpoint
from agentmesh.store.jsonl import sync_directory

CHECKPOINT_NAME, TREE_NAME, RESERVE_NAME = "checkpoint", "tree.bin", "reserve.bin"
_SEGMENT = re.compile(r"(\d{12})\.jsonl")
_READ_BYTES = 1 << 20
#: macOS has no fdatasync.
_sync = getattr(os, "fdatasync", os.fsync)

Sign = Callable[[int, bytes], Checkpoint]


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """Sizes of an audit log. There is no switch to turn it off.

    Attributes:
        segment_bytes_max: A segment is closed when it has so many bytes. Start-up hashes the newest again, about 0.1 s.
        reserve_bytes: Room for the records of calls that run when the disk fills up, whole 64 KB. Usually 4,000 of 1 KB, twice
            as many as may run at once.
    """

    segment_bytes_max: int = 8 * 1024 * 1024
    reserve_bytes: int = 4 * 1024 * 1024


def segments_of(directory: Path) -> list[int]:
    """Return the numbers of the first records of all segments, ascending. Raises OSError."""
    with os.scandir(directory) as entries:
        return sorted(int(match[1]) for entry in entries if (match := _SEGMENT.fullmatch(entry.name)))


def segment_path(directory: Path, first: int) -> Path:
    """Return the path of the segment that begins with a record."""
    return directory / f"{first:012d}.jsonl"


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of a segment without their newlines; an overlong one ends what can be read. Raises OSError."""
    rest = b""
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
            if len(rest) > RECORD_BYTES_MAX:
                return


def read_head(directory: Path, *, node: str | None) -> Checkpoint:
    """Return the last checkpoint that was written.

    Args:
        directory: Of the log.
        node: Whose it must be; None for whomever it names.

    Raises:
        Corrupt: there is none, or it holds for nobody or another (code "audit.history").
    """
    try:
        with (directory / CHECKPOINT_NAME).open("rb") as file:
            text = file.read(CHECKPOINT_BYTES_MAX + 1).decode("utf-8")
        return read_checkpoint(text, node=node)
    except FileNotFoundError as error:
        raise history_error("its last signed checkpoint is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise history_error(f"its checkpoint cannot be read: {error}") from error
    except MeshError as error:
        raise history_error(f"its checkpoint does not hold: {error}{f' ({error.why})' if error.why else ''}") from error


def history_error(why: str) -> Corrupt:
    """Return the error for a log that is not what was signed."""
    return Corrupt(
        "the audit log does not match what was signed; no call is served",
        code="audit.history",
        why=why,
        hint="agentmesh audit verify   names what is wrong; keep the files as evidence, put a good copy back",
    )


class AuditFiles:
    """One log, open for appending; made by ``open``. Calls must not overlap, except ``hash_at`` and ``records``.

    Attributes:
        head: The last checkpoint.
        found: Sentences about what was mended.
    """

    def __init__(self, directory: Path, node: str, sign: Sign, config: AuditConfig) -> None:
        self.directory, self._node, self._sign, self._config = directory, node, sign, config
        self.found: list[str] = []
        self._fd = self._tree = self._note = -1
        self._bytes = 0
        self._broken = self._has_reserve = False
        self._firsts: list[int] = []
        self._frontier = Frontier()
        self.head = sign(0, EMPTY_ROOT)

    @classmethod
    def open(cls, directory: Path, node: str, sign: Sign, config: AuditConfig) -> AuditFiles:
        """Open or make a log, and compare it with its last checkpoint.

        Raises:
            Corrupt: the two do not match (code "audit.history"). No record was changed.
            OSError: it cannot be read or written.
        """
        self = cls(directory, node, sign, config)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    @property
    def size(self) -> int:
        """Records on disk."""
        return self._frontier.size

    def _open(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._firsts = segments_of(self.directory)
        new = not self._firsts and not (self.directory / CHECKPOINT_NAME).exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        if not new:
            self.head = read_head(self.directory, node=self._node)
        self._tree = os.open(self.directory / TREE_NAME, flags, 0o600)
        self._note = os.open(self.directory / CHECKPOINT_NAME, flags, 0o600)
        if not self._firsts:
            self._firsts = [0]
        self._append_to(self._firsts[-1])
        self._cut_torn()
        self._load()
        if new:
            self.write_head()
            os.fsync(self._note)
            sync_directory(self.directory)
        elif self.size != self.head.size:
            self.write_head()
        self._fill_reserve()

    def _load(self) -> None:
        """Read the newest segment over the tree of the older ones; all segments if that tree is not what was signed."""
        first = self._firsts[-1]
        if first:
            try:
                self._frontier = frontier_of(first, self.hash_at)
                self._replay([first])
                return
            except (OSError, StoreError):
                self.found.append("the hashes of the audit log were made anew from its records")
        self._frontier = Frontier()
        self._replay(self._firsts)

    def _replay(self, firsts: Sequence[int]) -> None:
        """Add the records of segments to the tree and compare with the head. Raises Corrupt, OSError."""
        signed = self.head.size
        matches = False
        if self._frontier.size >= signed:
            matches = frontier_of(signed, self.hash_at).root() == self.head.root
        for first in firsts:
            if self._frontier.size != first:
                raise history_error(f"record {self._frontier.size} should begin the segment {first:012d}.jsonl")
            begin, final = stored_count(first), bytearray()
            for line in lines_of(segment_path(self.directory, first)):
                final += b"".join(self._frontier.append(leaf_hash(line)))
                if self._frontier.size == signed:
                    matches = self._frontier.root() == self.head.root
            os.pwrite(self._tree, final, begin * HASH_BYTES)
        if self._frontier.size < signed:
            raise history_error(f"it has {self._frontier.size} records, {signed} were signed")
        if not matches:
            raise history_error(f"the first {signed} records are not those that were signed")

    def _append_to(self, first: int) -> None:
        path = segment_path(self.directory, first)
        made = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._bytes, self._broken = fd, os.fstat(fd).st_size, False
        if made:
            sync_directory(self.directory)

    def _cut_torn(self) -> None:
        """Cut what follows the last newline: it was never acknowledged. It is kept aside, once."""
        start = max(0, self._bytes - 2 * RECORD_BYTES_MAX)
        tail = os.pread(self._fd, self._bytes - start, start)
        torn = len(tail) - (tail.rfind(b"\n") + 1)
        if not torn:
            return
        if torn == len(tail) and start:
            raise history_error("the newest segment ends in something that is no record")
        with contextlib.suppress(OSError):
            (self.directory / "torn.bin").write_bytes(tail[-torn:])
        self._bytes -= torn
        os.ftruncate(self._fd, self._bytes)
        os.fsync(self._fd)
        self.found.append(
            f"the last {torn} bytes of the audit log were torn in a crash, and cut; nobody was told of them"
        )

    # Writing

    def append(self, lines: Sequence[bytes]) -> None:
        """Write and sync records, all or none; a full disk costs the reserve first.

        Raises:
            OSError: none of them counts as written.
        """
        try:
            self._write(lines)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._free_reserve():
                raise
            self._write(lines)
        place = stored_count(self.size)
        final = b"".join(h for line in lines for h in self._frontier.append(leaf_hash(line)))
        with contextlib.suppress(OSError):  # derived: made anew at the next start
            os.pwrite(self._tree, final, place * HASH_BYTES)

    def _write(self, lines: Sequence[bytes]) -> None:
        if self._broken:
            self._cut_back()
        if self._bytes >= self._config.segment_bytes_max:
            os.fsync(self._tree)
            self._append_to(self.size)
            self._firsts.append(self.size)
        data = b"".join([line + b"\n" for line in lines])
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            _sync(self._fd)
        except OSError:
            self._broken = True
            with contextlib.suppress(OSError):
                self._cut_back()
            raise
        self._bytes += len(data)

    def _cut_back(self) -> None:
        """Return to what was acknowledged; the file is opened afresh, since nobody knows what a failed sync left in memory."""
        os.ftruncate(self._fd, self._bytes)
        self._append_to(self._firsts[-1])

    def write_head(self) -> None:
        """Sign what is on disk. In place and without a sync: an older checkpoint is true as well. Raises OSError."""
        head = self._sign(self.size, self._frontier.root())
        os.pwrite(self._note, head.text.encode(), 0)
        self.head = head

    # The reserve

    @property
    def has_reserve(self) -> bool:
        """Whether there is room for the records of calls that run, though the disk be full."""
        return self._has_reserve

    def _free_reserve(self) -> bool:
        try:
            (self.directory / RESERVE_NAME).unlink()
        except OSError:
            return False
        self._has_reserve = False
        return True

    def _fill_reserve(self) -> None:
        path = self.directory / RESERVE_NAME
        with contextlib.suppress(OSError):
            if path.stat().st_size == self._config.reserve_bytes:
                self._has_reserve = True
                return
        try:
            with path.open("wb") as file:
                for _ in range(self._config.reserve_bytes >> 16):
                    file.write(bytes(1 << 16))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        self._has_reserve = True

    def recover(self) -> None:
        """Bring back what a failed write left open, and the reserve. Raises OSError: it still does not work."""
        if self._broken:
            self._cut_back()
        self._fill_reserve()

    # Reading

    def hash_at(self, level: int, number: int) -> bytes:
        """Return a hash of the tree (``codec.merkle.Read``). Raises Corrupt: it is not stored. Any thread."""
        found = os.pread(self._tree, HASH_BYTES, stored_at(level, number) * HASH_BYTES)
        if len(found) != HASH_BYTES:
            raise Corrupt("a hash of the audit log is missing", code="audit.tree", hint="agentmesh audit verify")
        return found

    def records(self, start: int = 0) -> Iterator[bytes]:
        """Yield the records from ``start`` as they are on disk now. Any thread. Raises OSError."""
        return records_from(self.directory, start, self.size)

    def close(self) -> None:
        """Close the files. Idempotent."""
        for fd in (self._fd, self._tree, self._note):
            if fd >= 0:
                os.close(fd)
        self._fd = self._tree = self._note = -1


def records_from(directory: Path, start: int, end: int) -> Iterator[bytes]:
    """Yield the records ``start`` to ``end`` - 1 of a log. Raises OSError, UsageError."""
    firsts = segments_of(directory)
    if start < 0 or not firsts:
        raise UsageError(f"no audit record {start} in {directory}", code="audit.range")
    at = max(0, bisect.bisect_right(firsts, start) - 1)
    for first in firsts[at:]:
        for number, line in enumerate(lines_of(segment_path(directory, first)), start=first):
            if number >= end:
                return
            if number >= start:
                yield line
