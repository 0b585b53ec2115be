"""Asking another node about topics: one question, one answer, over a request stream (``wire.topics``)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from agentmesh.engines.base import Lease, Record
from agentmesh.errors import Closed, MeshError, NoRoute, Timeout, from_wire
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


class Asking:
    """Ask nodes.

    Args:
        links: To peers.
        contact_of: Where a node may be reached.
    """

    def __init__(self, links: Links, contact_of: Callable[[NodeId], Contact]) -> None:
        self._links, self._contact_of = links, contact_of

    async def ask(self, node: NodeId, ask: TopicAsk, timeout_s: float = _ANSWER_S) -> TopicReply:
        """Ask one thing.

        Raises:
            NoRoute, Timeout, Closed: no answer.
            DecodeError: what came is none.
            MeshError: whatever the other node says.
        """
        try:
            async with asyncio.timeout(timeout_s):
                peer = await self._links.connect(self._contact_of(node))
                stream = await peer.link.open_stream()
                peer.calls += 1  # keeps the link while something waits on it
                try:
                    await stream.send(v1.encode(TopicQuery(v=v1.WIRE_VERSION, ask=ask)))
                    payload = await stream.recv()
                finally:
                    peer.calls -= 1
                    stream.reset(0)
        except TimeoutError:
            raise Timeout("the node that keeps the topic does not answer", code="topic.timeout") from None
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
            reply = await self._asking.ask(self._owner, Append(topic=topic, raws=[raw for _, raw, _ in records]))
        except (Timeout, Closed) as error:
            if error.code not in ("topic.timeout", "topic.closed"):
                raise
            raise Timeout(
                f"the node that keeps the topic {topic!r} did not say whether it has it",
                code="topic.unknown_outcome",
                why=str(error),
                hint="publish it again with the same message_id: it is not kept twice",
            ) from error
        if len(reply.offsets) != len(records):
            raise Closed("the node that keeps the topic answered something else", code="topic.closed")
        return reply.offsets

    async def read(self, topic: str, offset: int, limit: int = 256, wait_s: float = 0.0) -> list[Record]:
        """Return records; each is checked to be what its publisher signed."""
        wait_s = min(wait_s, WAIT_S_MAX)
        ask = Read(topic=topic, offset=offset, limit=min(limit, RECORDS_MAX), wait_s=wait_s, agent=self._agent)
        reply = await self._asking.ask(self._owner, ask, _ANSWER_S + wait_s)
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
        wait_s = min(wait_s, WAIT_S_MAX)
        reply = await self._asking.ask(
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
            _ANSWER_S + wait_s,
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
