"""Whatever is sent to the API, the answer is a lawful one: success or a problem, never a 500."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from agentmesh.api.routes import ROWS
from agentmesh.errors import ERROR_TABLE
from tests.api.node_double import FakeBackend
from tests.api.serving import Answer, ask_app, build

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
FIELDS = [
    "to", "text", "data", "parts", "skill", "timeout_s", "context_id", "run_id", "task_id", "parent_task_id", "lamport",
    "hops", "from_agent", "stream", "traceparent", "metadata", "url", "door", "name", "description", "unsigned", "card",
    "ephemeral", "params", "seeds", "events", "nonsense",
]  # fmt: skip
NEAR = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON))
CALLS = st.fixed_dictionaries(
    {"to": st.sampled_from(["echo", "nobody", "", "echo@x"])},
    optional={
        "text": JSON, "data": JSON, "parts": st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=3), max_size=3),
        "timeout_s": st.floats() | st.integers(), "lamport": st.integers(), "stream": st.booleans(),
        "run_id": st.text(max_size=140), "task_id": st.text(max_size=140), "hops": st.lists(st.text(), max_size=70),
        "metadata": st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    },
)  # fmt: skip
EVENT = st.fixed_dictionaries(
    {
        "id": st.text(max_size=140),
        "ts": st.integers(),
        "kind": st.sampled_from(["tool", "status", "x"]),
        "run_id": st.text(),
    },
    optional={"payload": JSON, "metadata": JSON, "lamport": st.integers(), "schema_version": st.text(max_size=3)},
)
POSTS = [row for row in ROWS if row.method == "POST" and row.request is not None]
LAWFUL = {row.http for row in ERROR_TABLE.values()} - {500, 507} | {200, 307, 403, 405}


def send(method: str, path: str, body: bytes = b"", query: bytes = b"") -> Answer:
    async def run() -> Answer:
        return await asyncio.wait_for(ask_app(build(FakeBackend()), method, path, body, query=query), 20)

    return asyncio.run(run())


def check(answer: Answer) -> None:
    assert answer.status in LAWFUL, answer
    if answer.status >= 400:
        assert answer.problem().detail
    elif answer.headers.get("content-type") == "application/json":
        json.loads(answer.body)


@given(st.sampled_from(POSTS), JSON | NEAR)
def test_any_json_on_any_route_gets_a_lawful_answer(row: Any, body: Any) -> None:
    check(send("POST", row.path, json.dumps(body).encode()))


@given(CALLS)
@example({"to": "echo", "data": 10**30})
@example({"to": "echo", "text": "\ud800"})
def test_any_call_gets_a_lawful_answer(body: Any) -> None:
    check(send("POST", "/api/v1/calls", json.dumps(body).encode()))


@given(st.lists(EVENT, max_size=3))
def test_any_events_get_a_lawful_answer(events: Any) -> None:
    check(send("POST", "/api/v1/events", json.dumps({"events": events}).encode()))


@given(st.sampled_from(POSTS), st.binary(max_size=300))
def test_any_bytes_get_a_lawful_answer(row: Any, body: bytes) -> None:
    check(send("POST", row.path, body))


@given(
    st.sampled_from([row for row in ROWS if row.method != "POST" and row.stream != "always"]),
    st.text(max_size=40),
    st.binary(max_size=60),
)
def test_any_path_and_query_get_a_lawful_answer(row: Any, segment: str, query: bytes) -> None:
    check(send(row.method, row.path.replace("{ref}", segment), query=query))
