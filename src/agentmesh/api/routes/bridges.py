"""Routes of bridges to other registries, and of imports."""

from __future__ import annotations

from agentmesh.api.table import Ask, Param, RouteRow
from agentmesh.errors import (
    Closed,
    ConfigError,
    DecodeError,
    Full,
    LimitError,
    NoRoute,
    ReadOnly,
    RecordNotFound,
    StateError,
    Timeout,
    UsageError,
)
from agentmesh.sdk.types import BridgeChange, BridgeList, BridgeRequest, ImportRequest, ImportView


async def list_bridges(ask: Ask) -> BridgeList:
    """Answer ``GET /api/v1/bridges``."""
    return BridgeList(bridges=ask.site.registries.bridges())


async def add_bridge(ask: Ask) -> BridgeChange:
    """Answer ``POST /api/v1/bridges``."""
    request: BridgeRequest = ask.body
    try:
        return await ask.site.registries.add_bridge(request.url)
    except ConfigError as error:
        if error.code != "config.bridge":
            raise
        # The URL is what is wrong here, not the daemon's settings.
        raise UsageError(error.detail, code="bridge.bad_url", why=error.why, hint=error.hint) from error


async def remove_bridge(ask: Ask) -> BridgeChange:
    """Answer ``DELETE /api/v1/bridges``."""
    return await ask.site.registries.remove_bridge(ask.query["url"])


async def import_agents(ask: Ask) -> ImportView:
    """Answer ``POST /api/v1/import``."""
    return await ask.site.registries.import_from(ask.body)


ROWS = (
    RouteRow("GET", "/api/v1/bridges", list_bridges, "Show every bridge to another registry", BridgeList),
    RouteRow(
        "POST",
        "/api/v1/bridges",
        add_bridge,
        "Open a bridge to another registry, and keep it in config.toml",
        BridgeChange,
        BridgeRequest,
        (UsageError, StateError, LimitError, ConfigError, Full),
    ),
    RouteRow(
        "DELETE",
        "/api/v1/bridges",
        remove_bridge,
        "Close a bridge: what it took in leaves the mesh, what it sent out is withdrawn",
        BridgeChange,
        errors=(RecordNotFound, ConfigError, Full),
        params=(Param("url", "string", "", "URL of the bridge, or that without its query."),),
    ),
    RouteRow(
        "POST",
        "/api/v1/import",
        import_agents,
        "Register the agents of an agent card, an AI Catalog or an MCP registry",
        ImportView,
        ImportRequest,
        (UsageError, NoRoute, Closed, Timeout, DecodeError, LimitError, ReadOnly),
    ),
)
