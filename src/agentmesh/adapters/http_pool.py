"""Connections to agents, kept for a while after use: how many at once, how long idle, who waits.

A slot is the right to have one request under way. As many slots as sockets are allowed, given first come, first served; an
idle socket gives way when a request needs the room for another host. Who may call it: ``http_client``.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import re
import ssl
from base64 import b64encode
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

from agentmesh.adapters.http1 import Connection
from agentmesh.adapters.reach import Reach, reach_of
from agentmesh.errors import Closed, NoRoute, Timeout, UsageError

CONNECT_TIMEOUT_S = 5.0
#: Sockets open at once; further requests wait for one.
CONNECTIONS_MAX = 1024
#: Idle sockets are closed before the common server default of 5 s, so that no request meets a closing one.
IDLE_S = 4.0

_HOST = re.compile(r"[a-z0-9._-]+", re.IGNORECASE)
#: What may stand in a path or query as it is (RFC 3986 §3.3, §3.4); "%" too, for it was quoted once already.
_PATH_SAFE = "/?:@!$&'()*+,;=~%"

Origin = tuple[str, str, int]


class Target(NamedTuple):
    """Where a URL points: scheme, host and port; and what a request to it says after its method."""

    origin: Origin
    head: bytes


def bad_url(url: str) -> UsageError:
    """Build the error for what is no URL of an agent."""
    return UsageError(
        f"{url[:200]!r} is no URL of an agent",
        code="agent.bad_url",
        why="an agent is reached by http:// or https:// and a host",
        hint="agentmesh register http://127.0.0.1:8000",
    )


def place_of(url: str) -> str:
    """Return scheme, host and port only: paths may carry a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


@functools.lru_cache(maxsize=1024)  # every call passes here with the same few URLs
def target_of(url: str) -> Target:
    """Read a URL into what a connection and a request need; user and password become Basic credentials (RFC 7617).

    Raises:
        UsageError: no URL of an agent (code "agent.bad_url").
    """
    if len(url) > 2048 or any(c.isspace() or ord(c) < 32 or ord(c) == 127 for c in url):
        raise bad_url(url)
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.port == 0:
            raise bad_url(url)
        host = _host(parts.hostname or "")
        path = quote(parts.path or "/", safe=_PATH_SAFE)
        query = f"?{quote(parts.query, safe=_PATH_SAFE)}" if parts.query else ""
        credentials = _credentials(parts)
    except ValueError as error:
        raise bad_url(url) from error
    named = f"[{host.partition('%')[0]}]" if ":" in host else host  # a zone (RFC 6874) is nobody else's business
    port = f":{parts.port}" if parts.port else ""
    head = f" {path}{query} HTTP/1.1\r\nHost: {named}{port}\r\nUser-Agent: agentmesh\r\nAccept-Encoding: identity\r\n"
    origin = (parts.scheme, host, parts.port or (443 if parts.scheme == "https" else 80))
    return Target(origin, (head + credentials).encode("ascii"))


def _host(host: str) -> str:
    """Return a host as it goes into requests and name look-ups. Raises ValueError if it is none."""
    if ":" in host:
        return str(ipaddress.IPv6Address(host))
    found = host if host.isascii() else host.encode("idna").decode("ascii")
    if not _HOST.fullmatch(found) or any(not 0 < len(label) < 64 for label in found.removesuffix(".").split(".")):
        raise ValueError("no host")
    return found


