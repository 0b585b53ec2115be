"""One HTTP/1.1 connection as a client (RFC 9112), and the answer that arrives on it.

The parser is llhttp by way of httptools, strict; this module adds what a parser leaves open: how much may arrive before it
means something, when the body is whole, when reading pauses, and whether the connection may serve again. One request at a
time, never pipelined. Every byte that arrives is hostile. Who may call it: ``http_client``.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable
from typing import Any, cast

import httptools

from agentmesh.errors import Closed, MeshError, Timeout

#: Status line and headers, those of interim answers and trailers included; also chunk sizes and extensions between two bytes
#: of body.
HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 256
#: Reading pauses when so much of a body waits for its reader. What the socket had already given comes on top.
BUFFER_BYTES_MAX = 1024 * 1024


class _Malformed(Exception):
    """The peer broke a rule of this module; never leaves it."""


class Response:
    """An answer whose head is there and whose body may still arrive.

    Attributes:
        url: What was asked for.
        status: 200 to 999; 0 while the head has not arrived.
        headers: Names in lower case; repeated ones are joined by ", " (RFC 9110 §5.3).
        ended: The body has arrived whole; some of it may be unread.
    """

    __slots__ = ("_connection", "_error", "_pieces", "_size", "_waiter", "ended", "headers", "status", "url")

    def __init__(self, url: str, connection: Connection) -> None:
        self.url = url
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        self._connection = connection
        self._pieces: list[bytes] = []
        self._size = 0
        self._error: MeshError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def content_type(self) -> str:
        """Return the media type in lower case without parameters; of the unlabelled, "application/octet-stream"."""
        said = self.headers.get("content-type")
        if said is None:
            return "application/octet-stream"
        media_type = said.partition(";")[0].strip().lower()
        return media_type if media_type.count("/") == 1 else "text/plain"  # as RFC 2045 §5.2 reads an unreadable one

    async def head(self) -> None:
        """Wait for status and headers. Raises as ``read``."""
        while not self.status:
            await self._wait()

    async def read(self) -> bytes:
        """Return what has arrived, waiting for something; b"" at the end of the body.

        Raises:
            Closed: the connection broke, or what came is no HTTP (code "agent.closed").
            Timeout: ``expire`` was called (code "agent.timeout").
        """
        while not self._pieces:
            if self.ended:
                return b""
            await self._wait()
        pieces, self._pieces, self._size = self._pieces, [], 0
        self._connection.resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def expire(self, timeout_s: float) -> None:
        """Fail with Timeout, unless the answer is whole."""
        self._connection.fail(Timeout(f"the agent gave no answer within {timeout_s:g} s", code="agent.timeout"))

    def feed(self, piece: bytes) -> bool:
        """Take a piece of body; return whether reading should pause."""
        self._pieces.append(piece)
        self._size += len(piece)
        self.wake()
        return self._size > BUFFER_BYTES_MAX

    def fail(self, error: MeshError) -> None:
        """Let the reader have what has arrived, then this error."""
        self._error = error
        self.wake()

    def wake(self) -> None:
        """Let the reader look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Connection(asyncio.Protocol):
    """One connection to a server.

    Args:
        on_lost: Called once when the connection is gone.

    Attributes:
        idle_since: For the pool: when the last request was over, loop time in s.
    """

    def __init__(self, on_lost: Callable[[Connection], None]) -> None:
        self.idle_since = 0.0
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._closed = False
        self._paused = False
        self._keep_alive = True
        self._until_close = False
        self._quiet = 0  # bytes since the request or the last byte of body
        self._headers = 0

    @property
    def reusable(self) -> bool:
        """Say whether another request may be sent now: the last answer came whole and nothing after it, all was sent."""
        return (
            self._response is None
            and self._keep_alive
            and not self._closed
            and not self._paused
            and self._transport is not None
            and not self._transport.is_closing()
            and not self._transport.get_write_buffer_size()
        )

    def stirred(self) -> bool:
        """Say whether the kernel holds something that this connection has not seen yet: the end, as a rule.

        A server that stopped while our loop was busy is found here, before a request is lost on it. It costs one poll(2).
        """
        assert self._transport is not None
        descriptor: int = self._transport.get_extra_info("socket").fileno()
        if sys.platform == "win32":
            return bool(select.select([descriptor], [], [], 0)[0])
        poller = select.poll()  # select(2) knows descriptors up to 1023 only
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(0))

    def send(self, request: bytes, url: str) -> Response:
        """Send a whole request on a new or ``reusable`` connection. The answer's head has not arrived when this returns.

        Raises:
            Closed: the server has hung up already, or spoke before it was asked (code "agent.closed"). Nothing was sent.
        """
        assert self._response is None
        assert self._transport is not None
        if self._closed or self._transport.is_closing():
            raise Closed("the agent closed the connection before it was asked", code="agent.closed")
        response = self._response = Response(url, self)
        self._keep_alive = self._until_close = False
        self._quiet = self._headers = 0
        self._transport.write(request)
        return response

    def resume(self) -> None:
        """Read again after a pause."""
        if self._paused and not self._closed and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def fail(self, error: MeshError) -> None:
        """Close at once; an answer that is not whole ends with this error."""
        response, self._response = self._response, None
        self.close()
        if response is not None:
            response.fail(error)

    def close(self) -> None:
        """Close at once: what is unsent stays unsent, and what is unread of an answer never comes. Idempotent."""
        self._closed = True
        self._response = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse; whatever comes without a request under way closes the connection."""
        if self._response is None:
            self.close()
            return
        try:
            self._parse(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, _Malformed) as error:
            cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
            if not isinstance(cause, httptools.HttpParserError | httptools.HttpParserUpgrade | _Malformed):
                raise  # a bug of ours in a callback
            self.fail(
                Closed("what the agent answered is no HTTP/1.1", code="agent.closed", why=str(cause)[:300] or "upgrade")
            )

    def eof_received(self) -> None:
        """End a body that ends with the connection; any other answer is broken."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Do as ``eof_received``, and tell the owner."""
        self._end(exc)
        self._parser = None  # it refers back to this object
        self._on_lost(self)

    # httptools

    def on_message_begin(self) -> None:
        """Refuse a second answer."""
        if self._response is None:
            raise _Malformed("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers are only counted."""
        response = self._response
        self._headers += 1
        if response is None or self._headers > HEADERS_MAX:
            raise _Malformed(f"more than {HEADERS_MAX} headers")
        if not response.status:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            before = response.headers.get(key)
            response.headers[key] = text if before is None else f"{before}, {text}"

    def on_headers_complete(self) -> None:
        """Decide how the body ends (RFC 9112 §6.3), more strictly than the parser; forget an interim answer."""
        response = self._response
        assert response is not None
        status: int = self._parser.get_status_code()
        if status < 200:
            if status in (100, 102, 103):
                response.headers.clear()
                return
            raise _Malformed(f"status {status}")
        coding = response.headers.get("transfer-encoding")
        sized = "content-length" in response.headers
        if coding is not None and (sized or coding.lower() != "chunked"):
            raise _Malformed(f"transfer encoding {coding[:80]!r}")
        self._until_close = coding is None and not sized and status not in (204, 304)
        self._keep_alive = self._parser.should_keep_alive()
        response.status = status
        response.wake()

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of body."""
        assert self._response is not None
        self._quiet = 0
        if self._response.feed(body) and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """End the answer, unless it was an interim one."""
        response = self._response
        assert response is not None
        if response.status:
            self._response = None
            response.ended = True
            response.wake()

    def _parse(self, data: bytes) -> None:
        response = self._response
        assert response is not None
        room = HEAD_BYTES_MAX - self._quiet
        if len(data) > room and not response.status:
            # The parser itself collects a header of any length, so it gets no more of a head than is allowed.
            self._quiet = HEAD_BYTES_MAX
            self._parser.feed_data(data[:room])
            if not response.status:
                raise _Malformed(f"a head of more than {HEAD_BYTES_MAX} bytes")
            data = data[room:]
        self._quiet += len(data)
        self._parser.feed_data(data)
        if self._quiet > HEAD_BYTES_MAX and not response.ended:
            raise _Malformed(f"more than {HEAD_BYTES_MAX} bytes without content")

    def _end(self, error: Exception | None) -> None:
        self._closed = True
        response = self._response
        if response is None:
            return
        if self._until_close and error is None:
            self._response = None
            response.ended = True
            response.wake()
            return
        self.fail(
            Closed(
                "the agent closed the connection before its answer was whole",
                code="agent.closed",
                why=f"{type(error).__name__}: {error}"[:300] if error else "",
            )
        )
