"""Calls that start at this node: resolve, pick a replica, carry, fail over, collect events, cancel.

A replica is given up for the next one only while nothing says that work began there: no link, a link that broke or stayed
silent before the first event (which the callee sends within milliseconds of asking the agent; it stops an agent whose caller
is gone), or the callee's word that it never reached the agent. After that the outcome is reported as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from agentmesh.errors import (
    AgentCanceled,
    AgentNotFound,
    Busy,
    Closed,
    DecodeError,
    LimitError,
    LoopDetected,
    MeshError,
    NoRoute,
    RunNotFound,
    Timeout,
    UsageError,
    from_wire,
    to_wire,
)
from agentmesh.ids import NodeId, short
from agentmesh.net.base import Contact, Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.call import Call
from agentmesh.node.config import NodeConfig
from agentmesh.node.door import Invocation
from agentmesh.node.execute import execute
from agentmesh.node.links import Links, Peer
from agentmesh.node.record import RunClocks, TaskStory, new_id
from agentmesh.node.registry import Registry
from agentmesh.node.resolve import Candidate, Directory, find, pick_order
from agentmesh.store.eventlog import EventLog
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1, check
from agentmesh.wire.views import CallRequest

_log = logging.getLogger("agentmesh.calls")

_TIMEOUT_S_MIN, _TIMEOUT_S_MAX = 0.05, 86_400.0
_ID_CHARS_MAX = 128
_CANCEL_GRACE_S = 2.0
_CHOSEN_MAX = 10_000
#: How long a node that did not accept a call is asked last. A little more than a transport takes to give up a dead peer.
_SILENT_FOR_S = 20.0
#: The callee's node enforces the same deadline; its own word on it is better than ours, so it gets a moment more.
_DEADLINE_GRACE_S = 0.25
_event_decoder = msgspec.msgpack.Decoder(EventV1)


class _Untouched(Exception):
    """A replica was not reached and has certainly done no work; ``reason`` says why."""

    def __init__(self, reason: MeshError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Calls:
    """Start and keep calls.

    Args:
        node_id, node_name: Who we are, told to callees as the caller when no agent is named.
        config: Limits.
        registry, links, log: The node's parts.
        clocks: Logical time of the runs at this node.
        directory: The agents known here.
        contact_of: Returns where a node might be reached.
        name_of: Node id → name for people.
        on_misbehaved: Called with (peer, code, detail).
    """

    def __init__(
        self,
        node_id: NodeId,
        config: NodeConfig,
        registry: Registry,
        links: Links,
        log: EventLog,
        scope: TaskScope,
        clocks: RunClocks,
        *,
        directory: Directory,
        contact_of: Callable[[NodeId], Contact],
        name_of: Callable[[str], str],
        on_misbehaved: Callable[[NodeId, str, str], None],
    ) -> None:
        self._node_id = node_id
        self._config = config
        self._registry, self._links, self._log, self._scope, self._clocks = registry, links, log, scope, clocks
        self._directory, self._contact_of, self._name_of = directory, contact_of, name_of
        self._on_misbehaved = on_misbehaved
        self._running: dict[str, Call] = {}
        self._finished: dict[str, Call] = {}
        self._load: dict[str, int] = {}
        self._chosen_s: dict[str, float] = {}
        self._silent_until_s: dict[str, float] = {}

    @property
    def running(self) -> int:
        """Number of calls running."""
        return len(self._running)

    def get(self, task_id: str) -> Call | None:
        """Return a running or recently finished call."""
        return self._running.get(task_id) or self._finished.get(task_id)

    def start(self, request: CallRequest) -> Call:
        """Begin a call and return at once. A task id that is known returns that call instead of running it twice.

        Raises:
            UsageError: the request is malformed. Nothing was started.
            AgentNotFound: no such agent, or no such calling agent. Nothing was started.
            NoRoute: every replica is unhealthy. Nothing was started.
            LoopDetected: the chain is too long. Nothing was started.
            Busy: too many calls. Nothing was started.
            StoreError: the event log does not take events. Nothing was started.
        """
        if request.task_id and (known := self.get(request.task_id)) is not None:
            return known
        parts = _parts_of(request)
        hops, caller, caller_name = self._caller_of(request)
        if len(self._running) >= self._config.calls_max:
            raise Busy(f"{self._config.calls_max} calls are running on this node")
        candidates = self._candidates(request.to)
        if any(c.entry.manifest.agent_id in hops for c in candidates):
            raise LoopDetected(
                f"agent {request.to!r} is already in the chain of this call",
                why=f"the call passed through {len(hops)} agents",
                hint="agentmesh trace last   shows the chain",
            )
        run_id = request.run_id or new_id()
        story = TaskStory(
            self._node_id,
            run_id,
            request.task_id or new_id(),
            parent_task_id=request.parent_task_id,
            clock=self._clocks.of(run_id, request.lamport),
        )
        call = Call(
            story,
            context_id=request.context_id,
            events_max=self._config.call_events_max,
            bytes_max=self._config.call_bytes_max,
        )
        self._submit(call, candidates[0], request, parts, caller_name)
        message = v1.CallOpen(
            v=v1.WIRE_VERSION,
            task_id=call.task_id,
            run_id=call.run_id,
            agent_id="",
            parts=parts,
            skill=request.skill,
            context_id=request.context_id,
            parent_task_id=request.parent_task_id,
            caller=caller,
            caller_name=caller_name,
            deadline_ms=int(request.timeout_s * 1000),
            hops=hops,
            traceparent=request.traceparent,
            metadata=request.metadata,
        )
        self._running[call.task_id] = call
        call.attach(self._scope.spawn(self._drive(call, candidates, message, request.timeout_s), "call", quiet=True))
        return call

    def _candidates(self, ref: str) -> list[Candidate]:
        found = find(ref, self._directory, self._name_of)
        return pick_order(found, is_connected=self._answers, load_of=self._load_of)

    def _answers(self, node_id: str) -> bool:
        """Say whether a node is linked and has not just let a call go unanswered."""
        return self._links.is_connected(node_id) and self._silent_until_s.get(node_id, 0.0) < time.monotonic()

    def _note_silence(self, node_id: NodeId) -> None:
        """Ask other replicas first for a while: a dead node looks linked until the transport gives it up."""
        self._silent_until_s.pop(node_id, None)
        while len(self._silent_until_s) >= _CHOSEN_MAX:
            del self._silent_until_s[next(iter(self._silent_until_s))]
        self._silent_until_s[node_id] = time.monotonic() + _SILENT_FOR_S

    def _load_of(self, agent_id: str) -> tuple[int, float]:
        """Return (calls running, when it was last chosen): among equals the one that rested longest comes first."""
        return self._load.get(agent_id, 0), self._chosen_s.get(agent_id, 0.0)

    def _choose(self, agent_id: str) -> None:
        self._load[agent_id] = self._load.get(agent_id, 0) + 1
        self._chosen_s.pop(agent_id, None)
        while len(self._chosen_s) >= _CHOSEN_MAX:
            del self._chosen_s[next(iter(self._chosen_s))]
        self._chosen_s[agent_id] = time.monotonic()

    def _caller_of(self, request: CallRequest) -> tuple[list[str], str, str]:
        """Return (hops with the calling agent appended, caller id, caller name)."""
        hops = list(request.hops)
        caller, caller_name = str(self._node_id), self._config.name
        if request.from_agent:
            agent = self._registry.require(request.from_agent, [a.manifest.name for a in self._registry.agents()])
            caller, caller_name = agent.manifest.agent_id, agent.manifest.name
            if caller not in hops:
                hops.append(caller)
        if len(hops) > self._config.hops_max:
            raise LoopDetected(
                f"the chain of calls is {len(hops)} agents long, at most {self._config.hops_max} are allowed",
                hint="agentmesh trace last   shows the chain",
            )
        return hops, caller, caller_name

    def _submit(
        self, call: Call, first: Candidate, request: CallRequest, parts: list[dict[str, Any]], caller_name: str
    ) -> None:
        manifest = first.entry.manifest
        call.story.agent_id, call.story.agent = manifest.agent_id, manifest.name
        payload: dict[str, Any] = {
            "state": "submitted",
            "from": caller_name,
            "to": manifest.name,
            "to_node": manifest.node_id,
            "input": parts,
        }
        if request.skill:
            payload["skill"] = request.skill
        event = call.story.event("status", payload)
        self._log.append(event)
        call.add(event)

    async def _drive(self, call: Call, candidates: list[Candidate], message: v1.CallOpen, timeout_s: float) -> None:
        error: MeshError | None = None
        try:
            async with asyncio.timeout(timeout_s + _DEADLINE_GRACE_S):
                error = await self._try_all(call, candidates, message)
        except TimeoutError:
            error = Timeout(
                f"no answer within {timeout_s:g} s",
                why="the agent or the way to it is slow; it was told to stop",
                hint=f"agentmesh trace {call.run_id[:12]}   shows how far it came",
            )
        except asyncio.CancelledError:
            error = AgentCanceled("the task was canceled")
        except MeshError as raised:
            error = raised
        finally:
            self._running.pop(call.task_id, None)
            self._keep(call)
            self._close_story(call, error)
            call.finish(error)

    def _close_story(self, call: Call, error: MeshError | None) -> None:
        """Tell the end of the task ourselves if the callee did not."""
        if call.state is not None or error is None:
            return
        state = "canceled" if isinstance(error, AgentCanceled) else "failed"
        events = [call.story.event("status", {"state": state, "detail": error.detail})]
        if call.events[-1].kind != "error":
            events.insert(0, call.story.event("error", to_wire(error)))
        with contextlib.suppress(MeshError):  # A full disk must not hide the outcome from whoever waits for it.
            for event in events:
                self._log.append(event)
                call.add(event)

    def _keep(self, call: Call) -> None:
        while len(self._finished) >= self._config.finished_max:
            del self._finished[next(iter(self._finished))]
        self._finished[call.task_id] = call

    async def _try_all(self, call: Call, candidates: list[Candidate], message: v1.CallOpen) -> MeshError | None:
        last: MeshError = NoRoute("no replica to call")
        for index, candidate in enumerate(candidates):
            manifest = candidate.entry.manifest
            call.agent_id, call.agent, call.node_id = manifest.agent_id, manifest.name, manifest.node_id
            call.story.agent_id = manifest.agent_id
            message.agent_id, message.lamport = manifest.agent_id, call.story.lamport
            self._choose(manifest.agent_id)
            try:
                if candidate.entry.local:
                    return await self._local(call, message)
                return await self._remote(call, candidate, message, is_last=index == len(candidates) - 1)
            except _Untouched as untouched:
                last = untouched.reason
                call.tried.append(manifest.node_id)
                _log.info("replica of %s on %s not reached: %s", manifest.name, short(manifest.node_id), last)
                if index < len(candidates) - 1:
                    self._note(call, {"state": "working", "detail": f"trying another replica: {last}"})
            finally:
                left = self._load[manifest.agent_id] - 1
                if left:
                    self._load[manifest.agent_id] = left
                else:
                    del self._load[manifest.agent_id]
        raise last

    def _note(self, call: Call, payload: dict[str, Any]) -> None:
        event = call.story.event("status", payload)
        self._log.append(event)
        call.add(event)

    async def _local(self, call: Call, message: v1.CallOpen) -> MeshError | None:
        call.path = "local"
        agent = self._registry.get(message.agent_id)
        if agent is None:
            raise _Untouched(AgentNotFound.near(message.agent_id, []))
        if agent.active >= agent.limit:
            raise _Untouched(Busy(f"agent {agent.manifest.name!r} is at its limit of {agent.limit} calls"))
        self._note(call, {"state": "working"})

        async def sink(event: EventV1) -> None:
            call.add(event)
            self._log.append(event)

        agent.active += 1
        try:
            error = await execute(
                agent.door,
                Invocation(
                    task_id=message.task_id,
                    run_id=message.run_id,
                    parts=message.parts,
                    agent_name=agent.manifest.name,
                    skill=message.skill,
                    context_id=message.context_id,
                    caller=message.caller,
                    caller_name=message.caller_name,
                    deadline_s=message.deadline_ms / 1000,
                    traceparent=message.traceparent,
                    lamport=call.story.lamport,
                    hops=tuple(message.hops),
                    metadata=message.metadata,
                ),
                call.story,
                sink,
                events_max=self._config.call_events_max,
                bytes_max=self._config.call_bytes_max,
            )
        finally:
            agent.active -= 1
        if isinstance(error, NoRoute | Closed):
            self._registry.check_soon(agent)
        return self._unless_untouched(call, error)

    async def _remote(
        self, call: Call, candidate: Candidate, message: v1.CallOpen, *, is_last: bool
    ) -> MeshError | None:
        node_id = NodeId(candidate.entry.manifest.node_id)
        try:
            peer = await self._links.connect(self._contact_of(node_id))
            call.path = peer.link.path
            stream = await peer.link.open_stream()
        except MeshError as error:
            raise _Untouched(error) from error
        try:
            return await self._converse(call, peer, stream, message, is_last=is_last)
        except (asyncio.CancelledError, LimitError):
            await self._cancel_remote(call, peer, stream)
            raise

    async def _converse(
        self, call: Call, peer: Peer, stream: Stream, message: v1.CallOpen, *, is_last: bool
    ) -> MeshError | None:
        accepted = False
        try:
            await stream.send(v1.encode(message))
            while True:
                if accepted or is_last:
                    payload = await stream.recv()
                else:
                    async with asyncio.timeout(self._config.accept_timeout_s):
                        payload = await stream.recv()
                if payload is None:
                    raise Closed("the callee's node ended the call without an outcome")
                reply = v1.decode_call_reply(payload)
                self._take(call, peer, reply)
                if isinstance(reply, v1.CallEvent):
                    accepted = True
                else:
                    await stream.finish()  # A stream ends when both sides have said so; links allow only so many.
                    return self._outcome(call, reply)
        except (Closed, TimeoutError) as error:
            stream.reset(0)
            if isinstance(error, TimeoutError):
                self._note_silence(peer.link.peer)
                error = Timeout(f"node {short(peer.link.peer)} did not accept the call", code="unreached.not_accepted")
            if not accepted:
                raise _Untouched(error) from error
            raise Closed(
                f"the link to node {self._name_of(peer.link.peer)} broke during the call",
                why=f"{error}; whether the agent finished is unknown",
                hint=f"agentmesh trace {call.run_id[:12]}   once the node is back",
            ) from error
        except DecodeError as error:
            stream.reset(3)
            self._on_misbehaved(peer.link.peer, error.code, str(error))
            raise

    def _outcome(self, call: Call, end: v1.CallEnd) -> MeshError | None:
        if end.error is None:
            if call.state is None:
                raise DecodeError("the callee's node ended the call without a terminal event", code="call.no_end")
            return None
        error = from_wire(end.error)
        return self._unless_untouched(call, error)

    @staticmethod
    def _unless_untouched(call: Call, error: MeshError | None) -> MeshError | None:
        """Return the error, or raise _Untouched if it says that no work was done and nothing in the story contradicts it."""
        told = any(e.kind in ("message", "artifact", "tool") for e in call.events)
        said = error is not None and error.extra.pop("untouched", False) and isinstance(error, NoRoute | Busy)
        if error is not None and said and call.state is None and not told:
            raise _Untouched(error)
        return error

    def _take(self, call: Call, peer: Peer, reply: v1.CallReply) -> None:
        """Check, keep and pass on events of the callee's node; it may only tell what happened there, in this task."""
        for raw in reply.events:
            try:
                event = check(_event_decoder.decode(raw))
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                raise DecodeError(f"not an event: {error}", code="event.malformed") from error
            if event.node_id != peer.link.peer or event.task_id != call.task_id or event.run_id != call.run_id:
                raise DecodeError("the peer sent an event of another node, task or run", code="event.foreign")
            event.seq = 0
            call.add(event, len(raw))
            self._log.append_copy(event)

    async def _cancel_remote(self, call: Call, peer: Peer, stream: Stream) -> None:
        """Tell the callee to stop and collect what it still says, for a moment."""
        try:
            async with asyncio.timeout(_CANCEL_GRACE_S):
                await stream.send(v1.encode(v1.CallCancel(reason="canceled by the caller")))
                while (payload := await stream.recv()) is not None:
                    reply = v1.decode_call_reply(payload)
                    self._take(call, peer, reply)
                    if isinstance(reply, v1.CallEnd):
                        break
        except (MeshError, TimeoutError):
            pass
        stream.reset(0)

    def cancel(self, task_id: str) -> bool:
        """Ask a running task to stop; False if it is over already.

        Raises:
            RunNotFound: no such task here.
        """
        call = self.get(task_id)
        if call is None:
            raise RunNotFound(f"no task {task_id[:64]!r} was started at this node", hint="agentmesh trace last")
        return call.cancel()

    async def aclose(self) -> None:
        """Cancel every running call and wait for the outcomes to be told, at most 3 s. Idempotent."""
        calls = list(self._running.values())
        for call in calls:
            call.cancel()
        deadline_s = time.monotonic() + 3.0
        for call in calls:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                    await call.wait()


