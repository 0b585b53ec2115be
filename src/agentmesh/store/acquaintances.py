"""Agents that were written to, as their last manifest showed them: where they lived, and the key that mail is sealed to.

One small SQLite file, opened with the first message to another node and used from the daemon's loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from agentmesh.store.database import Database

#: Agents remembered; those heard of longest ago go first. About 300 bytes each.
KEPT_MAX = 4_096
_VERSION = 1
_SCHEMA = """
CREATE TABLE agents(
  n INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, name TEXT NOT NULL, node TEXT NOT NULL, seq INTEGER NOT NULL,
  kid TEXT NOT NULL, x BLOB NOT NULL, exp INTEGER NOT NULL);
"""


class Acquaintance(NamedTuple):
    """One agent.

    Attributes:
        key: Raw public key.
        name, node, seq: As in its manifest.
        kid, x, exp: Its agreement key; "", b"" and 0 if it named none.
    """

    key: bytes
    name: str
    node: str
    seq: int
    kid: str
    x: bytes
    exp: int


class AcquaintanceStore:
    """Open with ``AcquaintanceStore.open(path)``; calls must not overlap. All raise StoreError and then change nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @classmethod
    def open(cls, path: Path) -> AcquaintanceStore:
        """Open or make the file. Raises ConfigError, Corrupt, Full: it is as it was."""
        damaged = f"move it away; it is made anew:   mv {path} {path}.damaged"
        return cls(Database(path, _SCHEMA, _VERSION, name="acquaintances", damaged=damaged, check=True))

    def all(self) -> list[Acquaintance]:
        """Return every agent, the one heard of longest ago first."""
        rows = self._db.read("SELECT key,name,node,seq,kid,x,exp FROM agents ORDER BY n")
        return [Acquaintance(bytes(r[0]), r[1], r[2], int(r[3]), r[4], bytes(r[5]), int(r[6])) for r in rows]

    def keep(self, one: Acquaintance) -> None:
        """Keep an agent in place of what was known of it, and forget those beyond ``KEPT_MAX``."""
        with self._db.transaction():
            self._db.write("INSERT OR REPLACE INTO agents(key,name,node,seq,kid,x,exp) VALUES (?,?,?,?,?,?,?)", *one)
            self._db.write("DELETE FROM agents WHERE n NOT IN (SELECT n FROM agents ORDER BY n DESC LIMIT ?)", KEPT_MAX)

    def drop(self, key: bytes) -> None:
        """Forget an agent."""
        self._db.write("DELETE FROM agents WHERE key=?", key)

    def close(self) -> None:
        """Close. Idempotent."""
        self._db.close()
