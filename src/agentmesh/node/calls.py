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

from agentmesh.errors import (
    AgentCanceled,
    AgentNotFound,
    Busy,
    LoopDetected,
    MeshError,
    NoRoute,
    RunNotFound,
    Timeout,
    to_wire,
)
from agentmesh.ids import NodeId, short
from agentmesh.net.tasks import TaskScope
from agentmesh.node.call import Call, Untouched, unless_untouched
from agentmesh.node.callee import Callee, Visit
from agentmesh.node.config import NodeConfig
from agentmesh.node.proof import Proofs, Witness
from agentmesh.node.record import RunClocks, TaskStory, new_id
from agentmesh.node.registry import Registry
from agentmesh.node.remote import Remote
from agentmesh.node.request import parts_of
from agentmesh.node.resolve import Candidate, Directory, find, pick_order
from agentmesh.store.eventlog import EventLog
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1
from agentmesh.wire.views import CallRequest

_log = logging.getLogger("agentmesh.calls")

_CHOSEN_MAX = 10_000
#: The callee's node enforces the same deadline; its own word on it is better than ours, so it gets a moment more.
_DEADLINE_GRACE_S = 0.25


class Calls:
    """Start and keep calls.

    Args:
        node_id: Who we are, told to callees as the caller when no agent is named.
        config: Limits.
        registry: Agents beside this node.
        remote: Carries calls to other nodes.
        callee: Serves those that stay here.
        proofs: Signs tokens of calls that stay at this node.
        log: Where events go.
        scope: Owns the tasks of running calls.
        clocks: Logical time of the runs at this node.
        directory: The agents known here.
        name_of: Node id → name for people.
    """

    def __init__(
        self,
        node_id: NodeId,
        config: NodeConfig,
        registry: Registry,
        remote: Remote,
        callee: Callee,
        proofs: Proofs,
        log: EventLog,
        scope: TaskScope,
        clocks: RunClocks,
        *,
        directory: Directory,
        name_of: Callable[[str], str],
    ) -> None:
        self._node_id = node_id
        self._config = config
        self._registry, self._remote, self._callee, self._proofs = registry, remote, callee, proofs
        self._log, self._scope, self._clocks = log, scope, clocks
        self._directory, self._name_of = directory, name_of
        self._running: dict[str, Call] = {}
        self._finished: dict[str, Call] = {}
        self._load: dict[str, int] = {}
        self._chosen_s: dict[str, float] = {}

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
        parts = parts_of(request)
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
        timeout_s = self._config.call_timeout_s if request.timeout_s is None else request.timeout_s
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
            deadline_ms=int(timeout_s * 1000),
            hops=hops,
            traceparent=request.traceparent,
            metadata=request.metadata,
            purpose=request.purpose,
        )
        self._running[call.task_id] = call
        call.attach(self._scope.spawn(self._drive(call, candidates, message, timeout_s), "call", quiet=True))
        return call

    def _candidates(self, ref: str) -> list[Candidate]:
        found = find(ref, self._directory, self._name_of)
        return pick_order(found, is_connected=self._remote.answers, load_of=self._load_of)

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
                return await self._remote.carry(call, message, manifest.node_id, is_last=index == len(candidates) - 1)
            except Untouched as untouched:
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
            raise Untouched(AgentNotFound.near(message.agent_id, []))
        visit = Visit(agent, message, Witness(self._proofs.sign(message, self._node_id)), self._node_id)

        async def sink(event: EventV1) -> None:
            call.add(event)
            visit.witness.add(event)
            if event.seq == 0:  # else it is told again, from the log
                self._log.append(event)

        try:
            ended = await self._callee.serve(visit, call.story, sink)
        finally:
            call.receipt = "" if visit.ended is None else visit.ended.receipt
        return unless_untouched(call, ended.error)

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
