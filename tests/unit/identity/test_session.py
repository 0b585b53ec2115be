"""Sessions: who can open one, what a letter gives away, and that no key and nonce ever cover two letters."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import DecodeError, LimitError, MeshError, ReplayError, SignatureError, StateError
from agentmesh.identity import session as sessions
from agentmesh.identity.session import (
    AGE_MS_MAX,
    ANSWER_BYTES,
    ERA_BITS,
    LETTERS_MAX,
    OFFER_BYTES,
    OVERHEAD_BYTES,
    SKEW_MS_MAX,
    Channel,
    Initiator,
    peek_recipient,
    respond,
)
from tests.support.records import EPOCH, key

NOW_MS = EPOCH * 1000
ALICE, BOB, CAROL = key(1), key(2), key(3)
CONTEXT = b"node of alice" + b"node of bob"
ERA = 1 << ERA_BITS
#: Points of order 1, 2, 4 and 8 (RFC 7748 §6.1 and https://cr.yp.to/ecdh.html), and two non-canonical spellings.
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


def entropy(number: int) -> bytes:
    return sha256(b"entropy %d" % number)


def sha256(raw: bytes) -> bytes:
    digest = Hash(SHA256())
    digest.update(raw)
    return digest.finalize()


def initiator(**over: Any) -> Initiator:
    parts: dict[str, Any] = {
        "key": ALICE,
        "to": BOB.public,
        "entropy": entropy(1),
        "now_ms": NOW_MS,
        "context": CONTEXT,
    }
    return Initiator(**{**parts, **over})


def pair() -> tuple[Channel, Channel]:
    """Return both ends of one session, the initiator's first."""
    alice = initiator()
    answer, theirs, _ = respond(BOB, alice.offer, entropy(2), NOW_MS, CONTEXT)
    return alice.finish(answer), theirs


def refusal(call: Any, *args: Any) -> tuple[type[MeshError], str]:
    with pytest.raises(MeshError) as caught:
        call(*args)
    return type(caught.value), caught.value.code


def test_both_ends_know_each_other_and_understand_each_other_both_ways() -> None:
    alice = initiator()
    assert len(alice.offer) == OFFER_BYTES
    assert peek_recipient(alice.offer) == BOB.public
    answer, theirs, sender = respond(BOB, alice.offer, entropy(2), NOW_MS + SKEW_MS_MAX, CONTEXT)
    ours = alice.finish(answer)
    assert len(answer) == ANSWER_BYTES
    assert sender == theirs.peer == ALICE.public
    assert ours.peer == BOB.public
    for seq, plain in enumerate((b"", b"hello", bytes(1000))):
        there, back = ours.seal(seq, b"head", plain), theirs.seal(seq, b"head", plain)
        assert theirs.open(seq, b"head", there) == plain == ours.open(seq, b"head", back)
        assert len(there) == len(plain) + OVERHEAD_BYTES
        assert there != back


def test_keys_and_letters_are_what_the_specification_says_computed_by_another_library() -> None:
    alice = initiator()
    answer, theirs, _ = respond(BOB, alice.offer, entropy(2), NOW_MS, CONTEXT)
    ours = alice.finish(answer)
    shared = X25519PrivateKey.from_private_bytes(entropy(1)).exchange(
        X25519PrivateKey.from_private_bytes(entropy(2)).public_key()
    )
    chains = HKDF(SHA256(), 64, sha256(alice.offer + answer + CONTEXT), b"agentmesh/1 session keys").derive(shared)

    def step(chain: bytes, label: bytes) -> bytes:
        return HKDFExpand(SHA256(), 32, label).derive(chain)

    for chain, sealing in ((chains[:32], ours), (chains[32:], theirs)):
        first = AESGCM(step(chain, b"agentmesh/1 session era"))
        assert sealing.seal(7, b"aad", b"letter") == bytes(4) + first.encrypt(
            bytes(4) + (7).to_bytes(8, "big"), b"letter", b"aad"
        )
        second = AESGCM(step(step(chain, b"agentmesh/1 session chain"), b"agentmesh/1 session era"))
        assert sealing.seal(ERA + 1, b"aad", b"letter") == bytes(4) + second.encrypt(
            bytes(4) + (ERA + 1).to_bytes(8, "big"), b"letter", b"aad"
        )


@given(st.integers(0, OFFER_BYTES - 1), st.integers(1, 255))
def test_an_offer_altered_in_any_byte_is_refused(place: int, change: int) -> None:
    offer = bytearray(initiator().offer)
    offer[place] ^= change
    with pytest.raises((DecodeError, SignatureError, ReplayError)):
        respond(BOB, bytes(offer), entropy(2), NOW_MS, CONTEXT)


