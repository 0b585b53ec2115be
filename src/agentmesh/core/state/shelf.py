"""What is held at one node: local writes, writes of others that are let in, and what keeps both within bounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from agentmesh.core.machine import Outbox
from agentmesh.core.state import messages as m
from agentmesh.core.state.causality import Dot
from agentmesh.core.state.cell import Cell, decode, encode, merge
from agentmesh.core.state.ground import Ground
from agentmesh.core.state.inputs import Changed, KeepWrite, LocalWrite
from agentmesh.core.state.placement import nodes_of
from agentmesh.core.state.space import Held, Space, is_news, note_of, past_of, read_delta, tell_dead
from agentmesh.core.state.types import Past, apply
from agentmesh.core.state.types import past_of as past_of_op
from agentmesh.errors import DecodeError, LimitError

#: Numbers that are noted as used ahead of time, so that most writes need not note theirs.
_RESERVED = 63
#: Folded writes of one writer stay below this, so that they can be sent and kept.
_FOLD_BYTES_MAX = 256 * 1024


class Unsent(NamedTuple):
    """A local write that has not left: the number of its record, the write, and what it does."""

    made: int
    write: m.Write
    delta: Cell


class Shelf:
    """The part of a replica that keeps writes.

    Args:
        ground: Shared.

    Attributes:
        unsent: Local writes by space, until they are on disk and sent.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.unsent: dict[str, list[Unsent]] = {}

    def restore(self, space: Space, writes: Iterable[m.Write], pasts: Iterable[tuple[str, Past]]) -> None:
        """Bring back a space from disk, before it is used.

        Args:
            space: With ``placement``, ``voted``, ``seen`` and ``n``.
            writes: All that were kept, oldest first.
            pasts: (key, entry) of the histories, oldest first.
        """
        ground = self._ground
        for write in writes:
            delta = decode(write.delta)
            held = space.keys.get(write.key)
            if held is None:
                held = space.keys[write.key] = Held(self._ground.config.history_max)
                ground.keys += 1
            before = held.bytes
            held.keep(write.mark(), write, delta, merge(held.cell, delta))
            self._grow(space, held.bytes - before)
            space.publics.setdefault(write.dot.writer, write.writer)
            space.touch(write.key)
            ground.clock.last = max(ground.clock.last, write.stamp)
        for key, past in pasts:
            if key in space.keys:
                space.keys[key].past.append(past)
        if space.placement is not None:
            space.holders = tuple(nodes_of(space.placement.holders))
            space.ready = not space.placement.before or ground.public in space.placement.before
        space.reserved = space.n
        space.seen = space.seen.up_to(Dot(ground.writer, space.n)) if space.n else space.seen
        ground.spaces[space.name] = space

    def forget(self, name: str) -> None:
        """Drop a space from memory, because the disk did not take what was written; ``restore`` brings it back as it is there."""
        space = self._ground.spaces.pop(name, None)
        if space is not None:
            self._ground.keys -= len(space.keys)
            self._ground.bytes -= space.bytes
        self.unsent.pop(name, None)
        self._ground.drop_later(name)

    def write(self, wanted: LocalWrite, now_s: float, out: Outbox) -> int:
        """Do a local write and return its number. Raises MeshError: nothing was done."""
        ground = self._ground
        space = self._ground.spaces[wanted.space]
        held = space.keys.get(wanted.key)
        cell = None if held is None else held.cell
        dot = Dot(ground.writer, space.n + 1)
        merged, delta = apply(cell, wanted.op, dot, ground.clock.tick(ground.wall_ms(now_s)))
        past = past_of_op(cell, wanted.op, delta, dot)
        delta = tell_dead(merged, delta)
        if (
            held is not None
            and sum(w.writer == ground.public for w in held.writes.values()) >= self._ground.config.key_writes_max
        ):
            delta = self._fold(held, delta)
        write = m.Write(ground.public, ground.birth, dot.n, delta.stamp, wanted.key, encode(delta), note_of(past))
        held = self._room(space, wanted.key, write)
        ground.clock.last = max(ground.clock.last, delta.stamp)
        space.n = dot.n
        if dot.n > space.reserved:
            space.reserved = dot.n + _RESERVED
        self._keep(space, held, write.mark(), write, delta, merged, out)
        space.note_run(m.Run(ground.writer, dot.n - 1, dot.n), self._ground.config.writers_max)
        if not m.is_local(space.name):
            self.unsent.setdefault(space.name, []).append(Unsent(ground.made, write, delta))
        return dot.n

    def _fold(self, held: Held, delta: Cell) -> Cell:
        """Put this node's own writes to a key together with the new one, so that their number stays bounded."""
        folded = delta
        for write in held.writes.values():
            if write.writer == self._ground.public and write.birth == self._ground.birth:
                joined = merge(folded, decode(write.delta))
                if joined.cost > _FOLD_BYTES_MAX:
                    break
                folded = joined
        return folded

    def _room(self, space: Space, key: str, write: m.Write) -> Held:
        """Return the key, made if need be. Raises LimitError: there is no room."""
        ground, config = self._ground, self._ground.config
        held = space.keys.get(key)
        if held is None and ground.keys >= config.keys_max:
            raise LimitError(f"{config.keys_max} keys are held here, over all spaces", code="state.full")
        if ground.bytes + write.size() > config.bytes_max:
            raise LimitError(f"{config.bytes_max} bytes of shared state are held here", code="state.full")
        if held is not None and held.bytes + write.size() > config.key_bytes_max:
            raise LimitError(f"the writes of one key take at most {config.key_bytes_max} bytes", code="state.cell_full")
        if held is None:
            held = space.keys[key] = Held(config.history_max)
            ground.keys += 1
        return held

    def _keep(
        self,
        space: Space,
        held: Held,
        mark: bytes,
        write: m.Write,
        delta: Cell,
        merged: Cell,
        out: Outbox,
    ) -> None:
        before = held.bytes
        dropped = held.keep(mark, write, delta, merged)
        self._grow(space, held.bytes - before)
        past = past_of(write)
        held.past.append(past)
        space.publics[write.dot.writer] = write.writer
        space.touch(write.key)
        self._ground.keep(KeepWrite(space.name, write.key, mark, write, past, tuple(dropped), space.reserved), out)
        out.emit(Changed(space.name, write.key))

    def _grow(self, space: Space, size: int) -> None:
        space.bytes += size
        self._ground.bytes += size

    def take(self, space: Space, write: m.Write, now_s: float, out: Outbox) -> bool:
        ground = self._ground
        held = space.keys.get(write.key)
        mark = write.mark()
        if held is not None and mark in held.writes:
            return False
        if not m.is_key(write.key) or len(write.writer) != 32 or len(write.birth) != m.BIRTH_BYTES:
            raise DecodeError("a write of what can be no key or writer", code="state.malformed")
        if len(write.note) > m.NOTE_BYTES_MAX or not 0 < write.n < 2**62:
            raise DecodeError("a write with a number or note that cannot be", code="state.malformed")
        delta = read_delta(write)
        merged = is_news(held, delta)
        if merged is None:
            return False
        ground.verify(write.writer, write.signed_bytes(space.name), write.signature)
        ground.clock.observe(write.stamp, ground.wall_ms(now_s))
        if write.writer == ground.public and write.birth == ground.birth and write.n > space.n:
            space.n = space.reserved = write.n  # ours, from before our disk was set back: never use the number again
        held = self._room(space, write.key, write)
        self._keep(space, held, mark, write, delta, merged, out)
        return True
