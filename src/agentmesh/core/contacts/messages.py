"""What the contacts machine tells the node (docs/spec/contacts.md). It sends nothing itself."""

from __future__ import annotations

import msgspec

from agentmesh.ids import NodeId


class DialWanted(msgspec.Struct, frozen=True):
    """A link to this node is wanted; try the addresses in this order. A ``PeerUp`` answers; silence means it failed.

    The machine asks again by itself, later and later, until the peer is up or the contact is forgotten.
    """

    node_id: NodeId
    addresses: tuple[str, ...]


class HangUp(msgspec.Struct, frozen=True):
    """The link to this node is needed by nobody and others need the room: close it unless a call runs over it."""

    node_id: NodeId


class StoreContact(msgspec.Struct, frozen=True):
    """Keep for the next start how a node was reached; a record (``Outbox.store``), written when a link comes up."""

    node_id: NodeId
    addresses: tuple[str, ...]


class ForgetContact(msgspec.Struct, frozen=True):
    """Remove a node from what is kept for the next start; a record (``Outbox.store``)."""

    node_id: NodeId


class ClockSkew(msgspec.Struct, frozen=True):
    """A peer's wall clock differs from ours by more than the allowance; emitted when that begins and when it ends.

    Attributes:
        peer: Whose clock.
        skew_s: Its clock minus ours, seconds, ± the round trip; 0.0 when the clocks agree again.
    """

    peer: NodeId
    skew_s: float


class CutOff(msgspec.Struct, frozen=True):
    """How much of the mesh this node lost touch with.

    Nobody can tell a cut network from machines that died at once; this says what is known.

    Attributes:
        lost: Nodes that this one was in touch with and that neither answer nor said that they leave.
        known: Those, and the ones in touch now.
        since_s: Monotonic seconds when the first of them was lost.
        isolated: No node is in touch at all.
    """

    lost: int
    known: int
    since_s: float
    isolated: bool
