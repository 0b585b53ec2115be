"""The node's small state in one SQLite file: registrations, contacts, counters and single values.

Synchronous and small: the daemon calls it from its loop. A registration is on disk when ``save_registration`` returns;
contacts and counters may lose their last seconds with the machine, never with the process.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from agentmesh.errors import ConfigError, Corrupt, Full, LimitError, MeshError, StateError
from agentmesh.store.base import ContactRow
from agentmesh.store.index import remove_files
from agentmesh.store.jsonl import full_error

STATE_VERSION = 1
#: Known nodes kept; beyond that those seen longest ago go.
CONTACTS_MAX = 10_000
ADDRESSES_MAX = 16
VALUE_BYTES_MAX = 1 << 20
_SEQ_MAX = 2**53 - 1
_ASIDE_MAX = 3
_TEXT_MAX = 512
_SCHEMA = """
CREATE TABLE registrations(name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE contacts(
  node_id TEXT PRIMARY KEY, addresses BLOB NOT NULL, source TEXT NOT NULL, last_seen INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX contacts_seen ON contacts(last_seen);
CREATE TABLE counters(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE kv(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""


class StateStore:
    """Open with ``StateStore.open(path)``; calls must not overlap.

    Attributes:
        report: Sentences for ``status.warnings``: what was found damaged at opening.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, report: list[str]) -> None:
        self.path = path
        self.report = report
        self._db: sqlite3.Connection | None = db
        self._contacts = int(db.execute("SELECT count(*) FROM contacts").fetchone()[0])

    @classmethod
    def open(cls, path: Path) -> StateStore:
        """Open or make the file; a damaged one is moved aside and said so in ``report``.

        Raises:
            ConfigError: "state.newer": written by a newer version. The file is as it was.
            Full: it cannot be written.
        """
        report: list[str] = []
        try:
            try:
                db = _connect(path)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) and not path.is_file():
                    raise
                if _reason(error):
                    raise
                aside = _move_aside(path)
                report.append(
                    f"state.sqlite was damaged ({error}) and was moved to {aside}; agents must be registered again"
                )
                db = _connect(path)
            return cls(path, db, report)
        except sqlite3.Error as error:
            raise _store_error(error, path) from error
        except OSError as error:
            raise full_error(error, path.parent) from error

    # Registrations

    def save_registration(self, name: str, registration: dict[str, Any]) -> None:
        """Store what is needed to offer an agent again after a restart; durable when this returns.

        Raises:
            LimitError: larger than VALUE_BYTES_MAX. No state changed.
            StoreError: it cannot be written. No state changed.
        """
        self._write("INSERT OR REPLACE INTO registrations VALUES (?,?)", name, _packed(registration), durable=True)

    def registrations(self) -> dict[str, dict[str, Any]]:
        """Return every registration by agent name. Raises StoreError."""
        rows = self._read("SELECT name,body FROM registrations ORDER BY name")
        return {str(name): msgspec.json.decode(body) for name, body in rows}

    def delete_registration(self, name: str) -> bool:
        """Forget a registration; say whether there was one. Durable when this returns. Raises StoreError."""
        return self._write("DELETE FROM registrations WHERE name=?", name, durable=True) > 0

    # Contacts

    def save_contact(self, node_id: str, addresses: Iterable[str], *, source: str, last_seen: int) -> None:
        """Store where a node may be reached, in place of what was known.

        Args:
            node_id: did:key of the node.
            addresses: The first 16 of at most 512 characters are kept.
            source: How it was heard of.
            last_seen: Unix seconds.

        Raises:
            StoreError: it cannot be written. No state changed.
        """
        kept = [address for address in addresses if len(address) <= _TEXT_MAX][:ADDRESSES_MAX]
        self._write(
            "INSERT OR REPLACE INTO contacts VALUES (?,?,?,?)",
            node_id[:_TEXT_MAX],
            msgspec.json.encode(kept),
            source[:_TEXT_MAX],
            max(0, min(last_seen, _SEQ_MAX)),
        )
        self._contacts += 1
        if self._contacts > CONTACTS_MAX:
            # An upper bound until now, replacing rows counts too; trim a tenth so that it is rare.
            self._write(
                "DELETE FROM contacts WHERE node_id NOT IN (SELECT node_id FROM contacts ORDER BY last_seen DESC LIMIT ?)",
                CONTACTS_MAX * 9 // 10,
            )
            self._contacts = int(self._read("SELECT count(*) FROM contacts")[0][0])

    def contacts(self, limit: int = 1000) -> list[ContactRow]:
        """Return known nodes, last seen first. Raises StoreError."""
        rows = self._read(
            "SELECT node_id,addresses,source,last_seen FROM contacts ORDER BY last_seen DESC,node_id LIMIT ?", limit
        )
        return [
            ContactRow(str(node_id), tuple(msgspec.json.decode(addresses, type=list[str])), str(source), int(seen))
            for node_id, addresses, source, seen in rows
        ]

    def delete_contact(self, node_id: str) -> bool:
        """Forget a node; say whether it was known. Raises StoreError."""
        return self._write("DELETE FROM contacts WHERE node_id=?", node_id) > 0

    # Counters and values

    def next_seq(self, agent_id: str, now_ms: int = 0) -> int:
        """Return max(last + 1, ``now_ms``) and remember it, so that numbers rise across restarts and lost files.

        Args:
            agent_id: Whose counter.
            now_ms: Unix milliseconds; a state file restored from a backup then still gives larger numbers.

        Raises:
            StoreError: it cannot be written. The number was not used.
        """
        row = self._read("SELECT value FROM counters WHERE name=?", agent_id)
        value = max(int(row[0][0]) + 1 if row else 1, min(now_ms, _SEQ_MAX))
        self._write("INSERT OR REPLACE INTO counters VALUES (?,?)", agent_id, value)
        return value

    def get(self, key: str) -> Any:
        """Return the value under a key, or None. Raises StoreError."""
        rows = self._read("SELECT value FROM kv WHERE key=?", key)
        return msgspec.json.decode(rows[0][0]) if rows else None

    def set(self, key: str, value: Any) -> None:
        """Store a JSON-ready value under a key; None removes it. Durable when this returns.

        Raises:
            LimitError: larger than VALUE_BYTES_MAX. No state changed.
            StoreError: it cannot be written. No state changed.
        """
        if value is None:
            self._write("DELETE FROM kv WHERE key=?", key, durable=True)
        else:
            self._write("INSERT OR REPLACE INTO kv VALUES (?,?)", key, _packed(value), durable=True)

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _open_db(self) -> sqlite3.Connection:
        if self._db is None:
            raise StateError("the state store is closed", code="state.closed")
        return self._db

    def _write(self, sql: str, *values: Any, durable: bool = False) -> int:
        db = self._open_db()
        try:
            db.execute("PRAGMA synchronous=FULL" if durable else "PRAGMA synchronous=NORMAL")
            return db.execute(sql, values).rowcount
        except sqlite3.Error as error:
            raise _store_error(error, self.path) from error

    def _read(self, sql: str, *values: Any) -> list[Any]:
        try:
            return self._open_db().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise _store_error(error, self.path) from error


def _connect(path: Path) -> sqlite3.Connection:
    """Open, check and if need be make the tables. Raises sqlite3.Error, OSError, ConfigError."""
    if not path.exists():
        remove_files(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=32)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA cache_size=-500")
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > STATE_VERSION:
            raise ConfigError(
                f"{path} was written by a newer agentmesh",
                code="state.newer",
                hint="upgrade agentmesh here, or use another home:   export AGENTMESH_HOME=~/agentmesh-old",
            )
        if version == 0:
            db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={STATE_VERSION};COMMIT;")
        checked = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
        if checked != "ok":
            raise sqlite3.DatabaseError(checked.splitlines()[-1][:200])
        for table in ("registrations", "contacts", "counters", "kv"):
            db.execute(f"SELECT 1 FROM {table} LIMIT 1")  # noqa: S608
    except BaseException:
        db.close()
        raise
    return db


def _move_aside(path: Path) -> str:
    """Rename a damaged file so that a person can look at it; the newest three are kept. Raises OSError."""
    number = 1
    taken = sorted(int(p.suffix[1:]) for p in path.parent.glob(f"{path.name}.damaged.*") if p.suffix[1:].isdigit())
    if taken:
        number = taken[-1] + 1
        for old in taken[: -_ASIDE_MAX + 1]:
            path.with_name(f"{path.name}.damaged.{old}").unlink(missing_ok=True)
    aside = path.with_name(f"{path.name}.damaged.{number}")
    path.rename(aside)
    remove_files(path)
    return aside.name


def _packed(value: Any) -> bytes:
    body = msgspec.json.encode(value)
    if len(body) > VALUE_BYTES_MAX:
        raise LimitError(f"a value of {len(body)} bytes, at most {VALUE_BYTES_MAX} are stored", code="state.too_large")
    return body


def _reason(error: sqlite3.Error) -> str:
    """Return "full" or "read_only" when the disk is to blame rather than the file's content, else ""."""
    text = str(error)
    if "full" in text:
        return "full"
    return "read_only" if "readonly" in text or "unable to open" in text else ""


def _store_error(error: sqlite3.Error, path: Path) -> MeshError:
    reason = _reason(error)
    if reason:
        return Full(f"cannot write {path}: {error}", code=f"store.{reason}", hint=f"df -h {path.parent}; ls -l {path}")
    return Corrupt(f"{path} cannot be read: {error}", hint="restart the daemon: a damaged file is moved aside")
