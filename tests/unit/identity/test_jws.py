"""Base64url with one spelling for each value, and headers that are made once."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import DecodeError
from agentmesh.identity.jws import b64url, sign_compact, unb64url
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import key_id


@given(st.binary(min_size=1, max_size=80))
def test_what_is_encoded_is_base64url_and_reads_back(raw: bytes) -> None:
    text = b64url(raw)
    assert text == base64.urlsafe_b64encode(raw).decode().rstrip("=")
    assert unb64url(text) == raw


def _is_the_one_spelling(text: str) -> bool:
    coded = text.encode("utf-8", "replace")
    try:
        raw = base64.b64decode(coded + b"=" * (-len(coded) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return False
    return bool(raw) and base64.urlsafe_b64encode(raw).rstrip(b"=") == coded


@given(st.text(st.sampled_from("ABCXYZabcxyz059-_") | st.sampled_from("+/= \n\u00e9\ud800"), max_size=12))
def test_a_text_is_refused_unless_it_is_the_one_spelling_of_what_it_says(text: str) -> None:
    if _is_the_one_spelling(text):
        assert b64url(unb64url(text)) == text
    else:
        with pytest.raises(DecodeError):
            unb64url(text)


@pytest.mark.parametrize("text", ["", "A", "AB=", "AB==", "AR", "AAB", "A+", "AA\n", "AAAAA"])
def test_padding_stray_bits_and_other_alphabets_are_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        unb64url(text)


def test_each_key_and_type_has_its_own_header() -> None:
    one, other = KeyPair(bytes([1]) * 32), KeyPair(bytes([2]) * 32)
    for key in (one, other, one):
        for typ in ("a", "b"):
            for with_jwk in (True, False):
                token = sign_compact(key, {"x": 1}, typ=typ, with_jwk=with_jwk)
                header = json.loads(unb64url(token.split(".")[0]))
                assert (header["alg"], header["typ"]) == ("EdDSA", typ)
                if with_jwk:
                    assert unb64url(header["jwk"]["x"]) == key.public
                else:
                    assert header["kid"] == key_id(key.did)
