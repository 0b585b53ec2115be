"""The table of contacts: which nodes are known, where they might be reached, and whose word that is.

Addresses are hints: the key decides who answers. Still a better word is never displaced by a worse one, so that gossip
cannot hide where a node really is. No rule here reads a clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from agentmesh.core.exchange.config import ExchangeConfig
from agentmesh.ids import NodeId

#: Whose word an address is, best first: proven by a link we dialled, named by the operator, said by the node itself over
#: an authenticated link, kept from an earlier run, heard on the LAN, told by another peer.
WORDS = ("link", "static", "self", "stored", "mdns", "peer")
_WORST = len(WORDS) - 1
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,15}:[!-~]{1,239}")


@dataclass(slots=True, eq=False)
class Contact:
    """One known node.

    Attributes:
        node_id: Its id.
        words: Address → index into ``WORDS`` of the best source, in order of arrival.
        connected: A link is up.
        told_by: Who told of it first, if nothing better than hearsay is known.
        seen_s: When a link was last up, or when it was first heard of; monotonic seconds.
        met: A link was up once in this run.
        pinned: The operator named it: never forgotten, dialled even beyond ``links_max``.
        attempts: Dials in vain since.
        due_s: When to dial next.
    """

    node_id: NodeId
    seen_s: float
    words: dict[str, int] = field(default_factory=dict[str, int])
    connected: bool = False
    told_by: NodeId | None = None
    met: bool = False
    pinned: bool = False
    attempts: int = 0
    due_s: float = 0.0

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses, best word first."""
        return tuple(sorted(self.words, key=self.words.__getitem__))

    @property
    def best(self) -> int:
        """Index into ``WORDS`` of the best word about this node."""
        return min(self.words.values(), default=_WORST)

    @property
    def source(self) -> str:
        """The best word about this node, by name."""
        return WORDS[self.best]

    @property
    def shared(self) -> list[str]:
        """Addresses fit to be passed on: what is no more than hearsay stays here."""
        hearsay = WORDS.index("mdns")
        return [address for address in self.addresses if self.words[address] < hearsay]


def word_of(source: str) -> int:
    """Return the index of a source in ``WORDS``; unknown ones are hearsay."""
    return WORDS.index(source) if source in WORDS else _WORST


class Contacts:
    """Contacts by node id.

    Args:
        config: Bounds.
    """

    def __init__(self, config: ExchangeConfig) -> None:
        self.config = config
        self.known: dict[NodeId, Contact] = {}
        self._told: dict[NodeId, int] = {}

    def note(
        self, node: NodeId, addresses: Iterable[str], source: str, now_s: float, told_by: NodeId | None = None
    ) -> Contact | None:
        """Merge what somebody says about a node.

        Args:
            node: About whom.
            addresses: Where it might be; malformed ones are dropped, ``addresses_max`` are looked at.
            source: One of ``WORDS``.
            now_s: Monotonic seconds.
            told_by: The peer, if it is hearsay.

        Returns:
            The contact if it is new or has a new or better address; None if nothing changed or there is no room.
        """
        word = word_of(source)
        contact = self.known.get(node)
        fresh = contact is None
        if contact is None:
            if told_by is not None and self._told.get(told_by, 0) >= self.config.told_max:
                return None
            if len(self.known) >= self.config.contacts_max and not self._make_room(word):
                return None
            contact = Contact(node, now_s, told_by=told_by)
            self.known[node] = contact
            if told_by is not None:
                self._told[told_by] = self._told.get(told_by, 0) + 1
        contact.pinned |= source == "static"
        changed = False
        for address in list(addresses)[: self.config.addresses_max]:
            changed |= self._merge(contact, address, word)
        if contact.best < _WORST or contact.connected:
            self._uncharge(contact)
        return contact if changed or fresh else None

    def forget(self, contact: Contact) -> None:
        """Drop a contact."""
        self._uncharge(contact)
        del self.known[contact.node_id]

    def met(self, contact: Contact, now_s: float) -> None:
        """Note that a link to it is up."""
        contact.connected = contact.met = True
        contact.attempts, contact.seen_s = 0, now_s
        self._uncharge(contact)

    def _merge(self, contact: Contact, address: str, word: int) -> bool:
        if not _ADDRESS.fullmatch(address):
            return False
        words = contact.words
        if address in words:
            better = word < words[address]
            words[address] = min(word, words[address])
            return better
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
        spare = [
            c for c in self.known.values() if not (c.connected or c.pinned) and c.best >= max(word, WORDS.index("self"))
        ]
        if not spare:
            return False
        self.forget(max(spare, key=lambda c: (c.best, not c.met, -c.seen_s, c.node_id)))
        return True

    def _uncharge(self, contact: Contact) -> None:
        if contact.told_by is not None:
            left = self._told[contact.told_by] - 1
            if left:
                self._told[contact.told_by] = left
            else:
                del self._told[contact.told_by]
            contact.told_by = None

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or count is off."""
        assert len(self.known) <= self.config.contacts_max
        told: dict[NodeId, int] = {}
        for node, contact in self.known.items():
            assert node == contact.node_id
            assert len(contact.words) <= self.config.addresses_max
            if contact.told_by is not None:
                told[contact.told_by] = told.get(contact.told_by, 0) + 1
        assert told == self._told
        assert all(count <= self.config.told_max for count in told.values())