@given(st.integers(0, ANSWER_BYTES - 1), st.integers(1, 255))
def test_an_answer_altered_in_any_byte_is_refused_and_the_true_one_is_still_taken(place: int, change: int) -> None:
    alice = initiator()
    answer, theirs, _ = respond(BOB, alice.offer, entropy(2), NOW_MS, CONTEXT)
    altered = bytearray(answer)
    altered[place] ^= change
    with pytest.raises((DecodeError, SignatureError)):
        alice.finish(bytes(altered))
    assert theirs.open(0, b"", alice.finish(answer).seal(0, b"", b"hello")) == b"hello"


@given(st.binary(max_size=300))
def test_garbage_is_neither_an_offer_nor_an_answer(raw: bytes) -> None:
    with pytest.raises((DecodeError, SignatureError, ReplayError)):
        respond(BOB, raw, entropy(2), NOW_MS)
    with pytest.raises((DecodeError, SignatureError)):
        initiator().finish(raw)
    if len(raw) != OFFER_BYTES:
        assert refusal(peek_recipient, raw) == (DecodeError, "session.malformed")


def test_an_offer_is_good_for_its_recipient_its_nodes_and_its_time_only() -> None:
    offer = initiator().offer
    assert refusal(respond, CAROL, offer, entropy(2), NOW_MS, CONTEXT) == (SignatureError, "session.recipient")
    assert refusal(respond, BOB, offer, entropy(2), NOW_MS, b"other nodes") == (SignatureError, "signature.invalid")
    for away in (-SKEW_MS_MAX - 1, SKEW_MS_MAX + 1):
        assert refusal(respond, BOB, offer, entropy(2), NOW_MS + away, CONTEXT) == (ReplayError, "session.clock")


def test_nobody_talks_with_oneself_or_with_keys_of_another_size() -> None:
    assert refusal(lambda: initiator(to=ALICE.public)) == (SignatureError, "session.self")
    assert refusal(lambda: initiator(to=b"short")) == (LimitError, "session.size")
    assert refusal(lambda: initiator(entropy=b"short")) == (LimitError, "session.size")
    assert refusal(respond, BOB, initiator().offer, b"short", NOW_MS, CONTEXT) == (LimitError, "session.size")
    # Signed by Bob for Bob: a reflected identity.
    said = (
        b"\x01"
        + BOB.public
        + BOB.public
        + X25519PrivateKey.from_private_bytes(entropy(1)).public_key().public_bytes_raw()
    )
    said += NOW_MS.to_bytes(8, "big")
    own = said + BOB.sign(b"agentmesh/1 session offer\n" + said)
    assert refusal(respond, BOB, own, entropy(2), NOW_MS) == (SignatureError, "session.self")


def test_an_answer_to_another_offer_or_by_another_agent_or_sent_back_is_refused() -> None:
    alice, again = initiator(), initiator(entropy=entropy(9))
    answer, _, _ = respond(BOB, again.offer, entropy(2), NOW_MS, CONTEXT)
    assert refusal(alice.finish, answer) == (SignatureError, "signature.invalid")
    to_carol = initiator(to=CAROL.public)
    by_carol, _, _ = respond(CAROL, to_carol.offer, entropy(2), NOW_MS, CONTEXT)
    assert refusal(alice.finish, by_carol) == (SignatureError, "signature.invalid")
    assert refusal(alice.finish, alice.offer[:ANSWER_BYTES])[1] in ("signature.invalid", "session.malformed")


def test_who_replays_an_offer_gets_an_answer_that_opens_nothing() -> None:
    alice = initiator()
    first, theirs, _ = respond(BOB, alice.offer, entropy(2), NOW_MS, CONTEXT)
    ours = alice.finish(first)
    _, other, _ = respond(BOB, alice.offer, entropy(3), NOW_MS, CONTEXT)
    letter = ours.seal(0, b"", b"pay 5")
    assert theirs.open(0, b"", letter) == b"pay 5"
    assert refusal(other.open, 0, b"", letter) == (DecodeError, "session.ciphertext")


@pytest.mark.parametrize("point", LOW_ORDER, ids=range(len(LOW_ORDER)))
def test_a_point_of_low_order_is_refused_on_both_sides_though_it_is_signed(point: bytes) -> None:
    said = b"\x01" + ALICE.public + BOB.public + point + NOW_MS.to_bytes(8, "big")
    offer = said + ALICE.sign(b"agentmesh/1 session offer\n" + said + CONTEXT)
    assert refusal(respond, BOB, offer, entropy(2), NOW_MS, CONTEXT) == (DecodeError, "session.low_order")
    alice = initiator()
    said = b"\x01" + point
    answer = said + BOB.sign(b"agentmesh/1 session answer\n" + alice.offer + said + CONTEXT)
    assert refusal(alice.finish, answer) == (DecodeError, "session.low_order")


