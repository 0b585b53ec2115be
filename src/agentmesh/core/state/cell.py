"""One key with all that is known of it, how two copies join, and its bytes (docs/spec/state.md §3).

Every type is kept the same way: live writes by dot, under a path (a field, an item, or ""), and ``Seen``, all writes
ever heard of. A
write that is seen and not live was replaced or removed. So one join serves all types: a live write stays if both have
it, or if the other has never seen it. What a replica sends after a write is a cell too, with that write alone: join takes
cells of any size, in any order, any number of times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from agentmesh.core.state.causality import (
    RUNS_MAX,
    WRITER_BYTES,
    WRITERS_MAX,
    Dot,
    Runs,
    Seen,
    broken,
    check_runs,
    in_runs,
    too_many_writers,
)
from agentmesh.core.state.clock import STAMP_MAX
from agentmesh.core.state.ops import (
    CELL_BYTES_MAX,
    COUNT_MAX,
    COUNTER,
    DOCUMENT_FORMS,
    FIELD_BYTES_MAX,
    LIST,
    MAP,
    SET,
    TEXT,
    TYPES,
)
from agentmesh.core.state.ops import VALUE_BYTES_MAX as VALUE_MAX
from agentmesh.errors import DecodeError, LimitError

#: Live writes in one cell.
DOTS_MAX = 32_768
_FORMAT = 1
#: What an entry and a run cost in bytes beside their texts, at most.
_ENTRY_COST, _RUN_COST, _WRITER_COST, _CELL_COST = 28, 20, WRITER_BYTES + 8, 64


class Entry(NamedTuple):
    """A live write: its stamp (``clock``), and its bytes: JSON, a counter's sum, or an update of a document (``docs``)."""

    stamp: int
    value: bytes


Dots = dict[Dot, Entry]
Part = dict[bytes, Dots]
_NOTHING: Part = {}
_NOBODY: Dots = {}


class Cell:
    """A key, or a change of it. Immutable: whoever changes it makes another.

    Attributes:
        seen: All writes heard of.
        parts: Type → path → live writes. More than one type is there only if two writers made the key at the same time.
        stamp: The highest stamp of all writes, also of those that only removed.
        cost: Bytes, about, and at least as many as ``encode`` makes.
    """

    __slots__ = ("cost", "parts", "seen", "stamp")

    def __init__(self, seen: Seen, parts: dict[str, Part], stamp: int, cost: int | None = None) -> None:
        self.seen, self.parts, self.stamp = seen, parts, stamp
        self.cost = _CELL_COST + parts_cost(parts) + seen_cost(seen) if cost is None else cost

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Cell)
            and self.stamp == other.stamp
            and self.seen == other.seen
            and self.parts == other.parts
        )

    def __hash__(self) -> int:
        return hash((self.stamp, self.seen))

    def __repr__(self) -> str:
        return f"Cell({self.parts!r}, seen={self.seen!r})"

    def live(self) -> Iterator[tuple[str, bytes, Dot, Entry]]:
        """Yield (type, path, dot, entry) of all live writes, in an order that only hangs on what is there."""
        for kind in TYPES:
            part = self.parts.get(kind)
            if part:
                for path in sorted(part):
                    for dot, entry in sorted(part[path].items()):
                        yield kind, path, dot, entry


def seen_cost(seen: Seen) -> int:
    """Return the bytes that it takes, at most."""
    return seen.runs * _RUN_COST + len(seen) * _WRITER_COST


def parts_cost(parts: dict[str, Part]) -> int:
    """Return the bytes that live writes take, at most."""
    return sum(
        _ENTRY_COST + len(path) + sum(_ENTRY_COST + len(entry.value) for entry in dots.values())
        for part in parts.values()
        for path, dots in part.items()
    )


