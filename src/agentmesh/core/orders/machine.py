"""The orders machine: a new order goes to every linked peer at once; comparisons find what was lost (docs/spec/orders.md §4).

Orders are few, small and matter more than anything else that is told, so they flood: each node passes a new one to all its
peers but the one that brought it. No tree has to be whole, and who withholds an order only withholds its own copy. What it
costs, some 20 copies of 750 bytes per node and order, is less than one call. Orders of operators that this node does not obey
are passed on as well, within bounds per peer: the mesh between two nodes of one operator may be strangers'.
"""

from __future__ import annotations

import hashlib
import math
import random

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.core.messages import PeerDown, PeerUp, Received
from agentmesh.core.orders.book import Book, line_of
from agentmesh.core.orders.config import OrdersConfig
from agentmesh.core.orders.messages import (
    LINES_MAX,
    ORDERS_MAX,
    Line,
    LocalOrder,
    Obey,
    OrderHeard,
    Orders,
    OrdersHeld,
    OrdersWanted,
    Slot,
)
from agentmesh.errors import MeshError
from agentmesh.identity.order import KINDS, ORDER_CHARS_MAX, SEQ_MAX, Order, parse_order, verify_order
from agentmesh.ids import NodeId, did_of

COMPARE = "orders.compare"
#: Orders of strangers offered in one comparison to a peer that lacks them; it may have refused them before.
_STRANGERS_OFFERED_MAX = 8


class _Meter:
    """What one peer may still make us do: ``left`` tokens each for strangers' orders and for signatures to check."""

    __slots__ = ("at_s", "checks", "strangers")

    def __init__(self, config: OrdersConfig, now_s: float) -> None:
        self.strangers, self.checks, self.at_s = config.stranger_burst, config.check_burst, now_s

    def refill(self, config: OrdersConfig, now_s: float) -> None:
        """Add what time brought."""
        gone_s, self.at_s = now_s - self.at_s, now_s
        self.strangers = min(config.stranger_burst, self.strangers + gone_s * config.stranger_per_s)
        self.checks = min(config.check_burst, self.checks + gone_s * config.check_per_s)


