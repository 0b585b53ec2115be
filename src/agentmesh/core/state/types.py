"""What writing does to a key of each type, and what a key shows (docs/spec/state.md §3).

    register   values written at the same time are kept side by side
    lww        the later one is shown, by the hybrid clock
    map        a register for each field, merged field by field
    counter    each writer counts for itself, the sum is shown
    set        adding wins over a removal that did not see it
    list, text documents that merge edit by edit (``docs``)

``apply`` and ``merge`` are all that a replica needs: what ``apply`` returns as the change is merged by the others.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from agentmesh.core.state import docs
from agentmesh.core.state.causality import Dot, Seen, of_dots
from agentmesh.core.state.cell import (
    Cell,
    Dots,
    Entry,
    Part,
    check_bounds,
    decode,
    encode,
    merge,
    parts_cost,
    seen_cost,
)
from agentmesh.core.state.clock import ms_of
from agentmesh.core.state.ops import (
    CELL_BYTES_SOFT_MAX,
    COUNT_MAX,
    COUNTER,
    FIELDS_MAX,
    ITEMS_MAX,
    LIST,
    LWW,
    MAP,
    SET,
    TEXT,
    Op,
    to_json,
    type_for,
)
from agentmesh.core.state.reading import (
    LEASE_MS,
    Sibling,
    context,
    exists,
    forgettable,
    live_of,
    newest,
    part_exists,
    shown,
    siblings,
    top,
    updates_of,
    value,
)
from agentmesh.errors import LimitError, UsageError

__all__ = [
    "LEASE_MS",
    "Cell",
    "Past",
    "Sibling",
    "apply",
    "context",
    "decode",
    "encode",
    "exists",
    "fate",
    "forgettable",
    "merge",
    "newest",
    "next_dot",
    "past_of",
    "pasts",
    "shown",
    "siblings",
    "value",
]


class Past(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One line of a key's history: which write, what it did, when; ``value`` is JSON of what was written, b"" for none."""

    writer: bytes
    n: int
    op: str
    type: str
    stamp: int
    value: bytes = b""
    field: str = ""

    @property
    def dot(self) -> Dot:
        """The write."""
        return Dot(self.writer, self.n)


def next_dot(cell: Cell | None, writer: bytes, after: int = 0) -> Dot:
    """Return a dot for a writer's next write: above all of its own to this key, and above ``after``, the last it used."""
    return Dot(writer, max(after, cell.seen.last(writer) if cell else 0) + 1)


def apply(cell: Cell | None, change: Op, dot: Dot, hlc: int) -> tuple[Cell, Cell]:
    """Do one operation on this replica's copy.

    Args:
        cell: The copy; None if the key is not there.
        change: What to do.
        dot: Of this write; its number is above all that its writer used before on any key of the space.
        hlc: Stamp of this write.

    Returns:
        (the key afterwards, the change for other replicas): ``merge(cell, change) == afterwards``.

    Raises:
        UsageError: an operation or number that makes no sense, or a dot that was used (codes "state.op",
        "state.value", "state.dot").
        StateError: the key has another type (code "state.type"), or documents cannot be had here (code "state.no_docs").
        LimitError: it would grow over a limit (codes "state.too_large", "state.cell_full", "state.writers").
            No state changed.
    """
    before = cell.seen.last(dot.writer) if cell else 0
    if dot.n <= before:
        raise UsageError(
            f"write {dot.n} of a writer comes after its write {before}",
            code="state.dot",
            why="the number was used, or another node claims to have seen writes that were never made",
            hint="use another key; the history of this one says who wrote it",
        )
    if cell is None:
        kind = type_for(change, "")
    else:
        kind = type_for(change, shown(cell))
        hlc = max(hlc, cell.stamp + 1)
    part: Part = cell.parts.get(kind, {}) if cell else {}
    idle = cell is not None and ms_of(hlc) - ms_of(cell.stamp) > LEASE_MS
    path, new, replaced = _write(part, kind, change, dot, idle)
    covered = [(kind, path, old) for old in replaced]
    if cell is not None and (change.op in ("delete", "resolve") or len(cell.parts) > (kind in cell.parts)):
        covered = _cover_more(cell, kind, path, change, covered)
    touched: dict[str, Part] = {} if new is None else {kind: {path: {dot: Entry(hlc, new)}}}
    saw = of_dots([old for _, _, old in covered], dot, before)
    if cell is not None and change.op == "delete":
        saw = saw.join(cell.seen)  # nothing of what was seen is left
    elif cell is not None and kind == COUNTER:
        saw = _own(cell, saw, dot.writer, touched, {old for _, _, old in covered})
    delta = Cell(saw, touched, hlc)
    after = delta if cell is None else _take(cell, delta, covered)
    grows = cell is not None and after.cost > cell.cost
    if grows and after.cost > CELL_BYTES_SOFT_MAX and new is not None:
        raise LimitError(
            f"the key takes {after.cost} bytes, writes may fill it to {CELL_BYTES_SOFT_MAX}",
            code="state.cell_full",
            hint="spread it over several keys",
        )
    check_bounds(after)
    return after, delta


