"""Telling peers: what is new at once, renewals together, whole digests in turn (docs/spec/exchange.md §3.4, §3.5)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.leases import batches, digests, is_held
from agentmesh.core.directory.messages import BATCH_MAX, Digest
from agentmesh.core.directory.table import Entry, Table
from agentmesh.core.machine import Outbox, Timer
from agentmesh.ids import AgentId, NodeId

RELAY = "directory.relay"
NEWS = "directory.news"


class Spread:
    """What is to be told to whom.

    Args:
        table: Where entries are looked up when the moment comes.
        config: Intervals and sizes.
    """

    def __init__(self, table: Table, config: DirectoryConfig) -> None:
        self.table = table
        self.config = config
        self.links: dict[NodeId, None] = {}
        self._news: dict[AgentId, NodeId] = {}
        self._whole: dict[AgentId, None] = {}
        self._news_waits = False
        self._told_s = -math.inf
        self._renewed: dict[AgentId, NodeId] = {}
        self._relay_token = 0
        self._sync_from = 0

    def note_news(self, agent: AgentId, source: NodeId, *, whole: bool = False) -> None:
        """Note that an entry changed: ``flush`` tells every peer but the source; ``whole`` = with its record."""
        self._news[agent] = source
        if whole:
            self._whole[agent] = None

    def note_renewal(self, agent: AgentId, source: NodeId, out: Outbox) -> None:
        """Note that a lease became much younger: told to the others in ``relay_delay_s``, with others like it."""
        if not self._renewed:
            self._relay_token += 1
            out.after(self.config.relay_delay_s, Timer(RELAY, self._relay_token))
        self._renewed[agent] = source

    def on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        """Tell what waited; news go with the next ``flush``."""
        if timer.name == NEWS:
            self._news_waits = False
        elif timer.name == RELAY and timer.token == self._relay_token and self._renewed:
            renewed, self._renewed = self._renewed, {}
            self._announce(renewed, {}, now_s, out)

    def flush(self, now_s: float, out: Outbox) -> None:
        """Tell news at once, but in bursts together: at most one message per peer and ``news_gap_s``."""
        if not self._news:
            return
        wait_s = self._told_s + self.config.news_gap_s - now_s
        if wait_s <= 0:
            news, self._news = self._news, {}
            whole, self._whole = self._whole, {}
            self._told_s = now_s
            self._announce(news, whole, now_s, out)
        elif not self._news_waits:
            self._news_waits = True
            out.after(wait_s, Timer(NEWS))

    def compare(self, now_s: float, out: Outbox) -> None:
        """Renew local agents at every peer, and compare whole digests with some peers in turn."""
        peers = list(self.links)
        count = min(self.config.sync_peers, len(peers))
        chosen = [peers[(self._sync_from + i) % len(peers)] for i in range(count)]
        self._sync_from = (self._sync_from + count) % max(1, len(peers))
        local = [entry for entry in self.table.entries.values() if entry.local]
        for peer in peers:
            if peer in chosen:
                self.send_digest(peer, self.table.entries.values(), now_s, out, full=True)
            elif local:
                self.send_digest(peer, local, now_s, out)

    def send_missing(self, peer: NodeId, digest: Digest, now_s: float, out: Outbox) -> None:
        """Answer a complete digest with what its sender lacks, one message at most; the next comparison goes on."""
        known = {lease.agent_id for lease in digest.leases}
        lacking = (e for e in self.table.entries.values() if e.manifest.agent_id not in known and is_held(e, now_s))
        if first := list(islice(lacking, BATCH_MAX)):
            self.send_digest(peer, first, now_s, out)

    def send_digest(
        self, peer: NodeId, entries: Iterable[Entry], now_s: float, out: Outbox, *, full: bool = False
    ) -> None:
        """Send the leases of entries."""
        for digest in digests(entries, now_s, full=full):
            out.send(peer, digest)

    def send_records(self, peer: NodeId, entries: Iterable[Entry], now_s: float, out: Outbox) -> None:
        """Send the records of entries, with their leases."""
        for records in batches(entries, now_s, self.config.records_bytes):
            out.send(peer, records)

    def _announce(self, news: dict[AgentId, NodeId], whole: dict[AgentId, None], now_s: float, out: Outbox) -> None:
        """Tell every peer but the source and the owner: new records of our own whole, all else as digest lines."""
        entries = [(entry, source) for agent, source in news.items() if (entry := self.table.get(agent)) is not None]
        for peer in self.links:
            told = [e for e, source in entries if peer not in (source, e.manifest.node_id)]
            self.send_records(peer, [e for e in told if e.manifest.agent_id in whole], now_s, out)
            if others := [e for e in told if e.manifest.agent_id not in whole]:
                self.send_digest(peer, others, now_s, out)

    def assert_invariants(self) -> None:
        """Raise AssertionError if something new is told to nobody."""
        assert not self._news or self._news_waits
        assert self.table.node_id not in self.links
