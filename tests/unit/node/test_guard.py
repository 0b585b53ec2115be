"""The guard at the callee: room, turns, rates and budgets, over the link and beside it (docs/spec/guard.md)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.errors import BudgetExceeded, Busy, MeshError
from agentmesh.identity.receipt import read_receipt
from agentmesh.node.door import Happening, Invocation
from agentmesh.wire.views import CallRequest
from tests.unit.node.test_grants import ask, granted
from tests.unit.node.test_two_nodes import DONE, echo, hang, knows, say
from tests.unit.node.world import Member, until, world


class Held:
    """An agent that answers when it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.room = asyncio.Semaphore(0)

    async def __call__(self, call: Invocation) -> AsyncIterator[Happening]:
        self.begun.append(str(call.parts[0]["text"]))
        await self.room.acquire()
        yield say("done")
        yield DONE

    def finish(self, calls: int = 1) -> None:
        for _ in range(calls):
            self.room.release()


def waiting(member: Member, agent: str = "held") -> int:
    post = member.node._guard._posts.get(agent)  # pyright: ignore[reportPrivateUsage]
    return 0 if post is None else post.gate.waiting


def write_guard(member: Member, text: str) -> None:
    """Write the operator's file and let the guard look at once."""
    file = member.node._guard._file  # pyright: ignore[reportPrivateUsage]
    file.path.write_text(text, "utf-8")
    os.utime(file.path, ns=(file.version + 1, file.version + 1))
    file._look_s = float("-inf")  # pyright: ignore[reportPrivateUsage]


async def refused(member: Member, **call: object) -> MeshError:
    with pytest.raises(MeshError) as error:
        await (await member.node.call(CallRequest(**{"text": "x", **call}))).reply()  # type: ignore[arg-type]
    return error.value


async def test_a_call_waits_for_room_and_is_then_served(tmp_path: Path) -> None:
    held = Held()
    async with world(tmp_path, 2) as (a, b):
        await b.serve("held", held, concurrency_limit=1)
        await until(lambda: knows(a, "held"))
        first = await a.node.call(CallRequest(to="held", text="first"))
        await until(lambda: held.begun == ["first"])
        second = await a.node.call(CallRequest(to="held", text="second"))
        await until(lambda: waiting(b) == 1)
        assert held.begun == ["first"]
        held.finish(2)
        assert (await second.reply()).text == (await first.reply()).text == "done"
        assert held.begun == ["first", "second"]


async def test_the_urgent_call_of_a_caller_goes_before_its_others(tmp_path: Path) -> None:
    held = Held()
    async with world(tmp_path, 2) as (a, b):
        await b.serve("held", held, concurrency_limit=1)
        await until(lambda: knows(a, "held"))
        await a.node.call(CallRequest(to="held", text="first"))
        await until(lambda: held.begun == ["first"])
        for n, priority in enumerate((1, 5, 9)):
            await a.node.call(CallRequest(to="held", text=str(priority), priority=priority))
            await until(lambda n=n: waiting(b) == n + 1)
        held.finish(4)
        await until(lambda: len(held.begun) == 4)
        assert held.begun == ["first", "9", "5", "1"]


async def test_a_call_that_its_caller_gives_up_leaves_the_queue(tmp_path: Path) -> None:
    held = Held()
    async with world(tmp_path, 2) as (a, b):
        await b.serve("held", held, concurrency_limit=1)
        await until(lambda: knows(a, "held"))
        first = await a.node.call(CallRequest(to="held", text="first"))
        await until(lambda: held.begun == ["first"])
        second = await a.node.call(CallRequest(to="held", text="second"))
        await until(lambda: waiting(b) == 1)
        second.cancel()
        await until(lambda: waiting(b) == 0)
        held.finish()
        await first.reply()
        assert held.begun == ["first"]


async def test_a_call_that_waits_in_vain_is_refused_and_told_when_to_come_back(tmp_path: Path) -> None:
    async with world(tmp_path, 2, agent_queue_wait_s=0.05) as (a, b):
        await b.serve("slow", hang, concurrency_limit=1)
        await until(lambda: knows(a, "slow"))
        running = await a.node.call(CallRequest(to="slow", text="x"))
        await until(lambda: any(e.kind == "message" for e in running.events))
        error = await refused(a, to="slow")
        assert isinstance(error, Busy)
        assert error.code == "refused.busy.waited"
        assert error.retry_after_s > 0
        running.cancel()


async def test_a_replica_that_is_full_is_passed_over_for_one_that_has_room(tmp_path: Path) -> None:
    held = Held()
    async with world(tmp_path, 3) as (a, b, c):
        await b.serve("held", held, concurrency_limit=1)
        await c.serve("held", held, concurrency_limit=1)
        await until(lambda: len([v for v in a.node.agents(name="held") if v.status == "healthy"]) == 2)
        calls = [await a.node.call(CallRequest(to="held", text=str(n))) for n in range(2)]
        await until(lambda: len(held.begun) == 2)
        third = await a.node.call(CallRequest(to="held", text="2"))
        await until(lambda: waiting(b) + waiting(c) == 1)
        held.finish(3)
        replies = [await call.reply() for call in (*calls, third)]
        assert {reply.node_id for reply in replies} == {b.node.node_id, c.node.node_id}
        assert replies[2].tried, "it asked both before it waited"


