"""The connection against servers that break every rule: caps, ends, reuse, pauses; and our errors only."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.adapters import http1, http_pool
from agentmesh.adapters.http_client import HttpClient, read_whole
from agentmesh.errors import Closed, MeshError, NoRoute, Timeout, UsageError

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


class Raw:
    """A listening server: ``url``; ``connections`` made so far; ``requests`` read by ``ask``."""

    def __init__(self, handler: Handler) -> None:
        self.url = ""
        self.connections = 0
        self._handler = handler
        self.over = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.over.set()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Raw]:
    raw = Raw(handler)
    server = await asyncio.start_server(raw.handle, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/rpc"
    try:
        yield raw
    finally:
        server.close()


async def ask(reader: asyncio.StreamReader) -> bytes:
    """Read one request and return its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.partition(b":")[2]))
    return head


def once(*pieces: bytes) -> Handler:
    """Answer the first request with these pieces, then close."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ask(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return handle


def always(answer: bytes) -> Handler:
    """Answer every request of a connection alike."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await ask(reader)
            writer.write(answer)

    return handle


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient()
    yield made
    await made.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 257 + b"Content-Length: 0\r\n\r\n", id="257 headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n", id="70 KB header"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"y" * 300_000, id="a name without end"),
        pytest.param(b"HTTP/1.1 200 " + b"y" * 300_000, id="a reason without end"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, id="interim answers without end"),
        pytest.param(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nx", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", id="negative length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n", id="length beyond 64 bits"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999\r\n\r\nxx", id="length never reached"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", id="two lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}", id="a list of lengths"),
        pytest.param(CHUNKED.replace(b"Tr", b"Content-Length: 2\r\nTr") + b"2\r\n{}\r\n0\r\n\r\n", id="length and chunks"),
        pytest.param(CHUNKED.replace(b"chunked", b"gzip, chunked") + b"2\r\n{}\r\n0\r\n\r\n", id="packed in transfer"),
        pytest.param(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", id="chunk size of letters"),
        pytest.param(CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", id="negative chunk size"),
        pytest.param(CHUNKED + b"f" * 20 + b"\r\n{}", id="chunk size beyond 64 bits"),
        pytest.param(CHUNKED + b"2\r\n{}xx0\r\n\r\n", id="chunk longer than said"),
        pytest.param(CHUNKED + b"2;" + b"x" * 300_000, id="chunk extension without end"),
        pytest.param(CHUNKED + b"0\r\n" + b"X: y\r\n" * 300 + b"\r\n", id="300 trailers"),
        pytest.param(CHUNKED + b"2\r\n{}\r\n", id="chunks without an end"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", id="cut in the body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="cut in the head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\n", id="header without colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\x00\r\n\r\n", id="NUL"),
        pytest.param(b"HTTP/7.0 200 OK\r\n\r\n", id="unknown version"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="a request"),
        pytest.param(b"\x16\x03\x01\x02\x00" * 10, id="TLS"),
        pytest.param(b"", id="nothing"),
    ],
)  # fmt: skip
async def test_what_is_no_whole_answer_is_closed(client: HttpClient, answer: bytes) -> None:
    async with serving(once(answer)) as server:
        with pytest.raises(Closed) as caught:
            await client.fetch("GET", server.url, timeout_s=5)
    assert caught.value.code == "agent.closed"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        pytest.param(b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, b"{}", id="1xx"),
        pytest.param(CHUNKED + b"1;a=b\r\n{\r\n1\r\n}\r\n0\r\nDigest: x\r\n\r\n", b"{}", id="chunks with a trailer"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end", id="until close"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n", b"", id="empty until close"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="204"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b"", id="304 has no body"),
        pytest.param(OK.replace(b"Content-Length: 2", b"content-length:2  "), b"{}", id="spelled otherwise"),
        pytest.param(OK + b"HTTP/1.1 500 Oops\r\nContent-Length: 1\r\n\r\nx", b"{}", id="a second answer is not read"),
        pytest.param(OK + b"\x00garbage", b"{}", id="garbage after the answer is not read"),
    ],
)  # fmt: skip
async def test_a_whole_answer_is_read(client: HttpClient, answer: bytes, body: bytes) -> None:
    async with serving(once(answer)) as server:
        assert (await client.fetch("GET", server.url, timeout_s=5)).body == body


