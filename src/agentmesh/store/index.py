"""The SQLite index of the event log: where each event's line is, by position, run and task. Derived, never the truth.

``Index`` writes and belongs to the writer thread; ``IndexReader`` reads and belongs to the reader thread. Events are
told apart by a 64-bit hash of their id within their run, so a row costs about 60 bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from agentmesh.codec.tracecontext import read_trace
from agentmesh.errors import DecodeError
from agentmesh.wire.event import KINDS, EventV1, check

#: The version of the tables below. An index of any other version is built anew.
INDEX_VERSION = 3
_SCHEMA = """
CREATE TABLE segments(
  segment INTEGER PRIMARY KEY,    -- number of the JSONL file
  bytes INTEGER NOT NULL,         -- up to where the index agrees with it
  events INTEGER NOT NULL,        -- rows of it in `events`
  event_bytes INTEGER NOT NULL,   -- sum of their lines; the rest of `bytes` is unreadable
  last_seq INTEGER NOT NULL);     -- highest position given in it or before
CREATE TABLE runs(
  pk INTEGER PRIMARY KEY,         -- rises with arrival: newest run = highest
  run_id TEXT NOT NULL UNIQUE,
  first_ts INTEGER NOT NULL, last_ts INTEGER NOT NULL, count INTEGER NOT NULL,
  agent TEXT NOT NULL, agent_rank INTEGER NOT NULL,
  state TEXT NOT NULL, state_rank INTEGER NOT NULL,
  kinds INTEGER NOT NULL,         -- bit n: an event of kind n of wire.event.KINDS is in it
  tasks INTEGER NOT NULL);        -- rows of it in `tasks`
CREATE TABLE agents(
  run INTEGER NOT NULL,
  ref TEXT NOT NULL,              -- name, folded, or id of an agent that its events name
  name TEXT NOT NULL,             -- the name as it was spelled; "" for an id
  PRIMARY KEY(run, ref)) WITHOUT ROWID;
CREATE INDEX agents_ref ON agents(ref, run);
CREATE TABLE traces(
  trace_id TEXT NOT NULL,         -- W3C trace that the run is part of; not its own id, which begins a trace of that name
  run INTEGER NOT NULL, PRIMARY KEY(trace_id, run)) WITHOUT ROWID;
CREATE TABLE tasks(
  pk INTEGER PRIMARY KEY, task_id TEXT NOT NULL, run INTEGER NOT NULL, UNIQUE(task_id, run));
CREATE TABLE events(
  seq INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL, bytes INTEGER NOT NULL,
  id_hash INTEGER NOT NULL, run INTEGER NOT NULL, task INTEGER NOT NULL);
