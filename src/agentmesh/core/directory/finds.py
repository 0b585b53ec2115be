"""Running searches: what each still waits for, and what it found (docs/spec/directory.md §7)."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentmesh.core.machine import Outbox
from agentmesh.core.messages import Find, FindDone, Found
from agentmesh.ids import AgentId, Key, NodeId


@dataclass(slots=True)
class Search:
    """One search.

    Attributes:
        query: As asked.
        key: What is looked for.
        agents_max: Enough.
        found: Agents told so far.
        seeks: Neighbours that have not answered.
        wants: Positions of manifests that were asked for, and of whom.
        wants_left: How many more may be asked for.
        in_dht: The DHT is still looking.
        lonely: It began while there was nobody to ask; the first peer that comes is asked.
    """

    query: int
    key: Key
    agents_max: int
    wants_left: int
    found: dict[AgentId, None] = field(default_factory=dict[AgentId, None])
    seeks: dict[NodeId, None] = field(default_factory=dict[NodeId, None])
    wants: dict[bytes, NodeId] = field(default_factory=dict[bytes, NodeId])
    in_dht: bool = True
    lonely: bool = False

    @property
    def over(self) -> bool:
        """True when nothing more is to be expected."""
        return len(self.found) >= self.agents_max or not (self.in_dht or self.seeks or self.wants or self.lonely)


class Finds:
    """Searches by query, bounded.

    Args:
        finds_max: At most so many at once.
        wants_max: Manifests that one search may ask for.
    """

    def __init__(self, finds_max: int, wants_max: int) -> None:
        self.finds_max = finds_max
        self.wants_max = wants_max
        self.running: dict[int, Search] = {}

    def start(self, find: Find) -> Search | None:
        """Begin a search; None if too many run, or this one does."""
        if len(self.running) >= self.finds_max or find.query in self.running:
            return None
        search = self.running[find.query] = Search(find.query, find.key, max(1, find.agents_max), self.wants_max)
        return search

    def seeking(self, peer: NodeId, key: bytes) -> list[Search]:
        """Return the searches for a key that wait for a neighbour's answer."""
        return [search for search in self.running.values() if search.key == key and peer in search.seeks]

    def note_found(self, search: Search, agent: AgentId, out: Outbox) -> None:
        """Tell an agent, once."""
        if agent not in search.found and len(search.found) < search.agents_max:
            search.found[agent] = None
            out.emit(Found(search.query, agent))

    def note_answer(self, peer: NodeId, out: Outbox) -> None:
        """Note that a peer answered a ``Want``: what it did not send it does not have."""
        for search in list(self.running.values()):
            if peer in search.wants.values():
                search.wants = {at: asked for at, asked in search.wants.items() if asked != peer}
                self.settle(search, out)

    def settle(self, search: Search, out: Outbox) -> None:
        """End a search if nothing more is to be expected."""
        if search.over:
            self.end(search, out)

    def end(self, search: Search, out: Outbox) -> None:
        """End a search."""
        if self.running.pop(search.query, None) is not None:
            out.emit(FindDone(search.query, len(search.found)))

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken or a search waits for nothing."""
        assert len(self.running) <= self.finds_max
        for query, search in self.running.items():
            assert query == search.query
            assert not search.over
            assert len(search.wants) <= self.wants_max
            assert len(search.found) < search.agents_max
