"""API keys: what each scope opens and what it does not, and every way to get around that."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.api.access import Access
from agentmesh.api.app import Api
from agentmesh.api.console.sessions import Sessions
from agentmesh.api.routes import ROWS
from agentmesh.api.scopes import SCOPES, parse_scopes
from agentmesh.errors import RecordNotFound, StateError, Unauthorized, UsageError
from agentmesh.sdk.requests import headers_of, status
from agentmesh.sdk.types import KeyRequest
from agentmesh.store.keys import KeptKey, KeyStore
from tests.api.node_double import FakeBackend, FakeCall, event
from tests.api.serving import TOKEN, Answer, Served, SessionsKept, Shelf, ask_app, build, serving
from tests.api.test_routes import GOOD

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = (b"host", b"localhost")


def made(access: Access, *scopes: str, name: str = "ci", **more: Any) -> str:
    return access.add_key(KeyRequest(name=name, scopes=list(scopes), **more)).secret


def bearer(secret: str) -> list[tuple[bytes, bytes]]:
    return [HOST, (b"authorization", f"Bearer {secret}".encode())]


async def ask(app: Api, secret: str, method: str, target: str, body: bytes | None = None) -> Answer:
    path, _, query = target.partition("?")
    return await ask_app(app, method, path, body or b"", query=query.encode(), headers=bearer(secret))


#: What must be there before a route finds anything.
NEEDED = {
    ("GET", "/api/v1/messages/{message_id}"): ("POST", "/api/v1/messages"),
    ("POST", "/api/v1/messages/{message_id}/retry"): ("POST", "/api/v1/messages"),
    ("DELETE", "/api/v1/groups/{name}"): ("PUT", "/api/v1/groups/{name}"),
    ("POST", "/api/v1/topics/{topic}/groups/{group}/ack"): ("PUT", "/api/v1/topics"),
    ("DELETE", "/api/v1/locks/{name}"): ("POST", "/api/v1/locks/{name}"),
}


# -- scopes of routes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", sorted(SCOPES))
@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.scope and r.stream != "always"], ids=lambda r: f"{r.method} {r.path}"
)
async def test_a_key_opens_the_routes_of_its_scope_and_no_other(row: Any, scope: str) -> None:
    backend = FakeBackend()
    access = Access(TOKEN, Shelf(), sessions=Sessions(SessionsKept))
    app = build(backend, access=access)
    await backend.append(event(1))
    access.add_key(KeyRequest(name="other", scopes=["read"]))
    secret = made(access, scope, name="mine")
    target, body = GOOD[row.method, row.path]
    if row.path.endswith("keys/{name}"):
        target = "/api/v1/keys/other"
    if row.path.endswith("tenants/{name}"):
        backend.tenants["acme"] = FakeBackend()
    if row.path.endswith("bridges") and row.method == "DELETE":
        await ask_app(app, "POST", row.path, GOOD["POST", row.path][1] or b"")
    if row.path.endswith("/cancel") or row.method == "DELETE":
        await ask_app(app, "POST", "/api/v1/calls", b'{"to":"echo","text":"hi"}')
        backend.known["nine"] = backend.known["echo"]
    if (needed := NEEDED.get((row.method, row.path))) is not None:
        path, content = GOOD[needed]
        await ask_app(app, needed[0], path, content or b"")
    before = len(backend.asked)
    answer = await ask(app, secret, row.method, target, body)
    if scope in (row.scope, "admin"):
        assert answer.status == 200, answer
    else:
        problem = answer.problem()
        assert (problem.status, problem.code, problem.extra) == (403, "refused.scope", {"scope": row.scope})
        assert f"agentmesh keys add NAME --scope {row.scope}" in str(problem.hint)
        assert answer.headers["www-authenticate"] == f'Bearer error="insufficient_scope", scope="{row.scope}"'
        assert len(backend.asked) == before


def test_every_route_says_what_it_needs_in_the_description_and_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "http-api.md").read_text("utf-8")
    section = text.partition("### Scopes")[2].partition("\n## ")[0]
    documented = {
        (method, path, row[0])
        for row in re.findall(r"^\| `(\w+)`[^|]*\|(.*)\|$", section, re.MULTILINE)
        for method, path in re.findall(r"(GET|POST|PUT|DELETE) `([^`]+)`", row[1])
    }
    assert documented == {(row.method, row.path, row.scope) for row in ROWS if row.scope}


def test_no_handler_goes_around_what_whoever_asks_may_see() -> None:
    whole = [row for row in ROWS if "site.node" in inspect.getsource(row.handler)]
    assert whole
    assert [row.path for row in whole if row.scope != "admin"] == []


async def test_routes_of_other_rooms_are_the_operators_unless_they_are_public() -> None:
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def hello(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    access = Access(TOKEN, Shelf())
    app = build(FakeBackend(), access=access, extra_routes=[Route("/other", hello)])
    reader, admin = made(access, "read", name="r"), made(access, "admin", name="a")
    assert (await ask(app, reader, "GET", "/other")).problem().code == "refused.scope"
    assert (await ask(app, admin, "GET", "/other")).body == b"hello"


async def test_the_a2a_edge_asks_for_a_credential_once_it_is_not_open() -> None:
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def hello(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    access = Access(TOKEN, Shelf())
    routes = [Route("/a2a/echo/", hello)]
    for is_open, wanted in ((True, 200), (False, 401)):
        app = build(FakeBackend(), access=access, extra_routes=routes, a2a_open=is_open)
        assert (await ask_app(app, "GET", "/a2a/echo/", headers=[(b"host", b"localhost")])).status == wanted
    secret = made(access, "call")
    assert (await ask(app, secret, "GET", "/a2a/echo/")).body == b"hello", "what it opens there the edge judges"
    wrong = [(b"host", b"localhost"), (b"authorization", b"Bearer nonsense")]
    assert (await ask_app(app, "GET", "/a2a/echo/", headers=wrong)).problem().code == "refused.token"


# -- which agents -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["echo", "ECHO", "echo@node"])
async def test_a_key_for_one_agent_calls_it_under_each_of_its_spellings(to: str) -> None:
    backend, access = FakeBackend(), Access(TOKEN, Shelf())
    backend.known[to] = backend.known["echo"]
    secret = made(access, "call:echo")
    body = b'{"to":"%s","text":"x"}' % to.encode()
    assert (await ask(build(backend, access=access), secret, "POST", "/api/v1/calls", body)).status == 200


@pytest.mark.parametrize("to", ["other", "other@echo", "echo2", "did:key:echo", "echo.", " echo", "еcho"])
async def test_a_key_for_one_agent_calls_no_other_however_it_is_spelled(to: str) -> None:
    backend, access = FakeBackend(), Access(TOKEN, Shelf())
    backend.known[to] = type(backend.known["echo"])(agent_id="did:key:other", name="other", node_id="n")
    app = build(backend, access=access)
    secret = made(access, "call:echo")
    body = json.dumps({"to": to, "text": "x"})
    answer = await ask(app, secret, "POST", "/api/v1/calls", body.encode())
    assert answer.problem().code == "refused.scope"
    assert not backend.calls


async def test_a_key_for_one_id_calls_the_agent_by_name_only_when_all_of_that_name_are_it() -> None:
    backend, access = FakeBackend(), Access(TOKEN, Shelf())
    app = build(backend, access=access)
    secret = made(access, f"call:{backend.known['echo'].agent_id}")
    call = b'{"to":"echo","text":"x"}'
    assert (await ask(app, secret, "POST", "/api/v1/calls", call)).status == 200
    twin = type(backend.known["echo"])(agent_id="did:key:twin", name="echo", node_id="n")
    detail = backend.agent("echo")
    backend.agent = lambda ref: type(detail)(agent=detail.agent, card={}, replicas=[detail.agent, twin])  # type: ignore[method-assign]
    assert (await ask(app, secret, "POST", "/api/v1/calls", call)).problem().code == "refused.scope"


async def test_a_key_for_one_agent_cancels_no_task_of_another() -> None:
    backend, access = FakeBackend(), Access(TOKEN, Shelf())
    await backend.append(event(1, "status", state="working"))
    app = build(backend, access=access)
    await ask_app(app, "POST", "/api/v1/calls", b'{"to":"echo","text":"hi"}')
    target = f"/api/v1/tasks/{'t' * 32}/cancel"
    assert (await ask(app, made(access, "call:other", name="o"), "POST", target)).problem().code == "refused.scope"
    assert (await ask(app, made(access, "call:echo", name="e"), "POST", target)).status == 200


@pytest.mark.parametrize("claim", ['"from_agent":"echo"', '"hops":["did:key:x"]'])
async def test_a_key_that_only_calls_does_not_call_in_an_agents_name(claim: str) -> None:
    backend, access = FakeBackend(), Access(TOKEN, Shelf())
    app = build(backend, access=access)
    body = b'{"to":"echo","text":"x",%s}' % claim.encode()
    refused = await ask(app, made(access, "call", name="a"), "POST", "/api/v1/calls", body)
    assert (refused.problem().status, refused.problem().extra) == (403, {"scope": "register"})
    assert (await ask(app, made(access, "call", "register", name="b"), "POST", "/api/v1/calls", body)).status == 200


# -- what a scope is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts",
    [
        [], ["*"], ["call:*"], ["call:"], ["call:sum*"], ["call:a:b"], ["call: echo"], ["read:x"], ["READ"], ["read "],
        ["ｒead"], ["re\u0430d"], ["admin\x00"], [""], ["call:did:key:x"], ["call:.x"], ["call", "call:x"], ["admin", "call:x"],
        ["read"] * 65, ["call:" + "x" * 65], ["call:a/b"], ["call:a\n"],
    ],
)  # fmt: skip
def test_what_is_no_scope_is_refused_and_no_key_is_made(texts: list[str]) -> None:
    shelf = Shelf()
    with pytest.raises(UsageError) as error:
        Access(TOKEN, shelf).add_key(KeyRequest(name="x", scopes=texts))
    assert error.value.code == "keys.scope"
    assert shelf.kept == {}


@given(st.lists(st.one_of(st.text(max_size=80), st.sampled_from([*SCOPES, "call:a", "call:B"])), max_size=70))
def test_scopes_are_read_or_refused_and_never_open_more_than_they_say(texts: list[str]) -> None:
    try:
        scopes, agents = parse_scopes(texts)
    except UsageError:
        return
    said = {text.partition(":")[0] for text in texts}
    assert scopes == (frozenset(SCOPES) if "admin" in said else said)
    limits = {text.partition(":")[2].casefold() for text in texts if ":" in text}
    assert (agents or set()) == limits
    assert agents is not None or not limits


def test_a_kept_scope_of_a_newer_version_opens_nothing() -> None:
    secret = "amk_x"
    kept = KeptKey("new", hashlib.sha256(secret.encode()).digest(), ("read", "fly"), "", 1, None)
    assert Access(TOKEN, Shelf(kept)).rights_of(f"Bearer {secret}".encode()).scopes == frozenset()


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ключ", "-a", "a" * 65, "a\n", "../x"])
def test_a_key_has_a_plain_name(name: str) -> None:
    with pytest.raises(UsageError):
        Access(TOKEN, Shelf()).add_key(KeyRequest(name=name, scopes=["read"]))


@pytest.mark.parametrize("expires_s", [0, -1, 0.5, 1e12, float("nan"), float("inf")])
def test_the_end_of_a_key_lies_within_bounds(expires_s: float) -> None:
    with pytest.raises(UsageError):
        Access(TOKEN, Shelf()).add_key(KeyRequest(name="x", scopes=["read"], expires_s=expires_s))


# -- the key itself ---------------------------------------------------------------------------------------------------


async def test_a_key_is_told_once_and_never_again() -> None:
    async with serving() as served:
        answer = (await served.ask("POST", "/api/v1/keys", b'{"name":"ci","scopes":["read"]}')).json()
        secret = answer["secret"]
        assert re.fullmatch(r"amk_[A-Za-z0-9_-]{43}", secret)
        listing = await served.ask("GET", "/api/v1/keys")
        assert [key["name"] for key in listing.json()["keys"]] == ["ci"]
        for said in (listing.body, (await served.ask("DELETE", "/api/v1/keys/ci")).body):
            assert secret.encode() not in said
            assert hashlib.sha256(secret.encode()).hexdigest().encode() not in said


async def test_a_key_is_good_until_it_is_revoked_and_not_one_request_longer() -> None:
    async with serving() as served:
        secret = (await served.ask("POST", "/api/v1/keys", b'{"name":"ci","scopes":["read"]}')).json()["secret"]
        headers = {"Authorization": f"Bearer {secret}"}
        assert (await served.ask("GET", "/api/v1/status", headers=headers)).status == 200
        assert (await served.ask("DELETE", "/api/v1/keys/ci")).status == 200
        problem = (await served.ask("GET", "/api/v1/status", headers=headers)).problem()
        assert (problem.status, problem.code) == (401, "refused.key")
        assert (await served.ask("DELETE", "/api/v1/keys/ci")).status == 404


async def test_a_key_whose_time_is_over_says_so() -> None:
    now = [1000.0]
    access = Access(TOKEN, Shelf(), now=lambda: now[0])
    app = build(FakeBackend(), access=access)
    secret = made(access, "read", expires_s=60)
    assert (await ask(app, secret, "GET", "/api/v1/status")).status == 200
    now[0] += 60
    problem = (await ask(app, secret, "GET", "/api/v1/status")).problem()
    assert (problem.status, problem.code) == (401, "refused.expired")
    assert access.every_key()[0].expired


@pytest.mark.parametrize(
    "change", [lambda k: k[:-1], lambda k: k + "A", lambda k: k.upper(), lambda k: "amk_", lambda k: k[4:]]
)
async def test_nothing_but_the_key_opens(change: Any) -> None:
    access = Access(TOKEN, Shelf())
    secret = made(access, "read")
    answer = await ask(build(FakeBackend(), access=access), change(secret), "GET", "/api/v1/status")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_the_hash_of_a_key_is_no_key() -> None:
    shelf = Shelf()
    access = Access(TOKEN, shelf)
    made(access, "read")
    kept = shelf.kept["ci"].hash
    for said in (kept, kept.hex().encode(), b"amk_" + kept):
        with pytest.raises(Unauthorized):
            access.rights_of(b"Bearer " + said)


# -- around it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/v1/status", "/health", "/a2a/echo/"])
async def test_two_authorization_headers_are_refused_whatever_they_hold(path: str) -> None:
    app = build(FakeBackend())
    right = (b"authorization", f"Bearer {TOKEN}".encode())
    for pair in ([right, right], [right, (b"authorization", b"Bearer x")], [(b"authorization", b""), right]):
        problem = (await ask_app(app, "GET", path, headers=[HOST, *pair])).problem()
        assert (problem.status, problem.code) == (401, "refused.credentials")


@pytest.mark.parametrize("query", [b"key=amk_abc", b"access_token=x", b"a=1&access_token=y", b"amk_"])
@pytest.mark.parametrize("path", ["/api/v1/status", "/a2a/echo/", "/health"])
async def test_a_key_in_an_address_is_refused_even_beside_the_right_token(path: str, query: bytes) -> None:
    problem = (await ask_app(build(FakeBackend()), "GET", path, query=query)).problem()
    assert (problem.status, problem.code) == (401, "refused.query")
    assert "agentmesh keys revoke" in str(problem.hint)


async def test_a_revoked_key_does_not_pass_for_no_key_where_none_is_needed() -> None:
    access = Access(TOKEN, Shelf())
    app = build(FakeBackend(), access=access)
    secret = made(access, "read")
    assert (await ask(app, secret, "GET", "/health")).status == 200
    access.revoke_key("ci")
    assert (await ask(app, secret, "GET", "/health")).problem().code == "refused.key"
    assert (await ask_app(app, "GET", "/health", headers=[HOST, (b"authorization", b"Basic x")])).status == 200


async def test_a_credential_of_any_length_is_answered() -> None:
    app = build(FakeBackend())
    for size in (10, 8_191, 8_192, 8_193, 200_000):
        for prefix in ("", "amk_"):
            assert (await ask(app, prefix + "x" * size, "GET", "/api/v1/status")).status == 401


# -- while it is used -------------------------------------------------------------------------------------------------


async def _stream(served: Served, secret: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    head = f"GET /api/v1/events/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n\r\n"
    writer.write(head.encode())
    assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
    await asyncio.wait_for(reader.readuntil(b"retry: 1000"), 10)
    return reader, writer


async def test_a_stream_ends_when_its_key_is_revoked_and_the_others_go_on() -> None:
    access = Access(TOKEN, Shelf())
    async with serving(access=access) as served:
        secret, other = made(access, "events"), made(access, "events", name="other")
        reader, writer = await _stream(served, secret)
        theirs, their_writer = await _stream(served, other)
        access.revoke_key("ci")
        rest = await asyncio.wait_for(
            reader.readuntil(b"0\r\n\r\n"), 10
        )  # the end of a chunked answer, as if it were complete
        assert b"event:" not in rest
        await served.backend.append(event(1))
        await asyncio.wait_for(theirs.readuntil(b"event: message"), 10)
        writer.close()
        their_writer.close()


async def test_a_stream_ends_when_the_time_of_its_key_is_over() -> None:
    now = [1000.0]
    access = Access(TOKEN, Shelf(), now=lambda: now[0])
    kept = access.add_key(KeyRequest(name="ci", scopes=["events"], expires_s=60))
    now[0] = 1059.7
    async with serving(access=access) as served:
        reader, writer = await _stream(served, kept.secret)
        await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 10)
        writer.close()


async def test_a_call_is_given_up_when_its_key_is_revoked() -> None:
    backend, access = FakeBackend(), Access(TOKEN, Shelf())

    def hang(call: FakeCall) -> None:
        call.hangs = True

    backend.prepare = hang
    secret = made(access, "call")
    app = build(backend, access=access)
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ask(app, secret, "POST", "/api/v1/calls", b'{"to":"echo","text":"x"}'))
        await asyncio.wait_for(backend.call_started.wait(), 10)
        access.revoke_key("ci")
    problem = asking.result().problem()
    assert (problem.status, problem.code) == (401, "refused.key")
    assert backend.calls[0].closed.is_set()
    assert access._open == {}


async def test_ten_thousand_keys_are_each_found_and_each_revoked(tmp_path: Path) -> None:
    def kept(number: int) -> KeptKey:
        return KeptKey(f"k{number}", hashlib.sha256(b"amk_%d" % number).digest(), ("read",), "", 1, None)

    many = [kept(number) for number in range(10_000)]
    access = Access(TOKEN, Shelf(*many))
    assert {access.rights_of(b"Bearer amk_%d" % number).key for number in range(10_000)} == {one.name for one in many}
    access.revoke_key("k5000")
    with pytest.raises(Unauthorized):
        access.rights_of(b"Bearer amk_5000")
    assert access.rights_of(b"Bearer amk_5001").key == "k5001"


async def test_what_could_not_be_written_changes_nothing(tmp_path: Path) -> None:
    store = KeyStore.open(tmp_path / "keys.sqlite")
    access = Access(TOKEN, store)
    secret = made(access, "read")
    store.close()
    with pytest.raises(StateError):
        made(access, "read", name="second")
    with pytest.raises(StateError):
        access.revoke_key("ci")
    assert access.rights_of(f"Bearer {secret}".encode()).key == "ci"
    assert [key.name for key in access.every_key()] == ["ci"]
    with pytest.raises(RecordNotFound):
        access.revoke_key("second")


# -- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_by", "wanted"),
    [
        ({"AGENTMESH_API_KEY": "amk_1", "AGENTMESH_TOKEN": "t"}, "amk_1"),
        ({"AGENTMESH_TOKEN": "t"}, "t"),
        ({"AGENTMESH_API_KEY": " "}, "of-the-file"),
        ({}, "of-the-file"),
    ],
)
def test_the_sdk_takes_its_key_from_the_environment_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_by: dict[str, str], wanted: str
) -> None:
    from agentmesh.sdk.locate import TOKEN_VARIABLES, locate

    for name in TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given_by.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "api.token").write_text("of-the-file", "ascii")
    _, token = locate(tmp_path, "http://127.0.0.1:1")
    assert token == wanted
    assert headers_of(status(), token)["Authorization"] == f"Bearer {wanted}"
    assert locate(tmp_path, "http://127.0.0.1:1", "mine")[1] == "mine"


def test_a_variable_that_holds_no_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentmesh.sdk.locate import locate

    monkeypatch.setenv("AGENTMESH_API_KEY", "amk_\nX-Other: 1")
    with pytest.raises(Unauthorized) as error:
        locate(tmp_path, "http://127.0.0.1:1")
    assert "AGENTMESH_API_KEY" in str(error.value)
