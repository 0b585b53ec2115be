"""Durable topics in a file of one machine: death, a full disk, clocks, limits."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentmesh.engines.base import RECORD_BYTES_MAX, TopicSpec
from agentmesh.engines.sqlite_topics import SCHEMA, VERSION, SqliteTopicStore
from agentmesh.errors import Full, LimitError, MeshError, UsageError
from agentmesh.node.topics.compose import sqlite_store
from agentmesh.store.database import Database

JOBS = TopicSpec("jobs", ("jobs",))


class Store(SqliteTopicStore):
    """A store whose clock the test sets, and whose disk it can fill."""

    def __init__(self, path: Path) -> None:
        self.now_ms = 1_700_000_000_000
        self.files: list[Database] = []
        super().__init__(lambda: self._file(path), unix_ms=lambda: self.now_ms)

    def _file(self, path: Path) -> Database:
        self.files.append(Database(path, SCHEMA, VERSION, name="durable", damaged="move it away"))
        return self.files[-1]

    async def put(self, *bodies: bytes, id_: str = "") -> list[int]:
        return await self.append("jobs", [("jobs", body, id_) for body in bodies])

    async def bodies(self) -> list[bytes]:
        return [one.body for one in await self.read("jobs", 0, limit=1_000)]


@asynccontextmanager
async def opened(path: Path, spec: TopicSpec = JOBS) -> AsyncIterator[Store]:
    store = Store(path / "durable.sqlite")
    await store.open()
    await store.create(spec)
    yield store
    await store.aclose()


_CHILD = """
import asyncio, sys
from pathlib import Path
from agentmesh.engines.base import TopicSpec
from agentmesh.node.topics.compose import sqlite_store

async def main():
    store = sqlite_store(Path(sys.argv[1]))
    await store.open()
    await store.create(TopicSpec("jobs", ("jobs",)))
    async def publish(i):
        n = 0
        while True:
            [offset] = await store.append("jobs", [("jobs", b"%d.%d" % (i, n), f"{i}.{n}")])
            print(offset, f"{i}.{n}", flush=True)
            n += 1
    await asyncio.gather(*(publish(i) for i in range(8)))

