"""Audit records and checkpoints as bytes: one spelling, one line, one signature."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.codec.merkle import EMPTY_ROOT
from agentmesh.errors import DecodeError, MeshError, PeerError, SignatureError, UsageError
from agentmesh.identity.audit_record import (
    RECORD_BYTES_MAX,
    TEXT_CHARS_MAX,
    body_of,
    clean,
    ended_body,
    read_record,
    undo_of,
    write_record,
)
from agentmesh.identity.checkpoint import key_hash, read_checkpoint, sign_checkpoint
from agentmesh.identity.keys import KeyPair

KEY, OTHER = KeyPair(bytes([1]) * 32), KeyPair(bytes([2]) * 32)
ROOT = hashlib.sha256(b"root").digest()


def body(**members: Any) -> dict[str, Any]:
    return body_of("call", "allowed", agent=OTHER.did, resource=KEY.did, time="2027-01-15T08:00:00.123456Z", **members)


def test_a_record_is_a_cloud_event_that_says_who_asked_whom_for_what_and_what_was_decided() -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    raw = write_record(
        body_of(
            "call",
            "refused",
            agent=OTHER.did,
            resource=KEY.did,
            time="1970-01-01T00:00:00.000005Z",
            traceparent=trace,
            task="t",
        ),
        KEY.did,
        3,
    )
    event = json.loads(raw)
    assert {k: event[k] for k in ("specversion", "id", "source", "type", "time", "subject", "traceparent")} == {
        "specversion": "1.0",
        "id": "3",
        "source": KEY.did,
        "type": "dev.agentmesh.audit.call",
        "time": "1970-01-01T00:00:00.000005Z",
        "subject": KEY.did,
        "traceparent": trace,
    }
    record = read_record(raw)
    assert (record.seq, record.action, record.decision, record.data["agent"]) == (3, "call", "refused", OTHER.did)
    assert "traceparent" not in json.loads(write_record({**body(), "data": body()["data"]}, KEY.did, 0))


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=700))
def test_no_text_of_a_stranger_ends_a_line_steers_a_terminal_or_outgrows_its_place(text: str) -> None:
    raw = write_record(body(purpose=text, name="a\nb\r\u2028\u202e\x1b[31m" + text[:10]), KEY.did, 0)
    assert b"\n" not in raw
    data = read_record(raw).data
    shown = data.get("purpose", "")
    assert len(shown) <= TEXT_CHARS_MAX
    assert not any(ord(c) < 32 or c in "\x7f\u2028\u2029\u202e" for c in shown + data["name"])


def test_lone_surrogates_and_overlong_texts_are_cleaned_before_they_are_written() -> None:
    assert clean("a\ud800b") == "a\ufffdb"
    assert clean("x" * 600).endswith("…")
    assert len(clean("x" * 600)) == TEXT_CHARS_MAX


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=300) | st.sampled_from([b"{}", b'{"data":{}}', b"[]", b"null", b'"x"']))
def test_any_bytes_are_refused_as_a_record_or_read_without_harm(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        read_record(raw)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"seq":0', b'"seq":00'),
        (b'"seq":0', b'"seq": 0'),
        (b'"id":"0"', b'"id":"1"'),
        (b'"decision":"allowed"', b'"decision":"perhaps"'),
        (b'"type":"dev.agentmesh.audit.call"', b'"type":"dev.agentmesh.audit.other"'),
        (b'"specversion":"1.0"', b'"specversion":"2.0"'),
        (b'{"data"', b'{"a":1,"data"'),
        (b'"resource"', b'"reso\\u0075rce"'),
    ],
)
def test_a_record_that_is_spelled_in_another_way_is_no_record(old: bytes, new: bytes) -> None:
    raw = write_record(body(), KEY.did, 0)
    assert old in raw
    with pytest.raises(DecodeError):
        read_record(raw.replace(old, new))


def test_a_record_that_is_too_large_or_has_no_canonical_form_is_not_written() -> None:
    with pytest.raises(UsageError) as error:
        write_record(body(many=["x" * 500] * 100), KEY.did, 0)
    assert error.value.code == "audit.too_large"
    with pytest.raises(UsageError):
        write_record(body(half=0.5), KEY.did, 0)
    assert len(write_record(body(purpose="x" * 10_000), KEY.did, 2**52)) < RECORD_BYTES_MAX


@given(
    st.dictionaries(st.sampled_from("abcd"), st.text(max_size=5) | st.none() | st.integers(0, 9)), st.text(max_size=600)
)
def test_a_record_begun_and_ended_is_that_which_is_written_at_once(later: dict[str, Any], text: str) -> None:
    begun = body(task="t", name=text)
    kept = json.dumps(begun)
    ended = ended_body(begun, "refused", time="2027-01-15T08:00:01.000000Z", **later, undo=[text])
    at_once = body_of(
        "call", "refused", agent=OTHER.did, resource=KEY.did, time="2027-01-15T08:00:01.000000Z", task="t", name=text,
        **later, undo=[text],
    )  # fmt: skip
    assert write_record(ended, KEY.did, 0) == write_record(at_once, KEY.did, 0)
    assert json.dumps(begun) == kept


def test_what_would_undo_a_call_is_kept_while_it_is_small_and_by_its_digest_when_it_is_not() -> None:
    small = {"skill": "cancel_order", "arguments": {"order": "4711"}}
    assert undo_of(small) == small
    large = undo_of({"skill": "restore", "arguments": {"rows": "x" * 5_000}})
    assert large is not None
    assert set(large) == {"skill", "sha256"}
    for hostile in ({"n": 1.5}, {"t": "a\nb"}, {"k\ud800": "v"}):
        found = undo_of(hostile)
        assert found is not None
        assert "sha256" in found
    for nothing in (None, {}, [], "undo", 7):
        assert undo_of(nothing) is None


# Checkpoints


def test_a_checkpoint_is_a_signed_note_as_c2sp_specifies_it() -> None:
    head = sign_checkpoint(KEY, 42, ROOT)
    name = f"{KEY.did}/audit"
    text, _, signature = head.text.rpartition("\n\n")
    assert text.split("\n") == [name, "42", base64.b64encode(ROOT).decode()]
    dash, signer, encoded = signature.rstrip("\n").split(" ")
    raw = base64.b64decode(encoded)
    assert (dash, signer) == ("—", name)
    assert raw[:4] == hashlib.sha256(name.encode() + b"\n\x01" + KEY.public).digest()[:4] == key_hash(name, KEY.public)
    assert KEY.sign((text + "\n").encode()) == raw[4:]
    assert read_checkpoint(head.text, node=KEY.did) == head


def test_the_key_id_is_that_of_the_published_example() -> None:
    """C2SP signed-note: the example of golang.org/x/mod/sumdb/note, whose Ed25519 key is in the text of its verifier."""
    vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    name, wanted, encoded = vkey.split("+", 2)
    raw = base64.b64decode(encoded)
    assert raw[:1] == b"\x01"
    assert key_hash(name, raw[1:]).hex() == wanted


def test_a_checkpoint_with_lines_of_witnesses_still_holds() -> None:
    head = sign_checkpoint(KEY, 42, ROOT)
    witness = "— witness.example " + base64.b64encode(bytes(72)).decode() + "\n"
    assert read_checkpoint(head.text + witness).size == 42
    assert read_checkpoint(head.text.replace("\n\n", "\n\n" + witness)).size == 42


def test_a_checkpoint_of_another_key_or_signed_by_another_is_refused() -> None:
    head, other = sign_checkpoint(KEY, 42, ROOT), sign_checkpoint(OTHER, 42, ROOT)
    with pytest.raises(SignatureError) as error:
        read_checkpoint(other.text, node=KEY.did)
    assert error.value.code == "audit.other_key"
    mixed = head.text.rpartition("\n\n")[0] + "\n\n" + other.text.rpartition("\n\n")[2]
    with pytest.raises(SignatureError) as error:
        read_checkpoint(mixed)
    assert error.value.code == "audit.unsigned"
    with pytest.raises(SignatureError):
        read_checkpoint(mixed.replace(OTHER.did + "/audit ", KEY.did + "/audit "))


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_changed_character_of_a_checkpoint_is_found(data: st.DataObject) -> None:
    text = sign_checkpoint(KEY, 1042, ROOT).text
    at = data.draw(st.integers(0, len(text) - 1))
    char = data.draw(st.characters().filter(lambda c: c != text[at]))
    with pytest.raises(PeerError):
        read_checkpoint(text[:at] + char + text[at + 1 :])
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(PeerError):
        read_checkpoint(text[:cut])


def test_an_empty_log_has_only_the_root_of_nothing() -> None:
    assert read_checkpoint(sign_checkpoint(KEY, 0, EMPTY_ROOT).text).size == 0
    with pytest.raises(MeshError):
        read_checkpoint(sign_checkpoint(KEY, 0, ROOT).text)
