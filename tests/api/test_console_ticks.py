"""The console's live stream: what it tells, how often, to whom, and that nobody makes it hold anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from agentmesh.api.access import Access
from agentmesh.api.console import ticks
from agentmesh.api.console.sessions import Sessions
from agentmesh.api.console.ticks import CLIENTS_MAX, RUNS_KEPT_MAX, RUNS_NAMED_MAX, Ticker
from agentmesh.errors import Corrupt
from agentmesh.wire.access import KeyRequest
from agentmesh.wire.console_views import Tick
from tests.api.node_double import FakeBackend, event
from tests.api.serving import TOKEN, SessionsKept, Shelf, ask_app, build, serving
from tests.api.test_streams import Reader, stream
from tests.unit.node.world import until

PATH = "/api/v1/console/stream"


class Client:
    """One listener, straight at the ticker."""

    def __init__(self, ticker: Ticker, after: int | None = None) -> None:
        self.frames: AsyncGenerator[bytes] = ticker.frames(after)

    async def tick(self) -> Tick:
        """Return the next tick."""
        async with asyncio.timeout(20):
            while True:
                frame = (await anext(self.frames)).decode()
                if "data: " in frame:
                    head, _, data = frame.partition("data: ")
                    tick = msgspec.json.decode(data, type=Tick)
                    assert head == f"id: {tick.seq}\nevent: tick\n"
                    return tick

    async def until(self, seq: int) -> list[Tick]:
        """Return the ticks up to a position."""
        got = [await self.tick()]
        while got[-1].seq < seq:
            got.append(await self.tick())
        return got


@contextlib.asynccontextmanager
async def ticking(backend: FakeBackend, **options: Any) -> AsyncGenerator[Ticker]:
    """Give a ticker that beats fast."""
    ticker = Ticker(backend, beat_s=0.002, **options)  # type: ignore[arg-type]
    try:
        yield ticker
    finally:
        ticker.close()


def run(number: int) -> str:
    return f"{number:032x}"


async def test_the_first_tick_comes_at_once_and_says_to_ask_for_everything() -> None:
    backend = FakeBackend()
    await backend.append(event(1))
    backend.seen = backend.seen._replace(read_only=True)
    async with ticking(backend, now=lambda: 12.5) as ticker:
        first = await Client(ticker).tick()
    assert (first.seq, first.resync, first.events, first.runs) == (1, True, 0, [])
    assert (first.read_only, first.now_ms, first.node_name, first.version) == (True, 12_500, "n", "0")
    assert len(first.instance) == 16


async def test_a_tick_names_the_runs_that_have_news_and_what_else_changed_and_nothing_twice() -> None:
    backend = FakeBackend()
    async with ticking(backend) as ticker:
        client = Client(ticker)
        await client.tick()
        for seq, number in enumerate((1, 2, 1, 3), 1):
            await backend.append(event(seq, run_id=run(number)))
        got = await client.until(4)
        assert sum(tick.events for tick in got) == 4
        named = [one for tick in got for one in tick.runs]
        assert list(dict.fromkeys(reversed(named))) == [run(3), run(1), run(2)]  # the newest last
        assert all(tick.changed == ["runs"] and not tick.resync for tick in got)
        backend.seen = backend.seen._replace(agents=3, trust=1)
        tick = await client.tick()
        assert (tick.changed, tick.events, tick.runs) == (["agents", "trust"], 0, [])
        backend.seen = backend.seen._replace(read_only=True)
        assert (await client.tick()).read_only
        with pytest.raises(TimeoutError):  # nothing changes, so nothing comes, however often it was looked at
            async with asyncio.timeout(0.05):
                await anext(client.frames)


async def test_whoever_comes_back_gets_what_it_missed_and_every_topic() -> None:
    backend = FakeBackend()
    async with ticking(backend) as ticker:
        first = Client(ticker)
        await first.tick()
        await backend.append(event(1, run_id=run(1)))
        left = (await first.until(1))[-1].seq
        await first.frames.aclose()
        await backend.append(event(2, run_id=run(2)))
        stays = Client(ticker)
        await stays.until(2)
        tick = await Client(ticker, after=left).tick()
        assert (tick.seq, tick.events, tick.runs, tick.resync) == (2, 1, [run(2)], False)
        assert tick.changed == ["runs", "agents", "peers", "orders", "trust"]


@pytest.mark.parametrize("after", [0, 4, 10**15])
async def test_a_position_that_is_not_remembered_or_not_of_this_log_means_to_ask_for_everything(after: int) -> None:
    backend = FakeBackend()
    for seq in range(1, 6):
        await backend.append(event(seq))
    async with ticking(backend) as ticker:
        tick = await Client(ticker, after=after).tick()
        assert (tick.seq, tick.resync, tick.runs) == (5, True, [])
        assert not (await Client(ticker, after=5).tick()).resync


async def test_too_many_runs_to_name_mean_to_ask_for_everything() -> None:
    backend = FakeBackend()
    async with ticking(backend) as ticker:
        client, late = Client(ticker), Client(ticker)
        await client.tick()
        await late.tick()
        for seq in range(1, RUNS_KEPT_MAX + 50):
            await backend.append(event(seq, run_id=run(seq)))
            if seq == RUNS_NAMED_MAX:
                await client.until(seq)
        await client.until(RUNS_KEPT_MAX + 49)
        tick = await late.tick()  # everything in one, wherever it stood
        assert (tick.seq, tick.resync, tick.runs) == (RUNS_KEPT_MAX + 49, True, [])
        assert len(ticker._runs) <= RUNS_KEPT_MAX


async def test_whoever_reads_slowly_gets_fewer_and_wider_ticks() -> None:
    backend = FakeBackend()
    async with ticking(backend) as ticker:
        slow, quick = Client(ticker), Client(ticker)
        await slow.tick()
        await quick.tick()
        for seq in range(1, 101):
            await backend.append(event(seq, run_id=run(seq % 7)))
            if seq % 10 == 0:
                await quick.until(seq)
        tick = await slow.tick()
        assert (tick.seq, tick.events, len(tick.runs)) == (100, 100, 7)


async def test_clients_that_keep_up_share_one_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend()
    made: list[int] = []
    whole = Ticker._tick

    def counted(self: Ticker, *given: Any) -> Tick:
        made.append(1)
        return whole(self, *given)

    monkeypatch.setattr(Ticker, "_tick", counted)
    async with ticking(backend) as ticker:
        clients = [Client(ticker) for _ in range(12)]
        for client in clients:
            await client.tick()
        made.clear()
        await backend.append(event(1))
        got = [await client.tick() for client in clients]
        assert [tick.seq for tick in got] == [1] * 12
        assert len(made) == 1
        assert backend.followers == 1


async def test_the_log_is_followed_only_while_somebody_listens_and_a_while_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = FakeBackend()
    async with ticking(backend) as ticker:
        client = Client(ticker)
        await client.tick()
        await until(lambda: backend.followers == 1)
        await client.frames.aclose()
        assert (ticker.clients, backend.followers) == (0, 1)
        monkeypatch.setattr(ticks, "LINGER_S", 0.0)
        await until(lambda: backend.followers == 0)
        monkeypatch.undo()
        await backend.append(event(1))
        tick = await Client(ticker, after=0).tick()  # what happened while nobody looked is not known
        assert (tick.seq, tick.resync) == (1, True)


async def test_a_log_that_cannot_be_read_is_told_as_something_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticks, "_RETRY_S", 0.0)

    class Broken(FakeBackend):
        async def follow(self, after_seq: int, run_id: str | None = None) -> Any:
            if self.asked.count(("follow", after_seq, run_id)) == 0:
                self.asked.append(("follow", after_seq, run_id))
                raise Corrupt("the index cannot be read")
            async for one in super().follow(after_seq, run_id):
                yield one

    backend = Broken()
    async with ticking(backend) as ticker:
        client = Client(ticker)
        await client.tick()
        await backend.append(event(1, run_id=run(1)))
        await backend.append(event(2, run_id=run(2)))
        assert (await client.until(2))[-1].seq == 2


async def _to_the_end(reader: Reader) -> None:
    while True:
        await reader.frame()


# -- over HTTP --------------------------------------------------------------------------------------------------------


async def test_twelve_streams_at_once_hear_the_same_and_one_that_never_reads_keeps_nobody_waiting() -> None:
    backend = FakeBackend()
    async with serving(backend) as served, contextlib.AsyncExitStack() as stack:
        silent = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        silent[1].write(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        readers = [await stack.enter_async_context(stream(served, f"GET {PATH}")) for _ in range(12)]
        assert [(await one.event())[0] for one in readers] == ["tick"] * 12
        for seq in range(1, 201):
            await backend.append(event(seq, run_id=run(seq % 5)))
        for one in readers:
            while (got := await one.event())[1]["seq"] != 200:
                assert got[0] == "tick"
        assert backend.followers == 1
        silent[1].close()


async def test_it_resumes_by_last_event_id_which_goes_before_the_parameter() -> None:
    backend = FakeBackend()
    async with serving(backend) as served, stream(served, f"GET {PATH}") as keeps:
        assert (await keeps.event())[1]["resync"] is True
        await backend.append(event(1, run_id=run(1)))
        assert (await keeps.event())[1]["seq"] == 1
        async with stream(served, f"GET {PATH}?after=1", headers="Last-Event-ID: 0\r\n") as back:
            assert (await back.event())[1]["runs"] == [run(1)]
        async with stream(served, f"GET {PATH}?after=1") as back:
            assert "runs" not in (await back.event())[1]["changed"]


async def test_a_daemon_that_stops_ends_the_stream_and_another_start_is_another_instance() -> None:
    backend = FakeBackend()
    instances: list[Any] = []
    for _ in range(2):
        async with serving(backend) as served, stream(served, f"GET {PATH}") as reader:
            instances.append((await reader.event())[1]["instance"])
            served.app.end_streams()
            with pytest.raises((EOFError, asyncio.IncompleteReadError)):
                await _to_the_end(reader)
    assert len(set(instances)) == 2


async def test_too_many_pages_are_told_to_come_back_later() -> None:
    backend = FakeBackend()
    app = build(backend)
    await ask_app(app, "GET", PATH, query=b"after=x")  # refused before it counts
    ticker = app._made_ticker()
    ticker._clients = CLIENTS_MAX
    assert (await ask_app(app, "GET", PATH)).problem().code == "refused.busy.streams"
    ticker.close()


async def test_a_tenant_is_refused_and_a_key_needs_the_scope_events() -> None:
    backend = FakeBackend()
    backend.tenants["acme"] = FakeBackend()
    access = Access(TOKEN, Shelf(), sessions=Sessions(SessionsKept))
    app = build(backend, access=access)
    for name, scope, tenant, code in (
        ("t", "events", "acme", "refused.tenant"),
        ("r", "read", "", "refused.scope"),
    ):
        secret = access.add_key(KeyRequest(name=name, scopes=[scope], tenant=tenant)).secret
        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {secret}".encode())]
        assert (await ask_app(app, "GET", PATH, headers=headers)).problem().code == code


async def test_logging_out_ends_the_stream_of_the_session() -> None:
    backend = FakeBackend()
    sessions = Sessions(SessionsKept)
    entered = sessions.enter(sessions.code())
    async with serving(backend, access=Access(TOKEN, Shelf(), sessions=sessions)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nCookie: agentmesh_6374={entered.cookie}\r\n\r\n".encode()
        )
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
        await asyncio.wait_for(reader.readuntil(b"event: tick"), 10)
        done = await served.ask("DELETE", "/api/v1/console/sessions")
        assert json.loads(done.body) == {"ended": 1}
        assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"0\r\n\r\n")
        writer.close()
