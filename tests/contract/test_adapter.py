"""The suite that every adapter passes (research: adapters §6), each against a real server in a process of its own.

A case is skipped only where the door's own capabilities say that it cannot be done.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from agentmesh.adapters.a2a import A2AAdapter
from agentmesh.adapters.base import Adapter, Discovered
from agentmesh.adapters.http import HttpAdapter
from agentmesh.adapters.registry import default_adapters, detect
from agentmesh.adapters.sdk import SdkAdapter
from agentmesh.errors import AgentFailed, Closed, LimitError, MeshError, NoRoute, Timeout, Unreached
from agentmesh.ids import is_name
from agentmesh.node.door import Door, Happening, Invocation
from agentmesh.wire.event import TERMINAL_STATES, EventV1
from agentmesh.wire.views import reply_from_events

AGENTS = Path(__file__).parents[1] / "agents"


@dataclass(frozen=True)
class Spec:
    """One door against one real server."""

    name: str
    adapter: Callable[[], Adapter]
    script: str
    mode: str = ""
    loopback_of: str = "a2a"

    def __str__(self) -> str:
        return self.name


SPECS = [
    Spec("sdk", SdkAdapter, "sdk_words.py", loopback_of="sdk"),
    Spec("http", HttpAdapter, "plain_http.py", loopback_of="http"),
    Spec("a2a-official-jsonrpc", A2AAdapter, "a2a_official.py", "jsonrpc"),
    Spec("a2a-official-rest", A2AAdapter, "a2a_official.py", "rest"),
    Spec("a2a-official-compat-0.3", A2AAdapter, "a2a_official.py", "compat"),
    Spec("a2a-official-nostream", A2AAdapter, "a2a_official.py", "nostream"),
    Spec("a2a-langgraph-shaped", A2AAdapter, "a2a_dialects.py", "langgraph"),
    Spec("a2a-fasta2a-shaped", A2AAdapter, "a2a_dialects.py", "fasta2a"),
    Spec("a2a-0.3", A2AAdapter, "a2a_dialects.py", "v03"),
]


class Server:
    """One agent process that can be killed and started again where it was."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.url = ""
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        port = urlsplit(self.url).port or 0
        argv = [sys.executable, str(AGENTS / self.spec.script), str(port), *filter(None, [self.spec.mode])]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), "the agent did not start"

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


