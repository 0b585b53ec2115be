"""The part of a node that finds agents by what they can do: in words, by filters, here and in the mesh."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentmesh.core.trust.opinion import Verdict
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import AgentId, NodeId
from agentmesh.net.tasks import TaskScope
from agentmesh.node.listing import AgentHost
from agentmesh.node.resolve import Directory, Entry
from agentmesh.node.standing import site_of
from agentmesh.obs.metrics import Readings
from agentmesh.wire.search_views import DiscoverRequest, DiscoverView
from agentmesh.wire.views import AgentView

if TYPE_CHECKING:
    from agentmesh.node.search.discover import Discovery


class DiscoverHost(AgentHost):
    """What ``Node`` does to find agents; nothing but ``Node`` inherits it. It is also the ``Eyes`` of its answers."""

    _made: Discovery | None = None

    @property
    def _discovery(self) -> Discovery:
        """The discovery of this node, made and loaded with its first use: a daemon that nobody asks does not pay for it."""
        if self._made is None:
            self._made = self._discovering(self._home, self._scope)
        return self._made

    def _read_discovery(self, readings: Readings) -> None:
        """Tell how many questions wait for the search process (``node.measure``)."""
        readings.set("agentmesh_queue_depth", 0 if self._made is None else self._made.waiting, "discover")

    def _note_agent(self, agent_id: AgentId) -> None:
        """Take note that an agent came, changed or left."""
        if self._made is not None:
            self._made.note(agent_id)

    async def _end_discovery(self) -> None:
        if self._made is not None:
            await self._made.aclose()

    def _discovering(self, home: Path, scope: TaskScope) -> Discovery:
        """Make the discovery of this node; its index is in the home directory."""
        from agentmesh.core.search.rank import Weights
        from agentmesh.node.search.discover import Discovery, Shelf, open_client

        shelf = Shelf(
            self._findable,
            self._findable_one,
            site_of=lambda node: site_of(self._brain, NodeId(node)),
            organisation_of=self.organisation_of,
        )
        return Discovery(
            self.mesh,
            self.sights,
            shelf,
            self,
            open_client(home, scope, self.config),
            weights=Weights(*self.config.discover_weights),
            asks=self.config.discover_asks,
            organisation_named=self._organisation_named,
            rng=random.Random(os.urandom(16)),  # noqa: S311 choice of peers, not secrets
        )

    async def discover(self, request: DiscoverRequest, directory: Directory | None = None) -> DiscoverView:
        """Return the agents that meet a need (see ``Discovery.find``). Raises UsageError."""
        return await self._discovery.find(request, directory)

    def watch_discover(
        self, request: DiscoverRequest, directory: Directory | None = None, *, watch: bool = False
    ) -> AsyncGenerator[DiscoverView]:
        """Yield the answer each time that it changes (see ``Discovery.snapshots``). Raises UsageError."""
        return self._discovery.snapshots(request, directory, watch=watch)

    # What answers are made of

    def view(self, entry: Entry) -> AgentView:
        """Show an entry of a directory."""
        return self._view(entry)

    def verdict(self, agent_id: str) -> Verdict:
        """Return what this node thinks of an agent."""
        return self.trust.verdict(agent_id)

    def is_revoked(self, manifest: Manifest) -> bool:
        """Say whether the key of an agent, or of its node, may do nothing here."""
        refused = self.orders.refusal_of
        return refused(manifest.agent_id) is not None or refused(manifest.node_id) is not None

    def _findable(self) -> list[Entry]:
        """Return every agent that anybody here may find: those that the node shows, and those that only a tenant sees."""
        own: list[Any] = [self.private_entry(AgentId(one.manifest.agent_id)) for one in self.registry.agents()]
        return [*self.sights.entries(), *(entry for entry in own if entry is not None)]

    def _findable_one(self, agent_id: str) -> Entry | None:
        return self.sights.entry(agent_id) or self.private_entry(AgentId(agent_id))

    def _organisation_named(self, name: str) -> str:
        """Return the first key that the policy files call so; the name itself if they call none so."""
        listed = self.policy.loaded.lists.organisation_of
        return next((key for key, organisation in listed.items() if organisation == name.casefold()), name)
