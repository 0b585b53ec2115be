"""The table of agents: who is known, which of two records wins, and who makes room when it is full.

A last-writer-wins map: of two records of one agent the one with the higher ``rank`` stays, in whatever order they come, so
all nodes that saw the same records hold the same (research: p2p-reliability, registry).

Room is shared fairly: each entry is charged to the peer that brought it, an agent's own node pays for its agents once
it speaks for them itself. When the table is full, whoever brought most gives up its stalest entry for one who brought
less; the one who brought most can add nothing. So one peer cannot push out what others brought.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.messages import Lease
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import AgentId, NodeId

Rank = tuple[bool, int, bool, int]


@dataclass(slots=True, eq=False)
class Entry:
    """One agent as this node knows it. Callers outside the directory only read.

    Attributes:
        manifest: The record that won; a tombstone is never shown by queries.
        healthy: The owner's last health check; None for a local agent before its first one.
        local: Registered at this node.
        renewed_s: Monotonic seconds when the owner last renewed, as far as the sender's word goes.
        since_s: Monotonic seconds when this record was taken in.
        via: The peer charged for it.
        mark: ``manifest.mark``, kept because hashing is dear.
        due_s: Local: when to ask for a fresh signature next.
        lease_s: How long a renewal holds; seconds.
    """

    manifest: Manifest
    healthy: bool | None
    local: bool
    renewed_s: float
    since_s: float
    via: NodeId
    mark: int
    due_s: float = 0.0
    lease_s: float = math.inf

    @property
    def rank(self) -> Rank:
        """What decides between two records of one agent: the higher wins."""
        return self.manifest.signed, self.manifest.seq, self.manifest.tombstone, -self.mark

    def lease_left_s(self, now_s: float) -> float:
        """Return the seconds until the entry is dropped unless renewed; infinite for a local agent."""
        return math.inf if self.local else max(0.0, self.renewed_s + self.lease_s - now_s)


def rank_of(lease: Lease) -> Rank:
    """Return the rank of the record a lease speaks of."""
    return lease.signed, lease.seq, lease.gone, -lease.mark


class Table:
    """Entries by agent id, with an index by name and the fair-share count.

    Args:
        node_id: This node; what it brings itself is never evicted.
        config: Bounds.
    """

    def __init__(self, node_id: NodeId, config: DirectoryConfig) -> None:
        self.node_id = node_id
        self.config = config
        self.entries: dict[AgentId, Entry] = {}
        self._names: dict[str, dict[AgentId, None]] = {}
        self._by_via: dict[NodeId, int] = {}
        self._by_node: dict[NodeId, int] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def get(self, agent_id: str) -> Entry | None:
        """Return the entry, tombstones included."""
        return self.entries.get(AgentId(agent_id))

    def named(self, name: str) -> list[Entry]:
        """Return the live entries of a name: healthy ones first, then by agent id."""
        found = [self.entries[agent] for agent in self._names.get(name, ())]
        return sorted(found, key=lambda entry: (entry.healthy is False, entry.manifest.agent_id))

    def live(self) -> list[Entry]:
        """Return all entries but tombstones, in order of arrival."""
        return [entry for entry in self.entries.values() if not entry.manifest.tombstone]

    def put(self, entry: Entry) -> list[Entry] | None:
        """Insert or replace; the caller has compared ranks.

        Returns:
            The entries that made room, usually none; or None when there is no room for this one (no state changed).
        """
        old = self.entries.get(entry.manifest.agent_id)
        evicted = self._room(entry, old)
        if evicted is None:
            return None
        for victim in evicted:
            self.remove(victim)
        if old is not None:
            self.remove(old)
        agent, node = entry.manifest.agent_id, entry.manifest.node_id
        self.entries[agent] = entry
        _count(self._by_via, entry.via, 1)
        _count(self._by_node, node, 1)
        if not entry.manifest.tombstone:
            self._names.setdefault(entry.manifest.name, {})[agent] = None
        return evicted

    def remove(self, entry: Entry) -> None:
        """Drop an entry that is in the table."""
        manifest = entry.manifest
        del self.entries[manifest.agent_id]
        _count(self._by_via, entry.via, -1)
        _count(self._by_node, manifest.node_id, -1)
        if not manifest.tombstone:
            named = self._names[manifest.name]
            del named[manifest.agent_id]
            if not named:
                del self._names[manifest.name]

    def charge(self, entry: Entry, via: NodeId) -> None:
        """Charge an entry to another peer: its own node, when that speaks for it itself."""
        if entry.via != via:
            _count(self._by_via, entry.via, -1)
            _count(self._by_via, via, 1)
            entry.via = via

    def _room(self, entry: Entry, old: Entry | None) -> list[Entry] | None:
        if entry.local or entry.via == self.node_id:
            over = old is None and len(self.entries) >= self.config.entries_max
            victim = self._stalest_of_largest(below=0) if over else None
            return [victim] if victim else []
        evicted: list[Entry] = []
        node = entry.manifest.node_id
        moved = old is None or old.manifest.node_id != node
        if moved and self._by_node.get(node, 0) >= self.config.node_agents_max:
            # Anybody can sign agents that claim to live at a node; only that node's own word displaces them.
            hearsay = [
                e for e in self.entries.values() if e.manifest.node_id == node and e.via not in (node, self.node_id)
            ]
            if entry.via != node or not hearsay:
                return None
            evicted.append(min(hearsay, key=_staleness))
        if old is None and len(self.entries) - len(evicted) >= self.config.entries_max:
            victim = self._stalest_of_largest(below=self._by_via.get(entry.via, 0) + 1)
            if victim is None:
                return None
            if victim not in evicted:
                evicted.append(victim)
        return evicted

    def _stalest_of_largest(self, below: int) -> Entry | None:
        """Return the stalest entry of whoever brought most, if that is more than ``below``."""
        shares = [(count, via) for via, count in self._by_via.items() if via != self.node_id and count > below]
        if not shares:
            return None
        largest = max(shares)[1]
        return min((e for e in self.entries.values() if e.via == largest), key=_staleness)

    def assert_invariants(self) -> None:
        """Raise AssertionError if counts, index or bounds are off."""
        by_via: dict[NodeId, int] = {}
        by_node: dict[NodeId, int] = {}
        names: dict[str, list[AgentId]] = {}
        own = 0
        for agent, entry in self.entries.items():
            assert agent == entry.manifest.agent_id
            _count(by_via, entry.via, 1)
            _count(by_node, entry.manifest.node_id, 1)
            own += entry.via == self.node_id
            assert not entry.local or (entry.via == self.node_id and not entry.manifest.tombstone)
            if not entry.manifest.tombstone:
                names.setdefault(entry.manifest.name, []).append(agent)
        assert by_via == self._by_via
        assert by_node == self._by_node
        assert {name: sorted(agents) for name, agents in names.items()} == {
            name: sorted(agents) for name, agents in self._names.items()
        }
        assert len(self.entries) <= max(self.config.entries_max, own)


def _staleness(entry: Entry) -> tuple[float, str]:
    return entry.renewed_s, entry.manifest.agent_id


def _count(table: dict[NodeId, int], key: NodeId, by: int) -> None:
    count = table.get(key, 0) + by
    if count:
        table[key] = count
    else:
        del table[key]
