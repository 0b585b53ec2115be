"""Links over iroh: QUIC between keys. The default transport.

The engine proves both node keys by itself: the endpoint id is the node's public key. Each link is one QUIC connection
with one long-lived stream that carries the multiplexer (adr/0001: a QUIC stream per request costs twice as much through the
Python binding), and QUIC datagrams. Always the minimal preset: no relay, no publishing, no lookup at third parties.

The engine is loaded in ``open``: it costs some 15 MB, and its wheel does not exist for every platform.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
from contextlib import suppress
from typing import Any

from agentmesh.errors import Closed, DecodeError, LimitError, MeshError, NoRoute, SignatureError, StateError, Timeout
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId, node_id, public_key_of, short
from agentmesh.net import iroh_shim
from agentmesh.net.addresses import join_host_port, parse_address, parse_bind, reachable_at
from agentmesh.net.base import Link, PathKind
from agentmesh.net.handshake import HANDSHAKE_TIMEOUT_S
from agentmesh.net.inbound import Inbound, check_dialable
from agentmesh.net.mux import MuxLink

ALPN = b"agentmesh/1"
#: Bytes asked of the engine per read: small while little comes, since it prepares a buffer of that size each time.
_READ_BYTES_MIN, _READ_BYTES_MAX = 32 * 1024, 512 * 1024
#: Longest an endpoint may take to close, in seconds.
_CLOSE_TIMEOUT_S = 2.0
_PATHS_LIFE_S = 1.0


def load_engine() -> Any:
    """Import iroh and prepare it.

    Raises:
        NoRoute: no wheel for this platform (code "transport.unavailable").
    """
    try:
        iroh: Any = importlib.import_module("iroh")
        generated = importlib.import_module("iroh.iroh_ffi")
    except (ImportError, OSError) as error:  # OSError: the shared library does not load here.
        raise NoRoute(
            "the iroh engine is not available on this platform",
            code="transport.unavailable",
            why=str(error),
            hint="the TLS and WebSocket transports work without it",
        ) from error
    iroh_shim.install(generated)
    return iroh


class _IrohPipe:
    """The one bidirectional QUIC stream of a link (``net.mux.Pipe``)."""

    def __init__(self, iroh: Any, connection: Any, stream: Any) -> None:
        self.engine_error: type[Exception] = iroh.IrohError
        self.connection: Any = connection
        self._sender: Any = stream.send()
        self._receiver: Any = stream.recv()
        self._read_bytes = _READ_BYTES_MIN

    async def read(self) -> bytes:
        """Return some bytes, b"" at the end. Raises Closed."""
        try:
            data: bytes = await self._receiver.read(self._read_bytes)
        except self.engine_error as error:
            raise Closed(_reason(error), code="unreached.closed.iroh") from error
        if len(data) == self._read_bytes:
            self._read_bytes = min(self._read_bytes * 2, _READ_BYTES_MAX)
        elif len(data) < self._read_bytes // 4:
            self._read_bytes = max(self._read_bytes // 2, _READ_BYTES_MIN)
        return data

    async def write(self, data: bytes) -> None:
        """Write all, waiting for room. Raises Closed."""
        try:
            await self._sender.write_all(data)
        except self.engine_error as error:
            raise Closed(_reason(error), code="unreached.closed.iroh") from error

    async def aclose(self) -> None:
        """Close the connection and let go of the engine's objects: it keeps its sockets while Python holds any of them."""
        connection = self.connection
        if connection is not None:
            self.connection = self._sender = self._receiver = None
            with suppress(self.engine_error):
                connection.close(0, b"")


