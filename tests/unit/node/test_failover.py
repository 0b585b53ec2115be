"""Calls over several replicas: what goes on elsewhere and what does not, hedging, the story that is told, the budget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agentmesh.core.balance.budget import RetryBudget
from agentmesh.core.balance.config import BalanceConfig
from agentmesh.errors import AgentCanceled, AgentFailed, Closed, MeshError, Timeout, UsageError
from agentmesh.node.call import Call
from agentmesh.node.door import Happening, Invocation
from agentmesh.wire.rows import RunQuery
from agentmesh.wire.views import CallRequest
from tests.unit.node.test_two_nodes import DONE, echo, fail, hang, knows, say
from tests.unit.node.world import Member, ScriptedAgent, until, world

Script = Callable[[Invocation], AsyncIterator[Happening]]


async def mute(call: Invocation) -> AsyncIterator[Happening]:
    """Take the call and say nothing."""
    await asyncio.Event().wait()
    yield DONE


async def serve_all(caller: Member, members: list[Member], script: Script, **extra: Any) -> list[ScriptedAgent]:
    agents = [await member.serve("twin", script, **extra) for member in members]
    await until(lambda: knows(caller, "twin", len(members)))
    return agents


async def begin(caller: Member, **more: Any) -> Call:
    return await caller.node.call(CallRequest(to="twin", text="x", **more))


async def cut(member: Member) -> None:
    for peer in list(member.node.links.peers()):
        await peer.link.aclose("cable pulled")


def texts(call: Call) -> list[str]:
    return [e.payload["parts"][0]["text"] for e in call.events if e.kind == "message"]


def states(call: Call) -> list[str]:
    return [e.payload["state"] for e in call.events if e.kind == "status"]


async def test_an_idempotent_call_that_broke_after_it_began_is_answered_by_another_replica(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], hang)
        call = await begin(a, idempotent=True)
        await until(lambda: texts(call))
        first, second = (b, c) if agents[0].calls else (c, b)
        agents[second is c].script = echo
        await cut(first)
        reply = await call.reply()
        assert (reply.node_id, reply.text) == (second.node.node_id, "x"), (
            "what the first one said is no part of the answer"
        )
        assert reply.tried == [first.node.node_id]
        assert [x.task_id for agent in agents for x in agent.calls] == [call.task_id] * 2
        assert any("trying another replica" in e.payload.get("detail", "") for e in call.events)
        assert states(call)[-1] == "completed"
        assert states(call).count("completed") == 1


async def test_a_call_that_is_not_idempotent_is_never_begun_twice(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], hang)
        call = await begin(a)
        await until(lambda: texts(call))
        await cut(b if agents[0].calls else c)
        with pytest.raises(MeshError) as caught:
            await call.reply()
        assert caught.value.code.startswith("unreached")
        assert sum(len(agent.calls) for agent in agents) == 1


@pytest.mark.parametrize(
    ("declared", "skill", "repeats"),
    [(True, None, True), (["s"], "s", True), (["t"], "s", False), ("yes", None, False)],
)
async def test_a_manifest_can_say_that_calls_may_run_more_than_once(
    tmp_path: Path, declared: Any, skill: str | None, repeats: bool
) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], hang, idempotent=declared)
        call = await begin(a, skill=skill)
        await until(lambda: texts(call))
        first, second = (b, c) if agents[0].calls else (c, b)
        agents[second is c].script = echo
        await cut(first)
        if repeats:
            assert (await call.reply()).node_id == second.node.node_id
        else:
            with pytest.raises(MeshError):
                await call.reply()


async def test_an_agent_that_dies_in_the_middle_of_its_answer_is_no_failed_call_if_that_may_be_repeated(
    tmp_path: Path,
) -> None:
    async def die(call: Invocation) -> AsyncIterator[Happening]:
        yield say("half of")
        raise Closed("connection reset by peer")

    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], echo)
        agents[0].script = die
        for _ in range(6):
            reply = await (await begin(a, idempotent=True)).reply()
            assert (reply.text, reply.node_id) == ("x", c.node.node_id)
        assert agents[0].calls, "it was asked as well"


async def test_what_an_agent_itself_says_of_its_failure_is_the_outcome_and_is_not_tried_again(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], fail)
        call = await begin(a, idempotent=True)
        with pytest.raises(AgentFailed, match="on holiday"):
            await call.reply()
        assert sum(len(agent.calls) for agent in agents) == 1
        assert states(call)[-1] == "failed"


async def test_when_every_replica_breaks_the_last_reason_is_told_once(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], hang)
        call = await begin(a, idempotent=True)
        await until(lambda: texts(call))
        first, second = (b, c) if agents[0].calls else (c, b)
        await cut(first)
        await until(lambda: agents[0].calls and agents[1].calls)
        await cut(second)
        with pytest.raises(Closed, match="broke"):
            await call.reply()
        assert states(call).count("failed") == 1


async def test_a_node_that_stops_answering_loses_its_idempotent_calls_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], hang)
        call = await begin(a, idempotent=True)
        await until(lambda: texts(call))
        first, second = (b, c) if agents[0].calls else (c, b)
        agents[second is c].script = echo

        async def frozen(*_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(first.node._survey, "serve", frozen)  # the link stays up: the peer is dead without a word
        reply = await call.reply()
        assert reply.node_id == second.node.node_id
        assert reply.tried == [first.node.node_id]
        assert a.node._calls._remote.is_quiet(first.node.node_id), "the next call goes elsewhere first"


async def test_a_slow_node_that_was_given_up_too_early_may_still_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()

    async def slow(call: Invocation) -> AsyncIterator[Happening]:
        await release.wait()
        yield say("slow but first")
        yield DONE

    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], slow)
        call = await begin(a, idempotent=True)
        await until(lambda: agents[0].calls or agents[1].calls)
        first, second = (b, c) if agents[0].calls else (c, b)
        agents[second is c].script = mute

        async def frozen(*_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(first.node._survey, "serve", frozen)
        await until(lambda: agents[0].calls and agents[1].calls)
        release.set()
        reply = await call.reply()
        assert (reply.text, reply.node_id, reply.tried) == ("slow but first", first.node.node_id, [])
        await until(lambda: agents[second is c].canceled)


async def test_a_hedged_call_asks_a_second_replica_and_the_first_outcome_wins(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], mute)
        call = await begin(a, idempotent=True, hedge_ms=20)
        await until(lambda: agents[0].calls or agents[1].calls)
        loser, winner = agents if agents[0].calls else agents[::-1]
        winner.script = echo
        reply = await call.reply()
        assert (reply.text, reply.tried) == ("x", [])
        assert texts(call) == ["x"], "no event is told twice"
        assert states(call)[-1] == "completed"
        assert "canceled" not in states(call)
        async with asyncio.timeout(3):
            await loser.closed_early.wait()
        assert loser.canceled == [call.task_id]
        view = await a.node.trace(call.run_id, remote=False)
        assert sum(e.payload.get("state") == "completed" for e in view.events) == 1
        await a.node.trace(call.run_id)  # brings what the loser told of its end
        assert [r.state for r in (await a.node.runs(RunQuery(limit=1))).runs] == ["completed"]


async def test_an_own_agent_that_is_slow_loses_a_hedged_call_to_a_replica_elsewhere(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        slow = await a.serve("twin", mute)
        await b.serve("twin", echo)
        await until(lambda: knows(a, "twin", 2))
        call = await begin(a, idempotent=True, hedge_ms=10)
        reply = await call.reply()
        assert (reply.text, reply.node_id) == ("x", b.node.node_id)
        await until(lambda: slow.canceled == [call.task_id])
        await until(lambda: not a.node._calls._callee.running)
        assert texts(call) == ["x"]
        assert [r.state for r in (await a.node.runs(RunQuery(limit=1))).runs] == ["completed"]


async def test_hedging_without_idempotent_or_out_of_range_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        agent = await a.serve("twin", echo)
        for more in ({"hedge_ms": 10}, {"hedge_ms": 0, "idempotent": True}, {"hedge_ms": 10**9, "idempotent": True}):
            with pytest.raises(UsageError) as caught:
                await begin(a, **more)
            assert caught.value.code == "call.bad_hedge"
        assert not agent.calls


async def test_canceling_a_hedged_call_stops_both_replicas(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], mute)
        call = await begin(a, idempotent=True, hedge_ms=10)
        await until(lambda: agents[0].calls and agents[1].calls)
        call.cancel()
        with pytest.raises(AgentCanceled):
            await call.reply()
        await until(lambda: agents[0].canceled and agents[1].canceled)
        assert states(call)[-1] == "canceled"


async def test_a_later_try_has_only_the_time_that_is_left(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], mute)
        call = await begin(a, idempotent=True, hedge_ms=100, timeout_s=2.0)
        with pytest.raises(Timeout):
            await call.reply()
        deadlines = sorted(one.deadline_s for agent in agents for one in agent.calls)
        assert deadlines[-1] == 2.0
        assert len(deadlines) == 2
        assert deadlines[0] <= 1.9


async def test_a_spent_budget_ends_retries_but_not_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], hang)
        means = a.node._calls._means
        spent = RetryBudget(BalanceConfig(retry_reserve=0, retry_per_s=0, retry_ratio=0), 0.0)
        monkeypatch.setattr(a.node._calls, "_means", means._replace(budget=spent))
        call = await begin(a, idempotent=True, hedge_ms=5)
        await until(lambda: texts(call))
        await cut(b if agents[0].calls else c)
        with pytest.raises(Closed, match="broke"):
            await call.reply()
        assert sum(len(agent.calls) for agent in agents) == 1
        for agent in agents:
            agent.script = echo
        await until(lambda: knows(a, "twin", 2))
        assert (await (await begin(a)).reply()).text == "x"


async def test_a_call_tries_a_bounded_number_of_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentmesh.node.calls._TRIES_MAX", 2)
    async with world(tmp_path, 4) as (a, *others):
        agents = await serve_all(a, others, echo)
        for agent in agents:
            agent.alive = False
        call = await begin(a)
        with pytest.raises(MeshError):
            await call.reply()
        assert len(call.tried) == 2


async def test_calls_begun_at_once_spread_over_the_replicas(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        agents = await serve_all(a, [b, c], hang)
        calls = [await begin(a) for _ in range(20)]
        await until(lambda: all(texts(call) for call in calls))
        assert [len(agent.calls) for agent in agents] == [10, 10]
        for call in calls:
            call.cancel()


async def test_calls_of_one_conversation_go_to_one_replica(tmp_path: Path) -> None:
    async with world(tmp_path, 4) as (a, *others):
        await serve_all(a, others, echo)
        for strategy in ("", "sticky"):
            nodes = {(await (await begin(a, context_id="talk", balance=strategy)).reply()).node_id for _ in range(6)}
            assert len(nodes) == 1
        spread = {(await (await begin(a, context_id="talk", balance="round-robin")).reply()).node_id for _ in range(6)}
        assert len(spread) == 3


async def test_a_replica_that_keeps_failing_is_set_back(tmp_path: Path) -> None:
    async with world(tmp_path, 3, balance="round-robin") as (a, b, c):
        agents = await serve_all(a, [b, c], echo)
        agents[0].script = fail
        for _ in range(20):
            await (await begin(a)).wait()
        assert 1 <= len(agents[0].calls) <= 6
        assert len(agents[1].calls) >= 14


async def test_a_quiet_node_is_taken_back_when_it_links_anew(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        await serve_all(a, [b, c], echo)
        a.node._calls._remote.note_silence(b.node.node_id)
        assert {(await (await begin(a)).reply()).node_id for _ in range(4)} == {c.node.node_id}
        await cut(b)
        await until(lambda: not a.node.links.is_connected(b.node.node_id))
        await a.node.links.connect(a.node.mesh.contact_of(b.node.node_id))
        assert not a.node._calls._remote.is_quiet(b.node.node_id)
