"""The shapes of who calls whom, and of a node in figures; as in ``wire.views``."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from agentmesh.wire.net_views import PeerState
from agentmesh.wire.views import AgentStatus, TrustTier

#: Windows that may be asked for, seconds.
WINDOW_S_MIN, WINDOW_S_MAX, WINDOW_S = 60, 3_600, 300
CallerKind = Literal["you", "agent", "node", "program"]


class MachineView(msgspec.Struct, kw_only=True):
    """One node of the topology.

    Attributes:
        node_id, name: Who; the name is its own claim.
        own: Whether it is this node, which is part of every answer.
        state: As in PeerView; "alive" for this node.
        sources: How it was found ("mdns", "static", "exchange", "inbound"; "own" for this node), and beside that "federation"
            for a node of another mesh and "wan" for one whose link leaves private networks or goes through a relay.
        path: "local", "direct", "relayed", "udp", or "" without contact.
        rtt_ms: Last measured round trip.
        zone, site: Where it is, as far as known.
        agents: How many agents are known behind it, those that are not shown included.
    """

    node_id: str
    name: str
    own: bool = False
    state: PeerState = "unreached"
    sources: list[str] = []
    path: str = ""
    rtt_ms: float | None = None
    zone: str = ""
    site: str = ""
    agents: int = 0


class TopologyAgent(msgspec.Struct, kw_only=True):
    """One agent of the topology.

    Attributes:
        agent_id, name, node_id: Who, and behind which node.
        kind: How it is reached: the door of an agent here ("a2a", "http", "sdk"), "registry" for one that another registry told
            of, "mesh" for one behind another node, "federated" for one of another mesh, "program" for a program with a key
            of its own that calls, "gone" for one that takes part in calls of the window and is in the directory no more.
        health: As AgentView.status; "gone" likewise.
        trust_score, trust_tier: What this node thinks of its conduct.
        organisation: did:key of the organisation that vouches for it; "" for none.
    """

    agent_id: str
    name: str
    node_id: str
    kind: str
    health: AgentStatus = "unknown"
    trust_score: float = 0.0
    trust_tier: TrustTier = "unknown"
    organisation: str = ""


class EdgeView(msgspec.Struct, kw_only=True):
    """Calls of one caller at one callee, as this node saw them.

    Attributes:
        caller, caller_node: Who called, and from where. Of people and programs that is the node they sit at, twice; of a program
            with a key of its own its did:key, and this node.
        caller_kind: "you" (people and programs at this node), "agent", "node" (people and programs at another node, or callers
            there of which there are too many), or "program" (one with a key of its own).
        caller_name, callee_name: For people.
        callee, callee_node: The agent that was called, and its node.
        calls, failures, refusals: In the window; failures and refusals are among the calls.
        running: Calls under way.
        per_minute: Calls, by the seconds that the window covers.
        p50_ms, p99_ms: Latency from the call's beginning to its end at this node, of the latest 256 calls of the window at most,
            refused and given up ones left out; null without any.
        path: How the last call travelled: "local", "direct" or "relayed"; "" if unknown.
        relayed: How many calls of the window went through a relay.
        last_ts: Unix microseconds of the last thing that happened.
    """

    caller: str
    caller_kind: CallerKind
    caller_name: str
    caller_node: str
    callee: str
    callee_name: str
    callee_node: str
    calls: int = 0
    failures: int = 0
    refusals: int = 0
    running: int = 0
    per_minute: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    path: str = ""
    relayed: int = 0
    last_ts: int = 0


class TopologyView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/topology``: machines, their agents, and who called whom.

    Attributes:
        node_id: This node.
        window_s: What was asked for.
        covered_s: The seconds that the counts cover: whole minutes of the window and the one that runs, since the start at most.
        source, zone: The filters that were asked for; "" for none.
        count: Machines, agents and edges in this answer.
        digest: Of these, in order (``digest_of``); rates, latencies, names and times are no part of it.
        machines: This node first, then zone mates, long links, other links, the rest.
        agents: Those that take part in calls first, then this node's own, then the others.
        edges: Busiest first.
        machines_more, agents_more: How many match beyond those shown.
        edges_more: How many edges match beyond those shown, and how many made room in the node's table.
        calls, failures, refusals: Of all calls of the window, whatever is filtered or left out.
    """

    node_id: str
    window_s: int
    covered_s: float
    source: str = ""
    zone: str = ""
    count: int = 0
    digest: str = ""
    machines: list[MachineView] = []
    agents: list[TopologyAgent] = []
    edges: list[EdgeView] = []
    machines_more: int = 0
    agents_more: int = 0
    edges_more: int = 0
    calls: int = 0
    failures: int = 0
    refusals: int = 0


class MinuteView(msgspec.Struct, kw_only=True):
    """One whole minute of a node: calls, how many of them failed or were refused, and runs that were new."""

    calls: int = 0
    failures: int = 0
    refusals: int = 0
    runs: int = 0


class ReasonView(msgspec.Struct, kw_only=True):
    """How often one reason refused a call in the last hour; ``code`` is that of an error, or "other"."""

    code: str
    count: int


class FailingAgent(msgspec.Struct, kw_only=True):
    """An agent that is not offered for calls, and why, as far as this node knows."""

    agent_id: str
    name: str
    node_id: str
    node_name: str = ""
    detail: str = ""


class StatsView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/stats``: this node in figures.

    Attributes:
        agents, agents_local: Agents known, and those registered here.
        machines, machines_alive: Nodes known, and those that answer, this one included in both.
        calls_running: Calls under way.
        calls_per_minute, runs_per_minute: Over the last whole minute and the one that runs.
        minutes: The last 60 whole minutes, oldest first.
        hour: The sum of these and of the minute that runs.
        since: Unix seconds since when this node counts: its start.
        refusals: By reason, in the last hour, most first; of calls at agents here, and of calls from here.
        failing: Agents that are unhealthy, own ones first; at most 100.
        failing_more: Those beyond.
    """

    agents: int
    agents_local: int
    machines: int
    machines_alive: int
    hour: MinuteView
    calls_running: int = 0
    calls_per_minute: float = 0.0
    runs_per_minute: float = 0.0
    minutes: list[MinuteView] = []
    since: float = 0.0
    refusals: list[ReasonView] = []
    failing: list[FailingAgent] = []
    failing_more: int = 0


def digest_of(view: TopologyView) -> str:
    """Return the digest of what an answer shows: ``9c1f-77e0``.

    SHA-256 over one line for each machine, agent and edge in order; two readers that print the same digest hold the same rows.
    A line is made of ids, enumerated words and integers with one space between them (docs/spec/console.md §4).
    """
    total = hashlib.sha256()
    for machine in view.machines:
        total.update(f"m {machine.node_id} {machine.state} {machine.path} {','.join(machine.sources)}\n".encode())
    for agent in view.agents:
        total.update(f"a {agent.agent_id} {agent.node_id} {agent.kind} {agent.health} {agent.trust_tier}\n".encode())
    for edge in view.edges:
        total.update(
            f"e {edge.caller} {edge.callee} {edge.calls} {edge.failures} {edge.refusals} {edge.running} {edge.path}\n".encode()
        )
    text = total.hexdigest()
    return f"{text[:4]}-{text[4:8]}"
