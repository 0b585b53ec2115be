"""The table of agents: who is known, which of two records wins, and who makes room when it is full.

A last-writer-wins map: of two records of one agent the one with the higher ``rank`` stays, in whatever order they come, so
all nodes that saw the same records hold the same (research: p2p-reliability, registry).

Room is shared fairly: each entry is charged to the peer that brought it, an agent's own node pays for its agents once
it speaks for them itself. When the table is full, whoever brought most gives up its stalest entry for one who brought
less; the one who brought most can add nothing. So one peer cannot push out what others brought.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.messages import AGENT, Line
from agentmesh.core.directory.nodes import NodeState
from agentmesh.core.directory.ranges import RangeSet
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import AgentId, Key, NodeId

_K = TypeVar("_K")
Rank = tuple[bool, int, bool, int]


@dataclass(slots=True, eq=False)
class Entry:
    """One agent as this node knows it. Callers outside the directory only read.

    Attributes:
        manifest: The record that won; a tombstone is never shown by queries.
        key: DHT key of the agent; its position in range sums.
        node: The node it lives behind; shared by all its entries.
        local: Registered at this node.
        since_s: Monotonic seconds when this record was taken in.
        via: The peer charged for it.
        mark: ``manifest.mark``, kept because hashing is dear.
        checked: Local: the last health check; None before the first one.
        due_s: Local: when to ask for a fresh signature next.
        noted: Not local: whether it was healthy when that was last told.
    """

    manifest: Manifest
    key: Key
    node: NodeState
    local: bool
    since_s: float
    via: NodeId
    mark: int
    checked: bool | None = None
    due_s: float = 0.0
    noted: bool = True

    @property
    def rank(self) -> Rank:
        """What decides between two records of one agent: the higher wins."""
        return self.manifest.signed, self.manifest.seq, self.manifest.tombstone, -self.mark

    @property
    def healthy(self) -> bool | None:
        """The owner's last check; False while its node is unreachable; None for a local agent before its first check."""
        return self.checked if self.local else self.node.healthy(self.key)

    def lease_left_s(self, now_s: float) -> float:
        """Return the seconds until the entry is dropped; infinite for a local agent and while its node is up."""
        if self.local or self.node.up:
            return math.inf
        return max(0.0, max(self.node.since_s, self.since_s) + self.node.gone_after_s - now_s)


def rank_of(line: Line) -> Rank:
    """Return the rank of the record a line speaks of."""
    return line.signed, line.seq, line.gone, -line.mark


def entry_line(entry: Entry) -> Line:
    """Return the line of an entry."""
    manifest = entry.manifest
    return Line(AGENT, entry.key, manifest.seq, entry.mark, manifest.tombstone, manifest.signed)


def entry_value(entry: Entry) -> int:
    """Return the value of an entry in range sums."""
    text = b"%d %b %d %d %d %d" % (AGENT, entry.key, *entry.rank)
    return int.from_bytes(hashlib.sha256(text).digest()[:16], "big")


