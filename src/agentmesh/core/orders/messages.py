"""What nodes say to each other about orders (docs/spec/orders.md §4; tags are listed in ``wire.v1``)."""

from __future__ import annotations

import msgspec

from agentmesh.identity.order import Order
from agentmesh.ids import NodeId

#: Lines or slots in one message, both ways: above all that one node keeps.
LINES_MAX = 512
#: Orders in one message, both ways.
ORDERS_MAX = 64


class Slot(msgspec.Struct, array_like=True, frozen=True):
    """A place that one order at a time holds.

    Attributes:
        operator: 32 bytes of public key.
        kind: Position in ``identity.order.KINDS``.
        audience: First 8 bytes of the SHA-256 of the node ids it is for, joined by line feeds; empty = for everybody.
    """

    operator: bytes
    kind: int
    audience: bytes


class Line(msgspec.Struct, array_like=True, frozen=True):
    """Which order holds a slot at the sender: its ``seq`` and its mark (8 bytes of its SHA-256)."""

    slot: Slot
    seq: int
    mark: bytes


class OrdersHeld(msgspec.Struct, tag="orders_held", kw_only=True, omit_defaults=True):
    """What the sender holds: everything (``whole``), or what is new."""

    lines: list[Line]
    whole: bool = True


class OrdersWanted(msgspec.Struct, tag="orders_wanted", kw_only=True):
    """Send me the orders of these slots."""

    slots: list[Slot]


class Orders(msgspec.Struct, tag="orders", kw_only=True):
    """Orders as they were signed, asked for or not."""

    orders: list[str]


class Obey(msgspec.Struct, frozen=True):
    """Input: obey these operators from now on, no others."""

    operators: tuple[str, ...]


class LocalOrder(msgspec.Struct, frozen=True):
    """Input: an order that came over the API or from disk; its signature was checked."""

    order: Order


class OrderHeard(msgspec.Struct, frozen=True):
    """Event: a verified order of an obeyed operator, newer than all before in its slot. ``via`` is who brought it."""

    order: Order
    via: NodeId
