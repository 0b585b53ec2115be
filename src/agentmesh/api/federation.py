"""The listener for partners (ASGI): ``/federation/pull`` and ``/federation/push``, nothing else (docs/spec/federation.md §4).

It has a socket of its own, apart from the API of this machine: who can reach one cannot reach the other. Who asks is proven by
the request itself; there are no cookies, keys or sessions here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol
from urllib.parse import parse_qsl

from agentmesh.api import problems
from agentmesh.errors import DecodeError, LimitError, MeshError, RecordNotFound, UsageError
from agentmesh.wire.federation import CATALOG_TYPE, PROOF_HEADER, PUSH_BYTES_MAX

_log = logging.getLogger("agentmesh.federation")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_PULL, _PUSH = "/federation/pull", "/federation/push"
_QUERY_BYTES_MAX = 2_048
_PARAMS = ("cursor", "updated_since", "limit")


class Counter(Protocol):
    """Answers partners (``node.federation.desk.Desk``)."""

    def pull(self, proof: str, *, cursor: str = "", updated_since: str = "", limit: int = 0) -> tuple[bytes, str]:
        """Answer a pull with a body and its proof. Raises MeshError."""
        ...

    def push(self, proof: str, body: bytes) -> tuple[bytes, str]:
        """Take a push; answer as ``pull``. Raises MeshError."""
        ...


class FederationApp:
    """The application.

    Args:
        counter: Answers.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            return
        try:
            body, proof = await self._answer(scope, receive)
        except MeshError as error:
            await problems.send_problem(send, error)
            return
        except Exception:  # noqa: BLE001 - the HTTP edge
            _log.exception("%s %s failed", scope.get("method", ""), scope.get("path", ""))
            await problems.send_prepared(send, problems.unexpected(), [])
            return
        kind = CATALOG_TYPE.encode() if scope["path"] == _PULL else b"application/json"
        await _send(send, 200, body, kind, ((PROOF_HEADER.encode(), proof.encode("ascii")),))

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[bytes, str]:
        path, method = scope["path"], scope["method"]
        proof = _proof(scope)
        if path == _PULL and method == "GET":
            params = _params(scope.get("query_string", b""))
            return self._counter.pull(
                proof,
                cursor=params.get("cursor", ""),
                updated_since=params.get("updated_since", ""),
                limit=_limit(params.get("limit", "")),
            )
        if path == _PUSH and method == "POST":
            return self._counter.push(proof, await _body(scope, receive))
        raise RecordNotFound("there is nothing here", code="http.not_found")


def _proof(scope: Scope) -> str:
    """Return the proof. Raises DecodeError unless there is at most one, in ASCII."""
    found = [value for name, value in scope["headers"] if name == b"dpop"]
    if len(found) > 1 or not all(value.isascii() for value in found):
        raise DecodeError("one proof, in one header DPoP", code="federation.proof")
    return found[0].decode("ascii") if found else ""


def _params(query: bytes) -> dict[str, str]:
    if len(query) > _QUERY_BYTES_MAX or not query.isascii():
        raise UsageError("the query is too long, or not ASCII", code="query.invalid")
    pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=8)
    found = dict(pairs)
    if len(found) != len(pairs) or not set(found) <= set(_PARAMS):
        raise UsageError(
            "an unknown parameter, or one twice", code="query.unknown", hint=f"known are {', '.join(_PARAMS)}"
        )
    return found


def _limit(text: str) -> int:
    if not text:
        return 0
    if not text.isdecimal() or not text.isascii() or len(text) > 6:
        raise UsageError("limit is no whole number", code="federation.limit")
    return int(text)


async def _body(scope: Scope, receive: Receive) -> bytes:
    """Read a body of at most ``PUSH_BYTES_MAX``. Raises LimitError."""
    whole = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise DecodeError("the request broke off", code="federation.push")
        whole += message.get("body", b"")
        if len(whole) > PUSH_BYTES_MAX:
            raise LimitError(f"a push has at most {PUSH_BYTES_MAX} bytes", code="federation.too_large")
        if not message.get("more_body"):
            return bytes(whole)


async def _send(send: Send, status: int, body: bytes, kind: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    head = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
