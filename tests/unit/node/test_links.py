"""Links over the in-memory transport: greeting, one link per peer, requests, goodbye, peers that break the rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from agentmesh.core.swim.messages import Ping
from agentmesh.errors import Closed, NoRoute, VersionError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId, node_id
from agentmesh.net.base import Contact, Stream
from agentmesh.net.memory import MemoryHub, MemoryTransport
from agentmesh.node.config import NodeConfig
from agentmesh.node.links import Links, Peer
from agentmesh.wire import v1


class End:
    """One node's links, and a diary of what they told."""

    def __init__(
        self,
        hub: MemoryHub,
        seed: int,
        *,
        version: int = v1.WIRE_VERSION,
        links_max: int = 16,
        abroad: tuple[str, ...] = (),
    ) -> None:
        self.key = KeyPair.generate(bytes([seed]) * 32)
        self.node_id = node_id(self.key.public)
        self.name = f"n{seed}"
        self.ups: list[NodeId] = []
        self.downs: list[NodeId] = []
        self.messages: list[tuple[NodeId, Any]] = []
        self.misbehaved: list[str] = []
        self.changed = asyncio.Condition()
        self.links = Links(
            self.node_id,
            NodeConfig(name=self.name, links_max=links_max, dial_timeout_s=3.0),
            [MemoryTransport(self.key, self.name, hub)],
            hello=lambda: v1.Hello(v=version, name=self.name, addresses=[f"memory:{self.name}"], clock_ms=1),
            on_up=lambda peer: self._note(self.ups, peer.link.peer),
            on_down=lambda peer: self._note(self.downs, peer),
            on_control=lambda peer, message: self._note(self.messages, (peer, message)),
            on_request=self._on_request,
            on_misbehaved=lambda peer, code, detail: self._note(self.misbehaved, code),
            is_abroad=lambda peer, _hello: peer in abroad,
        )
        self._events: list[asyncio.Event] = []

    def _note(self, diary: list[Any], entry: Any) -> None:
        diary.append(entry)
        for event in self._events:
            event.set()

    async def until(self, condition: Any) -> None:
        event = asyncio.Event()
        self._events.append(event)
        async with asyncio.timeout(5):
            while not condition():
                event.clear()
                await event.wait()
        self._events.remove(event)

    async def _on_request(self, peer: Peer, stream: Stream, message: v1.RequestMessage) -> None:
        assert isinstance(message, v1.TraceQuery)
        await stream.send(v1.encode(v1.TraceEvents(events=[])))
        await stream.finish()

    @property
    def contact(self) -> Contact:
        return Contact(self.node_id, (f"memory:{self.name}",))


@asynccontextmanager
async def ends(*seeds: int, **kwargs: Any) -> AsyncIterator[list[End]]:
    hub = MemoryHub()
    async with AsyncExitStack() as stack:
        out = [End(hub, seed, **kwargs) for seed in seeds]
        for end in out:
            await end.links.open()
            stack.push_async_callback(end.links.aclose)
        yield out


async def test_both_ends_greet_and_know_each_other_by_their_keys() -> None:
    async with ends(1, 2) as (a, b):
        peer = await a.links.connect(b.contact)
        await b.until(lambda: b.ups)
        assert peer.link.peer == b.node_id
        assert peer.hello.name == "n2"
        assert b.ups == [a.node_id]
        assert a.links.is_connected(b.node_id)


@pytest.mark.parametrize("who", ["dialler", "other"])
async def test_a_link_between_two_meshes_carries_calls_only_whichever_side_says_so(who: str) -> None:
    hub = MemoryHub()
    first, second = NodeId(End(hub, 1).node_id), NodeId(End(hub, 2).node_id)
    async with AsyncExitStack() as stack:
        a = End(hub, 1, abroad=(second,) if who == "dialler" else ())
        b = End(hub, 2, abroad=(first,) if who == "other" else ())
        for end in (a, b):
            await end.links.open()
            stack.push_async_callback(end.links.aclose)
        peer = await a.links.connect(b.contact)
        async with asyncio.timeout(5):
            while b.links.peer(first) is None:  # noqa: ASYNC110 nobody is told of a link that carries calls only
                await asyncio.sleep(0)
        assert peer.calls_only
        there = b.links.peer(first)
        assert there is not None
        assert there.calls_only
        # Neither side's machines hear of the other, and what they are sent anyway is not looked at.
        assert list(a.links.peers()) == list(b.links.peers()) == []
        assert [one.link.peer for one in a.links.abroad()] == [second]
        a.links.send(second, Ping(1, 1, 0, 0))
        assert peer.outbox.empty()
        await peer.control.send(v1.encode(Ping(1, 1, 0, 0)))
        for question in (v1.NetQuery(v=1), v1.TrustQuery(v=1), v1.TraceQuery(v=1, run_id="r"), v1.AuditQuery(v=1)):
            stream = await peer.link.open_stream()
            await stream.send(v1.encode(question))
            with pytest.raises(Closed):
                await stream.recv()
        assert (a.ups, b.ups, b.messages, b.misbehaved) == ([], [], [], [])
        # The side that says so tells no addresses of its own.
        said = there.hello if who == "dialler" else peer.hello
        assert (said.calls_only, said.addresses) == (True, [])