class IrohLink(MuxLink):
    """A link on a QUIC connection, with datagrams."""

    _pipe: _IrohPipe
    _paths: list[Any] = []  # noqa: RUF012 replaced, never changed in place
    _paths_until_s = 0.0

    @property
    def path(self) -> PathKind:
        """ "relayed" while the selected path goes through a relay."""
        return "relayed" if any(p.is_relay for p in self._selected_paths()) else "direct"

    @property
    def remote_address(self) -> str:
        """Where the peer is seen on the selected path."""
        for path in self._selected_paths():
            return f"iroh:{path.remote_addr}"
        return self._remote_address

    @property
    def datagram_bytes_max(self) -> int:
        """Largest datagram that the path carries now, in bytes."""
        if self.is_closed:
            return 0
        return self._pipe.connection.max_datagram_size() or 0

    def send_datagram(self, payload: bytes) -> None:
        """Send one unreliable datagram. Raises LimitError, Closed."""
        self.check_open()
        if len(payload) > (most := self.datagram_bytes_max):
            raise LimitError(f"a datagram of {len(payload)} bytes, at most {most} fit", code="limit.datagram_bytes")
        try:
            self._pipe.connection.send_datagram(payload)
        except self._pipe.engine_error as error:
            raise Closed(_reason(error), code="unreached.closed.iroh") from error

    async def recv_datagram(self) -> bytes:
        """Wait for a datagram. Raises Closed."""
        self.check_open()
        payload = await self.until_closed(self._next_datagram())
        if payload is None:
            await self.wait_closed()
            raise self._gone()
        return payload

    async def _next_datagram(self) -> bytes | None:
        try:
            return await self._pipe.connection.read_datagram()
        except self._pipe.engine_error:
            return None  # The connection is gone; the reader finds out why.

    def _selected_paths(self) -> list[Any]:
        """Return the paths in use, at most a second old: asking the engine costs 80 µs, and every call asks."""
        if self.is_closed:
            return []
        now_s = self.loop.time()
        if now_s >= self._paths_until_s:
            self._paths = [p for p in self._pipe.connection.paths() if p.is_selected]
            self._paths_until_s = now_s + _PATHS_LIFE_S
        return self._paths


