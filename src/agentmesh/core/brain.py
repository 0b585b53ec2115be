"""The brain: the machines of one node put together. The driver and the simulator feed it; nothing here does I/O.

    input ──► guard ──► the machine concerned ──► effects
                              │ facts
                              └──► the other machines (table ``_facts``), until nobody has more to say

Inputs and facts are in ``core.messages``; effects in ``core.machine.Outbox``. This is the only module of ``core`` that knows
more than one machine; what each does is in docs/spec/{swim,overlay,plumtree,dht,directory,contacts,orders,topics}.md.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from agentmesh.core.contacts.book import Contact
from agentmesh.core.contacts.config import ContactsConfig
from agentmesh.core.contacts.machine import Contacts
from agentmesh.core.contacts.messages import CutOff
from agentmesh.core.dht import messages as dht_messages
from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.machine import Dht
from agentmesh.core.directory import messages as directory_messages
from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.machine import Directory
from agentmesh.core.directory.table import Entry
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer, WallTime
from agentmesh.core.messages import (
    AddressHint,
    Advertise,
    Delivered,
    Find,
    Leaving,
    LocalGone,
    LocalNode,
    LocalRecord,
    LocalStatus,
    Lookup,
    LookupDone,
    LookupHit,
    MemberAlive,
    MemberDead,
    MemberLeft,
    MemberSuspected,
    NeighbourBad,
    NeighbourDown,
    NeighbourUp,
    NodeHeard,
    PeerDown,
    PeerUp,
    ProbeWanted,
    Provide,
    Publish,
    Received,
    Signed,
    Spoke,
    Suggested,
    Unwatch,
    WallClock,
    Watch,
    ZoneChanged,
)
from agentmesh.core.orders import messages as orders_messages
from agentmesh.core.orders.config import OrdersConfig
from agentmesh.core.orders.machine import OrderSpread
from agentmesh.core.orders.messages import LocalOrder, Obey
from agentmesh.core.overlay import messages as overlay_messages
from agentmesh.core.overlay.config import OverlayConfig
from agentmesh.core.overlay.machine import Overlay
from agentmesh.core.plumtree import messages as plumtree_messages
from agentmesh.core.plumtree.config import PlumtreeConfig
from agentmesh.core.plumtree.machine import Plumtree
from agentmesh.core.plumtree.messages import Verdict
from agentmesh.core.swim import messages as swim_messages
from agentmesh.core.swim.config import SwimConfig
from agentmesh.core.swim.machine import Swim
from agentmesh.core.topics.config import TopicsConfig
from agentmesh.core.topics.intake import TOPIC, TopicIntake
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.reader import Reader
from agentmesh.ids import NodeId

_Handle = Callable[[Any, float, Outbox], None]
#: Facts that concern the node as well as the machines: handed out to the driver after the machines had them.
_ALSO_OUT = frozenset[type](
    (
        PeerMisbehaved,
        MemberAlive,
        MemberSuspected,
        MemberDead,
        MemberLeft,
        NeighbourUp,
        NeighbourDown,
        LookupHit,
        LookupDone,
    )
)


@dataclass(frozen=True, slots=True)
class BrainConfig:
    """Knobs of every machine."""

    contacts: ContactsConfig = field(default_factory=ContactsConfig)
    swim: SwimConfig = field(default_factory=SwimConfig)
    overlay: OverlayConfig = field(default_factory=OverlayConfig)
    plumtree: PlumtreeConfig = field(default_factory=PlumtreeConfig)
    dht: DhtConfig = field(default_factory=DhtConfig)
    directory: DirectoryConfig = field(default_factory=DirectoryConfig)
    orders: OrdersConfig = field(default_factory=OrdersConfig)
    topics: TopicsConfig = field(default_factory=TopicsConfig)


class Brain:
    """All machines of one node behind one ``handle``.

    The first input must be WallClock, the second LocalNode: until a node has a record of its own it is nobody.

    Args:
        node_id: This node.
        config: Knobs.
        rng: The only source of chance; the same seed and inputs give the same effects.
        reader: Verifies what is signed. Several brains in one process may share one.
    """

    def __init__(self, node_id: NodeId, config: BrainConfig, rng: random.Random, reader: Reader | None = None) -> None:
        self.node_id = node_id
        self.record: NodeRecord | None = None
        self._wall = wall = WallTime()
        self._has_clock = False
        reader = reader or Reader()
        self.contacts_machine = Contacts(node_id, config.contacts, rng, wall)
        self.swim = Swim(node_id, config.swim, rng, reader, wall)
        self.overlay = Overlay(node_id, config.overlay, rng, reader, wall)
        self.directory = Directory(node_id, config.directory, rng, reader, wall)
        self.topics = TopicIntake(config.topics, wall)
        self.plumtree = Plumtree(node_id, config.plumtree, rng, self._judge)
        self.dht = Dht(node_id, config.dht, rng, reader, wall)
        self.orders = OrderSpread(node_id, config.orders, rng)
        self._guard = self.contacts_machine.guard
        self._facts = self._routes()
        self._receivers = self._receiving()
        self._timers: dict[str, _Handle] = {}

    def _routes(self) -> dict[type, tuple[_Handle, ...]]:
        """Say which machines take which input or fact, in which order."""
        contacts, swim, overlay = self.contacts_machine.handle, self.swim.handle, self.overlay.handle
        plumtree, dht, directory = self.plumtree.handle, self.dht.handle, self.directory.handle
        orders = self.orders.handle
        member = (contacts, overlay, dht, directory)
        return {
            LocalNode: (swim, overlay, dht, directory),
            PeerUp: (contacts, overlay, dht, directory, orders),
            PeerDown: (contacts, swim, overlay, directory, orders),
            AddressHint: (contacts,),
            LocalRecord: (directory,),
            LocalStatus: (directory,),
            LocalGone: (directory,),
            Leaving: (directory,),
            Find: (directory,),
            Suggested: (directory,),
            Signed: (directory,),
            Provide: (dht,),
            NodeHeard: (contacts, swim, overlay, dht, directory),
            Watch: (swim,),
            Unwatch: (swim,),
            ProbeWanted: (swim,),
            MemberAlive: member,
            MemberSuspected: (overlay,),
            MemberDead: member,
            MemberLeft: member,
            NeighbourUp: (contacts, plumtree, directory),
            NeighbourDown: (contacts, plumtree, directory),
            ZoneChanged: (directory,),
            Publish: (plumtree,),
            Delivered: (self._deliver,),
            NeighbourBad: (overlay,),
            PeerMisbehaved: (plumtree,),
            Advertise: (dht,),
            Lookup: (dht,),
            LookupHit: (directory,),
            LookupDone: (directory,),
            Obey: (orders,),
            LocalOrder: (orders,),
        }

    def _judge(self, kind: str, payload: bytes, now_s: float) -> Verdict:
        """Ask whose kind a broadcast is of."""
        return self.topics.judge(payload, now_s) if kind == TOPIC else self.directory.judge(kind, payload, now_s)

    def _deliver(self, delivered: Delivered, now_s: float, out: Outbox) -> None:
        (self.topics if delivered.kind == TOPIC else self.directory).handle(delivered, now_s, out)

    def _receiving(self) -> dict[type, _Handle]:
        """Say which machine takes which message."""
        owners: list[tuple[Any, _Handle]] = [
            (swim_messages, self.swim.handle),
            (overlay_messages, self.overlay.handle),
            (plumtree_messages, self.plumtree.handle),
            (dht_messages, self.dht.handle),
            (directory_messages, self.directory.handle),
            (orders_messages, self.orders.handle),
        ]
        return {cls: handle for module, handle in owners for cls in messages_of(module)}

    def handle(self, incoming: Any, now_s: float, out: Outbox) -> None:
        """Take one input at monotonic time ``now_s`` (seconds) and write effects; ``out`` holds no events yet."""
        kind = cast("type[Any]", type(incoming))
        if kind is Timer:
            (self._timers.get(incoming.name) or self._timed(incoming.name))(incoming, now_s, out)
        elif kind is Received:
            self._receive(incoming, now_s, out)
        elif kind is WallClock:
            self._has_clock = True
            self._wall.set(incoming.unix_s, now_s)
        else:
            assert self._has_clock, "WallClock must be the first input"
            if kind is LocalNode:
                self.record = incoming.record
            for handle in self._facts[kind]:
                handle(incoming, now_s, out)
        if out.events:
            self._settle(now_s, out)

    def _timed(self, name: str) -> _Handle:
        """Return, and remember, which machine a timer belongs to: its name begins with the machine's."""
        machines: dict[str, _Handle] = {
            "swim": self.swim.handle,
            "plumtree": self.plumtree.handle,
            "dht": self.dht.handle,
            "overlay": self.overlay.handle,
            "directory": self.directory.handle,
            "orders": self.orders.handle,
        }
        handle = self._timers[name] = machines.get(name.partition(".")[0], self.contacts_machine.handle)
        return handle

    def _receive(self, received: Received, now_s: float, out: Outbox) -> None:
        message = received.message
        kind = cast("type[Any]", type(message))
        handle = self._receivers.get(kind)
        if handle is None or received.peer == self.node_id:
            return
        costly = _COSTLY.get(kind)
        items = 1 if costly is None else costly(message)
        if not self._guard.admits(received.peer, kind.__name__, items, now_s, out):
            return
        if kind is swim_messages.Ack:
            self.contacts_machine.note_clock(received.peer, message.clock_ms, now_s, out)
        elif received.by_link and self.swim.asks(received.peer):
            self.swim.handle(Spoke(received.peer), now_s, out)
        handle(received, now_s, out)

    def _settle(self, now_s: float, out: Outbox) -> None:
        """Hand facts to the machines they concern until none is left; what concerns the node stays in ``out``."""
        facts, queue = self._facts, out.events
        outward: list[Any] = []
        at = 0
        while at < len(queue):
            event = queue[at]
            at += 1
            kind = cast("type[Any]", type(event))
            handles = facts.get(kind)
            if handles is None:
                outward.append(event)
                continue
            for handle in handles:
                handle(event, now_s, out)
            if kind in _ALSO_OUT:
                outward.append(event)
        queue[:] = outward

    def warm(self, contacts: Iterable[tuple[NodeId, str]], *, settled: bool = False) -> None:
        """Restore the DHT's contacts of an earlier run, best first (``Dht.warm``); call it before the first input."""
        self.dht.warm(contacts, settled=settled)

    # What the node and people ask; read-only

    def entries(self) -> list[Entry]:
        """Return every living agent, local and remote, in order of arrival. Entries are read-only."""
        return self.directory.table.live()

    def entry(self, agent_id: str) -> Entry | None:
        """Return the living agent of that id."""
        entry = self.directory.table.get(agent_id)
        return None if entry is None or entry.manifest.tombstone else entry

    def by_name(self, name: str) -> list[Entry]:
        """Return the living agents of exactly that name: replicas, healthy ones first, then by agent id."""
        return self.directory.table.named(name)

    def contacts(self) -> list[Contact]:
        """Return every known node, connected ones first, then in order of arrival. Contacts are read-only."""
        return sorted(self.contacts_machine.book.known.values(), key=lambda contact: not contact.connected)

    def neighbours(self) -> list[NodeId]:
        """Return the neighbours in the overlay: zone mates and long links."""
        return self.overlay.neighbours()

    def addresses_of(self, node_id: NodeId) -> tuple[str, ...]:
        """Return where a node might be reached, best word first; empty if unknown."""
        return self.contacts_machine.addresses_of(node_id) or self.overlay.addresses_of(node_id)

    def cut_off(self) -> CutOff | None:
        """Return how much of the mesh was lost, if that is much; None while all is well."""
        return self.contacts_machine.cut_off()

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of any machine is broken."""
        self.contacts_machine.assert_invariants()
        self.swim.assert_invariants()
        self.overlay.assert_invariants()
        self.plumtree.assert_invariants()
        self.dht.assert_invariants()
        self.directory.assert_invariants()
        self.orders.assert_invariants()
        self.topics.assert_invariants()


def messages_of(module: object) -> list[type[Any]]:
    """Return the messages that a machine's ``messages`` module defines: its tagged structs."""
    classes = (c for c in vars(module).values() if isinstance(c, type) and issubclass(c, msgspec.Struct))
    return [cls for cls in classes if cls.__struct_config__.tag is not None]


#: Messages that cost by the entry: one manifest is 0.4 ms to verify.
_COSTLY: dict[type, Callable[[Any], int]] = {
    directory_messages.Records: lambda message: len(message.records) + len(message.words),
    directory_messages.Listing: lambda message: len(message.lines),
    directory_messages.Want: lambda message: len(message.positions),
    orders_messages.Orders: lambda message: len(message.orders),
    orders_messages.OrdersHeld: lambda message: len(message.lines),
    orders_messages.OrdersWanted: lambda message: len(message.slots),
}
