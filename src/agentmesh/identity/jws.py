"""The JWS container: protected header, payload, Ed25519 signature; nothing of JOSE beyond that.

RFC 7515 with ``alg`` "EdDSA" (RFC 8037 §3.1), ``kid`` a did:key URL that is itself the key: no key is ever fetched, and
``jku`` or ``x5u`` in a header are not looked at, nor is ``jwk`` but by ``public_of_jwk``, for proofs whose reader compares
the key with an id (RFC 9449). RFC 9864 renames the algorithm "Ed25519"; both names are read,
"EdDSA" is written because PyJWT, and with it the A2A SDK, knows only that (research: standards §1).

Why not PyJWT: adr/0002. It and the A2A SDK are the test oracles.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from agentmesh.codec.canonical import canonical, parse_strict
from agentmesh.errors import DecodeError, SignatureError, UsageError
from agentmesh.identity.keys import KeyPair, verify
from agentmesh.ids import did_of, key_id, public_key_of

#: Largest protected header, in base64url characters. Ours has about 200.
HEADER_CHARS_MAX = 2048
#: Headers remembered, those written and those read by ``kid_in``, at most 2 KB each.
_HEADERS_MAX = 1024
_ALGORITHMS = ("EdDSA", "Ed25519")
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TO_URL, _FROM_URL = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")


def b64url(raw: bytes) -> str:
    """Encode as base64url without padding (RFC 7515 §2)."""
    return binascii.b2a_base64(raw, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")


def unb64url(text: str) -> bytes:
    """Decode base64url without padding, strictly: one text per value, so that no signed thing has two spellings.

    Raises:
        DecodeError: another alphabet, padding, white space, or stray bits at the end (code "jws.base64").
    """
    coded = text.encode("utf-8", "replace")
    rest = len(coded) % 4
    if coded and rest != 1 and not coded.translate(None, _ALPHABET):
        raw = binascii.a2b_base64(coded.translate(_FROM_URL) + b"=" * (-rest % 4))
        if not rest or b64url(raw[1 - rest :]) == text[-rest:]:
            return raw
    raise DecodeError("not base64url without padding", code="jws.base64")


def sign_detached(key: KeyPair, payload: bytes, *, typ: str) -> tuple[str, str]:
    """Sign a payload that travels elsewhere.

    Args:
        key: Whose signature; its did:key URL becomes ``kid``.
        payload: The exact bytes, normally JCS.
        typ: Type of the signed thing, checked by the reader.

    Returns:
        The encoded protected header and the encoded signature.
    """
    protected = b64url(canonical({"alg": "EdDSA", "kid": key_id(key.did), "typ": typ}))
    return protected, b64url(key.sign(f"{protected}.{b64url(payload)}".encode("ascii")))


def sign_compact(key: KeyPair, claims: dict[str, Any], *, typ: str, with_jwk: bool = False) -> str:
    """Return claims as a compact JWS ``header.payload.signature``; the payload is JCS.

    Args:
        key: Whose signature.
        claims: The payload.
        typ: Type of the signed thing, checked by the reader.
        with_jwk: Put the public key itself into the header instead of ``kid`` (RFC 9449 §4.2).

    Raises:
        LimitError: the claims have no canonical form (codes "canonical.*"). Nothing was signed.
    """
    covered = f"{_header_of(key.public, typ, with_jwk)}.{b64url(canonical(claims))}"
    return f"{covered}.{b64url(key.sign(covered.encode('ascii')))}"


@lru_cache(maxsize=_HEADERS_MAX)
def _header_of(public: bytes, typ: str, with_jwk: bool) -> str:
    """Return the encoded header that one key writes: always the same."""
    whose = {"jwk": jwk_of(public)} if with_jwk else {"kid": key_id(did_of(public))}
    return b64url(canonical({"alg": "EdDSA", **whose, "typ": typ}))


def sign_checked(
    key: KeyPair,
    claims: dict[str, Any],
    read: Callable[[dict[str, Any]], object],
    *,
    typ: str,
    what: str,
    chars_max: int,
    hint: str,
    with_jwk: bool = False,
) -> str:
    """Return claims as a compact JWS, unless a reader would refuse them.

    Args:
        key, claims, typ, with_jwk: As for ``sign_compact``.
        read: Reads the claims as a reader does; what it refuses is not signed.
        what: What is signed, for people; its last word begins the code of what is too large.
        chars_max: Longest one that readers take.
        hint: What to shorten.

    Raises:
        UsageError: a reader would refuse it; ``code`` says why. Nothing was signed.
        LimitError: the claims have no canonical form (codes "canonical.*"). Nothing was signed.
    """
    try:
        read(claims)
    except DecodeError as error:
        raise UsageError(
            f"cannot sign this {what}: {error}", code=error.code, why=error.why, hint=error.hint
        ) from error
    raw = sign_compact(key, claims, typ=typ, with_jwk=with_jwk)
    if len(raw) > chars_max:
        raise UsageError(
            f"the {what} has {len(raw)} characters, at most {chars_max} travel",
            code=f"{what.rpartition(' ')[2]}.too_large",
            hint=hint,
        )
    return raw


def jwk_of(public: bytes) -> dict[str, str]:
    """Return a public key as a JSON Web Key (RFC 8037 §2): the members that its thumbprint covers, no others."""
    return {"crv": "Ed25519", "kty": "OKP", "x": b64url(public)}


def thumbprint(public: bytes) -> str:
    """Return ``jkt``, the RFC 7638 thumbprint of a public key: SHA-256, base64url, 43 characters."""
    return b64url(hashlib.sha256(canonical(jwk_of(public))).digest())


def public_of_jwk(jwk: object) -> bytes:
    """Return the 32 raw bytes of a ``jwk`` header member. It proves nothing before it is compared with a known id.

    Raises:
        SignatureError: another key type or curve, a private key, or no 32 bytes (codes "signature.curve",
            "signature.private", "signature.key_size").
        DecodeError: ``x`` is not base64url (code "jws.base64").
    """
    members = cast("dict[str, Any]", jwk) if isinstance(jwk, dict) else {}
    if members.get("kty") != "OKP" or members.get("crv") != "Ed25519":
        raise SignatureError(
            "the key in the header is no Ed25519 key",
            code="signature.curve",
            why="Ed448, X25519, P-256 and shared secrets are not accepted",
            hint='sign with an Ed25519 key: {"kty": "OKP", "crv": "Ed25519", "x": ...}',
        )
    if "d" in members:
        raise SignatureError(
            "the key in the header is a private key",
            code="signature.private",
            why="the member d holds the secret, and now others have seen it",
            hint="send the public members only, and replace this key",
        )
    x = members.get("x")
    public = unb64url(x) if isinstance(x, str) else b""
    if len(public) != 32:
        raise SignatureError(f"a public key has 32 bytes, not {len(public)}", code="signature.key_size")
    return public


def verify_compact(token: str, public: bytes) -> None:
    """Check the signature of a compact JWS over its own characters; ``parse_header`` and ``check_header`` come before.

    Raises:
        DecodeError: the signature is not base64url (code "jws.base64").
        SignatureError: it does not hold (codes "signature.size", "signature.invalid").
    """
    covered, _, signature = token.rpartition(".")
    verify(public, covered.encode("ascii", "replace"), unb64url(signature))


def verify_detached(protected: str, payload: bytes, signature: str, *, did: str, typ: str, typ_required: bool) -> None:
    """Check that ``did`` signed a payload.

    Args:
        protected: Encoded protected header.
        payload: The bytes that must have been signed.
        signature: Encoded signature.
        did: Who must have signed; ``kid`` must be this did:key's URL.
        typ: Expected type.
        typ_required: Whether the header must carry ``typ`` at all (A2A §8.4 only recommends it).

    Raises:
        DecodeError: malformed parts (codes "jws.*", "json.*").
        SignatureError: another algorithm, type or key, a critical extension, or a signature that does not hold
            (codes "signature.*").
    """
    header = parse_header(protected)
    check_header(header, typ=typ, typ_required=typ_required)
    check_kid(header.get("kid"), did)
    verify(public_key_of(did), f"{protected}.{b64url(payload)}".encode("ascii"), unb64url(signature))


def split_compact(token: str, *, payload_bytes_max: int) -> tuple[str, bytes, str]:
    """Return encoded header, decoded payload and encoded signature of a compact JWS, unverified. Raises DecodeError."""
    parts = token.split(".")
    if len(parts) != 3 or len(parts[1]) > payload_bytes_max * 4 // 3 + 4:
        raise DecodeError("not a compact JWS of acceptable size", code="jws.malformed")
    return parts[0], unb64url(parts[1]), parts[2]


def parse_header(protected: str) -> dict[str, Any]:
    """Return the members of an encoded protected header, unjudged. Raises DecodeError (codes "jws.*", "json.*")."""
    if len(protected) > HEADER_CHARS_MAX:
        raise DecodeError(f"a protected header of {len(protected)} characters", code="jws.too_large")
    header = parse_strict(unb64url(protected), bytes_max=HEADER_CHARS_MAX, depth_max=4)
    if not isinstance(header, dict):
        raise DecodeError("the protected header is no object", code="jws.malformed")
    return header  # pyright: ignore[reportUnknownVariableType]


def check_header(header: dict[str, Any], *, typ: str, typ_required: bool = True) -> None:
    """Raise SignatureError for another algorithm or type, or a critical extension (codes "signature.*")."""
    if header.get("alg") not in _ALGORITHMS:
        raise SignatureError(
            f"signature algorithm {str(header.get('alg'))[:40]!r} is not EdDSA", code="signature.algorithm"
        )
    if "crit" in header or "b64" in header:
        raise SignatureError("the header demands an extension that is not spoken here", code="signature.critical")
    if header.get("typ", None if typ_required else typ) != typ:
        raise SignatureError(f"the signed thing is no {typ}", code="signature.type")


@lru_cache(maxsize=_HEADERS_MAX)
def kid_in(protected: str, typ: str) -> object:
    """Return the ``kid`` of a header that has passed ``check_header``; all headers of one signer are the same: remembered."""
    header = parse_header(protected)
    check_header(header, typ=typ)
    kid = header.get("kid")
    return kid if isinstance(kid, str) else None


def check_kid(kid: object, did: str) -> None:
    """Raise SignatureError unless a ``kid`` names this did:key's own key (code "signature.kid")."""
    if kid != key_id(did):
        raise SignatureError("signed by another key than the agent's own", code="signature.kid")
