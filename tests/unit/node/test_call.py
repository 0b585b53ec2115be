"""A call as its caller holds it: every reader sees everything, the outcome is told once."""

from __future__ import annotations

import asyncio

import pytest

from agentmesh.codec.tracecontext import begin_trace
from agentmesh.errors import AgentCanceled, AgentFailed, LimitError, NoRoute
from agentmesh.ids import NodeId
from agentmesh.node.call import Call
from agentmesh.node.record import RunClocks, TaskStory


def make(events_max: int = 100, bytes_max: int = 100_000) -> Call:
    story = TaskStory(NodeId("node"), "run", "task", parent_task_id=None, clock=RunClocks().of("run", 0))
    return Call(story, begin_trace("run", "1" * 16), context_id=None, events_max=events_max, bytes_max=bytes_max)


def say(call: Call, text: str) -> None:
    call.add(call.story.event("message", {"role": "agent", "parts": [{"text": text}]}))


async def test_two_readers_that_begin_at_different_times_see_the_same_events() -> None:
    call = make()
    say(call, "one")
    early = call.__aiter__()
    first = await anext(early)
    say(call, "two")
    call.add(call.story.event("status", {"state": "completed"}))
    call.finish(None)
    rest = [e async for e in early]
    late = [e async for e in call]
    assert [first, *rest] == late
    assert len(late) == 3


async def test_the_reply_joins_deltas_and_keeps_whole_messages_apart() -> None:
    call = make()
    for piece in ("Hel", "lo"):
        call.add(call.story.event("message", {"role": "agent", "parts": [{"text": piece}], "delta": True}))
    say(call, "and more")
    call.add(call.story.event("status", {"state": "completed"}))
    call.finish(None)
    reply = await call.reply()
    assert reply.text == "Hello\nand more"
    assert reply.state == "completed"


async def test_the_reply_waits_for_the_outcome() -> None:
    call = make()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(call.reply())
        await asyncio.sleep(0)
        assert not waiting.done()
        call.add(call.story.event("status", {"state": "completed"}))
        call.finish(None)
    assert waiting.result().run_id == "run"


async def test_a_failed_call_raises_the_agents_own_text_with_the_ids_to_trace_it() -> None:
    call = make()
    call.add(call.story.event("status", {"state": "failed", "detail": "division by zero"}))
    call.finish(None)
    with pytest.raises(AgentFailed, match="division by zero") as caught:
        await call.reply()
    assert caught.value.extra["run_id"] == "run"


async def test_a_canceled_call_raises_agent_canceled() -> None:
    call = make()
    call.add(call.story.event("status", {"state": "canceled"}))
    call.finish(None)
    with pytest.raises(AgentCanceled):
        await call.reply()


async def test_an_unreached_call_raises_what_kept_it_from_its_agent() -> None:
    call = make()
    call.finish(NoRoute("no way"))
    with pytest.raises(NoRoute):
        await call.reply()


async def test_more_events_than_allowed_are_refused() -> None:
    call = make(events_max=2)
    say(call, "1")
    say(call, "2")
    with pytest.raises(LimitError):
        say(call, "3")
    assert len(call.events) == 2


async def test_finish_is_idempotent_and_the_first_outcome_stays() -> None:
    call = make()
    call.finish(NoRoute("first"))
    call.finish(None)
    with pytest.raises(NoRoute, match="first"):
        await call.reply()


async def test_cancel_after_the_end_says_no() -> None:
    call = make()
    call.finish(None)
    assert call.cancel() is False
