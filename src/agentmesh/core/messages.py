"""Inputs of the brain: everything that can happen to a node, as data.

The driver (``node/``) and the simulator make these; ``core/brain.py`` hands each to the machines concerned. What a peer
sent arrives inside ``Received``. ``core/machine.py`` has ``Timer``, the remaining input, and the effects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agentmesh.identity.manifest import Manifest
from agentmesh.ids import AgentId, NodeId

#: Where an address was learned, most trusted first: "link" = a connection to it was authenticated, "static" = the
#: operator named it, "stored" = known from an earlier run, "mdns" = heard on the LAN, "peer" = told by a peer.
Source = Literal["link", "static", "stored", "mdns", "peer"]


@dataclass(frozen=True, slots=True)
class WallClock:
    """What the wall clock shows, unix seconds. Must be the first input, then whenever the clock is read again (≤ 60 s)."""

    unix_s: float


@dataclass(frozen=True, slots=True)
class PeerUp:
    """The first link to a peer is up.

    Attributes:
        peer: Proven by its key.
        addresses: Where it can be dialled: the address that was dialled (first), and those its Hello names.
        source: "link" when this node dialled ``addresses[0]`` (the address is proven), else "peer".
    """

    peer: NodeId
    addresses: tuple[str, ...] = ()
    source: Source = "peer"


@dataclass(frozen=True, slots=True)
class PeerDown:
    """The last link to a peer is gone."""

    peer: NodeId


@dataclass(frozen=True, slots=True)
class Received:
    """A control message from a connected peer: one of the classes in ``directory.messages`` or ``exchange.messages``."""

    peer: NodeId
    message: Any


@dataclass(frozen=True, slots=True)
class LocalRecord:
    """A manifest or tombstone of an agent behind this node; replaces the agent's former record."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class LocalStatus:
    """The health check of a local agent changed, or confirmed, its state."""

    agent_id: AgentId
    healthy: bool


@dataclass(frozen=True, slots=True)
class LocalGone:
    """A local agent is withdrawn without a tombstone (an unsigned one): stop renewing it here, others drop its lease."""

    agent_id: AgentId


@dataclass(frozen=True, slots=True)
class AddressHint:
    """Somebody says that a node can be reached there; a hint, never trust.

    Attributes:
        node_id: The node.
        addresses: Texts with the scheme first.
        source: Who says so.
    """

    node_id: NodeId
    addresses: tuple[str, ...]
    source: Source


@dataclass(frozen=True, slots=True)
class Leaving:
    """This node is about to stop: say Bye, and let no peer offer its agents any longer."""

    reason: str = ""