asyncio.run(main())
"""


def killed(path: Path, count: int) -> dict[int, str]:
    """Kill a process that publishes all the time; return what it said it had: offset → id and body."""
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    lines = [child.stdout.readline() for _ in range(count)]
    child.kill()
    lines += child.stdout.read().splitlines(keepends=True)
    child.wait()
    child.stdout.close()
    whole = [line.split() for line in lines if line.endswith("\n")]
    return {int(offset): body for offset, body in whole}


async def test_a_killed_process_loses_nothing_that_it_said_it_had(tmp_path: Path) -> None:
    path = tmp_path / "durable.sqlite"
    told = killed(path, 200)
    store = sqlite_store(path)
    await store.open()
    kept: dict[int, str] = {}
    while records := await store.read("jobs", max(kept, default=0) + 1, limit=1_000):
        kept.update({one.offset: one.body.decode() for one in records})
    assert {offset: kept.get(offset) for offset in told} == told
    assert sorted(kept) == list(range(1, len(kept) + 1))
    assert await store.append("jobs", [("jobs", b"again", told[1])]) == [1]
    await store.aclose()


async def test_a_full_disk_refuses_the_records_and_keeps_those_from_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert await store.put(b"before") == [1]
        writer = store.files[0]
        pages = writer.read("PRAGMA page_count")[0][0]
        writer.read(f"PRAGMA max_page_count={pages}")
        big = b"x" * 200_000
        outcomes = await asyncio.gather(store.put(big), store.put(big), return_exceptions=True)
        assert all(isinstance(one, Full) for one in outcomes)
        assert await store.bodies() == [b"before"]
        writer.read("PRAGMA max_page_count=1000000")
        assert await store.put(b"after") == [2]


async def test_many_publishers_share_one_transaction(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        begun = 0
        transaction = store.files[0].transaction

        def counted(*, durable: bool = False) -> object:
            nonlocal begun
            begun += durable
            return transaction(durable=durable)

        store.files[0].transaction = counted  # type: ignore[method-assign,assignment]
        offsets = await asyncio.gather(*(store.put(b"%d" % i) for i in range(500)))
        assert [offset for [offset] in offsets] == list(range(1, 501))
        assert begun < 20


async def test_records_too_old_or_too_many_bytes_go_and_the_newest_stays(tmp_path: Path) -> None:
    async with opened(tmp_path, JOBS._replace(bytes_max=1_000, age_s_max=60)) as store:
        await store.put(*(b"x" * 300 for _ in range(5)))
        assert [len(body) for body in await store.bodies()] == [300] * 3
        await store.put(b"y" * 5_000)
        assert await store.bodies() == [b"y" * 5_000]
        store.now_ms += 61_000
        await store.put(b"new")
        assert await store.bodies() == [b"new"]


async def test_an_id_is_known_again_for_ten_minutes(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert await store.put(b"1", id_="a") == [1]
        store.now_ms += 599_000
        assert await store.put(b"2", id_="a") == [1]
        store.now_ms += 2_000
        assert await store.put(b"3", id_="a") == [2]
        assert await store.put(b"", b"", id_="") == [3, 4]


async def test_a_clock_set_back_an_hour_holds_no_work_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.put(b"1")
        [lease] = await store.fetch("jobs", "g", "m", ack_wait_s=30)
        assert await store.fetch("jobs", "g", "m") == []
        store.now_ms -= 3_600_000
        [again] = await store.fetch("jobs", "g", "m")
        assert (again.record, again.tries) == (lease.record, 2)
        assert await store.ack("jobs", "g", [lease.token]) == 0
        assert await store.ack("jobs", "g", [again.token]) == 1


async def test_work_whose_record_is_gone_is_not_handed_out(tmp_path: Path) -> None:
    async with opened(tmp_path, JOBS._replace(records_max=2)) as store:
        await store.put(b"1", b"2")
        assert len(await store.fetch("jobs", "g", "m", ack_wait_s=1)) == 2
        await store.put(b"3", b"4", b"5")
        store.now_ms += 10_000
        assert [lease.record.body for lease in await store.fetch("jobs", "g", "m")] == [b"4", b"5"]
        assert await store.groups("jobs") == {"g": 2}


async def test_a_publisher_that_gives_up_stops_nobody_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await store.put(b"given up")
        assert (await store.put(b"next"))[0] in (1, 2)


@pytest.mark.parametrize(
    "spec",
    [
        TopicSpec("a b", ("x",)),
        TopicSpec("", ("x",)),
        TopicSpec("a", ()),
        TopicSpec("a", ("x..y",)),
        TopicSpec("a", ("$topics.x",)),
        TopicSpec("a", ("x",), records_max=0),
        TopicSpec("a", tuple(f"x{i}" for i in range(65))),
    ],
)
async def test_a_topic_that_makes_no_sense_is_refused(tmp_path: Path, spec: TopicSpec) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(UsageError):
            await store.create(spec)
        assert [one.name for one in await store.topics()] == ["jobs"]


async def test_too_much_at_once_is_refused_and_nothing_of_it_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(LimitError):
            await store.put(b"ok", b"x" * (RECORD_BYTES_MAX + 1))
        for group in ("", "x" * 200):
            with pytest.raises(MeshError):
                await store.fetch("jobs", group, "m")
        waiting = [asyncio.ensure_future(store.put(*(b"" for _ in range(1_000)))) for _ in range(60)]  # noqa: TID251
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        refused = [one for one in outcomes if isinstance(one, MeshError)]
        assert {one.code for one in refused} == {"topic.full_queue"}
        assert (await store.bounds("jobs"))[1] == 1 + 1_000 * (60 - len(refused))
