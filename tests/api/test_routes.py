"""Every route, every error class and every kind of bad request, over a real socket."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import jsonschema
import msgspec
import pytest

from agentmesh.api import body as body_module
from agentmesh.api.body import DRAIN_BYTES_MAX, JSON_DEPTH_MAX
from agentmesh.api.routes import ROWS
from agentmesh.errors import ERROR_TABLE, Busy, MeshError, from_wire
from agentmesh.sdk.requests import BODY_BYTES_MAX, CALL_BYTES_MAX, EVENTS_BYTES_MAX, error_of_problem
from agentmesh.sdk.types import DiscoverRequest
from agentmesh.wire.event import encode_json
from agentmesh.wire.rows import RunQuery
from tests.api.node_double import AGENT, RUN, FakeBackend, event
from tests.api.serving import Served, ask_app, build, serving

CALL = b'{"to":"echo","text":"hi"}'
MESSAGE = b"6f1f3c1d-7a11-4d6e-9c6a-5b0c5b626f0e"
EVENTS = b'{"events":[' + encode_json(event(1)) + b"]}"

#: (method, path of the row) → (target, body) of a request that succeeds.
GOOD: dict[tuple[str, str], tuple[str, bytes | None]] = {
    ("GET", "/health"): ("/health", None),
    ("GET", "/openapi.json"): ("/openapi.json", None),
    ("GET", "/api/v1/status"): ("/api/v1/status", None),
    ("GET", "/api/v1/peers"): ("/api/v1/peers", None),
    ("POST", "/api/v1/peers"): ("/api/v1/peers", b'{"seeds":["did:key:x@127.0.0.1:1"]}'),
    ("GET", "/api/v1/topology"): ("/api/v1/topology?window=60&source=mdns&zone=eu/01", None),
    ("GET", "/api/v1/stats"): ("/api/v1/stats", None),
    ("GET", "/api/v1/net"): ("/api/v1/net", None),
    ("POST", "/api/v1/shutdown"): ("/api/v1/shutdown", None),
    ("GET", "/api/v1/agents"): ("/api/v1/agents?query=ec&unhealthy=false", None),
    ("POST", "/api/v1/agents"): ("/api/v1/agents", b'{"url":"http://127.0.0.1:9","name":"nine"}'),
    ("POST", "/api/v1/discover"): ("/api/v1/discover", b'{"query":"ec","filters":{"tag":"demo"},"limit":3}'),
    ("GET", "/api/v1/agents/{ref}"): ("/api/v1/agents/echo", None),
    ("DELETE", "/api/v1/agents/{ref}"): ("/api/v1/agents/nine", None),
    ("POST", "/api/v1/agents/{agent_id}/renew"): (f"/api/v1/agents/{AGENT}/renew", None),
    ("POST", "/api/v1/calls"): ("/api/v1/calls", CALL),
    ("POST", "/api/v1/tasks/{task_id}/cancel"): (f"/api/v1/tasks/{'t' * 32}/cancel", None),
    ("GET", "/api/v1/policy"): ("/api/v1/policy", None),
    ("GET", "/api/v1/policy/explain"): ("/api/v1/policy/explain?caller=&callee=echo&skill=s", None),
    ("GET", "/api/v1/runs"): (
        "/api/v1/runs?limit=5&agent=echo&state=failed,working&kind=tool&since=1&until=9&before=7",
        None,
    ),
    ("GET", "/api/v1/receipts/{ref}"): ("/api/v1/receipts/last", None),
    ("POST", "/api/v1/grants"): ("/api/v1/grants", b'{"to":"a","audience":["b"],"scopes":["call.*"]}'),
    ("GET", "/api/v1/audit"): ("/api/v1/audit", None),
    ("GET", "/api/v1/audit/records"): ("/api/v1/audit/records?after=0&limit=5&run=r&agent=echo", None),
    ("GET", "/api/v1/audit/rows"): ("/api/v1/audit/rows?action=call&caller=did%3Akey&before=9&limit=5", None),
    ("GET", "/api/v1/audit/export"): ("/api/v1/audit/export?result=refused&since=2026-11", None),
    ("GET", "/api/v1/config"): ("/api/v1/config", None),
    ("GET", "/api/v1/trust"): ("/api/v1/trust?tier=medium&limit=10", None),
    ("GET", "/api/v1/receipts/{ref}/check"): ("/api/v1/receipts/last/check", None),
    ("GET", "/api/v1/audit/proof/{ref}"): ("/api/v1/audit/proof/last", None),
    ("GET", "/api/v1/orders"): ("/api/v1/orders", None),
    ("GET", "/api/v1/federation"): ("/api/v1/federation", None),
    ("POST", "/api/v1/orders"): ("/api/v1/orders", b'{"order": "a.b.c"}'),
    ("POST", "/api/v1/killswitch"): ("/api/v1/killswitch", b'{"on":true,"reason":"drill"}'),
    ("GET", "/api/v1/runs/{ref}/events"): ("/api/v1/runs/last/events?after=0&remote=false", None),
    ("GET", "/api/v1/runs/{ref}/rows"): ("/api/v1/runs/last/rows?limit=2&kind=message,status&remote=false", None),
    ("GET", "/api/v1/events/{seq}"): ("/api/v1/events/1", None),
    ("GET", "/api/v1/keys"): ("/api/v1/keys", None),
    ("POST", "/api/v1/keys"): ("/api/v1/keys", b'{"name":"ci","scopes":["read"],"expires_s":60}'),
    ("DELETE", "/api/v1/keys/{name}"): ("/api/v1/keys/ci", None),
    ("GET", "/api/v1/trust/{agent_id}"): ("/api/v1/trust/echo", None),
    ("POST", "/api/v1/trust/{agent_id}/reports"): ("/api/v1/trust/echo/reports", b'{"reason":"it lies"}'),
    ("GET", "/api/v1/tenants"): ("/api/v1/tenants", None),
    ("POST", "/api/v1/tenants"): ("/api/v1/tenants", b'{"name":"acme","share":["echo"]}'),
    ("DELETE", "/api/v1/tenants/{name}"): ("/api/v1/tenants/acme", None),
    ("GET", "/api/v1/bridges"): ("/api/v1/bridges", None),
    ("POST", "/api/v1/bridges"): ("/api/v1/bridges", b'{"url":"etcd://127.0.0.1:2379/agents"}'),
    ("DELETE", "/api/v1/bridges"): ("/api/v1/bridges?url=etcd://127.0.0.1:2379/agents", None),
    ("POST", "/api/v1/import"): ("/api/v1/import", b'{"url":"http://127.0.0.1:9","dry_run":true}'),
    ("POST", "/api/v1/events"): ("/api/v1/events", EVENTS),
    ("POST", "/api/v1/console/login"): ("/api/v1/console/login", None),
    ("POST", "/api/v1/console/logout"): ("/api/v1/console/logout", None),
    ("DELETE", "/api/v1/console/sessions"): ("/api/v1/console/sessions", None),
    ("POST", "/api/v1/messages"): ("/api/v1/messages", b'{"to":"nobody","text":"hi","message_id":"%s"}' % MESSAGE),
    ("GET", "/api/v1/messages"): ("/api/v1/messages", None),
    ("GET", "/api/v1/messages/dead"): ("/api/v1/messages/dead?limit=5&start=0", None),
    ("GET", "/api/v1/messages/{message_id}"): (f"/api/v1/messages/{MESSAGE.decode()}", None),
    ("POST", "/api/v1/messages/{message_id}/retry"): (f"/api/v1/messages/{MESSAGE.decode()}/retry", None),
    ("GET", "/api/v1/inbox/{agent}"): ("/api/v1/inbox/echo?limit=3&wait_s=1&lease_s=9&peek=false", None),
    ("POST", "/api/v1/inbox/{agent}/ack"): ("/api/v1/inbox/-/ack", b'{"message_ids":["%s"],"back":true}' % MESSAGE),
    ("GET", "/api/v1/groups"): ("/api/v1/groups", None),
    ("PUT", "/api/v1/groups/{name}"): ("/api/v1/groups/team", b'{"members":["echo"]}'),
    ("DELETE", "/api/v1/groups/{name}"): ("/api/v1/groups/team", None),
    ("GET", "/api/v1/topics"): ("/api/v1/topics", None),
    ("PUT", "/api/v1/topics"): ("/api/v1/topics", b'{"name":"jobs","subjects":["jobs.>"],"records_max":10}'),
    ("PUT", "/api/v1/topics/rules"): ("/api/v1/topics/rules", b'{"rules":[{"pattern":"jobs.>","publish":["echo"]}]}'),
    ("POST", "/api/v1/topics/{subject}"): ("/api/v1/topics/jobs.a", b'{"text":"hi","retain":true}'),
    ("POST", "/api/v1/topics/{topic}/groups/{group}/ack"): ("/api/v1/topics/jobs/groups/g/ack", b'{"leases":["l"]}'),
    ("DELETE", "/api/v1/topics/{name}"): ("/api/v1/topics/jobs", None),
    ("POST", "/api/v1/cloudevents"): (
        "/api/v1/cloudevents",
        b'{"specversion":"1.0","id":"7","source":"/ci","type":"build.done","subject":"build.done","data":{"ok":true}}',
    ),
    ("GET", "/api/v1/presence"): ("/api/v1/presence", None),
    ("GET", "/api/v1/state"): ("/api/v1/state", None),
    ("GET", "/api/v1/state/{space}"): ("/api/v1/state/team?prefix=v&limit=5", None),
    ("GET", "/api/v1/state/{space}/{key}"): ("/api/v1/state/team/votes?level=causal&token=t", None),
    ("POST", "/api/v1/state/{space}/{key}"): ("/api/v1/state/team/votes", b'{"op":"increment","by":2}'),
    ("GET", "/api/v1/state/{space}/{key}/history"): ("/api/v1/state/team/votes/history", None),
    ("GET", "/api/v1/locks"): ("/api/v1/locks?prefix=n", None),
    ("GET", "/api/v1/locks/{name}"): ("/api/v1/locks/nightly", None),
    ("POST", "/api/v1/locks/{name}"): ("/api/v1/locks/nightly", b'{"holder":"amy","ttl_s":30,"wait_s":1}'),
    ("DELETE", "/api/v1/locks/{name}"): ("/api/v1/locks/nightly?holder=amy", None),
}


async def test_every_route_answers_as_its_own_description_says() -> None:
    """Each row is fetched, and its answer validated against the schema that the API publishes for it."""
    async with serving() as served:
        await served.backend.append(event(1))
        await served.ask("POST", "/api/v1/calls", CALL)
        document = (await served.ask("GET", "/openapi.json")).json()
        rows = [row for row in ROWS if row.stream != "always"]
        assert {(row.method, row.path) for row in rows} == set(GOOD)
        for row in rows:
            target, body = GOOD[row.method, row.path]
            answer = await served.ask(row.method, target, body)
            assert answer.status == 200, (row.path, answer)
            if row.download:
                assert answer.headers["content-type"] == row.download
                continue
            assert answer.headers["content-type"] == "application/json"
            schema = document["paths"][row.path][row.method.lower()]["responses"]["200"]["content"]["application/json"]
            jsonschema.validate(
                answer.json(),
                {**schema["schema"], "components": document["components"]},
                cls=jsonschema.Draft202012Validator,
            )


async def test_status_names_the_port_that_is_really_in_use() -> None:
    async with serving(FakeBackend(), port=4711) as served:
        assert (await served.ask("GET", "/api/v1/status")).json()["port"] == 4711
        assert (await served.ask("GET", "/api/v1/agents/echo")).json()["a2a_url"] == "http://127.0.0.1:4711/a2a/echo/"


async def test_query_parameters_reach_the_node_with_their_defaults() -> None:
    backend = FakeBackend()
    app = build(backend)
    await ask_app(app, "GET", "/api/v1/agents")
    await ask_app(app, "GET", "/api/v1/agents", query=b"query=a%20b&name=echo&unhealthy=0")
    await ask_app(app, "GET", "/api/v1/runs")
    here, mesh = (DiscoverRequest(query="a b", limit=1_000, near=0, scope=scope) for scope in ("local", "mesh"))
    assert backend.asked == [
        ("agents", "", True),
        ("look_for", "echo"),
        ("discover", here),
        ("discover", mesh),  # nobody here answers to it
        ("agents", "echo", True),
        ("runs", RunQuery(limit=50)),
    ]


async def test_shutdown_is_asked_for_only_after_the_answer_is_out() -> None:
    order: list[str] = []
    app = build(FakeBackend(), order)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        order.append(message["type"])

    scope = {
        "type": "http", "method": "POST", "path": "/api/v1/shutdown", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost"), (b"authorization", b"Bearer test-token-of-forty-three-characters-in-all")],
    }  # fmt: skip
    await app(scope, receive, send)
    assert order == ["http.response.start", "http.response.body", "now"]


@pytest.mark.parametrize("error_type", ERROR_TABLE, ids=lambda t: t.__name__)
async def test_every_error_class_becomes_its_problem_and_comes_back_as_itself(error_type: type[MeshError]) -> None:
    backend = FakeBackend()
    error = error_type("it broke", why="because", hint="agentmesh doctor", extra={"near": ["a"]})
    backend.failure = error
    answer = await ask_app(build(backend), "GET", "/api/v1/peers")
    row = ERROR_TABLE[error_type]
    problem = answer.problem()
    assert (answer.status, problem.type, problem.code) == (row.http, f"/problems/{row.wire}", error.code)
    again = error_of_problem(answer.body, answer.status)
    assert type(again) is error_type
    assert (again.detail, again.code, again.why, again.hint) == ("it broke", error.code, "because", "agentmesh doctor")
    assert again.extra["near"] == ["a"]


async def test_busy_says_when_to_try_again() -> None:
    backend = FakeBackend()
    backend.failure = Busy("full", retry_after_s=2.2)
    answer = await ask_app(build(backend), "GET", "/api/v1/peers")
    assert (answer.status, answer.headers["retry-after"]) == (429, "3")


@pytest.mark.parametrize("error_type", ERROR_TABLE, ids=lambda t: t.__name__)
async def test_a_failed_call_carries_its_run_so_that_it_can_be_traced(error_type: type[MeshError]) -> None:
    backend = FakeBackend()
    backend.call_failure = error_type("no")
    answer = await ask_app(
        build(backend), "POST", "/api/v1/calls", b'{"to":"echo","text":"x","run_id":"r1","task_id":"t1"}'
    )
    problem = answer.problem()
    assert problem.status == ERROR_TABLE[error_type].http
    assert (problem.extra["run_id"], problem.extra["task_id"]) == ("r1", "t1")
    assert problem.instance == "/api/v1/runs/r1/events"


@pytest.mark.parametrize("target", ["/api/v1/peers", "/api/v1/calls"])
async def test_a_bug_is_logged_and_answered_without_its_internals(
    target: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = FakeBackend()
    backend.failure = ZeroDivisionError("secret detail")
    with caplog.at_level(logging.ERROR):
        answer = await ask_app(build(backend), "POST" if "calls" in target else "GET", target, CALL)
    assert (answer.status, answer.problem().code) == (500, "internal")
    assert b"secret" not in answer.body
    assert "ZeroDivisionError: secret detail" in caplog.text


async def test_a_problem_whose_extras_are_no_json_is_still_told() -> None:
    backend = FakeBackend()
    backend.failure = from_wire({"type": "timeout", "message": "late"})
    backend.failure.extra["odd"] = object()
    assert (await ask_app(build(backend), "GET", "/api/v1/peers")).problem().detail == "late"


async def test_unknown_paths_and_methods_are_problems_too() -> None:
    async with serving() as served:
        missing = await served.ask("GET", "/api/v1/nothing")
        assert (missing.status, missing.problem().code) == (404, "http.not_found")
        wrong = await served.ask("PUT", "/api/v1/calls", b"{}")
        assert (wrong.status, wrong.problem().code) == (405, "http.405")
        assert "POST" in wrong.headers["allow"]


ODD_KIND = b'{"events":[{"ts":1,"run_id":"b","id":"a","kind":"joke"}]}'

BAD_BODIES: list[tuple[str, str, bytes, int, str, str]] = [
    ("nothing at all", "/api/v1/calls", b"", 400, "body.malformed", "not JSON"),
    ("half an object", "/api/v1/calls", b'{"to":"echo"', 400, "body.malformed", "not JSON"),
    ("no UTF-8", "/api/v1/calls", b'{"to":"\xff"}', 400, "body.malformed", "not JSON"),
    ("half a surrogate pair", "/api/v1/calls", b'{"to":"echo","text":"\\ud800"}', 400, "body.malformed", "not JSON"),
    ("NaN", "/api/v1/calls", b'{"to":"echo","data":NaN}', 400, "body.malformed", "not JSON"),
    ("an array", "/api/v1/calls", b"[]", 422, "body.invalid", "object"),
    ("an unknown field", "/api/v1/calls", b'{"to":"echo","text":"x","txet":1}', 422, "body.invalid", "txet"),
    ("an unknown field in a registration", "/api/v1/agents", b'{"url":"http://x","nam":"y"}', 422, "body.invalid", "nam"),
    ("an unknown field in seeds", "/api/v1/peers", b'{"seeds":[],"x":1}', 422, "body.invalid", "`x`"),
    ("a wrong type", "/api/v1/calls", b'{"to":7}', 422, "body.invalid", "$.to"),
    ("a missing field", "/api/v1/calls", b'{"text":"x"}', 422, "body.invalid", "to"),
    ("a number beyond floats", "/api/v1/calls", b'{"to":"echo","data":1e999}', 422, "body.invalid", "$.data"),
    ("a number beyond 64 bits", "/api/v1/calls", b'{"to":"echo","data":[18446744073709551616]}', 422, "body.number", "64"),
    ("deep nesting", "/api/v1/calls", b'{"to":"echo","data":' + b"[" * 200 + b"]" * 200 + b"}", 413, "body.too_deep", "100"),
    ("bottomless nesting", "/api/v1/calls", b'{"to":"e","data":' + b"[" * 90000 + b"]" * 90000 + b"}", 413, "body.too_deep", ""),
    ("no callee", "/api/v1/calls", b'{"to":"","text":"x"}', 422, "call.to", "'to'"),
    ("a callee with control characters", "/api/v1/calls", b'{"to":"a\\n","text":"x"}', 422, "call.to", "'to'"),
    ("an id with a slash", "/api/v1/calls", b'{"to":"echo","text":"x","task_id":"a/b"}', 422, "call.bad_id", "task_id"),
    ("an empty id", "/api/v1/calls", b'{"to":"echo","text":"x","run_id":""}', 422, "call.bad_id", "run_id"),
    ("too many hops", "/api/v1/calls", b'{"to":"e","text":"x","hops":[' + b'"h",' * 64 + b'"h"]}', 422, "call.hops", "hops"),
    ("a long skill", "/api/v1/calls", b'{"to":"e","text":"x","skill":"' + b"s" * 301 + b'"}', 422, "call.text", "skill"),
    ("an unknown agent", "/api/v1/calls", b'{"to":"ehco","text":"x"}', 404, "not_found.agent", "ehco"),
    ("a file URL", "/api/v1/agents", b'{"url":"file:///etc/passwd"}', 422, "register.url", "http"),
    ("no seeds", "/api/v1/peers", b'{"seeds":[]}', 422, "seeds.empty", "seeds"),
    ("a long seed", "/api/v1/peers", b'{"seeds":["' + b"s" * 501 + b'"]}', 413, "seeds.too_many", "500"),
    ("an event of no kind", "/api/v1/events", ODD_KIND, 422, "body.invalid", "kind"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "body", "status", "code", "says"), [pytest.param(*row[1:], id=row[0]) for row in BAD_BODIES]
)
async def test_a_bad_body_is_refused_with_its_reason_and_reaches_nobody(
    target: str, body: bytes, status: int, code: str, says: str
) -> None:
    backend = FakeBackend()
    problem = (await ask_app(build(backend), "POST", target, body)).problem()
    assert (problem.status, problem.code) == (status, code)
    assert says in problem.detail
    assert backend.asked == [] or code == "not_found.agent"
    assert not backend.log


async def test_an_unknown_agent_gets_near_names() -> None:
    problem = (await ask_app(build(FakeBackend()), "POST", "/api/v1/calls", b'{"to":"ehco","text":"x"}')).problem()
    assert problem.extra["did_you_mean"] == ["echo"]
    assert "did you mean" in (problem.hint or "")


async def test_a_field_given_twice_counts_once_and_the_last_one_wins() -> None:
    backend = FakeBackend()
    answer = await ask_app(build(backend), "POST", "/api/v1/calls", b'{"to":"nobody","text":"x","to":"echo"}')
    assert answer.status == 200
    assert backend.asked[0][1].to == "echo"


async def test_nesting_up_to_the_limit_is_taken() -> None:
    depth = JSON_DEPTH_MAX - 1
    body = b'{"to":"echo","data":' + b"[" * depth + b"]" * depth + b"}"
    assert (await ask_app(build(FakeBackend()), "POST", "/api/v1/calls", body)).status == 200


async def test_long_digit_strings_are_no_numbers() -> None:
    body = b'{"to":"echo","text":"' + b"9" * 400 + b'"}'
    assert (await ask_app(build(FakeBackend()), "POST", "/api/v1/calls", body)).status == 200


BAD_QUERIES = [
    ("/api/v1/runs", b"limit=0"),
    ("/api/v1/runs", b"limit=1001"),
    ("/api/v1/runs", b"limit=-1"),
    ("/api/v1/runs", b"limit=1.5"),
    ("/api/v1/runs", b"limit=%D9%A3"),
    ("/api/v1/runs", b"limit=" + b"9" * 400),
    ("/api/v1/runs", b"limit=1&limit=2"),
    ("/api/v1/runs", b"limt=1"),
    ("/api/v1/runs", b"limit=%FF"),
    ("/api/v1/runs", b"\xff"),
    ("/api/v1/runs", b"a=1&" * 40),
    ("/api/v1/agents", b"unhealthy=maybe"),
    ("/api/v1/agents", b"query=" + b"q" * 1001),
    ("/api/v1/agents", b"query=" + b"q" * 20000),
    ("/api/v1/status", b"x=1"),
]


@pytest.mark.parametrize(("path", "query"), BAD_QUERIES)
async def test_a_bad_query_is_refused(path: str, query: bytes) -> None:
    backend = FakeBackend()
    answer = await ask_app(build(backend), "GET", path, query=query)
    assert (answer.status, answer.problem().code) == (422, "query.invalid")
    assert backend.asked == []


@pytest.mark.parametrize("ref", ["a" * 600, "a\x00b", "\x1b[31m"])
async def test_a_reference_that_can_be_no_name_is_refused(ref: str) -> None:
    answer = await ask_app(build(FakeBackend()), "GET", f"/api/v1/agents/{ref}")
    assert (answer.status, answer.problem().code) == (422, "path.invalid")


CAPS = [("/api/v1/calls", CALL_BYTES_MAX), ("/api/v1/events", EVENTS_BYTES_MAX), ("/api/v1/agents", BODY_BYTES_MAX)]


@pytest.mark.parametrize(("target", "bytes_max"), CAPS)
async def test_a_body_over_the_cap_is_refused_while_it_is_read(target: str, bytes_max: int) -> None:
    backend = FakeBackend()
    piece = b" " * (bytes_max // 4)
    answer = await ask_app(build(backend), "POST", target, pieces=[piece] * 4 + [b"  "] + [b""])
    problem = answer.problem()
    assert (problem.status, problem.code, problem.extra["bytes_max"]) == (413, "body.too_large", bytes_max)
    assert (await ask_app(build(backend), "POST", target, pieces=[piece] * 4)).problem().code == "body.malformed"
    assert (await ask_app(build(backend), "POST", target, b" " * (bytes_max + 1))).status == 413


async def test_a_client_that_sends_too_much_over_a_socket_still_reads_the_problem() -> None:
    async with serving() as served:
        answer = await served.ask("POST", "/api/v1/agents", b" " * (BODY_BYTES_MAX + 1))
        assert answer.problem().code == "body.too_large"


async def test_a_body_announced_as_huge_is_not_waited_for() -> None:
    async with serving() as served:
        answer = await served.ask("POST", "/api/v1/calls", b"{", {"Content-Length": str(DRAIN_BYTES_MAX + 1)})
        assert answer.problem().code == "body.too_large"
        assert answer.headers["connection"] == "close"


async def test_an_endless_chunked_body_is_cut_off() -> None:
    async with serving() as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            b"POST /api/v1/agents HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Authorization: Bearer test-token-of-forty-three-characters-in-all\r\n\r\n"
        )
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"

        async def pour() -> None:
            while True:
                writer.write(chunk)
                await writer.drain()

        # The pouring ends only because the server closes; whether the 413 still gets through the reset is up to TCP.
        async with asyncio.timeout(30):
            with pytest.raises(ConnectionError):
                await pour()
        writer.close()
        assert served.backend.asked == []
        assert (await served.ask("GET", "/health")).status == 200


async def test_events_reach_the_node_as_they_were_sent() -> None:
    backend = FakeBackend()
    events = [event(n, "tool", name="x", args={"n": n}) for n in range(1, 4)]
    body = msgspec.json.encode({"events": events})
    answer = await ask_app(build(backend), "POST", "/api/v1/events", body)
    assert answer.json() == {"stored": 3, "last_seq": 3}
    assert backend.log == events


async def test_a_client_that_stops_in_the_middle_of_its_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "BODY_TIMEOUT_S", 0.1)
    async with serving() as served:
        answer = await served.ask("POST", "/api/v1/calls", b"{", {"Content-Length": "100"})
        assert (answer.status, answer.problem().code) == (504, "body.timeout")
        assert served.backend.asked == []


async def test_a_client_that_leaves_in_the_middle_of_its_body_does_no_harm() -> None:
    async with serving() as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            b"POST /api/v1/calls HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
            b"Authorization: Bearer test-token-of-forty-three-characters-in-all\r\n\r\n{"
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await served.ask("GET", "/health")).status == 200
        assert ("call",) not in [a[:1] for a in served.backend.asked]


async def test_a_repeated_call_on_one_connection_is_answered_each_time(served_once: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served_once.port)
    for number in range(20):
        body = json.dumps({"to": "echo", "text": str(number)}).encode()
        writer.write(
            b"POST /api/v1/calls HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
            + b"Authorization: bearer test-token-of-forty-three-characters-in-all\r\n\r\n"
            + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["text"] == f"echo: {number}"
    writer.close()


@pytest.fixture
async def served_once() -> Any:
    async with serving() as served:
        yield served


async def test_a_run_is_named_in_full_by_its_reply() -> None:
    answer = await ask_app(build(FakeBackend()), "POST", "/api/v1/calls", CALL)
    assert answer.json()["run_id"] == RUN
