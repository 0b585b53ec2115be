"""What a node tells of itself in figures, against what really happened on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.errors import AgentFailed, AgentNotFound, MeshError
from agentmesh.node.door import Happening, Invocation
from agentmesh.obs.metrics import Labels, Readings
from agentmesh.wire.views import CallRequest
from tests.unit.node.world import Member, until, world


async def echo(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("message", {"parts": [{"text": "hello"}]})
    yield Happening("status", {"state": "completed", "usage": {"tokens": 7, "usd_micros": 1_500_000}})


async def failing(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("status", {"state": "failed", "detail": "no"})


async def call(member: Member, to: str, **more: object) -> None:
    await (await member.node.call(CallRequest(to=to, text="x", **more))).reply()  # type: ignore[arg-type]


def calls_of(readings: Readings, direction: str) -> dict[Labels, float]:
    return {key[1:]: n for key, n in readings.values["agentmesh_calls_total"].items() if key[0] == direction}


def value(readings: Readings, name: str, *labels: str) -> float:
    return readings.values[name][labels]


def count(readings: Readings, name: str, *labels: str) -> int:
    return sum(readings.histograms[name][labels].counts)


async def test_calls_are_counted_alike_at_both_ends_by_outcome_and_way(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (near, far):
        await far.serve("echo", echo)
        await far.serve("failing", failing)
        await near.serve("own", echo)
        await until(lambda: [a.status for a in near.node.agents()] == ["healthy"] * 3)
        for _ in range(3):
            await call(near, "echo")
        with pytest.raises(AgentFailed):
            await call(near, "failing")
        await call(near, "own")
        here, there = await near.node.measure(), await far.node.measure()
        assert calls_of(here, "out") == {
            ("completed", "local", "memory"): 3,
            ("failed", "local", "memory"): 1,
            ("completed", "local", "local"): 1,
        }
        assert calls_of(here, "in") == {("completed", "local", "local"): 1}
        assert calls_of(there, "in") == {("completed", "local", "memory"): 3, ("failed", "local", "memory"): 1}
        assert calls_of(there, "out") == {}
        assert count(here, "agentmesh_call_seconds", "out") == 5
        assert count(there, "agentmesh_call_seconds", "in") == 4
        assert count(there, "agentmesh_call_queue_seconds") == 4
        assert count(there, "agentmesh_token_check_seconds", "good") == 4
        assert there.values["agentmesh_agent_calls_total"] == {("echo", "completed"): 3, ("failing", "failed"): 1}
        assert value(there, "agentmesh_usage_tokens_total") == 21
        assert value(there, "agentmesh_usage_usd_total") == 4.5
        assert value(here, "agentmesh_links", "local", "mesh", "memory") == 1
        assert value(here, "agentmesh_link_bytes_total", "sent", "memory") > 1_000
        assert value(here, "agentmesh_agents", "elsewhere", "healthy") == 2
        assert value(here, "agentmesh_agents", "here", "healthy") == 1
        assert count(here, "agentmesh_agent_trust") == 2


async def test_refusals_are_counted_by_their_code_whoever_refuses(tmp_path: Path) -> None:
    async with world(tmp_path, 2, policy="closed") as (near, far):
        await far.serve("echo", echo)
        await until(lambda: near.node.agents())
        with pytest.raises(MeshError) as refused:
            await call(near, "echo")
        with pytest.raises(AgentNotFound):
            await call(near, "nobody")
        here, there = await near.node.measure(), await far.node.measure()
        assert there.values["agentmesh_refusals_total"] == {("in", refused.value.code): 1}
        assert calls_of(there, "in") == {("rejected", "local", "memory"): 1}
        assert calls_of(here, "out") == {("rejected", "local", "memory"): 1, ("failed", "none", "none"): 1}


async def test_no_event_is_lost_and_all_that_were_accepted_are_settled(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (near, far):
        await far.serve("echo", echo)
        await until(lambda: near.node.agents())
        await asyncio.gather(*(call(near, "echo") for _ in range(20)))
        for member in (near, far):
            await member.log.flush()
            seen = await member.node.measure()
            accepted = value(seen, "agentmesh_events_accepted_total")
            settled = seen.values["agentmesh_events_settled_total"]
            assert accepted >= 20
            assert accepted == sum(settled.values()) + value(seen, "agentmesh_queue_depth", "events")
            assert value(seen, "agentmesh_events_lost_total") == 0
            assert value(seen, "agentmesh_events_stored") == settled[("stored",)]


async def test_reading_ten_thousand_agents_lets_others_have_their_turns(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (member,):
        entry = (await member.serve("echo", echo)) and member.node.sights.entries()[0]

        class Stranger:
            local, healthy = False, True
            manifest = entry.manifest

        crowd = [Stranger()] * 10_000
        looked = 0

        def verdict(agent_id: str) -> object:
            nonlocal looked
            looked += 1
            sum(range(2_000))  # about what a judgement costs without the cache
            return member.node.trust.opinions.judge(agent_id, "", 0.0)

        member.node.sights.entries = lambda: crowd  # type: ignore[method-assign,assignment]
        member.node.trust.verdict = verdict  # type: ignore[method-assign,assignment]
        turns = 0
        most = 0
        reading = asyncio.ensure_future(member.node.measure())  # noqa: TID251
        while not reading.done():
            before = looked
            await asyncio.sleep(0)
            turns, most = turns + 1, max(most, looked - before)
        assert value(await reading, "agentmesh_agents", "elsewhere", "healthy") == 10_000
        assert looked == 10_000
        assert turns > 10
        assert most < 5_000


async def test_who_scrapes_while_a_scrape_is_under_way_gets_the_same_values(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (member,):
        first, second = await asyncio.gather(member.node.measure(), member.node.measure())
        assert first is second
        assert await member.node.measure() is not first
