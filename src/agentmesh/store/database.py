"""One small SQLite file of the daemon: opened, read and written from its loop, with errors that say what to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from agentmesh.errors import ConfigError, Corrupt, Full, MeshError, StateError
from agentmesh.store.index import remove_files
from agentmesh.store.jsonl import full_error


class Database:
    """Open the file, making it and its tables if need be; calls must not overlap.

    What was written is safe from the process's death; from the machine's only if it was ``durable``.

    Args:
        path: The file; made private to its owner.
        schema: Statements that make the tables, run once in a transaction.
        version: Of the schema, stored in the file.
        name: Begins the codes of errors ("state" in "state.newer").
        damaged: What to do about damage, the hint of ``Corrupt``.
        check: Read the whole file for damage now, which is for small ones.

    Raises:
        ConfigError: "NAME.newer": written by a newer version. The file is as it was.
        Corrupt: damaged. The file is as it was.
        Full: it cannot be written.
    """

    def __init__(self, path: Path, schema: str, version: int, *, name: str, damaged: str, check: bool = False) -> None:
        self.path = path
        self._name, self._damaged = name, damaged
        self._db: sqlite3.Connection | None = None
        self._is_durable: bool | None = None  # what SQLite was told last, so that it is told only what changes
        try:
            if not path.exists():
                remove_files(path)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
            self._prepare(schema, version, check=check)
        except OSError as error:
            raise full_error(error, path.parent) from error
        except sqlite3.Error as error:
            self.close()
            raise self._error(error) from error
        except BaseException:
            self.close()
            raise

    def _prepare(self, schema: str, version: int, *, check: bool) -> None:
        db = self._open()
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA cache_size=-500")
        found = int(db.execute("PRAGMA user_version").fetchone()[0])
        if found > version:
            raise ConfigError(
                f"{self.path} was written by a newer agentmesh",
                code=f"{self._name}.newer",
                hint="upgrade agentmesh here, or use another home:   export AGENTMESH_HOME=~/agentmesh-old",
            )
        if found == 0:
            db.executescript(f"BEGIN;{schema}PRAGMA user_version={version};COMMIT;")
        checked = str(db.execute("PRAGMA quick_check(1)").fetchone()[0]) if check else "ok"
        if checked != "ok":
            raise sqlite3.DatabaseError(checked.splitlines()[-1][:200])
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema WHERE type='table'").fetchone()
        if tables < schema.count("CREATE TABLE"):
            raise sqlite3.DatabaseError("tables are missing")

    def write(self, sql: str, *values: Any, durable: bool = False) -> int:
        """Run one statement and return how many rows it changed.

        Args:
            sql: The statement.
            values: For its question marks.
            durable: On disk when this returns, which costs an fsync; within a transaction, that one decides.

        Raises:
            StoreError: it cannot be written. No state changed.
        """
        db = self._open()
        try:
            if durable is not self._is_durable and not db.in_transaction:  # SQLite refuses to change it there
                db.execute("PRAGMA synchronous=FULL" if durable else "PRAGMA synchronous=NORMAL")
                self._is_durable = durable
            return db.execute(sql, values).rowcount
        except sqlite3.Error as error:
            raise self._error(error) from error

    def write_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of many rows, all in one transaction. Raises StoreError: none of it was written."""
        with self.transaction():
            self.execute_many(sql, rows)

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of many rows, within a transaction of the caller. Raises StoreError."""
        try:
            self._open().executemany(sql, rows)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def read(self, sql: str, *values: Any) -> list[Any]:
        """Return all rows of a query. Raises StoreError."""
        try:
            return self._open().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._error(error) from error

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Generator[None]:
        """Run what is written within as one: all of it, or nothing if anything raises; ``durable`` as in ``write``.

        Raises:
            StoreError: it cannot be written. No state changed.
        """
        self.write("BEGIN IMMEDIATE", durable=durable)
        try:
            yield
            self.write("COMMIT")
        except BaseException:
            with contextlib.suppress(MeshError):
                self.write("ROLLBACK")
            raise

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            raise StateError(f"{self.path.name} is closed", code="state.closed")
        return self._db

    def _error(self, error: sqlite3.Error) -> MeshError:
        text = str(error)
        if "full" in text or "readonly" in text or "unable to open" in text:
            code = "store.full" if "full" in text else "store.read_only"
            return Full(
                f"cannot write {self.path}: {error}", code=code, hint=f"df -h {self.path.parent}; ls -l {self.path}"
            )
        return Corrupt(f"{self.path} cannot be read: {error}", hint=self._damaged)
