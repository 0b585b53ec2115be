"""Labels: one bounded line of whatever a payload holds."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import UsageError
from agentmesh.wire.event import KINDS, EventV1
from agentmesh.wire.rows import LABEL_CHARS_MAX, describe, kinds_of, label, listed, one_line

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
NAMES = (
    "state", "text", "detail", "input", "parts", "role", "name", "artifact_id", "args", "result", "code", "message",
)  # fmt: skip


def made(kind: Any, **payload: Any) -> EventV1:
    return EventV1(id="e", ts=1, kind=kind, run_id="r", payload=payload)


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=6))
def test_any_payload_gives_one_printable_line_of_at_most_160_characters(kind: Any, payload: dict[str, Any]) -> None:
    shown = label(EventV1(id="e", ts=1, kind=kind, run_id="r", payload=payload))
    assert len(shown) <= LABEL_CHARS_MAX
    assert all(char.isprintable() or char == "\ufffd" for char in shown)


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (made("status", state="submitted", input=[{"text": "1+1"}]), "submitted: 1+1"),
        (made("status", state="working"), "working"),
        (made("message", parts=[{"text": "a"}, {"data": {"b": [1, None, "c"]}}]), '"a{"b":[1,null,"c"]}"'),
        (made("message", parts=[{"text": "2"}, {"data": 2}]), '"2"'),
        (made("artifact", name="report", parts=[{"url": "http://x/y"}]), "report: [http://x/y]"),
        (made("tool", name="add", args={"a": 1, "b": [2]}, result=3), "add(a=1, b=[2]) → 3"),
        (made("tool", name="go", args=["x", 1]), "go(x, 1)"),
        (made("reasoning", text="why\nnot"), "why␤not"),
        (made("error", code="x.y", message="no"), "x.y: no"),
    ],
)
def test_a_label_says_what_the_trace_of_the_cli_says(event: EventV1, shown: str) -> None:
    assert label(event) == shown
    assert one_line(describe(event)) == shown


def test_marks_that_turn_hide_or_break_a_line_become_visible() -> None:
    hostile = "a\u202eb\u2066c\u200fd\x1b[31me\x00f\u2028g\rh\u200bi\ufeffj\ud800k\u3000l<script>"
    assert one_line(hostile) == "a·b·c·d·[31me·f·g·h·i·j\ufffdk l<script>"


def test_a_huge_payload_costs_no_more_than_a_small_one() -> None:
    deep: Any = "x"
    for _ in range(90):
        deep = [deep, {"k" * 1000: deep}] if isinstance(deep, str) else [deep]
    huge = "é" * 5_000_000
    events = [
        made("message", parts=[{"text": huge}] * 1000),
        made("message", parts=[{"data": {huge[: 10**6]: huge}}] * 1000),
        made("message", parts=[{"data": [huge] * 1000}]),
        made("tool", name=huge, args={str(n): huge for n in range(10_000)}, result=deep),
        made("status", state=huge, text=deep),
        made("artifact", name={"a": huge}, parts=[{"url": huge, "filename": huge}]),
    ]
    tracemalloc.start()
    try:
        assert all(len(label(event)) <= LABEL_CHARS_MAX for event in events)
        # A copy of any of the texts would be megabytes.
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_lists_of_filters_are_bounded_and_kinds_are_known() -> None:
    assert listed("task", " b,a,,b ") == ("a", "b")
    assert kinds_of("tool,status") == ("status", "tool")
    with pytest.raises(UsageError, match="kind cannot be 'nix'"):
        kinds_of("tool,nix")
    with pytest.raises(UsageError, match="at most 64"):
        listed("task", ",".join(map(str, range(65))))
