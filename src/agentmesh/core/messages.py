"""Inputs of the brain: everything that can happen to a node, as data.

The driver (``node/``) and the simulator make these; ``core/brain.py`` hands each to the machines concerned. What a peer
sent arrives inside ``Received``. ``core/machine.py`` has ``Timer``, the remaining input, and the effects.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from agentmesh.identity.manifest import Manifest
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.provider import Provider
from agentmesh.ids import AgentId, Key, NodeId

#: Where an address was learned, most trusted first: "link" = a connection to it was authenticated, "static" = the
#: operator named it, "stored" = known from an earlier run, "mdns" = heard on the LAN, "peer" = told by a peer.
Source = Literal["link", "static", "stored", "mdns", "peer"]


class WallClock(msgspec.Struct, frozen=True):
    """What the wall clock shows, unix seconds. Must be the first input, then whenever the clock is read again (≤ 60 s)."""

    unix_s: float


class PeerUp(msgspec.Struct, frozen=True):
    """The first link to a peer is up.

    Attributes:
        peer: Proven by its key.
        addresses: Where it can be dialled: the address that was dialled (first), and those its Hello names.
        source: "link" when this node dialled ``addresses[0]`` (the address is proven), else "peer".
    """

    peer: NodeId
    addresses: tuple[str, ...] = ()
    source: Source = "peer"


class PeerDown(msgspec.Struct, frozen=True):
    """The last link to a peer is gone."""

    peer: NodeId


class Received(msgspec.Struct, frozen=True):
    """A control message from a peer: one of the classes in the machines' ``messages`` modules.

    ``by_link`` says that it came over a link and not as a datagram: both ways are open then.
    """

    peer: NodeId
    message: Any
    by_link: bool = False


class LocalRecord(msgspec.Struct, frozen=True):
    """A manifest or tombstone of an agent behind this node; replaces the agent's former record."""

    manifest: Manifest


class LocalStatus(msgspec.Struct, frozen=True):
    """The health check of a local agent changed, or confirmed, its state."""

    agent_id: AgentId
    healthy: bool


class LocalGone(msgspec.Struct, frozen=True):
    """A local agent is withdrawn without a tombstone (an unsigned one): stop renewing it here, others drop its lease."""

    agent_id: AgentId


class AddressHint(msgspec.Struct, frozen=True):
    """Somebody says that a node can be reached there; a hint, never trust.

    Attributes:
        node_id: The node.
        addresses: Texts with the scheme first.
        source: Who says so.
    """

    node_id: NodeId
    addresses: tuple[str, ...]
    source: Source


class Leaving(msgspec.Struct, frozen=True):
    """This node is about to stop: say Bye, and let no peer offer its agents any longer."""

    reason: str = ""


# What the node signs for the machines, which hold no key


class NodeRecordWanted(msgspec.Struct, frozen=True):
    """Event: sign a fresh record of this node, with a ``seq`` above ``seq_min`` and above any before; ``LocalNode`` answers.

    Attributes:
        seq_min: A suspicion of that incarnation is going round (SWIM refutation), or 0.
        leaving: It is the last record of this run.
        sick: Marks of local agents that fail their health check; None = those of the last record.
    """

    seq_min: int = 0
    leaving: bool = False
    sick: tuple[bytes, ...] | None = None


class LocalNode(msgspec.Struct, frozen=True):
    """Input: this node's own record changed; verified. The first one comes right after the first WallClock."""

    record: NodeRecord


class SignatureWanted(msgspec.Struct, frozen=True):
    """Event: sign ``body`` for ``context`` with the node's key (``identity.statement``); ``Signed`` answers."""

    context: bytes
    body: bytes


class Signed(msgspec.Struct, frozen=True):
    """Input: the statement that ``SignatureWanted`` asked for."""

    context: bytes
    raw: bytes


class ProvidersWanted(msgspec.Struct, frozen=True):
    """Event: sign provider records of a local agent for each of these keys; ``Provide`` answers."""

    agent_id: AgentId
    keys: tuple[Key, ...]


class Provide(msgspec.Struct, frozen=True):
    """Input: put these provider records of a local agent into the DHT, pairs of key and record."""

    agent_id: AgentId
    items: tuple[tuple[Key, bytes], ...]


# What one machine tells the others; the brain passes it on, no machine imports another


class NodeHeard(msgspec.Struct, frozen=True):
    """A verified record of another node was read, by whichever machine; ``via`` is who sent it."""

    record: NodeRecord
    via: NodeId


class Watch(msgspec.Struct, frozen=True):
    """overlay → swim: this node is a neighbour now: probe it."""

    record: NodeRecord


class Unwatch(msgspec.Struct, frozen=True):
    """overlay → swim: this node is no neighbour any longer."""

    node: NodeId


class MemberAlive(msgspec.Struct, frozen=True):
    """swim → all: a watched node answered for the first time, or after it was suspected."""

    node: NodeId


