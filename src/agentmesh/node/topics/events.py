"""From what a program hands in to a publication, and from a publication to what subscribers get."""

from __future__ import annotations

import base64
import binascii
import uuid
from datetime import UTC, datetime

import msgspec

from agentmesh.errors import UsageError
from agentmesh.identity.publication import Publication
from agentmesh.wire.message_views import CloudEventView, PublishRequest

JSON_TYPE, TEXT_TYPE, BYTES_TYPE = "application/json", "text/plain", "application/octet-stream"
#: Headers that become attributes of the event.
TYPE_HEADER, TRACE_HEADER = "ce-type", "traceparent"
TYPE = "dev.agentmesh.topic"


def payload_of(request: PublishRequest) -> tuple[bytes, str]:
    """Return the payload of a request and its content type; nothing is a payload too if it is to be retained.

    Raises:
        UsageError: more than one payload, none, or one that cannot be read (code "topic.payload").
    """
    given = [one for one in (request.text, request.data, request.data_base64) if one is not None]
    if len(given) > 1 or (not given and not request.retain):
        raise UsageError("exactly one of text, data and data_base64 is published", code="topic.payload")
    try:
        if request.text is not None:
            return request.text.encode(), request.content_type or TEXT_TYPE
        if request.data is not None:
            return msgspec.json.encode(request.data), request.content_type or JSON_TYPE
        if request.data_base64 is not None:
            return base64.b64decode(request.data_base64, validate=True), request.content_type or BYTES_TYPE
    except (UnicodeEncodeError, binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"a payload that cannot be read: {error}", code="topic.payload") from error
    return b"", request.content_type or TEXT_TYPE


def id_of(request: PublishRequest, fresh: bytes) -> bytes:
    """Return the id that a request names, else the fresh one. Raises UsageError (code "topic.id"): it is no UUID."""
    if not request.message_id:
        return fresh
    try:
        return uuid.UUID(request.message_id).bytes
    except ValueError as error:
        raise UsageError(f"{request.message_id[:80]!r} is no UUID", code="topic.id") from error


def id_text(id_: bytes) -> str:
    """Spell the id of a publication."""
    text = id_.hex()  # what uuid does, without its checks: this is done for every publication
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_json(content_type: str) -> bool:
    """Say whether a content type is JSON (``application/json``, ``…+json``)."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == JSON_TYPE or kind.endswith("+json")


def view_of(one: Publication, *, retained: bool = False, offset: int = 0, lease: str = "") -> CloudEventView:
    """Return a publication as subscribers get it; payloads that are not what they say they are come as base64."""
    seconds, ms = divmod(min(one.ts_ms, 253_402_300_799_999), 1_000)
    time = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"
    view = CloudEventView(
        id=id_text(one.id),
        source=one.did,
        subject=one.subject,
        time=time,
        type=one.headers.get(TYPE_HEADER) or TYPE,
        datacontenttype=one.content_type,
        retained=retained,
        offset=offset,
        lease=lease,
        traceparent=one.headers.get(TRACE_HEADER, ""),
    )
    try:
        if is_json(one.content_type):
            view.data = msgspec.json.decode(one.payload)
            return view
        if one.content_type[:5].lower() == "text/":
            view.data = one.payload.decode()
            return view
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    view.data_base64 = base64.b64encode(one.payload).decode()
    return view
