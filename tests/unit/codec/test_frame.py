"""Frame headers: what honest peers send passes, everything else is refused before its payload is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.codec.frame import (
    DATA,
    END,
    FIN,
    FRAGMENT_BYTES_MAX,
    GOAWAY,
    HEADER,
    OPEN,
    PING,
    PONG,
    REASON_BYTES_MAX,
    RESET,
    WINDOW,
    ShortReader,
    check_header,
    encode_frame,
    encode_short,
)
from agentmesh.errors import DecodeError


@pytest.mark.parametrize(
    "header",
    [
        (OPEN, 0, 1, 0),
        (DATA, 0, 1, 1),
        (DATA, END, 1, 0),
        (DATA, END, 0xFFFFFFFF, FRAGMENT_BYTES_MAX),
        (WINDOW, 0, 2, 4),
        (FIN, 0, 1, 0),
        (RESET, 0, 1, 4),
        (PING, 0, 0, 8),
        (PONG, 0, 0, 8),
        (GOAWAY, 0, 0, 4),
        (GOAWAY, 0, 0, 4 + REASON_BYTES_MAX),
    ],
)
def test_every_lawful_header_passes(header: tuple[int, int, int, int]) -> None:
    check_header(*header)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ((0, 0, 1, 0), "mux.type"),
        ((9, 0, 1, 0), "mux.type"),
        ((DATA, END, 1, FRAGMENT_BYTES_MAX + 1), "mux.frame_size"),
        ((DATA, 0, 1, 0), "mux.flags"),
        ((DATA, 2, 1, 5), "mux.flags"),
        ((OPEN, END, 1, 0), "mux.flags"),
        ((OPEN, 0, 1, 1), "mux.frame_size"),
        ((WINDOW, 0, 1, 8), "mux.frame_size"),
        ((GOAWAY, 0, 0, 3), "mux.frame_size"),
        ((GOAWAY, 0, 0, 5 + REASON_BYTES_MAX), "mux.frame_size"),
        ((PING, 0, 1, 8), "mux.stream_id"),
        ((DATA, END, 0, 5), "mux.stream_id"),
        ((OPEN, 0, 0, 0), "mux.stream_id"),
    ],
)
def test_every_unlawful_header_is_refused_by_its_rule(header: tuple[int, int, int, int], code: str) -> None:
    with pytest.raises(DecodeError) as caught:
        check_header(*header)
    assert caught.value.code == code


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_no_header_announces_more_than_a_fragment(kind: int, flags: int, stream: int, length: int) -> None:
    try:
        check_header(kind, flags, stream, length)
    except DecodeError:
        return
    assert length <= FRAGMENT_BYTES_MAX


def test_a_frame_is_ten_bytes_of_header_in_network_order_and_its_payload() -> None:
    assert encode_frame(DATA, 0x01020304, b"abc", END) == b"\x02\x01\x01\x02\x03\x04\x00\x00\x00\x03abc"
    assert HEADER.size == 10


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 7))
def test_short_frames_survive_any_cutting(payloads: list[bytes], step: int) -> None:
    data = b"".join(encode_short(p) for p in payloads)
    reader, found = ShortReader(50), []
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
        while (payload := reader.take()) is not None:
            found.append(payload)
    assert found == payloads
    assert reader.rest == b""


def test_a_short_frame_over_its_limit_is_refused_before_it_arrives() -> None:
    reader = ShortReader(50)
    reader.feed(b"\x00\x33")
    with pytest.raises(DecodeError):
        reader.take()
