"""The contacts machine: where nodes are, whom to dial, who sends too much, and what was lost (docs/spec/contacts.md).

Which nodes should be neighbours is decided by the overlay; this machine sees to it that there are links to them, that nodes
which the operator named or which were heard on the LAN are met once, and that lost nodes are tried again until they answer,
so that a healed partition is found from both sides. It never trusts an address: the transport proves the key.
"""

from __future__ import annotations

import random

from agentmesh.core.contacts.book import WORDS, Book, Contact
from agentmesh.core.contacts.config import ContactsConfig
from agentmesh.core.contacts.guard import Guard
from agentmesh.core.contacts.messages import ClockSkew, CutOff, DialWanted, ForgetContact, HangUp, StoreContact
from agentmesh.core.machine import Outbox, Timer, WallTime
from agentmesh.core.messages import (
    AddressHint,
    MemberAlive,
    MemberDead,
    MemberLeft,
    NeighbourDown,
    NeighbourUp,
    NodeHeard,
    PeerDown,
    PeerUp,
)
from agentmesh.ids import NodeId

DIAL = "contacts.dial"
TEND = "contacts.tend"
#: How often old contacts are forgotten and superfluous links given up, seconds.
_TEND_S = 30.0
#: Dials are looked at no more often than this, seconds: clocks that count in steps may wake us a hair too early.
_STEP_S = 0.02
_STORED = WORDS.index("stored")


