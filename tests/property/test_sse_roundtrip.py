"""Any list of events, sent as server-sent events and cut anywhere, is the same list and the same digest at the reader."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.api.sse import event_frame
from agentmesh.sdk.client import Mesh
from agentmesh.sdk.sse import SseParser, decode_frame
from agentmesh.wire.event import KINDS, EventV1, digest
from tests.api.node_double import RUN
from tests.api.serving import TOKEN, serving

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.lists(
    st.builds(
        EventV1,
        id=st.uuids().map(lambda u: u.hex),
        ts=st.integers(0, 2**53),
        kind=st.sampled_from(KINDS),
        run_id=st.just(RUN),
        task_id=st.none() | st.text(max_size=8),
        lamport=st.integers(0, 2**53),
        payload=st.dictionaries(st.text(max_size=8), JSON, max_size=4),
        metadata=st.dictionaries(st.text(max_size=8), JSON, max_size=2),
    ),
    max_size=12,
    unique_by=lambda event: event.id,
)


@settings(max_examples=60)
@given(EVENTS, st.lists(st.integers(1, 300), min_size=1, max_size=8))
def test_events_cut_anywhere_arrive_whole_and_in_order(events: list[EventV1], sizes: list[int]) -> None:
    for number, event in enumerate(events, 1):
        event.seq = number
    stream = b": hello\n\nretry: 1000\n\n" + b": ping\n\n".join(event_frame(event) for event in events)
    parser = SseParser()
    frames = []
    for size in itertools.cycle(sizes):
        if not stream:
            break
        frames += parser.feed(stream[:size])
        stream = stream[size:]
    received = [decode_frame(frame) for frame in frames]
    assert received == events
    assert [frame.id for frame in frames] == [str(event.seq) for event in events]
    assert digest(e for e in received if isinstance(e, EventV1)) == digest(events)


LINES = st.lists(st.text("ab:é ", max_size=9), min_size=1)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "é", "x y"]), LINES), max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 7),
)
def test_every_line_ending_of_the_standard_is_understood(frames: list[Any], newline: str, step: int) -> None:
    text = "\ufeff" + "".join(
        f"event: {name}{newline}" + "".join(f"data: {line}{newline}" for line in lines) + newline
        for name, lines in frames
    )
    raw = (text + newline).encode()
    parser = SseParser()
    got = [frame for start in range(0, len(raw), step) for frame in parser.feed(raw[start : start + step])]
    assert [(frame.event, frame.data.decode()) for frame in got] == [(name, "\n".join(lines)) for name, lines in frames]


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_garbage_never_breaks_the_parser(pieces: list[bytes]) -> None:
    parser = SseParser()
    for piece in pieces:
        parser.feed(piece)


@settings(max_examples=15)
@given(EVENTS)
async def test_api_and_sdk_hold_the_same_list_and_digest_over_a_socket(events: list[EventV1]) -> None:
    async with serving() as served, Mesh(url=served.url, token=TOKEN) as mesh:
        if not events:
            return
        stored = await mesh.store_events(events)
        assert (stored.stored, stored.last_seq) == (len(events), len(events))
        followed: list[EventV1] = []
        async for event in mesh.follow(after=0):
            followed.append(event)
            if len(followed) == len(events):
                break
        traced = await mesh.trace("last")
        assert followed == served.backend.log
        assert digest(followed) == traced.digest == digest(events)
        assert traced.count == len(traced.events) == len(events)
