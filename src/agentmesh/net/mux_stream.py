"""What the multiplexer keeps per stream, the bounds of a link, and the events it reports (see ``net.mux_core``)."""

from __future__ import annotations

from collections import deque
from typing import Any, Literal, NamedTuple

from agentmesh.net.base import MESSAGE_BYTES_MAX

#: Credit a fragment costs beyond its length: what holding it costs in memory, so that empty messages are not free.
FRAGMENT_COST = 64
#: Credit each side starts with per stream and direction. A constant of protocol version 1.
WINDOW_BYTES = 2 * 1024 * 1024

EventKind = Literal["opened", "message", "finished", "reset", "pong", "goaway"]


class Limits(NamedTuple):
    """Bounds of one link.

    Attributes:
        streams_max: Streams open at once per direction of opening. A constant of protocol version 1, lowered in tests.
        buffer_bytes_max: Bytes received and not yet consumed, over all open streams; the stream that overruns it is
            reset. Room for three of the largest messages and many small ones (a guess; raise it for fast links with
            slow readers).
        message_bytes_max: Largest message in bytes.
    """

    streams_max: int = 1024
    buffer_bytes_max: int = 64 * 1024 * 1024
    message_bytes_max: int = MESSAGE_BYTES_MAX


class Event(NamedTuple):
    """What happened: ``value`` is the reset code, the PONG nonce or the GOAWAY reason."""

    kind: EventKind
    stream: CoreStream | None = None
    value: int | str = 0


class CoreStream:
    """State of one stream. Read by the shell, changed only by MuxCore, but for ``user``, which is the shell's own."""

    __slots__ = (
        "counted",
        "fin_received",
        "fin_sent",
        "grant",
        "held",
        "id",
        "inbox",
        "out",
        "out_at",
        "parts",
        "parts_bytes",
        "parts_unpaid",
        "queued",
        "recv_credit",
        "reset_code",
        "send_credit",
        "user",
        "waiting",
    )

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.user: Any = None
        #: Complete messages with the credit they still owe the peer.
        self.inbox: deque[tuple[bytes, int]] = deque()
        self.fin_sent = False
        self.fin_received = False
        #: Set once either side has reset the stream.
        self.reset_code: int | None = None
        #: Bytes received and not consumed, and whether they count against the link (while the stream is open).
        self.held = 0
        self.counted = True
        self.send_credit = WINDOW_BYTES
        self.recv_credit = WINDOW_BYTES
        self.grant = 0
        self.waiting = False
        self.parts: list[bytes] = []
        self.parts_bytes = 0
        self.parts_unpaid = 0
        self.out: memoryview | None = None
        self.out_at = 0
        self.queued = False

    @property
    def is_sending(self) -> bool:
        """Whether a message is on its way out."""
        return self.out is not None
