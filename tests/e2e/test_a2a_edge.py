"""Two real nodes between an unmodified a2a-sdk client and an unmodified a2a-sdk server that know nothing of the mesh.

client → node A /a2a/official-agent/ → iroh → node B → agent
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from a2a.client import ClientConfig, create_client
from a2a.client.client import Client
from a2a.helpers.proto_helpers import get_artifact_text, get_message_text, new_text_message
from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Role,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskState,
)
from google.protobuf.json_format import MessageToDict

from agentmesh.identity.manifest import EXT, read_record
from tests.support.daemons import Daemon, Mesh, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e
AGENT = "official-agent"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    """Node A beside the client, node B beside the agent."""
    mesh = Mesh(tmp_path_factory.mktemp("edge"))
    server = Path(__file__).parents[1] / "agents" / "a2a_official.py"
    try:
        a, b = mesh.pair()
        with script([sys.executable, str(server), "0", "jsonrpc"]) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            b.post("/api/v1/agents", {"url": url})
            wait_until(lambda: sees_agent(a, AGENT), "node A to hear of the agent")
            yield a, b
    finally:
        mesh.aclose()


@pytest_asyncio.fixture(params=["JSONRPC", "HTTP+JSON"])
async def client(nodes: tuple[Daemon, Daemon], request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(timeout=30) as http:
        yield await connect(nodes[0], http, request.param)


async def connect(node: Daemon, http: httpx.AsyncClient, binding: str = "JSONRPC", *, streaming: bool = True) -> Client:
    config = ClientConfig(
        streaming=streaming, httpx_client=http, supported_protocol_bindings=[binding], use_client_preference=True
    )
    return await create_client(f"{node.url}/a2a/{AGENT}", config)


def ask(text: str, task_id: str = "", context_id: str = "") -> SendMessageRequest:
    message = new_text_message(text, role=Role.ROLE_USER)
    message.task_id, message.context_id = task_id, context_id
    return SendMessageRequest(message=message)


async def collect(client: Client, request: SendMessageRequest) -> list[StreamResponse]:
    return [response async for response in client.send_message(request)]


async def final(client: Client, request: SendMessageRequest) -> Task:
    responses = await collect(client, request)
    first = responses[0].task
    return await client.get_task(GetTaskRequest(id=first.id))


def text_of(task: Task) -> str:
    return "".join(get_artifact_text(artifact) for artifact in task.artifacts)


async def test_the_card_of_a_remote_agent_is_served_here_and_its_manifest_verifies(
    nodes: tuple[Daemon, Daemon],
) -> None:
    a, _ = nodes
    async with httpx.AsyncClient() as http:
        card = (await http.get(f"{a.url}/a2a/{AGENT}/.well-known/agent-card.json")).json()
        manifest = (await http.get(f"{a.url}/a2a/{AGENT}/manifest.json")).content
    assert {interface["url"] for interface in card["supportedInterfaces"]} == {f"{a.url}/a2a/{AGENT}"}
    record = read_record(manifest, now=int(time.time()), require_signed=True)
    assert record.signed
    params = next(e["params"] for e in card["capabilities"]["extensions"] if e["uri"] == EXT)
    assert params["agent_id"] == record.agent_id


async def test_send_get_and_list_reach_the_remote_agent(client: Client) -> None:
    task = await final(client, ask("say hello there"))
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
    assert text_of(task) == "hello there"
    listed = await client.list_tasks(ListTasksRequest(include_artifacts=True))
    assert text_of(next(t for t in listed.tasks if t.id == task.id)) == "hello there"


async def test_a_blocking_send_returns_the_finished_task(nodes: tuple[Daemon, Daemon]) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        (response,) = await collect(await connect(nodes[0], http, streaming=False), ask("say hello"))
    assert response.task.status.state == TaskState.TASK_STATE_COMPLETED
    assert text_of(response.task) == "hello"


async def test_chunks_arrive_in_order_with_one_terminal_status(client: Client) -> None:
    responses = await collect(client, ask("stream one two three"))
    updates = [r.artifact_update for r in responses if r.WhichOneof("payload") == "artifact_update"]
    assert [p.text for u in updates for p in u.artifact.parts if p.text] == ["one", "two", "three"]
    states = [r.status_update.status.state for r in responses if r.WhichOneof("payload") == "status_update"]
    assert states == [TaskState.TASK_STATE_WORKING, TaskState.TASK_STATE_COMPLETED]


async def test_the_run_named_in_the_metadata_has_events_of_both_nodes(
    client: Client, nodes: tuple[Daemon, Daemon]
) -> None:
    a, b = nodes
    task = await final(client, ask("say hello"))
    about = MessageToDict(task.metadata)[EXT]
    trace = a.get(f"/api/v1/runs/{about['run_id']}/events")
    assert {event["node_id"] for event in trace["events"]} == {a.node_id, b.node_id}
    assert about["node_id"] in (a.node_id, b.node_id)


async def test_cancel_reaches_the_remote_agent(client: Client, nodes: tuple[Daemon, Daemon]) -> None:
    before = int(text_of(await final(client, ask("cancels"))))
    started = int(text_of(await final(client, ask("started"))))
    stream = client.send_message(ask("hang"))
    task_id = (await anext(stream)).task.id
    while int(text_of(await final(client, ask("started")))) == started:
        pass
    async with httpx.AsyncClient(timeout=30) as http:
        other = await connect(nodes[0], http)
        canceled = await other.cancel_task(CancelTaskRequest(id=task_id))
    assert canceled.status.state == TaskState.TASK_STATE_CANCELED
    last = [response async for response in stream][-1]
    assert last.status_update.status.state == TaskState.TASK_STATE_CANCELED
    assert int(text_of(await final(client, ask("cancels")))) == before + 1


async def test_another_connection_resubscribes_to_a_running_task(client: Client, nodes: tuple[Daemon, Daemon]) -> None:
    stream = client.send_message(ask("hang"))
    task_id = (await anext(stream)).task.id
    async with httpx.AsyncClient(timeout=30) as http:
        other = await connect(nodes[0], http)
        seen: list[StreamResponse] = []
        async for response in other.subscribe(SubscribeToTaskRequest(id=task_id)):
            seen.append(response)
            if len(seen) == 1:
                await client.cancel_task(CancelTaskRequest(id=task_id))
    assert seen[0].task.id == task_id
    assert seen[-1].status_update.status.state == TaskState.TASK_STATE_CANCELED


async def test_a_question_of_the_remote_agent_is_answered_within_its_own_task(client: Client) -> None:
    asked = await final(client, ask("ask"))
    assert asked.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
    assert get_message_text(asked.status.message) == "which one?"
    done = await final(client, ask("picked this", asked.id, asked.context_id))
    assert done.status.state == TaskState.TASK_STATE_COMPLETED
    assert "resumed True" in text_of(done)


async def test_a_conversation_is_remembered_by_its_context(client: Client) -> None:
    first = await final(client, ask("remember blue"))
    assert text_of(await final(client, ask("recall", context_id=first.context_id))) == "blue"
    assert text_of(await final(client, ask("recall"))) == "nothing"


async def test_the_remote_agents_failure_arrives_with_its_own_text(client: Client) -> None:
    task = await final(client, ask("fail no more paper"))
    assert task.status.state == TaskState.TASK_STATE_FAILED
    assert get_message_text(task.status.message) == "no more paper"


async def test_a_megabyte_and_all_scripts_come_through(client: Client) -> None:
    assert text_of(await final(client, ask("big 1048576"))) == "x" * 1_048_576
    assert text_of(await final(client, ask("wide 1000"))) == "你好🙂" * 1000


async def test_a_0_3_client_is_served_by_the_same_endpoint(nodes: tuple[Daemon, Daemon]) -> None:
    def call(method: str, params: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}

    message = {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "say hi"}]}
    url = f"{nodes[0].url}/a2a/{AGENT}/"
    async with httpx.AsyncClient(timeout=30) as http:
        task = (await http.post(url, json=call("message/send", {"message": message}))).json()["result"]
        assert (task["kind"], task["status"]["state"]) == ("task", "completed")
        assert task["artifacts"][0]["parts"][0]["text"] == "hi"
        got = (await http.post(url, json=call("tasks/get", {"id": task["id"]}))).json()["result"]
        assert got["status"]["state"] == "completed"
        async with http.stream("POST", url, json=call("message/stream", {"message": message})) as response:
            events = [
                json.loads(line[5:])["result"] async for line in response.aiter_lines() if line.startswith("data:")
            ]
    assert events[0]["kind"] == "task"
    assert (events[-1]["kind"], events[-1]["final"]) == ("status-update", True)


async def test_a_web_page_of_another_site_cannot_reach_an_agent(nodes: tuple[Daemon, Daemon]) -> None:
    url = f"{nodes[0].url}/a2a/{AGENT}/"
    async with httpx.AsyncClient() as http:
        for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
            assert (await http.post(url, json={}, headers=headers)).status_code == 403


async def test_an_unknown_agent_is_404_with_near_names(nodes: tuple[Daemon, Daemon]) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{nodes[0].url}/a2a/oficial-agent", json={"jsonrpc": "2.0", "id": 3, "method": "x"})
    assert answer.status_code == 404
    assert AGENT in answer.json()["error"]["message"]


async def test_a_restarted_node_still_knows_a_finished_task(nodes: tuple[Daemon, Daemon]) -> None:
    a, _ = nodes
    async with httpx.AsyncClient(timeout=30) as http:
        task = await final(await connect(a, http), ask("say once"))
        a.aclose()
        a.open()
        wait_until(lambda: sees_agent(a, AGENT), "node A to hear of the agent again")
        again = await (await connect(a, http)).get_task(GetTaskRequest(id=task.id))
    assert text_of(again) == "once"
    assert get_message_text(again.history[0]) == "say once"
    assert again.status.state == TaskState.TASK_STATE_COMPLETED
