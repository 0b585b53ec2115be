"""What must be remembered of trust: the sums of evidence, the newest events behind them, and the statements of other nodes.

One SQLite file. Evidence is written in groups every few seconds (``node.trust``), so a killed process loses the last of them,
which is no harm: sums of many calls hardly change by a few.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from agentmesh.store.database import Database

#: Events kept of each subject, the newest.
EVENTS_EACH_MAX = 32
_VERSION = 1
_SCHEMA = """
CREATE TABLE tallies(
  subject TEXT PRIMARY KEY, node TEXT NOT NULL, good REAL NOT NULL, bad REAL NOT NULL, wrong REAL NOT NULL,
  hour_good REAL NOT NULL, hour_luck REAL NOT NULL, hour_wrong REAL NOT NULL, since_s REAL NOT NULL, at_s REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE events(
  number INTEGER PRIMARY KEY, subject TEXT NOT NULL, ts INTEGER NOT NULL, kind TEXT NOT NULL, weight REAL NOT NULL,
  detail TEXT NOT NULL);
CREATE INDEX events_subject ON events(subject, number);
CREATE TABLE statements(issuer TEXT PRIMARY KEY, iat INTEGER NOT NULL, raw TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE facts(name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
"""


class TallyRow(NamedTuple):
    """The sums of one subject; fields as in ``core.trust.evidence.Tally``."""

    subject: str
    node: str
    good: float
    bad: float
    wrong: float
    hour_good: float
    hour_luck: float
    hour_wrong: float
    since_s: float
    at_s: float


class KeptEvent(NamedTuple):
    """One thing that happened with a subject.

    Attributes:
        ts: Unix microseconds.
        kind: What, as in ``core.trust.config.Kind``.
        weight: What it added: above 0 for the subject, below 0 against it.
        detail: More of it, for people.
    """

    ts: int
    kind: str
    weight: float
    detail: str


class TrustStore:
    """Open with ``TrustStore.open(path)``; calls must not overlap."""

    def __init__(self, db: Database) -> None:
        self.path = db.path
        self._db = db

    @classmethod
    def open(cls, path: Path) -> TrustStore:
        """Open or make the file.

        Raises:
            ConfigError: "trust.newer": written by a newer version. The file is as it was.
            Corrupt: damaged. The file is as it was.
            Full: it cannot be written.
        """
        damaged = f"it holds what this node saw of others: move it away to begin anew:   mv {path} {path}.damaged"
        return cls(Database(path, _SCHEMA, _VERSION, name="trust", damaged=damaged))

    def save(
        self,
        tallies: Iterable[TallyRow],
        events: Iterable[tuple[str, Sequence[KeptEvent]]],
        forgotten: Iterable[str],
        facts: Iterable[tuple[str, float]],
    ) -> None:
        """Write what changed as one.

        Args:
            tallies: Subjects whose sums changed.
            events: New events by subject, oldest first; of each subject the newest ``EVENTS_EACH_MAX`` are kept.
            forgotten: Subjects that go, with their events; one that is in ``tallies`` too stays.
            facts: Single numbers by name.

        Raises:
            StoreError: nothing was written.
        """
        write = self._db.write
        with self._db.transaction():
            for subject in forgotten:
                write("DELETE FROM tallies WHERE subject=?", subject)
                write("DELETE FROM events WHERE subject=?", subject)
            for tally in tallies:
                write("INSERT OR REPLACE INTO tallies VALUES (?,?,?,?,?,?,?,?,?,?)", *tally)
            for subject, new in events:
                for event in new:
                    write("INSERT INTO events(subject,ts,kind,weight,detail) VALUES (?,?,?,?,?)", subject, *event)
                write(
                    "DELETE FROM events WHERE subject=? AND number<=(SELECT number FROM events WHERE subject=? "
                    "ORDER BY number DESC LIMIT 1 OFFSET ?)",
                    subject, subject, EVENTS_EACH_MAX,
                )  # fmt: skip
            for fact in facts:
                write("INSERT OR REPLACE INTO facts VALUES (?,?)", *fact)

    def tallies(self, limit: int) -> list[TallyRow]:
        """Return the sums, those of most evidence first, at most ``limit``. Raises StoreError."""
        rows = self._db.read(
            "SELECT subject,node,good,bad,wrong,hour_good,hour_luck,hour_wrong,since_s,at_s FROM tallies "
            "ORDER BY good+bad DESC, subject LIMIT ?",
            limit,
        )
        return [TallyRow(str(row[0]), str(row[1]), *map(float, row[2:])) for row in rows]

    def events(self, subject: str) -> list[KeptEvent]:
        """Return the events kept of a subject, newest first. Raises StoreError."""
        rows = self._db.read(
            "SELECT ts,kind,weight,detail FROM events WHERE subject=? ORDER BY number DESC LIMIT ?",
            subject, EVENTS_EACH_MAX,
        )  # fmt: skip
        return [KeptEvent(int(ts), str(kind), float(weight), str(detail)) for ts, kind, weight, detail in rows]

    def fact(self, name: str) -> float | None:
        """Return a single number, None if it was never set. Raises StoreError."""
        rows = self._db.read("SELECT value FROM facts WHERE name=?", name)
        return float(rows[0][0]) if rows else None

    # Statements

    def save_statement(self, issuer: str, raw: str, iat: int) -> None:
        """Keep the newest statement of a node, made at unix second ``iat``. Raises StoreError."""
        self._db.write("INSERT OR REPLACE INTO statements VALUES (?,?,?)", issuer, iat, raw)

    def drop_statement(self, issuer: str) -> None:
        """Forget the statement of a node. Raises StoreError."""
        self._db.write("DELETE FROM statements WHERE issuer=?", issuer)

    def statements(self, limit: int) -> list[str]:
        """Return statements, newest first, at most ``limit``. Raises StoreError."""
        return [
            str(raw) for (raw,) in self._db.read("SELECT raw FROM statements ORDER BY iat DESC, issuer LIMIT ?", limit)
        ]

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        self._db.close()
