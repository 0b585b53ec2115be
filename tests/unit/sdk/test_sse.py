"""Limits and corner cases of the event stream parser; what it must get right always is in tests/property."""

from __future__ import annotations

import pytest

from agentmesh.errors import AgentFailed, DecodeError, LimitError
from agentmesh.sdk.sse import Frame, SseParser, decode_frame
from agentmesh.sdk.types import Reply


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 200, b"data: xxxxxxxx\n" * 30, b"y" * 200])
def test_a_frame_that_never_ends_is_refused(piece: bytes) -> None:
    parser = SseParser(frame_bytes_max=100)
    with pytest.raises(LimitError):
        parser.feed(piece)


def test_a_long_stream_of_small_frames_is_no_large_frame() -> None:
    parser = SseParser(frame_bytes_max=100)
    assert sum(len(parser.feed(b"data: x\n\n" * 50)) for _ in range(100)) == 5000


def test_a_frame_without_data_is_skipped_and_unknown_fields_are_ignored() -> None:
    frames = SseParser().feed(b"event: a\n\nfoo: bar\ndata\ndata:  two\nretry: 5\n\n")
    assert frames == [Frame("message", b"\n two", "")]


def test_the_last_id_stays_until_the_next() -> None:
    frames = SseParser().feed(b"id: 7\ndata: a\n\ndata: b\n\nid: x\0y\ndata: c\n\nid\ndata: d\n\n")
    assert [f.id for f in frames] == ["7", "7", "7", ""]


def test_frames_are_read_as_what_they_say() -> None:
    reply = decode_frame(Frame("reply", b'{"run_id":"r","task_id":"t","state":"completed","later_field":1}', ""))
    assert isinstance(reply, Reply)
    problem = b'{"type":"/problems/agent_failed","title":"t","status":502,"detail":"boom","code":"agent.failed"}'
    error = decode_frame(Frame("problem", problem, ""))
    assert isinstance(error, AgentFailed)
    assert error.detail == "boom"
    with pytest.raises(DecodeError):
        decode_frame(Frame("message", b"[" * 100_000, ""))
    with pytest.raises(DecodeError):
        decode_frame(Frame("reply", b"{}", ""))
