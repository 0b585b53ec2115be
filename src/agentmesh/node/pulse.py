"""Notice within a second that a node under whose calls the ground has gone does not answer any more.

A transport takes many seconds to give up a dead peer. While calls that could go elsewhere wait for a node, it is asked a small
question now and then; one that does not answer in time is quiet. Quiet is no proof: the calls there go on, and others are
begun beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator

from agentmesh.errors import MeshError
from agentmesh.ids import NodeId
from agentmesh.net.tasks import TaskScope
from agentmesh.node.links import Links, Peer
from agentmesh.wire import v1

#: A node is asked so often, and only while a call has waited for so long, seconds.
_REST_S = 0.15
#: It may take so long to answer, and at least four round trips, seconds.
_ANSWER_S, _ANSWER_ROUNDS = 0.5, 4


class Pulse:
    """Watch the nodes at which calls wait.

    Args:
        links: To peers.
        scope: Owns the tasks that ask.
        on_quiet: Called with each node that did not answer.
    """

    def __init__(self, links: Links, scope: TaskScope, on_quiet: Callable[[NodeId], None]) -> None:
        self._links, self._scope, self._on_quiet = links, scope, on_quiet
        self._watchers: dict[NodeId, dict[object, tuple[float, Callable[[], None]]]] = {}

    @contextlib.contextmanager
    def watching(self, node_id: NodeId, on_quiet: Callable[[], None]) -> Generator[None]:
        """Call ``on_quiet`` at most once, if the node does not answer while the block runs."""
        watchers = self._watchers.get(node_id)
        if watchers is None:
            watchers = self._watchers[node_id] = {}
            with contextlib.suppress(MeshError):  # Too many tasks: the call is as good as before, only not watched.
                self._scope.spawn(self._watch(node_id, watchers), "pulse", quiet=True)
        mark = object()
        watchers[mark] = time.monotonic(), on_quiet
        try:
            yield
        finally:
            watchers.pop(mark, None)

    async def _watch(self, node_id: NodeId, watchers: dict[object, tuple[float, Callable[[], None]]]) -> None:
        try:
            await asyncio.sleep(_REST_S)
            while watchers:
                oldest_s, _ = next(iter(watchers.values()))
                if time.monotonic() - oldest_s >= _REST_S and not await self._answers(node_id):
                    self._on_quiet(node_id)
                    waiting = list(watchers.values())
                    watchers.clear()
                    for _, on_quiet in waiting:
                        on_quiet()
                await asyncio.sleep(_REST_S)
        finally:
            if self._watchers.get(node_id) is watchers:
                del self._watchers[node_id]

    async def _answers(self, node_id: NodeId) -> bool:
        """Say whether a node answers; a link that is closed says so by itself to whoever waits on it."""
        peer = self._links.peer(node_id)
        if peer is None or peer.link.is_closed:
            return True
        try:
            async with asyncio.timeout(max(_ANSWER_S, _ANSWER_ROUNDS * (peer.link.rtt_s or 0.0))):
                await self._ask(peer)
        except TimeoutError:
            return False
        except MeshError:
            return True
        return True

    async def _ask(self, peer: Peer) -> None:
        """Ask for what every node tells at once and from memory."""
        stream = await peer.link.open_stream()
        try:
            await stream.send(v1.encode(v1.NetQuery(v=v1.WIRE_VERSION)))
            await stream.recv()
        finally:
            stream.reset(0)
