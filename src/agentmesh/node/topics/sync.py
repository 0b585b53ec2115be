"""Retained values between neighbours: whoever comes later asks for what it has not (docs/spec/topics.md §5).

When a link comes up, and every few minutes with one neighbour, sums over ranges of subjects are compared; of the ranges that
differ the lines come, and of the lines that are newer the values. Each side asks for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

from agentmesh.errors import DecodeError, MeshError, SignatureError, StateError
from agentmesh.identity.publication import Publication, read_publication
from agentmesh.ids import NodeId
from agentmesh.net.tasks import TaskScope
from agentmesh.node.links import Links, Peer
from agentmesh.node.topics.asking import Asking
from agentmesh.store.topics import RETAINED_MAX, RetainedStore, subject_key
from agentmesh.wire.topics import LINE_BYTES, WANTED_MAX, Sums, Wanted

_log = logging.getLogger("agentmesh.topics")

#: How often one neighbour is asked, seconds, and how much of that is left to chance.
ASK_S, _JITTER = 300.0, 0.5
#: A new link is asked within so long, by chance, so that nodes do not ask in step.
_FIRST_S = 0.3
#: Signatures verified before others get their turn: 60 µs each.
_SLICE = 16
_ASKING_MAX = 64


class RetainedSync:
    """Ask neighbours for retained values.

    Args:
        asking, links: To peers.
        retained: What is here.
        take: Takes a publication that holds, as it travels; says whether it was news.
        on_misbehaved: Called with (peer, code, detail).
        scope: Owns the tasks.
        rng: For jitter.
    """

    def __init__(
        self,
        asking: Asking,
        links: Links,
        retained: RetainedStore,
        *,
        take: Callable[[Publication, bytes], bool],
        on_misbehaved: Callable[[NodeId, str, str], None],
        scope: TaskScope,
        rng: random.Random,
    ) -> None:
        self._asking, self._links, self._retained = asking, links, retained
        self._take, self._on_misbehaved, self._scope, self._rng = take, on_misbehaved, scope, rng
        self._running: dict[NodeId, None] = {}

    def open(self) -> None:
        """Begin to ask."""
        self._scope.spawn(self._ask_loop(), "sync")

    def on_up(self, peer: Peer) -> None:
        """Ask a peer soon whose link came up."""
        node = peer.link.peer
        if node not in self._running and len(self._running) < _ASKING_MAX:
            with contextlib.suppress(StateError):  # the node shuts down
                self._scope.spawn(self._ask_later(node), "sync-first", quiet=True)
                self._running[node] = None

    async def _ask_later(self, node: NodeId) -> None:
        try:
            await asyncio.sleep(self._rng.uniform(0.0, _FIRST_S))
            await self.ask(node)
        finally:
            self._running.pop(node, None)

    async def _ask_loop(self) -> None:
        while True:
            await asyncio.sleep(ASK_S * self._rng.uniform(1 - _JITTER, 1 + _JITTER))
            peers = list(self._links.peers())
            if peers:
                await self.ask(self._rng.choice(peers).link.peer)

    async def ask(self, node: NodeId) -> int:
        """Ask a neighbour for what is newer there; return how many values were taken. Silence is no fault."""
        taken = 0
        try:
            if not self._links.is_connected(node):
                return 0
            reply = await self._asking.ask(node, Sums(sums=self._retained.sums()))
            wanted = self._retained.wants(reply.lines[: RETAINED_MAX * LINE_BYTES])
            while wanted:
                keys = wanted[:WANTED_MAX]
                reply = await self._asking.ask(node, Wanted(keys=b"".join(keys)))
                asked = dict.fromkeys(keys)
                came = 0
                for place, raw in enumerate(reply.raws):
                    if place % _SLICE == _SLICE - 1:
                        await asyncio.sleep(0)
                    one = read_publication(raw)
                    key = subject_key(one.subject)
                    if key not in asked:
                        raise DecodeError("a retained value that was not asked for", code="topic.unasked")
                    del asked[key]
                    came += 1
                    taken += self._take(one, raw)
                # What did not fit comes next; what is not there any more does not come at all.
                wanted = wanted[WANTED_MAX:] if not came else [*asked, *wanted[WANTED_MAX:]]
        except (DecodeError, SignatureError) as error:
            self._on_misbehaved(node, error.code, str(error))
        except MeshError as error:
            _log.debug("retained values were not compared: %s", error)
        return taken
