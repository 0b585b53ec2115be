"""What both views of the overlay stand on: the own record, who is neighbour, who is dead, and when to wake up.

Used by ``longview``, ``zoneview`` and ``machine`` only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer, WallTime
from agentmesh.core.messages import NeighbourDown, NeighbourUp, Unwatch, Watch
from agentmesh.core.overlay.config import OverlayConfig
from agentmesh.core.overlay.messages import RECORDS_MAX
from agentmesh.errors import PeerError, ReplayError
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.reader import Reader
from agentmesh.ids import NodeId

TIMER = "overlay.tick"
#: Peers remembered as connected.
UP_MAX = 8
#: Shortest delay of a timer, seconds.
_MOMENT_S = 0.001


class Link:
    """A long link: the other end's newest record, and whether this node asked for it."""

    __slots__ = ("asked", "record")

    def __init__(self, record: NodeRecord, asked: bool) -> None:
        self.record, self.asked = record, asked


class Tomb:
    """A node that died or left.

    Attributes:
        record: Its last record.
        seq: No record up to this seq brings it back.
        left: It said so itself: it is not asked whether it is back.
        revive_s: From when on a message of its own brings it back.
        asked_s: When it was asked last, or died.
        probe_s, probes: When to ask next whether it is back, and how often it was asked.
    """

    __slots__ = ("asked_s", "left", "probe_s", "probes", "record", "revive_s", "seq")

    def __init__(self, record: NodeRecord, seq: int, left: bool, now_s: float, revive_s: float, probe_s: float) -> None:
        self.asked_s = now_s
        self.record, self.seq, self.left = record, seq, left
        self.revive_s, self.probe_s, self.probes = revive_s, probe_s, 0


