"""Whole nodes over the in-memory transport: calls, failover, cancel, limits, loops, traces, withdrawal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.codec.tracecontext import read_trace
from agentmesh.errors import (
    AgentCanceled,
    AgentFailed,
    AgentNotFound,
    Busy,
    LimitError,
    LoopDetected,
    MeshError,
    NoRoute,
    RunNotFound,
    SignatureError,
    Timeout,
    UsageError,
)
from agentmesh.node.door import Happening, Invocation
from agentmesh.wire.event import digest
from agentmesh.wire.rows import RunQuery
from agentmesh.wire.views import CallRequest, RegisterRequest
from tests.unit.node.world import Member, until, world


def say(text: str) -> Happening:
    return Happening("message", {"role": "agent", "parts": [{"text": text}]})


DONE = Happening("status", {"state": "completed"})


async def echo(call: Invocation) -> AsyncIterator[Happening]:
    yield say(call.parts[0]["text"])
    yield DONE


async def hang(call: Invocation) -> AsyncIterator[Happening]:
    yield say("thinking")
    await asyncio.Event().wait()


async def fail(call: Invocation) -> AsyncIterator[Happening]:
    raise AgentFailed("the model is on holiday")
    yield DONE


def knows(member: Member, name: str, count: int = 1) -> bool:
    return sum(v.name == name and v.status == "healthy" for v in member.node.agents()) == count


async def ask(member: Member, to: str, text: str = "hi", **kwargs: object) -> str:
    call = await member.node.call(CallRequest(to=to, text=text, **kwargs))  # type: ignore[arg-type]
    return (await call.reply()).text


async def test_an_agent_of_another_node_is_found_and_called_and_both_nodes_tell_the_same_story(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        call = await a.node.call(CallRequest(to="echo", text="hello"))
        reply = await call.reply()
        assert (reply.text, reply.state, reply.node_id) == ("hello", "completed", b.node.node_id)
        here, there = await a.node.trace(reply.run_id), await b.node.trace(reply.run_id)
        assert here.digest == there.digest == digest(here.events)
        assert here.count == there.count == 4
        assert [e.kind for e in here.events] == ["status", "status", "message", "status"]
        assert {e.node_id for e in here.events} == {a.node.node_id, b.node.node_id}
        assert here.complete
        assert there.complete


async def test_the_order_of_a_trace_follows_cause_and_effect_when_a_clock_is_an_hour_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        call = await a.node.call(CallRequest(to="echo", text="hello"))
        await call.wait()
        for event in call.events:
            if event.node_id == b.node.node_id:
                event.ts -= 3_600_000_000
        view = await a.node.trace(call.run_id)
        assert [e.payload.get("state") for e in view.events] == ["submitted", "working", None, "completed"]


async def test_what_an_agent_answers_comes_after_what_its_own_call_brought_back(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):

        async def asks_echo(call: Invocation) -> AsyncIterator[Happening]:
            nested = CallRequest(
                to="echo",
                text="x",
                run_id=call.run_id,
                parent_task_id=call.task_id,
                from_agent="boss",
                lamport=call.lamport,
            )
            answer = await (await a.node.call(nested)).reply()
            yield say(f"they said {answer.text}")
            yield DONE

        await b.serve("echo", echo)
        await a.serve("boss", asks_echo)
        await until(lambda: knows(a, "echo"))
        call = await a.node.call(CallRequest(to="boss", text="go"))
        assert (await call.reply()).text == "they said x"
        view = await a.node.trace(call.run_id)
        assert [(e.agent, e.payload.get("state") or e.kind) for e in view.events] == [
            ("boss", "submitted"),
            ("boss", "working"),
            ("echo", "submitted"),
            ("echo", "working"),
            ("echo", "message"),
            ("echo", "completed"),
            ("boss", "message"),
            ("boss", "completed"),
        ]
        assert view.events[2].parent_task_id == call.task_id


async def test_the_remote_error_arrives_with_its_own_text(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("moody", fail)
        await until(lambda: knows(a, "moody"))
        with pytest.raises(AgentFailed, match="on holiday") as caught:
            await ask(a, "moody")
        view = await a.node.trace(caught.value.extra["run_id"])
        assert view.events[-1].payload["state"] == "failed"
        assert any(e.kind == "error" and "on holiday" in e.payload["message"] for e in view.events)


async def test_when_the_chosen_replica_is_unreachable_the_call_goes_to_another_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        first, second = await b.serve("echo", echo), await c.serve("echo", echo)
        await until(lambda: knows(a, "echo", 2))
        for dead, alive in ((first, second), (second, first)):
            dead.alive, alive.alive = False, True
            for _ in range(4):
                assert await ask(a, "echo") == "hi"
            await until(lambda: knows(a, "echo", 1))
            dead.alive = True
            await b.node.renew(b.node.agents(name="echo@n1")[0].agent_id)
            await c.node.renew(c.node.agents(name="echo@n2")[0].agent_id)
            await until(lambda: knows(a, "echo", 2))


async def test_a_call_to_a_node_that_vanished_goes_to_a_replica(tmp_path: Path) -> None:
    async with world(tmp_path, 3, accept_timeout_s=0.3) as (a, b, c):
        await b.serve("echo", echo)
        await c.serve("echo", echo)
        await until(lambda: knows(a, "echo", 2))
        for member in (b, c):
            for peer in list(member.node.links.peers()):
                if peer.link.peer == a.node.node_id and member is b:
                    await peer.link.aclose("cable pulled")
        for _ in range(6):
            assert await ask(a, "echo") == "hi"


async def test_a_node_that_let_a_call_go_unanswered_is_asked_last_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 3, accept_timeout_s=0.05) as (a, b, c):
        await b.serve("echo", echo)
        await c.serve("echo", echo)
        await until(lambda: knows(a, "echo", 2))

        async def frozen(*_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(b.node._incoming, "serve", frozen)
        for _ in range(8):
            call = await a.node.call(CallRequest(to="echo", text="x"))
            await call.reply()
            tries = call.tried
            if tries:
                break
        assert tries == [b.node.node_id]
        for _ in range(6):
            call = await a.node.call(CallRequest(to="echo", text="x"))
            assert (await call.reply()).node_id == c.node.node_id
            assert call.tried == []


async def test_a_task_that_began_is_never_run_a_second_time_elsewhere(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        one, two = await b.serve("slow", hang), await c.serve("slow", hang)
        await until(lambda: knows(a, "slow", 2))
        call = await a.node.call(CallRequest(to="slow", text="x"))
        await until(lambda: any(e.kind == "message" for e in call.events))
        victim = b if one.calls else c
        for peer in list(victim.node.links.peers()):
            await peer.link.aclose("cable pulled")
        with pytest.raises(MeshError) as caught:
            await call.reply()
        assert caught.value.code.startswith("unreached")
        assert len(one.calls) + len(two.calls) == 1


async def test_cancel_reaches_the_agent_on_the_other_node(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("slow", hang)
        await until(lambda: knows(a, "slow"))
        call = await a.node.call(CallRequest(to="slow", text="x"))
        await until(lambda: any(e.kind == "message" for e in call.events))
        assert (await a.node.cancel(call.task_id)).canceled
        with pytest.raises(AgentCanceled):
            await call.reply()
        async with asyncio.timeout(2):
            await agent.closed_early.wait()
        assert agent.canceled == [call.task_id]
        view = await a.node.trace(call.run_id)
        assert view.events[-1].payload["state"] == "canceled"
        assert view.complete


async def test_a_client_that_goes_away_cancels_its_call(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("slow", hang)
        await until(lambda: knows(a, "slow"))
        call = await a.node.call(CallRequest(to="slow", text="x"))
        await until(lambda: agent.calls)
        await call.aclose()
        async with asyncio.timeout(3):
            await agent.closed_early.wait()


async def test_an_agent_that_hangs_ends_in_a_timeout_and_is_told_to_stop(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("slow", hang)
        await until(lambda: knows(a, "slow"))
        with pytest.raises(Timeout):
            await ask(a, "slow", timeout_s=0.2)
        await until(lambda: agent.canceled)


async def test_a_call_without_a_deadline_has_the_one_that_the_node_is_set_to(tmp_path: Path) -> None:
    async with world(tmp_path, 1, call_timeout_s=0.1) as (a,):
        await a.serve("slow", hang)
        with pytest.raises(Timeout, match=r"0\.1 s"):
            await ask(a, "slow")


@pytest.mark.parametrize(
    "sent", ["00-4bf92f\r\nX-Evil: 1", "x" * 10_000, "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "ff" + "-" * 53]
)
async def test_what_is_no_trace_context_is_replaced_by_one_that_leads_to_the_run(tmp_path: Path, sent: str) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        call = await a.node.call(CallRequest(to="echo", text="x", traceparent=sent))
        reply = await call.reply()
        trace = read_trace(agent.calls[0].traceparent)
        assert trace is not None
        assert trace.trace_id == reply.run_id


async def test_a_local_agent_is_called_without_any_peer(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        call = await a.node.call(CallRequest(to="ECHO", text="hello"))
        reply = await call.reply()
        assert (reply.text, reply.path) == ("hello", "local")


async def test_an_unknown_agent_is_a_clear_no_with_near_names(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("calc", echo)
        with pytest.raises(AgentNotFound) as caught:
            await ask(a, "clac")
        assert "calc" in (caught.value.hint or "")


async def test_the_same_task_id_never_runs_twice(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        first = await a.node.call(CallRequest(to="echo", text="one", task_id="t1"))
        await first.reply()
        again = await a.node.call(CallRequest(to="echo", text="one", task_id="t1"))
        assert (await again.reply()).text == "one"
        assert len(agent.calls) == 1


async def test_more_calls_than_an_agent_takes_are_refused_as_busy(tmp_path: Path) -> None:
    async with world(tmp_path, 2, agent_queue_max=0) as (a, b):
        await b.serve("slow", hang, concurrency_limit=2)
        await until(lambda: knows(a, "slow"))
        running = [await a.node.call(CallRequest(to="slow", text="x")) for _ in range(2)]
        await until(lambda: all(any(e.kind == "message" for e in c.events) for c in running))
        with pytest.raises(Busy) as caught:
            await ask(a, "slow")
        assert caught.value.retry_after_s > 0
        for call in running:
            call.cancel()


async def test_a_chain_that_comes_back_to_an_agent_is_refused_before_any_work(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        agent_id = a.node.agents(name="echo")[0].agent_id
        with pytest.raises(LoopDetected):
            await ask(a, "echo", hops=[agent_id])
        with pytest.raises(LoopDetected):
            await ask(a, "echo", hops=[f"h{i}" for i in range(17)])
        assert not agent.calls


async def test_an_agent_that_floods_is_stopped_and_its_caller_told_why(tmp_path: Path) -> None:
    async def flood(call: Invocation) -> AsyncIterator[Happening]:
        while True:
            yield say("spam")
            await asyncio.sleep(0)

    async with world(tmp_path, 2, call_events_max=200) as (a, b):
        agent = await b.serve("flood", flood)
        await until(lambda: knows(a, "flood"))
        with pytest.raises((LimitError, AgentFailed)) as caught:
            await ask(a, "flood")
        assert caught.value.code == "call.flood"
        await until(lambda: agent.closed_early.is_set())


async def test_a_withdrawn_agent_disappears_everywhere_and_can_come_back(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        before = a.node.agents(name="echo")[0]
        gone = await b.node.deregister("echo")
        assert gone.status == "gone"
        await until(lambda: not a.node.agents())
        with pytest.raises(AgentNotFound):
            await ask(a, "echo")
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        after = a.node.agents(name="echo")[0]
        assert after.agent_id == before.agent_id
        assert after.seq > before.seq


async def test_an_unhealthy_agent_is_shown_as_such_and_not_offered(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        agent.alive = False
        local = b.node.registry.by_name("echo")
        assert local is not None
        b.node.registry.check_soon(local)
        await until(lambda: [v.status for v in a.node.agents()] == ["unhealthy"])
        with pytest.raises(NoRoute) as caught:
            await ask(a, "echo")
        assert caught.value.code == "agent.unhealthy"


async def test_a_node_that_leaves_takes_its_agents_with_it(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        await b.node.aclose()
        await until(lambda: not knows(a, "echo"))


async def test_a_third_node_learns_of_agents_behind_nodes_it_was_never_told_of(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (_, b, c):
        await b.serve("echo", echo)
        await until(lambda: knows(c, "echo"))
        assert await ask(c, "echo") == "hi"


async def test_unsigned_agents_are_refused_by_default(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        with pytest.raises(SignatureError) as caught:
            await a.node.register(RegisterRequest(url="http://echo-0/", door="sdk", unsigned=True))
        assert caught.value.code == "register.unsigned"


async def test_unsigned_agents_are_admitted_as_low_trust_when_the_operator_says_so(tmp_path: Path) -> None:
    async with world(tmp_path, 1, require_signed_registration=False) as (a,):
        await a.serve("echo", echo)
        await a.node.deregister("echo")
        await a.node.register(RegisterRequest(url="http://echo-0/", door="sdk", name="shady", unsigned=True))
        assert [v.trust for v in a.node.agents(name="shady")] == ["low"]
        assert await ask(a, "shady") == "hi"


@pytest.mark.parametrize(
    "request_",
    [
        CallRequest(to="echo"),
        CallRequest(to="echo", text="a", data={"b": 1}),
        CallRequest(to="echo", parts=[]),
        CallRequest(to="echo", parts=[{"nothing": 1}]),
        CallRequest(to="echo", text="a", timeout_s=0),
        CallRequest(to="echo", text="a", timeout_s=float("nan")),
        CallRequest(to="echo", text="a", task_id=""),
        CallRequest(to="echo", text="a", run_id="x" * 200),
        CallRequest(to="echo", text="a", lamport=-1),
    ],
)
async def test_a_malformed_call_is_refused_before_anything_starts(tmp_path: Path, request_: CallRequest) -> None:
    async with world(tmp_path, 1) as (a,):
        agent = await a.serve("echo", echo)
        with pytest.raises(UsageError):
            await a.node.call(request_)
        assert not agent.calls
        assert (await a.node.runs(RunQuery())).runs == []


async def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        for name in ("../etc/passwd", "", "a/b", "x" * 65, "-", "a b"):
            with pytest.raises(UsageError):
                await a.node.register(RegisterRequest(url="http://echo-0/", door="sdk", name=name or " "))


async def test_registrations_by_url_survive_a_restart_with_the_same_identity(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        before, kit = a.node.agents()[0], a.kit
    async with world(tmp_path, 1, kits=[kit]) as (a,):
        after = a.node.agents()[0]
        assert (after.agent_id, after.name) == (before.agent_id, "echo")
        assert after.seq > before.seq
        assert await ask(a, "echo") == "hi"


async def test_contacts_survive_a_restart_so_that_no_seed_is_needed_again(tmp_path: Path) -> None:
    async with world(tmp_path, 2):
        pass
    async with world(tmp_path, 2, join=False) as (a, b):
        await until(lambda: a.node.links.is_connected(b.node.node_id))


async def test_a_trace_of_nothing_says_so(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        with pytest.raises(RunNotFound):
            await a.node.trace("last")
        with pytest.raises(RunNotFound):
            await a.node.cancel("nope")


async def test_a_peer_that_took_no_part_in_a_run_is_told_nothing_of_it(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        call = await a.node.call(CallRequest(to="echo", text="a secret"))
        await call.reply()
        await b.log.flush()
        assert await c.node._traces._ask(b.node.node_id, call.run_id)
        with pytest.raises(RunNotFound):
            await c.node.trace(call.run_id, remote=False)


async def test_a_fault_of_this_node_never_looks_like_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object) -> None:
        raise TypeError("a fault")

    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        monkeypatch.setattr("agentmesh.node.proof.Proofs.sign", broken)
        with pytest.raises(MeshError) as error:
            await (await a.node.call(CallRequest(to="echo", text="hi"))).reply()
        assert error.value.code == "call.fault"
