"""The directory machine: manifests spread, leases keep them, tombstones end them (docs/spec/exchange.md §3).

A record that is new here goes at once to every connected peer: whole if it is of a local agent, as a line of a digest
otherwise, so that who lacks it asks. Owners renew leases every ``lease_renew_s``; what a peer hears of a renewal it passes
on, aged by a hop. Whole digests are compared when a link comes up and every ``lease_renew_s`` with a few peers in turn, and
heal whatever was lost. Signatures are checked on every intake; a peer's mistake costs it a ``PeerMisbehaved``.
"""

from __future__ import annotations

import math
import random

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.leases import flaw_of
from agentmesh.core.directory.messages import (
    BATCH_MAX,
    AgentChanged,
    AgentGone,
    Digest,
    Lease,
    RecordRefused,
    Records,
    RenewalDue,
    SeqBehind,
    Want,
)
from agentmesh.core.directory.spread import Spread
from agentmesh.core.directory.table import Entry, Table, rank_of
from agentmesh.core.directory.wants import Wants
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.core.messages import LocalGone, LocalRecord, LocalStatus, PeerDown, PeerUp, Received, WallClock
from agentmesh.errors import MeshError, ReplayError
from agentmesh.identity.manifest import Manifest, read_record
from agentmesh.ids import AgentId, NodeId

TICK = "directory.tick"
_TICK_S = 1.0
#: How often a local agent's overdue signature is asked for again, seconds.
_DUE_AGAIN_S = 60.0
#: Codes of records that are refused without blame: clocks differ, and so may settings.
_BLAMELESS = ("manifest.unsigned", "manifest.expired", "manifest.not_yet_valid")


