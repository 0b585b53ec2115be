"""Signed datagrams: what holds is opened by its receiver once and in time; all else is refused, cheapest check first."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import DecodeError, LimitError, MeshError, ReplayError, SignatureError, VersionError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.wire import envelope
from agentmesh.wire.envelope import (
    DATAGRAM_BYTES_MAX,
    NONCES_BEHIND_MAX,
    NOTICE_BYTES,
    PAYLOAD_BYTES_MAX,
    WINDOW_MS,
    Replays,
    is_notice,
    notice_of,
    open_envelope,
    read_notice,
    seal,
)

SENDER, RECEIVER, OTHER = (KeyPair(bytes([n]) * 32) for n in (1, 2, 3))
OWN = NodeId(RECEIVER.did)
NOW = 1_800_000_000_000


def sealed(payload: bytes = b"payload", *, sent_ms: int = NOW, nonce: int = 7, key: KeyPair = SENDER) -> bytes:
    return seal(key, OWN, payload, sent_ms=sent_ms, nonce=nonce)


def code_of(raw: bytes, now_ms: int = NOW, own: NodeId = OWN, replays: Replays | None = None) -> str:
    with pytest.raises(MeshError) as caught:
        open_envelope(raw, own, now_ms, replays)
    return caught.value.code


@given(
    payload=st.binary(max_size=PAYLOAD_BYTES_MAX),
    sent_ms=st.integers(NOW - WINDOW_MS, NOW + WINDOW_MS),
    nonce=st.integers(0, 2**64 - 1),
)
def test_a_datagram_opens_as_what_was_sealed(payload: bytes, sent_ms: int, nonce: int) -> None:
    raw = sealed(payload, sent_ms=sent_ms, nonce=nonce)
    assert len(raw) <= DATAGRAM_BYTES_MAX
    assert open_envelope(raw, OWN, NOW) == (SENDER.did, payload, nonce, sent_ms)


def test_any_flipped_bit_of_a_datagram_is_refused() -> None:
    raw = sealed()
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        assert code_of(bytes(flipped)).startswith(("datagram.", "signature."))


def test_a_datagram_is_read_by_its_receiver_only() -> None:
    raw = sealed()
    assert code_of(raw, own=NodeId(OTHER.did)) == "datagram.misdirected"
    assert code_of(raw, own=NodeId(SENDER.did)) == "datagram.misdirected"


def test_the_signature_covers_the_whole_key_of_the_receiver_and_not_its_mark_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = sealed()
    real = envelope.mark_of(RECEIVER.public)
    monkeypatch.setattr(envelope, "mark_of", lambda _: real)  # as if another key were found that has the same mark
    assert code_of(raw, own=NodeId(OTHER.did)) == "signature.invalid"


def test_a_datagram_sent_back_to_its_sender_is_refused() -> None:
    raw = seal(SENDER, NodeId(SENDER.did), b"", sent_ms=NOW, nonce=1)
    assert code_of(raw, own=NodeId(SENDER.did)) == "datagram.misdirected"


@pytest.mark.parametrize(
    ("raw", "kind", "code"),
    [
        (b"", DecodeError, "datagram.malformed"),
        (b"GET / HTTP/1.1\r\n\r\n" * 9, DecodeError, "datagram.malformed"),
        (bytes(DATAGRAM_BYTES_MAX), DecodeError, "datagram.malformed"),
        (sealed()[:121], DecodeError, "datagram.malformed"),
        (sealed(bytes(PAYLOAD_BYTES_MAX)) + b"x", DecodeError, "datagram.malformed"),
        (sealed()[:3] + b"\x02" + sealed()[4:], DecodeError, "datagram.malformed"),
        (sealed()[:2] + b"\x02" + sealed()[3:], VersionError, "datagram.version"),
        (sealed()[:2] + b"\x00" + sealed()[3:60], VersionError, "datagram.version"),
        (sealed() + b"x", SignatureError, "signature.invalid"),
        (sealed()[:-1], SignatureError, "signature.invalid"),
    ],
)
def test_what_is_no_datagram_of_ours_is_refused_by_its_kind(raw: bytes, kind: type[MeshError], code: str) -> None:
    with pytest.raises(kind) as caught:
        open_envelope(raw, OWN, NOW)
    assert caught.value.code == code


@pytest.mark.parametrize("off_ms", [WINDOW_MS + 1, -WINDOW_MS - 1, 3_600_000, -NOW])
def test_a_datagram_out_of_its_time_is_refused_and_says_how_far_our_clock_is_ahead(off_ms: int) -> None:
    with pytest.raises(ReplayError) as caught:
        open_envelope(sealed(), OWN, NOW + off_ms)
    assert (caught.value.code, caught.value.extra["ahead_ms"]) == ("datagram.stale", off_ms)


def test_cheap_checks_come_before_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_dear(*_: Any) -> None:
        raise AssertionError("a signature was checked")

    seen = Replays()
    open_envelope(sealed(), OWN, NOW, seen)
    monkeypatch.setattr(envelope, "verify", too_dear)
    for raw, now_ms in [(b"x" * 200, NOW), (sealed()[:100], NOW), (sealed(), NOW + 99_999), (sealed(), NOW)]:
        assert code_of(raw, now_ms, replays=seen).startswith("datagram.")
    assert code_of(sealed(), own=NodeId(OTHER.did)) == "datagram.misdirected"


def test_a_payload_over_the_limit_is_not_signed() -> None:
    with pytest.raises(LimitError) as caught:
        sealed(bytes(PAYLOAD_BYTES_MAX + 1))
    assert caught.value.code == "datagram.too_large"


# -- replays ----------------------------------------------------------------------------------------------------------


def test_a_datagram_is_taken_once() -> None:
    seen = Replays()
    assert open_envelope(sealed(), OWN, NOW, seen).nonce == 7
    assert code_of(sealed(), replays=seen) == "datagram.replayed"
    assert open_envelope(sealed(nonce=8), OWN, NOW, seen).nonce == 8
    assert open_envelope(sealed(key=OTHER), OWN, NOW, seen).sender == OTHER.did


def test_a_forged_datagram_uses_up_no_nonce() -> None:
    seen = Replays()
    raw = sealed()
    assert code_of(raw[:-1] + bytes([raw[-1] ^ 1]), replays=seen) == "signature.invalid"
    assert len(seen) == 0
    assert open_envelope(raw, OWN, NOW, seen).nonce == 7


@given(st.lists(st.integers(0, 3 * NONCES_BEHIND_MAX), max_size=80), st.integers(0, 2**32))
def test_no_nonce_is_admitted_twice_in_any_order(nonces: list[int], seed: int) -> None:
    """The model is a set of what was seen; what is too far behind may be refused unseen."""
    seen, model, highest = Replays(), set[int](), -1
    random.Random(seed).shuffle(nonces)
    for nonce in nonces:
        try:
            seen.check(b"k", nonce, NOW)
        except ReplayError:
            assert nonce in model or nonce <= highest - NONCES_BEHIND_MAX
            continue
        assert nonce not in model
        seen.admit(b"k", nonce, NOW, NOW)
        seen.assert_invariants()
        model.add(nonce)
        highest = max(highest, nonce)


def test_a_sender_whose_nonces_fell_is_heard_again_when_all_it_sent_is_out_of_time() -> None:
    seen = Replays()
    open_envelope(sealed(nonce=10**6), OWN, NOW, seen)
    later = NOW + WINDOW_MS
    assert code_of(sealed(nonce=1, sent_ms=later), later, replays=seen) == "datagram.replayed"
    later += 1
    assert open_envelope(sealed(nonce=1, sent_ms=later), OWN, later, seen).nonce == 1
    assert code_of(sealed(nonce=10**6), later, replays=seen) == "datagram.stale"


@given(st.data())
def test_nothing_is_taken_twice_whatever_the_clocks_of_the_senders_say(data: st.DataObject) -> None:
    """A datagram that was opened is never opened again, at any later time of a clock that only goes forward."""
    seen, opened, now = Replays(), list[bytes](), NOW
    for nonce in range(data.draw(st.integers(1, 12))):
        now += data.draw(st.integers(0, 50_000))
        raw = sealed(nonce=nonce, sent_ms=now + data.draw(st.integers(-WINDOW_MS, WINDOW_MS)))
        open_envelope(raw, OWN, now, seen)
        opened.append(raw)
        for old in opened:
            assert code_of(old, now, replays=seen) in ("datagram.replayed", "datagram.stale")


def test_senders_remembered_are_bounded_and_the_one_heard_longest_ago_goes() -> None:
    seen = Replays(senders_max=3)
    for n in (1, 2, 3, 1, 4, 5):
        seen.admit(bytes([n]), 100 * n + len(seen), NOW, NOW)
        seen.assert_invariants()
    with pytest.raises(ReplayError):
        seen.check(b"\x01", 103, NOW)
    seen.check(b"\x02", 201, NOW)


# -- notices ----------------------------------------------------------------------------------------------------------


@given(ahead_ms=st.integers(-(2**70), 2**70))
def test_a_notice_reads_back_and_is_smaller_than_any_datagram(ahead_ms: int) -> None:
    raw = notice_of("clock", sealed(b""), ahead_ms)
    assert len(raw) == NOTICE_BYTES < len(sealed(b""))
    assert is_notice(raw)
    assert not is_notice(sealed(b""))
    found = read_notice(raw)
    assert (found.kind, found.echo) == ("clock", sealed(b"")[-8:])
    assert found.ahead_ms == max(-(2**63), min(ahead_ms, 2**63 - 1))
    assert read_notice(notice_of("version", sealed(b""))).kind == "version"


def test_a_notice_of_another_version_is_read() -> None:
    raw = notice_of("version", sealed())
    newer = raw[:2] + b"\x09" + raw[3:]
    assert (read_notice(newer).kind, read_notice(newer).version) == ("version", 9)


@given(st.binary(max_size=40) | st.binary(min_size=17, max_size=17).map(lambda b: b"\xa6M\x01\x01" + b))
def test_any_bytes_are_a_notice_or_refused(raw: bytes) -> None:
    if is_notice(raw) and raw[4] < 2:
        assert read_notice(raw).kind in ("version", "clock")
    else:
        with pytest.raises(DecodeError):
            read_notice(raw)
