"""Frames of the stream on which two nodes speak about shared state (docs/spec/state.md §7).

The stream begins with ``v1.StateOpen``; after it, both sides send frames: MessagePack arrays of the messages that
``core.state.messages`` lists, as many as were waiting.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentmesh.core.state.messages import StateMessage
from agentmesh.errors import DecodeError
from agentmesh.wire.budget import has_too_many_containers

#: A frame is sent once it has so many bytes, or there is nothing more to send.
FRAME_BYTES = 256 * 1024
#: Largest frame that is read: what is above ``FRAME_BYTES`` is one message, and a write has at most 1 MiB.
FRAME_BYTES_MAX = 4 * 1024 * 1024
FRAME_MESSAGES_MAX = 1024

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[StateMessage])


def encode_message(message: StateMessage) -> bytes:
    """Encode one message, for ``frame_of``."""
    return _encoder.encode(message)


def frame_of(messages: Sequence[bytes]) -> bytes:
    """Put encoded messages, at most ``FRAME_MESSAGES_MAX``, into one frame."""
    return b"\xdc" + len(messages).to_bytes(2, "big") + b"".join(messages)


def decode_frame(payload: bytes) -> list[StateMessage]:
    """Return the messages of a frame.

    Raises:
        DecodeError: too large (code "wire.too_large", "wire.too_many"), or no frame (code "wire.malformed").
    """
    if len(payload) > FRAME_BYTES_MAX:
        raise DecodeError(f"a frame of {len(payload)} bytes, at most {FRAME_BYTES_MAX} are read", code="wire.too_large")
    if has_too_many_containers(payload):
        raise DecodeError("a frame of too many arrays and maps", code="wire.too_many")
    try:
        messages = _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a frame of shared state: {error}", code="wire.malformed") from error
    if len(messages) > FRAME_MESSAGES_MAX:
        raise DecodeError(f"{len(messages)} messages in a frame", code="wire.too_many")
    return messages
