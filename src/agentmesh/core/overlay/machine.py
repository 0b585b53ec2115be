"""The overlay machine: two views of the mesh, and what they make of the facts they hear (docs/spec/overlay.md).

``longview`` keeps random links across the mesh, ``zoneview`` the near ones; here is what concerns both: new records, who
came up, who died, who is back. Every node that was heard of goes through ``_hear``.
"""

from __future__ import annotations

import math
import random
from typing import Any, cast

from agentmesh.core.machine import Outbox, Timer, WallTime
from agentmesh.core.messages import (
    LocalNode,
    MemberAlive,
    MemberDead,
    MemberLeft,
    NeighbourBad,
    NodeHeard,
    PeerDown,
    PeerUp,
    Received,
    Watch,
)
from agentmesh.core.overlay import longview, zoneview
from agentmesh.core.overlay.config import OverlayConfig
from agentmesh.core.overlay.ground import TIMER, UP_MAX, Ground
from agentmesh.core.overlay.longview import LongView
from agentmesh.core.overlay.messages import Disconnect, Here, JoinReply
from agentmesh.core.overlay.zoneview import ZoneView
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.reader import Reader
from agentmesh.ids import NodeId

#: So many of the dead are asked at once whether they are back, the next ones this much later, seconds.
_PROBES_AT_ONCE = 3
_PROBE_GAP_S = 0.5


