"""Links over TLS 1.3 and TCP: the fallback where the iroh engine has no wheel or UDP is blocked.

Both node keys are proven by ``net.handshake`` inside the TLS channel (docs/spec/wire.md §3). Where an organisation's CA admits
nodes, both sides show its certificates before that (``net.tlsca``).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agentmesh.errors import MeshError, StateError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net.addresses import join_host_port, parse_address, parse_bind, reachable_at
from agentmesh.net.base import Link
from agentmesh.net.certificate import check_named_key
from agentmesh.net.handshake import HANDSHAKE_TIMEOUT_S
from agentmesh.net.inbound import Inbound, admit, check_dialable, prove, raise_dial_error
from agentmesh.net.mux import MuxLink
from agentmesh.net.tlspipe import Certificate, TlsPipe, Tunnel, binding_of, client_context, load_certificate

if TYPE_CHECKING:
    from agentmesh.net.tlsca import CaNetwork

#: Bytes the socket may hold unsent before a write waits.
_SOCKET_HIGH_WATER = 512 * 1024
_SOCKET_READ_LIMIT = 512 * 1024
#: Longest that unsent bytes may hold up a close, in seconds.
_CLOSE_TIMEOUT_S = 1.0


class TcpTunnel:
    """A TCP connection as a ``Tunnel``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._closing = False
        writer.transport.set_write_buffer_limits(high=_SOCKET_HIGH_WATER)

    @property
    def remote(self) -> str:
        """``host:port`` of the other end, "" if unknown."""
        name = self._writer.get_extra_info("peername")
        return join_host_port(name[0], name[1]) if name else ""

    async def read(self, bytes_max: int) -> bytes:
        """Return up to ``bytes_max`` bytes, b"" at the end. Raises OSError."""
        return await self._reader.read(bytes_max)

    async def write(self, data: bytes) -> None:
        """Write, waiting for room. Raises OSError."""
        self._writer.write(data)
        await self._writer.drain()

    async def aclose(self) -> None:
        """Close, and give what is unsent a moment."""
        if self._closing:
            return
        self._closing = True
        self._writer.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()
        except OSError:
            pass  # It was broken already, or did not drain in time (TimeoutError is an OSError).
        finally:
            self._writer.transport.abort()


async def dial_over(
    connect: Callable[[], Awaitable[Tunnel]],
    key: KeyPair,
    peer: NodeId,
    scheme: str,
    address: str,
    timeout_s: float,
    ca: CaNetwork | None = None,
) -> MuxLink:
    """Connect a tunnel and build an authenticated link on it, as the client; whatever fails, the tunnel is closed.

    Args:
        connect: Makes the tunnel.
        key: This node's key.
        peer: Who must answer.
        scheme: Of the transport.
        address: For messages.
        timeout_s: For all of it.
        ca: Who admits nodes; None: any node may come.

    Raises:
        SignatureError, NoRoute, Timeout, DecodeError, Unauthorized: as ``net.base.Transport.dial``.
    """
    tunnel: Tunnel | None = None
    link: MuxLink | None = None
    try:
        async with asyncio.timeout(timeout_s):
            tunnel = await connect()
            pipe = TlsPipe(tunnel, client_context() if ca is None else ca.client, server=False)
            await pipe.shake_hands()
            certificate = pipe.certificate
            check_named_key(certificate, peer)
            binding = pipe.binding(binding_of(pipe.server_certificate))
            proven, early = await prove(pipe, "client", key, binding=binding, expected=peer)
            pipe.lift_allowance()
            link = MuxLink(pipe, proven, scheme, dialed=True, remote_address=address, early=early)
            link.certificate = certificate
            return link
    except (OSError, MeshError) as error:
        raise_dial_error(error, address, timeout_s, connected=tunnel is not None)
    finally:
        if link is None and tunnel is not None:
            await tunnel.aclose()


