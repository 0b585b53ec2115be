"""Every decoder against random, cut and changed bytes: it reads, or refuses as a peer's fault, and holds little (issue 3 §6)."""

from __future__ import annotations

import random
import tracemalloc
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from agentmesh.errors import DecodeError, PeerError
from agentmesh.wire import event, v1
from agentmesh.wire.budget import has_too_many_containers
from tests.support.decoders import Target, attempt, instances, targets, values

TARGETS = {target.name: target for target in targets()}
every_decoder = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
#: What a refusal or a small message may hold beside its input: the error, its text, parser stacks.
CONSTANT_BYTES = 64 * 1024


@every_decoder
def test_the_examples_are_read(target: Target) -> None:
    assert [raw for raw in target.examples if not attempt(target, raw)] == [] or target.name == "request"
    assert target.examples


#: Bytes that once broke a decoder, or made it hold too much; every decoder is tried with each, for ever.
FOUND = [
    "",
    "87a47479706ca463616c6ca17601a77461736b5f6964a0a672756e5f6964a0a86167656e745f6964a0a5706172747390a86d6574616461746181a161"
    "dd00000003808080",
]


@every_decoder
def test_what_fuzzing_found_stays_found(target: Target) -> None:
    for found in FOUND:
        attempt(target, bytes.fromhex(found))


@every_decoder
@settings(max_examples=150)
@given(raw=st.binary(max_size=600))
def test_random_bytes_are_read_or_refused(target: Target, raw: bytes) -> None:
    attempt(target, raw)


