"""``agentmesh mcp serve`` as an MCP client runs it: a child process over stdio, beside a real node with real agents."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.support.daemons import Daemon, Mesh, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e
COMMANDS = {
    "cli": [str(Path(sys.executable).parent / "agentmesh"), "mcp", "serve"],
    "module": [sys.executable, "-m", "agentmesh.adapters.mcp_server"],
}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    """Node A beside the MCP client, node B beside the agent."""
    mesh = Mesh(tmp_path_factory.mktemp("mcp"))
    server = Path(__file__).parents[1] / "agents" / "a2a_official.py"
    try:
        a, b = mesh.pair()
        with script([sys.executable, str(server), "0", "jsonrpc"]) as process:
            assert process.stdout is not None
            b.post("/api/v1/agents", {"url": process.stdout.readline().strip(), "name": "obeyer"})
            wait_until(lambda: sees_agent(a, "obeyer"), "node A to hear of the agent")
            yield a, b
    finally:
        mesh.aclose()


@asynccontextmanager
async def client_of(node: Daemon, command: str = "module", mode: str = "auto") -> Any:
    argv = COMMANDS[command]
    server = StdioServerParameters(command=argv[0], args=argv[1:], env=node.env)
    async with Client(stdio_client(server), mode=mode) as client:
        yield client


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_mcp_client_finds_calls_and_traces_a_remote_agent(
    nodes: tuple[Daemon, Daemon], command: str, mode: str
) -> None:
    a, b = nodes
    async with client_of(a, command, mode) as client:
        assert len((await client.list_tools()).tools) == 12
        sent = (await client.call_tool("send_message", {"to": a.node_id, "text": "to myself"})).structured_content
        read = (await client.call_tool("read_inbox", {"wait_s": 20})).structured_content
        assert [one["message_id"] for one in read["messages"]] == [sent["message_id"]]
        counted = {"space": "mcp", "key": "seen"}
        wrote = (await client.call_tool("state_set", {**counted, "op": "increment"})).structured_content
        assert (await client.call_tool("state_get", counted)).structured_content["value"] == wrote["value"] >= 1
        found = (await client.call_tool("discover", {"query": "obey"})).structured_content
        assert found["agents"][0]["name"] == "obeyer"
        card = (await client.call_tool("describe", {"agent": "obeyer"})).structured_content["card"]
        assert card["signatures"]
        task = (await client.call_tool("call", {"agent": "obeyer", "text": "say hello"})).structured_content
        assert (task["state"], task["text"], task["node_id"]) == ("completed", "hello", b.node_id)
        trace = (await client.call_tool("trace", {"ref": task["run_id"]})).structured_content
    same = a.get(f"/api/v1/runs/{task['run_id']}/events")
    assert (trace["count"], trace["digest"]) == (same["count"], same["digest"])
    assert {line["node_id"] for line in trace["events"]} == {a.node_id, b.node_id}


async def test_a_long_call_is_polled_and_canceled(nodes: tuple[Daemon, Daemon]) -> None:
    async with client_of(nodes[0]) as client:
        task = (await client.call_tool("call", {"agent": "obeyer", "text": "hang", "wait_s": 0})).structured_content
        assert task["state"] == "working"
        polled = (await client.call_tool("task_get", {"task_id": task["task_id"], "wait_s": 0.2})).structured_content
        assert polled["state"] == "working"
        canceled = (await client.call_tool("task_cancel", {"task_id": task["task_id"]})).structured_content
        assert canceled["state"] == "canceled"


async def test_another_process_reads_a_finished_task(nodes: tuple[Daemon, Daemon]) -> None:
    async with client_of(nodes[0]) as client:
        task = (await client.call_tool("call", {"agent": "obeyer", "text": "say again"})).structured_content
    async with client_of(nodes[0]) as client:
        again = (await client.call_tool("task_get", {"task_id": task["task_id"]})).structured_content
    assert (again["state"], again["text"], again["run_id"]) == ("completed", "again", task["run_id"])


async def test_calls_still_running_are_canceled_when_the_client_goes(nodes: tuple[Daemon, Daemon]) -> None:
    async with client_of(nodes[0]) as client:
        task = (await client.call_tool("call", {"agent": "obeyer", "text": "hang", "wait_s": 0.5})).structured_content
        assert task["state"] == "working"

    def ended() -> bool:
        events = nodes[0].get(f"/api/v1/runs/{task['task_id']}/events")["events"]
        return any(e["kind"] == "status" and e["payload"].get("state") == "canceled" for e in events)

    wait_until(ended, "the call to be canceled")


async def test_without_a_daemon_a_tool_says_how_to_start_one(tmp_path: Path) -> None:
    argv = COMMANDS["module"]
    server = StdioServerParameters(command=argv[0], args=argv[1:], env={"AGENTMESH_HOME": str(tmp_path / "none")})
    async with Client(stdio_client(server)) as client:
        result = await client.call_tool("discover", {})
    assert result.is_error
    assert "agentmesh up" in result.content[0].text  # type: ignore[union-attr]


def test_standard_output_carries_nothing_but_the_protocol(nodes: tuple[Daemon, Daemon]) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    ask = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "discover", "arguments": {}}}
    lines = [hello, {"jsonrpc": "2.0", "method": "notifications/initialized"}, ask]
    with subprocess.Popen(
        COMMANDS["cli"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=nodes[0].env, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(json.dumps(line) + "\n" for line in lines) + "not json\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.stdin.close()
        rest = process.stdout.read()
        assert process.wait(20) == 0
    by_id = {answer.get("id"): answer for answer in answers}
    assert by_id[1]["result"]["protocolVersion"] == "2025-11-25"
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in rest.splitlines() if line.strip())
