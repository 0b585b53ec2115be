"""Receipts: every outcome is signed, none counts for another call, none can vanish from the chain."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import UsageError
from agentmesh.identity.budget import Usage
from agentmesh.identity.claims import AMOUNT_MAX, content_digest
from agentmesh.identity.jws import b64url, jwk_of, sign_compact, unb64url
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.receipt import (
    OUTCOMES,
    RECEIPT_CHARS_MAX,
    RECEIPT_TYP,
    Receipt,
    ReceiptClaims,
    ResponseDigest,
    check_links,
    check_receipt,
    read_receipt,
    sign_receipt,
)
from agentmesh.identity.token import SKEW_S, token_hash
from agentmesh.ids import did_of, key_id
from tests.support.records import EPOCH
from tests.support.tokens import CALLEE, CALLER, OTHER, forged, payload, refusal, token

TOKEN = token()
ANSWER = content_digest(b"answer")
PROBLEM = "https://agentmesh.dev/problems/budget.exceeded"
HEAD = {"alg": "EdDSA", "kid": key_id(CALLEE.did), "typ": RECEIPT_TYP}


def claims(**over: Any) -> ReceiptClaims:
    members: dict[str, Any] = {
        "aud": CALLER.did,
        "iat": EPOCH + 1,
        "jti": "receipt-1",
        "txn": TOKEN.claims.trace_id,
        "proof": TOKEN.hash,
        "req_digest": TOKEN.claims.digest,
        "res_digest": ANSWER,
        "outcome": "completed",
        "task_id": "cd" * 16,
        "usage": Usage(1, 20, 300, 4000),
    }
    return ReceiptClaims(**{**members, **over})


def receipt(pair: KeyPair = CALLEE, **over: Any) -> Receipt:
    return read_receipt(sign_receipt(pair, claims(**over)))


def problem_of(outcome: str) -> str | None:
    return PROBLEM if outcome in ("failed", "rejected", "canceled") else None


RAW = sign_receipt(CALLEE, claims())
GOOD = payload(RAW)


@given(
    outcome=st.sampled_from(OUTCOMES),
    usage=st.builds(Usage, *[st.integers(0, AMOUNT_MAX)] * 4),
    grant=st.none() | st.just(token_hash("grant")),
    prev=st.none() | st.just(token_hash("receipt")),
)
def test_a_receipt_of_any_outcome_reads_back_as_what_was_signed(outcome: Any, **over: Any) -> None:
    said = claims(outcome=outcome, problem=problem_of(outcome), **over)
    raw = sign_receipt(CALLEE, said)
    got = read_receipt(raw, now=EPOCH + 1)
    assert (got.issuer, got.claims, got.hash) == (CALLEE.did, said, token_hash(raw))


def test_a_receipt_is_read_years_later_with_nothing_but_itself() -> None:
    assert read_receipt(RAW, now=EPOCH + 10 * 31_536_000) == read_receipt(RAW)
    assert refusal(read_receipt, RAW, now=EPOCH + 1 - SKEW_S) == ("", "")
    assert refusal(read_receipt, RAW, now=EPOCH - SKEW_S) == ("ReplayError", "receipt.not_yet_valid")


def test_a_receipt_is_plain_jws_for_others() -> None:
    assert json.loads(unb64url(RAW.split(".")[0])) == HEAD
    public = jwt.PyJWK(jwk_of(CALLEE.public), algorithm="EdDSA")
    assert jwt.decode(RAW, public, algorithms=["EdDSA"], audience=CALLER.did, options={"verify_iat": False}) == GOOD
    theirs = jwt.encode(
        GOOD,
        Ed25519PrivateKey.from_private_bytes(CALLEE.seed),
        algorithm="EdDSA",
        headers={"typ": RECEIPT_TYP, "kid": key_id(CALLEE.did)},
    )
    assert read_receipt(theirs).claims == claims()
    assert GOOD["usage"] == {"calls": 1, "tokens": 20, "usd_micros": "300", "wall_ms": 4000}


# -- whose, and about what ----------------------------------------------------------------------------------------


def test_a_receipt_counts_for_the_call_and_answer_that_it_names() -> None:
    check_receipt(receipt(), TOKEN, res_digest=ANSWER)
    check_receipt(receipt(), TOKEN, res_digest=None)


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"pair": OTHER}, "receipt.parties"),
        ({"pair": CALLER}, "receipt.parties"),
        ({"aud": OTHER.did}, "receipt.parties"),
        ({"proof": token(jti="another").hash}, "receipt.call"),
        ({"txn": "another"}, "receipt.call"),
        ({"req_digest": content_digest(b"other")}, "receipt.call"),
        ({"grant": token_hash("grant")}, "receipt.call"),
        ({"iat": EPOCH - SKEW_S - 1}, "receipt.call"),
        ({"res_digest": content_digest(b"other")}, "receipt.answer"),
    ],
)
def test_a_receipt_for_another_call_or_answer_is_refused(over: dict[str, Any], code: str) -> None:
    assert refusal(check_receipt, receipt(**over), TOKEN, res_digest=ANSWER) == ("SignatureError", code)


def test_a_receipt_for_a_grant_cannot_leave_the_grant_out() -> None:
    delegated = token(ath=token_hash("grant"))
    check_receipt(receipt(proof=delegated.hash, grant=token_hash("grant")), delegated, res_digest=None)
    assert refusal(check_receipt, receipt(proof=delegated.hash), delegated, res_digest=None)[1] == "receipt.call"


def test_a_refusal_of_a_changed_body_names_the_body_that_came() -> None:
    came = content_digest(b"changed on the way")
    refused = receipt(outcome="rejected", problem=PROBLEM, req_digest=came)
    check_receipt(refused, TOKEN, res_digest=ANSWER)
    failed = receipt(outcome="failed", problem=PROBLEM, req_digest=came)
    assert refusal(check_receipt, failed, TOKEN, res_digest=ANSWER)[1] == "receipt.call"


# -- chains -------------------------------------------------------------------------------------------------------


def chain(length: int) -> list[Receipt]:
    made: list[Receipt] = []
    for number in range(length):
        made.append(receipt(jti=f"r-{number}", prev=made[-1].hash if made else None))
    return made


RECEIPTS = chain(6)


@given(st.permutations(range(6)).map(lambda order: order[:4]))
def test_only_receipts_in_order_and_without_gaps_are_linked(order: list[int]) -> None:
    whole = all(after == before + 1 for before, after in pairwise(order))
    expected = ("", "") if whole else ("SignatureError", "receipt.link")
    assert refusal(check_links, [RECEIPTS[n] for n in order]) == expected


def test_a_window_of_the_chain_is_linked_but_does_not_count_as_its_start() -> None:
    check_links(RECEIPTS, from_start=True)
    check_links([])
    check_links(RECEIPTS[:1], from_start=True)
    assert refusal(check_links, RECEIPTS[1:], from_start=True)[1] == "receipt.link"
    check_links(RECEIPTS[1:])


def test_receipts_of_another_callee_or_caller_are_not_linked() -> None:
    for over in ({"pair": OTHER}, {"aud": OTHER.did}):
        assert refusal(check_links, [RECEIPTS[0], receipt(prev=RECEIPTS[0].hash, **over)])[1] == "receipt.link"


# -- streams ------------------------------------------------------------------------------------------------------


def digest(events: list[bytes]) -> str:
    running = ResponseDigest()
    for event in events:
        running.add(event)
    return running.value


@given(st.lists(st.binary(max_size=20), max_size=6), st.lists(st.binary(max_size=20), max_size=6))
def test_the_digest_of_a_stream_tells_events_and_their_borders_apart(one: list[bytes], two: list[bytes]) -> None:
    assert (digest(one) == digest(two)) == (one == two)


def test_the_digest_of_a_stream_can_be_looked_at_on_the_way() -> None:
    running = ResponseDigest()
    assert running.value == content_digest(b"")
    running.add(b"a")
    assert running.value == running.value == digest([b"a"]) == content_digest(b"\0\0\0\1a")
    running.add(b"b")
    assert running.value == digest([b"a", b"b"])


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"outcome": "done"}, "receipt.outcome"),
        ({"outcome": None}, "receipt.outcome"),
        ({"outcome": ["completed"]}, "receipt.outcome"),
        ({"outcome": "failed"}, "receipt.problem"),
        ({"outcome": "rejected", "problem": ""}, "receipt.problem"),
        ({"problem": PROBLEM}, "receipt.problem"),
        ({"proof": "x"}, "claims.malformed"),
        ({"prev": None}, "claims.malformed"),
        ({"res_digest": "sha-256=::"}, "claims.malformed"),
        ({"task_id": "a\x1b[31m"}, "claims.malformed"),
        ({"aud": "somebody"}, "claims.malformed"),
        ({"iss": "somebody"}, "claims.malformed"),
        ({"usage": {"calls": 1}}, "claims.missing"),
        ({"usage": {**GOOD["usage"], "usd_micros": 300}}, "claims.amount"),
        ({"usage": {**GOOD["usage"], "tokens": -1}}, "claims.amount"),
        ({"usage": {**GOOD["usage"], "tokens": 0.5}}, "json.float"),
    ],
)
def test_a_malformed_receipt_is_refused_though_its_signature_holds(members: dict[str, Any], code: str) -> None:
    assert refusal(read_receipt, forged(HEAD, {**GOOD, **members}, CALLEE)) == ("DecodeError", code)


def test_no_required_claim_of_a_receipt_may_be_missing() -> None:
    for name in GOOD:
        raw = forged(HEAD, {k: v for k, v in GOOD.items() if k != name}, CALLEE)
        assert refusal(read_receipt, raw)[0] == "DecodeError", name


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (forged(HEAD, GOOD, OTHER), ("SignatureError", "signature.invalid")),
        (forged({**HEAD, "kid": key_id(OTHER.did)}, GOOD, OTHER), ("SignatureError", "signature.kid")),
        (forged(HEAD, {**GOOD, "iss": OTHER.did}, CALLEE), ("SignatureError", "signature.kid")),
        (forged({**HEAD, "alg": "none"}, GOOD, CALLEE), ("SignatureError", "signature.algorithm")),
        (forged({**HEAD, "alg": "HS256"}, GOOD, CALLEE), ("SignatureError", "signature.algorithm")),
        (forged({**HEAD, "typ": "JWT"}, GOOD, CALLEE), ("SignatureError", "signature.type")),
        (sign_compact(CALLEE, GOOD, typ="dpop+jwt"), ("SignatureError", "signature.type")),
        (RAW + "=", ("DecodeError", "jws.base64")),
        (RAW + "A" * RECEIPT_CHARS_MAX, ("DecodeError", "receipt.too_large")),
        (RAW.rpartition(".")[0], ("DecodeError", "jws.malformed")),
    ],
)
def test_a_receipt_that_its_issuer_did_not_sign_is_refused(raw: str, expected: tuple[str, str]) -> None:
    assert refusal(read_receipt, raw) == expected


@pytest.mark.parametrize("small", [bytes(32), b"\x01" + bytes(31)])
def test_a_receipt_of_a_small_order_key_is_refused(small: bytes) -> None:
    did = did_of(small)
    parts = ({**HEAD, "kid": key_id(did)}, {**GOOD, "iss": did})
    covered = ".".join(b64url(json.dumps(part).encode()) for part in parts)
    assert refusal(read_receipt, f"{covered}.{b64url(small + bytes(32))}")[0] in ("DecodeError", "SignatureError")


@given(st.integers(0, len(RAW) - 1), st.sampled_from("Aa0_-.=ß"))
def test_a_receipt_changed_in_any_character_is_refused(place: int, other: str) -> None:
    raw = RAW[:place] + other + RAW[place + 1 :]
    if raw != RAW:
        assert refusal(read_receipt, raw)[0] in ("DecodeError", "SignatureError")


@given(st.text(max_size=200))
def test_any_text_is_no_receipt(text: str) -> None:
    for raw in (text, f"{RAW.split('.')[0]}.{text}.{text}"):
        assert refusal(read_receipt, raw)[0] in ("DecodeError", "SignatureError")


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"outcome": "rejected"}, "receipt.problem"),
        ({"problem": PROBLEM}, "receipt.problem"),
        ({"outcome": "lost"}, "receipt.outcome"),
        ({"proof": "x"}, "claims.malformed"),
    ],
)
def test_no_receipt_is_signed_that_a_reader_would_refuse(over: dict[str, Any], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        sign_receipt(CALLEE, claims(**over))
    assert caught.value.code == code
