"""What the courier is told and what it tells (docs/spec/courier.md §3). None of this crosses the wire.

Lists that are handed over belong to the courier from then on.
"""

from __future__ import annotations

import msgspec

from agentmesh.core.courier.messages import Letter, Parcel
from agentmesh.ids import NodeId

#: A window of so many letters is none.
WINDOW_OPEN = 1 << 20

# Inputs


class SessionUp(msgspec.Struct, frozen=True):
    """Input: both halves of the handshake are done; ``peer`` is the node at the other end."""

    session: int
    peer: NodeId


class SessionDown(msgspec.Struct, frozen=True):
    """Input: the session is over. What it still had comes back as ``Returned`` with this reason."""

    session: int
    reason: str


class PathUp(msgspec.Struct, frozen=True):
    """Input: parcels can be sent to that node."""

    peer: NodeId


class PathDown(msgspec.Struct, frozen=True):
    """Input: they can't; what was on its way may or may not have arrived."""

    peer: NodeId


class Room(msgspec.Struct, frozen=True, gc=False):
    """Input: the path takes so many bytes now; the answer to ``Ready``."""

    peer: NodeId
    bytes: int


class Item(msgspec.Struct, gc=False):
    """One message to be sent. The fields below the first seven are the courier's notes.

    Attributes:
        tag: By which the driver knows it, unique among what it has submitted.
        conversation: Items of one conversation of a session are delivered in the order of submission.
        lane: Priority, 0 … 3.
        expires_s: Monotonic time at which it is given up.
        body: The encoded message.
        again: It was returned by an earlier session, which may have delivered it.
        acked: False = at most once: sent once while a path is there, never repeated.
        via: Lane on which it waits.
        seq, after: As in its letter; 0 until it is sent.
        sent_s: When its last copy went.
        tries: Copies sent.
        due: It waits to be repeated.
        gone: It was given up; its number has still to be told.
    """

    tag: int
    conversation: str
    lane: int
    expires_s: float
    body: bytes
    again: bool = False
    acked: bool = True
    via: int = 0
    seq: int = 0
    after: int = 0
    sent_s: float = 0.0
    tries: int = 0
    due: bool = False
    gone: bool = False


class Submit(msgspec.Struct, frozen=True):
    """Input: send these, in this order within each conversation. What finds no room comes back at once (``Returned``)."""

    session: int
    items: list[Item]


class Arrived(msgspec.Struct, frozen=True):
    """Input: a parcel from that node, its bodies opened by the driver: a letter that did not open must not be in it."""

    peer: NodeId
    parcel: Parcel


class Taken(msgspec.Struct, frozen=True):
    """Input: the node keeps these delivered letters or has handed them over; they are acknowledged. Any order, each once."""

    session: int
    seqs: list[int]


class Window(msgspec.Struct, frozen=True):
    """Input: of what is delivered from now on, the recipient takes so much and no more, until it says so again; 0 closes.

    Before the first one, and after one for ``WINDOW_OPEN`` letters or more (in bytes, too), only the courier's own window counts:
    ``CourierConfig.window_letters`` beyond what was taken. What was allowed once is not taken back: letters that the peer may
    have sent already still come.
    """

    session: int
    letters: int
    bytes: int


# Events


class Ready(msgspec.Struct, frozen=True):
    """Event: something waits for ``Room`` on that path; not told again before there was some."""

    peer: NodeId


class Deliver(msgspec.Struct, frozen=True):
    """Event: letters of a session, each once, in order within every conversation. Answer with ``Taken``."""

    session: int
    letters: list[Letter]


class Delivered(msgspec.Struct, frozen=True):
    """Event: the other node has these."""

    session: int
    tags: list[int]


class Expired(msgspec.Struct, frozen=True):
    """Event: these were given up; one that was sent may have arrived, but nobody said so in time."""

    session: int
    tags: list[int]


class Returned(msgspec.Struct, frozen=True):
    """Event: these are no longer the courier's, in order within every conversation.

    Attributes:
        session: Of which.
        tags: Which.
        reason: "full": no room; never sent · "no_session": never sent · "no_path": at most once, and no path; never sent ·
            "lost": at most once, and not acknowledged in time · else that of ``SessionDown``; may have arrived.
    """

    session: int
    tags: list[int]
    reason: str


class Blocked(msgspec.Struct, frozen=True):
    """Event: something waits, but the other side takes no more for now."""

    session: int


class Unblocked(msgspec.Struct, frozen=True):
    """Event: it takes more."""

    session: int


class Idle(msgspec.Struct, frozen=True):
    """Event: nothing was sent or came for ``CourierConfig.idle_s``, and nothing waits; told once."""

    session: int


class Refused(msgspec.Struct, frozen=True):
    """Event: ``SessionUp`` was one too many, for this node or for that path."""

    session: int
    reason: str
