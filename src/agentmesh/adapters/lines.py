"""Cut byte streams into lines and server-sent events, with every size capped.

HTTP libraries cap a line at tens of kilobytes and fail beyond; an agent may answer a megabyte in one line, and a chunk may
end inside a UTF-8 character. So the cutting is done here, on bytes, and text is decoded only when a line is whole.
Pure: no I/O. Used by the doors of this room.
"""

from __future__ import annotations

from agentmesh.errors import LimitError

#: Longest line of a stream (one NDJSON line, or one field of an event), bytes.
LINE_BYTES_MAX = 8 * 1024 * 1024


class LineSplitter:
    """Cut chunks into lines at ``\\n``; a ``\\r`` before it belongs to the line end.

    Args:
        line_bytes_max: Longest line in bytes.
    """

    def __init__(self, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self.line_bytes_max = line_bytes_max
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk completes, without their ends, in order.

        Raises:
            LimitError: a line is longer than allowed. The splitter is of no further use.
        """
        lines: list[bytes] = []
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._keep(chunk[start:end])
            lines.append(self.rest())
            start = end + 1
        if start < len(chunk):
            self._keep(chunk[start:])
        return lines

    def rest(self) -> bytes:
        """Return and forget the unfinished line: what to read at the end of the stream."""
        line = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return line.removesuffix(b"\r")

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self.line_bytes_max:
            raise LimitError(
                f"the agent sent a line of more than {self.line_bytes_max} bytes",
                code="agent.line_too_long",
                hint="answer in several smaller pieces",
            )
        self._pieces.append(piece)


class EventSplitter:
    """Collect the ``data`` of server-sent events (WHATWG HTML §9.2.6) from lines.

    Fields other than ``data`` are ignored: JSON-RPC over SSE uses none of them. A bare ``\\r`` does not end a line here.

    Args:
        event_bytes_max: Most bytes of data in one event.
    """

    def __init__(self, event_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._lines = LineSplitter(event_bytes_max + 64)
        self._event_bytes_max = event_bytes_max
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of each event that this chunk completes, in order.

        Raises:
            LimitError: an event is larger than allowed. The splitter is of no further use.
        """
        events: list[bytes] = []
        for line in self._lines.feed(chunk):
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data.clear()
                    self._size = 0
            elif line.startswith(b"data:"):
                value = line[5:].removeprefix(b" ")
                self._size += len(value) + 1
                if self._size > self._event_bytes_max:
                    raise LimitError(
                        f"the agent sent an event of more than {self._event_bytes_max} bytes",
                        code="agent.line_too_long",
                        hint="answer in several smaller pieces",
                    )
                self._data.append(value)
        return events
