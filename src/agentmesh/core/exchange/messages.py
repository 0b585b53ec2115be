"""What peer exchange sends between nodes and tells the node (docs/spec/exchange.md §2; tags are listed in ``wire.v1``)."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from agentmesh.ids import NodeId


class PeerHint(msgspec.Struct, array_like=True):
    """A node the sender is connected to and where it can be dialled."""

    node_id: str
    addresses: list[str]


class Peers(msgspec.Struct, tag="peers", kw_only=True):
    """Peer exchange: nodes the sender knows, connected ones first; hints, never trust."""

    peers: list[PeerHint]


class Ping(msgspec.Struct, tag="ping", kw_only=True):
    """Ask for a ``Pong`` with the same nonce."""

    nonce: int


class Pong(msgspec.Struct, tag="pong", kw_only=True):
    """Answer to ``Ping``, with the sender's wall clock."""

    nonce: int
    clock_ms: int = 0


class Bye(msgspec.Struct, tag="bye", kw_only=True):
    """The sender leaves on purpose."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class DialWanted:
    """A link to this node is wanted; try the addresses in this order. A ``PeerUp`` answers; silence means it failed.

    The machine asks again by itself, later and later, until the peer is up or the contact is forgotten.
    """

    node_id: NodeId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoreContact:
    """Keep for the next start how a node was reached; a record (``Outbox.store``), written when a link comes up."""

    node_id: NodeId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeerSilent:
    """Nothing was heard from a connected peer for ``silent_after_s``, pings included: close its link."""

    peer: NodeId


@dataclass(frozen=True, slots=True)
class ClockSkew:
    """A peer's wall clock differs from ours by more than the allowance; emitted when that begins and when it ends.

    Attributes:
        peer: Whose clock.
        skew_s: Its clock minus ours, seconds, ± the round trip; 0.0 when the clocks agree again.
    """

    peer: NodeId
    skew_s: float


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """A peer said that it leaves on purpose."""

    peer: NodeId
    reason: str
