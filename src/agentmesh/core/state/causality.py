"""Who has seen what: dots, version vectors, and what of one key was seen (docs/spec/state.md §2).

A **dot** names one write: its writer and a number that rises with each of its writes. Numbers may leave gaps, as one
counter serves all keys of a space, and a writer that lost its disk goes on above them; hence ``Seen`` keeps runs.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from agentmesh.errors import DecodeError, LimitError

#: Of a writer's id. 128 bits of SHA-256: nobody else's key meets one, by chance or by search.
WRITER_BYTES = 16
#: Writers in one vector, and runs in one ``Seen``.
WRITERS_MAX = 1024
RUNS_MAX = 16_384
NUMBER_MAX = (1 << 63) - 1
#: Of an encoded vector.
VECTOR_BYTES_MAX = 64 * 1024


class Dot(NamedTuple):
    """One write: ``writer`` (16 bytes) and its number, from 1."""

    writer: bytes
    n: int


def writer_of(public_key: bytes, birth: bytes = b"") -> bytes:
    """Return the id under which a node writes.

    Args:
        public_key: Raw, 32 bytes.
        birth: What tells this store of the node from one that it lost, such as random bytes made with the database: numbers
            must never be used twice, and a node whose disk is gone does not know which it used.
    """
    return hashlib.sha256(b"agentmesh writer\n" + public_key + birth).digest()[:WRITER_BYTES]


def is_dot(writer: Any, n: Any) -> bool:
    """Say whether these two, from outside, make a dot."""
    return type(writer) is bytes and len(writer) == WRITER_BYTES and type(n) is int and 0 < n <= NUMBER_MAX


def broken(why: str) -> DecodeError:
    """Return the error for causality that no honest writer makes."""
    return DecodeError("a version vector that cannot be", code="state.version", why=why)


class VersionVector:
    """For each writer the highest number seen, all lower ones included. Immutable; equal ones are equal."""

    __slots__ = ("_at",)

    def __init__(self, at: Mapping[bytes, int] | None = None) -> None:
        self._at: dict[bytes, int] = dict(at or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VersionVector) and self._at == other._at

    def __hash__(self) -> int:
        return hash(frozenset(self._at.items()))

    def __len__(self) -> int:
        return len(self._at)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{writer.hex()[:6]}:{n}" for writer, n in self.items()) + "}"

    def items(self) -> list[tuple[bytes, int]]:
        """Return (writer, number), in order of writers."""
        return sorted(self._at.items())

    def get(self, writer: bytes) -> int:
        """Return the highest number seen of a writer, 0 for none."""
        return self._at.get(writer, 0)

    def covers(self, dot: Dot) -> bool:
        """Say whether that write was seen."""
        return dot.n <= self._at.get(dot.writer, 0)

    def descends(self, other: VersionVector) -> bool:
        """Say whether all that ``other`` has seen was seen here too."""
        mine = self._at
        return all(mine.get(writer, 0) >= n for writer, n in other._at.items())

    def concurrent(self, other: VersionVector) -> bool:
        """Say whether each has seen something that the other has not."""
        return not self.descends(other) and not other.descends(self)

    def join(self, other: VersionVector) -> VersionVector:
        """Return what both together have seen."""
        at = dict(self._at)
        for writer, n in other._at.items():
            if n > at.get(writer, 0):
                at[writer] = n
        return VersionVector(at)

    def up_to(self, dot: Dot) -> VersionVector:
        """Return it with all of a dot's writer up to that dot."""
        return self if self.covers(dot) else VersionVector({**self._at, dot.writer: dot.n})

    def without(self, writers: Iterable[bytes]) -> VersionVector:
        """Return it without writers that are gone for good (docs/spec/state.md §2.4 says when that is safe)."""
        gone = frozenset(writers)
        return VersionVector({writer: n for writer, n in self._at.items() if writer not in gone})

    def encode(self) -> bytes:
        """Return its bytes; equal vectors give equal bytes.

        Raises:
            LimitError: more than ``WRITERS_MAX`` writers (code "state.writers").
        """
        if len(self._at) > WRITERS_MAX:
            raise too_many_writers(len(self._at))
        return msgspec.msgpack.encode([[writer, n] for writer, n in self.items()])

    @classmethod
    def decode(cls, raw: bytes) -> VersionVector:
        """Read what ``encode`` made, strictly.

        Raises:
            DecodeError: anything else (code "state.version").
        """
        if len(raw) > VECTOR_BYTES_MAX:
            raise broken(f"{len(raw)} bytes")
        try:
            pairs = _decode_pairs(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise broken(str(error)) from error
        at: dict[bytes, int] = {}
        last = b""
        if len(pairs) > WRITERS_MAX:
            raise broken(f"{len(pairs)} writers")
        for writer, n in pairs:
            if not is_dot(writer, n) or writer <= last:
                raise broken("an entry that is no dot, or out of order")
            at[writer] = n
            last = writer
        return cls(at)


_decode_pairs = msgspec.msgpack.Decoder(list[tuple[bytes, int]]).decode


def too_many_writers(count: int) -> LimitError:
    """Return the error for a vector that would grow over its bound."""
    return LimitError(
        f"{count} writers of one key, at most {WRITERS_MAX}",
        code="state.writers",
        hint="spread the writes over several keys",
    )


#: Half-open runs (low, high] of one writer's numbers, flattened, in order, not touching: (0, 5, 7, 9) = 1 … 5, 8, 9.
Runs = tuple[int, ...]


class Seen:
    """Which writes of one key were seen: a dotted version vector whose dots may form runs. Immutable.

    Where a vector can only say "all up to n", this can also say "and n+2": updates may come in any order.
    """

    __slots__ = ("_runs", "runs")

    def __init__(self, runs: Mapping[bytes, Runs] | None = None) -> None:
        self._runs: dict[bytes, Runs] = dict(runs or {})
        #: How many runs there are over all writers: what it costs.
        self.runs = sum(len(one) for one in self._runs.values()) // 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seen) and self._runs == other._runs

    def __hash__(self) -> int:
        return hash(frozenset(self._runs.items()))

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{writer.hex()[:6]}:{runs}" for writer, runs in self.items()) + "}"

    def items(self) -> list[tuple[bytes, Runs]]:
        """Return (writer, runs), in order of writers."""
        return sorted(self._runs.items())

    def writers(self) -> Iterator[bytes]:
        """Yield the writers, in no order that means anything."""
        return iter(self._runs)

    def by_writer(self) -> Mapping[bytes, Runs]:
        """Return the runs of each writer, to look up; never walk through them where order shows."""
        return self._runs

    def of(self, writer: bytes) -> Runs:
        """Return the runs of one writer."""
        return self._runs.get(writer, ())

    def last(self, writer: bytes) -> int:
        """Return the highest number seen of a writer, 0 for none; lower ones may be missing."""
        runs = self._runs.get(writer)
        return runs[-1] if runs else 0

    def covers(self, dot: Dot) -> bool:
        """Say whether that write was seen."""
        runs = self._runs.get(dot.writer)
        if runs is None:
            return False
        return in_runs(runs, dot.n)

    def descends(self, other: Seen) -> bool:
        """Say whether all that ``other`` has seen was seen here too."""
        return self.join(other)._runs == self._runs

    def join(self, other: Seen) -> Seen:
        """Return what both together have seen; the same object if the other adds nothing."""
        if other is self:
            return self
        mine = self._runs
        changed: dict[bytes, Runs] = {}
        for writer, theirs in other._runs.items():
            ours = mine.get(writer)
            if ours is None:
                changed[writer] = theirs
            elif ours != theirs and (both := _join_runs(ours, theirs)) != ours:
                changed[writer] = both
        return Seen({**mine, **changed}) if changed else self

    def vector(self) -> VersionVector:
        """Return the version vector of what was seen from the first write on without a gap."""
        return VersionVector({writer: runs[1] for writer, runs in self._runs.items() if runs[0] == 0})

    def without(self, writers: Iterable[bytes]) -> Seen:
        """Return it without writers that are gone for good (docs/spec/state.md §2.4 says when that is safe)."""
        gone = frozenset(writers)
        return Seen({writer: runs for writer, runs in self._runs.items() if writer not in gone})


