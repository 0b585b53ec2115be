"""The decorators, and agents served over the real socket and called through the real door."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from agentmesh.adapters.sdk import SdkAdapter
from agentmesh.errors import AgentFailed, AgentNotFound, Busy, Closed, LimitError, UsageError
from agentmesh.node.door import Door, Happening, Invocation
from agentmesh.sdk.agent import Agent, Context, FunctionAgent, agent
from agentmesh.sdk.context import current
from agentmesh.sdk.process import AgentProcess
from agentmesh.wire.event import EventV1
from agentmesh.wire.views import reply_from_events
from tests.agents.raw import http as raw_http
from tests.agents.raw import raw_server, unended

LOG: list[str] = []
#: Released by tests that hold a plain function in its thread.
GATE = threading.Event()


class Sum(msgspec.Struct):
    total: float


@agent
async def hello(name: str) -> str:
    """Greets a person."""
    return f"你好 {name}"


@agent(name="adder", description="Adds.", tags=["math"], skill="sum", params={"models": ["none"]})
def plain_add(a: int, b: int = 2) -> int:
    return a + b


@agent
async def structured(text: str) -> Sum:
    return Sum(1.5)


@agent
async def streaming(text: str, ctx: Context) -> AsyncIterator[Any]:
    ctx.status("on it")
    ctx.reasoning("hm")
    ctx.tool("upper", {"text": text}, text.upper())
    for letter in text:
        yield letter
    ctx.artifact("report", [{"text": "done"}])
    yield {"n": len(text)}


@agent
def threaded(text: str, ctx: Context) -> Iterator[str]:
    for letter in text:
        ctx.status(threading.current_thread().name)
        yield letter


@agent
async def whoami(text: str) -> dict[str, Any]:
    here = current()
    assert here is not None
    inner = await asyncio.to_thread(current)
    assert inner is here
    return {
        "run": here.run_id,
        "task": here.task_id,
        "hops": here.hops,
        "lamport": here.lamport,
        "agent": here.agent_name,
    }


@agent
async def failing(text: str) -> str:
    raise ValueError(text) if text else KeyError


@agent
async def leaving(text: str) -> str:
    raise SystemExit(3)


@agent
async def unreached(text: str) -> str:
    raise AgentNotFound("no agent named 'x'", hint="agentmesh discover")


@agent
async def hanging(text: str, ctx: Context) -> str:
    LOG.append("start")
    ctx.status("started")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        LOG.append(f"cancelled {ctx.cancelled}")
        raise
    return ""


@agent
def stuck(text: str, ctx: Context) -> str:
    ctx.status("started")
    while not ctx.cancelled:
        GATE.wait(0.01)
    LOG.append("noticed")
    return ""


@agent
async def noisy(text: str, ctx: Context) -> str:
    while True:
        ctx.status("x")


@agent
async def huge(text: str) -> str:
    return "x" * (9 * 1024 * 1024)


many = Agent("many", description="Has skills.")


@many.skill
async def up(text: str) -> str:
    return text.upper()


@many.skill(id="down", tags=["case"], default=True)
async def lower(text: str) -> str:
    return text.lower()


AGENTS: list[Agent] = [
    hello, plain_add, structured, streaming, threaded, whoami, failing, leaving, unreached, hanging, stuck, noisy, huge, many,
]  # fmt: skip


class Bench:
    """A process under test and doors to its agents."""

    def __init__(self, process: AgentProcess, adapter: SdkAdapter) -> None:
        self.process = process
        self.adapter = adapter

    def door(self, name: str) -> Door:
        return self.adapter.open({"base": self.process.base_url, "agent": name})

    async def ask(self, name: str, text: str = "", **fields: Any) -> list[Happening]:
        return [h async for h in self.door(name).invoke(call(text, **fields))]


def call(text: str, **fields: Any) -> Invocation:
    base = {"task_id": f"t-{time.monotonic_ns()}", "run_id": "r1", "parts": [{"text": text}], "deadline_s": 5.0}
    return Invocation(**(base | fields))


def reply(happenings: list[Happening]) -> tuple[str, list[Any], list[dict[str, Any]]]:
    return reply_from_events(
        [EventV1(id=str(n), ts=0, kind=h.kind, run_id="r", payload=h.payload) for n, h in enumerate(happenings)]
    )


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    LOG.clear()
    process, adapter = AgentProcess(AGENTS), SdkAdapter()
    await process.open()
    yield Bench(process, adapter)
    await adapter.aclose()
    await process.aclose()


def test_a_decorated_function_is_an_agent_and_still_a_function() -> None:
    assert isinstance(hello, FunctionAgent)
    assert (hello.name, hello.description) == ("hello", "Greets a person.")
    assert asyncio.run(hello("Ben")) == "你好 Ben"
    assert plain_add(1) == 3
    assert (plain_add.name, plain_add.description, list(plain_add.skills)) == ("adder", "Adds.", ["sum"])


def test_underscores_of_a_function_name_become_hyphens() -> None:
    @agent
    async def say_it(text: str) -> str:
        return text

    assert say_it.name == "say-it"


@pytest.mark.parametrize("name", ["", "has space", "-x", "x" * 65, "a/b", "."])
def test_names_that_cannot_be_typed_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        Agent(name)
    assert caught.value.code == "agent.bad_name"


def test_two_skills_of_one_id_or_two_defaults_are_refused() -> None:
    two = Agent("two")
    two.skill(lower)
    with pytest.raises(UsageError):
        two.skill(lower)
    two.skill(id="a", default=True)(lower)
    with pytest.raises(UsageError):
        two.skill(id="b", default=True)(lower)


def test_a_process_needs_agents_with_skills_and_different_names() -> None:
    with pytest.raises(UsageError, match="at least one"):
        AgentProcess([])
    with pytest.raises(UsageError, match="no skill"):
        AgentProcess([Agent("empty")])
    with pytest.raises(UsageError, match="two agents"):
        AgentProcess([hello, hello])
    with pytest.raises(UsageError) as caught:
        AgentProcess([lower])  # type: ignore[list-item]
    assert "@agent" in (caught.value.hint or "")


async def test_the_listing_names_every_agent_with_skills_and_schemas(bench: Bench) -> None:
    found = {agent.name: agent for agent in await bench.adapter.discover(bench.process.base_url)}
    assert set(found) == {a.name for a in AGENTS}
    assert found["adder"].skills == [{"id": "sum", "name": "plain add", "description": "Plain add.", "tags": ["math"]}]
    assert found["adder"].extra["models"] == ["none"]
    schema = json.loads(found["adder"].extra["input_schemas"]["sum"])
    assert schema["properties"]["a"] == {"type": "integer"}
    assert [s["id"] for s in found["many"].skills] == ["up", "down"]


async def test_text_comes_back_as_text(bench: Bench) -> None:
    happenings = await bench.ask("hello", "Ben")
    assert reply(happenings)[0] == "你好 Ben"
    assert happenings[-1] == Happening("status", {"state": "completed"})


async def test_other_values_come_back_as_data_and_as_text(bench: Bench) -> None:
    assert reply(await bench.ask("adder", parts=[{"data": {"a": 3}}]))[:2] == ("5", [5])
    assert reply(await bench.ask("structured"))[:2] == ('{"total":1.5}', [{"total": 1.5}])


async def test_a_generator_streams_and_reports_stay_apart_from_the_answer(bench: Bench) -> None:
    happenings = await bench.ask("streaming", "abc")
    kinds = [h.kind for h in happenings]
    assert kinds == ["status", "reasoning", "tool", *["message"] * 3, "artifact", "message", "status"]
    text, data, artifacts = reply(happenings)
    assert (text, data) == ("abc", [{"n": 3}])
    assert artifacts == [{"artifact_id": "report", "name": "report", "parts": [{"text": "done"}]}]
    assert happenings[2].payload == {"name": "upper", "args": {"text": "abc"}, "result": "ABC"}


async def test_a_plain_generator_runs_in_a_thread_and_streams_in_order(bench: Bench) -> None:
    happenings = await bench.ask("threaded", "abc")
    assert reply(happenings)[0] == "abc"
    assert [h.kind for h in happenings] == ["status", "message"] * 3 + ["status"]
    assert happenings[0].payload["text"] == "agent-threaded"


async def test_the_running_function_knows_its_call(bench: Bench) -> None:
    invocation = call("", run_id="run", hops=("did:key:a", "did:key:b"), lamport=7)
    (here,) = reply([h async for h in bench.door("whoami").invoke(invocation)])[1]
    assert here == {
        "run": "run",
        "task": invocation.task_id,
        "hops": ["did:key:a", "did:key:b"],
        "lamport": 7,
        "agent": "whoami",
    }
    assert current() is None


async def test_the_default_skill_answers_when_none_is_named(bench: Bench) -> None:
    assert reply(await bench.ask("many", "AbC"))[0] == "abc"
    assert reply(await bench.ask("many", "AbC", skill="up"))[0] == "ABC"
    with pytest.raises(AgentFailed, match="up, down") as caught:
        await bench.ask("many", "x", skill="sideways")
    assert caught.value.code == "agent.no_skill"


async def test_an_exception_arrives_with_its_text_and_without_its_traceback(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AgentFailed) as caught:
        await bench.ask("failing", "the oven is cold")
    assert caught.value.detail == "the oven is cold"
    assert "test_agent.py" not in json.dumps(caught.value.to_dict())
    assert "Traceback" in capfd.readouterr().err
    with pytest.raises(AgentFailed, match="KeyError"):
        await bench.ask("failing")
    with pytest.raises(AgentFailed):
        await bench.ask("leaving")
    assert reply(await bench.ask("hello", "still"))[0] == "你好 still"


async def test_a_mesh_error_inside_keeps_its_hint_and_becomes_the_agents_failure(bench: Bench) -> None:
    with pytest.raises(AgentFailed) as caught:
        await bench.ask("unreached")
    assert type(caught.value) is AgentFailed
    assert caught.value.hint == "agentmesh discover"
    assert caught.value.extra["cause"] == "not_found.agent"


async def test_cancel_raises_cancelled_error_in_an_async_function(bench: Bench) -> None:
    invocation = call("")
    turn = bench.door("hanging").invoke(invocation)
    assert (await anext(turn)).payload["text"] == "started"
    await bench.door("hanging").cancel(invocation.task_id)
    assert [h async for h in turn] == [Happening("status", {"state": "canceled"})]
    assert LOG == ["start", "cancelled True"]


async def test_cancel_ends_a_stuck_plain_function_for_the_caller_and_tells_it(bench: Bench) -> None:
    invocation = call("")
    turn = bench.door("stuck").invoke(invocation)
    await anext(turn)
    async with asyncio.timeout(2):
        await bench.door("stuck").cancel(invocation.task_id)
        assert [h async for h in turn] == [Happening("status", {"state": "canceled"})]
        while LOG != ["noticed"]:  # noqa: ASYNC110 - the function is in a thread
            await asyncio.sleep(0.005)


async def test_a_function_that_reports_without_end_fails_instead_of_filling_memory(bench: Bench) -> None:
    with pytest.raises(AgentFailed) as caught:
        await bench.ask("noisy")
    assert caught.value.code == "agent.flood"


async def test_a_piece_too_long_for_one_line_is_refused_with_advice(bench: Bench) -> None:
    with pytest.raises(AgentFailed) as caught:
        await bench.ask("huge")
    assert caught.value.code == "agent.line_too_long"
    assert caught.value.hint


async def test_a_task_that_is_running_is_not_started_twice(bench: Bench) -> None:
    invocation = call("")
    turn = bench.door("hanging").invoke(invocation)
    await anext(turn)
    with pytest.raises(Busy):
        await anext(bench.door("hanging").invoke(invocation))
    await bench.door("hanging").cancel(invocation.task_id)
    assert LOG.count("start") == 1
    async for _ in turn:
        pass


async def test_an_unknown_agent_of_the_process_is_not_found(bench: Bench) -> None:
    with pytest.raises(AgentNotFound, match="helo"):
        await bench.ask("helo", "x")


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("{secret}/health", "127.0.0.1:{port}", 200),
        ("{secret}/health", "localhost", 200),
        ("{secret}/health", "[::1]:{port}", 200),
        ("{secret}/health", "evil.example", 404),
        ("{secret}/health", "127.0.0.1.evil.example", 404),
        ("{secret}/health", "localhost.evil.example:{port}", 404),
        ("/wrong/health", "127.0.0.1", 404),
        ("/health", "127.0.0.1", 404),
        ("{secret}/nothing", "127.0.0.1", 404),
        ("/", "127.0.0.1", 404),
    ],
)
async def test_only_who_knows_the_secret_and_says_loopback_is_answered(
    bench: Bench, path: str, host: str, status: int
) -> None:
    url = urlsplit(bench.process.base_url)

    def ask() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", url.port or 0, timeout=5)
        connection.putrequest("GET", path.format(secret=url.path), skip_host=True)
        connection.putheader("Host", host.format(port=url.port))
        connection.endheaders()
        answer = connection.getresponse().status
        connection.close()
        return answer

    assert await asyncio.to_thread(ask) == status


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"task_id": 1}', b"[" * 100_000])
async def test_a_malformed_invocation_is_refused(bench: Bench, body: bytes) -> None:
    answer = await bench.adapter._client.fetch("POST", f"{bench.process.base_url}/invoke/hello", body=body, timeout_s=2)
    assert answer.status == 400
    assert b"agent.bad_request" in answer.body


async def test_an_oversized_invocation_is_refused(bench: Bench) -> None:
    with pytest.raises((LimitError, Closed)):
        await bench.ask("hello", "x" * (17 * 1024 * 1024))
    assert reply(await bench.ask("hello", "ok"))[0] == "你好 ok"


async def test_closing_the_process_cancels_what_it_serves() -> None:
    LOG.clear()
    process, adapter = AgentProcess([hanging]), SdkAdapter()
    await process.open()
    turn = adapter.open({"base": process.base_url, "agent": "hanging"}).invoke(call(""))
    await anext(turn)
    await process.aclose()
    assert LOG == ["start", "cancelled True"]
    assert [h async for h in turn] == [Happening("status", {"state": "canceled"})]
    await adapter.aclose()


GARBAGE = [
    unended(b"not json\n", "application/x-ndjson"),
    unended(b'{"kind": "odd", "payload": {}}\n', "application/x-ndjson"),
    unended(b'{"kind": "status", "payload": 3}\n', "application/x-ndjson"),
    unended(b'{"kind": "message", "payload": {"parts": []}}\n', "application/x-ndjson"),
    unended(b"[" * 100_000 + b"\n", "application/x-ndjson"),
    raw_http(b"<html>", "text/html", "500 Oops"),
    raw_http(b'{"error": 3}', "application/json", "500 Oops"),
    b"",
]


@pytest.mark.parametrize("answer", GARBAGE)
async def test_garbage_from_an_agent_process_is_a_clear_error(answer: bytes) -> None:
    adapter = SdkAdapter()
    async with raw_server(lambda _: [answer]) as server:
        with pytest.raises((AgentFailed, Closed)):
            async for _ in adapter.open({"base": server.url, "agent": "x"}).invoke(call("")):
                pass
    await adapter.aclose()


async def test_an_agent_cannot_speak_in_the_nodes_name() -> None:
    line = b'{"kind": "error", "payload": {"type": "unauthorized", "code": "refused.unauthorized", "message": "no"}}\n'
    adapter = SdkAdapter()
    async with raw_server(lambda _: [unended(line, "application/x-ndjson")]) as server:
        with pytest.raises(AgentFailed, match="no"):
            async for _ in adapter.open({"base": server.url, "agent": "x"}).invoke(call("")):
                pass
    await adapter.aclose()
