"""Frames: how bytes on an ordered pipe become units with a length, and which sizes are refused before anything is read.

Two shapes (docs/spec/wire.md §3 and §4):

* the *multiplexer frame*, 10 bytes of header ``type u8 · flags u8 · stream u32 · length u32`` (big endian) and payload;
* the *short frame* of the handshake, ``length u16`` and payload.

No I/O and no state beyond what one connection needs. A wrong header raises DecodeError before its payload is awaited.
"""

from __future__ import annotations

from struct import Struct

from agentmesh.errors import DecodeError, LimitError

HEADER = Struct(">BBII")
HEADER_BYTES = HEADER.size
U32 = Struct(">I")
U64 = Struct(">Q")
_U16 = Struct(">H")

OPEN, DATA, WINDOW, FIN, RESET, PING, PONG, GOAWAY = range(1, 9)
#: Flag on DATA: this fragment ends its message.
END = 0x01

#: Largest DATA payload in bytes. Chosen by measurement (adr/0001): larger gains nothing, smaller costs throughput.
FRAGMENT_BYTES_MAX = 64 * 1024
#: Largest reason text of GOAWAY in bytes, after its 4-byte code.
REASON_BYTES_MAX = 256

#: Exact payload length by frame type; DATA and GOAWAY have ranges of their own.
_FIXED: dict[int, int] = {OPEN: 0, WINDOW: 4, FIN: 0, RESET: 4, PING: 8, PONG: 8}
#: Frames that speak of the link and not of a stream.
_LINK_FRAMES = frozenset({PING, PONG, GOAWAY})


def check_header(kind: int, flags: int, stream: int, length: int) -> None:
    """Refuse a frame header that no honest peer sends.

    Raises:
        DecodeError: unknown type, unknown flag, a length or stream number that the type does not allow. No state changed.
    """
    if kind == DATA:
        if length > FRAGMENT_BYTES_MAX:
            raise DecodeError(f"a fragment of {length} bytes, at most {FRAGMENT_BYTES_MAX}", code="mux.frame_size")
        if flags & ~END or (not length and not flags):
            raise DecodeError(f"DATA frame with flags {flags:#x} and {length} bytes", code="mux.flags")
    elif flags:
        raise DecodeError(f"frame type {kind} with flags {flags:#x}", code="mux.flags")
    elif kind == GOAWAY:
        if not 4 <= length <= 4 + REASON_BYTES_MAX:
            raise DecodeError(f"GOAWAY of {length} bytes", code="mux.frame_size")
    elif (fixed := _FIXED.get(kind)) is None:
        raise DecodeError(f"unknown frame type {kind}", code="mux.type")
    elif length != fixed:
        raise DecodeError(f"frame type {kind} has {fixed} bytes, not {length}", code="mux.frame_size")
    if (kind in _LINK_FRAMES) != (stream == 0):
        raise DecodeError(f"frame type {kind} on stream {stream}", code="mux.stream_id")


def encode_frame(kind: int, stream: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    """Return one multiplexer frame. The caller keeps to the rules that ``check_header`` enforces on the other side."""
    return HEADER.pack(kind, flags, stream, len(payload)) + payload


def encode_short(payload: bytes) -> bytes:
    """Return one short frame.

    Raises:
        LimitError: more than 65,535 bytes.
    """
    if len(payload) > 0xFFFF:
        raise LimitError(f"a short frame holds 65535 bytes, not {len(payload)}", code="frame.too_large")
    return _U16.pack(len(payload)) + payload


class ShortReader:
    """Collect short frames from fragments of any size.

    Args:
        bytes_max: Largest payload accepted, in bytes.
    """

    __slots__ = ("_buffer", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes. The caller bounds how much it feeds before taking."""
        self._buffer += data

    def take(self) -> bytes | None:
        """Return the next whole payload, or None if more bytes are needed.

        Raises:
            DecodeError: the announced length is over ``bytes_max``. Raised before that payload arrives.
        """
        if len(self._buffer) < 2:
            return None
        (length,) = _U16.unpack_from(self._buffer)
        if length > self.bytes_max:
            raise DecodeError(f"a short frame of {length} bytes, at most {self.bytes_max}", code="frame.too_large")
        if len(self._buffer) < 2 + length:
            return None
        payload = bytes(self._buffer[2 : 2 + length])
        del self._buffer[: 2 + length]
        return payload

    @property
    def rest(self) -> bytes:
        """Bytes fed and not yet taken."""
        return bytes(self._buffer)
