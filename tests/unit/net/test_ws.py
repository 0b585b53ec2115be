"""WebSocket links where only HTTPS gets out: through a proxy, behind a front, and not through the wrong path."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import ConfigError, DecodeError, NoRoute
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net.tlspipe import make_certificate
from agentmesh.net.ws import WsTransport, proxy_of_environment


def new_key() -> KeyPair:
    return KeyPair.generate(secrets.token_bytes(32))


class ConnectProxy:
    """A real, tiny HTTP CONNECT proxy that remembers what it was asked for and what went through."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.passed = b""
        self.answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
        self._tasks: list[asyncio.Task[Any]] = []

    async def open(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split()[1].decode()
        self.asked.append(target)
        writer.write(self.answer)
        if b" 200 " not in self.answer:
            writer.close()
            return
        host, _, port = target.rpartition(":")
        up_reader, up_writer = await asyncio.open_connection(host, int(port))

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                self.passed += data
                sink.write(data)
            sink.close()

        await asyncio.gather(pass_on(reader, up_writer), pass_on(up_reader, writer), return_exceptions=True)

    def close(self) -> None:
        self._server.close()


Make = Callable[..., Awaitable[WsTransport]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[WsTransport] = []

    async def new(**settings: Any) -> WsTransport:
        transport = WsTransport(new_key(), **{"bind": "", "proxy": None, **settings})
        made.append(transport)
        await transport.open()
        return transport

    yield new
    for transport in made:
        await transport.aclose()


def did(transport: WsTransport) -> NodeId:
    return NodeId(transport._key.did)


async def echo_through(near: WsTransport, far: WsTransport, message: bytes) -> None:
    link, other = await asyncio.gather(near.dial(did(far), far.addresses[0]), far.accept())
    stream = await link.open_stream()
    await stream.send(message)
    received = await (await other.accept_stream()).recv()
    assert received == message


async def test_a_link_goes_through_the_proxy_of_the_environment_and_the_proxy_reads_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = ConnectProxy()
    url = await proxy.open()
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", url)
    far, near = await make(bind="127.0.0.1:0"), await make(proxy=True)
    await echo_through(near, far, b"the secret of the mesh")
    assert proxy.asked == [far.addresses[0].removeprefix("ws:ws://").removesuffix("/mesh")]
    assert len(proxy.passed) > 1000
    assert b"secret" not in proxy.passed
    assert near._key.did.encode() not in proxy.passed
    proxy.close()


async def test_a_named_proxy_is_used_and_one_that_refuses_is_said_so(make: Make) -> None:
    proxy = ConnectProxy()
    url = await proxy.open()
    far, near = await make(bind="127.0.0.1:0"), await make(proxy=url)
    await echo_through(near, far, b"x")
    assert proxy.asked
    proxy.answer = b"HTTP/1.1 403 Forbidden\r\n\r\n"
    with pytest.raises(NoRoute) as caught:
        await near.dial(did(far), far.addresses[0])
    assert caught.value.code == "unreached.no_route.proxy"
    assert "HTTPS_PROXY" in (caught.value.hint or "")
    proxy.close()


def test_the_environment_names_the_proxy_by_scheme_and_no_proxy_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert proxy_of_environment("wss://host.example/mesh") is None
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    assert proxy_of_environment("wss://host.example/mesh") == "http://all:1"
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:1")
    assert proxy_of_environment("wss://host.example/mesh") == "http://secure:1"
    assert proxy_of_environment("ws://host.example/mesh") == "http://secure:1"
    monkeypatch.setenv("NO_PROXY", "host.example")
    assert proxy_of_environment("wss://host.example/mesh") is None


async def test_wss_is_served_with_certificate_files_and_the_public_url_is_announced_first(
    make: Make, tmp_path: Path
) -> None:
    outer = tmp_path / "wss.pem"
    outer.write_bytes(make_certificate())
    far = await make(bind="127.0.0.1:0", wss_cert=outer, public_url="wss://node.example/mesh")
    assert far.addresses[0] == "ws:wss://node.example/mesh"
    assert far.addresses[1].startswith("ws:wss://127.0.0.1:")
    near = await make()
    link = await near.dial(did(far), far.addresses[1])
    assert link.peer == did(far)


async def test_wrong_settings_are_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="public"):
        await make(public_url="https://node.example")
    with pytest.raises(ConfigError, match="wss"):
        await make(bind="127.0.0.1:0", wss_cert=tmp_path / "missing.pem")


async def test_another_path_and_another_server_are_no_node(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    far, near = await make(bind="127.0.0.1:0"), await make()
    with caplog.at_level(logging.DEBUG), pytest.raises(DecodeError, match="no agentmesh node"):
        await near.dial(did(far), far.addresses[0].replace("/mesh", "/other"))
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_a_text_message_is_refused(make: Make) -> None:
    from websockets.asyncio.client import connect

    far = await make(bind="127.0.0.1:0")
    async with connect(far.addresses[0].removeprefix("ws:"), proxy=None) as socket:
        await socket.send("hello")
        await asyncio.wait_for(socket.wait_closed(), 5)
    assert far.refused == 1
