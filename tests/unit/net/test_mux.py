"""The asyncio shell of the multiplexer: one write for many frames, keepalive, fairness to waiting calls."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from agentmesh.errors import Closed
from agentmesh.ids import NodeId
from agentmesh.net.memory import MemoryPipe
from agentmesh.net.mux import SILENT_PINGS_MAX, WRITE_BYTES_MAX, MuxLink

PEER = NodeId("did:key:zPeer")


class CountingPipe:
    """Passes everything on and counts engine calls."""

    def __init__(self, inner: MemoryPipe) -> None:
        self.inner = inner
        self.writes: list[int] = []

    async def read(self) -> bytes:
        return await self.inner.read()

    async def write(self, data: bytes) -> None:
        self.writes.append(len(data))
        await self.inner.write(data)

    async def aclose(self) -> None:
        await self.inner.aclose()


def pair(**settings: float) -> tuple[MuxLink, MuxLink, CountingPipe]:
    near, far = MemoryPipe.pair()
    counting = CountingPipe(near)
    return (
        MuxLink(counting, PEER, "memory", dialed=True, **settings),  # type: ignore[arg-type]
        MuxLink(far, PEER, "memory", dialed=False, **settings),  # type: ignore[arg-type]
        counting,
    )


async def test_everything_queued_in_one_turn_of_the_loop_goes_out_in_one_write() -> None:
    near, far, pipe = pair()
    await asyncio.sleep(0)
    streams = [await near.open_stream() for _ in range(50)]
    for stream in streams:
        await stream.send(b"request")
    for _ in streams:
        assert await (await far.accept_stream()).recv() == b"request"
    assert len(pipe.writes) <= 2
    assert max(pipe.writes) <= WRITE_BYTES_MAX + 65_546
    await asyncio.gather(near.aclose(), far.aclose())


async def test_a_silent_peer_is_given_up_after_three_unanswered_pings() -> None:
    one, other = MemoryPipe.pair()
    link = MuxLink(one, PEER, "memory", dialed=True, ping_interval_s=0.01)
    waiting = asyncio.gather(link.accept_stream(), return_exceptions=True)
    assert "silent" in await asyncio.wait_for(link.wait_closed(), 5)
    assert isinstance((await waiting)[0], Closed)
    received = await other.read()
    assert received.count(b"\x06\x00\x00\x00\x00\x00\x00\x00\x00\x08") == SILENT_PINGS_MAX
    await link.aclose()


async def test_a_peer_that_hangs_up_before_the_goodbye_is_out_does_not_change_why_the_link_closed() -> None:
    one, other = MemoryPipe.pair()
    link = MuxLink(one, PEER, "memory", dialed=True)
    stream = await link.open_stream()
    sending = asyncio.gather(stream.send(bytes(1 << 20)), return_exceptions=True)
    assert await other.read()  # so the pipe was filled, and is filled again
    closing = asyncio.gather(link.aclose("we are done"))
    await asyncio.sleep(0)
    await other.aclose()
    assert await link.wait_closed() == "we are done"
    await closing
    assert isinstance((await sending)[0], Closed)


async def test_an_idle_link_between_two_living_ends_stays_open() -> None:
    near, far, _ = pair(ping_interval_s=0.01)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(near.wait_closed(), 0.2)
    assert near.rtt_s is not None
    assert not far.is_closed
    await asyncio.gather(near.aclose(), far.aclose())


async def test_senders_on_one_stream_take_turns_and_a_cancelled_one_in_line_takes_nothing_with_it() -> None:
    near, far, _ = pair()
    stream = await near.open_stream()
    big = bytes(3_000_000)
    sends = [asyncio.create_task(stream.send(m)) for m in (big, b"given up", b"second")]  # noqa: TID251
    reader = await far.accept_stream()
    sends[1].cancel()
    assert await reader.recv() == big
    assert await reader.recv() == b"second"
    await asyncio.gather(sends[0], sends[2])
    await asyncio.gather(near.aclose(), far.aclose())


async def test_a_cancelled_wait_for_a_stream_loses_no_stream() -> None:
    near, far, _ = pair()
    first = asyncio.create_task(far.accept_stream())  # noqa: TID251
    second = asyncio.create_task(far.accept_stream())  # noqa: TID251
    await asyncio.sleep(0)
    stream = await near.open_stream()
    await stream.send(b"x")
    first.cancel()
    assert await (await asyncio.wait_for(second, 5)).recv() == b"x"
    await asyncio.gather(near.aclose(), far.aclose())


def test_the_iroh_path_loads_neither_websockets_nor_cryptography_nor_tls() -> None:
    code = (
        "import sys, agentmesh.net.iroh as t\n"
        "bad = {'websockets', 'cryptography', 'agentmesh.net.tls', 'agentmesh.net.tlspipe', 'iroh', 'ifaddr'}\n"
        "print(sorted(bad & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


async def test_a_missing_engine_is_said_so_and_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentmesh.errors import NoRoute
    from agentmesh.identity.keys import KeyPair
    from agentmesh.net.iroh import IrohTransport

    monkeypatch.setitem(sys.modules, "iroh", None)
    with pytest.raises(NoRoute) as caught:
        await IrohTransport(KeyPair.generate(b"\5" * 32), "127.0.0.1:0").open()
    assert caught.value.code == "transport.unavailable"
    assert "TLS" in (caught.value.hint or "")
