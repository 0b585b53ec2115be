"""One endpoint per row of the route table: read, decode, ask the handler, encode. The HTTP edge of the daemon.

This is one of the three places where ``except Exception`` is right: a bug here becomes a logged 500, never a dead daemon.
"""

from __future__ import annotations

import functools
import logging
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from agentmesh.api.body import JSON_DEPTH_MAX, decode_body, read_body
from agentmesh.api.guard import RIGHTS
from agentmesh.api.limited import view_of
from agentmesh.api.problems import send_prepared, send_problem, unexpected
from agentmesh.api.scopes import Rights
from agentmesh.api.sse import Streams
from agentmesh.api.table import Ask, Download, EventStream, Param, RouteRow, Site
from agentmesh.api.tokens import PRESENTED
from agentmesh.errors import Closed, LimitError, MeshError, UsageError

_log = logging.getLogger("agentmesh.api")
_encode = msgspec.json.Encoder().encode

_QUERY_FIELDS_MAX = 32
_QUERY_BYTES_MAX = 16 * 1024
_REF_CHARS_MAX = 512


class Endpoint:
    """Serve one row of the route table (ASGI)."""

    def __init__(self, row: RouteRow, site: Site, streams: Streams) -> None:
        self.row = row
        self._site = site
        self._streams = streams
        self._decoder = msgspec.json.Decoder(row.request) if row.request is not None else None
        self._params = {param.name: param for param in row.params}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        rights: Rights = scope[RIGHTS]
        ask: Ask | None = None
        try:
            rights.require(self.row.scope)
            ask = await self._read(scope, receive, rights)
            answer = await self.row.handler(ask)
            body = answer if isinstance(answer, bytes | EventStream | Download) else _encode(answer)
        except Closed as error:
            if error.code == "body.gone":
                return
            await send_problem(send, error)
            return
        except MeshError as error:
            await send_problem(send, error, headers={} if ask is None else ask.headers)
            return
        except RecursionError:
            error = LimitError(f"the JSON is nested deeper than {JSON_DEPTH_MAX}", code="body.too_deep")
            await send_problem(send, error)
            return
        except Exception:  # noqa: BLE001 - the HTTP edge
            _log.exception("%s %s failed", self.row.method, self.row.path)
            await send_prepared(send, unexpected(), [])
            return
        if isinstance(body, EventStream):
            await self._streams.respond(body, scope, receive, send)
            return
        if isinstance(body, Download):
            await self._streams.download(body, scope, receive, send)
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(body)),
                    (b"cache-control", b"no-store"),
                    (b"x-content-type-options", b"nosniff"),
                    *((name.encode(), value.encode()) for name, value in ask.headers.items()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})
        if ask.afterwards is not None:
            ask.afterwards()

    async def _read(self, scope: Scope, receive: Receive, rights: Rights) -> Ask:
        raw_query: bytes = scope["query_string"]
        query = parse_query(raw_query, self._params) if raw_query or self._params else {}
        path: dict[str, str] = scope.get("path_params") or {}
        for name, value in path.items():
            if len(value) > _REF_CHARS_MAX or not value.isprintable():
                raise UsageError(f"{name} is no name or id", code="path.invalid")
        body: Any = None
        if self._decoder is not None:
            raw = await read_body(scope, receive, self.row.body_bytes_max)
            body = decode_body(self._decoder, raw)
        last_event_id = _last_event_id(scope) if self.row.stream == "always" else None
        streams = self.row.stream == "accepted" and _accepts_events(scope)
        if streams or self.row.download or self.row.stream == "always" or (self.row.stream == "asked" and body.stream):
            self._streams.check_room()
        view = view_of(self._site.node, rights)
        return Ask(
            self._site,
            rights,
            view,
            path,
            query,
            body,
            last_event_id,
            presented=scope.get(PRESENTED),
            asked=scope["headers"],
            streams=streams,
            client=scope.get("client"),
            server=scope.get("server"),
            gone=functools.partial(_gone, receive),
            waiting=self._streams.waiting,
        )


def parse_query(raw: bytes, params: dict[str, Param]) -> dict[str, Any]:
    """Return every parameter with its value or default.

    Raises:
        UsageError: unknown or repeated parameter, wrong type or out of range; the message names it.
    """
    values: dict[str, Any] = {param.name: param.default for param in params.values()}
    try:
        if len(raw) > _QUERY_BYTES_MAX:
            raise ValueError("it is too long")
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_QUERY_FIELDS_MAX
        )
    except ValueError as error:
        raise UsageError(f"the query string cannot be read: {error}", code="query.invalid") from error
    seen: set[str] = set()
    for name, text in pairs:
        param = params.get(name)
        if param is None:
            known = ", ".join(params) or "none"
            raise UsageError(f"unknown query parameter {name[:100]!r}; known here: {known}", code="query.invalid")
        if name in seen:
            raise UsageError(f"query parameter {name!r} is given twice", code="query.invalid")
        seen.add(name)
        values[name] = _parse_value(param, text)
    return values


def _parse_value(param: Param, text: str) -> str | int | bool:
    if param.type == "integer":
        if not (text.isascii() and text.isdigit() and len(text) <= 18 and param.low <= int(text) <= param.high):
            raise UsageError(
                f"query parameter {param.name!r} is a whole number from {param.low} to {param.high}",
                code="query.invalid",
            )
        return int(text)
    if param.type == "boolean":
        if text.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"query parameter {param.name!r} is true or false", code="query.invalid")
        return text.lower() in ("true", "1")
    if len(text) > param.chars_max:
        raise UsageError(
            f"query parameter {param.name!r} has at most {param.chars_max} characters", code="query.invalid"
        )
    return text


async def _gone(receive: Receive) -> None:
    """Return when the client has gone away. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _accepts_events(scope: Scope) -> bool:
    return any(name == b"accept" and b"text/event-stream" in value.lower() for name, value in scope["headers"])


def _last_event_id(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"last-event-id" and value:
            if not value.isdigit() or len(value) > 18:
                raise UsageError("Last-Event-ID is the seq of an event, a whole number", code="header.invalid")
            return int(value)
    return None
