"""Directories on a dumb network in virtual time: a fixed neighbour graph, flooding instead of broadcast trees, a map instead
of the DHT, and deaths that zone mates notice after a while. Same seed, same run.

Messages that directories send cross the real codec where ``encode`` is on.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.machine import Directory
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer, WallTime
from agentmesh.core.messages import (
    Advertise,
    Delivered,
    Find,
    LocalNode,
    LocalRecord,
    Lookup,
    LookupDone,
    LookupHit,
    MemberAlive,
    MemberDead,
    NeighbourDown,
    NeighbourUp,
    NodeRecordWanted,
    Publish,
    Received,
    SignatureWanted,
    Signed,
    ZoneChanged,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.node_record import NodeRecord, node_body, sign_node_record
from agentmesh.identity.provider import sign_provider
from agentmesh.identity.reader import Reader
from agentmesh.identity.statement import sign_statement
from agentmesh.identity.zone_report import prefix_of
from agentmesh.ids import AgentId, Key, NodeId, dht_key
from agentmesh.wire import v1
from tests.support.records import EPOCH, key, record, tombstone


def node_key(number: int) -> KeyPair:
    """Return the key of a node; the same for the same number."""
    return key(1000 + number)


def agent_key(number: int) -> KeyPair:
    """Return the key of an agent; the same for the same number."""
    return key(100_000 + number)


def node_record(
    owner: KeyPair,
    reader: Reader,
    *,
    seq: int = 1,
    at: float = EPOCH,
    sick: tuple[bytes, ...] = (),
    leaving: bool = False,
    site: str = "",
) -> NodeRecord:
    """Return a verified node record."""
    body = node_body(seq=seq, iat=int(at), wire=1, addresses=("memory:x",), sick=sick, leaving=leaving, site=site)
    return reader.node(sign_node_record(owner, body), int(at))


@dataclass(eq=False)
class Peer:
    """One directory in the mesh."""

    number: int
    key: KeyPair
    directory: Directory
    wall: WallTime
    dht_key: Key
    seq: int = 1
    alive: bool = True
    side: int = 0
    neighbours: dict[int, bool] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)
    bytes_sent: int = 0

    @property
    def node_id(self) -> NodeId:
        return NodeId(self.key.did)


class Mesh:
    """Many directories, their neighbours and time.

    Args:
        count: Nodes.
        seed: Decides every delay and loss.
        zone_size: A zone splits when both halves keep at least so many; see ``depth``.
        long_links: Per node, about.
    """

    def __init__(
        self,
        count: int,
        seed: int = 1,
        *,
        config: DirectoryConfig | None = None,
        zone_size: int = 8,
        long_links: int = 3,
        reader: Reader | None = None,
        encode: bool = True,
    ) -> None:
        self.rng = random.Random(seed)
        self.reader = reader or Reader(200_000)
        self.now_s = 0.0
        self.loss = self.broadcast_loss = 0.0
        self.delay_s = (0.01, 0.05)
        self.detect_s = 5.0
        self.encode = encode
        self.sent: dict[str, int] = {}
        self.sent_bytes = 0
        self.published: list[tuple[float, str, int]] = []
        self.providers: dict[Key, dict[AgentId, int]] = {}
        self.depth = max(0, (count // (2 * zone_size)).bit_length())
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.nodes: list[Peer] = []
        self._by_id: dict[NodeId, Peer] = {}
        for number in range(count):
            owner, wall = node_key(number), WallTime()
            wall.set(EPOCH, 0.0)
            directory = Directory(
                NodeId(owner.did),
                config or DirectoryConfig(),
                random.Random(self.rng.getrandbits(64)),
                self.reader,
                wall,
            )
            peer = Peer(number, owner, directory, wall, dht_key(owner.public))
            self.nodes.append(peer)
            self._by_id[peer.node_id] = peer
        self._links = self._graph(long_links)
        for peer in self.nodes:
            self.feed(peer, LocalNode(node_record(peer.key, self.reader, seq=1, at=EPOCH)))
        for peer in self.nodes:
            self._connect(peer)

    def _graph(self, long_links: int) -> dict[tuple[int, int], bool]:
        """Return all links: zone mates (True) and long ones (False)."""
        links: dict[tuple[int, int], bool] = {}
        for peer in self.nodes:
            for mate in self.zone_of(peer):
                if peer.number < mate.number:
                    links[peer.number, mate.number] = True
        for peer in self.nodes:
            for _ in range((long_links + 1) // 2):
                other = self.rng.randrange(len(self.nodes))
                if other != peer.number:
                    links[min(peer.number, other), max(peer.number, other)] = False
        return links

    def zone_of(self, peer: Peer) -> list[Peer]:
        prefix = prefix_of(peer.dht_key, self.depth)
        return [p for p in self.nodes if prefix_of(p.dht_key, self.depth) == prefix]

    def _connect(self, peer: Peer) -> None:
        """Tell a node of its zone and neighbours as far as it can reach them."""
        mates = [p for p in self.zone_of(peer) if p is peer or self._reach(peer, p)]
        mates.sort(key=lambda p: p.dht_key)
        self.feed(peer, ZoneChanged("", self.depth, tuple(p.node_id for p in mates)))
        for (a, b), zone in self._links.items():
            if peer.number in (a, b):
                other = self.nodes[b if peer.number == a else a]
                if self._reach(peer, other) and other.number not in peer.neighbours:
                    peer.neighbours[other.number] = zone
                    self.feed(peer, NeighbourUp(other.node_id, zone))

    def _reach(self, a: Peer, b: Peer) -> bool:
        return a.alive and b.alive and a.side == b.side

    # What happens

    def feed(self, peer: Peer, incoming: Any) -> Outbox:
        """Give a directory an input, check it, and do what it wants."""
        out = Outbox()
        if peer.alive:
            peer.directory.handle(incoming, self.now_s, out)
            self._do(peer, out)
        return out

    def register(self, peer: Peer, number: int, *, seq: int = 1, **members: Any) -> None:
        """Register an agent behind a node."""
        at = int(EPOCH + self.now_s)
        manifest = record(
            agent_key(number),
            peer.node_id,
            now=at,
            iat=at,
            exp=at + 86_400,
            seq=seq,
            **{"name": f"a{number}", **members},
        )
        self.feed(peer, LocalRecord(manifest))

    def withdraw(self, peer: Peer, number: int, seq: int) -> None:
        """Withdraw an agent with a tombstone."""
        self.feed(
            peer,
            LocalRecord(
                tombstone(agent_key(number), peer.node_id, name=f"a{number}", seq=seq, iat=int(EPOCH + self.now_s))
            ),
        )

    def kill(self, *peers: Peer) -> None:
        """Stop nodes at once; their mates and neighbours notice after about ``detect_s``."""
        for peer in peers:
            peer.alive = False
        self._lost([(seer, gone) for gone in peers for seer in self.nodes if seer.alive])

    def split(self, sides: Iterable[Iterable[Peer]]) -> None:
        """Cut the mesh into sides."""
        for side, peers in enumerate(sides):
            for peer in peers:
                peer.side = side
        self._lost([(a, b) for a in self.nodes for b in self.nodes if a.side != b.side])

    def heal(self) -> None:
        """Join all sides again: mates see each other alive, neighbours connect."""
        for peer in self.nodes:
            peer.side = 0
        for peer in self.nodes:
            if peer.alive:
                for mate in self.zone_of(peer):
                    if mate is not peer and mate.alive:
                        self.after(self.rng.uniform(0.2, 1.5), self._sees(peer, mate))
                self.after(self.rng.uniform(0.1, 1.0), lambda p=peer: self._connect(p))

    def _sees(self, peer: Peer, mate: Peer) -> Callable[[], None]:
        return lambda: self.feed(peer, MemberAlive(mate.node_id)) and None

    def _lost(self, pairs: list[tuple[Peer, Peer]]) -> None:
        changed: dict[int, Peer] = {}
        for seer, gone in pairs:
            mate = prefix_of(seer.dht_key, self.depth) == prefix_of(gone.dht_key, self.depth)
            if mate or gone.number in seer.neighbours:
                changed[seer.number] = seer
                self.after(self.detect_s * self.rng.uniform(0.9, 1.1), lambda s=seer, g=gone: self._notice(s, g))
        for seer in changed.values():
            self.after(self.detect_s * 1.2, lambda s=seer: self._connect(s) if s.alive else None)

    def _notice(self, seer: Peer, gone: Peer) -> None:
        if seer.alive and not self._reach(seer, gone):
            self.feed(seer, MemberDead(gone.node_id, gone.seq))
            if seer.neighbours.pop(gone.number, None) is not None:
                self.feed(seer, NeighbourDown(gone.node_id))

    # Effects

    def _do(self, peer: Peer, out: Outbox) -> None:
        for send in out.sends:
            self._send(peer, send.to, send.message)
        for delay_s, timer in out.timers:
            self.after(delay_s, lambda t=timer: self.feed(peer, t) and None)
        for event in out.events:
            self._on_event(peer, event)

    def _send(self, peer: Peer, to: NodeId, message: Any) -> None:
        name = type(message).__name__
        self.sent[name] = self.sent.get(name, 0) + 1
        if self.encode:
            raw = v1.encode(message)
            self.sent_bytes += len(raw)
            peer.bytes_sent += len(raw)
            message = v1.decode_control(raw)
        other = self._by_id.get(to)
        if other is None or not self._reach(peer, other) or self.rng.random() < self.loss:
            return
        self.after(
            self.rng.uniform(*self.delay_s),
            lambda: self.feed(other, Received(peer.node_id, message)) and None if self._reach(peer, other) else None,
        )

    def _on_event(self, peer: Peer, event: Any) -> None:
        if isinstance(event, Publish):
            self._broadcast(peer, event)
        elif isinstance(event, SignatureWanted):
            raw = sign_statement(peer.key, event.context, event.body)
            self.after(0.001, lambda: self.feed(peer, Signed(event.context, raw)) and None)
        elif isinstance(event, NodeRecordWanted):
            peer.seq = max(peer.seq, event.seq_min) + 1
            made = node_record(
                peer.key,
                self.reader,
                seq=peer.seq,
                at=EPOCH + self.now_s,
                sick=event.sick or (),
                leaving=event.leaving,
            )
            self.after(0.001, lambda: self.feed(peer, LocalNode(made)) and None)
        elif isinstance(event, Advertise):
            for providers in self.providers.values():
                providers.pop(event.agent_id, None)
            for each in event.keys:
                self.providers.setdefault(each, {})[event.agent_id] = peer.number
        elif isinstance(event, Lookup):
            self.after(0.2, lambda: self._look_up(peer, event))
        else:
            peer.events.append(event)

    def _look_up(self, peer: Peer, lookup: Lookup) -> None:
        now = int(EPOCH + self.now_s)
        found = [
            self.reader.provider(
                sign_provider(
                    self.nodes[number].key, lookup.key, agent=agent, seq=1, iat=now, addresses=(f"memory:{number}",)
                ),
                lookup.key,
                now,
            )
            for agent, number in self.providers.get(lookup.key, {}).items()
        ]
        if found:
            self.feed(peer, LookupHit(lookup.query, tuple(found)))
        self.feed(peer, LookupDone(lookup.query, lookup.key, len(found), (), 1, 1))

    def _broadcast(self, peer: Peer, publish: Publish) -> None:
        self.published.append((self.now_s, publish.kind, peer.number))
        for other in self.nodes:
            if other is not peer and self._reach(peer, other) and self.rng.random() >= self.broadcast_loss:
                self.after(self.rng.uniform(0.05, 0.4), lambda o=other: self._arrive(peer, o, publish))

    def _arrive(self, author: Peer, other: Peer, publish: Publish) -> None:
        if not self._reach(author, other):
            return
        verdict = other.directory.judge(publish.kind, publish.payload, self.now_s)
        assert verdict != "bad"
        if verdict == "new":
            near = [n for n in other.neighbours if self._reach(other, self.nodes[n])]
            via = self.nodes[self.rng.choice(near)].node_id if near else author.node_id
            self.feed(other, Delivered(publish.kind, publish.payload, via, 3))

    # Time

    def after(self, delay_s: float, what: Callable[[], Any]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now_s + delay_s, self._count, what))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Let time pass, at most until a condition holds (looked at ten times a second); return how long."""
        start_s, look_s = self.now_s, self.now_s
        end_s = start_s + seconds
        while self._queue and self._queue[0][0] <= end_s:
            at_s, _, what = heapq.heappop(self._queue)
            self.now_s = at_s
            if until is not None and at_s >= look_s:
                look_s = at_s + 0.1
                if until():
                    return self.now_s - start_s
            what()
        self.now_s = end_s
        return seconds

    # What is seen

    def view(self, peer: Peer, *, health: bool = True) -> dict[str, tuple[int, bool]]:
        """Return what a node believes: agent id → seq and whether it may be offered."""
        return {
            e.manifest.agent_id: (e.manifest.seq, (e.healthy is not False) or not health)
            for e in sorted(peer.directory.table.live(), key=lambda e: e.manifest.agent_id)
        }

    def agreed(self, *, health: bool = True) -> bool:
        """Say whether all living nodes believe the same."""
        alive = [p for p in self.nodes if p.alive]
        if any(len(p.directory.table) != len(alive[0].directory.table) for p in alive):
            return False
        first = self.view(alive[0], health=health)
        return all(self.view(p, health=health) == first for p in alive[1:])

    def blamed(self) -> list[PeerMisbehaved]:
        return [e for p in self.nodes for e in p.events if isinstance(e, PeerMisbehaved)]

    def find(self, peer: Peer, query: int, at: Key, **over: Any) -> Outbox:
        return self.feed(peer, Find(query, at, **over))

    def check(self) -> None:
        for peer in self.nodes:
            peer.directory.assert_invariants()


def timers_of(out: Outbox, name: str) -> list[Timer]:
    """Return the timers of a name, in order."""
    return [timer for _, timer in out.timers if timer.name == name]
