"""CloudEvents 1.0 in JSON at the edge of topics: what subscribers are sent, and what is read in the structured mode."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from agentmesh.errors import DecodeError
from agentmesh.wire.budget import CONTAINERS_MAX
from agentmesh.wire.message_views import CloudEventIn, CloudEventView, PublishRequest

CONTENT_TYPE = "application/cloudevents+json"
#: Of one event: the largest payload, spelled as base64 or escaped JSON, and what is around it.
EVENT_BYTES_MAX = 512 * 1024
_TEXT_CHARS_MAX = 1_024
#: Attributes that are left out where they say nothing.
_SPARE = ("data", "data_base64", "lease", "traceparent", "retained", "offset", "lost")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(CloudEventIn)
#: The events that were spelled last, by identity: one that goes to a hundred subscribers is spelled once.
_spelled: dict[int, tuple[CloudEventView, bytes]] = {}
_SPELLED_MAX = 64


def write_cloudevent(view: CloudEventView) -> bytes:
    """Spell an event in JSON; the same event is spelled once, however many subscribers get it. Do not change it after that."""
    known = _spelled.get(id(view))
    if known is not None and known[0] is view:
        return known[1]
    body: dict[str, Any] = msgspec.structs.asdict(view)
    for name in _SPARE:
        if not body[name] and (name != "data" or view.data is None):
            del body[name]
    raw = _encoder.encode(body)
    while len(_spelled) >= _SPELLED_MAX:
        del _spelled[next(iter(_spelled))]
    _spelled[id(view)] = view, raw
    return raw


def read_cloudevent(raw: bytes) -> tuple[str, PublishRequest]:
    """Read an event in the structured mode.

    Returns:
        The subject under which to publish it, and the request.

    Raises:
        DecodeError: no CloudEvent 1.0 (code "cloudevent.malformed"), or too large (code "cloudevent.too_large").
    """
    if len(raw) > EVENT_BYTES_MAX or has_too_many_brackets(raw):
        raise DecodeError(f"an event of {len(raw)} bytes, at most {EVENT_BYTES_MAX}", code="cloudevent.too_large")
    try:
        event = _decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a CloudEvent in JSON: {error}", code="cloudevent.malformed") from error
    return event.subject or event.type, request_of(event)


def request_of(event: CloudEventIn) -> PublishRequest:
    """Return an event as a request to publish. Raises DecodeError (code "cloudevent.malformed")."""
    if event.specversion != "1.0":
        raise DecodeError(f"specversion {event.specversion[:20]!r}, read is 1.0", code="cloudevent.malformed")
    for name in ("id", "source", "type"):
        value: str = getattr(event, name)
        if not 0 < len(value) <= _TEXT_CHARS_MAX or not value.isprintable():
            raise DecodeError(f"{name} is missing, too long or holds control characters", code="cloudevent.malformed")
    if event.data is not None and event.data_base64 is not None:
        raise DecodeError("data and data_base64 exclude each other", code="cloudevent.malformed")
    content_type = event.datacontenttype
    kind = content_type.partition(";")[0].strip().lower()
    is_text = isinstance(event.data, str) and kind not in ("", "application/json") and not kind.endswith("+json")
    has_payload = event.data is not None or event.data_base64 is not None
    return PublishRequest(
        text=event.data if is_text else None if has_payload or event.retain else "",
        data=None if is_text else event.data,
        data_base64=event.data_base64,
        content_type=content_type,
        sender=event.sender,
        retain=event.retain,
        message_id=_id_of(event),
        headers={"ce-type": event.type, "ce-source": event.source}
        if len(event.source) < 256
        else {"ce-type": event.type},
    )


def _id_of(event: CloudEventIn) -> str:
    """Return the UUID of an event: its id if that is one, else made of source and id, which name an event."""
    if _UUID.fullmatch(event.id):
        return event.id
    mark = hashlib.sha256(f"cloudevent\n{event.source}\n{event.id}".encode()).hexdigest()
    return f"{mark[:8]}-{mark[8:12]}-8{mark[13:16]}-8{mark[17:20]}-{mark[20:32]}"


def has_too_many_brackets(raw: bytes) -> bool:
    """Say whether JSON may open more arrays and objects than a message may hold."""
    return raw.count(b"[") + raw.count(b"{") > CONTAINERS_MAX
