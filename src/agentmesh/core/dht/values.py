"""Provider records held for others and for ourselves (docs/spec/dht.md §6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from agentmesh.core.dht.config import DhtConfig
from agentmesh.identity.provider import Provider
from agentmesh.ids import Key, NodeId

#: What became of a record: held now; held already, or a newer one; no room for it.
Kept = Literal["kept", "known", "full"]


class Values:
    """A bounded map from key to the newest record of each (agent, node).

    Args:
        place: Our own point in the key space: what is farthest from it goes first when room runs out.
        config: Bounds.
    """

    __slots__ = ("_by_node", "_config", "_place", "count", "keys")

    def __init__(self, place: int, config: DhtConfig) -> None:
        self.keys: dict[Key, list[Provider]] = {}
        self.count = 0
        self._place = place
        self._config = config
        self._by_node: dict[NodeId, int] = {}

    def admit(self, provider: Provider, now_unix_s: int) -> Kept:
        """Take a verified, unexpired record; of two of one (agent, node) the higher ``seq`` stays."""
        held = self.keys.get(provider.key)
        if held is None:
            held = self.keys[provider.key] = []
        mine = 0
        for index, other in enumerate(held):
            if other.node_id == provider.node_id:
                if other.agent_id == provider.agent_id:
                    if other.seq >= provider.seq:
                        return "known"
                    held[index] = provider
                    return "kept"
                mine += 1
        if mine >= self._config.values_node_max or len(held) >= self._config.values_max:
            self._expire_key(provider.key, now_unix_s)
            held = self.keys.setdefault(provider.key, [])
            mine = sum(other.node_id == provider.node_id for other in held)
            if mine >= self._config.values_node_max or len(held) >= self._config.values_max:
                return "full"
        held.append(provider)
        self._count(provider.node_id, 1)
        if self.count > self._config.records_max:
            self._evict(now_unix_s)
            return "kept" if provider in self.keys.get(provider.key, ()) else "full"
        return "kept"

    def of(self, key: Key, now_unix_s: int) -> list[Provider]:
        """Return the live records under a key, in order of arrival."""
        held = self.keys.get(key)
        if held is None:
            return []
        if any(provider.exp < now_unix_s for provider in held):
            self._expire_key(key, now_unix_s)
            return self.keys.get(key, [])
        return held

    def drop(self, key: Key) -> None:
        """Forget all records under a key."""
        for provider in self.keys.pop(key, ()):
            self._count(provider.node_id, -1)

    def expire(self, now_unix_s: int) -> None:
        """Forget what has expired; a scan, to be made once a minute."""
        dated = [key for key, held in self.keys.items() if any(p.exp < now_unix_s for p in held)]
        for key in dated:
            self._expire_key(key, now_unix_s)

    def records(self) -> Iterator[Provider]:
        """Iterate over all records."""
        for held in self.keys.values():
            yield from held

    def _expire_key(self, key: Key, now_unix_s: int) -> None:
        live: list[Provider] = []
        for provider in self.keys[key]:
            if provider.exp < now_unix_s:
                self._count(provider.node_id, -1)
            else:
                live.append(provider)
        if live:
            self.keys[key] = live
        else:
            del self.keys[key]

    def _evict(self, now_unix_s: int) -> None:
        """Make room for a twentieth: what expired; then of nodes above a fair share; then whole keys, farthest first."""
        self.expire(now_unix_s)
        target = self._config.records_max * 19 // 20
        if self.count <= target:
            return
        farthest = sorted(self.keys, key=lambda key: int.from_bytes(key, "big") ^ self._place, reverse=True)
        share = max(1, target // max(1, len(self._by_node)))
        for key in farthest:
            if self.count <= target:
                return
            over: list[Provider] = []
            for provider in self.keys[key]:
                if self.count > target and self._by_node[provider.node_id] > share:
                    over.append(provider)
                    self._count(provider.node_id, -1)
            if over:
                left = [p for p in self.keys[key] if p not in over]
                if left:
                    self.keys[key] = left
                else:
                    del self.keys[key]
        for key in farthest:
            if self.count <= target:
                return
            self.drop(key)

    def _count(self, node: NodeId, change: int) -> None:
        self.count += change
        left = self._by_node.get(node, 0) + change
        if left:
            self._by_node[node] = left
        else:
            self._by_node.pop(node, None)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of the store is broken."""
        assert self.count == sum(len(held) for held in self.keys.values()) <= self._config.records_max
        counted: dict[NodeId, int] = {}
        for key, held in self.keys.items():
            assert 0 < len(held) <= self._config.values_max, "key empty or too full"
            assert len({(p.agent_id, p.node_id) for p in held}) == len(held), "two records of one agent and node"
            for provider in held:
                assert provider.key == key, "record under a wrong key"
                counted[provider.node_id] = counted.get(provider.node_id, 0) + 1
        assert counted == self._by_node, "sources miscounted"
