"""A small world of replicas of shared state: virtual time, ordered streams that break, disks that lose what was not flushed.

It drives ``core.state.replica`` alone, with signatures that cost nothing, so that a thousand histories take seconds. Tests,
the measure "state" and the checkers of histories use it (docs/spec/simulator.md §6).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

import msgspec

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.core.messages import PeerDown, PeerUp, Received, WallClock
from agentmesh.core.state.causality import VersionVector
from agentmesh.core.state.config import StateConfig
from agentmesh.core.state.inputs import (
    Done,
    Flushed,
    FlushWanted,
    KeepSpace,
    KeepWrite,
    LocalRead,
    LocalWrite,
    Members,
)
from agentmesh.core.state.messages import BIRTH_BYTES, StateMessage, Write
from agentmesh.core.state.replica import Replica
from agentmesh.core.state.space import Space
from agentmesh.errors import SignatureError
from agentmesh.ids import NodeId, did_of, public_key_of

UNIX_S = 1_800_000_000.0
_codec = msgspec.msgpack.Decoder(StateMessage)
_encode = msgspec.msgpack.Encoder().encode


def cheap_signature(public: bytes, message: bytes) -> bytes:
    """Return what stands for a signature here: anybody could make it, and nobody in this world does."""
    return hashlib.sha256(public + message).digest() * 2


def verify_cheap(public: bytes, message: bytes, signature: bytes) -> None:
    if signature != cheap_signature(public, message):
        raise SignatureError("forged", code="signature.invalid")


class Disk:
    """What a node has written down: ``kept`` outlasts a killed process, ``flushed`` also a power cut."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.flushed = 0

    def cut_power(self) -> None:
        """Lose what was not brought to disk."""
        del self.records[self.flushed :]


class Seat:
    """One node of the world.

    Attributes:
        index, node_id: Which.
        replica: Its machine; another one after each start.
        disk: Survives a crash.
        up: It runs.
        life: Counts its starts.
        skew_s: Of its wall clock.
    """

    def __init__(self, index: int, seed: int) -> None:
        self.index = index
        public = hashlib.sha256(f"state/{seed}/{index}".encode()).digest()
        self.node_id = NodeId(did_of(public))
        self.disk = Disk()
        self.up = False
        self.life = 0
        self.skew_s = 0.0
        self.replica: Replica
        self.out = Outbox()
        self.peers: dict[int, int] = {}


