"""The shapes of the HTTP API that concern operators' orders; the others are in ``views``."""

from __future__ import annotations

import msgspec


class OrderView(msgspec.Struct, kw_only=True):
    """One order of an operator that this node obeys (docs/spec/orders.md).

    Attributes:
        operator: did:key of who signed it.
        kind: "switch", "list" or "revoke": orders of one kind replace each other.
        event: "stop", "resume", "lists" or "revoke".
        seq, iat, jti: Its number, unix seconds when it was signed, and its name.
        audience: Node ids it is for; empty = all that obey.
        reason: For people.
        until: Unix second at which a stop ends by itself.
        here: Whether it is for this node.
        order: As it was signed.
    """

    operator: str
    kind: str
    event: str
    seq: int
    iat: int
    jti: str
    audience: list[str] = []
    reason: str = ""
    until: int | None = None
    here: bool = True
    order: str = ""


class OrdersView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/orders``.

    Attributes:
        node_id: This node.
        read_only: Whether calls and other writes are refused here.
        operators: did:keys that it obeys.
        orders: The newest of each operator, kind and audience.
        stops: ``jti`` of the stops in force here.
        revoked: Keys that may do nothing here.
        problem: Why what is in force may not be known after a restart, or is not known now; "" = all is well.
    """

    node_id: str
    read_only: bool = False
    operators: list[str] = []
    orders: list[OrderView] = []
    stops: list[str] = []
    revoked: list[str] = []
    problem: str = ""


class OrderRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/orders``: an order as its operator signed it (compact JWS)."""

    order: str


class OrderTaken(msgspec.Struct, kw_only=True):
    """Answer to an order: it is in force here, and on its way to others.

    Attributes:
        order: What was taken.
        kept: False if it could not be written to disk; it holds all the same until this node ends.
        problem: Why not.
    """

    order: OrderView
    kept: bool = True
    problem: str = ""


class KillSwitchRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/killswitch``: have this node sign a stop, or its end, with the operator's key of its home, and obey it.

    Attributes:
        on: True stops; false lets the nodes go on.
        reason: Why, for everybody who is refused; one line of at most 500 characters.
        for_s: Seconds after which a stop ends by itself; 0 = when it is released.
        local: For this node only.
    """

    on: bool
    reason: str = ""
    for_s: int = 0
    local: bool = False