def _parts_of(request: CallRequest) -> list[dict[str, Any]]:
    """Check a call request and return its parts. Raises UsageError."""
    given = [request.text is not None, request.data is not None, request.parts is not None]
    if sum(given) != 1:
        raise UsageError("a call takes exactly one of text, data and parts", code="call.no_input")
    if not _TIMEOUT_S_MIN <= request.timeout_s <= _TIMEOUT_S_MAX:
        raise UsageError(
            f"timeout_s is {request.timeout_s:g}; it goes from {_TIMEOUT_S_MIN} to {_TIMEOUT_S_MAX:g} s",
            code="call.bad_timeout",
        )
    for field in (request.run_id, request.task_id, request.parent_task_id, request.context_id):
        if field is not None and not (0 < len(field) <= _ID_CHARS_MAX):
            raise UsageError(f"ids have 1 to {_ID_CHARS_MAX} characters", code="call.bad_id")
    if not 0 <= request.lamport <= 2**52:
        raise UsageError("lamport is out of range", code="call.bad_id")
    if request.text is not None:
        return [{"text": request.text}]
    if request.data is not None:
        return [{"data": request.data}]
    parts = request.parts or []
    if not parts:
        raise UsageError("parts is empty", code="call.no_input")
    for part in parts:
        if sum(k in part for k in ("text", "data", "url", "raw")) != 1:
            raise UsageError("each part has exactly one of text, data, url and raw (A2A 1.0)", code="call.bad_part")
    return parts
