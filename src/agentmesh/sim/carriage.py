"""Carrying messages between nodes: datagrams, and links that are dialled, go silent and break (docs/spec/simulator.md §4).

Which way a message goes is decided as in ``node.paths``; links behave as those of ``node.links`` over QUIC.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from agentmesh.core.contacts.messages import DialWanted, HangUp
from agentmesh.core.messages import MemberDead, PeerDown, PeerUp, Received
from agentmesh.errors import MeshError, ReplayError
from agentmesh.ids import NodeId
from agentmesh.sim.links import Link
from agentmesh.sim.node import DOWN, UP, SimNode
from agentmesh.wire import v1
from agentmesh.wire.envelope import OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, WINDOW_MS, open_envelope, seal

if TYPE_CHECKING:
    from agentmesh.core.machine import Send
    from agentmesh.sim.world import World

#: Bytes around a message: IP and UDP headers and the signed envelope of a datagram …
_DATAGRAM_EXTRA = 28 + OVERHEAD_BYTES
#: … or the headers and authentication tag of a QUIC packet and the length of a frame (IP, UDP 28; QUIC 1 + 8 + 3 + 16; 4).
_LINK_EXTRA = 60
#: Messages that wait for one dial, and for packets to pass again; what is beyond is lost (``node.links``).
_WAITING_MAX = 256
#: A datagram heard from a node within this time proves the way there (``node.paths``).
_PROVEN_US = 30_000_000
_PROVEN_MAX = 4_096


class Packet(NamedTuple):
    """Bytes on their way in a world of real bytes.

    Attributes:
        raw: A message over a link, a whole sealed datagram, or the payload of one that nobody damaged.
        peer: Who sent it, as the link or the datagram's signature proves; None if the envelope has still to be opened.
        sent_ms, nonce: Of a datagram that nobody damaged: what its envelope would say; nonce 0 = over a link.
    """

    raw: bytes
    peer: SimNode | None
    sent_ms: int = 0
    nonce: int = 0


class Kind:
    """What is known and counted about one class of messages."""

    __slots__ = ("bytes", "count", "is_datagram", "is_spare")

    def __init__(self, message: Any) -> None:
        self.is_datagram = v1.is_datagram(message)
        self.is_spare = v1.is_spare_datagram(message)
        self.count = self.bytes = 0


class Carriage:
    """Carry messages in a world.

    Attributes:
        kinds: Per class of messages: whether it is a datagram, how many were sent and how many bytes.
        refused: Packets that a decoder or an envelope refused, by code.
        cuts: Pairs of sides between which packets do not pass, in that direction.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._ether = world.ether
        self.kinds: dict[type, Kind] = {}
        self.refused: dict[str, int] = {}
        self.cuts: set[tuple[int, int]] = set()
        self._lossy = world.scenario.links.mode == "lossy"
        self._last: Any = None
        self._last_bytes = 0
        world.on_event.setdefault(DialWanted, []).append(self._on_dial_wanted)
        world.on_event.setdefault(HangUp, []).append(lambda node, event: self._drop(node, event.node_id))
        world.on_event.setdefault(MemberDead, []).append(lambda node, event: self._drop(node, event.node))

    def send_all(self, node: SimNode, sends: Iterable[Send]) -> None:
        """Put what a brain sends on its way."""
        if node.mask is not None:
            sends = node.mask.alter(sends)
        kinds = self.kinds
        for to, message, at, over_link in sends:
            cls: type[Any] = message.__class__
            kind = kinds.get(cls)
            if kind is None:
                kind = kinds[cls] = Kind(message)
            if message is not self._last:  # encoded once however many peers it is sent to in a row
                self._last, self._last_bytes = message, len(v1.encode(message))
            size = self._last_bytes
            kind.count += 1
            kind.bytes += size
            link = node.links.get(to)
            if not over_link and (kind.is_datagram or (link is None and kind.is_spare)) and size <= PAYLOAD_BYTES_MAX:
                heard_us = node.proven.get(to)
                proven = heard_us is not None and self._world.now_us - heard_us < _PROVEN_US
                if self._send_datagram(node, to, message, at, size, proven=proven) and (link is None or proven):
                    continue
            if link is None:
                self._dial(node, to, (*at, *node.brain.addresses_of(to)), message, size)
            else:
                self.send_over_link(node, link, message, size)

    # Datagrams

    def _send_datagram(
        self, node: SimNode, to: NodeId, message: Any, at: tuple[str, ...], size: int, *, proven: bool
    ) -> bool:
        """Send a datagram to where the last one came from, or to the first address known; False if there is none.

        It may get lost all the same.
        """
        world, ether = self._world, self._ether
        if proven:
            dest = world.by_id[to]
        else:
            for address in at or node.brain.addresses_of(to):
                if address.startswith("udp:"):
                    break
            else:
                return False
            dest = world.by_address.get(address)
        size += _DATAGRAM_EXTRA
        node.bytes_out += size
        if dest is None or dest.node_id != to or dest.state == DOWN or (ether.loss and ether.is_lost()):
            return True
        if self.cuts and not self.passes(node, dest):
            return True
        delay_us = ether.delay_us(node, dest)
        if world.real or ether.flip:
            payload = self._packed(node, to, message)
            if payload is None:
                return True
        else:
            payload = Received(node.node_id, message)
        at_us = world.now_us + delay_us
        if ether.reorder:
            at_us += ether.held_us(delay_us)
        heard = dest.proven
        if len(heard) >= _PROVEN_MAX and node.node_id not in heard:
            del heard[next(iter(heard))]
        heard[node.node_id] = at_us
        world.push(at_us, dest, 0, payload, size)
        if ether.duplicate and ether.is_doubled():
            world.push(world.now_us + ether.delay_us(node, dest), dest, 0, payload, size)
        return True

    def _packed(self, node: SimNode, to: NodeId, message: Any) -> Any:
        """Return what arrives of a datagram: bytes, possibly damaged, or the message itself; None = refused unread."""
        world, ether = self._world, self._ether
        if not world.real:
            return None if ether.is_flipped() else Received(node.node_id, message)
        node.nonce += 1
        payload, sent_ms = self._encoded(node, message), world.duties.unix_ms(node)
        flipped = ether.is_flipped()
        if not flipped and not world.sealed:
            return Packet(payload, node, sent_ms, node.nonce)  # its signature would hold: neither made nor checked
        raw = seal(node.key, to, payload, sent_ms=sent_ms, nonce=node.nonce)
        return Packet(flip_bit(raw, world.rng.randrange(8 * len(raw))) if flipped else raw, None)

    def _encoded(self, node: SimNode, message: Any) -> bytes:
        """Return the bytes of a message; a lying node may damage them before they are signed or encrypted."""
        raw = v1.encode(message)
        if node.mask is not None and self._world.rng.random() < self._world.scenario.byzantine.garble:
            return flip_bit(raw, self._world.rng.randrange(8 * len(raw)))
        return raw

    def read(self, node: SimNode, packet: Packet) -> Received | None:
        """Decode what arrived, as the daemon does; None if it is refused."""
        try:
            if packet.nonce:
                return self._read_undamaged(node, packet)
            if packet.peer is not None:
                return Received(packet.peer.node_id, v1.decode_control(packet.raw), by_link=True)
            opened = open_envelope(packet.raw, node.node_id, self._world.duties.unix_ms(node), node.replays)
            return Received(opened.sender, v1.decode_datagram(opened.payload))
        except MeshError as error:
            self.refused[error.code] = self.refused.get(error.code, 0) + 1
            if packet.peer is not None and not packet.nonce and (link := node.links.get(packet.peer.node_id)):
                self.break_link(link)  # what cannot be decoded ends a control stream
            return None

    def _read_undamaged(self, node: SimNode, packet: Packet) -> Received:
        """Judge time and nonce as ``open_envelope`` does, and decode. Raises MeshError."""
        assert packet.peer is not None
        key, now_ms = packet.peer.key.public, self._world.duties.unix_ms(node)
        if abs(now_ms - packet.sent_ms) > WINDOW_MS:
            raise ReplayError("a datagram whose time is too far from ours", code="datagram.stale")
        node.replays.check(key, packet.nonce, now_ms)
        node.replays.admit(key, packet.nonce, packet.sent_ms, now_ms)
        return Received(packet.peer.node_id, v1.decode_datagram(packet.raw))

    # Links

    def send_over_link(self, node: SimNode, link: Link, message: Any, size: int) -> None:
        """Send a message over a link of a node."""
        node.bytes_out += size + _LINK_EXTRA
        dest = link.acceptor if link.dialler is node else link.dialler
        if dest.state == DOWN or not link.is_current(dest):
            return
        if self.cuts and not self.passes(node, dest):
            if link.stalled is None:
                link.stalled = []
            if len(link.stalled) < _WAITING_MAX:
                link.stalled.append((node, message, size))
            return
        ether, side = self._ether, 0 if link.dialler is node else 1
        delay_us = ether.delay_us(node, dest)
        at_us = self._world.now_us + delay_us
        if not self._lossy:
            at_us += ether.resent_us(delay_us)
        elif ether.is_lost():
            return
        if at_us <= link.ready_us[side]:
            at_us = link.ready_us[side] + 1  # a stream keeps its order: what is lost holds up what follows
        link.ready_us[side] = at_us
        payload: Any = Received(node.node_id, message, by_link=True)
        if self._world.real:
            payload = Packet(self._encoded(node, message), node)
        self._world.push(at_us, dest, dest.life, payload, size + _LINK_EXTRA)

    def _on_dial_wanted(self, node: SimNode, wanted: DialWanted) -> None:
        if wanted.node_id not in node.links:
            self._dial(node, wanted.node_id, wanted.addresses)

    def _drop(self, node: SimNode, peer: NodeId) -> None:
        link = node.links.get(peer)
        if link is not None:
            self.break_link(link)

    def _dial(self, node: SimNode, to: NodeId, addresses: tuple[str, ...], message: Any = None, size: int = 0) -> None:
        """Try to reach a peer at any of these addresses; the message goes once the link is up."""
        waiting = node.dialling.get(to)
        if waiting is None:
            dest = next((d for a in addresses if (d := self._world.by_address.get(a)) and d.node_id == to), None)
            if dest is None or dest is node:
                return
            waiting = node.dialling[to] = []
            ether = self._ether
            trip_us = ether.delay_us(node, dest) + ether.delay_us(dest, node)
            trip_us += ether.resent_us(trip_us // 2) + ether.resent_us(trip_us // 2)
            lives = node.life, dest.life
            self._world.call(trip_us * 1e-6, lambda: self._on_answered(node, dest, lives))
        if message is not None and len(waiting) < _WAITING_MAX:
            waiting.append((message, size))

    def _on_answered(self, node: SimNode, dest: SimNode, lives: tuple[int, int]) -> None:
        """Finish a dial: a link, or, if nobody answers, silence until the dial times out."""
        if node.life != lives[0] or node.state == DOWN:
            return
        old = node.links.get(dest.node_id)
        if old is not None and old.is_current(dest):
            self._flush(node, dest.node_id)
            return
        if dest.state != UP or not self.passes(node, dest) or not self.passes(dest, node):
            self._world.call(self._world.scenario.links.dial_timeout_s, lambda: self._give_up(node, lives[0], dest))
            return
        for end, peer in ((node, dest), (dest, node)):
            if (stale := end.links.pop(peer.node_id, None)) is not None:
                stale.other(end).links.pop(end.node_id, None)
                self._world.feed(end, PeerDown(peer.node_id))  # the peer came back before its old link broke
        link = Link(node, dest)
        node.links[dest.node_id] = dest.links[node.node_id] = link
        self._world.push(self._world.now_us, node, node.life, PeerUp(dest.node_id, (dest.address,), "link"), 0)
        self._world.push(self._world.now_us, dest, dest.life, PeerUp(node.node_id, (node.address,), "peer"), 0)
        self._flush(node, dest.node_id)

    def _give_up(self, node: SimNode, life: int, dest: SimNode) -> None:
        if node.life == life:
            node.dialling.pop(dest.node_id, None)

    def _flush(self, node: SimNode, to: NodeId) -> None:
        waiting, link = node.dialling.pop(to, ()), node.links[to]
        for message, size in waiting:
            self.send_over_link(node, link, message, size)

    def break_link(self, link: Link) -> None:
        """End a link; the ends that still hold it are told."""
        for end in (link.dialler, link.acceptor):
            peer = link.other(end).node_id
            if end.links.get(peer) is link:
                del end.links[peer]
                if end.state != DOWN:
                    self._world.feed(end, PeerDown(peer))

    def lose_links(self, node: SimNode) -> None:
        """Forget the links of a node that crashed; its peers learn of it when theirs go idle."""
        links = list(node.links.values())
        node.links.clear()
        node.dialling.clear()
        for link in links:
            self._watch_idle(link)

    def close_links(self, node: SimNode) -> None:
        """End all links of a node that stops in good order; its peers are told at once."""
        for link in list(node.links.values()):
            self.break_link(link)
        node.dialling.clear()

    def _watch_idle(self, link: Link) -> None:
        """Break a link after the idle timeout unless packets pass by then, both ways."""
        self._world.call(self._world.scenario.links.idle_timeout_s, lambda: self._break_if_silent(link))

    def _break_if_silent(self, link: Link) -> None:
        a, b = link.dialler, link.acceptor
        for end in (a, b):
            if end.state != UP or not link.is_current(end):
                self.break_link(link)
                return
        if not self.passes(a, b) or not self.passes(b, a):
            self.break_link(link)

    # Partitions and pauses

    def passes(self, a: SimNode, b: SimNode) -> bool:
        """Say whether packets from one node reach another as far as partitions go."""
        return not self.cuts or (a.side, b.side) not in self.cuts

    def watch_silence(self, nodes: Iterable[SimNode]) -> None:
        """Watch the links of nodes that were just paused or cut off: those still silent after the idle timeout break."""
        seen: dict[int, Link] = {}
        for node in nodes:
            for link in node.links.values():
                seen[id(link)] = link
        for link in seen.values():
            self._watch_idle(link)

    def heal(self) -> None:
        """Let packets pass between all sides again, and send again what waited on links that did not break."""
        self.cuts.clear()
        for node in self._world.nodes:
            node.side = 0
        for node in self._world.nodes:
            for link in list(node.links.values()):
                stalled, link.stalled = link.stalled, None
                for sender, message, size in stalled or ():
                    if link.is_current(sender) and sender.state != DOWN:
                        self.send_over_link(sender, link, message, size)


def flip_bit(raw: bytes, bit: int) -> bytes:
    """Return the bytes with one bit changed; ``bit`` counts from 0."""
    changed = bytearray(raw)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)