class OrderSpread:
    """Spread of orders at one node.

    Args:
        node_id: This node.
        config: Bounds and intervals.
        rng: For the choice of peers and jitter.
    """

    def __init__(self, node_id: NodeId, config: OrdersConfig, rng: random.Random) -> None:
        self.node_id = node_id
        self.config = config
        self.book = Book(config)
        self.refused = self.forged = self.received = 0
        self._rng = rng
        self._peers: dict[NodeId, None] = {}
        self._meters: dict[NodeId, _Meter] = {}
        self._seen: dict[bytes, None] = {}
        self._fast = 0
        self._token = 0
        self._due_s = math.inf

    def handle(self, incoming: object, now_s: float, out: Outbox) -> None:
        """Take one input (``core.messages``, ``core.orders.messages``) and write effects; what it does not know it ignores."""
        if isinstance(incoming, Received):
            self._on_received(incoming, now_s, out)
        elif isinstance(incoming, PeerUp):
            self._peers[incoming.peer] = None
            if self.book.slots:
                self._compare(incoming.peer, out)
                self._wake(now_s, out)
        elif isinstance(incoming, PeerDown):
            self._peers.pop(incoming.peer, None)
        elif isinstance(incoming, LocalOrder):
            if self.book.is_news(incoming.order) and self.book.put(incoming.order, self.node_id):
                self._pass_on(incoming.order, None, now_s, out)
        elif isinstance(incoming, Obey):
            self._seen.clear()  # what was refused of a stranger is welcome now
            for held in self.book.obey(incoming.operators):
                out.emit(OrderHeard(held.order, held.via))
        elif isinstance(incoming, Timer) and incoming.token == self._token:
            self._on_timer(now_s, out)

    # Time

    def _on_timer(self, now_s: float, out: Outbox) -> None:
        peers = list(self._peers)
        count = self.config.fast_peers if self._fast else self.config.compare_peers
        for peer in self._rng.sample(peers, min(len(peers), count)):
            self._compare(peer, out)
        self._fast = max(0, self._fast - 1)
        self._due_s = math.inf
        self._wake(now_s, out)

    def _wake(self, now_s: float, out: Outbox) -> None:
        """Have the next comparison come, soon if there was news. Who holds nothing, or knows nobody, sleeps."""
        pause_s = self.config.fast_s if self._fast else self.config.compare_s
        if self._peers and self.book.slots and self._due_s > now_s + pause_s * 1.15:
            pause_s *= self._rng.uniform(0.85, 1.15)
            self._token += 1
            self._due_s = now_s + pause_s
            out.after(pause_s, Timer(COMPARE, self._token))

    def _compare(self, peer: NodeId, out: Outbox) -> None:
        """Say what is held; a node that holds nothing hears of it from those that do."""
        out.send(peer, OrdersHeld(lines=self.book.lines()), link=True)

    # What peers say

    def _on_received(self, received: Received, now_s: float, out: Outbox) -> None:
        peer, message = received.peer, received.message
        if isinstance(message, Orders):
            if len(message.orders) > ORDERS_MAX:
                out.emit(PeerMisbehaved(peer, "orders.too_many", f"{len(message.orders)} orders in one message"))
                return
            for raw in message.orders:
                self._take(raw, peer, now_s, out)
        elif isinstance(message, OrdersHeld):
            if len(message.lines) > LINES_MAX or not all(map(_is_line, message.lines)):
                out.emit(PeerMisbehaved(peer, "orders.malformed", "a malformed list of orders"))
                return
            self._weigh(peer, message, now_s, out)
        elif isinstance(message, OrdersWanted):
            if len(message.slots) > LINES_MAX:
                out.emit(PeerMisbehaved(peer, "orders.too_many", f"{len(message.slots)} orders are asked for at once"))
                return
            wanted = [self.book.get(slot) for slot in dict.fromkeys(message.slots)]
            self._give(peer, [order for order in wanted if order is not None], out)

    def _weigh(self, peer: NodeId, theirs: OrdersHeld, now_s: float, out: Outbox) -> None:
        """Ask for what is newer there, and send what is newer or only here."""
        book, named = self.book, dict[Slot, Line]()
        wanted: list[Slot] = []
        left = int(self._meter(peer, now_s).strangers)
        for line in theirs.lines:
            named[line.slot] = line
            if not book.is_newer(line.slot, (line.seq, line.mark)):
                continue
            if not book.obeys(did_of(line.slot.operator)):
                if left <= 0:
                    continue
                left -= 1
            wanted.append(line.slot)
        if wanted:
            out.send(peer, OrdersWanted(slots=wanted), link=True)
        ours: list[Order] = []
        strangers: list[Order] = []
        for slot, held in book.slots.items():
            line = named.get(slot)
            newer = not theirs.whole if line is None else held.order.rank <= (line.seq, line.mark)
            wide = named.get(Slot(slot.operator, slot.kind, b"")) if slot.audience else None
            if newer or (wide is not None and (wide.seq, wide.mark) >= held.order.rank):
                continue
            (ours if book.obeys(held.order.operator) else strangers).append(held.order)
        if len(strangers) > _STRANGERS_OFFERED_MAX:
            strangers = self._rng.sample(strangers, _STRANGERS_OFFERED_MAX)
        self._give(peer, ours + strangers, out)

    def _give(self, peer: NodeId, orders: list[Order], out: Outbox) -> None:
        """Send orders, as many as one answer takes; the rest comes with the next comparison."""
        batch: list[str] = []
        size = 0
        for order in orders[:ORDERS_MAX]:
            size += len(order.raw)
            if batch and size > self.config.answer_chars:
                break
            batch.append(order.raw)
        if batch:
            out.send(peer, Orders(orders=batch), link=True)

    def _take(self, raw: str, peer: NodeId, now_s: float, out: Outbox) -> None:
        """Take in an order of a peer: from cheap to dear, the signature last."""
        self.received += 1
        digest = hashlib.sha256(raw[: ORDER_CHARS_MAX + 1].encode("utf-8", "surrogatepass")).digest()[:16]
        if digest in self._seen:
            return
        try:
            order = parse_order(raw)
        except MeshError as error:
            self._blame(peer, digest, error, out)
            return
        if not self.book.is_news(order):
            return
        meter = self._meter(peer, now_s)
        obeyed = self.book.obeys(order.operator)
        too_long = not obeyed and len(raw) > self.config.stranger_chars_max
        if too_long or (meter.checks if obeyed else meter.strangers) < 1:
            self.refused += 1
            return
        if obeyed:
            meter.checks -= 1
        else:
            meter.strangers -= 1
        try:
            verify_order(order)
        except MeshError as error:
            self._blame(peer, digest, error, out)
            return
        self._note_seen(digest)
        if not self.book.put(order, peer):
            self.refused += 1
            return
        if obeyed:
            out.emit(OrderHeard(order, peer))
        self._pass_on(order, peer, now_s, out)

    def _blame(self, peer: NodeId, digest: bytes, error: MeshError, out: Outbox) -> None:
        self.forged += 1
        self._note_seen(digest)
        out.emit(PeerMisbehaved(peer, error.code, f"an order that does not hold: {error.detail}"))

    def _pass_on(self, order: Order, via: NodeId | None, now_s: float, out: Outbox) -> None:
        """Send a new order to every peer but the one that brought it, and compare soon with some."""
        small = len(order.raw) <= self.config.push_chars_max
        message = Orders(orders=[order.raw]) if small else OrdersHeld(lines=[line_of(order)], whole=False)
        for peer in self._peers:
            if peer != via:
                out.send(peer, message, link=True)
        if self.book.obeys(order.operator):
            # Strangers' orders must not make us busy: they have the usual comparisons.
            self._fast = self.config.fast_rounds
        self._wake(now_s, out)

    def _note_seen(self, digest: bytes) -> None:
        while len(self._seen) >= self.config.seen_max:
            del self._seen[next(iter(self._seen))]
        self._seen[digest] = None

    def _meter(self, peer: NodeId, now_s: float) -> _Meter:
        """Return what a peer may still bring; it is kept when the peer goes, or a new link would forgive everything."""
        meter = self._meters.get(peer)
        if meter is None:
            while len(self._meters) >= self.config.peers_max:
                del self._meters[next(iter(self._meters))]
            meter = self._meters[peer] = _Meter(self.config, now_s)
        meter.refill(self.config, now_s)
        return meter

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule is broken."""
        self.book.assert_invariants()
        assert len(self._meters) <= self.config.peers_max
        assert len(self._seen) <= self.config.seen_max
        assert self._due_s < math.inf or not self._peers or not self.book.slots, "no comparison is coming"
        assert all(meter.strangers >= 0 and meter.checks >= 0 for meter in self._meters.values())


def _is_line(line: Line) -> bool:
    slot = line.slot
    shaped = len(slot.operator) == 32 and 0 <= slot.kind < len(KINDS) and len(slot.audience) in (0, 8)
    return shaped and 0 <= line.seq <= SEQ_MAX and len(line.mark) == 8
