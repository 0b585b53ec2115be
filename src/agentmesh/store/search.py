"""The index of discovery in one SQLite file: agents, the features they are found by, and vectors of models. Derived data.

Everything here can be made again from what the node knows, so a damaged file is thrown away and said so. Features are tokens
that the reader made (words, and concepts behind "_"); SQLite's FTS5 keeps for each the list of its agents, and counts them.
Traits that filters ask for are tokens as well, behind "=". What each passage says is kept packed beside its agent, for the
exact score of those few that the lists bring up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from agentmesh.errors import ConfigError, Corrupt, Full
from agentmesh.store.database import Database
from agentmesh.store.index import remove_files
from agentmesh.store.jsonl import full_error

SEARCH_VERSION = 1
#: Agents of one index; what comes beyond is refused.
AGENTS_MAX = 200_000
_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE agents(
  id INTEGER PRIMARY KEY AUTOINCREMENT, agent_id TEXT NOT NULL UNIQUE, version TEXT NOT NULL,
  context_window INTEGER NOT NULL, price_micros INTEGER,
  document BLOB NOT NULL,       -- the whole Document, MessagePack
  features BLOB NOT NULL);      -- of its passages, packed
CREATE INDEX agents_figures ON agents(context_window, price_micros);
CREATE TABLE vectors(
  model INTEGER NOT NULL, hash BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY(model, hash)) WITHOUT ROWID;
CREATE VIRTUAL TABLE tokens USING fts5(
  text, content='', detail=none, columnsize=0, tokenize="ascii tokenchars '_=+#'");
CREATE VIRTUAL TABLE vocabulary USING fts5vocab(tokens, row);
"""
#: Rows asked for in one statement.
_BATCH = 200


class AgentRow(NamedTuple):
    """One agent as it is stored; ``text`` holds its tokens, parted by spaces, and goes into the lists only."""

    agent_id: str
    version: str
    context_window: int
    price_micros: int | None
    document: bytes
    features: bytes
    text: str


