"""The shape of the route table: each row says everything about one route.

``routes/`` holds the rows; ``app`` builds the Starlette routes from them and ``openapi`` the description, so that the two
cannot drift apart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from agentmesh.api.access import Access
from agentmesh.api.backend import Backend, Registries, View
from agentmesh.api.scopes import Rights, ScopeName
from agentmesh.errors import MeshError
from agentmesh.node.presented import Presented
from agentmesh.sdk.requests import BODY_BYTES_MAX
from agentmesh.sdk.types import ConfigView

if TYPE_CHECKING:
    from agentmesh.api.console.ticks import Ticker


@dataclass(frozen=True, slots=True)
class Param:
    """One query parameter. ``low`` and ``high`` bound an int; ``default`` is used when it is not given."""

    name: str
    type: Literal["string", "integer", "boolean"]
    default: str | int | bool | None
    summary: str
    low: int = 0
    high: int = 2**53
    chars_max: int = 1000


@dataclass(slots=True)
class Site:
    """What every route can reach: the node, who may use it, and the daemon around it.

    ``node`` is whole: it is for the operator's own routes. All others ask ``Ask.backend``.
    """

    node: Backend
    access: Access
    port_of: Callable[[], int]
    on_shutdown: Callable[[], None]
    describe: Callable[[], bytes]
    registries: Registries
    #: The console's stream, made with its first client.
    ticker: Callable[[], Ticker]
    config_of: Callable[[], ConfigView]


@dataclass(slots=True)
class Ask:
    """One request, decoded: path and query parameters, body (None on routes without one) and ``Last-Event-ID``.

    ``backend`` is the node as whoever asks may see and use it; handlers ask nothing else.
    """

    site: Site
    rights: Rights
    backend: View
    path: dict[str, str]
    query: dict[str, Any]
    body: Any
    last_event_id: int | None = None
    #: The call token that came with it, unread; on the doors for calls only (``api.guard``).
    presented: Presented | None = None
    #: Headers of the request, names in lower case.
    asked: Sequence[tuple[bytes, bytes]] = ()
    #: Headers of the answer, whatever it is.
    headers: dict[str, str] = field(default_factory=dict[str, str])
    #: Whether ``Accept`` asks for an event stream, on routes that heed it.
    streams: bool = False
    #: Both ends of the connection, if the server tells.
    client: tuple[str, int] | None = None
    server: tuple[str, int] | None = None
    #: Returns when the client has gone away, and counts a wait (``sse.Streams.waiting``); for routes that wait long.
    gone: Callable[[], Awaitable[None]] | None = None
    waiting: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    #: Run after the answer is out.
    afterwards: Callable[[], None] | None = None

    def named(self, part: str) -> str:
        """Return a name from the path with the slashes that are part of it (``app.whole_segments``)."""
        return self.path[part].replace("%2F", "/")


@dataclass(slots=True)
class EventStream:
    """An answer that goes on: SSE frames, already encoded. ``close`` is awaited when it ended, however it ended."""

    frames: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Download:
    """An answer to keep as a file, of any length: ``pieces`` are sent as they come. What breaks off is not ended cleanly."""

    pieces: AsyncIterator[bytes]
    media_type: str
    name: str


Handler = Callable[[Ask], Awaitable[msgspec.Struct | EventStream | Download | bytes]]


@dataclass(frozen=True, slots=True)
class RouteRow:
    """One route.

    Attributes:
        method, path: As in HTTP; ``{name}`` in a path is one segment.
        handler: Answers it: a struct is sent as JSON, bytes are JSON already, an EventStream is sent as SSE, a
            Download as a file.
        summary: One line.
        response: Type of the JSON answer; None for bytes that describe themselves.
        request: Type of the JSON body, if any.
        errors: What it can answer besides the errors of every route.
        params: Query parameters; unknown ones are refused.
        stream: "" = JSON only, "always" = SSE only, "asked" = SSE when the body asks for it, "accepted" = SSE when the header
            ``Accept`` does.
        download: Media type of a file that it answers with in place of JSON.
        scope: What whoever asks must be allowed (``api.scopes``): the operator's alone unless it says otherwise; "" = the
            route is public and needs no credential.
        body_bytes_max: Largest body in bytes.
        description: More lines, for the API description.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    handler: Handler
    summary: str
    response: type[msgspec.Struct] | None
    request: type[msgspec.Struct] | None = None
    errors: tuple[type[MeshError], ...] = ()
    params: tuple[Param, ...] = ()
    stream: Literal["", "always", "asked", "accepted"] = ""
    download: str = ""
    scope: ScopeName = "admin"
    body_bytes_max: int = BODY_BYTES_MAX
    description: str = ""
    path_params: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def operation_id(self) -> str:
        """Name of the operation in the API description."""
        return self.handler.__name__
