"""Which orders a node holds: the newest of every operator, kind and audience, within bounds that no stranger can stretch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from agentmesh.core.orders.config import OrdersConfig
from agentmesh.core.orders.messages import LINES_MAX, Line, Slot
from agentmesh.identity.order import KINDS, Order
from agentmesh.ids import NodeId, public_key_of


@dataclass(slots=True)
class Held:
    """An order that is kept, and the peer that brought it."""

    order: Order
    via: NodeId


class Book:
    """Orders by slot.

    An order holds its slot until one of a higher rank comes. One for everybody also ends those of its operator and kind for
    single nodes that are older: it says what holds for them as well.

    Args:
        config: Bounds.
    """

    def __init__(self, config: OrdersConfig) -> None:
        self.config = config
        self.slots: dict[Slot, Held] = {}
        self._obeyed: dict[str, None] = {}
        self._strangers = 0
        self.obey(config.operators)

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators that are obeyed."""
        return tuple(self._obeyed)

    def obeys(self, operator: str) -> bool:
        """Say whether this node obeys an operator."""
        return operator in self._obeyed

    def obey(self, operators: tuple[str, ...]) -> list[Held]:
        """Obey these operators and no others; return what is held of those that were not obeyed before."""
        before = self._obeyed
        self._obeyed = dict.fromkeys(operators[: self.config.operators_max])
        self._strangers = sum(not self.obeys(held.order.operator) for held in self.slots.values())
        while self._strangers > self.config.strangers_max:
            self._evict()
        return [h for h in self.slots.values() if self.obeys(h.order.operator) and h.order.operator not in before]

    def get(self, slot: Slot) -> Order | None:
        """Return the order that holds a slot."""
        held = self.slots.get(slot)
        return None if held is None else held.order

    def is_news(self, order: Order) -> bool:
        """Say whether an order would be kept for its rank: nothing newer holds its slot, or that of all nodes."""
        return self.is_newer(slot_of(order), order.rank)

    def is_newer(self, slot: Slot, rank: tuple[int, bytes]) -> bool:
        """Say whether an order of this slot and rank is newer than what is held."""
        held = self.slots.get(slot)
        if held is not None and held.order.rank >= rank:
            return False
        wide = self.slots.get(Slot(slot.operator, slot.kind, b"")) if slot.audience else None
        return wide is None or wide.order.rank < rank

    def put(self, order: Order, via: NodeId) -> bool:
        """Keep an order that is news; say whether there was room, which there is for obeyed operators always.

        Raises nothing; what it replaces is dropped, and so is what goes over a bound.
        """
        slot = slot_of(order)
        obeyed = self.obeys(order.operator)
        if not obeyed and len(order.raw) > self.config.stranger_chars_max:
            return False
        self._drop(slot)
        same = [other for other in self.slots if other.operator == slot.operator]
        if not slot.audience:
            for other in same:
                if other.kind == slot.kind and self.slots[other].order.rank < order.rank:
                    self._drop(other)
            same = [other for other in same if other in self.slots]
        self.slots[slot] = Held(order, via)
        self._strangers += not obeyed
        each_max = self.config.each_max if obeyed else self.config.stranger_each_max
        while len(same) >= each_max:
            oldest = min((*same, slot), key=lambda other: (other.audience == b"", self.slots[other].order.rank))
            self._drop(oldest)
            if oldest == slot:
                return False
            same.remove(oldest)
        while self._strangers > self.config.strangers_max:
            self._evict()
        return slot in self.slots

    def _evict(self) -> None:
        """Drop the oldest order of a stranger that came from the peer which brought the most of them."""
        brought: dict[NodeId, int] = {}
        for held in self.slots.values():
            if not self.obeys(held.order.operator):
                brought[held.via] = brought.get(held.via, 0) + 1
        most = max(brought, key=lambda peer: brought[peer])
        self._drop(next(s for s, h in self.slots.items() if h.via == most and not self.obeys(h.order.operator)))

    def _drop(self, slot: Slot) -> None:
        held = self.slots.pop(slot, None)
        if held is not None:
            self._strangers -= not self.obeys(held.order.operator)

    def lines(self) -> list[Line]:
        """Return a line for everything that is held, obeyed operators first, as many as one message takes."""
        ours = [line_of(held.order) for held in self.slots.values() if self.obeys(held.order.operator)]
        others = [line_of(held.order) for held in self.slots.values() if not self.obeys(held.order.operator)]
        return (ours + others)[:LINES_MAX]

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken, or something is held that something newer replaced."""
        strangers = [h.order for h in self.slots.values() if not self.obeys(h.order.operator)]
        assert len(strangers) == self._strangers <= self.config.strangers_max
        assert all(len(order.raw) <= self.config.stranger_chars_max for order in strangers) or not strangers
        assert len(self.slots) - len(strangers) <= self.config.operators_max * self.config.each_max
        for slot, held in self.slots.items():
            assert slot == slot_of(held.order)
            wide = self.slots.get(Slot(slot.operator, slot.kind, b"")) if slot.audience else None
            assert wide is None or wide.order.rank < held.order.rank, "an order is held that one for everybody replaced"


def slot_of(order: Order) -> Slot:
    """Return the slot that an order holds."""
    named = "\n".join(order.audience).encode("ascii", "replace")
    audience = hashlib.sha256(named).digest()[:8] if named else b""
    return Slot(public_key_of(order.operator), KINDS.index(order.kind), audience)


def line_of(order: Order) -> Line:
    """Return the line that stands for an order."""
    return Line(slot_of(order), order.seq, order.mark)
