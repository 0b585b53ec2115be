"""How far a node is, for the choice between replicas: same host, same network, elsewhere, through a relay, not linked."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import NamedTuple

from agentmesh.ids import NodeId
from agentmesh.node.links import Links, Peer

#: Below this trust a node that is neither on this host nor in this network is taken for farther away than others.
TRUST_LOW = 0.3
BESIDE, HOST, NETWORK, DIRECT, DIRECT_LOW_TRUST, RELAYED, NOT_LINKED = range(7)
#: A distance is good for this long: a path may change from relayed to direct, and asking the engine costs time.
_LIFE_S = 2.0
_KEPT_MAX = 1_000


class _Kept(NamedTuple):
    peer: Peer
    until_s: float
    distance: int


class Routes:
    """Tell how far nodes are.

    Args:
        links: To peers.
        site: Where this node is; "" if nobody said.
        site_of: Site of another node as it says itself.
    """

    def __init__(self, links: Links, site: str, site_of: Callable[[NodeId], str]) -> None:
        self._links, self._site, self._site_of = links, site, site_of
        self._kept: dict[str, _Kept] = {}

    def distance(self, node_id: str, trust: float) -> int:
        """Return the distance of a node, ``HOST`` … ``NOT_LINKED``.

        Args:
            node_id: Another node.
            trust: Of the agent there, 0 … 1.
        """
        peer = self._links.peer(node_id)
        if peer is None or peer.link.is_closed:
            return NOT_LINKED
        now_s = time.monotonic()
        kept = self._kept.get(node_id)
        if kept is None or kept.peer is not peer or now_s > kept.until_s:
            while len(self._kept) >= _KEPT_MAX:
                del self._kept[next(iter(self._kept))]
            kept = self._kept[node_id] = _Kept(peer, now_s + _LIFE_S, self._measure(peer))
        if kept.distance == DIRECT and trust < TRUST_LOW:
            return DIRECT_LOW_TRUST
        return kept.distance

    def _measure(self, peer: Peer) -> int:
        if peer.link.path == "relayed":
            return RELAYED
        there = host_of(peer.link.remote_address)
        if there is not None and (there.is_loopback or there in {host_of(a) for a in self._links.addresses}):
            return HOST
        site = self._site_of(peer.link.peer)
        if self._site or site:
            return NETWORK if site == self._site else DIRECT
        return NETWORK if there is not None and there.is_private else DIRECT


def host_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address in ``scheme:host:port``; None if there is none."""
    host = address.partition(":")[2].rpartition(":")[0].removeprefix("//").strip("[]")
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found
