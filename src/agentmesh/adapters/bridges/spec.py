"""A bridge as it is written in settings and on the command line: one URL.

    etcd://HOST:PORT/PREFIX      consul://HOST:PORT/
        ?way=in | out | both     what crosses; both if left out
        &agent=NAME              out: only agents of that name; may be repeated
        &edge=URL                out: where others reach this node's HTTP port, such as https://agents.example.org
        &tag=TAG                 consul, in: services with this tag are agents; a2a if left out
        &tls=on                  HTTPS
        &secret=FILE             etcd: user:password; consul: an ACL token. Others must not be able to read the file
        &max=N                   in: at most so many agents

Cheap to import: settings are checked with it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from pathlib import Path
from typing import Literal, NamedTuple, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from agentmesh.errors import ConfigError

Way = Literal["in", "out", "both"]

BRIDGES_MAX = 16
#: Agents that one bridge takes in unless it says otherwise, and at most.
TAKEN_MAX, TAKEN_LIMIT = 500, 1_000
_SECRET_BYTES_MAX = 4096
_PORTS = {"etcd": 2379, "consul": 8500}
_MEMBERS = ("way", "agent", "edge", "tag", "tls", "secret", "max")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9._/:@-]{0,200}")


class BridgeSpec(NamedTuple):
    """One bridge, checked.

    Attributes:
        url: As it was written.
        kind: "etcd" or "consul".
        host, port, tls: Where the other registry answers.
        prefix: etcd: where the entries lie, without slash at its end.
        way: What crosses.
        agents: Out: only these names; empty = all own.
        edge: Out: base URL of this node for others; "" = its loopback address.
        tag: Consul: what marks a service as an agent.
        secret: File with credentials; "" = none.
        taken_max: In: most agents.
    """

    url: str
    kind: Literal["etcd", "consul"]
    host: str
    port: int
    tls: bool = False
    prefix: str = ""
    way: Way = "both"
    agents: tuple[str, ...] = ()
    edge: str = ""
    tag: str = "a2a"
    secret: str = ""
    taken_max: int = TAKEN_MAX

    @property
    def name(self) -> str:
        """What it is called: its URL without the query."""
        return self.url.partition("?")[0].rstrip("/")

    @property
    def base(self) -> str:
        """Base URL of its HTTP API."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def read_spec(url: str) -> BridgeSpec:
    """Read the URL of a bridge.

    Raises:
        ConfigError: it is none (code "config.bridge"). No state changed.
    """
    if len(url) > 1024 or not url.isascii() or not url.isprintable() or any(c in url for c in " ,"):
        raise _bad(url, "it has at most 1024 visible ASCII characters and no comma")
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=64)
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        raise _bad(url, str(error)) from error
    if parts.scheme not in ("etcd", "consul"):
        raise _bad(url, "it begins with etcd:// or consul://")
    if parts.username is not None:
        raise _bad(url, "credentials do not belong into it; put them into a file and name it by secret=FILE")
    if not _is_host(host) or port == 0 or parts.fragment:
        raise _bad(url, "it needs a host, and a port if it is not the usual one")
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in _MEMBERS or (name in given and name != "agent"):
            raise _bad(url, f"{name[:40]!r} is unknown or given twice; known are {', '.join(_MEMBERS)}")
        given.setdefault(name, []).append(value)
    prefix = unquote(parts.path).strip("/")
    if not _WORD.fullmatch(prefix) or (parts.scheme == "consul" and prefix):
        raise _bad(url, "after the port comes, for etcd only, a prefix of letters, digits and ._/:@-")
    if parts.scheme == "etcd" and not prefix:
        raise _bad(url, "etcd needs a prefix, such as /agents: what else lies in it is not for this node")
    return _filled(url, parts.scheme, host, port or _PORTS[parts.scheme], prefix, given)


def _filled(url: str, kind: str, host: str, port: int, prefix: str, given: dict[str, list[str]]) -> BridgeSpec:
    def one(name: str, default: str = "") -> str:
        return given.get(name, [default])[0]

    way, tls, most, edge, tag = (
        one("way", "both"),
        one("tls", "off"),
        one("max", str(TAKEN_MAX)),
        one("edge"),
        one("tag", "a2a"),
    )
    if way not in get_args(Way):
        raise _bad(url, "way is in, out or both")
    if tls not in ("on", "off"):
        raise _bad(url, "tls is on or off")
    if not re.fullmatch(r"[0-9]{1,6}", most) or not 1 <= int(most) <= TAKEN_LIMIT:
        raise _bad(url, f"max is a number from 1 to {TAKEN_LIMIT}")
    if edge and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]{1,253}(/[A-Za-z0-9._~/-]*)?", edge):
        raise _bad(url, "edge is an http or https URL without query")
    if not tag or not _WORD.fullmatch(tag):
        raise _bad(url, "tag is one word")
    secret = os.path.expanduser(one("secret"))
    if secret and not os.path.isabs(secret):
        raise _bad(url, "a path here begins with / or ~")
    return BridgeSpec(
        url=url,
        kind="etcd" if kind == "etcd" else "consul",
        host=host,
        port=port,
        tls=tls == "on",
        prefix=prefix,
        way="in" if way == "in" else "out" if way == "out" else "both",
        agents=tuple(given.get("agent", ())),
        edge=edge.rstrip("/"),
        tag=tag,
        secret=secret,
        taken_max=int(most),
    )


def read_specs(urls: tuple[str, ...]) -> list[BridgeSpec]:
    """Read every bridge of the settings.

    Raises:
        ConfigError: one is none, two lead to the same place, or there are too many. No state changed.
    """
    if len(urls) > BRIDGES_MAX:
        raise ConfigError(f"{len(urls)} bridges, at most {BRIDGES_MAX}", code="config.bridge")
    specs = [read_spec(url) for url in urls]
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two bridges lead to {name}", code="config.bridge", hint="one is enough: way=both")
    return specs


def read_secret(path: str) -> str:
    """Read the credentials of a bridge from its file.

    Raises:
        ConfigError: it cannot be read, others can read it too, or it holds no one line of text (code "config.bridge_secret").
    """

    def bad(why: str, hint: str | None = None) -> ConfigError:
        return ConfigError(f"the secret in {path} cannot be used", code="config.bridge_secret", why=why, hint=hint)

    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise bad(error.strerror or str(error)) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise bad("others can read it", f"chmod 600 {path}")
    secret = content.decode("ascii", "replace").strip()
    if not secret or len(content) > _SECRET_BYTES_MAX or not secret.isascii() or not secret.isprintable():
        raise bad("it must hold one line of visible ASCII")
    return secret


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            return ipaddress.ip_address(host).version == 6
        except ValueError:
            return False
    return _HOST.fullmatch(host) is not None


def _bad(url: str, why: str) -> ConfigError:
    return ConfigError(
        f"{url[:200]!r} is no bridge",
        code="config.bridge",
        why=why,
        hint="agentmesh bridge add etcd://127.0.0.1:2379/agents",
    )
