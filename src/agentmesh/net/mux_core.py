"""The multiplexer without I/O: bytes in → events, bytes out; many message streams over one ordered byte pipe.

Specification: docs/spec/wire.md §4. Same idea as yamux and HTTP/2 (credit per stream, frames of several streams
interleaved), departures: messages keep their boundaries (END flag), credit also pays for bookkeeping (every fragment
costs its length plus FRAGMENT_COST), and a waiting reader is granted room for a message larger than the window.

No clock, no asyncio, no randomness. What hostile bytes can do: raise DecodeError, have a stream reset, or fill at most
``buffer_bytes_max``. Only ``net.mux`` and tests use this module.
"""

from __future__ import annotations

from collections import deque

from agentmesh.codec.frame import (
    DATA,
    END,
    FIN,
    FRAGMENT_BYTES_MAX,
    GOAWAY,
    HEADER,
    HEADER_BYTES,
    OPEN,
    PING,
    PONG,
    REASON_BYTES_MAX,
    RESET,
    U32,
    U64,
    WINDOW,
    check_header,
    encode_frame,
)
from agentmesh.errors import Busy, Closed, DecodeError, LimitError
from agentmesh.net.mux_stream import FRAGMENT_COST, WINDOW_BYTES, CoreStream, Event, Limits

#: Credit is returned in pieces of at least this, so that small calls send no WINDOW frame at all,
#: and bulk few: each is an engine call on the side that only reads.
_GRANT_MIN = WINDOW_BYTES // 2
_CREDIT_MAX = 0x7FFFFFFF
_STREAM_ID_MAX = 0xFFFFFFFF
#: Above this many queued bytes a small message waits its turn instead of going straight to the output.
_READY_BYTES_SOFT = 256 * 1024
#: Above this many queued bytes the peer makes us answer faster than it reads: the link is closed.
_READY_BYTES_MAX = 1024 * 1024

#: Fragments are not cut smaller for want of credit, and received pieces below it are merged, so that a peer that sends
#: byte by byte costs no more memory than it sends.
_PIECE_BYTES_MIN = 4096

#: Codes of RESET that this layer sends itself; streams' users choose from 0 to 0xFFFF.
RESET_TOO_MANY_STREAMS, RESET_BUFFER_FULL = 0x10001, 0x10002


