"""Where a node stands in the key space, and which network an address belongs to (docs/spec/dht.md §1, §2.3)."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

from agentmesh.core.dht.messages import Hint
from agentmesh.ids import NodeId, public_key_of

KEY_BITS = 256
#: The benchmarking range is not routed on the Internet, so that an address in it says nothing about who owns it.
_BENCHMARK = ipaddress.ip_network("198.18.0.0/15")
_V4 = re.compile(r"(?:^|[:/@])(\d{1,3}(?:\.\d{1,3}){3})(?=[:/]|$)")
_V6 = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\]")


class Place(NamedTuple):
    """A node's position: its id, its raw key bytes, and SHA-256 of these as a number. Shared by all tables that know it."""

    node: NodeId
    public: bytes
    number: int


@lru_cache(maxsize=16_384)
def place_of(node: NodeId) -> Place:
    """Return the place of a node. Raises DecodeError for what is no node id."""
    public = public_key_of(node)
    return Place(node, public, number_of(public))


def number_of(public: bytes) -> int:
    """Return the DHT key of a public key as a number."""
    return int.from_bytes(hashlib.sha256(public).digest(), "big")


@lru_cache(maxsize=16_384)
def hint_of(public: bytes, address: str) -> Hint:
    """Return the hint that names this node; one object for all who name it."""
    return Hint(public, address)


@lru_cache(maxsize=16_384)
def group_of(address: str) -> str:
    """Return the network an address counts for: the /24 or /48 of a public IP address, "" for anything else.

    Private, loopback, link-local, shared (CGNAT), unique-local and benchmarking addresses do not count: there one network
    holds a whole mesh. Host names and relays do not count either, as they say nothing of where the node is.
    """
    found = _V6.search(address) or _V4.search(address)
    if found is None:
        return ""
    try:
        ip = ipaddress.ip_address(found[1])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if not ip.is_global or (isinstance(ip, ipaddress.IPv4Address) and ip in _BENCHMARK):
        return ""
    bits = 24 if isinstance(ip, ipaddress.IPv4Address) else 48
    return str(ipaddress.ip_network((ip, bits), strict=False))
