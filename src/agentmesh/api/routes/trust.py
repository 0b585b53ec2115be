"""Routes of trust: what this node thinks of others and why, and reports of people."""

from __future__ import annotations

from agentmesh.api.table import Ask, Param, RouteRow
from agentmesh.errors import AgentNotFound, Corrupt, Full, UsageError
from agentmesh.sdk.types import AbuseReport, TrustList, TrustView

REASON_CHARS_MAX = 200


async def list_trust(ask: Ask) -> TrustList:
    """Answer ``GET /api/v1/trust``."""
    query = ask.query
    return ask.backend.trust_list(query["limit"], query["start"], query["tier"], query["query"])


async def show_trust(ask: Ask) -> TrustView:
    """Answer ``GET /api/v1/trust/{agent_id}``."""
    return ask.backend.trust_in(ask.path["agent_id"])


async def report_abuse(ask: Ask) -> TrustView:
    """Answer ``POST /api/v1/trust/{agent_id}/reports``."""
    report: AbuseReport = ask.body
    reason = report.reason.strip()
    if not reason or len(reason) > REASON_CHARS_MAX or not reason.isprintable():
        raise UsageError(
            f"'reason' is one line of 1 to {REASON_CHARS_MAX} characters",
            code="trust.reason",
            hint='agentmesh trust report AGENT --reason "sent me advertising"',
        )
    return await ask.site.node.report_abuse(ask.path["agent_id"], reason)


_WHO = {"agent_id": "Agent name, name@node, agent id, or node id."}

ROWS = (
    RouteRow(
        "GET",
        "/api/v1/trust",
        list_trust,
        "Show how far this node trusts every agent, the least trusted first, with a histogram",
        TrustList,
        errors=(Full, Corrupt),
        params=(
            Param("limit", "integer", 500, "At most so many agents.", low=1, high=10_000),
            Param("start", "integer", 0, "Pass over so many."),
            Param("tier", "string", "", "Only this one: low, unknown, medium, high, own.", chars_max=16),
            Param("query", "string", "", "Only with this in name, id or node's name.", chars_max=128),
        ),
        scope="read",
    ),
    RouteRow(
        "GET",
        "/api/v1/trust/{agent_id}",
        show_trust,
        "Show how far this node trusts an agent or node, and why",
        TrustView,
        errors=(AgentNotFound, Corrupt, Full),
        path_params=_WHO,
        scope="read",
    ),
    RouteRow(
        "POST",
        "/api/v1/trust/{agent_id}/reports",
        report_abuse,
        "Report abuse by an agent or node",
        TrustView,
        AbuseReport,
        (AgentNotFound, UsageError, Corrupt, Full),
        path_params=_WHO,
        scope="admin",
    ),
)
