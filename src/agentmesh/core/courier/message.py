"""A message between agents: what every part that carries, keeps or shows one agrees on (docs/spec/mail.md §2; RQ1 §5, RQ3).

The wire form is a MessagePack array, encoded once by the sender's node and never changed on its way. It is what sessions
encrypt and what the outbox and inbox keep. ``check`` is run on what applications hand in and on what peers send.
"""

from __future__ import annotations

import contextlib
from enum import IntEnum
from functools import cache
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import Meta

from agentmesh.errors import DecodeError, LimitError, MeshError, UsageError

#: Bytes of a message id: a random UUID.
ID_BYTES = 16
KEY_BYTES = 32
#: Largest payload. What is larger is an artifact: put it somewhere and send where it lies.
PAYLOAD_BYTES_MAX = 1024 * 1024
#: Of one encoded message.
MESSAGE_BYTES_MAX = PAYLOAD_BYTES_MAX + 8 * 1024
CONVERSATION_CHARS_MAX = 128
CONTENT_TYPE_CHARS_MAX = 128
#: Of a group's name or a topic's subject.
SCOPE_CHARS_MAX = 256
HEADERS_MAX = 16
HEADER_CHARS_MAX = 1024
#: How long a message may wait to be delivered. Seven days: a laptop that stays shut over a holiday week.
TTL_MS_MAX = 7 * 86_400_000
TTL_MS = 86_400_000
#: How far ahead of ours a sender's clock may be before its message is refused; behind it may be by its TTL.
AHEAD_MS_MAX = 2 * 3_600_000


#: Numbers that stay exact everywhere.
_SENT_MS_MAX = 1 << 53


class Kind(IntEnum):
    """What a message is for (RQ3's MessageType)."""

    STATE_SYNC = 0
    COMMAND = 1
    QUERY = 2
    RESPONSE = 3
    HEARTBEAT = 4
    BROADCAST = 5


