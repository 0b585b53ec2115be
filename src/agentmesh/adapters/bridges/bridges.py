"""All bridges of a node: made, shown and taken away. Nothing of this room is loaded before there is one."""

from __future__ import annotations

import asyncio
import os
import random

from agentmesh.adapters.bridges.base import Foreign, Host
from agentmesh.adapters.bridges.bridge import Bridge
from agentmesh.adapters.bridges.spec import BRIDGES_MAX, BridgeSpec, read_spec
from agentmesh.errors import LimitError, RecordNotFound, StateError
from agentmesh.wire.bridge_views import BridgeView


def open_foreign(spec: BridgeSpec) -> Foreign:
    """Return the other registry of a bridge; no I/O."""
    if spec.kind == "etcd":
        from agentmesh.adapters.bridges.etcd import Etcd

        return Etcd(spec)
    from agentmesh.adapters.bridges.consul import Consul

    return Consul(spec)


class Bridges:
    """The bridges of one node.

    Args:
        host: The node.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._bridges: dict[str, Bridge] = {}

    def urls(self) -> tuple[str, ...]:
        """Return the URL of each, in the order in which they were added."""
        return tuple(bridge.spec.url for bridge in self._bridges.values())

    def views(self) -> list[BridgeView]:
        """Show each."""
        return [bridge.view() for bridge in self._bridges.values()]

    def warnings(self) -> list[str]:
        """Return what a person should know of any of them."""
        return [sentence for bridge in self._bridges.values() for sentence in bridge.warnings()]

    def add(self, url: str) -> BridgeView:
        """Open a bridge.

        Raises:
            ConfigError: the URL is none of a bridge. StateError: one leads there already. LimitError: there are too many.
                No state changed.
        """
        spec = read_spec(url)
        if spec.name in self._bridges:
            raise StateError(
                f"a bridge to {spec.name} is there already",
                code="bridge.exists",
                hint=f"agentmesh bridge remove {spec.name}   then add it anew",
            )
        if len(self._bridges) >= BRIDGES_MAX:
            raise LimitError(f"{BRIDGES_MAX} bridges are there already", code="bridge.full")
        rng = random.Random(os.urandom(16))  # noqa: S311 jitter, not secrets
        bridge = self._bridges[spec.name] = Bridge(spec, open_foreign(spec), self._host, rng)
        bridge.open()
        return bridge.view()

    async def remove(self, url: str) -> BridgeView:
        """Close a bridge: what it sent out is withdrawn there, what it took in leaves the mesh. Return its last view.

        Args:
            url: Its URL, or its name.

        Raises:
            RecordNotFound: there is none. No state changed.
        """
        bridge = self._bridges.pop(url.partition("?")[0].rstrip("/"), None)
        if bridge is None:
            raise RecordNotFound(
                f"no bridge leads to {url[:200]!r}",
                code="bridge.unknown",
                hint="agentmesh bridge list   shows every bridge",
            )
        view = bridge.view()
        await bridge.aclose()
        return view

    def note_change(self) -> None:
        """Hear that an agent beside this node came, changed or went."""
        for bridge in list(self._bridges.values()):
            bridge.note_change()

    async def aclose(self) -> None:
        """Close every bridge because the node stops, which withdraws what they took in itself. Idempotent."""
        bridges = list(self._bridges.values())
        self._bridges.clear()
        await asyncio.gather(*(bridge.aclose(gone=False) for bridge in bridges))
