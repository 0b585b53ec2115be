"""Who has a lock, judged by one contender from what it saw of a compare-and-set register (docs/spec/engines.md §4; adr/0009).

A lock is a record with a holder and a time to live. It is free if there is none, or if this contender has seen the same revision
of it for its whole time to live by its own monotonic clock. Whoever takes it writes against the revision that it saw, so that of
several one wins; the revision of that write is the fencing token. No clock is compared with another: one that runs wrong lets a
contender come early or late, and a resource that refuses lower tokens is safe in either case.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

HOLDER_CHARS_MAX = 128
NODE_CHARS_MAX = 128
TTL_MS_MAX = 3_600_000
RECORD_BYTES_MAX = 1024


class Lease(msgspec.Struct, array_like=True, frozen=True):
    """What is written of a lock.

    Attributes:
        holder, node: Who has it: a name, and the id of the node at which it asked.
        ttl_ms: Free after so long without another revision.
        token: Revision of the write that took it; 0 = this very write.
    """

    holder: str
    node: str
    ttl_ms: int
    token: int = 0


#: Stands for a record that cannot be read: somebody's, for as long as one can be.
UNREADABLE = Lease("?", "", TTL_MS_MAX)


class Seen(NamedTuple):
    """A lock as this contender saw it.

    Attributes:
        lease, revision: What was there.
        since_s: When this revision was first seen, by our clock; for a write of our own, when it was sent.
    """

    lease: Lease
    revision: int
    since_s: float

    @property
    def token(self) -> int:
        """The fencing token of its holder."""
        return self.lease.token or self.revision

    @property
    def until_s(self) -> float:
        """When it is free by our clock unless another revision comes."""
        return self.since_s + self.lease.ttl_ms / 1000


class Take(NamedTuple):
    """It is free: write a lease of our own against that revision (0 = there is none)."""

    expect: int


class Keep(NamedTuple):
    """It is ours already: write it again against that revision, with that token."""

    expect: int
    token: int


class Wait(NamedTuple):
    """Another one has it."""

    seen: Seen


class Contender:
    """What one node saw of locks.

    Args:
        seen_max: Most locks of which it is remembered since when their revision was seen; of others, it begins anew.
    """

    def __init__(self, seen_max: int = 4096) -> None:
        self._seen_max = seen_max
        self._seen: dict[str, Seen] = {}

    def see(self, name: str, raw: bytes | None, revision: int, now_s: float) -> Seen | None:
        """Take note of what was read, or of what we wrote.

        Args:
            name: Of the lock.
            raw: Its record; None = there is none.
            revision: Of the record.
            now_s: Our monotonic clock: after a read, before a write.

        Returns:
            What is known of it now; None if there is none.
        """
        if raw is None:
            self._seen.pop(name, None)
            return None
        known = self._seen.get(name)
        if known is not None and revision <= known.revision:
            return known
        if known is None and len(self._seen) >= self._seen_max:
            del self._seen[next(iter(self._seen))]
        seen = self._seen[name] = Seen(read_lease(raw), revision, now_s)
        return seen

    def known(self, name: str) -> Seen | None:
        """Return what was seen of a lock last; it may be old."""
        return self._seen.get(name)

    def judge(self, seen: Seen | None, holder: str, node: str, now_s: float) -> Take | Keep | Wait:
        """Say what somebody who wants a lock is to do next."""
        if seen is None:
            return Take(0)
        if (seen.lease.holder, seen.lease.node) == (holder, node):
            return Keep(seen.revision, seen.token)
        if now_s >= seen.until_s:
            return Take(seen.revision)
        return Wait(seen)

    def forget(self, name: str) -> None:
        """Begin anew with a lock, because it is not known what is there."""
        self._seen.pop(name, None)


_encode = msgspec.msgpack.Encoder().encode
_decode: Any = msgspec.msgpack.Decoder(Lease).decode


def write_lease(lease: Lease) -> bytes:
    """Return the record."""
    return _encode(lease)


def read_lease(raw: bytes) -> Lease:
    """Read a record; one that nobody of us writes is ``UNREADABLE``."""
    try:
        lease: Lease = _decode(raw[: RECORD_BYTES_MAX + 1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return UNREADABLE
    is_right = (
        len(raw) <= RECORD_BYTES_MAX
        and 0 < lease.ttl_ms <= TTL_MS_MAX
        and lease.token >= 0
        and len(lease.holder) <= HOLDER_CHARS_MAX
        and len(lease.node) <= NODE_CHARS_MAX
    )
    return lease if is_right else UNREADABLE
