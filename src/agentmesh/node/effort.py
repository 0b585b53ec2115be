"""All tries of one call: replica after replica, or side by side where the call may safely run more than once.

A replica is given up for the next one only while nothing says that work began there: no link, a link that broke or stayed
silent before the first event (which the callee sends within milliseconds of asking the agent; it stops an agent whose caller
is gone), or the callee's word that it never reached the agent. After that the outcome is reported as it is.

A call that is idempotent goes on: it is begun again on another replica, under the same task id, when the link breaks, when
the agent cannot be reached any more, or when its node stops answering; and on wish after a while without an answer (hedging).
The first outcome counts and the other replicas are told to stop. Each such try is paid from the node's retry budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from math import ceil
from typing import Any, NamedTuple, Protocol

import msgspec

from agentmesh.core.balance.balance import Balance, Outcome
from agentmesh.core.balance.budget import RetryBudget
from agentmesh.errors import AgentCanceled, CallerError, Closed, MeshError, NoRoute, PeerError, Unreached
from agentmesh.ids import NodeId, short
from agentmesh.net.tasks import TaskScope
from agentmesh.node.attempt import ANSWERS, Attempt, Untouched
from agentmesh.node.call import Call
from agentmesh.node.pulse import Pulse
from agentmesh.node.record import TaskStory
from agentmesh.node.resolve import Candidate
from agentmesh.store.eventlog import EventLog
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1, is_end, state_of

_log = logging.getLogger("agentmesh.calls")

#: How long a canceled call waits for what its replicas say of their end; a little more than ``remote`` grants each.
_END_GRACE_S = 2.5
_GOOD = ("completed", "input-required")


class Carry(Protocol):
    """Brings one try to its replica."""

    def __call__(self, attempt: Attempt, /, *, is_last: bool) -> Awaitable[MeshError | None]:
        """Return the error that the callee reports, or None. Raises Untouched, or MeshError when the try broke off."""
        ...


class Means(NamedTuple):
    """What the tries of all calls share.

    Attributes:
        balance: Told how each try went.
        budget: Pays for tries beyond the first.
        is_quiet: Says whether a node, by id, let something go unanswered a moment ago.
        pulse: Notices nodes that stop answering.
        scope: Owns the tasks of tries side by side.
        carry: Brings a try to its replica.
        log: Takes the events of this node.
    """

    balance: Balance
    budget: RetryBudget
    is_quiet: Callable[[str], bool]
    pulse: Pulse
    scope: TaskScope
    carry: Carry
    log: EventLog


class Effort:
    """The tries of one call. The first replica is counted as busy from the start, so that calls made at once spread.

    Args:
        means: What all calls share.
        call: Told what readers shall hear.
        candidates: Replicas in the order in which they are tried, at least one.
        message: The opening; each try gets a copy.
        known: Every replica of the agent, for comparison.
        idempotent: Whether it may run more than once.
        hedge_s: Ask a second replica after so many seconds without an answer; None = never.
        deadline_s: Monotonic seconds when the call should be over.
    """

    def __init__(
        self,
        means: Means,
        call: Call,
        candidates: Sequence[Candidate],
        message: v1.CallOpen,
        *,
        known: Sequence[Candidate],
        idempotent: bool,
        hedge_s: float | None,
        deadline_s: float,
    ) -> None:
        self._means, self._call, self._message, self._known = means, call, message, known
        self._left = deque(candidates)
        self._side_by_side = idempotent and len(candidates) > 1
        self._hedge_s, self._deadline_s = hedge_s, deadline_s
        self._running: dict[asyncio.Task[MeshError | None], Attempt] = {}
        self._teller = self._begin()
        self._wake: asyncio.Event = asyncio.Event()

    def abandon(self) -> None:
        """Give up before anything was tried."""
        self._ended(self._teller, "dropped")

    async def run(self) -> MeshError | None:
        """Try until there is an outcome, and return the error that it carries, or None.

        Raises:
            MeshError: there is no outcome; the last reason.
            CancelledError: the call was canceled; every replica was told.
        """
        if not self._side_by_side:
            return await self._one_by_one()
        try:
            self._spawn(self._teller)
            return await self._first_outcome()
        except asyncio.CancelledError:
            for task in self._running:
                task.cancel()
            if self._running:
                await asyncio.wait(self._running, timeout=_END_GRACE_S)
            told_end = [a for a in (self._teller, *self._running.values()) if a.state]
            self._settle(told_end[0] if told_end else self._teller)
            raise
        finally:
            for task, attempt in self._running.items():
                attempt.muted = True
                task.cancel()

    # One by one

    async def _one_by_one(self) -> MeshError | None:
        attempt = self._teller
        while True:
            self._name(attempt)
            try:
                return await self._try(attempt)
            except Untouched as untouched:
                self._give_up(attempt, untouched.reason)
                if not self._left:
                    raise untouched.reason from None
                self._note(f"trying another replica: {untouched.reason}")
            finally:
                self._name(attempt)
            attempt = self._begin()

    # Side by side

    async def _first_outcome(self) -> MeshError | None:
        hedge_at_s = None if self._hedge_s is None else time.monotonic() + self._hedge_s
        reason: MeshError = NoRoute("no replica to call")
        broken: Attempt | None = None
        is_free = False
        while True:
            if self._left and all(a.quiet for a in self._running.values()) and (is_free or self._pay()):
                self._note(f"trying another replica: {reason}")
                self._spawn(self._begin())
            if not self._running:
                if broken is None:
                    raise reason
                self._settle(broken)
                if not broken.state:
                    raise reason
                return reason
            is_free = False
            for task in await self._next(hedge_at_s if self._left else None):
                attempt = self._running.pop(task)
                may_retry = False
                try:
                    error = task.result()
                    may_retry = isinstance(error, Closed | NoRoute)
                except Untouched as untouched:
                    self._give_up(attempt, untouched.reason)
                    is_free = not attempt.quiet
                    if broken is None:
                        reason = untouched.reason
                    continue
                except (Unreached, PeerError) as broke_off:
                    error, may_retry = broke_off, True
                if error is None or not may_retry:
                    self._settle(attempt)
                    return error
                self._give_up(attempt, error)
                broken, reason = attempt, error
            for attempt in self._running.values():
                node_id = attempt.candidate.entry.manifest.node_id
                if attempt.quiet and node_id not in self._call.tried:
                    reason = Closed(f"node {short(node_id)} does not answer")
                    self._give_up(attempt, reason)
            if hedge_at_s is not None and time.monotonic() >= hedge_at_s:
                hedge_at_s = None
                if self._left and self._running and not self._teller.told and self._pay():
                    self._note("no answer yet: asking another replica as well")
                    self._spawn(self._begin())

    async def _next(self, until_s: float | None) -> list[asyncio.Task[MeshError | None]]:
        """Wait until a try is over, a node went quiet or the time has come; return the tries that are over."""
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if until_s is None else max(0.0, until_s - time.monotonic())):
                if not any(task.done() for task in self._running):
                    await self._wake.wait()
        return [task for task in self._running if task.done()]

    def _spawn(self, attempt: Attempt) -> None:
        try:
            task = self._means.scope.spawn(self._watched(attempt), "try", quiet=True)
        except MeshError:
            self._ended(attempt, "dropped")
            raise
        self._running[task] = attempt
        task.add_done_callback(lambda _: self._wake.set())

    async def _watched(self, attempt: Attempt) -> MeshError | None:
        entry = attempt.candidate.entry
        if entry.local or not self._left:
            return await self._try(attempt)

        def went_quiet() -> None:
            attempt.quiet = True
            self._wake.set()

        with self._means.pulse.watching(NodeId(entry.manifest.node_id), went_quiet):
            return await self._try(attempt)

    def _pay(self) -> bool:
        return self._means.budget.take(time.monotonic())

    # Each try

    def _begin(self) -> Attempt:
        candidate = self._next_candidate()
        mine, manifest = self._call.story, candidate.entry.manifest
        story = TaskStory(mine.node_id, mine.run_id, mine.task_id, parent_task_id=mine.parent_task_id, clock=mine.clock)
        story.agent_id, story.agent = manifest.agent_id, manifest.name
        message = msgspec.structs.replace(self._message, agent_id=manifest.agent_id)
        attempt = Attempt(candidate, message, story, self._hear, self._call.budget)
        self._means.balance.began(candidate.replica, attempt.began_s)
        return attempt

    def _next_candidate(self) -> Candidate:
        """Take the best replica that is left, if possible at a node of which nothing bad was heard since they were ordered."""
        for place, candidate in enumerate(self._left):
            node_id = candidate.entry.manifest.node_id
            if candidate.entry.local or (node_id not in self._call.tried and not self._means.is_quiet(node_id)):
                del self._left[place]
                return candidate
        return self._left.popleft()

    async def _try(self, attempt: Attempt) -> MeshError | None:
        left_ms = ceil((self._deadline_s - attempt.began_s) * 1000)
        attempt.message.deadline_ms = max(1, min(attempt.message.deadline_ms, left_ms))
        attempt.message.lamport = self._call.story.lamport
        attempt.message.may_wait = not self._left
        outcome: Outcome = "failed"
        try:
            error = await self._means.carry(attempt, is_last=not self._left)
            if isinstance(error, AgentCanceled) or (error is None and attempt.state == "canceled"):
                outcome = "dropped"
            elif error is None and attempt.state in _GOOD:
                outcome = "answered"
            return error
        except asyncio.CancelledError:
            if time.monotonic() < self._deadline_s:
                outcome = "dropped"
            raise
        except CallerError as error:
            if not error.code.startswith("call."):  # it could not even be described; "call.flood" is the callee's fault
                outcome = "dropped"
            raise
        finally:
            self._ended(attempt, outcome)

    def _ended(self, attempt: Attempt, outcome: Outcome) -> None:
        agent_id = attempt.candidate.replica.agent_id
        others = (c.replica.agent_id for c in self._known)
        self._means.balance.ended(agent_id, outcome, attempt.began_s, time.monotonic(), others)

    def _give_up(self, attempt: Attempt, reason: MeshError) -> None:
        manifest = attempt.candidate.entry.manifest
        self._call.tried.append(manifest.node_id)
        _log.info("replica of %s on %s given up: %s", manifest.name, short(manifest.node_id), reason)

    # What readers hear

    def _hear(self, attempt: Attempt, event: EventV1, size_bytes: int) -> None:
        """Pass an event on, or keep it until it is clear whose answer counts.

        Readers follow one replica from its first word on, and hear of another only when that one takes over. How a try ended is
        told when its outcome is the one that counts.
        """
        if not self._side_by_side:
            self._call.add(event, size_bytes)
            return
        self._call.story.saw(event.lamport)
        if event.kind in ANSWERS and attempt is not self._teller and not self._is_followed():
            self._take_over(attempt)
        is_ending = event.kind == "error" or (event.kind == "status" and is_end(state_of(event.payload)))
        if attempt is self._teller and not attempt.held and not is_ending:
            self._call.add(event, size_bytes)
        else:
            attempt.held_bytes += size_bytes
            self._call.check_flood(len(attempt.held), attempt.held_bytes)
            attempt.held.append((event, size_bytes))

    def _is_followed(self) -> bool:
        """Say whether readers are in the middle of an answer that still goes on."""
        return self._teller.told and not self._teller.quiet and self._teller in self._running.values()

    def _take_over(self, attempt: Attempt) -> None:
        """Let a replica tell from now on; what another told of its answer is void."""
        if self._teller.told:
            self._note("the answer begins again: it comes from another replica", again=True)
        self._teller.held.clear()
        self._teller = attempt
        held, attempt.held = attempt.held, []
        for event, size_bytes in held:
            self._call.add(event, size_bytes)

    def _settle(self, attempt: Attempt) -> None:
        """Let the call end as this try ended."""
        if attempt is not self._teller:
            self._take_over(attempt)
        held, attempt.held = attempt.held, []
        for event, size_bytes in held:
            self._call.add(event, size_bytes)
        attempt.muted = True
        node_id = attempt.candidate.entry.manifest.node_id
        if attempt.state in _GOOD and node_id in self._call.tried:
            self._call.tried.remove(node_id)  # it was given up too early
        self._name(attempt)

    def _name(self, attempt: Attempt) -> None:
        call, manifest = self._call, attempt.candidate.entry.manifest
        call.agent_id, call.agent, call.node_id = manifest.agent_id, manifest.name, manifest.node_id
        call.story.agent_id = manifest.agent_id
        call.path, call.transport, call.receipt = attempt.path, attempt.transport, attempt.receipt

    def _note(self, detail: str, **more: Any) -> None:
        event = self._call.story.event("status", {"state": "working", "detail": detail, **more})
        self._means.log.append(event)
        self._call.add(event)