async def test_the_status_the_type_and_joined_headers_come_through(client: HttpClient) -> None:
    head = b"HTTP/1.1 418 Teapot\r\nContent-Type: Text/Plain; charset=UTF-8\r\nVia: a\r\nvia: b\r\nContent-Length: 3\r\n\r\n"
    async with (
        serving(once(head + "茶".encode())) as server,
        client.open("GET", server.url, timeout_s=5) as response,
    ):
        assert (response.status, response.content_type) == (418, "text/plain")
        assert response.headers["via"] == "a, b"
        assert (await read_whole(response, 10)).decode() == "茶"


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (OK, 1),
        (CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (OK.replace(b"1.1", b"1.0"), 5),
        (OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), 5),
        (OK + OK, 5),
        (OK + b"x", 5),
    ],
)
async def test_a_connection_serves_again_only_after_a_clean_end(
    client: HttpClient, answer: bytes, connections: int
) -> None:
    async with serving(always(answer)) as server:
        for _ in range(5):
            assert (await client.fetch("POST", server.url, json={}, timeout_s=5)).status in (200, 204)
    assert server.connections == connections


async def test_a_connection_that_the_server_closed_in_the_meantime_is_not_used(client: HttpClient) -> None:
    async with serving(once(OK)) as server:
        for _ in range(3):
            await client.fetch("POST", server.url, json={}, timeout_s=5)
            await asyncio.wait_for(server.over.wait(), 5)
            server.over.clear()
    assert server.connections == 3


async def test_bytes_on_an_idle_connection_end_it(client: HttpClient) -> None:
    speak = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ask(reader)
        writer.write(OK)
        await speak.wait()
        writer.write(OK)
        assert await reader.read() == b""  # the client went away

    async with serving(handle) as server:
        await client.fetch("GET", server.url, timeout_s=5)
        speak.set()
        await asyncio.wait_for(server.over.wait(), 5)


@pytest.mark.parametrize("banner", [b"", b"220 mail\r\n"])
async def test_a_server_that_hangs_up_or_speaks_before_it_is_asked_is_closed(client: HttpClient, banner: bytes) -> None:
    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(banner)

    async with serving(handle) as server:
        for _ in range(20):
            with pytest.raises(Closed):
                await client.fetch("GET", server.url, timeout_s=5)


async def test_a_new_connection_that_is_over_before_the_request_takes_none() -> None:
    for end in (lambda c: c.eof_received(), lambda c: c.data_received(OK), lambda c: c.connection_lost(None)):
        connection = http1.Connection(lambda _: None)
        connection.connection_made(_Deaf())
        end(connection)
        with pytest.raises(Closed):
            connection.send(b"", "http://h/")


async def test_a_request_on_which_the_server_hangs_up_is_not_sent_again(client: HttpClient) -> None:
    asked = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await ask(reader)
        writer.write(OK)
        asked += 1
        await ask(reader)
        asked += 1

    async with serving(handle) as server:
        await client.fetch("POST", server.url, json={}, timeout_s=5)
        with pytest.raises(Closed):
            await client.fetch("POST", server.url, json={}, timeout_s=5)
        assert asked == 2


async def test_an_answer_before_the_request_is_through_counts_and_ends_the_connection(client: HttpClient) -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()

    async with serving(handle) as server:
        got = await client.fetch("POST", server.url, body=b"x" * 20_000_000, timeout_s=5)
        assert (got.status, got.body) == (413, b"no")
        await asyncio.wait_for(server.over.wait(), 5)