class Table:
    """Entries by agent id, with indexes by name and search key, and the fair-share count.

    Args:
        node_id: This node; what it brings itself is never evicted.
        config: Bounds.
        held: Gets every entry, for comparisons with peers.
        keys: Search keys of a manifest, the agent's own first.
    """

    def __init__(
        self,
        node_id: NodeId,
        config: DirectoryConfig,
        held: RangeSet[object],
        keys: Callable[[Manifest], tuple[Key, ...]],
    ) -> None:
        self.node_id = node_id
        self.config = config
        self.entries: dict[AgentId, Entry] = {}
        self.locals: dict[AgentId, None] = {}
        self._held = held
        self._keys = keys
        self._names: dict[str, tuple[AgentId, ...]] = {}
        self._by_via: dict[NodeId, int] = {}
        self._by_node: dict[NodeId, tuple[AgentId, ...]] = {}
        #: Made at the first search: most nodes are never asked, and it takes 0.5 KB per agent.
        self._by_key: dict[Key, tuple[AgentId, ...]] | None = None

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def full(self) -> bool:
        """True if an agent more costs another its place."""
        return len(self.entries) >= self.config.entries_max

    def get(self, agent_id: str) -> Entry | None:
        """Return the entry, tombstones included."""
        return self.entries.get(AgentId(agent_id))

    def named(self, name: str) -> list[Entry]:
        """Return the live entries of a name: healthy ones first, then by agent id."""
        found = [self.entries[agent] for agent in self._names.get(name, ())]
        return sorted(found, key=lambda entry: (entry.healthy is False, entry.manifest.agent_id))

    def under(self, key: Key, most: int) -> list[Entry]:
        """Return at most so many live entries under a search key: healthy ones first, then in order of arrival."""
        if self._by_key is None:
            self._by_key = {}
            for entry in self.entries.values():
                self._index_keys(entry)
        healthy: list[Entry] = []
        sick: list[Entry] = []
        for agent in self._by_key.get(key, ()):
            entry = self.entries[agent]
            (sick if entry.healthy is False else healthy).append(entry)
            if len(healthy) >= most:
                return healthy
        return (healthy + sick)[:most]

    def has_agents(self, node: NodeId) -> bool:
        """Say whether any entry, tombstones included, lives behind a node."""
        return node in self._by_node

    def behind(self, node: NodeId) -> list[Entry]:
        """Return the entries of a node, tombstones included."""
        return [self.entries[agent] for agent in self._by_node.get(node, ())]

    def live(self) -> list[Entry]:
        """Return all entries but tombstones, in order of arrival."""
        return [entry for entry in self.entries.values() if not entry.manifest.tombstone]

    def has_key(self, entry: Entry, key: Key) -> bool:
        """Say whether a live entry is to be found under a key."""
        return not entry.manifest.tombstone and key in self._keys(entry.manifest)

    def put(self, entry: Entry, *, asked: bool = False) -> list[Entry] | None:
        """Insert or replace; the caller has compared ranks.

        Args:
            entry: What to hold.
            asked: This node searched for it: it finds room though nobody brought more than its peer.

        Returns:
            The entries that made room, usually none; or None when there is no room for this one (no state changed).
        """
        old = self.entries.get(entry.manifest.agent_id)
        evicted = self._room(entry, old, asked)
        if evicted is None:
            return None
        for victim in evicted:
            self.remove(victim)
        if old is not None:
            self.remove(old)
        agent, node = entry.manifest.agent_id, entry.manifest.node_id
        self.entries[agent] = entry
        if entry.local:
            self.locals[agent] = None
        self._held.put(entry.key, entry_value(entry), entry)
        _count(self._by_via, entry.via, 1)
        _add(self._by_node, node, agent)
        if not entry.manifest.tombstone:
            _add(self._names, entry.manifest.name, agent)
            self._index_keys(entry)
        return evicted

    def remove(self, entry: Entry) -> None:
        """Drop an entry that is in the table."""
        manifest = entry.manifest
        agent = manifest.agent_id
        del self.entries[agent]
        self.locals.pop(agent, None)
        self._held.discard(entry.key)
        _count(self._by_via, entry.via, -1)
        _take(self._by_node, manifest.node_id, agent)
        if not manifest.tombstone:
            _take(self._names, manifest.name, agent)
            if self._by_key is not None:
                for key in self._keys(manifest):
                    _take(self._by_key, key, agent)

    def charge(self, entry: Entry, via: NodeId) -> None:
        """Charge an entry to another peer: its own node, when that speaks for it itself."""
        if entry.via != via:
            _count(self._by_via, entry.via, -1)
            _count(self._by_via, via, 1)
            entry.via = via

    def _index_keys(self, entry: Entry) -> None:
        if self._by_key is not None and not entry.manifest.tombstone:
            for key in self._keys(entry.manifest):
                _add(self._by_key, key, entry.manifest.agent_id)

    def _room(self, entry: Entry, old: Entry | None, asked: bool) -> list[Entry] | None:
        if entry.local or entry.via == self.node_id:
            over = old is None and self.full
            victim = self._stalest_of_largest(below=0) if over else None
            return [victim] if victim else []
        evicted: list[Entry] = []
        node = entry.manifest.node_id
        moved = old is None or old.manifest.node_id != node
        if moved and len(self._by_node.get(node, ())) >= self.config.node_agents_max:
            # Anybody can sign agents that claim to live at a node; only that node's own word displaces them.
            hearsay = [e for e in self.behind(node) if e.via not in (node, self.node_id)]
            if entry.via != node or not hearsay:
                return None
            evicted.append(min(hearsay, key=_staleness))
        if old is None and len(self.entries) - len(evicted) >= self.config.entries_max:
            victim = self._stalest_of_largest(below=0 if asked else self._by_via.get(entry.via, 0) + 1)
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
        """Raise AssertionError if counts, indexes or bounds are off."""
        by_via: dict[NodeId, int] = {}
        by_node: dict[NodeId, list[AgentId]] = {}
        names: dict[str, list[AgentId]] = {}
        by_key: dict[Key, list[AgentId]] = {}
        own = 0
        for agent, entry in self.entries.items():
            assert agent == entry.manifest.agent_id
            assert entry.node.node == entry.manifest.node_id
            assert self._held.get(entry.key) is entry
            assert (agent in self.locals) == entry.local
            _count(by_via, entry.via, 1)
            by_node.setdefault(entry.manifest.node_id, []).append(agent)
            own += entry.via == self.node_id
            assert not entry.local or (entry.via == self.node_id and not entry.manifest.tombstone)
            if not entry.manifest.tombstone:
                names.setdefault(entry.manifest.name, []).append(agent)
                for key in self._keys(entry.manifest):
                    by_key.setdefault(key, []).append(agent)
        assert by_via == self._by_via
        assert _same(by_node, self._by_node)
        assert _same(names, self._names)
        assert self._by_key is None or _same(by_key, self._by_key)
        assert len(self.entries) <= max(self.config.entries_max, own)


def _staleness(entry: Entry) -> tuple[bool, float, float, str]:
    return entry.node.up, entry.node.heard_s, entry.since_s, entry.manifest.agent_id


def _count(table: dict[NodeId, int], key: NodeId, by: int) -> None:
    count = table.get(key, 0) + by
    if count:
        table[key] = count
    else:
        del table[key]


# Nearly every list of agents has one element: a tuple of it takes a quarter of a dict's memory.


def _add(index: dict[_K, tuple[AgentId, ...]], key: _K, agent: AgentId) -> None:
    index[key] = (*index.get(key, ()), agent)


def _take(index: dict[_K, tuple[AgentId, ...]], key: _K, agent: AgentId) -> None:
    left = tuple(each for each in index[key] if each != agent)
    if left:
        index[key] = left
    else:
        del index[key]


def _same(expected: dict[_K, list[AgentId]], index: dict[_K, tuple[AgentId, ...]]) -> bool:
    return {k: sorted(v) for k, v in expected.items()} == {k: sorted(v) for k, v in index.items()}
