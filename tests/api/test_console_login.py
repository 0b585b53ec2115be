"""Who gets into the console: links that work once, sessions, and the rules against pages that are not ours."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from agentmesh.api.access import Access
from agentmesh.api.app import Api
from agentmesh.api.console.names import cookie_name
from agentmesh.api.console.owner import owner_of
from agentmesh.api.console.sessions import CODE_S, CODES_MAX, COOKIES_MAX, IDLE_S, LIFE_S, SESSIONS_MAX, Sessions
from agentmesh.errors import Full, Unauthorized
from tests.api.node_double import FakeBackend
from tests.api.serving import TOKEN, Answer, SessionsKept, Shelf, ask_app, build, serving

HOST = (b"host", b"127.0.0.1:6374")
BEARER = (b"authorization", f"Bearer {TOKEN}".encode())
STATUS = "/api/v1/status"
OWN = b"http://127.0.0.1:6374"


class Clock:
    """Both clocks of ``Sessions``, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """An application with a console, its clock and what it keeps."""

    def __init__(self, kept: SessionsKept | None = None, port: int = 6374) -> None:
        self.clock, self.kept, self.backend = Clock(), kept or SessionsKept(), FakeBackend()
        self.sessions = Sessions(lambda: self.kept, now=self.clock, clock=self.clock)
        self.access = Access(TOKEN, Shelf(), sessions=self.sessions)
        self.port = port
        self.app: Api = build(self.backend, access=self.access, port=port)

    async def link(self) -> str:
        """Return the query of a fresh link."""
        answer = await ask_app(self.app, "POST", "/api/v1/console/login", headers=[HOST, BEARER])
        assert (answer.status, answer.json()["expires_s"]) == (200, CODE_S), answer
        url: str = answer.json()["url"]
        assert url.startswith(f"http://127.0.0.1:{self.port}/console/login?code=")
        return url.partition("?")[2]

    async def enter(self, query: str, *more: tuple[bytes, bytes]) -> Answer:
        return await ask_app(self.app, "GET", "/console/login", query=query.encode(), headers=[HOST, *more])

    async def log_in(self) -> list[tuple[bytes, bytes]]:
        """Return the headers with which the page asks."""
        answer = await self.enter(await self.link())
        assert answer.status == 200, answer
        return headers_of(answer)

    async def ask(self, headers: list[tuple[bytes, bytes]], method: str = "GET", path: str = STATUS) -> Answer:
        return await ask_app(self.app, method, path, headers=[HOST, *headers])


