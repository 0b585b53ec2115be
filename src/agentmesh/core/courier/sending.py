"""The sending half of a session: lanes, numbers, what is on its way, and when to repeat it (docs/spec/courier.md §5, §6)."""

from __future__ import annotations

from collections.abc import Callable

from agentmesh.core.courier.config import CourierConfig
from agentmesh.core.courier.inputs import Item
from agentmesh.core.courier.message import MESSAGE_BYTES_MAX, TTL_MS_MAX
from agentmesh.core.courier.messages import CREDIT_FIRST, GONE_MAX, LANES, LETTER_BYTES, RANGES_MAX, Letter
from agentmesh.core.courier.ranges import Ranges

#: The lane of repetitions in the round robin of a path.
REPEATS = LANES
#: Longest back-off, as a power of two.
_BACKOFF_MAX = 10


class Sending:
    """What one session has to send.

    Attributes:
        credit: Highest seq that the peer takes.
        seq: Highest seq given.
        acked: Of these, which were acknowledged.
        flight: seq → item that was sent and not acknowledged, or given up and not acknowledged; in order of the last copy.
        waiting: Items that were never sent.
        bytes: Of the bodies of all these.
        lanes_open: Bit per lane in which something waits; bit ``REPEATS`` if something is to be repeated.
        blocked: Something waits, and the peer takes no more.
        expires_s: Nothing expires before.
        backoff: How often in a row the time for repetition was doubled.
    """

    __slots__ = (
        "_config",
        "_lanes",
        "_last",
        "_newest_s",
        "_pins",
        "_repeats",
        "_srtt_s",
        "_var_s",
        "acked",
        "backoff",
        "blocked",
        "bytes",
        "credit",
        "expires_s",
        "flight",
        "lanes_open",
        "seq",
        "waiting",
    )

    def __init__(self, config: CourierConfig) -> None:
        self._config = config
        self._lanes: list[list[Item]] = [[] for _ in range(LANES)]
        self._repeats: list[Item] = []
        #: Conversation → seq of the last letter sent; entries of acknowledged ones are dropped now and then.
        self._last: dict[str, int] = {}
        #: Conversation → its last item that waits.
        self._pins: dict[str, Item] = {}
        self.acked = Ranges()
        self.flight: dict[int, Item] = {}
        self.credit = CREDIT_FIRST
        self.seq = self.waiting = self.bytes = self.lanes_open = self.backoff = 0
        self.blocked = False
        self.expires_s = float("inf")
        self._srtt_s = self._var_s = 0.0
        self._newest_s = float("-inf")

    # What is to be sent

    def put(self, items: list[Item]) -> None:
        """Put items on their lanes. One whose conversation still waits on another lane goes there: order stands first."""
        lanes, pins, size, opened = self._lanes, self._pins, 0, self.lanes_open
        expires_s = self.expires_s
        for item in items:
            if len(item.body) > MESSAGE_BYTES_MAX:
                raise AssertionError(f"a message of {len(item.body)} bytes was submitted")
            conversation = item.conversation
            pin = pins.get(conversation)
            via = item.via = item.lane if pin is None else pin.via
            pins[conversation] = item
            lanes[via].append(item)
            opened |= 1 << via
            size += len(item.body)
            if item.expires_s < expires_s:
                expires_s = item.expires_s
        self.expires_s, self.lanes_open = expires_s, opened
        self.bytes += size
        self.waiting += len(items)

    def seq_max(self) -> int:
        """Return the highest seq that may be given now."""
        return min(self.credit, self.acked.upto + self._config.flight_letters_max)

    def open_lanes(self) -> int:
        """Return the bits of lanes from which something may go now."""
        if self.seq >= self.seq_max():
            return self.lanes_open & 1 << REPEATS
        return self.lanes_open

    @property
    def floor(self) -> int:
        """The lowest seq that was not acknowledged."""
        return self.acked.upto + 1

    def fresh(
        self, via: int, now_s: float, bytes_max: int, first_max: int, expired: list[int]
    ) -> tuple[list[Letter], int]:
        """Give numbers to items of a lane and return their letters, and their bytes.

        Args:
            via: The lane.
            now_s: Monotonic seconds.
            bytes_max: For all of them …
            first_max: … but for a single one, so much.
            expired: Where the tags of items go whose time is over.
        """
        items, flight, last, pins = self._lanes[via], self.flight, self._last, self._pins
        letters, at, seq, size, dropped = list[Letter](), 0, self.seq, 0, 0
        end = min(len(items), self._config.parcel_letters, self.seq_max() - seq)
        while at < end:
            item = items[at]
            if item.expires_s <= now_s:
                at += 1
                dropped += len(item.body)
                expired.append(item.tag)
                if pins.get(item.conversation) is item:
                    del pins[item.conversation]
                continue
            body = item.body
            grown = size + len(body) + LETTER_BYTES
            if grown > bytes_max and (letters or grown > first_max):
                break
            at += 1
            size = grown
            seq += 1
            conversation = item.conversation
            after = last.get(conversation, 0)
            if after and after not in flight:
                after = 0
            last[conversation] = seq
            if pins.get(conversation) is item:
                del pins[conversation]
            item.seq, item.after, item.sent_s, item.tries = seq, after, now_s, 1
            flight[seq] = item
            ttl_ms = int((item.expires_s - now_s) * 1000) or 1
            letters.append(
                Letter(seq, after, item.lane, ttl_ms if ttl_ms < TTL_MS_MAX else TTL_MS_MAX, item.again, body)
            )
        self.seq = seq
        self.waiting -= at
        self.bytes -= dropped
        del items[:at]
        if not items:
            self.lanes_open &= ~(1 << via)
        if len(last) > 2 * len(flight) + 64:
            self._last = {conversation: seq for conversation, seq in last.items() if seq in flight}
        return letters, size

    def repeats(
        self, now_s: float, bytes_max: int, first_max: int, expired: list[int]
    ) -> tuple[list[Letter], list[int], int]:
        """Return letters that are to be repeated, [seq, after, …] of those given up, and bytes; as ``fresh``."""
        items, flight, letters, gone, size, at = self._repeats, self.flight, list[Letter](), list[int](), 0, 0
        while at < len(items) and len(letters) < self._config.parcel_letters and len(gone) < 2 * GONE_MAX:
            item = items[at]
            seq = item.seq
            if seq not in flight:
                at += 1
                continue
            if not item.gone and item.expires_s <= now_s:
                expired.append(item.tag)
                self._give_up(item)
            grown = size + (16 if item.gone else len(item.body) + LETTER_BYTES)
            if grown > bytes_max and (letters or gone or grown > first_max):
                break
            at += 1
            size = grown
            del flight[seq]
            flight[seq] = item
            item.due = False
            item.sent_s = now_s
            item.tries += 1
            if item.gone:
                gone += (seq, item.after)
                continue
            ttl_ms = min(int((item.expires_s - now_s) * 1000) or 1, TTL_MS_MAX)
            letters.append(Letter(seq, item.after, item.lane, ttl_ms, item.again, item.body))
        del items[:at]
        if not items:
            self.lanes_open &= ~(1 << REPEATS)
        return letters, gone, size

    # What came back

    def judge(self, acks: list[int], credit: int) -> str:
        """Say by which code acknowledgements break the rules; "" if they do not."""
        if len(acks) & 1 or len(acks) > 2 * RANGES_MAX:
            return "courier.acks"
        last = 0
        for at in range(0, len(acks), 2):
            lo, hi = acks[at], acks[at + 1]
            if lo <= last or hi < lo:
                return "courier.acks"
            last = hi
        if last > self.seq:
            return "courier.ack_unsent"
        return "courier.credit" if credit < 0 else ""

    def acknowledge(self, acks: list[int], now_s: float) -> list[int]:
        """Let go of what the peer has; return the tags, in order of seq."""
        tags: list[int] = []
        flight, size, newest = self.flight, 0, None
        for at in range(0, len(acks), 2):
            for lo, hi in self.acked.add(acks[at], acks[at + 1]):
                for seq in range(lo, hi + 1):
                    item = flight.pop(seq)
                    if item.gone:
                        continue
                    tags.append(item.tag)
                    size += len(item.body)
                    newest = item
        self.bytes -= size
        if newest is not None:
            self.backoff = 0
            if newest.sent_s > self._newest_s:
                self._newest_s = newest.sent_s
            if newest.tries == 1:  # Karn: which copy of a repeated letter was acknowledged, nobody knows
                self._measure(now_s - newest.sent_s)
        if not flight:
            self._last.clear()
            self._repeats.clear()
            self.lanes_open &= ~(1 << REPEATS)
        return tags

    def _measure(self, rtt_s: float) -> None:
        """Take a round trip into account (RFC 6298)."""
        if self._srtt_s:
            self._var_s += 0.25 * (abs(self._srtt_s - rtt_s) - self._var_s)
            self._srtt_s += 0.125 * (rtt_s - self._srtt_s)
        else:
            self._srtt_s, self._var_s = rtt_s, rtt_s / 2

    # Time

    def rto_s(self) -> float:
        """Return after how long without acknowledgement a letter is repeated."""
        config = self._config
        base_s = self._srtt_s + 4 * self._var_s if self._srtt_s else config.rto_first_s
        return min(max(base_s, config.rto_min_s) * (1 << self.backoff), config.rto_max_s)

    def overdue_s(self) -> float:
        """Return when the oldest copy on its way is due for repetition; infinity if none is."""
        for item in self.flight.values():
            if not item.due:
                return item.sent_s + self.rto_s()
        return float("inf")

    def repeat_overdue(self, now_s: float) -> list[int]:
        """Line up what is overdue for repetition; return tags of at-most-once items that are given up as lost."""
        rto_s, probes, found = self.rto_s(), self._config.probe_letters, False
        lost: list[int] = []
        for item in self.flight.values():
            if item.due:
                continue
            if item.sent_s + rto_s > now_s:
                break
            # While nothing sent later was acknowledged, the peer may just be slow: only the oldest are tried.
            if item.sent_s >= self._newest_s:
                if not probes:
                    break
                probes -= 1
            found = True
            self._line_up(item, lost)
        if found and self.backoff < _BACKOFF_MAX:
            self.backoff += 1
        return lost

    def repeat_all(self, before_s: float) -> list[int]:
        """Line up everything sent before that time: the path is another one. Returns as ``repeat_overdue``."""
        lost: list[int] = []
        for seq in sorted(self.flight):
            item = self.flight[seq]
            if not item.due and item.sent_s <= before_s:
                self._line_up(item, lost)
        self.backoff = 0
        return lost

    def _line_up(self, item: Item, lost: list[int]) -> None:
        if not item.acked and not item.gone:
            lost.append(item.tag)
            self._give_up(item)
        item.due = True
        self._repeats.append(item)
        self.lanes_open |= 1 << REPEATS

    def _give_up(self, item: Item) -> None:
        """Forget the body of a letter; its number has still to be told, so that what comes after it is delivered."""
        self.bytes -= len(item.body)
        item.body = b""
        item.gone = True

    def expire(self, now_s: float) -> list[int]:
        """Give up what has expired; return its tags. What was sent before is told to the peer as gone."""
        if now_s < self.expires_s:
            return []
        tags: list[int] = []
        next_s = float("inf")
        for item in self.flight.values():
            if item.gone:
                continue
            if item.expires_s > now_s:
                next_s = min(next_s, item.expires_s)
                continue
            tags.append(item.tag)
            self._give_up(item)
            if not item.due:
                self._line_up(item, tags)
        tags += self._sift(lambda item: item.expires_s <= now_s)
        for lane in self._lanes:
            for item in lane:
                next_s = min(next_s, item.expires_s)
        self.expires_s = next_s
        return tags

    def drop_unsent(self) -> list[int]:
        """Give back what is to be sent at most once and was not: there is no path."""
        return self._sift(lambda item: not item.acked)

    def lose_unacked(self) -> list[int]:
        """Give up what was sent at most once and not acknowledged: the path broke. It is told when there is one again."""
        lost: list[int] = []
        for item in self.flight.values():
            if not item.acked and not item.gone:
                lost.append(item.tag)
                self._give_up(item)
        return lost

    def _sift(self, is_over: Callable[[Item], bool]) -> list[int]:
        """Take items that wait off their lanes; return their tags."""
        tags: list[int] = []
        pins = self._pins
        pins.clear()
        for via, lane in enumerate(self._lanes):
            kept: list[Item] = []
            for item in lane:
                if is_over(item):
                    tags.append(item.tag)
                    self.bytes -= len(item.body)
                else:
                    kept.append(item)
                    pins[item.conversation] = item
            lane[:] = kept
            if not kept:
                self.lanes_open &= ~(1 << via)
        self.waiting -= len(tags)
        return tags

    def give_back(self) -> list[int]:
        """Return the tags of all that is neither acknowledged nor given up, those that were sent first; it is empty then."""
        tags = [item.tag for _, item in sorted(self.flight.items()) if not item.gone]
        for lane in self._lanes:
            tags += [item.tag for item in lane]
            lane.clear()
        self.flight.clear()
        self._repeats.clear()
        self._pins.clear()
        self._last.clear()
        self.waiting = self.bytes = self.lanes_open = 0
        return tags

    @property
    def letters(self) -> int:
        """How many items wait or are on their way."""
        return self.waiting + len(self.flight)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a rule or bound is broken."""
        self.acked.assert_invariants()
        flight, lanes = self.flight, self._lanes
        assert self.waiting == sum(map(len, lanes))
        bodies = sum(len(item.body) for item in flight.values()) + sum(len(i.body) for lane in lanes for i in lane)
        assert self.bytes == bodies, f"{self.bytes} bytes are {bodies}"
        for via, lane in enumerate(lanes):
            assert bool(lane) == bool(self.lanes_open >> via & 1)
            assert all(item.via == via and item.seq == 0 for item in lane)
        assert len(flight) + self.acked.count == self.seq <= self.acked.upto + self._config.flight_letters_max
        assert all(seq == item.seq and seq not in self.acked for seq, item in flight.items())
        times = [item.sent_s for item in flight.values()]
        assert times == sorted(times), "what is on its way is not in the order of its last copies"
        due = [item for item in self._repeats if item.seq in flight]
        assert all(item.due for item in due)
        assert len(due) == sum(item.due for item in flight.values())
        assert not due or self.lanes_open >> REPEATS & 1
        assert len(self._pins) <= self.waiting
        assert len(self._last) <= 2 * len(flight) + 64 + self._config.parcel_letters
