"""Rows of a run in its order, in blocks: a row that comes late finds its place without moving all others.

A row is a number that rises with arrival; where it belongs is told by a key that it keeps. A snapshot ``first`` is the state in
which only rows below that number had arrived.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, count

#: (lamport, ts, id as UTF-8): sorts as ``wire.event.order_key`` does.
Key = tuple[int, int, bytes]
#: Rows of a block that is filled in order; one of twice as many is divided.
BLOCK_ROWS = 512
#: One row of so many is found by its key; where more are looked for, all are gone through.
_FEW = 100
_TAILS = 2


class RowOrder:
    """Rows in order.

    Args:
        key_of: Returns the key of a row; no two rows have the same one.

    Attributes:
        blocks: The rows, in order over all blocks. Read only.
        clean: How many blocks at the front are as they were when ``settle`` was called last.
    """

    __slots__ = ("_key_of", "_lasts", "_starts", "_tails", "blocks", "clean")

    def __init__(self, key_of: Callable[[int], Key]) -> None:
        self._key_of = key_of
        self.blocks: list[array[int]] = []
        self._lasts: list[Key] = []
        #: Keys of the last blocks, where most rows that come late belong.
        self._tails: list[list[Key]] = []
        #: Position of the first row of each block; None when rows came since.
        self._starts: list[int] | None = None
        self.clean = 0

    def add(self, row: int, key: Key) -> None:
        """Put a row where it belongs."""
        lasts, blocks = self._lasts, self.blocks
        if not lasts or key > lasts[-1]:
            self._append([(key, row)])
            return
        self._starts = None
        at = bisect_left(lasts, key)
        block, back = blocks[at], len(blocks) - 1 - at
        if back < len(self._tails):
            keys = self._tails[-1 - back]
            place = bisect_left(keys, key)
            keys.insert(place, key)
        else:
            place = bisect_left(block, key, key=self._key_of)
        block.insert(place, row)
        if len(block) > 2 * BLOCK_ROWS:
            self._divide(at, back)
        self.clean = min(self.clean, at)

    def _divide(self, at: int, back: int) -> None:
        """Make two blocks of one."""
        block, tails = self.blocks[at], self._tails
        self.blocks[at : at + 1] = [block[:BLOCK_ROWS], block[BLOCK_ROWS:]]
        self._lasts.insert(at, self._key_of(block[BLOCK_ROWS - 1]))
        if back < len(tails):
            keys = tails[-1 - back]
            tails[len(tails) - 1 - back : len(tails) - back] = [keys[:BLOCK_ROWS], keys[BLOCK_ROWS:]]
            del tails[:-_TAILS]

    def extend(self, row: int, keys: Sequence[Key]) -> None:
        """Put rows that follow one another by number where they belong, given their keys."""
        pairs = sorted(zip(keys, count(row)))
        late = bisect_left(pairs, (self._lasts[-1], 0)) if self._lasts else 0
        for key, number in pairs[:late]:
            self.add(number, key)
        self._append(pairs[late:])

    def _append(self, pairs: list[tuple[Key, int]]) -> None:
        """Put rows, given in order, behind all others."""
        lasts, blocks, tails, done = self._lasts, self.blocks, self._tails, 0
        self._starts = None
        while done < len(pairs):
            if not blocks or len(blocks[-1]) >= BLOCK_ROWS:
                blocks.append(array("I"))
                lasts.append(pairs[done][0])
                tails.append([])
                del tails[:-_TAILS]
            part = pairs[done : done + BLOCK_ROWS - len(blocks[-1])]
            blocks[-1].extend([number for _, number in part])
            tails[-1] += [key for key, _ in part]
            lasts[-1] = part[-1][0]
            self.clean = min(self.clean, len(blocks) - 1)
            done += len(part)

    def settle(self) -> None:
        """Note that every block was seen as it is now, but the last, which may still grow."""
        self.clean = max(0, len(self.blocks) - 1)

    def positions(self, rows: Sequence[int]) -> list[int]:
        """Return where rows stand that are given in order."""
        starts, blocks = self._settled_starts(), self.blocks
        held: dict[int, int] = {}
        out: list[int] = []
        for row in rows:
            at = held.get(row)
            if at is None:
                block = bisect_left(self._lasts, self._key_of(row))
                held = dict(zip(blocks[block], range(starts[block], starts[block + 1]), strict=True))
                at = held[row]
            out.append(at)
        return out

    def newer(self, rows: Sequence[int]) -> list[int]:
        """Return where rows stand, ascending, that are all from a number on."""
        if not rows:
            return []
        starts, first = self._settled_starts(), rows[0]
        if len(rows) * _FEW > starts[-1]:
            return [at for at, row in enumerate(chain.from_iterable(self.blocks)) if row >= first]
        out: list[int] = []
        for row in rows:
            key = self._key_of(row)
            at = bisect_left(self._lasts, key)
            out.append(starts[at] + bisect_left(self.blocks[at], key, key=self._key_of))
        return sorted(out)

    def _settled_starts(self) -> list[int]:
        if self._starts is None:
            self._starts = [0, *accumulate(map(len, self.blocks))]
        return self._starts

    def walk(self, start: int, newer: Sequence[int], lacking: Sequence[int]) -> Iterator[int]:
        """Yield the rows of a snapshot from a position on, in order.

        Args:
            start: Position in the snapshot.
            newer: The rows that the snapshot lacks, ascending: all from ``newer[0]`` on.
            lacking: Where those stand (``newer``).
        """
        if not newer:
            at, over = self._block_at(start, ())
            if at < len(self.blocks):
                yield from chain(self.blocks[at][over:], *self.blocks[at + 1 :])
            return
        first = newer[0]
        at, over = self._block_at(start, lacking)
        for block in self.blocks[at:]:
            for row in block:
                if row < first:
                    if over:
                        over -= 1
                    else:
                        yield row

    def _block_at(self, start: int, lacking: Sequence[int]) -> tuple[int, int]:
        """Return the block that holds a position of a snapshot, and the rows of the snapshot before it in that block."""
        passed = stood = 0
        for at, block in enumerate(self.blocks):
            end = stood + len(block)
            held = len(block) - (bisect_left(lacking, end) - bisect_left(lacking, stood) if lacking else 0)
            if passed + held > start:
                return at, start - passed
            passed, stood = passed + held, end
        return len(self.blocks), 0
