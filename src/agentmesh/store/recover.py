"""Bring JSONL and index to agree: at every start, and again when the index failed while running.

The JSONL is the truth. The index remembers for each segment up to which byte it agrees; only what follows is read.
Whatever does not add up leads to an index built anew, never to a line removed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from agentmesh.errors import DecodeError
from agentmesh.store.base import EventLogConfig, Report
from agentmesh.store.index import Index, Placed, SegmentRow, admit, hash_id, remove_files, take_seal
from agentmesh.store.jsonl import list_segments, read_lines, read_spans, repair_tail, segment_path
from agentmesh.store.promote import read_line
from agentmesh.wire.event import EventV1, decode_json

INDEX_NAME = "index.sqlite"
_BATCH = 4096
#: From this many bytes on, secondary indexes are made after the rows.
_BULK_BYTES = 16 << 20
#: A line that claims a position further ahead than this is given the next one instead.
_SEQ_JUMP_MAX = 1 << 40


def recover(directory: Path, config: EventLogConfig, report: Report) -> Index:
    """Repair the last segment and return an index that agrees with the JSONL.

    Raises:
        OSError: a file cannot be read or written.
        sqlite3.Error: no index can be made here.
    """
    sizes, strangers = list_segments(directory)
    for name in strangers[:3]:
        report.note(f"events/{name} is not read: segments of the event log are named 000001.jsonl, 000002.jsonl, …")
    if sizes:
        _repair_last(directory, max(sizes), report)
        sizes, _ = list_segments(directory)
    path = directory / INDEX_NAME
    existed = path.exists()
    index: Index | None = None
    why = "was of another version" if existed else "was missing"
    try:
        intact = take_seal(path)
        if intact is False:
            raise sqlite3.DatabaseError("it was changed after it was closed")
        index = Index(path)
        if not index.fresh:
            why = "" if intact or index.consistent() else "did not add up"
            why = why or _reconcile(index, directory, sizes, report)
            if not why:
                drop_oldest(index, directory, config, report)
                return index
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not is_damage(error):
            if index is not None:
                index.close()
            raise
        why = f"was damaged ({error})"
    if index is not None and index.fresh:
        _index_from(index, directory, sizes, report)
    else:
        if index is not None:
            index.close()
        index = rebuild(directory, report)
    if sizes:
        report.rebuilt = True
        report.note(f"the event index {why}; it was rebuilt from the JSONL: {count_of(index)} events, none lost")
    drop_oldest(index, directory, config, report)
    return index


def rebuild(directory: Path, report: Report) -> Index:
    """Throw the index away and return a new one read from the JSONL.

    Raises:
        OSError: a file cannot be read or removed.
        sqlite3.Error: no index can be made here.
    """
    remove_files(directory / INDEX_NAME)
    index = Index(directory / INDEX_NAME)
    sizes, _ = list_segments(directory)
    _index_from(index, directory, sizes, report)
    return index


def catch_up(index: Index, directory: Path, report: Report) -> None:
    """Add to the index what the JSONL has beyond it. Raises OSError, sqlite3.Error."""
    sizes, _ = list_segments(directory)
    _index_from(index, directory, sizes, report)


def count_of(index: Index) -> int:
    """Return how many events the index holds."""
    return sum(row.events for row in index.segments())


def is_damage(error: sqlite3.OperationalError) -> bool:
    """Say whether an SQLite error means a damaged file rather than a full, read-only or busy one."""
    # "disk I/O error" also stands for a truncated file; a full or read-only disk has its own words.
    text = str(error)
    return not any(word in text for word in ("readonly", "full", "unable to open", "locked"))


def _repair_last(directory: Path, number: int, report: Report) -> None:
    torn = repair_tail(segment_path(directory, number))
    if torn is not None and torn.cut:
        report.torn_bytes += torn.cut
        kept = f", kept in events/{torn.kept}" if torn.kept else ""
        report.note(
            f"the last line of events/{number:06d}.jsonl was torn ({torn.cut} bytes, never acknowledged) and was cut{kept}"
        )


def _reconcile(index: Index, directory: Path, sizes: dict[int, int], report: Report) -> str:
    """Make an existing index agree; return why that is impossible, or "" when it agrees."""
    rows = {row.segment: row for row in index.segments()}
    for number in [n for n in rows if n not in sizes]:
        report.rows_removed += index.drop_segment(number)
        report.note(f"events/{number:06d}.jsonl is gone; its {rows.pop(number).events} events left the index")
    last = max(rows, default=0)
    for number, size in sizes.items():
        row = rows.get(number)
        if number < last and (row is None or row.bytes != size):
            return f"did not match events/{number:06d}.jsonl"
        if row is not None and row.bytes <= size and not _last_line_agrees(index, directory, row):
            return f"did not match events/{number:06d}.jsonl"
    if last and rows[last].bytes > sizes[last]:
        # Shorter than what was indexed: an older copy of the file, or bytes lost with the machine.
        gone = index.drop_segment(last)
        _index_from(index, directory, sizes, report)
        back = next((row.events for row in index.segments() if row.segment == last), 0)
        report.rows_added -= back
        report.rows_removed += gone - back
        report.note(f"events/{last:06d}.jsonl is shorter than the index knew; {gone - back} events left the index")
        return ""
    added = report.rows_added
    _index_from(index, directory, sizes, report)
    if report.rows_added > added:
        report.note(f"{report.rows_added - added} events of the JSONL were missing in the index and were added")
    return ""


def _last_line_agrees(index: Index, directory: Path, row: SegmentRow) -> bool:
    place = index.last_place(row.segment)
    if place is None:
        return row.events == 0
    line = read_spans(segment_path(directory, row.segment), [(place.offset, place.size)])[0]
    try:
        return line.endswith(b"\n") and hash_id(read_line(line[:-1]).id) == place.id_hash
    except DecodeError:
        return False


def _index_from(index: Index, directory: Path, sizes: dict[int, int], report: Report) -> None:
    """Index everything beyond what the index holds, in order of segments."""
    rows = {row.segment: row for row in index.segments()}
    last_seq = max((row.last_seq for row in rows.values()), default=0)
    todo: list[SegmentRow] = []
    for number, size in sizes.items():
        row = rows.get(number, SegmentRow(number, 0, 0, 0, 0))
        if row.bytes < size:
            todo.append(row)
    missing = sum(sizes[row.segment] - row.bytes for row in todo)
    with index.bulk() if missing > _BULK_BYTES else contextlib.nullcontext():
        for row in todo:
            last_seq = _index_segment(index, directory, row._replace(last_seq=last_seq), report)


def _index_segment(index: Index, directory: Path, row: SegmentRow, report: Report) -> int:
    batch: list[Placed] = []

    def store() -> None:
        with index.transaction():
            index.add(row.segment, batch)
            index.set_segment(row)
        report.rows_added += len(batch)
        batch.clear()

    for line in read_lines(segment_path(directory, row.segment), row.bytes):
        event = None if line.data is None else _read(line.data, report)
        row = row._replace(bytes=line.offset + line.size)
        if event is None:
            if line.data is None or line.data.strip():
                report.garbage_lines += 1
                report.note(
                    f"unreadable lines in events/{row.segment:06d}.jsonl were skipped and left in place"
                    f" (first at byte {line.offset})"
                )
            continue
        seq = event.seq
        event.seq = seq if row.last_seq < seq < row.last_seq + _SEQ_JUMP_MAX else row.last_seq + 1
        row = row._replace(events=row.events + 1, event_bytes=row.event_bytes + line.size, last_seq=event.seq)
        batch.append(Placed(event, line.offset, line.size))
        if len(batch) >= _BATCH:
            store()
    store()
    return row.last_seq


def _read(data: bytes, report: Report) -> EventV1 | None:
    try:
        return admit(decode_json(data))
    except DecodeError:
        try:
            event = admit(read_line(data))
        except DecodeError:
            return None
        report.promoted += 1
        return event


def drop_oldest(index: Index, directory: Path, config: EventLogConfig, report: Report) -> None:
    """Drop the oldest closed segments while the log is larger than ``events_bytes_max``. Raises OSError, sqlite3.Error."""
    rows = index.segments()
    total = sum(row.bytes for row in rows)
    while config.events_bytes_max and total > config.events_bytes_max and len(rows) > 1:
        row = rows.pop(0)
        total -= row.bytes
        segment_path(directory, row.segment).unlink(missing_ok=True)
        report.events_dropped += index.drop_segment(row.segment)
        report.segments_dropped += 1
        report.note(
            f"the event log reached its limit of {config.events_bytes_max} bytes; the oldest {row.events} events "
            f"(events/{row.segment:06d}.jsonl) were dropped on {datetime.now(UTC):%Y-%m-%d}"
        )