def _credentials(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    both = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
    return f"Authorization: Basic {b64encode(both).decode('ascii')}\r\n"


class Pool:
    """The connections of one client on one event loop.

    Args:
        least: How far inside a connection may lead at most.
        tls: How servers are verified, if not by the authorities of this machine.
    """

    def __init__(self, least: Reach = Reach.NEVER, tls: ssl.SSLContext | None = None) -> None:
        self._least = least
        self._slots = asyncio.Semaphore(CONNECTIONS_MAX)
        self._idle: dict[Origin, list[Connection]] = {}
        self._all: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._tls = tls
        self._closed = False

    async def enter(self, ends: float) -> None:
        """Take a slot, waiting until ``ends`` (loop time, s); ``leave`` gives it back.

        Raises:
            Timeout: every slot was taken all the while (code "agent.timeout"). Closed: the pool is closed.
        """
        if self._slots.locked():
            try:
                async with asyncio.timeout_at(ends):
                    await self._slots.acquire()
            except TimeoutError as error:
                raise Timeout(
                    "too many calls to agents are under way", code="agent.timeout", why=f"{CONNECTIONS_MAX} sockets"
                ) from error
        else:
            await self._slots.acquire()  # at once

    def leave(self) -> None:
        """Give a slot back."""
        self._slots.release()

    async def take(self, target: Target, url: str, ends: float) -> Connection:
        """Return a connection that is ready for a request: an idle one, or a new one. Only with a slot.

        Raises:
            NoRoute: none could be made (code "agent.unreachable"), or it leads too far inside (code "link.inward").
            Closed: the pool is closed.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        if idle := self._idle.get(target.origin):
            oldest = loop.time() - IDLE_S
            while idle:
                connection = idle.pop()
                if connection.reusable and connection.idle_since > oldest and not connection.stirred():
                    return connection
                connection.close()
        if len(self._all) >= CONNECTIONS_MAX:
            self._drop_idle()
        return await self._connect(target.origin, url, min(ends, loop.time() + CONNECT_TIMEOUT_S))

    def give(self, target: Target, connection: Connection) -> None:
        """Take a connection back, to use it again if that is possible."""
        if not connection.reusable or self._closed:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.setdefault(target.origin, []).append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_S, self._sweep)

    def close(self) -> None:
        """Close every connection; requests under way end with Closed. Idempotent."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._all):
            connection.fail(Closed("this adapter was closed", code="agent.closed"))
        self._idle.clear()

    async def _connect(self, origin: Origin, url: str, ends: float) -> Connection:
        scheme, host, port = origin
        connection = Connection(self._all.discard)
        self._all.add(connection)
        try:
            async with asyncio.timeout_at(ends):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    lambda: connection, host, port, ssl=self._tls_context() if scheme == "https" else None
                )
            self._check_open()
            if (found := reach_of(str((transport.get_extra_info("peername") or ("",))[0]))) < self._least:
                raise NoRoute(
                    f"nothing is asked of {place_of(url)}",
                    code="link.inward",
                    why=f"its name leads to {found.words} now, and a stranger named it",
                )
        except (OSError, TimeoutError) as error:
            self._discard(connection)
            raise NoRoute(
                f"nothing answers at {place_of(url)}",
                code="agent.unreachable",
                why=str(error)[:300] or type(error).__name__,
                hint="start the agent, then try again",
            ) from error
        except BaseException:
            self._discard(connection)
            raise
        return connection

    def _discard(self, connection: Connection) -> None:
        connection.close()
        self._all.discard(connection)

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("this adapter is closed", code="agent.closed")

    def _drop_idle(self) -> None:
        """Close the connection that has been idle longest, if there is one."""
        origin = min(
            (o for o, idle in self._idle.items() if idle), key=lambda o: self._idle[o][0].idle_since, default=None
        )
        if origin is not None:
            self._discard(self._idle[origin].pop(0))

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_S
        for origin, idle in list(self._idle.items()):
            kept: list[Connection] = []
            for connection in idle:
                if connection.reusable and connection.idle_since > oldest:
                    kept.append(connection)
                else:
                    connection.close()
            if kept:
                self._idle[origin] = kept
            else:
                del self._idle[origin]
        first = min((idle[0].idle_since for idle in self._idle.values()), default=None)
        self._sweeper = None if first is None else loop.call_at(first + IDLE_S, self._sweep)
