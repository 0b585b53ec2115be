"""From one publication to everybody here who follows its subject: one event, shared; one bounded ring for each subscriber.

A subscriber that does not read loses its own oldest events and hears how many; nobody waits for it. Publishing costs no task and
no copy per subscriber: it appends to rings, and wakes those that wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from agentmesh.core.topics.subjects import PatternTable
from agentmesh.errors import LimitError, UsageError
from agentmesh.wire.message_views import CloudEventView

SUBSCRIBERS_MAX = 10_000
PATTERNS_EACH_MAX, PATTERNS_MAX = 64, 50_000
#: Events, and bytes of their payloads, that wait for one subscriber.
RING_MAX, RING_BYTES_MAX = 1_024, 8 * 1024 * 1024
_CACHE_MAX = 4_096


class Subscriber:
    """One follower of subjects.

    Attributes:
        patterns: What it follows.
        who: Ids and names by which rules know it.
        lost: How many events it has lost since the last one that it read.
        lost_total: How many in all.
    """

    __slots__ = ("_bytes", "_ring", "_sizes", "_waiter", "lost", "lost_total", "patterns", "who")

    def __init__(self, patterns: tuple[str, ...], who: frozenset[str]) -> None:
        self.patterns, self.who = patterns, who
        self.lost = self.lost_total = 0
        self._ring: deque[CloudEventView] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: CloudEventView, size: int) -> None:
        """Give it an event of so many bytes; the oldest make room."""
        ring, sizes = self._ring, self._sizes
        ring.append(event)
        sizes.append(size)
        self._bytes += size
        while len(ring) > RING_MAX or (self._bytes > RING_BYTES_MAX and len(ring) > 1):
            ring.popleft()
            self._bytes -= sizes.popleft()
            self.lost += 1
            self.lost_total += 1
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def take(self) -> CloudEventView | None:
        """Return the next event, None if there is none now."""
        if not self._ring:
            return None
        event = self._ring.popleft()
        self._bytes -= self._sizes.popleft()
        if self.lost:
            event = msgspec.structs.replace(event, lost=self.lost)
            self.lost = 0
        return event

    @property
    def waiting(self) -> int:
        """Events that wait for it."""
        return len(self._ring)

    async def wait(self) -> None:
        """Wait until there is an event."""
        while not self._ring:
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            await waiter


class Fanout:
    """Everybody at this node who follows subjects.

    Args:
        may_follow: Says whether somebody known by these names may subscribe to a subject.
    """

    def __init__(self, may_follow: Callable[[str, frozenset[str]], bool]) -> None:
        self._may_follow = may_follow
        self._table: PatternTable[Subscriber] = PatternTable(PATTERNS_MAX)
        self._subscribers: dict[Subscriber, None] = {}
        self._cache: dict[str, tuple[Subscriber, ...]] = {}
        #: Events put into rings, and taken out of them unread, since the start.
        self.delivered = self._lost_gone = 0

    def __len__(self) -> int:
        return len(self._subscribers)

    @property
    def lost(self) -> int:
        """Events that subscribers lost since the start."""
        return self._lost_gone + sum(one.lost_total for one in self._subscribers)

    def followed(self) -> dict[str, int]:
        """Return the patterns that are followed, and by how many."""
        counts: dict[str, int] = {}
        for one in self._subscribers:
            for pattern in one.patterns:
                counts[pattern] = counts.get(pattern, 0) + 1
        return counts

    def subscribe(self, patterns: Sequence[str], who: frozenset[str]) -> Subscriber:
        """Add a subscriber.

        Raises:
            UsageError: no pattern, or one that is none (codes "topic.pattern"). Nothing changed.
            LimitError: too many patterns or subscribers (codes "topic.patterns", "topic.patterns_full",
                "topic.subscribers"). Nothing changed.
        """
        wanted = tuple(dict.fromkeys(patterns))
        if not wanted:
            raise UsageError("a subscription without subjects", code="topic.pattern")
        if len(wanted) > PATTERNS_EACH_MAX:
            raise LimitError(f"{len(wanted)} patterns, at most {PATTERNS_EACH_MAX}", code="topic.patterns")
        if len(self._subscribers) >= SUBSCRIBERS_MAX:
            raise LimitError(f"{SUBSCRIBERS_MAX} subscribers are here", code="topic.subscribers")
        one = Subscriber(wanted, who)
        added: list[str] = []
        try:
            for pattern in wanted:
                self._table.add(pattern, one)
                added.append(pattern)
        except BaseException:
            for pattern in added:
                self._table.remove(pattern, one)
            raise
        self._subscribers[one] = None
        self._cache.clear()
        return one

    def unsubscribe(self, one: Subscriber) -> None:
        """Take a subscriber out. Idempotent."""
        if one in self._subscribers:
            del self._subscribers[one]
            for pattern in one.patterns:
                self._table.remove(pattern, one)
            self._lost_gone += one.lost_total
            self._cache.clear()

    def forget(self) -> None:
        """Ask the rules anew from now on."""
        self._cache.clear()

    def targets(self, subject: str) -> tuple[Subscriber, ...]:
        """Return those that follow a subject and may."""
        found = self._cache.get(subject)
        if found is None:
            found = tuple(one for one in self._table.match(subject) if self._may_follow(subject, one.who))
            if len(self._cache) >= _CACHE_MAX:
                del self._cache[next(iter(self._cache))]
            self._cache[subject] = found
        return found

    def publish(self, targets: Sequence[Subscriber], event: CloudEventView, size: int) -> int:
        """Give an event of so many bytes to these subscribers; return how many they are."""
        for one in targets:
            one.put(event, size)
        self.delivered += len(targets)
        return len(targets)
