"""A brain of thirty lines for tests of the simulator itself: it pings whom it knows and floods records."""

from __future__ import annotations

import random
from typing import Any

from agentmesh.core.contacts.messages import DialWanted, StoreContact
from agentmesh.core.machine import Outbox, Timer
from agentmesh.core.messages import (
    AddressHint,
    LocalNode,
    LocalRecord,
    NodeHeard,
    PeerDown,
    PeerUp,
    Received,
    WallClock,
)
from agentmesh.core.plumtree.messages import Gossip
from agentmesh.core.swim.messages import Ack, Ping
from agentmesh.identity.reader import Reader
from agentmesh.ids import NodeId


class Toy:
    """Keep what came in, ping the known nodes in turn twice a second, flood the latest record over links."""

    def __init__(self, node: NodeId, config: Any, rng: random.Random, reader: Reader) -> None:
        self.node_id, self.rng = node, rng
        self.log: list[tuple[float, Any]] = []
        self.addresses: dict[NodeId, tuple[str, ...]] = {}
        self.peers: dict[NodeId, None] = {}
        self.seen: dict[bytes, None] = {}
        self.acks = 0

    def handle(self, incoming: Any, now_s: float, out: Outbox) -> None:
        if not self.log:
            assert isinstance(incoming, WallClock)
            out.after(self.rng.random(), Timer("swim.tick"))
        self.log.append((now_s, incoming))
        if isinstance(incoming, NodeHeard):
            self.addresses[incoming.record.node_id] = incoming.record.addresses
        elif isinstance(incoming, AddressHint):
            self.addresses[incoming.node_id] = incoming.addresses
            out.emit(DialWanted(incoming.node_id, incoming.addresses))
        elif isinstance(incoming, PeerUp):
            self.peers[incoming.peer] = None
            self.addresses.setdefault(incoming.peer, incoming.addresses)
            out.store(StoreContact(incoming.peer, incoming.addresses))
        elif isinstance(incoming, PeerDown):
            self.peers.pop(incoming.peer)
        elif isinstance(incoming, LocalRecord):
            self.flood(incoming.manifest.raw, 1, out)
        elif isinstance(incoming, Timer):
            out.after(0.5, incoming)
            known = list(self.addresses)
            if known:
                out.send(self.rng.choice(known), Ping(self.rng.getrandbits(32), 1, 0, 0))
        elif isinstance(incoming, Received):
            self.on_message(incoming.peer, incoming.message, out)
        else:
            assert isinstance(incoming, LocalNode | WallClock)

    def on_message(self, peer: NodeId, message: Any, out: Outbox) -> None:
        if isinstance(message, Ping):
            out.send(peer, Ack(message.nonce, 1, 0, 0))
        elif isinstance(message, Ack):
            self.acks += 1
        elif isinstance(message, Gossip):
            self.flood(message.payload, message.hops + 1, out)

    def flood(self, payload: bytes, hops: int, out: Outbox) -> None:
        if payload not in self.seen:
            self.seen[payload] = None
            message = Gossip(kind="agent", hops=hops, payload=payload)
            for peer in self.peers:
                out.send(peer, message)

    def warm(self, contacts: Any, *, settled: bool) -> None:
        """Nothing to warm."""

    def addresses_of(self, node: NodeId) -> tuple[str, ...]:
        return self.addresses.get(node, ())

    def entry(self, agent_id: str) -> None:
        return None

    def entries(self) -> list[Any]:
        return []

    def assert_invariants(self) -> None:
        assert self.node_id not in self.peers
