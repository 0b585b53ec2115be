"""Sender keys: all members read, none forges, who comes late reads nothing earlier, who left reads nothing later."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import DecodeError, LimitError, MeshError, SignatureError, StateError
from agentmesh.identity import senderkey
from agentmesh.identity.senderkey import (
    AHEAD_MAX,
    HEAD_BYTES,
    LETTERS_MAX,
    OVERHEAD_BYTES,
    ReceivingChain,
    SendingChain,
    read_head,
)
from tests.support.records import key

ALICE, BOB = key(1), key(2)
GROUP = b"g" * 16
AAD = b"message id"


def chain(sender: Any = ALICE, epoch: int = 1, salt: int = 0) -> SendingChain:
    return SendingChain(sender, GROUP, epoch, bytes([salt]) * 8 + bytes([salt + 1]) * 32)


def reader(sending: SendingChain, sender: Any = ALICE) -> ReceivingChain:
    return ReceivingChain(sender.public, GROUP, sending.epoch, sending.chain, *sending.share)


def refusal(call: Any, *args: Any) -> tuple[type[MeshError], str]:
    with pytest.raises(MeshError) as caught:
        call(*args)
    return type(caught.value), caught.value.code


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20), st.randoms())
def test_all_members_read_what_was_sent_in_any_order_and_again(plains: list[bytes], chance: Any) -> None:
    sending = chain()
    members = [reader(sending), reader(sending)]
    letters = [sending.seal(AAD, plain) for plain in plains]
    for member in members:
        order = [*range(len(letters)), *range(len(letters))]
        chance.shuffle(order)
        for number in order:
            assert member.open(AAD, letters[number]) == plains[number]
    assert {len(letter) - len(plain) for letter, plain in zip(letters, plains, strict=True)} == {OVERHEAD_BYTES}


def test_a_newcomer_reads_nothing_earlier() -> None:
    sending = chain()
    first = sending.seal(AAD, b"before")
    newcomer = reader(sending)
    assert newcomer.open(AAD, sending.seal(AAD, b"after")) == b"after"
    assert refusal(newcomer.open, AAD, first) == (DecodeError, "group.ciphertext")


def test_who_left_reads_nothing_of_the_next_epoch() -> None:
    sending = chain()
    left = reader(sending)
    later = chain(epoch=2, salt=7).seal(AAD, b"without you")
    assert refusal(left.open, AAD, later) == (DecodeError, "group.ciphertext")
    forced = ReceivingChain(ALICE.public, GROUP, 2, read_head(later).chain, *sending.share)
    assert refusal(forced.open, AAD, later) == (DecodeError, "group.ciphertext")


def test_a_member_that_knows_the_chain_cannot_speak_for_its_sender() -> None:
    sending = chain()
    victim = reader(sending)
    index, secret = sending.share
    forged = SendingChain(BOB, GROUP, 1, sending.chain + secret)
    assert index == 0
    assert refusal(victim.open, AAD, forged.seal(AAD, b"pay Bob")) == (SignatureError, "signature.invalid")


@given(st.data())
def test_a_letter_altered_in_any_byte_cut_or_moved_does_not_open(data: st.DataObject) -> None:
    sending = chain()
    member = reader(sending)
    letter = sending.seal(AAD, b"hello")
    place = data.draw(st.integers(0, len(letter) - 1))
    altered = bytearray(letter)
    altered[place] ^= data.draw(st.integers(1, 255))
    for aad, raw in ((AAD, bytes(altered)), (AAD, letter[:place]), (b"other id", letter), (AAD, letter + b"\0")):
        with pytest.raises((DecodeError, SignatureError)):
            member.open(aad, raw)
    assert member.open(AAD, letter) == b"hello", "what was refused changed nothing"


@given(st.binary(max_size=200))
def test_garbage_is_no_letter(raw: bytes) -> None:
    with pytest.raises((DecodeError, SignatureError)):
        reader(chain()).open(AAD, raw)


def test_who_has_no_word_of_the_sender_cannot_make_a_member_run_ahead() -> None:
    sending = chain()
    member = reader(sending)
    letter = bytearray(sending.seal(AAD, b"x"))
    letter[HEAD_BYTES - 4 : HEAD_BYTES] = AHEAD_MAX.to_bytes(4, "big")
    assert refusal(member.open, AAD, bytes(letter))[1] == "signature.invalid"
    assert member._next == 0  # pyright: ignore[reportPrivateUsage]
    letter[HEAD_BYTES - 4 : HEAD_BYTES] = (AHEAD_MAX + 1).to_bytes(4, "big")
    assert refusal(member.open, AAD, bytes(letter)) == (DecodeError, "group.ciphertext")


def test_keys_are_forgotten_once_their_letters_are_kept_and_what_is_on_disk_opens_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(senderkey, "BEHIND_MAX", 300)
    sending = chain()
    member = reader(sending)
    letters = [sending.seal(AAD, b"%d" % number) for number in range(310)]
    for letter in letters:
        member.open(AAD, letter)
    assert member.open(AAD, letters[0]) == b"0", "nothing is forgotten before it is kept"
    member.settle(305)
    assert refusal(member.open, AAD, letters[4])[1] == "group.ciphertext"
    again = ReceivingChain(ALICE.public, GROUP, 1, sending.chain, *member.share)
    for one in (member, again):
        assert one.open(AAD, letters[5]) == b"5"
        assert one.open(AAD, letters[-1]) == b"309"
    assert refusal(again.open, AAD, letters[4])[1] == "group.ciphertext"


def test_keys_that_are_kept_are_bounded_though_nothing_is_ever_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senderkey, "AHEAD_MAX", 8)
    monkeypatch.setattr(senderkey, "BEHIND_MAX", 4)
    sending = chain()
    member = reader(sending)
    for number in range(50):
        member.open(AAD, sending.seal(AAD, b"%d" % number))
    assert member.share[0] == 50 - 12


def test_a_chain_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LETTERS_MAX == 65_536
    monkeypatch.setattr(senderkey, "LETTERS_MAX", 2)
    sending = chain()
    sending.seal(AAD, b"")
    assert not sending.is_worn
    sending.seal(AAD, b"")
    assert sending.is_worn
    assert refusal(sending.seal, AAD, b"") == (StateError, "group.worn")


def test_chains_of_other_sizes_are_refused_and_none_is_copied_or_shown() -> None:
    assert refusal(SendingChain, ALICE, b"short", 1, bytes(40)) == (LimitError, "group.size")
    assert refusal(SendingChain, ALICE, GROUP, 0, bytes(40)) == (LimitError, "group.size")
    for parts in ((b"", 1, bytes(8), 0, bytes(32)), (GROUP, 1, bytes(8), -1, bytes(32)), (GROUP, 1, bytes(8), 0, b"")):
        assert refusal(ReceivingChain, ALICE.public, *parts) == (DecodeError, "group.malformed")
    sending = chain(salt=65)
    for one in (sending, reader(sending)):
        assert "B" * 8 not in repr(one)
        for copied in (copy.copy, pickle.dumps):
            with pytest.raises(TypeError):
                copied(one)
