"""Routes of discovery: which agents meet a need."""

from __future__ import annotations

from agentmesh.api.sse import stream_of_answers
from agentmesh.api.table import Ask, EventStream, Param, RouteRow
from agentmesh.errors import UsageError
from agentmesh.sdk.types import DiscoverRequest, DiscoverView


async def discover(ask: Ask) -> DiscoverView | EventStream:
    """Answer ``POST /api/v1/discover``."""
    request: DiscoverRequest = ask.body
    watch: bool = ask.query["watch"]
    if ask.streams:
        return stream_of_answers(ask.backend.watch_discover(request, watch=watch))
    if watch:
        raise UsageError(
            "only a stream can be watched",
            code="discover.watch",
            hint="send the header   Accept: text/event-stream",
        )
    return await ask.backend.discover(request)


ROWS = (
    RouteRow(
        "POST",
        "/api/v1/discover",
        discover,
        "Find agents by what they can do, in words and by filters",
        DiscoverView,
        DiscoverRequest,
        params=(Param("watch", "boolean", False, "Go on with every change of the directory; only as a stream."),),
        stream="accepted",
        scope="read",
        description="Every answer carries the parts of its score, and near misses say why they are none.",
    ),
)
