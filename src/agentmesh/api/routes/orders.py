"""Routes of operators' orders: what is in force here, and taking a new one."""

from __future__ import annotations

from agentmesh.api.table import Ask, RouteRow
from agentmesh.errors import DecodeError, ReplayError, SignatureError, Unauthorized
from agentmesh.sdk.types import OrderRequest, OrdersView, OrderTaken


async def show_orders(ask: Ask) -> OrdersView:
    """Answer ``GET /api/v1/orders``."""
    return ask.backend.orders_view()


async def take_order(ask: Ask) -> OrderTaken:
    """Answer ``POST /api/v1/orders``."""
    request: OrderRequest = ask.body
    return await ask.site.node.take_order(request.order)


ROWS = (
    RouteRow(
        "GET",
        "/api/v1/orders",
        show_orders,
        "Show the operators that this node obeys and their orders",
        OrdersView,
        scope="read",
    ),
    RouteRow(
        "POST",
        "/api/v1/orders",
        take_order,
        "Hand over an operator's order: stop, resume, lists, revoked keys",
        OrderTaken,
        OrderRequest,
        (DecodeError, SignatureError, Unauthorized, ReplayError),
        description="Answered when the order is in force here and on disk; it spreads to every reachable node by itself.",
    ),
)
