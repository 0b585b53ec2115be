"""Reading the event log: rows from the index, lines from the JSONL, in a thread of its own.

A row is believed only if the line that it points to holds an event of that id; otherwise the index is wrong and
``Mismatch`` says so.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from agentmesh.errors import DecodeError, LimitError
from agentmesh.store.base import Report, RunPage, RunRow
from agentmesh.store.index import Place, Spot, hash_id
from agentmesh.store.jsonl import read_spans, segment_path
from agentmesh.store.promote import read_lines
from agentmesh.store.recover import INDEX_NAME
from agentmesh.wire.event import KINDS, EventV1
from agentmesh.wire.rows import RunQuery

_T = TypeVar("_T")
#: Shortest beginning of an id that names it.
PREFIX_MIN = 4
_SELECT_PLACES = "SELECT seq,segment,offset,e.bytes,id_hash FROM "


_SEGMENT = itemgetter(1)
_Spot = TypeVar("_Spot", bound=Spot)
_RUN_ROW = "run_id,first_ts,last_ts,count,agent,state,tasks"
_AGENTS_SHOWN_MAX = 8


class Mismatch(Exception):
    """A row and its line differ; the index is wrong."""


class IndexReader:
    """The reading side: its own read-only connection, used by one thread.

    Raises:
        sqlite3.Error: the index cannot be opened or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA cache_size=-1000")

    def _places(self, sql: str, *values: Any) -> list[Place]:
        return [Place(*row) for row in self._db.execute(_SELECT_PLACES + sql, values)]

    def run_places(self, run_id: str, after: int, limit: int) -> list[Place]:
        """Return the run's first ``limit`` rows after a position, by position."""
        return self._places(
            "events e JOIN runs r ON r.pk=e.run WHERE r.run_id=? AND seq>? ORDER BY seq LIMIT ?", run_id, after, limit
        )

    def task_places(self, task_id: str, limit: int) -> list[Place]:
        """Return the rows of a task, by position."""
        return self._places(
            "tasks t JOIN events e ON e.run=t.run AND e.task=t.pk WHERE t.task_id=? ORDER BY seq LIMIT ?",
            task_id,
            limit,
        )

    def places_after(self, after: int, upto: int, limit: int) -> list[Place]:
        """Return rows with a position in (after, upto], at most ``limit``, by position."""
        return self._places("events e WHERE seq>? AND seq<=? ORDER BY seq LIMIT ?", after, upto, limit)

    def run_spots(self, run_id: str, after: int, upto: int, limit: int) -> list[Spot]:
        """Return what ``run_places_between`` does, as bare tuples: a third of the time, where there are many."""
        sql = "events e JOIN runs r ON r.pk=e.run WHERE r.run_id=? AND seq>? AND seq<=? ORDER BY seq LIMIT ?"
        return self._db.execute(_SELECT_PLACES + sql, (run_id, after, upto, limit)).fetchall()

    def run_places_between(self, run_id: str, after: int, upto: int, limit: int) -> list[Place]:
        """Return a run's rows with a position in (after, upto], at most ``limit``, by position."""
        return self._places(
            "events e JOIN runs r ON r.pk=e.run WHERE r.run_id=? AND seq>? AND seq<=? ORDER BY seq LIMIT ?",
            run_id,
            after,
            upto,
            limit,
        )

    def newest(self, back: int) -> list[str]:
        """Return the id of the run that came so many before the newest one, if there is one."""
        return self._texts("SELECT run_id FROM runs ORDER BY pk DESC LIMIT 1 OFFSET ?", back)

    def runs(self, query: RunQuery) -> RunPage:
        """Return runs that fit, newest first."""
        where, values = _where(query)
        (total,) = self._db.execute(f"SELECT count(*) FROM runs r WHERE {where}", values).fetchone()  # noqa: S608
        sql = f"SELECT pk,{_RUN_ROW} FROM runs r WHERE {where} AND pk<? ORDER BY pk DESC LIMIT ?"  # noqa: S608
        found = self._db.execute(sql, (*values, query.before or 1 << 62, query.limit + 1)).fetchall()
        shown = found[: query.limit]
        rows = [RunRow(*row[1:], agents=self._agents(row[0])) for row in shown]
        return RunPage(rows, int(total), int(shown[-1][0]) if len(found) > len(shown) and shown else 0)

    def _agents(self, run: int) -> list[str]:
        sql = "SELECT name FROM agents WHERE run=? AND name<>'' ORDER BY ref LIMIT ?"
        return self._texts(sql, run, _AGENTS_SHOWN_MAX)

    def run_ids(self, text: str, *, exact: bool, limit: int = 6) -> list[str]:
        """Return ids of runs that are, or begin with, a text, newest first."""
        if exact:
            return self._texts("SELECT run_id FROM runs WHERE run_id=? LIMIT ?", text, limit)
        sql = "SELECT run_id FROM runs WHERE run_id>=? AND run_id<? ORDER BY pk DESC LIMIT ?"
        return self._texts(sql, text, text + "\U0010ffff", limit)

    def runs_of_task(self, text: str, *, exact: bool, limit: int = 6) -> list[tuple[str, str]]:
        """Return (task id, run id) of tasks that are, or begin with, a text, newest first."""
        where = "t.task_id=?" if exact else "t.task_id>=? AND t.task_id<?"
        values: tuple[Any, ...] = (text, limit) if exact else (text, text + "\U0010ffff", limit)
        sql = (
            f"SELECT t.task_id,r.run_id FROM tasks t JOIN runs r ON r.pk=t.run WHERE {where} ORDER BY t.pk DESC LIMIT ?"  # noqa: S608
        )
        return [(str(task), str(run)) for task, run in self._db.execute(sql, values)]

    def runs_of_trace(self, text: str, limit: int = 6) -> list[str]:
        """Return ids of runs that are part of a W3C trace, newest first."""
        sql = "SELECT r.run_id FROM traces t JOIN runs r ON r.pk=t.run WHERE t.trace_id=? ORDER BY r.pk DESC LIMIT ?"
        return self._texts(sql, text, limit)

    def _texts(self, sql: str, *values: Any) -> list[str]:
        return [str(row[0]) for row in self._db.execute(sql, values)]

    def close(self) -> None:
        """Close the connection. Idempotent."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


class LineReader:
    """The reader thread's half of the log: an index connection that is opened again when the index was replaced.

    Args:
        directory: The log's directory.
        report: Where lines that are gone are counted.
    """

    def __init__(self, directory: Path, report: Report) -> None:
        self._directory = directory
        self._report = report
        self._reader: IndexReader | None = None
        self._generation = -1

    def ask(self, query: Callable[[IndexReader], _T], generation: int) -> _T:
        """Run a query on the index of that generation. Raises sqlite3.Error."""
        if self._reader is None or self._generation != generation:
            self.close()
            self._generation = generation
            self._reader = IndexReader(self._directory / INDEX_NAME)
        return query(self._reader)

    def events(self, places: list[Place], bytes_max: int) -> list[EventV1]:
        """Return the events of rows, in the same order.

        Raises:
            LimitError: their lines are more than ``bytes_max``. Nothing was read.
            Mismatch: a row does not point to its line.
            OSError: a segment cannot be read.
        """
        if sum(place.size for place in places) > bytes_max:
            raise LimitError(
                f"{len(places)} events are more than {bytes_max} bytes",
                code="events.run_too_large",
                hint="ask for a part of them with after and limit",
            )
        found, events = self.read(places)
        for (seq, _, _, _, id_hash), event in zip(found, events, strict=True):
            if hash_id(event.id) != id_hash:
                raise Mismatch
            event.seq = seq
        return events

    def read(self, spots: Sequence[Spot]) -> tuple[list[Spot], list[EventV1]]:
        """Return rows of ascending place whose line is there, and the events of those, whose id and ``seq`` are not looked at.

        Raises:
            Mismatch: a row points to no event.
            OSError: a segment cannot be read.
        """
        found: list[Spot] = []
        events: list[EventV1] = []
        for segment, part in _by_segment(spots):
            try:
                lines = read_spans(segment_path(self._directory, segment), [(spot[2], spot[3]) for spot in part])
            except FileNotFoundError:
                # Retention dropped the segment after the rows were read.
                self._report.unreadable += len(part)
                continue
            try:
                events += read_lines(lines)
            except DecodeError as error:
                raise Mismatch from error
            found += part
        return found, events

    def close(self) -> None:
        """Close the index. Idempotent."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _by_segment(spots: Sequence[Spot]) -> Iterator[tuple[int, Sequence[Spot]]]:
    """Yield rows of ascending place, segment by segment."""
    if spots and spots[0][1] == spots[-1][1]:
        yield spots[0][1], spots
        return
    for segment, part in groupby(spots, _SEGMENT):
        yield segment, list(part)


