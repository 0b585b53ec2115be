"""The replicas of one node: local writes, writes of others, and their spread (docs/spec/state.md §5–8).

A write takes effect here at once. It is signed and leaves only when it is on disk, so that no node ever uses a number
twice that others have seen. It goes to the holders of its space, and from one of them to each node that follows it. What
is lost on the way is found by comparing (``compare``).
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.core.messages import PeerDown, PeerUp, Received, WallClock
from agentmesh.core.state import messages as m
from agentmesh.core.state.cell import merge
from agentmesh.core.state.compare import Compare
from agentmesh.core.state.config import StateConfig
from agentmesh.core.state.ground import Ground, Sign, Verify
from agentmesh.core.state.holders import Holders
from agentmesh.core.state.inputs import (
    Done,
    Flushed,
    LocalRead,
    LocalWrite,
    Members,
    Places,
    Refusal,
    Use,
)
from agentmesh.core.state.levels import ConsistencyLevel
from agentmesh.core.state.placement import majority
from agentmesh.core.state.shelf import Shelf, Unsent
from agentmesh.core.state.space import Space
from agentmesh.core.state.waits import Waits
from agentmesh.errors import DecodeError, LimitError, MeshError, SignatureError
from agentmesh.ids import NodeId

#: How often a gap in a writer's numbers may begin a comparison with who showed it, seconds.
_GAP_S = 1.0


class Replica:
    """The spaces of one node.

    Args:
        node_id: This node.
        config: Knobs.
        rng: The only source of chance.
        birth: Random bytes of the store (``causality.writer_of``).
        sign, verify: Ed25519 with this node's key, and with others'; ``verify`` raises SignatureError.
    """

    def __init__(
        self, node_id: NodeId, config: StateConfig, rng: random.Random, birth: bytes, sign: Sign, verify: Verify
    ) -> None:
        self.node_id, self.config = node_id, config
        self.ground = Ground(node_id, config, rng, birth, sign, verify)
        self.holders = Holders(self.ground, self._on_placed, self._on_followed)
        self.compare = Compare(self.ground, self._on_seen)
        self.shelf = Shelf(self.ground)
        self.waits = Waits(self.ground, self.shelf.write, self._compare_with_some)
        self._asks: dict[int, tuple[str, int, int]] = {}
        self._next_ask = 0
        self._gap_s: dict[str, float] = {}
        self._is_ticking = False

    @property
    def spaces(self) -> dict[str, Space]:
        """The spaces of which this node has a replica; read-only."""
        return self.ground.spaces

    def handle(self, incoming: Any, now_s: float, out: Outbox) -> None:
        """Take one input at monotonic time ``now_s`` (seconds) and write effects; WallClock must come first."""
        match incoming:
            case LocalWrite():
                self._on_local_write(incoming, now_s, out)
            case LocalRead():
                self._on_local_read(incoming, now_s, out)
            case Received():
                self._receive(incoming.peer, incoming.message, now_s, out)
            case Flushed():
                self._on_flushed(incoming.upto, now_s, out)
            case Timer():
                self._on_timer(incoming, now_s, out)
            case PeerUp():
                self._on_up(incoming.peer, now_s, out)
            case PeerDown():
                self._on_down(incoming.peer)
            case Members():
                self._on_members(incoming, now_s, out)
            case WallClock():
                self.ground.set_clock(incoming.unix_s, now_s)
            case Use():
                self._use(incoming.space, now_s, out)
            case Places():
                space = self.spaces.get(incoming.space)
                if space is not None:
                    self.holders.on_places(space, incoming.nodes, out)
            case _:
                pass
        if self.ground.made > self.ground.flushed:
            self.ground.want_flush(out)

    # Local reads and writes

    def _use(self, name: str, now_s: float, out: Outbox) -> Space:
        m.check_names(name)
        space = self.spaces.get(name)
        if space is None:
            if len(self.spaces) >= self.config.spaces_max:
                raise LimitError(f"{self.config.spaces_max} spaces are in use here", code="state.spaces")
            space = self.spaces[name] = Space(name)
            if m.is_local(name):
                space.ready = True
            self.holders.seek(space, out)
            self._tick(out)
        return space

    def _on_local_write(self, wanted: LocalWrite, now_s: float, out: Outbox) -> None:
        try:
            space = self._use(wanted.space, now_s, out)
            m.check_names(wanted.space, wanted.key)
            if wanted.level == ConsistencyLevel.LOCAL:
                self.shelf.write(wanted, now_s, out)
        except MeshError as error:
            out.emit(Done(wanted.ref, error))
            return
        if wanted.level == ConsistencyLevel.LOCAL:
            out.emit(Done(wanted.ref))
        else:
            self._wait(wanted, space, now_s, out)

    def _on_local_read(self, wanted: LocalRead, now_s: float, out: Outbox) -> None:
        try:
            space = self._use(wanted.space, now_s, out)
            m.check_names(wanted.space, wanted.key)
        except MeshError as error:
            out.emit(Done(wanted.ref, error))
            return
        if wanted.level == ConsistencyLevel.LOCAL:
            out.emit(Done(wanted.ref))
        else:
            self._wait(wanted, space, now_s, out)

    def _wait(self, wanted: LocalRead | LocalWrite, space: Space, now_s: float, out: Outbox) -> None:
        if space.placement is None:
            self.holders.seek(space, out)
        self.waits.begin(wanted, space, now_s, out)

    # Spread

    def _on_flushed(self, upto: int, now_s: float, out: Outbox) -> None:
        self.ground.on_flushed(upto, out)
        for name, unsent in list(self.shelf.unsent.items()):
            count = bisect_right(unsent, self.ground.flushed, key=lambda one: one.made)
            space = self.spaces.get(name)
            if count and space is not None:
                self._send_own(space, unsent[:count], out)
            if count < len(unsent):
                self.shelf.unsent[name] = unsent[count:]
            else:
                del self.shelf.unsent[name]

    def _send_own(self, space: Space, unsent: list[Unsent], out: Outbox) -> None:
        """Send this node's writes to the holders and, as a holder, to the followers; what a later one holds is left out."""
        ground = self.ground
        targets = ground.up_holders(space)
        if ground.holds(space):
            targets += [node for node in space.followers if node in ground.up and node not in targets]
        first, top = unsent[0].write.n, unsent[-1].write.n
        last_of: dict[str, Unsent] = {one.write.key: one for one in unsent}
        needed = [
            one.write
            for one in unsent
            if (last := last_of[one.write.key]) is one or merge(last.delta, one.delta) is not last.delta
        ]
        is_asked = bool(self.waits.asks_of(space, first - 1, top))
        if ground.answers(space):
            self.waits.on_acked(self.node_id, space, first - 1, top, 0, out)
        base = first - 1
        if not targets:
            return
        while needed:
            batch, size = [needed.pop(0)], 0
            while needed and len(batch) < self.config.batch_max and size < self.config.batch_bytes_max:
                size += batch[-1].size()
                batch.append(needed.pop(0))
            reached = batch[-1].n if needed else top
            batch = [ground.signed(space, write) for write in batch]
            run = m.Run(ground.writer, base, reached)
            for node in targets:
                ask = self._ask_for(space, base, reached) if is_asked and node in space.holders else 0
                out.send(node, m.Writes(space.name, batch, ask, space.place, run))
            base = reached

    def _ask_for(self, space: Space, base: int, top: int) -> int:
        self._next_ask += 1
        self._asks[self._next_ask] = (space.name, base, top)
        while len(self._asks) > self.config.waiting_max:
            del self._asks[next(iter(self._asks))]
        return self._next_ask

    def _receive(self, peer: NodeId, message: m.StateMessage, now_s: float, out: Outbox) -> None:
        if peer not in self.ground.up:
            return  # a stream that is gone
        match message:
            case m.Seek():
                self.holders.on_seek(peer, message, out)
                return
            case m.Unplaced():
                self.holders.on_unplaced(peer, message, now_s, out)
                return
            case m.Placed():
                self.holders.on_placed(peer, message, now_s, out)
                self._tick(out)
                return
            case m.Propose():
                self.holders.on_propose(peer, message, out)
                return
            case m.Voted():
                self.holders.on_voted(peer, message, now_s, out)
                return
            case _:
                pass
        space = self.spaces.get(message.space)
        if space is None or m.is_local(message.space):
            if isinstance(message, m.Writes) and message.ask:
                out.send(peer, m.Acked(message.space, message.ask, 1))
            elif isinstance(message, m.Ask):
                out.send(peer, m.Told(message.space, message.ask, [], (), 1))
            return
        match message:
            case m.Writes():
                self._on_writes(peer, space, message, now_s, out)
            case m.Acked():
                self._on_acked(peer, message, out)
            case m.Ask():
                self._on_ask(peer, space, message, out)
            case m.Told():
                self._on_told(peer, space, message, now_s, out)
            case m.Follow():
                self._on_follow(peer, space, message, out)
            case _:
                self.compare.handle(peer, space, message, now_s, out)

    def _on_writes(self, peer: NodeId, space: Space, message: m.Writes, now_s: float, out: Outbox) -> None:
        news, is_taken = self._take(peer, space, message.writes, now_s, out)
        run = message.run if is_taken else None
        if run is not None and not self._note_run(peer, space, run, now_s, out):
            run = None
        if message.ask:
            status = self._status(space, message.place) if is_taken else 3
            self.ground.send_flushed(peer, m.Acked(space.name, message.ask, status), out)
            if status == 1 and space.placement is not None:
                out.send(peer, m.Placed(space.name, space.placement))
        if news and self.ground.holds(space):
            forwarded = m.Writes(space.name, news, 0, space.place, run)
            # Who writes sends to all holders; what only a comparison brought, the others may lack.
            targets = (*space.followers, *(space.holders if message.run is None else ()))
            for node in dict.fromkeys(targets):
                if node != peer and node in self.ground.up:
                    out.send(node, forwarded)
        if news:
            self.waits.on_seen(space, now_s, out)

    def _status(self, space: Space, place: int) -> int:
        """Say whether this node counts for QUORUM, in the words of ``Acked``."""
        if place != space.place or not self.ground.holds(space) or space.voted is not None:
            return 1
        return 0 if space.ready else 2

    def _note_run(self, peer: NodeId, space: Space, run: m.Run, now_s: float, out: Outbox) -> bool:
        if len(run.writer) != 16 or not 0 <= run.base < run.top < 2**62 or run.writer == self.ground.writer:
            out.emit(PeerMisbehaved(peer, "state.version", "a run of writes that cannot be"))
            return False
        try:
            is_gapless = space.note_run(run, self.config.writers_max)
        except LimitError:
            return False
        if not is_gapless and now_s - self._gap_s.get(space.name, -_GAP_S) >= _GAP_S:
            self._gap_s[space.name] = now_s
            self.compare.begin(peer, space, now_s, out)
        return is_gapless

    def _take(
        self, peer: NodeId, space: Space, writes: Iterable[m.Write], now_s: float, out: Outbox
    ) -> tuple[list[m.Write], bool]:
        """Let writes of others in; return those that were news, and whether all are contained now."""
        news: list[m.Write] = []
        refused = False
        for write in writes:
            try:
                if self.shelf.take(space, write, now_s, out):
                    news.append(write)
            except (DecodeError, SignatureError) as error:
                refused = True
                if error.code == "state.clock":
                    out.emit(Refusal(peer, error.code, str(error)))
                    continue
                out.emit(PeerMisbehaved(peer, error.code, str(error)))
                break
            except LimitError as error:
                refused = True
                out.emit(Refusal(peer, error.code, str(error)))
        if refused:
            self.compare.note_flaw(peer, space)
        return news, not refused

    def _on_acked(self, peer: NodeId, message: m.Acked, out: Outbox) -> None:
        asked = self._asks.pop(message.ask, None)
        space = self.spaces.get(message.space)
        if asked is not None and space is not None and asked[0] == space.name:
            self.waits.on_acked(peer, space, asked[1], asked[2], message.status, out)

    def _on_ask(self, peer: NodeId, space: Space, message: m.Ask, out: Outbox) -> None:
        status = self._status(space, message.place)
        held = space.keys.get(message.key)
        ours = {} if held is None else held.writes
        theirs = frozenset(message.marks)
        missing = [self.ground.signed(space, write) for mark, write in list(ours.items()) if mark not in theirs]
        lacks = tuple(mark for mark in message.marks if mark not in ours)
        told = m.Told(space.name, message.ask, missing, lacks, status)
        if any(write.writer == self.ground.public for write in missing):
            self.ground.send_flushed(peer, told, out)
        else:
            out.send(peer, told)
        if status == 1 and space.placement is not None:
            out.send(peer, m.Placed(space.name, space.placement))

    def _on_told(self, peer: NodeId, space: Space, message: m.Told, now_s: float, out: Outbox) -> None:
        key = self.waits.key_of(message.ask)
        _, is_taken = self._take(peer, space, message.writes, now_s, out)
        self.waits.on_told(peer, message.ask, message.status if is_taken else 3, space, now_s, out)
        held = space.keys.get(key)
        if held is not None and message.lacks:  # read repair
            wanted = frozenset(message.lacks)
            repair = [write for mark, write in held.writes.items() if mark in wanted]
            self.compare.send_writes(peer, space, repair, out)

    def _on_follow(self, peer: NodeId, space: Space, message: m.Follow, out: Outbox) -> None:
        space.followers.pop(peer, None)
        if message.on and not self.ground.holds(space) and space.placement is not None:
            out.send(peer, m.Placed(space.name, space.placement))
        elif message.on and self.ground.holds(space) and len(space.followers) < self.config.followers_max:
            space.followers[peer] = None

    # Who is there

    def _on_up(self, peer: NodeId, now_s: float, out: Outbox) -> None:
        ground = self.ground
        ground.up[peer] = None
        ground.gone_s.pop(peer, None)
        for space in list(self.spaces.values()):
            if peer in space.holders and ground.holds(space):
                self.compare.begin(peer, space, now_s, out)
            elif peer in space.holders:
                self.holders.follow(space, now_s, out)
            if peer in space.holders:
                self.waits.on_seen(space, now_s, out)

    def _on_followed(self, space: Space, holder: NodeId, now_s: float, out: Outbox) -> None:
        self.compare.begin(holder, space, now_s, out)

    def _on_down(self, peer: NodeId) -> None:
        self.ground.up.pop(peer, None)
        self.holders.forget_peer(peer)
        self.compare.forget_peer(peer)
        for space in self.spaces.values():
            space.followers.pop(peer, None)

    def _on_members(self, members: Members, now_s: float, out: Outbox) -> None:
        ground = self.ground
        there = dict.fromkeys(members.nodes)
        for node in dict.fromkeys((*ground.members, *(h for s in self.spaces.values() for h in s.holders))):
            if node not in there and node not in ground.up and node != self.node_id:
                ground.gone_s.setdefault(node, now_s)
        for node in list(ground.gone_s):
            if node in there:
                del ground.gone_s[node]
        ground.members, ground.sure, ground.whole = there, members.sure, members.whole
        self._tick(out)  # spaces that came from disk are looked after from now on
        for space in self.spaces.values():
            if space.placement is None:
                self.holders.seek(space, out)

    def _on_placed(self, space: Space, now_s: float, out: Outbox) -> None:
        """Take up a space's new holders: compare with them, and go on with what waited for them."""
        if self.ground.holds(space):
            for node in self.ground.up_holders(space):
                self.compare.begin(node, space, now_s, out)
        self.waits.on_seen(space, now_s, out)

    def _on_seen(self, space: Space, now_s: float, out: Outbox) -> None:
        self.waits.on_seen(space, now_s, out)

    def _compare_with_some(self, space: Space, now_s: float, out: Outbox) -> None:
        """Compare with a majority of the holders: what one lacks another has."""
        others = self.ground.up_holders(space)
        for node in others[: majority(len(space.holders))]:
            self.compare.begin(node, space, now_s, out)

    # Time

    def _tick(self, out: Outbox) -> None:
        """Begin to look round now and then, once there is anything to look after."""
        if not self._is_ticking and self.spaces:
            self._is_ticking = True
            out.after(self.config.review_s, Timer("state.review"))
            out.after(self._compare_after_s(), Timer("state.compare"))

    def _compare_after_s(self) -> float:
        return self.config.compare_s * self.ground.rng.uniform(0.75, 1.25)

    def _on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        ground = self.ground
        if timer.name == "state.wait":
            self.waits.on_time(timer.token, out)
        elif timer.name == "state.seek":
            self.holders.on_seek_over(timer.token, now_s, out)
        elif timer.name == "state.review":
            out.after(self.config.review_s, timer)
            for space in list(self.spaces.values()):
                if not m.is_local(space.name):
                    self.holders.review(space, now_s, out)
        elif timer.name == "state.compare":
            out.after(self._compare_after_s(), timer)
            for space in list(self.spaces.values()):
                others = ground.up_holders(space) if ground.holds(space) else []
                node = ground.rng.choice(others) if others else self.holders.followed(space)
                if node is not None:
                    self.compare.begin(node, space, now_s, out)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule is broken (tests and the simulator call it)."""
        ground, config = self.ground, self.config
        assert len(self.spaces) <= config.spaces_max, "too many spaces"
        assert ground.keys == sum(len(space.keys) for space in self.spaces.values()), "keys are miscounted"
        assert ground.bytes == sum(space.bytes for space in self.spaces.values()), "bytes are miscounted"
        assert ground.bytes <= config.bytes_max, "too many bytes are held"
        assert ground.keys <= config.keys_max, "too many keys are held"
        assert max(len(self.waits), len(self._asks)) <= config.waiting_max, "too much waits"
        for space in self.spaces.values():
            assert len(space.followers) <= config.followers_max, "too many followers"
            assert len(space.seen) <= config.writers_max, "too many writers"
            for held in space.keys.values():
                assert held.cell is not None
                assert held.bytes == sum(write.size() for write in held.writes.values()), "a key's bytes are miscounted"
