"""What this node says of its own zone: who reports, when, and what (docs/spec/directory.md §5.3).

All members see the same deaths by SWIM. The living one with the lowest key reports; the others wait their turn and keep
silent if they hear it done.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.reports import Reports
from agentmesh.core.machine import Outbox, Timer
from agentmesh.core.messages import SignatureWanted, ZoneChanged
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.zone_report import CONTEXT, ROWS_MAX, Row, prefix_of, zone_key, zone_report_body
from agentmesh.ids import Key, NodeId, dht_key, public_key_of

REPORT = "directory.report"
#: How much later each further member reports, seconds.
_TURN_S = 0.4
_TURNS_MAX = 16
#: Nodes near this one whose incarnation is remembered; members come and go by twos and threes.
_MATES_MAX = 512


@dataclass(slots=True)
class Mate:
    """A node of this zone, or one that may become so.

    Attributes:
        key: Its DHT key.
        seq: The highest incarnation heard of; 0 = none.
        dead_s: When it died, monotonic; None = it lives, or is no member.
    """

    key: Key
    seq: int = 0
    dead_s: float | None = None


class Zone:
    """The zone of this node.

    Args:
        node_id: This node.
        config: Intervals.
        rng: For jitter.
        reports: Where the zone's newest report is held.
        matters: Says whether a node has agents here; the death of others is not reported.
    """

    def __init__(
        self,
        node_id: NodeId,
        config: DirectoryConfig,
        rng: random.Random,
        reports: Reports,
        matters: Callable[[NodeId], bool],
    ) -> None:
        self.node_id = node_id
        self.config = config
        self.key = dht_key(public_key_of(node_id))
        self.site = ""
        self.depth = 0
        self.members: tuple[NodeId, ...] = ()
        self.mates: dict[NodeId, Mate] = {}
        self._rng = rng
        self._reports = reports
        self._matters = matters
        self._position = zone_key("", 0, self.key)
        self._reported_s = 0.0
        self._signed_s = -1e9
        self._noticed_s: float | None = None
        self._due_s: float | None = None
        self._token = 0

    def change(self, zone: ZoneChanged, now_s: float, out: Outbox) -> None:
        """Take over the members that the overlay names."""
        if not self.members or (zone.site, zone.depth) != (self.site, self.depth):
            self.site, self.depth = zone.site, zone.depth
            self._position = zone_key(zone.site, zone.depth, self.key)
            self._reported_s = now_s
        self.members = zone.members
        members = dict.fromkeys(zone.members)
        for node in zone.members:
            mate = self.mates.get(node)
            if mate is None:
                self.mates[node] = Mate(dht_key(public_key_of(node)))
            else:
                mate.dead_s = None
        self._prune(members, now_s)
        self.review(now_s, out)

    def hear(self, record: NodeRecord) -> None:
        """Note the incarnation of a node of this zone, or of one that may be."""
        mate = self.mates.get(record.node_id)
        if mate is not None:
            mate.seq = max(mate.seq, record.seq)
        elif (
            len(self.mates) < _MATES_MAX
            and record.site == self.site
            and prefix_of(record.key, self.depth) == prefix_of(self.key, self.depth)
        ):
            self.mates[record.node_id] = Mate(record.key, record.seq)

    def died(self, node: NodeId, seq: int, now_s: float, out: Outbox) -> None:
        """Note that a node died or left; it is reported if it is of this zone."""
        mate = self.mates.get(node)
        if mate is not None and seq >= mate.seq and node != self.node_id:
            mate.seq = max(mate.seq, seq)
            mate.dead_s = now_s
            self.review(now_s, out)

    def lives(self, node: NodeId, now_s: float, out: Outbox) -> None:
        """Note that a node lives after all."""
        mate = self.mates.get(node)
        if mate is not None and mate.dead_s is not None:
            mate.dead_s = None
            self.review(now_s, out)

    def heard_report(self, position: bytes, now_s: float, out: Outbox) -> None:
        """Note that a newer report of a zone is held."""
        if position == self._position:
            self._reported_s = now_s
            self.review(now_s, out)

    def review(self, now_s: float, out: Outbox) -> None:
        """Decide when this node is to report next, and see to it that it is woken then."""
        due_s = self._next_due_s(now_s)
        if due_s is None:
            self._due_s = None
        elif self._due_s is None or abs(due_s - self._due_s) > 0.5:
            self._due_s = due_s
            self._token += 1
            out.after(max(0.0, due_s - now_s) + self._rng.uniform(0, 0.2), Timer(REPORT, self._token))

    def on_timer(self, timer: Timer, unix_s: int, now_s: float, out: Outbox) -> None:
        """Report, if it is still to be done."""
        if timer.token != self._token or self._due_s is None:
            return
        self._due_s = None
        due_s = self._next_due_s(now_s)
        if due_s is not None and due_s <= now_s:
            self._signed_s = self._reported_s = now_s
            self._noticed_s = None
            out.emit(SignatureWanted(CONTEXT, self._body(unix_s, now_s)))
        self.review(now_s, out)

    def _next_due_s(self, now_s: float) -> float | None:
        turn = min(self._turn(), _TURNS_MAX)
        if self._is_unreported(now_s):
            if self._noticed_s is None:
                self._noticed_s = now_s
            wait_s = self.config.zone_settle_s if turn == 0 else self.config.zone_takeover_s + _TURN_S * (turn - 1)
            return max(self._noticed_s + wait_s, self._signed_s + self.config.zone_gap_s)
        self._noticed_s = None
        if len(self.members) < 2 or not any(self._matters(node) for node in self.members):
            return None
        return self._reported_s + self.config.zone_keepalive_s + 2.0 * turn

    def _turn(self) -> int:
        return self.members.index(self.node_id) if self.node_id in self.members else len(self.members)

    def _is_unreported(self, now_s: float) -> bool:
        """Say whether this zone's report lacks a death that matters, or speaks of one that is none."""
        report = self._reports.get(self._position)
        said = {row[0]: row[1] for row in report.rows if row[2]} if report is not None and report.grave else {}
        for node, mate in self._dead(now_s):
            if said.get(mate.key[:8], -1) < mate.seq and self._matters(node):
                return True
        living = (self.mates[node] for node in self.members)
        return bool(said) and any(mate.dead_s is None and mate.key[:8] in said for mate in living)

    def _dead(self, now_s: float) -> list[tuple[NodeId, Mate]]:
        since_s = now_s - self.config.zone_dead_s
        return [(n, mate) for n, mate in self.mates.items() if mate.dead_s is not None and mate.dead_s > since_s]

    def _body(self, unix_s: int, now_s: float) -> bytes:
        held = self._reports.get(self._position)
        said = {row[0]: row[1] for row in held.rows} if held is not None else {}
        prefix = prefix_of(self.key, self.depth)
        rows: list[Row] = []
        for _, mate in self._dead(now_s):
            rows.append((mate.key[:8], mate.seq, True))
        for node in self.members:
            mate = self.mates[node]
            if mate.dead_s is None:
                mark = mate.key[:8]
                rows.append((mark, max(mate.seq, said.get(mark, 0)), False))
        rows = [row for row in rows if prefix_of(row[0], self.depth) == prefix]
        seq = max(unix_s, 0 if held is None else held.seq + 1)
        return zone_report_body(
            site=self.site, depth=self.depth, seq=min(seq, (unix_s + 1) * 1000), iat=unix_s, rows=tuple(rows[:ROWS_MAX])
        )

    def _prune(self, members: dict[NodeId, None], now_s: float) -> None:
        """Forget who is neither a member nor died lately, as soon as there are many."""
        prefix = prefix_of(self.key, self.depth)
        dead = dict(self._dead(now_s))
        for node, mate in list(self.mates.items()):
            outside = prefix_of(mate.key, self.depth) != prefix
            if node not in members and (outside or (len(self.mates) > _MATES_MAX // 2 and node not in dead)):
                del self.mates[node]

    def assert_invariants(self) -> None:
        """Raise AssertionError if a member is not known or a bound is broken."""
        assert all(node in self.mates for node in self.members)
        assert len(self.mates) <= _MATES_MAX + len(self.members)
