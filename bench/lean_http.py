"""A lean HTTP/1.1 client and server on httptools, so that the load generator and the agent cost little beside what is measured.

Both sides of every comparison use them. Only what the bench needs: keep-alive, Content-Length bodies, 200 or an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import httptools


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self._body: list[bytes] = []
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser: Any = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def request(self, data: bytes) -> asyncio.Future[tuple[int, bytes]]:
        assert self.transport is not None
        self._body = []
        self._parser = httptools.HttpResponseParser(self)
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        assert self._answer is not None
        self._answer.set_result((self._parser.get_status_code(), b"".join(self._body)))


class Client:
    """POST one fixed request to a URL again and again over a pool of connections."""

    def __init__(self, url: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        lines = [f"POST {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        self._request = "\r\n".join(lines).encode() + body
        self._idle: list[_Connection] = []

    async def post(self) -> tuple[int, bytes]:
        """Send the request and return (status, body)."""
        # A server hangs up on connections that were idle for some seconds, between two rounds for instance.
        self._idle = [c for c in self._idle if c.is_open] if self._idle and not self._idle[-1].is_open else self._idle
        if self._idle:
            connection = self._idle.pop()
        else:
            _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        answer = await connection.request(self._request)
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            if connection.transport is not None:
                connection.transport.close()


class Server(asyncio.Protocol):
    """Answer every request with one fixed JSON body, after its own body has arrived."""

    def __init__(self, answer: bytes, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
        self._bytes = head.encode() + answer
        self._parser: Any = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        assert self._transport is not None
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, self._bytes)
        else:
            self._transport.write(self._bytes)


def server_of(answer: bytes, delay_s: float = 0.0) -> Callable[[], Server]:
    """Return a protocol factory for ``create_server``; answers leave after ``delay_s``."""
    return lambda: Server(answer, delay_s)
