"""Calls that start at this node: resolve, order the replicas, try them (``node.effort``), collect events, cancel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agentmesh.codec.tracecontext import TraceContext, begin_trace, read_trace
from agentmesh.core.balance.balance import Balance
from agentmesh.core.balance.budget import RetryBudget
from agentmesh.core.balance.config import BalanceConfig, Strategy
from agentmesh.errors import (
    AgentCanceled,
    AgentNotFound,
    Busy,
    LoopDetected,
    MeshError,
    Refused,
    RunNotFound,
    StateError,
    Timeout,
    to_wire,
)
from agentmesh.identity.budget import Budget
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import NodeId
from agentmesh.net.tasks import TaskScope
from agentmesh.node.attempt import Attempt, Untouched
from agentmesh.node.call import Call
from agentmesh.node.callee import Callee, Visit
from agentmesh.node.config import NodeConfig
from agentmesh.node.declared import Declared
from agentmesh.node.effort import Effort, Means
from agentmesh.node.proof import Proofs, Witness
from agentmesh.node.pulse import Pulse
from agentmesh.node.record import RunClocks, TaskStory, new_id, new_span_id, trace_mark
from agentmesh.node.registry import Registry
from agentmesh.node.remote import Remote
from agentmesh.node.request import budget_of, parts_of
from agentmesh.node.resolve import Candidate, Directory, Entry, candidate_of, find, offered
from agentmesh.node.routes import BESIDE, Routes
from agentmesh.node.share import Share
from agentmesh.store.eventlog import EventLog
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1
from agentmesh.wire.views import CallRequest

#: A call tries at most so many replicas: where a thousand refuse, the next one most likely does too.
_TRIES_MAX = 16
#: The callee's node enforces the same deadline; its own word on it is better than ours, so it gets a moment more.
_DEADLINE_GRACE_S = 0.25
#: A callee that does not keep a deadline shorter than this is not to blame.
_FAIR_TIMEOUT_S = 1.0


class Outward(Protocol):
    """Is told of every call that leaves this node, before and after."""

    def calling(self, attempt: Attempt) -> int:
        """Take note that a call goes out, and return a number for ``called``. Raises MeshError: it must not go."""
        ...

    def called(self, begun: int, attempt: Attempt, error: BaseException | None) -> None:
        """Take note of how it ended. Never raises."""
        ...


class CallWatcher(Protocol):
    """Is told of every call that was started here when its outcome is known. It never raises."""

    def made(self, call: Call) -> None:
        """Take note of a call that is over."""
        ...


class TryWatcher(Protocol):
    """Is told of the tries of calls that leave this node. It never raises."""

    def goes(self, attempt: Attempt) -> None:
        """Take note that a try leaves."""
        ...

    def went(self, attempt: Attempt, error: BaseException | None) -> None:
        """Take note that it is over."""
        ...


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
        routes: Say how far other nodes are.
        pulse: Notices nodes that stop answering.
        trust_of: Trust in an agent by id, 0 … 1.
        outward: Told of every call that leaves.
        tries: Told of every try of those.
        watchers: Told of every call that is over.
        on_outcome: Called with (agent, its node, task, state, error) when a call at another node ends, well or not.
        gate: Raises MeshError while no call may begin (a stopped node).
        refusal_of: Says of an id why it may not be called; None if it may (a revoked key).
        may_leave: Says of a caller here and an agent elsewhere why the call may not leave; None if it may.
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
        routes: Routes,
        pulse: Pulse,
        trust_of: Callable[[str], float],
        outward: Outward,
        tries: TryWatcher,
        on_outcome: Callable[[str, str, str, str, MeshError | None], None],
        watchers: Sequence[CallWatcher] = (),
        gate: Callable[[], None] = lambda: None,
        refusal_of: Callable[[str], MeshError | None] = lambda _: None,
        may_leave: Callable[[str, Manifest], MeshError | None] = lambda _caller, _callee: None,
    ) -> None:
        self._watchers = tuple(watchers)
        self._gate, self._refusal_of, self._may_leave = gate, refusal_of, may_leave
        self._node_id = node_id
        self._outward, self._tries = outward, tries
        self._config = config
        self._on_outcome = on_outcome
        self._registry, self._remote, self._callee, self._proofs = registry, remote, callee, proofs
        self._log, self._scope, self._clocks = log, scope, clocks
        self._directory, self._name_of, self._routes, self._trust_of = directory, name_of, routes, trust_of
        self._running: dict[str, Call] = {}
        self._finished: dict[str, Call] = {}
        self._shares: dict[Call, Share] = {}
        self._declared = Declared()
        tuning = BalanceConfig()
        self._balance = Balance(tuning, random.Random(os.urandom(16)))  # noqa: S311 draws pairs, no secret
        self._budget = RetryBudget(tuning, time.monotonic())
        self._means = Means(self._balance, self._budget, remote.is_quiet, pulse, scope, self._carry, log)

    @property
    def running(self) -> int:
        """Number of calls running."""
        return len(self._running)

    @property
    def serving(self) -> int:
        """Number of calls that agents beside this node serve now, those that wait included."""
        return self._callee.running

    def get(self, task_id: str) -> Call | None:
        """Return a running or recently finished call."""
        return self._running.get(task_id) or self._finished.get(task_id)

    def start(self, request: CallRequest, directory: Directory | None = None) -> Call:
        """Begin a call and return at once. A task id that is known returns that call instead of running it twice.

        Args:
            request: The call.
            directory: The agents that the caller sees, if not all.

        Raises:
            ReadOnly: the node is stopped. Nothing was started.
            UsageError: the request is malformed. Nothing was started.
            AgentNotFound: no such agent, or no such calling agent. Nothing was started.
            NoRoute: every replica is unhealthy. Nothing was started.
            Unauthorized: the keys of all replicas are revoked, or own policy lets the call to none of them out. Nothing was
                started.
            LoopDetected: the chain is too long. Nothing was started.
            Busy: too many calls. Nothing was started.
            StoreError: the event log does not take events. Nothing was started.
        """
        if request.task_id and (known := self.get(request.task_id)) is not None:
            return known
        self._gate()
        parts, budget = parts_of(request), budget_of(request)
        hops, caller, caller_name = self._caller_of(request)
        if len(self._running) >= self._config.calls_max:
            raise Busy(f"{self._config.calls_max} calls are running on this node")
        known = self._candidates(request, caller, directory or self._directory)
        if any(c.replica.agent_id in hops for c in known):
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
        share = self._share_of(caller, request, budget)
        trace = self._trace_of(request, caller, run_id)
        call = Call(
            story,
            trace,
            context_id=request.context_id,
            budget=budget if share is None else share.budget,
            events_max=self._config.call_events_max,
            bytes_max=self._config.call_bytes_max,
        )
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
            traceparent=trace.traceparent,
            tracestate=trace.state,
            metadata=request.metadata,
            purpose=request.purpose,
            grants=request.grants,
            priority=request.priority,
            baggage=request.baggage,
        )
        call.opening = message
        try:
            self._begin(call, message, request, known, timeout_s)
        except MeshError:
            if share is not None:
                share.give_back(0)
            raise
        if share is not None:
            self._shares[call] = share
        return call

    def _begin(
        self, call: Call, message: v1.CallOpen, request: CallRequest, known: list[Candidate], timeout_s: float
    ) -> None:
        """Tell that a call begins, and let it. Raises StoreError, Busy; nothing was started."""
        candidates = self._in_order(known, request)
        self._submit(call, candidates[0], request, message.parts, message.caller_name)
        effort = Effort(
            self._means,
            call,
            candidates,
            message,
            known=known,
            idempotent=request.idempotent or self._may_repeat(candidates, request.skill),
            hedge_s=None if request.hedge_ms is None else request.hedge_ms / 1000,
            deadline_s=time.monotonic() + timeout_s,
        )
        try:
            task = self._scope.spawn(self._drive(call, effort, timeout_s), "call", quiet=True)
        except MeshError:
            effort.abandon()
            raise
        self._budget.earn(time.monotonic())
        self._running[call.task_id] = call
        call.attach(task)
        task.add_done_callback(lambda _: self._end_unbegun(call, effort))

    def _share_of(self, caller: str, request: CallRequest, wanted: Budget) -> Share | None:
        """Return what a call may use that is made while another is served; None for one that is made in none.

        Raises:
            BudgetExceeded: the other may make no further calls. Nothing was taken.
        """
        if not request.from_agent or not request.parent_task_id:
            return None
        visit = self._callee.serving(caller, request.parent_task_id)
        return None if visit is None else Share.of(visit.purse, visit.budget, wanted)

    def _trace_of(self, request: CallRequest, caller: str, run_id: str) -> TraceContext:
        """Return the span of a call: within what the request says, else within the call that it is part of, else a new trace.

        So an agent that knows nothing of traces and only says which call it serves does not tear one apart.
        """
        given = read_trace(request.traceparent, request.tracestate)
        if given is None and request.parent_task_id:
            visit = self._callee.serving(caller, request.parent_task_id) if request.from_agent else None
            before = self.get(request.parent_task_id)
            if visit is not None:
                given = visit.trace
            elif before is not None and before.run_id == run_id:
                given = before.trace
        if given is None:
            return begin_trace(run_id, new_span_id(), self._config.trace_share)
        return given.child(new_span_id())

    def _candidates(self, request: CallRequest, caller: str, directory: Directory) -> list[Candidate]:
        """Return the replicas that may be called. Raises AgentNotFound, NoRoute, Unauthorized."""
        by_weight = self._strategy(request) == "weighted"
        candidates: list[Candidate] = []
        for entry in offered(self._allowed(caller, find(request.to, directory, self._name_of))):
            manifest = entry.manifest
            trust = self._trust_of(manifest.agent_id)
            candidates.append(
                candidate_of(
                    entry,
                    distance=BESIDE if entry.local else self._routes.distance(manifest.node_id, trust),
                    quiet=self._remote.is_quiet(manifest.node_id),
                    weight=self._declared.of(manifest).weight if by_weight else 1,
                    trust=trust,
                )
            )
        return candidates

    def _allowed(self, caller: str, found: list[Entry]) -> list[Entry]:
        """Return the replicas that may be called. Raises Unauthorized if none may."""
        refusals = [
            self._refusal_of(e.manifest.agent_id)
            or self._refusal_of(e.manifest.node_id)
            or (None if e.local else self._may_leave(caller, e.manifest))
            for e in found
        ]
        allowed = [entry for entry, refusal in zip(found, refusals, strict=True) if refusal is None]
        if not allowed and refusals and refusals[0] is not None:
            raise refusals[0]
        return allowed

    def _strategy(self, request: CallRequest) -> Strategy:
        return request.balance or self._config.balance

    def _in_order(self, known: list[Candidate], request: CallRequest) -> list[Candidate]:
        places = self._balance.order(
            [c.replica for c in known],
            self._strategy(request),
            request.context_id or "",
            time.monotonic(),
            _TRIES_MAX,
        )
        return [known[place] for place in places]

    def _may_repeat(self, candidates: list[Candidate], skill: str | None) -> bool:
        """Say whether every replica that may be tried declares that the call may run more than once."""
        return len(candidates) > 1 and all(self._declared.of(c.entry.manifest).may_repeat(skill) for c in candidates)

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
        event = call.story.event("status", payload, trace_mark(call.trace))
        self._log.append(event)
        call.add(event)

    async def _drive(self, call: Call, effort: Effort, timeout_s: float) -> None:
        error: MeshError | None = StateError(
            "the call ended by a fault of this node", code="call.fault", hint="agentmesh logs"
        )  # unless something below says better: a call without an outcome must not look like one that went well
        try:
            async with asyncio.timeout(timeout_s + _DEADLINE_GRACE_S):
                error = await effort.run()
        except TimeoutError:
            error = Timeout(
                f"no answer within {timeout_s:g} s",
                why="the agent or the way to it is slow; it was told to stop",
                hint=f"agentmesh trace {call.run_id[:12]}   shows how far it came",
            )
            if timeout_s >= _FAIR_TIMEOUT_S and call.node_id not in ("", self._node_id):
                self._on_outcome(call.agent_id, call.node_id, call.task_id, "", error)
        except asyncio.CancelledError:
            error = call.halted or AgentCanceled("the task was canceled")
        except MeshError as raised:
            error = raised
        finally:
            self._end(call, error)

    def _end(self, call: Call, error: MeshError | None) -> None:
        self._running.pop(call.task_id, None)
        if (share := self._shares.pop(call, None)) is not None:
            share.close(call.receipt, error)
        self._keep(call)
        self._close_story(call, error)
        is_over = call.done
        call.finish(error)
        if not is_over:
            for watcher in self._watchers:
                watcher.made(call)

    def _end_unbegun(self, call: Call, effort: Effort) -> None:
        """End a call that was canceled before its task had its first turn: nothing of the task has run."""
        if not call.done:
            effort.abandon()
            self._end(call, AgentCanceled("the task was canceled"))

    def _close_story(self, call: Call, error: MeshError | None) -> None:
        """Tell the end of the task ourselves if the callee did not."""
        if call.state is not None or error is None:
            return
        lawful = "rejected" if isinstance(error, Refused) else "failed"
        state = "canceled" if isinstance(error, AgentCanceled) or call.halted is not None else lawful
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

    async def _carry(self, attempt: Attempt, /, *, is_last: bool) -> MeshError | None:
        """Bring a call to its replica, and tell how that went if it was at another node."""
        if attempt.candidate.entry.local:
            return await self._local(attempt)
        begun = self._outward.calling(attempt)
        self._tries.goes(attempt)
        error: BaseException | None = None
        try:
            error = await self._remote.carry(attempt, is_last=is_last)
            return error
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._outward.called(begun, attempt, error)
            self._tries.went(attempt, error)
            self._tell(attempt, error)

    def _tell(self, attempt: Attempt, error: BaseException | None) -> None:
        """Tell how a try at another node went, unless it was given up from here."""
        reason = error.reason if isinstance(error, Untouched) else error
        if isinstance(reason, MeshError) or (reason is None and attempt.state):
            manifest = attempt.candidate.entry.manifest
            self._on_outcome(manifest.agent_id, manifest.node_id, attempt.message.task_id, attempt.state, reason)

    async def _local(self, attempt: Attempt) -> MeshError | None:
        message = attempt.message
        attempt.transport = "local"
        agent = self._registry.get(message.agent_id)
        if agent is None:
            raise Untouched(AgentNotFound.near(message.agent_id, []))
        visit = Visit(agent, message, Witness(self._proofs.sign(message, self._node_id, attempt.budget)), self._node_id)

        async def sink(event: EventV1) -> None:
            attempt.add(event)
            visit.witness.add(event)
            if event.seq == 0:  # else it is told again, from the log
                self._log.append(event)

        try:
            ended = await self._callee.serve(visit, attempt.story, sink)
        finally:
            attempt.receipt = "" if visit.ended is None else visit.ended.receipt
        return attempt.unless_untouched(ended.error)

    def cancel(self, task_id: str) -> bool:
        """Ask a running task to stop; False if it is over already.

        Raises:
            RunNotFound: no such task here.
        """
        call = self.get(task_id)
        if call is None:
            raise RunNotFound(f"no task {task_id[:64]!r} was started at this node", hint="agentmesh trace last")
        return call.cancel()

    def halt(self, error: MeshError) -> None:
        """Cancel every running call; their callers are told this error. The outcomes arrive as usual."""
        for call in list(self._running.values()):
            call.halted = error
            call.cancel()

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
