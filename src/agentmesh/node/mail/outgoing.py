"""Messages on their way out: one queue for each pair of agents, and what became of each message (docs/spec/mail.md §4).

A message is here from the moment it is accepted until it is delivered, expired or given up; of those that ended the newest are
remembered, the durable ones in the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from agentmesh.core.courier.inputs import Item
from agentmesh.core.courier.message import Delivery, Message
from agentmesh.errors import Busy
from agentmesh.ids import NodeId
from agentmesh.store.mail import DELIVERED, QUEUED

#: What may wait for one recipient, from one agent, and in all: messages and their bytes.
PAIR_MAX, PAIR_BYTES_MAX = 10_000, 64 * 1024 * 1024
ALL_MAX, ALL_BYTES_MAX = 100_000, 256 * 1024 * 1024
#: Pairs of agents with messages between them, idle ones included.
PAIRS_MAX = 8_192
#: Ended messages whose fate is remembered, in each of two generations.
_ENDED_MAX = 8_192
#: Submitted to the courier at once for one session; the rest waits here, in order.
SUBMIT_MAX = 8_192


class Out(msgspec.Struct, gc=False):
    """One message to one recipient. ``body`` is its wire form, b"" once it has ended."""

    tag: int
    id: bytes
    body: bytes
    conversation: str
    lane: int
    expires_s: float
    pair: Pair
    acked: bool
    durable: bool
    again: bool
    sent_ms: int
    expires_ms: int
    asked: str
    state: int = QUEUED
    reason: str = ""
    tries: int = 0

    def item(self) -> Item:
        """Return what the courier takes."""
        return Item(self.tag, self.conversation, self.lane, self.expires_s, self.body, self.again, self.acked)


class Pair:
    """What waits between one agent here and one elsewhere.

    Attributes:
        mine, theirs: Their raw keys.
        node: Where the other one lives; "" while nobody knows.
        session: The session that is up; 0 for none.
        queue: What the courier does not have yet, oldest first.
        under_way: What it has.
        waiting, bytes: All of both.
        tries, retry_s: Handshakes that failed in a row, and when the next may begin.
        since_s: Since when something waits that could not go; 0 = nothing does.
        reason: Why it waits.
        next_expiry_s: When the first of the queue ends.
    """

    __slots__ = (
        "bytes",
        "mine",
        "next_expiry_s",
        "node",
        "queue",
        "reason",
        "retry_s",
        "session",
        "since_s",
        "theirs",
        "tries",
        "under_way",
        "waiting",
    )

    def __init__(self, mine: bytes, theirs: bytes) -> None:
        self.mine, self.theirs = mine, theirs
        self.node = NodeId("")
        self.session = self.waiting = self.bytes = self.tries = self.under_way = 0
        self.queue: deque[Out] = deque()
        self.retry_s = self.since_s = 0.0
        self.next_expiry_s = float("inf")
        self.reason = ""


class Outgoing:
    """All pairs, and the messages between them by tag and id."""

    def __init__(self) -> None:
        self.pairs: dict[tuple[bytes, bytes], Pair] = {}
        self.by_tag: dict[int, Out] = {}
        self.bytes = 0
        self._young: dict[bytes, Out | list[Out]] = {}
        self._old: dict[bytes, Out | list[Out]] = {}

    def pair(self, mine: bytes, theirs: bytes) -> Pair:
        """Return a pair, made if need be. Raises Busy (code "mail.full"): too many have something waiting."""
        pair = self.pairs.get((mine, theirs))
        if pair is None:
            if len(self.pairs) >= PAIRS_MAX:
                idle = next((k for k, p in self.pairs.items() if not p.waiting and not p.session), None)
                if idle is None:
                    raise Busy("messages wait for too many recipients", code="mail.full", retry_after_s=10.0)
                del self.pairs[idle]
            pair = self.pairs[mine, theirs] = Pair(mine, theirs)
        return pair

    def add(
        self, message: Message, body: bytes, pair: Pair, tag: int, expires_s: float, asked: str, *, again: bool = False
    ) -> Out:
        """Take a message for a pair.

        Raises:
            Busy: code "mail.full": too much waits for that recipient, or in all. Nothing was taken.
        """
        size = len(body)
        if (
            pair.waiting >= PAIR_MAX
            or pair.bytes + size > PAIR_BYTES_MAX
            or len(self.by_tag) >= ALL_MAX
            or self.bytes + size > ALL_BYTES_MAX
        ):
            raise Busy(
                f"{pair.waiting} messages wait for that recipient, {len(self.by_tag)} in all",
                code="mail.full",
                why=pair.reason or "it takes them more slowly than they are sent",
                hint="agentmesh inbox --sent   shows what waits",
            )
        acked = message.delivery != Delivery.AT_MOST_ONCE
        out = Out(
            tag,
            message.id,
            body,
            message.conversation,
            message.priority,
            expires_s,
            pair,
            acked,
            acked and message.durable,
            again,
            message.sent_ms,
            message.sent_ms + message.ttl_ms,
            asked,
        )
        self.by_tag[tag] = out
        pair.waiting += 1
        pair.bytes += size
        self.bytes += size
        if asked:  # a person or program may ask what became of it; parts of the node do not
            self._remember(out)
        return out

    def _remember(self, out: Out) -> None:
        young = self._young
        known = young.get(out.id)
        if known is None:
            young[out.id] = out
            if len(young) >= _ENDED_MAX:
                self._old, self._young = young, {}
        elif isinstance(known, list):
            known.append(out)
        else:
            young[out.id] = [known, out]

    def end(self, out: Out, state: int, reason: str = "") -> None:
        """Note what became of a message; it waits no more."""
        # ``delivered`` does the same for many.
        if self.by_tag.pop(out.tag, None) is None:
            return
        size = len(out.body)
        pair = out.pair
        pair.waiting -= 1
        pair.bytes -= size
        self.bytes -= size
        out.state, out.reason = state, reason
        if state == DELIVERED:
            out.body = b""

    def delivered(self, tags: list[int]) -> tuple[list[Out], Pair | None]:
        """End messages as delivered; return the durable ones, and the pair that they were between (all of one session)."""
        durable: list[Out] = []
        pair: Pair | None = None
        pop, count, size = self.by_tag.pop, 0, 0
        for tag in tags:
            out = pop(tag, None)
            if out is None:
                continue
            pair = out.pair
            count += 1
            size += len(out.body)
            out.state = DELIVERED
            out.body = b""
            if out.durable:
                durable.append(out)
        if pair is not None:
            pair.waiting -= count
            pair.under_way -= count
            pair.bytes -= size
            self.bytes -= size
        return durable, pair

    def copies(self, message_id: bytes) -> list[Out]:
        """Return the copies of a message that are remembered here."""
        known = self._young.get(message_id) or self._old.get(message_id)
        if known is None:
            return [out for out in self.by_tag.values() if out.id == message_id]
        return known if isinstance(known, list) else [known]

    def expired(self, pair: Pair, now_s: float) -> list[Out]:
        """Remove from a pair's queue what has ended, and return it."""
        if now_s < pair.next_expiry_s:
            return []
        gone = [out for out in pair.queue if out.expires_s <= now_s]
        if gone:
            pair.queue = deque(out for out in pair.queue if out.expires_s > now_s)
        pair.next_expiry_s = min((out.expires_s for out in pair.queue), default=float("inf"))
        return gone

    def queue(self, pair: Pair, outs: Iterable[Out], *, first: bool = False) -> None:
        """Let messages wait, behind what waits already or, ``first``, in front of it."""
        outs = list(outs)
        for out in outs:
            pair.next_expiry_s = min(pair.next_expiry_s, out.expires_s)
        if first:
            pair.queue.extendleft(reversed(outs))
        else:
            pair.queue.extend(outs)
