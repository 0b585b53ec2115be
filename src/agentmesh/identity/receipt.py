"""Receipts: what the callee signs about one call, whether it answered, failed or refused.

A receipt is a compact JWS that names the call token, request and answer by their hashes, so anybody who has the three can check
it offline, with no key but those in the ids; it is kept for years and has no expiry. Receipts of one callee for one caller
form a chain by ``prev``: one that is withheld or replaced later leaves a gap. docs/spec/tokens.md §5 is the specification.

A receipt is the callee's word. That the work was good, or the usage true, it does not prove.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

from agentmesh.errors import DecodeError, ReplayError, SignatureError
from agentmesh.identity.budget import Usage
from agentmesh.identity.claims import (
    SET_CLOCKS,
    did_in,
    digest_in,
    digest_text,
    hash_in,
    hash_of,
    id_in,
    object_in,
    parse_claims,
    seconds_in,
    text_in,
)
from agentmesh.identity.jws import check_kid, kid_in, sign_checked, split_compact, verify_compact
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.token import SKEW_S, CallToken
from agentmesh.ids import public_key_of

RECEIPT_TYP = "agentmesh-receipt+jwt"
#: Longest receipt, characters. Ours have about 1,200.
RECEIPT_CHARS_MAX = 4096

Outcome = Literal["completed", "failed", "rejected", "canceled", "input-required"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptClaims:
    """What the callee signs.

    Attributes:
        aud: did:key of the caller.
        iat: Unix seconds.
        jti: Fresh for every receipt.
        txn: Trace id of the call token (RFC 8417).
        proof: Hash of the call token.
        req_digest: ``token.digest_of`` the request as the callee received it.
        res_digest: ``ResponseDigest`` of the answer as it was sent; of nothing if none was.
        outcome: How it ended.
        task_id: Task at the callee.
        grant: Hash of the grant that was used, None if nothing was delegated.
        problem: Type URI of the problem (RFC 9457) when rejected or failed, and, if there is one, when canceled; else None.
        usage: What it cost.
        prev: Hash of the callee's last receipt for this caller, None for the first.
    """

    aud: str
    iat: int
    jti: str
    txn: str
    proof: str
    req_digest: str
    res_digest: str
    outcome: Outcome
    task_id: str
    usage: Usage
    grant: str | None = None
    problem: str | None = None
    prev: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A verified receipt; made by ``read_receipt`` only.

    Attributes:
        issuer: did:key of the callee.
        claims: What was signed.
        hash: SHA-256 of its characters, base64url: what the next one names as ``prev``.
    """

    issuer: str
    claims: ReceiptClaims
    hash: str


class ResponseDigest:
    """Running hash over the events of an answer, for streams of any length; a plain answer is one event.

    SHA-256 over, for each event, its length as 4 bytes, big-endian, and its bytes: other borders give another value.
    """

    __slots__ = ("_sha256",)

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, event: bytes) -> None:
        """Append an event, exactly the bytes that are sent."""
        self._sha256.update(len(event).to_bytes(4, "big"))
        self._sha256.update(event)

    @property
    def value(self) -> str:
        """The digest of all events so far, ``sha-256=:…:``; more may follow."""
        return digest_text(self._sha256.digest())


def sign_receipt(key: KeyPair, claims: ReceiptClaims) -> str:
    """Return the receipt as a compact JWS.

    Args:
        key: The callee's.
        claims: What it says.

    Raises:
        UsageError: a claim breaks a rule of docs/spec/tokens.md; ``code`` names it. Nothing was signed.
    """
    payload: dict[str, Any] = {
        "iss": key.did,
        "aud": claims.aud,
        "iat": claims.iat,
        "jti": claims.jti,
        "txn": claims.txn,
        "proof": claims.proof,
        "req_digest": claims.req_digest,
        "res_digest": claims.res_digest,
        "outcome": claims.outcome,
        "task_id": claims.task_id,
        "usage": claims.usage.to_claim(),
    }
    optional = {"grant": claims.grant, "problem": claims.problem, "prev": claims.prev}
    payload.update({name: value for name, value in optional.items() if value is not None})
    return sign_checked(
        key,
        payload,
        _read_claims,
        typ=RECEIPT_TYP,
        what="receipt",
        chars_max=RECEIPT_CHARS_MAX,
        hint="shorten the problem's URI",
    )


def read_receipt(raw: str, *, now: int | None = None) -> Receipt:
    """Check a receipt of any origin and age. Which call it belongs to is judged by ``check_receipt``.

    Args:
        raw: The compact JWS.
        now: Unix seconds, to refuse one from the future; None for an old one on a machine whose clock is not trusted.

    Raises:
        DecodeError: oversized or malformed (codes "receipt.*", "claims.*", "jws.*", "json.*").
        ReplayError: from the future (code "receipt.not_yet_valid").
        SignatureError: another algorithm or type, or not signed by its issuer (codes "signature.*").
    """
    if len(raw) > RECEIPT_CHARS_MAX:
        raise DecodeError(
            f"a receipt of {len(raw)} characters is not read",
            code="receipt.too_large",
            why=f"at most {RECEIPT_CHARS_MAX} characters are read",
        )
    protected, payload, _ = split_compact(raw, payload_bytes_max=RECEIPT_CHARS_MAX)
    kid = kid_in(protected, RECEIPT_TYP)
    members = parse_claims(payload, bytes_max=RECEIPT_CHARS_MAX)
    issuer = did_in(members, "iss")
    check_kid(kid, issuer)
    claims = _read_claims(members)
    if now is not None and claims.iat - SKEW_S > now:
        raise ReplayError(
            f"the receipt is from {claims.iat - now} s in the future",
            code="receipt.not_yet_valid",
            why=f"clocks may differ by {SKEW_S} s",
            hint=SET_CLOCKS,
        )
    verify_compact(raw, public_key_of(issuer))
    return Receipt(issuer, claims, hash_of(raw))


