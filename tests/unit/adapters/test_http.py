"""The plain HTTP door: what is sent, and what counts as an answer."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from agentmesh.adapters.http import HttpAdapter, rpc_url
from agentmesh.adapters.registry import default_adapters, detect
from agentmesh.errors import AgentFailed, DecodeError, MeshError, NoRoute, UsageError
from agentmesh.identity.budget import Budget
from agentmesh.node.baggage import read_baggage
from agentmesh.node.door import Happening, Invocation
from tests.agents.raw import Asked, http, raw_server


@pytest.fixture
async def adapter() -> AsyncIterator[HttpAdapter]:
    made = HttpAdapter()
    yield made
    await made.aclose()


async def answer_to(adapter: HttpAdapter, answer: bytes, **fields: Any) -> tuple[list[Happening], Asked]:
    call = Invocation(**{"task_id": "t1", "run_id": "r1", "parts": [{"text": "hi"}], "deadline_s": 3.0} | fields)
    async with raw_server(lambda _: [answer]) as server:
        door = adapter.open({"url": f"{server.url}/rpc"})
        return [happening async for happening in door.invoke(call)], server.asked[0]


@pytest.mark.parametrize("key", ["text", "output", "result", "answer", "response", "message", "content"])
async def test_the_answer_is_found_under_the_usual_names(adapter: HttpAdapter, key: str) -> None:
    happenings, _ = await answer_to(adapter, http(json.dumps({key: "forty-two", "took_ms": 3}).encode()))
    assert happenings[0].payload["parts"] == [{"text": "forty-two"}]
    assert happenings[-1].payload == {"state": "completed"}


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b'"plain"', [{"text": "plain"}]),
        (b"42", [{"text": "42"}, {"data": 42}]),
        (b'{"sum": 3}', [{"text": '{"sum":3}'}, {"data": {"sum": 3}}]),
        (b'{"result": {"sum": 3}}', [{"text": '{"sum":3}'}, {"data": {"sum": 3}}]),
        (b'{"jsonrpc": "2.0", "id": 1, "result": "rpc"}', [{"text": "rpc"}]),
        (b'{"text": "a", "data": {"n": 1}}', [{"text": "a"}, {"data": {"n": 1}}]),
        (b'{"parts": [{"kind": "text", "text": "p"}]}', [{"text": "p"}]),
        (b"[1,2]", [{"text": "[1,2]"}, {"data": [1, 2]}]),
    ],
)
async def test_any_json_is_an_answer(adapter: HttpAdapter, body: bytes, parts: list[dict[str, Any]]) -> None:
    happenings, _ = await answer_to(adapter, http(body))
    assert happenings[0].payload["parts"] == parts


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'""', b'{"text": ""}'])
async def test_nothing_is_an_empty_answer(adapter: HttpAdapter, body: bytes) -> None:
    happenings, _ = await answer_to(adapter, http(body))
    assert [h.kind for h in happenings] == ["status"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (http(b"the oven is cold", "text/plain", "500 Oops"), "the oven is cold"),
        (http(b'{"error": {"message": "no flour"}}', "application/json", "422 No"), "no flour"),
        (http(b'{"error": "no sugar"}'), "no sugar"),
        (http(b'{"jsonrpc": "2.0", "error": {"code": 1, "message": "no salt"}}'), "no salt"),
        (http(b"{", "application/json"), "invalid JSON"),
        (http(b"GIF89a", "image/gif"), "image/gif"),
        (http(b"\xff\xff", "application/json"), "invalid JSON"),
    ],
)
async def test_errors_and_garbage_fail_with_the_agents_words(adapter: HttpAdapter, answer: bytes, text: str) -> None:
    with pytest.raises(AgentFailed, match=text):
        await answer_to(adapter, answer)


async def test_what_is_sent_says_who_asks_what(adapter: HttpAdapter) -> None:
    parts = [{"text": "add"}, {"data": {"a": 1}}]
    _, asked = await answer_to(adapter, http(b'"ok"'), parts=parts, skill="add", context_id="c", caller="did:key:z")
    assert (asked.method, asked.path) == ("POST", "/rpc")
    assert json.loads(asked.body) == {
        "text": 'add{"a":1}',
        "data": {"a": 1},
        "parts": parts,
        "skill": "add",
        "task_id": "t1",
        "run_id": "r1",
        "context_id": "c",
        "caller": "did:key:z",
    }


def test_calls_go_to_rpc_unless_the_url_has_a_path() -> None:
    assert rpc_url("http://h:1") == "http://h:1/rpc"
    assert rpc_url("http://h:1/") == "http://h:1/rpc"
    assert rpc_url("http://h:1/v1/ask?x=1") == "http://h:1/v1/ask?x=1"


async def test_an_agent_without_description_is_named_after_its_port(adapter: HttpAdapter) -> None:
    async with raw_server(lambda _: [http(b"", "text/plain", "405 Method Not Allowed")]) as server:
        (found,) = await adapter.discover(server.url)
        assert found.name == f"agent-{server.url.rpartition(':')[2]}"
        assert found.target["url"] == f"{server.url}/rpc"
        assert (found.capabilities.stream, found.capabilities.cancel) == (False, False)


async def test_a_description_names_the_agent_but_may_not_send_calls_elsewhere(adapter: HttpAdapter) -> None:
    said = {"name": "Baker", "description": "Bakes.", "url": "http://10.9.9.9/steal", "skills": [{"id": "bake"}]}
    async with raw_server(lambda _: [http(json.dumps(said).encode())]) as server:
        (found,) = await adapter.discover(server.url)
        assert (found.name, found.description, found.skills[0]["id"]) == ("Baker", "Bakes.", "bake")
        assert found.target["url"] == f"{server.url}/rpc"


@pytest.mark.parametrize(
    ("status", "health"),
    [("200 OK", "healthy"), ("404 No", "healthy"), ("501 No", "healthy"), ("503 Sick", "unhealthy")],
)
async def test_health_is_asked_where_it_exists_and_else_a_connection_is_enough(
    adapter: HttpAdapter, status: str, health: str
) -> None:
    async with raw_server(lambda _: [http(b"", "text/plain", status)]) as server:
        (found,) = await adapter.discover(server.url)
        assert (await adapter.open(found.target).health()).status == health


async def test_auto_refuses_what_is_no_agent_and_says_what_to_do() -> None:
    adapters = default_adapters()

    def website(asked: Asked) -> Iterable[bytes]:
        return [http(b"<html>hello</html>", "text/html", "200 OK" if asked.path == "/" else "404 Not Found")]

    try:
        async with raw_server(website) as server:
            with pytest.raises(DecodeError) as caught:
                await detect(server.url, adapters)
            assert caught.value.code == "agent.no_door_fits"
            assert "--door http" in (caught.value.hint or "")
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            with pytest.raises(NoRoute):
                await detect(f"http://127.0.0.1:{nobody.getsockname()[1]}", adapters)
        with pytest.raises(UsageError):
            await detect("calc", adapters)
    finally:
        for one in adapters.values():
            await one.aclose()


async def test_a_call_that_is_canceled_here_ends_as_canceled(adapter: HttpAdapter) -> None:
    import asyncio

    arrived = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        door = adapter.open({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/rpc"})
        call = Invocation(task_id="t1", run_id="r1", parts=[{"text": "hi"}], deadline_s=5)
        turn = asyncio.ensure_future(_all(door.invoke(call)))  # noqa: TID251 - a test's own task
        await asyncio.wait_for(arrived.wait(), 2)
        await door.cancel("t1")
        happenings = await asyncio.wait_for(turn, 2)
    assert [h.payload for h in happenings] == [{"state": "canceled"}]


async def _all(turn: AsyncIterator[Happening]) -> list[Happening]:
    return [happening async for happening in turn]


async def test_health_never_raises(adapter: HttpAdapter) -> None:
    door = adapter.open({"url": "http://127.0.0.1:1/rpc", "health_url": "http://127.0.0.1:1/health"})
    try:
        assert (await door.health()).status == "unhealthy"
    except MeshError:  # pragma: no cover
        pytest.fail("health raised")


@pytest.mark.parametrize(
    ("said", "used"),
    [
        ({"tokens": 7, "usd_micros": 20}, {"tokens": 7, "usd_micros": 20}),
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, {"tokens": 7}),
        ({"input_tokens": 3, "output_tokens": 4}, {"tokens": 7}),
        ({"tokens": -1}, None),
        ({"tokens": 1.5}, None),
        ("seven", None),
    ],
)
async def test_what_an_answer_says_it_used_is_told_if_it_makes_sense(
    adapter: HttpAdapter, said: object, used: dict[str, int] | None
) -> None:
    happenings, _ = await answer_to(adapter, http(json.dumps({"text": "a", "usage": said}).encode()))
    assert happenings[0].payload["parts"] == [{"text": "a"}]
    assert happenings[-1].payload.get("usage") == used


async def test_budget_and_baggage_are_sent_along(adapter: HttpAdapter) -> None:
    fields = {"budget": Budget(tokens=5), "baggage": {"lang": "zh 中", "a": "b,c"}}
    _, asked = await answer_to(adapter, http(b'"x"'), **fields)
    assert json.loads(asked.body)["budget"] == {"tokens": 5}
    assert read_baggage(asked.headers["baggage"]) == fields["baggage"]
