"""A message: what is refused, and that what was sent is what is read."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.courier import message as m
from agentmesh.core.state.levels import ConsistencyLevel
from agentmesh.errors import DecodeError, LimitError, MeshError, UsageError

GOOD = m.Message(
    id=bytes(16), sender=bytes(32), recipient=b"\1" * 32, kind=m.Kind.COMMAND, sent_ms=1_800_000_000_000, payload=b"hi"
)


@given(
    payload=st.binary(max_size=300),
    conversation=st.text(max_size=m.CONVERSATION_CHARS_MAX).filter(lambda t: t.isprintable()),
    kind=st.sampled_from(m.Kind),
    priority=st.sampled_from(m.Priority),
    delivery=st.sampled_from(m.Delivery),
    ttl_ms=st.integers(1, m.TTL_MS_MAX),
)
def test_what_was_sent_is_what_is_read(
    payload: bytes, conversation: str, kind: m.Kind, priority: m.Priority, delivery: m.Delivery, ttl_ms: int
) -> None:
    message = msgspec.structs.replace(
        GOOD,
        payload=payload,
        conversation=conversation,
        kind=kind,
        priority=priority,
        delivery=delivery,
        ttl_ms=ttl_ms,
    )
    assert m.decode(m.encode(message)) == message


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        m.decode(raw)
    except (DecodeError, LimitError):
        return


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"id": b"short"}, "message.id"),
        ({"reply_to": b"x"}, "message.id"),
        ({"recipient": bytes(33)}, "message.key"),
        ({"kind": -1}, "message.value"),
        ({"sent_ms": 1 << 53}, "message.ttl"),
        ({"scope": "x" * 257}, "message.too_large"),
        ({"content_type": "x" * 129}, "message.too_large"),
        ({"headers": {"a": "x" * 1_024}}, "message.too_large"),
        ({"sender": bytes(31)}, "message.key"),
        ({"kind": 6}, "message.value"),
        ({"priority": 4}, "message.value"),
        ({"delivery": -1}, "message.value"),
        ({"ttl_ms": 0}, "message.ttl"),
        ({"ttl_ms": -5}, "message.ttl"),
        ({"ttl_ms": m.TTL_MS_MAX + 1}, "message.ttl"),
        ({"sent_ms": -1}, "message.ttl"),
        ({"payload": bytes(m.PAYLOAD_BYTES_MAX + 1)}, "message.too_large"),
        ({"conversation": "x" * 200}, "message.too_large"),
        ({"headers": {str(i): "" for i in range(17)}}, "message.too_large"),
    ],
)
def test_a_bad_message_is_refused_from_an_application_and_from_a_peer(change: dict[str, object], code: str) -> None:
    bad = msgspec.structs.replace(GOOD, **change)
    with pytest.raises((UsageError, LimitError)) as told:
        m.check(bad)
    assert told.value.code == code
    with pytest.raises(MeshError) as heard:
        m.decode(m.encode(bad))
    assert heard.value.code == code
    assert not isinstance(heard.value, UsageError)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"reply_to": bytes(16)},
        {"headers": {"traceparent": "00-" + "a" * 32}},
        {"scope": "x" * 256, "conversation": "x" * 128, "content_type": "x" * 128},
        {"payload": bytes(m.PAYLOAD_BYTES_MAX), "ttl_ms": m.TTL_MS_MAX},
    ],
)
def test_what_is_within_the_bounds_is_taken(change: dict[str, object]) -> None:
    good = msgspec.structs.replace(GOOD, **change)
    m.check(good)
    assert m.decode(m.encode(good)) == good


def test_consistency_levels_are_ordered_and_named() -> None:
    assert [level.word for level in sorted(ConsistencyLevel)] == ["local", "causal", "quorum", "linearizable"]