def usage_in(raw: str) -> Usage:
    """Return what was used, of a receipt that was verified before: its signature is not looked at. Raises DecodeError."""
    _, payload, _ = split_compact(raw, payload_bytes_max=RECEIPT_CHARS_MAX)
    return _read_claims(parse_claims(payload, bytes_max=RECEIPT_CHARS_MAX)).usage


def check_receipt(receipt: Receipt, token: CallToken, *, res_digest: str | None) -> None:
    """Check that a receipt is about this call and this answer.

    Args:
        receipt: Verified.
        token: The call's token, verified; later ``token.read_kept_token`` reads it again.
        res_digest: ``ResponseDigest.value`` over what the caller received; None when the answer was not kept, and then
            nothing is said about it.

    Raises:
        SignatureError: signed by another than the callee, or for another caller, call or answer (codes "receipt.parties",
            "receipt.call", "receipt.answer").
    """
    said, asked = receipt.claims, token.claims
    if receipt.issuer != asked.aud or said.aud != token.caller:
        raise SignatureError(
            "the receipt is from another agent or for another caller",
            code="receipt.parties",
            why=f"{receipt.issuer} signed it for {said.aud}; the call went from {token.caller} to {asked.aud}",
            hint="keep the receipt as evidence, and do not count it",
        )
    same = (said.proof, said.txn) == (token.hash, asked.trace_id) and said.iat >= asked.iat - SKEW_S
    if said.outcome != "rejected":  # What came may be just why it was refused.
        same = same and (said.req_digest, said.grant) == (asked.digest, asked.ath)
    if not same:
        raise SignatureError(
            "the receipt is about another call",
            code="receipt.call",
            why="token, trace, request, grant or time differ from those of the call",
            hint="keep the receipt as evidence, and do not count it",
        )
    if res_digest is not None and said.res_digest != res_digest:
        raise SignatureError(
            "the receipt is about another answer",
            code="receipt.answer",
            why="what arrived has another digest than what the callee says it sent",
            hint="if the stream broke off, ask again with the same idempotency key: the stored answer comes back",
        )


def check_links(receipts: Sequence[Receipt], *, from_start: bool = False) -> None:
    """Check that receipts follow each other without a gap.

    Args:
        receipts: Verified, of one callee for one caller, oldest first.
        from_start: The first of them must be the callee's first for this caller.

    Raises:
        SignatureError: another callee or caller in between, or a receipt that does not name the one before (code
            "receipt.link").
    """
    if from_start and receipts and receipts[0].claims.prev is not None:
        raise _unlinked(0, "there is one before the first")
    for place, (before, after) in enumerate(pairwise(receipts), start=1):
        if (after.issuer, after.claims.aud) != (before.issuer, before.claims.aud):
            raise _unlinked(place, "it is of another callee or for another caller")
        if after.claims.prev != before.hash:
            raise _unlinked(place, "it names another receipt as the one before")


def _unlinked(place: int, why: str) -> SignatureError:
    return SignatureError(
        f"the chain of receipts breaks at number {place + 1}",
        code="receipt.link",
        why=why,
        hint="ask the callee for the missing receipts; one that cannot show them has removed or changed some",
    )


def _read_claims(members: dict[str, Any]) -> ReceiptClaims:
    outcome = members.get("outcome")
    if outcome not in OUTCOMES:
        raise DecodeError(
            "a receipt with an outcome that is not known",
            code="receipt.outcome",
            why=f"known are {', '.join(OUTCOMES)}",
            hint="an agent that waits for money or a login is input-required",
        )
    problem = text_in(members, "problem") if "problem" in members else None
    if (outcome in ("failed", "rejected") and not problem) or (
        outcome in ("completed", "input-required") and problem is not None
    ):
        raise DecodeError(
            "outcome and problem of a receipt disagree",
            code="receipt.problem",
            why="a refusal or failure says why, an answer has no problem",
            hint="give the problem's type URI (RFC 9457)",
        )
    return ReceiptClaims(
        aud=did_in(members, "aud"),
        iat=seconds_in(members, "iat"),
        jti=id_in(members, "jti"),
        txn=id_in(members, "txn"),
        proof=hash_in(members, "proof"),
        req_digest=digest_in(members, "req_digest"),
        res_digest=digest_in(members, "res_digest"),
        outcome=outcome,
        task_id=id_in(members, "task_id"),
        usage=Usage.from_claim(object_in(members, "usage")),
        grant=hash_in(members, "grant") if "grant" in members else None,
        problem=problem,
        prev=hash_in(members, "prev") if "prev" in members else None,
    )
