"""Whatever a crash leaves of JSONL and index, after opening both agree and everything acknowledged is there.

A crash may cut the JSONL anywhere behind the last acknowledged byte, and may leave the index in any earlier state, absent,
cut or overwritten.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.store.base import EventLogConfig
from agentmesh.store.eventlog import EventLog
from agentmesh.store.jsonl import list_segments, read_lines, segment_path
from agentmesh.store.promote import read_line
from agentmesh.wire.event import EventV1
from agentmesh.wire.rows import RunQuery

CONFIG = EventLogConfig(segment_bytes_max=4000)

batches = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400)), min_size=1, max_size=12), min_size=1, max_size=12
)
tails = st.one_of(
    st.just(b""), st.binary(max_size=300), st.just(b'{"id":"torn","ts":1,"kind":"mess'), st.just(bytes(5000))
)
indexes = st.one_of(
    st.tuples(st.just("same"), st.integers(0, 1), st.just(b"")),
    st.tuples(st.just("absent"), st.integers(0, 1), st.just(b"")),
    st.tuples(st.just("earlier"), st.integers(0, 23), st.just(b"")),
    st.tuples(st.just("cut"), st.integers(0, 10**6), st.just(b"")),
    st.tuples(st.just("overwritten"), st.integers(0, 10**6), st.binary(min_size=1, max_size=5000)),
)


def make(number: int, run: int, size: int) -> EventV1:
    task = f"task{run}{number % 2}" if number % 3 else None
    return EventV1(
        id=f"{number:032x}", ts=number, kind="message", run_id=f"{run:032x}", task_id=task, payload={"text": "é" * size}
    )


async def write(directory: Path, plan: list[list[tuple[int, int]]]) -> dict[str, list[str]]:
    """Write batches, keeping a copy of the index after each; return acknowledged ids by run."""
    log = await EventLog.open(directory, config=CONFIG)
    acknowledged: dict[str, list[str]] = {}
    number = 0
    for step, batch in enumerate(plan):
        events: list[EventV1] = []
        for run, size in batch:
            number += 1
            events.append(make(number, run, size))
        await log.append_durable(events)
        for event in events:
            acknowledged.setdefault(event.run_id, []).append(event.id)
        copy = sqlite3.connect(directory / "index.sqlite")
        with copy:
            target = sqlite3.connect(directory / f"copy-{step}")
            copy.backup(target)
            target.close()
        copy.close()
    await log.aclose()
    return acknowledged


def crash(directory: Path, steps: int, tail: bytes, index: tuple[str, int, bytes]) -> None:
    with segment_path(directory, max(list_segments(directory)[0])).open("ab") as file:
        file.write(tail)
    what, at, data = index
    path = directory / "index.sqlite"
    if at % 2 and what != "overwritten":
        # The process died: nothing tells whether the index is the one that it left.
        (directory / "index.sum").unlink()
    if what == "absent":
        path.unlink()
    elif what == "earlier":
        shutil.copy(directory / f"copy-{at // 2 % steps}", path)
    elif what == "cut":
        path.write_bytes(path.read_bytes()[: at % path.stat().st_size])
    elif what == "overwritten":
        with path.open("r+b") as file:
            file.seek(at % path.stat().st_size)
            file.write(data)


def lines(directory: Path) -> dict[str, set[str]]:
    """Return what the JSONL holds by run, read without the log's help."""
    found: dict[str, set[str]] = {}
    for number in list_segments(directory)[0]:
        for line in read_lines(segment_path(directory, number)):
            try:
                event = read_line(line.data or b"")
            except Exception:  # noqa: BLE001
                continue
            found.setdefault(event.run_id, set()).add(event.id)
    return found


@settings(max_examples=40, deadline=None)
@given(plan=batches, tail=tails, index=indexes)
def test_after_any_crash_index_and_jsonl_agree_and_nothing_acknowledged_is_lost(
    plan: list[list[tuple[int, int]]], tail: bytes, index: tuple[str, int, bytes]
) -> None:
    async def story(directory: Path) -> None:
        acknowledged = await write(directory, plan)
        crash(directory, len(plan), tail, index)
        for again in range(2):
            log = await EventLog.open(directory, config=CONFIG)
            truth = lines(directory)
            for run_id, ids in acknowledged.items():
                assert [e.id for e in await log.run_events(run_id)] == ids
                assert set(ids) == truth[run_id]
                assert await log.resolve(run_id) == run_id
            assert log.count == sum(len(ids) for ids in truth.values())
            assert {row.run_id: row.count for row in (await log.runs(RunQuery())).rows} == {
                run: len(ids) for run, ids in truth.items()
            }
            assert log.last_seq == log.count
            if again:
                assert log.report.sentences == []
            await log.aclose()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(story(Path(directory)))


@settings(max_examples=40, deadline=None)
@given(plan=batches, data=st.data())
def test_a_jsonl_cut_at_any_byte_keeps_every_line_before_the_cut(plan: list[list[tuple[int, int]]], data: Any) -> None:
    async def story(directory: Path) -> None:
        await write(directory, plan)
        path = segment_path(directory, max(list_segments(directory)[0]))
        content = path.read_bytes()
        cut = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:cut])
        before = lines(directory)
        log = await EventLog.open(directory, config=CONFIG)
        assert {run: {e.id for e in await log.run_events(run)} for run in before} == before
        assert log.count == sum(len(ids) for ids in before.values())
        added = make(10**6, 9, 5)
        await log.append_durable([added])
        assert [e.id for e in await log.run_events(added.run_id)] == [added.id]
        assert lines(directory)[added.run_id] == {added.id}
        await log.aclose()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(story(Path(directory)))
