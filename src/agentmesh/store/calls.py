"""What must be remembered of calls for longer than a process lives: tokens that were used, and receipts.

One SQLite file, opened by the daemon and used from its loop. A token that was noted stays noted when the process is killed;
a crash of the machine may lose the last moments, within which a token is good for (60 s and the skew) at most once more. Receipts
are kept on both sides, newest last; the oldest go when there are more than ``RECEIPTS_MAX``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agentmesh.errors import Busy, ConfigError, Corrupt, Full, MeshError, StateError

#: Receipts kept.
RECEIPTS_MAX = 200_000
#: Tokens that may be valid at once; more are refused. 1,000 calls a second are 90,000 (research: standards §4.4).
TOKENS_MAX = 400_000
_VERSION = 1
_TRIM_EVERY = 1_000
_SCHEMA = f"""
BEGIN;
CREATE TABLE tokens(caller TEXT NOT NULL, jti TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY(caller, jti)) WITHOUT ROWID;
CREATE INDEX tokens_until ON tokens(until);
CREATE TABLE receipts(
  number INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, task_id TEXT NOT NULL, run_id TEXT NOT NULL,
  callee TEXT NOT NULL, caller TEXT NOT NULL, receipt TEXT NOT NULL, token TEXT NOT NULL);
CREATE INDEX receipts_task ON receipts(task_id);
CREATE INDEX receipts_run ON receipts(run_id);
CREATE INDEX receipts_pair ON receipts(callee, caller);
PRAGMA user_version={_VERSION};
COMMIT;
"""


class KeptReceipt(NamedTuple):
    """A receipt and the token of the call that it is for, as they travelled.

    Attributes:
        hash: ``identity.claims.hash_of`` the receipt.
        task_id, run_id: The call.
        callee, caller: did:keys.
        receipt, token: Compact JWS.
    """

    hash: str
    task_id: str
    run_id: str
    callee: str
    caller: str
    receipt: str
    token: str


class CallStore:
    """Open with ``CallStore.open(path)``; calls must not overlap."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = db
        self._tokens = int(db.execute("SELECT count(*) FROM tokens").fetchone()[0])
        self._kept = 0

    @classmethod
    def open(cls, path: Path) -> CallStore:
        """Open or make the file.

        Raises:
            ConfigError: "calls.newer": written by a newer version. The file is as it was.
            Corrupt: damaged. The file is as it was: it holds evidence, so nothing is thrown away unasked.
            Full: it cannot be written.
        """
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=32)
        except (OSError, sqlite3.Error) as error:
            raise _store_error(error, path) from error
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA cache_size=-500")
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > _VERSION:
                raise ConfigError(
                    f"{path} was written by a newer agentmesh",
                    code="calls.newer",
                    hint="upgrade agentmesh here, or use another home:   export AGENTMESH_HOME=~/agentmesh-old",
                )
            if version == 0:
                db.executescript(_SCHEMA)
            return cls(path, db)
        except sqlite3.Error as error:
            db.close()
            raise _store_error(error, path) from error
        except BaseException:
            db.close()
            raise

    # Tokens

    def is_noted(self, caller: str, jti: str) -> bool:
        """Say whether a token was accepted before. Raises StoreError."""
        return bool(self._read("SELECT 1 FROM tokens WHERE caller=? AND jti=?", caller, jti))

    def note_token(self, caller: str, jti: str, until: int, *, now: int) -> bool:
        """Remember a token that is accepted now; False if it was remembered already.

        Args:
            caller: did:key of who signed it.
            jti: Its id.
            until: Unix second after which it is refused as expired anyway.
            now: Unix seconds.

        Raises:
            Busy: ``TOKENS_MAX`` tokens are valid at once. Nothing was noted: none that is still good may be forgotten.
            StoreError: it cannot be written. Nothing was noted.
        """
        if self._tokens >= TOKENS_MAX:
            self._tokens -= self._write("DELETE FROM tokens WHERE until<?", now)
            if self._tokens >= TOKENS_MAX:
                raise Busy(f"{TOKENS_MAX} call tokens are in use", code="refused.busy.tokens", retry_after_s=30.0)
        noted = self._write("INSERT OR IGNORE INTO tokens VALUES (?,?,?)", caller, jti, until) > 0
        self._tokens += noted
        if noted and self._tokens % _TRIM_EVERY == 0:
            self._tokens -= self._write("DELETE FROM tokens WHERE until<?", now)
        return noted

    # Receipts

    def keep(self, kept: KeptReceipt) -> None:
        """Keep a receipt; the same one again changes nothing. Raises StoreError."""
        self._write(
            "INSERT OR IGNORE INTO receipts(hash,task_id,run_id,callee,caller,receipt,token) VALUES (?,?,?,?,?,?,?)",
            *kept,
        )
        self._kept += 1
        if self._kept % _TRIM_EVERY == 0:
            self._write("DELETE FROM receipts WHERE number<=(SELECT max(number) FROM receipts)-?", RECEIPTS_MAX)

    def last_hash(self, callee: str, caller: str) -> str | None:
        """Return the hash of the newest receipt of a callee for a caller. Raises StoreError."""
        rows = self._read(
            "SELECT hash FROM receipts WHERE callee=? AND caller=? ORDER BY number DESC LIMIT 1", callee, caller
        )
        return str(rows[0][0]) if rows else None

    def of_call(self, ref: str, limit: int = 1_000) -> list[KeptReceipt]:
        """Return the receipts of a task or run, given its id or the beginning of one, oldest first. Raises StoreError."""
        end = ref + "\U0010ffff"
        rows = self._read(
            "SELECT hash,task_id,run_id,callee,caller,receipt,token FROM receipts "
            "WHERE (task_id>=? AND task_id<?) OR (run_id>=? AND run_id<?) ORDER BY number LIMIT ?",
            ref, end, ref, end, limit,
        )  # fmt: skip
        return [KeptReceipt(*map(str, row)) for row in rows]

    def latest(self, limit: int = 20) -> list[KeptReceipt]:
        """Return the newest receipts, newest first. Raises StoreError."""
        rows = self._read(
            "SELECT hash,task_id,run_id,callee,caller,receipt,token FROM receipts ORDER BY number DESC LIMIT ?", limit
        )
        return [KeptReceipt(*map(str, row)) for row in rows]

    def export(self) -> Iterator[KeptReceipt]:
        """Go through all receipts, oldest first. Raises StoreError."""
        number = 0
        while rows := self._read(
            "SELECT number,hash,task_id,run_id,callee,caller,receipt,token FROM receipts "
            "WHERE number>? ORDER BY number LIMIT 500",
            number,
        ):
            for row in rows:
                number = int(row[0])
                yield KeptReceipt(*map(str, row[1:]))

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _open_db(self) -> sqlite3.Connection:
        if self._db is None:
            raise StateError("the store of calls is closed", code="state.closed")
        return self._db

    def _write(self, sql: str, *values: str | int) -> int:
        try:
            return self._open_db().execute(sql, values).rowcount
        except sqlite3.Error as error:
            raise _store_error(error, self.path) from error

    def _read(self, sql: str, *values: str | int) -> list[Any]:
        try:
            return self._open_db().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise _store_error(error, self.path) from error


def _store_error(error: Exception, path: Path) -> MeshError:
    text = str(error)
    if isinstance(error, OSError) or "full" in text or "readonly" in text or "unable to open" in text:
        return Full(f"cannot write {path}: {error}", code="store.full", hint=f"df -h {path.parent}; ls -l {path}")
    return Corrupt(
        f"{path} cannot be read: {error}",
        code="store.corrupt",
        why="it holds receipts, so it is not thrown away unasked",
        hint=f"move it away to start with an empty one:   mv {path} {path}.damaged",
    )
