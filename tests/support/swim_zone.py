"""A zone of SWIM machines on a virtual clock: lossy datagrams, links that retransmit, crashes, pauses, partitions."""

from __future__ import annotations

import heapq
import random
from typing import Any

import msgspec

from agentmesh.core.machine import Outbox, WallTime
from agentmesh.core.messages import (
    LocalNode,
    MemberAlive,
    NodeRecordWanted,
    PeerDown,
    Received,
    Watch,
)
from agentmesh.core.swim.config import SwimConfig
from agentmesh.core.swim.machine import Swim
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.node_record import NodeRecord, node_body, sign_node_record
from agentmesh.identity.reader import Reader
from agentmesh.ids import NodeId, node_id

#: The wall clock at the start.
EPOCH = 1_800_000_000
_encoder = msgspec.msgpack.Encoder()


def key(number: int) -> KeyPair:
    """Return the same key for the same number."""
    return KeyPair(number.to_bytes(32, "big"))


def signed(number: int, seq: int, *, leaving: bool = False, at: int = EPOCH, addresses: tuple[str, ...] = ()) -> bytes:
    """Sign a record of the node ``key(number)``."""
    where = addresses or (f"udp:10.0.0.{number % 250}:6374",)
    return sign_node_record(key(number), node_body(seq=seq, iat=at, wire=1, addresses=where, leaving=leaving))


