"""Candidates for the zone: nodes of the own site, most of them near by XOR of the DHT key, a few from every distance.

Sorted into buckets by the number of leading bits they share with this node (Kademlia, Maymounkov & Mazieres 2002). When
there are too many, the farthest bucket that holds more than a handful gives one up: what stays are all the near ones and
a way into every other part of the mesh. Of a bucket those go first that nobody here has met, of the peer that told of
most, the oldest: one peer cannot push out what others told.
"""

from __future__ import annotations

from collections.abc import Iterator

from agentmesh.core.overlay.config import OverlayConfig
from agentmesh.core.overlay.messages import MARK_BYTES
from agentmesh.identity.node_record import NodeRecord
from agentmesh.ids import NodeId

#: Leading bits looked at; zones never get so deep unless somebody grinds keys.
BITS = 64


def head(key: bytes) -> int:
    """Return the first ``BITS`` bits of a key as a number."""
    return int.from_bytes(key[: BITS // 8], "big")


def shared_bits(one: int, other: int) -> int:
    """Return how many leading bits two heads share."""
    return BITS - (one ^ other).bit_length()


def mark_of(record: NodeRecord) -> bytes:
    """Return the short name of one version of a record (``messages.MARK_BYTES``)."""
    return record.key[: MARK_BYTES - 2] + (record.seq & 0xFFFF).to_bytes(2, "big")


class Candidate:
    """One node that may belong to the zone.

    Attributes:
        record: Its newest record.
        head: Of its key.
        bits: Leading bits it shares with this node.
        mark: Of the record.
        via: Who told of it.
        met: It spoke to us itself: it lives, and it knows us.
    """

    __slots__ = ("bits", "head", "mark", "met", "record", "via")

    def __init__(self, record: NodeRecord, key_head: int, bits: int, via: NodeId, met: bool) -> None:
        self.record, self.head, self.bits, self.via, self.met = record, key_head, bits, via, met
        self.mark = mark_of(record)


class Candidates:
    """The table. Args: config: bounds; own_head: ``head`` of this node's key."""

    __slots__ = ("_counts", "_marks", "_told", "by_mark", "config", "entries", "own_head")

    def __init__(self, config: OverlayConfig, own_head: int) -> None:
        self.config, self.own_head = config, own_head
        self.entries: dict[NodeId, Candidate] = {}
        self.by_mark: dict[bytes, NodeId] = {}
        self._counts = [0] * (BITS + 1)
        self._told: dict[NodeId, int] = {}
        self._marks: bytes | None = b""

    def is_spare(self, bits: int) -> bool:
        """Say whether a node that shares so many bits would only take the place of another one as far away, or farther."""
        if len(self.entries) < self.config.candidates_max:
            return False
        keep = self.config.bucket_keep
        return self._counts[bits] >= keep and not any(count > keep for count in self._counts[:bits])

    def marks(self) -> bytes:
        """Return the marks of all candidates, one after the other."""
        if self._marks is None:
            self._marks = b"".join([candidate.mark for candidate in self.entries.values()])
        return self._marks

    def put(self, record: NodeRecord, via: NodeId, *, met: bool) -> Candidate | None:
        """Take a node in, or its newer record; the caller has compared ``seq``. Returns None if there is no room for it."""
        old = self.entries.get(record.node_id)
        if old is not None:
            self._rename(old, record)
            if met:
                self.meet(old)
            return old
        if not met and self._told.get(via, 0) >= self.config.told_max:
            return None
        key_head = head(record.key)
        new = Candidate(record, key_head, shared_bits(key_head, self.own_head), via, met)
        self.entries[record.node_id] = new
        self._marks = None
        self.by_mark[new.mark] = record.node_id
        self._counts[new.bits] += 1
        self._charge(new, 1)
        if len(self.entries) > self.config.candidates_max:
            victim = self._spare()
            self.drop(victim.record.node_id)
            if victim is new:
                return None
        return new

    def meet(self, candidate: Candidate) -> None:
        """Note that a node spoke to us itself: nobody is charged for it any longer."""
        if not candidate.met:
            self._charge(candidate, -1)
            candidate.met = True

    def drop(self, node: NodeId) -> Candidate | None:
        """Forget a node; return what was known."""
        candidate = self.entries.pop(node, None)
        if candidate is not None:
            self._marks = None
            self._counts[candidate.bits] -= 1
            if self.by_mark.get(candidate.mark) == node:
                del self.by_mark[candidate.mark]
            self._charge(candidate, -1)
        return candidate

    def depth(self) -> int:
        """Return how many leading bits the members of this node's zone share, by what is known (docs/spec/overlay.md §4)."""
        config = self.config
        own, depth = len(self.entries) + 1, 0
        while own > config.zone_split_above and depth < BITS:
            other = self._counts[depth]
            half = own - other
            if half < config.zone_half_min or (other < config.zone_half_min and half < config.zone_sure):
                break
            own, depth = half, depth + 1
        return depth

    def nearest(self, count: int) -> list[Candidate]:
        """Return the ``count`` nearest by XOR, nearest first."""
        own = self.own_head
        return sorted(self.entries.values(), key=lambda c: c.head ^ own)[:count]

    def within(self, depth: int) -> Iterator[Candidate]:
        """Return those that share at least ``depth`` bits, in order of arrival."""
        return (c for c in self.entries.values() if c.bits >= depth)

    def _rename(self, candidate: Candidate, record: NodeRecord) -> None:
        if self.by_mark.get(candidate.mark) == record.node_id:
            del self.by_mark[candidate.mark]
        self._marks = None
        candidate.record, candidate.mark = record, mark_of(record)
        self.by_mark[candidate.mark] = record.node_id

    def _charge(self, candidate: Candidate, by: int) -> None:
        if not candidate.met:
            count = self._told.get(candidate.via, 0) + by
            if count:
                self._told[candidate.via] = count
            else:
                del self._told[candidate.via]

    def _spare(self) -> Candidate:
        keep = self.config.bucket_keep
        # candidates_max > keep x BITS does not hold, so a bucket may be below keep; then the fullest far one gives.
        bits = next((b for b, count in enumerate(self._counts) if count > keep), None)
        if bits is None:
            bits = next(b for b, count in enumerate(self._counts) if count)
        bucket = [c for c in self.entries.values() if c.bits == bits]
        told = self._told
        return min(bucket, key=lambda c: (c.met, 0 if c.met else -told[c.via]))

    def assert_invariants(self) -> None:
        """Raise AssertionError if counts, index or bounds are off."""
        assert len(self.entries) <= self.config.candidates_max
        counts = [0] * (BITS + 1)
        told: dict[NodeId, int] = {}
        for node, candidate in self.entries.items():
            assert node == candidate.record.node_id
            assert candidate.mark == mark_of(candidate.record)
            counts[candidate.bits] += 1
            if not candidate.met:
                told[candidate.via] = told.get(candidate.via, 0) + 1
        assert counts == self._counts
        assert self.marks() == b"".join(candidate.mark for candidate in self.entries.values())
        assert told == self._told
        assert all(count <= self.config.told_max for count in told.values())
        assert all(node in self.entries for node in self.by_mark.values())
