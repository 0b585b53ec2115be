"""A call at the agent beside this node, whoever makes it: checks before any work, the work, its receipt and its record.

``Incoming`` brings calls that came over a link, ``Calls`` those that start and stay here; from here on they are treated alike.
Each ``Check`` may refuse a call before its agent hears of it; each ``Recorder`` is told how every call ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from agentmesh.codec.tracecontext import begin_trace, read_trace
from agentmesh.core.budget.gate import PRIORITY_MAX
from agentmesh.core.budget.purse import Purse
from agentmesh.errors import (
    AgentNotFound,
    BudgetExceeded,
    Busy,
    Closed,
    LoopDetected,
    MeshError,
    NoRoute,
    ReplayError,
    StoreError,
    from_wire,
)
from agentmesh.identity.budget import Usage
from agentmesh.identity.grant import Delegation
from agentmesh.identity.receipt import read_receipt
from agentmesh.identity.token import CallToken
from agentmesh.ids import NodeId
from agentmesh.node.config import NodeConfig
from agentmesh.node.execute import Sink, execute, invocation_of
from agentmesh.node.grants import Grants
from agentmesh.node.proof import Proofs, Witness
from agentmesh.node.record import TaskStory, new_span_id, trace_mark
from agentmesh.node.registry import LocalAgent, Registry
from agentmesh.store.calls import CallStore
from agentmesh.store.eventlog import EventLog
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1, state_of

#: Tasks of agents without receipts that are remembered, so that none of them runs twice.
_DONE_MAX = 20_000
_DEADLINE_MS_MAX = 86_400_000
#: Problems of a call that never reached its agent: the same task may be sent again and is then run.
_NOT_BEGUN = frozenset({"/problems/no_route", "/problems/busy"})


class Ended(NamedTuple):
    """How a call ended.

    Attributes:
        state: Terminal state or "input-required"; "rejected" if it was refused before any work.
        error: Why it was refused or failed.
        receipt: What the agent signed of it; "" if nobody could.
        withheld: It could not be recorded: ``error`` says so, and nothing more of the answer may be told.
    """

    state: str
    error: MeshError | None = None
    receipt: str = ""
    withheld: bool = False


class Visit:
    """One call at one agent beside this node, with a token that holds.

    Args:
        agent: The callee.
        message: The call.
        witness: Its token, and what was told of it so far.
        peer: The node it came from; this node for calls that stay here, "" for one that a program brought with its own token.
        trace_share: Share of the traces that are sampled, of those that begin with such a call.
    """

    __slots__ = (
        "agent",
        "budget",
        "deadline_s",
        "delegation",
        "ended",
        "facts",
        "halted",
        "late",
        "listener",
        "message",
        "peer",
        "priority_max",
        "purse",
        "trace",
        "witness",
    )

    def __init__(
        self, agent: LocalAgent, message: v1.CallOpen, witness: Witness, peer: NodeId, *, trace_share: float = 1.0
    ) -> None:
        self.agent, self.message, self.witness, self.peer = agent, message, witness, peer
        #: What it may use, and how long it may take from now: as its caller says; checks may narrow both.
        self.budget = witness.token.claims.budget
        self.deadline_s = min(message.deadline_ms, _DEADLINE_MS_MAX) / 1000
        #: Code of the error if that time is over.
        self.late = "unreached.timeout"
        #: Highest priority that it may have; policy lowers it for callers on the grey list.
        self.priority_max = PRIORITY_MAX
        #: The grants that came with it, verified before the first check; None if its caller acts for itself.
        self.delegation: Delegation | None = None
        #: The span in which it is served; that of its caller is the parent, if it told one.
        given = read_trace(message.traceparent, message.tracestate)
        self.trace = (
            begin_trace(message.run_id, new_span_id(), trace_share) if given is None else given.child(new_span_id())
        )
        #: Told each event of the agent, if a check set it; it returns at once and never raises.
        self.listener: Callable[[EventV1], None] | None = None
        #: The further calls that its agent makes.
        self.purse = Purse()
        #: Set when the call is over.
        self.ended: Ended | None = None
        #: What checks found out of it, for its audit record ("risk", "budget", …; ``identity.audit_record``).
        self.facts: dict[str, Any] = {}
        #: Set by who cancels the task that serves it, when that is this node and not the caller: what the caller is told.
        self.halted: MeshError | None = None

    @property
    def token(self) -> CallToken:
        """Who asks, for what, and within which budget; verified."""
        return self.witness.token

    def check_usage(self) -> None:
        """Raise BudgetExceeded once the agent has used more than the call may; what it said is told already."""
        used = self.witness.usage
        if used is not None and self.witness.ended is None and (key := used.beyond(self.budget)) is not None:
            raise BudgetExceeded(
                f"the agent used more {key} than the call may and was stopped",
                code="budget.overrun",
                why=f"it says {getattr(used, key)}, the budget is {getattr(self.budget, key)}",
                hint="call again with a larger budget:   agentmesh run --budget …",
            )

    @property
    def charge(self) -> Usage | None:
        """What counts as used: what the agent says, and the call itself; None, which is all it might, if it says nothing."""
        used = self.witness.usage
        if used is None:
            return None
        return Usage(1 + max(used.calls, self.purse.spent), used.tokens, used.usd_micros, self.witness.wall_ms)


class Check(Protocol):
    """One ground on which a call may be refused before any work."""

    async def enter(self, visit: Visit) -> None:
        """Let the call pass, perhaps after a wait, and take what it needs.

        Raises:
            MeshError: it may not pass; the error is told to the caller. Nothing was taken. ``extra["untouched"] = True`` on
                Busy and NoRoute lets the caller try another replica.
            CancelledError: the caller gave up while it waited. Nothing was taken.
        """
        ...

    def leave(self, visit: Visit, ended: Ended) -> None:
        """Give back what the call took. Called once for each call that entered, however it ended. Never raises."""
        ...


class Recorder(Protocol):
    """Is told of every call at an agent beside this node before its caller hears the outcome."""

    async def ended(self, visit: Visit, ended: Ended) -> None:
        """Take note of an outcome; the caller hears it when this returns.

        Raises:
            StoreError: it cannot be noted. The caller hears that, and no more of the answer.
        """
        ...

    async def turned_away(self, peer: NodeId, message: v1.CallOpen, error: MeshError) -> None:
        """Take note of a call whose token does not hold, or that names no agent here. Never raises."""
        ...


class Watcher(Protocol):
    """Is told of every call when its outcome is settled. It has no say in it: nothing here raises or waits."""

    def served(self, visit: Visit, ended: Ended) -> None:
        """Take note of how a call at an agent beside this node ended."""
        ...

    def turned_away(self, peer: NodeId, message: v1.CallOpen, error: MeshError) -> None:
        """Take note of a call whose token does not hold, or that names no agent here."""
        ...


class Callee:
    """Serve calls at the agents beside this node.

    Args:
        config: Limits.
        registry: The agents.
        proofs: Signs receipts.
        grants: Checks what callers may do in the name of others.
        store: Knows the receipts of earlier calls.
        log: Knows their events.
        checks: In their order, cheap ones first.
        recorders: Told of every outcome, in their order.
        watchers: Told of every outcome once it is recorded.
    """

    def __init__(
        self,
        config: NodeConfig,
        registry: Registry,
        proofs: Proofs,
        grants: Grants,
        store: CallStore,
        log: EventLog,
        *,
        checks: Sequence[Check] = (),
        recorders: Sequence[Recorder] = (),
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self._watchers = tuple(watchers)
        self._config, self._registry, self._proofs, self._grants = config, registry, proofs, grants
        self._store, self._log = store, log
        self._checks, self._recorders = tuple(checks), tuple(recorders)
        self._running: set[tuple[str, str, str]] = set()
        self._visits: dict[tuple[str, str], Visit] = {}
        self._done: dict[tuple[str, str, str], None] = {}

    @property
    def running(self) -> int:
        """Number of calls that are being served, those that wait included."""
        return len(self._running)

    def serving(self, agent_id: str, task_id: str) -> Visit | None:
        """Return the call that an agent beside this node serves under a task id; None if it serves none."""
        return self._visits.get((agent_id, task_id))

    def find(self, message: v1.CallOpen) -> LocalAgent:
        """Return the agent that a call is for.

        Raises:
            LoopDetected: the agent is in the chain already, or the chain is too long.
            AgentNotFound: it is not beside this node.
        """
        if len(message.hops) > self._config.hops_max or message.agent_id in message.hops:
            raise LoopDetected(
                f"the chain of calls is too long or comes back to this agent ({len(message.hops)} hops)",
                hint="agentmesh trace last   shows the chain",
            )
        agent = self._registry.get(message.agent_id)
        if agent is None or agent.saved.private:
            raise AgentNotFound.near(
                message.agent_id, [a.manifest.name for a in self._registry.agents() if not a.saved.private]
            )
        return agent

    async def turn_away(self, peer: NodeId, message: v1.CallOpen, error: MeshError) -> None:
        """Record a call that is refused because of its token or its callee."""
        for recorder in self._recorders:
            await recorder.turned_away(peer, message, error)
        for watcher in self._watchers:
            watcher.turned_away(peer, message, error)

    async def serve(self, visit: Visit, story: TaskStory, sink: Sink) -> Ended:
        """Serve one call to its end, which also stands in ``visit.ended``, even if this raises.

        Args:
            visit: The call.
            story: Makes the events.
            sink: Takes them for the caller; it must add each to ``visit.witness``.

        Returns:
            How it ended. A call that ended before is not run again: its events are told again.

        Raises:
            CancelledError: the caller gave up, or the node shuts down; the agent was told.
        """
        entered: list[Check] = []
        ended = Ended("canceled")
        try:
            ended = await self._serve(visit, story, sink, entered)
        except asyncio.CancelledError:
            running = asyncio.current_task()
            if visit.halted is None or running is None or running.uncancel() > 0:
                raise
            ended = Ended("canceled", visit.halted)
        finally:
            visit.witness.calls = visit.purse.spent
            receipt = self._proofs.attest(visit.agent, visit.message, visit.witness, ended.state, ended.error)
            visit.ended = ended = Ended(visit.witness.ended or ended.state, ended.error, receipt)
            for check in reversed(entered):
                check.leave(visit, ended)
            try:
                for recorder in self._recorders:
                    await recorder.ended(visit, ended)
            except StoreError as unrecorded:
                visit.ended = ended = Ended("failed", unrecorded, withheld=True)
            for watcher in self._watchers:
                watcher.served(visit, ended)
        return ended

    async def _serve(self, visit: Visit, story: TaskStory, sink: Sink, entered: list[Check]) -> Ended:
        message, agent = visit.message, visit.agent
        key = (visit.token.caller, message.agent_id, message.task_id)
        if key in self._running:
            return Ended(
                "rejected", Busy("this task is running", code="call.running", hint="wait for its outcome, or cancel it")
            )
        if len(self._running) >= self._config.calls_max:
            busy = Busy(f"{self._config.calls_max} calls are running on this node", extra={"untouched": True})
            return Ended("rejected", busy)
        self._running.add(key)
        try:
            visit.delegation = self._grants.check(message, visit.token)
            if (told := await self._tell_again(visit, sink, key)) is not None:
                self._running.discard(key)
                return told
            for check in self._checks:
                await check.enter(visit)
                entered.append(check)
        except MeshError as refused:
            self._running.discard(key)
            return Ended("rejected", refused)
        except BaseException:
            self._running.discard(key)
            raise
        agent.active += 1
        place = message.agent_id, message.task_id
        self._visits.setdefault(place, visit)
        if agent.key is None:
            while len(self._done) >= _DONE_MAX:
                del self._done[next(iter(self._done))]
            self._done[key] = None

        async def tell(event: EventV1) -> None:
            await sink(event)
            if visit.listener is not None:
                visit.listener(event)
            if event.kind == "status":
                visit.check_usage()

        try:
            said = trace_mark(visit.trace)
            if visit.peer not in ("", story.node_id):
                said["caller_node"] = visit.peer
            await sink(story.event("status", {"state": "working"}, said))
            error = await execute(
                agent.door,
                invocation_of(message, agent.manifest.name, visit.deadline_s, visit.budget, visit.trace),
                story,
                tell,
                events_max=self._config.call_events_max,
                bytes_max=self._config.call_bytes_max,
                late=visit.late,
            )
        except MeshError as failure:
            error = failure
        finally:
            agent.active -= 1
            if self._visits.get(place) is visit:
                del self._visits[place]
            self._running.discard(key)
        if isinstance(error, NoRoute | Closed):
            self._registry.check_soon(agent)
        return Ended("completed" if error is None else "failed", error)

    async def _tell_again(self, visit: Visit, sink: Sink, key: tuple[str, str, str]) -> Ended | None:
        """Tell the outcome of a task that ended before, if it is one; None for a new task.

        Raises:
            ReplayError: it was another call, or its outcome is not kept any longer. It is not run again.
        """
        raw = self._store.receipt_of(visit.message.task_id, visit.message.agent_id, visit.token.caller)
        if raw is None and key not in self._done:
            return None
        if raw is not None:
            claims = read_receipt(raw).claims
            if claims.outcome == "rejected" or claims.problem in _NOT_BEGUN:
                return None
            if claims.req_digest != visit.token.claims.digest or claims.txn != visit.message.run_id:
                raise ReplayError(
                    "this task id was used for another call",
                    code="call.replayed",
                    hint="give each new call a task id of its own; leave it out to have one made",
                )
            error: MeshError | None = None
            for event in await self._log.task_events(visit.message.task_id):
                if event.agent_id != visit.message.agent_id or state_of(event.payload) == "submitted":
                    continue  # told by the caller
                if event.kind == "error":
                    error = from_wire(event.payload)
                await sink(event)
            if visit.witness.digest == claims.res_digest:
                return Ended(claims.outcome, error)
        raise ReplayError(
            "this task was done already, and what it answered is not kept any longer",
            code="call.replayed",
            hint="agentmesh receipt show TASK   says how it ended",
        )
