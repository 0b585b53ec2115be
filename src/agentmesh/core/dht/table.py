"""The routing table: 256 buckets of proven contacts, made on demand (docs/spec/dht.md §2; Kademlia §2.2–2.4).

Old contacts that answer stay. A newcomer takes a place that is free, or that of a contact which failed; so whoever floods
us with fresh ids waits in the replacement cache and evicts nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Literal

from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.place import Place, group_of
from agentmesh.ids import NodeId

#: What became of a newcomer: it has a place; it waits for one; its network has its share of places already.
Admission = Literal["admitted", "waiting", "crowded"]


class Contact:
    """A node in the table.

    Attributes:
        place: Who it is.
        address: Where it is reached, "" = the driver knows.
        heard_s: When it last answered or asked, monotonic seconds; below 0 = restored and not heard yet.
        failures: Requests in a row it left unanswered.
    """

    __slots__ = ("address", "failures", "heard_s", "place")

    def __init__(self, place: Place, address: str, heard_s: float) -> None:
        self.place, self.address, self.heard_s, self.failures = place, address, heard_s, 0


class Bucket:
    """Contacts that share the same number of leading bits with us, and who waits for a place among them."""

    __slots__ = ("contacts", "touched_s", "waiting")

    def __init__(self, now_s: float) -> None:
        self.contacts: list[Contact] = []
        self.waiting: dict[NodeId, str] = {}
        self.touched_s = now_s


class Table:
    """All contacts of one node.

    Args:
        place: This node's own.
        config: ``k`` and the shares of a network.
    """

    __slots__ = ("_config", "_groups", "buckets", "contacts", "place")

    def __init__(self, place: Place, config: DhtConfig) -> None:
        self.place = place
        self.contacts: dict[NodeId, Contact] = {}
        self.buckets: dict[int, Bucket] = {}
        self._config = config
        self._groups: dict[str, int] = {}

    def index_of(self, number: int) -> int:
        """Return the bucket a number belongs to, 255 = the far half; -1 for our own."""
        return (self.place.number ^ number).bit_length() - 1

    def has_room(self, number: int) -> bool:
        """Say whether a newcomer would find a free place (its network aside)."""
        bucket = self.buckets.get(self.index_of(number))
        return bucket is None or len(bucket.contacts) < self._config.k

    def admit(self, place: Place, address: str, now_s: float) -> Admission:
        """Give a node that is not in the table a place, or let it wait for one.

        The caller has proof that it answers (or restores it from an earlier run, with ``now_s`` = -1).
        """
        assert place.node not in self.contacts, "admitted twice"
        assert place.node != self.place.node, "a node is not its own contact"
        index = self.index_of(place.number)
        bucket = self.buckets.get(index)
        if bucket is None:
            bucket = self.buckets[index] = Bucket(now_s)
        if len(bucket.contacts) >= self._config.k:
            self._wait(bucket, place.node, address)
            return "waiting"
        group = group_of(address)
        if group:
            if (
                self._groups.get(group, 0) >= self._config.group_table_max
                or sum(group_of(c.address) == group for c in bucket.contacts) >= self._config.group_bucket_max
            ):
                return "crowded"
            self._groups[group] = self._groups.get(group, 0) + 1
        bucket.waiting.pop(place.node, None)
        contact = Contact(place, address, now_s)
        bucket.contacts.append(contact)
        self.contacts[place.node] = contact
        return "admitted"

    def expire(self, node: NodeId) -> tuple[NodeId, str] | None:
        """Take a node out; return who waited longest-known for its place, with its address, if anybody does."""
        contact = self.contacts.pop(node, None)
        if contact is None:
            return None
        bucket = self.buckets[self.index_of(contact.place.number)]
        bucket.contacts.remove(contact)
        self._leave_group(contact.address)
        if not bucket.waiting:
            return None
        heir = next(reversed(bucket.waiting))
        return heir, bucket.waiting.pop(heir)

    def move(self, contact: Contact, address: str) -> None:
        """Note another address of a contact, unless its network has its share; then the old one stays."""
        old, new = group_of(contact.address), group_of(address)
        if new != old:
            bucket = self.buckets[self.index_of(contact.place.number)]
            if new and (
                self._groups.get(new, 0) >= self._config.group_table_max
                or sum(group_of(c.address) == new for c in bucket.contacts) >= self._config.group_bucket_max
            ):
                return
            self._leave_group(contact.address)
            if new:
                self._groups[new] = self._groups.get(new, 0) + 1
        contact.address = address

    def oldest(self, number: int) -> Contact | None:
        """Return the contact in the bucket of ``number`` that was not heard for longest."""
        bucket = self.buckets.get(self.index_of(number))
        if bucket is None or not bucket.contacts:
            return None
        return min(bucket.contacts, key=lambda c: c.heard_s)

    def touch(self, number: int, now_s: float) -> None:
        """Note that a lookup went through the bucket of ``number``."""
        bucket = self.buckets.get(self.index_of(number))
        if bucket is not None:
            bucket.touched_s = now_s

    def nearest(self, number: int, count: int, *, sound: bool = True) -> list[Contact]:
        """Return the contacts nearest to a number, nearest first.

        Buckets are visited by rising distance from ``number``: its own bucket, then all nearer to us, then farther ones.

        Args:
            number: A point of the key space.
            count: At most so many.
            sound: Leave out contacts whose last request went unanswered, as long as there are enough others.
        """
        found: list[tuple[int, Contact]] = []
        for group in self._by_distance(number):
            if sound:
                found += [(contact.place.number ^ number, contact) for contact in group if not contact.failures]
            else:
                found += [(contact.place.number ^ number, contact) for contact in group]
            if len(found) >= count:
                break
        found.sort(key=_distance)
        if sound and len(found) < count and len(found) < len(self.contacts):
            return self.nearest(number, count, sound=False)
        return [contact for _, contact in found[:count]]

    def _by_distance(self, number: int) -> Iterator[list[Contact]]:
        split = self.index_of(number)
        if split in self.buckets:
            yield self.buckets[split].contacts
        # Between two such groups every distance of the former is smaller than every one of the latter.
        yield [c for i, bucket in self.buckets.items() if i < split for c in bucket.contacts]
        for index in sorted(i for i in self.buckets if i > split):
            yield self.buckets[index].contacts

    def _wait(self, bucket: Bucket, node: NodeId, address: str) -> None:
        bucket.waiting.pop(node, None)
        if len(bucket.waiting) >= self._config.k:
            del bucket.waiting[next(iter(bucket.waiting))]
        bucket.waiting[node] = address

    def _leave_group(self, address: str) -> None:
        group = group_of(address)
        if group:
            self._groups[group] -= 1
            if not self._groups[group]:
                del self._groups[group]

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of the table is broken."""
        counted: dict[str, int] = {}
        total = 0
        for index, bucket in self.buckets.items():
            assert len(bucket.contacts) <= self._config.k, "bucket too full"
            assert len(bucket.waiting) <= self._config.k, "too many wait for a place"
            inside: dict[str, int] = {}
            for contact in bucket.contacts:
                total += 1
                assert self.index_of(contact.place.number) == index, "contact in the wrong bucket"
                assert self.contacts.get(contact.place.node) is contact, "contact not listed"
                assert contact.place.node not in bucket.waiting, "contact waits for a place it has"
                if group := group_of(contact.address):
                    counted[group] = counted.get(group, 0) + 1
                    inside[group] = inside.get(group, 0) + 1
            assert max(inside.values(), default=0) <= self._config.group_bucket_max, "a network crowds a bucket"
        assert total == len(self.contacts), "contacts and buckets differ"
        assert counted == self._groups, "networks miscounted"
        assert max(counted.values(), default=0) <= self._config.group_table_max, "a network crowds the table"


_distance = itemgetter(0)