@given(st.binary(max_size=200), st.data())
def test_a_letter_altered_cut_or_moved_in_any_way_does_not_open(plain: bytes, data: st.DataObject) -> None:
    ours, theirs = pair()
    letter = ours.seal(5, b"head", plain)
    altered = bytearray(letter)
    altered[data.draw(st.integers(0, len(letter) - 1))] ^= data.draw(st.integers(1, 255))
    cut = letter[: data.draw(st.integers(0, len(letter) - 1))]
    for seq, aad, raw in (
        (5, b"head", bytes(altered)),
        (5, b"head", cut),
        (5, b"head", letter + b"\0"),
        (4, b"head", letter),
        (5, b"Head", letter),
        (-1, b"head", letter),
        (1 << 62, b"head", letter),
    ):
        assert refusal(theirs.open, seq, aad, raw) == (DecodeError, "session.ciphertext")
    assert refusal(ours.open, 5, b"head", letter)[1] == "session.ciphertext", "reflected"
    assert theirs.open(5, b"head", letter) == plain


def test_a_letter_of_another_session_of_the_same_two_does_not_open() -> None:
    ours, _ = pair()
    alice = initiator(entropy=entropy(8))
    _, other, _ = respond(BOB, alice.offer, entropy(9), NOW_MS, CONTEXT)
    assert refusal(other.open, 0, b"", ours.seal(0, b"", b"x"))[1] == "session.ciphertext"


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=3)), min_size=1, max_size=60))
def test_no_nonce_is_used_twice_whatever_is_sealed_again_under_which_number(letters: list[tuple[int, bytes]]) -> None:
    ours, theirs = pair()
    nonces: list[tuple[int, bytes]] = []
    for seq, plain in letters:
        sealed = ours.seal(seq, b"", plain)
        nonces.append((seq, sealed[:4]))
        assert theirs.open(seq, b"", sealed) == plain
    assert len(set(nonces)) == len(nonces)


def test_the_key_changes_with_each_era_and_that_before_the_last_is_forgotten() -> None:
    ours, theirs = pair()
    letters = {seq: ours.seal(seq, b"", b"%d" % seq) for seq in (0, ERA - 1, ERA, 2 * ERA - 1, 2 * ERA)}
    assert theirs.open(ERA, b"", letters[ERA]) == b"%d" % ERA
    assert theirs.open(0, b"", letters[0]) == b"0", "the era before still opens: letters overtake each other"
    assert theirs.open(2 * ERA, b"", letters[2 * ERA])
    assert refusal(theirs.open, 0, b"", letters[0])[1] == "session.ciphertext"
    assert theirs.open(2 * ERA - 1, b"", letters[2 * ERA - 1])
    assert refusal(ours.seal, 0, b"", b"x") == (StateError, "session.forgotten")
    for channel in (ours, theirs):
        for eras in (channel._seal, channel._open):  # pyright: ignore[reportPrivateUsage]
            assert len(eras.ciphers) <= 3


def test_a_number_far_ahead_costs_nothing_and_changes_nothing() -> None:
    ours, theirs = pair()
    letter = ours.seal(0, b"", b"x")
    for seq in (2 * ERA, 1 << 39, 1 << 40):
        assert refusal(theirs.open, seq, b"", letter)[1] == "session.ciphertext"
        assert refusal(ours.seal, seq, b"", b"x") == (StateError, "session.worn")
    assert refusal(theirs.open, ERA, b"", letter)[1] == "session.ciphertext"
    assert theirs.open(0, b"", letter) == b"x", "what was refused has not moved the window"


def test_a_session_is_old_after_an_hour_or_when_the_clock_was_set_back_or_after_many_letters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, _ = pair()
    assert not ours.is_old(NOW_MS)
    assert not ours.is_old(NOW_MS + AGE_MS_MAX - 1)
    assert ours.is_old(NOW_MS + AGE_MS_MAX)
    assert ours.is_old(NOW_MS - AGE_MS_MAX)
    assert LETTERS_MAX == 1 << 31
    monkeypatch.setattr(sessions, "LETTERS_MAX", 3)
    ours.seal(2, b"", b"")
    assert not ours.is_old(NOW_MS)
    ours.seal(3, b"", b"")
    assert ours.is_old(NOW_MS)


def test_repetitions_end_before_their_count_comes_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_REPEATS_MAX", 2)
    ours, _ = pair()
    for _ in range(3):
        ours.seal(1, b"", b"x")
    assert refusal(ours.seal, 1, b"", b"x") == (StateError, "session.worn")
    ours.seal(2, b"", b"new letters still go")


def test_a_channel_is_never_copied_and_shows_no_key() -> None:
    ours, _ = pair()
    assert repr(ours) == f"<Channel with {BOB.public.hex()[:8]}>"
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            copied(ours)


def test_cryptography_is_loaded_with_the_first_letter_only() -> None:
    code = "import sys, agentmesh.identity.session; print([m for m in sys.modules if m.startswith('cryptography')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"
