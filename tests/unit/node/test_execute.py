"""Running one call at a door: whatever the agent does, exactly one terminal status comes out, and limits hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from agentmesh.errors import AgentCanceled, AgentFailed, Closed, LimitError, MeshError, NoRoute, Timeout
from agentmesh.ids import NodeId
from agentmesh.node.door import Happening, Health, Invocation
from agentmesh.node.execute import execute
from agentmesh.node.record import RunClocks, TaskStory
from agentmesh.wire.event import TERMINAL_STATES, EventV1


class ScriptedDoor:
    """A door that plays a script, and remembers what was asked of it."""

    def __init__(self, script: Callable[[], AsyncIterator[Happening]]) -> None:
        self._script = script
        self.canceled: list[str] = []
        self.closed_early = asyncio.Event()

    async def invoke(self, call: Invocation) -> AsyncIterator[Happening]:
        ended = False
        try:
            async for happening in self._script():
                yield happening
            ended = True
        finally:
            if not ended:
                self.closed_early.set()

    async def cancel(self, task_id: str) -> None:
        self.canceled.append(task_id)

    async def health(self) -> Health:
        return Health("healthy")

    async def aclose(self) -> None:
        return None


def text(value: str) -> Happening:
    return Happening("message", {"role": "agent", "parts": [{"text": value}]})


def status(state: str) -> Happening:
    return Happening("status", {"state": state})


async def run(
    door: ScriptedDoor, *, deadline_s: float = 5.0, events_max: int = 100, bytes_max: int = 100_000
) -> tuple[MeshError | None, list[EventV1]]:
    events: list[EventV1] = []

    async def sink(event: EventV1) -> None:
        events.append(event)

    story = TaskStory(NodeId("node"), "run", "task", parent_task_id=None, clock=RunClocks().of("run", 7))
    call = Invocation(task_id="task", run_id="run", parts=[{"text": "hi"}], deadline_s=deadline_s)
    error = await execute(door, call, story, sink, events_max=events_max, bytes_max=bytes_max)
    return error, events


def terminals(events: list[EventV1]) -> list[str]:
    return [e.payload["state"] for e in events if e.kind == "status" and e.payload.get("state") in TERMINAL_STATES]


async def test_a_call_that_goes_well_ends_with_its_own_terminal_status() -> None:
    async def script() -> AsyncIterator[Happening]:
        yield text("2")
        yield status("completed")

    error, events = await run(ScriptedDoor(script))
    assert error is None
    assert [e.kind for e in events] == ["message", "status"]
    assert terminals(events) == ["completed"]
    assert [e.lamport for e in events] == [8, 9]


async def test_nothing_after_the_terminal_status_is_taken() -> None:
    async def script() -> AsyncIterator[Happening]:
        yield status("completed")
        yield text("too late")

    error, events = await run(ScriptedDoor(script))
    assert error is None
    assert len(events) == 1


async def test_an_agent_that_stops_without_an_end_has_failed() -> None:
    async def script() -> AsyncIterator[Happening]:
        yield text("half an ans")

    error, events = await run(ScriptedDoor(script))
    assert isinstance(error, AgentFailed)
    assert error.code == "agent.no_end"
    assert terminals(events) == ["failed"]
    assert events[-2].kind == "error"


async def test_an_agent_that_hangs_is_told_to_stop_at_the_deadline() -> None:
    async def script() -> AsyncIterator[Happening]:
        yield text("thinking")
        await asyncio.Event().wait()

    door = ScriptedDoor(script)
    error, events = await run(door, deadline_s=0.05)
    assert isinstance(error, Timeout)
    assert door.canceled == ["task"]
    assert door.closed_early.is_set()
    assert terminals(events) == ["failed"]


async def test_an_agent_that_floods_is_stopped_at_the_limit() -> None:
    async def script() -> AsyncIterator[Happening]:
        while True:
            yield text("spam")

    door = ScriptedDoor(script)
    error, events = await run(door, events_max=50)
    assert isinstance(error, LimitError)
    assert len(events) == 50 + 2
    assert door.canceled == ["task"]


async def test_an_agent_that_sends_too_many_bytes_is_stopped() -> None:
    async def script() -> AsyncIterator[Happening]:
        for _ in range(100):
            yield text("x" * 10_000)

    error, _ = await run(ScriptedDoor(script), bytes_max=50_000)
    assert isinstance(error, LimitError)


@pytest.mark.parametrize(
    "garbage",
    [
        Happening("nonsense", {}),  # type: ignore[arg-type]
        Happening("status", {"state": "exploded"}),
        Happening("status", {"state": ["completed"]}),
        Happening("status", {}),
        Happening("message", {"parts": [{"data": object()}]}),
    ],
)
async def test_garbage_from_the_agent_is_a_clear_failure(garbage: Happening) -> None:
    async def script() -> AsyncIterator[Happening]:
        yield garbage

    error, events = await run(ScriptedDoor(script))
    assert isinstance(error, AgentFailed)
    assert error.code == "agent.garbage"
    assert terminals(events) == ["failed"]


async def test_an_unreachable_agent_that_did_nothing_is_marked_untouched_so_that_a_replica_may_be_tried() -> None:
    async def script() -> AsyncIterator[Happening]:
        raise NoRoute("connection refused")
        yield text("never")

    error, events = await run(ScriptedDoor(script))
    assert isinstance(error, NoRoute)
    assert error.extra["untouched"] is True
    assert terminals(events) == []
    assert events[-1].kind == "error"


async def test_an_agent_that_closed_the_connection_may_have_worked_and_is_not_marked_untouched() -> None:
    async def script() -> AsyncIterator[Happening]:
        raise Closed("connection reset after the request was sent")
        yield text("never")

    error, events = await run(ScriptedDoor(script))
    assert isinstance(error, Closed)
    assert "untouched" not in error.extra
    assert terminals(events) == ["failed"]


async def test_an_agent_that_breaks_after_it_began_is_not_marked_untouched() -> None:
    async def script() -> AsyncIterator[Happening]:
        yield text("began")
        raise NoRoute("gone")

    error, _ = await run(ScriptedDoor(script))
    assert error is not None
    assert "untouched" not in error.extra


async def test_cancelling_tells_the_agent_and_records_the_canceled_status() -> None:
    started = asyncio.Event()

    async def script() -> AsyncIterator[Happening]:
        yield text("working on it")
        started.set()
        await asyncio.Event().wait()

    door = ScriptedDoor(script)
    events: list[EventV1] = []

    async def sink(event: EventV1) -> None:
        events.append(event)

    story = TaskStory(NodeId("node"), "run", "task", parent_task_id=None, clock=RunClocks().of("run", 0))
    call = Invocation(task_id="task", run_id="run", parts=[{"text": "hi"}])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(execute(door, call, story, sink, events_max=10, bytes_max=10_000))
        await started.wait()
        task.cancel()
    assert task.cancelled()
    assert door.canceled == ["task"]
    assert door.closed_early.is_set()
    assert terminals(events) == ["canceled"]


async def test_an_agent_that_cancels_itself_ends_canceled() -> None:
    async def script() -> AsyncIterator[Happening]:
        raise AgentCanceled("I give up")
        yield text("never")

    error, events = await run(ScriptedDoor(script))
    assert isinstance(error, AgentCanceled)
    assert terminals(events) == ["canceled"]