class Directory:
    """The directory of one node.

    Args:
        node_id: This node.
        config: Bounds and intervals.
        rng: For jitter only.
    """

    def __init__(self, node_id: NodeId, config: DirectoryConfig, rng: random.Random) -> None:
        self.node_id = node_id
        self.config = config
        self.table = Table(node_id, config)
        self._spread = Spread(self.table, config)
        self._rng = rng
        self._clock: tuple[float, float] | None = None
        self._started = False
        self._next_renew_s = math.inf
        self._next_expiry_s = math.inf
        self._wants = Wants(config.want_retry_s, config.wants_max)

    def handle(self, incoming: object, now_s: float, out: Outbox) -> None:
        """Take one input (``core.messages``) and write effects. WallClock must come first."""
        if not self._started:
            self._started = True
            self._next_renew_s = now_s + self.config.lease_renew_s
            out.after(_TICK_S, Timer(TICK))
        if isinstance(incoming, Timer):
            self._on_timer(incoming, now_s, out)
        elif isinstance(incoming, Received):
            self._on_received(incoming, now_s, out)
        elif isinstance(incoming, WallClock):
            self._clock = (incoming.unix_s, now_s)
        elif isinstance(incoming, PeerUp):
            self._spread.links[incoming.peer] = None
            self._spread.send_digest(incoming.peer, self.table.entries.values(), now_s, out, full=True)
        elif isinstance(incoming, PeerDown):
            self._spread.links.pop(incoming.peer, None)
        elif isinstance(incoming, LocalRecord):
            self._on_local_record(incoming.manifest, now_s, out)
        elif isinstance(incoming, LocalStatus):
            self._on_local_status(incoming, now_s, out)
        elif isinstance(incoming, LocalGone):
            self._on_local_gone(incoming.agent_id, now_s, out)
        self._spread.flush(now_s, out)

    def leave(self, now_s: float, out: Outbox) -> None:
        """Tell every peer that the local agents are not to be offered any longer; their leases then run out."""
        local = [entry for entry in self.table.entries.values() if entry.local]
        for entry in local:
            entry.healthy = False
        for peer in self._spread.links:
            self._spread.send_digest(peer, local, now_s, out)

    def unix_s(self, now_s: float) -> int:
        """Return the wall clock, unix seconds."""
        assert self._clock is not None, "WallClock must be the first input"
        unix_s, at_s = self._clock
        return int(unix_s + (now_s - at_s))

    # What happens at this node

    def _on_local_record(self, manifest: Manifest, now_s: float, out: Outbox) -> None:
        assert manifest.node_id == self.node_id, "a local record names this node"
        old = self.table.get(manifest.agent_id)
        was_local = old is not None and old.local
        entry = Entry(
            manifest=manifest,
            healthy=old.healthy if old is not None and old.local else None,
            local=not manifest.tombstone,
            renewed_s=now_s,
            since_s=now_s,
            via=self.node_id,
            mark=manifest.mark,
            due_s=now_s + max(0.0, (manifest.exp - self.unix_s(now_s)) * 0.5),
            lease_s=self.config.lease_gone_s,
        )
        self._put(entry, self.node_id, now_s, out)
        if old is not None and not was_local and old.rank > entry.rank:
            self._tell_behind(entry, old.manifest, out)

    def _on_local_status(self, status: LocalStatus, now_s: float, out: Outbox) -> None:
        entry = self.table.get(status.agent_id)
        if entry is None or not entry.local or entry.healthy is status.healthy:
            return
        if (entry.healthy is not False) is not status.healthy:
            self._spread.note_news(status.agent_id, self.node_id)
        entry.healthy = status.healthy
        out.emit(AgentChanged(status.agent_id))

    def _on_local_gone(self, agent_id: AgentId, now_s: float, out: Outbox) -> None:
        entry = self.table.get(agent_id)
        if entry is None or not entry.local:
            return
        entry.healthy = False
        for peer in self._spread.links:
            self._spread.send_digest(peer, [entry], now_s, out)
        self._drop(entry, "withdrawn", out)

    # What peers say

    def _on_received(self, received: Received, now_s: float, out: Outbox) -> None:
        peer, message = received.peer, received.message
        if peer not in self._spread.links:
            return
        if isinstance(message, Digest):
            items, take = len(message.leases), self._on_digest
        elif isinstance(message, Want):
            items, take = len(message.agent_ids), self._on_want
        elif isinstance(message, Records):
            items, take = len(message.records), self._on_records
        else:
            return
        if items > BATCH_MAX:
            out.emit(PeerMisbehaved(peer, "directory.batch", f"{items} entries in one message, at most {BATCH_MAX}"))
            return
        take(peer, message, now_s, out)  # pyright: ignore[reportArgumentType]

    def _on_digest(self, peer: NodeId, digest: Digest, now_s: float, out: Outbox) -> None:
        wanted: list[str] = []
        newer_here: dict[str, Entry] = {}
        for lease in digest.leases:
            entry = self.table.get(lease.agent_id)
            if (flaw := flaw_of(lease, known=entry is not None)) is not None:
                out.emit(PeerMisbehaved(peer, "directory.lease", flaw))
                break
            theirs = rank_of(lease)
            if entry is None or theirs > entry.rank:
                if self._is_wanted(lease, entry) and self._wants.ask(lease.agent_id, theirs, now_s):
                    wanted.append(lease.agent_id)
            elif theirs == entry.rank:
                self._renew(entry, lease, peer, now_s, out)
            else:
                newer_here[lease.agent_id] = entry
        if wanted:
            out.send(peer, Want(agent_ids=wanted))
        self._spread.send_records(peer, newer_here.values(), now_s, out)
        if digest.full:
            self._spread.send_missing(peer, digest, now_s, out)

    def _on_want(self, peer: NodeId, want: Want, now_s: float, out: Outbox) -> None:
        entries = [entry for agent in dict.fromkeys(want.agent_ids) if (entry := self.table.get(agent)) is not None]
        self._spread.send_records(peer, entries, now_s, out)

    def _on_records(self, peer: NodeId, records: Records, now_s: float, out: Outbox) -> None:
        for raw, lease in records.records:
            held = self.table.get(lease.agent_id)
            if held is not None and held.manifest.raw == raw and flaw_of(lease, known=True) is None:
                self._renew(held, lease, peer, now_s, out)  # known already: no need to verify it again
                continue
            try:
                manifest = read_record(raw, now=self.unix_s(now_s), require_signed=self.config.require_signed)
                self._admit(peer, manifest, lease, now_s, out)
            except MeshError as error:
                if error.code in _BLAMELESS:
                    out.emit(RecordRefused(peer, error.code, error.detail, error.hint or ""))
                else:
                    out.emit(PeerMisbehaved(peer, error.code, error.detail))

    def _admit(self, peer: NodeId, manifest: Manifest, lease: Lease, now_s: float, out: Outbox) -> None:
        """Take in a verified record of another node if it wins. Raises ReplayError for one that was superseded long ago."""
        agent = manifest.agent_id
        flaw = flaw_of(lease, known=True)
        if flaw is None and (lease.agent_id, lease.seq, lease.gone) != (agent, manifest.seq, manifest.tombstone):
            flaw = "the lease speaks of another record than the one it comes with"
        if flaw is not None:
            out.emit(PeerMisbehaved(peer, "directory.lease", flaw))
            return
        self._wants.came(agent)
        age_s = self._heard_age_s(lease, peer, manifest.node_id)
        entry = Entry(
            manifest=manifest,
            healthy=lease.healthy,
            local=False,
            renewed_s=now_s - age_s,
            since_s=now_s,
            via=peer,
            mark=manifest.mark,
            lease_s=self.config.lease_gone_s,
        )
        old = self.table.get(agent)
        if old is not None and old.local:
            if entry.rank > old.rank and manifest.signed:
                self._tell_behind(old, manifest, out)
            return
        if old is not None:
            self._note_equivocation(peer, old, entry, out)
            if entry.rank == old.rank:
                self._renew(old, lease, peer, now_s, out)
                return
            if entry.rank < old.rank:
                self._spread.send_records(peer, [old], now_s, out)
                if manifest.seq < old.manifest.seq and now_s - old.since_s > self.config.replay_grace_s:
                    raise ReplayError(
                        f"seq {manifest.seq} was superseded by {old.manifest.seq}", code="manifest.replay"
                    )
                return
        if not manifest.tombstone and (age_s >= self.config.lease_gone_s or manifest.node_id == self.node_id):
            return  # dead already; or said to live here, where it does not
        if not self._put(entry, peer, now_s, out):
            out.emit(RecordRefused(peer, "directory.full", f"no room for another agent ({manifest.name!r})"))

    def _note_equivocation(self, peer: NodeId, old: Entry, new: Entry, out: Outbox) -> None:
        """Blame a node that signs two records under one seq; only itself can prove it, so hearsay blames nobody."""
        first, second = old.manifest, new.manifest
        same_kind = (first.signed, first.seq, first.tombstone) == (second.signed, second.seq, second.tombstone)
        if same_kind and old.mark != new.mark and peer == second.node_id:
            detail = f"two records of {second.name!r} under seq {second.seq}"
            out.emit(PeerMisbehaved(peer, "manifest.equivocation", detail))

    def _renew(self, entry: Entry, lease: Lease, peer: NodeId, now_s: float, out: Outbox) -> None:
        """Merge a lease of the record held here: the younger age wins. Idempotent."""
        owner = entry.manifest.node_id
        if entry.local or entry.manifest.tombstone or (peer != owner and owner in self._spread.links):
            return
        if peer == owner:
            self.table.charge(entry, owner)
        gained_s = now_s - self._heard_age_s(lease, peer, owner) - entry.renewed_s
        if gained_s <= 0:
            return
        entry.renewed_s += gained_s
        if entry.healthy is not lease.healthy:
            entry.healthy = lease.healthy
            out.emit(AgentChanged(entry.manifest.agent_id))
            self._spread.note_news(entry.manifest.agent_id, peer)
        elif gained_s >= self.config.lease_renew_s / 2:
            self._spread.note_renewal(entry.manifest.agent_id, peer, out)

    def _is_wanted(self, lease: Lease, entry: Entry | None) -> bool:
        """Say whether the record of a lease would be taken in: not unsigned where that is refused, nor dead on arrival."""
        left_s = self.config.lease_gone_s - self.config.hop_age_s - lease.age_ms / 1000
        return (lease.signed or not self.config.require_signed) and (entry is not None or lease.gone or left_s > 0)

    # Time

    def _on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        if timer.name == TICK:
            out.after(_TICK_S, Timer(TICK))
            if now_s >= self._next_expiry_s:
                self._expire(now_s, out)
            if now_s >= self._next_renew_s:
                self._next_renew_s = now_s + self.config.lease_renew_s * self._rng.uniform(0.9, 1.0)
                self._wants.expire(now_s)
                self._spread.compare(now_s, out)
        else:
            self._spread.on_timer(timer, now_s, out)

    def _expire(self, now_s: float, out: Outbox) -> None:
        unix_s = self.unix_s(now_s)
        self._next_expiry_s = math.inf
        for entry in list(self.table.entries.values()):
            if entry.local:
                if now_s >= entry.due_s:
                    entry.due_s = now_s + _DUE_AGAIN_S
                    out.emit(RenewalDue(entry.manifest.agent_id, entry.manifest.name))
            elif entry.manifest.exp < unix_s:
                self._drop(entry, "expired", out)
                continue
            elif not entry.manifest.tombstone and entry.lease_left_s(now_s) <= 0:
                self._drop(entry, "lease", out)
                continue
            self._expect(entry, now_s)

    def _expect(self, entry: Entry, now_s: float) -> None:
        """Look at the table again no later than this entry may need it."""
        if entry.local:
            at_s = entry.due_s
        else:
            at_s = now_s + max(0, entry.manifest.exp - self.unix_s(now_s)) + 1
            if not entry.manifest.tombstone:
                at_s = min(at_s, entry.renewed_s + entry.lease_s)
        self._next_expiry_s = min(self._next_expiry_s, at_s)

    # The table and what is told of it

    def _put(self, entry: Entry, source: NodeId, now_s: float, out: Outbox) -> bool:
        old = self.table.get(entry.manifest.agent_id)
        was_live = old is not None and not old.manifest.tombstone
        evicted = self.table.put(entry)
        if evicted is None:
            return False
        for victim in evicted:
            if not victim.manifest.tombstone:
                out.emit(AgentGone(victim.manifest.agent_id, victim.manifest.name, "evicted"))
        if not entry.manifest.tombstone:
            out.emit(AgentChanged(entry.manifest.agent_id))
        elif was_live:
            out.emit(AgentGone(entry.manifest.agent_id, entry.manifest.name, "withdrawn"))
        self._expect(entry, now_s)
        self._spread.note_news(entry.manifest.agent_id, source, whole=source == self.node_id)
        return True

    def _drop(self, entry: Entry, why: str, out: Outbox) -> None:
        self.table.remove(entry)
        if not entry.manifest.tombstone:
            out.emit(AgentGone(entry.manifest.agent_id, entry.manifest.name, why))  # pyright: ignore[reportArgumentType]

    def _tell_behind(self, mine: Entry, theirs: Manifest, out: Outbox) -> None:
        elsewhere = theirs.node_id != self.node_id
        out.emit(SeqBehind(mine.manifest.agent_id, mine.manifest.name, theirs.seq, elsewhere))

    def _heard_age_s(self, lease: Lease, peer: NodeId, owner: NodeId) -> float:
        """Return the age of a heard lease: as said by the owner, a hop older by anybody else."""
        return lease.age_ms / 1000 + (0.0 if peer == owner or lease.gone else self.config.hop_age_s)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of the directory is broken."""
        self.table.assert_invariants()
        self._spread.assert_invariants()
        assert len(self._wants) <= self.config.wants_max
        for entry in self.table.entries.values():
            assert entry.manifest.signed or entry.local or not self.config.require_signed
            assert entry.local or entry.manifest.tombstone or entry.manifest.node_id != self.node_id
