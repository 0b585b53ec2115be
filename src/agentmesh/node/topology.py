"""The part of a node that shows who calls whom, and how it is doing in figures."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence

from agentmesh.core.traffic.table import MINUTES, Count, Edge
from agentmesh.errors import MeshError, UsageError
from agentmesh.ids import AgentId, NodeId, short
from agentmesh.node.federation.imports import FederatedEntry
from agentmesh.node.map_rows import (
    agent_row,
    edge_row,
    kind_of_caller,
    machine_of_peer,
    matches,
    outsider_row,
)
from agentmesh.node.parts import Parts
from agentmesh.node.peers import known_peers
from agentmesh.node.tenants import OwnEntry
from agentmesh.node.views import LeasedEntry
from agentmesh.wire.net_views import PeerView
from agentmesh.wire.topology_views import (
    WINDOW_S_MAX,
    WINDOW_S_MIN,
    EdgeView,
    FailingAgent,
    MachineView,
    MinuteView,
    ReasonView,
    StatsView,
    TopologyAgent,
    TopologyView,
    digest_of,
)

#: Rows of one answer; how many more there are is told. 5,000 edges are 2 MB, and no page draws more at once.
MACHINES_MAX, AGENTS_MAX, EDGES_MAX = 2_000, 5_000, 5_000
_FAILING_MAX = 100
#: Rows that are made before the loop gets its turn: a few milliseconds of work.
_BATCH = 50


class TopologyHost(Parts):
    """What ``Node`` shows of calls; nothing but ``Node`` inherits it."""

    async def topology(self, window_s: int, source: str = "", zone: str = "") -> TopologyView:
        """Return machines, agents and who called whom.

        Args:
            window_s: Calls of so many seconds, rounded up to whole minutes.
            source: Only machines that were found so; "" = all. This node is always shown: each edge has an end here.
            zone: Only machines of this zone, likewise.

        Raises:
            UsageError: the window is out of range.
        """
        if not WINDOW_S_MIN <= window_s <= WINDOW_S_MAX:
            raise UsageError(
                f"a window of {window_s} s", code="topology.window", hint=f"{WINDOW_S_MIN} to {WINDOW_S_MAX} seconds"
            )
        table, now_s, whole = self.traffic.table, self.traffic.mono_s(), -(-window_s // 60)
        totals = table.totals(now_s, whole)
        view = TopologyView(
            node_id=self.node_id,
            window_s=window_s,
            covered_s=round(table.covered_s(now_s, whole), 1),
            source=source,
            zone=zone,
            calls=totals.calls,
            failures=totals.failures,
            refusals=totals.refusals,
        )
        entries: dict[str, LeasedEntry] = {entry.manifest.agent_id: entry for entry in self.sights.entries()}
        found: list[tuple[Edge, Count]] = []
        for place, edge in enumerate(table.live(now_s, whole)):
            if place % _BATCH == _BATCH - 1:
                await asyncio.sleep(0)
            count = edge.count(now_s, whole)
            if count.calls or edge.running > 0:
                found.append((edge, count))
        shown = self._machines(view, entries, found)
        kept = [
            (edge, count)
            for edge, count in found
            if edge.callee_node in shown and (edge.caller_node or self.node_id) in shown
        ]
        kept.sort(key=lambda one: (-one[1].calls, -one[0].running, one[0].caller, one[0].callee))
        view.edges_more = max(0, len(kept) - EDGES_MAX) + table.dropped(now_s, whole)
        for place, (edge, count) in enumerate(kept[:EDGES_MAX]):
            if place % _BATCH == _BATCH - 1:
                await asyncio.sleep(0)
            view.edges.append(self._edge(edge, count, entries, now_s, whole))
        await self._agents(view, entries, shown)
        view.count = len(view.machines) + len(view.agents) + len(view.edges)
        view.digest = await asyncio.to_thread(digest_of, view)  # 11,000 lines are 20 ms
        return view

    def _machines(
        self, view: TopologyView, entries: Mapping[str, LeasedEntry], found: Sequence[tuple[Edge, Count]]
    ) -> set[str]:
        """Fill in the machines that match, and return which of them are shown."""
        agents: dict[str, int] = {}
        for entry in entries.values():
            agents[entry.manifest.node_id] = agents.get(entry.manifest.node_id, 0) + 1
        machines = [self._own_machine(agents.get(self.node_id, 0))]
        known = known_peers(self._brain, self.links, self.mesh, self.name_of)
        ids = {self.node_id, *(peer.node_id for peer in known)}
        # Nodes of other meshes, and callers that left, are known by their agents or calls only.
        others = dict.fromkeys([*agents, *(n for edge, _ in found for n in (edge.caller_node, edge.callee_node) if n)])
        known += [PeerView(node_id=node, node_name=self.name_of(node)) for node in others if node not in ids]
        machines += [
            machine_of_peer(
                peer, abroad=self.border.is_abroad(NodeId(peer.node_id)), agents=agents.get(peer.node_id, 0)
            )
            for peer in known
        ]
        fitting = [machine for machine in machines if matches(machine, view.source, view.zone)]
        view.machines, view.machines_more = fitting[:MACHINES_MAX], max(0, len(fitting) - MACHINES_MAX)
        return {machine.node_id for machine in view.machines}

    def _own_machine(self, agents: int) -> MachineView:
        return MachineView(
            node_id=self.node_id,
            name=self.config.name,
            own=True,
            state="alive",
            sources=["own"],
            path="local",
            zone=self._brain.overlay.zone_name,
            site=self.config.site,
            agents=agents,
        )

    def _edge(self, edge: Edge, count: Count, entries: Mapping[str, LeasedEntry], now_s: float, whole: int) -> EdgeView:
        caller, callee = entries.get(edge.caller), entries.get(edge.callee)
        if kind_of_caller(edge, self.node_id) in ("you", "node"):
            caller_name = self.name_of(edge.caller)
        else:
            caller_name = edge.caller_name or short(edge.caller) if caller is None else caller.manifest.name
        return edge_row(
            edge,
            count,
            edge.latencies(int(now_s // 60), whole),
            own=self.node_id,
            caller_name=caller_name,
            callee_name=edge.callee_name or short(edge.callee) if callee is None else callee.manifest.name,
            covered_s=self.traffic.table.covered_s(now_s, whole),
            last_ts=int((time.time() - (now_s - edge.last_s)) * 1e6),
        )

    async def _agents(self, view: TopologyView, entries: Mapping[str, LeasedEntry], shown: set[str]) -> None:
        """Fill in the agents: those of calls first, then own ones, then the others by name."""
        ends: dict[str, tuple[str, str, bool]] = {}
        for edge in view.edges:
            if edge.caller_kind in ("agent", "program"):
                ends.setdefault(edge.caller, (edge.caller_node, edge.caller_name, edge.caller_kind == "program"))
            ends.setdefault(edge.callee, (edge.callee_node, edge.callee_name, False))
        rest = [entry for agent, entry in entries.items() if agent not in ends and entry.manifest.node_id in shown]
        rest.sort(key=lambda entry: (not entry.local, entry.manifest.name.casefold(), entry.manifest.agent_id))
        room = max(0, AGENTS_MAX - len(ends))
        view.agents_more = max(0, len(rest) - room)
        for place, (agent, (node, name, program)) in enumerate(ends.items()):
            if place % _BATCH == _BATCH - 1:
                await asyncio.sleep(0)
            entry = entries.get(agent) or self._private(agent)
            view.agents.append(
                outsider_row(agent, node, name, self.trust.verdict(agent), program=program)
                if entry is None
                else self._agent(entry)
            )
        for place, entry in enumerate(rest[:room]):
            if place % _BATCH == _BATCH - 1:
                await asyncio.sleep(0)
            view.agents.append(self._agent(entry))

    def _private(self, agent_id: str) -> OwnEntry | None:
        """Return an agent of a tenant that is not announced; its calls are seen, so it is."""
        agent = self.registry.get(agent_id)
        return OwnEntry(agent) if agent is not None and agent.saved.private else None

    def _agent(self, entry: LeasedEntry) -> TopologyAgent:
        manifest = entry.manifest
        local = self.registry.get(manifest.agent_id) if entry.local else None
        organisation = ""
        with contextlib.suppress(MeshError):
            member = self.organisations.look(manifest)
            organisation = "" if member is None else member.organisation
        return agent_row(
            entry,
            door=local.saved.door if local is not None else "",
            origin=bool(local.saved.origin if local is not None else manifest.params.get("origin")),
            abroad=isinstance(entry, FederatedEntry),
            verdict=self.trust.verdict(manifest.agent_id),
            organisation=organisation,
        )

    async def stats(self) -> StatsView:
        """Return this node in figures."""
        table, now_s = self.traffic.table, self.traffic.mono_s()
        entries = self.sights.entries()
        peers = known_peers(self._brain, self.links, self.mesh, self.name_of)
        hour = table.totals(now_s, MINUTES)
        covered_s, now = table.covered_s(now_s, 1), table.totals(now_s, 1)
        failing = [entry for entry in entries if entry.healthy is False]
        failing.sort(key=lambda entry: (not entry.local, entry.manifest.name.casefold(), entry.manifest.agent_id))
        return StatsView(
            agents=len(entries),
            agents_local=len(self.registry.agents()),
            machines=1 + len(peers),
            machines_alive=1 + sum(1 for peer in peers if peer.state == "alive"),
            hour=MinuteView(
                calls=hour.calls,
                failures=hour.failures,
                refusals=hour.refusals,
                runs=table.runs(now_s, MINUTES),
            ),
            calls_running=self.traffic.running,
            calls_per_minute=round(now.calls * 60 / covered_s, 2),
            runs_per_minute=round(table.runs(now_s, 1) * 60 / covered_s, 2),
            minutes=[MinuteView(calls=c, failures=f, refusals=r, runs=n) for c, f, r, n in table.hour(now_s)],
            since=round(time.time() - (now_s - table.started_s), 3),
            refusals=[ReasonView(code=code, count=count) for code, count in table.reasons(now_s).items()],
            failing=[self._failing(entry) for entry in failing[:_FAILING_MAX]],
            failing_more=max(0, len(failing) - _FAILING_MAX),
        )

    def _failing(self, entry: LeasedEntry) -> FailingAgent:
        manifest = entry.manifest
        local = self.registry.get(AgentId(manifest.agent_id)) if entry.local else None
        detail = local.health.detail if local is not None and local.health is not None else ""
        return FailingAgent(
            agent_id=manifest.agent_id,
            name=manifest.name,
            node_id=manifest.node_id,
            node_name=self.name_of(manifest.node_id),
            detail=detail[:200],
        )
