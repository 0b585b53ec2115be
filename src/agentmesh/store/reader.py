"""Reading the event log: rows from the index, lines from the JSONL, in a thread of its own.

A row is believed only if the line that it points to holds an event of that id; otherwise the index is wrong and
``Mismatch`` says so.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from agentmesh.errors import DecodeError, LimitError
from agentmesh.store.base import Report, RunRow
from agentmesh.store.index import Place, hash_id
from agentmesh.store.jsonl import read_spans, segment_path
from agentmesh.store.promote import read_line
from agentmesh.store.recover import INDEX_NAME
from agentmesh.wire.event import EventV1

_T = TypeVar("_T")
#: Shortest beginning of an id that names it.
PREFIX_MIN = 4
_SELECT_PLACES = "SELECT seq,segment,offset,e.bytes,id_hash FROM "


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

    def run_places_between(self, run_id: str, after: int, upto: int, limit: int) -> list[Place]:
        """Return a run's rows with a position in (after, upto], at most ``limit``, by position."""
        return self._places(
            "events e JOIN runs r ON r.pk=e.run WHERE r.run_id=? AND seq>? AND seq<=? ORDER BY seq LIMIT ?",
            run_id,
            after,
            upto,
            limit,
        )

    def runs(self, limit: int, skip: int = 0) -> list[RunRow]:
        """Return runs, newest first."""
        sql = "SELECT run_id,first_ts,last_ts,count,agent,state FROM runs ORDER BY pk DESC LIMIT ? OFFSET ?"
        return [RunRow(*row) for row in self._db.execute(sql, (limit, skip))]

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
        out: list[EventV1] = []
        for place, event in self.each(places):
            if hash_id(event.id) != place.id_hash:
                raise Mismatch
            event.seq = place.seq
            out.append(event)
        return out

    def each(self, places: list[Place]) -> Iterator[tuple[Place, EventV1]]:
        """Yield rows of ascending place with the event that each points to, whose id and ``seq`` are not looked at.

        Raises:
            Mismatch: a row points to no event.
            OSError: a segment cannot be read.
        """
        start = 0
        while start < len(places):
            segment = places[start].segment
            end = start
            while end < len(places) and places[end].segment == segment:
                end += 1
            part = places[start:end]
            start = end
            try:
                lines = read_spans(segment_path(self._directory, segment), [(p.offset, p.size) for p in part])
            except FileNotFoundError:
                # Retention dropped the segment after the rows were read.
                self._report.unreadable += len(part)
                continue
            for place, line in zip(part, lines, strict=True):
                try:
                    yield place, read_line(line[:-1])
                except DecodeError as error:
                    raise Mismatch from error

    def close(self) -> None:
        """Close the index. Idempotent."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def of_size(places: list[Place], bytes_max: int) -> list[Place]:
    """Return the first places that together stay under a size, at least one."""
    total = 0
    for number, place in enumerate(places):
        total += place.size
        if total > bytes_max and number:
            return places[:number]
    return places


def resolve_text(reader: IndexReader, text: str) -> list[str]:
    """Return the runs that a text may mean: exact ids win over beginnings, runs over tasks."""
    if not text:
        return []
    found = reader.run_ids(text, exact=True) or [run for _, run in reader.runs_of_task(text, exact=True)]
    if not found and len(text) >= PREFIX_MIN:
        found = reader.run_ids(text, exact=False) or [run for _, run in reader.runs_of_task(text, exact=False)]
    return list(dict.fromkeys(found))
