"""The A2A door against answers that no well-behaved server gives; the contract suite has the well-behaved ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from agentmesh.adapters.a2a import A2AAdapter
from agentmesh.errors import AgentFailed, Closed, MeshError
from agentmesh.node.door import Door, Happening, Invocation
from tests.agents.raw import Asked, bitwise, http, raw_server, unended


@pytest.fixture
async def adapter() -> AsyncIterator[A2AAdapter]:
    made = A2AAdapter()
    yield made
    await made.aclose()


def door(adapter: A2AAdapter, url: str, **target: Any) -> Door:
    return adapter.open({"url": url, "binding": "JSONRPC", "version": "1.0", "streaming": True} | target)


def call(**fields: Any) -> Invocation:
    return Invocation(
        **{"task_id": "t" * 32, "run_id": "r" * 32, "parts": [{"text": "hi"}], "deadline_s": 3.0} | fields
    )


async def collect(door: Door, **fields: Any) -> list[Happening]:
    return [happening async for happening in door.invoke(call(**fields))]


def event(result: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}, ensure_ascii=False).encode() + b"\n\n"


def result(body: dict[str, Any]) -> bytes:
    return http(json.dumps({"jsonrpc": "2.0", "id": 1, "result": body}).encode())


def problem(code: int, message: str) -> bytes:
    return http(json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}).encode())


def by_method(answers: dict[str, bytes]) -> Callable[[Asked], Iterable[bytes]]:
    def answer(asked: Asked) -> Iterable[bytes]:
        return [answers.get(json.loads(asked.body)["method"], problem(-32601, "Method not found"))]

    return answer


WORKING = {"statusUpdate": {"taskId": "t1", "contextId": "c1", "status": {"state": "TASK_STATE_WORKING"}}}
DONE = {"task": {"id": "t1", "status": {"state": "TASK_STATE_COMPLETED"}, "artifacts": [
    {"artifactId": "a", "parts": [{"text": "42"}]}]}}  # fmt: skip


async def test_characters_cut_into_single_bytes_arrive_whole(adapter: A2AAdapter) -> None:
    whole = unended(event({"message": {"role": "ROLE_AGENT", "parts": [{"text": "你好🙂é"}]}}), "text/event-stream")
    async with raw_server(lambda _: bitwise(whole)) as server:
        happenings = await collect(door(adapter, server.url))
    assert happenings[0].payload["parts"] == [{"text": "你好🙂é"}]


async def test_a_stream_that_dies_is_taken_up_again_once(adapter: A2AAdapter) -> None:
    answers = {
        "SendStreamingMessage": unended(event(WORKING), "text/event-stream"),
        "SubscribeToTask": unended(event(DONE), "text/event-stream"),
    }
    async with raw_server(by_method(answers)) as server:
        happenings = await collect(door(adapter, server.url))
        asked = [json.loads(a.body)["method"] for a in server.asked]
    assert asked == ["SendStreamingMessage", "SubscribeToTask"]
    assert [h.payload.get("state") for h in happenings] == ["working", None, "completed"]


async def test_a_stream_that_cannot_be_resumed_is_polled(adapter: A2AAdapter) -> None:
    answers = {
        "SendStreamingMessage": unended(event(WORKING), "text/event-stream"),
        "SubscribeToTask": problem(-32004, "no"),
        "GetTask": result(DONE["task"]),
    }
    async with raw_server(by_method(answers)) as server:
        happenings = await collect(door(adapter, server.url))
    assert happenings[-1].payload["state"] == "completed"


async def test_a_stream_that_dies_for_good_is_closed_and_nothing_is_retried_for_ever(adapter: A2AAdapter) -> None:
    async with raw_server(by_method({"SendStreamingMessage": unended(event(WORKING), "text/event-stream")})) as server:
        with pytest.raises(Closed) as caught:
            await collect(door(adapter, server.url))
        asked = [json.loads(a.body)["method"] for a in server.asked]
    assert caught.value.code == "agent.closed"
    assert asked == ["SendStreamingMessage", "SubscribeToTask", "GetTask", "CancelTask"]


async def test_an_agent_that_refuses_to_stream_is_asked_without(adapter: A2AAdapter) -> None:
    answers = {"SendStreamingMessage": problem(-32004, "no streaming"), "SendMessage": result(DONE)}
    async with raw_server(by_method(answers)) as server:
        assert (await collect(door(adapter, server.url)))[-1].payload["state"] == "completed"


async def test_an_endpoint_that_knows_only_the_other_version_is_spoken_to_in_it(adapter: A2AAdapter) -> None:
    old = {"kind": "message", "role": "agent", "parts": [{"kind": "text", "text": "old"}]}
    async with raw_server(by_method({"message/stream": unended(event(old), "text/event-stream")})) as server:
        one = door(adapter, server.url)
        happenings = await collect(one)
        await collect(one)
        versions = [a.headers["a2a-version"] for a in server.asked]
        sent = json.loads(server.asked[1].body)["params"]["message"]
    assert happenings[0].payload["parts"] == [{"text": "old"}]
    assert versions == ["1.0", "0.3", "0.3"]  # it is remembered
    assert (sent["role"], sent["parts"]) == ("user", [{"kind": "text", "text": "hi"}])


async def test_a_question_is_answered_in_the_task_that_asked(adapter: A2AAdapter) -> None:
    asking = {"statusUpdate": {"taskId": "t1", "contextId": "c1", "status": {
        "state": "TASK_STATE_INPUT_REQUIRED", "message": {"role": "ROLE_AGENT", "parts": [{"text": "which?"}]}}}}  # fmt: skip
    async with raw_server(by_method({"SendStreamingMessage": unended(event(asking), "text/event-stream")})) as server:
        one = door(adapter, server.url)
        happenings = await collect(one, context_id="mine")
        await collect(one, context_id="mine")
        first, second = (json.loads(a.body)["params"]["message"] for a in server.asked)
    assert happenings[-1].payload == {"state": "input-required", "context_id": "mine"}
    assert (first["contextId"], first.get("taskId")) == ("mine", None)
    assert (second["contextId"], second["taskId"]) == ("c1", "t1")


async def test_skill_metadata_and_trace_context_are_sent_along(adapter: A2AAdapter) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with raw_server(by_method({"SendMessage": result(DONE)})) as server:
        await collect(
            door(adapter, server.url, streaming=False, tenant="acme"), skill="add", metadata={"k": 1}, traceparent=trace
        )
        params = json.loads(server.asked[0].body)["params"]
    assert params["metadata"] == {"k": 1, "skill": "add"}
    assert params["tenant"] == "acme"
    assert server.asked[0].headers["traceparent"] == trace


GARBAGE = [
    http(b"<html>hello</html>", "text/html"),
    http(b"{", "application/json"),
    http(b"[]", "application/json"),
    http(b'{"jsonrpc": "2.0", "id": 1}'),
    http(b'{"jsonrpc": "2.0", "id": 1, "result": 7}'),
    http(b"[" * 100_000),
    http(b'{"error": "no"}'),
    http(b"nope", "text/plain", "503 Service Unavailable"),
    unended(b"data: {\n\n", "text/event-stream"),
    unended(b"data: [1]\n\n", "text/event-stream"),
    unended(b"no such field\n\n", "text/event-stream"),
    unended(event({"odd": 1}), "text/event-stream"),
    unended(b"", "text/event-stream"),
    b"",
    b"\xff\xfe\x00garbage\r\n\r\n",
]


@pytest.mark.parametrize("answer", GARBAGE)
@pytest.mark.parametrize("streaming", [True, False])
async def test_garbage_is_a_clear_error_and_never_an_answer(
    adapter: A2AAdapter, answer: bytes, streaming: bool
) -> None:
    async with raw_server(lambda _: [answer]) as server:
        with pytest.raises((AgentFailed, Closed)) as caught:
            await collect(door(adapter, server.url, streaming=streaming))
    assert caught.value.detail


async def test_the_agents_json_rpc_error_arrives_with_its_text(adapter: A2AAdapter) -> None:
    async with raw_server(lambda _: [problem(-32603, "the database is on fire")]) as server:
        with pytest.raises(AgentFailed, match="the database is on fire") as caught:
            await collect(door(adapter, server.url))
    assert caught.value.extra["rpc_code"] == -32603


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"name": "x"}', b"[" * 100_000])
async def test_what_is_no_card_is_not_this_door(adapter: A2AAdapter, body: bytes) -> None:
    async with raw_server(lambda _: [http(body)]) as server:
        with pytest.raises(MeshError) as caught:
            await adapter.discover(server.url)
    assert caught.value.code == "agent.not_this_door"
