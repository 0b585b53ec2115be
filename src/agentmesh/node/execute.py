"""Run one call at the agent beside this node: the same code whether the caller is local or behind a link."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from agentmesh.codec.tracecontext import TraceContext
from agentmesh.errors import (
    AgentCanceled,
    AgentFailed,
    BudgetExceeded,
    LimitError,
    MeshError,
    NoRoute,
    Timeout,
    to_wire,
)
from agentmesh.identity.budget import Budget
from agentmesh.node.baggage import baggage_of
from agentmesh.node.door import Door, Happening, Invocation
from agentmesh.node.record import TaskStory
from agentmesh.wire import v1
from agentmesh.wire.event import EVENT_BYTES_MAX, KINDS, TERMINAL_STATES, EventV1, is_end, state_of

#: What a sink is given: an event in order. It may wait (back-pressure) and may raise to stop the call.
Sink = Callable[[EventV1], Awaitable[None]]

_STATES = TERMINAL_STATES | {"submitted", "working", "input-required"}
#: How long an agent gets to stop after it was told to, before its answer no longer matters.
_CANCEL_GRACE_S = 2.0


async def execute(
    door: Door,
    call: Invocation,
    story: TaskStory,
    sink: Sink,
    *,
    events_max: int,
    bytes_max: int,
    late: str = "unreached.timeout",
) -> MeshError | None:
    """Run the call and give every event to ``sink``; the last is a terminal status or input-required.

    If the agent could not be reached at all, the last is an error event and the error is marked ``untouched``.

    Args:
        door: The agent.
        call: The call; ``deadline_s`` is enforced here.
        story: Makes the events.
        sink: Takes them.
        events_max, bytes_max: Flood limits.
        late: Code of the error when ``deadline_s`` is over: who set it.

    Returns:
        The error the call ended with, or None. It has been told to ``sink`` as an error event.

    Raises:
        CancelledError: the surrounding task was cancelled; the agent was told, the canceled status went to ``sink``.
    """
    error: MeshError | None = None
    state = "failed"
    touched = False
    try:
        async with asyncio.timeout(call.deadline_s):
            count = size = 0
            async with contextlib.aclosing(_as_generator(door.invoke(call))) as happenings:
                async for happening in happenings:
                    count, size = count + 1, size + _size_of(happening)
                    if count > events_max or size > bytes_max:
                        raise LimitError(
                            f"the agent produced more than {events_max} events or {bytes_max} bytes", code="call.flood"
                        )
                    touched = True
                    ended = _state_of(happening)
                    if ended is not None:
                        state = ended
                        await sink(story.event("status", happening.payload))
                        return None
                    await sink(story.event(happening.kind, happening.payload))
            raise AgentFailed("the agent stopped without finishing its answer", code="agent.no_end")
    except TimeoutError:
        error = Timeout(f"the agent did not finish within {call.deadline_s:g} s", code=late)
        await _tell_cancel(door, call.task_id)
    except asyncio.CancelledError:
        await _tell_cancel(door, call.task_id)
        await _end(sink, story, "canceled", AgentCanceled("the task was canceled by its caller"))
        raise
    except MeshError as raised:
        error = raised
        if not touched and isinstance(raised, NoRoute):
            # No work was done, so the task is not over: another replica may be tried. Only its caller ends the story.
            error.extra["untouched"] = True
            await sink(story.event("error", to_wire(error)))
            return error
        if isinstance(raised, LimitError | BudgetExceeded):
            await _tell_cancel(door, call.task_id)
        state = "canceled" if isinstance(raised, AgentCanceled) else "failed"
    await _end(sink, story, state, error)
    return error


async def _end(sink: Sink, story: TaskStory, state: str, error: MeshError) -> None:
    await sink(story.event("error", to_wire(error)))
    await sink(story.event("status", {"state": state, "detail": error.detail}))


async def _tell_cancel(door: Door, task_id: str) -> None:
    with contextlib.suppress(TimeoutError, MeshError):
        async with asyncio.timeout(_CANCEL_GRACE_S):
            await door.cancel(task_id)


async def _as_generator(source: AsyncIterator[Happening]) -> AsyncGenerator[Happening, None]:
    """Make sure that leaving early closes the door's own generator, which is what cancels the call there."""
    try:
        async for happening in source:
            yield happening
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            with contextlib.suppress(RuntimeError):
                await close()


def _state_of(happening: Happening) -> str | None:
    """Return the state if this happening ends the call."""
    state = state_of(happening.payload) if happening.kind == "status" else ""
    return state if is_end(state) else None


def _size_of(happening: Happening) -> int:
    """Check a happening's form and return its size in bytes."""
    if happening.kind not in KINDS:
        raise AgentFailed(f"the agent sent an unknown kind of event {str(happening.kind)[:40]!r}", code="agent.garbage")
    payload: Any = happening.payload
    if happening.kind == "status" and state_of(payload) not in _STATES:
        raise AgentFailed(f"the agent sent an unknown state {str(payload.get('state'))[:40]!r}", code="agent.garbage")
    try:
        size = len(msgspec.msgpack.encode(payload))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise AgentFailed(f"the agent sent what cannot be encoded: {error}", code="agent.garbage") from error
    if size > EVENT_BYTES_MAX // 2:
        raise LimitError(
            f"the agent sent one event of {size} bytes, at most {EVENT_BYTES_MAX // 2} are taken",
            code="call.event_too_large",
        )
    return size


def invocation_of(
    message: v1.CallOpen, agent_name: str, deadline_s: float, budget: Budget, trace: TraceContext
) -> Invocation:
    """Return a call as its agent sees it: with the time and budget that are left of it, within the span that serves it."""
    return Invocation(
        task_id=message.task_id,
        run_id=message.run_id,
        parts=message.parts,
        agent_name=agent_name,
        skill=message.skill,
        context_id=message.context_id,
        caller=message.caller,
        caller_name=message.caller_name,
        deadline_s=deadline_s,
        budget=budget,
        baggage=baggage_of(message.baggage),
        traceparent=trace.traceparent,
        tracestate=trace.state,
        lamport=message.lamport,
        hops=tuple(message.hops),
        metadata=message.metadata,
    )