class MuxCore:
    """One end of a multiplexed link.

    Args:
        dialed: True on the side that dialled; it opens odd stream numbers, the other even ones.
        limits: Bounds; both sides must agree on ``streams_max``.
    """

    def __init__(self, dialed: bool, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.held = 0
        self.refused_streams = 0
        self.overflow_resets = 0
        #: Streams whose whole message has been handed to the output since the shell last cleared this list.
        self.drained: list[CoreStream] = []
        self._failed: DecodeError | None = None
        self._next_id = 1 if dialed else 2
        self._peer_parity = 0 if dialed else 1
        self._peer_last = 0
        self._streams: dict[int, CoreStream] = {}
        self._ours = self._theirs = 0
        self._unaccepted: dict[int, CoreStream] = {}
        self._ready: list[bytes | memoryview] = []
        self._ready_bytes = 0
        self._turns: deque[CoreStream] = deque()
        self._carry = b""
        self._kind = self._flags = self._need = 0
        self._target: CoreStream | None = None
        self._payload = b""

    # ---- streams -----------------------------------------------------------------------------------------------

    @property
    def streams(self) -> list[CoreStream]:
        """Open streams, oldest first."""
        return list(self._streams.values())

    def open(self) -> CoreStream:
        """Open a stream.

        Raises:
            Busy: as many are open as the peer admits.
            Closed: the stream numbers of this link are used up.
        """
        if self._ours >= self.limits.streams_max:
            raise Busy(f"{self._ours} streams are open on this link", code="refused.busy.streams", retry_after_s=0.1)
        if self._next_id > _STREAM_ID_MAX:
            raise Closed("the link has used up its stream numbers", code="unreached.closed.exhausted")
        stream = CoreStream(self._next_id)
        self._next_id += 2
        self._streams[stream.id] = stream
        self._ours += 1
        self._emit(encode_frame(OPEN, stream.id))
        return stream

    def accept(self) -> CoreStream | None:
        """Return the oldest stream the peer opened that was not returned yet, or None."""
        for stream_id in self._unaccepted:
            return self._unaccepted.pop(stream_id)
        return None

    def send(self, stream: CoreStream, message: bytes) -> bool:
        """Queue one message; True if it went straight to the output, False if it waits (see ``drained``).

        The shell sends one message per stream at a time and checks that the stream is open for sending.

        Raises:
            LimitError: larger than ``message_bytes_max``. Nothing was queued.
        """
        size = len(message)
        if size > self.limits.message_bytes_max:
            raise LimitError(
                f"a message of {size} bytes, at most {self.limits.message_bytes_max} can be sent",
                code="limit.message_bytes",
                hint="split it into several messages",
            )
        assert stream.out is None
        assert not stream.fin_sent
        assert stream.reset_code is None
        cost = size + FRAGMENT_COST
        if size <= FRAGMENT_BYTES_MAX and cost <= stream.send_credit and self._ready_bytes < _READY_BYTES_SOFT:
            stream.send_credit -= cost
            self._ready.append(HEADER.pack(DATA, END, stream.id, size) + message)
            self._ready_bytes += HEADER_BYTES + size
            return True
        stream.out, stream.out_at = memoryview(message), 0
        self._queue_turn(stream)
        return False

    def abandon(self, stream: CoreStream) -> bool:
        """Withdraw the waiting message; False if part of it is already out, so that only a reset can end it."""
        if stream.out is not None and stream.out_at:
            return False
        stream.out = None
        return True

    def finish(self, stream: CoreStream) -> None:
        """Send FIN after everything sent before. Idempotent; nothing happens on a stream that was reset."""
        assert stream.out is None
        if not stream.fin_sent and stream.reset_code is None:
            stream.fin_sent = True
            self._emit(encode_frame(FIN, stream.id))
            self._close_if_done(stream)

    def reset(self, stream: CoreStream, code: int) -> None:
        """Give a stream up in both directions. Idempotent; nothing happens once both sides have finished."""
        if stream.id in self._streams:
            self._emit(encode_frame(RESET, stream.id, U32.pack(code & 0xFFFFFFFF)))
            self._drop(stream, code)

    def want(self, stream: CoreStream) -> None:
        """Say that the application waits for the next message: room is granted for it even beyond the window."""
        stream.waiting = True
        if stream.parts_unpaid:
            unpaid, stream.parts_unpaid = stream.parts_unpaid, 0
            self._pay(stream, unpaid)

    def take_message(self, stream: CoreStream) -> bytes:
        """Take the oldest complete message and grant the peer its room again. The inbox must not be empty."""
        message, unpaid = stream.inbox.popleft()
        self._release(stream, len(message) + FRAGMENT_COST)
        if unpaid:
            self._pay(stream, unpaid)
        return message

    def ping(self, nonce: int) -> None:
        """Queue a PING; the answer is an event ``pong`` with the same nonce."""
        self._emit(encode_frame(PING, 0, U64.pack(nonce)))

    def goaway(self, code: int, reason: str) -> None:
        """Queue the last frame: why this side closes the link."""
        text = reason.encode()[:REASON_BYTES_MAX]
        self._emit(encode_frame(GOAWAY, 0, U32.pack(code) + text))

    # ---- output ------------------------------------------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        """Whether ``take`` may return something."""
        return bool(self._ready or self._turns)

    def take(self, bytes_max: int) -> list[bytes | memoryview]:
        """Return the pieces to write next, in order, about ``bytes_max`` together.

        Small messages and control frames first, then one fragment of each waiting stream in turn; at least one
        fragment each time, so that neither kind starves the other. The pieces hold views of the senders' messages.
        """
        pieces, size = self._ready, self._ready_bytes
        self._ready, self._ready_bytes = [], 0
        turns = self._turns
        while turns:
            stream = turns.popleft()
            stream.queued = False
            if (out := stream.out) is None:
                continue
            begin = stream.out_at
            count = min(len(out) - begin, FRAGMENT_BYTES_MAX, stream.send_credit - FRAGMENT_COST)
            if count < 0 or count < min(len(out) - begin, _PIECE_BYTES_MIN):
                continue  # Too little credit: WINDOW queues the stream again.
            end = begin + count
            stream.send_credit -= count + FRAGMENT_COST
            done = end == len(out)
            pieces.append(HEADER.pack(DATA, END if done else 0, stream.id, count))
            pieces.append(out[begin:end])
            size += HEADER_BYTES + count
            if done:
                stream.out = None
                self.drained.append(stream)
            else:
                stream.out_at = end
                self._queue_turn(stream)
            if size >= bytes_max:
                break
        return pieces

    def _queue_turn(self, stream: CoreStream) -> None:
        if not stream.queued:
            stream.queued = True
            self._turns.append(stream)

    def _emit(self, frame: bytes) -> None:
        self._ready.append(frame)
        self._ready_bytes += len(frame)

    # ---- input -------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """Digest bytes from the pipe, cut anywhere.

        Raises:
            DecodeError: the peer broke the protocol. The link must be closed; every later call raises it again.
        """
        if self._failed is not None:
            raise DecodeError(self._failed.detail, code=self._failed.code)
        events: list[Event] = []
        try:
            self._digest(data, events)
            if self._ready_bytes > _READY_BYTES_MAX:
                raise DecodeError("the peer asks for answers and does not read them", code="mux.flood")
        except DecodeError as error:
            self._failed = error
            raise
        return events

    def _digest(self, data: bytes, events: list[Event]) -> None:
        at, size = 0, len(data)
        while True:
            if self._need:
                count = min(self._need, size - at)
                if not count:
                    return
                piece = data[at : at + count]
                at += count
                self._need -= count
                if self._kind == DATA:
                    self._on_data(piece, events)
                else:
                    self._payload += piece
                    if not self._need:
                        self._on_control(events)
                continue
            if self._carry:
                # A header cut in two: at most nine bytes were kept.
                lack = HEADER_BYTES - len(self._carry)
                header = self._carry + data[at : at + lack]
                at += lack
                if len(header) < HEADER_BYTES:
                    self._carry = header
                    return
                self._carry = b""
                fields = HEADER.unpack(header)
            elif size - at < HEADER_BYTES:
                self._carry = data[at:]
                return
            else:
                fields = HEADER.unpack_from(data, at)
                at += HEADER_BYTES
            kind, flags, stream_id, length = fields
            self._on_header(kind, flags, stream_id, length, events)

    def _on_header(self, kind: int, flags: int, stream_id: int, length: int, events: list[Event]) -> None:
        check_header(kind, flags, stream_id, length)
        self._kind, self._flags, self._need = kind, flags, length
        if kind == OPEN:
            self._on_open(stream_id, events)
            return
        self._target = stream = self._streams.get(stream_id)
        if stream is None and stream_id:
            self._check_was_open(stream_id)
        if kind == DATA:
            if stream is not None:
                self._admit(stream, length, events)
            if not length:
                self._on_data(b"", events)
        else:
            self._payload = b""
            if not length:
                self._on_control(events)

    def _check_was_open(self, stream_id: int) -> None:
        ours = stream_id % 2 != self._peer_parity
        if stream_id >= self._next_id if ours else stream_id > self._peer_last:
            raise DecodeError(f"frame for stream {stream_id}, which was never opened", code="mux.stream_id")

    def _on_open(self, stream_id: int, events: list[Event]) -> None:
        if stream_id % 2 != self._peer_parity or stream_id <= self._peer_last:
            raise DecodeError(f"stream {stream_id} cannot be opened by the peer now", code="mux.stream_id")
        self._peer_last = stream_id
        if self._theirs >= self.limits.streams_max:
            self.refused_streams += 1
            self._emit(encode_frame(RESET, stream_id, U32.pack(RESET_TOO_MANY_STREAMS)))
            return
        stream = CoreStream(stream_id)
        self._streams[stream_id] = self._unaccepted[stream_id] = stream
        self._theirs += 1
        events.append(Event("opened", stream))

    def _admit(self, stream: CoreStream, length: int, events: list[Event]) -> None:
        """Charge a fragment before its bytes are read."""
        if stream.fin_received:
            raise DecodeError(f"data after FIN on stream {stream.id}", code="mux.after_fin")
        cost = length + FRAGMENT_COST
        if cost > stream.recv_credit:
            raise DecodeError(f"stream {stream.id} overran its credit by {cost} bytes", code="mux.credit")
        if stream.parts_bytes + length > self.limits.message_bytes_max:
            raise DecodeError("a message over the size limit", code="mux.message_size")
        stream.recv_credit -= cost
        hold = length if stream.parts else cost
        if self.held + hold > self.limits.buffer_bytes_max:
            self.overflow_resets += 1
            self._emit(encode_frame(RESET, stream.id, U32.pack(RESET_BUFFER_FULL)))
            self._drop(stream, RESET_BUFFER_FULL)
            events.append(Event("reset", stream, RESET_BUFFER_FULL))
            self._target = None
            return
        self.held += hold
        stream.held += hold
        if stream.waiting:
            self._pay(stream, cost)
        else:
            stream.parts_unpaid += cost

    def _on_data(self, piece: bytes, events: list[Event]) -> None:
        stream = self._target
        if stream is None or stream.reset_code is not None:
            return
        if self._need or not self._flags:
            if stream.parts and len(stream.parts[-1]) < _PIECE_BYTES_MIN:
                stream.parts[-1] += piece
            else:
                stream.parts.append(piece)
            stream.parts_bytes += len(piece)
            return
        if stream.parts:
            stream.parts.append(piece)
            message = b"".join(stream.parts)
            stream.parts = []
            stream.parts_bytes = 0
        else:
            message = piece
        stream.inbox.append((message, stream.parts_unpaid))
        stream.parts_unpaid = 0
        stream.waiting = False
        events.append(Event("message", stream))

    def _on_control(self, events: list[Event]) -> None:
        kind, payload, stream = self._kind, self._payload, self._target
        self._payload = b""
        if kind == PING:
            self._emit(encode_frame(PONG, 0, payload))
        elif kind == PONG:
            events.append(Event("pong", None, U64.unpack(payload)[0]))
        elif kind == GOAWAY:
            events.append(Event("goaway", None, payload[4:].decode("utf-8", "replace")))
        elif stream is None:
            return  # Crossed with our own reset or finish.
        elif kind == WINDOW:
            (credit,) = U32.unpack(payload)
            if not credit or stream.send_credit + credit > _CREDIT_MAX:
                raise DecodeError(f"WINDOW of {credit} bytes", code="mux.credit")
            stream.send_credit += credit
            if stream.out is not None:
                self._queue_turn(stream)
        elif kind == RESET:
            (code,) = U32.unpack(payload)
            self._drop(stream, code)
            events.append(Event("reset", stream, code))
        else:
            if stream.fin_received or stream.parts:
                raise DecodeError(f"FIN out of place on stream {stream.id}", code="mux.after_fin")
            stream.fin_received = True
            self._close_if_done(stream)
            events.append(Event("finished", stream))

    # ---- accounts ----------------------------------------------------------------------------------------------

    def _pay(self, stream: CoreStream, cost: int) -> None:
        """Owe the peer credit, and grant it once it is worth a frame."""
        stream.grant += cost
        if stream.grant >= _GRANT_MIN and not stream.fin_received and stream.reset_code is None:
            stream.recv_credit += stream.grant
            self._emit(encode_frame(WINDOW, stream.id, U32.pack(stream.grant)))
            stream.grant = 0

    def _release(self, stream: CoreStream, size: int) -> None:
        stream.held -= size
        if stream.counted:
            self.held -= size

    def _drop(self, stream: CoreStream, code: int) -> None:
        stream.reset_code = code
        stream.inbox.clear()
        stream.parts = []
        stream.out = None
        self._forget(stream)
        stream.held = 0

    def _close_if_done(self, stream: CoreStream) -> None:
        if stream.fin_sent and stream.fin_received:
            self._forget(stream)

    def _forget(self, stream: CoreStream) -> None:
        """Take a stream off the table. What it still holds belongs to whoever holds the stream."""
        del self._streams[stream.id]
        self._unaccepted.pop(stream.id, None)
        if stream.id % 2 == self._peer_parity:
            self._theirs -= 1
        else:
            self._ours -= 1
        self.held -= stream.held
        stream.counted = False

    def assert_invariants(self) -> None:
        """Check the accounts; for tests, after every step."""
        assert self.held == sum(s.held for s in self._streams.values()) <= self.limits.buffer_bytes_max
        assert self._ours + self._theirs == len(self._streams)
        assert 0 <= self._theirs <= self.limits.streams_max
        assert self._unaccepted.keys() <= self._streams.keys()
        assert self._ready_bytes == sum(len(p) for p in self._ready)
        for stream in self._streams.values():
            parts = stream.parts_bytes
            whole = sum(len(m) + FRAGMENT_COST for m, _ in stream.inbox)
            assert stream.held >= parts + whole
            assert stream.send_credit >= 0
            assert stream.recv_credit >= 0
