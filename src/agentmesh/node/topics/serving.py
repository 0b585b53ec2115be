"""What other nodes ask about topics, answered: retained values, and the durable topics that this node keeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from agentmesh.core.topics.intake import Allowance
from agentmesh.core.topics.rules import may
from agentmesh.core.topics.subjects import matches
from agentmesh.engines.base import Record
from agentmesh.errors import Busy, LimitError, MeshError, Unauthorized, UsageError, to_wire
from agentmesh.identity.publication import Publication, read_publication
from agentmesh.ids import NodeId
from agentmesh.net.base import Stream
from agentmesh.node.topics.durable import Durable, Known
from agentmesh.node.topics.events import id_text
from agentmesh.node.topics.rulefile import RuleFile
from agentmesh.node.topics.who import Who
from agentmesh.store.topics import RetainedStore
from agentmesh.wire import v1
from agentmesh.wire.topics import (
    BUCKETS,
    RECORDS_MAX,
    REPLY_BYTES_MAX,
    SUM_BYTES,
    WAIT_S_MAX,
    WANTED_MAX,
    Ack,
    Append,
    Bounds,
    Fetch,
    Read,
    RecordLine,
    Sums,
    TopicAsk,
    TopicReply,
    Wanted,
)

#: What another node brings in the name of one of its agents may be so old; of agents that are not known to be its own, no
#: older than the time within which a durable topic knows an id again.
_AGE_MS, _AGE_STRANGE_MS = 7_200_000, 540_000
#: Offsets and times that a store can look for.
_NUMBER_MAX = (1 << 63) - 1
#: Questions about retained values that one node may ask, a second and at once; nodes counted apart.
_ASKS_PER_S, _ASKS_BURST, _ASKERS_MAX = 20.0, 200, 1_000


class Serving:
    """Answer questions.

    Args:
        retained, durable, rules, who: Of this node.
        refusal_of: Says why a key may do nothing here.
        unix_ms: The wall clock.
    """

    def __init__(
        self,
        retained: RetainedStore,
        durable: Durable,
        rules: RuleFile,
        who: Who,
        refusal_of: Callable[[str], MeshError | None],
        unix_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._retained, self._durable, self._rules, self._who = retained, durable, rules, who
        self._refusal_of, self._unix_ms = refusal_of, unix_ms
        self._turns: dict[NodeId, Allowance] = {}

    async def serve(self, node: NodeId, stream: Stream, query: v1.TopicQuery) -> None:
        """Answer one question. Raises Closed."""
        try:
            reply = await self._answer(node, query.ask)
        except MeshError as error:
            reply = TopicReply(error=to_wire(error))
        await stream.send(v1.encode(reply))
        await stream.finish()

    async def _answer(self, node: NodeId, ask: TopicAsk) -> TopicReply:
        if isinstance(ask, Sums | Wanted):
            self._take_turn(node)
        if isinstance(ask, Sums):
            if len(ask.sums) != BUCKETS * SUM_BYTES:
                raise UsageError("sums of another number of ranges", code="topic.sums")
            return TopicReply(lines=self._retained.lines(ask.sums))
        if isinstance(ask, Wanted):
            return self._values(ask)
        known = self._durable.get(ask.topic)
        if known.owner:
            raise Unauthorized(f"another node keeps the topic {ask.topic!r}", code="topic.foreign")
        if isinstance(ask, Append):
            return await self._append(node, known, ask)
        if isinstance(ask, Ack):
            if len(ask.tokens) > RECORDS_MAX:
                raise LimitError(f"{len(ask.tokens)} tokens, at most {RECORDS_MAX}", code="topic.too_many")
            store = self._durable.store
            if ask.back:
                return TopicReply(done=await store.nack(ask.topic, ask.group, ask.tokens, ask.delay_s))
            return TopicReply(done=await store.ack(ask.topic, ask.group, ask.tokens))
        names = self._who.asker(node, ask.agent)
        if isinstance(ask, Bounds):
            return await self._bounds(known, ask, names)
        if isinstance(ask, Read):
            return await self._read(known, ask, names)
        return await self._fetch(known, ask, names)

    def _take_turn(self, node: NodeId) -> None:
        """Raise Busy (code "topic.rate") for a node that compares retained values more often than it ever needs to."""
        now_s = time.monotonic()
        turns = self._turns.pop(node, None) or Allowance(_ASKS_PER_S, _ASKS_BURST, now_s)
        while len(self._turns) >= _ASKERS_MAX:
            del self._turns[next(iter(self._turns))]
        self._turns[node] = turns
        if turns.left(now_s) < 1.0:
            raise Busy("retained values are asked for too often", code="topic.rate")
        turns.take()

    def _values(self, ask: Wanted) -> TopicReply:
        raws: list[bytes] = []
        size = 0
        for at in range(0, min(len(ask.keys), 8 * WANTED_MAX), 8):
            value = self._retained.by_key(ask.keys[at : at + 8])
            if value is None or self._is_restricted(value.subject):
                continue
            size += len(value.raw)
            if raws and size > REPLY_BYTES_MAX:
                break
            raws.append(value.raw)
        return TopicReply(raws=raws)

    def _is_restricted(self, subject: str) -> bool:
        rule = self._rules.of(subject)
        return rule is not None and "*" not in rule.subscribe

    async def _append(self, node: NodeId, known: Known, ask: Append) -> TopicReply:
        if len(ask.raws) > RECORDS_MAX:
            raise LimitError(f"{len(ask.raws)} records, at most {RECORDS_MAX}", code="topic.too_many")
        records: list[tuple[str, bytes, str]] = []
        for raw in ask.raws:
            one = read_publication(raw)
            self._check(node, known, one)
            records.append((one.subject, raw, record_id(one)))
        return TopicReply(offsets=await self._durable.store.append(ask.topic, records))

    def _check(self, node: NodeId, known: Known, one: Publication) -> None:
        """Raise unless a publication that a node brought may be kept in a topic."""
        if not any(matches(pattern, one.subject) for pattern in known.spec.subjects):
            raise UsageError(f"the topic {known.spec.name!r} does not keep {one.subject!r}", code="topic.subject")
        did = one.did
        if (refusal := self._refusal_of(did)) is not None:
            raise refusal
        age_max = _AGE_MS if self._who.node_of(did) == node else _AGE_STRANGE_MS
        if abs(self._unix_ms() - one.ts_ms) > age_max:
            raise UsageError(
                "it was published too long ago, or by a clock that is too far from ours",
                code="topic.age",
                hint="set the clocks of both machines",
            )
        rule = self._rules.of(one.subject)
        names = self._who.names(did)
        if self._who.node_of(did) == node:  # both say so: the agent in its manifest, the node by its link
            names = frozenset((*names, node))
        if rule is not None and not may(rule.publish, names):
            raise Unauthorized(f"the publisher may not publish to {one.subject!r}", code="topic.publish")

    def _may_read(self, subject: str, names: frozenset[str]) -> bool:
        rule = self._rules.of(subject)
        return rule is None or may(rule.subscribe, names)

    async def _bounds(self, known: Known, ask: Bounds, names: frozenset[str]) -> TopicReply:
        self.admit(known, names)
        store = self._durable.store
        first, next_ = await store.bounds(ask.topic)
        at = await store.offset_at(ask.topic, min(ask.ts_ms, _NUMBER_MAX)) if ask.ts_ms > 0 else first
        return TopicReply(offsets=[first, next_, at])

    def admit(self, known: Known, names: frozenset[str]) -> None:
        """Raise Unauthorized (code "topic.subscribe") if somebody may read none of a topic's subjects."""
        rules = [self._rules.of(pattern) for pattern in known.spec.subjects]
        if not any(rule is None or may(rule.subscribe, names) for rule in rules):
            raise Unauthorized(f"you may not subscribe to the topic {known.spec.name!r}", code="topic.subscribe")

    async def _read(self, known: Known, ask: Read, names: frozenset[str]) -> TopicReply:
        self.admit(known, names)
        until_s = time.monotonic() + max(0.0, min(ask.wait_s, WAIT_S_MAX))
        limit = max(1, min(ask.limit, RECORDS_MAX))
        offset = min(ask.offset, _NUMBER_MAX)
        while True:
            records = await self._durable.store.read(ask.topic, offset, limit, max(0.0, until_s - time.monotonic()))
            seen = [one for one in records if self._may_read(one.subject, names)]
            # What the asker may not see must not stop it: look on, or it would ask for the same again for ever.
            if seen or not records:
                return TopicReply(records=[_line(one) for one in seen])
            offset = records[-1].offset + 1
            await asyncio.sleep(0)

    async def _fetch(self, known: Known, ask: Fetch, names: frozenset[str]) -> TopicReply:
        self.admit(known, names)
        store = self._durable.store
        leases = await store.fetch(
            ask.topic,
            ask.group,
            ask.member,
            limit=max(1, min(ask.limit, RECORDS_MAX)),
            wait_s=max(0.0, min(ask.wait_s, WAIT_S_MAX)),
            ack_wait_s=ask.ack_wait_s,
        )
        hidden = [one.token for one in leases if not self._may_read(one.record.subject, names)]
        if hidden:
            await store.nack(ask.topic, ask.group, hidden, 5.0)
        lines = [_line(one.record, one.token, one.tries) for one in leases if self._may_read(one.record.subject, names)]
        return TopicReply(records=lines)


def record_id(one: Publication) -> str:
    """Return the id by which a durable topic knows a publication again: publishers cannot use up each other's."""
    return f"{one.publisher[:8].hex()}.{id_text(one.id)}"


def _line(record: Record, token: str = "", tries: int = 0) -> RecordLine:
    return RecordLine(record.offset, record.ts_ms, record.subject, record.body, token, tries)