class Ground:
    """State shared by the two views. Args as of ``Overlay``."""

    __slots__ = (
        "_deaths",
        "_due_s",
        "_neighbours",
        "_token",
        "_watched",
        "bad",
        "config",
        "gone",
        "hear",
        "long",
        "members",
        "node_id",
        "reader",
        "record",
        "rng",
        "tombs",
        "up",
        "wall",
    )

    #: Take in a verified record: (record, via, fit for the reserve, now_s, out).
    hear: Callable[[NodeRecord, NodeId, bool, float, Outbox], None]
    #: Bury a node that does not answer: (record, now_s, out).
    gone: Callable[[NodeRecord, float, Outbox], None]

    def __init__(
        self, node_id: NodeId, config: OverlayConfig, rng: random.Random, reader: Reader, wall: WallTime
    ) -> None:
        self.node_id, self.config, self.rng, self.reader, self.wall = node_id, config, rng, reader, wall
        self.record: NodeRecord | None = None
        self.long: dict[NodeId, Link] = {}
        self.members: dict[NodeId, NodeRecord] = {}
        self.tombs: dict[NodeId, Tomb] = {}
        #: Peers with a link, the last ones: whom to join through when nobody else is known.
        self.up: dict[NodeId, None] = {}
        self.bad: dict[NodeId, float] = {}
        self._deaths: dict[NodeId, int] = {}
        self._watched: dict[NodeId, None] = {}
        self._neighbours: dict[NodeId, bool] = {}
        self._due_s, self._token = math.inf, 0

    # -- time --

    def wake(self, at_s: float, now_s: float, out: Outbox) -> None:
        """See to it that the machine is woken at ``at_s`` or before; infinity asks for nothing."""
        if at_s < self._due_s:
            self._due_s = at_s
            self._token += 1
            # Never less than a moment: sums of floats may fall short of ``at_s``, and the timer would come in vain for ever.
            out.after(max(_MOMENT_S, at_s - now_s), Timer(TIMER, self._token))

    def woken(self, timer: Timer) -> bool:
        """Say whether a timer is the one that was asked for last."""
        if timer.token != self._token:
            return False
        self._due_s = math.inf
        return True

    # -- records --

    def read(self, raw: bytes, peer: NodeId, now_s: float, out: Outbox) -> NodeRecord | None:
        """Return the verified record that a peer sent; None for a bad one (held against the peer), an expired one or our own."""
        try:
            record = self.reader.node(raw, self.wall.unix_s(now_s))
        except ReplayError:
            return None
        except PeerError as error:
            out.emit(PeerMisbehaved(peer, "overlay.record", f"{error.code}: {error}"[:200]))
            return None
        return None if record.node_id == self.node_id else record

    def read_own(self, raw: bytes, peer: NodeId, now_s: float, out: Outbox) -> NodeRecord | None:
        """Return the verified record of the peer itself; anything else is held against it."""
        record = self.read(raw, peer, now_s, out)
        if record is not None and record.node_id != peer:
            out.emit(PeerMisbehaved(peer, "overlay.impostor", f"spoke with the record of {record.node_id}"))
            return None
        return record

    def hear_all(self, raws: Sequence[bytes], peer: NodeId, spare: bool, now_s: float, out: Outbox) -> None:
        """Take in a list of records; ``spare`` = fit for the reserve of long links."""
        if len(raws) > RECORDS_MAX:
            out.emit(PeerMisbehaved(peer, "overlay.too_many", f"{len(raws)} records in one message"))
        for raw in raws[:RECORDS_MAX]:
            record = self.read(raw, peer, now_s, out)
            if record is not None:
                self.hear(record, peer, spare, now_s, out)

    def is_bad(self, node: NodeId, now_s: float) -> bool:
        """Say whether a node is kept out for bad behaviour."""
        return bool(self.bad) and self.bad.get(node, 0.0) > now_s

    # -- neighbours --

    def is_watched(self, node: NodeId) -> bool:
        """Say whether the failure detector looks after a node."""
        return node in self._watched

    def settle(self, node: NodeId, now_s: float, out: Outbox) -> None:
        """Tell the other machines what a node is now, if that changed: watched or not, neighbour or not, by which view."""
        link = self.long.get(node)
        record = link.record if link is not None else self.members.get(node)
        if record is None:
            if node in self._neighbours:
                del self._neighbours[node]
                out.emit(NeighbourDown(node))
            if node in self._watched:
                del self._watched[node]
                out.emit(Unwatch(node))
            return
        if node not in self._watched:
            self._watched[node] = None
            out.emit(Watch(record))
        zone = link is None
        if self.is_bad(node, now_s):
            if node in self._neighbours:
                del self._neighbours[node]
                out.emit(NeighbourDown(node))
        elif self._neighbours.get(node) is not zone:
            self._neighbours[node] = zone
            out.emit(NeighbourUp(node, zone))

    def neighbours(self) -> dict[NodeId, bool]:
        """Return the neighbours as told, with True for those of the zone only. Read-only."""
        return self._neighbours

    # -- the dead --

    def bury(self, record: NodeRecord, seq: int, *, left: bool, now_s: float) -> None:
        """Remember that a node died or left."""
        config = self.config
        node = record.node_id
        deaths = self._deaths.pop(node, 0) + 1
        for table in (self.tombs, self._deaths):
            if len(table) >= config.tombs_max and node not in table:
                del table[next(iter(table))]
        self._deaths[node] = deaths
        hold_s = min(config.revive_s * 2.0 ** min(deaths - 1, 16), config.revive_s_max)
        probe_s = now_s + max(hold_s, config.tomb_probe_s * (0.75 + 0.5 * self.rng.random()))
        self.tombs.pop(node, None)
        self.tombs[node] = Tomb(
            record, max(seq, record.seq), left, now_s, now_s + hold_s, math.inf if left else probe_s
        )

    def assert_invariants(self) -> None:
        """Raise AssertionError if what was told differs from what is, or a bound is broken."""
        assert len(self.tombs) <= self.config.tombs_max
        assert len(self.up) <= UP_MAX
        assert len(self._deaths) <= self.config.tombs_max
        assert len(self.bad) <= self.config.bad_max
        assert self.node_id not in self.long
        assert self.node_id not in self.members
        assert self._watched.keys() == self.long.keys() | self.members.keys()
        assert self._neighbours.keys() <= self._watched.keys()
        for node, zone in self._neighbours.items():
            assert zone is (node not in self.long)
