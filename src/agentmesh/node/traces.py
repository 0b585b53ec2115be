"""The story of a run, put together from every node that took part (peers are asked; copies are kept)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import msgspec

from agentmesh.codec.tracecontext import read_trace
from agentmesh.errors import DecodeError, LimitError, MeshError, RunNotFound
from agentmesh.ids import NodeId
from agentmesh.net.base import Stream
from agentmesh.node.config import NodeConfig
from agentmesh.node.links import Links, Peer
from agentmesh.store.eventlog import EventLog
from agentmesh.wire import v1
from agentmesh.wire.console_views import TraceRows
from agentmesh.wire.event import EventV1, check, digest, is_end, order_key, state_of
from agentmesh.wire.rows import RowQuery
from agentmesh.wire.views import TraceView

_event_decoder = msgspec.msgpack.Decoder(EventV1)
_event_encoder = msgspec.msgpack.Encoder()
#: Events per answer message, and in all, that a peer may send for one run.
_BATCH = 200
_EVENTS_MAX = 200_000
_NODES_MAX = 64
#: Trace ids that are told of one run.
_TRACES_MAX = 8
#: Events that one view tells.
_SHOWN_MAX = 100_000
#: A peer is not asked again for the rows of a run within so many seconds; and how many such notes are kept.
_ASK_AGAIN_S, _ASKED_MAX = 2.0, 1_000


class Traces:
    """Answer trace queries of our own and of peers.

    Args:
        node_id: Own id.
        config: Timeouts.
        log: Local events.
        links: For asking peers.
        name_of: Node id → name for people.
    """

    def __init__(
        self, node_id: NodeId, config: NodeConfig, log: EventLog, links: Links, *, name_of: Callable[[str], str]
    ) -> None:
        self._node_id, self._config, self._log, self._links, self._name_of = node_id, config, log, links, name_of
        #: (peer, run) → when it was asked for its rows, and whether it answered.
        self._asked: dict[tuple[str, str], tuple[float, bool]] = {}

    async def view(self, ref: str, *, after: int = 0, remote: bool = True) -> TraceView:
        """Return the run that ``ref`` names, asking every connected node that took part.

        Raises:
            RunNotFound: no such run here.
            UsageError: the prefix fits several runs.
            LimitError: more than 100,000 events, or 256 MB, are not told at once.
        """
        run_id = await self._log.resolve(ref)
        events = await self._events(run_id)
        asked: dict[str, bool] = {self._node_id: True}
        while remote:
            wanted = [n for n in _nodes_of(events) if n not in asked][: _NODES_MAX - len(asked)]
            if not wanted:
                break
            results = await asyncio.gather(*(self._ask(n, run_id) for n in wanted))
            asked.update(zip(wanted, results, strict=True))
            events = await self._events(run_id)
        if not events:
            raise RunNotFound(f"no run {ref[:64]!r}", hint="agentmesh trace last")
        events.sort(key=order_key)
        nodes = _nodes_of(events)
        missing = [n for n in nodes if remote and not asked.get(n, False)]
        return TraceView(
            run_id=run_id,
            count=len(events),
            digest=digest(events),
            events=[e for e in events if e.seq > after] if after else events,
            nodes={n: self._name_of(n) for n in nodes},
            missing_nodes=missing,
            complete=not missing and _ended(events),
            trace_ids=_trace_ids_of(events),
        )

    async def _events(self, run_id: str) -> list[EventV1]:
        events = await self._log.run_events(run_id, limit=_SHOWN_MAX + 1)
        if len(events) > _SHOWN_MAX:
            raise LimitError(
                f"the run has more than {_SHOWN_MAX} events, too many to be told with all they hold",
                code="events.run_too_large",
                hint=f"agentmesh trace {run_id[:12]} --rows   shows them without payloads",
            )
        return events

    async def rows(self, ref: str, query: RowQuery, *, remote: bool = True) -> TraceRows:
        """Return the rows of the run that ``ref`` names, asking every connected node that took part.

        A node that was asked for this run a moment ago is not asked again, however often pages look.

        Raises:
            RunNotFound: no such run here.
            UsageError: the prefix fits several runs.
            LimitError: the run is too large to be kept as rows.
        """
        run_id = await self._log.resolve(ref)
        told, ends = await self._log.rows(run_id, query)
        asked: dict[str, bool] = {self._node_id: True}
        while remote:
            wanted = [n for n in told.nodes if n not in asked][: _NODES_MAX - len(asked)]
            if not wanted:
                break
            results = await asyncio.gather(*(self._ask_now_and_then(n, run_id) for n in wanted))
            asked.update(zip(wanted, results, strict=True))
            told, ends = await self._log.rows(run_id, query)
        if not told.count:
            raise RunNotFound(f"no run {ref[:64]!r}", hint="agentmesh trace last")
        told.nodes = {n: self._name_of(n) for n in told.nodes}
        told.missing_nodes = [n for n in told.nodes if remote and not asked.get(n, False)]
        told.complete = told.complete and not told.missing_nodes
        for task, (caller, callee) in zip(told.tasks, ends, strict=True):
            task.path = task.path or self._path_between(caller, callee)
        return told

    def _path_between(self, caller: str, callee: str) -> str:
        """Return how this node reaches the other end of a call now; "" if it is at neither end, or there is no link."""
        other = {caller: callee, callee: caller}.get(self._node_id, "")
        peer = self._links.peer(other) if other else None
        return "" if peer is None or peer.link.is_closed else peer.link.path

    async def _ask_now_and_then(self, node_id: str, run_id: str) -> bool:
        """Ask a peer as ``_ask`` does, unless it was asked a moment ago; then say how that went."""
        now_s = time.monotonic()
        place = node_id, run_id
        at_s, answered = self._asked.pop(place, (-_ASK_AGAIN_S, False))
        if now_s - at_s >= _ASK_AGAIN_S:
            answered, at_s = await self._ask(node_id, run_id), time.monotonic()
        self._asked[place] = at_s, answered
        while len(self._asked) > _ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        return answered

    async def _ask(self, node_id: str, run_id: str) -> bool:
        """Fetch what a peer knows of a run and keep copies; False if it could not be asked."""
        peer = self._links.peer(node_id)
        if peer is None or peer.link.is_closed:
            return False
        try:
            async with asyncio.timeout(self._config.trace_timeout_s):
                stream = await peer.link.open_stream()
                try:
                    await self._fetch(peer, stream, run_id)
                finally:
                    stream.reset(0)
        except (MeshError, TimeoutError):
            return False
        return True

    async def _fetch(self, peer: Peer, stream: Stream, run_id: str) -> None:
        await stream.send(v1.encode(v1.TraceQuery(v=v1.WIRE_VERSION, run_id=run_id)))
        taken = 0
        while (payload := await stream.recv()) is not None:
            reply = v1.decode_trace_reply(payload)
            if not isinstance(reply, v1.TraceEvents):
                return
            for raw in reply.events:
                taken += 1
                try:
                    event = check(_event_decoder.decode(raw))
                except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                    raise DecodeError(f"not an event: {error}", code="event.malformed") from error
                # A peer tells only what happened on itself; others are asked themselves.
                if event.run_id == run_id and event.node_id == peer.link.peer and taken <= _EVENTS_MAX:
                    event.seq = 0
                    self._log.append_copy(event)
            if not reply.more:
                return

    async def serve(self, peer: Peer, stream: Stream, query: v1.TraceQuery) -> None:
        """Answer a peer's query with our own events of a run that it took part in; with nothing otherwise."""
        with contextlib.suppress(RunNotFound):
            events = await self._log.run_events(query.run_id)
            asker = str(peer.link.peer)
            if any(_touches(e, asker) for e in events):
                own = sorted((e for e in events if e.node_id == self._node_id), key=order_key)
                for start in range(0, len(own), _BATCH):
                    batch = [msgspec.Raw(_event_encoder.encode(e)) for e in own[start : start + _BATCH]]
                    await stream.send(v1.encode(v1.TraceEvents(events=batch, more=start + _BATCH < len(own))))
                await stream.finish()
                return
        await stream.send(v1.encode(v1.TraceEvents(events=[])))
        await stream.finish()


