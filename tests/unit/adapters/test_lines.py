"""Cutting streams into lines and events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.adapters.lines import EventSplitter, LineSplitter
from agentmesh.errors import LimitError

line = st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b""))


def chunks(whole: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({c % (len(whole) + 1) for c in cuts})
    return [whole[a:b] for a, b in zip([0, *at], [*at, len(whole)], strict=True)]


@given(st.lists(line), st.lists(st.integers(0, 10_000)), st.sampled_from([b"\n", b"\r\n"]))
def test_lines_come_out_the_same_however_the_stream_is_cut(lines: list[bytes], cuts: list[int], end: bytes) -> None:
    splitter = LineSplitter()
    out = [found for chunk in chunks(b"".join(x + end for x in lines), cuts) for found in splitter.feed(chunk)]
    assert out == lines
    assert splitter.rest() == b""


@given(st.lists(st.lists(line, min_size=1, max_size=3), max_size=5), st.lists(st.integers(0, 10_000)))
def test_events_come_out_the_same_however_the_stream_is_cut(events: list[list[bytes]], cuts: list[int]) -> None:
    whole = b"".join(b"".join(b"data: " + x + b"\n" for x in event) + b"\n" for event in events)
    splitter = EventSplitter()
    out = [found for chunk in chunks(whole, cuts) for found in splitter.feed(chunk)]
    assert out == [b"\n".join(event) for event in events]


def test_the_unfinished_line_is_the_rest() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"a\nbc") == [b"a"]
    assert splitter.rest() == b"bc"


def test_a_line_over_the_limit_is_refused_before_it_ends() -> None:
    splitter = LineSplitter(10)
    assert splitter.feed(b"0123456789\n") == [b"0123456789"]
    splitter.feed(b"01234")
    with pytest.raises(LimitError) as caught:
        splitter.feed(b"567890")
    assert caught.value.code == "agent.line_too_long"


def test_an_event_over_the_limit_is_refused_even_in_short_lines() -> None:
    splitter = EventSplitter(100)
    with pytest.raises(LimitError):
        splitter.feed(b"data: 0123456789\n" * 20)


def test_fields_other_than_data_and_comments_are_ignored() -> None:
    assert EventSplitter().feed(b": hi\nevent: x\nid: 3\nretry: 5\ndata:a\ndata: b\n\n\n\ndata: c\n\n") == [
        b"a\nb",
        b"c",
    ]