async def test_a_caller_that_opens_a_thousand_calls_keeps_no_other_caller_out(tmp_path: Path) -> None:
    held = Held()
    async with world(tmp_path, 3, agent_queue_max=20, calls_max=20_000) as (a, b, c):
        await b.serve("held", held, concurrency_limit=2)
        await until(lambda: knows(a, "held") and knows(c, "held"))
        flood = [await a.node.call(CallRequest(to="held", text="flood")) for _ in range(1_000)]
        await until(lambda: waiting(b) == 20 and sum(call.done for call in flood) >= 900, 60)
        mine = await c.node.call(CallRequest(to="held", text="mine"))
        await until(lambda: b.node._guard._posts["held"].gate._turns.get(c.node.node_id))  # pyright: ignore[reportPrivateUsage]
        held.finish()
        await until(lambda: "mine" in held.begun)
        assert len(held.begun) == 3
        held.finish(1_000)
        assert (await mine.reply()).text == "done"
        errors = [call.error for call in flood if call.done and call.error]
        assert all(isinstance(error, Busy) for error in errors)


async def test_an_agent_takes_the_rate_that_its_manifest_declares(tmp_path: Path) -> None:
    async with world(tmp_path, 2, agent_queue_max=0) as (a, b):
        agent = await b.serve("echo", echo, qps_budget="0.02", qps_burst=3)
        await until(lambda: knows(a, "echo"))
        for _ in range(3):
            await (await a.node.call(CallRequest(to="echo", text="x"))).reply()
        error = await refused(a, to="echo")
        assert isinstance(error, Busy)
        assert error.code == "refused.busy.rate"
        assert 40 < error.retry_after_s <= 50, "one call in fifty seconds"
        assert len(agent.calls) == 3
        await b.node.deregister("echo")
        await b.serve("echo", echo, qps_budget="0.02", qps_burst=3)
        await until(lambda: knows(a, "echo"))
        assert isinstance(await refused(a, to="echo"), Busy), "registering again is no way around it"


async def test_the_operators_file_bounds_single_callers_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, 2, agent_queue_max=0) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        write_guard(b, f'[callers."{a.node.node_id}"]\nqps = 0.01\nburst = 1\n')
        await (await a.node.call(CallRequest(to="echo", text="x"))).reply()
        assert isinstance(await refused(a, to="echo"), Busy)
        await (await b.node.call(CallRequest(to="echo", text="x"))).reply()
        write_guard(b, "[callers.nobody]\nqps = 1\n")
        assert isinstance(await refused(a, to="echo"), Busy)
        assert any("stay in force" in warning for warning in b.node.status().warnings)
        write_guard(b, "")
        await (await a.node.call(CallRequest(to="echo", text="x"))).reply()
        assert not b.node.status().warnings


async def test_what_a_caller_may_spend_in_a_day_is_kept_across_a_restart(tmp_path: Path) -> None:
    async def costly(call: Invocation) -> AsyncIterator[Happening]:
        yield Happening("status", {"state": "completed", "usage": {"tokens": 7, "usd_micros": "20"}})

    async with world(tmp_path, 2) as (a, b):
        kits = (a.kit, b.kit)
        await b.serve("costly", costly)
        await until(lambda: knows(a, "costly"))
        write_guard(b, f'[callers."{a.node.node_id}"]\nper_day = "tokens=20"\n')
        error = await refused(a, to="costly")
        assert (type(error), error.code) == (BudgetExceeded, "budget.open")
        reply = await (await a.node.call(CallRequest(to="costly", text="x", budget={"tokens": 10}))).reply()
        used = read_receipt(reply.receipt).claims.usage
        assert (used.tokens, used.usd_micros) == (7, 20)
        error = await refused(a, to="costly", budget={"tokens": 14})
        assert (type(error), error.code) == (BudgetExceeded, "budget.exceeded")
        assert error.extra["budget"] == {"key": "tokens", "bound": 20, "left": 13, "wanted": 14}
    async with world(tmp_path, 2, kits=kits) as (a, b):
        await until(lambda: knows(a, "costly"))
        assert isinstance(await refused(a, to="costly", budget={"tokens": 14}), BudgetExceeded)
        await (await a.node.call(CallRequest(to="costly", text="x", budget={"tokens": 13}))).reply()


