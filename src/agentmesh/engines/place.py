"""Where an engine is: a URL that may be shown to everybody, because secrets stand in files that it names.

sqlite:                             a file in the home, the default
nats://HOST:PORT,HOST:PORT,…        ?replicas=1  one server that is no cluster: nothing survives the loss of its disk
etcd://HOST:PORT,…                  etcds://…  with TLS
    ?secret=FILE                    user:password, or (NATS) a token; others must not be able to read the file
    ?ca=FILE                        TLS, with this authority; for NATS it is what asks for TLS
    ?cert=FILE, ?key=FILE           a certificate of ours
    ?name=NAME                      of what is made there: "agentmesh" unless several meshes share the servers
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from agentmesh.errors import ConfigError

SERVERS_MAX = 9
SECRET_BYTES_MAX = 4096
_PORTS = {"nats": 4222, "etcd": 2379, "etcds": 2379}
_SERVER = re.compile(r"(?:\[([0-9a-fA-F:.%]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_OPTIONS = {"replicas", "secret", "ca", "cert", "key", "name"}


class Place(NamedTuple):
    """A parsed URL.

    Attributes:
        scheme: "sqlite", "nats", "etcd" or "etcds".
        servers: ``host:port``, in the order written; none for SQLite.
        path: SQLite only; "" = the default.
        replicas: NATS: how many servers keep everything.
        secret, ca, cert, key: Files; "" = none.
        name: Of the bucket or prefix.
    """

    scheme: str
    servers: tuple[str, ...] = ()
    path: str = ""
    replicas: int = 3
    secret: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    name: str = "agentmesh"

    @property
    def url(self) -> str:
        """What is shown: scheme and servers."""
        return f"{self.scheme}://{','.join(self.servers)}" if self.servers else f"{self.scheme}:{self.path}"


def read_place(url: str) -> Place:
    """Read the URL of an engine; opens nothing.

    Raises:
        ConfigError: it names no engine that there is, or is malformed (code "engine.url"). Secrets in it are not repeated.
    """
    if url.startswith("sqlite:"):
        return Place("sqlite", path=url.removeprefix("sqlite:").removeprefix("//"))
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=16)
    except ValueError as error:
        raise _bad("it cannot be read") from error
    if parts.scheme not in _PORTS:
        raise _bad("it begins with sqlite:, nats://, etcd:// or etcds://")
    if "@" in parts.netloc:
        raise _bad("it holds credentials, which would be seen in status and process lists; use ?secret=FILE")
    if parts.path not in ("", "/") or parts.fragment:
        raise _bad("nothing comes after the servers but ?options")
    given = dict(options)
    if len(given) != len(options) or not given.keys() <= _OPTIONS:
        raise _bad(f"its options are {', '.join(sorted(_OPTIONS))}, each once")
    servers = tuple(_server(one, _PORTS[parts.scheme]) for one in parts.netloc.split(","))
    if len(servers) > SERVERS_MAX or len(set(servers)) < len(servers):
        raise _bad(f"it names at most {SERVERS_MAX} servers, each once")
    replicas = given.get("replicas", "3")
    if replicas not in ("1", "3", "5") or ("replicas" in given and parts.scheme != "nats"):
        raise _bad("replicas is for nats://, and 1, 3 or 5")
    name = given.get("name", "agentmesh")
    if not _NAME.fullmatch(name):
        raise _bad("name has letters, digits, _ and -, at most 32")
    files = {key: str(Path(given[key]).expanduser()) for key in ("secret", "ca", "cert", "key") if given.get(key)}
    return Place(parts.scheme, servers, "", int(replicas), name=name, **files)


def _server(text: str, port: int) -> str:
    match = _SERVER.fullmatch(text)
    if not match or not 0 < int(match[3] or port) < 65_536:
        raise _bad("a server is host:port")
    host = f"[{match[1]}]" if match[1] else match[2]
    return f"{host}:{int(match[3] or port)}"


def read_secret(path: str) -> str:
    """Read the one line of a file with credentials.

    Raises:
        ConfigError: it cannot be read, others can read it too, or it is no line of text (code "engine.secret").
    """

    def bad(why: str, hint: str | None = None) -> ConfigError:
        return ConfigError(f"the secret in {path} cannot be used", code="engine.secret", why=why, hint=hint)

    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise bad(error.strerror or str(error)) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise bad("others can read it", f"chmod 600 {path}")
    secret = content.decode("ascii", "replace").strip()
    if not secret or len(content) > SECRET_BYTES_MAX or not secret.isascii() or not secret.isprintable():
        raise bad("it must hold one line of visible ASCII")
    return secret


def tls_of(place: Place) -> ssl.SSLContext | None:
    """Return how to speak TLS there; None: not at all. Raises ConfigError (code "engine.tls"): a file cannot be used."""
    if not place.ca and place.scheme != "etcds":
        return None
    try:
        context = ssl.create_default_context(cafile=place.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if place.cert:
            context.load_cert_chain(place.cert, place.key or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{place.url}: ca, cert or key cannot be used", code="engine.tls", why=str(error)) from error
    return context


def _bad(why: str) -> ConfigError:
    return ConfigError(
        "the URL of an engine cannot be read", code="engine.url", why=why, hint="write nats://127.0.0.1:4222 or sqlite:"
    )
