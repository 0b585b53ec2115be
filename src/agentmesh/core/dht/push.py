"""Records follow their keys: what we hold goes to nodes that have become one of the nearest (docs/spec/dht.md §8)."""

from __future__ import annotations

import random

from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.messages import ITEMS_MAX, Item, Store
from agentmesh.core.dht.roster import Roster
from agentmesh.core.dht.values import Values
from agentmesh.core.machine import Outbox, Timer, WallTime
from agentmesh.identity.provider import Provider
from agentmesh.ids import Key, NodeId

PUSH = "dht.push"
#: Keys looked at per slice: each costs some 40 µs.
_SLICE = 128
#: Bytes of a ``Store`` apart from its items: tag, field names, rpc, a long address.
STORE_BYTES = 320
#: Bytes of an item beside its record: the key and three lengths.
ITEM_BYTES = 40


class Pushes:
    """What is to be pushed to whom.

    Args:
        roster, values: Of the same machine.
        config: Pace and bounds.
        rng: For jitter.
        wall: To leave expired records out.
    """

    __slots__ = (
        "_config",
        "_near",
        "_newcomers",
        "_queued",
        "_rng",
        "_roster",
        "_scan",
        "_token",
        "_values",
        "_wall",
        "queue",
    )

    def __init__(self, roster: Roster, values: Values, config: DhtConfig, rng: random.Random, wall: WallTime) -> None:
        #: The records each node is to get.
        self.queue: dict[NodeId, list[Provider]] = {}
        self._queued = 0
        self._roster, self._values, self._config, self._rng, self._wall = roster, values, config, rng, wall
        self._near: dict[NodeId, None] = {}
        self._newcomers: dict[NodeId, None] = {}
        self._scan: list[Key] = []
        self._token = 0

    def schedule(self, out: Outbox) -> None:
        """Look at what changed among the nearest nodes a little later, together with what else changes until then."""
        if not self._token:
            self._wake(self._config.push_delay_s * self._rng.uniform(0.5, 1.5), out)

    def settle(self) -> None:
        """Take the nodes nearest to us as they are: those that come later are newcomers."""
        roster = self._roster
        near = roster.table.nearest(roster.table.place.number, self._config.k)
        self._near = dict.fromkeys(contact.place.node for contact in near)
        full = len(near) >= self._config.k
        roster.near_index = roster.table.index_of(near[-1].place.number) if full else 255
        roster.changed = False

    def on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        """Find out who is new among the nearest, look through a slice of the keys, and send a batch."""
        if timer.token != self._token:
            return
        self._token = 0
        if self._roster.changed:
            before = self._near
            self.settle()
            fresh = [node for node in self._near if node not in before]
            if fresh:
                self._newcomers.update(dict.fromkeys(fresh))
                self._scan = list(self._values.keys)
        unix_s = self._wall.unix_s(now_s)
        for _ in range(min(_SLICE, len(self._scan))):
            self._assign(self._scan.pop(), unix_s)
        if not self._scan:
            self._newcomers = {}
        self._send(now_s, out)
        if self._scan or self.queue:
            self._wake(self._config.push_gap_s, out)

    def _assign(self, key: Key, unix_s: int) -> None:
        """Push a key to those newcomers that belong to its nearest nodes, if we are the one to do it."""
        number = int.from_bytes(key, "big")
        table = self._roster.table
        nearest = table.nearest(number, self._config.store_set)
        mine = table.place.number ^ number
        elders = sum(c.place.number ^ number < mine and c.place.node not in self._newcomers for c in nearest)
        if elders >= self._config.push_rank:
            return
        held = self._values.of(key, unix_s)
        for contact in nearest:
            if contact.place.node in self._newcomers and self._queued + len(held) <= self._config.pushes_max:
                self.queue.setdefault(contact.place.node, []).extend(held)
                self._queued += len(held)

    def _send(self, now_s: float, out: Outbox) -> None:
        for _ in range(self._config.pushes_per_tick):
            if not self.queue:
                return
            node = next(iter(self.queue))
            providers = self.queue.pop(node)
            contact = self._roster.table.contacts.get(node)
            if contact is None:
                self._queued -= len(providers)
                continue
            items: list[Item] = []
            size = STORE_BYTES
            while providers and len(items) < ITEMS_MAX:
                size += len(providers[-1].raw) + ITEM_BYTES
                if items and size > self._config.reply_bytes_max:
                    break
                provider = providers.pop()
                self._queued -= 1
                items.append(Item(provider.key, provider.raw))
            if providers:
                self.queue[node] = providers
            if items:
                at = (contact.address,) if contact.address else ()
                self._roster.calls.ask(node, Store(rpc=0, items=items), at, now_s, out, _ignore)

    def _wake(self, delay_s: float, out: Outbox) -> None:
        self._token = self._rng.getrandbits(32) | 1
        out.after(delay_s, Timer(PUSH, self._token))

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound of pushing is broken."""
        assert sum(map(len, self.queue.values())) == self._queued <= self._config.pushes_max, "pushes miscounted"


def _ignore(answer: object, now_s: float, out: Outbox) -> None:
    """Leave it at that: whether a push arrived is the business of the next change, or of the owner's check."""
