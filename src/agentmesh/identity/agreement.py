"""Agreement keys: the X25519 keys to which mail for an agent is sealed while no session is open (docs/spec/sealed.md §5).

They are random and have nothing to do with the agent's Ed25519 key, which is never converted. The node of an agent draws a new
one each day and names it in the agent's manifest (``params.key_agreement``, a JWK of RFC 8037), so that the agent's own
signature covers it. The private half is kept until no lawful mail to it can be under way any more, then it is destroyed: who
steals the disk later cannot open what was sealed before. ``kid`` is the RFC 7638 thumbprint of the key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn, cast

from nacl.bindings import crypto_scalarmult_base

from agentmesh.codec.canonical import canonical
from agentmesh.errors import DecodeError, LimitError
from agentmesh.identity.claims import SECONDS_MAX
from agentmesh.identity.jws import b64url, unb64url

SECRET_BYTES = 32
#: A key older than this is replaced when the manifest is signed again, which happens several times a day.
ROTATE_S = 43_200
#: How long the private half is kept after the last manifest that names it has ended: the longest life of a message (7 days)
#: and a day for clocks and carriers.
KEEP_S = 8 * 86_400
#: Name of the member of the manifest's extension.
PARAM = "key_agreement"
_KID = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class Agreement(NamedTuple):
    """The public half.

    Attributes:
        kid: Thumbprint of ``x``.
        x: 32 raw bytes.
        exp: Unix second after which nothing is sealed to it.
    """

    kid: str
    x: bytes
    exp: int


class AgreementKey:
    """One key with its private half, which neither ``repr``, ``str`` nor a pickle ever shows.

    Args:
        secret: 32 secret random bytes.
        made, exp: Unix seconds: when it was drawn, and after which nothing is sealed to it.

    Raises:
        LimitError: the secret is not 32 bytes (code "agreement.size").
    """

    __slots__ = ("exp", "kid", "made", "secret", "x")

    def __init__(self, secret: bytes, made: int, exp: int) -> None:
        if len(secret) != SECRET_BYTES:
            raise LimitError(f"an agreement key has {SECRET_BYTES} secret bytes", code="agreement.size")
        self.secret, self.made, self.exp = bytes(secret), made, exp
        self.x = crypto_scalarmult_base(self.secret)
        self.kid = thumbprint(self.x)

    @property
    def public(self) -> Agreement:
        """What others seal to."""
        return Agreement(self.kid, self.x, self.exp)

    def __repr__(self) -> str:
        return f"<AgreementKey {self.kid}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an agreement key is never pickled or copied")


def jwk_of(x: bytes) -> dict[str, str]:
    """Return a public X25519 key as a JSON Web Key (RFC 8037 §2): the members that its thumbprint covers."""
    return {"crv": "X25519", "kty": "OKP", "x": b64url(x)}


def thumbprint(x: bytes) -> str:
    """Return the RFC 7638 thumbprint of a public X25519 key: 43 characters."""
    return b64url(hashlib.sha256(canonical(jwk_of(x))).digest())


def agreement_param(agreement: Agreement) -> dict[str, Any]:
    """Return what stands in a manifest."""
    return {**jwk_of(agreement.x), "kid": agreement.kid, "exp": agreement.exp}


def read_agreement(params: Mapping[str, Any]) -> Agreement | None:
    """Return the key that a verified manifest names; None if it names none.

    Args:
        params: Members of our extension (``Manifest.params``).

    Raises:
        DecodeError: not an X25519 key with its own thumbprint and a time (code "agreement.malformed"). Whoever signed it.
    """
    if PARAM not in params:
        return None
    found = params[PARAM]
    jwk = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    x, kid, exp = jwk.get("x"), jwk.get("kid"), jwk.get("exp")
    if (
        jwk.get("kty") != "OKP"
        or jwk.get("crv") != "X25519"
        or "d" in jwk
        or not isinstance(x, str)
        or not isinstance(kid, str)
        or not _KID.fullmatch(kid)
        or type(exp) is not int
        or not 0 < exp <= SECONDS_MAX
        or len(x) != 43
    ):
        raise DecodeError("the manifest names no usable X25519 key", code="agreement.malformed")
    raw = unb64url(x)
    if kid != thumbprint(raw):
        raise DecodeError("the kid of an agreement key is its thumbprint", code="agreement.malformed")
    return Agreement(kid, raw, exp)
