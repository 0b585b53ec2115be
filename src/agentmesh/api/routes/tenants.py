"""Routes of tenants: who else lives on this node, and what each may have. They are the operator's."""

from __future__ import annotations

from typing import Any

import msgspec

from agentmesh.api.table import Ask, RouteRow
from agentmesh.errors import Full, LimitError, RecordNotFound, UsageError
from agentmesh.sdk.types import TenantList, TenantRequest, TenantView


async def list_tenants(ask: Ask) -> TenantList:
    """Answer ``GET /api/v1/tenants``."""
    return TenantList(tenants=ask.site.node.tenant_views())


async def save_tenant(ask: Ask) -> TenantView:
    """Answer ``POST /api/v1/tenants``."""
    request: TenantRequest = ask.body
    saved = ask.site.node.save_tenant(request)
    settled = {name: f"{value:g}" if isinstance(value, float) else value for name, value in _members(request).items()}
    await ask.site.node.note_change("tenant", saved.name, event="saved", by=ask.rights.who, settled=settled)
    return saved


def _members(request: TenantRequest) -> dict[str, Any]:
    return msgspec.structs.asdict(request)


async def remove_tenant(ask: Ask) -> TenantView:
    """Answer ``DELETE /api/v1/tenants/{name}``."""
    removed = await ask.site.node.remove_tenant(ask.path["name"])
    ask.site.access.revoke_tenant(removed.name)
    await ask.site.node.note_change("tenant", removed.name, event="removed", by=ask.rights.who)
    return removed


ROWS = (
    RouteRow("GET", "/api/v1/tenants", list_tenants, "List the tenants and what each uses", TenantList),
    RouteRow(
        "POST",
        "/api/v1/tenants",
        save_tenant,
        "Make a tenant, or change what is settled for it",
        TenantView,
        TenantRequest,
        (UsageError, LimitError, Full),
    ),
    RouteRow(
        "DELETE",
        "/api/v1/tenants/{name}",
        remove_tenant,
        "Remove a tenant with its keys, its agents and its running calls",
        TenantView,
        errors=(RecordNotFound, Full),
        path_params={"name": "Name of the tenant."},
    ),
)