class MemberSuspected(msgspec.Struct, frozen=True):
    """swim → all: a watched node does not answer; it may still refute."""

    node: NodeId


class MemberDead(msgspec.Struct, frozen=True):
    """swim → all: a watched node did not answer, nor refute in time."""

    node: NodeId
    seq: int


class ProbeWanted(msgspec.Struct, frozen=True):
    """directory → swim: reports and SWIM disagree on a node; ask it now. Its answer is told by MemberAlive."""

    node: NodeId


class Spoke(msgspec.Struct, frozen=True):
    """brain → swim: a node that SWIM asks in vain has just sent something over its link, so it lives, slow as it may be."""

    node: NodeId


class MemberLeft(msgspec.Struct, frozen=True):
    """swim → all: a node said in its own signed record that it leaves."""

    node: NodeId
    seq: int


class NeighbourUp(msgspec.Struct, frozen=True):
    """overlay → plumtree, directory, contacts: a link to this node belongs to the overlay now.

    Attributes:
        node: The neighbour.
        zone: True for a zone mate, False for a long link. A node can be both; then it is told as a long link.
    """

    node: NodeId
    zone: bool


class NeighbourDown(msgspec.Struct, frozen=True):
    """overlay → plumtree, directory, contacts: this node is no neighbour any longer."""

    node: NodeId


class ZoneChanged(msgspec.Struct, frozen=True):
    """overlay → directory: the zone of this node.

    Attributes:
        site: Its label.
        depth: Number of leading bits of the DHT key that members share.
        members: All members that are believed alive, this node included, by rising DHT key.
    """

    site: str
    depth: int
    members: tuple[NodeId, ...]


class Publish(msgspec.Struct, frozen=True):
    """any → plumtree: broadcast this to every node. ``kind`` says who reads it ("agent", "node", "zone")."""

    kind: str
    payload: bytes


class Delivered(msgspec.Struct, frozen=True):
    """plumtree → any: a broadcast of another node arrived, for the first time and judged good.

    Attributes:
        kind, payload: As published.
        via: The neighbour that brought it, not the author.
        hops: Links it crossed, as told; a hint.
    """

    kind: str
    payload: bytes
    via: NodeId
    hops: int


class NeighbourBad(msgspec.Struct, frozen=True):
    """plumtree → overlay: this neighbour's score fell below the limit: drop it and do not take it back for a while."""

    node: NodeId
    score: float


class Advertise(msgspec.Struct, frozen=True):
    """directory → dht: a local agent is to be found under these keys; replaces what was said of it before.

    No keys = no longer at all.
    """

    agent_id: AgentId
    keys: tuple[Key, ...]


class Lookup(msgspec.Struct, frozen=True):
    """Input of the DHT: look a key up; ``LookupHit`` and in the end ``LookupDone`` answer.

    Attributes:
        query: Chosen by the asker, unique among running ones.
        key: What is looked for.
        values_max: Stop early when so many different providers are known; 0 = look for the nodes nearest to the key only.
    """

    query: int
    key: Key
    values_max: int = 16


class LookupHit(msgspec.Struct, frozen=True):
    """dht → all: verified providers, new in this lookup."""

    query: int
    providers: tuple[Provider, ...]


class LookupDone(msgspec.Struct, frozen=True):
    """dht → all: a lookup ended.

    Attributes:
        query, key: As asked.
        providers: How many different ones were found.
        nearest: The nearest nodes that answered, nearest first, at most k.
        hops: Length of the chain of referrals behind the first hit (or behind the nearest node), 0 = known here.
        asked: Requests sent.
    """

    query: int
    key: Key
    providers: int
    nearest: tuple[NodeId, ...]
    hops: int
    asked: int


class Find(msgspec.Struct, frozen=True):
    """Input: find agents under a key anywhere: here, at the neighbours, in the DHT. ``Found`` and ``FindDone`` answer.

    Attributes:
        query: Chosen by the asker, unique among running ones.
        key: ``dht_key`` of an agent's public key, or ``capability_key`` of a name, skill or tag.
        agents_max: Stop early when so many are in the directory.
        timeout_s: Give up after this long.
    """

    query: int
    key: Key
    agents_max: int = 16
    timeout_s: float = 5.0


class Found(msgspec.Struct, frozen=True):
    """Event: an agent under the key is in the directory now; told once per query and agent."""

    query: int
    agent_id: AgentId


class FindDone(msgspec.Struct, frozen=True):
    """Event: a search ended, with so many agents found."""

    query: int
    agents: int


class Suggested(msgspec.Struct, frozen=True):
    """Input: manifests that a peer sent in answer to a search by text; those that hold are taken in like broadcast ones.

    Attributes:
        peer: Who sent them; charged for what is taken in, and blamed for the first that nobody honest sends.
        records: Manifests as JSON bytes, bounded by the wire message that brought them.
        sought: So many of the first find room in a full directory, as what a ``Find`` brings does.
    """

    peer: NodeId
    records: tuple[bytes, ...]
    sought: int = 0
