"""Proofs of federation: who asks for a page, and who answered with it (docs/spec/federation.md §4).

Both are compact JWS of nodes. The question is a DPoP proof (RFC 9449) in the header ``DPoP``: bound to method, address and,
with a body, its digest, good once and for a minute. The answer's proof names the question by its ``jti`` and covers every byte
of the body, so that what stands between two partners, a proxy with its TLS as well, can withhold a page but not change one,
and cannot answer today's question with yesterday's page.

Each carries the voucher of the organisation that its node belongs to, if any. Reading goes from cheap to dear; whoever accepts
a question notes its ``jti`` only afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agentmesh.errors import DecodeError, MeshError, ReplayError, SignatureError, Unauthorized
from agentmesh.identity.claims import content_digest, did_in, digest_in, id_in, parse_claims, seconds_in, text_in
from agentmesh.identity.jws import (
    check_header,
    check_kid,
    kid_in,
    parse_header,
    public_of_jwk,
    sign_compact,
    split_compact,
    verify_compact,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.voucher import VOUCHER_CHARS_MAX, Voucher, read_voucher
from agentmesh.ids import NodeId, did_of, public_key_of

ASK_TYP = "dpop+jwt"
ANSWER_TYP = "agentmesh-page+jwt"
#: Longest life of either, seconds, and how far two clocks may differ.
LIFE_S_MAX = 60
SKEW_S = 30
#: Longest proof, characters: claims and one voucher.
PROOF_CHARS_MAX = 4_096


@dataclass(frozen=True, slots=True)
class Asked:
    """A verified question; made by ``read_ask`` only.

    Attributes:
        node: Who asks.
        voucher: Of the organisation that the node belongs to; None if it shows none that holds.
        jti: Names the question.
        iat: Unix seconds of its making.
        kept_until: Unix second up to which ``jti`` must be remembered.
    """

    node: NodeId
    voucher: Voucher | None
    jti: str
    iat: int
    kept_until: int

    @property
    def organisation(self) -> str:
        """did:key of the organisation; "" for none."""
        return "" if self.voucher is None else self.voucher.organisation


@dataclass(frozen=True, slots=True)
class Answered:
    """A verified proof of a page; ``node`` and ``voucher`` as in ``Asked``."""

    node: NodeId
    voucher: Voucher | None

    @property
    def organisation(self) -> str:
        """did:key of the organisation; "" for none."""
        return "" if self.voucher is None else self.voucher.organisation


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, spelled one way. Raises DecodeError: it has none (code "federation.url")."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port or parts.username is not None:
        raise DecodeError(f"{url[:120]!r} is no http or https URL", code="federation.url")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def sign_ask(
    key: KeyPair, *, method: str, url: str, jti: str, iat: int, voucher: str = "", body: bytes | None = None
) -> str:
    """Return the proof of a question.

    Args:
        key: The asking node's.
        method: "GET" or "POST".
        url: That is asked; its query is not covered, what it asks for is the node's to have anyway.
        jti: Fresh, at least 96 random bits.
        iat: Unix seconds.
        voucher: Of the node's organisation; "" if it has none.
        body: What is sent, if anything.
    """
    origin = origin_of(url)
    claims: dict[str, Any] = {
        "jti": jti,
        "htm": method,
        "htu": origin + urlsplit(url).path,
        "aud": origin,
        "iat": iat,
        "exp": iat + LIFE_S_MAX,
    }
    if voucher:
        claims["org"] = voucher
    if body is not None:
        claims["digest"] = content_digest(body)
    return sign_compact(key, claims, typ=ASK_TYP, with_jwk=True)


def read_ask(
    raw: str,
    *,
    now: int,
    method: str,
    origin: str,
    path: str,
    is_replayed: Callable[[str, str], bool],
    body: bytes | None = None,
) -> Asked:
    """Check a question of any origin. No state changes.

    Args:
        raw: The proof.
        now: Unix seconds.
        method, path: How it came.
        origin: Where this node is asked: what its operator says it is, never what the question says.
        is_replayed: Called with node and ``jti``; must only look.
        body: What came with it; None for a GET.

    Raises:
        DecodeError, SignatureError: malformed or forged (codes "federation.*", "claims.*", "jws.*", "json.*", "signature.*").
        ReplayError: out of time, or used before (codes "federation.expired", "federation.not_yet_valid", "federation.replayed").
        Unauthorized: made for something else (code "federation.audience").
    """
    protected, claims = _split(raw)
    header = parse_header(protected)
    check_header(header, typ=ASK_TYP)
    node = NodeId(did_of(public_of_jwk(header.get("jwk"))))
    _check_time(claims, now)
    wanted = (origin, method, origin + path)
    if (text_in(claims, "aud"), text_in(claims, "htm"), text_in(claims, "htu")) != wanted:
        raise Unauthorized(
            "the proof was made for another address",
            code="federation.audience",
            why=f"here it must be for {method} {origin}{path}",
            hint="the seed's address must be the one that the seed itself is set to (federation_url)",
        )
    if body is not None and digest_in(claims, "digest") != content_digest(body):
        raise Unauthorized("the proof was made for another body", code="federation.audience")
    jti = id_in(claims, "jti")
    if is_replayed(node, jti):
        raise ReplayError("this proof was used before", code="federation.replayed")
    verify_compact(raw, public_key_of(node))
    kept_until = seconds_in(claims, "exp") + SKEW_S
    return Asked(node, _voucher_in(claims, node, now), jti, seconds_in(claims, "iat"), kept_until)


def sign_answer(key: KeyPair, *, asked: Asked, body: bytes, iat: int, voucher: str = "") -> str:
    """Return the proof of an answer to a verified question."""
    claims: dict[str, Any] = {
        "iss": key.did,
        "aud": asked.node,
        "jti": asked.jti,
        "iat": iat,
        "exp": iat + LIFE_S_MAX,
        "digest": content_digest(body),
    }
    if voucher:
        claims["org"] = voucher
    return sign_compact(key, claims, typ=ANSWER_TYP)


def read_answer(raw: str, *, now: int, asker: str, jti: str, body: bytes) -> Answered:
    """Check the proof of an answer. No state changes.

    Args:
        raw: The proof.
        now: Unix seconds.
        asker: did:key of this node, which asked.
        jti: Of the question.
        body: Every byte that came.

    Raises:
        DecodeError, SignatureError, ReplayError, Unauthorized: as ``read_ask``.
    """
    protected, claims = _split(raw)
    kid = kid_in(protected, ANSWER_TYP)
    node = NodeId(did_in(claims, "iss"))
    check_kid(kid, node)
    _check_time(claims, now)
    if did_in(claims, "aud") != asker or id_in(claims, "jti") != jti:
        raise ReplayError("the answer belongs to another question", code="federation.replayed")
    if digest_in(claims, "digest") != content_digest(body):
        raise SignatureError("the answer was changed on its way", code="federation.digest")
    verify_compact(raw, public_key_of(node))
    return Answered(node, _voucher_in(claims, node, now))


def _split(raw: str) -> tuple[str, dict[str, Any]]:
    if len(raw) > PROOF_CHARS_MAX:
        raise DecodeError(f"a proof of {len(raw)} characters is not read", code="federation.too_large")
    protected, payload, _ = split_compact(raw, payload_bytes_max=PROOF_CHARS_MAX)
    return protected, parse_claims(payload, bytes_max=PROOF_CHARS_MAX)


def _check_time(claims: dict[str, Any], now: int) -> None:
    iat, exp = seconds_in(claims, "iat"), seconds_in(claims, "exp")
    if not 0 < exp - iat <= LIFE_S_MAX:
        raise DecodeError(f"a proof lives 1 to {LIFE_S_MAX} s", code="federation.life")
    clocks = "compare the clocks of both machines (date -u) and set the wrong one"
    if iat - SKEW_S > now:
        raise ReplayError(f"the proof is valid only in {iat - now} s", code="federation.not_yet_valid", hint=clocks)
    if now > exp + SKEW_S:
        raise ReplayError(f"the proof expired {now - exp} s ago", code="federation.expired", hint=clocks)


def _voucher_in(claims: dict[str, Any], node: str, now: int) -> Voucher | None:
    """Return the voucher that a node shows for itself; one that does not hold is none."""
    raw = claims.get("org")
    if not isinstance(raw, str) or len(raw) > VOUCHER_CHARS_MAX:
        return None
    try:
        voucher = read_voucher(raw, now=now, subject=node)
    except MeshError:
        return None
    return voucher if voucher.role == "node" else None
