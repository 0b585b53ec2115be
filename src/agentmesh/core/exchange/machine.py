"""The exchange machine: links, contacts, whom to dial, who went silent, who sends too much (docs/spec/exchange.md §4).

Connected nodes tell each other whom they are connected to. Hearing of a node means dialling it until ``links_max`` links
are up, so a few nodes on a LAN become fully connected and many become a random graph. It never trusts an address: the
transport proves the key.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from agentmesh.core.exchange.config import ExchangeConfig
from agentmesh.core.exchange.contacts import WORDS, Contact, Contacts
from agentmesh.core.exchange.messages import (
    Bye,
    ClockSkew,
    DialWanted,
    PeerHint,
    PeerLeft,
    Peers,
    PeerSilent,
    Ping,
    Pong,
    StoreContact,
)
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.core.messages import AddressHint, PeerDown, PeerUp, Received, WallClock
from agentmesh.errors import MeshError
from agentmesh.ids import NodeId, parse_node_id

TICK = "exchange.tick"
DIAL = "exchange.dial"
_TICK_S = 1.0
#: A flooding peer is reported once in so many seconds, not once per message.
_FLOOD_REPORT_S = 10.0
_STORED = WORDS.index("stored")


class Bucket:
    """A token bucket: ``per_s`` sustained, ``burst`` at once."""

    __slots__ = ("_at_s", "_left", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self.per_s, self.burst = per_s, burst
        self._left, self._at_s = burst, now_s

    def take(self, count: float, now_s: float) -> bool:
        """Take tokens; False, and nothing is taken, if there are too few."""
        self._left = min(self.burst, self._left + (now_s - self._at_s) * self.per_s)
        self._at_s = now_s
        if count > self._left:
            return False
        self._left -= count
        return True


@dataclass(slots=True, eq=False)
class _Session:
    """What is kept about a connected peer."""

    heard_s: float
    messages: Bucket
    items: Bucket
    told: int = -1
    ping: tuple[int, float] | None = None
    flood_told_s: float = -1e9
    skewed: bool = False
    silent_told: bool = False


class Exchange:
    """Peer exchange of one node.

    Args:
        node_id: This node.
        config: Bounds and intervals.
        rng: For jitter and nonces.
    """

    def __init__(self, node_id: NodeId, config: ExchangeConfig, rng: random.Random) -> None:
        self.node_id = node_id
        self.config = config
        self.contacts = Contacts(config)
        self.links: dict[NodeId, _Session] = {}
        self._rng = rng
        self._clock: tuple[float, float] | None = None
        self._started = False
        self._version = 0
        self._next_peers_s = 0.0
        self._dialled: list[float] = []
        self._dial_token = 0
        self._dial_at_s = float("inf")
        self._contacts_changed = False

    def handle(self, incoming: object, now_s: float, out: Outbox) -> None:
        """Take one input (``core.messages``) and write effects."""
        if not self._started:
            self._started = True
            self._next_peers_s = now_s + self.config.peers_interval_s
            out.after(_TICK_S, Timer(TICK))
        if isinstance(incoming, Timer):
            self._on_timer(incoming, now_s, out)
        elif isinstance(incoming, Received):
            self._on_received(incoming, now_s, out)
        elif isinstance(incoming, WallClock):
            self._clock = (incoming.unix_s, now_s)
        elif isinstance(incoming, PeerUp):
            self._on_peer_up(incoming, now_s, out)
        elif isinstance(incoming, PeerDown):
            self._on_peer_down(incoming.peer, now_s)
        elif isinstance(incoming, AddressHint):
            self._note(incoming.node_id, list(incoming.addresses), incoming.source, now_s)
        if self._contacts_changed or now_s >= self._dial_at_s:
            self._contacts_changed = False
            self._dial(now_s, out)

    def admits(self, received: Received, items: int, now_s: float, out: Outbox) -> bool:
        """Say whether a peer may send this much; drop the message if not.

        Args:
            received: The message.
            items: Entries in it.
            now_s: Monotonic seconds.
            out: A flood is reported here.
        """
        session = self.links.get(received.peer)
        if session is None:
            return False
        session.heard_s = now_s
        session.silent_told = False
        if session.messages.take(1, now_s) and session.items.take(items, now_s):
            return True
        if now_s - session.flood_told_s >= _FLOOD_REPORT_S:
            session.flood_told_s = now_s
            kind = type(received.message).__name__
            out.emit(PeerMisbehaved(received.peer, "peer.flood", f"more control messages than agreed, last a {kind}"))
        return False

    def leave(self, reason: str, out: Outbox) -> None:
        """Say goodbye to every peer."""
        for peer in self.links:
            out.send(peer, Bye(reason=reason[:200]))

    def addresses_of(self, node: NodeId) -> tuple[str, ...]:
        """Return where a node might be reached, best first; empty if unknown."""
        contact = self.contacts.known.get(node)
        return contact.addresses if contact is not None else ()

    # Links

    def _on_peer_up(self, up: PeerUp, now_s: float, out: Outbox) -> None:
        config = self.config
        self.links[up.peer] = _Session(
            heard_s=now_s,
            messages=Bucket(config.messages_per_s, config.messages_burst, now_s),
            items=Bucket(config.items_per_s, config.items_burst, now_s),
        )
        proven = up.addresses[:1] if up.source == "link" else ()
        self.contacts.note(up.peer, up.addresses[len(proven) :], "self", now_s)
        self.contacts.note(up.peer, proven, "link", now_s)
        contact = self.contacts.known.get(up.peer)
        if contact is not None:
            self.contacts.met(contact, now_s)
            if contact.addresses:
                out.store(StoreContact(up.peer, contact.addresses))
        self._version += 1
        self._contacts_changed = True
        self._ping(up.peer, now_s, out)
        self._tell_peers(up.peer, out)
        if contact is not None and contact.shared:
            newcomer = Peers(peers=[PeerHint(up.peer, contact.shared)])
            for peer in self.links:
                if peer != up.peer:
                    out.send(peer, newcomer)

    def _on_peer_down(self, peer: NodeId, now_s: float) -> None:
        self.links.pop(peer, None)
        self._version += 1
        self._contacts_changed = True
        contact = self.contacts.known.get(peer)
        if contact is not None and contact.connected:
            contact.connected = False
            contact.seen_s = now_s
            contact.due_s = now_s + self._wait_s(contact)

    def _on_received(self, received: Received, now_s: float, out: Outbox) -> None:
        peer, message = received.peer, received.message
        session = self.links.get(peer)
        if session is None:
            return
        if isinstance(message, Peers):
            self._on_peers(peer, message, now_s, out)
        elif isinstance(message, Ping):
            clock_ms = int(self._unix_s(now_s) * 1000)
            out.send(peer, Pong(nonce=message.nonce, clock_ms=max(0, clock_ms)))
        elif isinstance(message, Pong):
            self._on_pong(peer, session, message, now_s, out)
        elif isinstance(message, Bye):
            out.emit(PeerLeft(peer, message.reason[:200]))

    def _on_peers(self, peer: NodeId, message: Peers, now_s: float, out: Outbox) -> None:
        if len(message.peers) > self.config.hints_max:
            out.emit(PeerMisbehaved(peer, "exchange.batch", f"{len(message.peers)} peers in one message"))
            return
        for hint in message.peers:
            try:
                node = parse_node_id(hint.node_id)
            except MeshError as error:
                out.emit(PeerMisbehaved(peer, error.code, error.detail))
                return
            if node == peer:
                self._note(node, hint.addresses, "self", now_s)
            elif hint.addresses:
                self._note(node, hint.addresses, "peer", now_s, told_by=peer)

    def _on_pong(self, peer: NodeId, session: _Session, pong: Pong, now_s: float, out: Outbox) -> None:
        if session.ping is None or session.ping[0] != pong.nonce:
            return
        sent_s = session.ping[1]
        session.ping = None
        if pong.clock_ms <= 0 or self._clock is None:
            return
        skew_s = pong.clock_ms / 1000 - self._unix_s((sent_s + now_s) / 2)
        skewed = abs(skew_s) - (now_s - sent_s) / 2 > self.config.skew_s
        if skewed != session.skewed:
            session.skewed = skewed
            out.emit(ClockSkew(peer, round(skew_s, 1) if skewed else 0.0))

    def _unix_s(self, now_s: float) -> float:
        if self._clock is None:
            return 0.0
        return self._clock[0] + (now_s - self._clock[1])

    # Time

    def _on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        if timer.name != TICK:
            return  # any timer makes ``handle`` look for dials that are due
        out.after(_TICK_S, Timer(TICK))
        for peer, session in self.links.items():
            quiet_s = now_s - session.heard_s
            if quiet_s >= self.config.silent_s:
                if not session.silent_told:
                    session.silent_told = True
                    out.emit(PeerSilent(peer))
            elif quiet_s >= self.config.ping_interval_s and (
                session.ping is None or now_s - session.ping[1] >= self.config.ping_interval_s
            ):
                self._ping(peer, now_s, out)
        if now_s >= self._next_peers_s:
            self._next_peers_s = now_s + self.config.peers_interval_s * self._rng.uniform(0.9, 1.0)
            for peer in self.links:
                self._tell_peers(peer, out)
            self._forget_old(now_s)

    def _ping(self, peer: NodeId, now_s: float, out: Outbox) -> None:
        nonce = self._rng.getrandbits(32)
        self.links[peer].ping = (nonce, now_s)
        out.send(peer, Ping(nonce=nonce))

    def _tell_peers(self, peer: NodeId, out: Outbox) -> None:
        """Tell a peer whom we know, connected ones first, unless it was told already."""
        session = self.links[peer]
        if session.told == self._version:
            return
        session.told = self._version
        known = [c for c in self.contacts.known.values() if c.node_id != peer and (c.connected or c.met) and c.shared]
        known.sort(key=lambda c: (not c.connected, c.attempts))
        hints = [PeerHint(c.node_id, c.shared) for c in known[: self.config.hints_max]]
        out.send(peer, Peers(peers=hints))

    def _forget_old(self, now_s: float) -> None:
        for contact in list(self.contacts.known.values()):
            if not contact.connected and not contact.pinned and now_s - contact.seen_s > self.config.forget_s:
                self.contacts.forget(contact)

    # Dialling

    def _note(
        self, node: NodeId, addresses: list[str], source: str, now_s: float, told_by: NodeId | None = None
    ) -> None:
        if node == self.node_id:
            return
        fresh = node not in self.contacts.known
        contact = self.contacts.note(node, addresses, source, now_s, told_by)
        if contact is None:
            return
        if node in self.links and not contact.connected:
            self.contacts.met(contact, now_s)  # there was no room for it when its link came up
        if contact.connected:
            return
        self._contacts_changed = True
        staggered = source in ("mdns", "peer") and self.node_id > node
        due_s = now_s + (self.config.dial_stagger_s if staggered else 0.0)
        if fresh:
            contact.due_s = due_s
        elif contact.attempts and source != "peer":
            # A new address from a good source is worth a try now; hearsay must not make us dial more often.
            contact.attempts = min(contact.attempts, 1)
            contact.due_s = min(contact.due_s, due_s)

    def _dial(self, now_s: float, out: Outbox) -> None:
        """Ask for the dials that are due, then for a timer when the next one is."""
        window_s = self.config.dial_first_s
        self._dialled = [at for at in self._dialled if now_s - at < window_s]
        waiting = sorted(
            (c for c in self.contacts.known.values() if not c.connected and c.words and self._has_room(c)),
            key=lambda c: (c.due_s, c.best, c.node_id),
        )
        for contact in waiting:
            if contact.due_s > now_s or len(self._dialled) >= self.config.dials_at_once:
                break
            if contact.attempts >= self.config.attempts_max and not contact.met and contact.best > _STORED:
                self.contacts.forget(contact)
                continue
            self._dialled.append(now_s)
            contact.attempts += 1
            contact.due_s = now_s + self._wait_s(contact)
            out.emit(DialWanted(contact.node_id, contact.addresses))
        next_s = min((c.due_s for c in waiting if c.node_id in self.contacts.known), default=float("inf"))
        if len(self._dialled) >= self.config.dials_at_once:
            next_s = max(next_s, self._dialled[0] + window_s)
        if next_s != self._dial_at_s:
            self._dial_at_s = next_s
            if next_s < float("inf"):
                self._dial_token += 1
                out.after(max(0.0, next_s - now_s), Timer(DIAL, self._dial_token))

    def _has_room(self, contact: Contact) -> bool:
        return len(self.links) < self.config.links_max or contact.pinned

    def _wait_s(self, contact: Contact) -> float:
        wait_s = min(self.config.dial_wait_s_max, self.config.dial_first_s * 2.0 ** (min(contact.attempts, 20) - 1))
        return wait_s * self._rng.uniform(1 - self.config.dial_jitter, 1 + self.config.dial_jitter)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of peer exchange is broken."""
        self.contacts.assert_invariants()
        assert self.node_id not in self.contacts.known
        assert self.node_id not in self.links
        assert len(self._dialled) <= self.config.dials_at_once
        for node, contact in self.contacts.known.items():
            assert contact.connected == (node in self.links)
