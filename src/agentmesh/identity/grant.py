"""Grants: what one agent may do in the name of another, in chains that can only narrow.

A grant is an OAuth access token (RFC 9068) whose authority is one ``authorization_details`` entry (RFC 9396) of type
"agent_delegation", bound to its holder's key by ``cnf.jkt``. The holder signs narrower ones for others; each commits to its
parent by ``par_hash``. The whole chain is verified offline, root first. docs/spec/tokens.md §4 is the specification;
``grant_claims`` has the single grant.

A chain proves what was allowed. What was used of it only the callee's ledger knows: ``Delegation.grants`` says which sums to
keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from agentmesh.errors import DecodeError, ReplayError, Unauthorized
from agentmesh.identity.budget import BUDGET_KEYS
from agentmesh.identity.claims import SET_CLOCKS, did_in, hash_of, parse_claims
from agentmesh.identity.grant_claims import (
    CHAIN_MAX,
    GrantClaims,
    Kind,
    covers,
    limit_of,
    payload_of,
    read_grant_claims,
)
from agentmesh.identity.jws import (
    b64url,
    check_kid,
    kid_in,
    sign_checked,
    split_compact,
    verify_compact,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.token import SKEW_S, CallToken
from agentmesh.ids import public_key_of

GRANT_TYP = "at+jwt"
#: Longest grant, characters.
GRANT_CHARS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Grant:
    """One verified grant of a chain.

    Attributes:
        issuer: did:key of who signed.
        claims: What was signed.
        hash: ``hash_of`` the grant, as call tokens (``ath``) and receipts name it.
    """

    issuer: str
    claims: GrantClaims
    hash: str


@dataclass(frozen=True, slots=True)
class Delegation:
    """A verified chain; made by ``read_chain`` only.

    Attributes:
        grants: Root first. A callee that keeps accounts sums "max_subtree" for every grant here and "max_lifetime" for the last.
        depth_max: Deepest grant that may still be made from the last one.
    """

    grants: tuple[Grant, ...]
    depth_max: int

    @property
    def root(self) -> str:
        """did:key that all authority comes from."""
        return self.grants[0].issuer

    @property
    def leaf(self) -> Grant:
        """The last grant; as each hop only narrows, it says all that is allowed."""
        return self.grants[-1]

    @property
    def sub(self) -> str:
        """Whom it is all for."""
        return self.leaf.claims.sub

    @property
    def scopes(self) -> tuple[str, ...]:
        """What is allowed."""
        return self.leaf.claims.scopes

    @property
    def exp(self) -> int:
        """Unix second at which it ends."""
        return self.leaf.claims.exp

    def allows(self, scope: str) -> bool:
        """Say whether a scope is covered."""
        return any(covers(held, scope) for held in self.scopes)

    def limit(self, key: str, kind: Kind) -> int | None:
        """Return the effective bound, None if there is none."""
        return limit_of(self.leaf.claims, key, kind)


def parent_hash(raw: str) -> str:
    """Return ``par_hash`` for grants made from this one: SHA-256 of its signing input (header and payload), base64url."""
    return b64url(hashlib.sha256(raw.rpartition(".")[0].encode("utf-8", "surrogatepass")).digest())


def sign_grant(key: KeyPair, claims: GrantClaims) -> str:
    """Return the grant as a compact JWS. Whether it narrows its parent is judged by ``read_chain``.

    Args:
        key: The issuer's: the root's, or the holder's of the parent.
        claims: What is granted.

    Raises:
        UsageError: a claim breaks a rule of docs/spec/tokens.md; ``code`` names it. Nothing was signed.
    """
    payload = payload_of(key.did, claims)
    return sign_checked(
        key,
        payload,
        read_grant_claims,
        typ=GRANT_TYP,
        what="grant",
        chars_max=GRANT_CHARS_MAX,
        hint="grant fewer scopes, or one wildcard instead",
    )


def read_chain(raws: Sequence[str], *, now: int, holder: str, audience: str, roots: Collection[str]) -> Delegation:
    """Check a chain of any origin, from cheap to dear; signatures come last, root first. No state changes.

    Args:
        raws: Compact JWS, root first, 1 … 8.
        now: Unix seconds.
        holder: did:key of the caller, proven by its call token.
        audience: did:key of the agent that is called.
        roots: did:keys whose word counts at the callee: its owner's, or those its policy names.

    Raises:
        DecodeError: too long, oversized or malformed (codes "grant.*", "claims.*", "jws.*", "json.*").
        SignatureError: another algorithm or type, or signed by another key (codes "signature.*").
        ReplayError: the time of a hop is over or has not come (codes "grant.expired", "grant.not_yet_valid").
        Unauthorized: made for another holder or agent, from no trusted root, not linked, or wider or deeper than its
            parent (codes "grant.holder", "grant.audience", "grant.root", "grant.broken", "grant.widened", "grant.depth").
    """
    _check_sizes(raws)
    grants = tuple(_read_unsigned(raw) for raw in raws)
    for grant in grants:
        _check_time(grant.claims, now)
    _check_ends(grants, holder=holder, audience=audience, roots=roots)
    depth_max = _check_links(raws, grants)
    for raw, grant in zip(raws, grants, strict=True):
        verify_compact(raw, public_key_of(grant.issuer))
    return Delegation(grants, depth_max)


def _check_sizes(raws: Sequence[str]) -> None:
    if not 1 <= len(raws) <= CHAIN_MAX:
        raise DecodeError(
            f"a chain of {len(raws)} grants",
            code="grant.chain",
            why=f"a chain has 1 to {CHAIN_MAX} grants",
            hint="send all ancestors, root first, and ask nearer to the root if there are more",
        )
    if max(map(len, raws)) > GRANT_CHARS_MAX:
        raise DecodeError(
            "a grant is too large to be read",
            code="grant.too_large",
            why=f"at most {GRANT_CHARS_MAX} characters are read",
            hint="grant fewer scopes, or one wildcard instead",
        )


def read_kept_chain(raws: Sequence[str]) -> Delegation:
    """Read a chain at any time and by anybody: shape, links and signatures, but neither time nor whom it is for.

    For those who make a grant from it, and for evidence; a call is admitted by ``read_chain``.

    Raises:
        DecodeError, SignatureError, Unauthorized: as ``read_chain``.
    """
    _check_sizes(raws)
    grants = tuple(_read_unsigned(raw) for raw in raws)
    depth_max = _check_links(raws, grants)
    for raw, grant in zip(raws, grants, strict=True):
        verify_compact(raw, public_key_of(grant.issuer))
    return Delegation(grants, depth_max)


def scope_of(skill: str | None) -> str:
    """Return the scope that a call needs: ``call.SKILL``, or ``call.*`` if the caller leaves the skill to the callee.

    A skill id that cannot stand in a literal scope needs the opaque ``call:SKILL``, which no wildcard covers.
    """
    if not skill:
        return "call.*"
    literal = f"call.{skill}"
    return literal if covers("call.*", literal) and not literal.endswith("*") else f"call:{skill}"


def check_delegated(delegation: Delegation, token: CallToken, scope: str) -> None:
    """Check that a verified call stays within a verified chain, as far as that can be known without accounts.

    Args:
        delegation: For the caller and callee of the token.
        token: The call.
        scope: What the call needs.

    Raises:
        Unauthorized: the token was signed for another grant or by another holder, the scope is not covered, or a budget that
            one call may have is exceeded or left open (codes "grant.proof", "grant.scope", "grant.budget").
    """
    if token.claims.ath != delegation.leaf.hash or token.caller != delegation.leaf.claims.client_id:
        raise Unauthorized(
            "the call token was not signed for this grant",
            code="grant.proof",
            why="ath names another grant, or another key signed",
            hint="sign the token with the holder's key and the hash of the last grant of the chain",
        )
    if not delegation.allows(scope):
        raise Unauthorized(
            f"the grant does not allow {scope[:80]!r}",
            code="grant.scope",
            why=f"it allows {', '.join(delegation.scopes)[:200] or 'nothing'}",
            hint="ask whoever made the grant for a wider one",
        )
    for key in BUDGET_KEYS:
        bound, asked = delegation.limit(key, "max"), getattr(token.claims.budget, key)
        if bound is not None and (asked is None or asked > bound):
            raise Unauthorized(
                f"the call's budget for {key} is beyond the grant's",
                code="grant.budget",
                why=f"the grant allows {bound} per call, the call asks for {'any amount' if asked is None else asked}",
                hint="set a budget within the grant",
            )


def _read_unsigned(raw: str) -> Grant:
    protected, payload, _ = split_compact(raw, payload_bytes_max=GRANT_CHARS_MAX)
    kid = kid_in(protected, GRANT_TYP)
    members = parse_claims(payload, bytes_max=GRANT_CHARS_MAX)
    issuer = did_in(members, "iss")
    check_kid(kid, issuer)
    claims = read_grant_claims(members)
    return Grant(issuer, claims, hash_of(raw))


def _check_time(claims: GrantClaims, now: int) -> None:
    if claims.iat - SKEW_S > now:
        raise ReplayError(
            f"a grant is valid only in {claims.iat - now} s",
            code="grant.not_yet_valid",
            why=f"clocks may differ by {SKEW_S} s",
            hint=SET_CLOCKS,
        )
    if now > claims.exp + SKEW_S:
        raise ReplayError(
            f"a grant expired {now - claims.exp} s ago",
            code="grant.expired",
            why="no grant outlives its parent",
            hint="ask whoever made it for a new one",
        )


def _check_ends(grants: Sequence[Grant], *, holder: str, audience: str, roots: Collection[str]) -> None:
    root, leaf = grants[0], grants[-1].claims
    if leaf.client_id != holder:
        raise Unauthorized(
            "the grant belongs to another agent",
            code="grant.holder",
            why=f"it is for {leaf.client_id}, the call comes from {holder[:80]}",
            hint="call with the key that the grant was made for",
        )
    if audience not in leaf.aud:
        raise Unauthorized(
            "the grant is for another agent's eyes",
            code="grant.audience",
            why=f"{audience[:80]} is not in its aud",
            hint="ask for a grant that names this agent",
        )
    if root.issuer not in roots:
        raise Unauthorized(
            "the chain of grants begins with nobody trusted here",
            code="grant.root",
            why=f"{root.issuer} is no root at this agent",
            hint="the owner of the called agent decides whose grants count",
        )


def _check_links(raws: Sequence[str], grants: Sequence[Grant]) -> int:
    """Check that each grant was made by the holder of the one before and narrows it; return the depth still allowed."""
    first = grants[0].claims
    if first.depth != 0:
        raise _broken("the first grant is no root")
    depth_max = CHAIN_MAX - 1 if first.depth_max is None else first.depth_max
    for raw, (parent, child) in zip(raws, pairwise(grants), strict=False):
        above, below = parent.claims, child.claims
        if child.issuer != above.client_id:
            raise _broken("a grant was made by somebody else than the holder of the one before")
        if below.par_hash != parent_hash(raw):
            raise _broken("a grant was made from another one than that before it")
        if below.sub != above.sub:
            raise _broken("the principal changes on the way")
        if below.depth != above.depth + 1 or below.depth > depth_max:
            raise Unauthorized(
                f"a grant at depth {below.depth}, where {min(above.depth + 1, depth_max)} is allowed",
                code="grant.depth",
                why="each grant is one deeper than its parent, down to del_max_depth",
                hint="ask nearer to the root",
            )
        if below.depth_max is not None:
            if below.depth_max > depth_max:
                raise _widened("del_max_depth")
            depth_max = below.depth_max
        _check_narrows(above, below)
    return depth_max


def _check_narrows(above: GrantClaims, below: GrantClaims) -> None:
    if below.exp > above.exp:
        raise _widened("exp")
    if not set(below.aud) <= set(above.aud):
        raise _widened("aud")
    if not all(any(covers(held, wanted) for held in above.scopes) for wanted in below.scopes):
        raise _widened("scopes")
    for one in above.limits:
        value = limit_of(below, one.key, one.kind)
        if value is None or value > one.value:
            raise _widened(f"{one.kind} of {one.key}")


def _broken(why: str) -> Unauthorized:
    return Unauthorized(
        "the chain of grants is broken",
        code="grant.broken",
        why=why,
        hint="send the grants exactly as they were made, root first",
    )


def _widened(what: str) -> Unauthorized:
    return Unauthorized(
        "a grant gives more than its maker had",
        code="grant.widened",
        why=f"{what} is wider than in the grant before, or left out",
        hint="repeat every bound of the parent, as large or smaller",
    )
