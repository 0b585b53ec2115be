"""The kill switch of one node: while a stop is in force nothing is called, registered or withdrawn here (docs/spec/orders.md §5).

What only reads goes on: discover, trace, status, receipts. It is asked at every door that a write comes through, and first of
all checks of a call, so that a stopped node does no work for anybody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from agentmesh.errors import ReadOnly
from agentmesh.identity.order import Order, Resume, Stop
from agentmesh.ids import short
from agentmesh.node.callee import Ended, Visit

_HINT = "agentmesh killswitch status"


def stops_in_force(orders: Sequence[Order], now: int) -> list[Order]:
    """Return the stops that hold at a unix second, oldest first.

    Args:
        orders: Verified switch orders that are for this node, of operators that it obeys.
        now: Unix seconds.

    Of each operator the newest order counts. A stop ends with its ``until``, or when another operator's resume names it.
    """
    newest: dict[str, Order] = {}
    for order in orders:
        held = newest.get(order.operator)
        if held is None or order.rank > held.rank:
            newest[order.operator] = order
    released = {jti for order in newest.values() if isinstance(order.body, Resume) for jti in order.body.releases}
    stops = [order for order in newest.values() if isinstance(order.body, Stop) and order.jti not in released]
    return sorted((one for one in stops if _lasts(one, now)), key=lambda one: (one.iat, one.rank))


def _lasts(order: Order, now: int) -> bool:
    return not isinstance(order.body, Stop) or order.body.until is None or now < order.body.until


class KillSwitch:
    """Say whether this node may write, and end what runs when it no longer may (``node.callee.Check``, the first one).

    Attributes:
        on_stop: Called with the error that callers are told when a stop comes into force; ends calls that began here.
    """

    def __init__(self) -> None:
        self.on_stop: Callable[[ReadOnly], None] | None = None
        self._orders: tuple[Order, ...] = ()
        self._visits: dict[Visit, asyncio.Task[object]] = {}
        self._was_on = False
        #: Why it is on although no stop is known: what was kept of orders cannot be read. "" = it can.
        self.damage = ""

    def set(self, orders: Sequence[Order]) -> None:
        """Take the switch orders that are for this node; calls that run are ended if these stop it."""
        self._orders = tuple(orders)
        error = self.error()
        if error is not None and not self._was_on:
            for visit, task in list(self._visits.items()):
                visit.halted = error
                task.cancel()
            if self.on_stop is not None:
                self.on_stop(error)
        self._was_on = error is not None

    def stops(self) -> list[Order]:
        """Return the stops in force now, oldest first."""
        return stops_in_force(self._orders, int(time.time())) if self._orders else []

    @property
    def is_on(self) -> bool:
        """Whether this node is read-only."""
        return bool(self.damage) or bool(self.stops())

    def error(self) -> ReadOnly | None:
        """Return what is told to whoever wants to write; None while writing is allowed."""
        stops = self.stops()
        if not stops:
            if not self.damage:
                return None
            return ReadOnly("this node is read-only: its record of orders is damaged", why=self.damage, hint=_HINT)
        order = stops[0]
        assert isinstance(order.body, Stop)
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(order.iat))
        reason = order.body.reason or "no reason was given"
        return ReadOnly(
            f"this node is read-only: {reason}",
            why=f"operator {short(order.operator)} stopped it at {since}; reads work, calls and other writes do not",
            hint=_HINT,
            extra={"operator": order.operator, "since": order.iat, "order": order.jti},
        )

    def refuse(self) -> None:
        """Raise ReadOnly while a stop is in force."""
        error = self.error()
        if error is not None:
            raise error

    async def enter(self, visit: Visit) -> None:
        """Let the call pass, and remember its task so that a stop can end it. Raises ReadOnly."""
        self.refuse()
        task = asyncio.current_task()
        assert task is not None
        self._visits[visit] = task

    def leave(self, visit: Visit, ended: Ended) -> None:
        """Forget the call."""
        self._visits.pop(visit, None)
