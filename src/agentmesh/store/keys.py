"""API keys of programs as they are kept on disk: never a key itself, only its SHA-256.

One small SQLite file, opened by the daemon and used from its loop. What was added or removed is on disk when the call returns.
A file that others can open is refused: whoever writes to it can let programs in, and only a person can judge what happened.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import NamedTuple

import msgspec

from agentmesh.errors import ConfigError, LimitError, StateError
from agentmesh.store.database import Database

#: Most keys of one node.
KEYS_MAX = 20_000
_VERSION = 1
_SCHEMA = """
CREATE TABLE keys(
  name TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, scopes TEXT NOT NULL, tenant TEXT NOT NULL,
  made INTEGER NOT NULL, expires INTEGER) WITHOUT ROWID;
"""
_scopes = msgspec.json.Decoder(list[str])


class KeptKey(NamedTuple):
    """One key as it is kept.

    Attributes:
        name: What people call it; unique.
        hash: SHA-256 of the key, 32 bytes.
        scopes: What it may be used for, as it was written.
        tenant: For whom; "" = the operator's own.
        made: Unix seconds.
        expires: Unix seconds from which it is refused; None = never.
    """

    name: str
    hash: bytes
    scopes: tuple[str, ...]
    tenant: str
    made: int
    expires: int | None


class KeyStore:
    """Open with ``KeyStore.open(path)``; calls must not overlap."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._count = int(db.read("SELECT count(*) FROM keys")[0][0])

    @classmethod
    def open(cls, path: Path) -> KeyStore:
        """Open or make the file.

        Raises:
            ConfigError: "keys.newer": written by a newer version; "keys.permissions": others can open it. The file is as it was.
            Corrupt: damaged. The file is as it was.
            Full: it cannot be written.
        """
        refuse_open_file(path, "keys")
        damaged = f"move it away and make new keys (agentmesh keys add):   mv {path} {path}.damaged"
        return cls(Database(path, _SCHEMA, _VERSION, name="keys", damaged=damaged, check=True))

    def all(self) -> list[KeptKey]:
        """Return every key, by name. Raises StoreError."""
        rows = self._db.read("SELECT name,hash,scopes,tenant,made,expires FROM keys ORDER BY name")
        return [KeptKey(r[0], bytes(r[1]), tuple(_scopes.decode(r[2])), r[3], r[4], r[5]) for r in rows]

    def add(self, key: KeptKey) -> None:
        """Keep a key.

        Raises:
            StateError: the name is taken. Nothing changed.
            LimitError: ``KEYS_MAX`` are kept. Nothing changed.
            StoreError: it cannot be written. Nothing changed.
        """
        if self._count >= KEYS_MAX:
            raise LimitError(
                f"{KEYS_MAX} API keys are kept on this node", code="keys.full", hint="agentmesh keys revoke NAME"
            )
        added = self._db.write(
            "INSERT OR IGNORE INTO keys VALUES (?,?,?,?,?,?)",
            key.name, key.hash, msgspec.json.encode(key.scopes).decode(), key.tenant, key.made, key.expires,
            durable=True,
        )  # fmt: skip
        if not added:
            raise StateError(
                f"there is an API key named {key.name!r}",
                code="keys.exists",
                hint=f"agentmesh keys revoke {key.name}   or choose another name",
            )
        self._count += 1

    def remove(self, name: str) -> bool:
        """Forget a key; False if there is none of that name. Raises StoreError."""
        removed = self._db.write("DELETE FROM keys WHERE name=?", name, durable=True) > 0
        self._count -= removed
        return removed

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        self._db.close()


def refuse_open_file(path: Path, name: str) -> None:
    """Raise ConfigError (code "NAME.permissions") if others than the owner can open a file that exists."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & 0o077:
        raise ConfigError(
            f"{path} can be opened by others (mode {stat.S_IMODE(mode):04o})",
            code=f"{name}.permissions",
            why="whoever writes to it decides who is let in here",
            hint=f"chmod 600 {path}",
        )
