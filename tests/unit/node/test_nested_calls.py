"""Calls that agents make while they serve one: they stay within what that one may use (docs/spec/guard.md §4.6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import BudgetExceeded, MeshError
from agentmesh.identity.receipt import read_receipt
from agentmesh.node.door import Happening, Invocation
from agentmesh.wire.views import CallRequest, Reply
from tests.unit.node.test_two_nodes import DONE, echo, knows, say
from tests.unit.node.world import Member, until, world


def inside(call: Invocation, name: str, to: str, **more: Any) -> CallRequest:
    """Return a request that an agent makes while it serves a call, as the SDK makes it."""
    return CallRequest(
        to=to,
        text="x",
        run_id=call.run_id,
        parent_task_id=call.task_id,
        from_agent=name,
        hops=list(call.hops),
        lamport=call.lamport,
        **more,
    )


async def ask(member: Member, request: CallRequest) -> Reply:
    return await (await member.node.call(request)).reply()


def planner(at: Member, name: str, to: str, times: int, outcomes: list[str]) -> Any:
    """Return an agent that calls another one so often, one after the other, and writes down how that went."""

    async def plan(call: Invocation) -> AsyncIterator[Happening]:
        for _ in range(times):
            try:
                await ask(at, inside(call, name, to))
                outcomes.append("ok")
            except MeshError as error:
                outcomes.append(error.code)
        yield say("done")
        yield DONE

    return plan


async def test_an_agent_makes_no_more_calls_than_the_call_it_serves_allows(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        outcomes: list[str] = []
        worker = await b.serve("worker", echo)
        await a.serve("planner", planner(a, "planner", "worker", 5, outcomes))
        await until(lambda: knows(a, "worker"))
        reply = await ask(a, CallRequest(to="planner", text="x", budget={"calls": 3}))
        assert outcomes == ["ok"] * 3 + ["budget.calls"] * 2
        assert [call.budget.calls for call in worker.calls] == [2, 1, 0]
        assert read_receipt(reply.receipt).claims.usage.calls == 3


async def test_calls_of_a_chain_over_nodes_count_against_the_first_one(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        inner: list[str] = []
        outer: list[str] = []
        await a.serve("leaf", echo)
        await b.serve("middle", planner(b, "middle", "leaf", 2, inner))
        await a.serve("top", planner(a, "top", "middle", 2, outer))
        await until(lambda: knows(b, "leaf") and knows(a, "middle"))
        reply = await ask(a, CallRequest(to="top", text="x", budget={"calls": 4}))
        # top calls middle (1), which calls leaf twice (2): one is left, for a second middle that may call nobody.
        assert outer == ["ok", "ok"]
        assert inner == ["ok", "ok", "budget.calls", "budget.calls"]
        assert read_receipt(reply.receipt).claims.usage.calls == 4


async def test_side_by_side_each_call_holds_what_it_names(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        worker = await a.serve("worker", echo)
        outcomes: list[object] = []

        async def plan(call: Invocation) -> AsyncIterator[Happening]:
            asked = [ask(a, inside(call, "planner", "worker", budget={"calls": 0})) for _ in range(4)]
            outcomes.extend(await asyncio.gather(*asked, return_exceptions=True))
            yield DONE

        await a.serve("planner", plan)
        await ask(a, CallRequest(to="planner", text="x", budget={"calls": 3}))
        assert sum(isinstance(one, BudgetExceeded) for one in outcomes) == 1
        assert len(worker.calls) == 3


async def test_tokens_money_and_time_of_a_nested_call_are_no_more_than_those_of_the_call_around_it(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, 1) as (a,):
        worker = await a.serve("worker", echo)

        async def plan(call: Invocation) -> AsyncIterator[Happening]:
            await ask(a, inside(call, "planner", "worker"))
            await ask(a, inside(call, "planner", "worker", budget={"tokens": 5, "usd_micros": 10**9}))
            yield DONE

        await a.serve("planner", plan)
        await ask(a, CallRequest(to="planner", text="x", budget={"tokens": 100, "usd_micros": 7}))
        assert [(c.budget.tokens, c.budget.usd_micros) for c in worker.calls] == [(100, 7), (5, 7)]


async def test_a_call_inside_that_never_began_gives_back_all_it_held_but_itself(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        worker = await a.serve("worker", echo)
        down = await a.serve("down", echo)
        outcomes: list[str] = []

        async def plan(call: Invocation) -> AsyncIterator[Happening]:
            down.alive = False
            for to in ("down", "worker", "worker"):
                try:
                    await ask(a, inside(call, "planner", to))
                    outcomes.append("ok")
                except MeshError as error:
                    outcomes.append(type(error).__name__)
            yield DONE

        await a.serve("planner", plan)
        await ask(a, CallRequest(to="planner", text="x", budget={"calls": 2}))
        assert outcomes == ["NoRoute", "ok", "BudgetExceeded"]
        assert len(worker.calls) == 1


@pytest.mark.parametrize("members", [{"from_agent": ""}, {"parent_task_id": "another"}])
async def test_a_call_that_does_not_say_in_which_one_it_is_made_has_a_budget_of_its_own(
    tmp_path: Path, members: dict[str, Any]
) -> None:
    async with world(tmp_path, 1) as (a,):
        worker = await a.serve("worker", echo)

        async def plan(call: Invocation) -> AsyncIterator[Happening]:
            request = inside(call, "planner", "worker")
            for name, value in members.items():
                setattr(request, name, value)
            await ask(a, request)
            yield DONE

        await a.serve("planner", plan)
        await ask(a, CallRequest(to="planner", text="x", budget={"calls": 0}))
        assert worker.calls[0].budget.calls is None