async def test_control_messages_arrive_in_order() -> None:
    async with ends(1, 2) as (a, b):
        await a.links.connect(b.contact)
        for nonce in range(50):
            a.links.send(b.node_id, Ping(nonce, 1, 0, 0))
        await b.until(lambda: len(b.messages) == 50)
        assert [m.nonce for _, m in b.messages] == list(range(50))


async def test_connecting_twice_gives_the_same_link() -> None:
    async with ends(1, 2) as (a, b):
        first, second = await asyncio.gather(a.links.connect(b.contact), a.links.connect(b.contact))
        assert first is second
        assert await a.links.connect(b.contact) is first


async def test_two_nodes_that_dial_each_other_at_once_end_with_one_link_that_works() -> None:
    async with ends(1, 2) as (a, b):
        a.links.dial(b.contact)
        b.links.dial(a.contact)
        await a.until(lambda: a.links.is_connected(b.node_id))
        await b.until(lambda: b.links.is_connected(a.node_id))
        # What was said on the link that lost is lost with it; the brain repeats itself when a peer comes up again.
        last = (len(a.ups), len(b.ups), -1)
        async with asyncio.timeout(5):
            for nonce in range(1000):
                a.links.send(b.node_id, Ping(nonce, 1, 0, 0))
                b.links.send(a.node_id, Ping(nonce, 1, 0, 0))
                await asyncio.sleep(0.001)
                if a.messages and b.messages and last[:2] == (len(a.ups), len(b.ups)) and nonce - last[2] > 20:
                    break
                if last[:2] != (len(a.ups), len(b.ups)):
                    last = (len(a.ups), len(b.ups), nonce)
        assert [p.link.peer for p in a.links.peers()] == [b.node_id]
        assert [p.link.peer for p in b.links.peers()] == [a.node_id]
        assert not next(iter(a.links.peers())).link.is_closed


async def test_a_request_stream_is_served_and_answered() -> None:
    async with ends(1, 2) as (a, b):
        peer = await a.links.connect(b.contact)
        stream = await peer.link.open_stream()
        await stream.send(v1.encode(v1.TraceQuery(v=v1.WIRE_VERSION, run_id="r")))
        payload = await stream.recv()
        assert payload is not None
        assert isinstance(v1.decode_trace_reply(payload), v1.TraceEvents)
        assert await stream.recv() is None


@pytest.mark.parametrize("first", [b"", b"\xff" * 40, b"\x81\xa4type\xa3zzz"])
async def test_a_request_that_is_no_message_is_reset_and_held_against_the_peer(first: bytes) -> None:
    async with ends(1, 2) as (a, b):
        peer = await a.links.connect(b.contact)
        stream = await peer.link.open_stream()
        await stream.send(first)
        with pytest.raises(Closed):
            await stream.recv()
        await b.until(lambda: b.misbehaved)
        assert b.misbehaved == ["wire.malformed"]
        assert a.links.is_connected(b.node_id)


async def test_a_peer_that_says_goodbye_is_down_at_once() -> None:
    async with ends(1, 2) as (a, b):
        await a.links.connect(b.contact)
        await b.until(lambda: b.ups)
        await a.links.aclose()
        await b.until(lambda: b.downs)
        assert b.downs == [a.node_id]
        assert not b.links.is_connected(a.node_id)


async def test_a_peer_of_another_wire_version_is_refused_with_a_clear_error() -> None:
    hub = MemoryHub()
    ours, theirs = End(hub, 1), End(hub, 2, version=99)
    async with AsyncExitStack() as stack:
        for end in (ours, theirs):
            await end.links.open()
            stack.push_async_callback(end.links.aclose)
        with pytest.raises(VersionError, match="99"):
            await ours.links.connect(theirs.contact)
        assert not ours.ups


async def test_a_dial_to_nobody_says_so_and_is_remembered_for_the_peers_list() -> None:
    async with ends(1, 2) as (a, _b):
        nobody = node_id(KeyPair.generate(b"\x09" * 32).public)
        with pytest.raises(NoRoute):
            await a.links.connect(Contact(nobody, ("memory:nobody",)))
        assert a.links.attempts[nobody].error
        with pytest.raises(NoRoute, match="no address"):
            await a.links.connect(Contact(nobody, ()))


async def test_a_node_does_not_connect_to_itself() -> None:
    async with ends(1, 2) as (a, _):
        with pytest.raises(NoRoute):
            await a.links.connect(a.contact)


async def test_more_links_than_allowed_are_refused() -> None:
    async with ends(1, 2, 3, links_max=1) as (a, b, c):
        await a.links.connect(b.contact)
        with pytest.raises(NoRoute):
            await a.links.connect(c.contact)
        with pytest.raises((Closed, NoRoute)):
            await c.links.connect(a.contact)
