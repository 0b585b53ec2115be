"""The HTTP client of the doors: caps, deadlines, redirects, and our own errors for every way to fail."""

from __future__ import annotations

import asyncio
import gzip
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from agentmesh.adapters.http_client import HttpClient, check_url, decode_json, failed_status, tcp_health
from agentmesh.errors import AgentFailed, Closed, DecodeError, LimitError, MeshError, NoRoute, Timeout, UsageError
from tests.agents.raw import Asked, http, raw_server, unended

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient(answer_bytes_max=10_000)
    yield made
    await made.aclose()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "url",
    ["", "calc", "ftp://host/x", "file:///etc/passwd", "http://", "http:///path", "http://host:99999/", "http://a b/",
     "http://a..b/", "http://a_%/", "http://[::g]/", "http://h/\x7f", "http://h/\ud800", "http://host:0/",
     "javascript:alert(1)", "http://host/\nHost: evil", "unix:///tmp/s", "http://h/" + "x" * 3000],
)  # fmt: skip
def test_only_http_and_https_urls_with_a_host_are_taken(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_url(url)
    assert caught.value.code == "agent.bad_url"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x?y=1", "https://example.org", "http://[::1]:8080/"])
def test_usable_urls_are_taken_as_they_are(url: str) -> None:
    assert check_url(url) == url


async def test_nobody_listening_is_no_route(client: HttpClient) -> None:
    with pytest.raises(NoRoute) as caught:
        await client.fetch("GET", f"http://127.0.0.1:{free_port()}/", timeout_s=2)
    assert caught.value.code == "agent.unreachable"
    assert caught.value.hint


async def test_silence_is_a_timeout(client: HttpClient) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Timeout):
            await client.fetch("GET", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout_s=0.1)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nshort",
        b"\x00\xff\x00\xff\r\n\r\n",
    ],
)
async def test_a_broken_answer_is_closed(client: HttpClient, answer: bytes) -> None:
    async with raw_server(lambda _: [answer]) as server:
        with pytest.raises(Closed):
            await client.fetch("GET", server.url, timeout_s=2)


async def test_an_answer_over_the_cap_is_cut_off(client: HttpClient) -> None:
    async with raw_server(lambda _: [unended(b"x" * 10_001, "text/plain")]) as server:
        with pytest.raises(LimitError) as caught:
            await client.fetch("GET", server.url, timeout_s=2)
    assert caught.value.code == "agent.answer_too_large"


async def test_compression_is_not_asked_for_and_not_unpacked(client: HttpClient) -> None:
    packed = gzip.compress(b"0" * 5_000_000)
    async with raw_server(lambda _: [http(packed, "text/plain", "200 OK", "Content-Encoding: gzip")]) as server:
        with pytest.raises(AgentFailed) as caught:
            await client.fetch("GET", server.url, timeout_s=2)
        assert server.asked[0].headers["accept-encoding"] == "identity"
    assert caught.value.code == "agent.encoding"


async def test_cookies_are_not_kept(client: HttpClient) -> None:
    async with raw_server(lambda _: [http(b"{}", "application/json", "200 OK", "Set-Cookie: a=b; Path=/")]) as server:
        await client.fetch("GET", server.url, timeout_s=2)
        await client.fetch("GET", server.url, timeout_s=2)
        assert "cookie" not in server.asked[1].headers


