"""The one HTTP client of all doors: aiohttp behind size caps, deadlines and our own errors.

It loads aiohttp at the first request, so that a daemon without agents does not pay for it. It sends no cookies, reads no
proxy settings, asks for no compression (a small body could unpack into a large one), and follows a redirect only to the
same scheme, host and port. Who may call it: the doors of this room.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urljoin, urlsplit

import msgspec

from agentmesh.adapters.lines import EventSplitter, LineSplitter
from agentmesh.errors import AgentFailed, Closed, DecodeError, LimitError, MeshError, NoRoute, Timeout, UsageError
from agentmesh.node.door import Health

if TYPE_CHECKING:
    import aiohttp

#: Largest answer in one piece, bytes. Streams are capped by line and, in total, by the same figure times four.
ANSWER_BYTES_MAX = 16 * 1024 * 1024
STREAM_BYTES_MAX = 64 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0
HEALTH_TIMEOUT_S = 3.0
#: Sockets open at once; further requests wait for one.
CONNECTIONS_MAX = 1024
#: Idle sockets are closed before the common server default of 5 s, so that no request meets a closing one.
IDLE_S = 4.0
REDIRECTS_MAX = 3
#: How much of an agent's error page is shown.
ERROR_TEXT_MAX = 2048


class Answer(NamedTuple):
    """One whole HTTP answer: status, lower-case media type without parameters, body."""

    status: int
    media_type: str
    body: bytes


@functools.lru_cache(maxsize=1024)  # every call passes here with the same few URLs
def check_url(url: str) -> str:
    """Return the URL if it is an http or https URL with a host.

    Raises:
        UsageError: it is not (code "agent.bad_url"). No state changed.
    """
    try:
        parts = urlsplit(url)
        ok = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        ok = False
    if not ok or len(url) > 2048 or any(c.isspace() or ord(c) < 32 for c in url):
        raise UsageError(
            f"{url[:200]!r} is no URL of an agent",
            code="agent.bad_url",
            why="an agent is reached by http:// or https:// and a host",
            hint="agentmesh register http://127.0.0.1:8000",
        )
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
    return AgentFailed(text or f"the agent answered {status}", code=code, why=f"{_place(url)} answered HTTP {status}")


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


def _place(url: str) -> str:
    """Return scheme, host and port only: paths may carry a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class HttpClient:
    """A lazily made aiohttp session, one per event loop.

    Args:
        answer_bytes_max: Largest whole answer.
    """

    def __init__(self, *, answer_bytes_max: int = ANSWER_BYTES_MAX) -> None:
        self.answer_bytes_max = answer_bytes_max
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def _get(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Closed("this adapter is closed", code="agent.closed")
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=IDLE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "agentmesh"},
            )
            self._loop = loop
        return self._session

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Send a request and hold the response open; leaving the block closes it.

        Args:
            json: Body to encode; or ``body``, already encoded.
            timeout_s: For everything up to the end of the body.

        Raises:
            UsageError: not a usable URL.
            NoRoute: no connection (code "agent.unreachable"); the agent has done no work.
            Closed: the connection broke. Timeout: ``timeout_s`` passed.
            AgentFailed: a redirect to elsewhere, or a compressed body.
        """
        import aiohttp

        check_url(url)
        sent = dict(headers or {})
        if json is not None:
            body = msgspec.json.encode(json)
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        limits = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, timeout_s))
        response: aiohttp.ClientResponse | None = None
        try:
            for _ in range(REDIRECTS_MAX + 1):
                response = await self._get().request(
                    method, url, data=body, headers=sent, timeout=limits, allow_redirects=False
                )
                target = _redirect(method, url, response)
                if target is None:
                    break
                response.close()
                url = target
            else:
                raise AgentFailed("the agent redirects in a circle", code="agent.redirect")
            if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
                raise AgentFailed(
                    "the agent compressed its answer although told not to",
                    code="agent.encoding",
                    hint="serve answers without Content-Encoding",
                )
            yield response
        except TimeoutError as error:
            if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ConnectionTimeoutError):
                raise _unreachable(url, error) from error
            raise Timeout(f"the agent gave no answer within {timeout_s:g} s", code="agent.timeout") from error
        except (aiohttp.ClientConnectorError, aiohttp.ClientProxyConnectionError) as error:
            raise _unreachable(url, error) from error
        except aiohttp.InvalidURL as error:
            raise UsageError(f"{url[:200]!r} is no URL of an agent", code="agent.bad_url") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Closed(
                "the agent closed the connection before its answer was whole",
                code="agent.closed",
                why=f"{type(error).__name__}: {error}"[:300],
            ) from error
        finally:
            if response is not None:
                response.release() if response.content.at_eof() else response.close()

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
            return Answer(response.status, response.content_type.lower(), content)

    async def aclose(self) -> None:
        """Close the session and its sockets; later requests raise Closed. Idempotent."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None and not session.closed:
            await session.close()


def _redirect(method: str, url: str, response: aiohttp.ClientResponse) -> str | None:
    if response.status not in (301, 302, 303, 307, 308):
        return None
    target = urljoin(url, response.headers.get("Location", ""))
    if not same_origin(url, target) or (method not in ("GET", "HEAD") and response.status not in (307, 308)):
        response.close()
        raise AgentFailed(
            f"the agent at {_place(url)} redirects to {_place(target)}",
            code="agent.redirect",
            why="a redirect to another host is not followed",
            hint=f"agentmesh register {_place(target)}",
        )
    return target


def _unreachable(url: str, error: Exception) -> NoRoute:
    return NoRoute(
        f"nothing answers at {_place(url)}",
        code="agent.unreachable",
        why=str(error)[:300] or type(error).__name__,
        hint="start the agent, then try again",
    )


async def read_whole(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """Read a body of at most ``bytes_max`` bytes. Raises LimitError (code "agent.answer_too_large") beyond."""
    pieces: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > bytes_max:
            raise LimitError(f"the agent answered more than {bytes_max} bytes", code="agent.answer_too_large")
        pieces.append(chunk)
    return b"".join(pieces)


async def pieces_of(
    response: aiohttp.ClientResponse, splitter: LineSplitter | EventSplitter, *, bytes_max: int = STREAM_BYTES_MAX
) -> AsyncGenerator[bytes, None]:
    """Yield the lines or events of a streamed body as they become whole.

    Raises:
        LimitError: a line, an event or the whole stream is larger than allowed.
    """
    size = 0
    async for chunk in response.content.iter_any():
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


async def tcp_health(url: str) -> Health:
    """Say whether something accepts connections where the URL points. Never raises."""
    scheme, host, port = _origin(url)
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        return Health("unhealthy", f"nothing answers at {scheme}://{host}:{port}: {type(error).__name__}")
    writer.close()
    return Health("healthy")
