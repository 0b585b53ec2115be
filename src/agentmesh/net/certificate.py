"""What a CA's certificate says of the peer that it admitted."""

from __future__ import annotations

import hashlib
import ssl
from typing import NamedTuple

from agentmesh.errors import SignatureError

_SANS_MAX = 16
_TEXT_CHARS_MAX = 256


class PeerCertificate(NamedTuple):
    """What the certificate that admitted a peer says of it: claims of the CA, not of the peer.

    Attributes:
        subject: Common name, "" if it has none.
        organisation: Organisation of the subject, "" if it has none.
        sans: Alternative names as ``TYPE:value``, at most 16.
        fingerprint: SHA-256 of its DER bytes, hex.
    """

    subject: str
    organisation: str
    sans: tuple[str, ...]
    fingerprint: str


def peer_certificate(tls: ssl.SSLObject) -> PeerCertificate | None:
    """Return the verified certificate of the other side; None where certificates are not judged."""
    decoded = tls.getpeercert() if tls.context.verify_mode == ssl.CERT_REQUIRED else None
    if not decoded:
        return None
    names: dict[str, str] = {}
    for part in decoded.get("subject", ()):
        for key, value in part:  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
            names.setdefault(str(key), _clean(str(value)))  # pyright: ignore[reportUnknownArgumentType]
    sans = decoded.get("subjectAltName", ())
    return PeerCertificate(
        names.get("commonName", ""),
        names.get("organizationName", ""),
        tuple(_clean(f"{kind}:{value}") for kind, value in sans[:_SANS_MAX]),  # pyright: ignore
        hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest(),
    )


def check_named_key(certificate: PeerCertificate | None, peer: str) -> None:
    """Raise SignatureError if a certificate names a node key (URI ``did:key:…``) and it is not the peer's."""
    named = [san[4:] for san in certificate.sans if san.startswith("URI:did:key:")] if certificate else []
    if named and peer not in named:
        raise SignatureError(
            "the peer's certificate was issued for another node key",
            code="tls.certificate_key",
            why="its URI name is another did:key than the one the peer proved",
        )


def _clean(text: str) -> str:
    return "".join(c for c in text[:_TEXT_CHARS_MAX] if c.isprintable())