async def test_proxy_settings_of_the_environment_are_not_used(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    async with raw_server(lambda _: [http(b"{}")]) as server:
        assert (await client.fetch("GET", server.url, timeout_s=2)).status == 200


async def test_a_redirect_within_the_same_origin_is_followed_with_its_method(client: HttpClient) -> None:
    def answer(asked: Asked) -> Iterable[bytes]:
        if asked.path == "/rpc/":
            return [http(b'"%s"' % asked.method.encode() if asked.body else b'""')]
        return [http(b"", "text/plain", "307 Temporary Redirect", "Location: /rpc/")]

    async with raw_server(answer) as server:
        got = await client.fetch("POST", f"{server.url}/rpc", json={"a": 1}, timeout_s=2)
    assert got.body == b'"POST"'


async def test_a_redirect_to_another_host_or_in_a_circle_is_refused(client: HttpClient) -> None:
    async with raw_server(lambda _: [http(b"", "text/plain", "302 Found", "Location: http://10.0.0.1/")]) as server:
        with pytest.raises(AgentFailed) as caught:
            await client.fetch("GET", server.url, timeout_s=2)
        assert caught.value.code == "agent.redirect"
    async with raw_server(lambda _: [http(b"", "text/plain", "302 Found", "Location: /again")]) as server:
        with pytest.raises(AgentFailed):
            await client.fetch("GET", server.url, timeout_s=2)
        assert len(server.asked) <= 5


@pytest.mark.parametrize("location", ["http://[", "/a b", "/" + "x" * 3000, "ftp://127.0.0.1/", "http://a@:1:2"])
async def test_a_redirect_to_what_is_no_url_is_refused(client: HttpClient, location: str) -> None:
    async with raw_server(lambda _: [http(b"", "text/plain", "302 Found", f"Location: {location}")]) as server:
        with pytest.raises(AgentFailed) as caught:
            await client.fetch("GET", server.url, timeout_s=2)
    assert caught.value.code == "agent.redirect"


async def test_a_bug_in_the_reader_is_not_disguised_as_a_network_error(client: HttpClient) -> None:
    async with raw_server(lambda _: [http(b"{}")]) as server:
        with pytest.raises(ValueError, match="mine"):
            async with client.open("GET", server.url, timeout_s=2):
                raise ValueError("mine")


async def test_a_closed_client_refuses(client: HttpClient) -> None:
    await client.aclose()
    with pytest.raises(MeshError):
        await client.fetch("GET", "http://127.0.0.1:1/", timeout_s=1)


@pytest.mark.parametrize("body", [b"", b"{", b"nope", b"\xff\xfe", b"[" * 100_000])
def test_invalid_json_is_a_decode_error(body: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_json(body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"plain words", "plain words"),
        (b'{"error": {"message": "no flour"}}', "no flour"),
        (b'{"detail": "no sugar"}', "no sugar"),
        (b'{"x": 1}', '{"x": 1}'),
        (b"", "the agent answered 500"),
        (b"y" * 5000, "y" * 2048),
    ],
)
def test_an_error_page_gives_its_own_words(body: bytes, text: str) -> None:
    assert failed_status("http://127.0.0.1:1/secret", 500, body).detail == text


def test_an_error_does_not_tell_the_path_which_may_hold_a_secret() -> None:
    assert "secret" not in str(failed_status("http://127.0.0.1:1/secret", 500, b"").to_dict())


async def test_tcp_health_tells_listening_from_not() -> None:
    async with raw_server(lambda _: []) as server:
        assert (await tcp_health(server.url)).status == "healthy"
    gone = await tcp_health(f"http://127.0.0.1:{free_port()}")
    assert gone.status == "unhealthy"
    assert gone.detail


def test_a_daemon_that_calls_an_agent_does_not_load_aiohttp() -> None:
    code = """
import asyncio, sys
from agentmesh.adapters.registry import default_adapters
from agentmesh.node.door import Invocation
from tests.agents.raw import http, raw_server

async def main():
    adapters = default_adapters()
    async with raw_server(lambda _: [http(b'{"text": "hi"}')]) as server:
        door = adapters["http"].open({"url": server.url})
        call = Invocation(task_id="t", run_id="r", parts=[{"text": "x"}], deadline_s=5)
        kinds = [h.kind async for h in door.invoke(call)]
        for adapter in adapters.values():
            await adapter.aclose()
    print(kinds, "aiohttp" in sys.modules)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "['message', 'status'] False"
