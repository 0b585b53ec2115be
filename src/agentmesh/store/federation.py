"""What was pulled from seeds, so that a restart shows it at once and goes on where it stopped: cursors, records, nodes.

Records are kept as their owners signed them and are verified again when they are read. One SQLite file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from agentmesh.store.database import Database

_VERSION = 1
_SCHEMA = """
CREATE TABLE seeds(
  url TEXT PRIMARY KEY, cursor TEXT NOT NULL, node TEXT NOT NULL, organisation TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE entries(
  url TEXT NOT NULL, agent TEXT NOT NULL, reshare INTEGER NOT NULL, raw BLOB NOT NULL, PRIMARY KEY(url, agent)
) WITHOUT ROWID;
CREATE TABLE nodes(url TEXT NOT NULL, node TEXT NOT NULL, raw BLOB NOT NULL, PRIMARY KEY(url, node)) WITHOUT ROWID;
"""


class SeedRow(NamedTuple):
    """One seed: where to go on, and who answered there last."""

    url: str
    cursor: str
    node: str
    organisation: str


class FederationStore:
    """Open with ``FederationStore.open(path)``; calls must not overlap."""

    def __init__(self, db: Database) -> None:
        self.path = db.path
        self._db = db

    @classmethod
    def open(cls, path: Path) -> FederationStore:
        """Open or make the file.

        Raises:
            ConfigError: "federation.newer": written by a newer version. The file is as it was.
            Corrupt: damaged. The file is as it was.
            Full: it cannot be written.
        """
        damaged = f"it can be pulled again: move it away:   mv {path} {path}.damaged"
        return cls(Database(path, _SCHEMA, _VERSION, name="federation", damaged=damaged))

    @contextlib.contextmanager
    def writing(self) -> Generator[None]:
        """Write everything within as one. Raises StoreError: nothing was written."""
        with self._db.transaction():
            yield

    def seeds(self) -> list[SeedRow]:
        """Return every seed that anything is kept of. Raises StoreError."""
        rows = self._db.read("SELECT url,cursor,node,organisation FROM seeds ORDER BY url")
        return [SeedRow(*map(str, row)) for row in rows]

    def save_seed(self, url: str, *, node: str, organisation: str) -> None:
        """Note who answers at a seed. Raises StoreError."""
        self._db.write(
            "INSERT INTO seeds VALUES (?,'',?,?) ON CONFLICT(url) DO UPDATE SET node=excluded.node, "
            "organisation=excluded.organisation",
            url, node, organisation,
        )  # fmt: skip

    def save_cursor(self, url: str, cursor: str) -> None:
        """Note where to go on. Raises StoreError."""
        self._db.write(
            "INSERT INTO seeds VALUES (?,?,'','') ON CONFLICT(url) DO UPDATE SET cursor=excluded.cursor", url, cursor
        )

    def save_entry(self, url: str, agent: str, raw: bytes, *, reshare: bool) -> None:
        """Keep a record. Raises StoreError."""
        self._db.write("INSERT OR REPLACE INTO entries VALUES (?,?,?,?)", url, agent, int(reshare), raw)

    def drop_entry(self, url: str, agent: str) -> None:
        """Forget a record. Raises StoreError."""
        self._db.write("DELETE FROM entries WHERE url=? AND agent=?", url, agent)

    def save_node(self, url: str, node: str, raw: bytes) -> None:
        """Keep what a node says of itself. Raises StoreError."""
        self._db.write("INSERT OR REPLACE INTO nodes VALUES (?,?,?)", url, node, raw)

    def entries(self, url: str) -> list[tuple[str, bytes, bool]]:
        """Return (agent, record, reshare) of a seed. Raises StoreError."""
        rows = self._db.read("SELECT agent,raw,reshare FROM entries WHERE url=? ORDER BY agent", url)
        return [(str(agent), bytes(raw), bool(reshare)) for agent, raw, reshare in rows]

    def nodes(self, url: str) -> list[bytes]:
        """Return the node records of a seed. Raises StoreError."""
        return [bytes(raw) for (raw,) in self._db.read("SELECT raw FROM nodes WHERE url=? ORDER BY node", url)]

    def forget(self, url: str) -> None:
        """Forget a seed and all that it told. Raises StoreError."""
        with self._db.transaction():
            for table in ("seeds", "entries", "nodes"):
                self._db.write(f"DELETE FROM {table} WHERE url=?", url)  # noqa: S608 names of our own

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        self._db.close()
