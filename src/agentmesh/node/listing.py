"""The part of a node that tells of agents, and takes and withdraws those beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from agentmesh.errors import AgentNotFound, MeshError
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import AgentId, capability_key, dht_key, is_name, public_key_of
from agentmesh.node.federation.imports import FederatedEntry
from agentmesh.node.parts import Parts
from agentmesh.node.registry import OPERATOR, Owner
from agentmesh.node.resolve import Directory, find
from agentmesh.node.tenants import OwnEntry
from agentmesh.node.views import agent_view
from agentmesh.wire.views import AgentDetail, AgentView, RegisterRequest


class AgentHost(Parts):
    """What ``Node`` does with agents; nothing but ``Node`` inherits it."""

    @property
    def directory(self) -> Directory:
        """The agents that this node knows, those of tenants that only they know left out."""
        return self.sights

    def agents(
        self, name: str = "", include_unhealthy: bool = True, directory: Directory | None = None
    ) -> list[AgentView]:
        """Return the agents that the caller sees, or those of one name, by name."""
        directory = directory or self.sights
        views = [self._view(e) for e in directory.entries()]
        if not include_unhealthy:
            views = [v for v in views if v.status == "healthy"]
        if name:
            wanted = find(name, directory, self.name_of)
            ids = {e.manifest.agent_id for e in wanted}
            views = [v for v in views if v.agent_id in ids]
        return sorted(views, key=lambda v: (v.name.casefold(), v.node_name, v.agent_id))

    async def look_for(self, ref: str) -> None:
        """Look in the whole mesh for an agent that the directory does not hold: by id, or by name."""
        with contextlib.suppress(AgentNotFound):
            find(ref, self.sights, self.name_of)
            return
        name = ref.partition("@")[0]
        if ref.startswith("did:"):
            with contextlib.suppress(MeshError):
                await self.mesh.find(dht_key(public_key_of(ref)), agents_max=1)
        elif is_name(name):
            await self.mesh.find(capability_key(name))

    def agent(self, ref: str, directory: Directory | None = None) -> AgentDetail:
        """Return one agent with its card and the replicas of its name, of those that the caller sees. Raises AgentNotFound."""
        found = find(ref, directory or self.sights, self.name_of)
        views = [self._view(e) for e in found]
        order = {"own": 0, "signed": 1, "low": 2}
        ranked = sorted(zip(views, found, strict=True), key=lambda vf: (order[vf[0].trust], vf[0].status != "healthy"))
        first, entry = ranked[0]
        return AgentDetail(
            agent=first,
            card=entry.manifest.card,
            replicas=[v for v, _ in ranked],
            a2a_url=f"http://127.0.0.1:{self._http_port()}/a2a/{first.name}/",
        )

    async def register(self, request: RegisterRequest, owner: Owner = OPERATOR) -> list[AgentView]:
        """Register the agents behind a URL (see ``Registry.register``). Raises ReadOnly."""
        self.switch.refuse()
        agents = await self.registry.register(request, owner)
        for agent in agents:
            manifest = agent.manifest
            await self.audit.note("register", manifest.agent_id, name=manifest.name, version=manifest.version)
        return self._local_views([a.manifest.agent_id for a in agents])

    async def deregister(self, ref: str) -> AgentView:
        """Withdraw a local agent and return its last view. Raises AgentNotFound, ReadOnly."""
        self.switch.refuse()
        agent = self.registry.require(ref, [a.manifest.name for a in self.registry.agents()])
        view = self._local_views([agent.manifest.agent_id])[0]
        await self.registry.deregister(agent)
        await self.audit.log.settle()
        view.status = "gone"
        return view

    async def take_in(self, request: RegisterRequest, origin: str, least: int) -> list[str]:
        """Register agents that an entry of another registry tells of; return their ids (see ``register``, ``Owner``)."""
        views = await self.register(request, Owner(origin=origin, least=least, displace=False))
        return [view.agent_id for view in views]

    async def let_go(self, origin: str, keep: Sequence[str] = ()) -> None:
        """Withdraw the agents that came by that entry, except those of these ids; also while the kill switch is on."""
        for agent in self.registry.agents():
            if agent.saved.origin == origin and agent.manifest.agent_id not in keep:
                await self.registry.deregister(agent)

    async def renew(self, agent_id: str) -> bool:
        """Keep an ephemeral agent alive; False if it must register again."""
        return self.registry.renew(agent_id)

    def private_entry(self, agent_id: AgentId) -> OwnEntry | None:
        """Return an agent of a tenant that is not announced as an entry of a directory; None for any other."""
        agent = self.registry.get(agent_id)
        return OwnEntry(agent) if agent is not None and agent.saved.private else None

    def _view(self, entry: Any) -> AgentView:
        view = agent_view(
            entry,
            registry=self.registry,
            links=self.links,
            verdict=self.trust.verdict(entry.manifest.agent_id),
            node_name=self.name_of(entry.manifest.node_id),
            now_s=self.mesh.now_s,
            organisation=self.organisation_of(entry.manifest),
        )
        if isinstance(entry, FederatedEntry) and self.federation is not None and self.federation.is_low(view.agent_id):
            view.trust = "low"
        return view

    def organisation_of(self, manifest: Manifest) -> str:
        """Return the did:key of the organisation that vouches for an agent, as its manifest proves; "" for none."""
        with contextlib.suppress(MeshError):
            member = self.organisations.look(manifest)
            return "" if member is None else member.organisation
        return ""

    def _local_views(self, ids: Sequence[str]) -> list[AgentView]:
        entries: list[Any] = [self._brain.entry(i) or self.private_entry(i) for i in map(AgentId, ids)]
        return [self._view(entry) for entry in entries if entry is not None]

    def _manifest_of(self, agent_id: str) -> Manifest | None:
        entry: Any = self._brain.entry(agent_id) or self.sights.abroad.entry(agent_id)
        return entry.manifest if entry is not None else None