class Zone:
    """Nodes that all watch each other.

    Args:
        nodes: How many.
        seed: Of everything random.
        loss: Probability that a datagram is lost, each way.
        links: False = links never deliver, only datagrams count.
        idle: True = measure and check as little as possible.
    """

    def __init__(
        self,
        nodes: int,
        seed: int,
        *,
        loss: float = 0.0,
        links: bool = True,
        idle: bool = False,
        config: SwimConfig | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.now_s = 100.0
        self.loss, self.links, self.idle = loss, links, idle
        self.config = config or SwimConfig()
        self.reader = Reader()
        self.ids: list[NodeId] = [node_id(key(7000 + n).public) for n in range(nodes)]
        self.number = {node: n for n, node in enumerate(self.ids)}
        self.machines: dict[NodeId, Swim] = {}
        self.walls: dict[NodeId, WallTime] = {}
        self.records: dict[NodeId, NodeRecord] = {}
        self.down: set[NodeId] = set()
        self.awake_s: dict[NodeId, float] = dict.fromkeys(self.ids, 0.0)
        self.waiting: dict[NodeId, list[Any]] = {}
        self.cut: dict[tuple[NodeId, NodeId], bool] = {}
        self.mute: set[NodeId] = set()  # nodes whose machine is not run: the test speaks for them
        self.events: list[tuple[float, NodeId, Any]] = []
        self.sent = 0
        self.bytes_max = 0
        self._heap: list[tuple[float, int, NodeId, Any, bool]] = []
        self._tie = 0
        self._link_free_s: dict[tuple[NodeId, NodeId], float] = {}
        for n, node in enumerate(self.ids):
            self.walls[node] = WallTime()
            self.walls[node].set(EPOCH, self.now_s)
            self.machines[node] = self.fresh(node)
            self.records[node] = self.reader.node(signed(7000 + n, 1), EPOCH)
        for node in self.ids:
            self.give(node, LocalNode(self.records[node]))
        for node in self.ids:
            for other in self.ids:
                if other != node:
                    self.give(node, Watch(self.records[other]))

    def fresh(self, node: NodeId) -> Swim:
        """Return a machine that knows nothing yet."""
        rng = random.Random(self.rng.random())
        return Swim(node, self.config, rng, self.reader, self.walls[node])

    def watch(self, node: NodeId, other: NodeId) -> None:
        """Let one node watch another."""
        self.give(node, Watch(self.records[other]))

    def peer_down(self, node: NodeId, peer: NodeId) -> None:
        """Tell a node that its last link to a peer broke."""
        self.give(node, PeerDown(peer))

    def adopt(self, node: NodeId, record: NodeRecord) -> None:
        """Give a node a record of its own that the test signed."""
        self.records[node] = record
        self.give(node, LocalNode(record))

    def give(self, node: NodeId, incoming: Any) -> None:
        """Hand an input to a machine and carry its effects out."""
        if node in self.mute:
            return
        out = Outbox()
        self.machines[node].handle(incoming, self.now_s, out)
        if not self.idle:
            self.machines[node].assert_invariants()
        for send in out.sends:
            self.send(node, send.to, send.message, link=send.link)
        for delay_s, timer in out.timers:
            self.push(self.now_s + delay_s, node, timer, False)
        for event in out.events:
            self.on_event(node, event)

    def on_event(self, node: NodeId, event: Any) -> None:
        """Do what driver and overlay would do."""
        self.events.append((self.now_s, node, event))
        if isinstance(event, NodeRecordWanted):
            old = self.records[node]
            self.sign(node, max(old.seq, event.seq_min) + 1, leaving=event.leaving)
        elif isinstance(event, MemberAlive) and all(m.node != event.node for m in self.machines[node].members()):
            self.give(node, Watch(self.records[event.node]))

    def sign(self, node: NodeId, seq: int, *, leaving: bool = False) -> None:
        """Give a node a new record of its own."""
        raw = signed(7000 + self.number[node], seq, leaving=leaving)
        self.adopt(node, self.reader.node(raw, EPOCH))

    def push(self, at_s: float, node: NodeId, what: Any, datagram: bool) -> None:
        """Let something happen to a node."""
        self._tie += 1
        heapq.heappush(self._heap, (at_s, self._tie, node, what, datagram))

    def send(self, sender: NodeId, to: NodeId, message: Any, *, link: bool = False) -> None:
        """Carry a message: lost, doubled and reordered as a datagram; late, but in order, over a link."""
        self.sent += 1
        if not self.idle:
            size = len(_encoder.encode(message))
            if not link:
                self.bytes_max = max(self.bytes_max, size)
        if to not in self.machines or self.cut.get((sender, to)):
            return
        received = Received(sender, message)
        if not link:
            for _ in range(2 if self.rng.random() < 0.02 else 1):
                if self.rng.random() >= self.loss:
                    self.push(self.now_s + self.rng.uniform(0.01, 0.05), to, received, True)
            return
        if not self.links:
            return
        at_s, wait_s = self.now_s + self.rng.uniform(0.01, 0.05), 0.2
        while self.rng.random() < self.loss and wait_s < 10:
            at_s, wait_s = at_s + wait_s, wait_s * 2
        at_s = max(at_s, self._link_free_s.get((sender, to), 0.0))
        self._link_free_s[sender, to] = at_s
        self.push(at_s, to, received, False)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end_s = self.now_s + seconds
        while self._heap and self._heap[0][0] <= end_s:
            at_s, _, node, what, datagram = heapq.heappop(self._heap)
            self.now_s = at_s
            if node in self.down or (not datagram and isinstance(what, Received) and what.peer in self.down):
                continue  # a broken link delivers nothing more
            if at_s < self.awake_s[node]:
                if not datagram:  # its socket buffer overflows: what came as datagrams is lost
                    self.push(self.awake_s[node], node, what, False)
                continue
            self.give(node, what)
        self.now_s = end_s

    def crash(self, node: NodeId) -> None:
        """Stop a node for ever."""
        self.down.add(node)

    def pause(self, node: NodeId, seconds: float) -> None:
        """Let a node sleep."""
        self.awake_s[node] = self.now_s + seconds

    def split(self, left: list[NodeId], right: list[NodeId], *, cut: bool = True) -> None:
        """Cut all ways between two groups, or mend them."""
        for a in left:
            for b in right:
                self.cut[a, b] = self.cut[b, a] = cut

    def told(self, kind: type) -> list[tuple[float, NodeId, Any]]:
        """Return the events of one kind."""
        return [entry for entry in self.events if isinstance(entry[2], kind)]
