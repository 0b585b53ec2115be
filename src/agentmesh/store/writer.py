"""The one writer thread of the event log: group commit to JSONL, then to the index.

It takes everything that is queued, writes it in one go, syncs once, indexes it in one transaction and reports the whole
group at once. There is no artificial delay: a group gathers while the one before is being synced.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from agentmesh.errors import StoreError
from agentmesh.store.base import EventLogConfig, Report
from agentmesh.store.index import Index, Placed, SegmentRow, hash_id, seal
from agentmesh.store.jsonl import SegmentWriter, full_error, list_segments
from agentmesh.store.recover import catch_up, count_of, drop_oldest, is_damage, rebuild
from agentmesh.wire.event import EventV1

_log = logging.getLogger("agentmesh.events")


class Batch:
    """What one append puts into the queue.

    Attributes:
        entries: Events with their encoded lines; a line is without its newline.
        upto: The last position given to this batch, or before it when it is empty.
        bytes: Sum of the lines.
        copies: Leave out events whose id is known.
        ticket: Whatever the caller waits with; None when nobody waits. A batch that nobody waits for is kept and retried
            when the disk refuses it, one that somebody waits for is given up and said to have failed.
        damaged: A reader found the index wrong: build it anew after this batch.
        urgent: Somebody waits for this batch, or for what was queued before it: its group is not held back for company.
    """

    __slots__ = ("bytes", "copies", "damaged", "entries", "ticket", "upto", "urgent")

    def __init__(
        self,
        entries: list[tuple[EventV1, bytes]],
        upto: int,
        size: int,
        copies: bool = False,
        ticket: object = None,
        damaged: bool = False,
        urgent: bool = False,
    ) -> None:
        self.entries, self.upto, self.bytes = entries, upto, size
        self.copies, self.ticket, self.damaged = copies, ticket, damaged
        self.urgent = urgent or damaged or ticket is not None


class GroupDone(NamedTuple):
    """What the writer tells after each group.

    Attributes:
        tickets: Of the batches that are finished, now durable or failed.
        error: Why they failed, or None.
        upto: Every position up to this one is settled: durable or given up.
        visible: Every durable position up to this one is in the index.
        total: Events in the index.
        events: What was added, in order of position.
        bytes: Its encoded size.
    """

    tickets: list[object]
    error: StoreError | None
    upto: int
    visible: int
    total: int
    events: list[EventV1]
    bytes: int


class GroupWriter:
    """Own segment and index in a thread of its own.

    Args:
        directory: The log's directory.
        index: An index that agrees with the JSONL; owned from now on.
        config: Limits of a group.
        report: Where repairs and problems are noted; only sentences are read by other threads.
        on_group: Called in the writer thread after each group.

    Raises:
        OSError: the segment cannot be opened. The index was not closed.
    """

    def __init__(
        self,
        directory: Path,
        index: Index,
        config: EventLogConfig,
        report: Report,
        on_group: Callable[[GroupDone], None],
    ) -> None:
        self._directory = directory
        self._index = index
        self._config = config
        self._report = report
        self._on_group = on_group
        rows = index.segments()
        sizes, _ = list_segments(directory)
        self._segment = SegmentWriter(directory, max(sizes, default=1))
        self._row = self._row_of(self._segment.number)
        self._count = sum(row.events for row in rows)
        self.last_seq = max((row.last_seq for row in rows), default=0)
        #: Highest position taken from the queue; all up to ``_upto`` is durable or given up; ``_visible``: and indexed.
        self._seen = self._upto = self._visible = self.last_seq
        self._behind = False
        self._kept: list[Batch] = []
        self._problems = {"write": "", "index": ""}
        #: What is finished, for the bound of the queue; written here, read by the loop thread.
        self.done_events = 0
        self.done_bytes = 0
        #: What became of accepted events: written, copies of what is known, and those whose waiters were told of a failure.
        #: Counted before ``done_events``, so that another thread never sees more done than settled.
        self.stored_events = self.known_events = self.returned_events = 0
        #: Rises when the index file was replaced, so that readers open it again.
        self.generation = 0
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events-write", daemon=True)

    @property
    def count(self) -> int:
        """Events in the index."""
        return self._count

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, batch: Batch) -> None:
        """Queue a batch. Only an urgent one wakes a writer that waits for company: waking costs more than the batch."""
        self._queue.put(batch)
        if batch.urgent:
            self._hurry.set()

    def stop(self) -> None:
        """Write what is queued, end the thread and wait for it. Blocks for as long as the disk takes."""
        self._queue.put(None)
        self._hurry.set()
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        while open_:
            pending = bool(self._kept) or self._behind
            group, open_ = self._gather(self._config.retry_s if pending else None)
            if group or pending:
                self._on_group(self._settle([*self._kept, *group]))
        if self._kept:
            lost = sum(len(batch.entries) for batch in self._kept)
            _log.error("%d events were never written: %s", lost, self._problems["write"])
        self._segment.close()
        self._index.close()
        if not self._behind:
            seal(self._index.path)

    def _gather(self, patience_s: float | None) -> tuple[list[Batch], bool]:
        """Return the next group, and False if it is the last.

        Args:
            patience_s: How long to wait for a first batch; None for ever. The group is empty when none came.
        """
        group: list[Batch] = []
        events = size = 0
        try:
            batch = self._queue.get(timeout=patience_s)
            if batch is not None and not batch.urgent and self._config.linger_s > 0:
                self._hurry.wait(self._config.linger_s)
            # Cleared before the queue is emptied: whoever comes later is either taken now or hurries the next group.
            self._hurry.clear()
            while batch is not None:
                group.append(batch)
                events += len(batch.entries)
                size += batch.bytes
                if events >= self._config.group_events_max or size >= self._config.group_bytes_max:
                    return group, True
                batch = self._queue.get_nowait()
        except queue.Empty:
            return group, True
        return group, False

    def _settle(self, group: list[Batch]) -> GroupDone:
        """Commit a group; whatever goes wrong, its waiters learn of it and the thread lives on."""
        try:
            return self._commit(group)
        except Exception as bug:  # noqa: BLE001
            # The driver loop of this thread: were it to end, every later append would wait for ever.
            _log.critical("a group of events failed", exc_info=bug)
            self._kept = []
            self._behind = True
            self._upto = self._seen
            tickets = self._release(group)
            error = StoreError(f"the event writer failed: {bug!r}", code="store.bug")
            return GroupDone(tickets, error, self._upto, self._visible, self._count, [], 0)

    def _release(self, batches: list[Batch]) -> list[object]:
        for batch in batches:
            self.done_events += len(batch.entries)
            self.done_bytes += batch.bytes
        return [batch.ticket for batch in batches if batch.ticket is not None]

    def _commit(self, group: list[Batch]) -> GroupDone:
        self._seen = max([self._seen, *(batch.upto for batch in group)])
        entries = self._wanted(group)
        data = b"".join([line + b"\n" for _, line in entries])
        try:
            if data and self._segment.size >= self._config.segment_bytes_max:
                self._rotate()
            offset = self._segment.append(data) if data else self._segment.size
        except OSError as failure:
            return self._refused(group, failure)
        self.stored_events += len(entries)
        self.known_events += sum(len(batch.entries) for batch in group) - len(entries)
        tickets = self._release(group)
        self._kept = []
        self._upto = self._seen
        if data:
            self._say("write", "")
        placed: list[Placed] = []
        for event, line in entries:
            placed.append(Placed(event, offset, len(line) + 1))
            offset += len(line) + 1
        self._add(placed, len(data), damaged=any(batch.damaged for batch in group))
        events = [event for event, _ in entries]
        return GroupDone(tickets, None, self._upto, self._visible, self._count, events, len(data))

    def _wanted(self, group: list[Batch]) -> list[tuple[EventV1, bytes]]:
        """Return the group's entries in order, without copies of what is known."""
        if not any(batch.copies for batch in group):
            return [entry for batch in group for entry in batch.entries]
        try:
            known = self._index.known(event for batch in group if batch.copies for event, _ in batch.entries)
        except sqlite3.Error:
            # Doubles are left out when read; an index that fails is mended after the write.
            known: set[tuple[int, str]] = set()
        out: list[tuple[EventV1, bytes]] = []
        for batch in group:
            for entry in batch.entries:
                key = (hash_id(entry[0].id), entry[0].run_id)
                if not batch.copies or key not in known:
                    known.add(key)
                    out.append(entry)
        return out

    def _refused(self, group: list[Batch], failure: OSError) -> GroupDone:
        """Keep what nobody waits for, give up the rest, and say why."""
        error = full_error(failure, self._directory)
        self._kept = [batch for batch in group if batch.ticket is None and batch.entries]
        returned = [batch for batch in group if batch.ticket is not None]
        self.returned_events += sum(len(batch.entries) for batch in returned)
        tickets = self._release(returned)
        if not self._kept:
            self._upto = self._seen
            self._visible = self._visible if self._behind else self._upto
        waiting = sum(len(batch.entries) for batch in self._kept)
        self._say("write", f"events cannot be written ({error.detail}); {waiting} wait in memory; next: {error.hint}")
        return GroupDone(tickets, error, self._upto, self._visible, self._count, [], 0)

    def _say(self, what: str, sentence: str) -> None:
        """Set or clear one of the two present problems, and log when that changes."""
        if bool(sentence) != bool(self._problems[what]):
            if sentence:
                _log.error("%s", sentence)
            else:
                _log.warning("the event log can %s again", what)
        self._problems[what] = sentence
        self._report.problem = "; ".join(text for text in self._problems.values() if text)

    def _row_of(self, number: int) -> SegmentRow:
        rows = self._index.segments()
        last_seq = max((row.last_seq for row in rows), default=0)
        return next((row for row in rows if row.segment == number), SegmentRow(number, 0, 0, 0, last_seq))

    def _rotate(self) -> None:
        self._segment.rotate()
        try:
            drop_oldest(self._index, self._directory, self._config, self._report)
            self._count = count_of(self._index)
        except (sqlite3.Error, OSError) as error:
            # Too much kept is no reason to stop writing; the next rotation tries again.
            _log.warning("cannot drop the oldest events: %s", error)

    def _add(self, placed: list[Placed], size: int, *, damaged: bool) -> None:
        """Index a written group. On failure the index stays behind, is mended before the next, and the JSONL has it all."""
        try:
            if damaged or self._behind:
                self._mend(damaged=damaged)
            elif placed:
                if self._row.segment != self._segment.number:
                    self._row = self._row_of(self._segment.number)
                row = self._row
                row = SegmentRow(
                    row.segment,
                    row.bytes + size,
                    row.events + len(placed),
                    row.event_bytes + size,
                    placed[-1].event.seq,
                )
                with self._index.transaction():
                    self._index.add(row.segment, placed)
                    self._index.set_segment(row)
                self._row = row
                self._count += len(placed)
        except (sqlite3.Error, OSError) as error:
            self._behind = True
            self._say("index", f"the event index failed ({error}); events are written, but traces lack the newest")
        else:
            self._behind = False
            self._visible = self._upto
            self._say("index", "")

    def _mend(self, *, damaged: bool) -> None:
        """Bring a failed index to agree with the JSONL; build it anew if it is damaged. Raises OSError, sqlite3.Error."""
        try:
            if damaged:
                raise sqlite3.DatabaseError("a reader found rows without their line")
            catch_up(self._index, self._directory, self._report)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not is_damage(error):
                raise
            self._index.close()
            self._index = rebuild(self._directory, self._report)
            self.generation += 1
            self._report.rebuilt = True
            self._report.note(
                f"the event index was damaged ({error}); it was rebuilt from the JSONL: {count_of(self._index)} events"
            )
        self._count = count_of(self._index)
        self._row = self._row_of(self._segment.number)
