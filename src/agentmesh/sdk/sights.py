"""Requests about what goes on at a node: who calls whom, its figures, and the console that shows them (see ``requests``)."""

from __future__ import annotations

from urllib.parse import urlencode

from agentmesh.sdk.requests import Request
from agentmesh.sdk.types import StatsView, TopologyView
from agentmesh.wire.console_views import LoginLink, SessionsEnded


def topology(window_s: int, source: str, zone: str) -> Request[TopologyView]:
    """``GET /api/v1/topology``."""
    query = {"window": str(window_s), **({"source": source} if source else {}), **({"zone": zone} if zone else {})}
    return Request("GET", f"/api/v1/topology?{urlencode(query)}", TopologyView)


def stats() -> Request[StatsView]:
    """``GET /api/v1/stats``."""
    return Request("GET", "/api/v1/stats", StatsView)


def console_login(same_user: bool) -> Request[LoginLink]:
    """``POST /api/v1/console/login``."""
    return Request("POST", "/api/v1/console/login" + ("?same_user=true" if same_user else ""), LoginLink)


def end_console_sessions() -> Request[SessionsEnded]:
    """``DELETE /api/v1/console/sessions``."""
    return Request("DELETE", "/api/v1/console/sessions", SessionsEnded)
