"""TLS 1.3 as a layer between any byte tunnel and the multiplexer: one implementation for TCP and for WebSocket.

The TLS of the standard library runs on memory buffers here, so that over WebSocket it lies *inside* the WebSocket and
stays end to end even when a proxy or an HTTPS front ends the outer one. The certificate is self-signed and says nothing;
its hash binds the node-key handshake (``net.handshake``) to this very channel. Where a CA admits nodes (``net.tlsca``) both
sides show a certificate, and the binding is to the connection itself: machines may share a certificate.
"""

from __future__ import annotations

import functools
import hashlib
import os
import ssl
import tempfile
from pathlib import Path
from typing import Protocol

from agentmesh.errors import Closed, ConfigError, DecodeError, MeshError, SignatureError, Unauthorized
from agentmesh.net.certificate import PeerCertificate, peer_certificate
from agentmesh.net.handshake import PREAUTH_BYTES_MAX

#: Plain bytes collected before they are handed up.
_READ_BYTES_MAX = 256 * 1024
#: What a client reads before the server is proven: certificate and handshake have about 2 KB.
_CLIENT_PREAUTH_BYTES_MAX = 16 * 1024
#: What either side reads before the proof where both show a certificate of a CA: three RSA-4096 ones have about 6 KB.
PREAUTH_CA_BYTES_MAX = 16 * 1024
_TUNNEL_READ_BYTES = 256 * 1024
_ALPN = "agentmesh/1"


class Tunnel(Protocol):
    """A byte pipe whose reads can be bounded."""

    async def read(self, bytes_max: int) -> bytes:
        """Return up to ``bytes_max`` bytes, or b"" at the end. Raises OSError or MeshError; DecodeError if the peer
        sends units that are larger."""
        ...

    async def write(self, data: bytes) -> None:
        """Write all of it, waiting for room. Raises OSError or MeshError."""
        ...

    async def aclose(self) -> None:
        """Close. Idempotent, never raises OSError."""
        ...


class TlsPipe:
    """A TLS 1.3 channel over a tunnel (``net.mux.Pipe``).

    Args:
        tunnel: What carries the records.
        context: From ``load_certificate``, ``client_context`` or ``net.tlsca``.
        server: Whether this side is the TLS server.
    """

    def __init__(self, tunnel: Tunnel, context: ssl.SSLContext, *, server: bool) -> None:
        self._tunnel = tunnel
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server)
        self._is_mutual = context.verify_mode == ssl.CERT_REQUIRED
        stranger_max = PREAUTH_BYTES_MAX if server else _CLIENT_PREAUTH_BYTES_MAX
        #: Bytes the peer may still send unproven; None once it is proven.
        self._allowance: int | None = PREAUTH_CA_BYTES_MAX if self._is_mutual else stranger_max

    async def shake_hands(self) -> None:
        """Run the TLS handshake.

        Raises:
            DecodeError: the other side does not speak TLS 1.3.
            SignatureError: it has no certificate of our CA (codes "tls.certificate", "tls.no_certificate").
            Unauthorized: it does not take ours (code "refused.certificate").
            Closed: it hung up.
        """
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise Closed("hung up in the TLS handshake", code="unreached.closed.handshake") from None
            except ssl.SSLError as error:
                await self._flush()
                raise _handshake_error(error) from error
        await self._flush()
        if self._tls.selected_alpn_protocol() != _ALPN:
            raise DecodeError("the TLS peer does not speak agentmesh/1", code="tls.alpn")

    def lift_allowance(self) -> None:
        """The peer is proven: read without the bound for strangers."""
        self._allowance = None

    @property
    def server_certificate(self) -> bytes:
        """On the client: the DER certificate the server proved to own."""
        return self._tls.getpeercert(binary_form=True) or b""

    @property
    def certificate(self) -> PeerCertificate | None:
        """The certificate by which a CA admitted the other side; None where certificates are not judged."""
        return peer_certificate(self._tls)

    def binding(self, certificate: bytes) -> bytes:
        """Return what the node-key handshake is bound to.

        Args:
            certificate: ``binding_of`` the server's certificate.

        Returns:
            The same, or, where a CA admits nodes, SHA-256 of it and the client's Finished message (RFC 8446 §4.4.4), a MAC over
            this handshake: else whoever shares the server's certificate could sit in between.
        """
        if not self._is_mutual:
            return certificate
        finished = self._tls.get_channel_binding("tls-unique")
        assert finished
        return hashlib.sha256(certificate + finished).digest()

    async def read(self) -> bytes:
        """Return decrypted bytes, or b"" at the end."""
        while True:
            pieces: list[bytes] = []
            size = 0
            try:
                while size < _READ_BYTES_MAX:
                    piece = self._tls.read(_READ_BYTES_MAX)
                    if not piece:
                        break
                    pieces.append(piece)
                    size += len(piece)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                return b"".join(pieces)
            except ssl.SSLError as error:
                # In TLS 1.3 a client has finished its handshake before the server judges its certificate.
                raise _refusal_in(error) or Closed(
                    f"the TLS channel broke: {error.reason or error}", code="unreached.closed.tls"
                ) from error
            if pieces:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if not await self._fill():
                return b""

    async def write(self, data: bytes) -> None:
        """Encrypt and write."""
        if data:
            try:
                self._tls.write(data)
            except ssl.SSLError as error:
                raise Closed(f"the TLS channel broke: {error.reason or error}", code="unreached.closed.tls") from error
        await self._flush()

    async def aclose(self) -> None:
        """Close the tunnel. The multiplexer's GOAWAY has said goodbye; TLS close_notify would add nothing."""
        await self._tunnel.aclose()

    async def _fill(self) -> bool:
        want = _TUNNEL_READ_BYTES if self._allowance is None else min(self._allowance, _TUNNEL_READ_BYTES)
        if want <= 0:
            raise DecodeError("more bytes than any handshake has", code="handshake.malformed")
        data = await self._tunnel.read(want)
        if self._allowance is not None:
            self._allowance -= len(data)
        if data:
            self._in.write(data)
        return bool(data)

    async def _flush(self) -> None:
        if self._out.pending:
            await self._tunnel.write(self._out.read())