class Overlay:
    """Keep the zone and the long links of one node.

    Args:
        node_id: This node.
        config: Knobs.
        rng: The only source of chance.
        reader: Verifies records.
        wall: What the wall clock shows.
    """

    __slots__ = ("_greet_s", "_ground", "_long", "_probe_s", "_zone")

    def __init__(
        self, node_id: NodeId, config: OverlayConfig, rng: random.Random, reader: Reader, wall: WallTime
    ) -> None:
        assert config.candidates_max < 160, "marks of all candidates must fit into one message"
        self._ground = Ground(node_id, config, rng, reader, wall)
        self._ground.hear = self._hear
        self._ground.gone = self._unanswered
        self._long = LongView(self._ground)
        self._zone = ZoneView(self._ground, self._long.passive)
        self._probe_s = math.inf
        self._greet_s = -math.inf

    def handle(self, incoming: Any, now_s: float, out: Outbox) -> None:
        """Take one input at monotonic time ``now_s`` (seconds) and write effects; inputs it does not know are ignored."""
        kind = cast("type[Any]", type(incoming))
        if kind is Received:
            if not self._on_message(incoming.peer, incoming.message, now_s, out):
                return
        elif kind is Timer:
            if incoming.name != TIMER or not self._ground.woken(incoming):
                return
            self._tick(now_s, out)
        else:
            on = _ON.get(kind)
            if on is None:
                return
            on(self, incoming, now_s, out)
        due_s = min(self._long.due_s(), self._zone.due_s(), self._probe_s)
        self._ground.wake(due_s, now_s, out)

    # -- queries --

    def zone(self) -> tuple[str, int, tuple[NodeId, ...]]:
        """Return the own zone: site, depth, and members by rising key, this node included."""
        record = self._ground.record
        return record.site if record is not None else "", self._zone.depth, self._zone.zone_members()

    @property
    def zone_name(self) -> str:
        """The zone for people: site and prefix, as "eu/0110"; "/" when the site is unnamed and not divided."""
        site, depth, _ = self.zone()
        bits = format(self._zone.candidates.own_head, "064b")[:depth]
        return f"{site}/{bits}"

    def long_links(self) -> list[NodeId]:
        """Return the long links, oldest first."""
        return list(self._ground.long)

    @property
    def long_target(self) -> int:
        """How many long links this node wants."""
        return self._long.target

    def neighbours(self) -> list[NodeId]:
        """Return all neighbours: the zone and the long links."""
        return list(self._ground.neighbours())

    def addresses_of(self, node: NodeId) -> tuple[str, ...]:
        """Return where a node says that it can be reached; empty if no record of it is held."""
        record = self.record_of(node)
        return record.addresses if record is not None else ()

    def passive(self) -> list[NodeId]:
        """Return the reserve for long links."""
        return list(self._long.passive.entries)

    def dead(self) -> list[NodeId]:
        """Return the nodes remembered as dead or gone."""
        return list(self._ground.tombs)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule is broken."""
        self._ground.assert_invariants()
        self._long.assert_invariants()
        self._zone.assert_invariants()

    def _on_message(self, peer: NodeId, message: Any, now_s: float, out: Outbox) -> bool:
        """Hand a message to the view it is for. Returns False if it is for neither."""
        kind = cast("type[Any]", type(message))
        of_long, of_zone = longview.HANDLERS.get(kind), zoneview.HANDLERS.get(kind)
        if (of_long is None and of_zone is None) or peer == self._ground.node_id:
            return False
        self._zone.answered(peer)
        if peer in self._ground.tombs and kind is not Disconnect:
            self._rise(peer, now_s, out)
        if of_zone is not None:
            of_zone(self._zone, peer, message, now_s, out)
        elif of_long is not None:
            of_long(self._long, peer, message, now_s, out)
            if kind is JoinReply:
                self._zone.search(now_s, out)
        return True

    # -- facts --

    def _on_local(self, incoming: LocalNode, now_s: float, out: Outbox) -> None:
        """Take the own new record and tell all neighbours if it says anything new; when leaving, part from them.

        A record that only refutes a suspicion is SWIM's to spread: nodes that suspect each other would not come to rest.
        """
        ground = self._ground
        old, ground.record = ground.record, incoming.record
        if old is None or incoming.record.leaving or _place_of(old) != _place_of(incoming.record):
            here = Here(incoming.record.raw)
            for node in ground.neighbours():
                out.send(node, here)
        if incoming.record.leaving:
            for node in list(ground.long):
                self._long.disconnect(node, now_s, out)
            for node in list(ground.members):
                self._zone.remove(node, now_s, out)
            return
        self._long.start(now_s)
        self._zone.start(now_s)
        while len(ground.long) > ground.config.long_room(self._long.target):
            self._long.disconnect(next(iter(ground.long)), now_s, out)

    def _on_heard(self, incoming: NodeHeard, now_s: float, out: Outbox) -> None:
        self._hear(incoming.record, incoming.via, False, now_s, out, tell=False)

    def _on_up(self, incoming: PeerUp, now_s: float, out: Outbox) -> None:
        """Join through the peer if we lack links; else ask an unknown or lost one who it is."""
        ground = self._ground
        peer = incoming.peer
        if ground.record is None or ground.record.leaving or peer == ground.node_id:
            return
        if len(ground.long) < ground.config.long_few or not ground.members:
            self._long.join(peer, now_s, out)
        ground.up.pop(peer, None)
        if len(ground.up) >= UP_MAX:
            del ground.up[next(iter(ground.up))]
        ground.up[peer] = None
        known = peer in ground.long or peer in self._zone.candidates.entries
        if peer in ground.tombs or (not known and now_s >= self._greet_s):
            self._greet_s = now_s + ground.config.zone_gap_s
            # A stranger hears of its link as well and says who it is; only the dead must be asked.
            out.send(peer, Here(ground.record.raw, reply=peer in ground.tombs))

    def _on_down(self, incoming: PeerDown, now_s: float, out: Outbox) -> None:
        self._ground.up.pop(incoming.peer, None)

    def _on_alive(self, incoming: MemberAlive, now_s: float, out: Outbox) -> None:
        tomb = self._ground.tombs.get(incoming.node)
        if tomb is not None and not tomb.left:
            self._revive(incoming.node, now_s, out)

    def _on_dead(self, incoming: MemberDead, now_s: float, out: Outbox) -> None:
        """Bury a node, unless we hold a newer record than the one that died: then it is to be probed anew."""
        record = self.record_of(incoming.node)
        if record is None:
            return
        if record.seq > incoming.seq:
            if incoming.node in self._ground.long or incoming.node in self._ground.members:
                out.emit(Watch(record))
            return
        self._gone(record, incoming.seq, left=False, now_s=now_s, out=out)

    def _on_left(self, incoming: MemberLeft, now_s: float, out: Outbox) -> None:
        record = self.record_of(incoming.node)
        if record is not None and record.seq <= incoming.seq:
            self._gone(record, incoming.seq, left=True, now_s=now_s, out=out)

    def _on_bad(self, incoming: NeighbourBad, now_s: float, out: Outbox) -> None:
        """Drop a neighbour that plumtree scored out, for a while; a zone mate stays a member, but no neighbour."""
        ground, node = self._ground, incoming.node
        ground.bad.pop(node, None)
        if len(ground.bad) >= ground.config.bad_max:
            del ground.bad[next(iter(ground.bad))]
        ground.bad[node] = now_s + ground.config.bad_s
        self._long.passive.drop(node)
        self._long.disconnect(node, now_s, out)
        ground.settle(node, now_s, out)
        self._probe_s = min(self._probe_s, now_s + ground.config.bad_s)
        self._long.fill(now_s, out)

    # -- records --

    def _hear(
        self, record: NodeRecord, via: NodeId, spare: bool, now_s: float, out: Outbox, *, tell: bool = True
    ) -> None:
        """Take in a verified record of another node, whoever sent it.

        Args:
            record: It.
            via: Who sent it; the node itself = it lives.
            spare: Fit for the reserve of long links: drawn at random, not because its key is near.
            now_s: Monotonic seconds.
            out: Effects.
            tell: Tell the other machines if it is new.
        """
        ground, node = self._ground, record.node_id
        if node == ground.node_id or ground.record is None:
            return
        if not spare and via != node:
            candidate = self._zone.candidates.entries.get(node)
            if candidate is not None and candidate.record.seq >= record.seq:
                return  # heard before, and with it all views; most records are
        if record.leaving:
            known = self.record_of(node)
            if known is not None and record.seq >= known.seq:
                self._gone(record, record.seq, left=True, now_s=now_s, out=out)
                if tell:
                    out.emit(NodeHeard(record, via))
            return
        tomb = ground.tombs.get(node)
        if tomb is not None:
            if record.seq <= tomb.seq:
                if via != node and not tomb.left:
                    # Somebody else thinks that it lives: ask it, though not each time.
                    tomb.probe_s = min(tomb.probe_s, max(now_s, tomb.asked_s + ground.config.tomb_ask_gap_s))
                    self._probe_s = min(self._probe_s, tomb.probe_s)
                return
            del ground.tombs[node]
        old = self.record_of(node)
        news = old is None or record.seq > old.seq
        link = ground.long.get(node)
        if link is not None:
            if record.seq > link.record.seq:
                link.record = record
        elif spare and not ground.is_bad(node, now_s):
            if self._long.passive.put(record, via, ground.rng):
                self._long.wanted(now_s)
        elif (reserved := self._long.passive.entries.get(node)) is not None and record.seq > reserved.record.seq:
            reserved.record = record
        if record.site == ground.record.site:
            self._zone.admit(record, via, now_s, met=via == node)
        elif node in self._zone.candidates.entries and news:
            self._zone.remove(node, now_s, out)
        if news and tell and self.record_of(node) is not None:
            out.emit(NodeHeard(record, via))

    def record_of(self, node: NodeId) -> NodeRecord | None:
        """Return the newest record held of a living node."""
        link = self._ground.long.get(node)
        best = link.record if link is not None else None
        candidate = self._zone.candidates.entries.get(node)
        if candidate is not None and (best is None or candidate.record.seq > best.seq):
            best = candidate.record
        spare = self._long.passive.entries.get(node)
        if spare is not None and (best is None or spare.record.seq > best.seq):
            best = spare.record
        return best

    def _unanswered(self, record: NodeRecord, now_s: float, out: Outbox) -> None:
        self._gone(record, record.seq, left=False, now_s=now_s, out=out)

    def _gone(self, record: NodeRecord, seq: int, *, left: bool, now_s: float, out: Outbox) -> None:
        """Take a node out of every view and remember that it is gone."""
        ground, node = self._ground, record.node_id
        was_neighbour = node in ground.neighbours()
        ground.bury(record, seq, left=left, now_s=now_s)
        if not was_neighbour:
            # Asking whether it is back is for those who lost it, not for all who heard of it.
            ground.tombs[node].probe_s = math.inf
        else:
            self._probe_s = min(self._probe_s, ground.tombs[node].probe_s)
        self._long.passive.drop(node)
        self._long.drop(node, now_s, out)
        self._zone.remove(node, now_s, out)
        self._long.fill(now_s, out)

    def _rise(self, node: NodeId, now_s: float, out: Outbox) -> None:
        """Take back a node that is thought dead and spoke to us, unless it keeps dying."""
        tomb = self._ground.tombs[node]
        if not tomb.left and now_s >= tomb.revive_s:
            self._revive(node, now_s, out)

    def _revive(self, node: NodeId, now_s: float, out: Outbox) -> None:
        tomb = self._ground.tombs.pop(node)
        self._hear(tomb.record, node, True, now_s, out)
        self._zone.search(now_s, out)

    # -- time --

    def _tick(self, now_s: float, out: Outbox) -> None:
        if self._ground.record is None or self._ground.record.leaving:
            return
        self._zone.tick(now_s, out)
        self._long.tick(now_s, out)
        if now_s >= self._probe_s:
            self._probe(now_s, out)

    def _probe(self, now_s: float, out: Outbox) -> None:
        """Ask the dead whose time has come whether they are back; forget whose backoff is over."""
        ground, config = self._ground, self._ground.config
        assert ground.record is not None
        self._probe_s = math.inf
        for node in [node for node, until_s in ground.bad.items() if until_s <= now_s]:
            del ground.bad[node]
            ground.settle(node, now_s, out)
        self._probe_s = min(ground.bad.values(), default=math.inf)
        asked = 0
        for node, tomb in ground.tombs.items():
            if tomb.probe_s <= now_s and asked >= _PROBES_AT_ONCE:
                tomb.probe_s = now_s + _PROBE_GAP_S  # many died at once: ask them one after the other
            if tomb.probe_s <= now_s:
                asked += 1
                tomb.probes += 1
                tomb.asked_s = now_s
                wait_s = min(config.tomb_probe_s * 2.0 ** min(tomb.probes, 16), config.tomb_probe_s_max)
                tomb.probe_s = now_s + wait_s * (0.8 + 0.4 * ground.rng.random())
                if tomb.probes >= config.tomb_probes_max:
                    tomb.probe_s = math.inf
                out.send(node, Here(ground.record.raw, reply=True), tomb.record.addresses)
            self._probe_s = min(self._probe_s, tomb.probe_s)


_ON: dict[type[Any], Any] = {
    LocalNode: Overlay._on_local,  # pyright: ignore[reportPrivateUsage]
    NodeHeard: Overlay._on_heard,  # pyright: ignore[reportPrivateUsage]
    PeerUp: Overlay._on_up,  # pyright: ignore[reportPrivateUsage]
    PeerDown: Overlay._on_down,  # pyright: ignore[reportPrivateUsage]
    MemberAlive: Overlay._on_alive,  # pyright: ignore[reportPrivateUsage]
    MemberDead: Overlay._on_dead,  # pyright: ignore[reportPrivateUsage]
    MemberLeft: Overlay._on_left,  # pyright: ignore[reportPrivateUsage]
    NeighbourBad: Overlay._on_bad,  # pyright: ignore[reportPrivateUsage]
}


def _place_of(record: NodeRecord) -> tuple[object, ...]:
    """Return what the overlay goes by in a record."""
    return record.addresses, record.site, record.capacity
