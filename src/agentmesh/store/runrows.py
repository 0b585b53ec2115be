"""Runs as rows, for the reader thread of the event log: tables of the runs that were looked at last, and labels from their lines.

A table is filled once and then takes only what is new. It is derived: dropped when its run is not looked at for a while, when
others need the room, and when the index was built anew or old segments went.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentmesh.errors import LimitError
from agentmesh.store.index import Spot, hash_id
from agentmesh.store.reader import IndexReader, LineReader, Mismatch, of_size
from agentmesh.store.runtable import NO_NODE, NO_STATE, RunTable, Window
from agentmesh.wire.console_views import RowBatch, TraceRows
from agentmesh.wire.event import EventV1
from agentmesh.wire.rows import RowQuery, label

#: Rows read at a time, and bytes of their lines: between two steps other readers get their turn.
STEP_ROWS, _STEP_BYTES_MAX = 2_000, 4 << 20
#: Events that are decoded at once: few enough to stay in the processor's cache, which halves the cost of each.
_FILL_ROWS = 100
_RUNS_MAX = 64


class RunTables:
    """Tables of runs.

    Args:
        lines: Reads the log.
        bytes_max: Memory of all tables together, about.
    """

    def __init__(self, lines: LineReader, bytes_max: int) -> None:
        self._lines, self._bytes_max = lines, bytes_max
        self._tables: dict[str, RunTable] = {}
        self._epoch: object = None

    def extend(self, reader: IndexReader, run_id: str, upto: int, epoch: object) -> RunTable | None:
        """Bring a run's table one step further.

        Args:
            reader: The index.
            run_id: The full id.
            upto: Position up to which the table must be filled.
            epoch: Another one than before: what was read before may be wrong.

        Returns:
            The table when it is filled; None when another step is needed.

        Raises:
            LimitError: the run is too large to be kept as a table.
            Mismatch, OSError, sqlite3.Error: as ``LineReader.events``.
        """
        if epoch != self._epoch:
            self._tables.clear()
            self._epoch = epoch
        table = self._tables.pop(run_id, None) or RunTable()
        self._tables[run_id] = table
        if table.upto >= upto:
            return table
        found = reader.run_spots(run_id, table.upto, upto, STEP_ROWS)
        part = of_size(found, _STEP_BYTES_MAX)
        try:
            for start in range(0, len(part), _FILL_ROWS):
                spots = part[start : start + _FILL_ROWS]
                spots, events = self._lines.read(spots)
                _agree(run_id, spots, events)
                table.add(events, spots)
        except BaseException:
            # Some of the part is in and some is not: begin anew next time.
            self._tables.pop(run_id, None)
            raise
        is_all = len(part) == len(found) < STEP_ROWS
        table.upto = upto if is_all else part[-1][0]
        self._make_room(run_id, table)
        return table if is_all else None

    def _make_room(self, run_id: str, table: RunTable) -> None:
        """Drop the tables that were not used for longest. Raises LimitError: this one alone is too large."""
        if table.bytes > self._bytes_max:
            del self._tables[run_id]
            raise LimitError(
                f"the run has more than {table.count} events, too many to be shown as rows",
                code="events.run_too_large",
                hint=f"agentmesh trace {run_id[:12]} --follow --json   tells them one by one",
            )
        while len(self._tables) > _RUNS_MAX or sum(one.bytes for one in self._tables.values()) > self._bytes_max:
            del self._tables[next(iter(self._tables))]

    def labels(self, table: RunTable, rows: Sequence[int]) -> list[str]:
        """Return the labels of rows, "" where the line is gone. Raises as ``extend``."""
        found = table.labels_kept(rows)
        spots = table.spots([row for row in sorted(rows) if row not in found])
        for start in range(0, len(spots), _FILL_ROWS):
            read, events = self._lines.read(spots[start : start + _FILL_ROWS])
            for spot, event in zip(read, events, strict=True):
                found[spot[0]] = label(event)
        return [found.get(row, "") for row in rows]

    def clear(self) -> None:
        """Give the memory back."""
        self._tables.clear()


def _agree(run_id: str, spots: list[Spot], events: list[EventV1]) -> None:
    """Give events their position, if rows and lines agree. Raises Mismatch."""
    for spot, event in zip(spots, events, strict=True):
        if event.seq != spot[0] or event.run_id != run_id:
            if hash_id(event.id) != spot[4]:
                raise Mismatch
            event.seq = spot[0]


def told(run_id: str, table: RunTable, query: RowQuery) -> tuple[TraceRows, Window]:
    """Return what a table says to a query, without the labels and what only the node knows, and which rows that is."""
    upto = min(query.upto, table.upto) if query.upto else table.upto
    found = table.window(query, upto)
    rows = found.rows
    batch = RowBatch(
        position=found.positions,
        seq=[table.seq[row] for row in rows],
        ts=[table.ts[row] for row in rows],
        kind=[table.kind[row] for row in rows],
        task=[table.task[row] for row in rows],
        node=[-1 if (at := table.node[row]) == NO_NODE else at for row in rows],
        state=[-1 if (at := table.state[row]) == NO_STATE else at for row in rows],
        bytes=[table.size[row] for row in rows],
        index=found.indexes,
    )
    return TraceRows(
        run_id=run_id,
        count=table.count,
        digest=table.digest(),
        matching=found.matching,
        upto=upto,
        rows=batch,
        more=found.more,
        tasks=table.tasks.rows(),
        kinds=list(table.kinds),
        states=list(table.states),
        node_ids=list(table.node_ids),
        nodes=dict.fromkeys(table.nodes, ""),
        complete=not table.tasks.open,
    ), found


def rows_of(run_id: str, events: Sequence[EventV1], query: RowQuery, size_of: Callable[[EventV1], int]) -> TraceRows:
    """Return the rows of events that are told whole, such as those of a run that somebody may see.

    Args:
        run_id: The full id.
        events: In any order.
        query: What is asked for.
        size_of: Returns the bytes of an event's line.
    """
    table = RunTable()
    arrived = sorted(events, key=lambda event: event.seq)
    table.add(arrived, [(event.seq, 0, 0, size_of(event), hash_id(event.id)) for event in arrived])
    table.upto = arrived[-1].seq if arrived else 0
    answer, found = told(run_id, table, query)
    by_seq = {event.seq: event for event in arrived}
    answer.rows.label = [label(by_seq[table.seq[row]]) for row in found.rows]
    return answer
