"""Call tokens: who asks, whom, for what, over which body, within which budget – for one call of the next minute.

A call token is a DPoP proof (RFC 9449) with ``aud``, ``exp`` and one claim of ours under the URI ``EXT``; docs/spec/tokens.md
§1-§3 is the specification. Departures from RFC 9449: ``aud`` and ``exp`` are required, and it stands without an access
token when nothing was delegated (``ath`` is there if a grant goes with it).

Reading goes from cheap to dear and changes nothing: the caller of ``read_call_token`` notes ``jti`` in its replay store only
after it returned, or anybody could burn the ids of others with forged tokens (research: standards (a)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agentmesh.codec.canonical import canonical
from agentmesh.errors import DecodeError, LoopDetected, ReplayError, Unauthorized
from agentmesh.identity.budget import UNBOUNDED, Budget
from agentmesh.identity.claims import (
    SET_CLOCKS,
    content_digest,
    count_in,
    did_in,
    digest_in,
    hash_in,
    hash_of,
    id_in,
    is_did,
    list_in,
    object_in,
    parse_claims,
    seconds_in,
    text_in,
)
from agentmesh.identity.jws import (
    check_header,
    parse_header,
    public_of_jwk,
    sign_checked,
    split_compact,
    verify_compact,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import EXT
from agentmesh.ids import did_of

CALL_TYP = "dpop+jwt"
#: Longest token, characters. One with a grant and three hops has about 1,100; servers take header lines of 8 KB.
TOKEN_CHARS_MAX = 6144
#: Longest ``exp`` - ``iat``, seconds (research: standards §4.4).
LIFE_S_MAX = 60
#: How far two clocks may differ, seconds, in either direction.
SKEW_S = 30
#: Longest chain of agents that a token can name.
HOPS_MAX = 32

_HEADER_CHARS_MAX = 512
_CALLERS_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CallClaims:
    """What the caller signs.

    Attributes:
        jti: Fresh for every token, at least 96 random bits.
        htm: Method: "POST", or "CALL" on the wire between nodes.
        htu: Address of the interface called, without query and fragment.
        iat, exp: Unix seconds; at most ``LIFE_S_MAX`` apart.
        aud: did:key of the callee.
        purpose: Why, in the caller's words, for policies and people; may be empty.
        skill: Skill asked for; empty if left to the callee.
        digest: ``digest_of`` the body.
        idem: Idempotency key: the same one gives the stored result, never a second run.
        trace_id: Of the run that the call belongs to.
        budget: What it may use at most.
        hops: did:keys of the agents the call has passed through, first caller first, the caller itself last if it is an
            agent.
        depth_max: Longest chain that the first caller allows.
        ath: ``hash_of`` the grant that goes with it; None if nothing was delegated.
        nonce: What the callee demanded, if it did (RFC 9449 §9).
    """

    jti: str
    htm: str
    htu: str
    iat: int
    exp: int
    aud: str
    purpose: str
    skill: str
    digest: str
    idem: str
    trace_id: str
    budget: Budget = UNBOUNDED
    hops: tuple[str, ...] = ()
    depth_max: int = 16
    ath: str | None = None
    nonce: str | None = None


@dataclass(frozen=True, slots=True)
class CallToken:
    """A verified token; made by ``read_call_token`` only.

    Attributes:
        caller: did:key of who signed.
        claims: What was signed.
        hash: ``hash_of`` the token, named by receipts.
    """

    caller: str
    claims: CallClaims
    hash: str

    @property
    def kept_until(self) -> int:
        """Unix second up to which ``jti`` must stay in the replay store; after it the token is refused as expired."""
        return self.claims.exp + SKEW_S


def sign_call_token(key: KeyPair, claims: CallClaims) -> str:
    """Return the token as a compact JWS.

    Raises:
        UsageError: a claim breaks a rule of docs/spec/tokens.md; ``code`` names it. Nothing was signed.
    """
    ours = {
        "budget": claims.budget.to_claim(),
        "depth_max": claims.depth_max,
        "digest": claims.digest,
        "hops": list(claims.hops),
        "idem": claims.idem,
        "purpose": claims.purpose,
        "skill": claims.skill,
        "trace_id": claims.trace_id,
    }
    payload: dict[str, Any] = {
        "jti": claims.jti,
        "htm": claims.htm,
        "htu": claims.htu,
        "iat": claims.iat,
        "exp": claims.exp,
        "aud": claims.aud,
        EXT: ours,
    }
    if claims.ath is not None:
        payload["ath"] = claims.ath
    if claims.nonce is not None:
        payload["nonce"] = claims.nonce
    return sign_checked(
        key,
        payload,
        _read_claims,
        typ=CALL_TYP,
        what="call token",
        chars_max=TOKEN_CHARS_MAX,
        hint="shorten the purpose or the address",
        with_jwk=True,
    )


def read_call_token(
    raw: str,
    *,
    now: int,
    audience: str,
    htm: str,
    htu: str,
    is_replayed: Callable[[str, str], bool],
    caller: str | None = None,
    nonce: str | None = None,
) -> CallToken:
    """Check a token of any origin, from cheap to dear; the first offence decides. No state changes.

    Args:
        raw: The compact JWS.
        now: Unix seconds.
        audience: did:key of the agent that is called.
        htm, htu: Method and address it was called by, as the callee sees them.
        is_replayed: Called with caller and ``jti``: has this pair been accepted before? It must only look. Whoever accepts
            the token notes the pair until ``kept_until``, after this function has returned.
        caller: did:key that the call says it comes from, if it says so outside the token.
        nonce: What was demanded of the caller, if anything.

    Raises:
        DecodeError: oversized or malformed (codes "token.too_large", "token.*", "jws.*", "json.*", "claims.*").
        SignatureError: another algorithm, type or curve, or a signature that does not hold (codes "signature.*").
        ReplayError: its time is over or has not come, or it was used (codes "token.expired", "token.not_yet_valid",
            "token.replayed").
        Unauthorized: made for another agent, method, address or caller, or without the nonce (codes "token.audience",
            "token.method", "token.address", "token.caller", "token.nonce").
    """
    protected, payload = _split(raw)
    public, signer = _signer(protected)
    claims = _read_claims(parse_claims(payload, bytes_max=TOKEN_CHARS_MAX))
    _check_time(claims, now)
    _check_target(claims, audience=audience, htm=htm, htu=htu, nonce=nonce)
    if caller is not None and caller != signer:
        raise Unauthorized(
            "the call token was signed by another key than the caller's",
            code="token.caller",
            why=f"the call says it comes from {caller[:80]}, the token from {signer}",
            hint="sign with the key of the calling agent",
        )
    if is_replayed(signer, claims.jti):
        raise ReplayError(
            "this call token was used before",
            code="token.replayed",
            why="each token is good for one call",
            hint="sign a new token with the same idempotency key: the stored result comes back, nothing runs twice",
        )
    verify_compact(raw, public)
    return CallToken(signer, claims, token_hash(raw))


def read_kept_token(raw: str) -> CallToken:
    """Read a token kept as evidence, at any later time and by anybody: its shape and signature, not its time or target.

    For receipts and audits only; a call is admitted by ``read_call_token``.

    Raises:
        DecodeError: oversized or malformed (codes as for ``read_call_token``).
        SignatureError: another algorithm, type or curve, or a signature that does not hold (codes "signature.*").
    """
    protected, payload = _split(raw)
    public, signer = _signer(protected)
    claims = _read_claims(parse_claims(payload, bytes_max=TOKEN_CHARS_MAX))
    verify_compact(raw, public)
    return CallToken(signer, claims, token_hash(raw))


def token_hash(raw: str) -> str:
    """Return the SHA-256 of a token's characters, base64url: how receipts and ``ath`` name it."""
    return hash_of(raw)