async def test_an_answer_that_drips_runs_into_the_deadline(client: HttpClient) -> None:
    never = asyncio.get_running_loop().create_future()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ask(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not reader.at_eof():
            writer.write(b"X: y\r\n")
            await writer.drain()
            await asyncio.wait([never], timeout=0.02)

    async with serving(handle) as server:
        with pytest.raises(Timeout) as caught:
            await client.fetch("GET", server.url, timeout_s=0.3)
        assert caught.value.code == "agent.timeout"
        await asyncio.wait_for(server.over.wait(), 5)


async def test_the_deadline_holds_in_the_body_too_and_cancels_nobody(client: HttpClient) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ask(reader)
        writer.write(CHUNKED + b"2\r\n{}\r\n")
        await reader.read()

    async with (
        serving(handle) as server,
        client.open("GET", server.url, timeout_s=0.1) as response,
    ):
        assert await response.read() == b"{}"
        await asyncio.wait_for(server.over.wait(), 5)  # our code runs on while the deadline passes
        with pytest.raises(Timeout):
            await response.read()


async def test_more_calls_than_sockets_wait_in_turn_and_all_get_through(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_pool, "CONNECTIONS_MAX", 3)
    at_once = most = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        while True:
            await ask(reader)
            at_once += 1
            most = max(most, at_once)
            for _ in range(3):
                await asyncio.sleep(0)
            at_once -= 1
            writer.write(OK)

    ended: list[int] = []

    async def one(n: int, url: str) -> None:
        await client.fetch("POST", url, json={}, timeout_s=20)
        ended.append(n)

    async with serving(handle) as server:
        await asyncio.gather(*(one(n, server.url) for n in range(60)))
    assert server.connections == most == 3
    assert all(abs(n - place) <= 6 for place, n in enumerate(ended))


async def test_an_idle_connection_makes_room_for_another_host(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_pool, "CONNECTIONS_MAX", 1)
    async with serving(always(OK)) as first, serving(always(OK)) as second:
        await client.fetch("GET", first.url, timeout_s=5)
        await client.fetch("GET", second.url, timeout_s=5)
        await asyncio.wait_for(first.over.wait(), 5)
        assert not second.over.is_set()


async def test_a_call_that_finds_no_slot_in_time_is_a_timeout(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_pool, "CONNECTIONS_MAX", 1)
    async with serving(always(CHUNKED)) as server, client.open("GET", server.url, timeout_s=5):
        with pytest.raises(Timeout):
            await client.fetch("GET", server.url, timeout_s=0.05)


async def test_a_canceled_call_frees_its_slot_and_closes_its_connection(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_pool, "CONNECTIONS_MAX", 1)
    asked = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/rpc" in await ask(reader):
            asked.set()
            await reader.read()
        writer.write(OK)

    async with serving(handle) as server, asyncio.TaskGroup() as tasks:
        stuck = tasks.create_task(client.fetch("GET", server.url, timeout_s=20))
        await asyncio.wait_for(asked.wait(), 5)
        waiting = tasks.create_task(client.fetch("GET", server.url, timeout_s=20))
        third = tasks.create_task(client.fetch("GET", server.url.replace("rpc", "other"), timeout_s=5))
        await asyncio.sleep(0)
        waiting.cancel()
        stuck.cancel()
        assert (await third).status == 200
        await asyncio.wait_for(server.over.wait(), 5)


async def test_leaving_early_closes_the_connection(client: HttpClient) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ask(reader)
        writer.write(CHUNKED)
        await reader.read()

    async with serving(handle) as server:
        async with client.open("GET", server.url, timeout_s=5) as response:
            assert response.status == 200
        await asyncio.wait_for(server.over.wait(), 5)


async def test_closing_the_client_ends_what_runs(client: HttpClient) -> None:
    asked = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ask(reader)
        asked.set()
        await reader.read()

    async with serving(handle) as server, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(asyncio.wait_for(_closed(client, server.url), 5))
        await asyncio.wait_for(asked.wait(), 5)
        await client.aclose()
        await running


async def _closed(client: HttpClient, url: str) -> None:
    with pytest.raises(Closed):
        await client.fetch("GET", url, timeout_s=20)


async def test_idle_connections_are_closed_after_a_while(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_pool, "IDLE_S", 0.05)
    async with serving(always(OK)) as server:
        await client.fetch("GET", server.url, timeout_s=5)
        await asyncio.wait_for(server.over.wait(), 5)


async def test_a_reader_that_stops_stops_the_sender(client: HttpClient) -> None:
    size = 64 * 1024 * 1024
    sent = 0
    stalled = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await ask(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(bytes(1024 * 1024))
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                stalled.set()
                await writer.drain()
            sent += 1024 * 1024

    async with (
        serving(handle) as server,
        client.open("GET", server.url, timeout_s=30) as response,
    ):
        await asyncio.wait_for(stalled.wait(), 20)
        got = 0
        while chunk := await response.read():
            got += len(chunk)
            assert len(chunk) <= http1.BUFFER_BYTES_MAX + 256 * 1024
        assert got == size


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        ("http://127.0.0.1:{}", b"GET / HTTP/1.1", b"127.0.0.1:{}"),
        ("http://localhost:{}/a b", b"", b""),
        ("http://localhost:{}/ä/%41?q=ü&r=%2F#part", b"GET /%C3%A4/%41?q=%C3%BC&r=%2F HTTP/1.1", b"localhost:{}"),
        ('http://localhost:{}/"<>\\^`{{|}}', b"GET /%22%3C%3E%5C%5E%60%7B%7C%7D HTTP/1.1", b"localhost:{}"),
    ],
)
async def test_the_request_line_holds_only_what_may_stand_there(
    client: HttpClient, url: str, line: bytes, host: bytes
) -> None:
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await ask(reader))
        writer.write(OK)

    async with serving(handle) as server:
        port = server.url.split(":")[2].removesuffix("/rpc")
        if not line:
            with pytest.raises(UsageError):
                await client.fetch("GET", url.format(port), timeout_s=5)
            return
        await client.fetch("GET", url.format(port), timeout_s=5)
    lines = heads[0].split(b"\r\n")
    assert lines[0] == line
    assert b"Host: " + host.replace(b"{}", port.encode()) in lines
    assert b"Accept-Encoding: identity" in lines


