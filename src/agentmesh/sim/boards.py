"""The replicas of a world and what their driver does: disks, streams, the DHT's word on who holds what.

Beside the brains and unknown to them: a scenario without a "state" measure has none of this. Who is there, and who holds a
space, is asked of the brains, as ``node.state`` does. Signatures cost nothing here (docs/spec/simulator.md §5).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from agentmesh.core.machine import Outbox, PeerMisbehaved
from agentmesh.core.messages import (
    Advertise,
    Lookup,
    LookupDone,
    LookupHit,
    PeerDown,
    PeerUp,
    Received,
    WallClock,
)
from agentmesh.core.state.config import StateConfig
from agentmesh.core.state.inputs import Done, Flushed, FlushWanted, Members, Places, PlacesWanted
from agentmesh.core.state.messages import BIRTH_BYTES, StateMessage
from agentmesh.core.state.placement import space_key
from agentmesh.core.state.replica import Replica
from agentmesh.ids import AgentId, NodeId, public_key_of
from agentmesh.sim.duties import UNIX_S
from agentmesh.sim.node import DOWN, PAUSED, UP, SimNode
from agentmesh.sim.post import Stream
from agentmesh.sim.spaces import cheap_signature, restore_from, verify_cheap

if TYPE_CHECKING:
    from agentmesh.sim.world import World

#: How often a driver looks round, how long a flush takes, and until a paused process is tried again.
_LOOK_S = 1.0
_DISK_S = 0.003
_PAUSED_S = 0.05
_LOOKUPS_FROM = 1 << 52
_WHOLE_MIN = 8
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StateMessage).decode


class Board:
    """One node's replicas and what is on its disk.

    Attributes:
        node: The node.
        replica: Of this run.
        life: The run.
        records: On disk.
        streams: By the index of the peer.
        held: Spaces that the DHT was told of.
    """

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.records: list[Any] = []
        self.life = -1
        self.replica: Replica | None = None
        self.streams: dict[int, Stream] = {}
        self.held: tuple[str, ...] = ()


class Boards:
    """All boards.

    Args:
        world: The world.
        config: Knobs of the replicas.

    Attributes:
        boards: By the index of the node.
        done: ``Done`` by ref.
        messages, message_bytes: Sent.
    """

    def __init__(self, world: World, config: StateConfig) -> None:
        self._world, self._config = world, config
        self.boards = [Board(node) for node in world.nodes]
        self.done: dict[int, tuple[float, Done]] = {}
        self.messages = self.message_bytes = 0
        self._lookups: dict[int, tuple[int, str, dict[NodeId, None]]] = {}
        self._queries = _LOOKUPS_FROM
        world.on_event.setdefault(LookupHit, []).append(self._on_hit)
        world.on_event.setdefault(LookupDone, []).append(self._on_looked_up)
        world.every(_LOOK_S, self._look_round)

    def running(self) -> list[Board]:
        """Return the boards of honest nodes that run."""
        return [self.boards[n.index] for n in self._world.honest() if self.boards[n.index].life == n.life]

    # Inputs and effects

    def feed(self, board: Board, incoming: Any) -> None:
        """Give a replica an input and carry out what it wants."""
        if board.replica is None or board.life != board.node.life:
            return
        world, out = self._world, Outbox()
        world.trace(board.node, incoming)
        board.replica.handle(incoming, world.now_s, out)
        board.records += out.records
        for delay_s, timer in out.timers:
            self._at(board, delay_s + 1e-6, lambda timer=timer: self.feed(board, timer))
        for send in out.sends:
            self._send(board, world.by_id[send.to].index, send.message)
        for event in out.events:
            self._on_event(board, event)

    def _at(self, board: Board, delay_s: float, what: Callable[[], None]) -> None:
        node, life = board.node, board.life

        def now() -> None:
            if node.life != life or node.state == DOWN:
                return
            if node.state == PAUSED:
                self._world.call(_PAUSED_S, now)
            else:
                what()

        self._world.call(delay_s, now)

    def _on_event(self, board: Board, event: Any) -> None:
        match event:
            case Done():
                self.done[event.ref] = (self._world.now_s, event)
            case FlushWanted():
                self._at(board, _DISK_S, lambda: self.feed(board, Flushed(event.upto)))
            case PlacesWanted():
                self._queries += 1
                self._lookups[self._queries] = (board.node.index, event.space, {})
                self._world.feed(board.node, Lookup(self._queries, space_key(event.space), 8))
            case PeerMisbehaved():
                self._world.violate(f"an honest replica is blamed: {event.code} {event.detail}", board.node)
            case _:
                pass

    def _on_hit(self, node: SimNode, hit: LookupHit) -> None:
        found = self._lookups.get(hit.query)
        if found is not None and found[0] == node.index:
            found[2].update(dict.fromkeys(provider.node_id for provider in hit.providers))

    def _on_looked_up(self, node: SimNode, done: LookupDone) -> None:
        found = self._lookups.pop(done.query, None)
        if found is not None and found[0] == node.index:
            self.feed(self.boards[node.index], Places(found[1], tuple(found[2])))

    # What a driver does each second

    def _look_round(self) -> None:
        for board in self.boards:
            node = board.node
            if node.state == UP and board.life != node.life:
                self._start(board)
            if node.state != UP or board.replica is None:
                continue
            for stream in list(board.streams.values()):
                self._tend(stream)
            self.feed(board, WallClock(self._wall_s(node)))
            self.feed(board, self._members(board))
            self._advertise(board)

    def _start(self, board: Board) -> None:
        """Begin a run from what is on disk."""
        node, world = board.node, self._world
        board.life, board.streams, board.held = node.life, {}, ()
        public = public_key_of(node.node_id)
        rng = random.Random(f"board/{world.seed}/{node.index}/{node.life}")  # noqa: S311 a simulation
        birth = hashlib.sha256(public).digest()[:BIRTH_BYTES]
        board.replica = Replica(
            node.node_id, self._config, rng, birth, lambda raw: cheap_signature(public, raw), verify_cheap
        )
        self.feed(board, WallClock(self._wall_s(node)))
        restore_from(board.replica, board.records)

    def _wall_s(self, node: SimNode) -> float:
        return UNIX_S + self._world.now_s + node.skew_s

    def _members(self, board: Board) -> Members:
        brain = board.node.brain
        watched = [view.node for view in brain.swim.members() if view.state == "alive"]
        nodes = tuple(dict.fromkeys((*brain.neighbours(), *watched)))
        cut = brain.cut_off()
        whole = brain.dht.size_estimate() <= max(_WHOLE_MIN, 1.5 * (len(nodes) + 1))
        return Members(nodes, cut is None or 2 * cut.lost < cut.known, whole)

    def _advertise(self, board: Board) -> None:
        replica = board.replica
        assert replica is not None
        held = tuple(name for name, space in replica.spaces.items() if replica.ground.holds(space))
        if held != board.held:
            board.held = held
            keys = tuple(space_key(name) for name in held)
            self._world.feed(board.node, Advertise(AgentId(board.node.node_id), keys))

    # Streams

    def _send(self, board: Board, peer: int, message: Any) -> None:
        stream = board.streams.get(peer)
        if stream is None:
            self._dial(board, peer, message)
            return
        self._carry(board, stream, message)

    def _dial(self, board: Board, peer: int, message: Any) -> None:
        world, a, b = self._world, board.node, self._world.nodes[peer]
        other = self.boards[peer]
        if b.state != UP or other.life != b.life or not world.carriage.passes(a, b) or not world.carriage.passes(b, a):
            return
        life, trip_us = b.life, world.ether.delay_us(a, b) + world.ether.delay_us(b, a)

        def connect() -> None:
            if b.life != life or b.state != UP or not world.carriage.passes(a, b):
                return
            if peer not in board.streams:
                old = other.streams.get(a.index)
                if old is not None:
                    self._break(old)
                stream = board.streams[peer] = other.streams[a.index] = Stream(a, b)
                for end, node in ((board, b), (other, a)):
                    if end.streams.get(node.index) is stream:
                        self.feed(end, PeerUp(node.node_id))
            if peer in board.streams:
                self._carry(board, board.streams[peer], message)

        self._at(board, trip_us * 1e-6, connect)

    def _carry(self, board: Board, stream: Stream, message: Any) -> None:
        """Send a message over a stream; packets that are lost come later, in order."""
        world, ether, node = self._world, self._world.ether, board.node
        peer = stream.other(node)
        raw = _encode(message)
        self.messages += 1
        self.message_bytes += len(raw)
        node.bytes_out += len(raw)
        side = 0 if stream.a is node else 1
        delay_us = ether.delay_us(node, peer)
        at_us = max(world.now_us + delay_us + ether.resent_us(delay_us), stream.ready_us[side] + 1)
        stream.ready_us[side] = at_us
        other = self.boards[peer.index]

        def arrive() -> None:
            if other.streams.get(node.index) is not stream:
                return
            if not world.carriage.passes(node, peer):
                self._break(stream)  # what a stream lost it does not forget
                return
            self.feed(other, Received(node.node_id, _decode(raw), by_link=True))

        if stream.is_current(peer) and peer.state != DOWN:
            self._at(other, (at_us - world.now_us) * 1e-6, arrive)

    def _tend(self, stream: Stream) -> None:
        """Break a stream that was silent for the idle timeout."""
        world, a, b = self._world, stream.a, stream.b
        fine = all(end.state == UP and stream.is_current(end) for end in (a, b))
        if fine and world.carriage.passes(a, b) and world.carriage.passes(b, a):
            stream.silent_s = None
        elif stream.silent_s is None:
            stream.silent_s = world.now_s
        elif world.now_s - stream.silent_s >= world.scenario.links.idle_timeout_s:
            self._break(stream)

    def _break(self, stream: Stream) -> None:
        for end in (stream.a, stream.b):
            board, peer = self.boards[end.index], stream.other(end)
            if stream.is_current(end) and board.life == end.life and board.streams.get(peer.index) is stream:
                del board.streams[peer.index]
                self.feed(board, PeerDown(peer.node_id))

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of a replica is broken."""
        for board in self.running():
            if board.replica is not None:
                board.replica.assert_invariants()
