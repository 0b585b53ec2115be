"""Bridges and imports as the daemon offers them: what joins ``adapters.bridges`` to the node, and to config.toml.

The room of bridges is loaded when the first one is opened.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agentmesh.adapters.reach import Reach
from agentmesh.api.a2a.cards import edge_card
from agentmesh.daemon.knobs import Settings
from agentmesh.daemon.settings import Loaded, load, set_value
from agentmesh.errors import AgentNotFound, ConfigError, MeshError, RecordNotFound
from agentmesh.node.node import Node
from agentmesh.node.registry import Owner
from agentmesh.wire.bridge_views import BridgeChange, BridgeView, ImportRequest, ImportView
from agentmesh.wire.views import RegisterRequest

#: Agents of one import that are registered at once, and how long all of them may take.
_IMPORTS_AT_ONCE = 16
_IMPORT_TIMEOUT_S = 120.0

if TYPE_CHECKING:
    from agentmesh.adapters.bridges.base import Posting
    from agentmesh.adapters.bridges.bridges import Bridges
    from agentmesh.adapters.imports import Link


class Hosted:
    """The node as bridges see it (``adapters.bridges.base.Host``)."""

    def __init__(self, node: Node, port_of: Callable[[], int]) -> None:
        self._node, self._port_of = node, port_of

    @property
    def node_id(self) -> str:
        """Id of this node."""
        return self._node.node_id

    @property
    def port(self) -> int:
        """Port of its HTTP API."""
        return self._port_of()

    def own(self, edge: str) -> list[Posting]:
        """Return the agents beside this node that may go out; see ``Host.own``."""
        from agentmesh.adapters.bridges.base import Posting

        out: list[Posting] = []
        base = edge or f"http://127.0.0.1:{self.port}"
        for agent in self._node.registry.agents():
            if agent.saved.origin or agent.saved.tenant or agent.saved.private:
                continue
            manifest = agent.manifest
            with suppress(AgentNotFound):  # the directory has not taken it in yet
                url = f"{base}/a2a/{quote(manifest.name)}"
                card = edge_card(self._node.agent(manifest.agent_id), url)
                healthy = agent.health is not None and agent.health.status == "healthy"
                out.append(Posting(manifest.agent_id, manifest.name, manifest.description, url, card, healthy))
        return out

    async def take_in(self, url: str, door: str, name: str, origin: str, least: Reach) -> list[str]:
        """Register the agents behind a URL; see ``Host.take_in``."""
        chosen: Any = door
        return await self._node.take_in(RegisterRequest(url=url, door=chosen, name=name or None), origin, least)

    async def let_go(self, origin: str, keep: Sequence[str] = ()) -> None:
        """Withdraw what came by an entry; see ``Host.let_go``."""
        await self._node.let_go(origin, keep)

    def has(self, agent_id: str) -> bool:
        """Say whether an agent is registered here."""
        return self._node.registry.get(agent_id) is not None


class Bridging:
    """The bridges of this daemon (``api.backend.Registries``).

    Args:
        node: The node.
        settings: Which bridges there are at the start, and where config.toml is.
        port_of: Returns the port of the HTTP API.
    """

    def __init__(self, node: Node, settings: Settings, port_of: Callable[[], int]) -> None:
        self._node, self._settings = node, settings
        self._host = Hosted(node, port_of)
        self._bridges: Bridges | None = None
        self._changing = asyncio.Lock()

    def open(self) -> None:
        """Open the bridges of the settings; one that cannot be is a warning of the node."""
        for url in self._settings.bridges:
            try:
                self._loaded().add(url)
            except ConfigError as error:  # settings are checked before; a file of credentials is not
                self._node.mesh.warn(str(error))

    def bridges(self) -> list[BridgeView]:
        """Show every bridge."""
        return self._bridges.views() if self._bridges is not None else []

    async def add_bridge(self, url: str) -> BridgeChange:
        """Open a bridge and write it to config.toml; see ``Registries.add_bridge``."""
        async with self._changing:
            before = self._urls()
            view = self._loaded().add(url)
            return BridgeChange(bridge=view, kept=await self._keep(before))

    async def remove_bridge(self, url: str) -> BridgeChange:
        """Close a bridge and take it out of config.toml; see ``Registries.remove_bridge``."""
        async with self._changing:
            if self._bridges is None:
                raise RecordNotFound("there is no bridge", code="bridge.unknown", hint="agentmesh bridge add URL")
            before = self._urls()
            view = await self._bridges.remove(url)
            return BridgeChange(bridge=view, kept=await self._keep(before))

    async def import_from(self, request: ImportRequest) -> ImportView:
        """Register the agents that a URL leads to; see ``Registries.import_from``."""
        from agentmesh.adapters.imports import look

        self._node.switch.refuse()
        loot = await look(request.url, request.kind, own_port=self._host.port)
        view = ImportView(kind=loot.kind, refused=loot.refused)
        if request.dry_run:
            view.found = [f"{link.label}  {link.url}" for link in loot.links]
            return view
        gate = asyncio.Semaphore(_IMPORTS_AT_ONCE)
        ends = asyncio.get_running_loop().time() + _IMPORT_TIMEOUT_S

        async def take(link: Link) -> None:
            try:
                async with gate, asyncio.timeout_at(ends):
                    owner = Owner(least=link.least, displace=False)
                    view.agents += await self._node.register(RegisterRequest(url=link.url, door="a2a"), owner)
            except TimeoutError:
                loot.refuse(link.label, "import.too_slow", f"the whole import may take {_IMPORT_TIMEOUT_S:g} s")
            except MeshError as error:
                loot.refuse_error(link.label, error)

        await asyncio.gather(*map(take, loot.links))
        view.agents.sort(key=lambda agent: agent.name.casefold())
        return view

    async def aclose(self) -> None:
        """Close every bridge. Idempotent."""
        if self._bridges is not None:
            await self._bridges.aclose()

    def _urls(self) -> tuple[str, ...]:
        return self._bridges.urls() if self._bridges is not None else ()

    def _loaded(self) -> Bridges:
        if self._bridges is None:
            from agentmesh.adapters.bridges.bridges import Bridges

            self._bridges = Bridges(self._host)
            self._node.registry.on_change.append(self._bridges.note_change)
            self._node.mesh.watches.append(self._bridges.warnings)
        return self._bridges

    async def _keep(self, before: tuple[str, ...]) -> bool:
        """Write the bridges to config.toml, unless something that outweighs it says otherwise; say whether it now holds."""
        return await asyncio.to_thread(self._write, before, self._urls())

    def _write(self, before: tuple[str, ...], now: tuple[str, ...]) -> bool:
        home = self._settings.paths

        def configured() -> Loaded:
            return load({"home": home.path}, os.environ)

        loaded = configured()
        source = loaded.sources["bridges"]
        is_file = source == "default" or (source.startswith(str(home.config)) and "[profile." not in source)
        if loaded.settings.bridges != before or not is_file:
            return False
        set_value(home, "bridges", ",".join(now) if now else None)
        return configured().settings.bridges == now
