"""The event log from outside: positions, order, names of runs, followers, doubles, a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import DecodeError, Full, LimitError, RunNotFound, StateError, UsageError
from agentmesh.store import jsonl
from agentmesh.store.base import EventLogConfig
from agentmesh.store.eventlog import EventLog
from agentmesh.wire.event import EventV1, digest
from agentmesh.wire.rows import RunQuery

_ids = itertools.count(1)


def event(run: str = "a" * 32, task: str | None = None, **fields: Any) -> EventV1:
    number = next(_ids)
    made: dict[str, Any] = {"id": f"{number:032x}", "ts": number, "kind": "message", "payload": {"n": number}, **fields}
    return EventV1(run_id=run, task_id=task, **made)


async def test_positions_rise_by_one_and_survive_reopening(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path / "events")
    assert [log.append(event()) for _ in range(3)] == [1, 2, 3]
    await log.aclose()
    log = await EventLog.open(tmp_path / "events")
    assert log.last_seq == 3
    assert log.append(event()) == 4
    await log.aclose()


async def test_a_reader_sees_every_event_appended_before_it_asked(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    for n in range(200):
        log.append(event(lamport=n))
        if n % 20 == 0:
            assert len(await log.run_events("a" * 32)) == n + 1
    assert await _stored(log) == log.count == 200
    await log.aclose()


async def _stored(log: EventLog) -> int:
    await log.flush()
    return sum(row.count for row in (await log.runs(RunQuery(limit=1000))).rows)


async def test_append_durable_returns_after_the_sync_of_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def sync(fd: int) -> None:
        os.fsync(fd)
        synced.append(os.fstat(fd).st_size)

    monkeypatch.setattr(jsonl, "_sync", sync)
    log = await EventLog.open(tmp_path)
    assert await log.append_durable([event(), event()]) == 2
    assert synced[-1] == (tmp_path / "000001.jsonl").stat().st_size > 0
    await log.aclose()


async def test_events_of_a_run_come_in_causal_order_and_each_id_once(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    late, early = event(lamport=2, ts=5), event(lamport=1, ts=900)
    again = EventV1(**{f: getattr(late, f) for f in late.__struct_fields__})
    await log.append_durable([late, early, again, event("b" * 32)])
    found = await log.run_events("a" * 32)
    assert [e.id for e in found] == [early.id, late.id]
    assert digest(found) == digest([late, early])
    assert await log.run_events("c" * 32) == []
    await log.aclose()


async def test_after_and_limit_page_through_a_run_by_position(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    await log.append_durable([event(lamport=9 - n) for n in range(9)])
    seen: list[int] = []
    after = 0
    while page := await log.run_events("a" * 32, after=after, limit=4):
        after = max(e.seq for e in page)
        seen += [e.seq for e in page]
    assert sorted(seen) == list(range(1, 10))
    await log.aclose()


async def test_events_of_a_task_are_found_by_its_id(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    await log.append_durable([event(task="t1"), event(task="t2"), event(task="t1", run="b" * 32), event()])
    assert [e.seq for e in await log.task_events("t1")] == [1, 3]
    assert await log.task_events("nothing") == []
    await log.aclose()


async def test_a_copy_of_a_known_event_is_left_out_also_after_reopening(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    first = event(id="1" * 32)
    log.append(first)
    log.append_copy(event(id="1" * 32))
    log.append_copy(event(id="2" * 32))
    log.append_copy(event(id="2" * 32))
    log.append_copy(event("b" * 32, id="1" * 32))
    await log.flush()
    assert log.count == 3
    await log.aclose()
    log = await EventLog.open(tmp_path)
    log.append_copy(event(id="2" * 32))
    await log.append_durable([event(id="1" * 32), event(id="3" * 32)], copies=True)
    assert log.count == 4
    assert [e.id[0] for e in await log.run_events("a" * 32)] == ["1", "2", "3"]
    await log.aclose()


async def test_runs_are_listed_newest_first_with_agent_and_state_of_the_first_call(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    nested: dict[str, Any] = {"task": "t2", "parent_task_id": "t1"}
    await log.append_durable(
        [
            event("b" * 32, ts=1),
            event(ts=50, lamport=3, agent="calc", kind="status", payload={"state": "completed"}, **nested),
            event(ts=10, lamport=1, agent="reviewer", task="t1", kind="status", payload={"state": "submitted"}),
            event(ts=90, lamport=4, agent="reviewer", task="t1", kind="status", payload={"state": "failed"}),
            event(ts=95, lamport=6, agent="calc", kind="status", payload={"state": "working"}, **nested),
        ]
    )
    newest, older = (await log.runs(RunQuery())).rows
    assert newest == ("a" * 32, 10, 95, 4, "reviewer", "failed", 2, ["calc", "reviewer"])
    assert (older.run_id, older.count, older.agent, older.state) == ("b" * 32, 1, "", "")
    assert (await log.runs(RunQuery(limit=1))).rows == [newest]
    await log.aclose()


@pytest.mark.parametrize("order", list(itertools.permutations([("working", 2), ("completed", 5), ("canceled", 7)])))
async def test_what_one_replica_completed_is_not_canceled_by_another_that_was_told_to_stop(
    tmp_path: Path, order: list[tuple[str, int]]
) -> None:
    log = await EventLog.open(tmp_path)
    nested = {"task": "t2", "parent_task_id": "t1"}
    await log.append_durable(
        [
            *(event(task="t1", lamport=at, kind="status", payload={"state": state}) for state, at in order),
            event(lamport=9, kind="status", payload={"state": "canceled"}, **nested),
            event("b" * 32, "t3", lamport=9, kind="status", payload={"state": "canceled"}),
            event("b" * 32, lamport=3, kind="status", payload={"state": "completed"}, **nested),
        ]
    )
    assert {row.run_id[0]: row.state for row in (await log.runs(RunQuery())).rows} == {
        "a": "completed",
        "b": "canceled",
    }
    await log.aclose()


async def test_a_run_is_named_by_id_prefix_task_or_last(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    one, two = "abcd1" + "0" * 27, "abcd2" + "0" * 27
    await log.append_durable([event(one, "feed" + "0" * 28), event(two, "cafe" + "0" * 28)])
    for ref in (one, "abcd1", "run_abcd1", "feed", "task_feed", "feed" + "0" * 28, "last~1"):
        assert await log.resolve(ref) == one, ref
    for ref in ("last", "cafe", " abcd2 "):
        assert await log.resolve(ref) == two
    with pytest.raises(UsageError) as ambiguous:
        await log.resolve("abcd")
    assert ambiguous.value.code == "run.ambiguous"
    assert ambiguous.value.extra["candidates"] == [two, one]
    for ref in ("abc", "last~2", "ffff", "run_", "last~x", "%", "abcd_"):
        with pytest.raises(RunNotFound):
            await log.resolve(ref)
    for ref in ("", " ", "x" * 201):
        with pytest.raises(UsageError):
            await log.resolve(ref)
    await log.aclose()


async def test_a_run_is_named_by_the_trace_from_outside_that_it_is_part_of(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    foreign, shared = "4bf92f3577b34da6a3ce929d0e0e4736", "5" * 32
    one, two = "a" * 32, "b" * 32

    def within(run: str, said: object) -> EventV1:
        made = event(run)
        made.metadata = {"traceparent": said}
        return made

    traces = [(one, foreign), (one, shared), (two, shared), (two, two), (two, one)]
    await log.append_durable([within(run, f"00-{trace}-00f067aa0ba902b7-01") for run, trace in traces])
    await log.append_durable(
        [within(two, bad) for bad in ("nonsense", 5, None, ["x"], f"ff-{foreign}-00f067aa0ba902b7-01")]
    )
    assert await log.resolve(foreign) == one
    assert (await log.resolve(one), await log.resolve(two)) == (one, two)  # a run before a trace
    with pytest.raises(UsageError) as ambiguous:
        await log.resolve(shared)
    assert ambiguous.value.extra["candidates"] == [two, one]
    with pytest.raises(RunNotFound):
        await log.resolve(foreign[:12])
    await log.aclose()
    again = await EventLog.open(tmp_path)
    assert await again.resolve(foreign) == one
    await again.aclose()


async def test_last_in_an_empty_log_says_that_nothing_has_run(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    with pytest.raises(RunNotFound, match="nothing has run"):
        await log.resolve("last")
    assert (await log.runs(RunQuery())).rows == []
    await log.aclose()


@pytest.mark.parametrize("recent", [4, 1000])
async def test_a_slow_follower_loses_nothing_and_memory_stays_bounded(tmp_path: Path, recent: int) -> None:
    config = EventLogConfig(recent_events_max=recent, follow_batch=7)
    log = await EventLog.open(tmp_path, config=config)
    await log.append_durable([event() for _ in range(10)])
    seen: list[int] = []
    async for found in log.follow(5):
        seen.append(found.seq)
        if log.last_seq < 400:
            # Thirteen arrive for each one read, so that the follower falls far behind.
            for _ in range(13):
                log.append(event())
            if log.last_seq % 2:
                await log.flush()
        assert len(log._recent) <= recent
        if found.seq == 400:
            break
    assert seen == list(range(6, 401))
    await log.aclose()


async def test_follow_yields_live_events_of_one_run_only_once_they_are_durable(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    follower = log.follow(0, "b" * 32)
    waiting = asyncio.Task(follower.__anext__())  # pyright: ignore[reportArgumentType]
    await log.append_durable([event("a" * 32)])
    assert not waiting.done()
    log.append(event("b" * 32))
    found = await asyncio.wait_for(waiting, 5)
    assert found.seq == 2
    assert b'"seq":2' in (tmp_path / "000001.jsonl").read_bytes()
    await log.aclose()
    assert [e async for e in follower] == []


async def test_two_followers_at_different_speeds_see_the_same(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path, config=EventLogConfig(recent_events_max=8, follow_batch=3))
    quick: list[str] = []
    slow: list[str] = []

    async def read(into: list[str], pause: int) -> None:
        async for found in log.follow(0):
            into.append(found.id)
            for _ in range(pause):
                await asyncio.sleep(0)
            if len(into) == 60:
                return

    async def write() -> None:
        for _ in range(60):
            await log.append_durable([event()])

    async with asyncio.timeout(20):
        await asyncio.gather(read(quick, 0), read(slow, 50), write())
    assert quick == slow
    assert len(set(quick)) == 60
    await log.aclose()


async def test_closing_ends_followers_and_refuses_further_calls(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)

    async def follow() -> list[EventV1]:
        return [e async for e in log.follow(0)]

    following = asyncio.Task(follow())
    log.append(event())
    await log.flush()
    await log.aclose()
    await log.aclose()
    assert len(await asyncio.wait_for(following, 5)) <= 1
    with pytest.raises(StateError):
        log.append(event())
    with pytest.raises(StateError):
        await log.runs(RunQuery())


async def test_a_second_process_cannot_open_the_same_log(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    with pytest.raises(StateError) as refused:
        await EventLog.open(tmp_path)
    assert refused.value.code == "events.locked"
    await log.aclose()
    await (await EventLog.open(tmp_path)).aclose()


async def test_unusable_events_are_refused_and_nothing_of_their_batch_is_taken(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    bad: list[tuple[EventV1, type[Exception]]] = [
        (event(payload={"x": "y" * (8 << 20)}), LimitError),
        (event(payload={"x": object()}), UsageError),
        (event(payload={"x": "\ud800"}), UsageError),
        (event(run=""), DecodeError),
        (event(ts=1 << 63), DecodeError),
        (event(task="t" * 129), DecodeError),
        (event(lamport=-1), DecodeError),
    ]
    for one, kind in bad:
        with pytest.raises(kind):
            await log.append_durable([event(), one])
    assert log.last_seq == 0
    assert await log.append_durable([event()]) == 1
    assert log.count == 1
    await log.aclose()


async def test_a_full_queue_refuses_with_its_code_and_takes_events_again_later(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path, config=EventLogConfig(queue_events_max=10))
    with pytest.raises(Full) as refused:
        await log.append_durable([event() for _ in range(11)])
    assert refused.value.code == "events.queue_full"
    assert refused.value.extra["retry_after_s"] > 0
    assert await log.append_durable([event() for _ in range(10)]) == 10
    assert log.append(event()) == 11
    await log.aclose()


class Disk:
    """Stands between the segment and ``os.write``; refuses while ``error`` is set, after ``partial`` bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = 0
        self.partial = 0
        self._write = os.write
        monkeypatch.setattr(jsonl.os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if self.error and self.partial:
            part, self.partial = self.partial, 0
            return self._write(fd, bytes(data)[:part])
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return self._write(fd, data)


async def test_a_full_disk_fails_durable_appends_keeps_the_others_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await EventLog.open(tmp_path, config=EventLogConfig(retry_s=0.01))
    disk = Disk(monkeypatch)
    await log.append_durable([event()])
    disk.error, disk.partial = errno.ENOSPC, 17
    log.append(event(id="kept"))
    with pytest.raises(Full) as refused:
        await log.append_durable([event(id="given up")])
    assert refused.value.code == "store.full"
    assert refused.value.hint is not None
    assert not log.healthy
    assert any("cannot be written" in sentence for sentence in log.report.sentences)
    with pytest.raises(Full):
        await log.flush()
    assert [e.seq for e in await log.run_events("a" * 32)] == [1], "readers do not wait for a refusing disk"
    disk.error = 0
    await log.flush()
    assert log.healthy
    assert log.report.sentences == []
    await log.append_durable([event(id="after")])
    await log.aclose()
    lines = [json.loads(line)["id"] for line in (tmp_path / "000001.jsonl").read_bytes().splitlines()]
    assert lines[1:] == ["kept", "after"], "no torn line in between, nothing twice"


async def test_reads_do_not_wait_for_positions_that_were_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await EventLog.open(tmp_path, config=EventLogConfig(retry_s=0.01))
    disk = Disk(monkeypatch)
    disk.error = errno.EROFS
    log.append(event(id="kept"))
    with pytest.raises(Full) as refused:
        await log.append_durable([event()])
    assert refused.value.code == "store.read_only"
    disk.error = 0
    async with asyncio.timeout(5):
        await log.flush()
        assert [e.id for e in await log.run_events("a" * 32)] == ["kept"]
    await log.aclose()


async def test_a_refusing_disk_costs_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await EventLog.open(tmp_path, config=EventLogConfig(retry_s=0.01, queue_events_max=5))
    disk = Disk(monkeypatch)
    disk.error = errno.ENOSPC
    for _ in range(5):
        log.append(event())
    with pytest.raises(Full):
        await log.flush()
    with pytest.raises(Full) as refused:
        log.append(event())
    assert refused.value.code == "events.queue_full"
    disk.error = 0
    await log.flush()
    assert log.append(event()) == 6
    await log.flush()
    assert log.count == 6
    await log.aclose()


async def test_a_failed_sync_is_not_acknowledged_and_goes_on_in_a_fresh_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await EventLog.open(tmp_path, config=EventLogConfig(retry_s=0.01))
    await log.append_durable([event()])
    real, failures = jsonl._sync, [OSError(errno.EIO, "I/O error")]

    def sync(fd: int) -> None:
        if failures:
            raise failures.pop()
        real(fd)

    monkeypatch.setattr(jsonl, "_sync", sync)
    log.append(event(id="kept"))
    with contextlib.suppress(Full):
        # Fails when it shares the group whose sync failed.
        await log.flush()
    await log.flush()
    assert (tmp_path / "000002.jsonl").stat().st_size > 0
    assert [e.id for e in await log.run_events("a" * 32)][1:] == ["kept"]
    await log.aclose()
    log = await EventLog.open(tmp_path)
    assert (log.count, log.report.sentences) == (2, [])
    await log.aclose()


async def test_segments_rotate_and_the_oldest_are_dropped_with_their_rows_and_said_so(tmp_path: Path) -> None:
    config = EventLogConfig(segment_bytes_max=2000, events_bytes_max=6000)
    log = await EventLog.open(tmp_path, config=config)
    for n in range(60):
        await log.append_durable([event(f"{n // 5:032x}", f"t{n}")])
    segments, _ = jsonl.list_segments(tmp_path)
    assert min(segments) > 1
    assert sum(segments.values()) <= 6000 + 2500
    assert log.report.segments_dropped == min(segments) - 1
    assert any("dropped" in sentence for sentence in log.report.sentences)
    kept = 60 - log.report.events_dropped
    assert log.count == kept == sum(row.count for row in (await log.runs(RunQuery())).rows)
    assert [e.seq async for e in _until(log.follow(0), 60)] == list(range(61 - kept, 61))
    assert await log.task_events("t0") == []
    with pytest.raises(RunNotFound):
        await log.resolve("0" * 32)
    await log.aclose()
    log = await EventLog.open(tmp_path, config=config)
    assert (log.count, log.last_seq, log.report.rebuilt) == (kept, 60, False)
    await log.aclose()


async def _until(follower: Any, last: int) -> Any:
    async for found in follower:
        yield found
        if found.seq == last:
            return


async def test_an_index_damaged_while_running_is_rebuilt_and_nothing_is_missing(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path)
    await log.append_durable([event() for _ in range(300)])
    other = _connect(tmp_path)
    other.execute("UPDATE events SET offset=offset+1 WHERE seq BETWEEN 100 AND 200")
    other.commit()
    other.close()
    assert len(await log.run_events("a" * 32)) == 300
    assert log.report.rebuilt
    assert await log.append_durable([event()]) == 301
    assert len(await log.run_events("a" * 32)) == 301
    await log.aclose()


def _connect(directory: Path) -> Any:
    import sqlite3

    return sqlite3.connect(directory / "index.sqlite")


async def test_an_index_that_cannot_be_written_costs_no_event_and_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    log = await EventLog.open(tmp_path, config=EventLogConfig(retry_s=0.01))
    index = log._writer._index
    real = index.add

    def add(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(index, "add", add)
    await log.append_durable([event() for _ in range(3)])
    assert "index" in log.report.problem
    assert not log.healthy
    monkeypatch.setattr(index, "add", real)
    await log.append_durable([event()])
    assert [e.seq for e in await log.run_events("a" * 32)] == [1, 2, 3, 4]
    assert log.healthy
    await log.aclose()


async def test_a_follower_sees_events_written_while_the_index_was_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    log = await EventLog.open(tmp_path, config=EventLogConfig(retry_s=0.01))
    index = log._writer._index
    real, refusals = index.add, [1, 1]

    def add(*values: Any) -> None:
        if refusals:
            refusals.pop()
            raise sqlite3.OperationalError("database or disk is full")
        real(*values)

    async def follow() -> list[int]:
        return [e.seq async for e in _until(log.follow(0), 6)]

    following = asyncio.Task(follow())
    await log.append_durable([event()])
    monkeypatch.setattr(index, "add", add)
    for _ in range(5):
        await log.append_durable([event()])
    assert await asyncio.wait_for(following, 5) == [1, 2, 3, 4, 5, 6]
    await log.aclose()


async def test_a_run_too_large_to_load_is_refused_with_a_way_out(tmp_path: Path) -> None:
    log = await EventLog.open(tmp_path, config=EventLogConfig(read_bytes_max=5000))
    await log.append_durable([event() for _ in range(40)])
    with pytest.raises(LimitError) as refused:
        await log.run_events("a" * 32)
    assert refused.value.code == "events.run_too_large"
    assert len(await log.run_events("a" * 32, limit=10)) == 10
    await log.aclose()


async def test_a_log_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Full) as refused:
        await EventLog.open(tmp_path / "file" / "events")
    assert refused.value.hint
