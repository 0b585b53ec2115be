"""Names that the console's door goes by; alone in a file, since the guard of every request needs them."""

from __future__ import annotations


def cookie_name(port: int) -> str:
    """Return the name of the cookie. Cookies do not know ports, so that two daemons need two names."""
    return f"agentmesh_{port}"