def merge(cell: Cell | None, other: Cell) -> Cell:
    """Return what two cells know together: commutative, associative, idempotent; returns ``cell`` itself if nothing is new.

    Args:
        cell: Ours; None if there is none.
        other: A whole cell or a change.

    Raises:
        LimitError: together they are over a bound (codes "state.cell_full", "state.writers"). No state changed; the two stay
            apart until one side removes something.
    """
    if cell is None or cell is other:
        return other
    seen = cell.seen.join(other.seen)
    parts: dict[str, Part] = {}
    changed = seen is not cell.seen
    cost = cell.cost + (seen_cost(seen) - seen_cost(cell.seen) if changed else 0)
    for kind in TYPES:
        mine, theirs = cell.parts.get(kind, _NOTHING), other.parts.get(kind, _NOTHING)
        if not mine and not theirs:
            continue
        changes = _changes(mine, theirs, cell.seen, other.seen)
        if changes:
            changed = True
            cost += parts_cost({kind: {path: dots for path, dots in changes.items() if dots}})
            cost -= parts_cost({kind: {path: mine[path] for path in changes if path in mine}})
            mine = {**mine, **changes}
            for path, dots in changes.items():
                if not dots:
                    del mine[path]
        if mine:
            parts[kind] = mine
    stamp = max(cell.stamp, other.stamp)
    if not changed and stamp == cell.stamp:
        return cell
    merged = Cell(seen, parts, stamp, cost)
    check_bounds(merged)
    return merged


def check_bounds(cell: Cell) -> None:
    """Refuse a cell that is too large to keep. Raises LimitError as ``merge``."""
    if cell.cost > CELL_BYTES_MAX or cell.seen.runs > RUNS_MAX:
        raise LimitError(
            f"the key would take {cell.cost} bytes, at most {CELL_BYTES_MAX}",
            code="state.cell_full",
            why="several writers filled it at the same time" if cell.seen.runs <= RUNS_MAX else "too many gaps",
            hint="remove or resolve something of it at one of the nodes, or delete the key",
        )
    if len(cell.seen) > WRITERS_MAX:
        raise too_many_writers(len(cell.seen))


def _changes(mine: Part, theirs: Part, my_seen: Seen, their_seen: Seen) -> dict[bytes, Dots]:
    """Return what the join of two parts of one type changes in ``mine``: path → live writes, none for a path that goes."""
    changes: dict[bytes, Dots] = {}
    heard = their_seen.by_writer()
    if not heard.keys().isdisjoint(my_seen.by_writer().keys()):
        for path, dots in mine.items():
            for dot in dots:
                runs = heard.get(dot[0])
                if runs is None or not runs[0] < dot[1] <= runs[-1] or not in_runs(runs, dot[1]):
                    continue
                if dot not in theirs.get(path, _NOBODY):
                    left = changes.get(path)
                    if left is None:
                        left = changes[path] = dict(dots)
                    del left[dot]
    for path, dots in theirs.items():
        ours = mine.get(path, _NOBODY)
        for dot, entry in dots.items():
            own = ours.get(dot)
            if own is None:
                if my_seen.covers(dot):
                    continue
            elif own >= entry:
                continue
            # One dot with two contents: a broken writer. The higher one everywhere, so that replicas agree.
            if path not in changes:
                changes[path] = dict(ours)
            changes[path][dot] = entry
    return changes


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Bytes of a cell: writers are listed once, dots name them by their place."""

    format: int
    stamp: int
    writers: list[bytes]
    seen: list[list[int]]
    parts: list[tuple[str, list[tuple[bytes, list[tuple[int, int, int, bytes]]]]]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Wire).decode


def encode(cell: Cell) -> bytes:
    """Return a cell's bytes; equal cells give equal bytes."""
    writers = sorted(cell.seen.writers())
    place = {writer: at for at, writer in enumerate(writers)}
    return _encode(
        _Wire(
            _FORMAT,
            cell.stamp,
            writers,
            [list(cell.seen.of(writer)) for writer in writers],
            [
                (
                    kind,
                    [
                        (
                            path,
                            [(place[writer], n, stamp, value) for (writer, n), (stamp, value) in sorted(dots.items())],
                        )
                        for path, dots in sorted(cell.parts[kind].items())
                    ],
                )
                for kind in TYPES
                if cell.parts.get(kind)
            ],
        )
    )


