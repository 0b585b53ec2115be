"""Messages as people and programs see them, and back (``wire.message_views``)."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable

import msgspec

from agentmesh.core.courier.message import TTL_MS, TTL_MS_MAX, Delivery, Kind, Message, Priority
from agentmesh.errors import MeshError, UsageError
from agentmesh.ids import did_of
from agentmesh.node.mail.inbox import Waiting
from agentmesh.store.mail import STATES, DeadRow, OutRow
from agentmesh.wire.message_views import (
    DeadLetter,
    DeliveryName,
    MessageKind,
    MessageRequest,
    MessageView,
    PriorityName,
    SentView,
)

KINDS: tuple[MessageKind, ...] = ("state-sync", "command", "query", "response", "heartbeat", "broadcast")
PRIORITIES: tuple[PriorityName, ...] = ("low", "normal", "high", "critical")
DELIVERIES: tuple[DeliveryName, ...] = ("at-most-once", "at-least-once", "effectively-once")
#: Why a message was given up, or waits, in a sentence.
REASONS = {
    "mail.expired": "nobody took it before its time to live was over",
    "mail.unread": "it was handed out sixteen times and never acknowledged",
    "mail.withdrawn": "the agent was withdrawn",
    "mail.no_agent": "no node of the mesh has that agent now",
    "mail.no_route": "the recipient's node does not answer",
    "mail.blocked": "the recipient's inbox is full",
    "mail.refused": "the recipient's node refuses messages from this agent or node",
    "mail.no_path": "at most once, and the recipient's node could not be reached",
    "mail.lost": "at most once, and no acknowledgement came",
    "mail.clock": "the sender's clock is more than two hours ahead of this one",
    "session.no_agent": "the recipient's node says that it has no such agent",
    "session.no_answer": "the recipient's node does not answer the handshake",
    "session.busy": "the recipient's node has too many sessions",
    "session.clock": "the clocks of both nodes differ by more than two hours",
}


def id_text(raw: bytes) -> str:
    """Spell a message id as a UUID."""
    return str(uuid.UUID(bytes=raw))


def read_id(text: str) -> bytes:
    """Return the 16 bytes of a UUID. Raises UsageError (code "message.id")."""
    try:
        return uuid.UUID(text).bytes
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{text[:80]!r} is no message id", code="message.id", hint="ids are UUIDs") from error


def payload_of(request: MessageRequest) -> tuple[bytes, str]:
    """Return payload and content type of a request. Raises UsageError (code "message.payload")."""
    given = [request.text is not None, request.data is not None, request.data_base64 is not None]
    if sum(given) > 1:
        raise UsageError("a message has one payload: text, data or data_base64", code="message.payload")
    if request.text is not None:
        return request.text.encode("utf-8", "surrogatepass"), request.content_type or "text/plain"
    if request.data is not None:
        return msgspec.json.encode(request.data), request.content_type or "application/json"
    if request.data_base64 is not None:
        try:
            return base64.b64decode(request.data_base64, validate=True), (
                request.content_type or "application/octet-stream"
            )
        except (binascii.Error, ValueError) as error:
            raise UsageError("data_base64 is not base64", code="message.payload") from error
    return b"", request.content_type or "text/plain"


def message_of(request: MessageRequest, sender: bytes, recipient: bytes, now_ms: int, scope: str = "") -> Message:
    """Return the message that a request asks for. Raises UsageError."""
    payload, content_type = payload_of(request)
    ttl_s = request.ttl_s
    if ttl_s is not None and not 0 < ttl_s * 1000 <= TTL_MS_MAX:
        raise UsageError(
            f"a TTL of {ttl_s} s; it is more than 0 and at most {TTL_MS_MAX // 1000} s",
            code="message.ttl",
            hint="leave it out for a day",
        )
    return Message(
        id=read_id(request.message_id) if request.message_id else uuid.uuid4().bytes,
        sender=sender,
        recipient=recipient,
        kind=KINDS.index(request.kind),
        sent_ms=now_ms,
        payload=payload,
        priority=PRIORITIES.index(request.priority),
        delivery=DELIVERIES.index(request.delivery),
        ttl_ms=TTL_MS if ttl_s is None else max(1, int(ttl_s * 1000)),
        content_type=content_type,
        conversation=request.conversation,
        reply_to=read_id(request.reply_to) if request.reply_to else b"",
        scope=scope,
        headers=request.headers,
        durable=request.durable,
    )


def view_of(message: Message, name_of: Callable[[str], str], **more: object) -> MessageView:
    """Return a message for people; ``more`` are further members of the view."""
    data, data_base64 = data_of(message.payload, message.content_type)
    sender, recipient = did_of(message.sender), did_of(message.recipient)
    return MessageView(
        message_id=id_text(message.id),
        sender=sender,
        recipient=recipient,
        kind=KINDS[Kind(message.kind)],
        sender_name=name_of(sender),
        recipient_name=name_of(recipient),
        priority=PRIORITIES[Priority(message.priority)],
        delivery=DELIVERIES[Delivery(message.delivery)],
        conversation=message.conversation,
        reply_to=id_text(message.reply_to) if message.reply_to else "",
        scope=message.scope,
        content_type=message.content_type,
        data=data,
        data_base64=data_base64,
        headers=message.headers,
        ts=message.sent_ms * 1000,
        expires_ts=message.expires_ms * 1000,
        **more,  # pyright: ignore[reportArgumentType] members of the view, by name
    )


def data_of(payload: bytes, content_type: str) -> tuple[object, str | None]:
    """Return (data, data_base64) of a payload: JSON as JSON, text as text, and what is neither in base64."""
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == "application/json" or kind.endswith("+json"):
            return msgspec.json.decode(payload), None
        if kind.startswith("text/"):
            return payload.decode(), None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return None, base64.b64encode(payload).decode()


def waiting_view(one: Waiting, name_of: Callable[[str], str]) -> MessageView:
    """Return what an inbox hands out."""
    return view_of(
        one.message,
        name_of,
        encrypted=one.encrypted,
        received_ts=one.received_ms * 1000,
        tries=one.tries,
        cursor=one.cursor,
    )


def sent_view(row: OutRow, name_of: Callable[[str], str], copies: int = 1) -> SentView:
    """Return what became of a message."""
    recipient = did_of(row.recipient)
    is_one = copies == 1 and not row.asked.startswith(("group:", "*"))
    return SentView(
        message_id=id_text(row.id),
        to=row.asked or recipient,
        recipient=recipient if is_one else "",
        recipient_name=name_of(recipient) if is_one else "",
        state=STATES[row.state],  # pyright: ignore[reportArgumentType] its words are those of MessageState
        copies=copies,
        reason=row.reason,
        ts=row.sent_ms * 1000,
        expires_ts=row.expires_ms * 1000,
        tries=row.tries,
    )


def dead_view(row: DeadRow, message: Message, name_of: Callable[[str], str]) -> DeadLetter:
    """Return a dead letter."""
    return DeadLetter(
        message=view_of(message, name_of),
        reason=row.reason,
        why=REASONS.get(row.reason, row.reason),
        ended_ts=row.ended_ms * 1000,
        side="in" if row.side else "out",
    )


def missing(text: str) -> MeshError:
    """Return what is said of a message that is not known here."""
    from agentmesh.errors import RecordNotFound

    return RecordNotFound(
        f"no message {text[:64]} was sent from here",
        code="not_found.message",
        why="messages that ended are remembered for a week, those that are not durable only until many more have ended",
    )
