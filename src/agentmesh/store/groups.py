"""Groups on disk: who is in them, and the chains of their members as far as this node may read (docs/spec/sealed.md §8).

One small SQLite file, private to its owner, opened with the first group and used from the daemon's loop. Chains of senders here
are not in it: they live in memory only, and there are new ones after a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agentmesh.store.database import Database

#: Chains kept of one sender in one group: that in use, and those whose last letters may still be under way.
CHAINS_MAX = 4
_VERSION = 1
_SCHEMA = """
CREATE TABLE groups(id BLOB PRIMARY KEY, raw BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE chains(
  n INTEGER PRIMARY KEY AUTOINCREMENT, grp BLOB NOT NULL, sender BLOB NOT NULL, epoch INTEGER NOT NULL, chain BLOB NOT NULL,
  number INTEGER NOT NULL, secret BLOB NOT NULL, UNIQUE(grp, sender, chain));
"""


class ChainRow(NamedTuple):
    """A chain of another member: the oldest letter that opens, and the secret there."""

    group: bytes
    sender: bytes
    epoch: int
    chain: bytes
    number: int
    secret: bytes


class GroupStore:
    """Open with ``GroupStore.open(path)``; calls must not overlap. All raise StoreError and then change nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @classmethod
    def open(cls, path: Path) -> GroupStore:
        """Open or make the file. Raises ConfigError, Corrupt, Full: it is as it was."""
        damaged = f"move it away; owners tell their groups again when they change:   mv {path} {path}.damaged"
        return cls(Database(path, _SCHEMA, _VERSION, name="groups", damaged=damaged, check=True))

    def groups(self) -> list[bytes]:
        """Return the statement of each group."""
        return [bytes(raw) for (raw,) in self._db.read("SELECT raw FROM groups ORDER BY id")]

    def keep(self, group_id: bytes, raw: bytes, *, durable: bool) -> None:
        """Keep a statement in place of the one before; ``durable``: safe from a power cut when this returns."""
        self._db.write("INSERT OR REPLACE INTO groups VALUES (?,?)", group_id, raw, durable=durable)

    def drop(self, group_id: bytes) -> None:
        """Forget a group and all its chains; on disk when this returns."""
        with self._db.transaction(durable=True):
            self._db.write("DELETE FROM groups WHERE id=?", group_id)
            self._db.write("DELETE FROM chains WHERE grp=?", group_id)

    def chains(self, group_id: bytes) -> list[ChainRow]:
        """Return the chains of a group, oldest first."""
        rows = self._db.read("SELECT grp,sender,epoch,chain,number,secret FROM chains WHERE grp=? ORDER BY n", group_id)
        return [ChainRow(bytes(r[0]), bytes(r[1]), int(r[2]), bytes(r[3]), int(r[4]), bytes(r[5])) for r in rows]

    def keep_chains(self, rows: Sequence[ChainRow]) -> None:
        """Keep chains as they stand now; of each sender the newest ``CHAINS_MAX``."""
        with self._db.transaction():
            for row in rows:
                self._db.write(
                    "INSERT INTO chains(grp,sender,epoch,chain,number,secret) VALUES (?,?,?,?,?,?) "
                    "ON CONFLICT(grp,sender,chain) DO UPDATE SET number=excluded.number, secret=excluded.secret",
                    *row,
                )
                self._db.write(
                    "DELETE FROM chains WHERE grp=? AND sender=? AND n NOT IN "
                    "(SELECT n FROM chains WHERE grp=? AND sender=? ORDER BY n DESC LIMIT ?)",
                    row.group, row.sender, row.group, row.sender, CHAINS_MAX,
                )  # fmt: skip

    def drop_chains(self, group_id: bytes, senders: Sequence[bytes]) -> None:
        """Forget the chains of those who left."""
        self._db.write_many("DELETE FROM chains WHERE grp=? AND sender=?", [(group_id, one) for one in senders])

    def close(self) -> None:
        """Close. Idempotent."""
        self._db.close()
