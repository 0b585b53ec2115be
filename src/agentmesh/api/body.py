"""Reading request bodies: capped while they arrive, decoded strictly, bounded in depth and number range."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar, cast

import msgspec
from starlette.types import Receive, Scope

from agentmesh.errors import Closed, DecodeError, LimitError, Timeout, UsageError

#: Deepest nesting of JSON taken in. Far under the interpreter's recursion limit, with which msgspec stops.
JSON_DEPTH_MAX = 100
#: A body that is larger than allowed, but not larger than this, is read and dropped before the answer, so that a client
#: that reads only after it has written still sees the problem.
DRAIN_BYTES_MAX = 64 * 1024 * 1024
#: Longest wait for the next piece of a body, in seconds.
BODY_TIMEOUT_S = 30.0

# Nineteen digits in a row may be a number beyond 64 bits. A translation and a search cost 1 µs per KB; a regex, 20.
_DIGITS_TO_ZERO = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG_NUMBER = b"0" * 19
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1

T = TypeVar("T")


async def read_body(scope: Scope, receive: Receive, bytes_max: int) -> bytes:
    """Read the whole body.

    Raises:
        LimitError: more than ``bytes_max`` bytes (code "body.too_large").
        Closed: the client went away.
        Timeout: the client stopped sending.
    """
    message = await receive()
    if message["type"] != "http.request":
        raise Closed("the client went away", code="body.gone")
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        return body
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > DRAIN_BYTES_MAX:
            raise _too_large(bytes_max)
    pieces = [body]
    total = len(body)
    while message.get("more_body", False):
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                message = await receive()
        except TimeoutError as error:
            raise Timeout(f"no more of the body came for {BODY_TIMEOUT_S:g} s", code="body.timeout") from error
        if message["type"] != "http.request":
            raise Closed("the client went away", code="body.gone")
        piece: bytes = message.get("body", b"")
        total += len(piece)
        if total <= bytes_max:
            pieces.append(piece)
        elif total > DRAIN_BYTES_MAX:
            break
        else:
            pieces.clear()
    if total > bytes_max:
        raise _too_large(bytes_max)
    return b"".join(pieces)


def _too_large(bytes_max: int) -> LimitError:
    return LimitError(
        f"the body is larger than the {bytes_max} bytes allowed here",
        code="body.too_large",
        hint="send large content as a file part with a URL",
        extra={"bytes_max": bytes_max},
    )


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode a body as its type. A field given twice counts once, the last one wins.

    Raises:
        DecodeError: not JSON (400).
        UsageError: JSON, but unknown fields, wrong types or numbers that no 64 bits hold (422); the message names them.
        LimitError: nested too deep (413).
    """
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise UsageError(str(error), code="body.invalid", hint="GET /openapi.json describes every field") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(f"the body is not JSON: {error}", code="body.malformed") from error
    except RecursionError as error:
        raise _too_deep() from error
    # Both counts are cheap and nearly always say that there is nothing to look at.
    if body.count(b"{") + body.count(b"[") > JSON_DEPTH_MAX or _LONG_NUMBER in body.translate(_DIGITS_TO_ZERO):
        _check_values(value)
    return value


def _check_values(root: object) -> None:
    """Raise LimitError or UsageError for values that could not be passed on to another node."""
    stack: list[tuple[Any, int]] = [(root, 0)]
    while stack:
        value, depth = stack.pop()
        if depth > JSON_DEPTH_MAX:
            raise _too_deep()
        if isinstance(value, dict):
            stack.extend((child, depth + 1) for child in cast("dict[str, Any]", value).values())
        elif isinstance(value, list):
            stack.extend((child, depth + 1) for child in cast("list[Any]", value))
        elif isinstance(value, msgspec.Struct):
            stack.extend((getattr(value, field), depth + 1) for field in value.__struct_fields__)
        elif isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
            raise UsageError("a number does not fit 64 bits", code="body.number", hint="send it as text")


def _too_deep() -> LimitError:
    return LimitError(f"the JSON is nested deeper than {JSON_DEPTH_MAX}", code="body.too_deep")
