"""Vouchers: an organisation is a key, and says by a signed line which nodes and agents are its own (docs/spec/federation.md §2).

A chain has one link, organisation → agent, or two, organisation → node → agent: a node that its organisation vouches for may
vouch for the agents beside it, by its own signature. An agent's manifest carries the chain (``params.organisation``); a node
shows its own voucher when it greets. Neither is a bearer token: the manifest is signed by the key that the last voucher names,
and a link has proven the node's.

Reading goes from cheap to dear: size, shape and who stands where in the chain, time, and the signatures last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import msgspec

from agentmesh.errors import DecodeError, Unauthorized, UsageError
from agentmesh.identity.claims import SET_CLOCKS, did_in, id_in, is_did, parse_claims, seconds_in
from agentmesh.identity.jws import check_kid, kid_in, sign_compact, split_compact, verify_compact
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import EXT, Manifest
from agentmesh.ids import public_key_of

VOUCHER_TYP = "agentmesh-voucher+jwt"
#: Longest life of what an organisation signs, seconds: somebody has to come back with its key once a year.
LIFE_S_MAX = 366 * 86_400
#: Longest life of what a node signs for its agents, seconds: it signs anew with every manifest.
NODE_LIFE_S_MAX = 8 * 86_400
#: How far two clocks may differ, seconds (as for manifests).
SKEW_S = 300
#: Longest voucher, characters; honest ones have about 620.
VOUCHER_CHARS_MAX = 1_280
CHAIN_MAX = 2
_PAYLOAD_BYTES_MAX = 768
#: Vouchers whose signature is remembered to hold: one per node of an organisation, and those of the agents read last.
_KNOWN_MAX = 4_096
#: Vouchers of nodes that are remembered as they were read.
_NODES_MAX = 1_024

Role = Literal["node", "agent"]


class _Extension(msgspec.Struct):
    uri: str
    params: msgspec.Raw = msgspec.Raw(b"{}")


class _Capabilities(msgspec.Struct):
    extensions: list[_Extension] = []


class _Card(msgspec.Struct):
    capabilities: _Capabilities


class _Params(msgspec.Struct):
    organisation: Any = None


_card_decoder = msgspec.json.Decoder(_Card)
_params_decoder = msgspec.json.Decoder(_Params)


@dataclass(frozen=True, slots=True)
class Voucher:
    """What one signature says; made by ``read_voucher`` and ``read_membership`` only.

    Attributes:
        issuer: Who signed: the organisation, or a node of it.
        subject: did:key of whom it vouches for.
        organisation: did:key.
        role: Whether the subject is a node, which may vouch for its agents, or an agent.
        id: ``jti``.
        iat, exp: Unix seconds between which it holds.
        raw: As it was signed.
    """

    issuer: str
    subject: str
    organisation: str
    role: Role
    id: str
    iat: int
    exp: int
    raw: str


@dataclass(frozen=True, slots=True)
class Membership:
    """That an agent is an organisation's.

    Attributes:
        organisation: did:key.
        node: did:key of the node that vouches for it; "" if the organisation does itself.
        iat, exp: Unix seconds between which every voucher of the chain holds.
    """

    organisation: str
    node: str
    iat: int
    exp: int

    def holds(self, now: int) -> bool:
        """Say whether it holds at a second, give or take ``SKEW_S``."""
        return self.iat - SKEW_S <= now <= self.exp + SKEW_S


def sign_voucher(
    key: KeyPair, subject: str, role: Role, *, id: str, iat: int, life_s: int, organisation: str = ""
) -> str:
    """Return a voucher as a compact JWS.

    Args:
        key: The organisation's, or that of a node it vouches for.
        subject: did:key.
        role: What the subject is; a node vouches for agents only.
        id: ``jti``, a new one each time.
        iat: Now, unix seconds.
        life_s: How long it holds.
        organisation: did:key, where a node signs; the key's own if left out.

    Raises:
        UsageError: for itself, for a node by a node, or too long a life (codes "voucher.*"). Nothing was signed.
        DecodeError: ``subject`` is no did:key.
    """
    organisation = organisation or key.did
    claims: dict[str, Any] = {
        "iss": key.did,
        "sub": subject,
        "org": organisation,
        "role": role,
        "jti": id,
        "iat": iat,
        "exp": iat + life_s,
    }
    public_key_of(subject)
    try:
        _check(_voucher_in(claims, ""))
    except DecodeError as error:
        raise UsageError(f"cannot vouch: {error}", code=error.code, why=error.why, hint=error.hint) from error
    return sign_compact(key, claims, typ=VOUCHER_TYP)


def read_voucher(raw: str, *, now: int, subject: str = "") -> Voucher:
    """Check a voucher that an organisation signed, whoever shows it. No state changes.

    Args:
        raw: The compact JWS.
        now: Unix seconds.
        subject: did:key that it must be for; "" for any.

    Raises:
        DecodeError: oversized or malformed (codes "voucher.*", "claims.*", "jws.*", "json.*").
        SignatureError: another type, algorithm or key, or a signature that does not hold (codes "signature.*").
        Unauthorized: for somebody else, signed by no organisation, or out of time (codes "voucher.subject", "voucher.issuer",
            "voucher.expired", "voucher.not_yet_valid").
    """
    voucher = _of_organisation(_parse(raw))
    if subject and voucher.subject != subject:
        raise Unauthorized(
            "the voucher is for somebody else", code="voucher.subject", why=f"it is for {voucher.subject}"
        )
    check_time(voucher, now)
    _verified(raw, voucher.issuer)
    return voucher


def read_kept_voucher(raw: str) -> Voucher:
    """Return a voucher that an organisation signed, whatever its time. Raises as ``read_voucher``."""
    voucher = _of_organisation(_parse(raw))
    _verified(raw, voucher.issuer)
    return voucher


def _of_organisation(voucher: Voucher) -> Voucher:
    if voucher.issuer != voucher.organisation:
        raise Unauthorized(
            "the voucher is not signed by its organisation", code="voucher.issuer", why=f"{voucher.issuer} signed it"
        )
    return voucher


def check_time(voucher: Voucher, now: int) -> None:
    """Raise Unauthorized unless a voucher holds at a second, give or take ``SKEW_S``."""
    if voucher.iat - SKEW_S > now:
        raise Unauthorized(
            f"the voucher holds only in {voucher.iat - now} s",
            code="voucher.not_yet_valid",
            hint=SET_CLOCKS,
        )
    if now > voucher.exp + SKEW_S:
        raise Unauthorized(
            f"the voucher expired {now - voucher.exp} s ago",
            code="voucher.expired",
            why=f"organisation {voucher.organisation} vouched for {voucher.subject} until then",
            hint="agentmesh org vouch ID --days 90   makes a new one, where the organisation's key is",
        )


def claimed_by(manifest: Manifest) -> str:
    """Return the did:key of the organisation that a manifest claims, unverified; "" if it claims none."""
    if not manifest.signed or manifest.tombstone or b'"organisation"' not in manifest.raw:
        return ""
    claim = _claim_in(manifest)
    found = cast("dict[str, Any]", claim).get("id") if isinstance(claim, dict) else None
    return found if isinstance(found, str) and is_did(found) else ""


def read_membership(manifest: Manifest, *, now: int) -> Membership | None:
    """Return the organisation that vouches for an agent, as its verified manifest shows.

    Args:
        manifest: Signed by the agent.
        now: Unix seconds.

    Returns:
        None if it claims none.

    Raises:
        DecodeError: malformed (codes "voucher.*", "claims.*", "jws.*", "json.*").
        SignatureError: forged (codes "signature.*").
        Unauthorized: the chain belongs to others, or is out of time (codes "voucher.*").
    """
    if not manifest.signed or manifest.tombstone or b'"organisation"' not in manifest.raw:
        return None
    claim = _claim_in(manifest)
    if claim is None:
        return None
    members = cast("dict[str, Any]", claim) if isinstance(claim, dict) else {}
    chain = members.get("chain")
    raws = cast("list[Any]", chain) if isinstance(chain, list) else []
    if not is_did(members.get("id")) or not 1 <= len(raws) <= CHAIN_MAX or not all(isinstance(r, str) for r in raws):
        raise DecodeError(
            "the organisation of a manifest is an id and a chain of one or two vouchers", code="voucher.malformed"
        )
    return read_chain(
        cast("Sequence[str]", raws), members["id"], agent=manifest.agent_id, node=manifest.node_id, now=now
    )


def read_chain(raws: Sequence[str], organisation: str, *, agent: str, node: str, now: int) -> Membership:
    """Check the vouchers from an organisation to an agent. Raises as ``read_membership``.

    Args:
        raws: One or two, the organisation's first.
        organisation: did:key that must stand at the beginning.
        agent: did:key that must stand at the end.
        node: did:key of the node that the agent says it lives at: the only one that may stand between.
        now: Unix seconds.
    """
    # The first voucher of two is the same for all agents of a node.
    chain = [_parse_again(raws[0]), *map(_parse, raws[1:])] if len(raws) == 2 else [_parse(raws[0])]
    first, last = chain[0], chain[-1]
    if first.issuer != organisation or any(one.organisation != organisation for one in chain):
        raise Unauthorized("the chain begins with another organisation", code="voucher.issuer")
    if last.subject != agent or last.role != "agent":
        raise Unauthorized("the chain ends with somebody else", code="voucher.subject", why=f"it is for {last.subject}")
    if len(chain) == 2 and not (first.subject == last.issuer == node and first.role == "node"):
        raise Unauthorized(
            "a node vouches only for the agents that live at it",
            code="voucher.node",
            why=f"{last.issuer} vouches for an agent at {node}",
        )
    for one in chain:
        check_time(one, now)
    for one in chain:
        _verified(one.raw, one.issuer)
    between = first.subject if len(chain) == 2 else ""
    return Membership(organisation, between, max(one.iat for one in chain), min(one.exp for one in chain))


def _parse(raw: str) -> Voucher:
    """Read one voucher without its signature. Raises DecodeError, SignatureError (header)."""
    if len(raw) > VOUCHER_CHARS_MAX:
        raise DecodeError(f"a voucher of {len(raw)} characters is not read", code="voucher.too_large")
    protected, payload, _ = split_compact(raw, payload_bytes_max=_PAYLOAD_BYTES_MAX)
    kid = kid_in(protected, VOUCHER_TYP)
    voucher = _voucher_in(parse_claims(payload, bytes_max=_PAYLOAD_BYTES_MAX), raw)
    _check(voucher)
    check_kid(kid, voucher.issuer)
    return voucher


@lru_cache(maxsize=_NODES_MAX)
def _parse_again(raw: str) -> Voucher:
    """Do as ``_parse``, and remember it."""
    return _parse(raw)


def _claim_in(manifest: Manifest) -> Any:
    """Return what a verified manifest says of its organisation; None if nothing. The rest of the card is not unpacked."""
    for extension in _card_decoder.decode(manifest.raw).capabilities.extensions:
        if extension.uri == EXT:
            return _params_decoder.decode(extension.params).organisation
    return None


def _voucher_in(claims: dict[str, Any], raw: str) -> Voucher:
    role = claims.get("role")
    if role not in ("node", "agent"):
        raise DecodeError("a voucher is for a node or for an agent", code="voucher.role")
    return Voucher(
        issuer=did_in(claims, "iss"),
        subject=did_in(claims, "sub"),
        organisation=did_in(claims, "org"),
        role=role,
        id=id_in(claims, "jti"),
        iat=seconds_in(claims, "iat"),
        exp=seconds_in(claims, "exp"),
        raw=raw,
    )


def _check(voucher: Voucher) -> None:
    """Raise DecodeError for what nobody may sign, whoever did."""
    by_organisation = voucher.issuer == voucher.organisation
    if voucher.subject in (voucher.issuer, voucher.organisation):
        raise DecodeError(
            "nobody vouches for itself",
            code="voucher.self",
            why="an organisation is a key of its own, kept off its nodes",
            hint="agentmesh org create NAME",
        )
    if not by_organisation and voucher.role != "agent":
        raise DecodeError("a node vouches for agents, not for nodes", code="voucher.role")
    most = LIFE_S_MAX if by_organisation else NODE_LIFE_S_MAX
    if not 0 < voucher.exp - voucher.iat <= most:
        raise DecodeError(
            f"a voucher for {voucher.exp - voucher.iat} s", code="voucher.life", why=f"at most {most} s are accepted"
        )


@lru_cache(maxsize=_KNOWN_MAX)
def _verified(raw: str, issuer: str) -> None:
    """Check the signature of a voucher that ``_parse`` has read. Only what holds is remembered, under its exact characters."""
    verify_compact(raw, public_key_of(issuer))
