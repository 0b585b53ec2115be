"""Links over WebSocket: for networks that let only HTTPS out, through a proxy if there is one.

TLS 1.3 runs inside the WebSocket (``net.tlspipe``), and the node-key handshake inside that, so the outer wss and any
proxy or HTTPS front that ends it are only an envelope: they see records, sizes and times. Therefore the outer
certificate is not judged either.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentmesh.errors import Closed, ConfigError, DecodeError, NoRoute, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net.addresses import join_host_port, parse_address, parse_bind, reachable_at
from agentmesh.net.base import Link
from agentmesh.net.inbound import Inbound, check_dialable
from agentmesh.net.tls import bind_error, dial_over, serve_over
from agentmesh.net.tlspipe import Certificate, Tunnel, load_certificate

if TYPE_CHECKING:
    from websockets.asyncio.connection import Connection
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request, Response

    from agentmesh.net.tlsca import CaNetwork

#: Last segment of the path that is served; whatever stands before it belongs to the HTTPS front.
PATH = "/mesh"
#: Largest WebSocket message, both ways. What a stranger can make us hold is this times ``_QUEUE_MAX``.
_UNIT_BYTES_MAX = 64 * 1024
_QUEUE_MAX = 4
_WRITE_HIGH_WATER = 512 * 1024
_OPEN_TIMEOUT_S = 10.0

# The library logs every failed opening with a traceback; strangers must not be able to fill the log. Counted in Inbound.
_library_log = logging.getLogger("agentmesh.net.ws.library")
_library_log.setLevel(logging.CRITICAL)


class WsTunnel:
    """A WebSocket as a byte ``Tunnel``: binary messages, whose borders mean nothing."""

    def __init__(self, socket: Connection) -> None:
        self._socket = socket

    async def read(self, bytes_max: int) -> bytes:
        """Return the next message, b"" at the end.

        Raises:
            DecodeError: a text message, or one larger than ``bytes_max``.
        """
        from websockets.exceptions import ConnectionClosed

        try:
            data = await self._socket.recv()
            while data == b"":
                data = await self._socket.recv()
        except ConnectionClosed:
            return b""
        if isinstance(data, str):
            raise DecodeError("a text message on a binary WebSocket", code="ws.text")
        if len(data) > bytes_max:
            raise DecodeError(f"a WebSocket message of {len(data)} bytes before any proof", code="handshake.malformed")
        return data

    async def write(self, data: bytes) -> None:
        """Write, waiting for room. Raises Closed."""
        from websockets.exceptions import ConnectionClosed

        try:
            for begin in range(0, len(data), _UNIT_BYTES_MAX):
                await self._socket.send(data[begin : begin + _UNIT_BYTES_MAX])
        except ConnectionClosed as error:
            raise Closed(f"the WebSocket closed: {error}", code="unreached.closed.ws") from error

    async def aclose(self) -> None:
        """Close, waiting a second at most for the other side."""
        await self._socket.close()


class WsTransport:
    """Reach nodes by WebSocket (``net.base.Transport``).

    Args:
        key: This node's key.
        bind: Where to listen, ``host:port``; loopback by default, behind an HTTPS front; "" to only dial.
        cert_path: PEM file of the inner, self-signed certificate (shared with TlsTransport); None for one in memory.
        public_url: How others reach this node, ``wss://host/mesh``; announced first.
        proxy: True takes the proxy from the environment (HTTPS_PROXY, ALL_PROXY, NO_PROXY), a URL names one
            (``http://host:port`` or ``socks5://…``), None or False uses none.
        wss_cert: PEM file with certificate chain and key to serve wss instead of ws.
        ca: As in ``TlsTransport``; its certificates are shown inside the WebSocket.
    """

    def __init__(
        self,
        key: KeyPair,
        bind: str = "127.0.0.1:0",
        cert_path: Path | None = None,
        public_url: str | None = None,
        proxy: str | bool | None = True,
        wss_cert: Path | None = None,
        ca: CaNetwork | None = None,
    ) -> None:
        self._key = key
        self._bind = bind
        self._cert_path = cert_path
        self._public_url = public_url
        self._proxy = proxy
        self._wss_cert = wss_cert
        self._ca = ca
        self._inbound = Inbound("ws")
        self._server: Server | None = None
        self._certificate: Certificate | None = None
        self._addresses: tuple[str, ...] = ()
        self._is_open = False

    @property
    def scheme(self) -> str:
        """ "ws"."""
        return "ws"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled; the public URL first."""
        return self._addresses

    @property
    def refused(self) -> int:
        """Connections that failed to prove a key, or were one too many."""
        return self._inbound.refused

    async def open(self) -> None:
        """Listen.

        Raises:
            StateError: the port is taken (codes "port.taken", "port.unusable").
            ConfigError: a certificate file or the public URL is wrong.
        """
        public = (_public_address(self._public_url),) if self._public_url else ()
        if self._bind:
            from websockets.asyncio.server import serve

            host, port = parse_bind(self._bind)
            if self._ca is None:
                self._certificate = load_certificate(self._cert_path)
            outer = _outer_context(self._wss_cert)
            try:
                self._server = await serve(
                    self._serve,
                    host,
                    port,
                    ssl=outer,
                    process_request=_only_mesh_path,
                    create_connection=_gated_connection(self._inbound),
                    compression=None,
                    server_header=None,
                    logger=_library_log,
                    **_options(),
                )
            except OSError as error:
                raise bind_error(error, self._bind) from error
            bound = next(iter(self._server.sockets)).getsockname()[1]
            scheme = "wss" if outer else "ws"
            own = tuple(f"ws:{scheme}://{join_host_port(h, p)}{PATH}" for h, p in reachable_at(host, bound))
            self._addresses = public + own
        else:
            self._addresses = public
        self._is_open = True

    async def dial(self, peer: NodeId, address: str, timeout_s: float = 10.0) -> Link:
        """Connect, through the proxy if there is one, and prove both keys (see ``net.base.Transport.dial``)."""
        check_dialable(self._inbound, self._key, peer, not self._is_open)
        url = parse_address(address).url

        async def connect() -> Tunnel:
            return WsTunnel(await self._connect(url, timeout_s))

        link = await dial_over(connect, self._key, peer, "ws", address, timeout_s, self._ca)
        self._inbound.keep(link)
        return link

    async def accept(self) -> Link:
        """Wait for the next inbound link. Raises Closed."""
        return await self._inbound.accept()

    async def aclose(self) -> None:
        """Stop listening and close every link."""
        self._is_open = False
        self._addresses = ()
        if self._server is not None:
            self._server.close(close_connections=False)
        await self._inbound.aclose()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _connect(self, url: str, timeout_s: float) -> Connection:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidHandshake, InvalidMessage, ProxyError, WebSocketException

        secure = url.startswith("wss:")
        proxy = proxy_of_environment(url) if self._proxy is True else (self._proxy or None)
        try:
            return await connect(
                url,
                proxy=proxy,
                ssl=_envelope_context() if secure else None,
                compression=None,
                user_agent_header=None,
                logger=_library_log,
                **_options(timeout_s),
            )
        except ProxyError as error:
            raise NoRoute(
                f"the proxy would not connect to {url}",
                code="unreached.no_route.proxy",
                why=str(error)[:200],
                hint="check HTTPS_PROXY and NO_PROXY",
            ) from error
        except InvalidMessage as error:
            raise DecodeError(f"{url} does not speak HTTP", code="ws.handshake", why=str(error)[:200]) from error
        except InvalidHandshake as error:
            raise DecodeError(f"{url} is no agentmesh node", code="ws.handshake", why=str(error)[:200]) from error
        except (WebSocketException, ValueError, EOFError) as error:
            raise NoRoute(f"cannot reach {url}", code="unreached.no_route.dial", why=str(error)[:200]) from error
        except ImportError as error:
            raise NoRoute(
                f"the proxy {proxy} needs SOCKS support, which is not installed",
                code="unreached.no_route.proxy",
                hint="pip install python-socks[asyncio]",
            ) from error

    async def _serve(self, socket: ServerConnection) -> None:
        certificate = self._certificate if self._ca is None else self._ca.server
        assert certificate is not None
        remote = ""
        if address := socket.remote_address:
            remote = f"ws:{join_host_port(address[0], address[1])}"
        link = await serve_over(WsTunnel(socket), self._key, certificate, self._inbound, "ws", remote)
        leave: Any = getattr(socket, "leave_gate", None)
        if leave is not None:
            leave()
        if link is not None:
            await link.wait_closed()


def proxy_of_environment(url: str) -> str | None:
    """Return the proxy that the environment names for a WebSocket URL, or None.

    HTTPS_PROXY is asked first (a WebSocket needs CONNECT, which HTTPS proxies grant), then HTTP_PROXY for ``ws:``, then
    ALL_PROXY; NO_PROXY wins over all.
    """
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(f"{parts.hostname}:{parts.port or 443}"):
        return None
    proxies = getproxies()
    names = ("wss", "https", "all") if parts.scheme == "wss" else ("ws", "https", "http", "all")
    return next((proxies[name] for name in names if proxies.get(name)), None)


def _options(open_timeout_s: float = _OPEN_TIMEOUT_S) -> dict[str, Any]:
    """Settings of both sides: our own PING replaces the library's, and sizes are bounded before any proof."""
    return {
        "open_timeout": open_timeout_s,
        "close_timeout": 1.0,
        "ping_interval": None,
        "max_size": _UNIT_BYTES_MAX,
        "max_queue": _QUEUE_MAX,
        "write_limit": _WRITE_HIGH_WATER,
    }


def _gated_connection(inbound: Inbound) -> type[ServerConnection]:
    """Return a connection class that counts strangers from the first TCP byte on, not only after their HTTP request."""
    from websockets.asyncio.server import ServerConnection

    class GatedConnection(ServerConnection):
        _is_in = False

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._is_in = inbound.enter()
            if not self._is_in:
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self.leave_gate()
            super().connection_lost(exc)

        def leave_gate(self) -> None:
            """Stop counting: proven, or gone."""
            if self._is_in:
                self._is_in = False
                inbound.leave()

    return GatedConnection


def _only_mesh_path(connection: ServerConnection, request: Request) -> Response | None:
    if urlsplit(request.path).path.endswith(PATH):
        return None
    return connection.respond(404, "not found\n")


def _outer_context(wss_cert: Path | None) -> ssl.SSLContext | None:
    if wss_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(wss_cert)
    except OSError as error:  # ssl.SSLError is one.
        raise ConfigError(
            f"the wss certificate {wss_cert} cannot be used", code="config.wss_certificate", why=str(error)
        ) from error
    return context


def _envelope_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _public_address(url: str) -> str:
    try:
        return str(parse_address(f"ws:{url}"))
    except UsageError as error:
        raise ConfigError(
            f"{url[:120]!r} is no public WebSocket URL", code="config.public_url", why=error.why, hint="wss://host/mesh"
        ) from error
