"""The one HTTP client of all doors: requests, redirects, size caps, deadlines and our own errors.

HTTP/1.1 on our own connections (``http_pool``, ``http1``; adr/0006). It sends no cookies, reads no proxy settings, asks for no
compression (a small body could unpack into a large one), and follows a redirect only to the same scheme, host and port. Who
may call it: the doors of this room.
"""

from __future__ import annotations

import asyncio
import functools
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NamedTuple, cast
from urllib.parse import urljoin, urlsplit

import msgspec

from agentmesh.adapters.http1 import Connection, Response
from agentmesh.adapters.http_pool import Pool, place_of, target_of
from agentmesh.adapters.lines import EventSplitter, LineSplitter
from agentmesh.adapters.reach import Reach, reach_of
from agentmesh.errors import AgentFailed, Closed, DecodeError, LimitError, MeshError, UsageError
from agentmesh.node.door import Health

#: Largest answer in one piece, bytes. Streams are capped by line and, in total, by the same figure times four.
ANSWER_BYTES_MAX = 16 * 1024 * 1024
STREAM_BYTES_MAX = 64 * 1024 * 1024
HEALTH_TIMEOUT_S = 3.0
REDIRECTS_MAX = 3
#: How much of an agent's error page is shown.
ERROR_TEXT_MAX = 2048
#: A header of ours: a token, then visible ASCII, spaces and tabs (RFC 9110 §5.5). Never a line end.
_HEADER = re.compile(r"[A-Za-z0-9-]+:[\t\x20-\x7e]*")


class Answer(NamedTuple):
    """One whole HTTP answer: status, lower-case media type without parameters, body."""

    status: int
    media_type: str
    body: bytes


def check_url(url: str) -> str:
    """Return the URL if it is an http or https URL with a host.

    Raises:
        UsageError: it is not (code "agent.bad_url"). No state changed.
    """
    target_of(url)
    return url


def same_origin(first: str, second: str) -> bool:
    """Say whether two URLs share scheme, host and port."""
    return _origin(first) == _origin(second)


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def decode_json(body: bytes) -> Any:
    """Decode JSON from an agent.

    Raises:
        DecodeError: no JSON, or nested too deep (code "agent.bad_answer"). No state changed.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"the agent answered with invalid JSON: {error}", code="agent.bad_answer") from error


def excerpt(body: bytes) -> str:
    """Return the first 2 KB of a body as one readable text."""
    return body[:ERROR_TEXT_MAX].decode("utf-8", "replace").strip()


def failed_status(url: str, status: int, body: bytes) -> AgentFailed:
    """Build the error for an answer of 4xx or 5xx; its own text first, if it has any."""
    text = excerpt(body)
    if text.startswith("{"):
        text = _error_text(body) or text
    code = "agent.unauthorized" if status in (401, 403) else "agent.failed"
    return AgentFailed(text or f"the agent answered {status}", code=code, why=f"{place_of(url)} answered HTTP {status}")


def _error_text(body: bytes) -> str:
    """Find the sentence in a JSON error body; "" if it has none."""
    try:
        found: Any = decode_json(body)
    except DecodeError:
        return ""
    for _ in range(3):
        if isinstance(found, str):
            return found[:ERROR_TEXT_MAX]
        if not isinstance(found, dict):
            break
        members = cast("dict[str, Any]", found)
        found = next((members[k] for k in ("error", "message", "detail", "text") if members.get(k)), None)
    return ""


class HttpClient:
    """Requests to agents over a pool of connections, one pool per event loop.

    Args:
        answer_bytes_max: Largest whole answer.
        least: How far inside its connections may lead at most; what a person named may lead anywhere.
        redirects_max: Redirects followed, within the same origin; 0 = they are answers like any other.
        tls: How servers are verified; by the authorities of this machine if left out.
    """

    def __init__(
        self,
        *,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
        least: Reach = Reach.NEVER,
        redirects_max: int = REDIRECTS_MAX,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answer_bytes_max, self.least = answer_bytes_max, least
        self.redirects_max, self._tls = redirects_max, tls
        self._pool: Pool | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def pool(self) -> Pool:
        """Return the pool of the running loop. Raises Closed after ``aclose``."""
        if self._closed:
            raise Closed("this adapter is closed", code="agent.closed")
        loop = asyncio.get_running_loop()
        if self._pool is None or self._loop is not loop:
            self._pool, self._loop = Pool(self.least, self._tls), loop
        return self._pool

    def open(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float,
    ) -> Exchange:
        """Send a request and hold the response open: ``async with`` gives it, and leaving the block early closes it.

        Args:
            json: Body to encode; or ``body``, already encoded.
            timeout_s: For everything up to the end of the body.

        Raises:
            UsageError: not a usable URL, or a header that cannot be sent.
            NoRoute: no connection (code "agent.unreachable"); the agent has done no work.
            Closed: the connection broke, or no HTTP came back. Timeout: ``timeout_s`` passed.
            AgentFailed: a redirect to elsewhere, or a compressed body.
        """
        if json is not None:
            body = msgspec.json.encode(json)
        return Exchange(self, method, url, _tail(headers or {}, body, method), timeout_s)

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float,
    ) -> Answer:
        """Send a request and read the whole answer. Raises as ``open``, and LimitError when it is larger than allowed."""
        async with self.open(method, url, json=json, body=body, headers=headers, timeout_s=timeout_s) as response:
            content = await read_whole(response, self.answer_bytes_max)
            return Answer(response.status, response.content_type, content)

    async def aclose(self) -> None:
        """Close all connections, which ends what runs with Closed; later requests raise it too. Idempotent."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


