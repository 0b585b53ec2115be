"""Trust statements: what is signed is read again, and what does not hold is refused (docs/spec/trust.md §6)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import DecodeError, PeerError, ReplayError, SignatureError, UsageError
from agentmesh.identity.jws import sign_compact
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.trust_statement import (
    EVIDENCE_MAX,
    LIFE_S,
    ROWS_MAX,
    SKEW_S_MAX,
    TRUST_CHARS_MAX,
    TRUST_TYP,
    TrustRow,
    read_trust_statement,
    sign_trust_statement,
)

NOW = 1_800_000_000
KEY, OTHER = KeyPair(bytes([1]) * 32), KeyPair(bytes([2]) * 32)
NODE, AGENT = KeyPair(bytes([3]) * 32).did, KeyPair(bytes([4]) * 32).did
ROWS = sorted([TrustRow(NODE, "", 1_500, 0, NOW - 60), TrustRow(AGENT, NODE, 1_500, 20_000, NOW - 60)])


def signed(**changed: Any) -> str:
    """Return a statement signed by ``KEY`` with changed claims, whatever they are."""
    rows = [
        {"sub": r.subject, "good": r.good, "bad": r.bad, "since": r.since, **({"node": r.node} if r.node else {})}
        for r in ROWS
    ]
    claims = {"iss": KEY.did, "iat": NOW, "seq": 7, "rows": rows, **changed}
    return sign_compact(KEY, claims, typ=TRUST_TYP)


def row(**changed: Any) -> str:
    return signed(rows=[{"sub": NODE, "good": 1, "bad": 1, "since": NOW, **changed}])


def test_what_is_signed_is_read_again() -> None:
    raw = sign_trust_statement(KEY, list(reversed(ROWS)), seq=7, iat=NOW)
    statement = read_trust_statement(raw, now=NOW)
    assert (statement.issuer, statement.seq, statement.iat, statement.raw) == (KEY.did, 7, NOW, raw)
    assert list(statement.rows) == ROWS
    assert read_trust_statement(signed(), now=NOW).rows == statement.rows


def test_the_largest_statement_that_can_be_signed_can_be_read() -> None:
    rng = random.Random(1)
    dids = [KeyPair(rng.randbytes(32)).did for _ in range(ROWS_MAX)]
    rows = [TrustRow(did, OTHER.did, EVIDENCE_MAX, EVIDENCE_MAX, NOW) for did in dids]
    raw = sign_trust_statement(KEY, rows, seq=2**53 - 1, iat=NOW)
    assert len(raw) <= TRUST_CHARS_MAX
    assert len(read_trust_statement(raw, now=NOW).rows) == ROWS_MAX
    with pytest.raises(UsageError):
        sign_trust_statement(KEY, [*rows, TrustRow(NODE, "", 1, 1, NOW)], seq=1, iat=NOW)


BAD: list[tuple[Callable[[], str], type[PeerError], str]] = [
    (lambda: "x" * (TRUST_CHARS_MAX + 1), DecodeError, "trust_statement.too_large"),
    (lambda: "a.b", DecodeError, "jws.malformed"),
    (lambda: signed(iat=NOW + SKEW_S_MAX + 1), ReplayError, "trust_statement.not_yet_valid"),
    (lambda: signed(iat=NOW - LIFE_S - 1), ReplayError, "trust_statement.expired"),
    (lambda: signed(iss=OTHER.did), SignatureError, "signature.kid"),
    (lambda: signed(seq=0), DecodeError, "trust_statement.seq"),
    (lambda: signed(seq=True), DecodeError, "trust_statement.seq"),
    (lambda: signed(seq=-1), DecodeError, "trust_statement.seq"),
    (lambda: signed(rows={}), DecodeError, "trust_statement.rows"),
    (lambda: signed(rows=[1]), DecodeError, "trust_statement.rows"),
    (lambda: signed(rows=[{"sub": NODE, "good": 1, "bad": 0, "since": NOW}] * 2), DecodeError, "trust_statement.rows"),
    (lambda: row(good=-1), DecodeError, "trust_statement.evidence"),
    (lambda: row(bad=EVIDENCE_MAX + 1), DecodeError, "trust_statement.evidence"),
    (lambda: row(good=True), DecodeError, "trust_statement.evidence"),
    (lambda: row(since=0), DecodeError, "claims.malformed"),
    (lambda: row(sub="did:web:x"), DecodeError, "claims.malformed"),
    (lambda: row(node=NODE), DecodeError, "trust_statement.rows"),
    (lambda: row(sub=KEY.did), DecodeError, "trust_statement.self"),
    (lambda: row(node=KEY.did), DecodeError, "trust_statement.self"),
    (lambda: sign_compact(KEY, {"iss": KEY.did, "iat": NOW, "seq": 1, "rows": []}, typ="JWT"), SignatureError,
     "signature.type"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "code"), BAD, ids=[f"{n}-{bad[2]}" for n, bad in enumerate(BAD)])
def test_what_does_not_hold_is_refused(make: Callable[[], str], kind: type[PeerError], code: str) -> None:
    with pytest.raises(kind) as error:
        read_trust_statement(make(), now=NOW)
    assert error.value.code == code


def test_no_character_of_a_statement_can_be_changed() -> None:
    raw = signed()
    for place in range(0, len(raw), 7):
        changed = raw[:place] + ("A" if raw[place] != "A" else "B") + raw[place + 1 :]
        with pytest.raises(PeerError):
            read_trust_statement(changed, now=NOW)


def test_nobody_signs_what_nobody_would_read() -> None:
    for bad in (TrustRow(KEY.did, "", 1, 1, NOW), TrustRow(NODE, KEY.did, 1, 1, NOW), TrustRow(NODE, "", -1, 0, NOW)):
        with pytest.raises(UsageError):
            sign_trust_statement(KEY, [bad], seq=1, iat=NOW)


@given(st.text(max_size=300))
def test_reading_any_text_ends_in_a_peer_error(text: str) -> None:
    with pytest.raises(PeerError):
        read_trust_statement(text, now=NOW)
