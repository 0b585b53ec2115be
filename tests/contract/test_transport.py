"""What every transport promises (``net.base``), checked on each of the four on real engines and loopback sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agentmesh.codec.frame import DATA, END, FIN, HEADER, OPEN, encode_frame
from agentmesh.errors import (
    Busy,
    Closed,
    DecodeError,
    LimitError,
    MeshError,
    NoRoute,
    SignatureError,
    StateError,
    Timeout,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net.base import MESSAGE_BYTES_MAX, Link, Stream
from agentmesh.net.memory import MemoryHub, MemoryPipe, MemoryTransport
from agentmesh.net.mux_stream import WINDOW_BYTES
from agentmesh.net.tls import TlsTransport
from agentmesh.net.ws import WsTransport

SCHEMES = ("memory", "tls", "ws", "iroh")


def new_key() -> KeyPair:
    return KeyPair.generate(secrets.token_bytes(32))


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  (engines offer no event for what is awaited here)
            await asyncio.sleep(0.002)


class World:
    """Makes transports of one kind and closes what a test left open."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.hub = MemoryHub()
        self.made: list[Any] = []
        self.tasks: set[asyncio.Task[Any]] = set()

    async def node(self, key: KeyPair | None = None) -> Any:
        key = key or new_key()
        if self.scheme == "memory":
            transport: Any = MemoryTransport(key, f"n{len(self.made)}", self.hub)
        elif self.scheme == "tls":
            transport = TlsTransport(key, "127.0.0.1:0")
        elif self.scheme == "ws":
            transport = WsTransport(key, "127.0.0.1:0", proxy=None)
        else:
            from agentmesh.net.iroh import IrohTransport

            transport = IrohTransport(key, "127.0.0.1:0")
        transport.key_of_test = key
        await transport.open()
        self.made.append(transport)
        return transport

    async def links(self) -> tuple[Any, Any]:
        """Return both ends of one link, the dialling end first."""
        near, far = await self.node(), await self.node()
        return await asyncio.gather(near.dial(far.key_of_test.did, far.addresses[0]), far.accept())

    def run(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine)  # noqa: TID251
        self.tasks.add(task)
        return task

    def echo(self, link: Link) -> None:
        """Answer every message of every stream of ``link`` with itself."""

        async def one(stream: Stream) -> None:
            with contextlib.suppress(Closed):
                while (message := await stream.recv()) is not None:
                    await stream.send(message)
                await stream.finish()

        async def all_streams() -> None:
            with contextlib.suppress(Closed):
                while True:
                    self.run(one(await link.accept_stream()))

        self.run(all_streams())

    async def aclose(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for transport in self.made:
            await transport.aclose()


@pytest.fixture(params=SCHEMES)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "iroh":
        pytest.importorskip("iroh")
    made = World(request.param)
    yield made
    await made.aclose()


async def exchange(stream: Stream, message: bytes) -> bytes | None:
    await stream.send(message)
    return await stream.recv()


async def outcome(waiting: Awaitable[Any]) -> BaseException | Any:
    try:
        async with asyncio.timeout(10):
            return await waiting
    except (MeshError, asyncio.CancelledError) as error:
        return error


# ---- who is there -----------------------------------------------------------------------------------------------------


async def test_both_ends_of_a_link_know_each_others_proven_id_and_scheme(world: World) -> None:
    near, far = await world.links()
    keys = [t.key_of_test.did for t in world.made]
    assert [far.peer, near.peer] == keys
    assert near.scheme == far.scheme == world.scheme
    assert (near.dialed, far.dialed) == (True, False)
    assert near.path == ("local" if world.scheme == "memory" else "direct")
    assert near.remote_address.startswith(f"{world.scheme}:")


async def test_a_peer_with_another_key_than_dialled_is_refused_and_accepts_nothing(world: World) -> None:
    near, far = await world.node(), await world.node()
    accepting = world.run(far.accept())
    with pytest.raises(SignatureError) as caught:
        await near.dial(NodeId(new_key().did), far.addresses[0])
    assert caught.value.code == "handshake.wrong_peer"
    assert caught.value.hint
    # The refused attempt left nothing behind, and the next one is served.
    link = await near.dial(far.key_of_test.did, far.addresses[0])
    assert (await accepting).peer == near.key_of_test.did
    assert not link.is_closed


async def test_dialling_where_nobody_listens_is_no_route_or_a_timeout(world: World) -> None:
    near, far = await world.node(), await world.node()
    address = far.addresses[0]
    await far.aclose()
    with pytest.raises((NoRoute, Timeout)):
        await near.dial(far.key_of_test.did, address, timeout_s=0.5)


async def test_a_node_does_not_dial_itself(world: World) -> None:
    node = await world.node()
    with pytest.raises(NoRoute, match="itself"):
        await node.dial(node.key_of_test.did, node.addresses[0])


async def test_a_transport_that_is_closed_neither_dials_nor_accepts_nor_has_addresses(world: World) -> None:
    near, far = await world.node(), await world.node()
    address = far.addresses[0]
    waiting = world.run(near.accept())
    await asyncio.sleep(0)
    await near.aclose()
    assert near.addresses == ()
    assert isinstance(await outcome(waiting), Closed)
    assert isinstance(await outcome(near.accept()), Closed)
    with pytest.raises(StateError):
        await near.dial(far.key_of_test.did, address)


# ---- streams ----------------------------------------------------------------------------------------------------------


async def test_messages_of_every_size_come_back_whole_and_in_order(world: World) -> None:
    near, far = await world.links()
    world.echo(far)
    stream = await near.open_stream()
    sizes = [0, 1, 9, 10, 65_535, 65_536, 65_537, 300_000, 1_048_576, 3]
    sent = [secrets.token_bytes(size) for size in sizes]

    async def send_all() -> None:
        for message in sent:
            await stream.send(message)
        await stream.finish()

    world.run(send_all())
    assert [await stream.recv() for _ in sizes] == sent
    assert await stream.recv() is None


async def test_a_message_of_eight_mebibytes_arrives_exact(world: World) -> None:
    near, far = await world.links()
    message = secrets.token_bytes(8 * 1024 * 1024)
    stream = await near.open_stream()
    sending = world.run(stream.send(message))
    assert await (await far.accept_stream()).recv() == message
    await sending


async def test_many_streams_at_once_do_not_mix_their_messages(world: World) -> None:
    near, far = await world.links()
    world.echo(far)

    async def talk(number: int) -> None:
        stream = await near.open_stream()
        for turn in range(5):
            message = f"{number}/{turn}/".encode() * (1 + number * 40)
            assert await exchange(stream, message) == message
        await stream.finish()
        assert await stream.recv() is None

    async with asyncio.timeout(20):
        await asyncio.gather(*(talk(n) for n in range(100)))
    await until(lambda: not near.core.streams)


async def test_both_sides_can_open_streams(world: World) -> None:
    near, far = await world.links()
    world.echo(near)
    world.echo(far)
    for link in (near, far):
        assert await exchange(await link.open_stream(), b"hello") == b"hello"


async def test_a_message_over_the_limit_is_refused_and_nothing_of_it_is_sent(world: World) -> None:
    near, far = await world.links()
    world.echo(far)
    stream = await near.open_stream()
    with pytest.raises(LimitError):
        await stream.send(bytes(MESSAGE_BYTES_MAX + 1))
    assert await exchange(stream, b"still usable") == b"still usable"


async def test_finish_ends_one_direction_and_the_other_goes_on(world: World) -> None:
    near, far = await world.links()
    stream = await near.open_stream()
    await stream.send(b"question")
    await stream.finish()
    await stream.finish()
    with pytest.raises(StateError):
        await stream.send(b"afterthought")
    other = await far.accept_stream()
    assert await other.recv() == b"question"
    assert await other.recv() is None
    for part in (b"answer", b"and more"):
        await other.send(part)
    await other.finish()
    assert [await stream.recv() for _ in range(3)] == [b"answer", b"and more", None]


async def test_reset_reaches_the_peer_in_both_its_calls_and_spares_other_streams(world: World) -> None:
    near, far = await world.links()
    stream, quiet = await near.open_stream(), await near.open_stream()
    await stream.send(b"x")
    other, other_quiet = await far.accept_stream(), await far.accept_stream()
    assert await other.recv() == b"x"
    waiting = world.run(other.recv())
    await asyncio.sleep(0)
    stream.reset(7)
    stream.reset(8)
    error = await outcome(waiting)
    assert isinstance(error, Closed)
    assert error.extra == {"reset": 7}
    for dead in (stream, other):
        assert isinstance(await outcome(dead.send(b"y")), Closed)
        assert isinstance(await outcome(dead.recv()), Closed)
    await quiet.send(b"alive")
    assert await other_quiet.recv() == b"alive"
    assert not near.is_closed


async def test_a_send_cancelled_half_way_resets_its_stream_and_no_other(world: World) -> None:
    near, far = await world.links()
    stream = await near.open_stream()
    sending = world.run(stream.send(bytes(4 * WINDOW_BYTES)))
    other = await far.accept_stream()
    await until(lambda: far.core.held > WINDOW_BYTES // 2)
    sending.cancel()
    assert isinstance(await outcome(sending), asyncio.CancelledError)
    assert isinstance(await outcome(other.recv()), Closed)
    world.echo(far)
    assert await exchange(await near.open_stream(), b"fine") == b"fine"


# ---- pressure ---------------------------------------------------------------------------------------------------------


async def test_a_reader_that_stops_holds_its_writer_and_nobody_else(world: World) -> None:
    near, far = await world.links()
    stuck = await near.open_stream()
    taken = 0

    async def pour() -> None:
        nonlocal taken
        while True:
            await stuck.send(bytes(64 * 1024))
            taken += 64 * 1024

    pouring = world.run(pour())
    reader = await far.accept_stream()
    await until(lambda: far.core.held >= WINDOW_BYTES * 0.9)
    world.echo(far)
    for _ in range(20):
        assert await exchange(await near.open_stream(), b"passing") == b"passing"
    assert taken <= WINDOW_BYTES
    assert far.core.held <= WINDOW_BYTES
    assert not pouring.done()
    # Reading lets it go on.
    before = taken
    for _ in range(64):
        assert await reader.recv() == bytes(64 * 1024)
    assert taken > before


async def test_a_long_message_does_not_hold_up_small_ones(world: World) -> None:
    near, far = await world.links()
    bulk = await near.open_stream()
    sending = world.run(bulk.send(bytes(MESSAGE_BYTES_MAX)))
    receiving = world.run((await far.accept_stream()).recv())
    world.echo(far)
    small = await near.open_stream()
    answered = 0
    while not receiving.done() and answered < 5:
        assert await exchange(small, b"quick") == b"quick"
        answered += 1
    assert answered == 5, "the long message was through before five small ones"
    assert len(await receiving) == MESSAGE_BYTES_MAX
    await sending


async def test_one_stream_too_many_is_busy_for_the_opener_until_one_ends(world: World) -> None:
    near, far = await world.links()
    streams = [await near.open_stream() for _ in range(near.core.limits.streams_max)]
    with pytest.raises(Busy):
        await near.open_stream()
    streams[0].reset()
    await near.open_stream()
    assert not near.is_closed
    assert not far.is_closed


async def test_a_peer_that_floods_streams_gets_no_more_than_the_limit(world: World) -> None:
    near, far = await world.links()
    near.core._next_id = 10_001  # The frames go round the flooder's own book, which would object to the answers.
    await near._pipe.write(b"".join(encode_frame(OPEN, number) for number in range(1, 10_001, 2)))
    await until(lambda: far.core.refused_streams == 5000 - far.core.limits.streams_max)
    assert len(far.core.streams) == far.core.limits.streams_max
    assert not far.is_closed


# ---- hostile bytes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hostile",
    [
        bytes([200]) + bytes(9),
        HEADER.pack(DATA, END, 1, 0xFFFFFFFF),
        encode_frame(DATA, 99, b"x", END),
        encode_frame(FIN, 2),
        encode_frame(OPEN, 2),
        encode_frame(OPEN, 1) + encode_frame(OPEN, 1),
        encode_frame(OPEN, 1) + encode_frame(DATA, 1, bytes(60_000), END) * 40,
    ],
    ids=["unknown type", "oversize", "no such stream", "foreign stream", "wrong parity", "opened twice", "over credit"],
)
async def test_a_peer_that_breaks_framing_loses_its_link_and_the_reader_learns_why(
    world: World, hostile: bytes
) -> None:
    near, far = await world.links()
    waiting = world.run(far.accept_stream())
    with contextlib.suppress(Closed):  # The victim may hang up before it was told everything.
        await near._pipe.write(hostile)
    reason = await asyncio.wait_for(far.wait_closed(), 5)
    assert "broke the protocol" in reason
    found = await outcome(waiting)
    if not isinstance(found, BaseException):
        stream = found
        while isinstance(found := await outcome(stream.recv()), bytes):
            pass  # What came whole before the breach may still be read.
    assert isinstance(found, DecodeError)
    assert await asyncio.wait_for(near.wait_closed(), 5)


async def test_garbage_on_the_listening_port_disturbs_nobody(world: World) -> None:
    near, far = await world.links()
    world.echo(far)
    stream = await near.open_stream()
    address = world.made[1].addresses[0]
    for garbage in (
        b"\x00",
        secrets.token_bytes(3000),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + bytes(8000),
    ):
        await throw_at(world, address, garbage)
        assert await exchange(stream, garbage) == garbage
    third = await world.node()
    link, _ = await asyncio.gather(third.dial(world.made[1].key_of_test.did, address), world.made[1].accept())
    assert link.peer == world.made[1].key_of_test.did


async def throw_at(world: World, address: str, garbage: bytes) -> None:
    """Send raw bytes to a transport and, where it has connections, wait until it hangs up."""
    if world.scheme == "memory":
        ours, theirs = MemoryPipe.pair()
        world.hub.transports[address.removeprefix("memory:")].serve(theirs)
        await ours.write(garbage)
        await ours.aclose()
        return
    port = int(address.removesuffix("/mesh").rpartition(":")[2])
    if world.scheme == "iroh":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(garbage[:1400], ("127.0.0.1", port))
        return
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(garbage)
    with contextlib.suppress(OSError):
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 5)
    writer.close()


