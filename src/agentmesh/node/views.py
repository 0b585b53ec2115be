"""From the node's own state to what people see. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from agentmesh.core.contacts.messages import CutOff
from agentmesh.core.trust.opinion import Verdict
from agentmesh.identity.node_record import NodeRecord
from agentmesh.ids import Key
from agentmesh.node.links import Attempt, Links, Peer
from agentmesh.node.registry import Registry
from agentmesh.node.resolve import Entry
from agentmesh.wire.net_views import CutOffView, PeerRole, PeerState, PeerView
from agentmesh.wire.views import AgentStatus, AgentView, SkillView, TrustLevel

_SOURCES = {"link": "inbound", "stored": "static", "peer": "exchange"}


class LeasedEntry(Entry, Protocol):
    """A directory entry that can say how long it still lives."""

    def lease_left_s(self, now_s: float) -> float:
        """Return the seconds until it is dropped; infinite while nothing says that its node is gone."""
        ...


def agent_view(
    entry: LeasedEntry,
    *,
    registry: Registry,
    links: Links,
    verdict: Verdict,
    node_name: str,
    now_s: float,
    organisation: str = "",
) -> AgentView:
    """Show a directory entry."""
    manifest = entry.manifest
    local = registry.get(manifest.agent_id) if entry.local else None
    peer = links.peer(manifest.node_id)
    path = "local" if entry.local else peer.link.path if peer is not None else "unreached"
    healthy = entry.healthy
    status: AgentStatus = "unknown" if healthy is None else "healthy" if healthy else "unhealthy"
    origin = local.saved.origin if local is not None else str(manifest.params.get("origin", ""))[:64]
    trust: TrustLevel = "low" if not manifest.signed else "own" if entry.local and not origin else "signed"
    return AgentView(
        agent_id=manifest.agent_id,
        name=manifest.name,
        node_id=manifest.node_id,
        node_name=node_name,
        description=manifest.description,
        version=manifest.version,
        skills=[
            SkillView(
                id=str(s.get("id", "")),
                name=str(s.get("name", "")),
                description=str(s.get("description", "")),
                tags=[str(t) for t in s.get("tags", [])],
                examples=[str(t) for t in s.get("examples", [])],
            )
            for s in manifest.skills
        ],
        status=status,
        trust=trust,
        path=path,
        door=local.saved.door if local is not None else "",
        seq=manifest.seq,
        lease_s=round(left_s, 1) if math.isfinite(left_s := entry.lease_left_s(now_s)) else None,
        detail=local.health.detail if local is not None and local.health is not None else "",
        trust_score=round(verdict.score, 4),
        trust_tier=verdict.tier,
        organisation=organisation,
        origin=origin,
    )


def zone_name(site: str, depth: int, key: Key) -> str:
    """Return how people see a zone: the site, and the bits of the DHT key that its members share: "eu/0110", or "/"."""
    bits = "".join(f"{byte:08b}" for byte in key[: (depth + 7) // 8])[:depth]
    return f"{site}/{bits}"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the machines know of a node.

    Attributes:
        record: Its newest verified record, if any.
        zone: Its zone as far as this node can tell, "" if it cannot.
        role: What it is to this node: "zone" mate, "long" link, or "known".
        watched: Whether SWIM probes it.
        suspect_since_s: Monotonic time since when it is suspected; None unless it is.
        dead: Whether it was declared dead, and not heard of since.
        rtt_s: Smoothed round trip of probes, seconds, if it was probed.
    """

    record: NodeRecord | None = None
    zone: str = ""
    role: PeerRole = "known"
    watched: bool = False
    suspect_since_s: float | None = None
    dead: bool = False
    rtt_s: float | None = None


def state_of_peer(standing: Standing, *, connected: bool) -> PeerState:
    """Say how a node is, as far as this node can tell: a doubt is shown; else a link that is up outweighs hearsay."""
    if standing.suspect_since_s is not None:
        return "suspect"
    if connected:
        return "alive"
    if standing.record is not None and standing.record.leaving:
        return "left"
    if standing.dead:
        return "dead"
    return "alive" if standing.watched else "unreached"


def peer_view(
    node_id: str,
    addresses: tuple[str, ...],
    *,
    peer: Peer | None,
    attempt: Attempt | None,
    name: str,
    source: str,
    agents: int,
    standing: Standing = Standing(),
    now_s: float = 0.0,
) -> PeerView:
    """Show a known node at monotonic ``now_s``."""
    view = PeerView(
        node_id=node_id,
        node_name=name,
        source=_SOURCES.get(source, source),
        agents=agents,
        address=addresses[0] if addresses else "",
        last_error=attempt.error if attempt is not None else "",
        zone=standing.zone,
        role=standing.role,
        state=state_of_peer(standing, connected=peer is not None and not peer.link.is_closed),
    )
    if standing.record is not None:
        view.seq, view.site, view.capacity = standing.record.seq, standing.record.site, standing.record.capacity
    if standing.suspect_since_s is not None:
        view.suspect_s = round(max(0.0, now_s - standing.suspect_since_s), 1)
    if peer is not None and not peer.link.is_closed:
        rtt_s = peer.link.rtt_s
        view.connected = True
        view.scheme, view.path, view.address = peer.link.scheme, peer.link.path, peer.link.remote_address
        view.rtt_ms = round(rtt_s * 1000, 3) if rtt_s is not None else None
        view.version = peer.hello.version[:64]
        view.clock_skew_s = round(peer.skew_s, 3)
        view.last_error = ""
        if view.role == "known":
            view.role = "link"
    elif view.state == "alive":
        view.path, view.scheme, view.last_error = "udp", "udp", ""
    if view.rtt_ms is None and standing.rtt_s is not None:
        view.rtt_ms = round(standing.rtt_s * 1000, 3)
    return view


def cut_off_view(cut_off: CutOff | None, *, now_s: float, unix_s: float) -> CutOffView | None:
    """Show what was lost, with its time on the wall clock; None for a verdict that says nothing is."""
    if cut_off is None or not cut_off.lost:
        return None
    since = round(unix_s - (now_s - cut_off.since_s), 3)
    return CutOffView(lost=cut_off.lost, known=cut_off.known, since=since, isolated=cut_off.isolated)


_ORDER: dict[str, int] = {"zone": 0, "long": 1, "link": 2, "known": 3}


def in_order(views: list[PeerView]) -> list[PeerView]:
    """Return zone mates first, then long links, then other links, then the rest; by name within each."""
    return sorted(views, key=lambda v: (_ORDER[v.role], not v.connected, v.node_name.casefold(), v.node_id))
