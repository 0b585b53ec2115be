"""Calls that arrive over a link: check, accept, run at the agent beside us, stream the events back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec

from agentmesh.errors import (
    AgentNotFound,
    Busy,
    Closed,
    DecodeError,
    LoopDetected,
    MeshError,
    NoRoute,
    ReplayError,
    to_wire,
)
from agentmesh.ids import NodeId
from agentmesh.net.base import Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.config import NodeConfig
from agentmesh.node.execute import execute, invocation_of
from agentmesh.node.links import Peer
from agentmesh.node.proof import Proofs, Witness
from agentmesh.node.record import RunClocks, TaskStory
from agentmesh.node.registry import LocalAgent, Registry
from agentmesh.store.eventlog import EventLog
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1, is_end, state_of

_ID_CHARS_MAX = 128
_PARTS_MAX = 1_000
_SEEN_MAX = 20_000
#: How long, in seconds, and how many bytes of events may wait to be sent together.
_TOLD_LATER_S, _TOLD_BYTES_MAX = 0.003, 64 * 1024
_encoder = msgspec.msgpack.Encoder()


class Incoming:
    """Serve calls from peers.

    Args:
        node_id: Own id.
        config: Limits.
        registry: The agents beside this node.
        proofs: Checks call tokens.
        log: Where events go.
        scope: Owns the tasks that watch for a cancel.
        clocks: Logical time of the runs at this node.
    """

    def __init__(
        self,
        node_id: NodeId,
        config: NodeConfig,
        registry: Registry,
        proofs: Proofs,
        log: EventLog,
        scope: TaskScope,
        clocks: RunClocks,
    ) -> None:
        self._node_id = node_id
        self._config = config
        self._registry = registry
        self._proofs = proofs
        self._log = log
        self._scope = scope
        self._clocks = clocks
        self._seen: dict[tuple[str, str], None] = {}
        self.running = 0

    async def serve(self, peer: Peer, stream: Stream, message: v1.CallOpen) -> None:
        """Serve one call stream to its end. Refusals are told to the caller before any work; nothing is raised but Closed."""
        try:
            agent = self._find(peer.link.peer, message)
            story = Witness(self._proofs.admit(peer.link.peer, message))
        except MeshError as error:
            await _refuse(stream, error)
            return
        try:
            self._admit(peer.link.peer, message, agent)
        except MeshError as error:
            await _refuse(stream, error, self._proofs.attest(agent, message, story, "rejected", error))
            return
        self.running += 1
        agent.active += 1
        try:
            await self._run(peer, stream, message, agent, story)
        finally:
            agent.active -= 1
            self.running -= 1

    def _find(self, peer: NodeId, message: v1.CallOpen) -> LocalAgent:
        """Check the shape of a call, and return its agent; raises what is told to the caller."""
        for text in (message.task_id, message.run_id):
            if not text or len(text) > _ID_CHARS_MAX:
                raise DecodeError("the call has no usable task_id or run_id", code="call.malformed")
        if not message.parts or len(message.parts) > _PARTS_MAX or message.deadline_ms <= 0 or message.lamport < 0:
            raise DecodeError("the call has no parts, too many, or a deadline that is over", code="call.malformed")
        if len(message.hops) > self._config.hops_max or message.agent_id in message.hops:
            raise LoopDetected(
                f"the chain of calls is too long or comes back to this agent ({len(message.hops)} hops)",
                hint="agentmesh trace last   shows the chain",
            )
        if (peer, message.task_id) in self._seen:
            raise ReplayError("this task was already received", code="call.replayed")
        agent = self._registry.get(message.agent_id)
        if agent is None:
            raise AgentNotFound.near(message.agent_id, [a.manifest.name for a in self._registry.agents()])
        return agent

    def _admit(self, peer: NodeId, message: v1.CallOpen, agent: LocalAgent) -> None:
        """Let a call of a proven caller begin; raises what is told to it."""
        if agent.health is not None and agent.health.status != "healthy":
            self._registry.check_soon(agent)
            raise NoRoute(
                f"agent {agent.manifest.name!r} does not answer its health check",
                code="agent.unhealthy",
                why=agent.health.detail or None,
                extra={"untouched": True},
            )
        if self.running >= self._config.calls_max or agent.active >= agent.limit:
            raise Busy(
                f"agent {agent.manifest.name!r} is at its limit of {agent.limit} calls", extra={"untouched": True}
            )
        while len(self._seen) >= _SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[peer, message.task_id] = None

    async def _run(self, peer: Peer, stream: Stream, message: v1.CallOpen, agent: LocalAgent, witness: Witness) -> None:
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
            self._log.append(event)
            witness.add(event)
            await told.add(event)

        state, error = "failed", None
        running = asyncio.current_task()
        assert running is not None
        watcher = self._scope.spawn(self._watch(stream, running), "watch-call", quiet=True)
        try:
            await sink(story.event("status", {"state": "working"}, {"caller_node": peer.link.peer}))
            error = await execute(
                agent.door,
                invocation_of(message, agent.manifest.name),
                story,
                sink,
                events_max=self._config.call_events_max,
                bytes_max=self._config.call_bytes_max,
            )
            state = "completed" if error is None else "failed"
            if isinstance(error, NoRoute | Closed):
                self._registry.check_soon(agent)
        except asyncio.CancelledError:
            state = "canceled"
            if not watcher.done():
                raise  # Cancelled by our own shutdown, not by the caller.
            running.uncancel()
        except MeshError as failure:
            error = failure
        finally:
            watcher.cancel()
        with contextlib.suppress(Closed):
            await told.end(state, error, self._proofs.attest(agent, message, witness, state, error))

    async def _watch(self, stream: Stream, running: asyncio.Task[Any]) -> None:
        """Cancel the call when its caller says so, resets the stream or goes away."""
        with contextlib.suppress(MeshError):
            while (payload := await stream.recv()) is not None:
                v1.decode_call_input(payload)
                break
        running.cancel()


async def _refuse(stream: Stream, error: MeshError, receipt: str = "") -> None:
    with contextlib.suppress(Closed):
        await stream.send(v1.encode(v1.CallEnd(state="rejected", error=to_wire(error), receipt=receipt)))
        await stream.finish()


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

    async def end(self, state: str, error: MeshError | None, receipt: str) -> None:
        """Send what waits, the outcome and its receipt, and finish. Raises Closed."""
        end = v1.CallEnd(state=state, error=to_wire(error) if error else None, events=self._take(), receipt=receipt)
        await self._stream.send(v1.encode(end))
        await self._stream.finish()