async def test_an_agent_that_does_not_say_what_it_used_is_taken_to_have_used_its_whole_budget(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        write_guard(b, '[callers."*"]\nper_day = "usd=0.10"\nper_call = "usd=0.06"\n')
        await (await a.node.call(CallRequest(to="echo", text="x"))).reply()
        error = await refused(a, to="echo")
        assert error.extra["budget"]["left"] == 40_000
        await (await a.node.call(CallRequest(to="echo", text="x", budget={"usd_micros": 40_000}))).reply()


async def test_a_call_that_was_refused_or_never_began_costs_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, 2, agent_queue_max=0) as (a, b):
        agent = await b.serve("slow", hang, concurrency_limit=1)
        await until(lambda: knows(a, "slow"))
        write_guard(b, '[agents.slow]\nper_day = "tokens=10"\n')
        running = await a.node.call(CallRequest(to="slow", text="x", budget={"tokens": 5}))
        await until(lambda: any(e.kind == "message" for e in running.events))
        assert isinstance(await refused(a, to="slow", budget={"tokens": 5}), Busy)
        running.cancel()
        await running.wait()
        agent.alive = False
        await refused(a, to="slow", budget={"tokens": 5})
        await until(lambda: a.node.agents(name="slow")[0].status == "unhealthy")
        agent.alive, agent.script = True, echo
        b.node.registry.check_soon(b.node.registry.agents()[0])
        await until(lambda: a.node.agents(name="slow")[0].status == "healthy")
        await (await a.node.call(CallRequest(to="slow", text="x", budget={"tokens": 5}))).reply()
        assert (await refused(a, to="slow", budget={"tokens": 1})).code == "budget.exceeded"


async def test_a_call_that_takes_longer_than_its_budget_is_stopped(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("slow", hang)
        await until(lambda: knows(a, "slow"))
        error = await refused(a, to="slow", budget={"wall_ms": 100})
        assert error.code == "budget.wall"
        assert agent.canceled


async def test_a_call_that_says_it_has_used_more_than_its_budget_is_stopped(tmp_path: Path) -> None:
    async def greedy(call: Invocation) -> AsyncIterator[Happening]:
        for tokens in range(0, 10_000, 100):
            yield Happening("status", {"state": "working", "usage": {"tokens": tokens}})
        yield DONE

    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("greedy", greedy)
        await until(lambda: knows(a, "greedy"))
        call = await a.node.call(CallRequest(to="greedy", text="x", budget={"tokens": 250}))
        with pytest.raises(BudgetExceeded) as error:
            await call.reply()
        assert error.value.code == "budget.overrun"
        assert agent.closed_early.is_set()
        claims = read_receipt(call.receipt).claims
        assert (claims.outcome, claims.problem, claims.usage.tokens) == ("failed", "/problems/budget", 300)


async def test_what_an_agent_says_it_used_counts_only_if_it_makes_sense(tmp_path: Path) -> None:
    lies: list[object] = [
        {"tokens": -1},
        {"tokens": 1.5},
        {"tokens": 10**16},
        {"tokens": True},
        {"usd_micros": "1e9"},
        [],
        "7",
    ]
    left = list(lies)

    async def liar(call: Invocation) -> AsyncIterator[Happening]:
        yield Happening("status", {"state": "completed", "usage": left.pop()})

    async with world(tmp_path, 1) as (a,):
        await a.serve("liar", liar)
        for _ in lies:
            reply = await (await a.node.call(CallRequest(to="liar", text="x", budget={"tokens": 5}))).reply()
            assert read_receipt(reply.receipt).claims.usage.tokens == 0
    assert not left


@pytest.mark.parametrize(
    "budget",
    [
        {"tokens": -1},
        {"tokens": 1.0},
        {"tokens": 10**30},
        {"tokens": True},
        {"usd_micros": "1"},
        {"euros": 1},
        {"calls": None},
    ],
)
async def test_a_budget_that_is_none_is_refused_before_anything_starts(
    tmp_path: Path, budget: dict[str, object]
) -> None:
    async with world(tmp_path, 1) as (a,):
        agent = await a.serve("echo", echo)
        error = await refused(a, to="echo", budget=budget)
        assert error.code == "call.budget"
        assert not agent.calls


async def test_what_a_grant_allows_in_all_is_kept_over_all_calls_and_all_grants_made_from_it(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await a.serve("planner", echo)
        await a.serve("helper", echo)
        await until(lambda: knows(a, "echo") and knows(b, "planner") and knows(b, "helper"))
        root = (await granted(b, "planner", "echo", max_subtree={"tokens": 10}, max_lifetime={"tokens": 6})).chain
        sub = {"max_subtree": {"tokens": 10}, "max_lifetime": {"tokens": 6}}
        deeper = (await granted(a, "helper", "echo", maker="planner", parents=root, **sub)).chain

        async def spend(chain: list[str], caller: str, tokens: int | None) -> str:
            budget = {} if tokens is None else {"tokens": tokens}
            try:
                await ask(a, chain, from_agent=caller, budget=budget)
            except MeshError as error:
                return error.code
            return "served"

        assert await spend(root, "planner", None) == "budget.open"
        assert await spend(root, "planner", 5) == "served"
        assert await spend(root, "planner", 2) == "budget.exceeded", "7 of 6 with this very grant"
        assert await spend(deeper, "helper", 6) == "budget.exceeded", "11 of 10 with it and those made from it"
        assert await spend(deeper, "helper", 5) == "served"
        assert await spend(root, "planner", 1) == "budget.exceeded"
        other = (await granted(b, "planner", "echo", max_lifetime={"tokens": 6})).chain
        assert await spend(other, "planner", 6) == "served", "another grant has sums of its own"
