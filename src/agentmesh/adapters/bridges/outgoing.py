"""The way out of a bridge: the agents beside this node, published whenever they change, under a lease that is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from agentmesh.adapters.bridges.base import TTL_S, Foreign, Host, Posting
from agentmesh.adapters.bridges.spec import BridgeSpec

#: Changes within this time go out together.
_GATHER_S = 0.05
#: Everything is written again after this time, whoever meddled with it.
_REFRESH_S = 300.0


class Outgoing:
    """Publish the agents of one node in one foreign registry.

    Args:
        spec: Which agents, and under which address.
        foreign: The registry.
        host: The node.
        on_up: Called whenever what stands there is what should.

    Attributes:
        posted: What stands there.
    """

    def __init__(self, spec: BridgeSpec, foreign: Foreign, host: Host, *, on_up: Callable[[], None]) -> None:
        self._spec, self._foreign, self._host, self._on_up = spec, foreign, host, on_up
        self._changed = asyncio.Event()
        self.posted: list[Posting] = []

    def note_change(self) -> None:
        """Hear that an agent beside this node came, changed or went."""
        self._changed.set()

    async def run(self) -> None:
        """Publish until it fails; to be run again then. Raises as ``Foreign`` does."""
        refreshed_s = kept_s = time.monotonic()
        is_fresh = True
        while True:
            self._changed.clear()
            postings = self._wanted()
            await self._foreign.publish(postings, self._host.node_id, fresh=is_fresh)
            self.posted = postings
            self._on_up()
            with suppress(TimeoutError):
                async with asyncio.timeout(TTL_S / 3):
                    await self._changed.wait()
            await asyncio.sleep(_GATHER_S)
            now_s = time.monotonic()
            if now_s - kept_s >= TTL_S / 3:
                await self._foreign.keep()
                kept_s = now_s
            is_fresh = now_s - refreshed_s >= _REFRESH_S
            refreshed_s = now_s if is_fresh else refreshed_s

    def _wanted(self) -> list[Posting]:
        named = {name.casefold() for name in self._spec.agents}
        return [one for one in self._host.own(self._spec.edge) if not named or one.name.casefold() in named]
