"""CloudEvents at the edge of topics, held against the CloudEvents SDK."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import DecodeError
from agentmesh.identity.publication import Publication
from agentmesh.node.topics.events import payload_of, view_of
from agentmesh.wire.cloudevents import EVENT_BYTES_MAX, read_cloudevent, write_cloudevent
from agentmesh.wire.message_views import CloudEventView

_MADE = {"id": "7", "source": "/sensor", "type": "com.example.read"}


def published(payload: bytes, content_type: str, **more: Any) -> CloudEventView:
    one = Publication(
        b"i" * 16, b"\x01" * 32, 1_700_000_000_123, "a.b", payload, content_type, headers={"ce-type": "x.y"}
    )
    return view_of(one, **more)


@pytest.mark.parametrize(
    ("payload", "content_type", "data"),
    [
        (b'{"a":[1,2]}', "application/json", {"a": [1, 2]}),
        (b"3", "application/vnd.x+json; charset=utf-8", 3),
        ("grüß".encode(), "text/plain", "grüß"),
        (b"\xff\x00", "application/octet-stream", b"\xff\x00"),
        (b"\xff", "text/plain", b"\xff"),
    ],
)
def test_the_sdk_reads_what_subscribers_get(payload: bytes, content_type: str, data: Any) -> None:
    raw = write_cloudevent(published(payload, content_type, retained=True, offset=7, lease="7.abc"))
    event = JSONFormat().read(None, raw)
    assert event.get_data() == data
    assert (event.get_type(), event.get_subject(), event.get_id()) == (
        "x.y",
        "a.b",
        "69696969-6969-6969-6969-696969696969",
    )
    assert str(event.get_source()).startswith("did:key:z6Mk")
    assert event.get_datacontenttype() == content_type
    assert [event.get_extension(name) for name in ("retained", "offset", "lease", "lost")] == [True, 7, "7.abc", None]
    time = event.get_time()
    assert time is not None
    assert time.timestamp() == 1_700_000_000.123


@pytest.mark.parametrize(
    ("data", "content_type", "payload", "kept_as"),
    [
        ({"a": 1}, "application/json", b'{"a":1}', "application/json"),
        ("hello", "text/plain", b"hello", "text/plain"),
        ("hello", "application/json", b'"hello"', "application/json"),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff", "application/octet-stream"),
    ],
)
def test_what_the_sdk_writes_is_read(data: Any, content_type: str, payload: bytes, kept_as: str) -> None:
    event = CloudEvent({**_MADE, "subject": "a.b", "datacontenttype": content_type, "custom": "ignored"}, data)
    subject, request = read_cloudevent(JSONFormat().write(event))
    assert subject == "a.b"
    assert payload_of(request) == (payload, kept_as)
    assert request.headers["ce-type"] == "com.example.read"


def test_source_and_id_are_what_an_event_is_known_by() -> None:
    def id_of(**changed: str) -> str:
        return read_cloudevent(json.dumps({**_MADE, "specversion": "1.0", **changed}).encode())[1].message_id

    assert id_of() == id_of(type="other")
    assert len({id_of(), id_of(id="8"), id_of(source="/else"), id_of(source="/sensor\\n7"[:8])}) >= 3
    uuid = "12345678-1234-4234-8234-123456789abc"
    assert id_of(id=uuid) == uuid
    assert read_cloudevent(json.dumps({**_MADE, "specversion": "1.0"}).encode())[0] == "com.example.read"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"id":"1","source":"s","type":"t","specversion":"0.3"}',
        b'{"id":"","source":"s","type":"t"}',
        b'{"id":"1","source":"s\\n","type":"t"}',
        b'{"id":"1","source":"s","type":"t","data":1,"data_base64":"AA=="}',
        b'{"id":1,"source":"s","type":"t"}',
        b'{"id":"1","source":"s","type":"t","data":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"id":"1","source":"s","type":"' + b"t" * 2_000 + b'"}',
        b" " * (EVENT_BYTES_MAX + 1),
        b"[" * 200_000,
    ],
)
def test_what_is_no_cloudevent_is_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError) as met:
        read_cloudevent(raw)
    assert met.value.code.startswith("cloudevent.")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_without_harm(raw: bytes) -> None:
    with contextlib.suppress(DecodeError):
        read_cloudevent(raw)


def test_an_event_for_many_is_spelled_once() -> None:
    view = published(b"x", "text/plain")
    assert write_cloudevent(view) is write_cloudevent(view)
    other = published(b"y", "text/plain")
    for _ in range(200):
        write_cloudevent(published(b"z", "text/plain"))
    assert b'"y"' in write_cloudevent(other)
    body = json.loads(write_cloudevent(published(b"\x00", "x/y")))
    assert body["data_base64"] == base64.b64encode(b"\x00").decode()
    assert "data" not in body
