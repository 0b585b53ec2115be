"""Searches by key that a node waits for: each ends with its answer, or in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from agentmesh.core.messages import Find, FindDone, Found
from agentmesh.ids import AgentId, Key

#: How long after its own end the directory may take to say that a search ended, seconds.
_MARGIN_S = 1.0


class _Running(NamedTuple):
    done: asyncio.Future[int]
    on_found: Callable[[AgentId], None]


class Finds:
    """Begin searches and hand out what they bring.

    Args:
        feed: Gives the brain an input.
    """

    def __init__(self, feed: Callable[[Any], None]) -> None:
        self._feed = feed
        self._running: dict[int, _Running] = {}
        self._next = 0

    async def find(self, key: Key, agents_max: int, timeout_s: float, on_found: Callable[[AgentId], None]) -> int:
        """Look for agents under a key; they are in the directory afterwards.

        Args:
            key: ``dht_key`` of an agent's public key, or ``capability_key`` of a name, skill or tag.
            agents_max: Stop early when so many are found.
            timeout_s: Give up after this long.
            on_found: Told each one, those that the directory held before included.

        Returns:
            How many were found.
        """
        self._next += 1
        query = self._next
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._running[query] = _Running(done, on_found)
        try:
            self._feed(Find(query, key, agents_max, timeout_s))
            async with asyncio.timeout(timeout_s + _MARGIN_S):
                return await done
        except TimeoutError:
            return 0
        finally:
            del self._running[query]

    def hear(self, event: Found | FindDone) -> None:
        """Take what the directory says of a search."""
        running = self._running.get(event.query)
        if running is None:
            return
        if isinstance(event, Found):
            running.on_found(event.agent_id)
        elif not running.done.done():
            running.done.set_result(event.agents)
