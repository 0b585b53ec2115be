"""One call as its caller holds it: the events so far, and the outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import cast

from agentmesh.codec.tracecontext import TraceContext
from agentmesh.errors import AgentCanceled, AgentFailed, LimitError, MeshError
from agentmesh.identity.budget import UNBOUNDED, Budget
from agentmesh.node.record import TaskStory
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1, TaskState, is_end, state_of
from agentmesh.wire.views import Reply, reply_from_events


class Call:
    """A running or finished call. Any number of readers may iterate it; each sees every event, in order, from the first.

    Args:
        story: Makes this node's own events of the task.
        context_id: Conversation, if any.
        trace: The span of the call at its caller's node.
        budget: What it may use at most, signed into its token.
        events_max, bytes_max: Flood limits; over them ``add`` raises LimitError.
    """

    def __init__(
        self,
        story: TaskStory,
        trace: TraceContext,
        *,
        context_id: str | None,
        events_max: int,
        bytes_max: int,
        budget: Budget = UNBOUNDED,
    ) -> None:
        self.story = story
        self.trace = trace
        self.budget = budget
        self.run_id = story.run_id
        self.task_id = story.task_id
        self.context_id = context_id
        self.events: list[EventV1] = []
        self.state: TaskState | None = None
        self.error: MeshError | None = None
        self.agent_id = ""
        self.agent = ""
        self.node_id = ""
        self.path = "local"
        self.transport = "none"
        #: What was asked; None for a call that a program brought with its own token.
        self.opening: v1.CallOpen | None = None
        self.tried: list[str] = []
        self.receipt = ""
        self.finished_s: float | None = None
        self.cancel_requested = False
        #: Why this node ended the call, if it did; what its caller is told then.
        self.halted: MeshError | None = None
        self._events_max, self._bytes_max = events_max, bytes_max
        self._bytes = 0
        self._started_s = time.perf_counter()
        #: Time from its beginning to its outcome, by a clock that nobody sets.
        self.seconds = 0.0
        self._waiters: list[asyncio.Future[None]] = []
        self._done_waiters: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def done(self) -> bool:
        """True once the outcome is known."""
        return self.finished_s is not None

    def attach(self, task: asyncio.Task[None]) -> None:
        """Tie the call to the task that drives it, for ``cancel``."""
        self._task = task

    def add(self, event: EventV1, size_bytes: int = 256) -> None:
        """Take the next event.

        Raises:
            LimitError: the call produced more than it may. The event was not added.
        """
        self._bytes += size_bytes
        self.check_flood(len(self.events), self._bytes)
        self.events.append(event)
        self.story.saw(event.lamport)
        if event.kind == "status":
            state = state_of(event.payload)
            if is_end(state):
                self.state = cast("TaskState", state)
        self._wake()

    def check_flood(self, events: int, size_bytes: int) -> None:
        """Check that another event may be taken, given how many there are and what all take. Raises LimitError."""
        if events >= self._events_max or size_bytes > self._bytes_max:
            raise LimitError(
                f"the call produced more than {self._events_max} events or {self._bytes_max} bytes",
                code="call.flood",
                why="a limit protects both nodes from an agent that never stops",
            )

    def finish(self, error: MeshError | None) -> None:
        """Set the outcome; readers end after the events they have not seen. Idempotent."""
        if self.done:
            return
        self.error = error
        self.seconds = time.perf_counter() - self._started_s
        self.finished_s = time.monotonic()
        self._waiters += self._done_waiters
        self._done_waiters = []
        self._wake()

    def _wake(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def _changed(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def __aiter__(self) -> AsyncIterator[EventV1]:
        """Yield every event of the task as it happens; ends after the outcome is known."""
        position = 0
        while True:
            while position < len(self.events):
                position += 1
                yield self.events[position - 1]
            if self.done:
                return
            await self._changed()

    async def wait(self) -> None:
        """Wait until the outcome is known. Unlike iterating, it is not woken by every event."""
        if not self.done:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._done_waiters.append(waiter)
            await waiter

    async def reply(self) -> Reply:
        """Wait for the outcome.

        Raises:
            AgentFailed, AgentCanceled, Timeout, NoRoute, Refused, …: as the call ended; ``extra`` carries run_id and task_id.
        """
        await self.wait()
        error = self.error
        if error is None and self.state == "canceled":
            error = AgentCanceled("the task was canceled")
        if error is None and self.state in ("failed", "rejected"):
            error = AgentFailed(self._failure_text())
        if error is not None:
            error.extra.setdefault("run_id", self.run_id)
            error.extra.setdefault("task_id", self.task_id)
            error.extra.setdefault("trace_id", self.trace.trace_id)
            if self.receipt:
                error.extra.setdefault("receipt", self.receipt)
            raise error
        text, data, artifacts = reply_from_events(self.events)
        return Reply(
            run_id=self.run_id,
            task_id=self.task_id,
            state=self.state or "completed",
            text=text,
            data=data,
            artifacts=artifacts,
            agent_id=self.agent_id,
            agent=self.agent,
            node_id=self.node_id,
            ms=round(self.seconds * 1000, 3),
            path=self.path,
            context_id=self.context_id,
            tried=self.tried,
            receipt=self.receipt,
            lamport=self.story.lamport,
        )

    def _failure_text(self) -> str:
        for event in reversed(self.events):
            text = event.payload.get("message") if event.kind == "error" else event.payload.get("detail")
            if text:
                return str(text)
        return "the agent failed without saying why"

    def cancel(self) -> bool:
        """Ask the call to stop; False if it is over already. The outcome arrives as usual."""
        if self.done or self._task is None:
            return False
        if not self.cancel_requested:
            self.cancel_requested = True
            self._task.cancel()
        return True

    async def aclose(self) -> None:
        """The client went away: cancel if still running. Idempotent."""
        self.cancel()
