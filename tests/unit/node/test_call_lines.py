"""The line that each call leaves in the log: at both ends, with ids, budget and result, and without a word of what was said."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import AgentFailed, AgentNotFound, MeshError, Unauthorized
from agentmesh.ids import NodeId
from agentmesh.node.call_lines import CallLines
from agentmesh.node.door import Happening, Invocation
from agentmesh.obs.log import JsonFormatter
from agentmesh.wire import v1
from agentmesh.wire.views import CallRequest
from tests.support.pages import ROOT
from tests.unit.node.world import Member, until, world

SECRET = "the-password-is-swordfish"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, "agentmesh.call")

    def read() -> list[dict[str, Any]]:
        found = [json.loads(JsonFormatter().format(r)) for r in caplog.records if r.name == "agentmesh.call"]
        caplog.clear()
        return found

    return read


async def echo(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("message", {"parts": [{"text": SECRET}]})
    yield Happening("status", {"state": "completed", "usage": {"tokens": 7}})


async def failing(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("status", {"state": "failed", "detail": SECRET})


async def call(member: Member, to: str, **more: Any) -> Any:
    request = CallRequest(to=to, text=SECRET, purpose=SECRET, metadata={"k": SECRET}, **more)
    return await (await member.node.call(request)).reply()


async def test_a_call_leaves_a_line_at_both_ends_that_agree(tmp_path: Path, lines: Any) -> None:
    async with world(tmp_path, 2) as (near, far):
        agent = await far.serve("echo", echo)
        await until(lambda: near.node.agents())
        lines()
        reply = await call(near, "echo", skill="s", budget={"tokens": 100})
        there, here = lines()
        assert (here["direction"], there["direction"]) == ("out", "in")
        for line in (here, there):
            assert (line["result"], line["run_id"], line["task_id"]) == ("completed", reply.run_id, reply.task_id)
            assert (line["agent"], line["agent_id"], line["skill"]) == (agent.name, reply.agent_id, "s")
            assert (line["caller_id"], line["caller"]) == (near.node.node_id, "n0")
            assert line["budget"] == {"tokens": 100}
            assert line["transport"] == "memory"
            assert line["ms"] > 0
            assert "code" not in line
        assert here["trace_id"] == there["trace_id"]
        assert here["span_id"] != there["span_id"]
        assert (here["node_id"], there["node_id"]) == (far.node.node_id, near.node.node_id)
        assert there["used"]["tokens"] == 7


async def test_no_line_says_what_was_asked_or_answered_however_a_call_ends(tmp_path: Path, lines: Any) -> None:
    async with world(tmp_path, 2) as (near, far):
        await far.serve("echo", echo)
        await far.serve("failing", failing)
        await near.serve("own", echo)
        await until(lambda: len(near.node.agents()) == 3)
        lines()
        await call(near, "echo")
        await call(near, "own")
        with pytest.raises(AgentFailed):
            await call(near, "failing")
        with pytest.raises(MeshError) as refused:
            await call(near, "echo", budget={"wall_ms": 0})
        with pytest.raises(AgentNotFound):
            await call(near, "nobody")
        found = lines()
        results = [(line["direction"], line["result"], line.get("code")) for line in found]
        assert results == [
            ("in", "completed", None),
            ("out", "completed", None),
            ("in", "completed", None),
            ("out", "completed", None),
            ("in", "failed", None),
            ("out", "failed", None),
            ("in", "rejected", refused.value.code),
            ("out", "rejected", refused.value.code),
            ("out", "failed", "not_found.agent"),
        ]
        assert SECRET not in json.dumps(found)
        page = (ROOT / "docs" / "reference" / "logs.md").read_text("utf-8")
        rows = re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)
        named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
        assert {name for line in found for name in line} <= named
        source = (ROOT / "src" / "agentmesh" / "node" / "call_lines.py").read_text("utf-8")
        written = set(re.findall(r"^            (\w+)=", source, re.MULTILINE)) | {
            "code",
            "ms",
            "direction",
            "result",
            "count",
        }
        assert written | {"ts", "level", "logger", "msg", "error"} == named


async def test_the_setting_turns_the_lines_off(tmp_path: Path, lines: Any) -> None:
    async with world(tmp_path, 1, log_calls=False) as (member,):
        await member.serve("echo", echo)
        await call(member, "echo")
        assert lines() == []


def test_a_flood_of_forged_calls_fills_no_log(lines: Any) -> None:
    now_s = 0.0
    log = CallLines(NodeId("did:key:me"), lambda _: ("direct", "iroh"), now_s=lambda: now_s)
    message = v1.CallOpen(
        v=1, task_id="t", run_id="r", agent_id="a" * 5_000, parts=[], caller="did:key:\nevil", token="x"
    )
    for _ in range(1_000):
        log.turned_away(NodeId("did:key:peer"), message, Unauthorized("no", code="token.missing"))
    found = lines()
    assert len(found) == 60
    assert {line["code"] for line in found} == {"token.missing"}
    assert {len(line["agent_id"]) for line in found} == {200}
    assert "caller_id" not in found[0]
    now_s = 61.0
    log.turned_away(NodeId("did:key:peer"), message, Unauthorized("no", code="token.missing"))
    more, last = lines()
    assert (more["count"], more["level"]) == (940, "warning")
    assert last["code"] == "token.missing"


async def test_a_clock_that_jumps_makes_no_duration_negative(
    tmp_path: Path, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    async def slow(call: Invocation) -> AsyncIterator[Happening]:
        monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
        monkeypatch.setattr(time, "time_ns", lambda: 1_000_000 * 10**9)
        yield Happening("status", {"state": "completed"})

    async with world(tmp_path, 1) as (member,):
        await member.serve("slow", slow)
        lines()
        await call(member, "slow")
        assert all(line["ms"] >= 0 for line in lines())
        readings = await member.node.measure()
        assert all(one.sum >= 0 for many in readings.histograms.values() for one in many.values())
        monkeypatch.undo()
