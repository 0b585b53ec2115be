"""What each door says while a node is stopped: calls and writes are refused with the reason, reading goes on."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from agentmesh.errors import EXIT_REFUSED
from agentmesh.identity.manifest import EXT
from tests.support.daemons import ECHO, Daemon, Mesh, run_cli, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A node with an agent and one finished A2A task, stopped by its operator."""
    root = tmp_path_factory.mktemp("stopped")
    mesh = Mesh(root)
    file = root / "echo_agent.py"
    file.write_text(ECHO, "utf-8")
    try:
        node = mesh.node("one")
        with script([sys.executable, str(file)], node.env):
            wait_until(lambda: sees_agent(node, "echo"), "the agent to be known")
            assert node.cli("run", "--to", "echo", "hello").code == 0
            stopped = node.cli("killswitch", "on", "--reason", "runaway spending", "--json").json()
            assert (stopped["read_only"], stopped["confirmed"]) == (True, stopped["asked"])
            yield node
    finally:
        mesh.aclose()


def a2a(node: Daemon, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Ask the A2A door as any client does, without a credential."""
    url = f"{node.url}/a2a/echo"
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    headers = {"content-type": "application/json", "a2a-version": "1.0"}
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_over_a2a_a_message_is_a_rejected_task_that_says_why_and_tasks_can_still_be_read(node: Daemon) -> None:
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
    task = a2a(node, "SendMessage", {"message": message})["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_REJECTED"
    assert task["metadata"][EXT]["error"]["code"] == "refused.read_only"
    assert "runaway spending" in json.dumps(task["metadata"][EXT]["error"])
    assert a2a(node, "GetTask", {"id": task["id"]})["result"]["status"]["state"] == "TASK_STATE_REJECTED"
    card = urllib.request.urlopen(f"{node.url}/a2a/echo/.well-known/agent-card.json", timeout=10)
    assert card.status == 200


async def test_over_mcp_a_call_is_refused_with_the_reason_and_discovery_goes_on(node: Daemon) -> None:
    argv = [sys.executable, "-m", "agentmesh.adapters.mcp_server"]
    server = StdioServerParameters(command=argv[0], args=argv[1:], env=node.env)
    async with Client(stdio_client(server)) as client:
        found = (await client.call_tool("discover", {"query": "echo"})).structured_content
        assert found is not None
        assert found["agents"][0]["name"] == "echo"
        task = (await client.call_tool("call", {"agent": "echo", "text": "hello"})).structured_content
        assert task is not None
        assert task["state"] == "rejected"
        assert "refused.read_only" in json.dumps(task)
        trace = (await client.call_tool("trace", {"ref": "last"})).structured_content
        assert trace is not None
        assert trace["count"] > 0


def test_over_http_every_write_is_503_and_every_read_is_answered(node: Daemon) -> None:
    writes: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/api/v1/calls", {"to": "echo", "text": "x"}),
        ("POST", "/api/v1/agents", {"url": "http://127.0.0.1:1/"}),
        ("DELETE", "/api/v1/agents/echo", {}),
        ("POST", "/api/v1/grants", {"to": "echo", "audience": ["echo"], "scopes": ["call.*"]}),
        ("POST", "/api/v1/tenants", {"name": "acme"}),
    ]
    for method, path, body in writes:
        status, answer = node.ask(method, path, body or None)
        assert (status, answer["code"]) == (503, "refused.read_only"), (method, path, answer)
    for path in ("status", "agents", "runs", "runs/last/events", "receipts/last", "audit", "orders", "policy", "peers"):
        assert node.ask("GET", f"/api/v1/{path}")[0] == 200, path
    run = node.cli("run", "--to", "echo", "hello")
    assert run.code == EXIT_REFUSED, run
    assert "runaway spending" in run.err


def test_a_released_node_works_again_and_both_orders_are_in_its_audit_log(node: Daemon) -> None:
    assert node.cli("killswitch", "off").code == 0
    assert run_cli("run", "--to", "echo", "again", env=node.env).code == 0
    found = node.get("/api/v1/audit/records?limit=1000")["records"]
    events = [one["data"]["event"] for one in found if one["data"]["action"] == "order"]
    assert events == ["stop", "resume"]
    assert node.cli("killswitch", "on", "--reason", "runaway spending").code == 0
