"""Reading server-sent events, for the async and the sync client: bytes in, frames out, no I/O.

Follows the WHATWG "event stream interpretation" for the fields that a node sends (event, data, id; retry and comments are
skipped). Sizes are capped, since what answers on a port may be anything.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from agentmesh.errors import DecodeError, LimitError, MeshError
from agentmesh.sdk.requests import error_of_problem
from agentmesh.sdk.types import DiscoverView, Reply
from agentmesh.wire.event import EVENT_BYTES_MAX, EventV1, decode_json

#: Largest frame in bytes: the largest event and its fields, or a reply made of several of them.
FRAME_BYTES_MAX = 4 * EVENT_BYTES_MAX

_reply_decoder = msgspec.json.Decoder(Reply)
_answer_decoder = msgspec.json.Decoder(DiscoverView)


class Frame(NamedTuple):
    """One server-sent event."""

    event: str
    data: bytes
    id: str


class SseParser:
    """Turn a byte stream into frames, whatever the pieces it comes in."""

    def __init__(self, *, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._scanned = 0
        self._first = True
        self._after_cr = False
        self._event = ""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._id = ""

    def feed(self, piece: bytes) -> list[Frame]:
        """Take the next bytes and return the frames they complete.

        Raises:
            LimitError: a frame is larger than allowed; the parser is of no further use.
        """
        frames: list[Frame] = []
        self._buffer += piece
        start = 0
        while (end := self._line_end(start)) >= 0:
            line = bytes(self._buffer[start:end])
            start = end + 1
            if self._after_cr and not line and self._buffer[end] == 10:
                self._after_cr = False
                continue
            self._after_cr = self._buffer[end] == 13
            self._take(line, frames)
        del self._buffer[:start]
        self._scanned = len(self._buffer)
        if len(self._buffer) + self._data_bytes > self._frame_bytes_max:
            raise LimitError(f"an event of more than {self._frame_bytes_max} bytes", code="sse.too_large")
        return frames

    def _line_end(self, start: int) -> int:
        """Return the index of the next CR or LF, or -1; bytes already searched are not searched again."""
        begin = max(start, self._scanned)
        self._scanned = 0
        newline = self._buffer.find(b"\n", begin)
        carriage = self._buffer.find(b"\r", begin, newline if newline >= 0 else len(self._buffer))
        return newline if carriage < 0 else carriage

    def _take(self, line: bytes, frames: list[Frame]) -> None:
        if self._first:
            line, self._first = line.removeprefix(b"\xef\xbb\xbf"), False
        if not line:
            if self._data:
                frames.append(Frame(self._event or "message", b"\n".join(self._data), self._id))
            self._event, self._data, self._data_bytes = "", [], 0
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
        elif field == b"event":
            self._event = value[:200].decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            self._id = value[:200].decode("utf-8", "replace")


def decode_answer(frame: Frame) -> DiscoverView:
    """Return the answer to a search that a frame of our API says.

    Raises:
        MeshError: it says what went wrong.
        DecodeError: it says neither.
    """
    if frame.event == "problem":
        raise error_of_problem(frame.data, 500)
    try:
        return _answer_decoder.decode(frame.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not an answer: {error}", code="daemon.answer") from error


def decode_frame(frame: Frame) -> EventV1 | Reply | MeshError:
    """Return what a frame of our API says: an event, the reply that ends a call, or the error that does.

    Raises:
        DecodeError: it says none of these.
    """
    if frame.event == "problem":
        return error_of_problem(frame.data, 500)
    if frame.event == "reply":
        try:
            return _reply_decoder.decode(frame.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(f"not a reply: {error}", code="daemon.answer") from error
    return decode_json(frame.data)
