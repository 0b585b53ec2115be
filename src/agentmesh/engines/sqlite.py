"""Critical state of a lone node: compare-and-set in one SQLite file, each write on disk (``synchronous=FULL``) when it returns.

Writing is done by one thread, which takes everything that waits into one transaction: many writers share one fsync, and the loop
waits for none. Reading happens on the loop, from a connection of its own, which sees what is on disk.

One counter over all keys gives revisions, also those of deletions. A deletion is remembered for watches that begin before it, the
last ``DELETIONS_KEPT`` revisions long.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from agentmesh.engines.base import Change, Versioned
from agentmesh.engines.refusals import check_key, check_prefix, check_value, closed, conflict
from agentmesh.errors import Busy, MeshError, StateError
from agentmesh.store.database import Database

DELETIONS_KEPT = 10_000
_PAGE = 64
#: Writes that may wait, and those that one transaction takes.
WAITING_MAX, _BATCH_MAX = 4096, 256
_VERSION = 1
#: Sorts after every character of a key.
_END = "\x7f"
_SCHEMA = """
CREATE TABLE value (key TEXT PRIMARY KEY, value BLOB, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE UNIQUE INDEX value_revision ON value (revision);
CREATE TABLE counter (revision INTEGER NOT NULL);
INSERT INTO counter VALUES (0);
"""


class _Write(NamedTuple):
    """A write that waits for its transaction; ``value`` None deletes."""

    key: str
    value: bytes | None
    expect: int | None
    done: asyncio.Future[int]


class SqliteCritical:
    """``base.CriticalStore`` in one file of this machine, used by one process.

    Args:
        path: The file; it is made by the first ``open``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: Database | None = None
        self._writing: Database | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._pending: list[_Write] = []
        self._is_flushing = False
        self._flushing: asyncio.Future[Any] | None = None
        self._news = asyncio.Event()
        self._closed = False

    @property
    def url(self) -> str:
        """See ``CriticalStore.url``."""
        return f"sqlite:{self._path}"

    @property
    def warnings(self) -> list[str]:
        """See ``CriticalStore.warnings``."""
        return []

    async def open(self) -> None:
        """See ``CriticalStore.open``. Raises ConfigError, StoreError: the file cannot be used."""
        self._file()

    def _file(self) -> Database:
        if self._closed:
            raise closed(self.url)
        if self._db is None:
            self._db = self._opened()
        return self._db

    def _opened(self) -> Database:
        damaged = f"move {self._path} away: locks are free then, and linearizable keys are empty"
        return Database(self._path, _SCHEMA, _VERSION, name="engine", damaged=damaged)

    async def get(self, key: str) -> Versioned | None:
        """See ``CriticalStore.get``."""
        check_key(key)
        value, revision = _now(self._file(), key)
        return None if value is None else Versioned(value, revision)

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        """See ``CriticalStore.put``. Raises StoreError, Busy too: it was not written."""
        check_key(key)
        check_value(value)
        return await self._submit(key, value, expect)

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        """See ``CriticalStore.delete``. Raises StoreError, Busy too: it was not deleted."""
        check_key(key)
        return bool(await self._submit(key, None, expect))

    async def _submit(self, key: str, value: bytes | None, expect: int | None) -> int:
        self._file()
        if len(self._pending) >= WAITING_MAX:
            raise Busy("more is written than the disk takes", code="engine.full_queue")
        loop = asyncio.get_running_loop()
        write = _Write(key, value, expect, loop.create_future())
        self._pending.append(write)
        if not self._is_flushing:
            self._is_flushing = True
            loop.call_soon(self._flush)  # whatever else is written in this turn of the loop goes along
        return await write.done

    def _flush(self) -> None:
        batch, self._pending = self._pending[:_BATCH_MAX], self._pending[_BATCH_MAX:]
        if not batch or self._closed:
            self._is_flushing = False
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "critical")
        loop = asyncio.get_running_loop()
        self._flushing = loop.run_in_executor(self._thread, self._write, batch)
        self._flushing.add_done_callback(lambda future: self._flushed(batch, future))

    def _flushed(self, batch: list[_Write], future: asyncio.Future[list[int | StateError]]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        outcomes: list[Any] = [error] * len(batch) if error is not None else list(future.result())
        for write, outcome in zip(batch, outcomes, strict=True):
            if write.done.done():
                continue  # whoever asked has gone
            if isinstance(outcome, BaseException):
                write.done.set_exception(outcome)
            else:
                write.done.set_result(outcome)
        self._tell()
        self._flush()

    def _write(self, batch: list[_Write]) -> list[int | StateError]:
        """Do a batch of writes in the writer's thread, in order, as one transaction. Raises MeshError: none was done."""
        if self._writing is None:
            self._writing = self._opened()
        db = self._writing
        outcomes: list[int | StateError] = []
        with db.transaction(durable=True):
            for write in batch:
                _, revision = _now(db, write.key)
                if write.expect is not None and write.expect != revision:
                    outcomes.append(conflict(write.key, write.expect, revision))
                elif write.value is None and not revision:
                    outcomes.append(0)
                else:
                    db.write("UPDATE counter SET revision = revision + 1")
                    ((revision,),) = db.read("SELECT revision FROM counter")
                    db.write("INSERT OR REPLACE INTO value VALUES (?, ?, ?)", write.key, write.value, revision)
                    if write.value is None:
                        db.write("DELETE FROM value WHERE value IS NULL AND revision <= ?", revision - DELETIONS_KEPT)
                    outcomes.append(revision)
        return outcomes

    async def keys(self, prefix: str = "", limit: int = 1000) -> list[str]:
        """See ``CriticalStore.keys``."""
        check_prefix(prefix)
        rows = self._file().read(
            "SELECT key FROM value WHERE key >= ? AND key < ? AND value IS NOT NULL ORDER BY key LIMIT ?",
            prefix,
            prefix + _END,
            limit,
        )
        return [key for (key,) in rows]

    async def watch(self, prefix: str, after: int = 0) -> AsyncGenerator[Change, None]:
        """See ``CriticalStore.watch``; of several changes of a key that were not fetched yet, the last one is told."""
        check_prefix(prefix)
        ((start,),) = self._file().read("SELECT revision FROM counter")
        quiet = 0 if after else start  # deletions before a listing are no news
        seen = after
        while True:
            news = self._news
            rows = self._file().read(
                "SELECT key, value, revision FROM value WHERE revision > ? AND key >= ? AND key < ? ORDER BY revision LIMIT ?",
                seen,
                prefix,
                prefix + _END,
                _PAGE,
            )
            for key, value, revision in rows:
                seen = revision
                if value is not None or revision > quiet:
                    yield Change(key, value, revision)
            if not rows:
                await news.wait()

    async def aclose(self) -> None:
        """See ``CriticalStore.aclose``; what is being written is finished, what waits is refused."""
        self._closed = True
        self._tell()
        flushing = self._flushing
        for write in self._pending:
            if not write.done.done():
                write.done.set_exception(closed(self.url))
        self._pending.clear()
        if flushing is not None:
            with contextlib.suppress(MeshError):
                await asyncio.shield(flushing)
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None
        for db in (self._db, self._writing):
            if db is not None:
                db.close()
        self._db = self._writing = None

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _now(db: Database, key: str) -> tuple[bytes | None, int]:
    """Return a key's value and revision; (None, 0) if there is none."""
    rows = db.read("SELECT value, revision FROM value WHERE key = ?", key)
    value, revision = rows[0] if rows else (None, 0)
    return value, revision if value is not None else 0
