"""Durable topics in one SQLite file: the engine of a machine that needs no other (docs/spec/topics.md §6).

All writing is done by one thread, which takes everything that waits into one transaction: many publishers share one fsync.
Reading happens on the loop, from a connection of its own.
A consumer group is a place in the topic up to which records were handed out, and a row for each of those that are not done.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from agentmesh.core.topics.subjects import overlaps
from agentmesh.engines.base import RECORD_BYTES_MAX, Lease, Record, TopicSpec
from agentmesh.engines.sqlite_groups import Rows, ack, lease, nack
from agentmesh.engines.topic_spec import check_spec
from agentmesh.errors import Busy, LimitError, RecordNotFound, StateError, UsageError

VERSION = 1
SCHEMA = """
CREATE TABLE topics(
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE NOT NULL, spec BLOB NOT NULL, first INTEGER NOT NULL,
  next INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE records(
  topic INTEGER NOT NULL, offset INTEGER NOT NULL, ts INTEGER NOT NULL, subject TEXT NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX records_offset ON records(topic, offset);
CREATE TABLE ids(
  topic INTEGER NOT NULL, id TEXT NOT NULL, ts INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY(topic, id)
) WITHOUT ROWID;
CREATE TABLE groups(
  topic INTEGER NOT NULL, name TEXT NOT NULL, next INTEGER NOT NULL, PRIMARY KEY(topic, name)) WITHOUT ROWID;
CREATE TABLE leases(
  topic INTEGER NOT NULL, grp TEXT NOT NULL, offset INTEGER NOT NULL, member TEXT NOT NULL, token TEXT NOT NULL,
  tries INTEGER NOT NULL, due INTEGER NOT NULL, wait INTEGER NOT NULL, PRIMARY KEY(topic, grp, offset)
) WITHOUT ROWID;
"""
TOPICS_MAX = 1_000
NAME_CHARS_MAX = 128
ID_CHARS_MAX = 128
#: An id is known again for so long.
KNOWN_MS = 600_000
#: What waits to be written: more is refused.
WAITING_MAX, WAITING_BYTES_MAX = 50_000, 64 * 1024 * 1024
#: One transaction takes so much, so that none waits long behind a large one.
_BATCH_MAX, _BATCH_BYTES_MAX = 4_096, 16 * 1024 * 1024
#: Bytes of one answer to a reader; one record always fits.
_READ_BYTES_MAX = 4 * 1024 * 1024
_LIMIT_MAX = 1_024
#: Old records and ids are taken out in steps, at most so many of each per transaction.
_TRIM_MAX = 8_192
_WAIT_S_MAX = 60.0


class _Pending(msgspec.Struct, gc=False):
    topic: str
    records: Sequence[tuple[str, bytes, str]]
    size: int
    done: asyncio.Future[list[int]]


class SqliteTopicStore:
    """Durable topics of one machine.

    Args:
        open_rows: Opens the file with ``SCHEMA`` and ``VERSION``; called twice, the first is the writer's thread's.
        url: Where it is, for people.
        unix_ms: The wall clock.
    """

    def __init__(
        self, open_rows: Callable[[], Rows], url: str = "sqlite:", unix_ms: Callable[[], int] | None = None
    ) -> None:
        self.url = url
        self._open_rows, self._unix_ms = open_rows, unix_ms or (lambda: time.time_ns() // 1_000_000)
        self._writing: Rows | None = None
        self._reading: Rows | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._specs: dict[str, tuple[int, TopicSpec]] = {}
        self._pending: list[_Pending] = []
        self._pending_count = self._pending_bytes = 0
        self._is_flushing = False
        self._flushing: asyncio.Future[Any] | None = None
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._trimmed_ms = 0

    async def open(self) -> None:
        """Open the file. Raises ConfigError, StoreError."""
        if self._writing is not None:
            return
        self._thread = ThreadPoolExecutor(1, "topics")
        self._writing = await self._in_thread(self._open_rows)
        self._reading = self._open_rows()
        self._load(self._reading.read("SELECT id, name, spec FROM topics ORDER BY name"))

    def _load(self, rows: list[Any]) -> None:
        self._specs = {name: (id_, msgspec.msgpack.decode(spec, type=TopicSpec)) for id_, name, spec in rows}

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        if self._thread is None:
            raise StateError("the topic store is closed", code="engine.closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _rows(self) -> Rows:
        if self._reading is None:
            raise StateError("the topic store is closed", code="engine.closed")
        return self._reading

    def _writer(self) -> Rows:
        if self._writing is None:
            raise StateError("the topic store is closed", code="engine.closed")
        return self._writing

    def _topic(self, name: str) -> tuple[int, TopicSpec]:
        self._rows()
        found = self._specs.get(name)
        if found is None:
            raise RecordNotFound(f"no durable topic {name[:80]!r} is kept here", code="topic.unknown")
        return found

    # Topics

    async def create(self, spec: TopicSpec) -> None:
        """Make a topic or change its limits. Raises StateError (code "topic.overlap"), UsageError, LimitError."""
        check_spec(spec)
        self._rows()
        for name, (_, other) in self._specs.items():
            if name != spec.name and any(overlaps(one, two) for one in spec.subjects for two in other.subjects):
                raise StateError(
                    f"subjects of {spec.name!r} are kept by the topic {name!r} already", code="topic.overlap"
                )
        if spec.name not in self._specs and len(self._specs) >= TOPICS_MAX:
            raise LimitError(f"{TOPICS_MAX} durable topics are kept here", code="topic.too_many")
        raw = msgspec.msgpack.encode(spec)

        def work() -> list[Any]:
            rows = self._writer()
            with rows.transaction(durable=True):
                rows.write(
                    "INSERT INTO topics(name, spec, first, next, bytes) VALUES(?, ?, 1, 1, 0) "
                    "ON CONFLICT(name) DO UPDATE SET spec = excluded.spec",
                    spec.name,
                    raw,
                )
            return rows.read("SELECT id, name, spec FROM topics ORDER BY name")

        self._load(await self._in_thread(work))

    async def remove(self, name: str) -> bool:
        """Delete a topic with all it keeps."""
        self._rows()
        if name not in self._specs:
            return False
        id_ = self._specs[name][0]

        def work() -> list[Any]:
            rows = self._writer()
            with rows.transaction(durable=True):
                for table in ("records", "ids", "groups", "leases"):
                    rows.write(f"DELETE FROM {table} WHERE topic = ?", id_)  # noqa: S608 names of our own
                rows.write("DELETE FROM topics WHERE id = ?", id_)
            return rows.read("SELECT id, name, spec FROM topics ORDER BY name")

        self._load(await self._in_thread(work))
        self._wake(name)
        return True

    async def topics(self) -> list[TopicSpec]:
        """Return all topics by name."""
        self._rows()
        return [spec for _, spec in self._specs.values()]

    # Appending

    async def append(self, topic: str, records: Sequence[tuple[str, bytes, str]]) -> list[int]:
        """Keep records and return their offsets, when they are on disk.

        Raises:
            RecordNotFound, LimitError, Busy (code "topic.full_queue"), StoreError: nothing was kept.
        """
        self._topic(topic)
        size = 0
        for _, body, id_ in records:
            size += len(body)
            if len(body) > RECORD_BYTES_MAX or len(id_) > ID_CHARS_MAX:
                raise LimitError(f"a record of {len(body)} bytes, at most {RECORD_BYTES_MAX}", code="topic.too_large")
        if self._pending_count + len(records) > WAITING_MAX or self._pending_bytes + size > WAITING_BYTES_MAX:
            raise Busy("more is published than the disk takes", code="topic.full_queue", retry_after_s=1.0)
        if not records:
            return []
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(topic, records, size, done))
        self._pending_count += len(records)
        self._pending_bytes += size
        if not self._is_flushing:
            self._is_flushing = True
            # Whatever else is published in this turn of the loop goes into the same transaction.
            asyncio.get_running_loop().call_soon(self._flush)
        return await done

    def _flush(self) -> None:
        batch: list[_Pending] = []
        count = size = 0
        for one in self._pending:
            if batch and (count + len(one.records) > _BATCH_MAX or size + one.size > _BATCH_BYTES_MAX):
                break
            batch.append(one)
            count += len(one.records)
            size += one.size
        del self._pending[: len(batch)]
        self._pending_count -= count
        self._pending_bytes -= size
        if not batch or self._thread is None:
            self._is_flushing = False
            return
        self._flushing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch, self._unix_ms())
        self._flushing.add_done_callback(lambda future: self._flushed(batch, future))

    def _flushed(self, batch: list[_Pending], future: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        for place, one in enumerate(batch):
            if one.done.done():
                continue  # whoever published it has gone
            outcome = error or future.result()[place]
            if isinstance(outcome, BaseException):
                one.done.set_exception(outcome)
            else:
                one.done.set_result(outcome)
        if error is None:
            for topic in dict.fromkeys(one.topic for one in batch):
                self._wake(topic)
        self._flush()

    def _write(self, batch: list[_Pending], now_ms: int) -> list[list[int] | RecordNotFound]:
        """Write a batch, in the writer's thread; one transaction, on disk when it returns."""
        rows = self._writer()
        outcomes: list[list[int] | RecordNotFound] = []
        trim = now_ms - self._trimmed_ms > 1_000 or now_ms < self._trimmed_ms
        with rows.transaction(durable=True):
            state: dict[str, list[int]] = {}
            for one in batch:
                found = state.get(one.topic)
                if found is None:
                    read = rows.read("SELECT id, next, bytes FROM topics WHERE name = ?", one.topic)
                    if not read:
                        outcomes.append(RecordNotFound(f"no durable topic {one.topic!r}", code="topic.unknown"))
                        continue
                    found = state[one.topic] = list(read[0])
                outcomes.append([self._write_one(rows, found, record, now_ms) for record in one.records])
            for name, (id_, next_, bytes_) in state.items():
                rows.write("UPDATE topics SET next = ?, bytes = ? WHERE id = ?", next_, bytes_, id_)
                self._trim(rows, name, id_, now_ms)
                if trim:
                    self._forget_ids(rows, id_, now_ms)
        if trim:
            self._trimmed_ms = now_ms
        return outcomes

    def _write_one(self, rows: Rows, state: list[int], record: tuple[str, bytes, str], now_ms: int) -> int:
        subject, body, id_ = record
        if id_:
            known = rows.read("SELECT ts, offset FROM ids WHERE topic = ? AND id = ?", state[0], id_)
            if known and abs(now_ms - known[0][0]) <= KNOWN_MS:
                return int(known[0][1])
        offset = state[1]
        rows.write("INSERT INTO records VALUES(?, ?, ?, ?, ?)", state[0], offset, now_ms, subject, body)
        if id_:
            rows.write("INSERT OR REPLACE INTO ids VALUES(?, ?, ?, ?)", state[0], id_, now_ms, offset)
        state[1] += 1
        state[2] += len(body)
        return offset

    def _trim(self, rows: Rows, name: str, id_: int, now_ms: int) -> None:
        """Take out the oldest records that are beyond a limit of the topic."""
        spec = self._specs[name][1] if name in self._specs else None
        if spec is None:
            return
        first, next_, bytes_ = rows.read("SELECT first, next, bytes FROM topics WHERE id = ?", id_)[0]
        keep = max(first, next_ - spec.records_max)
        oldest = now_ms - spec.age_s_max * 1_000
        gone = 0
        upto = first
        if bytes_ > spec.bytes_max or keep > first or self._is_older(rows, id_, first, oldest):
            for offset, ts, size in rows.read(
                "SELECT offset, ts, length(body) FROM records WHERE topic = ? AND offset >= ? ORDER BY offset LIMIT ?",
                id_,
                first,
                _TRIM_MAX,
            ):
                # The newest stays, however large it is: its publisher was told that it is kept.
                if offset >= next_ - 1 or not (offset < keep or ts < oldest or bytes_ - gone > spec.bytes_max):
                    break
                gone += size
                upto = offset + 1
        if upto > first:
            rows.write("DELETE FROM records WHERE topic = ? AND offset < ?", id_, upto)
            rows.write("DELETE FROM leases WHERE topic = ? AND offset < ?", id_, upto)
            rows.write("UPDATE topics SET first = ?, bytes = bytes - ? WHERE id = ?", upto, gone, id_)

    @staticmethod
    def _is_older(rows: Rows, id_: int, offset: int, ts_ms: int) -> bool:
        found = rows.read("SELECT ts FROM records WHERE topic = ? AND offset = ?", id_, offset)
        return bool(found) and found[0][0] < ts_ms

    @staticmethod
    def _forget_ids(rows: Rows, id_: int, now_ms: int) -> None:
        rows.write(
            "DELETE FROM ids WHERE topic = ? AND id IN (SELECT id FROM ids WHERE topic = ? AND ts < ? LIMIT ?)",
            id_,
            id_,
            now_ms - KNOWN_MS,
            _TRIM_MAX,
        )

    # Reading

    async def read(self, topic: str, offset: int, limit: int = 256, wait_s: float = 0.0) -> list[Record]:
        """Return records from that offset on, waiting if there is none yet. Raises RecordNotFound."""
        until_s = time.monotonic() + min(wait_s, _WAIT_S_MAX)
        while True:
            id_, _ = self._topic(topic)
            found: list[Record] = []
            sizes = self._rows().read(
                "SELECT length(body), offset FROM records WHERE topic = ? AND offset >= ? ORDER BY offset LIMIT ?",
                id_,
                max(1, offset),
                max(1, min(limit, _LIMIT_MAX)),
            )
            if sizes:
                total = 0
                last = sizes[0][1]
                for size, at in sizes:
                    total += size
                    if total > _READ_BYTES_MAX and at != sizes[0][1]:
                        break
                    last = at
                found = [
                    Record(*row)
                    for row in self._rows().read(
                        "SELECT offset, ts, subject, body FROM records "
                        "WHERE topic = ? AND offset BETWEEN ? AND ? ORDER BY offset",
                        id_,
                        sizes[0][1],
                        last,
                    )
                ]
            if found or not await self._wait(topic, until_s - time.monotonic()):
                return found

    async def offset_at(self, topic: str, ts_ms: int) -> int:
        """Return the offset of the first record at or after a time; that of the next one if there is none."""
        id_, _ = self._topic(topic)
        first, next_ = await self.bounds(topic)
        low, high = first, next_
        while low < high:  # times rise with offsets but for clocks that were set back, where any place near is as good
            middle = (low + high) // 2
            found = self._rows().read(
                "SELECT ts FROM records WHERE topic = ? AND offset >= ? ORDER BY offset LIMIT 1", id_, middle
            )
            if found and found[0][0] < ts_ms:
                low = middle + 1
            else:
                high = middle
        return low

    async def bounds(self, topic: str) -> tuple[int, int]:
        """Return the offset of the oldest record, and of the next one."""
        id_, _ = self._topic(topic)
        row = self._rows().read("SELECT first, next FROM topics WHERE id = ?", id_)
        return (int(row[0][0]), int(row[0][1])) if row else (1, 1)

    async def groups(self, topic: str) -> dict[str, int]:
        """Return the consumer groups of a topic, and how many records wait for each: not handed out, or not done."""
        id_, _ = self._topic(topic)
        first, next_ = await self.bounds(topic)
        rows = self._rows().read(
            "SELECT name, next, (SELECT count(*) FROM leases WHERE topic = g.topic AND grp = g.name) "
            "FROM groups g WHERE topic = ? ORDER BY name",
            id_,
        )
        return {name: max(0, next_ - max(first, at)) + held for name, at, held in rows}

    # Consumer groups

    async def fetch(
        self, topic: str, group: str, member: str, *, limit: int = 16, wait_s: float = 0.0, ack_wait_s: float = 30.0
    ) -> list[Lease]:
        """Take work of a consumer group; a group begins at the oldest record. Raises RecordNotFound, UsageError, LimitError."""
        if not 0 < len(group) <= NAME_CHARS_MAX or len(member) > NAME_CHARS_MAX:
            raise UsageError("a consumer group or member without a name, or with too long a one", code="topic.group")
        until_s = time.monotonic() + min(wait_s, _WAIT_S_MAX)
        wait_ms = int(max(0.05, min(ack_wait_s, 3_600.0)) * 1_000)
        while True:
            id_, _ = self._topic(topic)
            most = max(1, min(limit, _LIMIT_MAX))
            leases, due_ms = await self._in_thread(
                lambda id_=id_, most=most: lease(
                    self._writer(), id_, group, member, limit=most, wait_ms=wait_ms, now_ms=self._unix_ms()
                )
            )
            if leases:
                return leases
            left_s = until_s - time.monotonic()
            if due_ms is not None:
                left_s = min(left_s, max(0.01, (due_ms - self._unix_ms()) / 1_000))
            if until_s - time.monotonic() <= 0:
                return []
            await self._wait(topic, left_s)

    async def ack(self, topic: str, group: str, tokens: Sequence[str]) -> int:
        """Say that leased records are done; return how many were still ours."""
        id_, _ = self._topic(topic)

        return await self._in_thread(lambda: ack(self._writer(), id_, group, tokens))

    async def nack(self, topic: str, group: str, tokens: Sequence[str], delay_s: float = 0.0) -> int:
        """Give leased records back, to be handed out again after a delay."""
        id_, _ = self._topic(topic)
        delay_ms = int(max(0.0, min(delay_s, 3_600.0)) * 1_000)
        due_ms = self._unix_ms() + delay_ms
        given = await self._in_thread(lambda: nack(self._writer(), id_, group, tokens, due_ms, delay_ms))
        if given:
            self._wake(topic)
        return given

    # Waiting

    def _wake(self, topic: str) -> None:
        for waiter in self._waiting.pop(topic, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self, topic: str, seconds: float) -> bool:
        """Wait until something is appended or given back; False if the time is over before."""
        if seconds <= 0:
            return False
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(topic, []).append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            return False
        finally:
            waiting = self._waiting.get(topic)
            if waiting is not None:
                with contextlib.suppress(ValueError):
                    waiting.remove(waiter)
                if not waiting:
                    del self._waiting[topic]
        return True

    async def aclose(self) -> None:
        """Write what waits, and close. Idempotent."""
        while self._is_flushing and self._thread is not None:
            if self._flushing is not None and not self._flushing.done():
                await asyncio.wait({self._flushing})
            await asyncio.sleep(0)
        for topic in list(self._waiting):
            self._wake(topic)
        writing, reading, thread = self._writing, self._reading, self._thread
        if thread is not None and writing is not None:
            await asyncio.get_running_loop().run_in_executor(thread, writing.close)
        self._writing = self._reading = self._thread = None
        if reading is not None:
            reading.close()
        if thread is not None:
            thread.shutdown(wait=False)
