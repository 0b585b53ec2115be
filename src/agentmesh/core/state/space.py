"""One space as one node holds it: its keys, the signed writes behind them, and its digest (docs/spec/state.md §5, §8).

A key is the join of its writes. A write that another one makes superfluous is dropped, so a register keeps one write however
often it is set, and a counter a few of each writer. Nothing here decides; ``replica`` does.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from agentmesh.core.state.causality import Runs, Seen, VersionVector
from agentmesh.core.state.cell import Cell, decode, encode, merge
from agentmesh.core.state.messages import BUCKETS, NOTE_BYTES_MAX, Line, Placement, Run, Write
from agentmesh.core.state.types import Past
from agentmesh.errors import DecodeError, LimitError
from agentmesh.ids import NodeId

_SUM_BYTES = 8


class Held:
    """One key of a space.

    Attributes:
        cell: The join of all writes.
        writes: Those that are needed for it, by mark, oldest first.
        past: The history, oldest first.
        bytes: Of the writes.
    """

    __slots__ = ("_sum", "bytes", "cell", "past", "writes")

    def __init__(self, past_max: int) -> None:
        self.cell: Cell | None = None
        self.writes: dict[bytes, Write] = {}
        self.past: deque[Past] = deque(maxlen=past_max)
        self.bytes = 0
        self._sum = -1

    def top(self) -> VersionVector:
        """Return for each writer the number of its last write to the key, of those that are kept."""
        at: dict[bytes, int] = {}
        for write in self.writes.values():
            writer, n = write.dot
            at[writer] = max(n, at.get(writer, 0))
        return VersionVector(at)

    def marks(self) -> tuple[bytes, ...]:
        """Return the marks of all writes, sorted."""
        return tuple(sorted(self.writes))

    def mark(self, key: str) -> int:
        """Return the digest of the key and all that is held of it; equal at replicas that hold the same."""
        if self._sum < 0:
            digest = hashlib.sha256(key.encode() + b"\n" + (b"" if self.cell is None else encode(self.cell))).digest()
            self._sum = int.from_bytes(digest[:_SUM_BYTES], "big")
        return self._sum

    def keep(self, mark: bytes, write: Write, delta: Cell, merged: Cell) -> list[bytes]:
        """Take a write that adds something; return the marks of those that are superfluous with it."""
        self.cell = merged
        self._sum = -1
        covered = [
            old
            for old, other in self.writes.items()
            if delta.seen.covers(other.dot) and merge(delta, decode(other.delta)) is delta
        ]
        for old in covered:
            self.bytes -= self.writes.pop(old).size()
        self.writes[mark] = write
        self.bytes += write.size()
        return covered


@dataclass(slots=True, eq=False)
class Space:
    """A space.

    Attributes:
        name: Of it.
        keys: What is held.
        placement: Who holds it; None while that is not known.
        voted: The placement that this node voted for after ``placement``, None if it has not.
        seen: Per writer, up to which of its writes all are contained in what is held.
        ahead: Runs beyond a gap, by writer: the number before the first and the last of each.
        publics: Per writer, the public key of its node.
        n: Number of this node's last write.
        reserved: Up to here numbers are noted on disk as used.
        ready: This node has caught up with the holders before it; else it holds, but does not answer QUORUM.
        caught: Holders before with which it was compared since.
        followers: Nodes that want to hear what is new.
        bytes: Of all keys.
    """

    name: str
    keys: dict[str, Held] = field(default_factory=dict[str, Held])
    placement: Placement | None = None
    holders: tuple[NodeId, ...] = ()
    voted: Placement | None = None
    seen: VersionVector = field(default_factory=VersionVector)
    ahead: dict[bytes, list[tuple[int, int]]] = field(default_factory=dict[bytes, list[tuple[int, int]]])
    publics: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    n: int = 0
    reserved: int = 0
    ready: bool = False
    caught: dict[NodeId, None] = field(default_factory=dict[NodeId, None])
    followers: dict[NodeId, None] = field(default_factory=dict[NodeId, None])
    bytes: int = 0
    _sums: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    _counted: dict[str, int] = field(default_factory=dict[str, int])
    _stale: dict[str, None] = field(default_factory=dict[str, None])

    @property
    def epoch(self) -> int:
        """The epoch of the placement, 0 if there is none."""
        return 0 if self.placement is None else self.placement.epoch

    @property
    def place(self) -> int:
        """What names the placement in messages (``Placement.mark``), 0 if there is none."""
        return 0 if self.placement is None else place_mark(self.placement)

    def touch(self, key: str) -> None:
        """Say that a key has changed, for the digest."""
        self._stale[key] = None

    def sums(self) -> tuple[int, ...]:
        """Return one number for each bucket of keys; equal at replicas that hold the same."""
        for key in self._stale:
            bucket = bucket_of(key)
            mark = self.keys[key].mark(key) if key in self.keys else 0
            self._sums[bucket] ^= self._counted.get(key, 0) ^ mark
            self._counted[key] = mark
        self._stale.clear()
        return tuple(self._sums)

    def total(self) -> int:
        """Return one number for all that is held."""
        digest = hashlib.sha256(b"".join(one.to_bytes(_SUM_BYTES, "big") for one in self.sums())).digest()
        return int.from_bytes(digest[:_SUM_BYTES], "big") >> 1

    def counts(self) -> list[int]:
        """Return how many keys each bucket has."""
        counts = [0] * BUCKETS
        for key in self.keys:
            counts[bucket_of(key)] += 1
        return counts

    def lines(self, buckets: Iterable[int]) -> list[Line]:
        """Return a line for every key in these buckets, each with the mark of the whole."""
        wanted = frozenset(buckets)
        return [
            Line(key, (held.mark(key).to_bytes(_SUM_BYTES, "big"),))
            for key, held in self.keys.items()
            if bucket_of(key) in wanted
        ]

    def note_run(self, run: Run, writers_max: int) -> bool:
        """Take note that all of a writer's writes of a run are contained; return False if some before it are missing.

        Raises:
            LimitError: it is of one writer too many (code "state.writers"). No state changed.
        """
        writer, have = run.writer, self.seen.get(run.writer)
        if run.top <= have:
            return True
        if have == 0 and writer not in self.ahead and len(self.seen) + len(self.ahead) >= writers_max:
            raise LimitError(f"{writers_max} writers in one space", code="state.writers")
        waiting = self.ahead.pop(writer, [])
        self._advance(writer, have, sorted([*waiting, (run.base, run.top)]))
        return run.top <= self.seen.get(writer)

    def _advance(self, writer: bytes, have: int, runs: list[tuple[int, int]]) -> None:
        before = have
        left: list[tuple[int, int]] = []
        for base, top in runs:
            if base <= have:
                have = max(have, top)
            else:
                left.append((base, top))
        if have > before:
            self.seen = self.seen.join(VersionVector({writer: have}))
        if left:
            self.ahead[writer] = left[:_AHEAD_MAX]

    def join_seen(self, other: VersionVector, writers_max: int) -> bool:
        """Take over what a replica has seen whose writes are all here; return whether that is news."""
        joined = self.seen.join(other)
        if len(joined) > writers_max or joined == self.seen:
            return False
        self.seen = joined
        for writer in list(self.ahead):
            runs = self.ahead.pop(writer)
            self._advance(writer, joined.get(writer), runs)
        return True


#: Runs of one writer beyond a gap that are remembered; forgetting one costs a comparison.
_AHEAD_MAX = 64


@lru_cache(maxsize=4096)
def place_mark(placement: Placement) -> int:
    """Return ``Placement.mark``, remembered."""
    return placement.mark()


@lru_cache(maxsize=65_536)
def bucket_of(key: str) -> int:
    """Return the bucket of a key: the first byte of its SHA-256."""
    return hashlib.sha256(key.encode()).digest()[0]


def read_delta(write: Write) -> Cell:
    """Return what a write does, and check that its writer speaks for itself only.

    Raises:
        DecodeError: it cannot be read, or it holds a value of another writer (code "state.forged"). No state changed.
        LimitError: it is too large. No state changed.
    """
    delta = decode(write.delta)
    dot = write.dot
    if not delta.seen.covers(dot) or delta.stamp != write.stamp:
        raise DecodeError("a write that is not the one it says", code="state.malformed")
    if any(one.writer != dot.writer for _, _, one, _ in delta.live()):
        raise DecodeError("a write with a value of another writer", code="state.forged")
    return delta


def tell_dead(cell: Cell, delta: Cell) -> Cell:
    """Return a change that says as well what else its writer has seen of the key that is not live any more.

    The others know that, or will; but with it the change makes all earlier writes of the key superfluous whose values are gone.
    For keys with many values that would be long, and is left out.

    Args:
        cell: The key with the change.
        delta: The change.
    """
    if cell.seen.runs > _TOLD_RUNS_MAX:
        return delta
    live: dict[bytes, list[int]] = {}
    count = 0
    for kind, part in cell.parts.items():
        for path, dots in part.items():
            count += len(dots)
            if count > _TOLD_LIVE_MAX:
                return delta
            told = delta.parts.get(kind, {}).get(path, {})
            for dot in dots:
                if dot not in told:
                    live.setdefault(dot.writer, []).append(dot.n)
    runs = {writer: without(seen, live.get(writer, ())) for writer, seen in cell.seen.items()}
    return Cell(Seen({writer: one for writer, one in runs.items() if one}), delta.parts, delta.stamp)


def without(runs: Runs, numbers: Iterable[int]) -> Runs:
    """Return runs with holes at these numbers."""
    left = list(runs)
    for n in sorted(numbers):
        for at in range(0, len(left), 2):
            low, high = left[at], left[at + 1]
            if low < n <= high:
                left[at : at + 2] = [low, n - 1, n, high]
                break
    pairs = [(left[at], left[at + 1]) for at in range(0, len(left), 2)]
    return tuple(edge for low, high in pairs if low < high for edge in (low, high))


#: Keys with more live values, or more runs, say only what a change is about.
_TOLD_LIVE_MAX, _TOLD_RUNS_MAX = 8, 64


def is_news(held: Held | None, delta: Cell) -> Cell | None:
    """Return the join with a change; None if it adds nothing. Raises LimitError (code "state.cell_full")."""
    cell = None if held is None else held.cell
    merged = merge(cell, delta)
    return None if merged is cell else merged


def note_of(past: Past) -> bytes:
    """Return the note of a write: its line of history, without the value where that is long."""
    raw = _encode(past)
    if len(raw) <= NOTE_BYTES_MAX:
        return raw
    return _encode(Past(past.writer, past.n, past.op, past.type, past.stamp, b"", past.field[:_FIELD_SHOWN_MAX]))


def past_of(write: Write) -> Past:
    """Return the line of history that a write brings; one that says nothing useful becomes "?"."""
    dot = write.dot
    try:
        past = _decode_past(write.note)
        if past.value:
            msgspec.json.decode(past.value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Past(dot.writer, dot.n, "?", "", write.stamp)
    return Past(dot.writer, dot.n, past.op[:16], past.type[:16], write.stamp, past.value, past.field)


_FIELD_SHOWN_MAX = 64
_encode = msgspec.msgpack.Encoder().encode
_decode_past = msgspec.msgpack.Decoder(Past).decode
