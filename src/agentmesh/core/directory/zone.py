"""What this node says of its own zone: who reports, when, and what (docs/spec/directory.md §5.3).

All members see the same deaths by SWIM. The living one with the lowest key reports; the others wait their turn and keep
silent if they hear it done. Where a report and this node's own eyes disagree, SWIM is asked first: whoever has not noticed
yet must not take back what others have.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.nodes import Claim, claim_of
from agentmesh.core.directory.reports import Reports
from agentmesh.core.machine import Outbox, Timer
from agentmesh.core.messages import ProbeWanted, SignatureWanted, ZoneChanged
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.zone_report import (
    CLEARED,
    CONTEXT,
    DEAD,
    LIVES,
    ROWS_MAX,
    Row,
    ZoneReport,
    prefix_of,
    zone_key,
    zone_report_body,
)
from agentmesh.ids import Key, NodeId, dht_key, public_key_of

REPORT = "directory.report"
#: How much later each further member reports, seconds.
_TURN_S = 0.4
_TURNS_MAX = 16
#: Nodes near this one whose incarnation is remembered; members come and go by twos and threes.
_MATES_MAX = 512


@dataclass(slots=True, eq=False)
class Mate:
    """A node of this zone, or one that may become so.

    Attributes:
        key: Its DHT key.
        seq: The highest incarnation of which a record was heard; 0 = none.
        dead_s: When SWIM gave it up here, monotonic; None = it lives, or is no member.
        said: The highest claim about it in any report.
        said_s: When that was heard, monotonic.
        asked: SWIM was asked about it, since a report said that it is dead, and has not answered yet.
        patient_until_s: Others say that it lives and SWIM here does not: until then that is left as it is.
    """

    key: Key
    seq: int = 0
    dead_s: float | None = None
    said: Claim = (0, 0, True)
    said_s: float = -math.inf
    asked: bool = False
    patient_until_s: float = -math.inf


class Zone:
    """The zone of this node.

    Args:
        node_id: This node.
        config: Intervals.
        rng: For jitter.
        reports: Where the newest reports are held.
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
        self._marks: dict[bytes, NodeId] = {}
        self._rng = rng
        self._reports = reports
        self._matters = matters
        self._position = zone_key("", 0, self.key)
        self._clock = 0  # the highest ``seq`` of a report that speaks of this zone
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
            for report in self._reports.held.values():
                self._note_clock(report)
        self.members = zone.members
        for node in zone.members:
            mate = self.mates.get(node)
            if mate is None:
                self._admit(node, dht_key(public_key_of(node)), now_s, out)
            elif mate.dead_s is not None:
                mate.dead_s = None
                self._ask(node, mate, out)
        self._prune(dict.fromkeys(zone.members), now_s)
        self.review(now_s, out)

    def hear(self, record: NodeRecord, now_s: float, out: Outbox) -> None:
        """Note the incarnation of a node of this zone, or of one that may be."""
        mate = self.mates.get(record.node_id)
        if mate is not None:
            if mate.dead_s is not None and record.seq > mate.seq:
                self._dispute(record.node_id, mate, now_s, out)
            mate.seq = max(mate.seq, record.seq)
        elif (
            len(self.mates) < _MATES_MAX
            and record.site == self.site
            and prefix_of(record.key, self.depth) == prefix_of(self.key, self.depth)
        ):
            self._admit(record.node_id, record.key, now_s, out).seq = record.seq

    def died(self, node: NodeId, seq: int, now_s: float, out: Outbox) -> None:
        """Note that a node died or left; it is reported if it is of this zone."""
        mate = self.mates.get(node)
        if mate is not None and node != self.node_id:
            mate.seq = max(mate.seq, seq)
            mate.dead_s = now_s
            mate.asked = False
            self.review(now_s, out)

    def lives(self, node: NodeId, now_s: float, out: Outbox) -> None:
        """Note that a node answers."""
        mate = self.mates.get(node)
        if mate is not None and (mate.dead_s is not None or mate.asked):
            mate.dead_s = None
            mate.asked = False
            self.review(now_s, out)

    def hear_report(self, report: ZoneReport, now_s: float, out: Outbox) -> None:
        """Note what a newer report says of the nodes of this zone."""
        concerns = report.zone_key == self._position
        if concerns:
            self._reported_s = now_s
        self._note_clock(report)
        for row in report.rows:
            node = self._marks.get(row[0])
            if node is not None:
                concerns |= self._hear_claim(node, claim_of(row, report), now_s, out)
        if concerns:
            self.review(now_s, out)

    def _hear_claim(self, node: NodeId, claim: Claim, now_s: float, out: Outbox) -> bool:
        mate = self.mates[node]
        if claim <= mate.said:
            return False
        mate.said = claim
        mate.said_s = now_s
        if mate.dead_s is None:
            mate.asked = False
            self._ask(node, mate, out)
        elif claim[2] and (claim[1] or claim[0] > mate.seq):
            self._dispute(node, mate, now_s, out)
        return True

    def _ask(self, node: NodeId, mate: Mate, out: Outbox) -> None:
        """Have SWIM look, if a member is said to be dead."""
        if not mate.said[2] and not mate.asked and node != self.node_id:
            mate.asked = True
            out.emit(ProbeWanted(node))

    def _dispute(self, node: NodeId, mate: Mate, now_s: float, out: Outbox) -> None:
        """Have SWIM look once more at somebody who is dead here and lives by the word of others."""
        mate.patient_until_s = now_s + self.config.zone_dispute_s
        out.emit(ProbeWanted(node))

    def _admit(self, node: NodeId, key: Key, now_s: float, out: Outbox) -> Mate:
        mate = self.mates[node] = Mate(key)
        self._marks[key[:8]] = node
        for row, report in self._reports.words_on(key):
            self._hear_claim(node, claim_of(row, report), now_s, out)
        return mate

    def _note_clock(self, report: ZoneReport) -> None:
        depth = min(report.depth, self.depth)
        if report.site == self.site and prefix_of(report.reporter_key, depth) == prefix_of(self.key, depth):
            self._clock = max(self._clock, report.seq)

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
        patient_until_s = min((m.patient_until_s for _, m in self._unreported(now_s)), default=math.inf)
        if len(self.members) < 2 or not any(self._matters(node) for node in self.members):
            keepalive_s = math.inf
        else:
            keepalive_s = self._reported_s + self.config.zone_keepalive_s + 2.0 * turn
        due_s = min(patient_until_s, keepalive_s)
        return due_s if due_s < math.inf else None

    def _turn(self) -> int:
        return self.members.index(self.node_id) if self.node_id in self.members else len(self.members)

    def _is_unreported(self, now_s: float) -> bool:
        """Say whether no report speaks of a death, or one speaks of a death that is none."""
        if any(now_s >= mate.patient_until_s for _, mate in self._unreported(now_s)):
            return True
        living = (self.mates[node] for node in self.members)
        return any(mate.dead_s is None and not mate.said[2] and not mate.asked for mate in living)

    def _unreported(self, now_s: float) -> Iterator[tuple[NodeId, Mate]]:
        """Go through the dead who matter and of whom no report says so."""
        for node, mate in self._dead(now_s):
            if (mate.said[2] or mate.said[0] < mate.seq) and self._matters(node):
                yield node, mate

    def _dead(self, now_s: float) -> list[tuple[NodeId, Mate]]:
        since_s = now_s - self.config.zone_dead_s
        return [(n, mate) for n, mate in self.mates.items() if mate.dead_s is not None and mate.dead_s > since_s]

    def _body(self, unix_s: int, now_s: float) -> bytes:
        prefix = prefix_of(self.key, self.depth)
        near = [mate for _, mate in self._dead(now_s)]
        near += [mate for mate in map(self.mates.__getitem__, self.members) if mate.dead_s is None]
        rows = [self._row(mate, now_s) for mate in near if prefix_of(mate.key, self.depth) == prefix]
        self._clock = max(unix_s, self._clock + 1)
        return zone_report_body(
            site=self.site,
            depth=self.depth,
            seq=min(self._clock, (unix_s + 1) * 1000),
            iat=unix_s,
            rows=tuple(rows[:ROWS_MAX]),
        )

    def _row(self, mate: Mate, now_s: float) -> Row:
        """Say of a member what this node knows, or else what was said."""
        said_seq, said_clock, said_lives = mate.said
        seq = max(mate.seq, said_seq)
        if mate.dead_s is not None:
            patient = now_s < mate.patient_until_s and said_lives and said_clock
            return mate.key[:8], seq, CLEARED if patient else DEAD
        if not said_lives:
            return (mate.key[:8], said_seq, DEAD) if mate.asked else (mate.key[:8], seq, CLEARED)
        recently = said_clock and now_s - mate.said_s < self.config.zone_dead_s
        return mate.key[:8], seq, CLEARED if recently else LIVES

    def _prune(self, members: dict[NodeId, None], now_s: float) -> None:
        """Forget who is neither a member nor died lately, as soon as there are many."""
        prefix = prefix_of(self.key, self.depth)
        dead = dict(self._dead(now_s))
        for node, mate in list(self.mates.items()):
            outside = prefix_of(mate.key, self.depth) != prefix
            if node not in members and (outside or (len(self.mates) > _MATES_MAX // 2 and node not in dead)):
                del self.mates[node]
                self._marks.pop(mate.key[:8], None)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a member is not known or a bound is broken."""
        assert all(node in self.mates for node in self.members)
        assert len(self.mates) <= _MATES_MAX + len(self.members)
        assert len(self._marks) == len(self.mates)