async def serve_over(
    tunnel: Tunnel, key: KeyPair, certificate: Certificate, inbound: Inbound, scheme: str, remote: str
) -> MuxLink | None:
    """Take one unproven tunnel: prove its client and offer the link, or close it; None if it failed.

    The caller has entered the gate (``Inbound.enter``) and leaves it afterwards.
    """
    pipe = TlsPipe(tunnel, certificate.context, server=True)

    def make_link(peer: NodeId, early: bytes) -> MuxLink:
        shown = pipe.certificate
        check_named_key(shown, peer)
        pipe.lift_allowance()
        link = MuxLink(pipe, peer, scheme, dialed=False, remote_address=remote, early=early)
        link.certificate = shown
        return link

    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            await pipe.shake_hands()
    except (OSError, MeshError) as error:
        inbound.note_refused(remote, error)
        await pipe.aclose()
        return None
    except asyncio.CancelledError:
        await pipe.aclose()
        raise
    return await admit(inbound, pipe, key, remote, make_link, pipe.binding(certificate.binding))


def bind_error(error: OSError, bind: str) -> MeshError:
    """Explain why listening failed."""
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
        taken = error.errno == errno.EADDRINUSE
        return StateError(
            f"{bind} is in use by another program" if taken else f"listening on {bind} is not permitted",
            code="port.taken",
            hint="choose another port; port 0 takes any free one",
        )
    return StateError(f"cannot listen on {bind}", code="port.unusable", why=str(error))


class TlsTransport:
    """Reach nodes by TLS 1.3 over TCP (``net.base.Transport``).

    Args:
        key: This node's key.
        bind: Where to listen, ``host:port``; port 0 for any free one, "" to only dial.
        cert_path: PEM file of the self-signed certificate, made if missing; None for one that lives in this process.
        ca: The organisation's CA that admits nodes, whose certificates are shown instead; None: any node may come.
    """

    def __init__(
        self, key: KeyPair, bind: str = "0.0.0.0:0", cert_path: Path | None = None, ca: CaNetwork | None = None
    ) -> None:
        self._key = key
        self._bind = bind
        self._cert_path = cert_path
        self._ca = ca
        self._inbound = Inbound("tls")
        self._server: asyncio.Server | None = None
        self._certificate: Certificate | None = None
        self._addresses: tuple[str, ...] = ()
        self._is_open = False

    @property
    def scheme(self) -> str:
        """ "tls"."""
        return "tls"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled."""
        return self._addresses

    @property
    def refused(self) -> int:
        """Connections that failed to prove a key, or were one too many."""
        return self._inbound.refused

    async def open(self) -> None:
        """Listen. Raises StateError (codes "port.taken", "port.unusable"), ConfigError for a bad certificate file."""
        if self._bind:
            host, port = parse_bind(self._bind)
            if self._ca is None:
                self._certificate = load_certificate(self._cert_path)
            try:
                self._server = await asyncio.start_server(
                    self._on_connection, host, port, limit=_SOCKET_READ_LIMIT, backlog=128
                )
            except OSError as error:
                raise bind_error(error, self._bind) from error
            bound = self._server.sockets[0].getsockname()[1]
            self._addresses = tuple(f"tls:{join_host_port(h, p)}" for h, p in reachable_at(host, bound))
        self._is_open = True

    async def dial(self, peer: NodeId, address: str, timeout_s: float = 10.0) -> Link:
        """Connect and prove both keys (see ``net.base.Transport.dial``)."""
        check_dialable(self._inbound, self._key, peer, not self._is_open)
        target = parse_address(address)

        async def connect() -> Tunnel:
            return TcpTunnel(*await asyncio.open_connection(target.host, target.port, limit=_SOCKET_READ_LIMIT))

        link = await dial_over(connect, self._key, peer, "tls", address, timeout_s, self._ca)
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
            self._server.close()
        await self._inbound.aclose()

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._inbound.enter():
            writer.transport.abort()
            return
        self._inbound.scope.spawn(self._serve(TcpTunnel(reader, writer)), "serve")

    async def _serve(self, tunnel: TcpTunnel) -> None:
        certificate = self._certificate if self._ca is None else self._ca.server
        assert certificate is not None
        try:
            remote = f"tls:{tunnel.remote}"
            await serve_over(tunnel, self._key, certificate, self._inbound, "tls", remote)
        finally:
            self._inbound.leave()
