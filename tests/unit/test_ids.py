"""Names of nodes and agents."""

from __future__ import annotations

import hashlib
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh import ids
from agentmesh.errors import DecodeError

#: From the did:key method's published Ed25519 examples (W3C CCG, did:key test vectors): seed bytes 31 zeros then n → did.
DID_OF_SEED_0 = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"
PUBLIC_OF_SEED_0 = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"


def test_did_key_is_spelled_as_the_published_vector() -> None:
    assert ids.did_of(bytes.fromhex(PUBLIC_OF_SEED_0)) == DID_OF_SEED_0
    assert ids.public_key_of(DID_OF_SEED_0) == bytes.fromhex(PUBLIC_OF_SEED_0)


@given(st.binary(min_size=32, max_size=32))
def test_a_did_reads_back_as_the_same_key(public: bytes) -> None:
    did = ids.did_of(public)
    assert did.startswith("did:key:z6Mk")
    assert len(did) == 56
    assert ids.public_key_of(did) == public
    assert ids.parse_node_id(did) == ids.parse_agent_id(did) == did


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_of_another_size_has_no_did(size: int) -> None:
    with pytest.raises(DecodeError, match="32 bytes"):
        ids.did_of(bytes(size))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "did:key:",
        DID_OF_SEED_0[:-1],
        DID_OF_SEED_0 + "1",
        DID_OF_SEED_0.replace("W", "0"),  # 0 is not in the alphabet
        DID_OF_SEED_0 + "\n",
        DID_OF_SEED_0.upper(),
        "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc",  # an X25519 key
        "did:web:example.org",
        DID_OF_SEED_0 + "#" + DID_OF_SEED_0[8:],
        None,
        7,
    ],
)
def test_what_is_no_did_key_is_refused(text: object) -> None:
    with pytest.raises(DecodeError) as caught:
        ids.public_key_of(text)  # type: ignore[arg-type]
    assert caught.value.code == "id.malformed"


def test_the_dht_key_is_the_hash_of_the_raw_key() -> None:
    assert ids.dht_key(bytes(32)) == hashlib.sha256(bytes(32)).digest()


def test_a_key_id_is_the_did_url_of_the_key_itself() -> None:
    assert ids.key_id(DID_OF_SEED_0) == f"{DID_OF_SEED_0}#{DID_OF_SEED_0.removeprefix('did:key:')}"


def test_the_short_form_shows_both_ends() -> None:
    assert ids.short(DID_OF_SEED_0) == "iTBz…mDooWp"


@pytest.mark.parametrize("name", ["a", "7", "echo", "re-viewer_2", "v1.2", "计算器", "x" * 64])
def test_usable_names(name: str) -> None:
    assert ids.is_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-b ", "a b", ".a", "a.", "a/b", "a\n", "x" * 65, "\x1b[31m", "a@b", "_"])
def test_unusable_names(name: str) -> None:
    assert not ids.is_name(name)


#: U+0345 aside: case folding makes a letter of that mark, and its place among other marks is then lost.
@given(st.text(st.characters(codec="utf-8", exclude_characters="\u0345"), max_size=60))
def test_a_capability_is_found_whatever_the_case_and_spelling(text: str) -> None:
    found = ids.capability_key(text)
    assert len(found) == 32
    for other in (
        text.casefold(),
        normalize("NFC", text),
        normalize("NFD", text),
        normalize("NFKC", text),
        f" {text}\n",
    ):
        assert ids.capability_key(other) == found


def test_capability_keys_differ_from_each_other_and_from_those_of_nodes() -> None:
    assert ids.capability_key("Straße") == ids.capability_key("STRASSE")
    assert ids.capability_key("ﬁnance") == ids.capability_key("FINANCE")
    assert ids.capability_key("finance") != ids.capability_key("finances")
    assert ids.capability_key("a" * 32) != ids.dht_key(b"a" * 32)
    assert len(ids.capability_key("\ud800")) == 32
