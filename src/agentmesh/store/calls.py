"""What must be remembered of calls for longer than a process lives: tokens that were used, and receipts.

One SQLite file, opened by the daemon and used from its loop. A token that was noted stays noted when the process is killed;
a crash of the machine may lose the last moments, within which a token is good for (60 s and the skew) at most once more. Receipts
are kept on both sides, newest last; the oldest go when there are more than ``RECEIPTS_MAX``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agentmesh.errors import Busy
from agentmesh.store.database import Database

#: Receipts kept.
RECEIPTS_MAX = 200_000
#: Tokens that may be valid at once; more are refused. 1,000 calls a second are 90,000 (research: standards §4.4).
TOKENS_MAX = 400_000
_VERSION = 1
_TRIM_EVERY = 1_000
_SCHEMA = """
CREATE TABLE tokens(caller TEXT NOT NULL, jti TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY(caller, jti)) WITHOUT ROWID;
CREATE INDEX tokens_until ON tokens(until);
CREATE TABLE receipts(
  number INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, task_id TEXT NOT NULL, run_id TEXT NOT NULL,
  callee TEXT NOT NULL, caller TEXT NOT NULL, receipt TEXT NOT NULL, token TEXT NOT NULL);
CREATE INDEX receipts_task ON receipts(task_id);
CREATE INDEX receipts_run ON receipts(run_id);
CREATE INDEX receipts_pair ON receipts(callee, caller);
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

    def __init__(self, db: Database) -> None:
        self.path = db.path
        self._db = db
        self._tokens = int(db.read("SELECT count(*) FROM tokens")[0][0])
        self._kept = 0

    @classmethod
    def open(cls, path: Path) -> CallStore:
        """Open or make the file.

        Raises:
            ConfigError: "calls.newer": written by a newer version. The file is as it was.
            Corrupt: damaged. The file is as it was: it holds evidence, so nothing is thrown away unasked.
            Full: it cannot be written.
        """
        damaged = f"it holds receipts: move it away to start with an empty one:   mv {path} {path}.damaged"
        return cls(Database(path, _SCHEMA, _VERSION, name="calls", damaged=damaged))

    # Tokens

    def is_noted(self, caller: str, jti: str) -> bool:
        """Say whether a token was accepted before. Raises StoreError."""
        return bool(self._db.read("SELECT 1 FROM tokens WHERE caller=? AND jti=?", caller, jti))

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
            self._tokens -= self._db.write("DELETE FROM tokens WHERE until<?", now)
            if self._tokens >= TOKENS_MAX:
                raise Busy(f"{TOKENS_MAX} call tokens are in use", code="refused.busy.tokens", retry_after_s=30.0)
        noted = self._db.write("INSERT OR IGNORE INTO tokens VALUES (?,?,?)", caller, jti, until) > 0
        self._tokens += noted
        if noted and self._tokens % _TRIM_EVERY == 0:
            self._tokens -= self._db.write("DELETE FROM tokens WHERE until<?", now)
        return noted

    # Receipts

    def keep(self, kept: KeptReceipt) -> None:
        """Keep a receipt; the same one again changes nothing. Raises StoreError."""
        self._db.write(
            "INSERT OR IGNORE INTO receipts(hash,task_id,run_id,callee,caller,receipt,token) VALUES (?,?,?,?,?,?,?)",
            *kept,
        )
        self._kept += 1
        if self._kept % _TRIM_EVERY == 0:
            self._db.write("DELETE FROM receipts WHERE number<=(SELECT max(number) FROM receipts)-?", RECEIPTS_MAX)

    def last_hash(self, callee: str, caller: str) -> str | None:
        """Return the hash of the newest receipt of a callee for a caller. Raises StoreError."""
        rows = self._db.read(
            "SELECT hash FROM receipts WHERE callee=? AND caller=? ORDER BY number DESC LIMIT 1", callee, caller
        )
        return str(rows[0][0]) if rows else None

    def receipt_of(self, task_id: str, callee: str, caller: str) -> str | None:
        """Return the newest receipt of one task between two. Raises StoreError."""
        rows = self._db.read(
            # By task alone: the index of pairs would have to walk over all receipts of these two.
            "SELECT receipt FROM receipts WHERE task_id=? AND +callee=? AND +caller=? ORDER BY number DESC LIMIT 1",
            task_id, callee, caller,
        )  # fmt: skip
        return str(rows[0][0]) if rows else None

    def of_call(self, ref: str, limit: int = 1_000) -> list[KeptReceipt]:
        """Return the receipts of a task or run, given its id or the beginning of one, oldest first. Raises StoreError."""
        end = ref + "\U0010ffff"
        rows = self._db.read(
            "SELECT hash,task_id,run_id,callee,caller,receipt,token FROM receipts "
            "WHERE (task_id>=? AND task_id<?) OR (run_id>=? AND run_id<?) ORDER BY number LIMIT ?",
            ref, end, ref, end, limit,
        )  # fmt: skip
        return [KeptReceipt(*map(str, row)) for row in rows]

    def count_of_run(self, run_id: str) -> int:
        """Return how many receipts of a run are kept. Raises StoreError."""
        return int(self._db.read("SELECT count(*) FROM receipts WHERE run_id=?", run_id)[0][0])

    def latest(self, limit: int = 20) -> list[KeptReceipt]:
        """Return the newest receipts, newest first. Raises StoreError."""
        rows = self._db.read(
            "SELECT hash,task_id,run_id,callee,caller,receipt,token FROM receipts ORDER BY number DESC LIMIT ?", limit
        )
        return [KeptReceipt(*map(str, row)) for row in rows]

    def export(self) -> Iterator[KeptReceipt]:
        """Go through all receipts, oldest first. Raises StoreError."""
        number = 0
        while rows := self._db.read(
            "SELECT number,hash,task_id,run_id,callee,caller,receipt,token FROM receipts "
            "WHERE number>? ORDER BY number LIMIT 500",
            number,
        ):
            for row in rows:
                number = int(row[0])
                yield KeptReceipt(*map(str, row[1:]))

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        self._db.close()