class SpacesWorld:
    """Nodes that share state.

    Args:
        size: How many.
        seed: The only source of chance.
        config: Knobs of every replica.
        delay_s: One-way delay, uniform between these.
        break_s: How long a stream over a cut takes to be given up.

    Attributes:
        now_s: Virtual time.
        seats: The nodes.
        done: ``Done`` by ref, as they came.
        misbehaved: What replicas held against each other; must stay empty among honest nodes.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        config: StateConfig | None = None,
        *,
        delay_s: tuple[float, float] = (0.001, 0.01),
        break_s: float = 5.0,
    ) -> None:
        self.config = config or StateConfig()
        self.rng = random.Random(f"spaces/{seed}")  # noqa: S311 a simulation
        self.now_s = 0.0
        self.seats = [Seat(i, seed) for i in range(size)]
        self.by_id = {seat.node_id: seat for seat in self.seats}
        self.done: dict[int, Done] = {}
        self.misbehaved: list[tuple[int, PeerMisbehaved]] = []
        self.on_done: Callable[[int, Done], None] = lambda _seat, _done: None
        #: Told of every other event of a replica.
        self.on_event: Callable[[int, Any], None] = lambda _seat, _event: None
        self._delay_s, self._break_s = delay_s, break_s
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = self._refs = 0
        self._sides: list[int] = [0] * size
        self._held: list[Callable[[], None]] = []
        self._last_s: dict[tuple[int, int], float] = {}
        for seat in self.seats:
            self.start(seat.index)
        self.call(0.0, self._look_round)

    # Time

    def call(self, delay_s: float, function: Callable[[], None]) -> None:
        """Call a function ``delay_s`` from now."""
        self._count += 1
        heappush(self._heap, (self.now_s + delay_s, self._count, function))

    def run(self, for_s: float) -> None:
        """Let everything happen for so long."""
        until_s = self.now_s + for_s
        while self._heap and self._heap[0][0] <= until_s:
            self.now_s, _, function = heappop(self._heap)
            function()
        self.now_s = until_s

    # Nodes

    def start(self, index: int) -> None:
        """Start a node that is down, from its disk."""
        seat = self.seats[index]
        seat.life += 1
        seat.up = True
        seat.peers = {}
        public = public_key_of(seat.node_id)
        birth = hashlib.sha256(public).digest()[:BIRTH_BYTES]
        seat.replica = Replica(
            seat.node_id,
            self.config,
            random.Random(f"{index}/{seat.life}"),  # noqa: S311 a simulation
            birth,
            lambda message: cheap_signature(public, message),
            verify_cheap,
        )
        self.feed(index, WallClock(UNIX_S + self.now_s + seat.skew_s))
        restore_from(seat.replica, seat.disk.records)
        for other in self.seats:
            if other is not seat and other.up and self.passes(index, other.index):
                self._connect(seat, other)

    def stop(self, index: int, *, power: bool = False) -> None:
        """Kill a node; with ``power``, what was not flushed is lost."""
        seat = self.seats[index]
        seat.up = False
        seat.life += 1
        if power:
            seat.disk.cut_power()
        for other in list(seat.peers):
            self._drop(self.seats[other], index)
        seat.peers = {}

    def cut(self, *sides: Sequence[int]) -> None:
        """Part the nodes: each group hears its own members only. Nodes that are named nowhere are a group of their own."""
        self._sides = [0] * len(self.seats)
        for number, side in enumerate(sides, 1):
            for index in side:
                self._sides[index] = number
        for seat in self.seats:
            for other in list(seat.peers):
                if not self.passes(seat.index, other):
                    life = seat.peers[other]
                    self.call(self._break_s, lambda seat=seat, other=other, life=life: self._give_up(seat, other, life))

    def heal(self) -> None:
        """Let everybody hear everybody again; links come up within a second."""
        self._sides = [0] * len(self.seats)
        held, self._held = self._held, []
        for arrive in held:
            arrive()

    def break_link(self, one: int, other: int) -> None:
        """Break the stream of two nodes with all that is on its way; another comes up within a second."""
        self._drop(self.seats[one], other)
        self._drop(self.seats[other], one)

    def passes(self, one: int, other: int) -> bool:
        """Say whether messages pass between two nodes."""
        return self._sides[one] == self._sides[other]

    def _give_up(self, seat: Seat, other: int, life: int) -> None:
        if seat.peers.get(other) == life and not self.passes(seat.index, other):
            self._drop(seat, other)

    def _drop(self, seat: Seat, other: int) -> None:
        if seat.peers.pop(other, None) is not None and seat.up:
            self.feed(seat.index, PeerDown(self.seats[other].node_id))

    def _connect(self, one: Seat, other: Seat) -> None:
        self._refs += 1
        for seat, peer in ((one, other), (other, one)):
            if seat.peers.pop(peer.index, None) is not None:
                self.feed(seat.index, PeerDown(peer.node_id))
        for seat, peer in ((one, other), (other, one)):
            seat.peers[peer.index] = self._refs
        for seat, peer in ((one, other), (other, one)):
            self.feed(seat.index, PeerUp(peer.node_id))

    def _look_round(self) -> None:
        """Bring links up that can be, and tell every node who is there, as SWIM does."""
        for seat in self.seats:
            if not seat.up:
                continue
            for other in self.seats:
                if other.up and other is not seat and self.passes(seat.index, other.index):
                    mine, theirs = seat.peers.get(other.index), other.peers.get(seat.index)
                    if mine is None or mine != theirs:
                        self._connect(seat, other)
            there = [self.seats[i].node_id for i in sorted(seat.peers)]
            sure = len(there) + 1 > len(self.seats) / 2
            self.feed(seat.index, WallClock(UNIX_S + self.now_s + seat.skew_s))
            self.feed(seat.index, Members(tuple(there), sure))
        self.call(1.0, self._look_round)

    # Inputs and effects

    def write(self, index: int, wanted: Callable[[int], LocalWrite | LocalRead]) -> int:
        """Give a node a local read or write, made with its ref; return the ref."""
        self._refs += 1
        ref = self._refs
        self.feed(index, wanted(ref))
        return ref

    def feed(self, index: int, incoming: Any) -> None:
        """Give a node an input and carry out what it wants."""
        seat = self.seats[index]
        out = Outbox()
        seat.replica.handle(incoming, self.now_s, out)
        seat.disk.records += out.records
        life = seat.life
        for delay_s, timer in out.timers:
            self.call(delay_s, lambda timer=timer: self._timed(seat, life, timer))
        for send in out.sends:
            self._send(seat, self.by_id[send.to], send.message)
        for event in out.events:
            self._event(seat, life, event)

    def _timed(self, seat: Seat, life: int, timer: Timer) -> None:
        if seat.up and seat.life == life:
            self.feed(seat.index, timer)

    def _send(self, seat: Seat, to: Seat, message: Any) -> None:
        stream = seat.peers.get(to.index)
        if stream is None:
            return
        raw = _encode(message)
        at_s = self.now_s + self.rng.uniform(*self._delay_s)
        at_s = max(at_s, self._last_s.get((seat.index, to.index), 0.0))  # in order
        self._last_s[seat.index, to.index] = at_s

        def arrive() -> None:
            if not to.up or to.peers.get(seat.index) != stream:
                return
            if not self.passes(seat.index, to.index):
                self._held.append(arrive)  # a stream sends it again until it gets through, or breaks
                return
            self.feed(to.index, Received(seat.node_id, _codec.decode(raw), by_link=True))

        self.call(at_s - self.now_s, arrive)

    def _event(self, seat: Seat, life: int, event: Any) -> None:
        match event:
            case FlushWanted():
                count = len(seat.disk.records)
                self.call(self.rng.uniform(0.0005, 0.004), lambda: self._flush(seat, life, count, event.upto))
            case Done():
                self.done[event.ref] = event
                self.on_done(seat.index, event)
            case PeerMisbehaved():
                self.misbehaved.append((seat.index, event))
            case _:
                self.on_event(seat.index, event)

    def _flush(self, seat: Seat, life: int, count: int, upto: int) -> None:
        if seat.up and seat.life == life:
            seat.disk.flushed = max(seat.disk.flushed, count)
            self.feed(seat.index, Flushed(upto))

    # Findings

    def digests(self, space: str) -> dict[int, int]:
        """Return the digest of a space at every node that runs and has it."""
        return {
            seat.index: seat.replica.spaces[space].total()
            for seat in self.seats
            if seat.up and space in seat.replica.spaces
        }

    def run_until(self, condition: Callable[[], bool], limit_s: float, step_s: float = 0.05) -> float | None:
        """Let things happen until a condition holds; return after how long, None if it does not within the limit."""
        began_s = self.now_s
        while not condition():
            if self.now_s - began_s >= limit_s:
                return None
            self.run(step_s)
        return self.now_s - began_s


def restore_from(replica: Replica, records: Sequence[Any]) -> None:
    """Bring back all spaces from the records that a replica made, as the store does from its tables."""
    spaces: dict[str, Space] = {}
    writes: dict[str, dict[tuple[str, bytes], Write]] = {}
    pasts: dict[str, list[tuple[str, Any]]] = {}
    for record in records:
        space = spaces.setdefault(record.space, Space(record.space))
        if isinstance(record, KeepSpace):
            space.placement, space.voted = record.placement, record.voted
            space.seen = VersionVector.decode(record.seen)
        elif isinstance(record, KeepWrite):
            kept = writes.setdefault(record.space, {})
            for mark in record.dropped:
                kept.pop((record.key, mark), None)
            kept[record.key, record.mark] = record.write
            space.n = max(space.n, record.n)
            pasts.setdefault(record.space, []).append((record.key, record.past))
    for name, space in spaces.items():
        replica.shelf.restore(space, writes.get(name, {}).values(), pasts.get(name, []))
