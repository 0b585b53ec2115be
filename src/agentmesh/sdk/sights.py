"""Requests about what goes on at a node: who calls whom, and its figures (see ``requests``)."""

from __future__ import annotations

from urllib.parse import urlencode

from agentmesh.sdk.requests import Request
from agentmesh.sdk.types import StatsView, TopologyView


def topology(window_s: int, source: str, zone: str) -> Request[TopologyView]:
    """``GET /api/v1/topology``."""
    query = {"window": str(window_s), **({"source": source} if source else {}), **({"zone": zone} if zone else {})}
    return Request("GET", f"/api/v1/topology?{urlencode(query)}", TopologyView)


def stats() -> Request[StatsView]:
    """``GET /api/v1/stats``."""
    return Request("GET", "/api/v1/stats", StatsView)