class Priority(IntEnum):
    """Which message of two conversations goes first; within one conversation order stands whatever the priority."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3


class Delivery(IntEnum):
    """What is promised.

    AT_MOST_ONCE: sent once while a path is there; lost with it. AT_LEAST_ONCE: repeated until the recipient's node has it; the
    recipient may see it again after a crash. EFFECTIVELY_ONCE: the same, and the recipient's node drops what it has seen.
    """

    AT_MOST_ONCE = 0
    AT_LEAST_ONCE = 1
    EFFECTIVELY_ONCE = 2


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message. Fields are only ever added at the end.

    Attributes:
        id: 16 bytes, made by the sender; with ``sender`` it names the message for ever.
        sender, recipient: Raw public keys of two agents, or of a node where people and programs beside it send or receive.
        kind, priority, delivery: Values of the enumerations above.
        sent_ms: The sender's wall clock, unix milliseconds.
        ttl_ms: From ``sent_ms`` on; what is older is dropped and said so to the sender. 1 … ``TTL_MS_MAX``.
        payload: At most ``PAYLOAD_BYTES_MAX``.
        content_type: MIME type of the payload.
        conversation: Messages of one sender and one conversation arrive in the order sent; "" is a conversation too.
        reply_to: Id of the message that this one answers; b"" for none.
        scope: "" = to one agent; "group:NAME" or "topic:SUBJECT" or "*" = this is one copy of a message to many.
        headers: For applications, such as ``traceparent``.
        durable: Whether both nodes put it on disk before they say that they have it.
    """

    id: Annotated[bytes, Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
    sender: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    recipient: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    kind: Annotated[int, Meta(ge=0, lt=len(Kind))]
    sent_ms: Annotated[int, Meta(ge=0, lt=_SENT_MS_MAX)]
    payload: Annotated[bytes, Meta(max_length=PAYLOAD_BYTES_MAX)]
    priority: Annotated[int, Meta(ge=0, lt=len(Priority))] = Priority.NORMAL
    delivery: Annotated[int, Meta(ge=0, lt=len(Delivery))] = Delivery.AT_LEAST_ONCE
    ttl_ms: Annotated[int, Meta(ge=1, le=TTL_MS_MAX)] = TTL_MS
    content_type: Annotated[str, Meta(max_length=CONTENT_TYPE_CHARS_MAX)] = "text/plain"
    conversation: Annotated[str, Meta(max_length=CONVERSATION_CHARS_MAX)] = ""
    reply_to: Annotated[bytes, Meta(max_length=ID_BYTES)] = b""
    scope: Annotated[str, Meta(max_length=SCOPE_CHARS_MAX)] = ""
    headers: dict[str, str] = {}
    durable: bool = True

    @property
    def expires_ms(self) -> int:
        """Unix milliseconds from which it must not be delivered any more."""
        return self.sent_ms + self.ttl_ms


_KINDS, _PRIORITIES, _DELIVERIES = (tuple(map(int, each)) for each in (Kind, Priority, Delivery))


_encode = msgspec.msgpack.Encoder().encode
_decode: Any = msgspec.msgpack.Decoder(Message).decode


@cache
def _unbounded() -> Any:
    """Return a decoder of the same fields without their bounds: what says by which code a message breaks one."""
    kinds = get_type_hints(Message)
    defaults: tuple[Any, ...] = Message.__struct_defaults__
    bare = len(Message.__struct_fields__) - len(defaults)
    fields: list[Any] = [
        (name, kinds[name]) if at < bare else (name, kinds[name], defaults[at - bare])
        for at, name in enumerate(Message.__struct_fields__)
    ]
    return msgspec.msgpack.Decoder(msgspec.defstruct("Message", fields, array_like=True)).decode


def check(message: Message, error: type[MeshError] = UsageError) -> None:
    """Refuse a message that no honest sender makes.

    Args:
        message: To be judged; its age is judged where the clock is.
        error: What to raise for what is malformed: UsageError for an application, DecodeError for a peer.

    Raises:
        LimitError: the payload, its headers or a text is too large (code "message.too_large"), whoever made it.
        MeshError: of class ``error``: codes "message.id", "message.key", "message.value", "message.ttl". No state changed.
    """
    if (  # every message passes here on both nodes: one look at what nearly all are like, before saying what is wrong
        0 < message.ttl_ms <= TTL_MS_MAX
        and 0 <= message.sent_ms < _SENT_MS_MAX
        and len(message.payload) <= PAYLOAD_BYTES_MAX
        and len(message.id) == ID_BYTES
        and len(message.sender) == KEY_BYTES == len(message.recipient)
        and not message.headers
        and len(message.conversation) <= CONVERSATION_CHARS_MAX
        and len(message.content_type) <= CONTENT_TYPE_CHARS_MAX
        and len(message.scope) <= SCOPE_CHARS_MAX
        and (not message.reply_to or len(message.reply_to) == ID_BYTES)
        and message.kind in _KINDS
        and message.priority in _PRIORITIES
        and message.delivery in _DELIVERIES
    ):
        return
    if len(message.payload) > PAYLOAD_BYTES_MAX:
        raise LimitError(
            f"a payload of {len(message.payload)} bytes, at most {PAYLOAD_BYTES_MAX} are carried",
            code="message.too_large",
            hint="put it where the recipient can fetch it, and send the address and its digest",
        )
    if (
        len(message.conversation) > CONVERSATION_CHARS_MAX
        or len(message.content_type) > CONTENT_TYPE_CHARS_MAX
        or len(message.scope) > SCOPE_CHARS_MAX
        or (
            message.headers
            and (
                len(message.headers) > HEADERS_MAX
                or sum(len(name) + len(value) for name, value in message.headers.items()) > HEADER_CHARS_MAX
            )
        )
    ):
        raise LimitError("a text of the message is too long", code="message.too_large")
    if len(message.id) != ID_BYTES or len(message.reply_to) not in (0, ID_BYTES):
        raise error(f"a message id has {ID_BYTES} bytes", code="message.id")
    if len(message.sender) != KEY_BYTES or len(message.recipient) != KEY_BYTES:
        raise error(f"sender and recipient are keys of {KEY_BYTES} bytes", code="message.key")
    if not (0 <= message.kind <= 5 and 0 <= message.priority <= 3 and 0 <= message.delivery <= 2):
        raise error("an unknown kind, priority or delivery level", code="message.value")
    if not 0 < message.ttl_ms <= TTL_MS_MAX or not 0 <= message.sent_ms < _SENT_MS_MAX:
        raise error(
            f"a TTL of {message.ttl_ms} ms; it is 1 to {TTL_MS_MAX} ms from the time of sending",
            code="message.ttl",
            hint="leave it out for a day",
        )


def encode(message: Message) -> bytes:
    """Return the wire form."""
    return _encode(message)


def decode(raw: bytes) -> Message:
    """Read the wire form strictly.

    Raises:
        DecodeError: not a message (code "message.malformed" and those of ``check``).
        LimitError: too large. No state changed.
    """
    if len(raw) > MESSAGE_BYTES_MAX:
        raise LimitError(f"a message of {len(raw)} bytes", code="message.too_large")
    try:
        message: Message = _decode(raw)
        if message.headers or message.reply_to:
            check(message, DecodeError)  # the decoder knows all other bounds
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            check(_unbounded()(raw), DecodeError)
        raise DecodeError(f"not a message: {error}", code="message.malformed") from error
    return message