"""
_INDEXES = """
CREATE INDEX IF NOT EXISTS events_run ON events(run);
CREATE INDEX IF NOT EXISTS events_id ON events(id_hash);
"""
#: One statement for many rows: sqlite3 gives up the GIL once per statement, not once per row.
_MANY = 64
_COLUMNS = 7
_INSERT = "INSERT INTO events VALUES (?,?,?,?,?,?,?)"
_INSERT_MANY = _INSERT + ",(?,?,?,?,?,?,?)" * (_MANY - 1)
_RUN_COLUMNS = "pk,run_id,first_ts,last_ts,count,agent,agent_rank,state,state_rank,kinds,tasks"
_SELECT_RUN = f"SELECT {_RUN_COLUMNS} FROM runs WHERE run_id=?"  # noqa: S608
_STORE_RUN = (
    f"INSERT INTO runs({_RUN_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608
    " ON CONFLICT(pk) DO UPDATE SET first_ts=excluded.first_ts,last_ts=excluded.last_ts,count=excluded.count,"
    "agent=excluded.agent,agent_rank=excluded.agent_rank,state=excluded.state,state_rank=excluded.state_rank,"
    "kinds=excluded.kinds,tasks=excluded.tasks"
)
#: Agents of one run that the index can find it by.
_AGENTS_MAX = 256
#: Traces by which one run is found.
_TRACES_MAX = 8
_BIT_OF = {kind: 1 << number for number, kind in enumerate(KINDS)}
_CACHED_MAX = 4096
_TEXT_MAX = 128
_TS_MAX = 1 << 62
#: Events of a call that another call caused rank behind those of the run's first call.
_NESTED = 1 << 60


class Placed(NamedTuple):
    """An event and the place of its line; ``event.seq`` is its position."""

    event: EventV1
    offset: int
    size: int


#: What ``Place`` names, bare: seq, segment, offset, size, id_hash.
Spot = tuple[int, int, int, int, int]


class Place(NamedTuple):
    """A row as readers need it."""

    seq: int
    segment: int
    offset: int
    size: int
    id_hash: int


class SegmentRow(NamedTuple):
    """What the index holds of one segment."""

    segment: int
    bytes: int
    events: int
    event_bytes: int
    last_seq: int


class _Run:
    __slots__ = (
        "agent",
        "agent_rank",
        "agents",
        "all_tasks",
        "count",
        "first_ts",
        "kinds",
        "last_ts",
        "pk",
        "run_id",
        "state",
        "state_rank",
        "task_count",
        "tasks",
        "traces",
    )

    def __init__(
        self,
        pk: int,
        run_id: str,
        first_ts: int,
        last_ts: int,
        count: int = 0,
        agent: str = "",
        agent_rank: int = 1 << 62,
        state: str = "",
        state_rank: int = -(1 << 62),
        kinds: int = 0,
        task_count: int = 0,
    ) -> None:
        self.pk, self.run_id, self.first_ts, self.last_ts, self.count = pk, run_id, first_ts, last_ts, count
        self.agent, self.agent_rank, self.state, self.state_rank = agent, agent_rank, state, state_rank
        self.kinds, self.task_count = kinds, task_count
        #: Agents that were noted already since this was loaded.
        self.agents: set[tuple[str | None, str | None]] = set()
        #: The same of ``traceparent`` in their metadata.
        self.traces: set[str] = set()
        self.tasks: dict[str, int] = {}
        #: Whether ``tasks`` has every task of the run, so that one not in it is new.
        self.all_tasks = False

    def row(self) -> tuple[Any, ...]:
        return (
            self.pk,
            self.run_id,
            self.first_ts,
            self.last_ts,
            self.count,
            self.agent,
            self.agent_rank,
            self.state,
            self.state_rank,
            self.kinds,
            self.task_count,
        )

    def take(self, event: EventV1) -> None:
        """Count an event in: agent is the first named one, state the last one of the run's first call."""
        self.count += 1
        self.kinds |= _BIT_OF[event.kind]
        if event.ts > self.last_ts:
            self.last_ts = event.ts
        elif event.ts < self.first_ts:
            self.first_ts = event.ts
        nested = _NESTED if event.parent_task_id is not None else 0
        if event.agent and event.lamport + nested < self.agent_rank:
            self.agent, self.agent_rank = event.agent[:200], event.lamport + nested
        if event.kind == "status":
            state, rank = event.payload.get("state"), event.lamport - nested
            if isinstance(state, str) and self._is_news(state, rank):
                self.state, self.state_rank = state[:40], max(rank, self.state_rank)

    def _is_news(self, state: str, rank: int) -> bool:
        """Say whether a state is later than the one that is known.

        A replica that lost to another one is told to stop and says so late: what was completed is not canceled by that.
        """
        of_same_depth = abs(rank - self.state_rank) < _NESTED // 2
        if of_same_depth and {state, self.state} == {"completed", "canceled"}:
            return state == "completed"
        return rank >= self.state_rank


def hash_id(event_id: str) -> int:
    """Return the signed 64-bit hash under which an event id is indexed."""
    digest = hashlib.blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def admit(event: EventV1) -> EventV1:
    """Return the event if it can be stored and found again.

    Raises:
        DecodeError: a field that the schema allows but no table should hold: overlong id, time beyond 2^62. No state changed.
    """
    check(event)
    if event.task_id is not None and len(event.task_id) > _TEXT_MAX:
        raise DecodeError(f"event with a task_id of {len(event.task_id)} characters", code="event.malformed")
    if event.ts > _TS_MAX:
        raise DecodeError("event with a time out of range", code="event.malformed")
    return event


def seal(path: Path) -> None:
    """Note the digest of a cleanly closed index beside it, so that the next opening can tell that it is unchanged."""
    if path.with_name(path.name + "-wal").exists():
        # Somebody else still reads it: what the writer wrote is not all in the file yet.
        return
    with contextlib.suppress(OSError):
        seal_path = path.with_suffix(".sum")
        seal_path.touch(0o600)
        seal_path.write_text(_digest(path))


def take_seal(path: Path) -> bool | None:
    """Remove the seal; return whether the index is as it was when closed, None if it was not closed cleanly. Raises OSError."""
    seal_path = path.with_suffix(".sum")
    try:
        noted = seal_path.read_bytes()
        intact = noted == _digest(path).encode() and not path.with_name(path.name + "-wal").exists()
    except FileNotFoundError:
        intact = None
    seal_path.unlink(missing_ok=True)
    return intact


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()


