"""Route of federation: how partners and seeds stand. What partners ask goes to a listener of its own (``api.federation``)."""

from __future__ import annotations

from agentmesh.api.table import Ask, RouteRow
from agentmesh.sdk.types import FederationView


async def show_federation(ask: Ask) -> FederationView:
    """Answer ``GET /api/v1/federation``."""
    return ask.site.node.federation_view()


ROWS = (
    RouteRow(
        "GET",
        "/api/v1/federation",
        show_federation,
        "Show the seeds that this node pulls from and the partners that it shows agents to",
        FederationView,
        scope="admin",
    ),
)