@every_decoder
def test_every_cut_of_a_valid_message_is_read_or_refused(target: Target) -> None:
    for raw in target.examples[:40]:
        for end in range(0, len(raw), max(1, len(raw) // 200)):
            attempt(target, raw[:end])


@every_decoder
@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_changed_messages_are_read_or_refused(target: Target, seed: int) -> None:
    rng = random.Random(seed)
    attempt(target, mutated(rng.choice(target.examples), rng))


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """Flip, insert, double and cut."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[at % len(data)] = rng.choice((0, 0x7F, 0x80, 0x90, 0xC1, 0xDD, 0xDF, 0xFF))
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(5))
            case 3:
                data[at:at] = data[at : at + rng.randrange(64)]
            case _:
                del data[at : at + rng.randrange(8)]
    return bytes(data)


# -- decode is the inverse of encode ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cls", get_args(v1.AnyMessage), ids=lambda cls: f"{cls.__module__.split('.')[-2]}.{cls.__name__}"
)
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_a_message_decodes_as_what_was_encoded(cls: type[msgspec.Struct], seed: int) -> None:
    (message,) = instances(cls, random.Random(seed))
    raw = v1.encode(message)
    decoders = [
        decode
        for union, decode in (
            (v1.ControlMessage, v1.decode_control),
            (v1.DatagramMessage, v1.decode_datagram),
            (v1.RequestMessage, v1.decode_request),
            (v1.CallReply, v1.decode_call_reply),
            (v1.CallCancel, v1.decode_call_input),
            (v1.TraceReply, v1.decode_trace_reply),
            (v1.NetReply, v1.decode_net_reply),
            (v1.AuditReply, v1.decode_audit_reply),
            (v1.TrustReply, v1.decode_trust_reply),
            (v1.SearchReply, v1.decode_search_reply),
            (v1.TopicReply, v1.decode_topic_reply),
            (v1.CarryReply, v1.decode_carry_reply),
        )
        if cls in (get_args(union) or (union,))
    ]
    assert decoders
    for decode in decoders:
        if decode is v1.decode_request:
            message.v = v1.WIRE_VERSION  # type: ignore[attr-defined]
            raw = v1.encode(message)
        if decode is v1.decode_datagram and len(raw) > v1.DATAGRAM_BYTES_MAX:
            continue
        found = decode(raw)
        assert type(found) is cls
        assert v1.encode(found) == raw
        assert found == message


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32))
def test_an_event_decodes_as_what_was_encoded(seed: int) -> None:
    (told,) = instances(event.EventV1, random.Random(seed))
    told.id, told.run_id = (told.id or "i")[:128], (told.run_id or "r")[:128]
    told.ts, told.lamport = abs(told.ts), abs(told.lamport) % 2**53
    told.schema_version = event.SCHEMA_VERSION
    assert event.decode_json(event.encode_json(told)) == told


# -- memory -----------------------------------------------------------------------------------------------------------


def held_by(target: Target, raw: bytes) -> int:
    """Return the peak of what decoding allocated, bytes."""
    attempt(target, raw)  # what is imported or cached once is not counted
    tracemalloc.start()
    try:
        attempt(target, raw)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@every_decoder
def test_no_decoder_allocates_beyond_twice_what_came(target: Target) -> None:
    rng = random.Random(7)
    raws = [*target.examples, *(mutated(rng.choice(target.examples), rng) for _ in range(100)), rng.randbytes(500_000)]
    for raw in raws:
        assert held_by(target, raw) <= 2 * len(raw) + CONSTANT_BYTES


#: Headers that promise what does not come: 4 billion items, members, bytes and characters, and deep nesting.
LIARS = [
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xdd\x00\x01\x00\x00" * 400,
    b"\x91" * 20_000,
    b"\x81\xa1a" * 20_000,
    b"[" * 50_000,
    b'{"a":' * 20_000,
]


@every_decoder
@pytest.mark.parametrize("liar", range(len(LIARS)))
def test_a_length_that_is_only_promised_allocates_nothing(target: Target, liar: int) -> None:
    head = LIARS[liar]
    for raw in (head, *(example[:cut] + head for example in target.examples[:30] for cut in (1, len(example) // 2))):
        assert held_by(target, raw) <= 2 * len(raw) + CONSTANT_BYTES


def _call_of(items: bytes, count: int) -> bytes:
    """Return the opening of a call with so many items in its metadata."""
    return (
        b"\x87\xa4type\xa4call\xa1v\x01\xa7task_id\xa0\xa6run_id\xa0\xa8agent_id\xa0\xa5parts\x90\xa8metadata\x81\xa1a\xdd"
        + count.to_bytes(4, "big")
        + items * count
    )


@pytest.mark.parametrize("item", [b"\x80", b"\x90", b"\x81\xa0\x80", b"\xdc\x00\x00", b"\xdf\0\0\0\0"], ids=bytes.hex)
def test_a_message_of_too_many_arrays_and_maps_is_refused_before_it_is_decoded(item: bytes) -> None:
    request = TARGETS["request"]
    assert attempt(request, _call_of(item, 40_000))
    raw = _call_of(item, 1_500_000)
    with pytest.raises(DecodeError) as caught:
        request.decode(raw)
    assert caught.value.code == "wire.too_many"
    assert held_by(request, raw) <= 2 * len(raw) + CONSTANT_BYTES


@pytest.mark.parametrize(
    "item", [b"\xa0", b"\xc0", b"\xcc\xff", b"\xcd\xff\xff", b"\xa2zz", b"\xc4\x02zz"], ids=bytes.hex
)
def test_small_values_take_a_known_multiple_of_what_came(item: bytes) -> None:
    raw = _call_of(item, 200_000)
    assert held_by(TARGETS["request"], raw) <= 24 * len(raw) + CONSTANT_BYTES


def test_long_texts_are_not_taken_for_containers() -> None:
    text = "网络" * 200_000
    raw = v1.encode(v1.CallOpen(v=1, task_id="", run_id="", agent_id="", parts=[{"text": text}] * 2))
    assert v1.decode_request(raw).parts[1]["text"] == text


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), containers_max=st.integers(0, 20))
def test_containers_are_counted_exactly(seed: int, containers_max: int) -> None:
    def count(value: object) -> int:
        if isinstance(value, dict):
            return 1 + sum(count(item) for item in value.values())
        return 1 + sum(map(count, value)) if isinstance(value, list) else 0

    rng = random.Random(seed)
    value = [
        values(inspect.AnyType(), rng),
        rng.randbytes(rng.randrange(70_000)),
        "x" * rng.randrange(70_000),
        1.5,
        -9,
        2**60,
    ]
    assert has_too_many_containers(msgspec.msgpack.encode(value), containers_max) == (count(value) > containers_max)


def test_the_table_of_targets_knows_every_decoder_of_the_wire() -> None:
    named = {name for name in vars(v1) if name.startswith("decode_")}
    used = {getattr(target.decode, "__name__", "") for target in TARGETS.values()}
    assert named <= used


def test_a_finding_is_not_mistaken_for_a_refusal() -> None:
    def broken(_: bytes) -> None:
        raise IndexError

    with pytest.raises(IndexError):
        attempt(Target("broken", broken, ()), b"")
    assert issubclass(msgspec.DecodeError, Exception)
    assert not issubclass(msgspec.DecodeError, PeerError)
