"""W3C trace context at the edges: what programs send in headers reaches the node, and nothing there is an error."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.api.a2a_double import Double
from tests.api.a2a_double import serving as serving_a2a
from tests.api.node_double import FakeBackend
from tests.api.serving import serving
from tests.api.test_a2a_edge import MESSAGE, rpc, rpc_call

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-00"


async def sent(headers: str, **fields: str) -> tuple[str | None, str]:
    """Call with these raw header lines; return what the node is asked for."""
    body = json.dumps({"to": "echo", "text": "hi", **fields}).encode()
    async with serving(FakeBackend()) as served:
        fixed = {
            "Host": f"127.0.0.1:{served.port}",
            "Authorization": f"Bearer {'test-token-of-forty-three-characters-in-all'}",
        }
        head = "".join(f"{k}: {v}\r\n" for k, v in {**fixed, "Content-Length": str(len(body))}.items())
        answer = await served.raw(f"POST /api/v1/calls HTTP/1.1\r\n{head}{headers}\r\n".encode() + body)
        assert answer.status == 200, answer
        request = next(one[1] for one in served.backend.asked if one[0] == "call")
        return request.traceparent, request.tracestate


async def test_the_headers_of_an_api_call_are_its_trace_context_unless_the_body_names_one() -> None:
    lines = f"traceparent: {TRACE}\r\nTraceState: foo=1\r\ntracestate: bar=2\r\n"
    assert await sent(lines) == (TRACE, "foo=1,bar=2")
    assert await sent(lines, traceparent=OTHER) == (OTHER, "")
    assert await sent("tracestate: foo=1\r\n") == (None, "")
    assert await sent("") == (None, "")


@pytest.mark.parametrize("lines", [f"traceparent: {TRACE}\r\ntraceparent: {OTHER}\r\n"])
async def test_two_trace_contexts_are_as_good_as_none(lines: str) -> None:
    assert await sent(lines) == (None, "")


async def test_a_trace_context_that_makes_no_sense_is_no_error() -> None:
    assert (await sent("", traceparent="x" * 10_000))[0] == "x" * 10_000  # the node drops it


async def test_the_headers_of_an_a2a_message_are_its_trace_context() -> None:
    node = Double()
    async with serving_a2a(node) as base:
        await rpc(f"{base}/echo", rpc_call("SendMessage", {"message": MESSAGE}), traceparent=TRACE, tracestate="foo=1")
        await rpc(f"{base}/echo", rpc_call("SendMessage", {"message": MESSAGE | {"messageId": "m2"}}), traceparent="no")
        several = [
            ("traceparent", TRACE),
            ("tracestate", "foo=1"),
            ("tracestate", "bar=2"),
            ("content-type", "application/json"),
        ]
        for name, headers in (("m3", several), ("m4", [*several, ("traceparent", OTHER)])):
            body = rpc_call("SendMessage", {"message": MESSAGE | {"messageId": name}})
            async with httpx.AsyncClient(timeout=20) as http:
                await http.post(f"{base}/echo", content=json.dumps(body), headers=headers)
    told = [(request.traceparent, request.tracestate) for request in node.requests]
    assert told == [(TRACE, "foo=1"), ("no", ""), (TRACE, "foo=1,bar=2"), (None, "")]
