"""What two nodes say to each other on a mail stream (docs/spec/courier.md §2).

Handshake frames (``Open``, ``Accept``, ``Refuse``, ``Close``) carry what ``identity.session`` makes and are the driver's
affair; a ``Parcel`` is the machine's. Each is a MessagePack array that begins with its tag. Decoding is strict: what breaks a
bound below is no frame. The machine checks all that again that depends on its state, and some that does not, because the
simulator and tests feed it parcels that no decoder saw.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from agentmesh.core.courier.message import MESSAGE_BYTES_MAX, TTL_MS_MAX
from agentmesh.errors import DecodeError

#: Lanes, one per ``Priority``.
LANES = 4
#: Numbers of letters stay exact in every language that may read a dump of them.
SEQ_MAX = (1 << 53) - 1
#: A sealed body: the message, a tag of 16 bytes, and room for what a later sealing may add.
BODY_BYTES_MAX = MESSAGE_BYTES_MAX + 256
#: Letters, acknowledged ranges, and letters given up in one parcel.
LETTERS_MAX = 1_024
RANGES_MAX = 64
GONE_MAX = 256
#: Offers and answers of a handshake, and words that say why.
HANDSHAKE_BYTES_MAX = 8 * 1024
REASON_CHARS_MAX = 128
#: One frame: the largest letter beside a full parcel of small ones.
FRAME_BYTES_MAX = 2 * 1024 * 1024
#: Letters that may be sent before the other side has said how many it takes. Both sides know it.
CREDIT_FIRST = 256
#: What a letter and a parcel cost beside bodies, at most, for the arithmetic of room: numbers, lengths, and the tag of sealing.
LETTER_BYTES = 48
PARCEL_BYTES = 64

#: 64 bits without sign, as MessagePack's integers end there.
SessionId = Annotated[int, Meta(ge=0)]
Seq = Annotated[int, Meta(ge=1, le=SEQ_MAX)]
SeqOrNone = Annotated[int, Meta(ge=0, le=SEQ_MAX)]


class Letter(msgspec.Struct, array_like=True, gc=False):
    """One message on its way. ``seq``, ``after``, ``lane`` and ``body`` are the same in every repetition.

    Attributes:
        seq: Its number in this direction of the session, from 1.
        after: The previous letter of its conversation that was not acknowledged when this one was first sent; 0 for none.
        lane: Its priority, 0 … 3.
        ttl_ms: Left to live when this copy was sent.
        again: It may have been delivered in an earlier session.
        body: An encoded message; sealed on the wire. The driver seals and opens in place: each copy has a Letter of its own.
    """

    seq: Seq
    after: SeqOrNone
    lane: Annotated[int, Meta(ge=0, lt=LANES)]
    ttl_ms: Annotated[int, Meta(ge=1, le=TTL_MS_MAX)]
    again: bool
    body: Annotated[bytes, Meta(max_length=BODY_BYTES_MAX)]


class Open(msgspec.Struct, tag=1, array_like=True, frozen=True):
    """The first frame of a session: the opener's half of the handshake."""

    session: SessionId
    offer: Annotated[bytes, Meta(max_length=HANDSHAKE_BYTES_MAX)]


class Accept(msgspec.Struct, tag=2, array_like=True, frozen=True):
    """The answer: the other half."""

    session: SessionId
    answer: Annotated[bytes, Meta(max_length=HANDSHAKE_BYTES_MAX)]


class Refuse(msgspec.Struct, tag=3, array_like=True, frozen=True):
    """There will be no such session, or it is not known any more; ``code`` says why."""

    session: SessionId
    code: Annotated[str, Meta(max_length=REASON_CHARS_MAX)]


class Close(msgspec.Struct, tag=4, array_like=True, frozen=True):
    """The session ends on purpose."""

    session: SessionId
    reason: Annotated[str, Meta(max_length=REASON_CHARS_MAX)]


class Parcel(msgspec.Struct, tag=5, array_like=True):
    """Letters of one session, and what their sender has of the other direction.

    Attributes:
        session: Which.
        letters: At most ``LETTERS_MAX``.
        acks: [lo, hi, lo, hi, …] rising, with gaps between: letters that the sender of this parcel keeps or has handed over.
        credit: The highest seq that it takes.
        floor: The lowest seq of its own that it has not seen acknowledged.
        gone: [seq, after, seq, after, …]: letters that it gave up, and what they came after. They count as delivered once
            that is, so that what comes after them can go on.
        ask: Answer at once, but no more often than each 10 ms: what have you got, what do you take?
    """

    session: SessionId
    letters: Annotated[list[Letter], Meta(max_length=LETTERS_MAX)]
    acks: Annotated[list[Seq], Meta(max_length=2 * RANGES_MAX)]
    credit: SeqOrNone
    floor: Seq
    gone: Annotated[list[SeqOrNone], Meta(max_length=2 * GONE_MAX)]
    ask: bool = False


Frame = Open | Accept | Refuse | Close | Parcel

_encode = msgspec.msgpack.Encoder().encode
_decode: Any = msgspec.msgpack.Decoder(Frame).decode


def encode_frame(frame: Frame) -> bytes:
    """Return the wire form."""
    return _encode(frame)


def decode_frame(raw: bytes) -> Frame:
    """Read the wire form strictly.

    Raises:
        DecodeError: no frame, or beyond a bound (codes "courier.too_large", "courier.malformed"). No state changed.
    """
    if len(raw) > FRAME_BYTES_MAX:
        raise DecodeError(f"a frame of {len(raw)} bytes, at most {FRAME_BYTES_MAX} are read", code="courier.too_large")
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not a frame of a mail stream: {error}", code="courier.malformed") from error
