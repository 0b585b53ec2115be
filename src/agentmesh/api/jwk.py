"""Public keys of issuers (RFC 7517) and the three signatures that are read: EdDSA with Ed25519, ES256, RS256.

The kind of key decides the algorithm, never the token: so neither "none" nor an HMAC with a public key as its secret can come
up. libsodium judges Ed25519 as everywhere here; ``cryptography`` judges the other two and is loaded with the first such key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal, cast

from agentmesh.codec.canonical import canonical
from agentmesh.errors import DecodeError, SignatureError
from agentmesh.identity.jws import b64url, unb64url
from agentmesh.identity.keys import verify

Algorithm = Literal["EdDSA", "ES256", "RS256"]
ALGORITHMS: tuple[Algorithm, ...] = ("EdDSA", "ES256", "RS256")
#: RFC 9864 renames EdDSA with this curve; both names are read.
_SPELLINGS: dict[str, Algorithm] = {"EdDSA": "EdDSA", "Ed25519": "EdDSA", "ES256": "ES256", "RS256": "RS256"}
_RSA_BITS = (2048, 8192)
_SECRET = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_MEMBERS: dict[Algorithm, tuple[str, ...]] = {
    "EdDSA": ("crv", "kty", "x"),
    "ES256": ("crv", "kty", "x", "y"),
    "RS256": ("e", "kty", "n"),
}


def algorithm_of(name: object) -> Algorithm | None:
    """Return the algorithm that an ``alg`` header names, None for any that is not read."""
    return _SPELLINGS.get(name) if isinstance(name, str) else None


class PublicJwk:
    """One public key; made by ``read_jwk`` only.

    Attributes:
        algorithm: The one algorithm it is good for.
        kid: Its id among the issuer's keys; "" if it has none.
        thumbprint: ``jkt`` (RFC 7638).
    """

    __slots__ = ("_check", "algorithm", "kid", "thumbprint")

    def __init__(self, algorithm: Algorithm, kid: str, thumbprint: str, check: Callable[[bytes, bytes], None]) -> None:
        self.algorithm, self.kid, self.thumbprint, self._check = algorithm, kid, thumbprint, check

    def verify(self, compact: str) -> None:
        """Check the signature of a compact JWS. Raises DecodeError, SignatureError (code "signature.invalid")."""
        covered, _, signature = compact.rpartition(".")
        self._check(covered.encode("ascii", "replace"), unb64url(signature))


def read_jwk(jwk: object) -> PublicJwk:
    """Read a public key.

    Raises:
        SignatureError: a secret or private key, or of a kind, curve or size that is not read (codes "signature.*").
        DecodeError: a member is not base64url (code "jws.base64").
    """
    members = cast("dict[str, Any]", jwk) if isinstance(jwk, dict) else {}
    if _SECRET & members.keys():
        raise SignatureError(
            "this key is not public",
            code="signature.private",
            why="it holds the secret part, and now others have seen it",
            hint="leave the members d, p, q and k out, and replace the key",
        )
    kind = (members.get("kty"), members.get("crv"))
    algorithm: Algorithm | None = None
    if kind == ("OKP", "Ed25519"):
        algorithm = "EdDSA"
    elif kind == ("EC", "P-256"):
        algorithm = "ES256"
    elif members.get("kty") == "RSA":
        algorithm = "RS256"
    said = members.get("alg")
    if (
        algorithm is None
        or members.get("use", "sig") != "sig"
        or (said is not None and algorithm_of(said) != algorithm)
    ):
        raise SignatureError(
            f"a key of kind {str(members.get('kty'))[:20]!r} and curve {str(members.get('crv'))[:20]!r} is not read",
            code="signature.curve",
            why="Ed25519, P-256 and RSA keys that are for signatures are; Ed448, X25519 and shared secrets are not",
        )
    kid = members.get("kid", "")
    covered = {name: members.get(name) for name in _MEMBERS[algorithm]}
    if not all(isinstance(value, str) for value in (kid, *covered.values())):
        raise SignatureError("a member of the key is missing or no text", code="signature.key")
    thumbprint = b64url(hashlib.sha256(canonical(covered)).digest())
    return PublicJwk(algorithm, kid, thumbprint, _CHECKS[algorithm](members))


def _ed25519(members: dict[str, Any]) -> Callable[[bytes, bytes], None]:
    public = unb64url(members["x"])
    if len(public) != 32:
        raise SignatureError(f"an Ed25519 key has 32 bytes, not {len(public)}", code="signature.key_size")
    return lambda covered, signature: verify(public, covered, signature)


def _p256(members: dict[str, Any]) -> Callable[[bytes, bytes], None]:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256

    x, y = unb64url(members["x"]), unb64url(members["y"])
    if len(x) != 32 or len(y) != 32:
        raise SignatureError("a P-256 key has two coordinates of 32 bytes", code="signature.key_size")
    try:
        public = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1()).public_key()
    except ValueError as error:
        raise SignatureError("the point is not on P-256", code="signature.key") from error

    def check(covered: bytes, signature: bytes) -> None:
        if len(signature) != 64:
            raise SignatureError("a signature of ES256 has 64 bytes", code="signature.size")
        der = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
        try:
            public.verify(der, covered, ec.ECDSA(SHA256()))
        except InvalidSignature as error:
            raise _does_not_hold() from error

    return check


def _rsa(members: dict[str, Any]) -> Callable[[bytes, bytes], None]:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256

    n, e = int.from_bytes(unb64url(members["n"])), int.from_bytes(unb64url(members["e"]))
    if not _RSA_BITS[0] <= n.bit_length() <= _RSA_BITS[1] or not 3 <= e < 2**32 or e % 2 == 0:
        raise SignatureError(
            f"an RSA key of {n.bit_length()} bits is not read", code="signature.key_size", why="2048 to 8192 bits are"
        )
    try:
        public = rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError as error:
        raise SignatureError("this is no RSA key", code="signature.key") from error

    def check(covered: bytes, signature: bytes) -> None:
        try:
            public.verify(signature, covered, padding.PKCS1v15(), SHA256())
        except InvalidSignature as error:
            raise _does_not_hold() from error

    return check


def _does_not_hold() -> SignatureError:
    return SignatureError("the signature does not hold", code="signature.invalid")


_CHECKS: dict[Algorithm, Callable[[dict[str, Any]], Callable[[bytes, bytes], None]]] = {
    "EdDSA": _ed25519,
    "ES256": _p256,
    "RS256": _rsa,
}


def pick(keys: list[PublicJwk], kid: object, algorithm: Algorithm) -> PublicJwk:
    """Return the issuer's key that a header names, or its only one of the algorithm if the header names none.

    Raises:
        SignatureError: no such key, or more than one (code "signature.kid").
        DecodeError: ``kid`` is no text.
    """
    if kid is not None and not isinstance(kid, str):
        raise DecodeError("kid is no text", code="jws.malformed")
    fitting = [key for key in keys if key.algorithm == algorithm and (kid is None or key.kid == kid)]
    if len(fitting) != 1:
        raise SignatureError(
            f"the issuer has {len(fitting)} keys for {algorithm} that this token could mean",
            code="signature.kid",
            why="the header names its key by kid, and the issuer's key file has that kid once",
            hint="renew the issuer's key file",
        )
    return fitting[0]
