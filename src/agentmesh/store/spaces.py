"""Shared state on disk: signed writes, histories, and who holds which space (docs/spec/state.md §9).

One SQLite file. A commit outlasts the process; ``sync`` makes all commits so far outlast the machine's power, and may run in a
thread while the loop goes on writing, which SQLite's own way, a second kind of commit, does not allow.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from agentmesh.store.database import Database
from agentmesh.store.jsonl import full_error

BIRTH_BYTES = 8
_VERSION = 1
_SCHEMA = """
CREATE TABLE facts(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE spaces(space TEXT PRIMARY KEY, body BLOB NOT NULL, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE writes(
  space TEXT NOT NULL, key TEXT NOT NULL, mark BLOB NOT NULL, body BLOB NOT NULL, PRIMARY KEY(space, key, mark)
) WITHOUT ROWID;
CREATE TABLE pasts(number INTEGER PRIMARY KEY, space TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX pasts_key ON pasts(space, key, number);
"""
#: Where there is one, the call that writes no times of the file: 0.15 ms instead of 0.24.
_sync = getattr(os, "fdatasync", os.fsync)
#: Entries of a history beyond its bound before they are deleted together.
_PAST_SLACK = 32


class WriteRow(NamedTuple):
    """A write to be kept: which, its bytes, its line of history, what it makes superfluous; ``n`` as in ``SpaceRow``."""

    space: str
    key: str
    mark: bytes
    body: bytes
    past: bytes
    dropped: Sequence[bytes]
    n: int


class SpaceRow(NamedTuple):
    """What is known of a space besides its keys: encoded, and up to which this node's numbers may have been used."""

    space: str
    body: bytes
    n: int


class SpaceStore:
    """Open with ``SpaceStore.open(path)``; calls but ``sync`` must not overlap.

    Attributes:
        birth: Random bytes made with the file: numbers of writes are not used twice, also if the file is lost.
    """

    def __init__(self, db: Database, past_max: int) -> None:
        self.path, self._db, self._past_max = db.path, db, past_max
        self._pasts: dict[tuple[str, str], int] = {}
        self._noted: dict[str, int] = {}
        self._wal = -1
        db.write("INSERT OR IGNORE INTO facts VALUES('birth', ?)", secrets.token_bytes(BIRTH_BYTES), durable=True)
        self.birth: bytes = db.read("SELECT value FROM facts WHERE name='birth'")[0][0]

    @classmethod
    def open(cls, path: Path, past_max: int = 100) -> SpaceStore:
        """Open or make the file; ``past_max`` entries of each key's history are kept.

        Raises:
            ConfigError: "spaces.newer": written by a newer version. The file is as it was.
            Corrupt: damaged. The file is as it was.
            Full: it cannot be written.
        """
        damaged = f"other holders have its spaces: move it away, and they come back:   mv {path} {path}.damaged"
        return cls(Database(path, _SCHEMA, _VERSION, name="spaces", damaged=damaged), past_max)

    def keep(self, rows: Iterable[WriteRow | SpaceRow]) -> None:
        """Write all rows in one commit, which outlasts the process. Raises StoreError: none of it was written."""
        db, noted = self._db, dict[str, int]()
        with db.transaction():
            for row in rows:
                if isinstance(row, SpaceRow):
                    db.write(
                        "INSERT INTO spaces VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET body=excluded.body",
                        *row,
                    )
                    continue
                for mark in row.dropped:
                    db.write("DELETE FROM writes WHERE space=? AND key=? AND mark=?", row.space, row.key, mark)
                db.write("INSERT OR REPLACE INTO writes VALUES(?, ?, ?, ?)", row.space, row.key, row.mark, row.body)
                if row.n > self._noted.get(row.space, 0):
                    noted[row.space] = row.n
                    db.write(
                        "INSERT INTO spaces VALUES(?, x'', ?) ON CONFLICT DO UPDATE SET n=max(n, excluded.n)",
                        row.space,
                        row.n,
                    )
                self._keep_past(row)
        self._noted.update(noted)

    def _keep_past(self, row: WriteRow) -> None:
        db, key = self._db, (row.space, row.key)
        db.write("INSERT INTO pasts(space, key, body) VALUES(?, ?, ?)", *key, row.past)
        count = self._pasts.get(key, 0) + 1
        if count > self._past_max + _PAST_SLACK:
            (cut,) = db.read(
                "SELECT number FROM pasts WHERE space=? AND key=? ORDER BY number DESC LIMIT 1 OFFSET ?",
                *key,
                self._past_max,
            )[0]
            db.write("DELETE FROM pasts WHERE space=? AND key=? AND number<=?", *key, cut)
            count = self._past_max
        self._pasts[key] = count

    def names(self) -> list[str]:
        """Return the spaces, in order. Raises StoreError."""
        return [name for (name,) in self._db.read("SELECT space FROM spaces UNION SELECT space FROM writes ORDER BY 1")]

    def space(self, name: str) -> SpaceRow | None:
        """Return what is known of a space; ``body`` is empty if nothing is. Raises StoreError."""
        rows = self._db.read("SELECT space, body, n FROM spaces WHERE space=?", name)
        return SpaceRow(*rows[0]) if rows else None

    def writes(self, name: str) -> list[bytes]:
        """Return all writes of a space. Raises StoreError."""
        return [body for (body,) in self._db.read("SELECT body FROM writes WHERE space=?", name)]

    def pasts(self, name: str) -> list[tuple[str, bytes]]:
        """Return the histories of a space as (key, entry), oldest first. Raises StoreError."""
        rows: list[tuple[str, bytes]] = self._db.read("SELECT key, body FROM pasts WHERE space=? ORDER BY number", name)
        for key, _ in rows:
            self._pasts[name, key] = 0
        for key, _ in rows:
            self._pasts[name, key] += 1
        return rows

    def sync(self) -> None:
        """Make all commits so far outlast the machine's power; may run in another thread.

        Commits stand in SQLite's write-ahead log, and are durable once that file is (SQLite syncs it itself before it moves
        them on to the main file). SQLite keeps its locks on other files, so a descriptor of ours does no harm.

        Raises:
            Full: the disk does not take it.
        """
        try:
            if self._wal < 0:
                with contextlib.suppress(FileNotFoundError):  # all is in the main file
                    self._wal = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            if self._wal >= 0:
                _sync(self._wal)
        except OSError as error:
            raise full_error(error, self.path.parent) from error

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        if self._wal >= 0:
            os.close(self._wal)
            self._wal = -1
        self._db.close()
