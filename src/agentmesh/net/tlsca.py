"""Certificates of an organisation's CA on the tls and ws transports: both sides show one, both judge the other's.

The CA says who may come in; who somebody is, the node-key handshake inside says (docs/spec/wire.md §1.5). OpenSSL judges
chain, validity, purpose and, where the bundle holds revocation lists, revocation. Host names are not judged: nodes move.

Files are read again when they have changed. What is read is first rehearsed: both sides of a handshake, in memory, with our
own certificate as client and as server. So a wrong key, a certificate of another CA, an expired one or one that is only good
for servers is found before it is used, and stays out.
"""

from __future__ import annotations

import os
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from agentmesh.errors import ConfigError, MeshError
from agentmesh.net.tlspipe import PREAUTH_CA_BYTES_MAX, Certificate, tighten

#: Largest of the three files, bytes. A bundle of two hundred CAs has about 300 KB.
_FILE_BYTES_MAX = 1024 * 1024
#: Largest flight of our own certificates in a handshake, bytes; peers read no more than PREAUTH_CA_BYTES_MAX in all.
_FLIGHT_BYTES_MAX = PREAUTH_CA_BYTES_MAX - 2 * 1024
#: Our own certificate is named in ``status`` when it ends within this time, seconds.
_ENDS_SOON_S = 7 * 86_400
_ROUNDS_MAX = 8


class CaFiles(NamedTuple):
    """Where the PEM files are: CAs (and their revocation lists) that are believed, our certificate with what leads up to its
    CA, and its key; the key may stand in the file of the certificate."""

    ca: Path
    cert: Path
    key: Path

    @property
    def distinct(self) -> tuple[Path, ...]:
        """The files, each once."""
        return tuple(dict.fromkeys(self))


class _Loaded(NamedTuple):
    server: Certificate
    client: ssl.SSLContext
    ends_s: float


class CaNetwork:
    """The contexts of a network whose CA admits its nodes; shared by all transports of a node.

    Args:
        files: Where the PEM files are.
        now_s: The wall clock.

    Raises:
        ConfigError: they cannot be used (codes "config.tls_ca", "config.tls_cert").
    """

    def __init__(self, files: CaFiles, now_s: Callable[[], float] = time.time) -> None:
        self.files = files
        self._now_s = now_s
        self._marks = _marks(files)
        self._loaded = _load(files)
        self._refused = ""

    @property
    def server(self) -> Certificate:
        """What to serve the next connection with."""
        self.refresh()
        return self._loaded.server

    @property
    def client(self) -> ssl.SSLContext:
        """What to dial the next connection with."""
        self.refresh()
        return self._loaded.client

    def refresh(self) -> None:
        """Read the files again if one has changed; if they cannot be used, what was in force stays so. Never raises.

        Links that are up go on as they are.
        """
        marks = _marks(self.files)
        if marks == self._marks:
            return
        self._marks = marks
        try:
            self._loaded = _load(self.files)
        except MeshError as error:
            why = f": {error.why}" if error.why else ""
            self._refused = f"the changed TLS certificates are not used, the old ones are: {error.detail}{why}"
        else:
            self._refused = ""

    def warnings(self) -> list[str]:
        """Return what a person should know: refused files, and an end that is near."""
        self.refresh()
        out = [self._refused] if self._refused else []
        left_s = self._loaded.ends_s - self._now_s()
        if left_s <= 0:
            out.append(f"the TLS certificate {self.files.cert} has expired; no new link can be made")
        elif left_s < _ENDS_SOON_S:
            left = f"{left_s / 86_400:.1f} days" if left_s > 86_400 else f"{left_s / 3_600:.1f} hours"
            out.append(f"the TLS certificate {self.files.cert} ends in {left}; put a new one in its place")
        return out


def _marks(files: CaFiles) -> tuple[object, ...]:
    """Return what differs when a file was written, replaced or made readable; None for one that is not there."""
    marks: list[object] = []
    for path in files.distinct:
        try:
            status = path.stat()
            marks.append((status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino))
        except OSError:
            marks.append(None)
    return tuple(marks)


