"""Sessions of the console as they are kept on disk: never what opens them, only SHA-256.

They outlive the daemon, so that a page that is open while it restarts goes on. The file adds nothing to what can be
stolen: it lies beside ``api.token``, which opens more, and hashes open nothing. Opened with the first login.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from agentmesh.store.database import Database
from agentmesh.store.keys import refuse_open_file

_VERSION = 1
_SCHEMA = """
CREATE TABLE sessions(
  hash BLOB PRIMARY KEY, page BLOB NOT NULL, made INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
"""


class KeptSession(NamedTuple):
    """One session as it is kept.

    Attributes:
        hash: SHA-256 of the cookie's value.
        page: SHA-256 of what the page sends beside the cookie.
        made, used: Unix seconds; ``used`` may be some minutes old.
    """

    hash: bytes
    page: bytes
    made: int
    used: int


class SessionStore:
    """Open with ``SessionStore.open(path)``; calls must not overlap. How many there may be is the caller's to see to."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @classmethod
    def open(cls, path: Path) -> SessionStore:
        """Open or make the file.

        Raises:
            ConfigError: "sessions.newer": written by a newer version; "sessions.permissions": others can open it. The file is
                as it was.
            Corrupt: damaged. The file is as it was.
            Full: it cannot be written.
        """
        refuse_open_file(path, "sessions")
        damaged = f"move it away and log in anew (agentmesh console):   mv {path} {path}.damaged"
        return cls(Database(path, _SCHEMA, _VERSION, name="sessions", damaged=damaged, check=True))

    def all(self) -> list[KeptSession]:
        """Return every session, the one used longest ago first. Raises StoreError."""
        rows = self._db.read("SELECT hash,page,made,used FROM sessions ORDER BY used,hash")
        return [KeptSession(bytes(r[0]), bytes(r[1]), r[2], r[3]) for r in rows]

    def put(self, session: KeptSession) -> None:
        """Keep a session, instead of an older state of it. Raises StoreError: it is as it was."""
        self._db.write("INSERT OR REPLACE INTO sessions VALUES (?,?,?,?)", *session, durable=True)

    def remove(self, hash: bytes) -> None:
        """Forget a session, if it is kept. Raises StoreError: it is still there."""
        self._db.write("DELETE FROM sessions WHERE hash=?", hash, durable=True)

    def clear(self) -> None:
        """Forget every session. Raises StoreError: all are still there."""
        self._db.write("DELETE FROM sessions", durable=True)

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        self._db.close()