@pytest.fixture(scope="module", params=SPECS, ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    running = Server(request.param)
    yield running
    running.kill()


@pytest.fixture
async def adapter(server: Server) -> AsyncIterator[Adapter]:
    made = server.spec.adapter()
    yield made
    await made.aclose()


@pytest.fixture
async def found(adapter: Adapter, server: Server) -> Discovered:
    (agent,) = await adapter.discover(server.url)
    return agent


@pytest.fixture
def door(adapter: Adapter, found: Discovered) -> Door:
    return adapter.open(found.target)


def invocation(text: str, **fields: Any) -> Invocation:
    return Invocation(
        **{"task_id": uuid.uuid4().hex, "run_id": "r" * 32, "parts": [{"text": text}], "deadline_s": 30.0} | fields
    )


async def collect(door: Door, text: str, **fields: Any) -> list[Happening]:
    return [happening async for happening in door.invoke(invocation(text, **fields))]


def answer(happenings: list[Happening]) -> str:
    """Fold happenings as a caller does."""
    events = [EventV1(id=str(n), ts=0, kind=h.kind, run_id="r", payload=h.payload) for n, h in enumerate(happenings)]
    return reply_from_events(events)[0]


async def ask(door: Door, text: str, **fields: Any) -> str:
    return answer(await collect(door, text, **fields))


async def until(door: Door, word: str, at_least: int) -> None:
    """Wait until the agent itself reports a count; the surrounding timeout decides when it is too late."""
    async with asyncio.timeout(5):
        while int(await ask(door, word)) < at_least:  # noqa: ASYNC110 - the agent is another process
            await asyncio.sleep(0.02)


async def test_discovery_names_the_agent_and_survives_a_restart(
    server: Server, adapter: Adapter, found: Discovered
) -> None:
    assert is_name(found.name)
    assert found.description
    assert found.version
    assert found.input_modes
    assert found.output_modes
    assert found.skills
    assert all(skill["id"] and skill["name"] and skill["description"] and skill["tags"] for skill in found.skills)
    server.kill()
    server.start()
    (again,) = await adapter.discover(server.url)
    assert (again.name, again.skills, again.target) == (found.name, found.skills, found.target)


async def test_installing_takes_no_steps_the_second_time(adapter: Adapter) -> None:
    await adapter.install()
    assert await adapter.install() == []


async def test_door_auto_finds_this_door(server: Server) -> None:
    adapters = default_adapters()
    try:
        fitting, agents = await detect(server.url, adapters)
        assert fitting.name == server.spec.loopback_of
        assert len(agents) == 1
    finally:
        for adapter in adapters.values():
            await adapter.aclose()


async def test_one_call_gives_one_answer_and_one_terminal_status(door: Door) -> None:
    happenings = await collect(door, "echo 你好 mesh")
    states = [h.payload["state"] for h in happenings if h.kind == "status" and h.payload["state"] in TERMINAL_STATES]
    assert answer(happenings) == "你好 mesh"
    assert states == ["completed"]
    assert happenings[-1].kind == "status"
    assert happenings[-1].payload["state"] == "completed"


async def test_deltas_concatenate_to_the_answer_which_counts_once(door: Door, found: Discovered) -> None:
    happenings = await collect(door, "stream a bé c")
    assert answer(happenings) == "abéc"
    if found.capabilities.stream:
        assert len([h for h in happenings if h.kind in ("message", "artifact")]) >= 3


async def test_a_conversation_remembers_and_others_do_not_hear_of_it(door: Door) -> None:
    mine, other = uuid.uuid4().hex, uuid.uuid4().hex
    assert await ask(door, "remember the red door", context_id=mine) == "ok"
    assert await ask(door, "recall", context_id=other) == "nothing"
    assert await ask(door, "recall", context_id=mine) == "the red door"


async def test_parallel_calls_do_not_mix_their_answers(door: Door) -> None:
    answers = await asyncio.gather(*(ask(door, f"echo caller {n}") for n in range(5)))
    assert answers == [f"caller {n}" for n in range(5)]


async def test_an_agents_own_failure_arrives_with_its_text(door: Door) -> None:
    with pytest.raises(AgentFailed, match="the oven is cold"):
        await collect(door, "fail the oven is cold")
    assert await ask(door, "echo still here") == "still here"


async def test_cancel_reaches_the_agent_and_ends_the_call_as_canceled(door: Door, found: Discovered) -> None:
    if not found.capabilities.cancel:
        pytest.skip("this door declares that it cannot cancel")
    before = (int(await ask(door, "started")), int(await ask(door, "cancels")))
    call = invocation("hang")
    turn = asyncio.ensure_future(_collect_call(door, call))  # noqa: TID251 - a test's own task
    await until(door, "started", before[0] + 1)
    async with asyncio.timeout(2):
        await door.cancel(call.task_id)
        happenings = await turn
    assert happenings[-1].payload["state"] == "canceled"
    await until(door, "cancels", before[1] + 1)


async def _collect_call(door: Door, call: Invocation) -> list[Happening]:
    return [happening async for happening in door.invoke(call)]


async def test_cancelling_an_unknown_task_changes_nothing(door: Door) -> None:
    await door.cancel("nobody-knows-this-task")
    assert await ask(door, "echo fine") == "fine"


async def test_leaving_early_cancels_the_call_at_the_agent(door: Door, found: Discovered) -> None:
    if not found.capabilities.cancel:
        pytest.skip("this door declares that it cannot cancel")
    before = (int(await ask(door, "started")), int(await ask(door, "cancels")))

    async def hang() -> None:
        await collect(door, "hang")

    turn = asyncio.ensure_future(hang())  # noqa: TID251 - a test's own task
    await until(door, "started", before[0] + 1)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    await until(door, "cancels", before[1] + 1)


async def test_closing_the_iterator_early_cancels_too(door: Door, found: Discovered) -> None:
    if not found.capabilities.cancel:
        pytest.skip("this door declares that it cannot cancel")
    before = int(await ask(door, "cancels"))
    started = int(await ask(door, "started"))
    turn = door.invoke(invocation("hang"))
    async with aclosing(turn):  # type: ignore[type-var]
        waiting = asyncio.ensure_future(_drain(turn))  # noqa: TID251 - a test's own task
        await until(door, "started", started + 1)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    await until(door, "cancels", before + 1)


async def _drain(turn: AsyncIterator[Happening]) -> None:
    async for _ in turn:
        pass


async def test_a_deadline_ends_a_hanging_call(door: Door) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(Timeout):
            await collect(door, "hang", deadline_s=0.4)
    assert await ask(door, "echo alive") == "alive"


async def test_an_agent_killed_mid_turn_is_an_error_and_the_next_call_works(server: Server, door: Door) -> None:
    started = int(await ask(door, "started"))
    turn = asyncio.ensure_future(collect(door, "hang"))  # noqa: TID251 - a test's own task
    await until(door, "started", started + 1)
    server.kill()
    try:
        async with asyncio.timeout(5):
            with pytest.raises(Unreached):
                await turn
        assert (await door.health()).status == "unhealthy"
        with pytest.raises((NoRoute, Closed)):
            await collect(door, "echo nobody")
    finally:
        server.start()
    assert await ask(door, "echo back again") == "back again"
    assert (await door.health()).status == "healthy"


async def test_a_flood_is_cut_off_and_the_door_still_works(door: Door) -> None:
    with pytest.raises(LimitError):
        async for _ in door.invoke(invocation("flood")):
            pass
    assert await ask(door, "echo dry again") == "dry again"


@pytest.mark.parametrize("size", [200 * 1024, 1024 * 1024])
async def test_large_answers_arrive_whole(door: Door, size: int) -> None:
    text = await ask(door, f"big {size}")
    assert len(text) == size
    assert text.count("x") == size


async def test_characters_split_across_chunks_arrive_whole(door: Door) -> None:
    assert await ask(door, "wide 40000") == "你好🙂" * 40000


async def test_an_empty_answer_is_an_answer(door: Door) -> None:
    happenings = await collect(door, "empty")
    assert answer(happenings) == ""
    assert happenings[-1].payload["state"] == "completed"


async def test_nothing_is_left_after_closing(server: Server) -> None:
    before = len(asyncio.all_tasks())
    adapter = server.spec.adapter()
    (agent,) = await adapter.discover(server.url)
    door = adapter.open(agent.target)
    await ask(door, "echo once")
    await door.aclose()
    await adapter.aclose()
    await adapter.aclose()
    assert len(asyncio.all_tasks()) == before
    with pytest.raises(MeshError):
        await collect(door, "echo twice")
