"""Two real daemons and a receiver of OTLP: one chained call is one trace, whose spans hang below each other."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from agentmesh.codec.tracecontext import read_trace
from tests.support.daemons import Daemon, Mesh, script, sees_agent, wait_until
from tests.support.otlp import Got, Receiver, receiving

pytestmark = pytest.mark.e2e

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#: An agent that asks another one, in a span of its own where OpenTelemetry is in use.
MIDDLE = """
from agentmesh import Context, agent, run
from opentelemetry import trace

@agent
async def middle(text: str, ctx: Context) -> str:
    "Asks the leaf."
    return str(await ctx.call("leaf", text)) + "|" + format(trace.get_current_span().get_span_context().span_id, "016x")

run(middle)
"""
LEAF = """
from agentmesh import agent, run

@agent
async def leaf(text: str) -> str:
    "Says what it hears."
    return text

run(leaf)
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[tuple[Daemon, Daemon]]:
    root = tmp_path_factory.mktemp("otel")
    mesh = Mesh(root)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
            patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=tests")
            a = mesh.node("a", otel_endpoint=receiver.url)
            # What begins at b is not sampled; what comes from a is.
            b = mesh.node("b", seeds=(a.seed(),), otel_endpoint=receiver.url, otel_sample=0.0)
        for name, text in (("middle.py", MIDDLE), ("leaf.py", LEAF)):
            (root / name).write_text(text)
        with (
            script([sys.executable, str(root / "middle.py")], b.env),
            script([sys.executable, str(root / "leaf.py")], a.env),
        ):
            wait_until(lambda: sees_agent(a, "middle") and sees_agent(b, "leaf"), "both agents at both nodes")
            yield a, b
    finally:
        mesh.aclose()


def spans_of(receiver: Receiver, trace_id: str, count: int) -> dict[tuple[int, str], Got]:
    """Wait for the spans of a trace; return them by kind (2 server, 3 client) and agent."""
    found = wait_until(
        lambda: len(them := [one for one in receiver.spans if one.trace_id == trace_id]) >= count and them,
        f"{count} spans of {trace_id}",
    )
    assert len(found) == count
    return {(one.kind, one.attributes["gen_ai.agent.name"]): one for one in found}


def chain(spans: dict[tuple[int, str], Got]) -> list[Got]:
    return [spans[3, "middle"], spans[2, "middle"], spans[3, "leaf"], spans[2, "leaf"]]


def asks_for(daemon: Daemon, text: str, **more: Any) -> Any:
    return daemon.post("/api/v1/calls", {"to": "middle", "text": text, **more})


def scraped(daemon: Daemon, series: str) -> float:
    """Return the value of a series as Prometheus would read it."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {daemon.token}"})
        lines = connection.getresponse().read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(series)).rpartition(" ")[2])


def test_a_chained_call_arrives_as_one_tree_without_what_was_said(
    nodes: tuple[Daemon, Daemon], receiver: Receiver
) -> None:
    a, b = nodes
    reply = asks_for(a, "SECRET", traceparent=GIVEN, tracestate="foo=1")
    way = chain(spans_of(receiver, GIVEN[3:35], 4))
    assert [span.parent_id for span in way] == [GIVEN[36:52], *(span.span_id for span in way[:-1])]
    assert {span.state for span in way} == {"foo=1"}
    assert [span.resource["agentmesh.node.name"] for span in way] == ["a", "b", "b", "a"]
    assert {span.resource["team"] for span in way} == {"tests"}
    assert {span.attributes["agentmesh.run.id"] for span in way} == {reply["run_id"]}
    assert all(span.seconds >= 0 for span in way)
    # The agent's own spans hang below the span of its node.
    assert reply["text"] == f"SECRET|{way[1].span_id}"
    assert not any(b"SECRET" in body for body in receiver.raw)
    # Events, CLI and spans tell the same ids.
    events = a.get(f"/api/v1/runs/{reply['run_id']}/events")
    told = [read_trace(e["metadata"]["traceparent"]) for e in events["events"] if "traceparent" in e["metadata"]]
    assert [one and one.span_id for one in told] == [span.span_id for span in way]
    assert GIVEN[3:35] in a.cli("trace", reply["run_id"]).out
    # And back: the id of a trace from outside names the run, at both nodes.
    for node in (a, b):
        assert node.get(f"/api/v1/runs/{GIVEN[3:35]}/events")["run_id"] == reply["run_id"]


def test_without_a_trace_context_the_run_is_the_trace(nodes: tuple[Daemon, Daemon], receiver: Receiver) -> None:
    a, _ = nodes
    reply = asks_for(a, "hi")
    way = chain(spans_of(receiver, reply["run_id"], 4))
    assert [span.parent_id for span in way] == ["", *(span.span_id for span in way[:-1])]


def test_an_a2a_client_gets_its_call_into_its_own_trace(nodes: tuple[Daemon, Daemon], receiver: Receiver) -> None:
    a, _ = nodes
    trace_id = "5" * 32
    message = {"messageId": "m-otel", "role": "ROLE_USER", "parts": [{"text": "hi"}]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    headers = {"Content-Type": "application/json", "A2A-Version": "1.0", "traceparent": f"00-{trace_id}-{'6' * 16}-01"}
    connection = http.client.HTTPConnection("127.0.0.1", a.port, timeout=30)
    connection.request("POST", "/a2a/middle/", json.dumps(body), headers)
    assert connection.getresponse().status == 200
    connection.close()
    way = chain(spans_of(receiver, trace_id, 4))
    assert [span.parent_id for span in way] == ["6" * 16, *(span.span_id for span in way[:-1])]


def test_what_is_not_sampled_leaves_nothing_at_the_receiver(nodes: tuple[Daemon, Daemon], receiver: Receiver) -> None:
    a, b = nodes
    asks_for(a, "hi", traceparent="00-" + "7" * 32 + "-" + "8" * 16 + "-00")
    here = asks_for(b, "hi")["run_id"]
    later = asks_for(a, "hi")["run_id"]
    spans_of(receiver, later, 4)  # of both nodes, after the first ones would have come
    assert not [span for span in receiver.spans if span.trace_id in ("7" * 32, here)]


def test_status_and_metrics_tell_of_the_export_and_a_receiver_that_fails_holds_up_nothing(
    nodes: tuple[Daemon, Daemon], receiver: Receiver
) -> None:
    a, _ = nodes
    assert a.get("/api/v1/status")["otel"]["endpoint"] == f"{receiver.url}/v1/traces"
    receiver.mode = "fails"
    try:
        assert asks_for(a, "hi")["state"] == "completed"
        wait_until(lambda: a.get("/api/v1/status")["otel"]["failed"] >= 2, "spans to be given up")
        assert "500" in a.get("/api/v1/status")["otel"]["problem"]
        assert "were not taken" in a.cli("status").out
        assert scraped(a, 'agentmesh_spans_total{result="failed"}') >= 2
        assert scraped(a, 'agentmesh_spans_total{result="sent"}') >= 2
    finally:
        receiver.mode = "good"
