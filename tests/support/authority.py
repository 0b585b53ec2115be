"""A certificate authority for tests: issues good certificates and every bad kind that a peer may come with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agentmesh.net.tlsca import CaFiles

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
BOTH = (CLIENT, SERVER)
_DAY = timedelta(days=1)


class Issued(NamedTuple):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cert_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key as PEM."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class Authority:
    """One CA.

    Args:
        name: Its common name.
        parent: Who issued its own certificate; None: a root.
    """

    def __init__(self, name: str = "Test CA", parent: Authority | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name, "")
        issuer = parent or self
        self.certificate = (
            _builder(self._name, issuer._name, self.key, -_DAY, 30 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(issuer.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """Its certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        name: str = "node",
        *,
        organisation: str = "",
        sans: tuple[x509.GeneralName, ...] = (),
        usage: tuple[x509.ObjectIdentifier, ...] | None = BOTH,
        begins: timedelta = -_DAY,
        ends: timedelta = 30 * _DAY,
        padding_bytes: int = 0,
    ) -> Issued:
        """Issue a certificate for a new key; ``begins`` and ``ends`` count from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name, organisation), self._name, key, begins, ends)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        if padding_bytes:
            oid = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, bytes(padding_bytes)), critical=False)
        return Issued(builder.sign(self.key, hashes.SHA256()), key)

    def revoke(self, *issued: Issued) -> bytes:
        """Return a revocation list of these as PEM."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - _DAY)
            .next_update(now + 30 * _DAY)
        )
        for one in issued:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(one.certificate.serial_number)
                .revocation_date(now - _DAY)
                .build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def self_signed() -> Issued:
    """Return a certificate that nobody issued."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("node", "")
    return Issued(_builder(name, name, key, -_DAY, 30 * _DAY).sign(key, hashes.SHA256()), key)


def write_files(directory: Path, issued: Issued, *trusted: bytes, chain: bytes = b"") -> CaFiles:
    """Write the three PEM files of a node, each replaced in one step."""
    directory.mkdir(parents=True, exist_ok=True)
    files = CaFiles(directory / "ca.pem", directory / "node.pem", directory / "node.key")
    for path, content in zip(files, (b"".join(trusted), issued.cert_pem + chain, issued.key_pem), strict=True):
        draft = path.with_suffix(".new")
        draft.touch(0o600)
        draft.write_bytes(content)
        draft.replace(path)
    return files


def _name(common: str, organisation: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organisation:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(parts)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begins: timedelta, ends: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )
