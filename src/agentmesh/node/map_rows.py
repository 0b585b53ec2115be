"""The rows of the topology, from what is known of nodes, agents and calls. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agentmesh.core.traffic.table import Count, Edge, percentile
from agentmesh.core.trust.opinion import Verdict
from agentmesh.ids import short
from agentmesh.node.resolve import Entry
from agentmesh.node.routes import host_of
from agentmesh.wire.net_views import PeerView
from agentmesh.wire.topology_views import CallerKind, EdgeView, MachineView, TopologyAgent
from agentmesh.wire.views import AgentStatus

#: Names are what others say; longer ones help nobody on a map.
NAME_CHARS_MAX = 120
#: Other words for how a node was found.
_ALIASES = {"dht": "exchange", "gossip": "exchange"}


def machine_of_peer(peer: PeerView, *, abroad: bool, agents: int) -> MachineView:
    """Show another node that this one knows."""
    sources = [peer.source] if peer.source else []
    if abroad:
        sources.append("federation")
    if is_wan(peer):
        sources.append("wan")
    return MachineView(
        node_id=peer.node_id,
        name=peer.node_name[:NAME_CHARS_MAX],
        state=peer.state,
        sources=sources,
        path=peer.path if peer.state != "unreached" else "",
        rtt_ms=peer.rtt_ms,
        zone=peer.zone,
        site=peer.site,
        agents=agents,
    )


def is_wan(peer: PeerView) -> bool:
    """Say whether a link is up that leaves private networks: through a relay, or to an address that all the world can reach."""
    if not peer.connected:
        return False
    there = host_of(peer.address)
    return peer.path == "relayed" or (there is not None and there.is_global)


def matches(machine: MachineView, source: str, zone: str) -> bool:
    """Say whether a machine passes the filters; this node always does."""
    wanted = _ALIASES.get(source.casefold(), source.casefold())
    return machine.own or ((not wanted or wanted in machine.sources) and (not zone or machine.zone == zone))


def agent_row(
    entry: Entry, *, door: str, origin: bool, abroad: bool, verdict: Verdict, organisation: str
) -> TopologyAgent:
    """Show an agent of the directory.

    Args:
        entry: The agent.
        door: How it is called if it is beside this node, else "".
        origin: Whether another registry told of it.
        abroad: Whether it is of another mesh.
        verdict: What this node thinks of it.
        organisation: did:key of who vouches for it, "" for nobody.
    """
    manifest = entry.manifest
    health: AgentStatus = "unknown" if entry.healthy is None else "healthy" if entry.healthy else "unhealthy"
    return TopologyAgent(
        agent_id=manifest.agent_id,
        name=manifest.name[:NAME_CHARS_MAX],
        node_id=manifest.node_id,
        kind="registry" if origin else "federated" if abroad else door or "mesh",
        health=health,
        trust_score=round(verdict.score, 4),
        trust_tier=verdict.tier,
        organisation=organisation,
    )


def outsider_row(agent_id: str, node_id: str, name: str, verdict: Verdict, *, program: bool) -> TopologyAgent:
    """Show somebody who takes part in calls and is not in the directory: a program with a key of its own, or who left it."""
    return TopologyAgent(
        agent_id=agent_id,
        name=name[:NAME_CHARS_MAX] or short(agent_id),
        node_id=node_id,
        kind="program" if program else "gone",
        health="unknown" if program else "gone",
        trust_score=round(verdict.score, 4),
        trust_tier=verdict.tier,
    )


def kind_of_caller(edge: Edge, own: str) -> CallerKind:
    """Say who calls: people here, an agent, people at another node, or a program with a key of its own."""
    if edge.caller == own:
        return "you"
    if not edge.caller_node:
        return "program"
    return "node" if edge.caller == edge.caller_node else "agent"


def edge_row(
    edge: Edge,
    count: Count,
    latencies: Sequence[float],
    *,
    own: str,
    caller_name: str,
    callee_name: str,
    covered_s: float,
    last_ts: int,
) -> EdgeView:
    """Show an edge.

    Args:
        edge, count: Who, and how often in the window.
        latencies: Of the window, seconds, rising.
        own: This node.
        caller_name, callee_name: For people.
        covered_s: Seconds of the window, by which rates are read.
        last_ts: Unix microseconds of the last thing that happened.
    """
    p50_s, p99_s = percentile(latencies, 0.5), percentile(latencies, 0.99)
    return EdgeView(
        caller=edge.caller,
        caller_kind=kind_of_caller(edge, own),
        caller_name=caller_name[:NAME_CHARS_MAX],
        caller_node=edge.caller_node or own,
        callee=edge.callee,
        callee_name=callee_name[:NAME_CHARS_MAX],
        callee_node=edge.callee_node,
        calls=count.calls,
        failures=count.failures,
        refusals=count.refusals,
        running=max(0, edge.running),
        per_minute=round(count.calls * 60 / covered_s, 3),
        p50_ms=None if p50_s is None else round(p50_s * 1000, 3),
        p99_ms=None if p99_s is None else round(p99_s * 1000, 3),
        path=edge.way,
        relayed=count.relayed,
        last_ts=last_ts,
    )
