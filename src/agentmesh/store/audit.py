"""The audit log as the daemon uses it: group commit in a thread of its own, and a journal of the calls that are under way.

A record is on disk when ``write`` returns; many that wait share one sync. A call that begins stands in the journal at once
(safe from the process's death), so that one that the process does not live to record is recorded at the next start, as
"interrupted". While records cannot be written, ``begin`` refuses: no call runs unrecorded. There is no switch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from agentmesh.codec.merkle import consistency_proof, frontier_of, inclusion_proof
from agentmesh.errors import Full, MeshError, StoreError
from agentmesh.identity.audit_record import body_of, read_record, write_record
from agentmesh.identity.checkpoint import Checkpoint, sign_checkpoint
from agentmesh.identity.keys import KeyPair
from agentmesh.store.audit_files import AuditConfig, AuditFiles
from agentmesh.store.audit_journal import CallJournal, call_of, left_in
from agentmesh.store.jsonl import full_error

_log = logging.getLogger("agentmesh.audit")

#: Records of one sync, at most.
_GROUP_MAX = 1_000
#: Records that may wait; calls beyond are refused. The disk writes so many in about a second.
QUEUE_MAX = 20_000
#: Records that wait for a disk that refuses them; of what comes on top only the number is kept.
_KEPT_MAX = 20_000
_RETRY_S = 1.0
#: A checkpoint is signed so soon after a record that it does not cover, seconds: at once would cost as much as the record, while
#: the loop of the node wants to go on.
_SIGN_S = 0.05
#: How long the record of a call that went out waits for company, seconds; a record that is waited for takes it along.
_LINGER_S = 0.02


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
        self._queue: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        #: Records that were put into the queue, counted by the loop, and those that left it, counted by the thread.
        self._put = self._taken = 0
        self._later: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._kept: list[_Waiting] = []
        self._journal: CallJournal | None = None
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

    @property
    def waiting(self) -> int:
        """Records that are not on disk yet."""
        return self._put - self._taken + len(self._later) + len(self._kept)

    def begin(self, body: dict[str, Any]) -> int:
        """Note that a call begins, before anything of it does.

        Args:
            body: Its record as far as it is known (``identity.audit_record.body_of``).

        Returns:
            Its number, for ``write``.

        Raises:
            Corrupt, Full: it could not be recorded; it must not run. Nothing was noted.
            UsageError: it is no JSON. Nothing was noted.
        """
        if (refusal := self.refusal) is not None:
            raise type(refusal)(str(refusal), code=refusal.code, why=refusal.why, hint=refusal.hint)
        assert self._files is not None
        assert self._journal is not None
        if self._closed or self._put - self._taken > QUEUE_MAX:
            raise Full("the audit log does not keep up", code="audit.queue_full", hint="try again in a moment")
        try:
            return self._journal.begin(body, self._files.size)
        except OSError as error:
            raise full_error(error, self.directory) from error

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
        self._later.append(_Waiting(body, begun, ticket))
        self._hand_over()
        return await ticket

    async def settle(self) -> None:
        """Wait until all that was given before is on disk and signed. Raises StoreError."""
        if self._broken is None and not self._closed:
            ticket: asyncio.Future[int] = self._loop.create_future()
            self._later.append(_Waiting(None, None, ticket))
            self._hand_over()
            await ticket

    def write_soon(self, body: dict[str, Any], begun: int | None = None) -> None:
        """Add a record without waiting. Never raises; a call that stands in the journal is recorded in any case."""
        if self._broken is not None or self._closed:
            return
        self._later.append(_Waiting(body, begun, None))
        if begun is None or len(self._later) >= _GROUP_MAX:
            self._hand_over()
        elif self._timer is None:
            self._timer = self._loop.call_later(_LINGER_S, self._hand_over)

    def _hand_over(self) -> None:
        """Give the thread all that was added, in its order."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._later:
            self._put += len(self._later)
            self._queue.put(self._later)
            self._later = []

    def _run(self) -> None:
        assert self._files is not None
        sign_s: float | None = None
        open_ = True
        while open_:
            patience_s = None if sign_s is None else max(0.0, sign_s - time.monotonic())
            if self._kept or self._failing is not None:
                patience_s = _RETRY_S
            group, open_ = self._gather(patience_s)
            if group or self._kept or self._failing is not None:
                try:
                    self._commit(group)
                except Exception as bug:  # noqa: BLE001 the driver loop of this thread: were it to end, calls would wait for ever
                    _log.critical("a group of audit records failed", exc_info=bug)
                    self._refuse(group, Full(f"the audit log failed: {bug!r}", code="audit.bug"))
            if self._files.size == self._files.head.size:
                sign_s = None
            elif sign_s is None and open_:
                sign_s = time.monotonic() + _SIGN_S
            elif sign_s is None or time.monotonic() >= sign_s or not open_:
                sign_s = None
                self._sign()

    def _sign(self) -> None:
        assert self._files is not None
        if self._files.size != self._files.head.size:
            with contextlib.suppress(OSError):
                self._files.write_head()

    def _gather(self, patience_s: float | None) -> tuple[list[_Waiting], bool]:
        """Return what waits, and False if it is the last.

        Args:
            patience_s: How long to wait for a first record; None for ever. Empty when none came.
        """
        group: list[_Waiting] = []
        try:
            some = self._queue.get(timeout=patience_s)
            while some is not None:
                group += some
                self._taken += len(some)
                if len(group) >= _GROUP_MAX:
                    return group, True
                some = self._queue.get_nowait()
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
        bodies = [one.body for one in group if one.body is not None]
        lines = [self._line_of(body, first + place) for place, body in enumerate(bodies)]
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
        if any(one.body is None for one in group):
            self._sign()
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
        assert self._journal is not None
        place = first - 1
        for body, begun, ticket in group:
            place += body is not None
            if error is None and begun is not None:
                self._journal.end(begun)
            if ticket is not None and not ticket.done():
                if error is None:
                    ticket.set_result(place)
                else:
                    ticket.set_exception(Full(str(error), code=error.code, why=error.why, hint=error.hint))
        self._journal.shorten()

    # The journal

    def _recover(self) -> None:
        """Record the calls of which the journal knows the beginning and the log no end; begin an empty journal."""
        assert self._files is not None
        left = left_in(self.directory)
        if left:
            for raw in self._files.records(min(at for at, _ in left.values())):
                with contextlib.suppress(MeshError):
                    record = read_record(raw)
                    found = left.get(call_of(record.data))
                    if found is not None and found[0] <= record.seq:
                        del left[call_of(record.data)]
        if left:
            bodies = [{**b, "data": {**b["data"], "outcome": "interrupted"}} for _, b in left.values()]
            first = self._files.size
            self._files.append([self._line_of(b, first + i) for i, b in enumerate(bodies)])
            self._files.write_head()
            self._files.found.append(
                f"{len(left)} calls were under way when the node ended; they are recorded as interrupted"
            )
        self._journal = CallJournal(self.directory)

    def _line_of(self, body: dict[str, Any], seq: int) -> bytes:
        """Return a record at its place, or what is left of one that cannot be written as it is."""
        try:
            return write_record(body, self.node_id, seq)
        except MeshError as error:
            _log.error("an audit record cannot be written as it is: %s", error)
            return write_record(_bare(body), self.node_id, seq)

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
        self._hand_over()
        if self._thread is not None and self._files is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._files.close()
        if self._journal is not None:
            self._journal.close()


def time_of(unix_us: int) -> str:
    """Spell a time as RFC 3339, UTC, with microseconds."""
    whole, rest = divmod(max(0, unix_us), 1_000_000)
    return f"{_second_of(whole)}.{rest:06d}Z"


@lru_cache(maxsize=2)
def _second_of(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%S}"


def _bare(body: dict[str, Any]) -> dict[str, Any]:
    """Return what is left of a record that cannot be written as it is: who, what, and the decision."""
    data = {
        name: body["data"][name] for name in ("action", "decision", "agent", "resource", "task") if name in body["data"]
    }
    return {**body, "data": {**data, "cut": True}}
