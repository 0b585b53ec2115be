"""Shapes of the HTTP API for who may use it: API keys."""

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