class SearchStore:
    """Open with ``SearchStore.open(path)``; calls must not overlap.

    Attributes:
        report: What was found damaged at opening, for people.
    """

    def __init__(self, db: Database, report: list[str]) -> None:
        self.path = db.path
        self.report = report
        self._db = db
        self._count = int(db.read("SELECT count(*) FROM agents")[0][0])

    @classmethod
    def open(cls, path: Path) -> SearchStore:
        """Open or make the file; a damaged one, or one of a newer version, is made anew and said so in ``report``.

        Raises:
            Full: it cannot be written.
        """
        report: list[str] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                return cls(_open(path), report)
            except (Corrupt, ConfigError) as error:
                report.append(f"the search index was damaged and is made anew ({error})")
                remove_files(path)
            return cls(_open(path), report)
        except OSError as failed:
            raise full_error(failed, path.parent) from failed

    def __len__(self) -> int:
        return self._count

    def get(self, key: str) -> bytes:
        """Return one stored value, b"" if there is none. Raises StoreError."""
        rows = self._db.read("SELECT value FROM meta WHERE key=?", key)
        return rows[0][0] if rows else b""

    def put(self, key: str, value: bytes) -> None:
        """Store one value. Raises StoreError: no state changed."""
        self._db.write("INSERT OR REPLACE INTO meta VALUES (?,?)", key, value)

    def versions(self) -> dict[str, str]:
        """Return the version of every agent. Raises StoreError."""
        return dict(self._db.read("SELECT agent_id, version FROM agents"))

    def version_of(self, agent_id: str) -> str | None:
        """Return the version of one agent, None if it is not here. Raises StoreError."""
        rows = self._db.read("SELECT version FROM agents WHERE agent_id=?", agent_id)
        return rows[0][0] if rows else None

    def stored(self, agent_id: str) -> tuple[int, bytes] | None:
        """Return number and document of one agent, None if it is not here. Raises StoreError."""
        rows = self._db.read("SELECT id, document FROM agents WHERE agent_id=?", agent_id)
        return rows[0] if rows else None

    def change(self, removed: Sequence[tuple[int, str]], added: Sequence[AgentRow]) -> list[int]:
        """Take agents out and put others in, all or nothing.

        Args:
            removed: Number of each agent and the very tokens it was put in with.
            added: New ones; none of them may be there still.

        Returns:
            The numbers of the new ones, in their order. A number is never given twice.

        Raises:
            Full: ``AGENTS_MAX``, or the disk. No state changed.
            Corrupt: the file is damaged. No state changed.
        """
        if self._count + len(added) - len(removed) > AGENTS_MAX:
            raise Full(f"the search index holds {AGENTS_MAX} agents at most", code="search.full")
        numbers: list[int] = []
        with self._db.transaction():
            for number, text in removed:
                self._db.write("INSERT INTO tokens(tokens, rowid, text) VALUES ('delete', ?, ?)", number, text)
                self._db.write("DELETE FROM agents WHERE id=?", number)
            for row in added:
                self._db.write(
                    "INSERT INTO agents(agent_id, version, context_window, price_micros, document, features)"
                    " VALUES (?,?,?,?,?,?)",
                    *row[:6],
                )
                numbers.append(int(self._db.read("SELECT last_insert_rowid()")[0][0]))
                self._db.write("INSERT INTO tokens(rowid, text) VALUES (?,?)", numbers[-1], row.text)
        self._count += len(added) - len(removed)
        return numbers

    def clear(self) -> None:
        """Forget all agents; vectors of models stay. Raises StoreError: no state changed."""
        with self._db.transaction():
            self._db.write("INSERT INTO tokens(tokens) VALUES ('delete-all')")
            self._db.write("DELETE FROM agents")
        self._count = 0

    def agents_of(self, *tokens: str) -> list[int]:
        """Return the numbers of the agents that have all these tokens (a trait ``prefix*`` means any that begins so)."""
        match = " AND ".join(quoted(one) for one in tokens)
        return [number for (number,) in self._db.read("SELECT rowid FROM tokens WHERE tokens MATCH ?", match)]

    def agents_all(self) -> list[int]:
        """Return the numbers of all agents. Raises StoreError."""
        return [number for (number,) in self._db.read("SELECT id FROM agents ORDER BY id")]

    def agents_with(self, context_window_min: int, price_micros_max: int | None) -> list[int]:
        """Return the numbers of the agents whose figures are within. Raises StoreError."""
        if price_micros_max is None:
            rows = self._db.read("SELECT id FROM agents WHERE context_window>=?", context_window_min)
        else:
            rows = self._db.read(
                "SELECT id FROM agents WHERE context_window>=? AND price_micros<=?",
                context_window_min,
                price_micros_max,
            )
        return [number for (number,) in rows]

    def count_of(self, token: str) -> int:
        """Return how many agents have a token. Raises StoreError."""
        rows = self._db.read("SELECT doc FROM vocabulary WHERE term=?", token)
        return int(rows[0][0]) if rows else 0

    def words(self, most: int) -> list[str]:
        """Return words of plain Latin letters that agents use, at most so many; the commonest if there are more."""
        rows = self._db.read(
            "SELECT term FROM vocabulary WHERE term >= 'a' AND term < '{' AND length(term) > 3 ORDER BY doc DESC LIMIT ?",
            most,
        )
        return [term for (term,) in rows]

    def documents(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Return the documents of agents by their numbers; those that are gone are left out. Raises StoreError."""
        return dict(self._rows("SELECT id, document FROM agents WHERE id IN ", numbers))

    def features(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Return the packed features of agents by their numbers; see ``documents``. Raises StoreError."""
        return dict(self._rows("SELECT id, features FROM agents WHERE id IN ", numbers))

    def _rows(self, sql: str, numbers: Sequence[int]) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        for start in range(0, len(numbers), _BATCH):
            part = numbers[start : start + _BATCH]
            found += self._db.read(sql + "(" + ",".join("?" * len(part)) + ")", *part)
        return found

    # Vectors of models, by the hash of their text

    def vectors(self, model: int, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return those vectors that are known. Raises StoreError."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(hashes), _BATCH):
            part = hashes[start : start + _BATCH]
            marks = ",".join("?" * len(part))
            sql = f"SELECT hash, vector FROM vectors WHERE model=? AND hash IN ({marks})"  # noqa: S608
            found.update(self._db.read(sql, model, *part))
        return found

    def keep_vectors(self, model: int, vectors: Iterable[tuple[bytes, bytes]]) -> None:
        """Store vectors. Raises StoreError: no state changed."""
        with self._db.transaction():
            for key, vector in vectors:
                self._db.write("INSERT OR REPLACE INTO vectors VALUES (?,?,?)", model, key, vector)

    def vector_count(self, model: int) -> int:
        """Return how many vectors of a model are kept. Raises StoreError."""
        return int(self._db.read("SELECT count(*) FROM vectors WHERE model=?", model)[0][0])

    def keep_only(self, model: int, hashes: Iterable[bytes]) -> None:
        """Forget the vectors of a model that are not among these. Raises StoreError: no state changed."""
        with self._db.transaction():
            self._db.write("CREATE TEMP TABLE IF NOT EXISTS used(hash BLOB PRIMARY KEY) WITHOUT ROWID")
            for key in hashes:
                self._db.write("INSERT OR IGNORE INTO used VALUES (?)", key)
            self._db.write("DELETE FROM vectors WHERE model=? AND hash NOT IN (SELECT hash FROM used)", model)
            self._db.write("DELETE FROM used")

    def forget_vectors(self, but: int) -> None:
        """Forget the vectors of all other models. Raises StoreError: no state changed."""
        self._db.write("DELETE FROM vectors WHERE model<>?", but)

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        self._db.close()


def quoted(token: str) -> str:
    """Return a token as FTS5 reads it: text and nothing but text, whatever it holds; a ``*`` at the end of a trait stays one."""
    prefix = token.endswith("*") and token.startswith("=")
    return '"' + token.rstrip("*").replace('"', '""') + '"' + (" *" if prefix else "")


def _open(path: Path) -> Database:
    db = Database(
        path, _SCHEMA, SEARCH_VERSION, name="search", damaged="the search index is made anew at the next start"
    )
    try:
        db.read("SELECT count(*) FROM vocabulary WHERE term='a'")
    except BaseException:
        db.close()
        raise
    return db


def has_fts5() -> bool:
    """Say whether this Python's SQLite has FTS5; nearly all do."""
    with sqlite3.connect(":memory:") as db:
        return bool(db.execute("SELECT sqlite_compileoption_used('ENABLE_FTS5')").fetchone()[0])
