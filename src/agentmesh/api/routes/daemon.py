"""Routes of the daemon itself: health, status, peers, shutdown and the API description."""

from __future__ import annotations

import asyncio
import os

from agentmesh import __version__
from agentmesh.api.table import Ask, RouteRow
from agentmesh.errors import ConfigError, LimitError, UsageError
from agentmesh.sdk.types import ConfigView, HealthView, NetView, PeerList, SeedRequest, ShutdownView, StatusView

SEEDS_MAX = 100


async def health(ask: Ask) -> HealthView:
    """Answer ``GET /health``."""
    return HealthView(status="ok", version=__version__, node_id=ask.backend.status().node_id)


async def openapi(ask: Ask) -> bytes:
    """Answer ``GET /openapi.json``."""
    return ask.site.describe()


async def status(ask: Ask) -> StatusView:
    """Answer ``GET /api/v1/status``."""
    view = ask.backend.status()
    view.port = ask.site.port_of()
    view.pid = os.getpid()
    return view


async def list_peers(ask: Ask) -> PeerList:
    """Answer ``GET /api/v1/peers``."""
    return PeerList(peers=ask.backend.peers())


async def add_peers(ask: Ask) -> PeerList:
    """Answer ``POST /api/v1/peers``."""
    request: SeedRequest = ask.body
    if not request.seeds:
        raise UsageError("'seeds' is empty", code="seeds.empty")
    if len(request.seeds) > SEEDS_MAX or any(len(seed) > 500 for seed in request.seeds):
        raise LimitError(f"at most {SEEDS_MAX} seeds of 500 characters each", code="seeds.too_many")
    await ask.backend.add_seeds(request.seeds)
    return PeerList(peers=ask.backend.peers())


async def survey_net(ask: Ask) -> NetView:
    """Answer ``GET /api/v1/net``."""
    return await ask.backend.net()


async def show_config(ask: Ask) -> ConfigView:
    """Answer ``GET /api/v1/config``."""
    return await asyncio.to_thread(ask.site.config_of)


async def shutdown(ask: Ask) -> ShutdownView:
    """Answer ``POST /api/v1/shutdown``; the daemon ends after the answer is out."""
    ask.afterwards = ask.site.on_shutdown
    return ShutdownView(pid=os.getpid())


ROWS = (
    RouteRow("GET", "/health", health, "Say that the daemon answers", HealthView, scope=""),
    RouteRow("GET", "/openapi.json", openapi, "Describe this API (OpenAPI 3.1)", None, scope=""),
    RouteRow("GET", "/api/v1/status", status, "Show the state of this node", StatusView, scope="read"),
    RouteRow("GET", "/api/v1/peers", list_peers, "List the known nodes", PeerList, scope="read"),
    RouteRow(
        "POST",
        "/api/v1/peers",
        add_peers,
        "Add seeds and connect to them",
        PeerList,
        SeedRequest,
        (UsageError, ConfigError, LimitError),
        scope="admin",
    ),
    RouteRow(
        "GET",
        "/api/v1/net",
        survey_net,
        "Survey the shape of the mesh; up to about five seconds",
        NetView,
        scope="read",
    ),
    RouteRow(
        "GET",
        "/api/v1/config",
        show_config,
        "Show every setting with its value, where that comes from and what it does; never a secret",
        ConfigView,
    ),
    RouteRow("POST", "/api/v1/shutdown", shutdown, "End the daemon gracefully", ShutdownView, scope="admin"),
)
