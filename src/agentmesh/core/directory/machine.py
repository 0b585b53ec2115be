"""The directory machine: which agents there are, where they live, and whether they can be called (docs/spec/directory.md).

Signed records spread by broadcast; comparisons with neighbours heal what was lost; reports of zones say which nodes died.
Parts: ``holdings`` (state), ``intake`` (what peers send), ``sync`` (comparisons), ``zone`` and ``own`` (what this node says of
its zone and itself), ``finds`` (searches). This module joins them to inputs and time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, ClassVar

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.finds import Finds, Search
from agentmesh.core.directory.holdings import Holdings
from agentmesh.core.directory.intake import Intake, Verdict, tell_behind
from agentmesh.core.directory.messages import AgentChanged, Line, Listing, Ranges, Records, Seek, Sought, Want
from agentmesh.core.directory.own import RECORD, REFUTE, Own
from agentmesh.core.directory.sync import SYNC, Sync
from agentmesh.core.directory.table import Entry, Table
from agentmesh.core.directory.wants import Wants
from agentmesh.core.directory.zone import REPORT, Zone
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer, WallTime
from agentmesh.core.messages import (
    Advertise,
    Delivered,
    Find,
    FindDone,
    Leaving,
    LocalGone,
    LocalNode,
    LocalRecord,
    LocalStatus,
    Lookup,
    LookupDone,
    LookupHit,
    MemberAlive,
    MemberDead,
    MemberLeft,
    NeighbourDown,
    NeighbourUp,
    NodeHeard,
    PeerDown,
    PeerUp,
    Publish,
    Received,
    Signed,
    Suggested,
    ZoneChanged,
)
from agentmesh.identity.reader import Reader
from agentmesh.identity.zone_report import CONTEXT as ZONE_CONTEXT
from agentmesh.ids import AgentId, NodeId, dht_key, public_key_of

DUE = "directory.due"
FIND = "directory.find"
#: The rank that anything has: asked for by a search, which does not know what there is.
_ANY_RANK = (False, 0, False, 0)

#: A node that has run for so long and has no neighbours has nobody to wait for when it searches, seconds.
_NEWCOMER_S = 10.0


class Directory:
    """The directory of one node.

    Args:
        node_id: This node.
        config: Bounds and intervals.
        rng: For choice of peers and jitter only.
        reader: Verifies whatever is signed.
        wall: The wall clock; must be set before the first input.
    """

    def __init__(
        self, node_id: NodeId, config: DirectoryConfig, rng: random.Random, reader: Reader, wall: WallTime
    ) -> None:
        self.node_id = node_id
        self.config = config
        self.holdings = Holdings(node_id, config, reader, wall)
        self._wall = wall
        self._rng = rng
        self._reader = reader
        self._wants = Wants(config.want_retry_s, config.wants_max)
        self._finds = Finds(config.finds_max, config.find_wants_max)
        self._own = Own(config, rng, wall, self._sick)
        self._zone = Zone(node_id, config, rng, self.holdings.reports, self.table.has_agents)
        self._sync = Sync(self.holdings.held, config, rng, lambda: not self.table.full, self._is_waiting, self._weigh)
        self._intake = Intake(
            self.holdings,
            reader,
            sync=self._sync,
            wants=self._wants,
            finds=self._finds,
            zone=self._zone,
            own=self._own,
        )
        self._started = False
        self._newcomer_until_s = -math.inf
        self._wake_s = math.inf
        self._wake_token = 0
        self._revivals = 0

    @property
    def table(self) -> Table:
        """The agents known, read-only for callers."""
        return self.holdings.table

    def judge(self, kind: str, payload: bytes, now_s: float) -> Verdict:
        """Say whether a broadcast is to be passed on; pure but for the reader's memory."""
        return self._intake.judge(kind, payload, now_s)

    def sick_marks(self) -> tuple[bytes, ...]:
        """Return what the ``sick`` of this node's record should be, whichever machine asks for the record."""
        return self._own.marks()

    def handle(self, incoming: object, now_s: float, out: Outbox) -> None:
        """Take one input (``core.messages``) and write effects; unknown inputs are ignored."""
        if not self._started:
            self._started = True
            self._newcomer_until_s = now_s + _NEWCOMER_S
            self._sync.start(now_s, out)
        take = self._TAKES.get(type(incoming))
        if take is None:
            return
        take(self, incoming, now_s, out)
        if self.holdings.revivals != self._revivals:
            self._revivals = self.holdings.revivals
            self._sync.heat(now_s, out)
        if self.holdings.due_s < self._wake_s:
            self._wake(now_s, out)

    # This node's own agents

    def _on_local_record(self, incoming: LocalRecord, now_s: float, out: Outbox) -> None:
        manifest = incoming.manifest
        assert manifest.node_id == self.node_id, "a local record names this node"
        old = self.table.get(manifest.agent_id)
        was_local = old is not None and old.local
        keys = self._reader.keys(manifest)
        node = self.holdings.node(self.node_id, now_s, out)
        entry = Entry(
            manifest=manifest,
            key=keys[0],
            node=node,
            local=not manifest.tombstone,
            since_s=now_s,
            via=self.node_id,
            mark=manifest.mark,
            checked=old.checked if old is not None and old.local else None,
            due_s=now_s + max(0.0, (manifest.exp - self._wall.unix_s(now_s)) * 0.5),
        )
        self.holdings.put(entry, now_s, out)
        if old is not None and not was_local and old.rank > entry.rank:
            tell_behind(entry, old.manifest, self.node_id, out)
        if manifest.signed:
            out.emit(Publish("agent", manifest.raw))
        if manifest.tombstone:
            if was_local:
                out.emit(Advertise(manifest.agent_id, ()))
        else:
            self._own.own(entry.key)
            if old is None or not was_local or self._reader.keys(old.manifest) != keys:
                out.emit(Advertise(manifest.agent_id, keys))
        self._own.tend(now_s, out)

    def _on_local_status(self, status: LocalStatus, now_s: float, out: Outbox) -> None:
        entry = self.table.get(status.agent_id)
        if entry is None or not entry.local or entry.checked is status.healthy:
            return
        entry.checked = status.healthy
        out.emit(AgentChanged(status.agent_id))
        self._own.tend(now_s, out)

    def _on_local_gone(self, incoming: LocalGone, now_s: float, out: Outbox) -> None:
        entry = self.table.get(incoming.agent_id)
        if entry is None or not entry.local:
            return
        self.holdings.drop(entry, "withdrawn", out)
        out.emit(Advertise(incoming.agent_id, ()))
        self._own.disown(entry.key, now_s, out)

    def _sick(self) -> tuple[list[bytes], bool]:
        entries = [self.table.entries[agent] for agent in self.table.locals]
        return [entry.key[:8] for entry in entries if entry.checked is False], bool(entries)

    # Nodes

    def _on_local_node(self, local: LocalNode, now_s: float, out: Outbox) -> None:
        self._zone.hear(local.record, now_s, out)
        self._own.on_record(local.record, self._sync.neighbours, now_s, out)

    def _on_leaving(self, leaving: Leaving, now_s: float, out: Outbox) -> None:
        self._own.leave(out)

    def _on_zone_changed(self, zone: ZoneChanged, now_s: float, out: Outbox) -> None:
        self._zone.change(zone, now_s, out)

    def _on_node_heard(self, heard: NodeHeard, now_s: float, out: Outbox) -> None:
        self._zone.hear(heard.record, now_s, out)
        if heard.record.node_id in self.holdings.nodes.known:
            self.holdings.hear_record(heard.record, now_s, out)

    def _on_neighbour_up(self, up: NeighbourUp, now_s: float, out: Outbox) -> None:
        self.holdings.watch(up.node, now_s, out)
        self._sync.meet(up.node, up.zone, now_s, out)

    def _on_neighbour_down(self, down: NeighbourDown, now_s: float, out: Outbox) -> None:
        self.holdings.unwatch(down.node, now_s, out)
        self._sync.part(down.node)
        for search in list(self._finds.running.values()):
            if down.node in search.seeks:
                del search.seeks[down.node]
                self._finds.settle(search, out)

    def _on_member_alive(self, alive: MemberAlive, now_s: float, out: Outbox) -> None:
        self.holdings.see(alive.node, now_s, out, up=True)
        self._zone.lives(alive.node, now_s, out)

    def _on_member_dead(self, dead: MemberDead, now_s: float, out: Outbox) -> None:
        self._zone.died(dead.node, dead.seq, now_s, out)
        self.holdings.see(dead.node, now_s, out, up=False)

    def _on_member_left(self, left: MemberLeft, now_s: float, out: Outbox) -> None:
        self._zone.died(left.node, left.seq, now_s, out)
        self.holdings.see_left(left.node, left.seq, now_s, out)

    def _on_signed(self, signed: Signed, now_s: float, out: Outbox) -> None:
        if signed.context != ZONE_CONTEXT:
            return
        report = self._reader.zone(signed.raw, self._wall.unix_s(now_s))
        if not self.holdings.reports.is_newer(report):
            return  # another member was faster
        self.holdings.hear_report(report, now_s, out)
        self._own.hear_report(report, self._zone.key[:8], now_s, out)
        self._zone.hear_report(report, now_s, out)
        out.emit(Publish("zone", signed.raw))

    # What peers say

    def _on_delivered(self, broadcast: Delivered, now_s: float, out: Outbox) -> None:
        self._intake.deliver(broadcast.kind, broadcast.payload, broadcast.via, now_s, out)

    def _on_received(self, received: Received, now_s: float, out: Outbox) -> None:
        peer, message = received.peer, received.message
        flaw: str | None = None
        if isinstance(message, Ranges):
            flaw = self._sync.on_ranges(peer, message, now_s, out)
        elif isinstance(message, Listing):
            flaw = self._sync.on_listing(peer, message, now_s, out)
        elif isinstance(message, Records):
            self._intake.on_records(peer, message, now_s, out)
        elif isinstance(message, Want):
            self._intake.on_want(peer, message, now_s, out)
        elif isinstance(message, Seek):
            self._intake.on_seek(peer, message, out)
        elif isinstance(message, Sought):
            self._intake.on_sought(peer, message, now_s, out)
        if flaw is not None:
            out.emit(PeerMisbehaved(peer, "directory.digest", flaw))

    def _is_waiting(self) -> bool:
        return len(self._wants) > 0

    def _weigh(self, peer: NodeId, line: Line, now_s: float) -> Line | bool:
        return self._intake.weigh(peer, line, now_s)

    # Searches

    def _on_find(self, find: Find, now_s: float, out: Outbox) -> None:
        here = self.table.under(find.key, max(1, find.agents_max))
        search = self._finds.start(find)
        if search is None:
            out.emit(FindDone(find.query, 0))
            return
        for entry in here:
            self._finds.note_found(search, entry.manifest.agent_id, out)
        if search.over:
            self._finds.end(search, out)
            return
        near = sorted(self._sync.neighbours.items(), key=lambda each: each[1])
        for peer, _ in near[: self.config.seek_peers]:
            search.seeks[peer] = None
            out.send(peer, Seek(key=find.key, agents_max=search.agents_max))
        search.lonely = not near and now_s < self._newcomer_until_s
        out.emit(Lookup(find.query, find.key, search.agents_max))
        out.after(find.timeout_s, Timer(FIND, find.query))

    def _on_peer_up(self, up: PeerUp, now_s: float, out: Outbox) -> None:
        """Let searches that a newcomer began before it knew anybody ask its first peer, and the DHT once more."""
        for search in [search for search in self._finds.running.values() if search.lonely]:
            search.lonely = False
            search.seeks[up.peer] = None
            out.send(up.peer, Seek(key=search.key, agents_max=search.agents_max))
            if not search.in_dht:
                search.in_dht = True
                out.emit(Lookup(search.query, search.key, search.agents_max))

    def _on_peer_down(self, down: PeerDown, now_s: float, out: Outbox) -> None:
        for search in list(self._finds.running.values()):
            if search.seeks.pop(down.peer, search) is None:
                self._finds.settle(search, out)

    def _on_lookup_hit(self, hit: LookupHit, now_s: float, out: Outbox) -> None:
        search = self._finds.running.get(hit.query)
        if search is None:
            return
        for provider in hit.providers:
            entry = self.table.get(provider.agent_id)
            if entry is not None and self.table.has_key(entry, search.key):
                self._finds.note_found(search, entry.manifest.agent_id, out)
                continue
            position = dht_key(public_key_of(provider.agent_id))
            if search.wants_left <= 0 or position in search.wants or provider.node_id == self.node_id:
                continue
            search.wants_left -= 1
            search.wants[position] = provider.node_id
            self._wants.ask(position, _ANY_RANK, provider.node_id, now_s)
            out.send(provider.node_id, Want(positions=[position]), at=provider.addresses)
        self._finds.settle(search, out)

    def _on_lookup_done(self, done: LookupDone, now_s: float, out: Outbox) -> None:
        search = self._finds.running.get(done.query)
        if search is not None:
            search.in_dht = False
            self._finds.settle(search, out)

    def _on_suggested(self, suggested: Suggested, now_s: float, out: Outbox) -> None:
        self._intake.on_suggested(suggested, now_s, out)

    # Time

    def _on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        if timer.name == SYNC:
            self._wants.expire(now_s)
            self._sync.on_timer(timer, now_s, out)
        elif timer.name == DUE:
            if timer.token == self._wake_token:
                self._wake_s = math.inf
                if now_s >= self.holdings.due_s:
                    self.holdings.expire(now_s, out)
        elif timer.name == REPORT:
            self._zone.on_timer(timer, self._wall.unix_s(now_s), now_s, out)
        elif timer.name in (RECORD, REFUTE):
            self._own.on_timer(timer, now_s, out)
        elif timer.name == FIND:
            search: Search | None = self._finds.running.get(timer.token)
            if search is not None:
                self._finds.end(search, out)

    def _wake(self, now_s: float, out: Outbox) -> None:
        """Be woken when something is due."""
        self._wake_token += 1
        self._wake_s = self.holdings.due_s
        out.after(max(0.01, self._wake_s - now_s), Timer(DUE, self._wake_token))

    def entry(self, agent_id: AgentId) -> Entry | None:
        """Return the living agent of that id."""
        entry = self.table.get(agent_id)
        return None if entry is None or entry.manifest.tombstone else entry

    def agreement(self, now_s: float) -> tuple[int, int, float]:
        """Return how many comparisons of neighbours found the same as here, how many did not, and for how long none of the
        first kind came, seconds; 0 without neighbours."""
        sync = self._sync
        return sync.same, sync.different, now_s - max(sync.same_s, sync.met_s) if sync.neighbours else 0.0

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of the directory is broken."""
        self.holdings.assert_invariants()
        self._sync.assert_invariants()
        self._zone.assert_invariants()
        self._finds.assert_invariants()
        assert len(self._wants) <= self.config.wants_max
        assert self._wake_s <= self.holdings.due_s, "nothing is due before it is woken"
        for entry in self.table.entries.values():
            assert entry.manifest.signed or entry.local or not self.config.require_signed
            assert entry.local or entry.manifest.tombstone or entry.manifest.node_id != self.node_id

    _TAKES: ClassVar[dict[type[Any], Callable[[Directory, Any, float, Outbox], None]]] = {
        LocalRecord: _on_local_record,
        LocalStatus: _on_local_status,
        LocalGone: _on_local_gone,
        LocalNode: _on_local_node,
        Leaving: _on_leaving,
        NodeHeard: _on_node_heard,
        NeighbourUp: _on_neighbour_up,
        PeerUp: _on_peer_up,
        PeerDown: _on_peer_down,
        NeighbourDown: _on_neighbour_down,
        MemberAlive: _on_member_alive,
        MemberDead: _on_member_dead,
        MemberLeft: _on_member_left,
        ZoneChanged: _on_zone_changed,
        Delivered: _on_delivered,
        Received: _on_received,
        Signed: _on_signed,
        Find: _on_find,
        Suggested: _on_suggested,
        LookupHit: _on_lookup_hit,
        LookupDone: _on_lookup_done,
        Timer: _on_timer,
    }
