"""Errors at the HTTP edge: every MeshError as an RFC 9457 problem, with the status of ``errors.ERROR_TABLE``."""

from __future__ import annotations

import math
import re

import msgspec
from starlette.types import Send

from agentmesh.api.scopes import FORBIDDEN
from agentmesh.errors import PROBLEM_PREFIX, Busy, MeshError, problem_type, row_of
from agentmesh.sdk.types import Problem

CONTENT_TYPE = b"application/problem+json"
_encode = msgspec.json.Encoder().encode
_WORD_START = re.compile(r"(?<=[a-z])(?=[A-Z])")


def title_of(error_type: type[MeshError]) -> str:
    """Return the class name as words: ``AgentNotFound`` becomes "Agent not found"."""
    return _WORD_START.sub(" ", error_type.__name__).capitalize()


def problem_of(error: MeshError, *, status: int | None = None) -> Problem:
    """Describe an error.

    Args:
        error: What happened.
        status: Overrides the HTTP status of the table (405 and some 403 have no error class of their own).
    """
    if status is None:
        status = 403 if error.code in FORBIDDEN else row_of(error).http
    run_id = error.extra.get("run_id")
    return Problem(
        type=problem_type(error),
        title=title_of(type(error)),
        status=status,
        detail=error.detail,
        code=error.code,
        why=error.why,
        hint=error.hint,
        instance=f"/api/v1/runs/{run_id}/events" if run_id else None,
        extra=error.extra,
    )


def unexpected() -> Problem:
    """Describe a bug without its internals; the log has the traceback."""
    return Problem(
        type=PROBLEM_PREFIX + "error",
        title="Internal error",
        status=500,
        detail="the daemon hit a bug while answering",
        code="internal",
        hint="agentmesh logs   shows what happened",
    )


def encode_problem(problem: Problem) -> bytes:
    """Encode as JSON; extras that are not JSON-ready are left out rather than hiding the error itself."""
    try:
        return _encode(problem)
    except (TypeError, ValueError, RecursionError):
        return _encode(msgspec.structs.replace(problem, extra={}))


def headers_of(error: MeshError, status: int) -> dict[str, str]:
    """Return the headers that go with an error: Busy has ``Retry-After``, a missing token ``WWW-Authenticate``.

    A rate that is used up has ``RateLimit`` as well (draft-ietf-httpapi-ratelimit-headers-11).
    """
    headers: dict[str, str] = {}
    if isinstance(error, Busy):
        wait_s = max(1, math.ceil(error.retry_after_s))
        headers["retry-after"] = str(wait_s)
        if error.code == "refused.busy.rate":
            headers["ratelimit"] = f'"calls";r=0;t={wait_s}'
    if status == 401:
        is_proof = error.code.startswith(("dpop.", "token."))
        headers["www-authenticate"] = 'DPoP algs="EdDSA ES256"' if is_proof else "Bearer"
    elif error.code == "refused.scope":
        headers["www-authenticate"] = f'Bearer error="insufficient_scope", scope="{error.extra.get("scope", "")}"'
    if error.code == "body.too_large":
        # The rest of the body is not wanted on this connection.
        headers["connection"] = "close"
    return headers


async def send_problem(
    send: Send, error: MeshError, *, status: int | None = None, headers: dict[str, str] | None = None
) -> None:
    """Answer with the problem of an error, and further headers."""
    problem = problem_of(error, status=status)
    headers = {**(headers or {}), **headers_of(error, problem.status)}
    await send_prepared(send, problem, [(name.encode(), value.encode()) for name, value in headers.items()])


async def refuse_socket(send: Send, error: MeshError, *, status: int | None = None) -> None:
    """Answer the handshake of a WebSocket with a problem in place of accepting it."""
    problem = problem_of(error, status=status)
    headers = [(b"content-type", CONTENT_TYPE), (b"cache-control", b"no-store")]
    headers += [(name.encode(), value.encode()) for name, value in headers_of(error, problem.status).items()]
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": encode_problem(problem)})


async def send_prepared(send: Send, problem: Problem, headers: list[tuple[bytes, bytes]]) -> None:
    """Answer with a problem that is already described."""
    body = encode_problem(problem)
    await send(
        {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [
                (b"content-type", CONTENT_TYPE),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
