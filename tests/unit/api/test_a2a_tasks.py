"""The A2A tasks of a node: followed without loss, bounded in every direction."""

from __future__ import annotations

import asyncio

import pytest
from a2a.types.a2a_pb2 import ListTasksRequest, Part, Task, TaskArtifactUpdateEvent, TaskState, TaskStatusUpdateEvent

from agentmesh.api.a2a import tasks
from agentmesh.api.a2a.executor import Fold, status_of
from agentmesh.api.a2a.tasks import TaskBook, TaskRecord
from agentmesh.errors import Busy, LimitError
from agentmesh.wire.event import EventV1


def record(task_id: str = "t", agent: str = "echo", *, ts: int = 1) -> TaskRecord:
    task = Task(id=task_id, context_id="c", status=status_of(TaskState.TASK_STATE_SUBMITTED, ts))
    return TaskRecord(task, agent)


def event(text: str, *, delta: bool = True) -> EventV1:
    payload = {"role": "agent", "parts": [{"text": text}], "delta": delta}
    return EventV1(id="e", ts=5, kind="message", run_id="r", payload=payload)


def seen(items: list[object]) -> str:
    """Rebuild the text as a client does: snapshots replace, updates append."""
    text = ""
    for item in items:
        if isinstance(item, Task):
            text = "".join(p.text for a in item.artifacts for p in a.parts)
        elif isinstance(item, TaskArtifactUpdateEvent):
            text += "".join(p.text for p in item.artifact.parts)
    return text


async def test_a_follower_that_falls_behind_gets_a_snapshot_and_loses_nothing() -> None:
    one = record()
    one.begin_turn()
    fold = Fold(one)
    follower = one.follow()
    items: list[object] = [await anext(follower)]
    words = [f"{n} " for n in range(5000)]
    for word in words:
        fold.take(event(word))
    fold.end("completed")
    items += [item async for item in follower]
    assert sum(isinstance(item, Task) for item in items) == 2
    assert seen(items) == "".join(words)
    assert isinstance(items[-1], TaskStatusUpdateEvent)


async def test_every_follower_sees_the_same_whatever_the_moment_it_joins() -> None:
    one = record()
    one.begin_turn()
    fold = Fold(one)
    followers = []
    words = [f"{n} " for n in range(200)]
    for n, word in enumerate(words):
        if n % 50 == 0:
            follower = one.follow()
            followers.append((follower, [await anext(follower)]))
        fold.take(event(word))
    fold.end("completed")
    for follower, items in followers:
        items += [item async for item in follower]
        assert seen(items) == "".join(words)


async def test_deltas_become_one_part_and_whole_messages_their_own() -> None:
    one = record()
    fold = Fold(one)
    for item in (event("a"), event("b"), event("C", delta=False), event("d"), event("e")):
        fold.take(item)
    fold.end("completed")
    assert [p.text for p in one.snapshot().artifacts[0].parts] == ["ab", "C", "de"]


async def test_what_comes_after_the_end_is_ignored() -> None:
    one = record()
    fold = Fold(one)
    fold.end("completed")
    fold.take(event("late"))
    fold.end("failed")
    assert one.state == TaskState.TASK_STATE_COMPLETED
    assert not one.snapshot().artifacts


async def test_an_answer_over_the_limit_is_refused_and_can_still_be_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASK_BYTES_MAX", 2000)
    one = record()
    fold = Fold(one)
    fold.take(event("x" * 1000))
    with pytest.raises(LimitError) as raised:
        fold.take(event("x" * 1000))
    fold.fail(raised.value)
    assert one.state == TaskState.TASK_STATE_FAILED


async def test_updates_are_freed_when_nobody_can_read_them_any_more() -> None:
    one = record()
    one.begin_turn()
    follower = one.follow()
    await anext(follower)
    fold = Fold(one)
    fold.take(event("x" * 100_000))
    fold.end("completed")
    held = one.bytes
    assert [item async for item in follower]
    assert one.bytes < held - 90_000


async def test_waiting_ends_with_the_turn() -> None:
    one = record()
    one.begin_turn()
    waiting = asyncio.get_running_loop().create_task(one.wait())
    await asyncio.wait({waiting}, timeout=0)
    assert not waiting.done()
    Fold(one).end("completed")
    await waiting


class TestBook:
    def test_finished_tasks_go_by_age_by_count_and_by_bytes_but_running_ones_stay(self) -> None:
        clock = [0.0]
        book = TaskBook(tasks_max=3, bytes_max=10_000, age_s=100.0, now=lambda: clock[0])
        running = record("run")
        running.running = True
        running.changed_s = 0.0
        book.add(running)
        for n in range(5):
            one = record(f"t{n}")
            one.changed_s = float(n)
            book.add(one)
        assert len(book) == 3
        assert book.get("t4", "echo") is not None
        assert book.get("t0", "echo") is None
        big = Task(id="big", status=status_of(TaskState.TASK_STATE_COMPLETED, 1))
        big.artifacts.add().parts.append(Part(text="x" * 20_000))
        book.add(TaskRecord(big, "echo"))
        book.evict()
        assert book.get("big", "echo") is None
        clock[0] = 1e9
        book.evict()
        assert len(book) == 1
        assert book.get("run", "echo") is running

    def test_a_book_full_of_running_tasks_refuses(self) -> None:
        book = TaskBook(tasks_max=2)
        for n in range(2):
            one = record(f"t{n}")
            one.running = True
            book.add(one)
        with pytest.raises(Busy):
            book.add(record("more"))

    def test_pages_are_stable_and_in_order_of_change(self) -> None:
        book = TaskBook()
        for n in range(7):
            book.add(record(f"t{n}", ts=n + 1))
        book.add(record("other", agent="calc"))
        ids: list[str] = []
        token = ""
        while True:
            page, token, total = book.page("echo", ListTasksRequest(page_size=3, page_token=token))
            ids += [task.id for task in page]
            assert total == 7
            if not token:
                break
        assert ids == [f"t{n}" for n in range(6, -1, -1)]
