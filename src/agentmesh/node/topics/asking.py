"""Asking another node about topics: one question, one answer, over a request stream (``wire.topics``)."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentmesh.engines.base import Lease, Record
from agentmesh.errors import Busy, Closed, MeshError, NoRoute, Timeout, from_wire
from agentmesh.identity.publication import read_publication
from agentmesh.ids import NodeId
from agentmesh.net.base import Contact
from agentmesh.node.links import Links
from agentmesh.wire import v1
from agentmesh.wire.topics import (
    RECORDS_MAX,
    WAIT_S_MAX,
    Ack,
    Append,
    Bounds,
    Fetch,
    Read,
    RecordLine,
    TopicAsk,
    TopicQuery,
    TopicReply,
)

_ANSWER_S = 10.0
#: Questions that may wait at one node for something new; a stream each, of the thousand that all calls share. More of them
#: ask again and again instead.
WAITING_MAX, AGAIN_S = 256, 0.5
#: Bytes of publications brought at once.
_BRING_BYTES_MAX = 1024 * 1024
#: Publications that wait to be brought, for each topic: more are refused.
_BRING_MAX = 10_000


class _Brought(NamedTuple):
    """A publication that waits to be brought; ``turn`` tells its offset, or None: it is its turn to bring."""

    raw: bytes
    turn: asyncio.Future[int | None]


def _settle(waiting: list[_Brought], error: MeshError | None, offset: int = 0) -> None:
    """Tell those that still wait what became of theirs."""
    for one in waiting:
        if not one.turn.done():
            if error is None:
                one.turn.set_result(offset)
            else:
                one.turn.set_exception(error)


class Asking:
    """Ask nodes.

    Args:
        links: To peers.
        contact_of: Where a node may be reached.
    """

    def __init__(self, links: Links, contact_of: Callable[[NodeId], Contact]) -> None:
        self._links, self._contact_of = links, contact_of
        #: Node → questions that wait there.
        self.waiting: dict[NodeId, int] = {}
        self._bringing: dict[tuple[NodeId, str], deque[_Brought]] = {}

    async def ask_waiting(self, node: NodeId, ask: Read | Fetch) -> TopicReply:
        """Ask for something that may have to be waited for; raises as ``ask``."""
        count = self.waiting.get(node, 0)
        ask.wait_s = min(ask.wait_s, WAIT_S_MAX) if count < WAITING_MAX else 0.0
        self.waiting[node] = count + 1
        try:
            reply = await self.ask(node, ask, _ANSWER_S + ask.wait_s)
            if count >= WAITING_MAX and not reply.records:
                await asyncio.sleep(AGAIN_S)
            return reply
        finally:
            if self.waiting[node] > 1:
                self.waiting[node] -= 1
            else:
                del self.waiting[node]

    async def bring(self, node: NodeId, topic: str, raw: bytes) -> int:
        """Have a publication kept, together with all that wait for the same topic; return its offset. Raises as ``ask``."""
        one = _Brought(raw, asyncio.get_running_loop().create_future())
        queue = self._bringing.get((node, topic))
        if queue is None:
            queue = deque[_Brought]()
            self._bringing[node, topic] = queue
        elif len(queue) >= _BRING_MAX:
            raise Busy("more is published than the node that keeps the topic takes", code="topic.full_queue")
        else:
            queue.append(one)
            try:
                offset = await one.turn
            except asyncio.CancelledError:
                if one.turn.done() and not one.turn.cancelled() and one.turn.exception() is None:
                    self._pass_on(
                        node, topic, queue
                    )  # it was its turn, or it was brought: the others must not wait for it
                raise
            if offset is not None:
                return offset
            queue.popleft()
        batch = [one]
        size = len(raw)
        while queue and len(batch) < RECORDS_MAX and size + len(queue[0].raw) <= _BRING_BYTES_MAX:
            batch.append(queue.popleft())
            size += len(batch[-1].raw)
        try:
            return await self._bring(node, topic, batch)
        finally:
            _settle(batch[1:], Timeout("who brought it was stopped", code="topic.timeout"))
            self._pass_on(node, topic, queue)

    async def _bring(self, node: NodeId, topic: str, batch: list[_Brought]) -> int:
        """Bring all of a batch, tell the others what became of theirs, and return the offset of the first."""
        try:
            reply = await self.ask(node, Append(topic=topic, raws=[one.raw for one in batch]))
            if len(reply.offsets) != len(batch):
                raise Closed("the node that keeps the topic answered something else", code="topic.closed")
        except MeshError as error:
            if is_passing(error) or len(batch) == 1:
                _settle(batch[1:], error)
                raise
            # One of them was refused, and so none was kept: each by itself.
            for one in batch[1:]:
                try:
                    _settle([one], None, await self._bring(node, topic, [one]))
                except MeshError as its_own:
                    _settle([one], its_own)
            return await self._bring(node, topic, batch[:1])
        for one, offset in zip(batch, reply.offsets, strict=True):
            _settle([one], None, offset)
        return reply.offsets[0]

    def _pass_on(self, node: NodeId, topic: str, queue: deque[_Brought]) -> None:
        """Let the next one that waits bring what waits; without one, the queue is over."""
        while queue and queue[0].turn.done():
            queue.popleft()
        if queue:
            queue[0].turn.set_result(None)
        elif self._bringing.get((node, topic)) is queue:
            del self._bringing[node, topic]

    async def ask(self, node: NodeId, ask: TopicAsk, timeout_s: float = _ANSWER_S) -> TopicReply:
        """Ask one thing.

        Raises:
            NoRoute: it was not asked.
            Timeout, Closed: no answer (codes "topic.timeout", "topic.closed"); with other codes it was not asked.
            DecodeError: what came is none.
            MeshError: whatever the other node says.
        """
        is_sent = False
        try:
            async with asyncio.timeout(timeout_s):
                peer = await self._links.connect(self._contact_of(node))
                stream = await peer.link.open_stream()
                peer.calls += 1  # keeps the link while something waits on it
                try:
                    is_sent = True
                    await stream.send(v1.encode(TopicQuery(v=v1.WIRE_VERSION, ask=ask)))
                    payload = await stream.recv()
                finally:
                    peer.calls -= 1
                    stream.reset(0)
        except TimeoutError:
            if is_sent:
                raise Timeout("the node that keeps the topic does not answer", code="topic.timeout") from None
            raise NoRoute("the node that keeps the topic is not reached", code="topic.unreached") from None
        except Closed as error:
            if not is_sent:
                raise
            raise Closed(f"the node that keeps the topic went away: {error}", code="topic.closed") from error
        if payload is None:
            raise Closed("the node that keeps the topic ended the stream", code="topic.closed")
        reply = v1.decode_topic_reply(payload)
        if reply.error is not None:
            raise from_wire(reply.error)
        return reply


class RemoteTopic:
    """One durable topic that another node keeps, as this node uses it; the methods are those of ``engines.base.TopicStore``.

    Args:
        asking: Asks.
        owner: The node that keeps it.
        agent: In whose name; "" = this node's.
    """

    def __init__(self, asking: Asking, owner: NodeId, agent: str = "") -> None:
        self._asking, self._owner, self._agent = asking, owner, agent

    async def append(self, topic: str, records: Sequence[tuple[str, bytes, str]]) -> list[int]:
        """Have publications kept.

        Raises:
            NoRoute: not reached; nothing was kept.
            Timeout: it may or may not have been kept (code "topic.unknown_outcome"); the same id again does no harm.
        """
        try:
            return [await self._asking.bring(self._owner, topic, raw) for _, raw, _ in records]
        except (Timeout, Closed) as error:
            if error.code not in ("topic.timeout", "topic.closed"):
                raise
            raise Timeout(
                f"the node that keeps the topic {topic!r} did not say whether it has it",
                code="topic.unknown_outcome",
                why=str(error),
                hint="publish it again with the same message_id: it is not kept twice",
            ) from error

    async def read(self, topic: str, offset: int, limit: int = 256, wait_s: float = 0.0) -> list[Record]:
        """Return records; each is checked to be what its publisher signed."""
        ask = Read(topic=topic, offset=offset, limit=min(limit, RECORDS_MAX), wait_s=wait_s, agent=self._agent)
        reply = await self._asking.ask_waiting(self._owner, ask)
        return [_record(line) for line in reply.records[:RECORDS_MAX]]

    async def bounds(self, topic: str) -> tuple[int, int]:
        """Return the offset of the oldest record, and of the next one."""
        first, next_, _ = await self._bounds(topic, 0)
        return first, next_

    async def offset_at(self, topic: str, ts_ms: int) -> int:
        """Return the offset of the first record at or after a time."""
        return (await self._bounds(topic, max(1, ts_ms)))[2]

    async def _bounds(self, topic: str, ts_ms: int) -> tuple[int, int, int]:
        reply = await self._asking.ask(self._owner, Bounds(topic=topic, ts_ms=ts_ms, agent=self._agent))
        if len(reply.offsets) != 3:
            raise Closed("the node that keeps the topic answered something else", code="topic.closed")
        return reply.offsets[0], reply.offsets[1], reply.offsets[2]

    async def fetch(
        self, topic: str, group: str, member: str, *, limit: int = 16, wait_s: float = 0.0, ack_wait_s: float = 30.0
    ) -> list[Lease]:
        """Take work of a consumer group."""
        reply = await self._asking.ask_waiting(
            self._owner,
            Fetch(
                topic=topic,
                group=group,
                member=member,
                limit=min(limit, RECORDS_MAX),
                wait_s=wait_s,
                ack_wait_s=ack_wait_s,
                agent=self._agent,
            ),
        )
        return [Lease(_record(line), line.token, line.tries) for line in reply.records[:RECORDS_MAX]]

    async def ack(self, topic: str, group: str, tokens: Sequence[str]) -> int:
        """Say that leased records are done."""
        return (await self._asking.ask(self._owner, Ack(topic=topic, group=group, tokens=list(tokens)))).done

    async def nack(self, topic: str, group: str, tokens: Sequence[str], delay_s: float = 0.0) -> int:
        """Give leased records back."""
        ask = Ack(topic=topic, group=group, tokens=list(tokens), back=True, delay_s=delay_s)
        return (await self._asking.ask(self._owner, ask)).done


def _record(line: RecordLine) -> Record:
    """Return a record that came over the network. Raises DecodeError, SignatureError: its publisher did not say that."""
    one = read_publication(line.body)
    return Record(line.offset, line.ts_ms, one.subject, line.body)


async def pause(tries: int, rng: random.Random) -> None:
    """Wait before trying again, longer each time, up to five seconds."""
    await asyncio.sleep(min(5.0, 0.1 * 2 ** min(tries, 6)) * rng.uniform(0.5, 1.0))


def is_passing(error: MeshError) -> bool:
    """Say whether an error of a topic's owner may pass by itself."""
    return isinstance(error, NoRoute | Timeout | Closed)
