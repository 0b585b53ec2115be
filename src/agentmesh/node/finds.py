"""Searches by key that a node waits for: each ends with its answer, or in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from agentmesh.core.messages import Find, FindDone, Found, Lookup, LookupDone
from agentmesh.ids import AgentId, Key, NodeId

#: How long after its own end the directory may take to say that a search ended, seconds.
_MARGIN_S = 1.0
#: Numbers of look-ups begin above all that the directory gives to its own.
_LOOKUPS_FROM = 1 << 48
_LOOKUP_S = 10.0


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
        self._lookups: dict[int, asyncio.Future[tuple[NodeId, ...]]] = {}

    async def nearest(self, key: Key) -> tuple[NodeId, ...]:
        """Return the nodes nearest to a key that answered in the DHT, nearest first; none if it takes too long."""
        self._next += 1
        query = _LOOKUPS_FROM + self._next
        done: asyncio.Future[tuple[NodeId, ...]] = asyncio.get_running_loop().create_future()
        self._lookups[query] = done
        try:
            self._feed(Lookup(query, key, 0))
            async with asyncio.timeout(_LOOKUP_S):
                return await done
        except TimeoutError:
            return ()
        finally:
            del self._lookups[query]

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

    def hear(self, event: object) -> None:
        """Take what the directory or the DHT says of a search; other events are none of it."""
        if isinstance(event, LookupDone):
            lookup = self._lookups.get(event.query)
            if lookup is not None and not lookup.done():
                lookup.set_result(event.nearest)
        elif isinstance(event, Found | FindDone) and (running := self._running.get(event.query)) is not None:
            if isinstance(event, Found):
                running.on_found(event.agent_id)
            elif not running.done.done():
                running.done.set_result(event.agents)
