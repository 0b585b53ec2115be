"""Who may speak to the HTTP API: programs of this user on this machine, and no web page.

Three checks before any byte of a body is read:
- ``Host`` must name loopback, so that a web page cannot reach us by rebinding its DNS name to 127.0.0.1.
- ``Origin``, which browsers add, must be loopback too.
- The bearer token of ``$AGENTMESH_HOME/api.token`` must be given, except on the public paths.

A plain ASGI callable: it runs on every call and must cost microseconds.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from agentmesh.api.problems import send_problem
from agentmesh.errors import ConfigError, Unauthorized

_HOST = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_ORIGIN = re.compile(rb"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
#: Most distinct Host values remembered as good; clients use one or two.
_HOSTS_MAX = 64


class Guard:
    """Let through what may pass, answer the rest with 401 or 403.

    Args:
        app: The application behind.
        token: The API token; compared in constant time.
        is_public: Says of a path whether it needs no token.

    Raises:
        ConfigError: the token is empty.
    """

    def __init__(self, app: ASGIApp, *, token: str, is_public: Callable[[str], bool]) -> None:
        if not token:
            raise ConfigError("an empty API token would let everyone in", code="config.token")
        self._app = app
        self._bearer = b"Bearer " + token.encode()
        self._token = token.encode()
        self._is_public = is_public
        self._good_hosts: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # A websocket handshake that is not accepted is answered with 403 by the server.
            await send({"type": "websocket.close", "code": 1008})
            return
        host: bytes | None = None
        origin: bytes | None = None
        credentials: bytes | None = None
        hosts = origins = 0
        for name, value in scope["headers"]:
            if name == b"host":
                host, hosts = value, hosts + 1
            elif name == b"authorization":
                credentials = value
            elif name == b"origin":
                origin, origins = value, origins + 1
        if hosts != 1 or host is None or not self._host_is_ours(host):
            await send_problem(send, _refused_host(), status=403)
        elif origins and (origins > 1 or origin is None or not _ORIGIN.fullmatch(origin)):
            await send_problem(send, _refused_origin(), status=403)
        elif not self._knows_token(credentials) and not self._is_public(scope["path"]):
            await send_problem(send, _no_token(credentials is not None))
        else:
            await self._app(scope, receive, send)

    def _host_is_ours(self, host: bytes) -> bool:
        if host in self._good_hosts:
            return True
        if not _HOST.fullmatch(host):
            return False
        if len(self._good_hosts) < _HOSTS_MAX:
            self._good_hosts.add(host)
        return True

    def _knows_token(self, credentials: bytes | None) -> bool:
        if credentials is None:
            return False
        if hmac.compare_digest(credentials, self._bearer):
            return True
        scheme, _, value = credentials.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(value.strip(), self._token)


def _refused_host() -> Unauthorized:
    return Unauthorized(
        "the Host header does not name this machine's loopback",
        code="refused.host",
        why="only programs on this machine may use the API, and a web page could rebind its name to 127.0.0.1",
        hint="use http://127.0.0.1:PORT or http://localhost:PORT",
    )


def _refused_origin() -> Unauthorized:
    return Unauthorized(
        "requests from this web page are not allowed",
        code="refused.origin",
        why="the Origin header names a site that is not on this machine's loopback",
    )


def _no_token(was_given: bool) -> Unauthorized:
    return Unauthorized(
        "the API token is wrong" if was_given else "no API token was given",
        code="refused.token",
        why="every request carries 'Authorization: Bearer TOKEN'",
        hint="the token is in the file api.token of the home directory (agentmesh config explain)",
    )
