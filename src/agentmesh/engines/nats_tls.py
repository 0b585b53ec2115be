"""Certificates for the NATS servers that nodes run themselves, all derived from one secret that their operator copies.

Whoever has the secret can make the authority's key, and so a certificate that the others accept; whoever has not cannot connect,
neither as a server nor as a client. The authority comes out the same on every machine: its key, serial and dates are fixed by the
secret. Servers' own keys are made anew at each start. ``cryptography`` is loaded with the first call.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentmesh.engines.place import read_secret
from agentmesh.errors import ConfigError, Full

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName

SECRET_BYTES = 32
#: Clocks of laptops are wrong at times, and who may connect is decided by the secret, not by dates.
_BEGIN, _END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2120, 1, 1, tzinfo=UTC)


class CertFiles(NamedTuple):
    """PEM files: the authority, our certificate, its key."""

    ca: Path
    cert: Path
    key: Path


def secret_at(path: Path) -> bytes:
    """Return the secret in a file, making one if there is no file.

    Raises:
        ConfigError: it is none of ours, or others can read it (code "engine.secret"). Full: it cannot be written.
    """
    if not path.exists():
        _write(path, f"{secrets.token_hex(SECRET_BYTES)}\n".encode())
    text = read_secret(str(path))
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise ConfigError(
            f"the secret in {path} cannot be used",
            code="engine.secret",
            why=f"it is not {2 * SECRET_BYTES} hexadecimal digits",
            hint="copy the file whole from the machine that made it",
        )
    return secret


def write_certificates(directory: Path, secret: bytes, hosts: Sequence[str]) -> CertFiles:
    """Write the authority's certificate, one for a server or client of ours, and its key.

    Args:
        directory: Where to.
        secret: From ``secret_at``.
        hosts: Names and addresses under which others reach servers of the cluster.

    Raises:
        Full: they cannot be written.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    authority = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"agentmesh nats authority\0" + secret).digest())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "agentmesh nats")])
    key_id = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    ca = (
        x509.CertificateBuilder()
        .subject_name(issuer)
        .issuer_name(issuer)
        .public_key(authority.public_key())
        .serial_number(1)
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
        .add_extension(key_id, critical=False)
        .sign(authority, None)
    )
    key = Ed25519PrivateKey.generate()
    names = [_san(host) for host in dict.fromkeys((*hosts, "localhost", "127.0.0.1", "::1"))]
    cert = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "agentmesh node")]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
        .sign(authority, None)
    )
    files = CertFiles(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    _write(files.ca, ca.public_bytes(Encoding.PEM))
    _write(files.cert, cert.public_bytes(Encoding.PEM))
    _write(files.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def _san(host: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError as error:
        raise Full(f"cannot write {path}: {error.strerror}", code="store.full", hint=f"df -h {path.parent}") from error
