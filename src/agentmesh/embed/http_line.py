"""One connection to one HTTP server, asked one thing at a time, with a deadline that nothing gets past.

The timeouts of a socket count each wait anew, so a server that sends a byte a second would hold its caller for ever. Here every
wait, those inside ``http.client`` too, is given what is left of the whole time. Blocking: it runs in the search process.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

#: Addresses of one host name that are tried.
ADDRESSES_MAX = 4
_SEND_BYTES = 65_536


class Answer(NamedTuple):
    """What the server said: status, Retry-After in seconds (None if it says nothing), body."""

    status: int
    retry_after_s: float | None
    body: bytes


class TooLarge(Exception):
    """The answer is larger than allowed; the connection was closed."""


class Line:
    """A connection that opens itself and is kept while both sides like. Not for several threads at once.

    Args:
        host: Name or address.
        port: TCP port.
        tls: Speak TLS and check the certificate.
        connect_s: Longest time for name, connection and handshake, seconds.
        clock: Monotonic seconds.
    """

    def __init__(
        self, host: str, port: int, *, tls: bool, connect_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._connect_s, self._clock = connect_s, clock
        self._connection: http.client.HTTPConnection | None = None
        self._end_s = 0.0
        self._resolving: threading.Thread | None = None

    def post(self, path: str, body: bytes, headers: dict[str, str], *, within_s: float, bytes_max: int) -> Answer:
        """Send one request and read the whole answer.

        A kept connection that turns out to be closed is replaced once: servers close idle ones as they like.

        Raises:
            TimeoutError: it took longer than ``within_s``.
            TooLarge: the answer is larger than ``bytes_max``.
            OSError: no connection, or it broke.
            http.client.HTTPException: the answer is no HTTP.
        """
        self._end_s = self._clock() + within_s
        kept = self._connection is not None
        try:
            try:
                return self._once(path, body, headers, bytes_max)
            except (ConnectionError, http.client.RemoteDisconnected):
                if not kept:
                    raise
                self.close()
                return self._once(path, body, headers, bytes_max)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, if there is one. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _once(self, path: str, body: bytes, headers: dict[str, str], bytes_max: int) -> Answer:
        if self._connection is None:
            connection = http.client.HTTPConnection(self._host, self._port)
            connection.sock = cast(Any, _Timed(self._connect(), self._left_s))
            self._connection = connection
        self._connection.request("POST", path, body, headers)
        with self._connection.getresponse() as response:
            if (response.length or 0) > bytes_max:
                raise TooLarge
            parts: list[bytes] = []
            size = 0
            while part := response.read(_SEND_BYTES):
                size += len(part)
                if size > bytes_max:
                    raise TooLarge
                parts.append(part)
            answer = Answer(response.status, _seconds(response.getheader("Retry-After")), b"".join(parts))
            if response.will_close:
                self.close()
        return answer

    def _left_s(self) -> float:
        left = self._end_s - self._clock()
        if left <= 0:
            raise TimeoutError("the whole time is over")
        return left

    def _connect(self) -> socket.socket:
        until_s = min(self._end_s, self._clock() + self._connect_s)
        failed: OSError = OSError("no address")
        for family, address in self._resolve(until_s)[:ADDRESSES_MAX]:
            left = until_s - self._clock()
            if left <= 0:
                raise TimeoutError("no connection in time") from failed
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(left)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls:
                    sock.settimeout(max(0.001, until_s - self._clock()))
                    return ssl.create_default_context().wrap_socket(sock, server_hostname=self._host)
            except OSError as error:
                sock.close()
                failed = error
            else:
                return sock
        raise failed

    def _resolve(self, until_s: float) -> list[tuple[int, Any]]:
        """Look the name up in a thread, the only way to stop waiting for it; at most one thread waits."""
        if self._resolving is not None and self._resolving.is_alive():
            raise TimeoutError("the name is still being looked up")
        found: list[Any] = []

        def look() -> None:
            try:
                found.append(socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                found.append(error)

        self._resolving = threading.Thread(target=look, name="embed-resolve", daemon=True)
        self._resolving.start()
        self._resolving.join(max(0.0, until_s - self._clock()))
        if not found:
            raise TimeoutError(f"the name {self._host} was not found in time")
        if isinstance(found[0], Exception):
            raise OSError(f"the name {self._host} cannot be looked up: {found[0]}") from found[0]
        return [(family, address) for family, _, _, _, address in found[0]]


class _Timed:
    """What ``http.client`` uses of a socket, each wait bounded by what is left.

    As with a real one, what was made by ``makefile`` can still be read after ``close``: an answer without a length ends with the
    connection, and ``http.client`` closes that before it reads.
    """

    def __init__(self, sock: socket.socket, left_s: Callable[[], float]) -> None:
        self._sock, self._left_s = sock, left_s
        self._readers, self._closed = 0, False

    def sendall(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        for begin in range(0, len(view), _SEND_BYTES):
            self._sock.settimeout(self._left_s())
            self._sock.sendall(view[begin : begin + _SEND_BYTES])

    def makefile(self, _mode: str) -> io.BufferedReader:
        self._readers += 1
        return io.BufferedReader(_Reader(self), _SEND_BYTES)

    def close(self) -> None:
        self._closed = True
        self._end()

    def receive(self, buffer: Any) -> int:
        self._sock.settimeout(self._left_s())
        return self._sock.recv_into(buffer)

    def let_go(self) -> None:
        self._readers -= 1
        self._end()

    def _end(self) -> None:
        if self._closed and not self._readers:
            with contextlib.suppress(OSError):
                self._sock.close()


class _Reader(io.RawIOBase):
    """The receiving side of a ``_Timed``."""

    def __init__(self, sock: _Timed) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._sock.receive(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._sock.let_go()


def _seconds(text: str | None) -> float | None:
    """Return a Retry-After in seconds; None if it is a date or nonsense."""
    text = (text or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
