"""How far inside a network an address is. Pure; ``places`` has the rule for links, ``http_pool`` holds connections to it."""

from __future__ import annotations

import ipaddress
from enum import IntEnum


class Reach(IntEnum):
    """Who can be at an address, the innermost first."""

    NEVER = -1
    LOOPBACK = 0
    PRIVATE = 1
    PUBLIC = 2

    @property
    def words(self) -> str:
        """What is there, for people."""
        return _WORDS[self]


_WORDS = {
    Reach.NEVER: "an address that nobody serves agents at",
    Reach.LOOPBACK: "this machine",
    Reach.PRIVATE: "a private network",
    Reach.PUBLIC: "the internet",
}


def reach_of(address: str) -> Reach:
    """Say how far inside an IP address is. What is no address is NEVER."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return Reach.NEVER
    if isinstance(ip, ipaddress.IPv6Address):
        # Other spellings of an IPv4 address reach the same machine.
        inner = (
            ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if _is_nat64(ip) else None)
        )
        if inner is not None:
            return reach_of(str(inner))
    if ip.is_loopback:
        return Reach.LOOPBACK
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved:
        return Reach.NEVER
    return Reach.PUBLIC if ip.is_global else Reach.PRIVATE


def _is_nat64(ip: ipaddress.IPv6Address) -> bool:
    return ip in ipaddress.IPv6Network("64:ff9b::/96")
