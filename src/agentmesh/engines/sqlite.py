"""Critical state of a lone node: compare-and-set in one SQLite file, each write on disk (``synchronous=FULL``) when it returns.

One counter over all keys gives revisions, also those of deletions. A deletion is remembered for watches that begin before it, the
last ``DELETIONS_KEPT`` revisions long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from agentmesh.engines.base import Change, Versioned
from agentmesh.engines.refusals import check_key, check_prefix, check_value, closed, conflict
from agentmesh.store.database import Database

DELETIONS_KEPT = 10_000
_PAGE = 64
_VERSION = 1
#: Sorts after every character of a key.
_END = "\x7f"
_SCHEMA = """
CREATE TABLE value (key TEXT PRIMARY KEY, value BLOB, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE UNIQUE INDEX value_revision ON value (revision);
CREATE TABLE counter (revision INTEGER NOT NULL);
INSERT INTO counter VALUES (0);
"""


class SqliteCritical:
    """``base.CriticalStore`` in one file of this machine, used by one process.

    Args:
        path: The file; it is made by the first ``open``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: Database | None = None
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
            self._db = Database(
                self._path,
                _SCHEMA,
                _VERSION,
                name="engine",
                damaged=f"move {self._path} away: locks are free then, and linearizable keys are empty",
            )
        return self._db

    async def get(self, key: str) -> Versioned | None:
        """See ``CriticalStore.get``."""
        check_key(key)
        value, revision = self._now(self._file(), key)
        return None if value is None else Versioned(value, revision)

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        """See ``CriticalStore.put``. Raises StoreError too: it was not written."""
        check_key(key)
        check_value(value)
        db = self._file()
        with db.transaction(durable=True):
            self._expect(db, key, expect)
            revision = self._write(db, key, value)
        self._tell()
        return revision

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        """See ``CriticalStore.delete``. Raises StoreError too: it was not deleted."""
        check_key(key)
        db = self._file()
        with db.transaction(durable=True):
            if not self._expect(db, key, expect):
                return False
            revision = self._write(db, key, None)
            db.write("DELETE FROM value WHERE value IS NULL AND revision <= ?", revision - DELETIONS_KEPT)
        self._tell()
        return True

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
        """See ``CriticalStore.aclose``."""
        self._closed = True
        self._tell()
        if self._db is not None:
            self._db.close()
            self._db = None

    def _now(self, db: Database, key: str) -> tuple[bytes | None, int]:
        rows = db.read("SELECT value, revision FROM value WHERE key = ?", key)
        value, revision = rows[0] if rows else (None, 0)
        return value, revision if value is not None else 0

    def _expect(self, db: Database, key: str, expect: int | None) -> int:
        """Return the present revision, 0 for none. Raises StateError: it is not the expected one."""
        _, revision = self._now(db, key)
        if expect is not None and expect != revision:
            raise conflict(key, expect, revision)
        return revision

    def _write(self, db: Database, key: str, value: bytes | None) -> int:
        db.write("UPDATE counter SET revision = revision + 1")
        ((revision,),) = db.read("SELECT revision FROM counter")
        db.write("INSERT OR REPLACE INTO value VALUES (?, ?, ?)", key, value, revision)
        return revision

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
