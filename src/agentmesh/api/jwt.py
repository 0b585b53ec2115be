"""JWTs of issuers that the operator accepts (RFC 7519, RFC 9068), and proofs that they are not stolen (RFC 9449).

Checked from cheap to dear: size, strict parsing, algorithm and type, issuer, audience, times, signature. What a token says of
keys (``jku``, ``x5u``, ``x5c``, ``jwk``) is not looked at: keys come from the operator's files. A token that was found good is
remembered until it ends, so that a program pays for one signature and not for one per request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

from agentmesh.api.issuers import Issuer, Issuers
from agentmesh.api.jwk import algorithm_of, pick, read_jwk
from agentmesh.api.scopes import Rights, parse_scopes
from agentmesh.errors import DecodeError, MeshError, Unauthorized
from agentmesh.identity.claims import hash_of, id_in, parse_claims, seconds_in, text_in
from agentmesh.identity.jws import parse_header, split_compact
from agentmesh.ids import is_name

TOKEN_CHARS_MAX = 8192
PROOF_CHARS_MAX = 4096
#: How far two clocks may differ, seconds.
SKEW_S = 30
#: Longest age of a proof, seconds.
PROOF_S_MAX = 60
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_GOOD_MAX = 4096
_PROOFS_MAX = 100_000
_WORDS_MAX = 256


class Asked(NamedTuple):
    """What a proof must be for: method and address of the request, without query, and its ``DPoP`` headers."""

    method: str
    url: str
    proofs: list[str]


class _Good(NamedTuple):
    rights: Rights
    jkt: str


class Jwts:
    """Read JWTs.

    Args:
        issuers: Whose.
        now: The wall clock, Unix seconds.
    """

    def __init__(self, issuers: Issuers, *, now: Callable[[], float]) -> None:
        self._issuers, self._now = issuers, now
        self._good: dict[bytes, _Good] = {}
        self._proofs: dict[tuple[str, str], int] = {}
        #: Proofs that were used before the node started are not known any more: older ones are refused.
        self._since = int(now())

    def forget(self) -> None:
        """Check every token anew: the issuers changed."""
        self._good.clear()

    def rights_of(self, raw: str, scheme: str, asked: Asked) -> Rights:
        """Return what a token opens.

        Args:
            raw: The compact JWS.
            scheme: "bearer", or "dpop" for one that is bound to a key.
            asked: The request it came with.

        Raises:
            Unauthorized: it is not good (codes "jwt.*", "dpop.*"), or of an issuer that is not accepted here ("refused.token").
        """
        try:
            good = self._verified(raw)
            if good.jkt:
                self._check_proof(raw, good.jkt, scheme, asked)
            elif scheme == "dpop":
                raise _no("this token is bound to no key", "dpop.unbound", "it has no cnf.jkt; send it as Bearer")
        except Unauthorized:
            raise
        except MeshError as error:
            raise Unauthorized(
                f"the JWT is not good: {error}", code=f"jwt.{error.code}", why=error.why, hint=error.hint
            ) from error
        return good.rights

    def _verified(self, raw: str) -> _Good:
        if len(raw) > TOKEN_CHARS_MAX:
            raise _no(f"a JWT of {len(raw)} characters is not read", "jwt.too_large", f"at most {TOKEN_CHARS_MAX} are")
        mark = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).digest()
        now = self._now()
        self._issuers.any()  # forgets what is remembered, if the files changed
        if (known := self._good.get(mark)) is not None:
            if now < (known.rights.until or 0):
                return known
            del self._good[mark]
        protected, payload, _ = split_compact(raw, payload_bytes_max=TOKEN_CHARS_MAX)
        header = parse_header(protected)
        algorithm = algorithm_of(header.get("alg"))
        if algorithm is None:
            raise _no(
                f"a JWT with the algorithm {str(header.get('alg'))[:40]!r} is not read",
                "jwt.algorithm",
                "EdDSA, ES256 and RS256 are",
            )
        if "crit" in header or "b64" in header:
            raise _no(
                "the JWT demands an extension that is not spoken here", "jwt.critical", "crit or b64 in its header"
            )
        if str(header.get("typ", "")).lower() not in _TYPES:
            raise _no("this is no access token", "jwt.type", "its typ is neither at+jwt nor JWT")
        claims = parse_claims(payload, bytes_max=TOKEN_CHARS_MAX)
        trusted = self._issuers.get(claims.get("iss"))
        if trusted is None:
            raise _no(
                f"no JWTs of the issuer {str(claims.get('iss'))[:120]!r} are accepted here",
                "refused.token",
                "the operator names the issuers in issuers.toml",
            )
        issuer = trusted.issuer
        if algorithm not in issuer.algorithms:
            raise _no(f"{algorithm} is not accepted of this issuer", "jwt.algorithm", "issuers.toml says which are")
        until = _check_claims(claims, issuer, now)
        pick(trusted.keys, header.get("kid"), algorithm).verify(raw)
        good = _Good(_rights(claims, issuer, until), _jkt(claims))
        while len(self._good) >= _GOOD_MAX:
            del self._good[next(iter(self._good))]
        self._good[mark] = good
        return good

    def _check_proof(self, raw: str, jkt: str, scheme: str, asked: Asked) -> None:
        if scheme != "dpop" or len(asked.proofs) != 1:
            raise _no(
                "this token is bound to a key, and the request does not prove that key",
                "dpop.missing",
                "it has cnf.jkt: send 'Authorization: DPoP TOKEN' and one header DPoP with a proof (RFC 9449)",
            )
        proof = asked.proofs[0]
        if len(proof) > PROOF_CHARS_MAX:
            raise _no(f"a proof of {len(proof)} characters is not read", "dpop.too_large", "")
        protected, payload, _ = split_compact(proof, payload_bytes_max=PROOF_CHARS_MAX)
        header = parse_header(protected)
        algorithm = algorithm_of(header.get("alg"))
        if algorithm not in ("EdDSA", "ES256") or header.get("typ") != "dpop+jwt" or "crit" in header:
            raise _no("this is no proof that is read here", "dpop.type", "typ dpop+jwt, alg EdDSA or ES256")
        key = read_jwk(header.get("jwk"))
        if key.algorithm != algorithm or key.thumbprint != jkt:
            raise _no("the proof was made with another key than the token's", "dpop.key", "cnf.jkt names another key")
        claims = parse_claims(payload, bytes_max=PROOF_CHARS_MAX)
        now, iat, jti = int(self._now()), seconds_in(claims, "iat"), id_in(claims, "jti")
        if not now - PROOF_S_MAX - SKEW_S <= iat <= now + SKEW_S or iat < self._since - SKEW_S:
            raise _no(
                "the proof is too old or not yet valid",
                "dpop.time",
                f"it was made {now - iat} s ago; it is good for {PROOF_S_MAX} s, and not across a restart of the node",
            )
        if text_in(claims, "htm") != asked.method or text_in(claims, "htu") != asked.url:
            raise _no(
                "the proof was made for another request", "dpop.target", f"this is {asked.method} {asked.url[:200]}"
            )
        if claims.get("ath") != hash_of(raw):
            raise _no("the proof was made for another token", "dpop.token", "ath is not the hash of this token")
        if (jkt, jti) in self._proofs:
            raise _no("the proof was used before", "dpop.replayed", "each is good for one request")
        key.verify(proof)
        self._note(jkt, jti, now)

    def _note(self, jkt: str, jti: str, now: int) -> None:
        """Remember a proof for as long as it would be accepted."""
        if len(self._proofs) >= _PROOFS_MAX:
            self._proofs = {one: until for one, until in self._proofs.items() if until >= now}
            if len(self._proofs) >= _PROOFS_MAX:
                raise _no(f"{_PROOFS_MAX} proofs are in use", "dpop.full", "none that is still good may be forgotten")
        self._proofs[jkt, jti] = now + PROOF_S_MAX + 2 * SKEW_S


def _check_claims(claims: dict[str, Any], issuer: Issuer, now: float) -> int:
    """Return the Unix second at which the token ends. Raises Unauthorized, DecodeError."""
    aud: object = claims.get("aud")
    if issuer.audience not in (aud if isinstance(aud, list) else [aud]):
        raise _no("the JWT was made for somebody else", "jwt.audience", f"{issuer.audience[:120]!r} is not in its aud")
    iat, exp = seconds_in(claims, "iat"), seconds_in(claims, "exp")
    if not 0 < exp - iat <= issuer.life_max_s:
        raise _no(
            f"a JWT that lives {exp - iat} s is not accepted", "jwt.life", f"at most {issuer.life_max_s} s (life_max_s)"
        )
    begins = max(iat, seconds_in(claims, "nbf")) if "nbf" in claims else iat
    if begins - SKEW_S > now:
        raise _no(f"the JWT is valid only in {begins - now:.0f} s", "jwt.not_yet_valid", "compare the clocks: date -u")
    if now >= exp + SKEW_S:
        raise _no(f"the JWT ended {now - exp:.0f} s ago", "jwt.expired", "ask its issuer for a new one")
    return exp + SKEW_S


def _rights(claims: dict[str, Any], issuer: Issuer, until: int) -> Rights:
    said: object = claims.get(issuer.scopes_claim)
    words: list[Any] = said.split(" ") if isinstance(said, str) else said if isinstance(said, list) else []  # pyright: ignore[reportUnknownVariableType]
    if len(words) > _WORDS_MAX:
        raise _no(f"{len(words)} scopes are not read", "jwt.scopes", f"at most {_WORDS_MAX} are")
    opened = {scope for word in words if isinstance(word, str) for scope in issuer.scopes.get(word, ())}
    if opened & {"call", "admin"}:
        opened = {scope for scope in opened if not scope.startswith("call:")}
    scopes, agents = parse_scopes(sorted(opened)) if opened else (frozenset[str](), None)
    who = claims.get("sub")
    shown = "".join(c for c in who[:80] if c.isprintable()) if isinstance(who, str) else "somebody"
    return Rights(f"{shown} of {issuer.issuer[:120]}", scopes, agents, _tenant(claims, issuer), "", until)


def _tenant(claims: dict[str, Any], issuer: Issuer) -> str:
    if not issuer.tenant_claim:
        return issuer.tenant
    name: object = claims.get(issuer.tenant_claim)
    if not isinstance(name, str) or not is_name(name):
        raise _no(
            "the JWT names no tenant", "jwt.tenant", f"its claim {issuer.tenant_claim[:80]!r} is missing or no name"
        )
    return name


def _jkt(claims: dict[str, Any]) -> str:
    """Return the thumbprint that a token is bound to; "" if it is bound to none. Raises DecodeError."""
    if "cnf" not in claims:
        return ""
    bound: Any = claims["cnf"]
    jkt: Any = bound.get("jkt") if isinstance(bound, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if not isinstance(jkt, str) or len(jkt) != 43:
        raise DecodeError("the token is bound by something else than jkt", code="claims.cnf")
    return jkt


def _no(detail: str, code: str, why: str) -> Unauthorized:
    return Unauthorized(detail, code=code, why=why or None)