def _load(files: CaFiles) -> _Loaded:
    """Read and rehearse. Raises ConfigError."""
    for path in files.distinct:
        _check_file(path, secret=path == files.key)
    try:
        server = tighten(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        client = tighten(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        client.check_hostname = False
        for context in (server, client):
            _trust(context, files.ca)
            _own(context, files)
        der = _leaf_of(files.cert)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError.
        raise _unusable(files.cert, str(error)) from error
    return _Loaded(Certificate(server, der), client, _rehearse(server, client, files))


def _trust(context: ssl.SSLContext, bundle: Path) -> None:
    """Believe the CAs of a bundle and nobody else."""
    try:
        context.load_verify_locations(cafile=bundle)
    except OSError as error:
        raise ConfigError(
            f"{bundle} is no bundle of CA certificates",
            code="config.tls_ca",
            why=str(error)[:200],
            hint="PEM: -----BEGIN CERTIFICATE----- …, one after the other; nothing damaged between",
        ) from error
    counts = context.cert_store_stats()
    if not counts["x509_ca"] or counts["x509"] != counts["x509_ca"]:
        raise ConfigError(
            f"{bundle} holds a certificate that is no CA's",
            code="config.tls_ca",
            why="with it in the bundle its holder would be believed like a CA",
            hint="keep only certificates with basicConstraints CA:TRUE in it",
        )
    # An issuing CA may stand alone in the bundle: then those of its sisters under the same root are not admitted.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if counts["crl"]:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    context.verify_mode = ssl.CERT_REQUIRED


def _own(context: ssl.SSLContext, files: CaFiles) -> None:
    def no_passphrase() -> str:
        raise ValueError("the key is encrypted; nobody is there to type its passphrase")

    context.load_cert_chain(files.cert, files.key, password=no_passphrase)


def _leaf_of(path: Path) -> bytes:
    text = path.read_text("ascii", "replace")
    begin = text.index("-----BEGIN CERTIFICATE-----")
    end = text.index("-----END CERTIFICATE-----", begin) + len("-----END CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(text[begin:end])


def _rehearse(server: ssl.SSLContext, client: ssl.SSLContext, files: CaFiles) -> float:
    """Run a handshake with ourselves and return the second at which our certificate ends. Raises ConfigError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    largest = 0
    for turn in range(2 * _ROUNDS_MAX):
        try:
            sides[turn % 2].do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as error:
            # Each side judges the other's certificate, which is ours both times.
            used = "server" if turn % 2 == 0 else "client"
            raise _unusable(files.cert, f"as a {used} certificate it is refused: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise _unusable(files.cert, str(error)) from error
        largest = max(largest, to_server.pending, to_client.pending)
    if largest > _FLIGHT_BYTES_MAX:
        raise _unusable(
            files.cert, f"with its chain it takes {largest} bytes of a handshake; peers read {_FLIGHT_BYTES_MAX}"
        )
    shown = sides[0].getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))


def _check_file(path: Path, *, secret: bool) -> None:
    """Refuse what is no file of reasonable size, and a key that others can read. Raises ConfigError."""
    try:
        status = path.stat()
        readable = os.access(path, os.R_OK)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read", code="config.tls_cert", why=error.strerror, hint=f"ls -l {path}"
        ) from error
    if not stat.S_ISREG(status.st_mode) or not readable or status.st_size > _FILE_BYTES_MAX:
        raise ConfigError(
            f"{path} cannot be read",
            code="config.tls_cert",
            why=f"it is no readable file of at most {_FILE_BYTES_MAX} bytes",
            hint=f"ls -lL {path}",
        )
    if secret and os.name == "posix" and status.st_mode & 0o027:
        raise ConfigError(
            f"{path} holds a key that others can read or change (mode {stat.S_IMODE(status.st_mode):04o})",
            code="config.tls_cert",
            why="whoever reads it can enter the network as this node",
            hint=f"chmod 600 {path}",
        )


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"the TLS certificate {path} cannot be used",
        code="config.tls_cert",
        why=why[:300],
        hint="it must be issued by a CA of tls_ca, valid now, fit for clients and servers, and belong to tls_key",
    )
