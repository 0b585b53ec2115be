"""The route table of the HTTP API, one module per subject. ``app`` and ``openapi`` are both built from ``ROWS``."""

from __future__ import annotations

from agentmesh.api.routes import (
    agents,
    audit,
    bridges,
    calls,
    console,
    daemon,
    discover,
    federation,
    keys,
    locks,
    messages,
    orders,
    policy,
    runs,
    state,
    tenants,
    topics,
    topology,
    trust,
)
from agentmesh.api.table import RouteRow

ROWS: tuple[RouteRow, ...] = (
    *daemon.ROWS,
    *agents.ROWS,
    *topology.ROWS,
    *discover.ROWS,
    *calls.ROWS,
    *runs.ROWS,
    *keys.ROWS,
    *audit.ROWS,
    *policy.ROWS,
    *trust.ROWS,
    *orders.ROWS,
    *federation.ROWS,
    *tenants.ROWS,
    *bridges.ROWS,
    *console.ROWS,
    *messages.ROWS,
    *topics.ROWS,
    *state.ROWS,
    *locks.ROWS,
)