def _own(cell: Cell, saw: Seen, writer: bytes, touched: dict[str, Part], replaced: set[Dot]) -> Seen:
    """Make a change stand for all that its writer ever did to the key; return what it says was seen.

    A sum replaces every earlier sum of its writer, also one that a replica hears of later; what else is live of this
    writer (of another
    type, made at the same time) goes along, or it would seem removed.
    """
    for kind, part in cell.parts.items():
        for path, dots in part.items():
            for dot, entry in dots.items():
                if dot.writer == writer and dot not in replaced:
                    touched.setdefault(kind, {}).setdefault(path, {})[dot] = entry
    return saw.join(Seen({writer: cell.seen.of(writer)})) if cell.seen.of(writer) else saw


def _take(cell: Cell, delta: Cell, covered: list[tuple[str, bytes, Dot]]) -> Cell:
    """Return the same as ``merge`` for one's own change, touching only what it touches."""
    parts = dict(cell.parts)
    copied: set[str] = set()
    less = 0
    for kind, path, dot in covered:
        if kind not in copied:
            copied.add(kind)
            parts[kind] = dict(parts[kind])
        dots = dict(parts[kind][path])
        less += parts_cost({kind: {path: {dot: dots.pop(dot)}}})
        if dots:
            less -= parts_cost({kind: {path: {}}})  # the path itself stays
            parts[kind][path] = dots
        else:
            del parts[kind][path]
            if not parts[kind]:
                del parts[kind]
                copied.discard(kind)
    more = 0
    for kind, part in delta.parts.items():
        if kind not in copied:
            parts[kind] = dict(parts.get(kind, {}))
        for path, there in part.items():
            ours = parts[kind].get(path)
            dots = {dot: entry for dot, entry in there.items() if ours is None or dot not in ours}
            more += parts_cost({kind: {path: dots}}) - (parts_cost({kind: {path: {}}}) if ours else 0)
            parts[kind][path] = {**ours, **dots} if ours else dots
    seen = cell.seen.join(delta.seen)
    cost = cell.cost + more - less + seen_cost(seen) - seen_cost(cell.seen)
    return Cell(seen, parts, max(cell.stamp, delta.stamp), cost)


def _cover_more(
    cell: Cell, kind: str, path: bytes, change: Op, covered: list[tuple[str, bytes, Dot]]
) -> list[tuple[str, bytes, Dot]]:
    """Add what else a write replaces: everything (delete), parts of other types (resolve), marks of deletions of
    other types."""
    whole = change.op == "delete"
    for other, part in cell.parts.items():
        if (whole and other == kind) or (
            other != kind and (whole or change.op == "resolve" or not part_exists(other, part))
        ):
            covered = covered + [
                (other, at, dot)
                for at, dots in part.items()
                for dot in dots
                if not (other == kind and at == path and (other, at, dot) in covered)
            ]
    return covered


