"""The guard: only programs on this machine, with the token, and no web page."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from agentmesh.api.access import Access
from agentmesh.api.routes import ROWS
from agentmesh.errors import ConfigError, LoopDetected
from tests.api.node_double import FakeBackend
from tests.api.serving import TOKEN, ask_app, build, serving

BEARER = (b"authorization", f"Bearer {TOKEN}".encode())
HOST = (b"host", b"127.0.0.1:6374")


@pytest.mark.parametrize("row", [row for row in ROWS if row.scope], ids=lambda r: f"{r.method} {r.path}")
async def test_no_route_of_the_api_opens_without_the_token(row: Any) -> None:
    backend = FakeBackend()
    answer = await ask_app(
        build(backend), row.method, row.path.replace("{", "").replace("}", ""), b"{}", headers=[HOST]
    )
    problem = answer.problem()
    assert (problem.status, problem.code, answer.headers["www-authenticate"]) == (401, "refused.token", "Bearer")
    assert backend.asked == []


@pytest.mark.parametrize(
    "credentials",
    [
        b"Bearer wrong", b"Bearer " + TOKEN.encode()[:-1], b"Bearer " + TOKEN.encode() + b"x", TOKEN.encode(),
        b"Basic " + TOKEN.encode(), b"Bearer", b"Bearer ", b"", b"Bearer \xff\xfe",
    ],
)  # fmt: skip
async def test_a_wrong_token_is_refused(credentials: bytes) -> None:
    headers = [HOST, (b"authorization", credentials)]
    assert (await ask_app(build(FakeBackend()), "GET", "/api/v1/status", headers=headers)).status == 401


async def test_the_scheme_of_the_token_may_be_spelled_in_any_case() -> None:
    headers = [HOST, (b"authorization", b"bearer  " + TOKEN.encode())]
    assert (await ask_app(build(FakeBackend()), "GET", "/api/v1/status", headers=headers)).status == 200


@pytest.mark.parametrize("path", ["/health", "/openapi.json"])
async def test_public_paths_need_no_token_but_a_loopback_host(path: str) -> None:
    app = build(FakeBackend())
    assert (await ask_app(app, "GET", path, headers=[HOST])).status == 200
    assert (await ask_app(app, "GET", path, headers=[(b"host", b"evil.example")])).status == 403


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:1", b"127.0.0.1", b"127.0.0.1:65535", b"[::1]", b"[::1]:6374"]
)
async def test_loopback_hosts_are_let_in(host: bytes) -> None:
    assert (
        await ask_app(build(FakeBackend()), "GET", "/api/v1/status", headers=[(b"host", host), BEARER])
    ).status == 200


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example", b"evil.example:6374", b"localhost.evil.example", b"127.0.0.1.evil.example", b"127.0.0.2",
        b"localhost:", b"localhost:x", b"localhost@evil.example", b"", b"::1", b"0.0.0.0", b"localhost:6374 ",
        b"xlocalhost",
    ],
)  # fmt: skip
async def test_other_hosts_are_refused_even_with_the_token(host: bytes) -> None:
    backend = FakeBackend()
    problem = (await ask_app(build(backend), "GET", "/api/v1/status", headers=[(b"host", host), BEARER])).problem()
    assert (problem.status, problem.code) == (403, "refused.host")
    assert backend.asked == []


@pytest.mark.parametrize("hosts", [[], [HOST, HOST], [HOST, (b"host", b"evil.example")]])
async def test_exactly_one_host_header_is_wanted(hosts: list[tuple[bytes, bytes]]) -> None:
    assert (await ask_app(build(FakeBackend()), "GET", "/api/v1/status", headers=[*hosts, BEARER])).status == 403


@pytest.mark.parametrize("origin", [b"http://localhost:6374", b"http://127.0.0.1", b"https://[::1]:1"])
async def test_pages_of_this_machine_are_let_in(origin: bytes) -> None:
    headers = [HOST, BEARER, (b"origin", origin)]
    assert (await ask_app(build(FakeBackend()), "GET", "/api/v1/status", headers=headers)).status == 200


@pytest.mark.parametrize(
    "origin",
    [b"http://evil.example", b"null", b"", b"http://localhost.evil.example", b"file://", b"http://localhost:1/x"],
)
async def test_other_pages_are_refused_even_with_the_token(origin: bytes) -> None:
    headers = [HOST, BEARER, (b"origin", origin)]
    problem = (await ask_app(build(FakeBackend()), "GET", "/api/v1/status", headers=headers)).problem()
    assert (problem.status, problem.code) == (403, "refused.origin")


async def test_an_empty_token_is_no_token() -> None:
    with pytest.raises(ConfigError):
        Access("")


async def _hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def _loop(request: Request) -> PlainTextResponse:
    raise LoopDetected("round and round")


async def _bug(request: Request) -> PlainTextResponse:
    raise ZeroDivisionError("secret detail")


async def test_routes_of_other_rooms_sit_behind_the_same_guard_and_edge() -> None:
    routes = [Route("/a2a/x/", _hello), Route("/other", _hello), Route("/a2a/loop", _loop), Route("/a2a/bug", _bug)]
    app = build(FakeBackend(), extra_routes=routes)
    assert (await ask_app(app, "GET", "/a2a/x/", headers=[HOST])).body == b"hello"
    assert (await ask_app(app, "GET", "/a2a/x/", headers=[(b"host", b"evil.example")])).status == 403
    assert (await ask_app(app, "GET", "/a2a/x/", headers=[HOST, (b"origin", b"http://evil.example")])).status == 403
    assert (await ask_app(app, "GET", "/other", headers=[HOST])).status == 401
    assert (await ask_app(app, "GET", "/other")).body == b"hello"
    assert (await ask_app(app, "GET", "/a2a/loop", headers=[HOST])).problem().type == "/problems/loop"
    bug = await ask_app(app, "GET", "/a2a/bug", headers=[HOST])
    assert (bug.status, bug.problem().code) == (500, "internal")
    assert b"secret" not in bug.body


@pytest.mark.parametrize("path", ["/a2a/../api/v1/status", "/a2a/%2e%2e/api/v1/status", "//api/v1/status", "/a2ax"])
async def test_no_spelling_of_a_path_gets_around_the_token(path: str) -> None:
    async with serving() as served:
        answer = await served.ask("GET", path, headers={"Authorization": ""})
        assert answer.status in (401, 404)
        assert served.backend.asked == []


async def test_the_guard_holds_on_a_real_socket() -> None:
    async with serving() as served:
        assert (await served.ask("GET", "/api/v1/status")).status == 200
        assert (await served.ask("GET", "/api/v1/status", headers={"Authorization": "Bearer x"})).status == 401
        assert (await served.ask("GET", "/api/v1/status", headers={"Host": "evil.example"})).status == 403
        assert (await served.ask("GET", "/api/v1/status", headers={"Origin": "http://evil.example"})).status == 403
        assert (await served.ask("POST", "/api/v1/calls", b"{}", {"Authorization": ""})).status == 401


async def test_a_refused_body_is_never_read() -> None:
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST /api/v1/calls HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        assert b" 401 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()


async def test_websockets_are_turned_away_but_at_their_path() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    app = build(FakeBackend())
    scope = {"type": "websocket", "path": "/", "query_string": b""}
    await app({**scope, "headers": [HOST, BEARER]}, receive, send)
    await app({**scope, "headers": [HOST]}, receive, send)
    starts = [one for one in sent if one["type"] == "websocket.http.response.start"]
    assert [one["status"] for one in starts] == [404, 401]
    assert not any(one["type"] == "websocket.accept" for one in sent)