def digest_of(parts: list[dict[str, Any]], skill: str | None, context_id: str | None) -> str:
    """Return the digest of a call's body, the same over every transport.

    SHA-256 of the canonical JSON (RFC 8785) of ``{"context_id": …, "parts": […], "skill": …}``, what is not given being the
    empty text, spelled ``sha-256=:…:``.

    Args:
        parts: The message's parts as JSON values, in their order; finite floats are allowed.
        skill: Skill asked for, or None.
        context_id: Conversation, or None.

    Raises:
        LimitError: something has no canonical form, such as an integer beyond ±(2^53-1) (codes "canonical.*").
    """
    body = {"context_id": context_id or "", "parts": parts, "skill": skill or ""}
    return content_digest(canonical(body, floats=True))


def check_body(token: CallToken, digest: str) -> None:
    """Raise Unauthorized (code "token.digest") unless the token was made for the body with this ``digest_of``."""
    if token.claims.digest != digest:
        raise Unauthorized(
            "the call token was made for another body",
            code="token.digest",
            why="parts, skill or context changed after the caller signed",
            hint="sign what is sent, and send what was signed",
        )


def check_chain(token: CallToken, callee: str) -> None:
    """Refuse a call that comes back to an agent it has passed through, or whose chain is too long.

    Args:
        token: Verified.
        callee: did:key of the agent that is called.

    Raises:
        LoopDetected: codes "token.loop", "token.depth". No work was done.
    """
    hops, depth_max = token.claims.hops, token.claims.depth_max
    if callee == token.caller or callee in hops:
        raise LoopDetected(
            "this agent is already in the chain of this call",
            code="token.loop",
            why=f"the call passed through {len(hops)} agents",
            hint="agentmesh trace last   shows the chain",
        )
    if len(hops) > depth_max:
        raise LoopDetected(
            f"the chain of calls is {len(hops)} agents long, the first caller allowed {depth_max}",
            code="token.depth",
            why="each agent that calls another makes the chain longer",
            hint="agentmesh trace last   shows the chain",
        )


