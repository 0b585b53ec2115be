"""Who gets into the routing table, and who drops out: nobody enters unproven (docs/spec/dht.md §2)."""

from __future__ import annotations

import random
from functools import partial

from agentmesh.core.dht.calls import Answer, Calls
from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.messages import Check, Checked
from agentmesh.core.dht.place import KEY_BITS, Place, place_of
from agentmesh.core.dht.table import Table
from agentmesh.core.machine import Outbox
from agentmesh.ids import NodeId

#: An address is a hint of a few dozen characters.
ADDRESS_CHARS_MAX = 256


def usable(address: str) -> str:
    """Return an address that a peer named, "" if it is none that could be passed on: too long, or not plain ASCII."""
    return address if len(address) <= ADDRESS_CHARS_MAX and address.isascii() else ""


class Roster:
    """The table of one node and the questions that keep it true.

    Args:
        place: This node's own.
        config: Bounds and times.
        rng: For the rpc numbers.
    """

    __slots__ = ("_asked", "_config", "_shunned", "calls", "changed", "near_index", "table")

    def __init__(self, place: Place, config: DhtConfig, rng: random.Random) -> None:
        self.table = Table(place, config)
        self.calls = Calls(config, rng, self._heard, self._unheard)
        #: A node among the nearest came or went since this was last reset.
        self.changed = False
        #: Changes in buckets up to this one concern the nodes nearest to us.
        self.near_index = 255
        self._config = config
        #: Nodes being asked whether they are there.
        self._asked: dict[NodeId, None] = {}
        #: Nodes that did not answer, until when they are let be.
        self._shunned: dict[NodeId, float] = {}

    def hear(self, node: NodeId, address: str, now_s: float, out: Outbox) -> None:
        """Note that a node answered us: it stays, enters, or waits for a place."""
        table = self.table
        contact = table.contacts.get(node)
        if contact is not None:
            contact.heard_s = now_s
            contact.failures = 0
            if address and address != contact.address:
                table.move(contact, address)
            return
        if node == table.place.node:
            return
        place = place_of(node)
        self._shunned.pop(node, None)
        became = table.admit(place, address, now_s)
        if became == "admitted":
            self.changed = self.changed or table.index_of(place.number) <= self.near_index
        elif became == "waiting":
            oldest = table.oldest(place.number)
            if oldest is not None and now_s - oldest.heard_s > self._config.stale_s:
                self.ping(oldest.place.node, oldest.address, now_s, out)

    def consider(self, node: NodeId, number: int | None, address: str, now_s: float, out: Outbox) -> None:
        """Note a node that somebody named, or that asked us: it is asked whether it is there, if there is room for it."""
        table = self.table
        if node in table.contacts or node == table.place.node or node in self._asked:
            return
        if number is None:
            number = place_of(node).number
        if not table.has_room(number) or self._shunned.get(node, now_s) > now_s:
            return
        self.ping(node, address, now_s, out)

    def ping(self, node: NodeId, address: str, now_s: float, out: Outbox) -> None:
        """Ask a node whether it is there, unless it is being asked or too many are."""
        if node in self._asked or len(self._asked) >= self._config.pings_max:
            return
        self._asked[node] = None
        at = (address,) if address else ()
        self.calls.ask(node, Check(rpc=0), at, now_s, out, partial(self._on_pinged, node))

    def expel(self, node: NodeId, now_s: float, out: Outbox) -> None:
        """Take a node out (dead, gone, or a liar) and ask the next one for its place."""
        contact = self.table.contacts.get(node)
        if contact is None:
            return
        self.changed = self.changed or self.table.index_of(contact.place.number) <= self.near_index
        heir = self.table.expire(node)
        if heir is not None:
            self.ping(*heir, now_s, out)

    def shun(self, node: NodeId, now_s: float) -> None:
        """Let a node be for a while."""
        self._shunned.pop(node, None)
        if len(self._shunned) >= self._config.shunned_max:
            del self._shunned[next(iter(self._shunned))]
        self._shunned[node] = now_s + self._config.shun_s

    def _on_pinged(self, node: NodeId, answer: Checked | None, now_s: float, out: Outbox) -> None:
        del self._asked[node]
        if answer is None and node not in self.table.contacts:
            self.shun(node, now_s)

    def _heard(self, node: NodeId, addresses: tuple[str, ...], answer: Answer, now_s: float, out: Outbox) -> None:
        """Note who answered: a newcomer enters under the address it names, else under that at which it was asked."""
        contact = self.table.contacts.get(node)
        if contact is not None:
            contact.heard_s = now_s
            contact.failures = 0
            if isinstance(answer, Checked) and answer.at != contact.address and (address := usable(answer.at)):
                self.table.move(contact, address)
        elif isinstance(answer, Checked):
            if address := usable(answer.at):
                self.hear(node, address, now_s, out)
        else:
            if len(addresses) == 1:
                self.hear(node, addresses[0], now_s, out)
            else:  # which of the addresses is right, it will say
                self.consider(node, None, addresses[0] if addresses else "", now_s, out)

    def _unheard(self, node: NodeId, now_s: float, out: Outbox) -> None:
        contact = self.table.contacts.get(node)
        if contact is None:
            return
        contact.failures += 1
        if contact.failures >= self._config.failures_max:
            self.expel(node, now_s, out)
            self.shun(node, now_s)
        else:
            self.ping(node, contact.address, now_s, out)

    def size_estimate(self) -> int:
        """Estimate the number of nodes from how densely the nearest ones lie; least squares over their distances."""
        number = self.table.place.number
        near = self.table.nearest(number, self._config.k)
        if len(near) < self._config.k:
            return len(near) + 1
        ranks = sum(rank * rank for rank in range(1, len(near) + 1))
        distances = sum(rank * (contact.place.number ^ number) for rank, contact in enumerate(near, 1))
        return max(len(self.table.contacts) + 1, ranks * (1 << KEY_BITS) // max(1, distances))

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of the table is broken."""
        self.table.assert_invariants()
        assert len(self._asked) <= self._config.pings_max, "too many pings"
        assert len(self._shunned) <= self._config.shunned_max, "too many shunned"