def _write(part: Part, kind: str, change: Op, dot: Dot, idle: bool) -> tuple[bytes, bytes | None, list[Dot]]:
    """Return where a write goes, its bytes (None = it only removes), and which live writes there it replaces."""
    op = change.op
    if kind in (LIST, TEXT):
        update, whole = docs.edit(updates_of(part.get(b"", {})), kind, change, dot, idle=idle)
        return b"", update, list(part.get(b"", {})) if whole else []
    if op == "delete":
        return b"", b"" if kind == LWW else None, []
    if kind == SET:
        path = to_json(change.value)
        dots = part.get(path, {})
        if op == "add" and not dots and len(part) >= ITEMS_MAX:
            raise LimitError(f"a set has at most {ITEMS_MAX} items", code="state.too_large")
        return path, b"" if op == "add" else None, list(dots)
    if kind == COUNTER:
        own = [old for old in part.get(b"", {}) if old.writer == dot.writer]
        total = sum(int(part[b""][old].value) for old in own) + change.by
        if abs(total) > COUNT_MAX:
            raise LimitError("a node counts to 2^53 and no further", code="state.too_large")
        return b"", b"%d" % total, own
    path = change.field.encode() if kind == MAP else b""
    dots = part.get(path, {})
    if op == "remove":
        return path, None, list(dots)
    if kind == MAP and not dots and len(part) >= FIELDS_MAX:
        raise LimitError(f"a map has at most {FIELDS_MAX} fields", code="state.too_large")
    return path, to_json(change.value), _replaced(dots, kind, change)


def _replaced(dots: Dots, kind: str, change: Op) -> list[Dot]:
    """Return what a new value stands for: what the client has seen, which is the value that is shown if it does not say."""
    if change.op == "resolve" or kind == LWW or not dots:
        return list(dots)
    if change.seen is not None:
        return [dot for dot in dots if change.seen.covers(dot)]
    return [top(dots)]


def past_of(before: Cell | None, change: Op, delta: Cell, dot: Dot) -> Past:
    """Return the line of history for what ``apply(before, change, dot, …)`` did, which made ``delta``."""
    kind = type_for(change, shown(before))
    if change.op == "increment":
        written: Any = change.by
    elif change.op == "cut":
        written = {"at": change.at, "count": change.count}
    else:
        written = change.value
    raw = b"" if change.op in ("delete", "remove") else to_json(written)
    return Past(dot.writer, dot.n, change.op, kind, delta.stamp, raw, change.field)


def pasts(cell: Cell) -> list[Past]:
    """Return a history for a copy that came without one: its live writes, newest first."""
    words = {MAP: "put", COUNTER: "increment", SET: "add", LIST: "insert", TEXT: "insert"}
    lines: list[Past] = []
    for kind, path, dot, (stamp, raw) in live_of(cell):
        op = words.get(kind, "set")
        if kind in (LWW, LIST, TEXT) and raw[:1] in (b"", b"x"):
            op = "delete"
        written = path if kind == SET else b"" if kind in (LIST, TEXT) else raw
        lines.append(Past(dot.writer, dot.n, op, kind, stamp, written, path.decode() if kind == MAP else ""))
    return sorted(lines, key=lambda line: (line.stamp, line.dot), reverse=True)


def fate(cell: Cell | None, past: Past) -> Literal["stands", "merged", "superseded"]:
    """Say what became of a write.

    stands: it is there as written (a sibling too) · merged: it is part of what is shown · superseded: another one,
    later or at the same
    time, replaced it.
    """
    part = cell.parts.get(past.type, {}) if cell else {}
    if past.type in (LIST, TEXT):
        return "merged" if part else "superseded"
    if past.type == COUNTER and past.op == "increment":
        later = any(dot.writer == past.writer and dot.n >= past.n for dot in part.get(b"", {}))
        return "merged" if later else "superseded"
    if past.op in ("remove", "discard"):
        path = past.field.encode() if past.op == "remove" else past.value
        return "superseded" if path in part else "stands"
    path = past.field.encode() if past.type == MAP else past.value if past.type == SET else b""
    dots = part.get(path, {})
    if past.op == "delete" and past.type != LWW:
        return "superseded" if exists(cell) else "stands"
    if past.dot not in dots:
        return "superseded"
    return "stands" if past.type != LWW or top(dots) == past.dot else "superseded"
