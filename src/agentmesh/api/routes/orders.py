"""Routes of operators' orders: what is in force here, and taking a new one."""

from __future__ import annotations

from agentmesh.api.table import Ask, RouteRow
from agentmesh.errors import (
    ConfigError,
    DecodeError,
    Full,
    RecordNotFound,
    ReplayError,
    SignatureError,
    Unauthorized,
    UsageError,
)
from agentmesh.sdk.types import KillSwitchRequest, OrderRequest, OrdersView, OrderTaken


async def show_orders(ask: Ask) -> OrdersView:
    """Answer ``GET /api/v1/orders``."""
    return ask.backend.orders_view()


async def take_order(ask: Ask) -> OrderTaken:
    """Answer ``POST /api/v1/orders``."""
    request: OrderRequest = ask.body
    return await ask.site.node.take_order(request.order)


async def turn_kill_switch(ask: Ask) -> OrderTaken:
    """Answer ``POST /api/v1/killswitch``."""
    return await ask.site.node.kill_switch(ask.body, ask.rights.who)


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
    RouteRow(
        "POST",
        "/api/v1/killswitch",
        turn_kill_switch,
        "Stop every node that obeys the operator whose key is in this home, or let them go on",
        OrderTaken,
        KillSwitchRequest,
        (RecordNotFound, ConfigError, UsageError, Unauthorized, ReplayError, Full),
        description="What `agentmesh killswitch on` and `off` do. `GET /api/v1/net` tells which nodes confirm: their `stops` "
        "hold the `jti` of the answer, or nothing any more. No MCP tool leads here.",
    ),
)