@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\nb", "a\x00", "ü", "\x7f"])
async def test_a_header_that_could_become_two_is_not_sent(client: HttpClient, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        await client.fetch("GET", "http://127.0.0.1:1/", headers={"traceparent": value}, timeout_s=1)
    assert caught.value.code == "agent.bad_header"


async def test_user_and_password_of_a_url_become_credentials(client: HttpClient) -> None:
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await ask(reader))
        writer.write(OK)

    async with serving(handle) as server:
        await client.fetch("GET", server.url.replace("//", "//Aladdin:open%20sesame@"), timeout_s=5)
    assert b"Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n" in heads[0]  # the example of RFC 7617 §2


def certificate(path: Path, host: str) -> ssl.SSLContext:
    """Write a self-signed certificate for a host to ``path`` and return a server's context with it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    both = path.with_suffix(".both")
    both.write_bytes(private + path.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context


@pytest.mark.parametrize(
    ("host", "trusted", "fits"), [("localhost", True, True), ("localhost", False, False), ("example.org", True, False)]
)
async def test_https_needs_a_trusted_certificate_for_the_host(
    client: HttpClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool, fits: bool
) -> None:
    context = certificate(tmp_path / "cert.pem", host)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    raw = Raw(always(OK))
    server = await asyncio.start_server(raw.handle, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
        if fits:
            for _ in range(3):
                assert (await client.fetch("POST", url, json={}, timeout_s=5)).body == b"{}"
            assert raw.connections == 1
        else:
            with pytest.raises(NoRoute) as caught:
                await client.fetch("POST", url, json={}, timeout_s=5)
            assert "certificate" in str(caught.value.why).lower()
        await client.aclose()
    assert names == ["localhost"]


async def test_an_ipv6_host_is_reached_and_named_in_brackets(client: HttpClient) -> None:
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await ask(reader))
        writer.write(OK)

    try:
        server = await asyncio.start_server(Raw(handle).handle, "::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    async with server:
        port = server.sockets[0].getsockname()[1]
        await client.fetch("GET", f"http://[::1]:{port}/", timeout_s=5)
    assert b"\r\nHost: [::1]:%d\r\n" % port in heads[0]


def test_a_server_that_stopped_while_the_loop_was_busy_is_noticed_before_sending() -> None:
    async def main() -> None:
        client = HttpClient()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/"

            def serve() -> None:
                peer, _ = listening.accept()
                with peer:
                    while b"\r\n\r\n" not in peer.recv(65536):
                        pass
                    peer.sendall(OK)

            for _ in range(3):
                server = threading.Thread(target=serve)
                server.start()
                assert (await client.fetch("POST", url, json={}, timeout_s=5)).status == 200
                server.join()  # the loop stands still until the server has hung up
        await client.aclose()

    asyncio.run(main())


def _parsed(pieces: list[bytes]) -> tuple[int, dict[str, str], bytes] | str:
    """Feed pieces to a connection as its transport would, and return the answer, or the code of its error."""
    connection = http1.Connection(lambda _: None)
    connection.connection_made(_Deaf())
    response = connection.send(b"GET / HTTP/1.1\r\n\r\n", "http://h/")
    for piece in pieces:
        connection.data_received(piece)
    connection.eof_received()
    connection.connection_lost(None)

    async def read() -> tuple[int, dict[str, str], bytes] | str:
        try:
            await response.head()
            return response.status, response.headers, await read_whole(response, 10_000_000)
        except MeshError as error:
            return error.code

    coroutine = read()
    try:
        coroutine.send(None)  # everything has arrived: nothing to wait for
    except StopIteration as done:
        return done.value
    raise AssertionError("still waiting although the connection is gone")


class _Deaf(asyncio.Transport):
    """A transport that takes everything and says nothing."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


ANSWERS = st.sampled_from(
    [
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        CHUNKED + "5\r\näöx\r\n3;e=1\r\n茶\r\n0\r\nT: 1\r\n\r\n".encode(),
        b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end",
        b"HTTP/1.1 500 Oops\r\nX: 1\r\nX: 2\r\nContent-Length: 70000\r\n\r\n" + b"z" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        CHUNKED + b"xyz",
    ]
)


@settings(max_examples=200, deadline=None)
@given(answer=ANSWERS, cuts=st.lists(st.integers(0, 400), max_size=30))
def test_an_answer_is_the_same_however_it_is_cut(answer: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    pieces = [answer[a:b] for a, b in pairwise(places)]
    assert _parsed(pieces) == _parsed([answer])


@settings(max_examples=400, deadline=None)
@given(
    head=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", CHUNKED, OK[:-2], b"HTTP/1.1 100 C\r\n\r\n"]),
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([b"\r\n", b"\r\n\r\n", b"0\r\n", b"5\r\n", b"Content-Length: 3\r\n", b"HTTP/1.1 ", b": "]),
        ),
        max_size=12,
    ),
)
def test_arbitrary_bytes_give_an_answer_or_our_error(head: bytes, pieces: list[bytes]) -> None:
    got = _parsed([head, *pieces] if head else pieces)
    assert got == "agent.closed" or not isinstance(got, str)
