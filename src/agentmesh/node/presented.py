"""Calls that programs bring to the HTTP edge with a call token of their own (docs/spec/tokens.md §8).

The same token as between nodes, checked in the same order, with the program's key as the caller: no node vouches for it, so
policy, guard and audit see that key and nothing else. From there the call goes the way of all calls (``node.callee``). Only
agents beside this node can be called so: what goes on to another node would need a token for the way there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from agentmesh.errors import (
    AgentCanceled,
    LimitError,
    MeshError,
    PeerError,
    Refused,
    ReplayError,
    StateError,
    Unauthorized,
    to_wire,
)
from agentmesh.identity.token import CallToken, check_body, check_chain, digest_of, read_call_token
from agentmesh.ids import NodeId, short
from agentmesh.net.tasks import TaskScope
from agentmesh.node.call import Call
from agentmesh.node.callee import Callee, Visit
from agentmesh.node.config import NodeConfig
from agentmesh.node.proof import Witness
from agentmesh.node.record import RunClocks, TaskStory
from agentmesh.node.registry import LocalAgent
from agentmesh.node.request import parts_of
from agentmesh.obs.meters import Checks
from agentmesh.store.calls import CallStore
from agentmesh.store.eventlog import EventLog
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1
from agentmesh.wire.views import CallRequest

#: The node that a program's call came over: none.
NO_NODE = NodeId("")
#: Agents of one name beside a node that a token is compared with.
_AGENTS_MAX = 16


class Presented(NamedTuple):
    """What came with a request.

    Attributes:
        token: The call token, unread.
        method: HTTP method.
        addresses: What ``htu`` may say: the address of the interface, and that of the request, both without query.
        grant: The grant from the Authorization header; "" without one. Its ancestors are in the request, root first.
        task_id: What ``idem`` must be, where the protocol has such an id; "" where it has none.
    """

    token: str
    method: str
    addresses: tuple[str, ...]
    grant: str = ""
    task_id: str = ""


class Admitted:
    """A call whose token holds and is used up by now. ``start`` it, once, or let it go: nothing has begun.

    Args:
        calls: Serve it.
        visit: The call.
    """

    def __init__(self, calls: TokenCalls, visit: Visit) -> None:
        self._calls, self._visit = calls, visit

    @property
    def caller(self) -> str:
        """did:key of whoever signed the token."""
        return self._visit.token.caller

    @property
    def digest(self) -> str:
        """Digest of the body that was signed (``identity.token.digest_of``)."""
        return self._visit.token.claims.digest

    async def start(self) -> Call:
        """Begin the call. Raises StoreError: the event log does not take events; nothing was started."""
        return self._calls.start(self._visit)


class TokenCalls:
    """Check and serve calls that come with a token of a program's own.

    Args:
        node_id: This node.
        config: Limits.
        callee: Serves them.
        store: Remembers the tokens that were used.
        log: Where events go.
        scope: Owns the tasks of running calls.
        clocks: Logical time of the runs at this node.
        tenant_of: Returns the tenant that a task belongs to; "" for one that is free.
        checks: Told how long the checks of tokens took.
        unix_s: The wall clock.
    """

    def __init__(
        self,
        node_id: NodeId,
        config: NodeConfig,
        callee: Callee,
        store: CallStore,
        log: EventLog,
        scope: TaskScope,
        clocks: RunClocks,
        *,
        tenant_of: Callable[[str], str],
        checks: Checks | None = None,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._node_id, self._config, self._callee, self._store = node_id, config, callee, store
        self._log, self._scope, self._clocks, self._unix_s = log, scope, clocks, unix_s
        self._tenant_of, self._checks = tenant_of, checks or Checks()
        self._running: dict[Call, Visit] = {}

    async def admit(self, presented: Presented, request: CallRequest, agents: Sequence[LocalAgent]) -> Admitted:
        """Check the token of a call and use it up; a refusal is in the audit log when it is raised.

        Args:
            presented: The token, and how it came.
            request: The call. Purpose, budget and hops are the token's.
            agents: Those beside this node that the request may mean; the token says which.

        Raises:
            Unauthorized: the token does not hold; ``code`` is that of the check (docs/spec/tokens.md §3), or "token.here".
            LoopDetected: the callee is in the chain already, or the chain is too long.
            UsageError, LimitError: the request itself is malformed, or has no canonical form.
            Busy, StoreError: the token cannot be remembered.
        """
        parts = parts_of(request)
        message = v1.CallOpen(
            v=v1.WIRE_VERSION,
            task_id=presented.task_id or request.task_id or "",
            run_id=request.run_id or "",
            agent_id=agents[0].manifest.agent_id if agents else request.to,
            parts=parts,
            skill=request.skill,
            context_id=request.context_id,
            deadline_ms=int(1000 * (self._config.call_timeout_s if request.timeout_s is None else request.timeout_s)),
            lamport=request.lamport,
            traceparent=request.traceparent,
            tracestate=request.tracestate,
            metadata=request.metadata,
            token=presented.token,
            grants=_chain(request.grants, presented.grant),
            priority=request.priority,
            may_wait=True,
            baggage=request.baggage,
        )
        try:
            agent, token = self._timed_read(presented, agents)
            _complete(message, token, request)
            if self._tenant_of(message.task_id):
                raise Unauthorized("this task id is another's", code="token.task", hint="draw each id anew, 128 bits")
            check_body(token, digest_of(parts, request.skill, request.context_id))
            check_chain(token, message.agent_id)
            self._callee.find(message)
            self._note(token)
        except MeshError as error:
            refusal = _as_refusal(error)
            await self._callee.turn_away(self._node_id, message, refusal)
            raise refusal from error
        share = self._config.trace_share
        return Admitted(self, Visit(agent, message, Witness(token), NO_NODE, trace_share=share))

    async def prove(
        self, presented: Presented, agents: Sequence[LocalAgent], parts: list[dict[str, Any]], skill: str
    ) -> str:
        """Check and use up the token of a request about calls that began before; return did:key of who signed it.

        Args:
            presented: The token, and how it came.
            agents: Those beside this node that the request may be about.
            parts: What is asked, as if it were the parts of a message.
            skill: The method, as if it were the skill.

        Raises:
            MeshError: as ``admit``; a refusal is in the audit log when it is raised.
        """
        try:
            agent, token = self._timed_read(presented, agents)
            check_body(token, digest_of(parts, skill, None))
            check_chain(token, agent.manifest.agent_id)
            self._note(token)
        except MeshError as error:
            refusal = _as_refusal(error)
            about = agents[0].manifest.agent_id if agents else ""
            message = v1.CallOpen(
                v=v1.WIRE_VERSION,
                task_id="",
                run_id="",
                agent_id=about,
                parts=parts,
                skill=skill,
                token=presented.token,
            )
            await self._callee.turn_away(self._node_id, message, refusal)
            raise refusal from error
        return token.caller

    def cancel(self, caller: str, task_id: str) -> bool:
        """Ask a call that this caller began to stop; False if none such runs."""
        for call, visit in self._running.items():
            if call.task_id == task_id and visit.token.caller == caller:
                return call.cancel()
        return False

    def _note(self, token: CallToken) -> None:
        """Use a token up. Raises ReplayError, Busy, StoreError."""
        now = int(self._unix_s())
        if not self._store.note_token(token.caller, token.claims.jti, token.kept_until, now=now):
            raise ReplayError("this call token was used before", code="token.replayed")

    def _timed_read(self, presented: Presented, agents: Sequence[LocalAgent]) -> tuple[LocalAgent, CallToken]:
        began_s = time.perf_counter()
        is_good = False
        try:
            read = self._read(presented, agents)
            is_good = True
            return read
        finally:
            self._checks.note(time.perf_counter() - began_s, good=is_good)

    def _read(self, presented: Presented, agents: Sequence[LocalAgent]) -> tuple[LocalAgent, CallToken]:
        """Return the token, verified, and the agent that it is for."""
        error: Unauthorized = Unauthorized(
            "no agent beside this node is meant by the call token",
            code="token.here",
            why="a token is checked by the node of the agent that it is for",
            hint="call the agent at its own node; agentmesh discover   says which",
        )
        now = int(self._unix_s())
        for agent in agents[:_AGENTS_MAX]:
            for address in presented.addresses:
                try:
                    return agent, read_call_token(
                        presented.token,
                        now=now,
                        audience=agent.manifest.agent_id,
                        htm=presented.method,
                        htu=address,
                        is_replayed=self._store.is_noted,
                    )
                except Unauthorized as refused:
                    if refused.code not in ("token.audience", "token.address"):
                        raise
                    error = refused
                    if refused.code == "token.audience":
                        break
        raise error

    def start(self, visit: Visit) -> Call:
        """Begin a call that was admitted. Raises StoreError; nothing was started."""
        message, manifest = visit.message, visit.agent.manifest
        clock = self._clocks.of(message.run_id, message.lamport)
        story = TaskStory(self._node_id, message.run_id, message.task_id, parent_task_id=None, clock=clock)
        story.agent_id, story.agent = manifest.agent_id, manifest.name
        call = Call(
            story,
            visit.trace,
            context_id=message.context_id,
            budget=visit.budget,
            events_max=self._config.call_events_max,
            bytes_max=self._config.call_bytes_max,
        )
        call.agent_id, call.agent, call.node_id = manifest.agent_id, manifest.name, self._node_id
        call.tried.append(manifest.agent_id)
        submitted = story.event(
            "status",
            {
                "state": "submitted",
                "from": message.caller_name,
                "to": manifest.name,
                "to_node": self._node_id,
                "input": message.parts,
            },
        )
        self._log.append(submitted)
        call.add(submitted)
        task = self._scope.spawn(self._drive(call, visit), "token-call", quiet=True)
        self._running[call] = visit
        call.attach(task)
        task.add_done_callback(lambda _: self._over(call))
        return call

    async def _drive(self, call: Call, visit: Visit) -> None:
        async def sink(event: EventV1) -> None:
            call.add(event)
            visit.witness.add(event)
            if event.seq == 0:  # else it is told again, from the log
                self._log.append(event)

        error: MeshError | None = StateError("the call ended by a fault of this node", code="call.fault")
        try:
            error = (await self._callee.serve(visit, call.story, sink)).error
        except asyncio.CancelledError:
            error = call.halted or AgentCanceled("the task was canceled")
        except MeshError as raised:
            error = raised
        finally:
            call.receipt = "" if visit.ended is None else visit.ended.receipt
            self._close_story(call, error)
            call.finish(error)

    def _close_story(self, call: Call, error: MeshError | None) -> None:
        """Tell the end of a call that was refused before its agent heard of it."""
        if call.state is not None or error is None:
            return
        state = (
            "rejected" if isinstance(error, Refused) else "canceled" if isinstance(error, AgentCanceled) else "failed"
        )
        try:
            for event in (
                call.story.event("error", to_wire(error)),
                call.story.event("status", {"state": state, "detail": error.detail}),
            ):
                self._log.append(event)
                call.add(event)
        except MeshError:  # A full disk must not hide the outcome from whoever waits for it.
            return

    def _over(self, call: Call) -> None:
        self._running.pop(call, None)
        if not call.done:  # canceled before its first turn
            call.finish(AgentCanceled("the task was canceled"))

    def halt(self, error: MeshError) -> None:
        """Cancel every running call; their callers are told this error. The outcomes arrive as usual."""
        for call in list(self._running):
            call.halted = error
            call.cancel()


def _complete(message: v1.CallOpen, token: CallToken, request: CallRequest) -> None:
    """Fill in what the token says, and refuse what the request says otherwise."""
    claims = token.claims
    if message.task_id not in ("", claims.idem) or message.run_id not in ("", claims.trace_id):
        raise Unauthorized(
            "the call token was made for another task",
            code="token.task",
            hint="idem is the id of the task (of an A2A message: messageId), trace_id that of the run",
        )
    if request.hops and request.hops != list(claims.hops):
        raise Unauthorized("the call token names another chain than the call", code="token.hops")
    if request.from_agent not in ("", token.caller):
        raise Unauthorized(
            "the call names another caller than its token",
            code="token.caller",
            hint="leave from_agent out: whoever signed the token is the caller",
        )
    message.agent_id, message.task_id, message.run_id = claims.aud, claims.idem, claims.trace_id
    message.caller, message.caller_name = token.caller, short(token.caller)
    message.hops, message.purpose = list(claims.hops), claims.purpose


def _chain(grants: Sequence[str], leaf: str) -> list[str]:
    return [*grants] if not leaf or (grants and grants[-1] == leaf) else [*grants, leaf]


def _as_refusal(error: MeshError) -> MeshError:
    """Return what the program is told: 401 with the code of the check, whatever kind of fault the token has."""
    if isinstance(error, PeerError) and not isinstance(error, LimitError):
        return Unauthorized(error.detail, code=error.code, why=error.why, hint=error.hint)
    return error
