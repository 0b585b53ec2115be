"""Keys: what they do and what they never show."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import LimitError, SignatureError
from agentmesh.identity.keys import KeyPair, verify
from agentmesh.ids import did_of

SEED = bytes(range(32))


@given(st.binary(max_size=200))
def test_what_is_signed_verifies(message: bytes) -> None:
    key = KeyPair(SEED)
    assert verify(key.public, message, key.sign(message)) is None


def test_a_changed_message_key_or_signature_does_not_verify() -> None:
    key, other = KeyPair(SEED), KeyPair(bytes(32))
    signature = key.sign(b"message")
    for public, message, changed in [
        (key.public, b"messagf", signature),
        (other.public, b"message", signature),
        *[(key.public, b"message", signature[:i] + bytes([signature[i] ^ 1]) + signature[i + 1 :]) for i in range(64)],
    ]:
        with pytest.raises(SignatureError) as caught:
            verify(public, message, changed)
        assert caught.value.code == "signature.invalid"


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_signature_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(SignatureError) as caught:
        verify(KeyPair(SEED).public, b"", bytes(size))
    assert caught.value.code == "signature.size"


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(SignatureError) as caught:
        verify(bytes(size), b"", bytes(64))
    assert caught.value.code == "signature.key_size"
    with pytest.raises(LimitError):
        KeyPair(bytes(size))


def test_no_view_of_a_key_pair_shows_its_seed() -> None:
    key = KeyPair(SEED)
    for shown in (repr(key), str(key), f"{key}", f"{[key]}"):
        assert SEED.hex() not in shown
        assert repr(SEED)[2:-1] not in shown
        assert key.did in shown
    assert not hasattr(key, "__dict__")
    for leak in (lambda: pickle.dumps(key), lambda: copy.copy(key), lambda: copy.deepcopy(key)):
        with pytest.raises(TypeError, match="never pickled"):
            leak()


def test_a_key_pair_is_known_by_its_public_half() -> None:
    key = KeyPair.generate(SEED)
    assert key == KeyPair(SEED)
    assert len({key, KeyPair(SEED), KeyPair(bytes(32))}) == 2
    assert key != SEED
    assert key.did == did_of(key.public)
    assert key.seed == SEED