class Exchange:
    """One request and its answer: what ``HttpClient.open`` returns, to be entered once.

    A class and not a generator, and a timer and not ``asyncio.timeout``: both are cheaper for every call, and a timer never
    cancels the code that reads the answer.
    """

    __slots__ = ("_client", "_connection", "_method", "_pool", "_tail", "_target", "_timeout_s", "_timer", "_url")

    def __init__(self, client: HttpClient, method: str, url: str, tail: bytes, timeout_s: float) -> None:
        self._client = client
        self._method = method
        self._url = url
        self._tail = tail
        self._timeout_s = timeout_s
        self._target = target_of(url)
        self._pool: Pool | None = None
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Response:
        """Send the request and return the answer when its head is there. Raises as ``HttpClient.open``."""
        ends = asyncio.get_running_loop().time() + self._timeout_s
        pool = self._client.pool()
        await pool.enter(ends)
        self._pool = pool
        try:
            for _ in range(self._client.redirects_max + 1):
                response = await self._ask(pool, ends)
                followed = self._client.redirects_max > 0
                target = _redirect(self._method, self._url, response) if followed else None
                if target is None:
                    break
                self._put_back(pool)
                self._url, self._target = target, target_of(target)
            else:
                raise AgentFailed("the agent redirects in a circle", code="agent.redirect")
            if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
                raise AgentFailed(
                    "the agent compressed its answer although told not to",
                    code="agent.encoding",
                    hint="serve answers without Content-Encoding",
                )
        except BaseException:
            self._leave()
            raise
        return response

    async def __aexit__(self, *_: object) -> None:
        """Keep the connection for the next request if the answer has arrived whole, else close it."""
        self._leave()

    async def _ask(self, pool: Pool, ends: float) -> Response:
        connection = self._connection = await pool.take(self._target, self._url, ends)
        request = b"".join((self._method.encode("ascii"), self._target.head, self._tail))
        response = connection.send(request, self._url)
        self._timer = asyncio.get_running_loop().call_at(ends, response.expire, self._timeout_s)
        await response.head()
        return response

    def _put_back(self, pool: Pool) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connection is not None:
            pool.give(self._target, self._connection)
            self._connection = None

    def _leave(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            self._put_back(pool)
            pool.leave()


def _tail(headers: dict[str, str], body: bytes | None, method: str) -> bytes:
    """Return the caller's headers, those of the body, and the body.

    Raises:
        UsageError: a header cannot be sent (code "agent.bad_header").
    """
    lines = ""
    for name, value in headers.items():
        if not _HEADER.fullmatch(f"{name}:{value}"):
            raise UsageError(f"the header {name[:80]!r} holds what cannot be sent", code="agent.bad_header")
        lines += f"{name}: {value}\r\n"
    if body is None:
        return (lines + ("\r\n" if method == "GET" else "Content-Length: 0\r\n\r\n")).encode("ascii")
    if "Content-Type" not in headers:
        lines += "Content-Type: application/json\r\n"
    return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body


def _redirect(method: str, url: str, response: Response) -> str | None:
    if response.status not in (301, 302, 303, 307, 308):
        return None
    try:
        target = urljoin(url, response.headers.get("location", ""))
        known = target_of(target).origin == target_of(url).origin
    except (ValueError, UsageError) as error:
        raise AgentFailed(f"the agent at {place_of(url)} redirects to no URL", code="agent.redirect") from error
    if not known or (method not in ("GET", "HEAD") and response.status not in (307, 308)):
        raise AgentFailed(
            f"the agent at {place_of(url)} redirects to {place_of(target)}",
            code="agent.redirect",
            why="a redirect to another host is not followed",
            hint=f"agentmesh register {place_of(target)}",
        )
    return target


async def read_whole(response: Response, bytes_max: int) -> bytes:
    """Read a body of at most ``bytes_max`` bytes. Raises LimitError (code "agent.answer_too_large") beyond."""
    whole = bytearray()  # a list of tiny pieces would weigh many times what it holds
    while chunk := await response.read():
        if len(whole) + len(chunk) > bytes_max:
            raise LimitError(f"the agent answered more than {bytes_max} bytes", code="agent.answer_too_large")
        whole += chunk
    return bytes(whole)


async def pieces_of(
    response: Response, splitter: LineSplitter | EventSplitter, *, bytes_max: int = STREAM_BYTES_MAX
) -> AsyncGenerator[bytes, None]:
    """Yield the lines or events of a streamed body as they become whole.

    Raises:
        LimitError: a line, an event or the whole stream is larger than allowed.
    """
    size = 0
    while chunk := await response.read():
        size += len(chunk)
        if size > bytes_max:
            raise LimitError(f"the agent streamed more than {bytes_max} bytes", code="agent.answer_too_large")
        for piece in splitter.feed(chunk):
            yield piece


def guarded(check: Callable[..., Awaitable[Health]]) -> Callable[..., Awaitable[Health]]:
    """Make a health check keep its promise: an answer within 3 s, never an exception of ours."""

    @functools.wraps(check)
    async def inner(*args: Any) -> Health:
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                return await check(*args)
        except TimeoutError:
            return Health("unhealthy", f"no answer within {HEALTH_TIMEOUT_S:g} s")
        except MeshError as error:
            return Health("unhealthy", error.detail)

    return inner


async def tcp_health(url: str, least: Reach = Reach.NEVER) -> Health:
    """Say whether something accepts connections where the URL points, not further inside than ``least``. Never raises."""
    scheme, host, port = _origin(url)
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        return Health("unhealthy", f"nothing answers at {scheme}://{host}:{port}: {type(error).__name__}")
    found = reach_of(str((writer.get_extra_info("peername") or ("",))[0]))
    writer.close()
    if found < least:
        return Health("unhealthy", f"it leads to {found.words} now, and a stranger named it")
    return Health("healthy")
