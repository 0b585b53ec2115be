"""Searches by key that a node waits for: each ends with its answer, or in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from agentmesh.core.messages import Find, FindDone, Found, Lookup, LookupDone, LookupHit
from agentmesh.ids import AgentId, Key, NodeId

#: How long after its own end the directory may take to say that a search ended, seconds.
_MARGIN_S = 1.0
#: Numbers of look-ups begin above all that the directory gives to its own.
_LOOKUPS_FROM = 1 << 48
_LOOKUP_S = 10.0
_PROVIDERS_MAX = 8


class _Running(NamedTuple):
    done: asyncio.Future[int]
    on_found: Callable[[AgentId], None]


class _Lookup(NamedTuple):
    done: asyncio.Future[None]
    found: dict[NodeId, tuple[str, ...]]


class Finds:
    """Begin searches and hand out what they bring.

    Args:
        feed: Gives the brain an input.
    """

    def __init__(self, feed: Callable[[Any], None]) -> None:
        self._feed = feed
        self._running: dict[int, _Running] = {}
        self._next = 0
        self._lookups: dict[int, _Lookup] = {}

    async def providers(self, key: Key) -> dict[NodeId, tuple[str, ...]]:
        """Return the nodes that say in the DHT that they provide a key, with where they can be reached; what came in time."""
        self._next += 1
        query = _LOOKUPS_FROM + self._next
        lookup = self._lookups[query] = _Lookup(asyncio.get_running_loop().create_future(), {})
        try:
            self._feed(Lookup(query, key, _PROVIDERS_MAX))
            async with asyncio.timeout(_LOOKUP_S):
                await lookup.done
        except TimeoutError:
            pass
        finally:
            del self._lookups[query]
        return lookup.found

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
        if isinstance(event, LookupHit | LookupDone):
            lookup = self._lookups.get(event.query)
            if lookup is not None and isinstance(event, LookupHit):
                lookup.found.update((provider.node_id, provider.addresses) for provider in event.providers)
            elif lookup is not None and not lookup.done.done():
                lookup.done.set_result(None)
        elif isinstance(event, Found | FindDone) and (running := self._running.get(event.query)) is not None:
            if isinstance(event, Found):
                running.on_found(event.agent_id)
            elif not running.done.done():
                running.done.set_result(event.agents)
