"""The node's small state in one SQLite file: registrations, contacts, counters and single values.

Synchronous and small: the daemon calls it from its loop. A registration is on disk when ``save_registration`` returns;
contacts and counters may lose their last seconds with the machine, never with the process.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from agentmesh.errors import Corrupt, LimitError
from agentmesh.store.base import ContactRow
from agentmesh.store.database import Database
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

    def __init__(self, db: Database, report: list[str]) -> None:
        self.path = db.path
        self.report = report
        self._db = db
        self._contacts = int(db.read("SELECT count(*) FROM contacts")[0][0])

    @classmethod
    def open(cls, path: Path) -> StateStore:
        """Open or make the file; a damaged one is moved aside and said so in ``report``.

        Raises:
            ConfigError: "state.newer": written by a newer version. The file is as it was.
            Full: it cannot be written.
        """
        report: list[str] = []
        try:
            db = _open(path)
        except Corrupt as error:
            try:
                aside = _move_aside(path)
            except OSError as failed:
                raise full_error(failed, path.parent) from failed
            report.append(
                f"state.sqlite was damaged ({error}) and was moved to {aside}; agents must be registered again"
            )
            db = _open(path)
        return cls(db, report)

    # Registrations

    def save_registration(self, name: str, registration: dict[str, Any]) -> None:
        """Store what is needed to offer an agent again after a restart; durable when this returns.

        Raises:
            LimitError: larger than VALUE_BYTES_MAX. No state changed.
            StoreError: it cannot be written. No state changed.
        """
        self._db.write("INSERT OR REPLACE INTO registrations VALUES (?,?)", name, _packed(registration), durable=True)

    def registrations(self) -> dict[str, dict[str, Any]]:
        """Return every registration by agent name. Raises StoreError."""
        rows = self._db.read("SELECT name,body FROM registrations ORDER BY name")
        return {str(name): msgspec.json.decode(body) for name, body in rows}

    def delete_registration(self, name: str) -> bool:
        """Forget a registration; say whether there was one. Durable when this returns. Raises StoreError."""
        return self._db.write("DELETE FROM registrations WHERE name=?", name, durable=True) > 0

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
        self._db.write(
            "INSERT OR REPLACE INTO contacts VALUES (?,?,?,?)",
            node_id[:_TEXT_MAX],
            msgspec.json.encode(kept),
            source[:_TEXT_MAX],
            max(0, min(last_seen, _SEQ_MAX)),
        )
        self._contacts += 1
        if self._contacts > CONTACTS_MAX:
            # An upper bound until now, replacing rows counts too; trim a tenth so that it is rare.
            self._db.write(
                "DELETE FROM contacts WHERE node_id NOT IN (SELECT node_id FROM contacts ORDER BY last_seen DESC LIMIT ?)",
                CONTACTS_MAX * 9 // 10,
            )
            self._contacts = int(self._db.read("SELECT count(*) FROM contacts")[0][0])

    def contacts(self, limit: int = 1000) -> list[ContactRow]:
        """Return known nodes, last seen first. Raises StoreError."""
        rows = self._db.read(
            "SELECT node_id,addresses,source,last_seen FROM contacts ORDER BY last_seen DESC,node_id LIMIT ?", limit
        )
        return [
            ContactRow(str(node_id), tuple(msgspec.json.decode(addresses, type=list[str])), str(source), int(seen))
            for node_id, addresses, source, seen in rows
        ]

    def delete_contact(self, node_id: str) -> bool:
        """Forget a node; say whether it was known. Raises StoreError."""
        return self._db.write("DELETE FROM contacts WHERE node_id=?", node_id) > 0

    # Counters and values

    def next_seq(self, agent_id: str, now_ms: int = 0) -> int:
        """Return max(last + 1, ``now_ms``) and remember it, so that numbers rise across restarts and lost files.

        Args:
            agent_id: Whose counter.
            now_ms: Unix milliseconds; a state file restored from a backup then still gives larger numbers.

        Raises:
            StoreError: it cannot be written. The number was not used.
        """
        row = self._db.read("SELECT value FROM counters WHERE name=?", agent_id)
        value = max(int(row[0][0]) + 1 if row else 1, min(now_ms, _SEQ_MAX))
        self._db.write("INSERT OR REPLACE INTO counters VALUES (?,?)", agent_id, value)
        return value

    def get(self, key: str) -> Any:
        """Return the value under a key, or None. Raises StoreError."""
        rows = self._db.read("SELECT value FROM kv WHERE key=?", key)
        return msgspec.json.decode(rows[0][0]) if rows else None

    def set(self, key: str, value: Any) -> None:
        """Store a JSON-ready value under a key; None removes it. Durable when this returns.

        Raises:
            LimitError: larger than VALUE_BYTES_MAX. No state changed.
            StoreError: it cannot be written. No state changed.
        """
        if value is None:
            self._db.write("DELETE FROM kv WHERE key=?", key, durable=True)
        else:
            self._db.write("INSERT OR REPLACE INTO kv VALUES (?,?)", key, _packed(value), durable=True)

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        self._db.close()


def _open(path: Path) -> Database:
    damaged = "restart the daemon: a damaged file is moved aside"
    return Database(path, _SCHEMA, STATE_VERSION, name="state", damaged=damaged, check=True)


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