def headers_of(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Return the cookie and the page secret of an answer to a login."""
    pair, *attributes = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    page = answer.body.decode().partition('name="agentmesh-page" content="')[2].partition('"')[0]
    return [(b"cookie", pair.encode()), (b"x-agentmesh-page", page.encode())]


# -- links ------------------------------------------------------------------------------------------------------------


async def test_a_link_opens_the_console_once_and_only_within_a_minute() -> None:
    world = World()
    query = await world.link()
    assert (await world.ask(headers_of(await world.enter(query)))).status == 200
    again = await world.enter(query)
    assert (again.status, "set-cookie" in again.headers) == (403, False)
    assert "agentmesh console" in again.body.decode()
    late = await world.link()
    world.clock.now += CODE_S
    assert (await world.enter(late)).status == 403


@pytest.mark.parametrize(
    "query",
    ["", "code=", "code=" + "0" * 64, "code=a&code=b", "code=" + "a" * 600, "code=%ff%00", "co%64e=x", "&" * 40],
)
async def test_a_guessed_code_opens_nothing(query: str) -> None:
    world = World()
    await world.link()
    assert (await world.enter(query)).status == 403
    assert len(world.sessions) == 0


async def test_only_so_many_links_are_open_and_the_oldest_goes_first() -> None:
    world = World()
    links = [await world.link() for _ in range(CODES_MAX + 1)]
    assert (await world.enter(links[0])).status == 403
    assert (await world.enter(links[1])).status == 200


@pytest.mark.parametrize(
    "header",
    [
        (b"sec-purpose", b"prefetch;prerender"), (b"purpose", b"prefetch"), (b"sec-fetch-dest", b"iframe"),
        (b"sec-fetch-dest", b"image"),
    ],
)  # fmt: skip
async def test_a_browser_that_looks_ahead_or_frames_us_does_not_use_the_link_up(header: tuple[bytes, bytes]) -> None:
    world = World()
    query = await world.link()
    assert (await world.enter(query, header)).status == 403
    assert (await ask_app(world.app, "HEAD", "/console/login", query=query.encode(), headers=[HOST])).status == 403
    assert (await world.enter(query, (b"sec-fetch-dest", b"document"))).status == 200


async def test_a_link_for_one_user_is_not_used_up_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    world, asks = World(), [1000]
    monkeypatch.setattr("agentmesh.api.console.owner.owner_of", lambda *_: 1000)
    monkeypatch.setattr("agentmesh.api.console.site.owner_of", lambda *_: asks[0])
    made = await ask_app(world.app, "POST", "/api/v1/console/login", query=b"same_user=true", headers=[HOST, BEARER])
    query = made.json()["url"].partition("?")[2]
    asks[0] = 1001
    assert (await world.enter(query)).status == 403
    asks[0] = 1000
    assert (await world.enter(query)).status == 200


async def test_the_kernel_says_whose_connection_it_is() -> None:
    import os
    import socket
    import sys

    async with serving() as served:
        for host in ("127.0.0.1",):
            with socket.create_connection((host, served.port)) as client:
                found = owner_of(client.getsockname()[:2], client.getpeername()[:2])
                assert found == (os.getuid() if sys.platform == "linux" else None)
                assert owner_of(("127.0.0.1", 1), client.getpeername()[:2]) is None
    assert owner_of(None, None) is None
    assert owner_of(("a name", 1), ("127.0.0.1", 2)) is None


async def test_only_the_operator_gets_links_and_no_tenant() -> None:
    world = World()
    from agentmesh.wire.access import KeyRequest

    world.backend.tenants["acme"] = FakeBackend()
    for scope, tenant in (("read", ""), ("call", ""), ("register", ""), ("events", ""), ("read", "acme")):
        secret = world.access.add_key(KeyRequest(name=f"{scope}{tenant}", scopes=[scope], tenant=tenant)).secret
        answer = await ask_app(
            world.app, "POST", "/api/v1/console/login", headers=[HOST, (b"authorization", f"Bearer {secret}".encode())]
        )
        assert answer.problem().code == "refused.scope"
    assert (await ask_app(world.app, "POST", "/api/v1/console/login", headers=[HOST])).status == 401


# -- sessions ---------------------------------------------------------------------------------------------------------


async def test_a_session_ends_without_use_after_twelve_hours_and_with_use_after_seven_days() -> None:
    world = World()
    used, unused = await world.log_in(), await world.log_in()
    begun = world.clock.now
    while world.clock.now - begun < LIFE_S - IDLE_S:
        world.clock.now += IDLE_S - 1
        assert (await world.ask(used)).status == 200
    assert (await world.ask(unused)).problem().code == "console.session"
    world.clock.now = begun + LIFE_S
    assert (await world.ask(used)).problem().code == "console.session"


async def test_a_page_that_is_open_and_silent_is_in_use() -> None:
    world = World()
    headers = await world.log_in()
    rights = world.sessions.rights_of([headers[0][1].decode().partition("=")[2]], None)
    with world.access.lasting(rights):
        world.clock.now += IDLE_S * 2
        assert (await world.ask(headers)).status == 200
    world.clock.now += IDLE_S - 1
    assert (await world.ask(headers)).status == 200


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86_400.0, -3600.0])
async def test_a_clock_that_is_set_back_breaks_nothing(jump_s: float) -> None:
    world = World()
    headers = await world.log_in()
    world.clock.now += jump_s
    assert (await world.ask(headers)).status == 200
    assert (await world.ask(await world.log_in())).status == 200


async def test_sessions_outlive_the_daemon_but_only_their_hashes_are_kept() -> None:
    world = World()
    headers = await world.log_in()
    after = World(world.kept)
    assert (await after.ask(headers)).status == 200
    secrets = [headers[0][1].partition(b"=")[2], headers[1][1]]
    for session in world.kept.all():
        assert not any(secret in repr(session).encode() or secret in b"".join(session[:2]) for secret in secrets)
    after.clock.now += LIFE_S
    assert (await after.ask(headers)).status == 401


async def test_of_too_many_sessions_the_one_used_longest_ago_ends() -> None:
    world = World()
    first, second = await world.log_in(), await world.log_in()
    world.clock.now += 1
    assert (await world.ask(first)).status == 200
    for _ in range(SESSIONS_MAX - 1):
        await world.log_in()
    assert (await world.ask(first)).status == 200
    assert (await world.ask(second)).status == 401
    assert len(world.sessions) == len(world.kept.all()) == SESSIONS_MAX


async def test_logging_out_ends_this_session_or_all_and_the_next_login_is_another() -> None:
    world = World()
    one, two = await world.log_in(), await world.log_in()
    out = await world.ask([*one, (b"origin", OWN)], "POST", "/api/v1/console/logout")
    assert (out.status, out.json(), "Max-Age=0" in out.headers["set-cookie"]) == (200, {"ended": 1}, True)
    assert (await world.ask(one)).status == 401
    assert (await world.ask(two)).status == 200
    link = await world.link()
    answer = await ask_app(world.app, "DELETE", "/api/v1/console/sessions", headers=[HOST, BEARER])
    assert answer.json() == {"ended": 1}
    assert (await world.ask(two)).status == 401
    assert (await world.enter(link)).status == 403
    assert (await world.ask(await world.log_in())).status == 200
    bare = await ask_app(world.app, "POST", "/api/v1/console/logout", headers=[HOST, BEARER])
    assert bare.json() == {"ended": 0}


async def test_a_page_may_log_out_everywhere_and_still_gets_its_answer() -> None:
    world = World()
    one, two = await world.log_in(), await world.log_in()
    out = await world.ask([*one, (b"sec-fetch-site", b"same-origin")], "DELETE", "/api/v1/console/sessions")
    assert (out.status, out.json()) == (200, {"ended": 2})
    assert [(await world.ask(each)).status for each in (one, two)] == [401, 401]


async def test_logins_and_logouts_are_written_down() -> None:
    world = World()
    headers = await world.log_in()
    await world.ask([*headers, (b"origin", OWN)], "POST", "/api/v1/console/logout")
    (login, logout) = world.backend.noted
    assert (login[0], login[1], login[2]["event"]) == ("session", logout[1], "login")
    assert (logout[0], logout[2]["event"], logout[2]["by"]) == ("session", "logout", "the operator in the console")
    assert login[1].startswith("console:")


async def test_a_login_that_cannot_be_kept_or_written_down_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def full(*_: Any) -> None:
        raise Full("the disk is full")

    async def refuse(*_: Any, **__: Any) -> None:
        raise Full("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(world.kept, "put", full)
        answer = await world.enter(await world.link())
        assert (answer.status, b"the disk is full" in answer.body, "set-cookie" in answer.headers) == (503, True, False)
    monkeypatch.setattr(world.backend, "note_change", refuse)
    assert (await world.enter(await world.link())).status == 503
    assert len(world.sessions) == 0


# -- the guard, in every combination ----------------------------------------------------------------------------------

_ORIGINS = [
    None,
    OWN,
    b"HTTP://127.0.0.1:6374",
    b"http://127.0.0.1:9999",
    b"http://localhost:6374",
    b"https://127.0.0.1:6374",
]
_SITES = [None, b"same-origin", b"none", b"same-site", b"cross-site", b"nonsense"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_what_the_cookie_opens_in_every_combination_of_origin_site_page_and_token(method: str) -> None:
    """The table of docs/spec/console.md §3, written the other way round: what may pass, everything else may not."""
    world = World()
    cookie, page = await world.log_in()
    path = {"GET": STATUS, "POST": "/api/v1/agents", "DELETE": "/api/v1/agents/none"}[method]
    pages = [None, page, (page[0], b"x" * 43)]
    tokens = [None, BEARER, (b"authorization", b"Bearer wrong")]
    for origin, site, shown, token, has_cookie in itertools.product(_ORIGINS, _SITES, pages, tokens, (True, False)):
        given = [
            *([(b"origin", origin)] if origin else []),
            *([(b"sec-fetch-site", site)] if site else []),
            *([shown] if shown else []),
            *([token] if token else []),
            *([cookie] if has_cookie else []),
        ]
        answer = await world.ask(given, method, path)
        is_own = origin in (None, OWN, b"HTTP://127.0.0.1:6374") and site in (None, b"same-origin", b"none")
        is_said = origin is not None or site == b"same-origin"
        if token is not None:  # then the header decides, and the cookie counts for nothing
            passes = token == BEARER
            expected = None if passes else (401, "refused.token")
        elif not has_cookie:
            expected = (401, "refused.token")
        elif not is_own or (method != "GET" and not is_said):
            expected = (403, "refused.origin")
        elif shown != page:
            expected = (401, "console.page")
        else:
            expected = None
        if expected is None:
            assert answer.status not in (401, 403), (given, answer)
        else:
            assert (answer.status, answer.problem().code) == expected, given


async def test_a_form_on_another_page_changes_nothing() -> None:
    """CSRF as it comes: a browser sends the cookie (a page on another port is the same site) and its own Origin."""
    world = World()
    cookie, _ = await world.log_in()
    before = len(world.backend.asked)
    form = [cookie, (b"content-type", b"application/x-www-form-urlencoded")]
    for more in (
        [(b"origin", b"http://127.0.0.1:8080"), (b"sec-fetch-site", b"same-site")],
        [(b"origin", b"null")],
        [(b"origin", b"http://evil.example"), (b"sec-fetch-site", b"cross-site")],
        [(b"sec-fetch-site", b"cross-site")],
        [],
        [(b"origin", OWN), (b"origin", b"http://127.0.0.1:8080")],
    ):
        answer = await world.ask([*form, *more], "POST", "/api/v1/shutdown")
        assert answer.status in (401, 403), more
    assert len(world.backend.asked) == before


async def test_a_rebound_name_gets_in_nowhere_not_even_with_the_cookie() -> None:
    world = World()
    headers = await world.log_in()
    for path in (STATUS, "/", "/console/login", "/assets/x.js"):
        answer = await ask_app(world.app, "GET", path, headers=[(b"host", b"evil.example:6374"), *headers])
        assert answer.problem().code == "refused.host"


async def test_the_cookie_of_another_daemon_on_this_host_is_not_ours() -> None:
    world, other = World(), World(port=7000)
    foreign = await other.log_in()
    assert foreign[0][1].startswith(cookie_name(7000).encode())
    assert (await world.ask(foreign)).problem().code == "refused.token"  # by its name it is none at all
    renamed = foreign[0][1].replace(cookie_name(7000).encode(), cookie_name(6374).encode())
    assert (await world.ask([(b"cookie", renamed), foreign[1]])).problem().code == "console.session"


async def test_cookies_that_others_add_do_not_keep_us_out() -> None:
    """Any program on this host can set cookies of our name, for a longer path even, which browsers send first."""
    world = World()
    cookie, page = await world.log_in()
    name = cookie_name(6374).encode()
    tossed = b"; ".join([b"theme=dark", *([name + b"=tossed"] * (COOKIES_MAX - 1)), cookie[1], b"x=" + b"y" * 9000])
    assert (await world.ask([(b"cookie", tossed), page])).status == 200
    assert (await world.ask([(b"cookie", b"a=b"), cookie, page])).status == 200
    assert (await world.ask([(b"cookie", b"x" + cookie[1]), page])).status == 401
    assert (await world.ask([(b"cookie", b"\xff\x00=;;;=" + cookie[1][:20]), page])).status == 401


async def test_the_cookie_alone_opens_the_stream_of_ticks_and_nothing_else() -> None:
    world = World()
    cookie, _ = await world.log_in()
    for path in (STATUS, "/api/v1/runs", "/api/v1/events/stream", "/api/v1/console/stream/", "/api/v1/console/streamx"):
        assert (await world.ask([cookie], path=path)).status in (401, 404), path
    assert (await world.ask([cookie, (b"origin", OWN)], "POST", "/api/v1/console/stream")).status == 401


async def test_a_port_that_is_forwarded_under_another_number_works() -> None:
    """Through ``ssh -L 7000:127.0.0.1:6374`` the browser speaks of port 7000, and the cookie keeps the name of ours."""
    world = World()
    headers = [*await world.log_in(), (b"host", b"127.0.0.1:7000")]
    for origin, status in ((b"http://127.0.0.1:7000", 200), (b"http://127.0.0.1:6374", 403)):
        answer = await ask_app(world.app, "GET", STATUS, headers=[*headers, (b"origin", origin)])
        assert answer.status == status


async def test_outside_the_api_the_cookie_counts_for_nothing() -> None:
    world = World()
    headers = await world.log_in()
    for path in ("/metrics", "/other", "/api/v2/status", "//api/v1/status", "/openapi.json/x"):
        assert (await world.ask(headers, path=path)).status in (401, 404), path


async def test_what_a_session_has_open_ends_with_it() -> None:
    world = World()
    headers = await world.log_in()
    rights = world.sessions.rights_of([headers[0][1].decode().partition("=")[2]], None)

    async def open_page() -> bool:
        with world.access.lasting(rights) as clock:
            try:
                async with clock:
                    begun.set()
                    await asyncio.Event().wait()
            except TimeoutError:
                return True

    begun = asyncio.Event()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        page = group.create_task(open_page())
        await begun.wait()
        await ask_app(world.app, "DELETE", "/api/v1/console/sessions", headers=[HOST, BEARER])
        assert await page


def test_a_session_is_found_by_nothing_but_its_cookie() -> None:
    sessions = Sessions(SessionsKept)
    entered = sessions.enter(sessions.code())
    for wrong in ("", entered.cookie[:-1], entered.cookie + "x", entered.page, "\ud800", "x" * 10_000):
        with pytest.raises(Unauthorized):
            sessions.rights_of([wrong], None)
    assert sessions.rights_of([entered.cookie], entered.page).key == entered.name
