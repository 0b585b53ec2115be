"""Calls at the agent beside a node: one task runs once, whoever sends it how often (docs/spec/tokens.md §7.3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.errors import AgentFailed, Busy, MeshError, ReplayError
from agentmesh.identity.receipt import read_receipt
from agentmesh.node.door import Happening, Invocation
from agentmesh.wire.views import CallRequest
from tests.unit.node.test_two_nodes import DONE, echo, fail, hang, knows, say
from tests.unit.node.world import Member, until, world


def again(member: Member) -> None:
    """Let the caller's node forget the calls it made, so that only the callee can know a task."""
    member.node._calls._finished.clear()  # pyright: ignore[reportPrivateUsage]


def task(to: str = "echo", **changes: str) -> CallRequest:
    return CallRequest(to=to, **{"text": "hello", "task_id": "task-1", "run_id": "run-1", **changes})  # type: ignore[arg-type]


async def test_a_task_that_ended_is_told_again_and_never_run_twice_even_after_a_restart(tmp_path: Path) -> None:
    runs = 0

    async def counting(call: Invocation) -> AsyncIterator[Happening]:
        nonlocal runs
        runs += 1
        yield say(f"run {runs}")
        yield DONE

    async with world(tmp_path, 2) as (a, b):
        kits = (a.kit, b.kit)
        await b.serve("echo", counting)
        await until(lambda: knows(a, "echo"))
        first = await (await a.node.call(task())).reply()
        again(a)
        second = await (await a.node.call(task())).reply()
    async with world(tmp_path, 2, kits=kits) as (a, _b):
        await until(lambda: knows(a, "echo"))
        third = await (await a.node.call(task())).reply()
    assert [r.text for r in (first, second, third)] == ["run 1"] * 3
    assert runs == 1
    claims = [read_receipt(r.receipt).claims for r in (first, second, third)]
    assert len({c.res_digest for c in claims}) == 1
    assert len({c.proof for c in claims}) == 3, "each try has a token and a receipt of its own"


async def test_a_failure_is_told_again_as_the_same_failure(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("bad", fail)
        await until(lambda: knows(a, "bad"))
        said: list[str] = []
        for _ in range(2):
            with pytest.raises(AgentFailed) as error:
                await (await a.node.call(task("bad"))).reply()
            said.append(str(error.value))
            again(a)
    assert said[0] == said[1]
    assert len(agent.calls) == 1


@pytest.mark.parametrize("changes", [{"text": "something else"}, {"run_id": "run-2"}])
async def test_a_task_id_that_was_used_for_another_call_is_refused(tmp_path: Path, changes: dict[str, str]) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        await (await a.node.call(task())).reply()
        again(a)
        with pytest.raises(ReplayError) as error:
            await (await a.node.call(task(**changes))).reply()
        assert error.value.code == "call.replayed"
        assert len(agent.calls) == 1


async def test_a_task_that_is_running_is_not_begun_a_second_time(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("slow", hang)
        await until(lambda: knows(a, "slow"))
        first = await a.node.call(task("slow"))
        await until(lambda: any(e.kind == "message" for e in first.events))
        a.node._calls._running.clear()  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Busy) as error:
            await (await a.node.call(task("slow"))).reply()
        assert error.value.code == "call.running"
        assert len(agent.calls) == 1


async def test_a_task_that_was_refused_or_never_reached_the_agent_may_be_sent_again(tmp_path: Path) -> None:
    async with world(tmp_path, 2, agent_concurrency_max=1, agent_queue_max=0) as (a, b):
        agent = await b.serve("slow", hang)
        await until(lambda: knows(a, "slow"))
        first = await a.node.call(task("slow", task_id="task-0"))
        await until(lambda: any(e.kind == "message" for e in first.events))
        with pytest.raises(Busy):
            await (await a.node.call(task("slow"))).reply()
        first.cancel()
        await first.wait()
        again(a)
        agent.script = echo
        assert (await (await a.node.call(task("slow"))).reply()).text == "hello"


async def test_of_two_at_once_one_runs(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        agent = await a.serve("echo", echo)

        async def one() -> str:
            try:
                return (await (await a.node.call(task())).reply()).text
            except MeshError as error:
                return error.code

        said = await asyncio.gather(one(), one())
    assert "hello" in said
    assert len(agent.calls) == 1
