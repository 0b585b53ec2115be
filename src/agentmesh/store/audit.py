"""The audit log as the daemon uses it: group commit in a thread of its own, and a journal of the calls that are under way.

A record is on disk when ``write`` returns; many that wait share one sync. A call that begins stands in the journal at once
(safe from the process's death), so that one that the process does not live to record is recorded at the next start, as
"interrupted". While records cannot be written, ``begin`` refuses: no call runs unrecorded. There is no switch.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from agentmesh.codec.canonical import canonical
from agentmesh.codec.merkle import consistency_proof, frontier_of, inclusion_proof
from agentmesh.errors import Full, MeshError, StoreError
from agentmesh.identity.audit_record import body_of, read_record, write_record
from agentmesh.identity.checkpoint import Checkpoint, sign_checkpoint
from agentmesh.identity.keys import KeyPair
from agentmesh.store.audit_files import AuditConfig, AuditFiles
from agentmesh.store.jsonl import full_error

_log = logging.getLogger("agentmesh.audit")

JOURNAL_NAME = "open.jsonl"
#: Records of one sync, at most.
_GROUP_MAX = 1_000
#: Records that may wait; calls beyond are refused. The disk writes so many in about a second.
_QUEUE_MAX = 20_000
#: Records that wait for a disk that refuses them; of what comes on top only the number is kept.
_KEPT_MAX = 20_000
_RETRY_S = 1.0
#: A checkpoint is signed when nothing waits, and at least this often, seconds.
_SIGN_S = 0.05
#: The journal is written anew when it is so large and mostly of calls that are over, bytes.
_JOURNAL_BYTES_MIN = 1024 * 1024
_JOURNAL_LINE_BYTES_MAX = 64 * 1024


class _Waiting(NamedTuple):
    """A record on its way: its body (None: there is none, only somebody who waits for those before), the call in the
    journal that it ends, and who waits for it."""

    body: dict[str, Any] | None
    begun: int | None
    ticket: asyncio.Future[int] | None


class AuditLog:
    """One node's audit log; made by ``open`` in the loop that uses it.

    Attributes:
        sentences: What people should know about it.
    """

    def __init__(self, directory: Path, key: KeyPair, files: AuditFiles | None, broken: StoreError | None) -> None:
        self.directory = directory
        self.node_id = key.did
        self._files, self._broken = files, broken
        self._failing: Full | None = None
        self._lost = 0
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._kept: list[_Waiting] = []
        self._begun: dict[int, bytes] = {}
        self._next = 0
        self._journal = -1
        self._journal_bytes = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        if files is not None:
            self._thread = threading.Thread(target=self._run, name="audit-write", daemon=True)

    @classmethod
    def open(cls, directory: Path, key: KeyPair, config: AuditConfig | None = None) -> AuditLog:
        """Open or make a log. One that does not match its signature is opened too, and takes and allows nothing.

        Raises:
            Full: it cannot be read or written.
        """
        files: AuditFiles | None = None
        broken: StoreError | None = None
        try:
            files = AuditFiles.open(
                directory,
                key.did,
                lambda size, root: sign_checkpoint(key, size, root),
                config or AuditConfig(),
            )
            self = cls(directory, key, files, None)
            self._recover()
        except StoreError as error:
            if files is not None:
                files.close()
            broken = error
            _log.critical("%s: %s", error, error.why)
            self = cls(directory, key, None, broken)
        except OSError as error:
            if files is not None:
                files.close()
            raise full_error(error, directory) from error
        if self._thread is not None:
            self._thread.start()
        return self

    # What is known of it

    @property
    def head(self) -> Checkpoint | None:
        """The last checkpoint; None while the log does not match it."""
        return None if self._files is None else self._files.head

    @property
    def refusal(self) -> StoreError | None:
        """Why no call may run now; None when all is well."""
        return self._broken or self._failing

    @property
    def sentences(self) -> list[str]:
        """What people should know: repairs, and why calls are refused."""
        said = [] if self._files is None else list(self._files.found)
        if self._broken is not None:
            said.append(f"{self._broken}: {self._broken.why}; next: {self._broken.hint}")
        elif self._failing is not None:
            said.append(
                f"the audit log cannot be written, so calls are refused ({self._failing}); next: {self._failing.hint}"
            )
        return said

    # Writing

    def begin(self, body: dict[str, Any]) -> int:
        """Note that a call begins, before anything of it does.

        Args:
            body: Its record as far as it is known (``identity.audit_record.body_of``).

        Returns:
            Its number, for ``write``.

        Raises:
            Corrupt, Full: it could not be recorded; it must not run. Nothing was noted.
        """
        if (refusal := self.refusal) is not None:
            raise type(refusal)(str(refusal), code=refusal.code, why=refusal.why, hint=refusal.hint)
        assert self._files is not None
        if self._closed or self._queue.qsize() > _QUEUE_MAX:
            raise Full("the audit log does not keep up", code="audit.queue_full", hint="try again in a moment")
        number = self._next
        line = canonical({"n": number, "at": self._files.size, "body": body}) + b"\n"
        try:
            written = os.write(self._journal, line)
            if written != len(line):
                os.ftruncate(self._journal, self._journal_bytes)
                raise OSError(28, "no space left on device")
        except OSError as error:
            raise full_error(error, self.directory) from error
        self._next += 1
        self._journal_bytes += len(line)
        self._begun[number] = line
        return number

    async def write(self, body: dict[str, Any], begun: int | None = None) -> int:
        """Add a record and wait until it is on disk; return its place in the log.

        Args:
            body: The record.
            begun: Number of the call in the journal that it ends.

        Raises:
            StoreError: it is not on disk. It is kept and tried again while the process lives.
        """
        if self._broken is not None or self._closed:
            raise self._broken or Full("the audit log is closed", code="audit.closed")
        ticket: asyncio.Future[int] = self._loop.create_future()
        self._queue.put(_Waiting(body, begun, ticket))
        return await ticket

    async def settle(self) -> None:
        """Wait until all that was given before is on disk. Raises StoreError."""
        if self._broken is None and not self._closed:
            ticket: asyncio.Future[int] = self._loop.create_future()
            self._queue.put(_Waiting(None, None, ticket))
            await ticket

    def write_soon(self, body: dict[str, Any], begun: int | None = None) -> None:
        """Add a record without waiting. Never raises; a call that stands in the journal is recorded in any case."""
        if self._broken is None and not self._closed:
            self._queue.put(_Waiting(body, begun, None))

    def _run(self) -> None:
        assert self._files is not None
        signed_s = 0.0
        open_ = True
        while open_:
            group, open_ = self._gather()
            if group or self._kept or self._failing is not None:
                try:
                    self._commit(group)
                except Exception as bug:  # noqa: BLE001 the driver loop of this thread: were it to end, calls would wait for ever
                    _log.critical("a group of audit records failed", exc_info=bug)
                    self._refuse(group, Full(f"the audit log failed: {bug!r}", code="audit.bug"))
            now_s = time.monotonic()
            if self._files.size != self._files.head.size and (
                self._queue.empty() or now_s - signed_s > _SIGN_S or not open_
            ):
                with contextlib.suppress(OSError):
                    self._files.write_head()
                signed_s = now_s

    def _gather(self) -> tuple[list[_Waiting], bool]:
        group: list[_Waiting] = []
        try:
            one = self._queue.get(timeout=_RETRY_S if self._kept or self._failing is not None else None)
            while one is not None:
                group.append(one)
                if len(group) >= _GROUP_MAX:
                    return group, True
                one = self._queue.get_nowait()
        except queue.Empty:
            return group, True
        return group, False

    def _commit(self, group: list[_Waiting]) -> None:
        assert self._files is not None
        group = [*self._kept, *group]
        if self._lost:
            now = time_of(time.time_ns() // 1000)
            gap = body_of("gap", "refused", agent=self.node_id, resource="audit", time=now, missing=self._lost)
            group.insert(0, _Waiting(gap, None, None))
        first = self._files.size
        lines: list[bytes] = []
        for body in [one.body for one in group if one.body is not None]:
            try:
                lines.append(write_record(body, self.node_id, first + len(lines)))
            except MeshError as error:
                _log.error("an audit record cannot be written as it is: %s", error)
                lines.append(write_record(_bare(body), self.node_id, first + len(lines)))
        try:
            if self._failing is not None:
                self._try_recover()
            if lines:
                self._files.append(lines)
                if not self._files.has_reserve:
                    self._try_recover()
        except OSError as error:
            self._refuse(group, full_error(error, self.directory))
            return
        self._kept, self._lost = [], 0
        self._tell(group, first, None)

    def _try_recover(self) -> None:
        """Bring the reserve back. While that fails the log goes on failing, though records may still fit."""
        assert self._files is not None
        try:
            self._files.recover()
        except OSError as error:
            self._fail(full_error(error, self.directory))
        else:
            if self._failing is not None:
                _log.warning("the audit log can be written again")
            self._failing = None

    def _fail(self, error: Full) -> None:
        if self._failing is None:
            _log.error("the audit log cannot be written, calls are refused: %s", error)
        self._failing = error

    def _refuse(self, group: list[_Waiting], error: Full) -> None:
        """Keep what the disk refused, tell who waits, and let no call begin until it works."""
        self._fail(error)
        kept = [_Waiting(one.body, one.begun, None) for one in group if one.body is not None]
        if len(kept) > _KEPT_MAX:
            self._lost += len(kept) - _KEPT_MAX
            del kept[_KEPT_MAX:]
        self._kept = kept
        self._tell([one for one in group if one.ticket is not None], 0, error)

    def _tell(self, group: list[_Waiting], first: int, error: Full | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, group, first, error)

    def _settle(self, group: list[_Waiting], first: int, error: Full | None) -> None:
        place = first - 1
        for body, begun, ticket in group:
            place += body is not None
            if error is None and begun is not None:
                self._begun.pop(begun, None)
            if ticket is not None and not ticket.done():
                if error is None:
                    ticket.set_result(place)
                else:
                    ticket.set_exception(Full(str(error), code=error.code, why=error.why, hint=error.hint))
        self._shorten()

    # The journal

    def _recover(self) -> None:
        """Record the calls of which the journal knows the beginning and the log no end; begin an empty journal."""
        assert self._files is not None
        path = self.directory / JOURNAL_NAME
        left = _journal_of(path)
        if left:
            for raw in self._files.records(min(at for at, _ in left.values())):
                with contextlib.suppress(MeshError):
                    record = read_record(raw)
                    found = left.get(_call_of(record.data))
                    if found is not None and found[0] <= record.seq:
                        del left[_call_of(record.data)]
        if left:
            bodies = [{**b, "data": {**b["data"], "outcome": "interrupted"}} for _, b in left.values()]
            first = self._files.size
            self._files.append([write_record(b, self.node_id, first + i) for i, b in enumerate(bodies)])
            self._files.write_head()
            self._files.found.append(
                f"{len(left)} calls were under way when the node ended; they are recorded as interrupted"
            )
        self._journal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._journal, 0)

    def _shorten(self) -> None:
        """Drop the calls that are over from the journal, when they are most of it."""
        if self._journal < 0 or self._journal_bytes < _JOURNAL_BYTES_MIN:
            return
        live = b"".join(self._begun.values())
        if self._journal_bytes < 4 * len(live):
            return
        path = self.directory / JOURNAL_NAME
        temporary = path.with_suffix(".tmp")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.write(fd, live) != len(live):
                    raise OSError(28, "no space left on device")
                os.replace(temporary, path)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            _log.warning("the journal of calls cannot be shortened: %s", error)
            return
        os.close(self._journal)
        self._journal, self._journal_bytes = fd, len(live)

    # Reading

    def records(self, start: int = 0) -> Iterator[bytes]:
        """Yield the records on disk from ``start``; for a thread of its own. Raises Corrupt, OSError."""
        return self._require().records(start)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the proof that a record is among the first ``size``. Raises Corrupt, UsageError."""
        return inclusion_proof(index, size, self._require().hash_at)

    def root_at(self, size: int) -> bytes:
        """Return the root of the first ``size`` records. Raises Corrupt."""
        return frontier_of(size, self._require().hash_at).root()

    def consistency(self, first: int, second: int) -> list[bytes]:
        """Return the proof that the log of ``second`` records begins with that of ``first``. Raises Corrupt, UsageError."""
        return consistency_proof(first, second, self._require().hash_at)

    def _require(self) -> AuditFiles:
        if self._files is None:
            assert self._broken is not None
            raise self._broken
        return self._files

    async def aclose(self) -> None:
        """Write what waits, sign, close. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None and self._files is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._files.close()
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1


def time_of(unix_us: int) -> str:
    """Spell a time as RFC 3339, UTC, with microseconds."""
    whole, rest = divmod(max(0, unix_us), 1_000_000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"


def _call_of(data: dict[str, Any]) -> str:
    """Return what tells calls apart: the same in the journal and in the record."""
    return "\n".join(str(data.get(name, "")) for name in ("action", "resource", "task", "proof"))


def _bare(body: dict[str, Any]) -> dict[str, Any]:
    """Return what is left of a record that cannot be written as it is: who, what, and the decision."""
    data = {
        name: body["data"][name] for name in ("action", "decision", "agent", "resource", "task") if name in body["data"]
    }
    return {**body, "data": {**data, "cut": True}}


def _journal_of(path: Path) -> dict[str, tuple[int, dict[str, Any]]]:
    """Return the calls in a journal: key → (records at its beginning, body). A torn line never began. Raises OSError."""
    calls: dict[str, tuple[int, dict[str, Any]]] = {}
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return calls
    with file:
        while line := file.readline(_JOURNAL_LINE_BYTES_MAX):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                body: dict[str, Any] = entry["body"]
                calls[_call_of(body["data"])] = int(entry["at"]), body
    return calls