def remove_files(path: Path) -> None:
    """Remove an SQLite file and what belongs to it. Raises OSError."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class Index:
    """The writing side.

    Args:
        path: ``events/index.sqlite``; made if absent. One of another version is replaced by an empty one.

    Attributes:
        fresh: The tables were made just now, so everything has to be read from the JSONL.

    Raises:
        sqlite3.DatabaseError: not a database, or damaged. No state changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fresh = False
        self._runs: dict[str, _Run] = {}
        self._dirty: set[str] = set()
        self._new_tasks: list[tuple[int, str, int]] = []
        self._new_agents: list[tuple[int, str, str]] = []
        self._new_traces: list[tuple[str, int]] = []
        if not path.exists():
            # A write-ahead log without its database would be replayed into the new one.
            remove_files(path)
        self._db = self._connect()
        try:
            if self._one("PRAGMA user_version") != INDEX_VERSION:
                self._db.close()
                remove_files(path)
                self._db = self._connect()
                self._db.executescript(f"BEGIN;{_SCHEMA}{_INDEXES}PRAGMA user_version={INDEX_VERSION};COMMIT;")
                self.fresh = True
        except sqlite3.Error:
            self.close()
            raise
        #: 0 until looked up.
        self._next_run = self._next_task = 0

    def _connect(self) -> sqlite3.Connection:
        with contextlib.suppress(OSError):
            # SQLite would make it readable for others; what is wrong with the path it says better itself.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=16)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA cache_size=-2000")
            db.execute("PRAGMA journal_size_limit=8388608")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _one(self, sql: str, *values: Any) -> int:
        return int(self._db.execute(sql, values).fetchone()[0])

    def segments(self) -> list[SegmentRow]:
        """Return what the index holds, oldest segment first."""
        return [
            SegmentRow(*row)
            for row in self._db.execute(
                "SELECT segment,bytes,events,event_bytes,last_seq FROM segments ORDER BY segment"
            )
        ]

    def consistent(self) -> bool:
        """Say whether the file is sound and rows, segments and runs add up. Reads it all (about 1 s per million events)."""
        if self._db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            return False
        held = self._db.execute(
            "SELECT segment,count(*),sum(bytes) FROM events GROUP BY segment ORDER BY segment"
        ).fetchall()
        claimed = [(s.segment, s.events, s.event_bytes) for s in self.segments() if s.events]
        counted = self._one("SELECT coalesce(sum(count),0) FROM runs")
        indexes = self._one("SELECT count(*) FROM sqlite_master WHERE name IN ('events_run','events_id')")
        return held == claimed and counted == sum(row[1] for row in claimed) and indexes == 2

    def last_place(self, segment: int) -> Place | None:
        """Return the last row of a segment, or None."""
        row = self._db.execute(
            "SELECT seq,segment,offset,bytes,id_hash FROM events WHERE segment=? ORDER BY seq DESC LIMIT 1", (segment,)
        ).fetchone()
        return Place(*row) if row else None

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """Do what is inside wholly or not at all. Raises sqlite3.Error; nothing changed then."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._write_tasks()
            self._write_agents()
            self._write_traces()
            self._write_runs()
            self._db.execute("COMMIT")
        except BaseException:
            # What the cache holds may never have been stored.
            self._runs.clear()
            self._dirty.clear()
            self._new_tasks.clear()
            self._new_agents.clear()
            self._new_traces.clear()
            self._next_run = self._next_task = 0
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        if len(self._runs) > _CACHED_MAX:
            self._runs.clear()

    def add(self, segment: int, placed: Sequence[Placed]) -> None:
        """Insert rows of one segment, inside a transaction. Positions must not be in the index yet."""
        if not self._next_run:
            self._next_run = self._one("SELECT coalesce(max(pk),0)+1 FROM runs")
            self._next_task = self._one("SELECT coalesce(max(pk),0)+1 FROM tasks")
        runs, dirty = self._runs, self._dirty
        rows: list[tuple[int, int, int, int, int, int, int]] = []
        for event, offset, size in placed:
            run = runs.get(event.run_id)
            if run is None:
                run = self._load_run(event)
            run.take(event)
            dirty.add(event.run_id)
            if (event.agent, event.agent_id) not in run.agents:
                self._note_agent(run, event)
            if "traceparent" in event.metadata:
                self._note_trace(run, event.metadata["traceparent"])
            task = event.task_id
            task_pk = 0 if task is None else run.tasks.get(task) or self._load_task(run, task)
            rows.append((event.seq, segment, offset, size, hash_id(event.id), run.pk, task_pk))
        whole = len(rows) - len(rows) % _MANY
        for start in range(0, whole, _MANY):
            self._db.execute(_INSERT_MANY, tuple(chain.from_iterable(rows[start : start + _MANY])))
        if whole < len(rows):
            self._db.executemany(_INSERT, rows[whole:])

    def set_segment(self, row: SegmentRow) -> None:
        """Store what the index now holds of a segment, inside a transaction."""
        self._db.execute("INSERT OR REPLACE INTO segments VALUES (?,?,?,?,?)", row)

    def _load_run(self, event: EventV1) -> _Run:
        found = self._db.execute(_SELECT_RUN, (event.run_id,)).fetchone()
        if found:
            run = _Run(*found)
        else:
            run = _Run(self._next_run, event.run_id, event.ts, event.ts)
            run.all_tasks = True
            self._next_run += 1
        self._runs[event.run_id] = run
        return run

    def _note_agent(self, run: _Run, event: EventV1) -> None:
        """Let the run be found by an agent."""
        if len(run.agents) >= _AGENTS_MAX:
            return
        run.agents.add((event.agent, event.agent_id))
        if event.agent:
            name = event.agent[:_TEXT_MAX]
            self._new_agents.append((run.pk, name.casefold(), name))
        if event.agent_id:
            self._new_agents.append((run.pk, event.agent_id[:_TEXT_MAX], ""))

    def _note_trace(self, run: _Run, said: object) -> None:
        """Let the run be found by the trace that it is part of."""
        if not isinstance(said, str) or len(run.traces) >= _TRACES_MAX or (trace := read_trace(said)) is None:
            return
        if trace.trace_id != run.run_id and trace.trace_id not in run.traces:
            run.traces.add(trace.trace_id)
            self._new_traces.append((trace.trace_id, run.pk))

    def _load_task(self, run: _Run, task_id: str) -> int:
        found = None
        if not run.all_tasks:
            found = self._db.execute("SELECT pk FROM tasks WHERE task_id=? AND run=?", (task_id, run.pk)).fetchone()
        if found:
            pk = int(found[0])
        else:
            pk = self._next_task
            self._next_task += 1
            run.task_count += 1
            self._new_tasks.append((pk, task_id, run.pk))
        if len(run.tasks) >= _CACHED_MAX:
            self._write_tasks()
            run.tasks.clear()
            run.all_tasks = False
        run.tasks[task_id] = pk
        return pk

    def _write_tasks(self) -> None:
        if self._new_tasks:
            self._db.executemany("INSERT INTO tasks VALUES (?,?,?)", self._new_tasks)
            self._new_tasks.clear()

    def _write_agents(self) -> None:
        if self._new_agents:
            self._db.executemany("INSERT OR IGNORE INTO agents VALUES (?,?,?)", self._new_agents)
            self._new_agents.clear()

    def _write_traces(self) -> None:
        if self._new_traces:
            self._db.executemany("INSERT OR IGNORE INTO traces VALUES (?,?)", self._new_traces)
            self._new_traces.clear()

    def _write_runs(self) -> None:
        if self._dirty:
            self._db.executemany(_STORE_RUN, [self._runs[run_id].row() for run_id in self._dirty])
            self._dirty.clear()

    def known(self, events: Iterable[EventV1]) -> set[tuple[int, str]]:
        """Return (id hash, run id) of those events that the index already holds."""
        hashes = sorted({hash_id(event.id) for event in events})
        found: set[tuple[int, str]] = set()
        for start in range(0, len(hashes), 500):
            part = hashes[start : start + 500]
            marks = ",".join("?" * len(part))
            found.update(
                self._db.execute(
                    "SELECT e.id_hash,r.run_id FROM events e JOIN runs r ON r.pk=e.run"  # noqa: S608
                    f" WHERE e.id_hash IN ({marks})",
                    part,
                )
            )
        return found

    def drop_segment(self, segment: int) -> int:
        """Remove every row of a segment, in a transaction of its own; return how many events that was."""
        with self.transaction():
            self._runs.clear()
            gone = self._db.execute("DELETE FROM events WHERE segment=?", (segment,)).rowcount
            self._db.execute("DELETE FROM segments WHERE segment=?", (segment,))
            self._db.execute("CREATE TEMP TABLE held AS SELECT run,count(*) AS count FROM events GROUP BY run")
            self._db.execute("DELETE FROM runs WHERE pk NOT IN (SELECT run FROM held)")
            self._db.execute("DELETE FROM tasks WHERE run NOT IN (SELECT run FROM held)")
            self._db.execute("DELETE FROM agents WHERE run NOT IN (SELECT run FROM held)")
            self._db.execute("DELETE FROM traces WHERE run NOT IN (SELECT run FROM held)")
            self._db.execute("UPDATE runs SET count=(SELECT count FROM held WHERE run=pk)")
            self._db.execute("DROP TABLE held")
        return gone

    @contextlib.contextmanager
    def bulk(self) -> Generator[None]:
        """Leave the secondary indexes off while many rows are added, and make them at the end."""
        self._db.execute("DROP INDEX IF EXISTS events_run")
        self._db.execute("DROP INDEX IF EXISTS events_id")
        self._db.execute("PRAGMA cache_size=-16000")
        yield
        self._db.executescript(_INDEXES)
        self._db.execute("PRAGMA cache_size=-2000")
        self._db.execute("PRAGMA shrink_memory")

    def close(self) -> None:
        """Close the database. Idempotent."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
