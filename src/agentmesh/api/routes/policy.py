"""Routes that say who may call what at this node."""

from __future__ import annotations

from agentmesh.api.table import Ask, Param, RouteRow
from agentmesh.errors import AgentNotFound, UsageError
from agentmesh.wire.policy import PolicyView, RulingView


async def show_policy(ask: Ask) -> PolicyView:
    """Answer ``GET /api/v1/policy``."""
    return await ask.site.node.policy_view()


async def explain_policy(ask: Ask) -> RulingView:
    """Answer ``GET /api/v1/policy/explain``."""
    query = ask.query
    if not query["callee"]:
        raise UsageError("'callee' is the name or id of an agent", code="policy.callee")
    return await ask.site.node.explain_policy(query["caller"], query["callee"], query["skill"], query["purpose"])


ROWS = (
    RouteRow("GET", "/api/v1/policy", show_policy, "Show who may call what at this node", PolicyView, scope="admin"),
    RouteRow(
        "GET",
        "/api/v1/policy/explain",
        explain_policy,
        "Say whether a call would pass, and why",
        RulingView,
        errors=(AgentNotFound, UsageError),
        scope="admin",
        params=(
            Param(
                "caller",
                "string",
                "",
                "Agent, name@node, did:key, or @node for its person; empty: the one here.",
                chars_max=300,
            ),
            Param("callee", "string", "", "An agent at this node.", chars_max=300),
            Param("skill", "string", "", "Skill that would be asked for.", chars_max=512),
            Param("purpose", "string", "", "Purpose that would be given.", chars_max=512),
        ),
        description="For the operator: it names the rule that decides, which callers are not told.",
    ),
)