class IrohTransport:
    """Reach nodes by key over QUIC (``net.base.Transport``).

    Args:
        key: This node's key; its seed becomes the endpoint's secret key.
        bind: Where to listen (UDP), ``host:port``; port 0 for any free one; "" to only dial (the engine
            then has a socket, but answers nobody). The engine also opens a socket of its own on the other IP family.
        relays: URLs of iroh relays to be reachable through; none by default.
    """

    def __init__(self, key: KeyPair, bind: str = "0.0.0.0:0", relays: tuple[str, ...] = ()) -> None:
        self._key = key
        self._bind = bind
        self._relays = relays
        self._inbound = Inbound("iroh")
        self._iroh: Any = None
        self._endpoint: Any = None
        self._addresses: tuple[str, ...] = ()

    @property
    def scheme(self) -> str:
        """ "iroh"."""
        return "iroh"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled: LAN addresses, then relays."""
        return self._addresses

    @property
    def refused(self) -> int:
        """Connections that failed to prove a key, or were one too many."""
        return self._inbound.refused

    async def open(self) -> None:
        """Load the engine, bind, and begin to accept.

        Raises:
            NoRoute: no engine here (code "transport.unavailable").
            StateError: the port is taken (code "port.taken").
        """
        iroh = self._iroh = load_engine()
        iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())
        host, port = parse_bind(self._bind or "0.0.0.0:0")
        relay_mode = iroh.RelayMode.custom_from_urls(list(self._relays)) if self._relays else iroh.RelayMode.disabled()
        options = iroh.EndpointOptions(
            preset=iroh.preset_minimal(),
            relay_mode=relay_mode,
            bind_addr=join_host_port(host, port),
            secret_key=self._key.seed,
            alpns=[ALPN] if self._bind else [],
        )
        try:
            self._endpoint = await iroh.Endpoint.bind(options)
        except iroh.IrohError as error:
            text = _reason(error)
            taken = "in use" in text
            raise StateError(
                f"{self._bind} is in use by another program" if taken else f"cannot listen on {self._bind}",
                code="port.taken" if taken else "port.unusable",
                why=text,
                hint="choose another port; port 0 takes any free one",
            ) from error
        if self._endpoint.id().to_bytes() != self._key.public:
            await self._endpoint.close()
            self._endpoint = None
            raise NoRoute(
                "the iroh engine derives another id from this node's key",
                code="transport.unavailable",
                hint="this build of iroh does not fit; use the TLS transport",
            )
        if self._bind:
            bound = int(self._endpoint.bound_sockets()[0].rpartition(":")[2])
            direct = tuple(f"iroh:{join_host_port(h, p)}" for h, p in reachable_at(host, bound))
            self._addresses = direct + tuple(f"iroh:{url}" for url in self._relays)
            self._inbound.scope.spawn(self._accept_connections(), "accept")

    async def dial(self, peer: NodeId, address: str, timeout_s: float = 10.0) -> Link:
        """Connect by key (see ``net.base.Transport.dial``). The engine may use addresses it learned before, too."""
        check_dialable(self._inbound, self._key, peer, self._endpoint is None)
        target = parse_address(address)
        connection: Any = None
        try:
            async with asyncio.timeout(timeout_s):
                places = [] if target.url else await _resolve(target.host, target.port)
                endpoint_id = self._iroh.EndpointId.from_bytes(public_key_of(peer))
                remote = self._iroh.EndpointAddr(endpoint_id, target.url or None, places)
                connection = await self._endpoint.connect(remote, ALPN)
                stream = await connection.open_bi()
                link = self._link(connection, stream, dialed=True, address=address)
        except TimeoutError as error:
            _close(connection)
            raise Timeout(f"{address} did not answer within {timeout_s:g} s", code="unreached.timeout.dial") from error
        except asyncio.CancelledError:
            _close(connection)
            raise
        except OSError as error:
            raise NoRoute(f"nothing answers at {address}", code="unreached.no_route.dial", why=str(error)) from error
        except self._iroh.IrohError as error:
            _close(connection)
            raise _dial_error(_reason(error), peer, address) from error
        return self._inbound.keep(link)

    async def accept(self) -> Link:
        """Wait for the next inbound link. Raises Closed."""
        return await self._inbound.accept()

    async def aclose(self) -> None:
        """Stop accepting, close every link and the endpoint."""
        self._addresses = ()
        await self._inbound.aclose()
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            with suppress(TimeoutError, self._iroh.IrohError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await endpoint.close()

    def _link(self, connection: Any, stream: Any, *, dialed: bool, address: str) -> IrohLink:
        # Everything runs on the one stream; a peer that opens more wants to make us hold them.
        connection.set_max_concurrent_bi_streams(0 if dialed else 1)
        connection.set_max_concurrent_uni_streams(0)
        peer = node_id(connection.remote_id().to_bytes())
        pipe = _IrohPipe(self._iroh, connection, stream)
        return IrohLink(pipe, peer, "iroh", dialed=dialed, remote_address=address)

    async def _accept_connections(self) -> None:
        endpoint = self._endpoint
        while (incoming := await endpoint.accept_next()) is not None:
            if self._inbound.enter():
                self._inbound.scope.spawn(self._admit(incoming), "admit")
            else:
                with suppress(self._iroh.IrohError):
                    await incoming.refuse()

    async def _admit(self, incoming: Any) -> None:
        connection: Any = None
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                connection = await (await incoming.accept()).connect()
                stream = await connection.accept_bi()
            self._inbound.offer(self._link(connection, stream, dialed=False, address=""))
        except (TimeoutError, MeshError, self._iroh.IrohError) as error:
            _close(connection)
            self._inbound.note_refused("iroh", error)
        finally:
            self._inbound.leave()


async def _resolve(host: str, port: int) -> list[str]:
    """Return ``ip:port`` of a host, since the engine takes no names. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys(join_host_port(str(entry[4][0]), port) for entry in found))


def _close(connection: Any) -> None:
    if connection is not None:
        connection.close(0, b"")


def _reason(error: Any) -> str:
    """Return the innermost line of an engine error, without its source positions."""
    text: str = error.message() if hasattr(error, "message") else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "iroh error")[:300]


def _dial_error(reason: str, peer: NodeId, address: str) -> MeshError:
    """Name what the engine's text says; the engine itself has one kind for all of it."""
    if "invalid peer certificate" in reason or "UnknownIssuer" in reason:
        return SignatureError(
            f"dialled {short(peer)} but another key answered at {address}",
            code="handshake.wrong_peer",
            why="another node has that address now, or someone is in between",
            hint="agentmesh status   on the other machine prints its node id and addresses",
        )
    if "known protocol" in reason:
        return DecodeError(f"{address} does not speak agentmesh/1", code="iroh.alpn", why=reason)
    if "timed out" in reason:
        return Timeout(f"{address} did not answer", code="unreached.timeout.dial", why=reason)
    return NoRoute(f"nothing answers at {address}", code="unreached.no_route.dial", why=reason)
