"""Calls that arrive over a link: check, accept, run at the agent beside us, stream the events back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec

from agentmesh.errors import Closed, DecodeError, MeshError, to_wire
from agentmesh.ids import NodeId
from agentmesh.net.base import Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.callee import Callee, Ended, Visit
from agentmesh.node.links import Peer
from agentmesh.node.proof import Proofs, Witness
from agentmesh.node.record import RunClocks, TaskStory
from agentmesh.store.eventlog import EventLog
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1, is_end, state_of

_ID_CHARS_MAX = 128
_PARTS_MAX = 1_000
#: How long, in seconds, and how many bytes of events may wait to be sent together.
_TOLD_LATER_S, _TOLD_BYTES_MAX = 0.003, 64 * 1024
_encoder = msgspec.msgpack.Encoder()


class Incoming:
    """Serve calls from peers.

    Args:
        node_id: Own id.
        callee: Serves them at the agents beside this node.
        proofs: Checks call tokens.
        log: Where events go.
        scope: Owns the tasks that watch for a cancel.
        clocks: Logical time of the runs at this node.
    """

    def __init__(
        self, node_id: NodeId, callee: Callee, proofs: Proofs, log: EventLog, scope: TaskScope, clocks: RunClocks
    ) -> None:
        self._node_id, self._callee, self._proofs, self._log = node_id, callee, proofs, log
        self._scope, self._clocks = scope, clocks

    async def serve(self, peer: Peer, stream: Stream, message: v1.CallOpen) -> None:
        """Serve one call stream to its end. Refusals are told to the caller before any work; nothing is raised but Closed."""
        node = peer.link.peer
        try:
            _check_shape(message)
            agent = self._callee.find(message)
            visit = Visit(agent, message, Witness(self._proofs.admit(node, message)), node)
        except MeshError as error:
            await self._callee.turn_away(node, message, error)
            with contextlib.suppress(Closed):
                await stream.send(v1.encode(v1.CallEnd(state="rejected", error=to_wire(error))))
                await stream.finish()
            return
        story = TaskStory(
            self._node_id,
            message.run_id,
            message.task_id,
            parent_task_id=message.parent_task_id,
            clock=self._clocks.of(message.run_id, min(message.lamport, 2**52)),
        )
        story.agent_id, story.agent = agent.manifest.agent_id, agent.manifest.name
        told = _Told(stream, self._scope)

        async def sink(event: EventV1) -> None:
            if event.seq == 0:  # else it is told again, from the log
                self._log.append(event)
            visit.witness.add(event)
            await told.add(event)

        running = asyncio.current_task()
        assert running is not None
        watcher = self._scope.spawn(self._watch(stream, running), "watch-call", quiet=True)
        try:
            await self._callee.serve(visit, story, sink)
        except asyncio.CancelledError:
            if not watcher.done():
                raise  # Cancelled by our own shutdown, not by the caller.
            running.uncancel()
        finally:
            watcher.cancel()
        if visit.ended is not None:
            with contextlib.suppress(Closed):
                await told.end(visit.ended)

    async def _watch(self, stream: Stream, running: asyncio.Task[Any]) -> None:
        """Cancel the call when its caller says so, resets the stream or goes away."""
        with contextlib.suppress(MeshError):
            while (payload := await stream.recv()) is not None:
                v1.decode_call_input(payload)
                break
        running.cancel()


def _check_shape(message: v1.CallOpen) -> None:
    for text in (message.task_id, message.run_id):
        if not text or len(text) > _ID_CHARS_MAX:
            raise DecodeError("the call has no usable task_id or run_id", code="call.malformed")
    if not message.parts or len(message.parts) > _PARTS_MAX or message.deadline_ms <= 0 or message.lamport < 0:
        raise DecodeError("the call has no parts, too many, or a deadline that is over", code="call.malformed")


class _Told:
    """What the caller is told of one call: events wait a moment for company, so that a short answer is one message.

    Args:
        stream: To the caller.
        scope: Owns the task that sends what waited.
    """

    def __init__(self, stream: Stream, scope: TaskScope) -> None:
        self._stream, self._scope = stream, scope
        self._events: list[msgspec.Raw] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    async def add(self, event: EventV1) -> None:
        """Take an event; waits for room once many wait. The end of a call leaves with ``end``. Raises Closed."""
        raw = _encoder.encode(event)
        self._events.append(msgspec.Raw(raw))
        self._bytes += len(raw)
        if self._bytes > _TOLD_BYTES_MAX:
            await self.flush()
        elif self._timer is None and not (event.kind == "status" and is_end(state_of(event.payload))):
            self._timer = asyncio.get_running_loop().call_later(_TOLD_LATER_S, self._later)

    def _later(self) -> None:
        self._timer = None
        if self._events:
            with contextlib.suppress(MeshError):  # The node shuts down, and the link with it.
                self._scope.spawn(self.flush(), "tell", quiet=True)

    def _take(self) -> list[msgspec.Raw]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        events, self._events, self._bytes = self._events, [], 0
        return events

    async def flush(self) -> None:
        """Send what waits. Raises Closed."""
        events = self._take()
        if events:
            await self._stream.send(v1.encode(v1.CallEvent(events=events)))

    async def end(self, ended: Ended) -> None:
        """Send what waits, the outcome and its receipt, and finish. Raises Closed."""
        error = to_wire(ended.error) if ended.error else None
        events = self._take()
        end = v1.CallEnd(state=ended.state, error=error, events=[] if ended.withheld else events, receipt=ended.receipt)
        await self._stream.send(v1.encode(end))
        await self._stream.finish()
