"""The DHT machine: finds who provides what, and keeps provider records of others (docs/spec/dht.md).

Kademlia with signed records. It composes the table (``roster``), lookups (``search``), what others ask (``answers``), our
own records (``provide``) and the moving of records to new near nodes (``push``). Only ``core.brain`` may use it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import partial

from agentmesh.core.dht.answers import Answers
from agentmesh.core.dht.calls import FAILED, LATE
from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.messages import Check, Checked, FindNode, FindReply, FindValue, Store, Stored
from agentmesh.core.dht.place import KEY_BITS, number_of, place_of
from agentmesh.core.dht.provide import REPUBLISH, RETRY, Provides
from agentmesh.core.dht.push import PUSH, Pushes
from agentmesh.core.dht.roster import Roster, usable
from agentmesh.core.dht.search import Search, Searches
from agentmesh.core.dht.table import Contact
from agentmesh.core.dht.values import Values
from agentmesh.core.machine import Outbox, Timer, WallTime
from agentmesh.core.messages import (
    Advertise,
    LocalNode,
    Lookup,
    MemberDead,
    MemberLeft,
    NodeHeard,
    PeerUp,
    Provide,
    Received,
)
from agentmesh.identity.provider import Provider
from agentmesh.identity.reader import Reader
from agentmesh.ids import Key, NodeId

TICK = "dht.tick"
JOIN = "dht.join"
REFRESH = "dht.refresh"
#: A newcomer walks to itself so soon after it first met somebody: others may come up in the same moment.
_JOIN_S = 0.05
#: And again, each so long after the one before, when those who came at the same time are in place: records that were placed
#: by what was known until then are placed anew.
_REVIEWS_S = (20.0, 60.0, 240.0)
#: Expired records are dropped, and unused buckets looked for, every so many ticks.
_SWEEP_TICKS = 12
#: A node with records of its own to check pings a near node every so many ticks besides; one without, every tick.
_NEAR_TICKS = 4


class Dht:
    """The DHT of one node.

    Args:
        node_id: This node.
        config: Bounds and intervals.
        rng: For rpc numbers, jitter and refreshed places.
        reader: Verifies provider records.
        wall: Wall time, for their expiry.
    """

    __slots__ = (
        "_answers",
        "_is_reviewing",
        "_joined",
        "_near",
        "_rng",
        "_started",
        "_ticks",
        "_to_refresh",
        "_wall",
        "config",
        "node_id",
        "provides",
        "pushes",
        "roster",
        "searches",
        "values",
    )

    def __init__(self, node_id: NodeId, config: DhtConfig, rng: random.Random, reader: Reader, wall: WallTime) -> None:
        self.node_id = node_id
        self.config = config
        place = place_of(node_id)
        self.roster = Roster(place, config, rng)
        self.values = Values(place.number, config)
        self.searches = Searches(self.roster, self.values, config, rng, reader, wall)
        self.provides = Provides(self.roster, self.searches, self.values, config, rng, reader, wall)
        self.pushes = Pushes(self.roster, self.values, config, rng, wall)
        self._answers = Answers(self.roster, self.values, config, reader, wall)
        self._rng, self._wall = rng, wall
        self._started = self._joined = self._is_reviewing = False
        self._ticks = 0
        self._to_refresh: list[int] = []
        #: Near contacts to be pinged in this round, the one to be pinged next last.
        self._near: list[Contact] = []

    def handle(self, incoming: object, now_s: float, out: Outbox) -> None:
        """Take one input (``core.messages``) and write effects."""
        if not self._started:
            self._started = True
            out.after(self.config.tick_s * self._rng.random(), Timer(TICK))
        if isinstance(incoming, Received):
            self._on_received(incoming.peer, incoming.message, now_s, out)
        elif isinstance(incoming, Timer):
            self._on_timer(incoming, now_s, out)
        elif isinstance(incoming, NodeHeard):
            self._on_node_heard(incoming, now_s, out)
        elif isinstance(incoming, Lookup):
            self.searches.look_up(incoming, now_s, out)
        elif isinstance(incoming, PeerUp):
            self.roster.hear(incoming.peer, usable(incoming.addresses[0]) if incoming.addresses else "", now_s, out)
        elif isinstance(incoming, MemberDead | MemberLeft):
            self._on_gone(incoming.node, now_s, out)
        elif isinstance(incoming, LocalNode):
            addresses = incoming.record.addresses
            self.roster.calls.at = addresses[0] if addresses else ""
        elif isinstance(incoming, Advertise):
            self.provides.advertise(incoming, out)
        elif isinstance(incoming, Provide):
            self.provides.provide(incoming, now_s)
        self._settle(now_s, out)

    def warm(self, contacts: Iterable[tuple[NodeId, str]], *, settled: bool = False) -> None:
        """Restore contacts of an earlier run, best first: they enter as far as the rules of the table allow.

        They were proven then and are proven again when they are next asked; one that does not answer three times in a row
        goes. They give way to nobody else, as any contact.

        Args:
            contacts: Nodes with where they were reached, "" = the driver knows.
            settled: They are all that a node which has run for long would know: do not walk to ourselves to learn of our
                neighbours (the simulator).
        """
        table = self.roster.table
        for node, address in contacts:
            if node != self.node_id and node not in table.contacts:
                table.admit(place_of(node), address, -1.0)
        if settled:
            self._joined = True
            self.pushes.settle()

    # What is asked of the machine from outside, without effects

    def contacts(self) -> list[Contact]:
        """Return all contacts, in the order they came."""
        return list(self.roster.table.contacts.values())

    def size_estimate(self) -> int:
        """Estimate how many nodes there are, this one included."""
        return self.roster.size_estimate()

    @property
    def stored_count(self) -> int:
        """How many provider records are held here."""
        return self.values.count

    def held(self, key: Key) -> tuple[Provider, ...]:
        """Return the provider records held under a key, expired ones among them until they are swept."""
        return tuple(self.values.keys.get(key, ()))

    def running_lookups(self) -> tuple[int, ...]:
        """Return the queries of the lookups that are running."""
        return tuple(self.searches.running)

    # Inputs

    def _on_received(self, peer: NodeId, message: object, now_s: float, out: Outbox) -> None:
        if isinstance(message, FindReply | Stored | Checked):
            self.roster.calls.on_answer(peer, message, now_s, out)
            return
        if isinstance(message, FindValue):
            self._answers.on_find_value(peer, message, now_s, out)
        elif isinstance(message, FindNode):
            self._answers.on_find_node(peer, message, out)
        elif isinstance(message, Check):
            self._answers.on_check(peer, message, now_s, out)
        elif isinstance(message, Store):
            self._answers.on_store(peer, message, now_s, out)
        else:
            return
        contact = self.roster.table.contacts.get(peer)
        if contact is not None:
            contact.heard_s = now_s
        elif address := usable(message.at):
            self.roster.consider(peer, None, address, now_s, out)

    def _on_node_heard(self, heard: NodeHeard, now_s: float, out: Outbox) -> None:
        record = heard.record
        contact = self.roster.table.contacts.get(record.node_id)
        if record.leaving:
            if contact is not None:
                self._on_gone(record.node_id, now_s, out)
        elif record.addresses:
            if contact is None:
                number = int.from_bytes(record.key, "big")
                self.roster.consider(record.node_id, number, record.addresses[0], now_s, out)
            elif contact.address not in record.addresses:
                self.roster.table.move(contact, record.addresses[0])

    def _on_gone(self, node: NodeId, now_s: float, out: Outbox) -> None:
        if node in self.roster.table.contacts:
            self.roster.expel(node, now_s, out)
        self.roster.shun(node, now_s)
        self.provides.suspect(node, now_s, out)

    def _settle(self, now_s: float, out: Outbox) -> None:
        """Follow up on what an input changed: who waits may start, new near nodes get their records."""
        if self.roster.changed:
            self.pushes.schedule(out)
        if not self._joined and self.roster.table.contacts:
            self._joined = True
            self._plan_join(_JOIN_S, out)
        elif self._joined and not self.roster.table.contacts:
            self._joined = self._is_reviewing = False
        if self.searches.waiting:
            self.searches.start_waiting(now_s, out)
        self.provides.start_waiting(now_s, out)

    # Time

    def _on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        name = timer.name
        if name in (LATE, FAILED):
            self.roster.calls.on_timer(timer, now_s, out)
        elif name == TICK:
            self._on_tick(now_s, out)
        elif name == PUSH:
            self.pushes.on_timer(timer, now_s, out)
            self.provides.on_changed()
        elif name in (REPUBLISH, RETRY):
            self.provides.on_timer(timer, out)
        elif name == JOIN:
            self.searches.walk_to(
                Key(self.roster.table.place.number.to_bytes(32, "big")),
                now_s,
                out,
                partial(self._on_reviewed, timer.token) if timer.token else self._on_joined,
            )
        elif name == REFRESH:
            self._refresh_next(now_s, out)

    def _on_tick(self, now_s: float, out: Outbox) -> None:
        out.after(self.config.tick_s, Timer(TICK))
        self._ticks += 1
        if self._joined and not self._is_reviewing:
            self._is_reviewing = True
            self._plan_review(1, out)
        if not self.provides.check_next(self.config.check_pause_s, now_s, out) or not self._ticks % _NEAR_TICKS:
            self._ping_near(now_s, out)
        if not self._ticks % _SWEEP_TICKS:
            self.values.expire(self._wall.unix_s(now_s))
            if not self._to_refresh:
                self._to_refresh = [
                    index
                    for index, bucket in self.roster.table.buckets.items()
                    if now_s - bucket.touched_s >= self.config.refresh_s
                ]
                self._refresh_next(now_s, out)

    def _ping_near(self, now_s: float, out: Outbox) -> None:
        """Ask the next near node that was not heard for long whether it is there; the list is made once a round."""
        table = self.roster.table
        if not self._near:
            near = table.nearest(table.place.number, self.config.k, sound=False)
            self._near = sorted(near, key=lambda contact: -contact.heard_s)
        while self._near:
            contact = self._near.pop()
            if now_s - contact.heard_s >= self.config.near_quiet_s and contact.place.node in table.contacts:
                self.roster.ping(contact.place.node, contact.address, now_s, out)
                return

    def _plan_join(self, delay_s: float, out: Outbox) -> None:
        out.after(delay_s * self._rng.uniform(0.5, 1.5), Timer(JOIN))

    def _on_joined(self, search: Search, now_s: float, out: Outbox) -> None:
        """Fill the buckets farther than our nearest neighbour, one lookup each, the farthest first (Kademlia §2.3)."""
        nearest = search.walk.nearest(1)
        if nearest:
            index = self.roster.table.index_of(number_of(nearest[0].public))
            known = len(search.walk.by_public)
            self._to_refresh = list(range(index + 1, KEY_BITS)) if known >= self.config.k else []
            out.after(self.config.refresh_gap_s, Timer(REFRESH))

    def _plan_review(self, number: int, out: Outbox) -> None:
        if number <= len(_REVIEWS_S):
            out.after(_REVIEWS_S[number - 1] * self._rng.uniform(0.5, 1.5), Timer(JOIN, number))

    def _on_reviewed(self, number: int, search: Search, now_s: float, out: Outbox) -> None:
        """Look again where our records belong, now that more nodes are known."""
        self.provides.review()
        self.provides.start_waiting(now_s, out)
        self._plan_review(number + 1, out)

    def _refresh_next(self, now_s: float, out: Outbox) -> None:
        """Walk to a random place in the next bucket that is to be refreshed, and plan the one after it."""
        if not self._to_refresh:
            return
        index = self._to_refresh.pop()
        number = self.roster.table.place.number ^ (1 << index) ^ self._rng.getrandbits(index)
        self.searches.walk_to(Key(number.to_bytes(32, "big")), now_s, out, _on_refreshed)
        if self._to_refresh:
            out.after(self.config.refresh_gap_s * self._rng.uniform(0.8, 1.2), Timer(REFRESH))

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of the DHT is broken."""
        self.roster.assert_invariants()
        self.values.assert_invariants()
        self.searches.assert_invariants()
        self.provides.assert_invariants()
        self.pushes.assert_invariants()
        assert self.node_id not in self.roster.table.contacts, "a node is not its own contact"


def _on_refreshed(search: Search, now_s: float, out: Outbox) -> None:
    """Leave it at that: whoever answered was taken note of on the way."""
