"""Subscriptions: to what is published from now on, to retained values, to a durable topic, as a member of a consumer group."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Protocol

from agentmesh.core.topics.rules import may
from agentmesh.core.topics.subjects import PRESENCE, check_pattern, matches
from agentmesh.engines.base import Lease, Record
from agentmesh.errors import MeshError, Unauthorized, UsageError
from agentmesh.identity.publication import Publication, read_publication
from agentmesh.ids import NodeId
from agentmesh.node.topics.asking import Asking, RemoteTopic, is_passing, pause
from agentmesh.node.topics.durable import Durable, Known
from agentmesh.node.topics.events import view_of
from agentmesh.node.topics.fanout import Fanout
from agentmesh.node.topics.rulefile import RuleFile
from agentmesh.node.topics.who import Who
from agentmesh.store.topics import RetainedStore
from agentmesh.wire.message_views import CloudEventView, SubscribeRequest

#: Longest wait for something new before the keeper is asked again, and records asked for at once.
_WAIT_S, _BATCH = 20.0, 256
#: Work that a member takes at once; what is not done in time goes to another.
_WORK, _ACK_WAIT_S = 16, 30.0
#: When a member goes, what it had is handed out again after this: its last acknowledgements may be on their way.
_GRACE_S = 1.0
#: Work that is not for this member is kept back so long, so that it does not come straight back.
_NOT_MINE_S = 5.0
#: Retained values handed on before others get their turn.
_TURN = 64


class Keeper(Protocol):
    """The part of ``engines.base.TopicStore`` that subscribers and publishers use."""

    async def append(self, topic: str, records: Sequence[tuple[str, bytes, str]], /) -> list[int]:
        """Keep records."""
        ...

    async def read(self, topic: str, offset: int, limit: int = 256, wait_s: float = 0.0) -> list[Record]:
        """Return records."""
        ...

    async def bounds(self, topic: str) -> tuple[int, int]:
        """Return the oldest offset and the next one."""
        ...

    async def offset_at(self, topic: str, ts_ms: int) -> int:
        """Return the offset at a time."""
        ...

    async def fetch(
        self, topic: str, group: str, member: str, *, limit: int = 16, wait_s: float = 0.0, ack_wait_s: float = 30.0
    ) -> list[Lease]:
        """Take work."""
        ...

    async def ack(self, topic: str, group: str, tokens: Sequence[str]) -> int:
        """Say that work is done."""
        ...

    async def nack(self, topic: str, group: str, tokens: Sequence[str], delay_s: float = 0.0) -> int:
        """Give work back."""
        ...


class _Hand:
    """The work that one member has in hand.

    Args:
        ack_wait_s: How long it may keep each; after that it is somebody else's.
    """

    def __init__(self, ack_wait_s: float) -> None:
        self._ack_wait_s = ack_wait_s
        self._until_s: dict[str, float] = {}
        self._changed = asyncio.Event()

    def note(self, token: str) -> None:
        """Take one in hand."""
        self._until_s[token] = time.monotonic() + self._ack_wait_s

    def drop(self, token: str) -> None:
        """Let one go."""
        if self._until_s.pop(token, None) is not None:
            self._changed.set()

    def tokens(self) -> list[str]:
        """Return what is in hand."""
        return list(self._until_s)

    async def room(self) -> int:
        """Return how many more it may take, waiting until it is one."""
        while len(self._until_s) >= _WORK:
            oldest = next(iter(self._until_s))
            left_s = self._until_s[oldest] - time.monotonic()
            if left_s <= 0:
                del self._until_s[oldest]
                continue
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
        return _WORK - len(self._until_s)


class Following:
    """Serve subscriptions.

    Args:
        fanout, retained, rules, durable, who, asking: Of this node.
        presence: Yields what is published of everybody's presence.
        rng: For names of members and for pauses.
        ack_wait_s: How long a member may work on one record.
    """

    def __init__(
        self,
        fanout: Fanout,
        retained: RetainedStore,
        rules: RuleFile,
        durable: Durable,
        who: Who,
        asking: Asking,
        *,
        presence: Callable[[], Iterator[Publication]],
        rng: random.Random,
        ack_wait_s: float = _ACK_WAIT_S,
    ) -> None:
        self._fanout, self._retained, self._rules, self._durable = fanout, retained, rules, durable
        self._who, self._asking, self._presence, self._rng = who, asking, presence, rng
        self.ack_wait_s = ack_wait_s
        #: Topic, group and token of work → the member here that has it in hand.
        self._hands: dict[tuple[str, str, str], _Hand] = {}

    def settled(self, topic: str, group: str, tokens: Sequence[str]) -> None:
        """Take note that work is out of a member's hand: it has room for more."""
        for token in tokens:
            hand = self._hands.pop((topic, group, token), None)
            if hand is not None:
                hand.drop(token)

    def store_of(self, known: Known, agent: str) -> Keeper:
        """Return how a durable topic is reached. Raises StateError (code "topic.no_store")."""
        if not known.owner:
            return self._durable.store
        return RemoteTopic(self._asking, NodeId(known.owner), agent)

    async def follow(self, request: SubscribeRequest) -> AsyncGenerator[CloudEventView, None]:
        """Yield what is published; raises on the first step only, what ``api.messaging.Topics.subscribe`` says."""
        agent = self._who.local(request.agent).did
        names = self._who.names(agent)
        for pattern in request.subjects:
            check_pattern(pattern)
            self._check(pattern, names)
        if not request.topic:
            if request.group or request.offset or request.since:
                raise UsageError("offset, since and group are of durable topics: name one", code="topic.not_durable")
            source = self._live(request, names)
        elif request.group:
            source = self._work(self._durable.get(request.topic), request, agent, names)
        else:
            source = self._replay(self._durable.get(request.topic), request, agent, names)
        async with contextlib.aclosing(source):
            async for event in source:
                yield event

    def _check(self, pattern: str, names: frozenset[str]) -> None:
        """Raise Unauthorized if the rule of a subject does not let somebody subscribe. What a wildcard finds is asked then."""
        if "*" in pattern or ">" in pattern:
            return
        rule = self._rules.of(pattern)
        if rule is not None and not may(rule.subscribe, names):
            raise Unauthorized(f"you may not subscribe to {pattern!r}", code="topic.subscribe")

    def may_follow(self, subject: str, names: frozenset[str]) -> bool:
        """Say whether somebody may subscribe to a subject."""
        rule = self._rules.of(subject)
        return rule is None or may(rule.subscribe, names)

    # What is published from now on

    async def _live(self, request: SubscribeRequest, names: frozenset[str]) -> AsyncGenerator[CloudEventView, None]:
        subscriber = self._fanout.subscribe(request.subjects, names)
        try:
            if request.start != "new":
                for count, event in enumerate(self._last_values(subscriber.patterns, names)):
                    if count % _TURN == 0:
                        await asyncio.sleep(0)
                    yield event
            while True:
                event = subscriber.take()
                if event is None:
                    await subscriber.wait()
                else:
                    yield event
        finally:
            self._fanout.unsubscribe(subscriber)

    def _last_values(self, patterns: Sequence[str], names: frozenset[str]) -> Iterator[CloudEventView]:
        """Yield the last value of each subject that fits, each once."""
        seen: set[str] = set()
        for pattern in patterns:
            literal = pattern.partition("*")[0].partition(">")[0]
            for value in self._retained.values(literal):
                subject = value.subject
                if subject in seen or not matches(pattern, subject) or not self.may_follow(subject, names):
                    continue
                seen.add(subject)
                if subject == pattern:
                    self._retained.touch(subject)
                with contextlib.suppress(MeshError):  # one damaged value must not hide the others
                    yield view_of(read_publication(value.raw, trusted=True), retained=True)
        if any(matches(pattern, PRESENCE + "x") or pattern.startswith(PRESENCE) for pattern in patterns):
            for one in self._presence():
                fits = any(matches(pattern, one.subject) for pattern in patterns)
                if fits and self.may_follow(one.subject, names):
                    yield view_of(one, retained=True)

    # Durable topics

    async def _replay(
        self, known: Known, request: SubscribeRequest, agent: str, names: frozenset[str]
    ) -> AsyncGenerator[CloudEventView, None]:
        """Yield the records of a durable topic from a place on, then what comes."""
        self._admit(known, names)
        topic, store = known.spec.name, self.store_of(known, agent)
        offset = await self._start(topic, store, request)
        tries = 0
        while True:
            try:
                records = await store.read(topic, offset, _BATCH, _WAIT_S)
                tries = 0
            except MeshError as error:
                if not is_passing(error):
                    raise
                await pause(tries, self._rng)
                tries += 1
                continue
            await asyncio.sleep(0)  # a disk answers at once: without this a long replay would hold up all others
            for record in records:
                offset = record.offset + 1
                if self._fits(record, request.subjects, names):
                    yield view_of(read_publication(record.body, trusted=True), offset=record.offset)

    async def _start(self, topic: str, store: Keeper, request: SubscribeRequest) -> int:
        if request.offset < 0 or not 0 <= request.since < 1e12:
            raise UsageError("an offset or time that is none", code="topic.offset")
        if request.offset:
            return request.offset
        if request.since:
            return await store.offset_at(topic, int(request.since * 1_000))
        first, next_ = await store.bounds(topic)
        return first if request.start == "all" else next_ if request.start == "new" else max(first, next_ - 1)

    async def _work(
        self, known: Known, request: SubscribeRequest, agent: str, names: frozenset[str]
    ) -> AsyncGenerator[CloudEventView, None]:
        """Yield work of a consumer group, never more than a hand holds; what is not done is given back at the end."""
        self._admit(known, names)
        topic, group, store = known.spec.name, request.group, self.store_of(known, agent)
        member = request.member or f"{agent[-12:]}-{self._rng.randbytes(4).hex()}"
        taken: list[Lease] = []
        hand, tries = _Hand(self.ack_wait_s), 0
        await store.bounds(topic)  # so that an owner that cannot be reached is heard of on the first step
        try:
            while True:
                try:
                    room = await hand.room()
                    taken = await store.fetch(
                        topic, group, member, limit=room, wait_s=_WAIT_S, ack_wait_s=self.ack_wait_s
                    )
                    tries = 0
                except MeshError as error:
                    if not is_passing(error):
                        raise
                    await pause(tries, self._rng)
                    tries += 1
                    continue
                taken.reverse()
                while taken:
                    lease = taken.pop()
                    if not self._fits(lease.record, request.subjects, names):
                        # Not for this member: perhaps for another one of the group.
                        await store.nack(topic, group, [lease.token], _NOT_MINE_S)
                        continue
                    one = read_publication(lease.record.body, trusted=True)
                    hand.note(lease.token)
                    self._hands[topic, group, lease.token] = hand
                    yield view_of(one, offset=lease.record.offset, lease=lease.token)
        finally:
            left = [*(lease.token for lease in taken), *hand.tokens()]
            self.settled(topic, group, left)
            if left:
                # Whoever had them is gone, or will say in a moment what it has done.
                with contextlib.suppress(MeshError):
                    await store.nack(topic, group, left, _GRACE_S)

    def _admit(self, known: Known, names: frozenset[str]) -> None:
        rules = [self._rules.of(pattern) for pattern in known.spec.subjects]
        if not any(rule is None or may(rule.subscribe, names) for rule in rules):
            raise Unauthorized(f"you may not subscribe to the topic {known.spec.name!r}", code="topic.subscribe")

    def _fits(self, record: Record, patterns: Sequence[str], names: frozenset[str]) -> bool:
        wanted = not patterns or any(matches(pattern, record.subject) for pattern in patterns)
        return wanted and self.may_follow(record.subject, names)
