"""The event log: append-only JSONL as the truth, a SQLite index beside it, one writer (RQ4 §2.3; issue 2 §9).

    loop thread    append: give a position, encode, queue            follow, run_events, resolve, runs
    writer thread  group: write, sync once, index in one transaction   ──► settles waiters on the loop
    reader thread  look up rows, read their lines from the JSONL

An event is acknowledged when ``append_durable`` or ``flush`` returned: it is on disk then. What ``append`` took is
written at once as well, so it survives the death of the process, and is synced with its group. docs/spec/events.md has
the rules of repair.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import sqlite3
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from agentmesh.errors import Corrupt, Full, LimitError, RecordNotFound, RunNotFound, StateError, StoreError, UsageError
from agentmesh.store.base import EventLogConfig, Fate, Report, RunPage
from agentmesh.store.index import Index, Place, admit
from agentmesh.store.jsonl import full_error
from agentmesh.store.reader import PREFIX_MIN, IndexReader, LineReader, Mismatch, of_size, resolve_text
from agentmesh.store.recover import INDEX_NAME, recover
from agentmesh.store.runrows import STEP_ROWS, RunTables, told
from agentmesh.store.runtable import RunTable
from agentmesh.store.writer import Batch, GroupDone, GroupWriter
from agentmesh.wire.console_views import TraceRows
from agentmesh.wire.event import EVENT_BYTES_MAX, EventV1, encode_json, order_key
from agentmesh.wire.rows import RowQuery, RunQuery

_T = TypeVar("_T")
_LAST = re.compile(r"last(?:~(\d{1,9}))?")
_REF_MAX = 200


class EventLog:
    """One node's events. Open with ``await EventLog.open(directory)``; use from that event loop only.

    Attributes:
        report: What was repaired, and the present problem; ``report.sentences`` is for ``status.warnings``.
        last_seq: The last position given; 0 in an empty log.
    """

    def __init__(
        self, directory: Path, node_id: str, config: EventLogConfig, report: Report, index: Index, lock: int
    ) -> None:
        self.directory = directory
        self.node_id = node_id
        self.config = config
        self.report = report
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self._writer = GroupWriter(directory, index, config, report, self._report_group)
        self.last_seq = self._writer.last_seq
        self._count = self._writer.count
        self._upto = self._visible = self.last_seq
        self._given_events = self._given_bytes = 0
        self._failing: StoreError | None = None
        self._closed = False
        self._waiters: list[asyncio.Future[None]] = []
        self._recent: list[EventV1] = []
        self._recent_after = self.last_seq
        self._recent_bytes = 0
        self._followers = 0
        self._readers: ThreadPoolExecutor | None = None
        self._lines = LineReader(directory, report)
        self._tables = RunTables(self._lines, config.rows_bytes_max)
        self._idle: asyncio.TimerHandle | None = None
        self._looked_s = 0.0
        self._writer.start()

    @classmethod
    async def open(cls, directory: Path, node_id: str = "", config: EventLogConfig | None = None) -> EventLog:
        """Open a log, repairing whatever the last process left; ``directory`` is made if absent.

        Raises:
            StateError: another process has it open ("events.locked").
            Full: the directory cannot be written.
        """
        config = config or EventLogConfig()
        report = Report()

        def prepare() -> tuple[Index, int]:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _lock(directory)
            try:
                return recover(directory, config, report), lock
            except BaseException:
                os.close(lock)
                raise

        try:
            index, lock = await asyncio.to_thread(prepare)
            try:
                return cls(directory, node_id, config, report, index, lock)
            except BaseException:
                index.close()
                os.close(lock)
                raise
        except OSError as error:
            raise full_error(error, directory) from error
        except sqlite3.Error as error:
            raise Full(
                f"cannot write {directory / INDEX_NAME}: {error}",
                hint=f"check space and permissions:   ls -ld {directory}",
            ) from error

    @property
    def count(self) -> int:
        """Events in the log that are durable and indexed."""
        return self._count

    @property
    def fate(self) -> Fate:
        """What became of the events that were accepted since the log was opened."""
        writer = self._writer
        done = writer.done_events  # first: the writer goes on meanwhile, and counts what it settled before this
        stored, known, returned = writer.stored_events, writer.known_events, writer.returned_events
        lost = max(0, done - stored - known - returned)
        return Fate(self._given_events, stored, known, returned, self._given_events - done, lost)

    @property
    def healthy(self) -> bool:
        """Whether the last write worked; ``report.problem`` says why not."""
        return self._failing is None and not self.report.problem

    # Writing

    def append(self, event: EventV1) -> int:
        """Give the event the next position (``event.seq``), queue it and return the position.

        Raises:
            Full: "events.queue_full": the disk does not keep up or refuses; ``retry_after_s`` says when to try again.
            LimitError, DecodeError, UsageError: too large, a field out of range, or not JSON.
            StateError: closed. In every case the event was not taken.
        """
        self._put([event])
        return self.last_seq

    def append_copy(self, event: EventV1) -> None:
        """Queue another node's event, which gets a position here, unless its id is known in its run.

        Raises:
            As ``append``.
        """
        self._put([event], copies=True)

    async def append_durable(self, events: Iterable[EventV1], *, copies: bool = False) -> int:
        """Append all or none of the events and wait until they are on disk.

        Args:
            events: At most ``queue_events_max``.
            copies: Leave out those whose id is known in their run, so that sending twice stores once.

        Returns:
            The last position given.

        Raises:
            Full: the disk refused, or the queue is full. Nothing is acknowledged; send the same again later.
            LimitError, DecodeError, UsageError, StateError: as ``append``; nothing was taken.
        """
        ticket: asyncio.Future[None] = self._loop.create_future()
        self._put(list(events), copies=copies, ticket=ticket)
        last = self.last_seq
        await ticket
        return last

    async def flush(self) -> None:
        """Wait until everything appended so far is on disk and indexed.

        Raises:
            StoreError: it cannot be written now; it is kept and tried again.
        """
        await self.append_durable(())
        if self._failing is not None:
            raise self._failing

    def _put(self, events: list[EventV1], *, copies: bool = False, ticket: asyncio.Future[None] | None = None) -> None:
        if self._closed:
            raise StateError("the event log is closed", code="events.closed")
        seq = self.last_seq
        size = 0
        entries: list[tuple[EventV1, bytes]] = []
        for event in events:
            admit(event)
            seq += 1
            event.seq = seq
            try:
                line = encode_json(event)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise UsageError(f"event cannot be written as JSON: {error}", code="event.unencodable") from error
            if len(line) >= EVENT_BYTES_MAX:
                raise LimitError(
                    f"event of {len(line)} bytes, at most {EVENT_BYTES_MAX} are stored", code="event.too_large"
                )
            size += len(line)
            entries.append((event, line))
        queued_events = self._given_events - self._writer.done_events + len(entries)
        queued_bytes = self._given_bytes - self._writer.done_bytes + size
        if entries and (queued_events > self.config.queue_events_max or queued_bytes > self.config.queue_bytes_max):
            raise Full(
                f"{queued_events} events ({queued_bytes} bytes) wait for the disk, at most "
                f"{self.config.queue_events_max} ({self.config.queue_bytes_max}) may",
                code="events.queue_full",
                why=self.report.problem or "events arrive faster than the disk takes them",
                hint="send fewer at once, or try again in a moment",
                extra={"retry_after_s": self.config.retry_s if self._failing else 0.1},
            )
        self._given_events += len(entries)
        self._given_bytes += size
        self.last_seq = seq
        self._writer.put(Batch(entries, seq, size, copies, ticket))

    def _report_group(self, done: GroupDone) -> None:
        """Hand a group's outcome from the writer thread to the loop; a loop that is gone has no waiters left."""
        if not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(self._on_group, done)
            except RuntimeError:
                return

    def _on_group(self, done: GroupDone) -> None:
        self._failing = done.error
        self._count = done.total
        self._remember(done)
        self._upto, self._visible = done.upto, done.visible
        for ticket in done.tickets:
            future: Any = ticket
            if not future.done():
                if done.error is None:
                    future.set_result(None)
                else:
                    future.set_exception(_again(done.error))
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _remember(self, done: GroupDone) -> None:
        """Keep the newest events while somebody follows: all visible ones above ``_recent_after`` are in ``_recent``."""
        if not self._followers or self._visible != self._upto or done.visible != done.upto:
            self._recent.clear()
            self._recent_bytes = 0
            self._recent_after = done.visible
            return
        self._recent.extend(done.events)
        self._recent_bytes += done.bytes
        too_large = self._recent_bytes > self.config.recent_bytes_max
        if self._recent and (too_large or len(self._recent) > self.config.recent_events_max):
            # Cutting half at a time keeps the cost per event constant; bytes are shared out evenly, an estimate.
            keep = 0 if too_large else min(len(self._recent), self.config.recent_events_max) // 2
            self._recent_bytes = self._recent_bytes * keep // len(self._recent)
            self._recent_after = self._recent[-keep - 1].seq
            del self._recent[: len(self._recent) - keep]
        if not self._recent:
            self._recent_after = done.visible

    # Reading

    async def run_events(self, run_id: str, after: int = 0, limit: int = 100_000) -> list[EventV1]:
        """Return a run's events in the order of ``order_key``, each id once; an unknown run has none.

        Args:
            run_id: The full id.
            after: Leave out positions up to this one.
            limit: Return at most that many, those with the lowest positions.

        Raises:
            LimitError: they are more than ``read_bytes_max``; ask with a smaller limit. Nothing was read.
            StoreError: the index cannot be read.
        """
        events = await self._events(lambda reader: reader.run_places(run_id, max(0, after), max(0, limit)))
        return _in_order(events)

    async def task_events(self, task_id: str) -> list[EventV1]:
        """Return a task's events in the order of ``order_key``; an unknown task has none.

        Raises:
            LimitError, StoreError: as ``run_events``.
        """
        return _in_order(await self._events(lambda reader: reader.task_places(task_id, 100_000)))

    async def rows(self, run_id: str, query: RowQuery) -> tuple[TraceRows, list[tuple[str, str]]]:
        """Return a run as rows, with the nodes (caller's, callee's) of each of its calls; an unknown run has none.

        The first look reads the whole run, further ones only what is new. ``nodes`` have no names, ``path`` only "local",
        and ``complete`` says whether every call has ended.

        Raises:
            LimitError: the run does not fit ``rows_bytes_max``.
            StoreError: the index cannot be read.
        """
        await self._wait_settled(self.last_seq)
        upto = self._visible
        table: RunTable | None = None
        while table is None:
            table = await self._query(
                lambda reader: self._tables.extend(
                    reader, run_id, upto, (self._writer.generation, self.report.segments_dropped)
                ),
                settle=False,
            )
        whole = table
        answer, found, ends = await self._query(
            lambda _: (*told(run_id, whole, query), whole.tasks.ends()), settle=False
        )
        for start in range(0, len(found.rows), STEP_ROWS):
            part = found.rows[start : start + STEP_ROWS]
            answer.rows.label += await self._query(lambda _, part=part: self._tables.labels(whole, part), settle=False)
        self._keep_tables()
        return answer, ends

    def _keep_tables(self) -> None:
        """Let the tables of runs go when nobody has looked at one for a while."""
        self._looked_s = self._loop.time()
        if self._idle is None:
            self._idle = self._loop.call_later(self.config.rows_idle_s, self._drop_tables)

    def _drop_tables(self) -> None:
        self._idle = None
        rest_s = self._looked_s + self.config.rows_idle_s - self._loop.time()
        if self._closed or self._readers is None:
            return
        if rest_s > 0:
            self._idle = self._loop.call_later(rest_s, self._drop_tables)
        else:
            self._readers.submit(self._tables.clear)

    async def event_at(self, seq: int) -> EventV1:
        """Return the event at a position of this log.

        Raises:
            RecordNotFound: there is none, or none any more.
            StoreError: the index cannot be read.
        """
        found = await self._events(lambda reader: reader.places_after(seq - 1, seq, 1))
        if not found:
            raise RecordNotFound(
                f"no event {seq} in the log of this node",
                why="it never was, or it is older than what is kept"
                if seq <= self.last_seq
                else "it has not happened yet",
                hint="agentmesh trace last --json   shows the positions (seq) of a run",
            )
        return found[0]

    async def runs(self, query: RunQuery) -> RunPage:
        """Return runs that fit, newest (by arrival here) first. Raises StoreError."""
        return await self._query(lambda reader: reader.runs(query))

    async def resolve(self, ref: str) -> str:
        """Return the run id that a reference names.

        Args:
            ref: A run id or task id, whole or a unique beginning of at least 4 characters, with or without ``run_`` or
                ``task_`` before it; a W3C trace id, whole; ``last``; ``last~N`` for the Nth before the last.

        Raises:
            RunNotFound: nothing has that name.
            UsageError: too short, or several runs begin so ("run.ambiguous").
            StoreError: the index cannot be read.
        """
        ref = ref.strip()
        if not ref or len(ref) > _REF_MAX:
            raise UsageError("a run is named by its id, the id of a task, or 'last'", code="run.ref")
        match = _LAST.fullmatch(ref)
        if match:
            back = int(match[1] or 0)
            newest = await self._query(lambda reader: reader.newest(back))
            if newest:
                return newest[0]
            raise RunNotFound(
                f"no run {ref!r}: {'nothing has run yet' if not back else 'there are not that many'}",
                hint="agentmesh trace --list   shows the runs"
                if back
                else "agentmesh run --to NAME 'text'   makes one",
            )
        for text in dict.fromkeys((ref, re.sub(r"^(run|task)_", "", ref))):
            found = await self._query(lambda reader, text=text: resolve_text(reader, text))
            if len(found) == 1:
                return found[0]
            if found:
                raise UsageError(
                    f"{ref!r} names {len(found) if len(found) < 6 else 'more than 5'} runs",
                    code="run.ambiguous",
                    hint="use more characters: " + ", ".join(run[: len(text) + 6] for run in found[:5]),
                    extra={"candidates": found[:5]},
                )
        raise RunNotFound(
            f"no run or task {ref!r}",
            why="nothing in this node's event log has that id"
            if len(ref) >= PREFIX_MIN
            else "beginnings need 4 characters",
            hint="agentmesh trace last   shows the newest run",
        )

    async def follow(self, after_seq: int, run_id: str | None = None) -> AsyncIterator[EventV1]:
        """Yield every event after a position in order of position: first those stored, then live ones once durable.

        Nothing is lost and nothing is buffered per follower, however slow it reads: live ones come from a shared window
        of recent events, and whoever falls behind it reads from the index again. Ends when the log is closed.

        Raises:
            StoreError: the index cannot be read.
        """
        cursor = max(0, after_seq)
        self._followers += 1
        try:
            while not self._closed:
                if cursor < self._visible:
                    batch, cursor_after = await self._next_batch(cursor, run_id)
                    for event in batch:
                        yield event
                    cursor = cursor_after
                else:
                    await self._wait_visible(cursor)
        finally:
            self._followers -= 1

    async def _next_batch(self, cursor: int, run_id: str | None) -> tuple[list[EventV1], int]:
        """Return the next events after a position, and the position up to which that covers all."""
        limit = self.config.follow_batch
        if cursor >= self._recent_after:
            start = bisect_right(self._recent, cursor, key=_seq)
            batch = self._recent[start : start + limit]
            upto = batch[-1].seq if start + limit < len(self._recent) else self._visible
            return [event for event in batch if run_id is None or event.run_id == run_id], upto
        upto = self._visible

        def places(reader: IndexReader) -> list[Place]:
            nonlocal upto
            if run_id is None:
                found = reader.places_after(cursor, upto, limit)
            else:
                found = reader.run_places_between(run_id, cursor, upto, limit)
            part = of_size(found, self.config.recent_bytes_max)
            if len(part) == limit or len(part) < len(found):
                upto = part[-1].seq
            return part

        found = await self._events(places, settle=False)
        return found, upto

    async def _wait_settled(self, seq: int) -> None:
        """Wait until a position is durable or given up. While the disk refuses nobody waits: readers get what is there."""
        if seq > self._upto and self._failing is None and not self._closed:
            self._writer.put(Batch([], self.last_seq, 0, urgent=True))
        while seq > self._upto and self._failing is None and not self._closed:
            await self._next_group()

    async def _wait_visible(self, cursor: int) -> None:
        """Wait for a position beyond the cursor, or the end of the log."""
        while cursor >= self._visible and not self._closed:
            await self._next_group()

    async def _next_group(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    async def _events(self, places: Callable[[IndexReader], list[Place]], *, settle: bool = True) -> list[EventV1]:
        def read(reader: IndexReader) -> list[EventV1]:
            return self._lines.events(places(reader), self.config.read_bytes_max)

        return await self._query(read, settle=settle)

    async def _query(self, query: Callable[[IndexReader], _T], *, settle: bool = True) -> _T:
        """Run a query in the reader thread once everything appended before is in the index."""
        if settle:
            await self._wait_settled(self.last_seq)
        if self._closed:
            raise StateError("the event log is closed", code="events.closed")
        if self._readers is None:
            self._readers = ThreadPoolExecutor(1, thread_name_prefix="events-read")
        try:
            return await self._loop.run_in_executor(self._readers, self._lines.ask, query, self._writer.generation)
        except (sqlite3.DatabaseError, Mismatch, OSError):
            if self._closed:
                raise StateError("the event log is closed", code="events.closed") from None
            # The index is wrong or gone: have it built anew, once, and ask again.
            ticket: asyncio.Future[None] = self._loop.create_future()
            self._writer.put(Batch([], self.last_seq, 0, False, ticket, True))
            await ticket
        if self._closed:
            raise StateError("the event log is closed", code="events.closed")
        try:
            return await self._loop.run_in_executor(self._readers, self._lines.ask, query, self._writer.generation)
        except (sqlite3.DatabaseError, Mismatch, OSError) as error:
            raise Corrupt(
                f"the event index cannot be read: {error}",
                hint="restart the daemon: the index is rebuilt from the JSONL",
            ) from error

    def _stop(self) -> None:
        # Readers first: the last connection that closes must be the writer's, which folds the write-ahead log in.
        if self._readers is not None:
            self._readers.shutdown(wait=True)
        self._lines.close()
        self._writer.stop()

    async def aclose(self) -> None:
        """Write and sync what is queued, end followers, and close. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        await asyncio.to_thread(self._stop)
        os.close(self._lock)
        # Groups reported before the thread ended are in the loop's queue ahead of this.
        await asyncio.sleep(0)
        self._wake()
        self._recent.clear()


def _seq(event: EventV1) -> int:
    return event.seq


def _again(error: StoreError) -> StoreError:
    """Return a fresh exception, so that each waiter raises its own."""
    return type(error)(error.detail, code=error.code, why=error.why, hint=error.hint, extra=error.extra)


def _in_order(events: list[EventV1]) -> list[EventV1]:
    return sorted({event.id: event for event in reversed(events)}.values(), key=order_key)


def _lock(directory: Path) -> int:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise StateError(
            f"the event log {directory} is open in another process",
            code="events.locked",
            hint="agentmesh status   shows the daemon that uses it",
        ) from error
    return fd
