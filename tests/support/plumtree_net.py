"""A small simulated network of Plumtree machines: links with latency and loss, zone cliques and long links.

Used by the Plumtree scenarios; the product's simulator (``agentmesh.sim``) runs whole brains, this runs one machine per node
and nothing else, so that a scenario of a thousand nodes takes a second.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from agentmesh.core.machine import Outbox, PeerMisbehaved
from agentmesh.core.messages import Delivered, NeighbourBad, NeighbourDown, NeighbourUp, Publish, Received
from agentmesh.core.plumtree.config import PlumtreeConfig
from agentmesh.core.plumtree.machine import Plumtree
from agentmesh.core.plumtree.messages import Gossip, Verdict
from agentmesh.ids import NodeId

#: Long links per node and share of nodes, as the overlay's capacity tiers give them.
TIERS = ((3, 0.60), (7, 0.25), (15, 0.10), (30, 0.04), (60, 0.01))


def name(i: int) -> NodeId:
    """Return the id of the i-th node; any text will do for this machine."""
    return NodeId(f"n{i:05d}")


@dataclass(slots=True)
class Cast:
    """What became of one broadcast."""

    at_s: float
    arrived_s: dict[int, float] = field(default_factory=dict[int, float])
    hops: dict[int, int] = field(default_factory=dict[int, int])
    payloads: int = 0


def judge_all_new(kind: str, payload: bytes, now_s: float) -> Verdict:
    """Say "bad" of garbage, "stale" of what says so, "new" of the rest."""
    del kind, now_s
    if payload.startswith(b"garbage"):
        return "bad"
    return "stale" if payload.startswith(b"stale") else "new"


class PlumtreeNet:
    """Machines, links between them, and a clock.

    Args:
        seed: Of all chance.
        loss: Share of messages lost on every link.
        kills: True = what is lost is gone; False = it comes later, as on a link that retransmits.
        latency_s: One way, drawn per link, evenly between the two.
        jitter: True = drawn per message and not per link.
    """

    def __init__(
        self,
        seed: int,
        *,
        loss: float = 0.0,
        kills: bool = False,
        latency_s: tuple[float, float] = (0.01, 0.05),
        jitter: bool = False,
        config: PlumtreeConfig | None = None,
        judge: Callable[[str, bytes, float], Verdict] = judge_all_new,
        checks: bool = False,
    ) -> None:
        self.rng = random.Random(seed)
        self.loss, self.kills, self.latency_s, self.jitter = loss, kills, latency_s, jitter
        self.config = config or PlumtreeConfig()
        self.judge, self.checks = judge, checks
        self.now_s = 0.0
        self.nodes: list[Plumtree] = []
        self.links: list[dict[int, float]] = []
        self.dead: dict[int, bool] = {}
        self.casts: dict[bytes, Cast] = {}
        self.sent: dict[str, int] = {}
        self.bad: list[tuple[int, NeighbourBad]] = []
        self.misbehaved: list[tuple[int, PeerMisbehaved]] = []
        self.trace: Callable[[float, int, int, Any], None] | None = None
        #: Takes a node's outgoing message; returns what is sent in its place. Makes a node hostile.
        self.twist: dict[int, Callable[[int, Any], list[Any]]] = {}
        self._heap: list[tuple[float, int, int, Any]] = []
        self._seq = 0
        self._index: dict[NodeId, int] = {}

    # Building

    def add(self, count: int) -> None:
        """Add machines without neighbours."""
        for _ in range(count):
            i = len(self.nodes)
            node = Plumtree(name(i), self.config, random.Random(self.rng.getrandbits(64)), self.judge)
            self.nodes.append(node)
            self.links.append({})
            self._index[node.node_id] = i

    def connect(self, a: int, b: int, *, zone: bool) -> None:
        """Make two nodes neighbours."""
        if b in self.links[a] and zone:
            return
        self.links[a][b] = self.links[b][a] = self.rng.uniform(*self.latency_s)
        self.give(a, NeighbourUp(name(b), zone))
        self.give(b, NeighbourUp(name(a), zone))

    def disconnect(self, a: int, b: int) -> None:
        """Part two neighbours."""
        self.links[a].pop(b, None)
        self.links[b].pop(a, None)
        self.give(a, NeighbourDown(name(b)))
        self.give(b, NeighbourDown(name(a)))

    def build(self, count: int, zone_size: int = 14, tiers: Iterable[tuple[int, float]] = TIERS) -> None:
        """Make zones that are cliques, joined by random long links of power-law degree."""
        self.add(count)
        for start in range(0, count, zone_size):
            mates = range(start, min(count, start + zone_size))
            for a in mates:
                for b in range(a + 1, mates.stop):
                    self.connect(a, b, zone=True)
        stubs: list[int] = []
        degrees, weights = zip(*tiers, strict=True)
        for a in range(count):
            stubs += [a] * self.rng.choices(degrees, weights)[0]
        self.rng.shuffle(stubs)
        for a, b in zip(stubs[::2], stubs[1::2], strict=False):
            if a // zone_size != b // zone_size and b not in self.links[a]:
                self.connect(a, b, zone=False)

    # Running

    def give(self, i: int, incoming: Any) -> None:
        """Hand one input to a machine and carry out what it wants."""
        out = Outbox()
        node = self.nodes[i]
        node.handle(incoming, self.now_s, out)
        if self.checks:
            node.assert_invariants()
        for delay_s, timer in out.timers:
            self._push(self.now_s + delay_s, i, timer)
        twist = self.twist.get(i)
        for send in out.sends:
            to = self._index[send.to]
            for message in [send.message] if twist is None else twist(to, send.message):
                self.carry(i, to, message)
        for event in out.events:
            if isinstance(event, Delivered):
                cast = self.casts.get(event.payload)
                if cast is not None:
                    assert i not in cast.arrived_s, "delivered twice"
                    cast.arrived_s[i] = self.now_s
                    cast.hops[i] = event.hops
            elif isinstance(event, NeighbourBad):
                self.bad.append((i, event))
            elif isinstance(event, PeerMisbehaved):
                self.misbehaved.append((i, event))

    def carry(self, a: int, b: int, message: Any) -> None:
        """Put a message on the link from a to b."""
        kind = type(message).__name__
        self.sent[kind] = self.sent.get(kind, 0) + 1
        if self.trace is not None:
            self.trace(self.now_s, a, b, message)
        latency_s = self.links[a].get(b)
        if latency_s is None:
            return
        rng = self.rng
        if self.jitter:
            latency_s = rng.uniform(*self.latency_s)
        delay_s = latency_s
        while self.loss and rng.random() < self.loss:
            if self.kills:
                return
            delay_s += 3.0 * latency_s + 0.03
        self._push(self.now_s + delay_s, b, Received(name(a), message))

    def publish(self, i: int, payload: bytes, kind: str = "agent") -> Cast:
        """Broadcast from a node and count what becomes of it."""
        cast = self.casts[payload] = Cast(self.now_s)
        self.give(i, Publish(kind, payload))
        return cast

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until_s = self.now_s + seconds
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            at_s, _, i, incoming = heapq.heappop(heap)
            if i in self.dead:
                continue
            self.now_s = at_s
            if type(incoming) is Received and type(incoming.message) is Gossip:
                cast = self.casts.get(incoming.message.payload)
                if cast is not None:
                    cast.payloads += 1
            self.give(i, incoming)
        self.now_s = until_s

    def crash(self, victims: Iterable[int], noticed_after_s: float) -> None:
        """Stop nodes at once; their neighbours are told after a while."""
        for victim in victims:
            self.dead[victim] = True
            for mate in self.links[victim]:
                self._push(self.now_s + noticed_after_s, mate, NeighbourDown(name(victim)))

    def alive(self) -> list[int]:
        """Return the nodes that run."""
        return [i for i in range(len(self.nodes)) if i not in self.dead]

    def pending(self) -> int:
        """Return how many messages and timers are under way."""
        return len(self._heap)

    def _push(self, at_s: float, i: int, incoming: Any) -> None:
        self._seq += 1
        heapq.heappush(self._heap, (at_s, self._seq, i, incoming))

    # Figures

    def missed(self, cast: Cast, author: int) -> list[int]:
        """Return the living nodes that a broadcast did not reach."""
        return [i for i in self.alive() if i != author and i not in cast.arrived_s]

    def rmr(self, cast: Cast) -> float:
        """Return payloads received per node beyond the one needed."""
        return cast.payloads / max(1, len(self.alive()) - 1) - 1.0


def delays_s(cast: Cast) -> list[float]:
    """Return how long each delivery took, rising."""
    return sorted(at_s - cast.at_s for at_s in cast.arrived_s.values())


def quantile(values: list[float], q: float) -> float:
    """Return the q-quantile of rising values."""
    return values[min(len(values) - 1, int(q * len(values)))]
