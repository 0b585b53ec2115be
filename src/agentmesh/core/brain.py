"""The brain: the machines of one node put together. The driver and the simulator feed it; nothing here does I/O.

Inputs are in ``core.messages``; effects in ``core.machine.Outbox``. Events: ``PeerMisbehaved``, those of
``directory.messages`` (AgentChanged, AgentGone, RecordRefused, RenewalDue, SeqBehind) and of ``exchange.messages``
(DialWanted, PeerSilent, PeerLeft, ClockSkew); the one stored record is ``StoreContact``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.machine import Directory
from agentmesh.core.directory.messages import Digest, Records, Want
from agentmesh.core.directory.table import Entry
from agentmesh.core.exchange.config import ExchangeConfig
from agentmesh.core.exchange.contacts import Contact
from agentmesh.core.exchange.machine import Exchange
from agentmesh.core.exchange.messages import Peers
from agentmesh.core.machine import Outbox, Timer
from agentmesh.core.messages import Leaving, Received, WallClock
from agentmesh.ids import NodeId


@dataclass(frozen=True, slots=True)
class BrainConfig:
    """Knobs of every machine.

    Attributes:
        directory: Of the directory of agents.
        exchange: Of peer exchange.
    """

    directory: DirectoryConfig = field(default_factory=DirectoryConfig)
    exchange: ExchangeConfig = field(default_factory=ExchangeConfig)


class Brain:
    """All machines of one node behind one ``handle``.

    Args:
        node_id: This node.
        config: Knobs.
        rng: The only source of chance; the same seed and inputs give the same effects.
    """

    def __init__(self, node_id: NodeId, config: BrainConfig, rng: random.Random) -> None:
        self.node_id = node_id
        self._directory = Directory(node_id, config.directory, rng)
        self._exchange = Exchange(node_id, config.exchange, rng)
        self._has_clock = False

    def handle(self, incoming: Any, now_s: float, out: Outbox) -> None:
        """Take one input at monotonic time ``now_s`` (seconds) and write effects. The first must be WallClock."""
        self._has_clock = self._has_clock or isinstance(incoming, WallClock)
        assert self._has_clock, "WallClock must be the first input"
        if isinstance(incoming, Timer):
            machine = self._directory if incoming.name.startswith("directory.") else self._exchange
            machine.handle(incoming, now_s, out)
        elif isinstance(incoming, Leaving):
            self._directory.leave(now_s, out)
            self._exchange.leave(incoming.reason, out)
        elif not isinstance(incoming, Received) or self._exchange.admits(
            incoming, _items(incoming.message), now_s, out
        ):
            self._exchange.handle(incoming, now_s, out)
            self._directory.handle(incoming, now_s, out)

    def entries(self) -> list[Entry]:
        """Return every living agent, local and remote, in order of arrival. Entries are read-only."""
        return self._directory.table.live()

    def entry(self, agent_id: str) -> Entry | None:
        """Return the living agent of that id."""
        entry = self._directory.table.get(agent_id)
        return None if entry is None or entry.manifest.tombstone else entry

    def by_name(self, name: str) -> list[Entry]:
        """Return the living agents of exactly that name: replicas, healthy ones first, then by agent id."""
        return self._directory.table.named(name)

    def contacts(self) -> list[Contact]:
        """Return every known node, connected ones first, then in order of arrival. Contacts are read-only."""
        return sorted(self._exchange.contacts.known.values(), key=lambda contact: not contact.connected)

    def addresses_of(self, node_id: NodeId) -> tuple[str, ...]:
        """Return where a node might be reached, best word first; empty if unknown."""
        return self._exchange.addresses_of(node_id)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of any machine is broken."""
        self._directory.assert_invariants()
        self._exchange.assert_invariants()


def _items(message: object) -> int:
    """Count what a message costs to take in."""
    if isinstance(message, Digest):
        return len(message.leases)
    if isinstance(message, Records):
        return len(message.records)
    if isinstance(message, Want):
        return len(message.agent_ids)
    return len(message.peers) if isinstance(message, Peers) else 1
