"""``GET /metrics``: the figures of a node for Prometheus, as text 0.0.4 or OpenMetrics by ``Accept``.

Whoever asks holds the scope ``read``, unless the setting ``metrics_open`` lets programs on this machine read them without a
credential. A tenant's key does not open it: figures are the node's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from agentmesh.api.guard import RIGHTS
from agentmesh.api.scopes import Rights
from agentmesh.errors import Unauthorized
from agentmesh.obs.metrics import Readings

METRICS_PATH = "/metrics"


class MetricsEdge:
    """Serve the figures.

    Args:
        measure: Reads them.
    """

    def __init__(self, measure: Callable[[], Awaitable[Readings]]) -> None:
        self._measure = measure

    def routes(self) -> list[BaseRoute]:
        """Return the route."""
        return [Route(METRICS_PATH, self._scrape, methods=["GET"], name="metrics")]

    async def _scrape(self, request: Request) -> Response:
        from agentmesh.obs.exposition import expose

        rights: Rights = request.scope[RIGHTS]
        rights.require("read")
        if rights.tenant:
            raise Unauthorized(
                "a tenant's key does not open the figures of the node",
                code="refused.tenant",
                hint="ask the operator for a key of its own:   agentmesh keys add prometheus --scope read",
            )
        readings = await self._measure()
        # Formatting takes milliseconds, and the first scrape loads the library.
        body, content_type = await asyncio.to_thread(expose, readings, request.headers.get("accept", ""))
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        return Response(body, headers=headers, media_type=content_type)
