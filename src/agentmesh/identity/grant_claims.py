"""The single grant: its claims, scopes and bounds, and how they are spelled in an OAuth access token.

docs/spec/tokens.md §4. Claims, scopes and constraints follow draft-asor-wimse-agent-delegation-chain-02; the departures are
listed there. Signing and chains are in ``grant``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, cast

from agentmesh.errors import DecodeError
from agentmesh.identity.budget import BUDGET_KEYS
from agentmesh.identity.claims import (
    AMOUNT_MAX,
    amount_in,
    amount_out,
    count_in,
    did_in,
    hash_in,
    id_in,
    is_did,
    list_in,
    object_in,
    seconds_in,
    text_in,
)
from agentmesh.identity.jws import thumbprint
from agentmesh.ids import public_key_of

DETAIL_TYPE = "agent_delegation"
#: Longest chain, root and leaf included.
CHAIN_MAX = 8
#: Longest ``exp`` - ``iat``, seconds: a day, for credentials of devices. Grants for one task should live 300 s.
LIFE_S_MAX = 86_400
#: Most scopes of a grant.
SCOPES_MAX = 32
#: Most agents that a grant can be shown to.
AUDIENCE_MAX = 8

Kind = Literal["max", "max_lifetime", "max_subtree"]
KINDS: tuple[Kind, ...] = ("max", "max_lifetime", "max_subtree")

_LITERAL = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z][a-z0-9_-]*)+", re.ASCII)
_WILDCARD = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z][a-z0-9_-]*)*\.\*", re.ASCII)
_OPAQUE = re.compile(r"[!#-)+-\[\]-~]+", re.ASCII)
_SCOPE_CHARS_MAX = 128


@dataclass(frozen=True, slots=True, order=True)
class Limit:
    """One bound.

    Attributes:
        key: What is counted, one of ``BUDGET_KEYS``.
        kind: "max" bounds one call, "max_lifetime" the sum over all calls made with this very grant, "max_subtree" the sum
            over it and all grants made from it.
        value: 0 … ``AMOUNT_MAX``, in the unit that the key names.
    """

    key: str
    kind: Kind
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantClaims:
    """What the issuer signs.

    Attributes:
        sub: Whom it is all for: a person, organisation or key; the same in the whole chain.
        client_id: did:key of the holder, who acts.
        aud: did:keys of the agents it may be shown to, 1 … 8.
        iat, exp: Unix seconds; at most ``LIFE_S_MAX`` apart.
        jti: Fresh for every grant.
        scopes: What is allowed; see ``covers``.
        limits: Bounds, at most one per key and kind. What is not bounded here is not bounded by this grant.
        depth: 0 for a root, else the parent's + 1.
        depth_max: Deepest grant that may be made from it; None: as the parent says.
        par_hash: ``parent_hash`` of the parent; None for a root.
        status: Where its revocation is published: address and index of a Token Status List. Not looked up here.
    """

    sub: str
    client_id: str
    aud: tuple[str, ...]
    iat: int
    exp: int
    jti: str
    scopes: tuple[str, ...]
    limits: tuple[Limit, ...] = ()
    depth: int = 0
    depth_max: int | None = None
    par_hash: str | None = None
    status: tuple[str, int] | None = None


def covers(held: str, wanted: str) -> bool:
    """Say whether one scope contains another.

    A literal (``crm.read``, lower case, two segments or more) and an opaque scope (``User.Read``) cover themselves; a wildcard
    (``crm.*``) covers literals and wildcards that begin with it up to the dot. What is no scope neither covers nor is covered.
    """
    if _is_wildcard(held):
        return (_is_literal(wanted) or _is_wildcard(wanted)) and wanted.startswith(held[:-1])
    return held == wanted and is_scope(held)


def is_scope(text: str) -> bool:
    """Say whether a text is a scope: literal, wildcard or opaque, at most 128 characters."""
    return len(text) <= _SCOPE_CHARS_MAX and (_OPAQUE.fullmatch(text) is not None or _is_wildcard(text))


def _is_literal(text: str) -> bool:
    return len(text) <= _SCOPE_CHARS_MAX and _LITERAL.fullmatch(text) is not None


def _is_wildcard(text: str) -> bool:
    return len(text) <= _SCOPE_CHARS_MAX and _WILDCARD.fullmatch(text) is not None


def limit_of(claims: GrantClaims, key: str, kind: Kind) -> int | None:
    """Return a bound, None if there is none."""
    return next((one.value for one in claims.limits if one.key == key and one.kind == kind), None)


def payload_of(issuer: str, claims: GrantClaims) -> dict[str, Any]:
    """Return the claims as a JWT payload; ``read_grant_claims`` judges whether they are valid."""
    detail = {
        "type": DETAIL_TYPE,
        "scopes": list(claims.scopes),
        "constraints": [{"key": one.key, one.kind: amount_out(one.key, one.value)} for one in sorted(claims.limits)],
    }
    payload: dict[str, Any] = {
        "iss": issuer,
        "sub": claims.sub,
        "client_id": claims.client_id,
        "aud": list(claims.aud) if len(claims.aud) != 1 else claims.aud[0],
        "iat": claims.iat,
        "exp": claims.exp,
        "jti": claims.jti,
        "authorization_details": [detail],
        "del_depth": claims.depth,
    }
    if is_did(claims.client_id):
        payload["cnf"] = {"jkt": thumbprint(public_key_of(claims.client_id))}
    if claims.depth_max is not None:
        payload["del_max_depth"] = claims.depth_max
    if claims.par_hash is not None:
        payload["par_hash"] = claims.par_hash
    if claims.status is not None:
        payload["status"] = {"status_list": {"uri": claims.status[0], "idx": claims.status[1]}}
    return payload


def read_grant_claims(members: dict[str, Any]) -> GrantClaims:
    """Read a payload. Raises DecodeError (codes "grant.*", "claims.*")."""
    audience = members.get("aud")
    listed = [audience] if isinstance(audience, str) else list_in(members, "aud", items_max=AUDIENCE_MAX)
    if not listed or not all(is_did(one) for one in listed):
        raise _malformed("aud names no agents", "aud is the did:key of the callee, or a list of some")
    details = list_in(members, "authorization_details", items_max=1)
    if len(details) != 1 or not isinstance(details[0], dict):
        raise _malformed("no single entry in authorization_details", "authority stands in one place")
    detail = cast("dict[str, Any]", details[0])
    if detail.get("type") != DETAIL_TYPE or set(detail) != {"type", "scopes", "constraints"}:
        raise _malformed(f"no plain {DETAIL_TYPE}", "members that are not understood could restrict it")
    claims = GrantClaims(
        sub=id_in(members, "sub"),
        client_id=did_in(members, "client_id"),
        aud=tuple(listed),
        iat=seconds_in(members, "iat"),
        exp=seconds_in(members, "exp"),
        jti=id_in(members, "jti"),
        scopes=_read_scopes(detail),
        limits=_read_limits(detail),
        depth=count_in(members, "del_depth", at_most=CHAIN_MAX - 1),
        depth_max=count_in(members, "del_max_depth", at_most=CHAIN_MAX - 1) if "del_max_depth" in members else None,
        par_hash=hash_in(members, "par_hash") if "par_hash" in members else None,
        status=_read_status(members) if "status" in members else None,
    )
    if (claims.depth == 0) != (claims.par_hash is None):
        raise _malformed("depth and par_hash disagree", "a root has depth 0 and no parent, any other grant has both")
    if not 0 < claims.exp - claims.iat <= LIFE_S_MAX:
        raise DecodeError(
            f"a grant that lives {claims.exp - claims.iat} s",
            code="grant.life",
            why=f"it lives from 1 to {LIFE_S_MAX} s: what is not renewed ends by itself",
            hint="make it shorter, and renew it",
        )
    if object_in(members, "cnf").get("jkt") != thumbprint(public_key_of(claims.client_id)):
        raise _malformed("cnf names another key than client_id", "both must name the key that may use the grant")
    return claims


def _read_scopes(detail: dict[str, Any]) -> tuple[str, ...]:
    scopes = list_in(detail, "scopes", items_max=SCOPES_MAX)
    if not all(isinstance(one, str) and is_scope(one) for one in scopes):
        raise _malformed(
            "a scope is malformed",
            "scopes are crm.read, crm.* or opaque texts without * (RFC 6749)",
            "for calls: call.SKILL in lower case, or call.* for every skill",
        )
    return tuple(scopes)


def _read_limits(detail: dict[str, Any]) -> tuple[Limit, ...]:
    found: dict[tuple[str, str], Limit] = {}
    for one in list_in(detail, "constraints", items_max=len(BUDGET_KEYS) * len(KINDS)):
        members = cast("dict[str, Any]", one) if isinstance(one, dict) else {}
        key = members.get("key")
        kind: Kind | None = next((kind for kind in KINDS if kind in members), None)
        if key not in BUDGET_KEYS or kind is None or len(members) != 2 or (key, kind) in found:
            raise DecodeError(
                "a constraint of the grant is not understood",
                code="grant.constraint",
                why="a bound that is not understood cannot be kept",
                hint=f"each has a key ({', '.join(BUDGET_KEYS)}) and one of {', '.join(KINDS)}, no pair twice",
            )
        found[key, kind] = Limit(key, kind, _amount(members[kind], key))
    return tuple(sorted(found.values()))


def _amount(value: Any, key: str) -> int:
    return amount_in({key: value}, key)


def _read_status(members: dict[str, Any]) -> tuple[str, int]:
    entry = object_in(object_in(members, "status"), "status_list")
    return text_in(entry, "uri"), count_in(entry, "idx", at_most=AMOUNT_MAX)


def _malformed(what: str, why: str, hint: str = "docs/spec/tokens.md §4 lists the claims") -> DecodeError:
    return DecodeError(f"a malformed grant: {what}", code="grant.malformed", why=why, hint=hint)