def decode(raw: bytes) -> Cell:
    """Read a cell or a change from outside, strictly.

    Raises:
        DecodeError: anything that no honest node makes (codes "state.malformed", "state.version").
        LimitError: over 1 MiB (code "state.cell_full"), or too many writers. No state changed.
    """
    if len(raw) > CELL_BYTES_MAX:
        raise LimitError(f"a key of {len(raw)} bytes, at most {CELL_BYTES_MAX}", code="state.cell_full")
    try:
        wire = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(str(error)) from error
    if wire.format != _FORMAT or not 0 <= wire.stamp <= STAMP_MAX:
        raise _malformed(f"format {wire.format}, stamp {wire.stamp}")
    if len(wire.writers) > WRITERS_MAX:
        raise too_many_writers(len(wire.writers))
    if len(wire.seen) != len(wire.writers) or any(len(writer) != WRITER_BYTES for writer in wire.writers):
        raise broken("writers and what was seen of them do not match")
    if any(one >= other for one, other in zip(wire.writers, wire.writers[1:], strict=False)):
        raise broken("writers out of order")
    runs: dict[bytes, Runs] = {writer: check_runs(one) for writer, one in zip(wire.writers, wire.seen, strict=True)}
    seen = Seen(runs)
    parts: dict[str, Part] = {}
    known: set[Dot] = set()  # only asked whether, never walked through
    for kind, paths in wire.parts:
        if kind not in TYPES or kind in parts or not paths:
            raise _malformed(f"a part of type {kind[:20]!r}")
        part: Part = {}
        for path, rows in paths:
            if path in part or not rows:
                raise _malformed("a path twice, or with nothing under it")
            part[path] = _read_dots(kind, path, rows, wire, seen, known)
        parts[kind] = part
    cell = Cell(seen, parts, wire.stamp)
    check_bounds(cell)
    return cell


def _read_dots(
    kind: str, path: bytes, rows: list[tuple[int, int, int, bytes]], wire: _Wire, seen: Seen, known: set[Dot]
) -> Dots:
    check_path(kind, path)
    dots: Dots = {}
    writers, newest = wire.writers, wire.stamp
    for at, n, stamp, value in rows:
        if not 0 <= at < len(writers):
            raise broken("a write of nobody")
        dot = Dot(writers[at], n)
        if dot in known:
            raise broken("one write in two places")
        if not seen.covers(dot):  # which covers none with a number that is none
            raise broken("a write is there that was never seen")
        if not 0 <= stamp <= newest:
            raise broken("a write newer than the newest")
        if kind != SET or value:
            check_value(kind, value)
        known.add(dot)
        dots[dot] = Entry(stamp, value)
    if len(known) > DOTS_MAX:
        raise LimitError(f"more than {DOTS_MAX} live writes of one key", code="state.cell_full")
    return dots


def check_path(kind: str, path: bytes) -> None:
    """Refuse a path that a type does not have. Raises DecodeError (code "state.malformed")."""
    if kind == SET:
        if _json_encode(_check_json(path)) != path:  # else one item could stand there twice
            raise _malformed("an item that could be written otherwise")
    elif kind == MAP:
        if not 0 < len(path) <= FIELD_BYTES_MAX:
            raise _malformed("a field without a name, or too long a one")
        try:
            path.decode()
        except UnicodeDecodeError as error:
            raise _malformed("a field that is no text") from error
    elif path:
        raise _malformed(f"a path in a {kind}")


def check_value(kind: str, value: bytes) -> None:
    """Refuse bytes that are no value of a type. Raises DecodeError (code "state.malformed")."""
    if kind == SET:
        if value:
            raise _malformed("an item of a set with a value")
    elif kind == COUNTER:
        try:
            total = int(value) if len(value) <= 20 else COUNT_MAX + 1
        except ValueError as error:
            raise _malformed("a count that is no number") from error
        if abs(total) > COUNT_MAX or str(total).encode() != value:
            raise _malformed("a count out of range")
    elif kind in (LIST, TEXT):
        if value[:1] not in DOCUMENT_FORMS:
            raise _malformed("an update of a document of unknown form")
    elif value or kind != "lww":  # an empty one is the mark of a deletion
        _check_json(value)


_json_encode = msgspec.json.Encoder(order="deterministic").encode
_json_decode = msgspec.json.Decoder().decode


def _check_json(raw: bytes) -> Any:
    if len(raw) > VALUE_MAX:
        raise _malformed("a value that is too large")
    try:
        return _json_decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(f"a value that is no JSON: {error}") from error


def _malformed(why: Any) -> DecodeError:
    return DecodeError("not a key of shared state", code="state.malformed", why=str(why)[:200])
