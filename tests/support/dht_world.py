"""A world of DHT machines for tests: a virtual clock, latency, loss, dead and lying nodes. No I/O, one seed, one outcome."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.machine import Dht
from agentmesh.core.dht.messages import DhtMessage
from agentmesh.core.machine import Outbox, PeerMisbehaved, WallTime
from agentmesh.core.messages import (
    Advertise,
    LocalNode,
    Lookup,
    LookupDone,
    LookupHit,
    Provide,
    ProvidersWanted,
    Received,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.provider import Provider, sign_provider
from agentmesh.identity.reader import Reader
from agentmesh.ids import AgentId, Key, NodeId, agent_id, dht_key, node_id

UNIX_S = 1_800_000_000
#: What a lying node makes of the answer that an honest one would have sent; None = it keeps silent.
Lie = Callable[["World", "Node", Received, Any], Any]


class Node:
    """One machine with its keys and what it told its driver."""

    def __init__(self, seed: bytes, address: str, config: DhtConfig, reader: Reader, number: int) -> None:
        self.keys = KeyPair(seed)
        self.id = node_id(self.keys.public)
        self.address = address
        self.wall = WallTime()
        self.wall.set(UNIX_S, 0.0)
        self.rng = random.Random(number)
        self.dht = Dht(self.id, config, self.rng, reader, self.wall)
        self.alive = True
        self.lie: Lie | None = None
        self.seq = 0
        self.signs = True
        self.events: list[Any] = []


class World:
    """All nodes, the links between them, and the clock.

    Args:
        seed: Of everything random.
        loss: Share of datagrams lost.
        config: Of every machine.
        latency_s: One way, uniform between these.
        encode: Check that every message fits a datagram and survives encoding.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        loss: float = 0.0,
        config: DhtConfig | None = None,
        latency_s: tuple[float, float] = (0.01, 0.05),
        encode: bool = True,
    ) -> None:
        self.rng = random.Random(seed)
        self.config = config or DhtConfig()
        self.loss, self.latency_s, self.encode = loss, latency_s, encode
        self.reader = Reader(200_000)
        self.now_s = 0.0
        self.nodes: dict[NodeId, Node] = {}
        self.order: list[Node] = []
        self.seed = seed
        self.trace = hashlib.sha256()
        self.sent = 0
        self.bytes_max = 0
        self.hits: dict[int, list[tuple[float, Provider]]] = {}
        self.done: dict[int, tuple[float, LookupDone]] = {}
        self.blamed: list[tuple[NodeId, PeerMisbehaved]] = []
        self._heap: list[tuple[float, int, Node, Any]] = []
        self._serial = 0
        self._query = 0
        self._decoder = msgspec.msgpack.Decoder(DhtMessage)

    def add(self, count: int = 1) -> list[Node]:
        """Add nodes that know nobody."""
        fresh: list[Node] = []
        for _ in range(count):
            number = len(self.order)
            seed = hashlib.sha256(f"{self.seed} node {number}".encode()).digest()
            address = f"udp:10.{number >> 16}.{number >> 8 & 255}.{number & 255}:6374"
            node = Node(seed, address, self.config, self.reader, self.seed * 1_000_003 + number)
            self.nodes[node.id] = node
            self.order.append(node)
            fresh.append(node)
            self.give(node, LocalNode(record_of(node)))
        return fresh

    def add_warm(self, count: int) -> list[Node]:
        """Add nodes that know what they would after having run for long: full far buckets, all near neighbours."""
        fresh = self.add(count)
        k = self.config.k
        by_number = sorted(self.order, key=number_of)
        numbers = [number_of(n) for n in by_number]
        for at, node in enumerate(by_number):
            me = numbers[at]
            known: list[Node] = []
            low, high = 0, len(by_number)
            for bit in range(255, -1, -1):
                split = low
                step_low, step_high = low, high
                while step_low < step_high:
                    middle = (step_low + step_high) // 2
                    if numbers[middle] >> bit & 1:
                        step_high = middle
                    else:
                        step_low = middle + 1
                split = step_low
                other, low, high = ((low, split), split, high) if me >> bit & 1 else ((split, high), low, split)
                if other[1] - other[0] <= k:
                    known += by_number[other[0] : other[1]]
                else:
                    known += [by_number[i] for i in self.rng.sample(range(*other), k)]
                if high - low <= 1:
                    break
            node.dht.warm(((n.id, n.address) for n in known), settled=True)
        return fresh

    # Driving

    def give(self, node: Node, incoming: object) -> None:
        """Hand an input to a node and carry out what it wants."""
        out = Outbox()
        node.dht.handle(incoming, self.now_s, out)
        lying = node.lie is not None and isinstance(incoming, Received)
        for send in out.sends:
            message = send.message
            if lying:
                assert node.lie is not None
                message = node.lie(self, node, incoming, message)  # type: ignore[arg-type]
                if message is None:
                    continue
            self._carry(node, send.to, message, send.at)
        for delay_s, timer in out.timers:
            self._push(self.now_s + delay_s, node, timer)
        for event in out.events:
            self._on_event(node, event)

    def _carry(self, node: Node, to: NodeId, message: Any, at: tuple[str, ...]) -> None:
        self.sent += 1
        if self.encode:
            raw = msgspec.msgpack.encode(message)
            self.bytes_max = max(self.bytes_max, len(raw))
            self.trace.update(raw)
            message = self._decoder.decode(raw)
        target = self.nodes.get(to)
        if target is None or not target.alive or self.rng.random() < self.loss:
            return
        # A reply goes back the way it came; to others one has to know where they are.
        if at and target.address not in at:
            return
        self._push(self.now_s + self.rng.uniform(*self.latency_s), target, Received(node.id, message))

    def _push(self, at_s: float, node: Node, incoming: object) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (at_s, self._serial, node, incoming))

    def _on_event(self, node: Node, event: Any) -> None:
        if isinstance(event, LookupHit):
            self.hits.setdefault(event.query, []).extend((self.now_s, p) for p in event.providers)
        elif isinstance(event, LookupDone):
            self.done[event.query] = (self.now_s, event)
        elif isinstance(event, PeerMisbehaved):
            self.blamed.append((node.id, event))
        elif isinstance(event, ProvidersWanted) and node.signs:
            self.give(node, Provide(event.agent_id, self.sign(node, event.agent_id, event.keys)))
        node.events.append(event)

    def sign(self, node: Node, agent: AgentId, keys: Sequence[Key], life_s: int = 3_600) -> tuple[Any, ...]:
        """Sign provider records of a node's agent."""
        node.seq += 1
        iat = node.wall.unix_s(self.now_s)
        return tuple(
            (
                key,
                sign_provider(
                    node.keys, key, agent=agent, seq=node.seq, iat=iat, addresses=(node.address,), life_s=life_s
                ),
            )
            for key in keys
        )

    def run(self, seconds: float, *, check: bool = False) -> None:
        """Let time pass."""
        end_s = self.now_s + seconds
        while self._heap and self._heap[0][0] <= end_s:
            self.now_s, _, node, incoming = heapq.heappop(self._heap)
            if node.alive:
                self.give(node, incoming)
                if check:
                    node.dht.assert_invariants()
        self.now_s = end_s

    # What tests do

    def crash(self, nodes: Sequence[Node]) -> None:
        """Let nodes die without a word."""
        for node in nodes:
            node.alive = False

    def advertise(self, node: Node, name: str, keys: int = 1) -> tuple[AgentId, tuple[Key, ...]]:
        """Let an agent live behind a node, under keys of its own."""
        agent = agent_id(hashlib.sha256(name.encode()).digest())
        wanted = tuple(Key(hashlib.sha256(f"{name} {i}".encode()).digest()) for i in range(keys))
        self.give(node, Advertise(agent, wanted))
        return agent, wanted

    def look_up(self, node: Node, key: Key, values_max: int = 16) -> int:
        """Start a lookup; return its query."""
        self._query += 1
        self.give(node, Lookup(self._query, key, values_max))
        return self._query

    def holders(self, key: Key) -> list[Node]:
        """Return the living nodes that hold something under a key."""
        return [n for n in self.order if n.alive and n.dht.held(key)]

    def nearest(self, key: Key, count: int) -> list[NodeId]:
        """Return the living nodes nearest to a key, by brute force."""
        number = int.from_bytes(key, "big")
        return [n.id for n in sorted((n for n in self.order if n.alive), key=lambda n: number_of(n) ^ number)[:count]]

    def assert_invariants(self) -> None:
        """Check every machine."""
        for node in self.order:
            node.dht.assert_invariants()


def number_of(node: Node) -> int:
    """Return the DHT key of a node as a number."""
    return node.dht.roster.table.place.number


def record_of(node: Node, address: str | None = None) -> NodeRecord:
    """Return a node record as the driver would hand it over; nobody in these tests reads its signature."""
    return NodeRecord(
        node_id=node.id,
        key=dht_key(node.keys.public),
        seq=1,
        iat=UNIX_S,
        exp=UNIX_S + 86_400,
        wire=1,
        addresses=(address or node.address,),
        site="",
        capacity=0,
        leaving=False,
        sick=(),
        name="",
        raw=b"",
    )