def of_dots(dots: Iterable[Dot], new: Dot | None = None, previous: int = 0) -> Seen:
    """Return what an update says was seen: single dots, and the new one with the gap after its writer's previous one.

    Args:
        dots: Writes that it replaces.
        new: The write itself.
        previous: The number of its writer's last write to this key; between the two there is nothing.
    """
    runs: dict[bytes, Runs] = {} if new is None else {new.writer: (previous, new.n)}
    for writer, n in dots:
        ours = runs.get(writer)
        runs[writer] = (n - 1, n) if ours is None else _join_runs(ours, (n - 1, n))
    return Seen(runs)


def in_runs(runs: Runs, n: int) -> bool:
    """Say whether a number is in one of the runs."""
    if n > runs[-1] or n <= runs[0]:
        return False
    if len(runs) == 2:
        return True
    return any(runs[at] < n <= runs[at + 1] for at in range(len(runs) - 2, -1, -2))


def _join_runs(one: Runs, other: Runs) -> Runs:
    if len(one) == 2 and len(other) == 2:  # nearly always
        low, high = (one, other) if one[0] <= other[0] else (other, one)
        if high[0] <= low[1]:
            return low if low[1] >= high[1] else (low[0], high[1])
        return low + high
    pairs = sorted([*_pairs(one), *_pairs(other)])
    merged: list[int] = []
    for low, high in pairs:
        if merged and low <= merged[-1]:
            merged[-1] = max(merged[-1], high)
        else:
            merged += [low, high]
    return tuple(merged)


def _pairs(runs: Runs) -> Iterator[tuple[int, int]]:
    return ((runs[at], runs[at + 1]) for at in range(0, len(runs), 2))


def check_runs(runs: Any) -> Runs:
    """Return runs from outside as such.

    Raises:
        DecodeError: they do not rise, or touch (code "state.version").
    """
    flat: tuple[Any, ...] = tuple(runs)
    if not flat or len(flat) % 2 or any(type(n) is not int for n in flat):
        raise broken("runs come in pairs of numbers")
    if flat[0] < 0 or flat[-1] > NUMBER_MAX or any(low >= high for low, high in itertools.pairwise(flat)):
        raise broken("runs that do not rise")
    return flat
