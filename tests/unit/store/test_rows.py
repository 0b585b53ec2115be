"""Tables of runs: what calls say, what is bounded, and when a table is filled anew."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import LimitError
from agentmesh.store.base import EventLogConfig
from agentmesh.store.eventlog import EventLog
from agentmesh.store.runrows import rows_of
from agentmesh.wire.console_views import TaskRow
from agentmesh.wire.event import EventV1
from agentmesh.wire.rows import RowQuery

RUN = "a" * 32
MANY = EventLogConfig(rows_idle_s=3600)


def event(number: int, **fields: Any) -> EventV1:
    given: dict[str, Any] = {
        "id": f"{number:032x}", "ts": number, "kind": "message", "run_id": RUN, "lamport": number, "seq": number,
    }  # fmt: skip
    return EventV1(**{**given, **fields})


def status(number: int, state: str, task: str | None = "t", **payload: Any) -> EventV1:
    fields = {
        name: payload.pop(name)
        for name in ("parent_task_id", "node_id", "agent", "agent_id", "lamport")
        if name in payload
    }
    return event(number, kind="status", task_id=task, payload={"state": state, **payload}, **fields)


def calls(*events: EventV1) -> list[TaskRow]:
    return rows_of(RUN, events, RowQuery(), lambda _: 1).tasks


async def held(log: EventLog, **query: Any) -> Any:
    return (await log.rows(RUN, RowQuery(**query)))[0]


def test_calls_say_who_called_whom_how_deep_and_how_they_stand() -> None:
    you, anna, ben = "did:key:you", "did:key:anna", "did:key:ben"
    first, second, third = calls(
        status(
            1,
            "submitted",
            "t1",
            agent="reviewer",
            agent_id="r",
            node_id=you,
            to_node=anna,
            skill="review",
            **{"from": "you"},
        ),
        status(2, "working", "t1", agent="reviewer"),
        status(
            3, "submitted", "t2", agent="calc", node_id=anna, to_node=anna, parent_task_id="t1", **{"from": "reviewer"}
        ),
        event(4, task_id="t3", agent="echo", parent_task_id="t2", node_id=ben),
        status(5, "completed", "t2", agent="calc"),
    )
    assert (first.task_id, first.parent, first.depth, first.agent, first.agent_id) == ("t1", -1, 0, "reviewer", "r")
    assert (first.caller, first.skill, first.state, first.path) == ("you", "review", "working", "")
    assert (first.first_ts, first.last_ts, first.events) == (1, 2, 2)
    assert (second.parent, second.depth, second.state, second.caller, second.path) == (
        0,
        1,
        "completed",
        "reviewer",
        "local",
    )
    assert (third.parent, third.depth, third.state, third.caller) == (1, 2, "", "")


def test_calls_that_claim_to_cause_each_other_are_cut_apart_somewhere() -> None:
    rows = calls(
        event(1, task_id="a", parent_task_id="c"),
        event(2, task_id="b", parent_task_id="a"),
        event(3, task_id="c", parent_task_id="b"),
        event(4, task_id="self", parent_task_id="self"),
        event(5, task_id="below", parent_task_id="c"),
        event(6, task_id="orphan", parent_task_id="gone"),
    )
    for row in rows:
        above, steps = row, 0
        while above.parent >= 0:
            above, steps = rows[above.parent], steps + 1
            assert steps < len(rows), "a circle"
        assert row.depth == steps
    assert (rows[3].parent, rows[5].parent) == (-1, -1)


def test_a_chain_of_calls_as_deep_as_the_run_is_long_is_counted_without_recursion() -> None:
    rows = calls(*(event(n, task_id=f"t{n}", parent_task_id=f"t{n + 1}") for n in range(1, 3000)))
    assert rows[0].depth == 2998
    assert rows[-1].depth == 0


@pytest.mark.parametrize(
    ("states", "last", "complete"),
    [
        (["submitted", "working"], "working", False),
        (["submitted", "completed"], "completed", True),
        (["submitted", "completed", "canceled"], "completed", True),
        (["submitted", "canceled", "completed"], "completed", True),
        (["submitted", "failed", "submitted", "working"], "working", False),
        (["submitted", "input-required"], "input-required", True),
        (["working"], "working", True),
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_the_last_state_counts_in_whatever_order_events_arrive(
    states: list[str], last: str, complete: bool, backwards: bool
) -> None:
    events = [status(n, state) for n, state in enumerate(states, 1)]
    if backwards:
        for seq, one in enumerate(reversed(events), 1):
            one.seq = seq
    answer = rows_of(RUN, events, RowQuery(), lambda _: 1)
    assert (answer.tasks[0].state, answer.complete) == (last, complete)


def test_names_of_anybody_are_cut_to_one_line_and_counted_within_bounds() -> None:
    events = [
        status(
            n, f"state\n{n}" + "x" * 1000, f"t{n}", agent="\u202eevil\n" + "y" * 1000, node_id=f"node-{n}", lamport=1
        )
        for n in range(1, 1500)
    ]
    answer = rows_of(RUN, events, RowQuery(limit=20_000), lambda _: 1)
    assert len(answer.states) <= 1001
    assert max(map(len, answer.states)) <= 40
    assert all(state.isprintable() for state in answer.states)
    assert all(task.agent.startswith("·evil␤") and len(task.agent) <= 120 for task in answer.tasks)
    assert len(answer.rows.seq) == answer.count == 1499
    assert max(answer.rows.state) == len(answer.states) - 1


async def test_labels_of_large_lines_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await EventLog.open(tmp_path, config=MANY)
    await log.append_durable([event(1, payload={"parts": [{"text": "z" * 100_000}]}), event(2)])
    first = await held(log)
    read: list[int] = []
    whole = log._lines.read
    monkeypatch.setattr(log._lines, "read", lambda spots: read.extend(s[3] for s in spots) or whole(spots))
    assert (await held(log)).rows.label == first.rows.label
    assert read
    assert max(read) < 1_000
    await log.aclose()


async def test_a_second_look_reads_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await EventLog.open(tmp_path, config=MANY)
    await log.append_durable([event(n) for n in range(1, 500)])
    upto = (await held(log, limit=1)).upto
    await log.append_durable([event(n) for n in range(500, 510)])
    read: list[int] = []
    whole = log._lines.read
    monkeypatch.setattr(log._lines, "read", lambda spots: read.extend(s[0] for s in spots) or whole(spots))
    answer = await held(log, after=upto)
    assert (answer.rows.seq, answer.rows.position) == (list(range(500, 510)), list(range(499, 509)))
    assert sorted(read) == sorted([*range(500, 510), *range(499, 509)]), (
        "once as events, once (by row) for their labels"
    )
    await log.aclose()


async def test_a_run_too_large_for_a_table_is_refused_and_others_are_still_shown(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path, config=EventLogConfig(rows_bytes_max=100_000))
    await log.append_durable([event(n) for n in range(1, 2_000)])
    await log.append_durable([event(n, run_id="b" * 32) for n in range(3_000, 3_010)])
    with pytest.raises(LimitError) as refused:
        await held(log)
    assert refused.value.code == "events.run_too_large"
    assert (await log.rows("b" * 32, RowQuery()))[0].count == 10
    await log.aclose()


async def test_tables_go_for_others_longest_unused_first_and_all_of_them_when_nobody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await EventLog.open(tmp_path, config=EventLogConfig(rows_bytes_max=60_000, rows_idle_s=0.05))
    for run in "abc":
        await log.append_durable([event(ord(run) * 1000 + n, run_id=run * 32) for n in range(120)])
    dropped, clear = asyncio.Event(), log._tables.clear

    def drop() -> None:
        clear()
        log._loop.call_soon_threadsafe(dropped.set)

    monkeypatch.setattr(log._tables, "clear", drop)
    for run in "abac":
        await log.rows(run * 32, RowQuery())
    assert len(log._tables._tables) <= 2
    async with asyncio.timeout(20):
        await dropped.wait()
    assert not log._tables._tables
    assert (await held(log)).count == 120
    await log.aclose()


async def test_what_retention_dropped_is_gone_from_rows_as_well(tmp_path: Path) -> None:
    config = EventLogConfig(segment_bytes_max=20_000, events_bytes_max=60_000, rows_idle_s=3600)
    log = await EventLog.open(tmp_path, config=config)
    answer = None
    for start in range(1, 1_000, 50):
        await log.append_durable([event(n) for n in range(start, start + 50)])
        answer = await held(log, limit=20_000)
        assert answer.rows.seq == [one.seq for one in await log.run_events(RUN)]
        assert answer.rows.label.count("") == 0
    assert answer is not None
    assert log.report.segments_dropped > 0
    assert answer.rows.seq[0] > 1
    await log.aclose()


async def test_an_index_that_was_replaced_fills_tables_anew(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path, config=MANY)
    await log.append_durable([event(n) for n in range(1, 40)])
    before = await held(log)
    spoiled = log._tables._tables[RUN]
    spoiled.upto = 0  # asks the index for rows that it has already: a table that lies would double them
    log._writer.generation += 1
    assert await held(log) == before
    assert log._tables._tables[RUN] is not spoiled
    await log.aclose()
