"""Which way a control message goes: as a signed datagram, or over the link to its receiver, dialled if there is none.

Probes and lookups are datagrams where a direct UDP address is known. Whether one arrives there is learned, not believed:
until something came from that address lately, a link that is up carries the message as well, so that a node behind a
firewall is not declared dead for its firewall. What doubles is dropped by the machines, whose messages carry nonces.
"""

from __future__ import annotations

from collections.abc import Callable

from agentmesh.core.machine import Send
from agentmesh.ids import NodeId
from agentmesh.net.base import Contact
from agentmesh.net.udp import UdpSocket
from agentmesh.node.links import Links
from agentmesh.wire import v1

#: A datagram heard from a node within this time proves the way there, seconds. Far above the probe interval.
_PROVEN_S = 30.0
_PROVEN_MAX = 4_096


class Paths:
    """Send what the brain wants sent.

    Args:
        links: Links to peers.
        udp: The datagram socket, or None where it could not be opened.
        addresses_of: Where a node might be, best first.
        now_s: The monotonic clock.
    """

    def __init__(
        self,
        links: Links,
        udp: UdpSocket | None,
        addresses_of: Callable[[NodeId], tuple[str, ...]],
        now_s: Callable[[], float],
    ) -> None:
        self._links, self._udp, self._addresses_of, self._now_s = links, udp, addresses_of, now_s
        self._proven: dict[NodeId, tuple[str, float]] = {}

    def heard(self, node: NodeId, address: str) -> None:
        """Note that a genuine datagram of a node came from this address."""
        if node not in self._proven and len(self._proven) >= _PROVEN_MAX:
            del self._proven[next(iter(self._proven))]
        self._proven[node] = (address, self._now_s())

    def is_proven(self, node: NodeId) -> bool:
        """Say whether datagrams to and from this node arrive."""
        proven = self._proven.get(node)
        return proven is not None and self._now_s() - proven[1] < _PROVEN_S

    def send(self, send: Send) -> None:
        """Send one message; it may get lost. Never blocks, never raises."""
        to, message = send.to, send.message
        connected = self._links.is_connected(to)
        if self._udp is not None and not send.link and (v1.is_datagram(message) or not connected):
            sent = self._by_datagram(self._udp, send)
            if sent and (not connected or self.is_proven(to)):
                return
        if connected:
            self._links.send(to, message)
        else:
            addresses = tuple(dict.fromkeys((*send.at, *self._addresses_of(to))))
            self._links.send_after_dial(Contact(to, addresses), message)

    def _by_datagram(self, udp: UdpSocket, send: Send) -> bool:
        """Send by UDP if there is an address and the message is fit for it; False if it must go another way."""
        if not v1.is_datagram(send.message) and not v1.is_spare_datagram(send.message):
            return False
        proven = self._proven.get(send.to)
        if proven is not None and self.is_proven(send.to):
            return udp.send(send.to, proven[0], send.message)
        for address in (*send.at, *self._addresses_of(send.to)):
            if address.startswith("udp:"):
                return udp.send(send.to, address, send.message)
        return False
