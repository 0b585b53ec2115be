"""One trace across nodes and agents: who caused what comes out right, whether or not the agents on the way know of traces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentmesh.codec.tracecontext import TraceContext, read_trace
from agentmesh.node.door import Happening, Invocation
from agentmesh.wire.event import EventV1, state_of
from agentmesh.wire.views import CallRequest, Reply
from tests.unit.node.test_two_nodes import DONE, echo, knows, say
from tests.unit.node.world import Member, until, world

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def ask(member: Member, to: str, **more: Any) -> Reply:
    return await (await member.node.call(CallRequest(to=to, text="x", **more))).reply()


def asks(at: Member, name: str, to: str, *, tells: bool) -> Any:
    """Return an agent that calls another one while it serves, with or without the trace context that it was given."""

    async def answer(call: Invocation) -> AsyncIterator[Happening]:
        trace = {"traceparent": call.traceparent, "tracestate": call.tracestate} if tells else {}
        await ask(
            at, to, run_id=call.run_id, parent_task_id=call.task_id, from_agent=name, hops=list(call.hops), **trace
        )
        yield say("done")
        yield DONE

    return answer


async def spans_of(member: Member, run_id: str) -> dict[tuple[str, str], TraceContext]:
    """Return the spans that the events of a run tell of, by agent and side."""
    spans: dict[tuple[str, str], TraceContext] = {}
    for event in (await member.node.trace(run_id)).events:
        if (span := span_of(event)) is not None:
            side = "asks" if state_of(event.payload) == "submitted" else "serves"
            spans[str(event.agent), side] = span
    return spans


def span_of(event: EventV1) -> TraceContext | None:
    read = read_trace(event.metadata.get("traceparent"))
    return None if read is None else read._replace(parent_id=event.metadata.get("parent_span", ""))


@pytest.mark.parametrize("tells", [True, False], ids=["told on", "kept to itself"])
async def test_a_chain_over_two_nodes_is_one_trace_whose_spans_hang_below_each_other(
    tmp_path: Path, tells: bool
) -> None:
    async with world(tmp_path, 2) as (a, b):
        leaf = await a.serve("leaf", echo)
        middle = await b.serve("middle", asks(b, "middle", "leaf", tells=tells))
        await until(lambda: knows(b, "leaf") and knows(a, "middle"))
        reply = await ask(a, "middle", traceparent=GIVEN, tracestate="foo=1,bar=2")
        spans = await spans_of(a, reply.run_id)
        assert (await a.node.trace(reply.run_id)).trace_ids == [GIVEN[3:35]]
        way = [spans[at] for at in (("middle", "asks"), ("middle", "serves"), ("leaf", "asks"), ("leaf", "serves"))]
        assert {span.trace_id for span in way} == {GIVEN[3:35]}
        assert [span.parent_id for span in way] == [GIVEN[36:52], *(span.span_id for span in way[:-1])]
        assert len({span.span_id for span in way}) == 4
        # What an agent is told is the span in which its node serves it, and the state of other systems as it came.
        assert middle.calls[0].traceparent == way[1].traceparent
        assert leaf.calls[0].traceparent == way[3].traceparent
        assert leaf.calls[0].tracestate == "foo=1,bar=2"


async def test_without_a_trace_context_the_trace_is_the_run(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        reply = await ask(a, "echo")
        spans = await spans_of(a, reply.run_id)
        assert {span.trace_id for span in spans.values()} == {reply.run_id}
        assert spans["echo", "asks"].parent_id == ""
        assert spans["echo", "serves"].parent_id == spans["echo", "asks"].span_id


async def test_what_is_not_sampled_stays_so_on_every_hop(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await a.serve("leaf", echo)
        await b.serve("middle", asks(b, "middle", "leaf", tells=True))
        await until(lambda: knows(b, "leaf") and knows(a, "middle"))
        reply = await ask(a, "middle", traceparent=GIVEN[:-1] + "0")
        spans = await spans_of(a, reply.run_id)
        assert len(spans) == 4
        assert not any(span.sampled for span in spans.values())


async def test_a_node_that_samples_nothing_says_so_in_the_traces_that_begin_there(tmp_path: Path) -> None:
    async with world(tmp_path, 1, trace_share=0.0) as (a,):
        agent = await a.serve("echo", echo)
        await ask(a, "echo")
        await ask(a, "echo", traceparent=GIVEN)
        traces = [read_trace(call.traceparent) for call in agent.calls]
        assert [trace and trace.sampled for trace in traces] == [False, True]


async def test_a_peer_that_tells_no_trace_context_or_a_bad_one_gets_its_call_served(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        calls = a.node._calls  # pyright: ignore[reportPrivateUsage]
        carry = calls._remote.carry  # pyright: ignore[reportPrivateUsage]
        said: list[str | None] = [None, "nonsense"]

        async def older(attempt: Any, *, is_last: bool) -> Any:
            attempt.message.traceparent = said.pop()
            return await carry(attempt, is_last=is_last)

        calls._remote.carry = older  # type: ignore[method-assign]
        runs = [(await ask(a, "echo")).run_id for _ in range(2)]
        assert [(read_trace(c.traceparent) or [""])[0] for c in agent.calls] == runs
