"""Tenants of one node: what one has, no other can list, call, trace, read, cancel, withdraw or use up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import (
    AgentNotFound,
    Busy,
    LimitError,
    MeshError,
    NotFound,
    RecordNotFound,
    RunNotFound,
    StateError,
    Unauthorized,
    UsageError,
)
from agentmesh.node.door import Happening, Invocation
from agentmesh.node.record import new_id
from agentmesh.node.tenant import TenantNode
from agentmesh.node.tenants import Tenants
from agentmesh.store.tenants import Tenant, TenantStore
from agentmesh.wire.access import TenantRequest
from agentmesh.wire.event import EventV1
from agentmesh.wire.rows import RowQuery, RunQuery
from agentmesh.wire.views import CallRequest, RegisterRequest, Reply, RunList
from tests.unit.node.world import FakeKit, Member, Script, ScriptedAgent, until, world

ANSWER = "what only its own tenant may read"


async def answer(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("message", {"role": "agent", "parts": [{"text": ANSWER}]})
    yield Happening("status", {"state": "completed"})


async def hang(call: Invocation) -> AsyncIterator[Happening]:
    await asyncio.Event().wait()
    yield Happening("message", {"role": "agent", "parts": [{"text": "never"}]})


async def serve(member: Member, view: Any, name: str, script: Script, key: str = "") -> ScriptedAgent:
    """Register a scripted agent through a view of the node."""
    agent = ScriptedAgent(name, script)
    place = key or f"{name}-{len(member.kit.agents)}"
    member.kit.agents[place] = agent
    await view.register(RegisterRequest(url=f"http://{place}/", door="sdk"))
    return agent


@dataclass
class Two:
    """A node with two tenants, each with an agent ``helper`` of its own, and one run of b."""

    member: Member
    a: TenantNode
    b: TenantNode
    reply: Reply
    helper_b: str


@asynccontextmanager
async def two(tmp_path: Path, **quotas: Any) -> AsyncIterator[Two]:
    async with world(tmp_path, 1) as (member,):
        node = member.node
        for name in ("a", "b"):
            node.save_tenant(TenantRequest(name=name, **quotas))
            await serve(member, node.for_tenant(name), "helper", answer)
        a, b = node.for_tenant("a"), node.for_tenant("b")
        reply = await (await b.call(CallRequest(to="helper", text="secret question"))).reply()
        assert reply.text == ANSWER
        yield Two(member, a, b, reply, b.agent("helper").agent.agent_id)


async def test_a_tenant_lists_and_finds_its_own_agents_only(tmp_path: Path) -> None:
    async with two(tmp_path) as t:
        await serve(t.member, t.b, "only-b", answer)
        await serve(t.member, t.member.node, "operators", answer)
        assert [v.name for v in t.a.agents()] == ["helper"]
        assert t.a.agents()[0].agent_id != t.helper_b
        assert (t.a.status().agents, t.a.status().agents_local, t.a.status().home) == (1, 1, "")
        with pytest.raises(AgentNotFound):
            t.a.agents("only-b")
        for ref in ("only-b", "ONLY-B", "only-b@n0", "operators", t.helper_b, t.b.agent("only-b").agent.agent_id):
            with pytest.raises(AgentNotFound) as error:
                t.a.agent(ref)
            assert "only-b" not in str(error.value.extra["did_you_mean"])
            await t.a.look_for(ref)
            with pytest.raises(AgentNotFound):
                await t.a.call(CallRequest(to=ref, text="x"))


async def test_agents_of_a_tenant_are_not_announced_unless_it_may_publish(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (one, other):
        one.node.save_tenant(TenantRequest(name="quiet"))
        one.node.save_tenant(TenantRequest(name="loud", publish=True))
        await serve(one, one.node.for_tenant("quiet"), "whisper", answer)
        await serve(one, one.node.for_tenant("loud"), "shout", answer)
        await until(lambda: any(v.name == "shout" for v in other.node.agents()))
        assert [v.name for v in other.node.agents()] == [v.name for v in one.node.agents()] == ["shout"]
        params = next(e["params"] for e in other.node.agent("shout").card["capabilities"]["extensions"])
        assert params["tenant"] == "loud"
        assert (await (await other.node.call(CallRequest(to="shout", text="x"))).reply()).text == ANSWER
        with pytest.raises(AgentNotFound):
            await other.node.call(CallRequest(to="whisper", text="x"))


async def test_another_node_that_knows_the_id_of_a_private_agent_cannot_call_it(tmp_path: Path) -> None:
    from agentmesh.wire import v1

    async with two(tmp_path) as t:
        opened = v1.CallOpen(v=v1.WIRE_VERSION, task_id="t", run_id="r", agent_id=t.helper_b, parts=[{"text": "x"}])
        with pytest.raises(AgentNotFound) as error:
            t.member.node._incoming._callee.find(opened)
        assert error.value.extra["did_you_mean"] == []


@pytest.mark.parametrize(
    "ref_of",
    [
        lambda t: t.reply.run_id,
        lambda t: t.reply.task_id,
        lambda t: t.reply.run_id[:8],
        lambda t: "last",
        lambda t: "last~0",
    ],
)
async def test_a_tenant_reads_no_run_of_another_by_any_name(tmp_path: Path, ref_of: Callable[[Two], str]) -> None:
    async with two(tmp_path) as t:
        ref = ref_of(t)
        assert (await t.b.trace(ref)).run_id == t.reply.run_id
        assert [one.task_id for one in await t.b.receipts(ref)] == [t.reply.task_id]
        for read in (t.a.trace, t.a.receipts, lambda ref: t.a.rows(ref, RowQuery())):
            with pytest.raises(RunNotFound):
                await read(ref)
        view, rows = await t.b.trace(ref), await t.b.rows(ref, RowQuery(limit=2))
        assert (rows.count, rows.digest, rows.more) == (view.count, view.digest, True)
        assert rows.rows.seq == [event.seq for event in view.events[:2]]
        assert (await t.b.event(rows.rows.seq[0])).id == view.events[0].id
        with pytest.raises(RecordNotFound):
            await t.a.event(rows.rows.seq[0])
        assert await t.a.runs(RunQuery()) == RunList(runs=[])
        assert [run.run_id for run in (await t.b.runs(RunQuery())).runs] == [t.reply.run_id]
        assert await t.a.task_events(t.reply.task_id) == []


async def test_last_and_prefixes_are_looked_up_among_ones_own_runs(tmp_path: Path) -> None:
    async with two(tmp_path) as t:
        mine = t.reply.run_id[:8] + "f" * 24
        await (await t.a.call(CallRequest(to="helper", text="x", run_id=mine))).reply()
        for view, run_id in ((t.a, mine), (t.b, t.reply.run_id)):
            for ref in ("last", "last~0", run_id[:8]):
                assert (await view.trace(ref)).run_id == run_id
            with pytest.raises(RunNotFound):
                await view.trace("last~1")
        for bad in ("", "abc", "%%%%", "____", "last~x", "last~-1", "last~99999999999", "\U0010ffff" * 4):
            with pytest.raises((RunNotFound, UsageError)):
                await t.a.trace(bad)


async def test_a_tenant_follows_only_its_own_events(tmp_path: Path) -> None:
    async with two(tmp_path) as t:
        seen: list[EventV1] = []

        async def follow() -> None:
            async for event in t.a.follow(0):
                seen.append(event)

        async with asyncio.TaskGroup() as group:
            following = group.create_task(follow())
            await (await t.b.call(CallRequest(to="helper", text="again"))).reply()
            reply = await (await t.a.call(CallRequest(to="helper", text="mine"))).reply()
            await until(lambda: any(e.payload.get("state") == "completed" for e in seen))
            following.cancel()
        assert {event.task_id for event in seen} == {reply.task_id}
        with pytest.raises(RunNotFound):
            await anext(aiter(t.a.follow(0, t.reply.run_id)))


async def test_a_tenant_cancels_nothing_of_another(tmp_path: Path) -> None:
    async with two(tmp_path) as t:
        await serve(t.member, t.b, "slow", hang)
        call = await t.b.call(CallRequest(to="slow", text="x"))
        operators = await serve(t.member, t.member.node, "slow-operators", hang)
        assert operators.alive
        theirs = await t.member.node.call(CallRequest(to="slow-operators", text="x"))
        for task in (call.task_id, theirs.task_id, call.run_id, "last"):
            with pytest.raises(RunNotFound):
                await t.a.cancel(task)
        assert not call.done
        assert (await t.b.cancel(call.task_id)).canceled
        theirs.cancel()


async def test_a_tenant_withdraws_and_renews_nothing_of_another(tmp_path: Path) -> None:
    async with two(tmp_path) as t:
        await serve(t.member, t.b, "only-b", answer)
        for ref in ("only-b", t.helper_b, "only-b@n0"):
            with pytest.raises(AgentNotFound):
                await t.a.deregister(ref)
        assert not await t.a.renew(t.helper_b)
        assert await t.b.renew(t.helper_b)
        assert (await t.a.deregister("helper")).agent_id != t.helper_b
        assert [v.name for v in t.b.agents()] == ["helper", "only-b"]
        assert (await t.b.deregister("helper")).agent_id == t.helper_b


async def test_a_tenant_joins_no_task_and_no_run_of_another(tmp_path: Path) -> None:
    async with two(tmp_path) as t:
        operators = await serve(t.member, t.member.node, "operators", answer)
        assert operators.alive
        theirs = await (await t.member.node.call(CallRequest(to="operators", text="x"))).reply()
        for reply in (t.reply, theirs):
            for stolen in ({"task_id": reply.task_id}, {"run_id": reply.run_id}):
                with pytest.raises(Unauthorized) as error:
                    await t.a.call(CallRequest(to="helper", text="x", **stolen))
                assert error.value.code == "refused.tenant"
        again = await (
            await t.b.call(CallRequest(to="helper", text="secret question", task_id=t.reply.task_id))
        ).reply()
        assert again.text == ANSWER
        with pytest.raises(AgentNotFound):
            await t.a.call(CallRequest(to="helper", text="x", from_agent=t.helper_b))


async def test_a_tenant_stores_no_events_into_runs_or_in_the_name_of_another(tmp_path: Path) -> None:
    async with two(tmp_path) as t:
        mine = await (await t.a.call(CallRequest(to="helper", text="x"))).reply()
        own_id = t.a.agent("helper").agent.agent_id

        def told(**changed: Any) -> EventV1:
            full = {
                "id": new_id(),
                "ts": 1,
                "kind": "message",
                "run_id": mine.run_id,
                "task_id": mine.task_id,
                **changed,
            }
            return EventV1(payload={"role": "agent", "parts": [{"text": "x"}]}, **full)

        assert (await t.a.ingest([told(), told(agent_id=own_id)])).stored == 2
        for forged in (
            told(run_id=t.reply.run_id, task_id=t.reply.task_id), told(run_id=t.reply.run_id), told(agent_id=t.helper_b),
            told(task_id=t.reply.task_id), told(run_id=new_id(), task_id=new_id()), told(run_id=t.reply.run_id, task_id=None),
        ):  # fmt: skip
            with pytest.raises(Unauthorized):
                await t.a.ingest([told(), forged])
        assert (await t.b.trace("last")).count == len((await t.b.trace(t.reply.run_id)).events)


async def test_what_the_operator_shares_is_seen_and_called_and_nothing_beside_it(tmp_path: Path) -> None:
    async with two(tmp_path) as t:
        node = t.member.node
        await serve(t.member, node, "shared", answer)
        await serve(t.member, node, "kept", answer)
        node.save_tenant(TenantRequest(name="a", share=["shared", "only-b"]))
        await serve(t.member, t.b, "only-b", answer)
        a = node.for_tenant("a")
        assert [v.name for v in a.agents()] == ["helper", "shared"]
        reply = await (await a.call(CallRequest(to="Shared", text="x"))).reply()
        assert (reply.text, (await a.trace("last")).run_id) == (ANSWER, reply.run_id)
        for ref in ("kept", "only-b"):
            with pytest.raises(AgentNotFound):
                await a.call(CallRequest(to=ref, text="x"))
        with pytest.raises(AgentNotFound):
            await a.deregister("shared")


async def test_ones_own_agent_hides_a_shared_one_of_the_same_name(tmp_path: Path) -> None:
    async with two(tmp_path, share=["helper"]) as t:
        await serve(t.member, t.member.node, "helper", answer)
        own = t.a.agent("helper")
        assert [v.agent_id for v in own.replicas] == [v.agent_id for v in t.a.agents(name="helper")]
        assert (await (await t.a.call(CallRequest(to="helper", text="x"))).reply()).agent_id == own.agent.agent_id


async def test_an_agent_of_a_tenant_takes_part_in_a_run_that_called_it_and_sees_only_its_own_part(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, 1) as (member,):
        node = member.node
        node.save_tenant(TenantRequest(name="a", publish=True))
        a = node.for_tenant("a")
        await serve(member, a, "inner", answer)

        async def outer(call: Invocation) -> AsyncIterator[Happening]:
            inner = await a.call(
                CallRequest(to="inner", text="x", run_id=call.run_id, parent_task_id=call.task_id, from_agent="outer")
            )
            yield Happening("message", {"role": "agent", "parts": [{"text": (await inner.reply()).text}]})
            yield Happening("status", {"state": "completed"})

        await serve(member, a, "outer", outer)
        reply = await (await node.call(CallRequest(to="outer", text="for the operator"))).reply()
        assert reply.text == ANSWER
        whole, part = await node.trace(reply.run_id), await a.trace(reply.run_id)
        assert 0 < part.count < whole.count
        assert reply.task_id not in {event.task_id for event in part.events}
        assert "for the operator" not in str(part)


async def test_nobody_takes_a_name_or_an_id_to_which_calls_of_others_go(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (member,):
        node = member.node
        for name in ("loud", "louder"):
            node.save_tenant(TenantRequest(name=name, publish=True))
        await serve(member, node, "bank", answer)
        await serve(member, node.for_tenant("loud"), "shop", answer)
        for view, name in ((node.for_tenant("loud"), "BANK"), (node.for_tenant("louder"), "shop"), (node, "shop")):
            with pytest.raises(StateError) as error:
                await serve(member, view, name, answer)
            assert error.value.code == "register.taken"
        assert sorted(v.name for v in node.agents()) == ["bank", "shop"]


async def test_the_mesh_and_the_node_are_the_operators(tmp_path: Path) -> None:
    async with two(tmp_path) as t:
        with pytest.raises(Unauthorized):
            t.a.peers()
        with pytest.raises(Unauthorized):
            await t.a.net()
        with pytest.raises(Unauthorized):
            await t.a.add_seeds([])
        for refused in (lambda: t.a.trust_in("helper"), lambda: t.a.trust_list(10), t.a.orders_view):
            with pytest.raises(Unauthorized):
                refused()
        with pytest.raises(RunNotFound):
            await t.a.receipt_checks("last")


async def test_quotas_are_each_tenants_own(tmp_path: Path) -> None:
    async with two(tmp_path, calls_at_once=2, agents_max=2, events_bytes_per_day=1000) as t:
        await serve(t.member, t.a, "slow", hang)
        calls = [await t.a.call(CallRequest(to="slow", text="x")) for _ in range(2)]
        with pytest.raises(Busy) as busy:
            await t.a.call(CallRequest(to="helper", text="x"))
        assert busy.value.code == "refused.busy.tenant"
        await (await t.b.call(CallRequest(to="helper", text="x"))).reply()
        for call in calls:
            call.cancel()
            await call.wait()
        reply = await (await t.a.call(CallRequest(to="helper", text="x"))).reply()
        with pytest.raises(LimitError):
            await serve(t.member, t.a, "third", answer)
        assert sorted(v.name for v in t.a.agents()) == ["helper", "slow"]
        big = EventV1(
            id=new_id(), ts=1, kind="message", run_id=reply.run_id, task_id=reply.task_id,
            payload={"role": "agent", "parts": [{"text": "x" * 2000}]},
        )  # fmt: skip
        with pytest.raises(LimitError) as full:
            await t.a.ingest([big])
        assert full.value.code == "tenants.events"


def test_calls_per_second_are_held_to_on_average_and_come_back_with_time(tmp_path: Path) -> None:
    now = [0.0]
    store = TenantStore.open(tmp_path / "tenants.sqlite")
    tenants = Tenants(store, clock=lambda: now[0], now=lambda: 86_400.0 + now[0])
    tenant = Tenant(name="a", calls_per_s=2.0, events_bytes_per_day=100)
    tenants.save(tenant)
    for _ in range(2):
        tenants.admit_call(tenant)
    with pytest.raises(Busy) as busy:
        tenants.admit_call(tenant)
    assert busy.value.retry_after_s == 0.5
    now[0] = 0.5
    tenants.admit_call(tenant)
    with pytest.raises(Busy):
        tenants.admit_call(tenant)
    tenants.admit_events(tenant, 100)
    with pytest.raises(LimitError):
        tenants.admit_events(tenant, 1)
    now[0] = 86_400.0
    tenants.admit_events(tenant, 100)
    store.close()


async def test_agents_of_tenants_come_back_after_a_restart_with_the_same_identity(tmp_path: Path) -> None:
    kit = FakeKit()
    async with world(tmp_path, 1, kits=[kit]) as (member,):
        for name in ("a", "b"):
            member.node.save_tenant(TenantRequest(name=name))
            await serve(member, member.node.for_tenant(name), "helper", answer)
        ids = [member.node.for_tenant(name).agent("helper").agent.agent_id for name in ("a", "b")]
        await (await member.node.for_tenant("a").call(CallRequest(to="helper", text="x"))).reply()
    async with world(tmp_path, 1, kits=[kit]) as (member,):
        views = [member.node.for_tenant(name) for name in ("a", "b")]
        assert [view.agent("helper").agent.agent_id for view in views] == ids
        assert len((await views[0].runs(RunQuery())).runs) == 1
        assert (await views[1].runs(RunQuery())).runs == []
        assert member.node.agents() == []


async def test_a_tenant_that_is_removed_leaves_nothing_to_the_next_of_its_name(tmp_path: Path) -> None:
    async with two(tmp_path) as t:
        node = t.member.node
        await serve(t.member, t.b, "slow", hang)
        call = await t.b.call(CallRequest(to="slow", text="x"))
        await node.remove_tenant("b")
        await call.wait()
        with pytest.raises(Unauthorized):
            node.for_tenant("b")
        node.save_tenant(TenantRequest(name="b"))
        again = node.for_tenant("b")
        assert (again.agents(), (await again.runs(RunQuery())).runs) == ([], [])
        with pytest.raises(NotFound):
            await again.trace(t.reply.run_id)
        with pytest.raises(RecordNotFound):
            await node.remove_tenant("nobody")
        assert [v.name for v in node.for_tenant("a").agents()] == ["helper"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": "A"}, {"name": "a b"}, {"name": "../x"}, {"name": "-"}, {"name": "a" * 41}, {"name": "é"},
        {"share": ["*"]}, {"share": ["a/b"]}, {"share": ["x"] * 257}, {"calls_at_once": 0}, {"calls_per_s": 0.0},
        {"calls_per_s": float("nan")}, {"calls_per_s": float("inf")}, {"agents_max": -1}, {"events_bytes_per_day": -1},
    ],
)  # fmt: skip
async def test_a_tenant_that_makes_no_sense_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async with world(tmp_path, 1) as (member,):
        with pytest.raises(UsageError) as error:
            member.node.save_tenant(TenantRequest(**{"name": "a", **wrong}))
        assert error.value.code == "tenants.invalid"
        assert member.node.tenant_views() == []


def test_a_store_of_tenants_that_others_can_open_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tenants.sqlite"
    TenantStore.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(MeshError) as error:
        TenantStore.open(path)
    assert error.value.code == "tenants.permissions"
