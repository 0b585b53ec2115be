"""Rows of a run: whatever comes in whatever order, pages and what came since add up to the list of one whole read."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.store import roworder
from agentmesh.store.base import EventLogConfig
from agentmesh.store.eventlog import EventLog
from agentmesh.store.index import hash_id
from agentmesh.store.runrows import RunTables, told
from agentmesh.store.runtable import RunTable
from agentmesh.wire.console_views import TraceRows
from agentmesh.wire.event import KINDS, EventV1, digest, encode_json
from agentmesh.wire.rows import RowQuery
from tests.support.rows_model import each_once, fits, rows_model

RUN = "f" * 32
NODES = ["did:key:anna", "did:key:ben", "did:key:cleo"]
TASKS = ["t0", "t1", "t2", "t3"]
STATES = ["submitted", "working", "completed", "failed", "input-required", ""]


@st.composite
def events(draw: st.DrawFn) -> EventV1:
    """Events of few ids, times and nodes, so that ties, copies and clocks that jump are the rule."""
    kind: Any = draw(st.sampled_from(KINDS))
    payload: dict[str, Any] = {"text": draw(st.text(max_size=5))}
    if kind == "status":
        payload = {
            "state": draw(st.sampled_from(STATES)),
            "from": draw(st.sampled_from(["you", "calc"])),
            "to_node": draw(st.sampled_from(NODES)),
        }
    elif kind == "message":
        payload = {"parts": [{"text": "x" * draw(st.sampled_from([0, 3, 200, 9_000]))}]}
    return EventV1(
        id=draw(st.sampled_from([f"e{n}" for n in range(40)] + ["é", "\U0001f600", "z\n"])),
        ts=draw(st.integers(0, 4)) * draw(st.sampled_from([1, 1_000_000])),
        kind=kind,
        run_id=RUN,
        task_id=draw(st.sampled_from([*TASKS, None])),
        parent_task_id=draw(st.sampled_from([*TASKS, None, "elsewhere"])),
        node_id=draw(st.sampled_from([*NODES, ""])),
        agent=draw(st.sampled_from(["Calc", "echo", None])),
        agent_id=draw(st.sampled_from(["did:key:calc", None])),
        lamport=draw(st.integers(0, 5)),
        payload=payload,
        metadata=draw(st.sampled_from([{}, {"caller_node": "did:key:dora"}])),
    )


@st.composite
def filters(draw: st.DrawFn) -> dict[str, Any]:
    """Filters, most often none."""
    return {
        "kinds": tuple(draw(st.just([]) | st.lists(st.sampled_from(KINDS), max_size=3))),
        "states": tuple(draw(st.just([]) | st.lists(st.sampled_from(STATES[:5]), max_size=2))),
        "tasks": tuple(draw(st.just([]) | st.lists(st.sampled_from([*TASKS, "no"]), max_size=2))),
        "agent": draw(st.just("") | st.sampled_from(["calc", "ECHO", "did:key:calc", "no"])),
        "since": draw(st.just(0) | st.integers(0, 4)),
        "until": draw(st.just(0) | st.integers(1, 4_000_000)),
    }


BATCHES = st.lists(st.lists(events(), max_size=12), min_size=1, max_size=8)


class Reader:
    """A page that pages and follows as docs/spec/console.md says."""

    def __init__(self, limit: int, wanted: dict[str, Any]) -> None:
        self.limit, self.wanted = limit, wanted
        self.held: list[int] = []
        self.after = self.upto = self.start = 0

    def ask(self) -> RowQuery:
        return RowQuery(after=self.after, upto=self.upto, start=self.start, limit=self.limit, **self.wanted)

    def take(self, answer: TraceRows) -> None:
        rows = answer.rows
        places = rows.index if any(self.ask().filters) else rows.position
        assert places == sorted(places)
        for place, seq in zip(places, rows.seq, strict=True):
            self.held.insert(place, seq)
        if answer.more:
            self.upto, self.start = answer.upto, self.start + len(rows.seq)
            assert rows.seq
        else:
            self.after, self.upto, self.start = answer.upto, 0, 0


def check_all(held: list[int], answer: TraceRows, stored: list[EventV1], wanted: dict[str, Any]) -> None:
    whole = each_once(stored)
    assert held == [event.seq for event in whole if fits(event, RowQuery(**wanted))]
    assert (answer.count, answer.digest) == (len(whole), digest(whole))
    assert answer.matching == len(held)


@given(BATCHES, filters(), st.integers(1, 7), st.data())
@settings(max_examples=150)
def test_pages_and_what_came_since_add_up_to_the_whole_read(
    batches: list[list[EventV1]], wanted: dict[str, Any], limit: int, data: st.DataObject
) -> None:
    """One table takes batches while three readers page and follow at their own pace; blocks are small so that they divide."""
    size = roworder.BLOCK_ROWS
    roworder.BLOCK_ROWS = 4
    try:
        table, stored = RunTable(), list[EventV1]()
        readers = [Reader(limit, wanted), Reader(limit + 2, {}), Reader(1, wanted)]
        for batch in batches:
            came: list[EventV1] = []
            for event in batch:
                one = EventV1(**{name: getattr(event, name) for name in EventV1.__struct_fields__})
                one.seq = len(stored) + 1
                stored.append(one)
                came.append(one)
            table.add(came, [(one.seq, 1, 0, 100, hash_id(one.id)) for one in came])
            table.upto = len(stored)
            for reader in readers:
                for _ in range(data.draw(st.integers(0, 2))):
                    reader.take(told(RUN, table, reader.ask())[0])
        for reader in readers:
            answer = told(RUN, table, reader.ask())[0]
            reader.take(answer)
            while reader.after < len(stored) or reader.start:
                answer = told(RUN, table, reader.ask())[0]
                reader.take(answer)
            check_all(reader.held, answer, stored, reader.wanted)
    finally:
        roworder.BLOCK_ROWS = size


@given(BATCHES, filters(), st.integers(0, 50), st.integers(0, 50), st.integers(0, 9), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_every_answer_of_the_log_is_that_of_the_plain_model(
    batches: list[list[EventV1]], wanted: dict[str, Any], after: int, upto: int, start: int, limit: int
) -> None:
    """Through files and index: windows, columns, calls, labels, count and digest, before and after tables were dropped."""

    async def go(directory: Path) -> None:
        log = await EventLog.open(directory, config=EventLogConfig(rows_idle_s=3600))
        try:
            stored: list[EventV1] = []
            for batch in batches:
                for event in batch:
                    log.append(event)
                    stored.append(event)
                await log.flush()
                if not stored:
                    continue
                query = RowQuery(after=after, upto=upto, start=start, limit=limit, **wanted)
                answer, ends = await log.rows(RUN, query)
                expected = rows_model(stored, log.last_seq, query)
                assert len(ends) == len(answer.tasks)
                for row, other in zip(answer.tasks, expected.tasks, strict=True):
                    other.depth, other.state = row.depth, row.state  # checked by tests of their own
                    if other.parent != row.parent:
                        assert row.parent == -1  # a circle was cut
                        other.parent = -1
                assert answer == expected
                view = await log.run_events(RUN)
                assert (answer.count, answer.digest) == (len(view), digest(view))
                log._tables = RunTables(log._lines, 1 << 20)
                assert (await log.rows(RUN, query))[0] == answer
        finally:
            await log.aclose()

    for batch in batches:
        for event in batch:
            event.seq = 0
            assert len(encode_json(event)) < 20_000
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(go(Path(name)))