def _where(query: RunQuery) -> tuple[str, list[Any]]:
    """Return the condition on ``runs r`` that a query means, and its values."""
    conditions: list[str] = ["1"]
    values: list[Any] = []
    if query.agent:
        conditions.append("EXISTS(SELECT 1 FROM agents a WHERE a.run=r.pk AND a.ref IN (?,?))")
        values += [query.agent.casefold(), query.agent]
    if query.states:
        conditions.append(f"state IN ({','.join('?' * len(query.states))})")
        values += query.states
    if query.kinds:
        conditions.append("kinds & ?")
        values.append(sum(1 << KINDS.index(kind) for kind in query.kinds))
    if query.since:
        conditions.append("last_ts>=?")
        values.append(query.since)
    if query.until:
        conditions.append("first_ts<=?")
        values.append(query.until)
    return " AND ".join(conditions), values


def of_size(places: list[_Spot], bytes_max: int) -> list[_Spot]:
    """Return the first places that together stay under a size, at least one."""
    total = 0
    for number, place in enumerate(places):
        total += place[3]
        if total > bytes_max and number:
            return places[:number]
    return places


def resolve_text(reader: IndexReader, text: str) -> list[str]:
    """Return the runs that a text may mean: exact ids win over beginnings, runs over tasks, and these over W3C traces."""
    if not text:
        return []
    found = reader.run_ids(text, exact=True) or [run for _, run in reader.runs_of_task(text, exact=True)]
    found = found or reader.runs_of_trace(text)
    if not found and len(text) >= PREFIX_MIN:
        found = reader.run_ids(text, exact=False) or [run for _, run in reader.runs_of_task(text, exact=False)]
    return list(dict.fromkeys(found))
