"""The ASGI application of a node: guard, route table, edge. Built once by the daemon.

server ─► Guard (who may speak) ─► Api ─┬─► POST /api/v1/calls at once (the hot path)
                                        ├─► the console's files and login
                                        └─► Starlette ─► the other rows, and routes of other rooms (A2A)
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agentmesh.api import openapi, problems
from agentmesh.api.access import Access
from agentmesh.api.backend import Backend, Registries
from agentmesh.api.console.names import cookie_name
from agentmesh.api.endpoint import Endpoint
from agentmesh.api.guard import RIGHTS, Guard
from agentmesh.api.limited import view_of
from agentmesh.api.metrics import METRICS_PATH
from agentmesh.api.routes import ROWS
from agentmesh.api.scopes import Rights
from agentmesh.api.sse import HEARTBEAT_S, STREAMS_MAX, Streams
from agentmesh.api.table import Ask, Site
from agentmesh.errors import MeshError, RecordNotFound, Unauthorized, UsageError
from agentmesh.sdk.types import ConfigView

if TYPE_CHECKING:
    from agentmesh.api.console.ticks import Ticker

_log = logging.getLogger("agentmesh.api")

CALLS_PATH = "/api/v1/calls"
SOCKET_PATH = "/api/v1/ws"
#: Below them a segment may hold a "/" that its client wrote as "%2F": names of keys and locks are like paths.
NAMED_PREFIXES = ("/api/v1/state/", "/api/v1/locks/")
_SLASH = re.compile("%2f", re.IGNORECASE)
#: Paths whose rows say what scope they need; what else is not public is the operator's.
SCOPED_PREFIX = "/api/v1/"
#: Paths of the A2A edge, which judges rights itself; without a credential while it is open.
A2A_PREFIX = "/a2a/"
#: Paths of the console's files and login: public, since they tell nothing.
_CONSOLE = re.compile(r"/|/console(?:/.*)?|/assets/.*|/[a-z0-9_-]{1,40}\.(?:svg|png|ico|webmanifest)", re.DOTALL)


def create_app(
    backend: Backend,
    *,
    access: Access,
    registries: Registries,
    port_of: Callable[[], int],
    on_shutdown: Callable[[], None],
    extra_routes: Sequence[BaseRoute] = (),
    a2a_open: bool = True,
    metrics_open: bool = False,
    streams_max: int = STREAMS_MAX,
    heartbeat_s: float = HEARTBEAT_S,
    console: Path | None = None,
    config_of: Callable[[], ConfigView] | None = None,
    home_named: str = "",
) -> Api:
    """Build the application.

    Args:
        backend: The node.
        access: Who may use it.
        registries: The other registries that it is joined to.
        port_of: Returns the port in use, known only once the server listens.
        on_shutdown: Called after ``POST /api/v1/shutdown`` was answered; returns at once.
        extra_routes: Routes of other rooms (the A2A edge); they sit behind the same guard.
        a2a_open: Whether the A2A edge serves those who bring no credential.
        metrics_open: Whether the metrics are shown to those who bring no credential.
        streams_max: Most event streams open at once.
        heartbeat_s: Seconds between comments on an idle stream.
        console: Folder of the console's built files; the package's by default.
        config_of: Returns the settings with which the daemon runs; asked in a thread.
        home_named: The home directory, if commands find this node only when they are told it; the console adds it to them.
    """
    streams = Streams(streams_max=streams_max, heartbeat_s=heartbeat_s)
    return Api(
        backend,
        access,
        registries,
        port_of,
        on_shutdown,
        extra_routes,
        streams,
        console,
        config_of or _no_config,
        a2a_open=a2a_open,
        metrics_open=metrics_open,
        home_named=home_named,
    )


class Api:
    """The application (ASGI). ``end_streams`` must be called before the server waits for its connections to end."""

    def __init__(
        self,
        backend: Backend,
        access: Access,
        registries: Registries,
        port_of: Callable[[], int],
        on_shutdown: Callable[[], None],
        extra_routes: Sequence[BaseRoute],
        streams: Streams,
        console: Path | None,
        config_of: Callable[[], ConfigView],
        *,
        a2a_open: bool,
        metrics_open: bool,
        home_named: str,
    ) -> None:
        self.streams, self._a2a_open, self._metrics_open = streams, a2a_open, metrics_open
        self._home_named = home_named
        self._ticker: Ticker | None = None
        describe = functools.cache(lambda: openapi.build(ROWS))
        site = Site(backend, access, port_of, on_shutdown, describe, registries, self._made_ticker, config_of)
        endpoints = [Endpoint(row, site, streams) for row in ROWS]
        self._calls = next(e for e in endpoints if e.row.path == CALLS_PATH)
        self._inner = Starlette(
            routes=[
                *(Route(e.row.path, e, methods=[e.row.method], name=e.row.operation_id) for e in endpoints),
                *extra_routes,
            ],
            exception_handlers={HTTPException: _http_problem, MeshError: _mesh_problem, Exception: _bug_problem},
        )
        self._public = frozenset(row.path for row in ROWS if not row.scope)
        self._site, self._console_folder = site, console
        self._guard = Guard(
            self._dispatch,
            access=access,
            is_public=self._is_public,
            is_door=_is_door,
            cookie=lambda: cookie_name(port_of()),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        await self._guard(scope, receive, send)

    def end_streams(self) -> None:
        """End every event stream cleanly; call it when the daemon begins to stop. Idempotent."""
        self.streams.end_all()
        if self._ticker is not None:
            self._ticker.close()

    def _made_ticker(self) -> Ticker:
        # Made with the first client, as in ``Guard``.
        from agentmesh.api.console.ticks import Ticker

        if self._ticker is None:
            self._ticker = Ticker(self._site.node, home=self._home_named)
        return self._ticker

    def _is_console(self, path: str) -> bool:
        return self._site.access.sessions is not None and _CONSOLE.fullmatch(path) is not None

    def _is_public(self, path: str) -> bool:
        return (
            path in self._public
            or self._is_console(path)
            or (self._a2a_open and path.startswith(A2A_PREFIX))
            or (self._metrics_open and path == METRICS_PATH)
        )

    @functools.cached_property
    def _console(self) -> ASGIApp:
        # Made with the first browser, as in ``Guard``.
        from agentmesh.api.console.site import ConsoleSite

        site = self._site
        assert site.access.sessions is not None
        return ConsoleSite(site.node, site.access.sessions, site.port_of, self._console_folder)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Loaded with the first socket, as the console in ``Guard``.
        from agentmesh.api.sockets import serve_socket

        rights: Rights = scope[RIGHTS]
        try:
            if scope["path"] != SOCKET_PATH:
                raise RecordNotFound(f"there is no socket at {scope['path'][:200]}", code="http.not_found")
            rights.require("message")
            ask = Ask(self._site, rights, view_of(self._site.node, rights), {}, {}, None)
            await serve_socket(ask, self.streams, scope, receive, send)
        except MeshError as error:
            await problems.refuse_socket(send, error)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] == "http" and scope["path"] == CALLS_PATH and scope["method"] == "POST":
            await self._calls(scope, receive, send)
            return
        if scope["type"] == "http" and self._is_console(scope["path"]):
            await self._console(scope, receive, send)
            return
        if (
            scope["type"] == "http"
            and not scope["path"].startswith(SCOPED_PREFIX)
            and not self._is_public(scope["path"])
            and not scope["path"].startswith(A2A_PREFIX)
            and scope["path"] != METRICS_PATH
        ):
            try:
                scope[RIGHTS].require("admin")
            except Unauthorized as error:
                await problems.send_problem(send, error)
                return
        if not scope.get("query_string", b"").isascii():
            # Starlette would fall over it; RFC 3986 allows ASCII only.
            await problems.send_problem(send, UsageError("the query string is not ASCII", code="query.invalid"))
            return
        if scope["path"].startswith(NAMED_PREFIXES):
            scope["path"] = whole_segments(scope)
        try:
            await self._inner(scope, receive, send)
        except Exception:  # noqa: BLE001 - the HTTP edge
            # Starlette answered with a 500 and raised it again for the log; the server need not see it.
            _log.exception("%s %s failed", scope.get("method", ""), scope.get("path", ""))


def _no_config() -> ConfigView:
    return ConfigView(settings=[], count=0, digest="")


def whole_segments(scope: Scope) -> str:
    """Return the path of a request in which every "%2F" is still one, so that a segment stays a segment."""
    raw: bytes = scope.get("raw_path") or b""
    text = raw.decode("latin-1")
    if _SLASH.search(text) is None:
        return scope["path"]
    return "%2F".join(unquote(part) for part in _SLASH.split(text))


def _is_door(path: str) -> bool:
    return path == CALLS_PATH or path.startswith(A2A_PREFIX)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _response(RecordNotFound(f"there is nothing at {request.url.path[:200]}", code="http.not_found"))
    detail = f"{request.method[:20]} is not allowed here" if error.status_code == 405 else error.detail
    usage = UsageError(detail, code=f"http.{error.status_code}", hint="GET /openapi.json lists every route")
    return _response(usage, status=error.status_code, headers=dict(error.headers or {}))


async def _mesh_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, MeshError)
    return _response(error)


async def _bug_problem(request: Request, error: Exception) -> Response:
    return Response(
        problems.encode_problem(problems.unexpected()), status_code=500, media_type=problems.CONTENT_TYPE.decode()
    )


def _response(error: MeshError, *, status: int | None = None, headers: dict[str, str] | None = None) -> Response:
    problem = problems.problem_of(error, status=status)
    return Response(
        problems.encode_problem(problem),
        status_code=problem.status,
        media_type=problems.CONTENT_TYPE.decode(),
        headers={**(headers or {}), **problems.headers_of(error, problem.status)},
    )
