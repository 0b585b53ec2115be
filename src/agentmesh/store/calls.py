"""What must be remembered of calls for longer than a process lives: tokens that were used, and receipts.

Opened by the daemon and used from its loop, which never waits for a database: a used token is one small write
(``store.used_tokens``), a receipt one line of a journal (``store.receipt_journal``), and a thread files the receipts of a second
together. What was noted or kept survives the death of the process; a crash of the machine may lose the last moments, within
which a token is good for (60 s and the skew) at most once more. Receipts are kept on both sides, newest last; the oldest go when
there are more than ``RECEIPTS_MAX``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from agentmesh.errors import Full, MeshError, StateError
from agentmesh.store.database import Database
from agentmesh.store.jsonl import full_error
from agentmesh.store.receipt_journal import KeptReceipt, ReceiptJournal
from agentmesh.store.task_filter import TaskFilter
from agentmesh.store.used_tokens import UsedTokens

_log = logging.getLogger("agentmesh.calls")

#: Receipts kept.
RECEIPTS_MAX = 200_000
#: Receipts that may wait for a database that refuses them, about 2 KB each; further ones are refused.
WAITING_MAX = 10_000
#: Receipts that are filed together, and how long the first of them waits for company, seconds.
_GROUP, _LINGER_S = 1_000, 1.0
_RETRY_S = 5.0
_VERSION = 2
_TRIM_EVERY = 1_000
_SCHEMA = """
CREATE TABLE receipts(
  number INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, task_id TEXT NOT NULL, run_id TEXT NOT NULL,
  callee TEXT NOT NULL, caller TEXT NOT NULL, receipt TEXT NOT NULL, token TEXT NOT NULL);
