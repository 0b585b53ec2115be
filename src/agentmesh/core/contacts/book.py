"""The address book: which nodes are known, where they might be reached, and whose word that is.

Addresses are hints: the key decides who answers. Still a better word is never displaced by a worse one, so that gossip
cannot hide where a node really is. No rule here reads a clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from agentmesh.core.contacts.config import ContactsConfig
from agentmesh.ids import NodeId

#: Whose word an address is, best first: proven by a link we dialled, named by the operator, signed or said by the node
#: itself, kept from an earlier run, heard on the LAN, told by another peer.
WORDS = ("link", "static", "self", "stored", "mdns", "peer")
_WORST = len(WORDS) - 1
_SELF = WORDS.index("self")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,15}:[!-~]{1,239}")


@dataclass(slots=True, eq=False)
class Contact:
    """One known node.

    Attributes:
        node_id: Its id.
        words: Address → index into ``WORDS`` of the best source, in order of arrival.
        connected: A link is up.
        heard: Known only because its signed record passed by; first to go.
        seen_s: When a link was last up, or when it was first heard of; monotonic seconds.
        met: A link was up once in this run.
        pinned: The operator named it: never forgotten, always dialled.
        wanted: A neighbour in the overlay.
        attempts: Dials in vain since.
        due_s: When to dial next.
    """

    node_id: NodeId
    seen_s: float
    words: dict[str, int] = field(default_factory=dict[str, int])
    connected: bool = False
    heard: bool = False
    met: bool = False
    pinned: bool = False
    wanted: bool = False
    attempts: int = 0
    due_s: float = 0.0

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses, best word first."""
        words = self.words
        return tuple(words) if len(words) < 2 else tuple(sorted(words, key=words.__getitem__))

    @property
    def best(self) -> int:
        """Index into ``WORDS`` of the best word about this node."""
        words = self.words
        if len(words) == 1:
            return next(iter(words.values()))
        return min(words.values(), default=_WORST)

    @property
    def source(self) -> str:
        """The best word about this node, by name."""
        return WORDS[self.best]

    @property
    def kept(self) -> bool:
        """Whether it must not make room for others."""
        return self.connected or self.pinned or self.wanted


def word_of(source: str) -> int:
    """Return the index of a source in ``WORDS``; unknown ones are hearsay."""
    return WORDS.index(source) if source in WORDS else _WORST


class Book:
    """Contacts by node id.

    Args:
        config: Bounds.
    """

    def __init__(self, config: ContactsConfig) -> None:
        self.config = config
        self.known: dict[NodeId, Contact] = {}
        self._heard: dict[NodeId, None] = {}

    def note(self, node: NodeId, addresses: Iterable[str], source: str, now_s: float) -> Contact | None:
        """Merge what somebody says about a node.

        Args:
            node: About whom.
            addresses: Where it might be; malformed ones are dropped, ``addresses_max`` are looked at.
            source: One of ``WORDS``.
            now_s: Monotonic seconds.

        Returns:
            The contact if it is new or has a new or better address; None if nothing changed or there is no room.
        """
        word = word_of(source)
        contact = self.known.get(node)
        fresh = contact is None
        if contact is None:
            if len(self.known) >= self.config.contacts_max and not self._make_room(word):
                return None
            contact = self.known[node] = Contact(node, now_s)
        elif contact.heard:
            self._unheard(contact)
        contact.pinned |= source == "static"
        changed = False
        for address in list(addresses)[: self.config.addresses_max]:
            changed |= self._merge(contact, address, word)
        return contact if changed or fresh else None

    def hear(self, node: NodeId, addresses: tuple[str, ...], now_s: float) -> Contact | None:
        """Merge the addresses of a node's signed record; an unknown node is remembered as one of ``heard_max``.

        Returns:
            The contact if an address is new; else None.
        """
        contact = self.known.get(node)
        if contact is None:
            if len(self.known) >= self.config.contacts_max and not self._make_room(_SELF):
                return None
            if len(self._heard) >= self.config.heard_max:
                del self.known[next(iter(self._heard))]
                del self._heard[next(iter(self._heard))]
            contact = self.known[node] = Contact(node, now_s, heard=True)
            self._heard[node] = None
        words, changed = contact.words, False
        for address in addresses:
            if words.get(address, _WORST + 1) > _SELF:
                changed |= self._merge(contact, address, _SELF)
        return contact if changed else None

    def forget(self, contact: Contact) -> None:
        """Drop a contact."""
        self._heard.pop(contact.node_id, None)
        del self.known[contact.node_id]

    def met(self, contact: Contact, now_s: float) -> None:
        """Note that a link to it is up."""
        self._unheard(contact)
        contact.connected = contact.met = True
        contact.attempts, contact.seen_s = 0, now_s

    def want(self, contact: Contact, wanted: bool) -> None:
        """Note whether the overlay counts it among its neighbours."""
        contact.wanted = wanted
        if wanted:
            self._unheard(contact)

    def _unheard(self, contact: Contact) -> None:
        if contact.heard:
            contact.heard = False
            del self._heard[contact.node_id]

    def _merge(self, contact: Contact, address: str, word: int) -> bool:
        words = contact.words
        if address in words:
            better = word < words[address]
            words[address] = min(word, words[address])
            return better
        if not _ADDRESS.fullmatch(address):
            return False
        if len(words) >= self.config.addresses_max:
            worst = max(words.values())
            if worst < word:
                return False
            # The oldest among the worst goes; a new word of the same worth is likelier to be true.
            del words[next(a for a, w in words.items() if w == worst)]
        words[address] = word
        return True

    def _make_room(self, word: int) -> bool:
        """Drop the longest unseen of the least vouched for, if it is not better vouched for than the newcomer."""
        if self._heard:
            node = next(iter(self._heard))
            del self._heard[node]
            del self.known[node]
            return True
        spare = [c for c in self.known.values() if not c.kept and c.best >= max(word, _SELF)]
        if not spare:
            return False
        self.forget(max(spare, key=lambda c: (c.best, not c.met, -c.seen_s, c.node_id)))
        return True

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or count is off."""
        assert len(self.known) <= self.config.contacts_max
        assert len(self._heard) <= self.config.heard_max
        assert list(self._heard) == [n for n in self._heard if self.known[n].heard]
        assert sum(c.heard for c in self.known.values()) == len(self._heard)
        for node, contact in self.known.items():
            assert node == contact.node_id
            assert len(contact.words) <= self.config.addresses_max
