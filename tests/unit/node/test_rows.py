"""Rows of a run at whole nodes: the same story as the trace, whoever is asked, and without asking others all the time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.errors import LimitError, RecordNotFound, RunNotFound
from agentmesh.node import traces
from agentmesh.node.door import Happening, Invocation
from agentmesh.wire.rows import RowQuery, label
from agentmesh.wire.views import CallRequest
from tests.unit.node.world import Member, until, world


async def echo(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("message", {"role": "agent", "parts": [{"text": call.parts[0]["text"]}]})
    yield Happening("status", {"state": "completed"})


def knows(member: Member, name: str) -> bool:
    return any(view.name == name and view.status == "healthy" for view in member.node.agents())


async def called(caller: Member) -> str:
    call = await caller.node.call(CallRequest(to="echo", text="hello", skill="say"))
    return (await call.reply()).run_id


async def test_rows_tell_what_the_trace_tells_at_both_ends_of_a_call(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        run = await called(a)
        for one in (a, b):
            view, rows = await one.node.trace(run), await one.node.rows(run, RowQuery())
            assert (rows.count, rows.digest, rows.nodes) == (view.count, view.digest, view.nodes)
            assert (rows.complete, rows.missing_nodes, rows.receipts) == (
                view.complete,
                view.missing_nodes,
                view.receipts,
            )
            assert rows.complete
            assert rows.rows.seq == [event.seq for event in view.events]
            assert rows.rows.label == [label(event) for event in view.events]
            assert [rows.node_ids[at] for at in rows.rows.node] == [event.node_id for event in view.events]
            (task,) = rows.tasks
            assert (task.agent, task.skill, task.state, task.events) == ("echo", "say", "completed", view.count)
            assert task.path == a.node.links.peer(b.node.node_id).link.path  # pyright: ignore[reportOptionalMemberAccess]
            event = await one.node.event(rows.rows.seq[-1])
            assert event == view.events[-1]
        with pytest.raises(RunNotFound):
            await a.node.rows("feed" * 8, RowQuery())
        with pytest.raises(RecordNotFound):
            await a.node.event(10_000)


async def test_a_call_within_one_node_has_a_local_path(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        (task,) = (await a.node.rows(await called(a), RowQuery())).tasks
        assert task.path == "local"


async def test_a_peer_is_not_asked_again_and_again_however_often_rows_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        run = await called(a)
        asked: list[str] = []
        ask = a.node._traces._ask

        async def count(node: str, run_id: str) -> bool:
            asked.append(node)
            return await ask(node, run_id)

        monkeypatch.setattr(a.node._traces, "_ask", count)
        monkeypatch.setattr(traces, "_ASK_AGAIN_S", 3600.0)
        for _ in range(5):
            assert (await a.node.rows(run, RowQuery())).missing_nodes == []
        assert asked == [b.node.node_id]
        await a.node.rows(run, RowQuery(), remote=False)
        assert len(asked) == 1
        monkeypatch.setattr(traces, "_ASK_AGAIN_S", 0.0)
        await a.node.rows(run, RowQuery())
        assert len(asked) == 2


async def test_a_run_too_long_to_be_told_whole_is_refused_and_its_rows_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        run = await called(a)
        whole = await a.node.trace(run)
        monkeypatch.setattr(traces, "_SHOWN_MAX", whole.count - 1)
        with pytest.raises(LimitError) as refused:
            await a.node.trace(run)
        assert (refused.value.code, "--rows" in (refused.value.hint or "")) == ("events.run_too_large", True)
        rows = await a.node.rows(run, RowQuery())
        assert (rows.count, rows.digest) == (whole.count, whole.digest)
