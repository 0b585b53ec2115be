"""Routes of what goes on: who calls whom, and the node in figures."""

from __future__ import annotations

from agentmesh.api.table import Ask, Param, RouteRow
from agentmesh.errors import UsageError
from agentmesh.sdk.types import StatsView, TopologyView
from agentmesh.wire.topology_views import WINDOW_S, WINDOW_S_MAX, WINDOW_S_MIN


async def topology(ask: Ask) -> TopologyView:
    """Answer ``GET /api/v1/topology``."""
    return await ask.backend.topology(ask.query["window"], ask.query["source"], ask.query["zone"])


async def stats(ask: Ask) -> StatsView:
    """Answer ``GET /api/v1/stats``."""
    return await ask.backend.stats()


ROWS = (
    RouteRow(
        "GET",
        "/api/v1/topology",
        topology,
        "Show machines, agents and who called whom",
        TopologyView,
        errors=(UsageError,),
        params=(
            Param("window", "integer", WINDOW_S, "Calls of so many seconds.", low=WINDOW_S_MIN, high=WINDOW_S_MAX),
            Param("source", "string", "", "Only machines that were found so: mdns, static, dht, wan, …", chars_max=64),
            Param("zone", "string", "", "Only machines of this zone.", chars_max=256),
        ),
        description=(
            "What this node saw: calls at its agents, calls of its agents, and those of people and programs beside it. "
            "This node is part of every answer, whatever the filters say, since each edge has an end here."
        ),
        scope="read",
    ),
    RouteRow(
        "GET", "/api/v1/stats", stats, "Show the node in figures: the last hour by minute", StatsView, scope="read"
    ),
)
