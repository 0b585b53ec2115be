"""What a key shows: its type, value, siblings, and whether it is there at all (docs/spec/state.md §3)."""

from __future__ import annotations

from typing import Any, NamedTuple

from agentmesh.core.state import docs
from agentmesh.core.state.causality import Dot, VersionVector
from agentmesh.core.state.cell import Cell, Dots, Entry, Part
from agentmesh.core.state.clock import ms_of
from agentmesh.core.state.ops import COUNTER, LIST, LWW, MAP, REGISTER, SET, TEXT, TYPES, from_json

#: How long a deleted key is remembered. A replica that was away for longer must not bring its copy back (§2.4).
LEASE_MS = 10 * 86_400_000


class Sibling(NamedTuple):
    """One of several values that stand beside each other."""

    value: Any
    dot: Dot
    stamp: int


def top(dots: Dots) -> Dot:
    """Return the newest of some live writes."""
    return max(dots, key=lambda dot: (dots[dot].stamp, dot))


def updates_of(dots: Dots) -> list[bytes]:
    """Return the updates of a document in an order that is the same everywhere."""
    inner = sorted(dots, key=lambda dot: (docs.order(dots[dot].value), dots[dot].stamp, dot))
    return [dots[dot].value for dot in inner]


def part_exists(kind: str, part: Part) -> bool:
    """Say whether what is there of a type makes the key be there: marks of deletions do not."""
    if not part:
        return False
    if kind == LWW:
        return any(dots[top(dots)].value != b"" for dots in part.values())
    if kind in (LIST, TEXT):
        return any(docs.holds(entry.value) for dots in part.values() for entry in dots.values())
    return True


def newest(cell: Cell, kind: str | None = None) -> tuple[int, Dot] | None:
    """Return (stamp, dot) of the newest live write, of one type or of all; None if nothing is live."""
    return max(((entry.stamp, dot) for one, _, dot, entry in live_of(cell) if kind in (None, one)), default=None)


def live_of(cell: Cell) -> list[tuple[str, bytes, Dot, Entry]]:
    """Return (type, path, dot, entry) of all live writes, in no order that means anything."""
    return [
        (kind, path, dot, entry)
        for kind, part in cell.parts.items()
        for path, dots in part.items()
        for dot, entry in dots.items()
    ]


def shown(cell: Cell | None) -> str:
    """Return the type that a key shows: the one written last, if two made it at the same time; "" if it is not there."""
    if cell is None:
        return ""
    kinds = [kind for kind in TYPES if kind in cell.parts and part_exists(kind, cell.parts[kind])]
    if len(kinds) <= 1:
        return kinds[0] if kinds else ""
    return max(kinds, key=lambda kind: newest(cell, kind) or (0, Dot(b"", 0)))


def exists(cell: Cell | None) -> bool:
    """Say whether the key is there. A map or set whose last item went is not, as in Redis."""
    return shown(cell) != ""


def value(cell: Cell | None) -> Any:
    """Return what the key shows, as JSON types; None if it is not there.

    Raises:
        StateError: a list or text, and loro is not installed (code "state.no_docs").
    """
    kind = shown(cell)
    return _value(kind, cell.parts[kind]) if cell is not None and kind else None


def _value(kind: str, part: Part) -> Any:
    if kind in (REGISTER, LWW):
        return _json_or_none(part[b""])
    if kind == MAP:
        return {path.decode(): _json_or_none(part[path]) for path in sorted(part)}
    if kind == COUNTER:
        return sum(int(entry.value) for entry in part[b""].values())
    if kind == SET:
        return [from_json(path) for path in sorted(part)]
    return docs.content(updates_of(part[b""]), kind)


def _json_or_none(dots: Dots) -> Any:
    raw = dots[top(dots)].value
    return from_json(raw) if raw else None


def siblings(cell: Cell | None) -> list[Sibling]:
    """Return values that were written at the same time, newest first, the shown one included; empty if there is but one.

    Of a map, each is ``{field: value}``. Where two made the key with different types, each type is one, with all it holds.
    """
    if cell is None:
        return []
    kinds = [kind for kind in TYPES if kind in cell.parts and part_exists(kind, cell.parts[kind])]
    found: list[Sibling] = []
    for kind in kinds:
        part = cell.parts[kind]
        several = _several(kind, part)
        last = newest(cell, kind)
        if several:
            found += several
        elif len(kinds) > 1 and last is not None:
            found.append(Sibling(_value(kind, part), last[1], last[0]))
    return sorted(found, key=lambda one: (one.stamp, one.dot), reverse=True)


def _several(kind: str, part: Part) -> list[Sibling]:
    if kind not in (REGISTER, MAP):
        return []
    return [
        Sibling({path.decode(): from_json(raw)} if kind == MAP else from_json(raw), dot, stamp)
        for path, dots in part.items()
        if len(dots) > 1
        for dot, (stamp, raw) in dots.items()
    ]


def context(cell: Cell | None) -> VersionVector:
    """Return what whoever reads this copy has seen, for ``Op.seen``."""
    return cell.seen.vector() if cell else VersionVector()


def forgettable(cell: Cell, now_ms: int, lease_ms: int = LEASE_MS) -> bool:
    """Say whether a deleted key need not be remembered any longer."""
    return not exists(cell) and ms_of(cell.stamp) + lease_ms < now_ms
