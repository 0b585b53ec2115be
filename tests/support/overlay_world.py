"""Overlay machines on a dumb network in virtual time, with a dumb failure detector beside them.

A message takes 5–25 ms, in order per link, or gets lost; the first one between two nodes opens a link (``PeerUp`` on
both sides). Whoever watches a node that was killed or cut off hears ``MemberDead`` some seconds later. Same seed, same run.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer, WallTime
from agentmesh.core.messages import (
    LocalNode,
    MemberDead,
    NeighbourDown,
    NeighbourUp,
    PeerUp,
    Received,
    Unwatch,
    Watch,
    ZoneChanged,
)
from agentmesh.core.overlay.config import OverlayConfig
from agentmesh.core.overlay.machine import Overlay
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.node_record import NodeRecord, node_body, read_node_record, sign_node_record
from agentmesh.identity.reader import Reader
from agentmesh.ids import NodeId

#: The wall clock at virtual second 0.
EPOCH = 1_800_000_000


def record_of(key: KeyPair, *, seq: int = 1, capacity: int = 0, site: str = "", leaving: bool = False) -> NodeRecord:
    """Return a signed record of a node."""
    body = node_body(
        seq=seq, iat=EPOCH, wire=1, addresses=("udp:192.0.2.1:6374",), capacity=capacity, site=site, leaving=leaving
    )
    return read_node_record(sign_node_record(key, body), now=EPOCH)


def drawn_capacity(rng: random.Random) -> int:
    """Draw a tier as a power law of links would have them: 72, 19, 6, 2 and 0.7 %."""
    return rng.choices(range(5), (72.3, 19.0, 6.0, 2.0, 0.7))[0]


class Machine:
    """One overlay and what the other machines know from it."""

    def __init__(self, key: KeyPair, record: NodeRecord, config: OverlayConfig, seed: str, reader: Reader) -> None:
        self.key, self.record = key, record
        self.wall = WallTime()
        self.wall.set(EPOCH, 0.0)
        self.overlay = Overlay(record.node_id, config, random.Random(seed), reader, self.wall)
        self.watched: dict[NodeId, int] = {}
        self.neighbours: dict[NodeId, bool] = {}
        self.zones: list[tuple[float, ZoneChanged]] = []
        self.alive = True


class World:
    """Some hundreds of overlays. Args: seed; loss: share of messages that vanish; config; check: invariants after each step."""

    def __init__(
        self, seed: int = 1, loss: float = 0.0, config: OverlayConfig | None = None, *, check: bool = True
    ) -> None:
        self.seed, self.loss, self.check = seed, loss, check
        self.config = config or OverlayConfig()
        self.rng = random.Random(f"world {seed}")
        self.reader = Reader(100_000)
        self.now_s = 0.0
        self.machines: dict[NodeId, Machine] = {}
        self.misdeeds: list[PeerMisbehaved] = []
        self.sent: Counter[str] = Counter()
        self.trace: list[tuple[float, str]] | None = None
        self.group: dict[NodeId, int] = {}
        self.dead_after_s = (2.0, 6.0)
        self._last: dict[tuple[NodeId, NodeId], float] = {}
        self._linked: set[tuple[NodeId, NodeId]] = set()
        self._heap: list[tuple[float, int, NodeId, Any]] = []
        self._count = 0

    def add(self, capacity: int | None = None, site: str = "", number: int | None = None) -> Machine:
        """Start one node that knows nobody."""
        number = len(self.machines) if number is None else number
        key = KeyPair((self.seed * 1_000_000 + number + 1).to_bytes(32, "big"))
        record = record_of(key, capacity=drawn_capacity(self.rng) if capacity is None else capacity, site=site)
        machine = Machine(key, record, self.config, f"{self.seed} {number}", self.reader)
        self.machines[record.node_id] = machine
        self.feed(record.node_id, LocalNode(record))
        return machine

    def grow(self, count: int, gap_s: float = 0.02, **members: Any) -> list[NodeId]:
        """Start nodes one after the other; all but the first know the first node of the world only."""
        added: list[NodeId] = []
        for _ in range(count):
            node = self.add(**members).record.node_id
            added.append(node)
            seed = next(iter(self.machines))
            if node != seed:
                self.link(node, seed)
            self.run(gap_s)
        return added

    def link(self, one: NodeId, other: NodeId) -> None:
        """Open a link."""
        pair = (one, other) if one < other else (other, one)
        if pair not in self._linked and self.reaches(one, other):
            self._linked.add(pair)
            self._push(self.now_s + 0.005, one, PeerUp(other))
            self._push(self.now_s + 0.005, other, PeerUp(one))

    def reaches(self, one: NodeId, other: NodeId) -> bool:
        """Say whether both live, on the same side of a split."""
        return (
            self.machines[one].alive
            and other in self.machines
            and self.machines[other].alive
            and self.group.get(one, 0) == self.group.get(other, 0)
        )

    def feed(self, node: NodeId, incoming: Any) -> Outbox:
        """Give one input to a node and carry its effects out."""
        out = Outbox()
        machine = self.machines[node]
        machine.overlay.handle(incoming, self.now_s, out)
        if self.check:
            machine.overlay.assert_invariants()
        for delay_s, timer in out.timers:
            self._push(self.now_s + delay_s, node, timer)
        for event in out.events:
            self._note(machine, event)
        for to, message, *_ in out.sends:
            self.sent[type(message).__name__] += 1
            if self.trace is not None:
                self.trace.append((self.now_s, f"{node} {to} {message!r}"))
            if self.reaches(node, to) and (not self.loss or self.rng.random() >= self.loss):
                self.link(node, to)
                at_s = max(self.now_s + 0.005 + 0.02 * self.rng.random(), self._last.get((node, to), 0.0))
                self._last[node, to] = at_s
                self._push(at_s, to, Received(node, message))
        return out

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end_s = self.now_s + seconds
        while self._heap and self._heap[0][0] <= end_s:
            self.now_s, _, node, incoming = heapq.heappop(self._heap)
            if not self.machines[node].alive:
                continue
            if isinstance(incoming, Received | PeerUp) and self.group.get(incoming.peer, 0) != self.group.get(node, 0):
                continue
            if isinstance(incoming, MemberDead) and self.reaches(node, incoming.node):
                continue
            self.feed(node, incoming)
        self.now_s = end_s

    def kill(self, nodes: Iterable[NodeId]) -> None:
        """Stop nodes at once; whoever watches them learns of it."""
        nodes = list(nodes)
        for node in nodes:
            self.machines[node].alive = False
        self._linked = {pair for pair in self._linked if all(self.machines[end].alive for end in pair)}
        for node, machine in self.machines.items():
            if machine.alive:
                for lost in [peer for peer in machine.watched if not self.machines[peer].alive]:
                    self._detect(node, lost)

    def split(self, side: Callable[[NodeId], int]) -> None:
        """Cut the mesh into groups that do not reach each other; with one group only, heal it."""
        self.group = {node: side(node) for node in self.machines}
        self._linked = {(a, b) for a, b in self._linked if self.group[a] == self.group[b]}
        for node, machine in self.machines.items():
            for lost in [peer for peer in machine.watched if not self.reaches(node, peer)]:
                self._detect(node, lost)

    def living(self) -> list[NodeId]:
        """Return the nodes that live."""
        return [node for node, machine in self.machines.items() if machine.alive]

    def graph(self) -> dict[NodeId, list[NodeId]]:
        """Return the neighbours of every living node, living ones only."""
        return {
            node: [peer for peer in self.machines[node].neighbours if self.machines[peer].alive]
            for node in self.living()
        }

    def long_graph(self) -> dict[NodeId, list[NodeId]]:
        """Return the long links of every living node."""
        return {node: self.machines[node].overlay.long_links() for node in self.living()}

    def zone_errors(self) -> int:
        """Count the living nodes whose zone is not the same, member for member, in the eyes of all its members."""
        errors = 0
        for node in self.living():
            zone = self.machines[node].overlay.zone()
            agreed = all(
                peer in self.machines
                and self.machines[peer].alive
                and (peer == node or self.machines[peer].overlay.zone() == zone)
                for peer in zone[2]
            )
            errors += not agreed
        return errors

    def one_sided(self) -> int:
        """Count the long links that only one end lists."""
        graph = self.long_graph()
        return sum(node not in graph.get(peer, ()) for node, peers in graph.items() for peer in peers)

    def _detect(self, node: NodeId, lost: NodeId) -> None:
        low_s, high_s = self.dead_after_s
        at_s = self.now_s + low_s + (high_s - low_s) * self.rng.random()
        self._push(at_s, node, MemberDead(lost, self.machines[node].watched[lost]))

    def _note(self, machine: Machine, event: Any) -> None:
        if isinstance(event, Watch):
            machine.watched[event.record.node_id] = event.record.seq
            if not self.reaches(machine.record.node_id, event.record.node_id):
                self._detect(machine.record.node_id, event.record.node_id)
        elif isinstance(event, Unwatch):
            del machine.watched[event.node]
        elif isinstance(event, NeighbourUp):
            machine.neighbours[event.node] = event.zone
        elif isinstance(event, NeighbourDown):
            del machine.neighbours[event.node]
        elif isinstance(event, ZoneChanged):
            machine.zones.append((self.now_s, event))
        elif isinstance(event, PeerMisbehaved):
            self.misdeeds.append(event)

    def _push(self, at_s: float, node: NodeId, incoming: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_s, self._count, node, incoming))


__all__ = ["EPOCH", "Machine", "Timer", "World", "drawn_capacity", "record_of"]