# ---- ends -------------------------------------------------------------------------------------------------------------


async def test_closing_a_link_wakes_everyone_who_waits_on_either_end(world: World) -> None:
    near, far = await world.links()
    stream, full = await near.open_stream(), await near.open_stream()
    await stream.send(b"x")
    other, other_full = await far.accept_stream(), await far.accept_stream()
    await other.recv()
    waiting = [
        world.run(w)
        for w in (
            stream.recv(),
            other.recv(),
            near.accept_stream(),
            far.accept_stream(),
            near.recv_datagram(),
            far.recv_datagram(),
            full.send(bytes(3 * WINDOW_BYTES)),
        )
    ]
    ends = [world.run(link.wait_closed()) for link in (near, far)]
    await until(lambda: far.core.held > WINDOW_BYTES // 2)
    await near.aclose("the test is over")
    assert [type(await outcome(w)) for w in waiting] == [Closed] * len(waiting)
    assert await outcome(ends[0]) == "the test is over"
    assert "the test is over" in await outcome(ends[1])
    for link in (near, far):
        assert link.is_closed
        assert isinstance(await outcome(link.open_stream()), Closed)
        with pytest.raises(Closed):
            link.send_datagram(b"")
    assert isinstance(await outcome(other_full.send(b"")), Closed)
    await near.aclose()


async def test_what_arrived_before_the_link_closed_can_still_be_read(world: World) -> None:
    near, far = await world.links()
    stream = await near.open_stream()
    await stream.send(b"last words")
    await stream.finish()
    other = await far.accept_stream()
    await near.aclose()
    await far.wait_closed()
    assert await other.recv() == b"last words"
    assert await other.recv() is None


async def test_datagrams_arrive_where_the_engine_has_them_and_are_refused_where_not(world: World) -> None:
    near, far = await world.links()
    size = near.datagram_bytes_max
    if not size:
        assert world.scheme in ("tls", "ws")
        with pytest.raises(LimitError):
            near.send_datagram(b"x")
        return
    with pytest.raises(LimitError):
        near.send_datagram(bytes(size + 1))
    receiving = world.run(far.recv_datagram())
    # Unreliable by contract: send until one is through.
    while not receiving.done():
        near.send_datagram(b"d" * min(size, 1000))
        await asyncio.wait([receiving], timeout=0.05)
    assert await receiving == b"d" * min(size, 1000)


async def test_the_round_trip_is_measured(world: World) -> None:
    near, far = await world.links()
    await until(lambda: near.rtt_s is not None and far.rtt_s is not None)
    assert 0 <= near.rtt_s < 5


def _open_sockets() -> int:
    count = 0
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{entry}").startswith("socket:")
    return count


@pytest.mark.skipif(sys.platform != "linux", reason="counts sockets in /proc")
async def test_nothing_is_left_after_closing_neither_tasks_nor_sockets(world: World) -> None:
    tasks, sockets = asyncio.all_tasks(), _open_sockets()
    near, far = await world.links()
    world.echo(far)
    assert await exchange(await near.open_stream(), b"x") == b"x"
    await near.open_stream()
    assert asyncio.all_tasks() > tasks
    if world.scheme != "memory":
        assert _open_sockets() > sockets
    await world.aclose()
    await until(lambda: asyncio.all_tasks() == tasks)
    await until(lambda: _open_sockets() <= sockets)


async def test_the_same_address_cannot_be_bound_twice(world: World) -> None:
    first = await world.node()
    if world.scheme == "memory":
        second: Any = MemoryTransport(new_key(), first._name, world.hub)
    else:
        port = int(first.addresses[0].removesuffix("/mesh").rpartition(":")[2])
        second = type(first)(new_key(), f"127.0.0.1:{port}")
    with pytest.raises(StateError) as caught:
        await second.open()
    assert caught.value.code == "port.taken"
    await second.aclose()
