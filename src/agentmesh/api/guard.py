"""Who may speak to the HTTP API: programs of this user on this machine, and no web page.

Four checks before any byte of a body is read:
- ``Host`` must name loopback, so that a web page cannot reach us by rebinding its DNS name to 127.0.0.1.
- ``Origin``, which browsers add, must be loopback too; with the console's cookie it must be our own (``api.console.judge``).
- A key in the query string is refused: it stands in logs and histories by now.
- One ``Authorization`` header, or without any the console's cookie, must open something (``api.access``), except on the public
  paths. What it opens goes on with the
  request, as ``rights``; each route says what it needs. At the doors for calls a call token does as well (``api.tokens``).

A plain ASGI callable: it runs on every call and must cost microseconds.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from agentmesh.api.access import KEY_PREFIX, Access
from agentmesh.api.problems import refuse_socket, send_problem
from agentmesh.api.scopes import ANONYMOUS, BY_TOKEN, OPERATOR, Rights
from agentmesh.api.sse import Progress
from agentmesh.api.tokens import PRESENTED, presented_in, refuse_for_tenant
from agentmesh.errors import MeshError, Unauthorized

#: Where the rights of a request are in its ASGI scope.
RIGHTS = "agentmesh.rights"
#: By this header the operator acts as a tenant.
TENANT_HEADER = b"x-agentmesh-tenant"
_HOST = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_ORIGIN = re.compile(rb"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
#: Most distinct Host values remembered as good; clients use one or two.
_HOSTS_MAX = 64


class Guard:
    """Let through what may pass, answer the rest with 401 or 403.

    Args:
        app: The application behind.
        access: Says what credentials open.
        is_public: Says of a path whether it needs none.
        is_door: Says of a path whether calls come in there, and call tokens with them.
        cookie: Returns the name of the console's cookie; "" = there is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access,
        is_public: Callable[[str], bool],
        is_door: Callable[[str], bool] = lambda _: False,
        cookie: Callable[[], str] = lambda: "",
    ) -> None:
        self._app = app
        self._access = access
        self._is_public, self._is_door, self._cookie = is_public, is_door, cookie
        self._good_hosts: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        is_socket = scope["type"] == "websocket"
        if not is_socket and scope["type"] != "http":
            return
        refuse = refuse_socket if is_socket else send_problem
        host: bytes | None = None
        origin: bytes | None = None
        credentials: bytes | None = None
        tenant: bytes | None = None
        proofs: list[bytes] = []
        hosts = origins = given = 0
        for name, value in scope["headers"]:
            if name == b"host":
                host, hosts = value, hosts + 1
            elif name == b"authorization":
                credentials, given = value, given + 1
            elif name == b"dpop":
                proofs.append(value)
            elif name == TENANT_HEADER:
                tenant = value if tenant is None else b""
            elif name == b"origin":
                origin, origins = value, origins + 1
        if hosts != 1 or host is None or not self._host_is_ours(host):
            await refuse(send, _refused_host(), status=403)
            return
        if origins and (origins > 1 or origin is None or not _ORIGIN.fullmatch(origin)):
            await refuse(send, _refused_origin(), status=403)
            return
        try:
            if scope["query_string"]:
                _refuse_secret_in(scope["query_string"])
            if is_socket and credentials is None:
                # A browser sends its cookie along with any socket that a page opens: it opens none here.
                raise _no_token()
            rights = self._rights(credentials, given, [] if is_socket else proofs, scope, host)
            if tenant is not None:
                rights = _as_tenant(rights, tenant)
            if PRESENTED in scope:
                refuse_for_tenant(rights)
        except MeshError as error:  # Unauthorized, but for sessions that cannot be read
            await refuse(send, error)
            return
        scope[RIGHTS] = rights
        if is_socket:
            await self._socket_while_good(rights, scope, receive, send)
        elif rights is OPERATOR or rights is ANONYMOUS or rights is BY_TOKEN:
            await self._app(scope, receive, send)
        else:
            await self._while_good(rights, scope, receive, send)

    def _rights(self, credentials: bytes | None, given: int, proofs: list[bytes], scope: Scope, host: bytes) -> Rights:
        """Return what a request may do. Raises Unauthorized; StoreError, ConfigError: sessions cannot be read."""
        if given > 1:
            raise Unauthorized(
                f"{given} Authorization headers were given",
                code="refused.credentials",
                why="whoever stands between could read one and we the other",
                hint="send exactly one",
            )
        if proofs and scope["method"] == "POST" and self._is_door(scope["path"]):
            return self._by_token(credentials, proofs, scope)
        if credentials is None:
            if self._is_public(scope["path"]):
                return ANONYMOUS
            return self._by_cookie(scope, host)
        try:
            return self._access.rights_of(credentials, scope)
        except Unauthorized as error:
            # A2A clients may carry credentials for others; a key of ours that is good no more must not pass for none.
            if error.code == "refused.token" and self._is_public(scope["path"]):
                return ANONYMOUS
            raise

    def _by_cookie(self, scope: Scope, host: bytes) -> Rights:
        """Return what a browser may do that is logged in to the console. Raises as ``_rights``."""
        # Loaded with the first browser: a daemon whose console nobody opens does not pay for it.
        from agentmesh.api.console import judge

        sessions, path = self._access.sessions, scope["path"]
        if sessions is None or not path.startswith(judge.API_PREFIX):
            raise _no_token()
        rights = judge.rights_by_cookie(sessions, self._cookie(), scope["method"], path, host, scope["headers"])
        if rights is None:
            raise _no_token()
        return rights

    def _by_token(self, credentials: bytes | None, proofs: list[bytes], scope: Scope) -> Rights:
        """Return what a request may do that presents a call token, and note the token. Raises Unauthorized.

        A ``DPoP`` header belongs to the JWT that comes with it, if an issuer of that is accepted here.
        """
        scheme, _, value = (credentials or b"").partition(b" ")
        is_bound = scheme.lower() == b"dpop"
        rights = BY_TOKEN
        if credentials is not None:
            try:
                rights = self._access.rights_of(credentials, scope)
                if is_bound:
                    return rights
            except Unauthorized as error:
                if error.code != "refused.token" or not (is_bound or self._is_public(scope["path"])):
                    raise
        scope[PRESENTED] = presented_in(scope, proofs, value.strip().decode("latin-1") if is_bound else "")
        return rights

    async def _socket_while_good(self, rights: Rights, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket for as long as its credential is good."""
        with self._access.lasting(rights) as clock:
            try:
                async with clock:
                    await self._app(scope, receive, send)
            except TimeoutError:
                await send({"type": "websocket.close", "code": 1008, "reason": f"{rights.who} is good no more"})

    async def _while_good(self, rights: Rights, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request for as long as its credential is good: a stream ends when the key is revoked."""
        progress = Progress(send)
        with self._access.lasting(rights) as clock:
            try:
                async with clock:
                    await self._app(scope, receive, progress)
            except TimeoutError:
                await progress.finish(
                    Unauthorized(
                        f"{rights.who} is good no more",
                        code="refused.key",
                        why="it was revoked, or its time was over, while it was being served",
                    )
                )

    def _host_is_ours(self, host: bytes) -> bool:
        if host in self._good_hosts:
            return True
        if not _HOST.fullmatch(host):
            return False
        if len(self._good_hosts) < _HOSTS_MAX:
            self._good_hosts.add(host)
        return True


def _as_tenant(rights: Rights, name: bytes) -> Rights:
    """Return the rights with which the operator acts as a tenant. Raises Unauthorized."""
    tenant = name.decode("latin-1")
    if rights.tenant == tenant and tenant:
        return rights
    rights.require("admin")
    if rights.tenant or not tenant:
        raise Unauthorized(
            "the header X-AgentMesh-Tenant names no tenant that you may act as",
            code="refused.tenant",
            why="only the operator acts as a tenant, as one at a time",
        )
    return dataclasses.replace(rights, tenant=tenant)


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


def _no_token() -> Unauthorized:
    return Unauthorized(
        "no API token was given",
        code="refused.token",
        why="every request carries 'Authorization: Bearer TOKEN'",
        hint="the token is in the file api.token of the home directory (agentmesh config explain)",
    )


_SECRETS = (KEY_PREFIX.encode(), b"access_token=")


def _refuse_secret_in(query: bytes) -> None:
    if any(secret in query for secret in _SECRETS):
        raise Unauthorized(
            "a key does not belong into an address",
            code="refused.query",
            why="addresses stand in logs and histories, and this one does by now",
            hint="send it as 'Authorization: Bearer KEY', and replace it:   agentmesh keys revoke NAME",
        )
