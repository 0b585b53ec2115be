"""Budgets, baggage and refusals across two real nodes, over every door that a caller may come by (docs/spec/guard.md)."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from agentmesh.identity.receipt import read_receipt
from tests.support.daemons import Daemon, Mesh, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e
EXT = "https://agentmesh.dev/ext/mesh/v1"

AGENTS = """
from agentmesh import Agent, Context, run

meter = Agent("meter")
relay = Agent("relay")
scarce = Agent("scarce", params={"qps_budget": "0.01", "qps_burst": 1})

@meter.skill
async def measure(text: str, ctx: Context) -> dict:
    "Says what came along, and uses a little."
    ctx.usage(tokens=20)
    ctx.usage(tokens=5, usd_micros=300)
    return {"budget": ctx.budget, "baggage": ctx.baggage}

@relay.skill
async def pass_on(text: str, ctx: Context) -> dict:
    "Asks the meter."
    reply = await ctx.call("meter", text, baggage={"via": "relay"})
    return reply.data[0]

@scarce.skill
async def answer(text: str) -> str:
    "Answers once in a while."
    return text

run(meter, relay, scarce)
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    """The callers' node, and the one beside the agents; the rate of "scarce" is used up."""
    root = tmp_path_factory.mktemp("guard")
    (root / "agents.py").write_text(AGENTS)
    mesh = Mesh(root)
    try:
        a, b = mesh.pair(agent_queue_max=0)
        with script([sys.executable, str(root / "agents.py")], env=b.env):
            for name in ("meter", "relay", "scarce"):
                wait_until(lambda name=name: sees_agent(a, name), f"node a to see {name}")
            assert a.post("/api/v1/calls", {"to": "scarce", "text": "x"})["text"] == "x"
            yield a, b
    finally:
        mesh.aclose()


def posted(node: Daemon, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
    request = urllib.request.Request(
        node.url + path,
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {node.token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers.items()), json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, {k.lower(): v for k, v in error.headers.items()}, json.load(error)


def test_budget_and_baggage_reach_the_agent_and_its_usage_stands_on_the_receipt(nodes: tuple[Daemon, Daemon]) -> None:
    a, _ = nodes
    options = ("--budget", "usd=0.05,tokens=2000", "--priority", "7", "--baggage", "lang=zh 中")
    done = a.cli("run", "--to", "meter", *options, "--json", "x")
    assert done.code == 0, done.err
    reply = json.loads(done.out)
    assert reply["data"] == [{"budget": {"tokens": 2000, "usd_micros": 50_000}, "baggage": {"lang": "zh 中"}}]
    used = read_receipt(reply["receipt"]).claims.usage
    assert (used.tokens, used.usd_micros) == (25, 300)


def test_an_agent_that_calls_on_passes_baggage_along_and_may_add_to_it(nodes: tuple[Daemon, Daemon]) -> None:
    a, _ = nodes
    reply = a.post("/api/v1/calls", {"to": "relay", "text": "x", "baggage": {"conversation": "c7"}})
    assert reply["data"][0]["baggage"] == {"conversation": "c7", "via": "relay"}


def test_a_budget_that_makes_no_sense_on_the_command_line_is_refused_with_an_example(
    nodes: tuple[Daemon, Daemon],
) -> None:
    for wrong in ("usd=-1", "tokens=1.5", "gold=3", "usd=1e99"):
        done = nodes[0].cli("run", "--to", "meter", "--budget", wrong, "x")
        assert done.code == 2
        assert "usd=0.05" in done.err


def test_a_refusal_is_a_problem_with_retry_after_on_the_http_api(nodes: tuple[Daemon, Daemon]) -> None:
    status, headers, problem = posted(nodes[0], "/api/v1/calls", {"to": "scarce", "text": "x"})
    assert (status, problem["code"], problem["type"]) == (429, "refused.busy.rate", "/problems/busy")
    assert 1 <= int(headers["retry-after"]) <= 100
    assert headers["ratelimit"].startswith('"calls";r=0;t=')
    assert 0 < problem["extra"]["retry_after_s"] <= int(headers["retry-after"])


def test_the_same_refusal_is_a_rejected_task_over_a2a(nodes: tuple[Daemon, Daemon]) -> None:
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    _, _, answer = posted(nodes[0], "/a2a/scarce/", body)
    task = answer["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_REJECTED"
    error = task["metadata"][EXT]["error"]
    assert error["code"] == "refused.busy.rate"
    assert 0 < error["retry_after_s"] <= 100


async def test_the_same_refusal_is_told_to_an_mcp_client(nodes: tuple[Daemon, Daemon]) -> None:
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "agentmesh.adapters.mcp_server"], env=nodes[0].env
    )
    async with Client(stdio_client(server)) as client:
        task = (await client.call_tool("call", {"agent": "scarce", "text": "x"})).structured_content
        used = (
            await client.call_tool("call", {"agent": "meter", "text": "x", "budget": "tokens=30"})
        ).structured_content
    assert (task["state"], task["error"]["code"]) == ("rejected", "refused.busy.rate")
    assert 0 < task["error"]["retry_after_s"] <= 100
    assert used["data"][0]["budget"] == {"tokens": 30}


def test_the_same_refusal_comes_over_the_wire_with_a_signed_receipt(nodes: tuple[Daemon, Daemon]) -> None:
    done = nodes[0].cli("run", "--to", "scarce", "--json", "x")
    assert done.code == 8
    problem = json.loads(done.out or done.err)
    said = problem.get("error", problem)
    assert said["code"] == "refused.busy.rate"
    for node in nodes:
        kept = node.get(f"/api/v1/receipts/{said['run_id']}")["receipts"][-1]
        claims = read_receipt(kept["receipt"]).claims
        assert (claims.outcome, claims.problem, claims.usage.tokens) == ("rejected", "/problems/busy", 0)


def test_an_operator_bounds_a_caller_while_the_node_runs(nodes: tuple[Daemon, Daemon]) -> None:
    a, b = nodes
    home = Path(b.get("/api/v1/status")["home"])
    (home / "guard.toml").write_text(f'[callers."{a.node_id}"]\nper_day = "tokens=30"\n')
    try:
        call = {"to": "meter", "text": "x", "budget": {"tokens": 30}}
        status, _, problem = wait_until(
            lambda: (r := posted(a, "/api/v1/calls", call))[0] == 402 and r, "the file to be read", 30
        )
        assert (status, problem["code"], problem["type"]) == (402, "budget.exceeded", "/problems/budget")
        open_call = posted(a, "/api/v1/calls", {"to": "meter", "text": "x"})
        assert (open_call[0], open_call[2]["code"]) == (402, "budget.open")
    finally:
        (home / "guard.toml").unlink()
