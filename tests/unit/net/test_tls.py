"""TLS as the mesh uses it: 1.3 only, a private certificate file, bounded strangers, and no way to sit in between."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.errors import ConfigError, DecodeError, MeshError, NoRoute, SignatureError, Timeout
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net import inbound
from agentmesh.net.handshake import Handshake
from agentmesh.net.tls import TlsTransport
from agentmesh.net.tlspipe import client_context, load_certificate, make_certificate


def new_key() -> KeyPair:
    return KeyPair.generate(secrets.token_bytes(32))


@pytest.fixture
async def listener() -> AsyncIterator[tuple[TlsTransport, NodeId, int]]:
    key = new_key()
    transport = TlsTransport(key, "127.0.0.1:0")
    await transport.open()
    yield transport, NodeId(key.did), int(transport.addresses[0].rpartition(":")[2])
    await transport.aclose()


@pytest.fixture
async def dialler() -> AsyncIterator[TlsTransport]:
    transport = TlsTransport(new_key(), "")
    await transport.open()
    yield transport
    await transport.aclose()


def test_the_certificate_is_made_once_private_and_reused(tmp_path: Path) -> None:
    path = tmp_path / "identity" / "tls.pem"
    first = load_certificate(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert load_certificate(path).binding == first.binding
    assert list(path.parent.iterdir()) == [path]
    assert load_certificate(None).binding != load_certificate(None).binding


def test_a_certificate_file_that_others_can_read_or_that_is_garbage_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "tls.pem"
    path.write_bytes(make_certificate())
    path.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        load_certificate(path)
    assert "chmod 600" in (caught.value.hint or "")
    path.write_text("garbage")
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load_certificate(path)
    assert caught.value.code == "config.tls_certificate"


async def test_a_dial_only_transport_has_no_address_and_needs_no_certificate(dialler: TlsTransport) -> None:
    assert dialler.addresses == ()
    assert dialler._certificate is None


async def test_tls_1_2_is_not_spoken(listener: tuple[TlsTransport, NodeId, int]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection("127.0.0.1", listener[2], ssl=context)


async def test_a_server_that_offers_less_than_tls_1_3_is_refused(dialler: TlsTransport) -> None:
    old = load_certificate(None).context
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0, ssl=old)
    # The library's server hangs up or sends its alert first; if the handshake came through, the dial would time out.
    with pytest.raises((DecodeError, NoRoute)):
        await dialler.dial(NodeId(new_key().did), f"tls:127.0.0.1:{server.sockets[0].getsockname()[1]}")
    server.close()


async def test_a_server_that_talks_plainly_learns_nothing_of_us(dialler: TlsTransport) -> None:
    """Who strips the TLS and speaks our handshake in the open gets a TLS hello and no more."""
    key, heard = new_key(), bytearray()

    async def talk_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(4096))
        plain = Handshake("server", key, secrets.token_bytes(32))
        writer.write(plain.refusal(DecodeError("no TLS here, please")))
        heard.extend(await reader.read())
        writer.close()

    server = await asyncio.start_server(talk_plainly, "127.0.0.1", 0)
    with pytest.raises(DecodeError) as caught:
        await dialler.dial(NodeId(key.did), f"tls:127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert caught.value.code == "tls.handshake"
    assert heard[0] == 0x16
    assert b"did:key" not in heard
    server.close()


async def test_who_speaks_our_handshake_without_tls_is_hung_up_on(
    listener: tuple[TlsTransport, NodeId, int],
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener[2])
    writer.write(Handshake("client", new_key(), secrets.token_bytes(32), expected=listener[1]).start())
    answer = await asyncio.wait_for(reader.read(), 5)
    assert b"did:key" not in answer
    assert listener[0].refused == 1
    writer.close()


async def test_no_session_ticket_is_given_out(listener: tuple[TlsTransport, NodeId, int]) -> None:
    context = client_context()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener[2], ssl=context, server_hostname="x")
    writer.write(bytes(2))
    with pytest.raises((asyncio.IncompleteReadError, OSError, asyncio.TimeoutError)):
        await asyncio.wait_for(reader.readexactly(10_000), 5)
    session = writer.get_extra_info("ssl_object").session
    assert session is None or not session.has_ticket
    writer.close()


async def test_a_man_in_the_middle_who_ends_the_tls_is_refused(
    listener: tuple[TlsTransport, NodeId, int], dialler: TlsTransport
) -> None:
    """Eve listens with her own certificate, dials the real node, and passes the plain bytes both ways."""
    _, node, port = listener
    passed: list[bytes] = []

    async def in_between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context(), server_hostname="x"
        )

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(4096):
                passed.append(data)
                sink.write(data)
            sink.close()

        await asyncio.gather(pass_on(reader, up_writer), pass_on(up_reader, writer), return_exceptions=True)

    eve = await asyncio.start_server(in_between, "127.0.0.1", 0, ssl=load_certificate(None).context)
    with pytest.raises(SignatureError) as caught:
        await dialler.dial(node, f"tls:127.0.0.1:{eve.sockets[0].getsockname()[1]}")
    assert caught.value.code == "handshake.proof"
    assert len(passed) >= 2, "the attack did not take place"
    eve.close()


async def test_a_server_that_is_no_node_is_told_apart_from_nobody(dialler: TlsTransport) -> None:
    async def talk_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    for behaviour, expected in ((talk_http, DecodeError), (hang_up, NoRoute), (keep_silent, Timeout)):
        server = await asyncio.start_server(behaviour, "127.0.0.1", 0)
        with pytest.raises(expected):
            await dialler.dial(
                NodeId(new_key().did), f"tls:127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=0.3
            )
        server.close()


async def test_silent_strangers_are_bounded_and_time_out(
    listener: tuple[TlsTransport, NodeId, int], dialler: TlsTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, node, port = listener
    monkeypatch.setattr(inbound, "UNPROVEN_MAX", 3)
    strangers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    async with asyncio.timeout(5):
        while transport._inbound.unproven < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    with pytest.raises(MeshError):
        await dialler.dial(node, transport.addresses[0])
    assert transport.refused == 1
    # One stranger leaves, and a node gets in.
    strangers[0][1].close()
    async with asyncio.timeout(5):
        while transport._inbound.unproven >= 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert (await dialler.dial(node, transport.addresses[0])).peer == node
    for _, writer in strangers[1:]:
        writer.close()


async def test_a_stranger_who_talks_without_end_is_cut_off_after_four_kibibytes(
    listener: tuple[TlsTransport, NodeId, int],
) -> None:
    context = client_context()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener[2], ssl=context, server_hostname="x")
    writer.write(b"\x03\xe8" + bytes(900))
    for _ in range(10):
        writer.write(bytes(1000))
    await asyncio.wait_for(reader.read(), 5)
    assert listener[0].refused == 1
    writer.close()
