"""Addresses and seeds as texts: parse, format, and list the addresses of this machine (docs/spec/wire.md §2).

    address   iroh:192.0.2.7:6374 · iroh:https://relay.example/ · tls:[2001:db8::7]:6375 · ws:wss://host/mesh · memory:name
              udp:192.0.2.7:6376 (datagrams only, an IP address and no name)
    seed      did:key:z6Mk…@192.0.2.7:6374 · tls:did:key:z6Mk…@host:6375 · ws:did:key:z6Mk…@wss://host/mesh

An address says where somebody might be, a seed also who it is. Nothing here resolves names or opens sockets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from agentmesh.errors import ConfigError, DecodeError, UsageError
from agentmesh.ids import NodeId, parse_node_id
from agentmesh.net.base import Contact

DEFAULT_PORT = 6374
SCHEMES = ("iroh", "tls", "ws", "memory", "udp")
#: Schemes that carry no links: no seed, nothing to dial.
DATAGRAM_SCHEMES = ("udp",)
ADDRESS_CHARS_MAX = 512

_EXAMPLE = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK@192.0.2.7:6374"
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_\-]{0,62})?(\.[A-Za-z0-9_]([A-Za-z0-9_\-]{0,62})?)*\.?")
#: Interfaces of container and VM bridges: their addresses mean nothing to other machines.
_BRIDGES = ("docker", "br-", "veth", "cni", "virbr", "flannel", "cali", "podman", "lxcbr", "lxdbr", "vmnet", "vboxnet")


class Address(NamedTuple):
    """A parsed address. ``url`` is set for ``ws:`` and for iroh relays, ``host`` and ``port`` otherwise."""

    scheme: str
    host: str
    port: int
    url: str = ""

    def __str__(self) -> str:
        if self.url:
            return f"{self.scheme}:{self.url}"
        if self.scheme == "memory":
            return f"memory:{self.host}"
        return f"{self.scheme}:{join_host_port(self.host, self.port)}"


def join_host_port(host: str, port: int) -> str:
    """Return ``host:port``, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(text: str, *, default_port: int | None = None, port_min: int = 1) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6]:port``.

    Args:
        text: What to split.
        default_port: Port if none is given; None makes it an error.
        port_min: 0 allows "any free port" (for binding), 1 does not (for dialling).

    Raises:
        UsageError: malformed (code "address.malformed").
    """
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(\d{1,5}))?", text)
    if bracketed:
        host, port_text = bracketed[1], bracketed[2]
        if not _is_ip(host, 6):
            raise _malformed(text, f"{host[:60]!r} is no IPv6 address")
    else:
        host, colon, port_text = text.partition(":")
        if ":" in port_text:
            raise _malformed(text, "an IPv6 address needs brackets, as in [2001:db8::7]:6374")
        if colon and not re.fullmatch(r"[0-9]{1,5}", port_text):
            raise _malformed(text, f"{port_text[:20]!r} is no port number")
        if not _HOST_NAME.fullmatch(host) or (re.fullmatch(r"[\d.]+", host) and not _is_ip(host, 4)):
            raise _malformed(text, f"{host[:60]!r} is no host name or IP address")
    if port_text:
        port = int(port_text)
    elif default_port is not None:
        port = default_port
    else:
        raise _malformed(text, "the port is missing")
    if not port_min <= port <= 65535:
        raise _malformed(text, f"port {port} is outside {port_min}–65535")
    return host, port


def parse_bind(text: str) -> tuple[str, int]:
    """Split where to listen, ``host:port`` with port 0 for any free one.

    Raises:
        ConfigError: malformed (code "address.malformed").
    """
    try:
        return split_host_port(text, default_port=0, port_min=0)
    except UsageError as error:
        raise ConfigError(error.detail, code="address.malformed", hint='for example "0.0.0.0:6374"') from error


def parse_address(text: str) -> Address:
    """Parse an address with its scheme.

    Raises:
        UsageError: malformed or unknown scheme (code "address.malformed").
    """
    if len(text) > ADDRESS_CHARS_MAX:
        raise _malformed(text, f"longer than {ADDRESS_CHARS_MAX} characters")
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in SCHEMES:
        raise _malformed(text, f"it must start with one of {', '.join(s + ':' for s in SCHEMES)}")
    if scheme == "memory":
        if not re.fullmatch(r"[\w.\-]{1,64}", rest):
            raise _malformed(text, "a memory address is a plain name")
        return Address(scheme, rest, 0)
    if scheme == "udp":
        host, port = split_host_port(rest)
        if not (_is_ip(host, 4) or _is_ip(host, 6)):
            raise _malformed(text, "datagrams go to an IP address, not to a name")
        return Address(scheme, host, port)
    if scheme == "ws":
        return Address(scheme, *_split_url(text, rest, ("ws", "wss")), url=rest)
    if scheme == "iroh" and rest.startswith(("http://", "https://")):
        return Address(scheme, *_split_url(text, rest, ("http", "https")), url=rest)
    return Address(scheme, *split_host_port(rest, default_port=DEFAULT_PORT))


def parse_seed(text: str) -> Contact:
    """Parse a seed: the id of a node and one address of it.

    Raises:
        UsageError: malformed (code "seed.malformed"), with an example as hint. No state changed.
    """
    seed = text.strip()
    try:
        if len(seed) > ADDRESS_CHARS_MAX:
            raise _malformed(seed, f"longer than {ADDRESS_CHARS_MAX} characters")
        scheme = next((s for s in SCHEMES if seed.startswith(f"{s}:")), "")
        if scheme in DATAGRAM_SCHEMES:
            raise _malformed(seed, f"{scheme}: carries datagrams, no links")
        who, at, where = seed.removeprefix(f"{scheme}:").partition("@")
        if not at:
            raise _malformed(seed, "a seed is the node's id, an @ and its address")
        node = parse_node_id(who)
        if where.startswith(("ws://", "wss://")):
            if scheme not in ("", "ws"):
                raise _malformed(seed, f"{scheme}: does not go with a ws:// or wss:// address")
            scheme = "ws"
        return Contact(node, (str(parse_address(f"{scheme or 'iroh'}:{where}")),))
    except (UsageError, DecodeError) as error:
        raise UsageError(
            f"{seed[:120]!r} is no seed",
            code="seed.malformed",
            why=error.why or error.detail,
            hint=f"a seed looks like {_EXAMPLE} ; the other node prints its own with: agentmesh status",
        ) from error


def format_seed(node_id: NodeId, address: str) -> str:
    """Return the seed text that ``parse_seed`` reads; iroh, the default, is left out. Raises UsageError."""
    parsed = parse_address(address)
    if parsed.scheme == "iroh" and not parsed.url:
        return f"{node_id}@{join_host_port(parsed.host, parsed.port)}"
    return f"{parsed.scheme}:{node_id}@{address.partition(':')[2]}"


def local_addresses(*, loopback: bool = False) -> tuple[str, ...]:
    """Return this machine's addresses that others can use: LAN IPv4 first, then global IPv6, public ones after private.

    Bridges of containers and virtual machines, link-local and multicast addresses are left out.

    Args:
        loopback: Add 127.0.0.1 as the last one.
    """
    import ifaddr

    found: list[tuple[str, str]] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            host = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            found.append((str(adapter.name), host))
    return rank_addresses(found, loopback=loopback)


def rank_addresses(found: Iterable[tuple[str, str]], *, loopback: bool = False) -> tuple[str, ...]:
    """Choose and order ``(interface, ip)`` pairs for ``local_addresses``; pure."""
    ranked: list[tuple[int, str]] = []
    for name, host in found:
        ip = ip_address(host.partition("%")[0])
        if name.lower().startswith(_BRIDGES) or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            continue
        if ip.is_loopback:
            continue
        ranked.append(((0 if ip.version == 4 else 2) + (0 if ip.is_private else 1), str(ip)))
    chosen = [host for _, host in sorted(ranked)]
    if loopback:
        chosen.append("127.0.0.1")
    return tuple(dict.fromkeys(chosen))


def reachable_at(host: str, port: int) -> tuple[tuple[str, int], ...]:
    """Return the ``(host, port)`` pairs under which a socket bound to ``host`` is reached, most useful first.

    A wildcard stands for the machine's LAN addresses, or for loopback if there is none.
    """
    if host not in ("0.0.0.0", "::", ""):  # noqa: S104  (compared, not bound)
        return ((host, port),)
    hosts = local_addresses() or ("127.0.0.1",)
    if host == "0.0.0.0":  # noqa: S104
        hosts = tuple(h for h in hosts if ":" not in h) or ("127.0.0.1",)
    return tuple((h, port) for h in hosts)


def _split_url(text: str, url: str, schemes: tuple[str, ...]) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _malformed(text, str(error)) from error
    if parts.scheme not in schemes or not host or parts.username or parts.fragment:
        raise _malformed(text, f"expected {schemes[0]}:// or {schemes[1]}:// with a host, as in ws:wss://host/mesh")
    return host, port or (443 if parts.scheme in ("wss", "https") else 80)


def _is_ip(text: str, version: int) -> bool:
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


def _malformed(text: str, why: str) -> UsageError:
    return UsageError(
        f"{text[:120]!r} is no address",
        code="address.malformed",
        why=why,
        hint="for example iroh:192.0.2.7:6374, tls:host:6375 or ws:wss://host/mesh",
    )
