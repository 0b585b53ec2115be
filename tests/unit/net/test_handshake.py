"""The handshake holds against an attacker who sees, replays, reflects, redirects and invents."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.codec.frame import encode_short
from agentmesh.errors import DecodeError, LimitError, MeshError, SignatureError, VersionError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net.handshake import HANDSHAKE_BYTES_MAX, PREAUTH_BYTES_MAX, Handshake, transcript

ALICE, BOB, EVE = (KeyPair.generate(bytes([n]) * 32) for n in (1, 2, 3))
CHANNEL = hashlib.sha256(b"bob's certificate").digest()
OTHER_CHANNEL = hashlib.sha256(b"eve's certificate").digest()


def client(
    nonce: bytes = b"c" * 32, *, binding: bytes = CHANNEL, expected: str = BOB.did, key: KeyPair = ALICE
) -> Handshake:
    return Handshake("client", key, nonce, binding=binding, expected=NodeId(expected))


def server(nonce: bytes = b"s" * 32, *, binding: bytes = CHANNEL, key: KeyPair = BOB) -> Handshake:
    return Handshake("server", key, nonce, binding=binding)


def test_both_sides_learn_the_others_proven_id() -> None:
    one, two = client(), server()
    two_hello = two.receive(one.start())
    assert not one.is_done
    proof = one.receive(two_hello)
    assert not two.is_done
    assert one.receive(two.receive(proof)) == b""
    assert (one.peer, two.peer) == (BOB.did, ALICE.did)
    assert one.is_done
    assert two.is_done


def test_the_whole_exchange_fits_into_what_a_stranger_may_send() -> None:
    one, two = client(), server()
    sent = one.start()
    answer = two.receive(sent)
    proof = one.receive(answer)
    assert len(sent) + len(proof) < PREAUTH_BYTES_MAX // 4
    assert len(answer) < HANDSHAKE_BYTES_MAX


def test_any_fragmentation_and_bytes_behind_the_handshake_are_kept() -> None:
    one, two = client(), server()
    hello = b"".join(two.receive(bytes([b])) for b in one.start())
    proof = one.receive(hello)
    welcome = two.receive(proof + b"first frame")
    assert two.rest == b"first frame"
    assert one.receive(welcome) == b""


def test_another_key_than_dialled_is_refused_before_this_side_proves_anything() -> None:
    one, two = client(), server(key=EVE)
    with pytest.raises(SignatureError) as caught:
        one.receive(two.receive(one.start()))
    assert caught.value.code == "handshake.wrong_peer"


def test_a_recorded_session_cannot_be_replayed_to_the_server() -> None:
    one, two = client(), server()
    hello = one.start()
    proof = one.receive(two.receive(hello))
    later = server(nonce=b"n" * 32)
    later.receive(hello)
    with pytest.raises(SignatureError):
        later.receive(proof)
    assert not later.is_done


def test_a_recorded_server_answer_cannot_be_replayed_to_the_client() -> None:
    recorded = server().receive(client().start())
    with pytest.raises(SignatureError):
        client(nonce=b"n" * 32).receive(recorded)


def test_a_hello_cannot_be_reflected_to_its_maker() -> None:
    # Eve sends what Bob says as a client back to Bob as a server, to have him prove himself to himself.
    victim = Handshake("client", BOB, b"v" * 32, binding=CHANNEL)
    with pytest.raises(SignatureError, match="own key"):
        server(nonce=b"o" * 32).receive(victim.start())


def test_a_signature_made_in_one_role_does_not_hold_in_the_other() -> None:
    nonces, ids = (b"c" * 32, b"s" * 32), (ALICE.did, BOB.did)
    two = server()
    two.receive(client().start())
    as_server = ALICE.sign(transcript("server", CHANNEL, nonces, ids))
    with pytest.raises(SignatureError):
        two.receive(encode_short(msgspec.msgpack.encode({"type": "proof", "sig": as_server})))


def test_a_man_in_the_middle_with_another_certificate_is_caught_by_both_sides() -> None:
    # Eve ends Alice's TLS with her own certificate and Bob's as a client, and passes every byte on.
    one, two = client(binding=OTHER_CHANNEL), server(binding=CHANNEL)
    relayed = two.receive(one.start())
    with pytest.raises(SignatureError) as caught:
        one.receive(relayed)
    assert caught.value.code == "handshake.proof"
    # Even an Alice who did not look could not be passed off to Bob.
    careless = ALICE.sign(transcript("client", OTHER_CHANNEL, (b"c" * 32, b"s" * 32), (ALICE.did, BOB.did)))
    with pytest.raises(SignatureError):
        two.receive(encode_short(msgspec.msgpack.encode({"type": "proof", "sig": careless})))


@pytest.mark.parametrize("bindings", [(b"", CHANNEL), (CHANNEL, b"")])
def test_a_side_whose_channel_binding_was_stripped_is_caught(bindings: tuple[bytes, bytes]) -> None:
    one, two = client(binding=bindings[0]), server(binding=bindings[1])
    with pytest.raises(SignatureError) as caught:
        one.receive(two.receive(one.start()))
    assert caught.value.code == "handshake.proof"


def test_a_key_that_was_only_claimed_is_not_believed() -> None:
    two = server()
    two.receive(encode_short(msgspec.msgpack.encode({"type": "hello", "v": 1, "id": ALICE.did, "nonce": b"e" * 32})))
    forged = EVE.sign(transcript("client", CHANNEL, (b"e" * 32, b"s" * 32), (ALICE.did, BOB.did)))
    with pytest.raises(SignatureError):
        two.receive(encode_short(msgspec.msgpack.encode({"type": "proof", "sig": forged})))
    assert not two.is_done


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"type": "proof", "sig": b"x" * 64}),
        msgspec.msgpack.encode({"type": "hello", "v": 1, "id": "did:key:zNobody", "nonce": b"n" * 32}),
        msgspec.msgpack.encode({"type": "hello", "v": 1, "id": ALICE.did, "nonce": b"short"}),
        msgspec.msgpack.encode({"type": "hello", "v": 1, "id": ALICE.did}),
        msgspec.msgpack.encode([[[[]]]] * 100),
    ],
    ids=["empty", "no msgpack", "out of order", "no id", "short nonce", "no nonce", "nested"],
)
def test_what_is_no_hello_is_a_decode_error(message: bytes) -> None:
    with pytest.raises(DecodeError):
        server().receive(encode_short(message))


def test_an_oversized_message_is_refused_by_its_announced_length() -> None:
    with pytest.raises(DecodeError):
        server().receive((HANDSHAKE_BYTES_MAX + 1).to_bytes(2, "big"))
    with pytest.raises(LimitError):
        encode_short(bytes(70_000))


def test_a_truncated_message_never_completes() -> None:
    two = server()
    assert two.receive(client().start()[:-1]) == b""
    assert not two.is_done


def test_another_version_is_named() -> None:
    hello = msgspec.msgpack.encode({"type": "hello", "v": 2, "id": ALICE.did, "nonce": b"n" * 32})
    with pytest.raises(VersionError, match="version 2"):
        server().receive(encode_short(hello))


def test_a_refusal_tells_the_other_side_why() -> None:
    two = server()
    with pytest.raises(SignatureError, match="refused"):
        client().receive(two.refusal(SignatureError("no", code="handshake.proof")))
    with pytest.raises(DecodeError, match="refused"):
        client().receive(two.refusal(DecodeError("no")))


def test_no_two_choices_of_parts_spell_the_same_transcript() -> None:
    one = transcript("client", b"ab", (b"c", b"d"), ("e", "f"))
    assert one != transcript("client", b"a", (b"bc", b"d"), ("e", "f"))
    assert one != transcript("client", b"ab", (b"c", b"de"), ("", "f"))


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_garbage_raises_only_our_own_errors(pieces: list[bytes]) -> None:
    for side in (client(), server()):
        try:
            for piece in pieces:
                side.receive(piece)
        except MeshError:
            pass
        assert not side.is_done
