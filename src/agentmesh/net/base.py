"""The contract of every transport: bytes in, bytes out, both ends proven by their Ed25519 key.

    Transport ── dial/accept ──► Link ── open_stream/accept_stream ──► Stream
                                   └── send_datagram/recv_datagram (where the engine has them)

A Stream carries whole messages in order. ``send`` waits while the peer has not granted room, so a slow reader slows only
its own writer. One contract suite (``tests/contract/test_transport.py``) runs on every implementation.
Addresses are texts with the scheme first: ``iroh:192.0.2.7:6374``, ``tls:192.0.2.7:6375``, ``ws:wss://host/mesh``,
``memory:name``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from agentmesh.ids import NodeId
from agentmesh.net.certificate import PeerCertificate

#: Largest message a stream carries, in bytes. Senders split, receivers refuse what is larger.
MESSAGE_BYTES_MAX = 16 * 1024 * 1024

PathKind = Literal["local", "direct", "relayed"]


class Contact(NamedTuple):
    """A node and where it might be reached; addresses are hints, the key decides."""

    node_id: NodeId
    addresses: tuple[str, ...]


class Traffic:
    """Bytes that went over links, before encryption; several links may count into one.

    Attributes:
        sent, received: Bytes so far.
    """

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.sent = self.received = 0


class Stream(Protocol):
    """One request stream: whole messages, both directions, ordered."""

    async def send(self, message: bytes) -> None:
        """Send one message, waiting for room.

        Raises:
            LimitError: message larger than MESSAGE_BYTES_MAX. Nothing was sent.
            Closed: the stream was reset by the peer, or the link is gone.
        """
        ...

    async def recv(self) -> bytes | None:
        """Return the next message, or None after the peer finished cleanly.

        Raises:
            Closed: the stream was reset, or the link is gone.
            DecodeError: the peer broke framing; the link is closed.
        """
        ...

    async def finish(self) -> None:
        """Say that nothing more will be sent; receiving goes on. Idempotent."""
        ...

    def reset(self, code: int = 0) -> None:
        """Give the stream up in both directions at once; the peer's calls raise Closed. Idempotent."""
        ...


class Link(Protocol):
    """One authenticated connection to a peer."""

    @property
    def peer(self) -> NodeId:
        """The peer's id, proven by its key."""
        ...

    @property
    def scheme(self) -> str:
        """ "iroh", "tls", "ws" or "memory"."""
        ...

    @property
    def path(self) -> PathKind:
        """Whether bytes go straight to the peer or through a relay."""
        ...

    @property
    def remote_address(self) -> str:
        """Where the peer is seen, with its scheme; "" if unknown."""
        ...

    @property
    def dialed(self) -> bool:
        """True on the side that dialled."""
        ...

    @property
    def certificate(self) -> PeerCertificate | None:
        """By which an organisation's CA admitted the peer; None where certificates are not judged."""
        ...

    @property
    def rtt_s(self) -> float | None:
        """Last measured round trip in seconds."""
        ...

    @property
    def datagram_bytes_max(self) -> int:
        """Largest datagram in bytes; 0 where the engine has none."""
        ...

    @property
    def is_closed(self) -> bool:
        """True once the link is gone."""
        ...

    def tally(self, traffic: Traffic) -> None:
        """Count what went over the link so far, and all that will, into ``traffic``. Call it once."""
        ...

    async def open_stream(self) -> Stream:
        """Open a request stream. Raises Closed, or Busy when the peer's stream limit is reached."""
        ...

    async def accept_stream(self) -> Stream:
        """Wait for the peer's next stream. Raises Closed."""
        ...

    def send_datagram(self, payload: bytes) -> None:
        """Send one unreliable datagram. Raises LimitError when too large or unsupported, Closed when gone."""
        ...

    async def recv_datagram(self) -> bytes:
        """Wait for a datagram. Raises Closed."""
        ...

    async def wait_closed(self) -> str:
        """Wait until the link is gone and return the reason."""
        ...

    async def aclose(self, reason: str = "") -> None:
        """Close the link and all its streams. Idempotent."""
        ...


class Transport(Protocol):
    """A way to reach nodes and be reached."""

    @property
    def scheme(self) -> str:
        """The scheme of its addresses."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled, most useful first; empty before ``open``."""
        ...

    async def open(self) -> None:
        """Bind and begin to accept.

        Raises:
            NoRoute: the engine is missing on this platform (code "transport.unavailable").
            StateError: the port is taken (code "port.taken").
        """
        ...

    async def dial(self, peer: NodeId, address: str, timeout_s: float = 10.0) -> Link:
        """Connect and prove both keys.

        Raises:
            SignatureError: another key answered than dialled. The connection was closed.
            NoRoute: nothing answered there.
            Timeout: no answer in time.
            DecodeError: what answered does not speak our protocol.
            Unauthorized: it admits only nodes with a certificate of its organisation's CA, and ours is none.
        """
        ...

    async def accept(self) -> Link:
        """Wait for the next authenticated inbound link; failed handshakes never surface here. Raises Closed."""
        ...

    async def aclose(self) -> None:
        """Stop accepting and close every link. Idempotent."""
        ...
