"""The retained values of this node: the last publication of each subject, in one SQLite file (docs/spec/topics.md §5).

Calls must not overlap. Of two values of a subject the one with the higher time, then id, stays, in whatever order they come. When
there are too many, the one that was written, or asked for by its own name, longest ago goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agentmesh.store.database import Database
from agentmesh.wire.topics import BUCKETS, LINE_BYTES, SUM_BYTES

RETAINED_MAX = 10_000
RETAINED_BYTES_MAX = 32 * 1024 * 1024
#: A subject that was emptied is remembered so long, so that no neighbour brings the old value back.
EMPTY_MS = 7 * 86_400_000
_VERSION = 1
_SCHEMA = """
CREATE TABLE retained(
  subject TEXT PRIMARY KEY, key BLOB NOT NULL, bucket INTEGER NOT NULL, ts INTEGER NOT NULL, id BLOB NOT NULL,
  raw BLOB NOT NULL, empty INTEGER NOT NULL, private INTEGER NOT NULL, publisher BLOB NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX retained_key ON retained(key);
CREATE INDEX retained_bucket ON retained(bucket);
CREATE INDEX retained_used ON retained(used);
"""


class Retained(NamedTuple):
    """One kept value; ``empty`` says that the subject has none any more, ``private`` that no peer is told."""

    subject: str
    ts_ms: int
    id: bytes
    raw: bytes
    empty: bool
    private: bool
    publisher: bytes


def subject_key(subject: str) -> bytes:
    """Return the 8 bytes by which nodes name a retained subject."""
    return hashlib.sha256(subject.encode()).digest()[:8]


class RetainedStore:
    """Open with ``RetainedStore(path)``; the file is made with the first value."""

    def __init__(self, path: Path, *, values_max: int = RETAINED_MAX, bytes_max: int = RETAINED_BYTES_MAX) -> None:
        self.path, self._values_max, self._bytes_max = path, values_max, bytes_max
        self._db: Database | None = None
        self._count = self._bytes = self._uses = 0
        #: Per bucket the sum, by exclusive or, of what is in it and may be told.
        self._sums: list[int] = [0] * BUCKETS
        #: Rises with every change.
        self.version = 0
        #: How many values made room for others.
        self.evicted = 0
        if path.exists():
            self._open()

    def _open(self) -> Database:
        """Return the open file. Raises ConfigError, StoreError."""
        if self._db is None:
            damaged = (
                f"it holds the last values of topics: move it away to begin anew:   mv {self.path} {self.path}.damaged"
            )
            self._db = db = Database(self.path, _SCHEMA, _VERSION, name="topics", damaged=damaged)
            count, size, used = db.read(
                "SELECT count(*), coalesce(sum(length(raw)), 0), coalesce(max(used), 0) FROM retained"
            )[0]
            self._count, self._bytes, self._uses = count, size, used
            for bucket, key, ts, id_ in db.read("SELECT bucket, key, ts, id FROM retained WHERE private = 0"):
                self._sums[bucket] ^= _mark(key, ts, id_)
        return self._db

    def __len__(self) -> int:
        return self._count

    def get(self, subject: str) -> Retained | None:
        """Return the value of a subject, an empty one too."""
        if self._db is None:
            return None
        rows = self._db.read(f"SELECT {_COLUMNS} FROM retained WHERE subject = ?", subject)  # noqa: S608 names of our own
        return _row(rows[0]) if rows else None

    def put(self, value: Retained) -> bool:
        """Keep a value if it is newer than what is kept; say whether it was. Raises StoreError: nothing changed."""
        db = self._open()
        old = self.get(value.subject)
        if old is not None and (old.ts_ms, old.id) >= (value.ts_ms, value.id):
            return False
        self._uses += 1
        key = subject_key(value.subject)
        bucket = key[0] % BUCKETS
        with db.transaction():
            db.write(
                "INSERT OR REPLACE INTO retained VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                value.subject,
                key,
                bucket,
                value.ts_ms,
                value.id,
                value.raw,
                value.empty,
                value.private,
                value.publisher,
                self._uses,
            )
        if old is not None:
            self._took_out(old)
        self._count += 1
        self._bytes += len(value.raw)
        if not value.private:
            self._sums[bucket] ^= _mark(key, value.ts_ms, value.id)
        self.version += 1
        self._make_room(db)
        return True

    def _took_out(self, old: Retained) -> None:
        key = subject_key(old.subject)
        self._count -= 1
        self._bytes -= len(old.raw)
        if not old.private:
            self._sums[key[0] % BUCKETS] ^= _mark(key, old.ts_ms, old.id)

    def _make_room(self, db: Database) -> None:
        while self._count > self._values_max or self._bytes > self._bytes_max:
            # What the mesh itself says, whose number is bounded elsewhere, goes only when there is nothing else.
            oldest = db.read(
                f"SELECT {_COLUMNS} FROM retained WHERE subject < '$' OR subject >= '%' OR empty ORDER BY used LIMIT 1"  # noqa: S608
            ) or db.read(f"SELECT {_COLUMNS} FROM retained ORDER BY used LIMIT 1")  # noqa: S608 names of our own
            if not oldest:
                return
            self.drop(_row(oldest[0]).subject)
            self.evicted += 1

    def drop(self, subject: str) -> bool:
        """Forget a subject; say whether it was there. Raises StoreError."""
        old = self.get(subject)
        if old is None:
            return False
        self._open().write("DELETE FROM retained WHERE subject = ?", subject)
        self._took_out(old)
        self.version += 1
        return True

    def forget_empty(self, now_ms: int) -> None:
        """Forget subjects that were emptied long ago."""
        if self._db is None:
            return
        for (subject,) in self._db.read(
            "SELECT subject FROM retained WHERE empty = 1 AND ts < ? LIMIT 1000", now_ms - EMPTY_MS
        ):
            self.drop(subject)

    def values(self, prefix: str = "") -> Iterator[Retained]:
        """Yield what is kept under subjects that begin so, by subject; empty ones are left out."""
        after = ""
        while self._db is not None:
            rows = self._db.read(
                f"SELECT {_COLUMNS} FROM retained WHERE subject > ? AND subject >= ? AND subject < ? AND empty = 0 "  # noqa: S608
                "ORDER BY subject LIMIT 64",
                after,
                prefix,
                prefix + "\U0010ffff",
            )
            for row in rows:
                yield _row(row)
            if len(rows) < 64:
                return
            after = rows[-1][0]

    def touch(self, subject: str) -> None:
        """Note that a value was read: it goes later when room is made."""
        if self._db is not None:
            self._uses += 1
            self._db.write("UPDATE retained SET used = ? WHERE subject = ?", self._uses, subject)

    # For comparing with neighbours

    def sums(self) -> bytes:
        """Return what sums up each of the ``BUCKETS`` ranges."""
        return b"".join(one.to_bytes(SUM_BYTES, "big") for one in self._sums)

    def lines(self, sums: bytes) -> bytes:
        """Return a line of ``LINE_BYTES`` for each value in the ranges whose sum is another one there."""
        ours = self.sums()
        if self._db is None or len(sums) != len(ours):
            return b""
        differ = [
            bucket
            for bucket in range(BUCKETS)
            if sums[bucket * SUM_BYTES : (bucket + 1) * SUM_BYTES]
            != ours[bucket * SUM_BYTES : (bucket + 1) * SUM_BYTES]
        ]
        return b"".join(
            _line(key, ts, id_)
            for bucket in differ
            for key, ts, id_ in self._db.read(
                "SELECT key, ts, id FROM retained WHERE bucket = ? AND private = 0 ORDER BY key", bucket
            )
        )

    def wants(self, lines: bytes) -> list[bytes]:
        """Return the keys of those lines that are newer than what is here."""
        wanted: list[bytes] = []
        for at in range(0, len(lines) - LINE_BYTES + 1, LINE_BYTES):
            key, rank = lines[at : at + 8], lines[at + 8 : at + LINE_BYTES]
            held = [] if self._db is None else self._db.read("SELECT ts, id FROM retained WHERE key = ?", key)
            if not held or all(_line(key, ts, id_)[8:] < rank for ts, id_ in held):
                wanted.append(key)
        return wanted

    def by_key(self, key: bytes) -> Retained | None:
        """Return a value that may be told, by the key of its subject."""
        if self._db is None:
            return None
        rows = self._db.read(f"SELECT {_COLUMNS} FROM retained WHERE key = ? AND private = 0", key)  # noqa: S608
        return _row(rows[0]) if rows else None

    def close(self) -> None:
        """Close. Idempotent."""
        if self._db is not None:
            self._db.close()
            self._db = None


_COLUMNS = "subject, ts, id, raw, empty, private, publisher"


def _row(row: tuple[str, int, bytes, bytes, int, int, bytes]) -> Retained:
    subject, ts, id_, raw, empty, private, publisher = row
    return Retained(subject, ts, id_, raw, bool(empty), bool(private), publisher)


def _line(key: bytes, ts_ms: int, id_: bytes) -> bytes:
    return key + ts_ms.to_bytes(8, "big") + id_[:8]


def _mark(key: bytes, ts_ms: int, id_: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(_line(key, ts_ms, id_), digest_size=SUM_BYTES).digest(), "big")
