"""Figures of messages: two mail rooms in two processes on loopback, and what NATS does with the same in the same run.

``acked``: messages of 256 bytes from one agent to another, non-durable, in order, encrypted end to end, counted when the other
node has acknowledged them. ``request``: a message and its answer on an open session. ``durable``: on disk and synced at both
nodes. ``python -m bench.mail serve SCHEME`` is the reading side. Rivals: nats-py publish to a subscriber in another process
(neither acknowledged nor encrypted), its request/reply, and JetStream with ``sync_interval: always``, 256 publishes under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from bench.pair import quantile
from bench.rivals import free_port, process

PAYLOAD = b"x" * 256
_SEEDS = {"read": b"\5" * 32, "write": b"\6" * 32}
_BATCH = 256
_AHEAD = 8_192


class Post:
    """One mail room on a real transport, with links of its own and one agent, who is the node."""

    def __init__(self, scheme: str, role: str, home: Path) -> None:
        from agentmesh.identity.keys import KeyPair
        from agentmesh.ids import NodeId
        from agentmesh.net.base import Contact
        from agentmesh.node.config import NodeConfig
        from agentmesh.node.links import Links
        from agentmesh.node.mail.mailroom import Mailroom
        from agentmesh.wire import v1

        self.key = KeyPair.generate(_SEEDS[role])
        self.other = KeyPair.generate(_SEEDS["write" if role == "read" else "read"])
        self.address = ""
        self.links = Links(
            NodeId(self.key.did),
            NodeConfig(name=role, version="0"),
            [_transport(scheme, self.key)],
            hello=lambda: v1.Hello(v=v1.WIRE_VERSION, name=role),
            on_up=lambda peer: self.room.on_up(peer.link.peer),
            on_down=lambda _: None,
            on_control=lambda _peer, _message: None,
            on_request=lambda peer, stream, _message: self.room.serve(peer, stream),
            on_misbehaved=lambda *what: print(*what, file=sys.stderr),
        )
        self.room: Mailroom = Mailroom(
            self.key,
            self.links,
            home / "mail.sqlite",
            contact_of=lambda node: Contact(node, (self.address,) if self.address else ()),
            key_of=lambda public: self.key if public == self.key.public else None,
            place_of=lambda public: NodeId((self.key if public == self.key.public else self.other).did),
            refusal_of=lambda _: None,
            any_refused=lambda: False,
            refuse=lambda: None,
            is_abroad=lambda _: False,
            agreement_of=lambda _: None,
            agreement_keys=lambda _: {},
            near=lambda _: [],
            on_misbehaved=lambda *what: print(*what, file=sys.stderr),
        )

    def messages(
        self, count: int, *, durable: bool = False, reply_to: bytes = b"", payload: bytes = PAYLOAD
    ) -> list[Any]:
        """Return messages to the other side, each with an id of its own, as an application makes them."""
        from agentmesh.core.courier.message import Delivery, Message

        now_ms = int(time.time() * 1000)
        ids = os.urandom(16 * count)
        sender, recipient = self.key.public, self.other.public
        return [
            Message(
                ids[16 * n : 16 * n + 16],
                sender,
                recipient,
                1,
                now_ms,
                payload,
                delivery=Delivery.AT_LEAST_ONCE,
                reply_to=reply_to,
                durable=durable,
            )
            for n in range(count)
        ]

    async def aclose(self) -> None:
        """Close room and links."""
        await self.room.aclose()
        await self.links.aclose()


def _transport(scheme: str, key: Any) -> Any:
    if scheme == "iroh":
        from agentmesh.net.iroh import IrohTransport

        return IrohTransport(key, "127.0.0.1:0")
    from agentmesh.net.tls import TlsTransport

    return TlsTransport(key, "127.0.0.1:0")


async def _serve(scheme: str) -> None:
    """Read everything that comes, answer what asks for it (payload "?"), and say how much came (payload "n")."""
    with tempfile.TemporaryDirectory() as home:
        post = Post(scheme, "read", Path(home))
        await post.links.open()
        print(post.links.addresses[0], flush=True)
        box, room = post.room.inbox_of(post.key.public), post.room
        while True:
            ones = box.hand_out(1_000, time.monotonic(), room.unix_ms(), 60.0, peek=False)
            if not ones:
                await box.wait(60.0)
                continue
            for one in ones:
                box.take(one.message.id)
            room.arrivals.taken(post.key.public, ones)
            asked = [one.message for one in ones if one.message.payload[:1] == b"?"]
            if asked:
                await room.post([m for ask in asked for m in post.messages(1, reply_to=ask.id)])
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def pair(scheme: str) -> AsyncIterator[Post]:
    """Yield the writing side of two processes."""
    with (
        tempfile.TemporaryDirectory() as home,
        process([sys.executable, "-m", "bench.mail", "serve", scheme]) as address,
    ):
        post = Post(scheme, "write", Path(home))
        post.address = address
        await post.links.open()
        try:
            yield post
        finally:
            await post.aclose()


async def acked(post: Post, count: int, *, ahead: int = _AHEAD, batch: int = _BATCH) -> float:
    """Return acknowledged messages per second."""
    room, goal = post.room, post.room.tally.delivered + count
    begin = time.perf_counter()
    left = count
    while room.tally.delivered < goal:
        while left and len(room.outgoing.by_tag) < ahead:
            assert not any(await room.post(post.messages(batch)))
            left -= batch
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    return count / (time.perf_counter() - begin)


async def durable(post: Post, count: int, writers: int = 256) -> float:
    """Return messages per second that so many writers, each waiting for its last to be on disk, get acknowledged."""
    room, goal = post.room, post.room.tally.delivered + count

    async def some(number: int) -> None:
        for _ in range(number):
            assert await room.post(post.messages(1, durable=True)) == [None]

    begin = time.perf_counter()
    await asyncio.gather(*(some(count // writers) for _ in range(writers)))
    while room.tally.delivered < goal:  # noqa: ASYNC110 what is waited for has no event of its own
        await asyncio.sleep(0.001)
    return count / (time.perf_counter() - begin)


async def requests(post: Post, count: int) -> list[float]:
    """Return milliseconds of requests, one after the other."""
    box, room = post.room.inbox_of(post.key.public), post.room
    times: list[float] = []
    for _ in range(count):
        begin = time.perf_counter()
        await room.post(post.messages(1, payload=b"?" + PAYLOAD[1:]))
        while not (ones := box.hand_out(1, time.monotonic(), room.unix_ms(), 60.0, peek=False)):
            await box.wait(10.0)
        times.append((time.perf_counter() - begin) * 1000)
        for one in ones:
            box.take(one.message.id)
    return times


async def memory() -> dict[str, float]:
    """Return resident KB of an idle session and MB of 10,000 messages that wait for somebody who is away."""
    from agentmesh.core.courier import inputs
    from agentmesh.identity.keys import KeyPair
    from agentmesh.identity.session import Initiator, respond
    from agentmesh.node.mail.handshakes import Session

    with tempfile.TemporaryDirectory() as home:
        post = Post("tls", "write", Path(home))
        room, now_ms = post.room, int(time.time() * 1000)
        assert not any(await room.post(post.messages(1)))
        sessions: list[Session] = []

        def begin(number: int) -> None:
            key = KeyPair.generate(number.to_bytes(32, "big"))
            initiator = Initiator(post.key, key.public, os.urandom(32), now_ms)
            channel = initiator.finish(respond(key, initiator.offer, os.urandom(32), now_ms)[0])
            channel.seal(1, b"", b"x")  # its key is made with the first letter
            sessions.append(Session(number, post.key.public, key.public, room.node_id, channel, 0.0))
            room._carriage.feed(inputs.SessionUp(number, room.node_id))  # pyright: ignore[reportPrivateUsage]
            room.outgoing.pair(post.key.public, key.public).session = number

        begin(1)
        before = _resident()
        for number in range(2, 1_002):
            begin(number)
        session_kb = (_resident() - before) / 1_000 / 1024
        before = _resident()
        for _ in range(10_000 // 50 - 1):
            assert not any(await room.post(post.messages(50)))
        queued_mb = (_resident() - before) / 2**20
        await post.aclose()
        return {"session": session_kb, "queued": queued_mb}


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measure(scheme: str, seconds: float) -> dict[str, float]:
    """Return the figures of one transport."""
    async with pair(scheme) as post:
        await acked(post, _BATCH * 25)
        rate = await acked(post, _BATCH * 125)
        count = max(_BATCH, int(rate * seconds) // _BATCH * _BATCH)
        rates = [await acked(post, count) for _ in range(3)]
        await requests(post, 200)
        times = await requests(post, 2_000)
        await durable(post, 256 * 4)
        kept = [await durable(post, 256 * 64) for _ in range(3)]
        return {
            "acked": sorted(rates)[1],
            "p50": quantile(times, 0.5),
            "p99": quantile(times, 0.99),
            "durable": sorted(kept)[1],
        }


@contextlib.asynccontextmanager
async def _nats(*, jetstream: bool) -> AsyncIterator[tuple[Any, str]]:
    import nats

    port = free_port()
    server = str(Path(sys.executable).parent / "nats-server")
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / "nats.conf"
        store = f'jetstream {{ store_dir: "{home}/data", sync_interval: always }}' if jetstream else ""
        config.write_text(f"listen: 127.0.0.1:{port}\n{store}\n", "utf-8")
        with process([server, "-c", str(config)], first_line=False):
            url = f"nats://127.0.0.1:{port}"
            for _ in range(200):
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    del reader
                    break
                await asyncio.sleep(0.05)
            client = await nats.connect(url)
            try:
                yield client, url
            finally:
                await client.close()


async def _nats_serve(url: str) -> None:
    """Count what comes on "in"; answer "ask"."""
    import nats

    client = await nats.connect(url)
    seen = 0

    async def on_in(message: Any) -> None:
        nonlocal seen
        seen += 1
        if message.reply:
            await message.respond(str(seen).encode())

    async def on_ask(message: Any) -> None:
        await message.respond(PAYLOAD)

    await client.subscribe("in", cb=on_in, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await client.subscribe("ask", cb=on_ask)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def rivals(seconds: float) -> dict[str, float]:
    """Return what NATS does with the same."""
    out: dict[str, float] = {}
    async with _nats(jetstream=False) as (client, url):
        with process([sys.executable, "-m", "bench.mail", "nats", url]):
            rates: list[float] = []
            for count in (20_000, int(60_000 * seconds), int(60_000 * seconds), int(60_000 * seconds)):
                begin = time.perf_counter()
                for n in range(count):
                    await client.publish("in", PAYLOAD)
                    if n % 512 == 0:
                        await client.flush()  # or its buffer grows without end
                await client.request("in", PAYLOAD, timeout=60)
                rates.append(count / (time.perf_counter() - begin))
            out["acked"] = sorted(rates[1:])[1]
            times: list[float] = []
            for n in range(2_200):
                begin = time.perf_counter()
                await client.request("ask", PAYLOAD, timeout=10)
                if n >= 200:
                    times.append((time.perf_counter() - begin) * 1000)
            out["p50"], out["p99"] = quantile(times, 0.5), quantile(times, 0.99)
    async with _nats(jetstream=True) as (client, _):
        stream = client.jetstream()
        await stream.add_stream(name="s", subjects=["s"])

        async def some(count: int) -> None:
            for _ in range(count):
                await stream.publish("s", PAYLOAD, timeout=30)

        begin = time.perf_counter()
        await asyncio.gather(*(some(20) for _ in range(256)))
        out["durable"] = 256 * 20 / (time.perf_counter() - begin)
    return out


def run(seconds: float = 3.0) -> list[dict[str, Any]]:
    """Return the rows of this benchmark: what, value, unit, goal, rival, rival_value, ratio."""
    ours = {scheme: asyncio.run(measure(scheme, seconds)) for scheme in ("tls", "iroh")}
    nats = asyncio.run(rivals(seconds))
    rows: list[dict[str, Any]] = []
    for what, name, unit, goal, digits in (
        ("acked", "acked, ordered, encrypted messages", "1/s", 100_000, 0),
        ("p50", "request/response p50", "ms", 0.5, 3),
        ("p99", "request/response p99", "ms", 2, 3),
        ("durable", "durable messages", "1/s", 20_000, 0),
    ):
        for scheme, figures in ours.items():
            value, rival = figures[what], nats[what]
            rows.append(
                {
                    "what": f"{name}, 256 B, {scheme}",
                    "value": round(value, digits),
                    "unit": unit,
                    "goal": goal,
                    "rival": "JetStream, sync always" if what == "durable" else "nats-py",
                    "rival_value": round(rival, digits),
                    "ratio": round(value / rival, 2),
                }
            )
    held = asyncio.run(memory())
    rows += [
        {"what": "memory of an idle session", "value": round(held["session"], 1), "unit": "KB", "goal": 20},
        {
            "what": "memory of 10,000 queued messages, 256 B",
            "value": round(held["queued"], 1),
            "unit": "MB",
            "goal": 10,
        },
    ]
    return rows


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve(sys.argv[2]))
    elif sys.argv[1] == "nats":
        asyncio.run(_nats_serve(sys.argv[2]))
    elif sys.argv[1] == "memory":
        print(msgspec.json.encode(asyncio.run(memory())).decode())
    else:
        print(msgspec.json.encode(asyncio.run(measure(sys.argv[2], 2.0))).decode())
