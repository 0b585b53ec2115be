"""The shapes of the HTTP API that tell of the mesh: peers, its form, what a node lost touch with. As in ``wire.views``."""

from __future__ import annotations

from typing import Literal

import msgspec

PeerRole = Literal["zone", "long", "link", "known"]
PeerState = Literal["alive", "suspect", "dead", "left", "unreached"]


class CutOffView(msgspec.Struct, kw_only=True):
    """How much of the mesh this node lost touch with. Whether they are dead or cut off nobody can tell from here.

    Attributes:
        lost: Nodes that this one was in touch with and that neither answer nor said that they leave.
        known: Those, and the ones in touch now.
        since: Unix seconds when the first of them was lost.
        isolated: True when no node is in touch at all.
    """

    lost: int
    known: int
    since: float
    isolated: bool = False


class UdpView(msgspec.Struct, kw_only=True):
    """Signed datagrams of this node since its start.

    Attributes:
        address: Where it listens, "" if it has no UDP port.
        sent, received: Datagrams that went out, and that were taken in.
        dropped: Reason → number of datagrams that were not taken in.
    """

    address: str = ""
    sent: int = 0
    received: int = 0
    dropped: dict[str, int] = {}


class PeerView(msgspec.Struct, kw_only=True):
    """One known node.

    Attributes:
        node_id, node_name: Who.
        connected: Whether a link is up.
        scheme, path, address: Of the link, or of the last try. ``path`` is "direct", "relayed", "udp" when datagrams are
            exchanged without a link, or "".
        rtt_ms: Last measured round trip.
        source: How it was first heard of: "mdns", "static", "exchange", "inbound".
        agents: Agents known behind it.
        version: Its AgentMesh version.
        clock_skew_s: Its clock minus ours, seconds, when last measured.
        last_error: Why the last try to connect failed.
        zone: Its zone, "site/bits" as far as this node can tell; "" when it knows no record of it.
        role: "zone" mate, "long" link, "link" (connected only), or "known".
        state: "alive" (it answers), "suspect" (it does not, and may still refute), "dead", "left" (it said goodbye), or
            "unreached" (nobody here is in touch with it; it may be well).
        suspect_s: Seconds since it is suspected; null unless it is.
        seq: Number of its newest record known here (SWIM calls it the incarnation).
        site, capacity: What it says of itself.
    """

    node_id: str
    node_name: str = ""
    connected: bool = False
    scheme: str = ""
    path: str = ""
    address: str = ""
    rtt_ms: float | None = None
    source: str = ""
    agents: int = 0
    version: str = ""
    clock_skew_s: float | None = None
    last_error: str = ""
    zone: str = ""
    role: PeerRole = "known"
    state: PeerState = "unreached"
    suspect_s: float | None = None
    seq: int = 0
    site: str = ""
    capacity: int = 0


class PeerList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/peers``."""

    peers: list[PeerView]


class NetNodeView(msgspec.Struct, kw_only=True):
    """One node that a survey met.

    Attributes:
        node_id, node_name, site, capacity, zone: As it says itself, signed.
        answered: False = it was named by another node but did not answer; it is not part of the figures.
        neighbours: Positions in ``NetView.map`` of the nodes that name it and that it names.
        stops: ``jti`` of the emergency stops that are in force there, as it says.
    """

    node_id: str
    node_name: str = ""
    site: str = ""
    capacity: int = 0
    zone: str = ""
    answered: bool = True
    neighbours: list[int] = []
    stops: list[str] = []


class NetView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/net``: the shape of the mesh, found by asking node after node for its neighbours.

    Figures are of the nodes that answered, and of the links that both ends named. Those that need more are null: all of
    them below three nodes, the tail below a hundred.

    Attributes:
        nodes, edges: How many answered, and links between them.
        clustering: C, the mean over nodes of the share of their neighbours that are neighbours of each other.
        path_length: L, the mean number of links between two nodes (from a sample of nodes in large meshes).
        tail_exponent, tail_fit: Exponent of the tail of the degree distribution, and how badly a power law fits it
            (Kolmogorov-Smirnov distance, 0 = perfectly).
        degree_p50, degree_p99, degree_max: Links per node.
        components, largest_component: Parts with no link between them, and the share of nodes in the largest, 0 … 1.
        zones: Zone → number of its nodes that answered, by name.
        neighbours: Node ids of this node's own neighbours.
        asked, answered: Nodes that were asked, and those that answered; this node counts as both.
        complete: False when the survey stopped at its limit of nodes or time before it had asked everybody named.
        seconds: How long it took.
        notes: Which figures mean little here, and why, in English.
        map: Every node that was met, this one first.
    """

    nodes: int
    edges: int
    clustering: float | None = None
    path_length: float | None = None
    tail_exponent: float | None = None
    tail_fit: float | None = None
    degree_p50: int = 0
    degree_p99: int = 0
    degree_max: int = 0
    components: int = 1
    largest_component: float = 1.0
    zones: dict[str, int] = {}
    neighbours: list[str] = []
    asked: int = 1
    answered: int = 1
    complete: bool = True
    seconds: float = 0.0
    notes: list[str] = []
    map: list[NetNodeView] = []
