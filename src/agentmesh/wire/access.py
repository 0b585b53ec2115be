"""Shapes of the HTTP API for who may use it: API keys and tenants."""

from __future__ import annotations

import msgspec


class KeyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/keys``.

    Attributes:
        name: What people call it: letters, digits, ``-``, ``_`` and inner dots, at most 64.
        scopes: What it may be used for: "read", "call" or "call:AGENT", "register", "events", "admin".
        expires_s: Seconds from now after which it is refused; null = never.
        tenant: For whom; "" = the operator's own.
    """

    name: str
    scopes: list[str]
    expires_s: float | None = None
    tenant: str = ""


class KeyView(msgspec.Struct, kw_only=True):
    """One API key, without the key itself, which nobody can show again.

    Attributes:
        made, expires, used: Unix seconds; ``expires`` null = never, ``used`` null = not since the node started.
        expired: Whether its time is over.
    """

    name: str
    scopes: list[str]
    tenant: str = ""
    made: int = 0
    expires: int | None = None
    expired: bool = False
    used: int | None = None


class KeyMade(msgspec.Struct, kw_only=True):
    """Answer to ``POST /api/v1/keys``: the only time that the key itself is told."""

    key: KeyView
    secret: str


class KeyList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/keys``, by name."""

    keys: list[KeyView]


class TenantRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/tenants``: make a tenant, or change what is settled for it; what is left out takes its default.

    Attributes:
        name: Small letters, digits and inner ``-``, at most 40.
        share: Names and ids of agents outside it that it sees and may call.
        publish: Whether its agents are announced to the mesh; else only it knows them.
        calls_at_once, calls_per_s: Most calls running, and begun per second on average.
        agents_max: Most agents registered.
        events_bytes_per_day: Most bytes of events stored per day (UTC).
    """

    name: str
    share: list[str] = []
    publish: bool = False
    calls_at_once: int = 64
    calls_per_s: float = 100.0
    agents_max: int = 100
    events_bytes_per_day: int = 1024**3


class TenantView(TenantRequest, kw_only=True):
    """One tenant, with the agents that it has, its calls that run, and the bytes of events that it stored today."""

    agents: int = 0
    calls_running: int = 0
    events_bytes_today: int = 0


class TenantList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/tenants``, by name."""

    tenants: list[TenantView]
