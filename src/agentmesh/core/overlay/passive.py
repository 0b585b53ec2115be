"""The reserve of long links (HyParView's passive view): nodes from anywhere, to be asked when a place is free.

Bounded. Each entry is charged to whoever told of it, and one teller fills at most a part; in a full reserve the largest
teller among some drawn entries gives one up. Nodes that were neighbours once ("tried") go last, up to half of the places.
"""

from __future__ import annotations

import random

from agentmesh.identity.node_record import NodeRecord
from agentmesh.ids import NodeId

#: Entries drawn to find one that makes room; the more, the surer the largest teller pays.
_DRAWS = 4


class Spare:
    """One node in reserve.

    Attributes:
        record: Its newest record.
        via: Who told of it.
        tried: It was a long link of ours.
        ask_s: Not to be asked before this monotonic second.
        refusals: How often it refused since it came here.
    """

    __slots__ = ("ask_s", "record", "refusals", "tried", "via")

    def __init__(self, record: NodeRecord, via: NodeId, tried: bool, ask_s: float) -> None:
        self.record, self.via, self.tried, self.ask_s = record, via, tried, ask_s
        self.refusals = 0


class Passive:
    """The reserve. Args: places: bound; share: most places for one teller."""

    __slots__ = ("_told", "entries", "places", "share")

    def __init__(self, places: int, share: int) -> None:
        self.places, self.share = places, max(1, share)
        self.entries: dict[NodeId, Spare] = {}
        self._told: dict[NodeId, int] = {}

    def put(
        self, record: NodeRecord, via: NodeId, rng: random.Random, *, tried: bool = False, ask_s: float = 0.0
    ) -> bool:
        """Take a node in, or its newer record. Returns True if it was not known here and has a place now."""
        old = self.entries.get(record.node_id)
        if old is not None:
            if record.seq > old.record.seq:
                old.record = record
            return False
        if self._told.get(via, 0) >= self.share:
            self._drop_one(via, rng)
        elif len(self.entries) >= self.places:
            self._drop_one(None, rng)
        if tried and 2 * sum(spare.tried for spare in self.entries.values()) >= self.places:
            tried = False
        self.entries[record.node_id] = Spare(record, via, tried, ask_s)
        self._told[via] = self._told.get(via, 0) + 1
        return True

    def drop(self, node: NodeId) -> Spare | None:
        """Forget a node; return what was known."""
        spare = self.entries.pop(node, None)
        if spare is not None:
            left = self._told[spare.via] - 1
            if left:
                self._told[spare.via] = left
            else:
                del self._told[spare.via]
        return spare

    def sample(self, count: int, rng: random.Random) -> list[NodeRecord]:
        """Return up to ``count`` records, drawn evenly."""
        records = [spare.record for spare in self.entries.values()]
        return records if len(records) <= count else rng.sample(records, count)

    def _drop_one(self, via: NodeId | None, rng: random.Random) -> None:
        """Drop one of some drawn entries (of ``via`` only, if given): one never tried, of the peer that told of most."""
        spares = self.entries.values()
        pool = list(spares) if via is None else [spare for spare in spares if spare.via == via]
        drawn = [pool[int(rng.random() * len(pool))] for _ in range(_DRAWS)]
        told = self._told
        self.drop(min(drawn, key=lambda spare: (spare.tried, -told[spare.via])).record.node_id)

    def assert_invariants(self) -> None:
        """Raise AssertionError if counts or bounds are off."""
        assert len(self.entries) <= self.places
        told: dict[NodeId, int] = {}
        for node, spare in self.entries.items():
            assert node == spare.record.node_id
            told[spare.via] = told.get(spare.via, 0) + 1
        assert told == self._told
        assert all(count <= self.share for count in told.values())