def _split(raw: str) -> tuple[str, bytes]:
    if len(raw) > TOKEN_CHARS_MAX:
        raise DecodeError(
            f"a call token of {len(raw)} characters is not read",
            code="token.too_large",
            why=f"at most {TOKEN_CHARS_MAX} characters are read",
            hint="shorten the purpose or the address",
        )
    protected, payload, _ = split_compact(raw, payload_bytes_max=TOKEN_CHARS_MAX)
    return protected, payload


@lru_cache(maxsize=_CALLERS_MAX)
def _signer(protected: str) -> tuple[bytes, str]:
    """Return public key and did:key that a header names. All tokens of one caller have the same header: remembered."""
    if len(protected) > _HEADER_CHARS_MAX:
        raise DecodeError(f"a header of {len(protected)} characters is not read", code="token.header")
    header = parse_header(protected)
    check_header(header, typ=CALL_TYP)
    public = public_of_jwk(header.get("jwk"))
    return public, did_of(public)


def _read_claims(payload: dict[str, Any]) -> CallClaims:
    ours = object_in(payload, EXT)
    hops = list_in(ours, "hops", items_max=HOPS_MAX)
    if not all(is_did(hop) for hop in hops) or len(set(hops)) != len(hops):
        raise DecodeError(
            "the hops of a call token are no list of different agents",
            code="token.hops",
            why="each agent stands once, by its did:key",
            hint="append the calling agent to the hops of the call it serves",
        )
    claims = CallClaims(
        jti=id_in(payload, "jti"),
        htm=id_in(payload, "htm"),
        htu=text_in(payload, "htu"),
        iat=seconds_in(payload, "iat"),
        exp=seconds_in(payload, "exp"),
        aud=did_in(payload, "aud"),
        purpose=text_in(ours, "purpose"),
        skill=text_in(ours, "skill"),
        digest=digest_in(ours, "digest"),
        idem=id_in(ours, "idem"),
        trace_id=id_in(ours, "trace_id"),
        budget=Budget.from_claim(object_in(ours, "budget")),
        hops=tuple(hops),
        depth_max=count_in(ours, "depth_max", at_most=HOPS_MAX),
        ath=hash_in(payload, "ath") if "ath" in payload else None,
        nonce=id_in(payload, "nonce") if "nonce" in payload else None,
    )
    if not 0 < claims.exp - claims.iat <= LIFE_S_MAX:
        raise DecodeError(
            f"a call token that lives {claims.exp - claims.iat} s",
            code="token.life",
            why=f"it lives from 1 to {LIFE_S_MAX} s, so that replays need be remembered no longer",
            hint=f"set exp to at most iat + {LIFE_S_MAX}",
        )
    return claims


def _check_time(claims: CallClaims, now: int) -> None:
    if claims.iat - SKEW_S > now:
        raise ReplayError(
            f"the call token is valid only in {claims.iat - now} s",
            code="token.not_yet_valid",
            why=f"clocks may differ by {SKEW_S} s",
            hint=SET_CLOCKS,
        )
    if now > claims.exp + SKEW_S:
        raise ReplayError(
            f"the call token expired {now - claims.exp} s ago",
            code="token.expired",
            why=f"a token lives at most {LIFE_S_MAX} s, and clocks may differ by {SKEW_S} s",
            hint=SET_CLOCKS,
        )


def _check_target(claims: CallClaims, *, audience: str, htm: str, htu: str, nonce: str | None) -> None:
    if claims.aud != audience:
        raise Unauthorized(
            "the call token was made for another agent",
            code="token.audience",
            why=f"it is for {claims.aud}, not for {audience[:80]}",
            hint="sign one token per callee, with its own did:key as aud",
        )
    if claims.htu != htu:
        raise Unauthorized(
            "the call token was made for another address",
            code="token.address",
            why=f"it is for {claims.htu[:120]!r}, the call came to {htu[:120]!r}",
            hint="sign the address of the interface in the agent's manifest, without query",
        )
    if claims.htm != htm:
        raise Unauthorized(
            "the call token was made for another method",
            code="token.method",
            why=f"it is for {claims.htm!r}, the call came by {htm[:40]!r}",
            hint="sign the method that is used",
        )
    if nonce is not None and claims.nonce != nonce:
        raise Unauthorized(
            "the call token lacks the nonce that this agent demanded",
            code="token.nonce",
            why="the agent wants proof that the token was made after it asked",
            hint="sign again with the nonce of the refusal (RFC 9449 §9)",
        )