CREATE INDEX receipts_task ON receipts(task_id);
CREATE INDEX receipts_run ON receipts(run_id);
CREATE INDEX receipts_pair ON receipts(callee, caller);
"""
_COLUMNS = "hash,task_id,run_id,callee,caller,receipt,token"


class CallStore:
    """Open with ``CallStore.open(path)``; calls must not overlap."""

    def __init__(self, db: Database, tokens: UsedTokens, journal: ReceiptJournal) -> None:
        self.path = db.path
        self._directory = db.path.with_suffix("")
        self._db, self._tokens = db, tokens
        self._is_closed = self._is_failing = False
        #: Guards what follows; held for moments only, by the loop and by who files.
        self._lock = threading.Lock()
        self._journal = journal
        self._waiting: list[KeptReceipt] = []
        self._newest: dict[tuple[str, str, str], KeptReceipt] = {}
        #: Held by who files: the thread, or whoever asks for what only the database can answer.
        self._filing_lock = threading.Lock()
        self._filing: Database | None = None
        self._filed = 0
        self._wake = threading.Semaphore(0)
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        #: Tasks of receipts: of the last ``RECEIPTS_MAX`` and more of this process, and of those before; None: not known yet.
        self._recent = TaskFilter()
        self._older: TaskFilter | None = None

    @classmethod
    def open(cls, path: Path) -> CallStore:
        """Open or make the file and the directory ``calls`` beside it, and file what a dead process left there.

        Raises:
            ConfigError: "calls.newer": written by a newer version. The file is as it was.
            Corrupt: damaged. The file is as it was: it holds evidence, so nothing is thrown away unasked.
            Full: it cannot be written.
        """
        db = _database(path)
        directory = path.with_suffix("")
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            journal = ReceiptJournal(directory)
            self = cls(db, UsedTokens.open(directory), journal)
            self._waiting = list(journal.read())
            self._upgrade()
            self._settle()
            if db.read("SELECT 1 FROM receipts LIMIT 1"):
                self._start()
            else:
                self._older = TaskFilter()
        except OSError as error:
            db.close()
            raise full_error(error, directory) from error
        except MeshError:
            db.close()
            raise
        return self

    def _upgrade(self) -> None:
        """Take over what version 1 kept of tokens in a table. Raises StoreError."""
        if self._db.read("SELECT 1 FROM sqlite_schema WHERE name='tokens'"):
            now = int(time.time())
            for caller, jti, until in self._db.read("SELECT caller,jti,until FROM tokens WHERE until>=?", now):
                self._tokens.note(str(caller), str(jti), int(until), now=now)
            with self._db.transaction():
                self._db.write("DROP TABLE tokens")
                self._db.write(f"PRAGMA user_version={_VERSION}")

    # Tokens

    def is_noted(self, caller: str, jti: str) -> bool:
        """Say whether a token was accepted before. Raises StateError."""
        self._check_open()
        return self._tokens.is_noted(caller, jti)

    def note_token(self, caller: str, jti: str, until: int, *, now: int) -> bool:
        """Remember a token that is accepted now; False if it was remembered already (see ``UsedTokens.note``).

        Raises:
            Busy: too many tokens are valid at once. Nothing was noted: none that is still good may be forgotten.
            StoreError: it cannot be written. Nothing was noted.
        """
        self._check_open()
        return self._tokens.note(caller, jti, until, now=now)

    # Receipts

    def keep(self, kept: KeptReceipt) -> None:
        """Keep a receipt; the same one again changes nothing. Raises StoreError: it is not kept."""
        self._check_open()
        with self._lock:
            if len(self._waiting) >= WAITING_MAX:
                raise Full(
                    f"{WAITING_MAX} receipts wait to be filed",
                    code="calls.behind",
                    hint=f"agentmesh logs; df -h {self.path.parent}",
                )
            try:
                self._journal.append(kept)
            except OSError as error:
                raise full_error(error, self.path.parent) from error
            self._waiting.append(kept)
            self._newest[_key_of(kept)] = kept
            count = len(self._waiting)
        if self._recent.count >= RECEIPTS_MAX + 2 * WAITING_MAX and self._older is not None:
            self._older, self._recent = self._recent, TaskFilter()
        self._recent.add(kept.task_id)
        if self._thread is None:
            self._start()
        if count == 1:
            self._wake.release()
        elif count == _GROUP:
            self._hurry.set()

    @property
    def waiting(self) -> int:
        """Receipts that are not in the database yet."""
        return len(self._waiting)

    def last_hash(self, callee: str, caller: str) -> str | None:
        """Return the hash of the newest receipt of a callee for a caller. Raises StoreError."""
        with self._lock:
            for kept in reversed(self._waiting):
                if (kept.callee, kept.caller) == (callee, caller):
                    return kept.hash
        rows = self._db.read(
            "SELECT hash FROM receipts WHERE callee=? AND caller=? ORDER BY number DESC LIMIT 1", callee, caller
        )
        return str(rows[0][0]) if rows else None

    def receipt_of(self, task_id: str, callee: str, caller: str) -> str | None:
        """Return the newest receipt of one task between two. Raises StoreError."""
        if (waiting := self._newest.get((task_id, callee, caller))) is not None:
            return waiting.receipt
        if self._older is not None and task_id not in self._recent and task_id not in self._older:
            return None
        rows = self._db.read(
            # By task alone: the index of pairs would have to walk over all receipts of these two.
            "SELECT receipt FROM receipts WHERE task_id=? AND +callee=? AND +caller=? ORDER BY number DESC LIMIT 1",
            task_id, callee, caller,
        )  # fmt: skip
        return str(rows[0][0]) if rows else None

    def of_call(self, ref: str, limit: int = 1_000) -> list[KeptReceipt]:
        """Return the receipts of a task or run, given its id or the beginning of one, oldest first. Raises StoreError."""
        self._settle()
        end = ref + "\U0010ffff"
        rows = self._db.read(
            f"SELECT {_COLUMNS} FROM receipts "  # noqa: S608 own names
            "WHERE (task_id>=? AND task_id<?) OR (run_id>=? AND run_id<?) ORDER BY number LIMIT ?",
            ref, end, ref, end, limit,
        )  # fmt: skip
        return [KeptReceipt(*map(str, row)) for row in rows]

    def count_of_run(self, run_id: str) -> int:
        """Return how many receipts of a run are kept. Raises StoreError."""
        self._settle()
        return int(self._db.read("SELECT count(*) FROM receipts WHERE run_id=?", run_id)[0][0])

    def counts_of(self, callees: Sequence[str]) -> dict[str, int]:
        """Return of each of these callees how many receipts that it signed are kept. Raises StoreError."""
        self._settle()
        return {
            callee: int(self._db.read("SELECT count(*) FROM receipts WHERE callee=?", callee)[0][0])
            for callee in dict.fromkeys(callees)
        }

    def kept_of(self, hashes: Sequence[str]) -> frozenset[str]:
        """Return which of these receipts are kept, by their hashes. Raises StoreError."""
        self._settle()
        return frozenset(one for one in hashes if self._db.read("SELECT 1 FROM receipts WHERE hash=?", one))

    def latest(self, limit: int = 20) -> list[KeptReceipt]:
        """Return the newest receipts, newest first. Raises StoreError."""
        self._settle()
        rows = self._db.read(f"SELECT {_COLUMNS} FROM receipts ORDER BY number DESC LIMIT ?", limit)  # noqa: S608 own names
        return [KeptReceipt(*map(str, row)) for row in rows]

    def export(self) -> Iterator[KeptReceipt]:
        """Go through all receipts, oldest first. Raises StoreError."""
        self._settle()
        number = 0
        while rows := self._db.read(
            f"SELECT number,{_COLUMNS} FROM receipts WHERE number>? ORDER BY number LIMIT 500",  # noqa: S608 own names
            number,
        ):
            for row in rows:
                number = int(row[0])
                yield KeptReceipt(*map(str, row[1:]))

    # Filing

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="calls-file", daemon=True)
        self._thread.start()

    def _learn(self) -> None:
        """Note the tasks of all receipts in the database, so that it is not asked for others."""
        known, rows = TaskFilter(), [("",)]
        try:
            while rows and not self._is_closed:
                with self._filing_lock:
                    self._filing = self._filing or _database(self.path)
                    rows = self._filing.read(  # all in one index: the receipts themselves are not read
                        "SELECT task_id FROM receipts INDEXED BY receipts_task WHERE task_id>? ORDER BY task_id LIMIT 1000",
                        rows[-1][0],
                    )
                for (task_id,) in rows:
                    known.add(str(task_id))
        except MeshError as error:
            _log.warning("each call looks into %s for its task: %s", self.path, error)
        else:
            self._older = None if self._is_closed else known

    def _run(self) -> None:
        """File what was kept, a little later, so that much of it comes together; the thread ends when the store is closed."""
        if self._older is None:
            self._learn()
        while True:
            self._wake.acquire()
            if self._is_closed:
                return
            self._hurry.wait(_LINGER_S)
            self._hurry.clear()
            while not self._is_closed and not self._try_to_file():
                self._hurry.wait(_RETRY_S)
                self._hurry.clear()

    def _try_to_file(self) -> bool:
        try:
            self._file()
        except Exception as error:  # noqa: BLE001 the driver loop of this thread: were it to end, receipts would wait for ever
            if not self._is_failing:
                is_bug = not isinstance(error, MeshError)
                _log.error("receipts cannot be filed, they wait in %s: %s", self._directory, error, exc_info=is_bug)
            self._is_failing = True
            return False
        return True

    def _settle(self) -> None:
        """File what waits, before the database is asked. Raises StoreError."""
        self._check_open()
        if self._waiting:
            self._file()

    def _file(self) -> None:
        """Bring all that waits into the database, in one transaction. Raises StoreError: it goes on waiting."""
        with self._filing_lock:
            with self._lock:
                group, numbers = list(self._waiting), self._journal.turn()
            if group:
                self._filing = self._filing or _database(self.path)
                self._filing.write_many(
                    f"INSERT OR IGNORE INTO receipts({_COLUMNS}) VALUES (?,?,?,?,?,?,?)",  # noqa: S608 own names
                    group,
                )
                self._trim(self._filing, len(group))
            with self._lock:
                # Only now: what is not found here is in the database.
                del self._waiting[: len(group)]
                for kept in group:
                    if self._newest.get(_key_of(kept)) is kept:
                        del self._newest[_key_of(kept)]
            self._is_failing = False
            try:
                self._journal.drop(numbers)
            except OSError as error:
                _log.warning("a journal of filed receipts cannot be removed: %s", error)

    def _trim(self, db: Database, added: int) -> None:
        """Let the oldest go, now and then. Raises StoreError."""
        before, self._filed = self._filed, self._filed + added
        if self._filed // _TRIM_EVERY > before // _TRIM_EVERY:
            db.write("DELETE FROM receipts WHERE number<=(SELECT max(number) FROM receipts)-?", RECEIPTS_MAX)

    def _check_open(self) -> None:
        if self._is_closed:
            raise StateError(f"{self.path.name} is closed", code="state.closed")

    def close(self) -> None:
        """File what waits and close; further calls raise StateError. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._thread is not None:
            self._wake.release()
            self._hurry.set()
            self._thread.join()
        try:
            self._file()
        except MeshError as error:
            _log.error("receipts are filed when the node starts again: %s", error)
        self._journal.close()
        self._tokens.close()
        if self._filing is not None:
            self._filing.close()
        self._db.close()


def _database(path: Path) -> Database:
    damaged = f"it holds receipts: move it away to start with an empty one:   mv {path} {path}.damaged"
    return Database(path, _SCHEMA, _VERSION, name="calls", damaged=damaged)


def _key_of(kept: KeptReceipt) -> tuple[str, str, str]:
    return (kept.task_id, kept.callee, kept.caller)
