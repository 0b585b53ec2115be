"""Calls as spans: what they say, what they never say unless it is asked for, and that they hang below each other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from agentmesh.errors import AgentFailed, MeshError
from agentmesh.identity.claims import hash_of
from agentmesh.node.door import Happening, Invocation
from agentmesh.node.spans import SpanKit
from agentmesh.obs.spans import CONTENT_MAX, MARKS_MAX, Span
from agentmesh.wire.views import CallRequest, Reply, SpanExportView
from tests.unit.node.test_trace_context import GIVEN, asks
from tests.unit.node.test_two_nodes import DONE, echo, knows, say
from tests.unit.node.world import Member, until, world


class Taken(list[Span]):
    """Where the spans of all nodes of a world go."""

    def kit(self, *, content: bool = False) -> SpanKit:
        return SpanKit(self.append, content, lambda: SpanExportView(endpoint="here"), list)

    def of(self, kind: str, name: str) -> Span:
        (found,) = (one for one in self if (one.kind, one.name) == (kind, f"invoke_agent {name}"))
        return found


async def ask(member: Member, to: str, text: str = "SECRET", **more: Any) -> Reply:
    return await (await member.node.call(CallRequest(to=to, text=text, **more))).reply()


async def works(call: Invocation) -> AsyncIterator[Happening]:
    """Use a tool, think, answer, and say what it cost."""
    yield Happening("tool", {"name": "search", "args": {"q": "SECRET"}, "result": "SECRET"})
    yield Happening("reasoning", {"text": "SECRET"})
    yield say("SECRET")
    yield Happening("status", {"state": "completed", "usage": {"tokens": 7, "usd_micros": 5}})


async def breaks(call: Invocation) -> AsyncIterator[Happening]:
    raise AgentFailed("SECRET went wrong")
    yield DONE


async def test_a_chained_call_gives_a_span_for_each_side_and_they_hang_below_each_other(tmp_path: Path) -> None:
    taken = Taken()
    async with world(tmp_path, 2, spans=taken.kit()) as (a, b):
        await a.serve("leaf", echo)
        await b.serve("middle", asks(b, "middle", "leaf", tells=False))
        await until(lambda: knows(b, "leaf") and knows(a, "middle"))
        reply = await ask(a, "middle", traceparent=GIVEN, context_id="c1", skill="s")
        assert len(taken) == 4
        way = [
            taken.of(*at) for at in (("client", "middle"), ("server", "middle"), ("client", "leaf"), ("server", "leaf"))
        ]
        assert {span.trace.trace_id for span in way} == {GIVEN[3:35]}
        assert [span.trace.parent_id for span in way] == [GIVEN[36:52], *(span.trace.span_id for span in way[:-1])]
        client, server = way[0].attributes, way[1].attributes
        for one in (client, server):
            assert one["gen_ai.operation.name"] == "invoke_agent"
            assert one["gen_ai.agent.name"] == "middle"
            assert one["gen_ai.agent.id"] == reply.agent_id
            assert one["gen_ai.conversation.id"] == "c1"
            assert (one["agentmesh.run.id"], one["agentmesh.task.id"]) == (reply.run_id, reply.task_id)
            assert (one["agentmesh.skill"], one["agentmesh.state"], one["agentmesh.path"]) == (
                "s",
                "completed",
                reply.path,
            )
            assert one["agentmesh.receipt.digest"] == hash_of(reply.receipt)
            assert "error.type" not in one
        assert client["agentmesh.callee.node.id"] == b.node.node_id
        assert server["agentmesh.caller.node.id"] == a.node.node_id
        assert server["agentmesh.usage.calls"] == 1
        assert way[2].attributes["agentmesh.task.parent_id"] == reply.task_id
        assert all(span.began_ns <= span.ended_ns for span in way)


async def test_what_was_said_is_in_no_span_unless_that_is_switched_on(tmp_path: Path) -> None:
    for content in (False, True):
        taken = Taken()
        home = tmp_path / str(content)
        home.mkdir()
        async with world(home, 2, spans=taken.kit(content=content)) as (a, b):
            await b.serve("works", works)
            await b.serve("breaks", breaks)
            await until(lambda a=a: knows(a, "works") and knows(a, "breaks"))
            await ask(
                a, "works", purpose="SECRET", metadata={"k": "SECRET"}, baggage={"k": "SECRET"}, budget={"tokens": 9}
            )
            with pytest.raises(AgentFailed):
                await ask(a, "breaks")
        assert len(taken) == 4
        assert [("SECRET" in str(span)) for span in taken] == [content] * 4
        served = taken.of("server", "works")
        assert served.attributes["agentmesh.budget.tokens"] == 9
        assert (served.attributes["agentmesh.usage.tokens"], served.attributes["agentmesh.usage.usd_micros"]) == (7, 5)
        assert [(mark.name, mark.attributes["gen_ai.tool.name"]) for mark in served.marks] == [
            ("agentmesh.tool", "search")
        ]
        assert {taken.of(kind, "breaks").error for kind in ("client", "server")} == {"agent.failed"}
        if content:
            for one in (served, taken.of("client", "works")):
                assert "SECRET" in str(one.attributes["gen_ai.input.messages"])
                assert "SECRET" in str(one.attributes["gen_ai.output.messages"])


async def test_the_names_of_the_conventions_are_those_of_the_library(tmp_path: Path) -> None:
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    taken = Taken()
    async with world(tmp_path, 1, spans=taken.kit(content=True)) as (a,):
        await a.serve("works", works)
        await ask(a, "works", context_id="c")
    names = {name for span in taken for name in span.attributes}
    names |= {name for span in taken for mark in span.marks for name in mark.attributes}
    assert {name for name in names if name.startswith("gen_ai.")} <= known
    page = (Path(__file__).parents[3] / "docs/reference/opentelemetry.md").read_text("utf-8")
    told = page.replace("`, `.", "`, `agentmesh.budget.") + page.replace("`, `.", "`, `agentmesh.usage.")
    assert not [name for name in names if f"`{name}`" not in told], (
        "docs/reference/opentelemetry.md names every attribute"
    )


async def test_what_is_not_sampled_is_not_told(tmp_path: Path) -> None:
    taken = Taken()
    async with world(tmp_path, 2, spans=taken.kit()) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        await ask(a, "echo", traceparent=GIVEN[:-1] + "0")
        assert not taken
        await ask(a, "echo", traceparent=GIVEN)
        assert len(taken) == 2


async def test_a_refusal_is_a_span_with_the_code_of_the_refusal(tmp_path: Path) -> None:
    taken = Taken()
    async with world(tmp_path, 2, spans=taken.kit(), policy="strict") as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        with pytest.raises(MeshError) as refused:
            await ask(a, "echo")
        spans = [taken.of(kind, "echo") for kind in ("client", "server")]
        assert [span.error for span in spans] == [refused.value.code] * 2
        assert [span.attributes["error.type"] for span in spans] == [refused.value.code] * 2
        assert [span.attributes["agentmesh.state"] for span in spans] == ["rejected"] * 2


async def test_hostile_names_and_floods_stay_within_bounds(tmp_path: Path) -> None:
    taken = Taken()

    async def floods(call: Invocation) -> AsyncIterator[Happening]:
        for _ in range(MARKS_MAX + 10):
            yield Happening("tool", {"name": "\x00\u202e" + "x" * 5000, "args": ["y" * 20_000]})
        yield say("z" * 50_000)
        yield DONE

    async with world(tmp_path, 1, spans=taken.kit(content=True)) as (a,):
        await a.serve("floods", floods)
        await ask(a, "floods", "q" * 50_000)
        served = taken.of("server", "floods")
        assert len(served.marks) == MARKS_MAX
        assert served.attributes["agentmesh.marks.left_out"] == 10
        for mark in served.marks:
            assert all(len(str(value).encode()) <= CONTENT_MAX for value in mark.attributes.values())
        for span in taken:
            for value in span.attributes.values():
                assert len(str(value).encode()) <= CONTENT_MAX + 200
