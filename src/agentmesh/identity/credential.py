"""Device credentials: a root key that the operator keeps cold certifies a node's key for a day at most.

A node's key works day and night on a machine that can be stolen; the root key signs and goes back into the drawer. The
credential is a WIMSE workload identity token (draft-ietf-wimse-workload-creds: ``typ`` "wit+jwt"): ``iss`` the root, ``sub``
the node, ``cnf.jwk`` the node's key, ``jti``, ``iat``, ``exp``. It is no bearer token: a link's handshake has proven the key it
names, so that a stolen one is of no use to another. docs/spec/credentials.md is the specification.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from agentmesh.errors import DecodeError, SignatureError, Unauthorized, UsageError
from agentmesh.identity.claims import SET_CLOCKS, did_in, id_in, object_in, parse_claims, seconds_in
from agentmesh.identity.jws import (
    check_kid,
    jwk_of,
    kid_in,
    public_of_jwk,
    sign_compact,
    split_compact,
    verify_compact,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.token import SKEW_S
from agentmesh.ids import public_key_of

CREDENTIAL_TYP = "wit+jwt"
#: Longest life, seconds: what a thief of the machine has at most where nobody hears of the theft.
LIFE_S_MAX = 86_400
#: Longest credential, characters; honest ones have about 700.
CREDENTIAL_CHARS_MAX = 2048
_PAYLOAD_BYTES_MAX = 1536


@dataclass(frozen=True, slots=True)
class Credential:
    """A verified credential; made by ``read_credential`` only.

    Attributes:
        root: did:key of who certifies.
        node: did:key of the node.
        id: ``jti``, names this credential.
        iat, exp: Unix seconds between which it holds.
        raw: As it was signed.
    """

    root: str
    node: str
    id: str
    iat: int
    exp: int
    raw: str


def sign_credential(root: KeyPair, node: str, *, id: str, iat: int, life_s: int = LIFE_S_MAX) -> str:
    """Return a credential as a compact JWS.

    Args:
        root: The operator's cold key.
        node: did:key to certify.
        id: ``jti``: 1 to 128 printable characters, a new one each time.
        iat: Now, unix seconds.
        life_s: How long it holds, at most ``LIFE_S_MAX``.

    Raises:
        UsageError: the root itself, or a life out of range (codes "credential.self", "credential.life"). Nothing was signed.
        DecodeError: ``node`` is no did:key.
    """
    if node == root.did:
        raise UsageError(
            "a root key does not certify itself",
            code="credential.self",
            why="the root stays cold; nodes have keys of their own",
            hint="give the node id that 'agentmesh status' shows",
        )
    if not 1 <= life_s <= LIFE_S_MAX:
        raise UsageError(f"a credential lives 1 to {LIFE_S_MAX} s, not {life_s}", code="credential.life")
    claims: dict[str, Any] = {
        "iss": root.did,
        "sub": node,
        "jti": id,
        "iat": iat,
        "exp": iat + life_s,
        "cnf": {"jwk": {**jwk_of(public_key_of(node)), "alg": "EdDSA"}},
    }
    return sign_compact(root, claims, typ=CREDENTIAL_TYP)


def read_credential(raw: str, *, now: int, node: str, roots: Collection[str] | None) -> Credential:
    """Check a credential of any origin, from cheap to dear; the signature comes last. No state changes.

    Args:
        raw: The compact JWS.
        now: Unix seconds.
        node: Who showed it, as the link's handshake has proven.
        roots: did:keys whose word counts; None to accept any, for looking at one's own.

    Raises:
        DecodeError: oversized or malformed (codes "credential.too_large", "claims.*", "jws.*", "json.*").
        SignatureError: another type or algorithm, another key than the node's, or a signature that does not hold (codes
            "credential.key", "signature.*").
        Unauthorized: certified by another root, for another node, or out of time (codes "credential.root", "credential.node",
            "credential.not_yet_valid", "credential.expired", "credential.life").
    """
    if len(raw) > CREDENTIAL_CHARS_MAX:
        raise DecodeError(f"a credential of {len(raw)} characters is not read", code="credential.too_large")
    protected, payload, _ = split_compact(raw, payload_bytes_max=_PAYLOAD_BYTES_MAX)
    kid = kid_in(protected, CREDENTIAL_TYP)
    claims = parse_claims(payload, bytes_max=_PAYLOAD_BYTES_MAX)
    credential = Credential(
        root=did_in(claims, "iss"),
        node=did_in(claims, "sub"),
        id=id_in(claims, "jti"),
        iat=seconds_in(claims, "iat"),
        exp=seconds_in(claims, "exp"),
        raw=raw,
    )
    if roots is not None and credential.root not in roots:
        # Also where a node that is certified itself signs for another: a chain has one link.
        raise Unauthorized(
            "the credential is certified by a root that does not count here",
            code="credential.root",
            why=f"it is {credential.root}",
            hint="agentmesh config explain require_credentials_of",
        )
    if credential.node != node or credential.root == node:
        raise Unauthorized(
            "the credential belongs to another node",
            code="credential.node",
            why=f"it is for {credential.node}, and {node} shows it",
            hint="agentmesh identity root certify NODE   makes one for this node",
        )
    if public_of_jwk(object_in(claims, "cnf").get("jwk")) != public_key_of(node):
        raise SignatureError("the credential names another key than the node's", code="credential.key")
    check_time(credential, now)
    check_kid(kid, credential.root)
    verify_compact(raw, public_key_of(credential.root))
    return credential


def check_time(credential: Credential, now: int) -> None:
    """Raise Unauthorized unless a credential holds at a second, give or take ``SKEW_S``."""
    if not 0 < credential.exp - credential.iat <= LIFE_S_MAX:
        raise Unauthorized(
            f"a credential for {credential.exp - credential.iat} s",
            code="credential.life",
            why=f"at most {LIFE_S_MAX} s are accepted, whoever signed it",
        )
    if credential.iat - SKEW_S > now:
        raise Unauthorized(
            f"the credential is valid only in {credential.iat - now} s",
            code="credential.not_yet_valid",
            why=f"clocks may differ by {SKEW_S} s",
            hint=SET_CLOCKS,
        )
    if now > credential.exp + SKEW_S:
        raise Unauthorized(
            f"the credential expired {now - credential.exp} s ago",
            code="credential.expired",
            why=f"it held for {credential.exp - credential.iat} s, and clocks may differ by {SKEW_S} s",
            hint="agentmesh identity root certify   makes a new one, where the root key is",
        )
