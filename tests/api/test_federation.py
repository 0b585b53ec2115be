"""The listener for partners over real sockets: two paths, TLS, and what is no request of a partner."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from agentmesh.adapters.fetch import PlainFetch
from agentmesh.api.federation import FederationApp
from agentmesh.daemon.http import make_partner_server
from agentmesh.errors import AgentFailed, ConfigError, LimitError, MeshError
from agentmesh.identity.federation_proof import sign_ask
from agentmesh.net.tasks import TaskScope
from agentmesh.node.federation.rules import Seed
from agentmesh.wire.federation import CATALOG_TYPE, PROOF_HEADER, PUSH_BYTES_MAX, CatalogPage
from tests.support.authority import Authority
from tests.support.federation import Site, key_of, pulling, until, voucher

PARTNER = key_of("org puller")


@asynccontextmanager
async def listening(site: Site, cert: str = "", key: str = "") -> AsyncIterator[str]:
    """Serve a site as the daemon does; gives its origin."""
    scope = TaskScope("test")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen(16)
        one.setblocking(False)
        server = make_partner_server(FederationApp(site.desk), cert, key)
        serving = scope.spawn(server.serve(sockets=[one]), "serve")
        origin = f"{'https' if cert else 'http'}://127.0.0.1:{one.getsockname()[1]}"
        site.desk.origin = origin
        try:
            yield origin
        finally:
            server.should_exit = True
            await serving
            await scope.aclose()


def proof(origin: str, path: str = "/federation/pull", method: str = "GET", body: bytes | None = None) -> str:
    node = key_of("node puller")
    return sign_ask(
        node,
        method=method,
        url=origin + path,
        jti=os.urandom(12).hex(),
        iat=int(time.time()),
        voucher=voucher(PARTNER, node),
        body=body,
    )


async def ask(origin: str, method: str, target: str, headers: dict[str, str] | None = None, body: Any = None) -> Any:
    """Send one request from a thread; return (status, headers, JSON or bytes)."""

    def send() -> Any:
        host, _, port = origin.partition("://")[2].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, msgspec.json.decode(raw) if raw else None

    return await asyncio.to_thread(send)


async def test_a_partner_gets_an_ai_catalog_page_and_its_proof() -> None:
    site = Site("globex", PARTNER)
    card = site.put("calc")
    async with listening(site) as origin:
        status, headers, page = await ask(origin, "GET", "/federation/pull?limit=5", {"DPoP": proof(origin)})
        assert status == 200, page
        assert headers["content-type"] == CATALOG_TYPE
        assert headers[PROOF_HEADER].count(".") == 2
        assert headers["cache-control"] == "no-store"
        (entry,) = page["entries"]
        assert entry["identifier"] == entry["trustManifest"]["identity"] == card.agent_id
        assert (entry["displayName"], entry["mediaType"]) == ("calc", "application/a2a-agent-card+json")
        assert entry["data"] == card.card
        assert entry["updatedAt"].endswith("Z")
        assert page["metadata"]["count"] == 1
        cursor = page["metadata"]["nextCursor"]
        target = f"/federation/pull?cursor={cursor}"
        _, _, page = await ask(origin, "GET", target, {"DPoP": proof(origin)})
        assert page["entries"] == []
        site.put("later")
        for since, names in (("2020-01-01T00:00:00Z", 2), ("2999-01-01T00:00:00Z", 0)):
            target = f"/federation/pull?updated_since={since}"
            _, _, page = await ask(origin, "GET", target, {"DPoP": proof(origin)})
            assert len(page["entries"]) == names
        push = {"DPoP": proof(origin, "/federation/push", "POST", b"{}")}
        status, _, body = await ask(origin, "POST", "/federation/push", push, b"{}")
        assert (status, body) == (200, {"taken": 0})
        assert site.pushed[0][0].organisation == PARTNER.did


async def test_the_listener_serves_two_paths_and_nothing_else() -> None:
    site = Site("globex", PARTNER)
    async with listening(site) as origin:
        for method, target in (
            ("GET", "/"),
            ("GET", "/api/v1/status"),
            ("GET", "/api/v1/agents"),
            ("POST", "/api/v1/calls"),
            ("GET", "/a2a/calc/"),
            ("GET", "/openapi.json"),
            ("GET", "/federation/push"),
            ("POST", "/federation/pull"),
            ("GET", "/federation/pull/"),
            ("OPTIONS", "/federation/pull"),
            ("GET", "/.well-known/agent-card.json"),
        ):
            status, _, body = await ask(origin, method, target, {"DPoP": proof(origin)})
            assert status == 404, (method, target)
            assert body["code"] == "http.not_found"


async def test_what_is_no_request_of_a_partner_is_refused_by_name() -> None:
    site = Site("globex", PARTNER)
    async with listening(site) as origin:
        good = lambda: {"DPoP": proof(origin)}  # noqa: E731
        for headers, target, status, code in (
            ({}, "/federation/pull", 401, "federation.stranger"),
            ({"DPoP": "x"}, "/federation/pull", 400, "jws.malformed"),
            ({"DPoP": "x" * 5_000}, "/federation/pull", 400, "federation.too_large"),
            (good(), "/federation/pull?limit=0x5", 422, "federation.limit"),
            (good(), "/federation/pull?limit=501", 422, "federation.limit"),
            (good(), "/federation/pull?since=5", 422, "query.unknown"),
            (good(), "/federation/pull?limit=1&limit=2", 422, "query.unknown"),
            (good(), "/federation/pull?cursor=abcd", 409, "federation.cursor_unknown"),
            (good(), "/federation/pull?cursor=a.b", 400, "federation.cursor"),
            (good(), "/federation/pull?updated_since=yesterday", 422, "federation.since"),
            (good(), "/federation/pull?cursor=" + "A" * 3_000, 422, "query.invalid"),
        ):
            found, _, body = await ask(origin, "GET", target, headers)
            assert (found, body["code"]) == (status, code), target[:60]
        for body, code in (
            (b"x", "federation.push"),
            (b"[]", "federation.push"),
            (b'{"entries": 1}', "federation.push"),
        ):
            push = {"DPoP": proof(origin, "/federation/push", "POST", body)}
            found, _, answer = await ask(origin, "POST", "/federation/push", push, body)
            assert (found, answer["code"]) == (400, code)
        push = {"DPoP": proof(origin, "/federation/push", "POST", b"{}")}
        found, _, answer = await ask(origin, "POST", "/federation/push", push, b"{ }")
        assert (found, answer["code"]) == (401, "federation.audience")
        found, _, answer = await ask(origin, "POST", "/federation/push", push, b"x" * (PUSH_BYTES_MAX + 1))
        assert (found, answer["code"]) == (413, "federation.too_large")


async def test_a_seed_behind_tls_is_pulled_and_one_with_a_strange_certificate_is_not(tmp_path: Path) -> None:
    site, ca, stranger = Site("globex", PARTNER), Authority(), Authority("Another CA")
    site.put("calc")
    issued = ca.issue(sans=(x509.IPAddress(ip_address("127.0.0.1")),))
    (tmp_path / "mesh.pem").write_bytes(issued.cert_pem + issued.key_pem)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    (tmp_path / "other.pem").write_bytes(stranger.pem)
    async with listening(site, str(tmp_path / "mesh.pem")) as origin:
        good, bad = PlainFetch(str(tmp_path / "ca.pem")), PlainFetch(str(tmp_path / "other.pem"))
        try:
            async with pulling(tmp_path / "a", good, Seed(origin)) as puller:
                await until(lambda: puller.names == ["calc"])
            async with pulling(tmp_path / "b", bad, Seed(origin)) as puller:
                await until(lambda: puller.imports.views()[0].failures >= 2)
                assert puller.names == []
        finally:
            await good.aclose()
            await bad.aclose()
    with pytest.raises(ConfigError):
        PlainFetch(str(tmp_path / "nothing.pem"))


async def test_a_redirect_is_not_followed_wherever_it_leads() -> None:
    asked: list[str] = []
    where = [""]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[1].decode())
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {where[0]}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    fetch = PlainFetch()
    try:
        for target in (
            f"{origin}/elsewhere",
            "http://169.254.169.254/latest/meta-data/",
            "http://127.0.0.1:6374/",
            "x:y",
        ):
            where[0] = target
            with pytest.raises(AgentFailed) as refused:
                await fetch("GET", f"{origin}/federation/pull", {}, None, timeout_s=5, bytes_max=100)
            assert refused.value.code == "federation.redirect"
        assert set(asked) == {"/federation/pull"}
    finally:
        await fetch.aclose()
        server.close()


async def test_an_answer_larger_than_allowed_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    fetch = PlainFetch()
    try:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(LimitError):
            await fetch("GET", url, {}, None, timeout_s=10, bytes_max=1 << 20)
        with pytest.raises(MeshError):
            await fetch("GET", "http://127.0.0.1:1/", {}, None, timeout_s=10, bytes_max=1 << 20)
    finally:
        await fetch.aclose()
        server.close()


def test_a_page_of_another_implementation_is_read_as_long_as_it_means_the_same() -> None:
    page = msgspec.json.decode(
        b'{"specVersion":"1.0","entries":[{"identifier":"did:key:x","mediaType":"application/x","url":"https://x","unknown":1}],'
        b'"metadata":{"count":1,"nextCursor":"abc","other":true}}',
        type=CatalogPage,
    )
    assert page.metadata.next_cursor == "abc"
    assert bytes(page.entries[0].data) == b"null"
