"""What waits for one agent of this node: handed out for a while, acknowledged, given back (docs/spec/mail.md §5).

Order is that of arrival. What was handed out and not acknowledged in time is handed out again, in its old place; after
``TRIES_MAX`` times nobody seems able to read it and it is a dead letter.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

import msgspec

from agentmesh.core.courier.message import Message

#: Most that waits for one agent: letters, and bytes of payload.
LETTERS_MAX = 10_000
BYTES_MAX = 64 * 1024 * 1024
#: A letter costs its payload and about so many bytes of memory.
LETTER_COST = 1_000
TRIES_MAX = 16
#: How often all that waits is looked through, at most, seconds.
_SWEEP_S = 0.25
#: Readers of one agent that may wait at once.
READERS_MAX = 64


class Waiting(msgspec.Struct, gc=False):
    """One message in an inbox.

    Attributes:
        cursor: Its place; only rising.
        message: It.
        received_ms: When it came, unix milliseconds.
        encrypted: Whether it came over a network.
        stored: Whether it is in the store.
        tries: How often it was handed out.
        lease_s: Until when it is handed out, monotonic seconds; 0 = it is not.
    """

    cursor: int
    message: Message
    received_ms: int
    encrypted: bool
    stored: bool
    tries: int = 0
    lease_s: float = 0.0


class Inbox:
    """The inbox of one agent.

    Args:
        on_dead: Called with (waiting, reason) for what is given up.
    """

    __slots__ = ("_by_id", "_free", "_leased", "_on_dead", "_readers", "_swept_s", "bytes", "closed_to", "letters")

    def __init__(self, on_dead: Callable[[Waiting, str], None]) -> None:
        self.letters: dict[int, Waiting] = {}
        self.bytes = 0
        #: Sessions whose senders were asked to wait until there is room again.
        self.closed_to: dict[int, None] = {}
        #: A cursor, or several where one id came more than once.
        self._by_id: dict[bytes, int | list[int]] = {}
        #: Cursors in order; those of messages that are gone or handed out meanwhile are passed over.
        self._free: deque[int] = deque()
        self._leased: dict[int, None] = {}
        self._on_dead = on_dead
        self._readers: dict[asyncio.Future[None], None] = {}
        self._swept_s = 0.0

    def __len__(self) -> int:
        return len(self.letters)

    @property
    def room(self) -> int:
        """How many more letters fit."""
        return max(0, min(LETTERS_MAX - len(self.letters), (BYTES_MAX - self.bytes) // LETTER_COST))

    @property
    def is_over(self) -> bool:
        """Whether twice as much waits as should: senders that were asked to wait did not, or new ones come all the time."""
        return len(self.letters) >= 2 * LETTERS_MAX or self.bytes >= 2 * BYTES_MAX

    def put(self, waiting: Iterable[Waiting]) -> None:
        """Add messages in the order of their cursors, and wake those who wait."""
        letters, by_id, free, size = self.letters, self._by_id, self._free, 0
        for one in waiting:
            cursor, message = one.cursor, one.message
            letters[cursor] = one
            free.append(cursor)
            size += len(message.payload)
            known = by_id.setdefault(message.id, cursor)
            if known is not cursor:
                by_id[message.id] = [*_all(known), cursor]
        self.bytes += size
        self._wake()

    def _wake(self) -> None:
        for reader in list(self._readers):
            if not reader.done():
                reader.set_result(None)

    def hand_out(self, limit: int, now_s: float, now_ms: int, lease_s: float, *, peek: bool) -> list[Waiting]:
        """Return what is free, oldest first; unless ``peek``, it is leased then."""
        self.expire(now_s, now_ms)
        if peek:
            return list(islice(self.letters.values(), limit))
        out: list[Waiting] = []
        free, letters, until_s = self._free, self.letters, now_s + lease_s
        while free and len(out) < limit:
            cursor = free.popleft()
            one = letters.get(cursor)
            if one is not None and not one.lease_s:
                one.tries += 1
                one.lease_s = until_s
                self._leased[cursor] = None
                out.append(one)
        return out

    def take(self, message_id: bytes) -> list[Waiting]:
        """Remove a message that is done; [] if it is not here."""
        known = self._by_id.pop(message_id, None)
        if known is None:
            return []
        return [self._remove(cursor) for cursor in _all(known)]

    def give_back(self, message_id: bytes) -> int:
        """Make a message free again; return how many there were."""
        known = self._by_id.get(message_id)
        cursors = [] if known is None else [cursor for cursor in _all(known) if cursor in self._leased]
        for cursor in cursors:
            self._free_again(self.letters[cursor])
        if cursors:
            self._in_order()
            self._wake()
        return len(cursors)

    def expire(self, now_s: float, now_ms: int) -> None:
        """Free what was not acknowledged in time; give up what is too old or was handed out too often."""
        if now_s - self._swept_s < _SWEEP_S:
            return
        self._swept_s = now_s
        freed = False
        for cursor in [c for c in self._leased if self.letters[c].lease_s <= now_s]:
            self._free_again(self.letters[cursor])
            freed = True
        if freed:
            self._in_order()
        for one in [one for one in self.letters.values() if not one.lease_s and one.message.expires_ms <= now_ms]:
            self._give_up(one.cursor, "mail.expired")
        if len(self._free) > 2 * len(self.letters) + READERS_MAX:
            self._in_order()

    def next_lease_s(self) -> float | None:
        """Return when the next message is free again by itself."""
        return min((self.letters[c].lease_s for c in self._leased), default=None)

    async def wait(self, timeout_s: float) -> None:
        """Wait until something comes, or the time is over, or a lease ends."""
        if len(self._readers) >= READERS_MAX:
            return
        reader = asyncio.get_running_loop().create_future()
        self._readers[reader] = None
        try:
            async with asyncio.timeout(timeout_s):
                await reader
        except TimeoutError:
            pass
        finally:
            self._readers.pop(reader, None)

    def drain(self) -> list[Waiting]:
        """Remove and return everything."""
        gone = list(self.letters.values())
        self.letters.clear()
        self._by_id.clear()
        self._free.clear()
        self._leased.clear()
        self.bytes = 0
        return gone

    def _free_again(self, one: Waiting) -> None:
        self._leased.pop(one.cursor, None)
        one.lease_s = 0.0
        if one.tries >= TRIES_MAX:
            self._give_up(one.cursor, "mail.unread")

    def _in_order(self) -> None:
        self._free = deque(cursor for cursor in sorted(self.letters) if not self.letters[cursor].lease_s)

    def _give_up(self, cursor: int, reason: str) -> None:
        message_id = self.letters[cursor].message.id
        left = [c for c in _all(self._by_id.get(message_id, cursor)) if c != cursor]
        if left:
            self._by_id[message_id] = left
        else:
            self._by_id.pop(message_id, None)
        self._on_dead(self._remove(cursor), reason)

    def _remove(self, cursor: int) -> Waiting:
        one = self.letters.pop(cursor)
        self._leased.pop(cursor, None)
        self.bytes -= len(one.message.payload)
        return one


def _all(known: int | list[int]) -> list[int]:
    return known if isinstance(known, list) else [known]