def _touches(event: EventV1, node_id: str) -> bool:
    """Say whether a node took part in what an event tells."""
    return (
        event.node_id == node_id
        or event.payload.get("to_node") == node_id
        or event.metadata.get("caller_node") == node_id
    )


def _nodes_of(events: list[EventV1]) -> list[str]:
    """Return the nodes that took part, in order of first appearance."""
    nodes: dict[str, None] = {}
    for event in events:
        named: list[Any] = [event.node_id, event.payload.get("to_node"), event.metadata.get("caller_node")]
        for node in named:
            if isinstance(node, str) and node:
                nodes[node] = None
    return list(nodes)


def _trace_ids_of(events: list[EventV1]) -> list[str]:
    """Return the W3C traces that the events are of, in order of appearance; what peers tell is read as strictly as a header."""
    found: dict[str, None] = {}
    for event in events:
        said: Any = event.metadata.get("traceparent")
        if isinstance(said, str) and len(found) < _TRACES_MAX and (trace := read_trace(said)) is not None:
            found[trace.trace_id] = None
    return list(found)


def _ended(events: list[EventV1]) -> bool:
    """Say whether every task that was submitted has ended."""
    open_tasks: set[str | None] = set()
    for event in events:
        if event.kind == "status":
            state = state_of(event.payload)
            if is_end(state):
                open_tasks.discard(event.task_id)
            elif state == "submitted":
                open_tasks.add(event.task_id)
    return not open_tasks