class Certificate:
    """This node's certificate: TLS context and the hash that binds handshakes to it."""

    def __init__(self, context: ssl.SSLContext, der: bytes) -> None:
        self.context = context
        self.binding = binding_of(der)


def binding_of(der: bytes) -> bytes:
    """Return the channel binding of a server certificate: SHA-256 of its DER bytes."""
    return hashlib.sha256(der).digest()


@functools.cache
def client_context() -> ssl.SSLContext:
    """Return the TLS context of all dialling nodes of this process.

    The certificate is not judged: the node-key handshake does that.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return tighten(context)


def load_certificate(path: Path | None) -> Certificate:
    """Load the certificate of a listening node, making it first if the file does not exist.

    Args:
        path: PEM file with key and certificate, mode 0600; None makes one that only this process ever sees.

    Raises:
        ConfigError: unreadable, not ours, or readable by others (code "config.tls_certificate").
    """
    if path is None:
        descriptor, name = tempfile.mkstemp(suffix=".pem")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(make_certificate())
            return _load(Path(name))
        finally:
            os.unlink(name)
    try:
        if not path.exists():
            _store(path, make_certificate())
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise ConfigError(
                f"{path} can be read by others",
                code="config.tls_certificate",
                why="it holds the private key of this node's TLS certificate",
                hint=f"chmod 600 {path}",
            )
        return _load(path)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError.
        raise ConfigError(
            f"the TLS certificate {path} cannot be used",
            code="config.tls_certificate",
            why=str(error),
            hint=f"rm {path}   a new one is made at the next start",
        ) from error


def make_certificate() -> bytes:
    """Return a new key and self-signed certificate as PEM. It names nothing, since nobody judges it by its name."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "agentmesh")])
    made = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made - timedelta(days=1))
        .not_valid_after(made + timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem + certificate.public_bytes(serialization.Encoding.PEM)


def _load(path: Path) -> Certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    text = path.read_text("ascii")
    begin = text.index("-----BEGIN CERTIFICATE-----")
    return Certificate(tighten(context), ssl.PEM_cert_to_DER_cert(text[begin:]))


def _store(path: Path, pem: bytes) -> None:
    """Write the file in one step, never readable by others."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def tighten(context: ssl.SSLContext) -> ssl.SSLContext:
    """Set what every context of the mesh has in common, and return it."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols([_ALPN])
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # No resumption: every connection runs the whole handshake.
    return context


def _handshake_error(error: ssl.SSLError) -> MeshError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return SignatureError(
            f"the peer's TLS certificate is refused: {error.verify_message}",
            code="tls.certificate",
            why="this node admits only peers with a valid certificate of a CA in tls_ca",
            hint="agentmesh config explain tls_ca",
        )
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return SignatureError(
            "the peer showed no TLS certificate",
            code="tls.no_certificate",
            why="this node admits only peers with a certificate of a CA in tls_ca",
        )
    return _refusal_in(error) or DecodeError(f"no TLS 1.3 peer: {error.reason or error}", code="tls.handshake")


def _refusal_in(error: ssl.SSLError) -> Unauthorized | None:
    """Return the error for an alert by which the peer refuses our certificate (RFC 8446 §6.2), None for any other."""
    reason = error.reason or ""
    if "ALERT" not in reason or not ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return None
    alert = reason.partition("ALERT_")[2].lower().replace("_", " ")
    return Unauthorized(
        "the peer does not admit this node's TLS certificate",
        code="refused.certificate",
        why=f"it answered: {alert}",
        hint="set tls_ca, tls_cert and tls_key to those of the peer's organisation",
    )
