"""What ``killswitch`` and ``operator`` share: the operator's key of this home, and the node that takes its orders.

A stop must not depend on a running daemon: without one, orders are written where the next start reads them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Protocol

from agentmesh.cli.output import Output

if TYPE_CHECKING:
    from agentmesh.daemon.home import Home
    from agentmesh.identity.keys import KeyPair
    from agentmesh.node.orders import Orders
    from agentmesh.wire.net_views import NetView
    from agentmesh.wire.order_views import OrdersView, OrderTaken


class Desk(Protocol):
    """Who takes orders: the running daemon, or the files of one that does not run."""

    def orders(self) -> OrdersView:
        """Return what is in force at the node."""
        ...

    def take_order(self, order: str) -> OrderTaken:
        """Hand an order over. Raises as ``node.orders.Orders.submit``."""
        ...

    def net(self) -> NetView | None:
        """Ask the mesh who is stopped; None if no daemon runs that could."""
        ...


class Files:
    """The files of a node that does not run; its lock is held meanwhile.

    Args:
        orders: Made of these files.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    def orders(self) -> OrdersView:
        """Return what will be in force at the next start."""
        return self._orders.view()

    def take_order(self, order: str) -> OrderTaken:
        """Write an order to disk."""
        return self._orders.submit(order)

    def net(self) -> None:
        """Nobody can be asked."""


@contextlib.contextmanager
def desk(out: Output) -> Generator[Desk]:
    """Give the running daemon of the home, or its files if none runs.

    Raises:
        StateError: a daemon is starting or ending just now.
        ConfigError, Full: the home cannot be used.
    """
    from agentmesh.cli.connect import home_of
    from agentmesh.daemon import lock

    home = home_of(out)
    if lock.is_held(home):
        from agentmesh.cli.connect import connect

        with connect(out) as mesh:
            yield mesh
        return
    home.prepare()
    with lock.DaemonLock(home):
        yield Files(_orders_of(out, home))


def _orders_of(out: Output, home: Home) -> Orders:
    """Return what a daemon would make of the files of a home."""
    import random

    from agentmesh.core.machine import Outbox
    from agentmesh.core.orders.config import OrdersConfig
    from agentmesh.core.orders.machine import OrderSpread
    from agentmesh.daemon.settings import load
    from agentmesh.ids import node_id
    from agentmesh.node.killswitch import KillSwitch
    from agentmesh.node.orders import Orders, own_operator
    from agentmesh.store.keyfile import load_or_create_key
    from agentmesh.store.orders import OrderFile

    settings = load({"home": home.path}, profile=out.profile or None).settings
    node = node_id(load_or_create_key(home.node_key).public)
    spread = OrderSpread(node, OrdersConfig(), random.Random(0))  # noqa: S311 nobody is told anything
    orders = Orders(
        node,
        spread.book,
        OrderFile(home.orders),
        KillSwitch(),
        operators=lambda: settings.operators or own_operator(home.path),
        feed=lambda incoming: spread.handle(incoming, 0.0, Outbox()),
        on_revoked=lambda _: None,
    )
    orders.open()
    return orders


def operator_key(out: Output, *, create: bool = False) -> KeyPair:
    """Return the operator's key of this home (see ``node.operator.operator_key``); with ``create`` the home is made too."""
    from agentmesh.cli.connect import home_of
    from agentmesh.node import operator

    home = home_of(out)
    if create and not home.operator_key.exists():
        home.prepare()
    return operator.operator_key(home.operator_key, create=create)


def revoke_with(
    node: Desk, key: KeyPair, dids: Sequence[str], reason: str, *, add: bool
) -> tuple[OrderTaken, tuple[str, ...]]:
    """Publish all keys that a key holds for revoked: those before, with or without these; return the answer and those keys.

    Args:
        node: Who takes the order.
        key: An operator's or an organisation's.
        dids: Keys to add or to take out.
        reason: For people.
        add: Which of the two.

    Raises:
        DecodeError: one is no did:key. Nothing was published.
        MeshError: the node does not take the order (``node.orders.Orders.submit``).
    """
    from agentmesh.identity.order import Revoke, read_order
    from agentmesh.ids import public_key_of
    from agentmesh.node.operator import sign

    for did in dids:
        public_key_of(did)
    known = node.orders()
    before: tuple[str, ...] = ()
    for one in known.orders:
        if one.operator == key.did and one.kind == "revoke" and not one.audience:
            body = read_order(one.order).body
            before = body.keys if isinstance(body, Revoke) else ()
    keys = tuple(dict.fromkeys((*before, *dids))) if add else tuple(did for did in before if did not in dids)
    return node.take_order(sign(key, Revoke(keys, reason), known)), keys
