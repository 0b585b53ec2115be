"""The JWS container: protected header, payload, Ed25519 signature; nothing of JOSE beyond that.

RFC 7515 with ``alg`` "EdDSA" (RFC 8037 §3.1), ``kid`` a did:key URL that is itself the key: no key is ever fetched, and
``jku``, ``jwk`` or ``x5u`` in a header are not looked at. RFC 9864 renames the algorithm "Ed25519"; both names are read,
"EdDSA" is written because PyJWT, and with it the A2A SDK, knows only that (research: standards §1).

Why not PyJWT: adr/0002. It and the A2A SDK are the test oracles.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from agentmesh.codec.canonical import canonical, parse_strict
from agentmesh.errors import DecodeError, SignatureError
from agentmesh.identity.keys import KeyPair, verify
from agentmesh.ids import key_id, public_key_of

#: Largest protected header, in base64url characters. Ours has about 200.
HEADER_CHARS_MAX = 2048
_ALGORITHMS = ("EdDSA", "Ed25519")
_B64 = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def b64url(raw: bytes) -> str:
    """Encode as base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def unb64url(text: str) -> bytes:
    """Decode base64url without padding, strictly: one text per value, so that no signed thing has two spellings.

    Raises:
        DecodeError: another alphabet, padding, white space, or stray bits at the end (code "jws.base64").
    """
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if _B64.fullmatch(text) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if not raw or b64url(raw) != text:
        raise DecodeError("not base64url without padding", code="jws.base64")
    return raw


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


def sign_compact(key: KeyPair, claims: dict[str, Any], *, typ: str) -> str:
    """Return claims as a compact JWS ``header.payload.signature``; the payload is JCS. Raises LimitError."""
    payload = canonical(claims)
    protected, signature = sign_detached(key, payload, typ=typ)
    return f"{protected}.{b64url(payload)}.{signature}"


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
    _check_header(_header(protected), did=did, typ=typ, typ_required=typ_required)
    verify(public_key_of(did), f"{protected}.{b64url(payload)}".encode("ascii"), unb64url(signature))


def split_compact(token: str, *, payload_bytes_max: int) -> tuple[str, bytes, str]:
    """Return encoded header, decoded payload and encoded signature of a compact JWS, unverified. Raises DecodeError."""
    parts = token.split(".")
    if len(parts) != 3 or len(parts[1]) > payload_bytes_max * 4 // 3 + 4:
        raise DecodeError("not a compact JWS of acceptable size", code="jws.malformed")
    return parts[0], unb64url(parts[1]), parts[2]


def _header(protected: str) -> dict[str, Any]:
    if len(protected) > HEADER_CHARS_MAX:
        raise DecodeError(f"a protected header of {len(protected)} characters", code="jws.too_large")
    header = parse_strict(unb64url(protected), bytes_max=HEADER_CHARS_MAX, depth_max=4)
    if not isinstance(header, dict):
        raise DecodeError("the protected header is no object", code="jws.malformed")
    return header  # pyright: ignore[reportUnknownVariableType]


def _check_header(header: dict[str, Any], *, did: str, typ: str, typ_required: bool) -> None:
    if header.get("alg") not in _ALGORITHMS:
        raise SignatureError(
            f"signature algorithm {str(header.get('alg'))[:40]!r} is not EdDSA", code="signature.algorithm"
        )
    if "crit" in header or "b64" in header:
        raise SignatureError("the header demands an extension that is not spoken here", code="signature.critical")
    if header.get("typ", None if typ_required else typ) != typ:
        raise SignatureError(f"the signed thing is no {typ}", code="signature.type")
    if header.get("kid") != key_id(did):
        raise SignatureError("signed by another key than the agent's own", code="signature.kid")
