"""The A2A endpoint of each agent, driven by the unmodified official a2a-sdk client, in 1.0 and in 0.3."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from a2a.client import ClientConfig, ClientFactory, create_client
from a2a.client.client import Client
from a2a.client.errors import A2AClientError
from a2a.helpers.proto_helpers import get_artifact_text, get_message_text, new_text_message
from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskState,
)
from a2a.utils.errors import (
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from agentmesh.api.a2a import A2AEdge
from agentmesh.errors import NoRoute
from tests.api.a2a_double import EXT, Double, ScriptedCall, serving

BINDINGS = ["JSONRPC", "HTTP+JSON"]
#: Names that A2A requests use, so that random JSON gets past the first check.
FIELDS = ["message", "request", "messageId", "role", "parts", "text", "data", "raw", "url", "taskId", "contextId", "id"]
FIELDS += ["configuration", "metadata", "historyLength", "content", "params", "kind", "tenant"]


@pytest.fixture
def node() -> Double:
    return Double()


@pytest_asyncio.fixture
async def base(node: Double) -> AsyncIterator[str]:
    async with serving(node) as url:
        yield url


async def client_for(url: str, binding: str = "JSONRPC", *, streaming: bool = True) -> Client:
    config = ClientConfig(
        streaming=streaming,
        httpx_client=httpx.AsyncClient(timeout=20),
        supported_protocol_bindings=[binding],
        use_client_preference=True,
    )
    return await create_client(url, config)


def ask(text: str = "hi", **more: Any) -> SendMessageRequest:
    message = new_text_message(text, role=Role.ROLE_USER)
    for name in ("task_id", "context_id"):
        if name in more:
            setattr(message, name, more.pop(name))
    return SendMessageRequest(message=message, **more)


async def collect(client: Client, request: SendMessageRequest) -> list[StreamResponse]:
    return [response async for response in client.send_message(request)]


async def result(client: Client, request: SendMessageRequest) -> Task:
    responses = await collect(client, request)
    assert [r.WhichOneof("payload") for r in responses] == ["task"]
    return responses[0].task


def chunks(responses: list[StreamResponse], artifact_id: str = "response") -> str:
    updates = [r.artifact_update for r in responses if r.WhichOneof("payload") == "artifact_update"]
    return "".join(p.text for u in updates if u.artifact.artifact_id == artifact_id for p in u.artifact.parts)


def states(responses: list[StreamResponse]) -> list[int]:
    return [r.status_update.status.state for r in responses if r.WhichOneof("payload") == "status_update"]


def mesh_of(metadata: Struct) -> dict[str, Any]:
    return MessageToDict(metadata)[EXT]


@pytest.mark.parametrize("binding", BINDINGS)
class TestOfficialClient:
    async def test_send_returns_the_finished_task_with_its_text(self, base: str, node: Double, binding: str) -> None:
        client = await client_for(f"{base}/echo", binding, streaming=False)
        task = await result(client, ask("hello"))
        assert task.status.state == TaskState.TASK_STATE_COMPLETED
        assert [get_artifact_text(a) for a in task.artifacts] == ["echo: hello"]
        about = mesh_of(task.metadata)
        call = node.calls[task.id]
        assert (about["run_id"], about["task_id"]) == (call.run_id, task.id)
        assert get_message_text(task.history[0]) == "hello"
        assert node.requests[0].context_id == task.context_id

    async def test_stream_shows_the_task_first_then_chunks_then_one_terminal_status(
        self, base: str, binding: str
    ) -> None:
        responses = await collect(await client_for(f"{base}/echo", binding), ask("hello"))
        assert responses[0].WhichOneof("payload") == "task"
        assert chunks(responses) == "echo: hello"
        assert states(responses) == [TaskState.TASK_STATE_WORKING, TaskState.TASK_STATE_COMPLETED]
        updates = [r.artifact_update for r in responses if r.WhichOneof("payload") == "artifact_update"]
        assert [u.append for u in updates] == [False, True, True, True]
        assert [u.last_chunk for u in updates] == [False, False, False, True]

    async def test_get_and_list_work_after_the_task_is_over(self, base: str, binding: str) -> None:
        client = await client_for(f"{base}/echo", binding, streaming=False)
        tasks = [await result(client, ask(str(n))) for n in range(3)]
        got = await client.get_task(GetTaskRequest(id=tasks[0].id))
        assert got == tasks[0]
        short = await client.get_task(GetTaskRequest(id=tasks[0].id, history_length=0))
        assert not short.history
        page = await client.list_tasks(ListTasksRequest(page_size=2))
        assert page.total_size == 3
        assert len(page.tasks) == 2
        assert not page.tasks[0].artifacts
        rest = await client.list_tasks(
            ListTasksRequest(page_size=2, page_token=page.next_page_token, include_artifacts=True)
        )
        assert not rest.next_page_token
        assert len(rest.tasks) == 1
        assert rest.tasks[0].artifacts
        assert {t.id for t in [*page.tasks, *rest.tasks]} == {t.id for t in tasks}
        one = await client.list_tasks(ListTasksRequest(context_id=tasks[1].context_id))
        assert [t.id for t in one.tasks] == [tasks[1].id]

    async def test_a_second_connection_can_subscribe_and_misses_nothing(
        self, base: str, node: Double, binding: str
    ) -> None:
        first = await client_for(f"{base}/slow", binding)
        stream = first.send_message(ask())
        task_id = (await anext(stream)).task.id
        await node.started.wait()
        second = await client_for(f"{base}/slow", binding)
        seen: list[StreamResponse] = []
        async for response in second.subscribe(SubscribeToTaskRequest(id=task_id)):
            seen.append(response)
            node.gate.set()
        assert seen[0].task.status.state == TaskState.TASK_STATE_WORKING
        assert get_artifact_text(seen[0].task.artifacts[0]) + chunks(seen) == "one two"
        assert states(seen) == [TaskState.TASK_STATE_COMPLETED]
        assert chunks([response async for response in stream]) == "one two"

    async def test_a_client_that_goes_away_does_not_stop_its_task(self, base: str, node: Double, binding: str) -> None:
        client = await client_for(f"{base}/slow", binding)
        stream = client.send_message(ask())
        task_id = (await anext(stream)).task.id
        await node.started.wait()
        await client.close()
        other = await client_for(f"{base}/slow", binding)
        stream = other.subscribe(SubscribeToTaskRequest(id=task_id))
        await anext(stream)
        node.gate.set()
        last = [r async for r in stream][-1]
        assert last.status_update.status.state == TaskState.TASK_STATE_COMPLETED

    async def test_cancel_reaches_the_agent_and_ends_the_stream(self, base: str, node: Double, binding: str) -> None:
        client = await client_for(f"{base}/slow", binding)
        stream = client.send_message(ask())
        task_id = (await anext(stream)).task.id
        await node.started.wait()
        canceled = await client.cancel_task(CancelTaskRequest(id=task_id))
        assert canceled.status.state == TaskState.TASK_STATE_CANCELED
        driver = node.calls[task_id].driver
        assert driver is not None
        assert driver.done()
        assert states([r async for r in stream])[-1] == TaskState.TASK_STATE_CANCELED
        with pytest.raises(TaskNotCancelableError):
            await client.cancel_task(CancelTaskRequest(id=task_id))

    async def test_return_immediately_gives_a_running_task(self, base: str, node: Double, binding: str) -> None:
        client = await client_for(f"{base}/slow", binding, streaming=False)
        task = await result(client, ask(configuration=SendMessageConfiguration(return_immediately=True)))
        assert task.status.state == TaskState.TASK_STATE_SUBMITTED
        await node.started.wait()
        with pytest.raises(UnsupportedOperationError, match="at work"):
            await collect(client, ask(task_id=task.id))
        node.gate.set()

    async def test_a_failing_agent_gives_a_failed_task_with_its_text(self, base: str, binding: str) -> None:
        client = await client_for(f"{base}/fail", binding, streaming=False)
        task = await result(client, ask())
        assert task.status.state == TaskState.TASK_STATE_FAILED
        assert get_message_text(task.status.message) == "division by zero"
        assert mesh_of(task.metadata)["error"]["hint"] == "use another number"

    async def test_an_agent_that_cannot_be_reached_gives_a_failed_task_that_says_so(
        self, base: str, binding: str
    ) -> None:
        task = await result(await client_for(f"{base}/gone", binding, streaming=False), ask())
        assert task.status.state == TaskState.TASK_STATE_FAILED
        assert "no living replica" in get_message_text(task.status.message)

    async def test_a_question_is_asked_and_the_answer_continues_the_task(
        self, base: str, node: Double, binding: str
    ) -> None:
        client = await client_for(f"{base}/ask", binding, streaming=False)
        asked = await result(client, ask("weather"))
        assert asked.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
        assert get_message_text(asked.status.message) == "Which city?"
        done = await result(client, ask("Köln", task_id=asked.id))
        assert done.id == asked.id
        assert done.status.state == TaskState.TASK_STATE_COMPLETED
        assert get_artifact_text(done.artifacts[-1]) == "Weather of Köln: fine"
        assert [get_message_text(m) for m in done.history] == ["weather", "Which city?", "Köln"]
        first, second = node.requests
        assert second.run_id == node.calls[asked.id].run_id
        assert second.parent_task_id == first.task_id
        with pytest.raises(UnsupportedOperationError, match="over"):
            await result(client, ask(task_id=asked.id))

    async def test_a_waiting_task_can_be_canceled(self, base: str, binding: str) -> None:
        client = await client_for(f"{base}/ask", binding, streaming=False)
        asked = await result(client, ask())
        canceled = await client.cancel_task(CancelTaskRequest(id=asked.id))
        assert canceled.status.state == TaskState.TASK_STATE_CANCELED

    async def test_artifacts_keep_their_ids_data_and_order(self, base: str, binding: str) -> None:
        task = await result(await client_for(f"{base}/files", binding, streaming=False), ask())
        assert [a.artifact_id for a in task.artifacts] == ["table", "log", "odd"]
        assert MessageToDict(task.artifacts[0].parts[0])["data"] == {"n": 3, "x": 1.5}
        assert "".join(p.text for p in task.artifacts[1].parts) == "ab"
        assert MessageToDict(task.artifacts[2].parts[0])["data"] == {"nan": "nan", "raw": "AA=="}

    async def test_unknown_tasks_other_contexts_and_bad_pages_are_refused(self, base: str, binding: str) -> None:
        client = await client_for(f"{base}/ask", binding, streaming=False)
        for attempt in (
            client.get_task(GetTaskRequest(id="nope")),
            client.cancel_task(CancelTaskRequest(id="nope")),
            collect(client, ask(task_id="nope")),
        ):
            with pytest.raises(TaskNotFoundError):
                await attempt
        asked = await result(client, ask())
        with pytest.raises(InvalidParamsError):
            await collect(client, ask(task_id=asked.id, context_id="another"))
        with pytest.raises(InvalidParamsError):
            await client.list_tasks(ListTasksRequest(page_size=5000))
        with pytest.raises(InvalidParamsError):
            await client.list_tasks(ListTasksRequest(page_token="!!"))

    async def test_a_task_belongs_to_the_agent_it_was_sent_to(self, base: str, binding: str) -> None:
        task = await result(await client_for(f"{base}/echo", binding, streaming=False), ask())
        other = await client_for(f"{base}/fail", binding, streaming=False)
        with pytest.raises(TaskNotFoundError):
            await other.get_task(GetTaskRequest(id=task.id))
        assert (await other.list_tasks(ListTasksRequest())).total_size == 0

    async def test_push_notifications_are_refused_not_forgotten(self, base: str, binding: str) -> None:
        client = await client_for(f"{base}/echo", binding, streaming=False)
        configuration = SendMessageConfiguration()
        configuration.task_push_notification_config.url = "http://127.0.0.1:9/hook"
        with pytest.raises(PushNotificationNotSupportedError):
            await result(client, ask(configuration=configuration))

    async def test_fifty_agents_calls_at_once_do_not_mix(self, base: str, binding: str) -> None:
        client = await client_for(f"{base}/echo", binding, streaming=False)
        tasks = await asyncio.gather(*(result(client, ask(f"n{n}")) for n in range(50)))
        assert [get_artifact_text(t.artifacts[0]) for t in tasks] == [f"echo: n{n}" for n in range(50)]


async def test_tool_and_reasoning_events_travel_in_the_extension_metadata(base: str) -> None:
    responses = await collect(await client_for(f"{base}/thinker"), ask())
    notes = [mesh_of(r.status_update.metadata) for r in responses if r.WhichOneof("payload") == "status_update"]
    assert notes[0]["reasoning"] == {"text": "hm"}
    assert notes[1]["tool"] == {"name": "search", "args": {"q": "x"}, "result": {"n": 1}}
    assert "tool" not in notes[-1]
    assert all(note["run_id"] == notes[0]["run_id"] and note["node_id"] == "did:key:node" for note in notes)


async def test_whole_messages_are_parts_of_their_own(base: str) -> None:
    task = await result(await client_for(f"{base}/thinker", streaming=False), ask())
    assert [p.text for p in task.artifacts[0].parts] == ["first", "second"]


async def test_extension_metadata_of_the_message_steers_the_call(base: str, node: Double) -> None:
    request = ask()
    request.message.metadata.CopyFrom(
        ParseDict(
            {
                EXT: {
                    "skill": "s",
                    "timeout_s": 3,
                    "run_id": "r" * 32,
                    "parent_task_id": "p",
                    "lamport": 9,
                    "hops": ["a"],
                },
                "mine": {"n": 3},
            },
            Struct(),
        )
    )
    await collect(await client_for(f"{base}/echo@node-b"), request)
    call = node.requests[0]
    assert (call.to, call.skill, call.timeout_s, call.run_id) == ("echo@node-b", "s", 3.0, "r" * 32)
    assert (call.parent_task_id, call.lamport, call.hops) == ("p", 9, ["a"])
    assert call.metadata == {"mine": {"n": 3}}


async def test_whole_numbers_in_data_parts_reach_the_agent_as_integers(base: str, node: Double) -> None:
    request = ask()
    del request.message.parts[:]
    request.message.parts.add().data.CopyFrom(
        ParseDict({"n": 3, "x": 1.5, "many": [1, 2.0]}, request.message.parts.add().data)
    )
    del request.message.parts[1:]
    await collect(await client_for(f"{base}/echo"), request)
    assert json.dumps(node.requests[0].parts[0]["data"], sort_keys=True) == '{"many": [1, 2], "n": 3, "x": 1.5}'


async def test_a_task_that_is_no_longer_kept_is_rebuilt_from_its_events(node: Double) -> None:
    async with serving(node) as base:
        task = await result(await client_for(f"{base}/echo", streaming=False), ask("hello"))
    async with serving(node) as base:
        client = await client_for(f"{base}/echo", streaming=False)
        again = await client.get_task(GetTaskRequest(id=task.id))
        assert again.status.state == TaskState.TASK_STATE_COMPLETED
        assert get_artifact_text(again.artifacts[0]) == "echo: hello"
        assert get_message_text(again.history[0]) == "hello"
        with pytest.raises(TaskNotFoundError):
            await (await client_for(f"{base}/fail")).get_task(GetTaskRequest(id=task.id))


async def test_closing_the_edge_ends_open_streams_with_a_terminal_status(node: Double) -> None:
    async with serving(node) as base:
        client = await client_for(f"{base}/slow")
        reading = asyncio.ensure_future(collect(client, ask()))  # noqa: TID251
        await node.started.wait()
    assert states(await reading)[-1] == TaskState.TASK_STATE_CANCELED


async def test_tasks_of_an_agent_that_left_can_still_be_read(base: str, node: Double) -> None:
    client = await client_for(f"{base}/echo", streaming=False)
    task = await result(client, ask())
    del node.behaviours["echo"]
    assert (await client.get_task(GetTaskRequest(id=task.id))).id == task.id


async def test_the_card_names_this_nodes_addresses_and_keeps_the_extension(base: str) -> None:
    async with httpx.AsyncClient() as http:
        card = (await http.get(f"{base}/echo/.well-known/agent-card.json")).json()
        manifest = (await http.get(f"{base}/echo/manifest.json")).json()
    assert {(i["url"], i["protocolBinding"], i["protocolVersion"]) for i in card["supportedInterfaces"]} == {
        (f"{base}/echo", "JSONRPC", "1.0"),
        (f"{base}/echo", "HTTP+JSON", "1.0"),
        (f"{base}/echo", "JSONRPC", "0.3"),
    }
    assert (card["url"], card["preferredTransport"], card["protocolVersion"]) == (f"{base}/echo", "JSONRPC", "0.3.0")
    assert card["capabilities"]["extensions"][0]["params"]["agent_id"] == "did:key:agent"
    assert card["capabilities"]["streaming"] is True
    assert not card["capabilities"].get("pushNotifications")
    assert "signatures" not in card
    assert "securitySchemes" not in card
    assert manifest["signatures"]


async def test_a_forwarded_port_gets_a_card_with_its_own_address(base: str) -> None:
    async with httpx.AsyncClient() as http:
        path = f"{base}/echo/.well-known/agent-card.json"
        tunnel = (await http.get(path, headers={"host": "localhost:9999"})).json()
        foreign = (await http.get(path, headers={"host": "evil.example"})).json()
    assert tunnel["url"] == "http://localhost:9999/a2a/echo"
    assert foreign["url"] == f"{base}/echo"


async def rpc(url: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx.AsyncClient(timeout=20) as http:
        return await http.post(url, content=content, headers={"content-type": "application/json", **headers})


def rpc_call(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


MESSAGE = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}
MESSAGE_03 = {"kind": "message", "messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_1_0_method_without_version_header_is_taken_as_1_0(base: str, slash: str) -> None:
    answer = (await rpc(f"{base}/echo{slash}", rpc_call("SendMessage", {"message": MESSAGE}))).json()
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_rest_path_without_version_header_is_taken_as_1_0(base: str) -> None:
    answer = (await rpc(f"{base}/echo/message:send", {"message": MESSAGE})).json()
    assert answer["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


class TestOlderClient:
    async def test_a_0_3_client_sends_gets_and_cancels_over_json_rpc(self, base: str, node: Double) -> None:
        url = f"{base}/echo"
        task = (await rpc(url, rpc_call("message/send", {"message": MESSAGE_03}))).json()["result"]
        assert (task["kind"], task["status"]["state"]) == ("task", "completed")
        assert task["artifacts"][0]["parts"] == [{"kind": "text", "text": "echo: hi"}]
        got = (await rpc(url, rpc_call("tasks/get", {"id": task["id"]}))).json()["result"]
        assert got["id"] == task["id"]
        refused = (await rpc(url, rpc_call("tasks/cancel", {"id": task["id"]}))).json()["error"]
        assert refused["code"] == -32002
        missing = (await rpc(url, rpc_call("tasks/get", {"id": "nope"}))).json()["error"]
        assert missing["code"] == -32001

    async def test_a_0_3_client_streams_and_resubscribes(self, base: str, node: Double) -> None:
        url = f"{base}/slow"

        async def stream(method: str, params: Any) -> list[dict[str, Any]]:
            got: list[dict[str, Any]] = []
            async with (
                httpx.AsyncClient(timeout=20) as http,
                http.stream("POST", url, json=rpc_call(method, params)) as response,
            ):
                async for line in response.aiter_lines():
                    if line.startswith("data:"):
                        got.append(json.loads(line[5:])["result"])
                        if got[-1]["kind"] == "task":
                            ids.put_nowait(got[-1]["id"])
            return got

        ids: asyncio.Queue[str] = asyncio.Queue()
        first = asyncio.ensure_future(stream("message/stream", {"message": MESSAGE_03}))  # noqa: TID251
        task_id = await ids.get()
        await node.started.wait()
        second = asyncio.ensure_future(stream("tasks/resubscribe", {"id": task_id}))  # noqa: TID251
        await ids.get()
        node.gate.set()
        for events in (await first, await second):
            assert events[0]["kind"] == "task"
            assert events[-1]["kind"] == "status-update"
            assert events[-1]["final"] is True
            assert events[-1]["status"]["state"] == "completed"

    async def test_a_0_3_client_uses_rest_under_v1(self, base: str) -> None:
        body = {"request": {"messageId": "m", "role": "ROLE_USER", "content": [{"text": "hi"}]}}
        answer = await rpc(f"{base}/echo/v1/message:send", body)
        assert answer.json()["task"]["status"]["state"] == "TASK_STATE_COMPLETED"

    async def test_the_sdks_own_0_3_transport_is_chosen_by_a_0_3_card(self, base: str) -> None:
        from a2a.client.card_resolver import parse_agent_card

        async with httpx.AsyncClient(timeout=20) as http:
            card = (await http.get(f"{base}/echo/.well-known/agent-card.json")).json()
            del card["supportedInterfaces"]
            client = ClientFactory(ClientConfig(httpx_client=http)).create(parse_agent_card(card))
            responses = await collect(client, ask("old"))
            assert chunks(responses) == "echo: old"
            assert states(responses)[-1] == TaskState.TASK_STATE_COMPLETED


class TestBadInput:
    async def test_an_unknown_agent_is_404_with_near_names(self, base: str) -> None:
        url = f"{base}/ecoh"
        answer = await rpc(url, rpc_call("SendMessage", {"message": MESSAGE}))
        assert answer.status_code == 404
        assert answer.json()["id"] == 7
        assert "'echo'" in answer.json()["error"]["message"]
        rest = await rpc(f"{url}/message:send", {"message": MESSAGE})
        assert rest.status_code == 404
        assert "'echo'" in rest.json()["error"]["message"]
        async with httpx.AsyncClient() as http:
            for path in (".well-known/agent-card.json", "manifest.json", "tasks/x"):
                assert (await http.get(f"{url}/{path}")).status_code == 404
        with pytest.raises(A2AClientError):
            await client_for(url)

    async def test_a_body_over_the_cap_is_413(self, base: str, node: Double) -> None:
        big = json.dumps(
            rpc_call("SendMessage", {"message": {**MESSAGE, "parts": [{"text": "x" * (9 << 20)}]}})
        ).encode()
        for path in ("echo", "echo/message:send"):
            assert (await rpc(f"{base}/{path}", big)).status_code == 413
        assert not node.requests

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"{", -32700),
            (b"", -32700),
            (b"\xff\xfe", -32700),
            (b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":' + b"[" * 5000 + b"]" * 5000 + b"}", -32600),
            (b"[]", -32600),
            (b'"x"', -32600),
            (b'{"jsonrpc":"1.0","id":1,"method":"SendMessage"}', -32600),
            (b'{"jsonrpc":"2.0","id":1,"method":"Nope"}', -32601),
            (b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":5}}', -32602),
            (b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{}}', -32602),
        ],
    )
    async def test_what_is_no_request_gets_a_json_rpc_error(self, base: str, body: bytes, code: int) -> None:
        answer = await rpc(f"{base}/echo", body)
        assert answer.status_code in (200, 413)
        assert answer.json()["error"]["code"] == code

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "message:send", b"{"),
            ("POST", "message:send", b"\xff"),
            ("POST", "message:send", b""),
            ("POST", "message:send", b"[]"),
            ("POST", "message:send", b'"x"'),
            ("POST", "message:send", b"null"),
            ("POST", "message:send", b'{"message": {"messageId": 5, "role": 99, "parts": 7}}'),
            (
                "POST",
                "message:send",
                b'{"message": {"messageId": "\\ud800", "role": "ROLE_USER", "parts": [{"text": "a"}]}}',
            ),
            ("POST", "message:stream", b'{"message": []}'),
            ("POST", "message:send", b'{"message": ' + b'{"metadata": ' * 90 + b"1" + b"}" * 91),
            ("GET", "tasks?pageSize=abc", b""),
            ("GET", "tasks?pageSize=-1", b""),
            ("GET", "tasks?statusTimestampAfter=yesterday", b""),
            ("GET", "tasks/x?historyLength=99999999999999999999", b""),
            ("GET", "tasks/%FF%00", b""),
            ("POST", "tasks/x:cancel", b""),
            ("POST", "tasks/x:subscribe", b""),
            ("GET", "extendedAgentCard", b""),
            ("POST", "tasks/x/pushNotificationConfigs", b"{}"),
            ("GET", "nowhere", b""),
            ("PUT", "message:send", b"{}"),
            ("POST", "v1/message:send", b"{}"),
            ("POST", "v1/message:send", b"[1]"),
            ("GET", "v1/tasks/x?historyLength=z", b""),
        ],
    )
    async def test_rest_never_answers_a_bad_request_with_500(
        self, base: str, method: str, path: str, body: bytes
    ) -> None:
        async with httpx.AsyncClient(timeout=20) as http:
            answer = await http.request(method, f"{base}/echo/{path}", content=body)
        assert 400 <= answer.status_code < 500, answer.text

    @given(
        body=st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(FIELDS),
                    inner,
                    max_size=6,
                )
            ),
            max_leaves=15,
        ),
        method=st.sampled_from(
            ["SendMessage", "GetTask", "ListTasks", "CancelTask", "message/send", "tasks/get", "tasks/cancel", "x", ""]
        ),
    )
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def test_no_json_whatever_makes_the_edge_fail(self, body: Any, method: str) -> None:
        async def main() -> None:
            app = Starlette(routes=A2AEdge(Double(), port_of=lambda: 1).routes())  # type: ignore[arg-type]
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=20) as http:
                answer = await http.post("/a2a/echo", content=json.dumps(rpc_call(method, body)))
                assert answer.status_code in (200, 413, 422), answer.text
                error = answer.json().get("error")
                assert not error or error["code"] != -32603, answer.text
                for path in ("message:send", "message:stream", "v1/message:send", "v1/message:stream"):
                    answer = await http.post(f"/a2a/echo/{path}", content=json.dumps(body))
                    assert answer.status_code < 500, (path, answer.text)

        asyncio.run(main())

    async def test_a_node_error_before_the_call_starts_is_a_rejected_or_failed_task(
        self, base: str, node: Double
    ) -> None:
        async def refuse(request: Any) -> ScriptedCall:
            raise NoRoute("agent 'echo' is unhealthy")

        node.call = refuse  # type: ignore[method-assign]
        task = await result(await client_for(f"{base}/echo", streaming=False), ask())
        assert task.status.state == TaskState.TASK_STATE_FAILED
        assert get_message_text(task.status.message) == "agent 'echo' is unhealthy"


def test_the_edge_loads_no_a2a_sdk_before_the_first_request() -> None:
    code = (
        "import sys, agentmesh.api.a2a as edge\n"
        "heavy = {'a2a', 'google', 'pydantic', 'httpx', 'httpx2', 'mcp', 'sse_starlette', 'jsonrpc'}\n"
        "assert edge.a2a_routes(object(), port_of=lambda: 1)\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]", done.stdout


async def test_a_card_is_served_without_loading_the_a2a_sdk(base: str) -> None:
    names: Callable[[], set[str]] = lambda: {n for n in sys.modules if n.startswith("agentmesh.api.a2a.")}  # noqa: E731
    before = names()
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{base}/echo/.well-known/agent-card.json")).status_code == 200
    assert names() == before
