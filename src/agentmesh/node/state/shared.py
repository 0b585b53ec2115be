"""Shared state at a node, opened by its first use: an idle node loads and writes nothing of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agentmesh.core.messages import Advertise
from agentmesh.engines.base import CriticalStore
from agentmesh.errors import MeshError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import AgentId
from agentmesh.net.base import Stream
from agentmesh.node.links import Peer
from agentmesh.node.mesh import Mesh
from agentmesh.obs.metrics import Readings
from agentmesh.wire.state_views import LevelName, SpaceList, StateChange, StateHistory, StateKeys, StateView

if TYPE_CHECKING:
    from agentmesh.core.state.inputs import Members
    from agentmesh.node.state.replicas import Replicas
    from agentmesh.node.state.spaces import Spaces

SPACES_FILE = "spaces.sqlite"
#: An estimate of so many nodes or fewer says nothing.
_WHOLE_MIN = 8


class SharedState:
    """The spaces of a node (``api.messaging.State``).

    Args:
        key: The node's key.
        home: Where the file is.
        mesh: The node's part in the network.
        critical: The engine for level LINEARIZABLE.
        refuse: Raises ReadOnly while nothing may be changed here.
    """

    def __init__(
        self, key: KeyPair, home: Path, mesh: Mesh, critical: CriticalStore, refuse: Callable[[], None]
    ) -> None:
        self._key, self._path, self._mesh, self._critical, self._refuse = (
            key,
            home / SPACES_FILE,
            mesh,
            critical,
            refuse,
        )
        self._spaces: Spaces | None = None
        self._is_closed = False

    def open(self) -> None:
        """Bring back the spaces of earlier runs, if there are any. Raises StoreError, ConfigError."""
        if self._path.exists():
            self._use()

    def _use(self) -> Spaces:
        if self._spaces is None:
            if self._is_closed:
                from agentmesh.errors import StateError

                raise StateError("the node has stopped", code="state.closed")
            from agentmesh.node.state.linear import Linear
            from agentmesh.node.state.spaces import Spaces

            linear = Linear(self._mesh.node_id, self._critical)
            self._spaces = Spaces(
                self._mesh.node_id, self._open_replicas, linear, lambda: len(self._members().nodes) + 1
            )
            self._spaces.replicas.open()
        return self._spaces

    def _open_replicas(self, on_changed: Callable[[str, str], None]) -> Replicas:
        from agentmesh.core.state.config import StateConfig
        from agentmesh.node.state.replicas import Replicas
        from agentmesh.node.state.wires import Wires

        mesh = self._mesh
        return Replicas(
            self._key,
            self._path,
            StateConfig(),
            lambda feed: Wires(mesh.links, contact_of=mesh.contact_of, feed=feed, on_misbehaved=mesh.note_misbehaviour),
            members=self._members,
            providers=mesh.providers,
            hint=lambda node, addresses: mesh.hint(node, addresses, "peer"),
            advertise=lambda keys: mesh.feed(Advertise(AgentId(mesh.node_id), keys)),
            on_changed=on_changed,
            on_misbehaved=mesh.note_misbehaviour,
        )

    def _members(self) -> Members:
        """Return who is there, as the machines of the brain know it."""
        from agentmesh.core.state.inputs import Members

        brain = self._mesh.brain
        watched = [view.node for view in brain.swim.members() if view.state == "alive"]
        linked = [peer.link.peer for peer in self._mesh.links.peers()]
        cut = brain.cut_off()
        nodes = tuple(dict.fromkeys((*linked, *watched)))
        is_sure = cut is None or 2 * cut.lost < cut.known
        return Members(nodes, is_sure, whole=brain.dht.size_estimate() <= max(_WHOLE_MIN, 1.5 * (len(nodes) + 1)))

    # Other nodes

    async def serve(self, peer: Peer, stream: Stream) -> None:
        """Speak with a peer about shared state on a stream that it opened."""
        try:
            spaces = self._use()
        except MeshError:
            stream.reset(4)
            return
        await spaces.replicas.wires.serve(peer, stream)

    def on_up(self, peer: Peer) -> None:
        """Take note of a link that is up."""
        if self._spaces is not None:
            self._spaces.replicas.on_up(peer)

    def read_measures(self, readings: Readings) -> None:
        """Tell the figures of shared state (``obs.metrics``)."""
        if self._spaces is None:
            for name in ("spaces", "keys", "bytes", "waiting"):
                readings.set(f"agentmesh_state_{name}", 0)
            return
        machine = self._spaces.replicas.machine
        readings.set_all("agentmesh_state_operations_total", self._spaces.ended.read())
        readings.set_all("agentmesh_state_refused_total", self._spaces.replicas.refusals.read())
        readings.set("agentmesh_state_spaces", len(machine.spaces))
        readings.set("agentmesh_state_keys", machine.ground.keys)
        readings.set("agentmesh_state_bytes", machine.ground.bytes)
        readings.set("agentmesh_state_waiting", len(machine.waits))

    # Programs

    async def get(self, space: str, key: str, *, level: LevelName, token: str) -> StateView:
        """Read a key (see ``api.messaging.State``, as for all below)."""
        return await self._use().get(space, key, level=level, token=token)

    async def change(self, space: str, key: str, change: StateChange) -> StateView:
        """Do one operation. Raises ReadOnly too."""
        self._refuse()
        return await self._use().change(space, key, change)

    async def history(self, space: str, key: str) -> StateHistory:
        """Return what was done to a key."""
        return await self._use().history(space, key)

    async def watch(self, space: str, prefix: str, *, initial: bool) -> AsyncGenerator[StateView, None]:
        """Yield keys that change."""
        changes = self._use().watch(space, prefix, initial=initial)
        try:
            async for view in changes:
                yield view
        finally:
            await changes.aclose()

    async def spaces(self) -> SpaceList:
        """Return the spaces of which this node has a replica."""
        return await self._use().spaces()

    async def keys(self, space: str, prefix: str, limit: int) -> StateKeys:
        """Return keys of a space."""
        return await self._use().keys(space, prefix, limit)

    async def aclose(self) -> None:
        """Stop. Idempotent."""
        self._is_closed = True
        if self._spaces is not None:
            await self._spaces.aclose()
