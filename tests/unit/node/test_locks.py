"""Locks of a node over a real engine: SQLite in a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.engines.base import CriticalStore, Versioned
from agentmesh.engines.sqlite import SqliteCritical
from agentmesh.errors import Busy, MeshError, StateError, Timeout, UsageError
from agentmesh.ids import NodeId
from agentmesh.net.tasks import TaskScope
from agentmesh.node import locks as module
from agentmesh.node.locks import Locks
from agentmesh.wire.state_views import LockRequest

A, B = NodeId("did:key:zA"), NodeId("did:key:zB")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteCritical]:
    found = SqliteCritical(tmp_path / "critical.sqlite")
    yield found
    await found.aclose()


def ask(holder: str = "h", ttl_s: float = 30, wait_s: float = 0, *, renew: bool = False) -> LockRequest:
    return LockRequest(holder=holder, ttl_s=ttl_s, wait_s=wait_s, renew=renew)


async def all_wait(locks: Locks, count: int) -> None:
    """Let tasks run until so many wait for locks."""
    while locks.waiting < count:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_one_holds_a_lock_and_others_are_told_who(store: SqliteCritical) -> None:
    here, there = Locks(A, store), Locks(B, store)
    held = await here.acquire("build", ask("h"))
    assert held.held
    assert held.token > 0
    assert 29 < held.ttl_s <= 30
    with pytest.raises(Busy) as met:
        await there.acquire("build", ask("h"))
    assert (met.value.code, met.value.extra["holder"], met.value.extra["node"]) == ("lock.held", "h", A)
    assert 29 < met.value.retry_after_s <= 30
    shown = await there.show("build")
    assert (shown.holder, shown.node_id, shown.token) == ("h", A, held.token)


async def test_the_token_stays_when_renewed_and_rises_with_the_next_holder(store: SqliteCritical) -> None:
    here, there = Locks(A, store), Locks(B, store)
    first = await here.acquire("l", ask())
    again = await here.acquire("l", ask(renew=True))
    assert again.token == first.token
    assert (await here.acquire("l", ask())).token == first.token
    await here.release("l", "h")
    assert not (await there.show("l")).held
    second = await there.acquire("l", ask())
    assert second.token > again.token
    for lost in (here.release("l", "h"), here.acquire("l", ask(renew=True))):
        with pytest.raises(StateError) as met:
            await lost
        assert met.value.code == "lock.lost"


async def test_whoever_waits_gets_it_when_it_is_given_back_in_turn(store: SqliteCritical) -> None:
    here, there = Locks(A, store), Locks(B, store)
    await here.acquire("l", ask("first", 600))
    order: list[str] = []

    async def want(holder: str) -> None:
        await there.acquire("l", ask(holder, 600, 60))
        order.append(holder)
        await there.release("l", holder)

    scope = TaskScope("test")
    tasks = [scope.spawn(want(f"w{i}")) for i in range(4)]
    await all_wait(there, 4)
    await here.release("l", "first")
    await asyncio.gather(*tasks)
    assert order == ["w0", "w1", "w2", "w3"]


async def test_a_holder_that_vanished_is_followed_after_its_time_to_live(store: SqliteCritical) -> None:
    first = await Locks(A, store).acquire("l", ask(ttl_s=1))
    second = await Locks(B, store).acquire("l", ask(wait_s=60))
    assert second.token > first.token
    assert second.node_id == B


async def test_a_holder_that_was_followed_learns_it_when_it_renews_or_gives_back(store: SqliteCritical) -> None:
    slow = Locks(A, store)
    for late in (lambda: slow.acquire("l", ask("slow", renew=True)), lambda: slow.release("l", "slow")):
        await slow.acquire("l", ask("slow", 1))
        quick = Locks(B, store)
        await quick.acquire("l", ask("quick", wait_s=60))
        with pytest.raises(StateError) as met:
            await late()
        assert (met.value.code, met.value.extra["holder"]) == ("lock.lost", "quick")
        await quick.release("l", "quick")


class Counting(SqliteCritical):
    """Counts reads."""

    reads = 0

    async def get(self, key: str) -> Versioned | None:
        self.reads += 1
        return await super().get(key)


async def test_renewing_and_giving_back_read_nothing_while_nobody_else_writes(tmp_path: Path) -> None:
    store = Counting(tmp_path / "critical.sqlite")
    here = Locks(A, store)
    await here.acquire("l", ask())
    store.reads = 0
    for _ in range(3):
        await here.acquire("l", ask(renew=True))
    await here.release("l", "h")
    assert store.reads == 0
    await store.aclose()


async def test_an_engine_that_was_emptied_under_a_running_node_is_begun_anew(store: SqliteCritical) -> None:
    here = Locks(A, store)
    await here.acquire("other", ask())
    await here.acquire("l", ask())
    store._file().write("DELETE FROM value")
    store._file().write("UPDATE counter SET revision = 0")
    async with asyncio.timeout(30):
        assert (await here.acquire("l", ask())).held


async def test_waiting_ends_when_its_time_is_up(store: SqliteCritical) -> None:
    here, there = Locks(A, store), Locks(B, store)
    await here.acquire("l", ask(ttl_s=600))
    results = await asyncio.gather(
        *(there.acquire("l", ask(f"w{i}", wait_s=0.05)) for i in range(3)), return_exceptions=True
    )
    assert [getattr(one, "code", "") for one in results] == ["lock.held"] * 3


async def test_those_that_wait_are_bounded(store: SqliteCritical, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITERS_MAX", 2)
    here = Locks(A, store)
    await here.acquire("l", ask())
    scope = TaskScope("test")
    tasks = [scope.spawn(here.acquire("l", ask(f"w{i}", wait_s=60)), quiet=True) for i in range(2)]
    await all_wait(here, 2)
    with pytest.raises(Busy) as met:
        await here.acquire("l", ask("w3", wait_s=60))
    assert met.value.code == "lock.waiters"
    await scope.aclose()
    assert all(task.cancelled() for task in tasks)
    with pytest.raises(Busy, match="has the lock"):
        await here.acquire("l", ask("w4", wait_s=0.01))


class Forgetful(SqliteCritical):
    """Writes, and then does not say so."""

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        await super().put(key, value, expect=expect)
        raise Timeout("nothing is known", code="engine.unknown_outcome")


async def test_a_write_of_unknown_outcome_is_no_lock_but_may_be_claimed_again(tmp_path: Path) -> None:
    path = tmp_path / "critical.sqlite"
    mute, clear = Forgetful(path), SqliteCritical(path)
    with pytest.raises(Timeout) as met:
        await Locks(A, mute).acquire("l", ask())
    assert met.value.code == "engine.unknown_outcome"
    with pytest.raises(Busy):
        await Locks(B, clear).acquire("l", ask())
    assert (await Locks(A, clear).acquire("l", ask())).held
    await mute.aclose()
    await clear.aclose()


async def test_locks_that_are_held_are_listed_by_name(store: CriticalStore) -> None:
    here = Locks(A, store)
    for name in ("b/2", "a", "b/1"):
        await here.acquire(name, ask())
    await here.release("a", "h")
    assert [one.name for one in (await here.list_locks("")).locks] == ["b/1", "b/2"]
    assert [one.name for one in (await here.list_locks("b/2")).locks] == ["b/2"]


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("a b", ask()),
        ("", ask()),
        ("l", ask(ttl_s=0.5)),
        ("l", ask(ttl_s=float("nan"))),
        ("l", ask(ttl_s=3601)),
        ("l", ask(wait_s=-1)),
        ("l", ask("x\n")),
        ("l", ask("x" * 200)),
        ("l", ask("", renew=True)),
    ],
)
async def test_what_makes_no_sense_is_refused(store: SqliteCritical, name: str, request_: LockRequest) -> None:
    with pytest.raises(UsageError) as met:
        await Locks(A, store).acquire(name, request_)
    assert met.value.code.startswith("lock.")


async def test_a_lock_without_a_named_holder_gets_one_that_nobody_has(store: SqliteCritical) -> None:
    here = Locks(A, store)
    one, two = await here.acquire("a", ask("")), await here.acquire("b", ask(""))
    assert one.holder != two.holder
    with pytest.raises(MeshError):
        await here.acquire("a", ask(""))
