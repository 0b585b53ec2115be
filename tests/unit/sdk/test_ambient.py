"""Programs that use OpenTelemetry: mesh calls go out within their span, and agents work within the span of their node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import context as otel
from opentelemetry import trace as api

from agentmesh import agent
from agentmesh.sdk import context
from agentmesh.sdk.ambient import ambient, within
from agentmesh.sdk.calling import call_request
from agentmesh.sdk.context import CallContext
from agentmesh.sdk.turn import InvokeRequest, Turn

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"


@contextmanager
def in_span(trace_id: str, span_id: str, flags: int = 1) -> Iterator[None]:
    span = api.NonRecordingSpan(
        api.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=api.TraceFlags(flags))
    )
    token = otel.attach(api.set_span_in_context(span))
    try:
        yield
    finally:
        otel.detach(token)


def test_a_call_goes_out_within_the_span_that_the_program_is_in() -> None:
    assert ambient() is None
    assert call_request("echo", "x").traceparent is None
    with in_span("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"):
        assert call_request("echo", "x").traceparent == TRACE
        assert call_request("echo", "x", traceparent=OTHER, tracestate="a=1").traceparent == OTHER
    with in_span("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 0):
        assert call_request("echo", "x").traceparent == TRACE[:-1] + "0"


def test_inside_an_agent_a_call_is_part_of_the_trace_of_the_call_that_it_serves() -> None:
    token = context.enter(CallContext("r" * 32, "t", traceparent=TRACE, tracestate="a=1"))
    try:
        request = call_request("echo", "x")
        assert (request.traceparent, request.tracestate) == (TRACE, "a=1")
        with in_span("4bf92f3577b34da6a3ce929d0e0e4736", "3333333333333333"):  # a span that the agent opened itself
            assert call_request("echo", "x").traceparent == "00-4bf92f3577b34da6a3ce929d0e0e4736-3333333333333333-01"
    finally:
        context.leave(token)


@pytest.mark.parametrize("traceparent", [TRACE, "nonsense", None])
async def test_what_an_agent_does_happens_within_the_span_of_its_node(traceparent: str | None) -> None:
    seen: list[Any] = []

    @agent
    def plain(text: str) -> str:
        "Looks where it is."
        seen.append(ambient())
        return text

    @agent
    async def modern(text: str) -> str:
        "Looks where it is."
        seen.append(ambient())
        return text

    for one in (plain, modern):
        call = CallContext("r" * 32, "t", traceparent=traceparent, tracestate="a=1")
        await Turn(one, InvokeRequest(task_id="t", run_id="r" * 32, parts=[{"text": "x"}]), call).run()
    expected = (TRACE, "a=1") if traceparent == TRACE else None
    assert [here and (here.traceparent, here.state) for here in seen] == [expected, expected]
    assert ambient() is None


def test_a_bad_context_changes_nothing() -> None:
    with in_span("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"), within("nonsense", "a=1"):
        assert call_request("echo", "x").traceparent == TRACE


def test_the_sdk_does_not_load_opentelemetry() -> None:
    code = "import sys, agentmesh; agentmesh.agent, agentmesh.Mesh; from agentmesh.sdk import calling, turn\n"
    code += "calling.call_request('a', 'b'); sys.exit(any(m.startswith('opentelemetry') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