class Contacts:
    """Contacts of one node.

    Args:
        node_id: This node.
        config: Bounds and intervals.
        rng: For jitter and for the choice of lost nodes.
        wall: The wall clock.
    """

    def __init__(self, node_id: NodeId, config: ContactsConfig, rng: random.Random, wall: WallTime) -> None:
        self.node_id = node_id
        self.config = config
        self.book = Book(config)
        self.links: dict[NodeId, float] = {}
        self.guard = Guard(config)
        self._rng, self._wall = rng, wall
        self._started = False
        self._neighbours: dict[NodeId, None] = {}
        self._waiting: dict[NodeId, Contact] = {}
        self._lost: dict[NodeId, float] = {}
        self._settled: dict[NodeId, None] = {}
        self._skewed: dict[NodeId, None] = {}
        self._dialled: list[float] = []
        self._dial_token = 0
        self._dial_at_s = float("inf")
        self._reunite_at_s = 0.0
        self._changed = False
        self._said: tuple[int, bool] | None = None

    def handle(self, incoming: object, now_s: float, out: Outbox) -> None:
        """Take one input or fact (``core.messages``) and write effects."""
        if not self._started:
            self._started = True
            out.after(_TEND_S, Timer(TEND))
        kind = type(incoming)
        if kind is NodeHeard:
            self._on_heard(incoming, now_s)  # pyright: ignore[reportArgumentType]
        elif kind is Timer:
            self._on_timer(incoming, now_s, out)  # pyright: ignore[reportArgumentType]
        elif isinstance(incoming, PeerUp):
            self._on_peer_up(incoming, now_s, out)
        elif isinstance(incoming, PeerDown):
            self._on_peer_down(incoming.peer, now_s, out)
        elif isinstance(incoming, NeighbourUp):
            self._on_neighbour(incoming.node, now_s, wanted=True)
        elif isinstance(incoming, NeighbourDown):
            self._on_neighbour(incoming.node, now_s, wanted=False)
        elif isinstance(incoming, AddressHint):
            self._on_hint(incoming, now_s)
        elif isinstance(incoming, MemberDead):
            self._lose(incoming.node, now_s, out)
        elif isinstance(incoming, MemberAlive | MemberLeft):
            self._regain(incoming.node, now_s, out)
        if self._changed or now_s >= self._dial_at_s:
            self._changed = False
            self._dial(now_s, out)

    def note_clock(self, peer: NodeId, clock_ms: int, now_s: float, out: Outbox) -> None:
        """Compare a peer's wall clock, as it just told it, with ours; tell when a large difference begins and ends.

        The time the message took is not known here and far below the allowance.
        """
        if clock_ms <= 0:
            return
        skew_s = clock_ms / 1000 - self._wall.unix_s(now_s)
        skewed = abs(skew_s) > self.config.skew_s
        if skewed == (peer in self._skewed):
            return
        if skewed:
            if len(self._skewed) >= self.config.guards_max:
                return
            self._skewed[peer] = None
        else:
            del self._skewed[peer]
        out.emit(ClockSkew(peer, round(skew_s, 1) if skewed else 0.0))

    def addresses_of(self, node: NodeId) -> tuple[str, ...]:
        """Return where a node might be reached, best first; empty if unknown."""
        contact = self.book.known.get(node)
        return contact.addresses if contact is not None else ()

    def cut_off(self) -> CutOff | None:
        """Return what was lost if that is much of what was known; None while the node is well connected or never was."""
        reach = {node: None for node in self._neighbours if node not in self._lost}
        reach.update((node, None) for node in self.links if node not in self._lost)
        since = [at_s for node, at_s in self._lost.items() if node not in self._settled or not reach]
        known = len(since) + len(reach)
        if not since or len(since) < known * self.config.cut_off_ratio:
            return None
        return CutOff(len(since), known, min(since), isolated=not reach)

    def lost(self) -> list[NodeId]:
        """Return the nodes that were lost and did not come back, in order of loss."""
        return list(self._lost)

    # Links and neighbours

    def _on_peer_up(self, up: PeerUp, now_s: float, out: Outbox) -> None:
        if up.peer == self.node_id:
            return
        self.links[up.peer] = now_s
        proven = up.addresses[:1] if up.source == "link" else ()
        self.book.note(up.peer, up.addresses[len(proven) :], "self", now_s)
        self.book.note(up.peer, proven, "link", now_s)
        contact = self.book.known.get(up.peer)
        if contact is not None:
            self.book.met(contact, now_s)
            self._waiting.pop(up.peer, None)
            if contact.addresses:
                out.store(StoreContact(up.peer, contact.addresses))
        self._regain(up.peer, now_s, out)
        self._changed = True

    def _on_peer_down(self, peer: NodeId, now_s: float, out: Outbox) -> None:
        if self.links.pop(peer, None) is None:
            return
        if peer in self._skewed:
            del self._skewed[peer]
        self._changed = True
        contact = self.book.known.get(peer)
        if contact is not None:
            contact.connected = False
            contact.seen_s = now_s
            contact.due_s = now_s + 0.5 * self._wait_s(contact)
            self._waiting[peer] = contact
        self._tell(now_s, out)

    def _on_neighbour(self, node: NodeId, now_s: float, *, wanted: bool) -> None:
        if wanted:
            self._neighbours[node] = None
        else:
            self._neighbours.pop(node, None)
        contact = self.book.known.get(node)
        if contact is None:
            return
        self.book.want(contact, wanted)
        if wanted and not contact.connected:
            contact.due_s = min(contact.due_s, now_s) if contact.attempts else self._first_due_s(node, "peer", now_s)
            self._waiting[node] = contact
            self._changed = True

    def _on_heard(self, heard: NodeHeard, now_s: float) -> None:
        record = heard.record
        if record.node_id == self.node_id:
            return
        contact = self.book.hear(record.node_id, record.addresses, now_s)
        if contact is not None and not contact.connected and record.node_id in self._neighbours:
            self.book.want(contact, True)
            self._waiting[record.node_id] = contact
            self._changed = True

    def _on_hint(self, hint: AddressHint, now_s: float) -> None:
        node = hint.node_id
        if node == self.node_id:
            return
        fresh = node not in self.book.known or self.book.known[node].heard
        contact = self.book.note(node, hint.addresses, hint.source, now_s)
        if contact is None:
            return
        if node in self.links:
            if not contact.connected:
                self.book.met(contact, now_s)  # there was no room for it when its link came up
            return
        self._waiting[node] = contact
        self._changed = True
        due_s = self._first_due_s(node, hint.source, now_s)
        if fresh:
            contact.due_s = due_s
        elif contact.attempts and hint.source != "peer":
            # A new address from a good source is worth a try now; hearsay must not make us dial more often.
            contact.attempts = min(contact.attempts, 1)
            contact.due_s = min(contact.due_s, due_s)

    def _first_due_s(self, node: NodeId, source: str, now_s: float) -> float:
        staggered = source in ("mdns", "peer") and self.node_id > node
        return now_s + (self.config.dial_stagger_s if staggered else 0.0)

    # What was lost

    def _lose(self, node: NodeId, now_s: float, out: Outbox) -> None:
        if node in self._lost or len(self._lost) >= self.config.lost_max:
            return
        self._lost[node] = now_s
        self._reunite_at_s = min(self._reunite_at_s, now_s) if len(self._lost) > 1 else now_s
        self._changed = True
        self._tell(now_s, out)

    def _regain(self, node: NodeId, now_s: float, out: Outbox) -> None:
        if self._lost.pop(node, None) is not None:
            self._settled.pop(node, None)
            self._changed = True
            self._tell(now_s, out)

    def _tell(self, now_s: float, out: Outbox) -> None:
        """Emit CutOff when the verdict changes enough to matter: begins, ends, becomes isolation, or another count."""
        verdict = self.cut_off()
        said = (verdict.lost, verdict.isolated) if verdict is not None else None
        if said != self._said:
            self._said = said
            out.emit(verdict or CutOff(0, 0, now_s, isolated=False))

    # Time and dialling

    def _on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        if timer.name == DIAL:
            if timer.token == self._dial_token:
                self._dial_at_s = float("inf")
                self._changed = True
        elif timer.name == TEND:
            out.after(_TEND_S, Timer(TEND))
            self._tend(now_s, out)

    def _tend(self, now_s: float, out: Outbox) -> None:
        for contact in list(self.book.known.values()):
            if not contact.kept and not contact.heard and now_s - contact.seen_s > self.config.forget_s:
                self._drop(contact, out)
        for node, at_s in self._lost.items():
            if now_s - at_s > self.config.cut_off_told_s:
                self._settled[node] = None
        self._tell(now_s, out)
        spare = [n for n in self.links if n not in self._neighbours and not self._is_pinned(n)]
        over = len(spare) - self.config.links_spare_max
        if over > 0:
            for node in sorted(spare, key=self.links.__getitem__)[:over]:
                out.emit(HangUp(node))

    def _is_pinned(self, node: NodeId) -> bool:
        contact = self.book.known.get(node)
        return contact is not None and contact.pinned

    def _drop(self, contact: Contact, out: Outbox) -> None:
        self.book.forget(contact)
        self._waiting.pop(contact.node_id, None)
        self._lost.pop(contact.node_id, None)
        self._settled.pop(contact.node_id, None)
        out.store(ForgetContact(contact.node_id))

    def _dial(self, now_s: float, out: Outbox) -> None:
        """Ask for the dials that are due, then for a timer when the next one is."""
        if not self._waiting and not self._lost and len(self.links) >= self.config.links_min:
            return
        window_s = self.config.dial_first_s
        if self._dialled and now_s - self._dialled[0] >= window_s:
            self._dialled = [at for at in self._dialled if now_s - at < window_s]
        self._reunite(now_s, out)
        if len(self._dialled) >= self.config.dials_at_once:
            # No room before the first dial is over: whom to dial then is worked out then, not at every input until then.
            next_s = self._dialled[0] + window_s
            self._wake(min(next_s, self._reunite_at_s) if self._lost else next_s, now_s, out)
            return
        waiting = self._worth_dialling()
        due = [contact for contact in waiting if contact.due_s <= now_s]
        due.sort(key=lambda c: (c.due_s, c.best, c.node_id))
        for contact in due:
            if len(self._dialled) >= self.config.dials_at_once:
                break
            spent = contact.attempts >= self.config.attempts_max and contact.best > _STORED
            if spent and not (contact.met or contact.wanted):
                self._drop(contact, out)
                continue
            self._ask(contact, now_s, out)
        next_s = min((c.due_s for c in waiting if c.node_id in self.book.known), default=float("inf"))
        if len(self._dialled) >= self.config.dials_at_once:
            next_s = max(next_s, self._dialled[0] + window_s)
        if self._lost:
            next_s = min(next_s, self._reunite_at_s)
        self._wake(next_s, now_s, out)

    def _wake(self, at_s: float, now_s: float, out: Outbox) -> None:
        """See to it that dials are looked at again at ``at_s`` or before."""
        if at_s < self._dial_at_s:
            self._dial_at_s = at_s
            self._dial_token += 1
            out.after(max(_STEP_S, at_s - now_s), Timer(DIAL, self._dial_token))

    def _reunite(self, now_s: float, out: Outbox) -> None:
        """Dial one lost node, chosen at random, if it is time."""
        if not self._lost or now_s < self._reunite_at_s:
            return
        self._reunite_at_s = now_s + self.config.reunite_interval_s * self._rng.uniform(0.8, 1.2)
        lost = [n for n in self._lost if n not in self.links and n in self.book.known]
        if lost and len(self._dialled) < self.config.dials_at_once:
            self._ask(self.book.known[self._rng.choice(lost)], now_s, out)

    def _ask(self, contact: Contact, now_s: float, out: Outbox) -> None:
        self._dialled.append(now_s)
        contact.attempts += 1
        contact.due_s = now_s + self._wait_s(contact)
        if contact.words:
            out.emit(DialWanted(contact.node_id, contact.addresses))

    def _worth_dialling(self) -> list[Contact]:
        """Return whom to dial now or later: the wanted, the named and the newly heard of; anybody while links are few."""
        known = self.book.known
        if len(self.links) < self.config.links_min:
            return [c for c in known.values() if not c.connected and c.words]
        for node in [n for n, c in self._waiting.items() if known.get(n) is not c or not _is_sought(c)]:
            del self._waiting[node]
        return list(self._waiting.values())

    def _wait_s(self, contact: Contact) -> float:
        wait_s = min(
            self.config.dial_wait_s_max, self.config.dial_first_s * 2.0 ** max(0, min(contact.attempts, 20) - 1)
        )
        return wait_s * self._rng.uniform(1 - self.config.dial_jitter, 1 + self.config.dial_jitter)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule is broken."""
        self.book.assert_invariants()
        self.guard.assert_invariants()
        assert self.node_id not in self.book.known
        assert self.node_id not in self.links
        assert len(self._dialled) <= self.config.dials_at_once
        assert len(self._lost) <= self.config.lost_max
        assert all(node in self._lost for node in self._settled)
        for node, contact in self.book.known.items():
            assert not contact.connected or node in self.links


def _is_sought(contact: Contact) -> bool:
    """Say whether a link to it is wanted for its own sake: a neighbour, named, or fresh word of a node never met."""
    if contact.connected or not contact.words:
        return False
    return contact.wanted or contact.pinned or (not contact.met and contact.best != _STORED)
