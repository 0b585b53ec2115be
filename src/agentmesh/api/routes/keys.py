"""Routes of who may use the API: API keys of programs. They are the operator's."""

from __future__ import annotations

from agentmesh.api.table import Ask, RouteRow
from agentmesh.errors import Full, LimitError, MeshError, RecordNotFound, StateError, UsageError
from agentmesh.sdk.types import KeyList, KeyMade, KeyRequest, KeyView


async def list_keys(ask: Ask) -> KeyList:
    """Answer ``GET /api/v1/keys``."""
    return KeyList(keys=ask.site.access.every_key())


async def add_key(ask: Ask) -> KeyMade:
    """Answer ``POST /api/v1/keys``."""
    request: KeyRequest = ask.body
    if request.tenant:
        ask.site.node.for_tenant(request.tenant)
    made = ask.site.access.add_key(request)
    key = made.key
    try:
        await ask.site.node.note_change(
            "key",
            key.name,
            event="made",
            by=ask.rights.who,
            scopes=list(key.scopes),
            tenant=key.tenant,
            expires=key.expires,
        )
    except MeshError:
        ask.site.access.revoke_key(key.name)  # what is written down nowhere opens nothing
        raise
    return made


async def revoke_key(ask: Ask) -> KeyView:
    """Answer ``DELETE /api/v1/keys/{name}``."""
    key = ask.site.access.revoke_key(ask.path["name"])
    await ask.site.node.note_change("key", key.name, event="revoked", by=ask.rights.who, tenant=key.tenant)
    return key


ROWS = (
    RouteRow("GET", "/api/v1/keys", list_keys, "List the API keys, never the keys themselves", KeyList, scope="admin"),
    RouteRow(
        "POST",
        "/api/v1/keys",
        add_key,
        "Make an API key; the answer is the only time it is told",
        KeyMade,
        KeyRequest,
        (UsageError, StateError, LimitError, Full),
        scope="admin",
    ),
    RouteRow(
        "DELETE",
        "/api/v1/keys/{name}",
        revoke_key,
        "Revoke an API key at once and end what goes on in its name",
        KeyView,
        errors=(RecordNotFound, Full),
        path_params={"name": "Name of the key."},
        scope="admin",
    ),
)
