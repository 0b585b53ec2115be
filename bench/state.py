"""Shared state: one write of a 256-byte value at each level, 3 nodes in 3 processes over TLS on loopback.

Measured at the node (``node.state.Spaces``), one write after the other, so that a figure is what one caller waits. ``quorum``
asks a majority, writes, and has it on disk at two nodes. ``linearizable`` goes through the node to NATS JetStream (one
server, ``sync_interval: always``), turn by turn with the engine alone. ``python -m bench.state serve ADDRESS…`` is one other
node.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from bench.pair import quantile
from bench.rivals import process

VALUE = "x" * 256
_SPACE = "bench"


class Desk:
    """Links and spaces of one node, without the rest of it."""

    def __init__(self, home: Path, critical: Any = None) -> None:
        from agentmesh.core.state.config import StateConfig
        from agentmesh.core.state.inputs import Members
        from agentmesh.engines.sqlite import SqliteCritical
        from agentmesh.identity.keys import KeyPair
        from agentmesh.ids import NodeId
        from agentmesh.net.base import Contact
        from agentmesh.net.tls import TlsTransport
        from agentmesh.node.config import NodeConfig
        from agentmesh.node.links import Links
        from agentmesh.node.state.linear import Linear
        from agentmesh.node.state.replicas import Replicas
        from agentmesh.node.state.spaces import Spaces
        from agentmesh.node.state.wires import Wires
        from agentmesh.wire import v1

        key = KeyPair.generate(os.urandom(32))
        node = NodeId(key.did)
        self.node = node
        self.links = Links(
            node,
            NodeConfig(name="bench", version="0"),
            [TlsTransport(key, "127.0.0.1:0")],
            hello=lambda: v1.Hello(v=v1.WIRE_VERSION, name="bench"),
            on_up=lambda peer: self.spaces.replicas.on_up(peer),
            on_down=lambda _: None,
            on_control=lambda _peer, _message: None,
            on_request=lambda peer, stream, _message: self.spaces.replicas.wires.serve(peer, stream),
            on_misbehaved=lambda *what: print(*what, file=sys.stderr),
        )

        async def providers(_: Any) -> dict[NodeId, tuple[str, ...]]:
            return {}

        def replicas(on_changed: Any) -> Replicas:
            return Replicas(
                key,
                home / "spaces.sqlite",
                StateConfig(),
                lambda feed: Wires(
                    self.links,
                    contact_of=lambda node: Contact(node, ()),
                    feed=feed,
                    on_misbehaved=lambda *what: print(*what, file=sys.stderr),
                ),
                members=lambda: Members(tuple(peer.link.peer for peer in self.links.peers())),
                providers=providers,
                hint=lambda _node, _addresses: None,
                advertise=lambda _: None,
                on_changed=on_changed,
                on_misbehaved=lambda *what: print(*what, file=sys.stderr),
            )

        self.linear = Linear(node, critical or SqliteCritical(home / "critical.sqlite"))
        self.spaces = Spaces(node, replicas, self.linear, lambda: 3)
        self.spaces.replicas.open()

    async def open(self, others: Sequence[str]) -> None:
        """Listen, and link with the nodes at these addresses, each ``did@address``."""
        from agentmesh.ids import NodeId
        from agentmesh.net.base import Contact

        await self.links.open()
        for other in others:
            did, _, address = other.partition("@")
            await self.links.connect(Contact(NodeId(did), (address,)))

    async def aclose(self) -> None:
        """Stop."""
        await self.spaces.aclose()
        await self.links.aclose()


async def _serve(others: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as home:
        desk = Desk(Path(home))
        await desk.open(others)
        print(f"{desk.node}@{desk.links.addresses[0]}", flush=True)
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def trio(critical: Any = None) -> AsyncIterator[Desk]:
    """Yield the node of this process, linked with those of two others, which are linked with each other."""
    serve = [sys.executable, "-m", "bench.state", "serve"]
    with tempfile.TemporaryDirectory() as home, process(serve) as one, process([*serve, one]) as two:
        desk = Desk(Path(home), critical)
        await desk.open([one, two])
        try:
            yield desk
        finally:
            await desk.aclose()


async def timed(desk: Desk, level: str, count: int, warm: int = 50) -> list[float]:
    """Return how long writes took, ms, one after the other over 16 keys."""
    from agentmesh.wire.state_views import StateChange

    times: list[float] = []
    for number in range(count + warm):
        change = StateChange(value=VALUE, level=level)  # type: ignore[arg-type]
        begin = time.perf_counter()
        await desk.spaces.change(_SPACE, f"{level}/k{number % 16}", change)
        if number >= warm:
            times.append((time.perf_counter() - begin) * 1000)
    return times


async def measure(count: int = 2_000) -> dict[str, list[float]]:
    """Return times by level: local writes and reads, quorum writes and reads."""
    out: dict[str, list[float]] = {}
    async with trio() as desk:
        await timed(desk, "quorum", 50)  # the space has its holders
        out["local"] = await timed(desk, "local", count)
        await timed(desk, "quorum", 1, 1)  # the others have taken in what came
        out["quorum"] = await timed(desk, "quorum", count // 2)
        for level in ("local", "quorum"):
            times = out[f"{level} read"] = []
            for number in range(count // 2):
                begin = time.perf_counter()
                await desk.spaces.get(_SPACE, f"quorum/k{number % 16}", level=level, token="")  # type: ignore[arg-type]
                times.append((time.perf_counter() - begin) * 1000)
    return out


async def linearizable(count: int = 1_000) -> tuple[list[float], list[float]]:
    """Return times of writes through the node, and of the engine alone, turn by turn."""
    from agentmesh.engines.choose import choose_critical
    from agentmesh.wire.state_views import StateChange
    from tests.support.servers import NatsServers, running

    with tempfile.TemporaryDirectory() as temp, running(NatsServers(Path(temp), 1)) as servers:
        url = f"{servers.url}?replicas=1"
        engine = choose_critical(url, Path(temp) / "unused.sqlite")
        alone = choose_critical(url, Path(temp) / "unused.sqlite")
        desk = Desk(Path(temp), engine)
        through: list[float] = []
        direct: list[float] = []
        raw = b'["register","' + VALUE.encode() + b'","' + str(desk.node).encode() + b'",1800000000000000]'
        try:
            for number in range(count + 50):
                begin = time.perf_counter()
                await desk.spaces.change(_SPACE, f"k{number % 16}", StateChange(value=VALUE, level="linearizable"))
                middle = time.perf_counter()
                await alone.put(f"state/{_SPACE}/d{number % 16}", raw)
                end = time.perf_counter()
                if number >= 50:
                    through.append((middle - begin) * 1000)
                    direct.append((end - middle) * 1000)
        finally:
            await desk.aclose()
            await engine.aclose()
            await alone.aclose()
    return through, direct


def run(count: int = 2_000) -> list[dict[str, Any]]:
    """Measure all."""
    ours = asyncio.run(measure(count))
    through, direct = asyncio.run(linearizable(count // 2))
    rows: list[dict[str, Any]] = []
    for level, goal in (("local", "≤ 0.2"), ("quorum", "≤ 3"), ("local read", ""), ("quorum read", "")):
        for q, name in ((0.5, "p50"), (0.99, "p99")):
            what = f"state {level} {name}" if level.endswith("read") else f"state {level} write {name}"
            row = {"what": what, "value": round(quantile(ours[level], q), 3), "unit": "ms"}
            rows.append({**row, "goal": goal if q == 0.5 else ""})
    for q, name in ((0.5, "p50"), (0.99, "p99")):
        value, rival = quantile(through, q), quantile(direct, q)
        rows.append(
            {
                "what": f"state linearizable write {name}, NATS",
                "value": round(value, 3),
                "unit": "ms",
                "goal": "≤ engine + 1" if q == 0.5 else "",
                "rival": "the engine alone",
                "rival_value": round(rival, 3),
                "ratio": round(value / rival, 2),
            }
        )
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(_serve(sys.argv[2:]))
    else:
        for row in run():
            print(row)
