"""The transport without a network: nodes of one process meet at a hub. For tests and for embedding several nodes.

It runs the same multiplexer, and the same handshake with an empty channel binding, over two bounded byte queues.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from agentmesh.errors import Closed, LimitError, MeshError, NoRoute, StateError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net.addresses import parse_address
from agentmesh.net.base import Link, PathKind
from agentmesh.net.inbound import Inbound, admit, check_dialable, prove, raise_dial_error
from agentmesh.net.mux import MuxLink

#: Bytes under way in one direction before the writer waits.
_PIPE_BYTES_MAX = 256 * 1024
#: Like a datagram that fits every real path.
_DATAGRAM_BYTES_MAX = 1200
_DATAGRAMS_MAX = 256


class _Flow:
    """One direction of a pipe: bounded bytes, and datagrams of which the newest are dropped when nobody reads."""

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self.size = 0
        self.closed = False
        self.changed = asyncio.Event()
        self.datagrams: asyncio.Queue[bytes] = asyncio.Queue(_DATAGRAMS_MAX)

    def close(self) -> None:
        self.closed = True
        self.changed.set()


class MemoryPipe:
    """One end of an in-process byte pipe (``net.mux.Pipe``)."""

    def __init__(self, inward: _Flow, outward: _Flow) -> None:
        self.inward = inward
        self.outward = outward

    @classmethod
    def pair(cls) -> tuple[MemoryPipe, MemoryPipe]:
        """Return both ends of a new pipe."""
        one, two = _Flow(), _Flow()
        return cls(one, two), cls(two, one)

    async def read(self) -> bytes:
        """Return what has arrived, or b"" once the other end is closed and everything was read."""
        flow = self.inward
        while not flow.pieces:
            if flow.closed:
                return b""
            flow.changed.clear()
            await flow.changed.wait()
        data = flow.pieces[0] if len(flow.pieces) == 1 else b"".join(flow.pieces)
        flow.pieces.clear()
        flow.size = 0
        flow.changed.set()
        return data

    async def write(self, data: bytes) -> None:
        """Hand the bytes over, waiting while too many are unread. Raises Closed."""
        flow = self.outward
        while flow.size >= _PIPE_BYTES_MAX and not flow.closed:
            flow.changed.clear()
            await flow.changed.wait()
        if flow.closed:
            raise Closed("the other end of the pipe is closed", code="unreached.closed.pipe")
        flow.pieces.append(data)
        flow.size += len(data)
        flow.changed.set()

    async def aclose(self) -> None:
        """Close both directions; what is under way can still be read."""
        self.inward.close()
        self.outward.close()


class MemoryLink(MuxLink):
    """A link inside one process, with datagrams."""

    _pipe: MemoryPipe

    @property
    def path(self) -> PathKind:
        """Always "local"."""
        return "local"

    @property
    def datagram_bytes_max(self) -> int:
        """1200 bytes."""
        return _DATAGRAM_BYTES_MAX

    def send_datagram(self, payload: bytes) -> None:
        """Send one datagram; dropped when the receiver's queue is full. Raises LimitError, Closed."""
        self.check_open()
        if len(payload) > _DATAGRAM_BYTES_MAX:
            raise LimitError(
                f"a datagram of {len(payload)} bytes, at most {_DATAGRAM_BYTES_MAX} fit", code="limit.datagram_bytes"
            )
        with suppress(asyncio.QueueFull):
            self._pipe.outward.datagrams.put_nowait(payload)

    async def recv_datagram(self) -> bytes:
        """Wait for a datagram. Raises Closed."""
        return await self.until_closed(self._pipe.inward.datagrams.get())


class MemoryHub:
    """Where the memory transports of one process find each other by name."""

    def __init__(self) -> None:
        self.transports: dict[str, MemoryTransport] = {}


class MemoryTransport:
    """Reach other transports of the same hub (``net.base.Transport``).

    Args:
        key: This node's key.
        name: Its name in the hub: the address is ``memory:<name>``.
        hub: The meeting place.
    """

    def __init__(self, key: KeyPair, name: str, hub: MemoryHub) -> None:
        self._key = key
        self._name = name
        self._hub = hub
        self._inbound = Inbound("memory")
        self._is_open = False

    @property
    def scheme(self) -> str:
        """ "memory"."""
        return "memory"

    @property
    def addresses(self) -> tuple[str, ...]:
        """One address, once open."""
        return (f"memory:{self._name}",) if self._is_open else ()

    async def open(self) -> None:
        """Take the name. Raises StateError if it is taken (code "port.taken")."""
        if self._name in self._hub.transports:
            raise StateError(f"the name {self._name!r} is taken in this hub", code="port.taken")
        self._hub.transports[self._name] = self
        self._is_open = True

    async def dial(self, peer: NodeId, address: str, timeout_s: float = 10.0) -> Link:
        """Connect and prove both keys (see ``net.base.Transport.dial``)."""
        check_dialable(self._inbound, self._key, peer, not self._is_open)
        name = parse_address(address).host
        other = self._hub.transports.get(name)
        if other is None:
            raise NoRoute(f"nothing answers at {address}", code="unreached.no_route.dial")
        near, far = MemoryPipe.pair()
        if not other.serve(far):
            await near.aclose()
        try:
            async with asyncio.timeout(timeout_s):
                proven, early = await prove(near, "client", self._key, expected=peer)
        except (OSError, MeshError) as error:
            await near.aclose()
            raise_dial_error(error, address, timeout_s)
        except asyncio.CancelledError:
            await near.aclose()
            raise
        link = MemoryLink(near, proven, "memory", dialed=True, remote_address=address, early=early)
        self._inbound.keep(link)
        return link

    def serve(self, pipe: MemoryPipe) -> bool:
        """Take an unproven connection; False if there are too many. Raw bytes may be written to its other end."""
        if not self._inbound.enter():
            return False
        self._inbound.scope.spawn(self._admit(pipe), "admit")
        return True

    async def accept(self) -> Link:
        """Wait for the next inbound link. Raises Closed."""
        return await self._inbound.accept()

    async def aclose(self) -> None:
        """Give the name back and close every link."""
        if self._is_open:
            self._is_open = False
            del self._hub.transports[self._name]
        await self._inbound.aclose()

    async def _admit(self, pipe: MemoryPipe) -> None:
        def make_link(peer: NodeId, early: bytes) -> MuxLink:
            return MemoryLink(pipe, peer, "memory", dialed=False, early=early)

        try:
            await admit(self._inbound, pipe, self._key, "memory", make_link, b"")
        finally:
            self._inbound.leave()
