"""What this node says of itself to all: that it lives, leaves, and which of its agents are sick (docs/spec/directory.md §6.5).

It asks for a record when the marks change and publishes it when everybody should know; other machines ask for records too,
and those are published only if they say something that matters here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.messages import NODE, Records
from agentmesh.core.directory.nodes import Claim, claim_of
from agentmesh.core.machine import Outbox, Timer, WallTime
from agentmesh.core.messages import NodeRecordWanted, Publish
from agentmesh.identity.node_record import SICK_MAX, NodeRecord
from agentmesh.identity.zone_report import ZoneReport
from agentmesh.ids import Key, NodeId

RECORD = "directory.record"
REFUTE = "directory.refute"
#: A record signed longer ago is signed afresh before it is published: others take old ones for replays.
_FRESH_S = 300
#: A report may speak of an incarnation that never was; no more than so many are skipped to refute it.
_SEQ_LEAP_MAX = 1_000_000


class Own:
    """This node's word on itself.

    Args:
        config: Intervals.
        rng: For jitter.
        wall: The wall clock.
        sick: Returns the marks of local agents that fail their check, and whether there is any local agent.
    """

    def __init__(
        self, config: DirectoryConfig, rng: random.Random, wall: WallTime, sick: Callable[[], tuple[list[bytes], bool]]
    ) -> None:
        self.config = config
        self.record: NodeRecord | None = None
        self.leaving = False
        self._rng = rng
        self._wall = wall
        self._sick = sick
        #: Agents that are said to live here and do not: nobody else can say so. Oldest first.
        self._disowned: dict[bytes, None] = {}
        self._published: NodeRecord | None = None
        #: A record with a higher seq than this is wanted, and is to be published: up to it this node was said to be dead.
        self._seq_min = 0
        self._asked_s = self._told_s = -1e9
        self._waits = False
        #: The highest claim about this node in any report.
        self._said: Claim = (0, 0, True)

    def marks(self) -> tuple[bytes, ...]:
        """Return what the ``sick`` of this node's record should be now; whoever has a record signed puts it in."""
        sick, _ = self._sick()
        return tuple(dict.fromkeys([*sick, *self._disowned]))[:SICK_MAX]

    def disown(self, agent: Key, now_s: float, out: Outbox) -> None:
        """Tell all that an agent that names this node is not here."""
        if agent[:8] not in self._disowned and not self.leaving:
            if len(self._disowned) >= SICK_MAX:
                del self._disowned[next(iter(self._disowned))]
            self._disowned[agent[:8]] = None
            self.tend(now_s, out)

    def own(self, agent: Key) -> None:
        """Note that an agent is here after all."""
        self._disowned.pop(agent[:8], None)

    def on_record(self, record: NodeRecord, neighbours: dict[NodeId, bool], now_s: float, out: Outbox) -> None:
        """Take this node's newest record; publish it if it says something that matters."""
        self.record = record
        if record.leaving:
            if self._sick()[1]:
                out.emit(Publish("node", record.raw))
            for peer in neighbours:
                out.send(peer, Records(records=[], words=[(NODE, record.raw)]))
            return
        self.tend(now_s, out)

    def leave(self, out: Outbox) -> None:
        """Ask for the last record of this run."""
        if not self.leaving:
            self.leaving = True
            out.emit(NodeRecordWanted(leaving=True))

    def hear_report(self, report: ZoneReport, mark: bytes, now_s: float, out: Outbox) -> None:
        """Note what a report says of this node; refute it in a while if nobody else has by then."""
        for claim in (claim_of(row, report) for row in report.rows if row[0] == mark):
            if claim > self._said:
                if not claim[2] and self._said[2] and self.record is not None:
                    out.after(self.config.refute_s * self._rng.uniform(0.7, 1.3), Timer(REFUTE))
                self._said = claim

    def on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        """Do what had to wait."""
        if timer.name == RECORD:
            self._waits = False
            self.tend(now_s, out)
        elif timer.name == REFUTE and not self._said[2] and self.record is not None:
            seq = self._said[0]
            self._said = (seq, self._said[1], True)
            if self._sick()[1] and not self.leaving:
                sane = seq <= self.record.seq + _SEQ_LEAP_MAX
                self._seq_min = max(self.record.seq, seq if sane else 0)
                self.tend(now_s, out)

    def tend(self, now_s: float, out: Outbox) -> None:
        """Ask for a record with the right marks, or publish the one there is; neither too often."""
        record = self.record
        if record is None or self.leaving:
            return
        stale = record.seq <= self._seq_min or sorted(record.sick) != sorted(self.marks())
        if not stale and not self._is_due(record):
            return
        wait_s = (self._asked_s if stale else self._told_s) + self.config.record_gap_s - now_s
        if wait_s > 0:
            if not self._waits:
                self._waits = True
                out.after(wait_s, Timer(RECORD))
        elif stale or self._wall.unix_s(now_s) - record.iat > _FRESH_S:
            self._ask(max(record.seq, self._seq_min), now_s, out)
        else:
            self._told_s = now_s
            self._published = record
            out.emit(Publish("node", record.raw))

    def _is_due(self, record: NodeRecord) -> bool:
        """Say whether everybody should have this record: first with agents, other marks, a refutation, or a renewed one."""
        told = self._published
        if not self._sick()[1] and not (told is not None and told.sick):
            return False
        if told is None or told.seq <= self._seq_min:
            return True
        return sorted(told.sick) != sorted(record.sick) or (
            bool(record.sick) and record.iat - told.iat > (told.exp - told.iat) // 4
        )

    def _ask(self, seq_min: int, now_s: float, out: Outbox) -> None:
        self._asked_s = now_s
        if not self._waits:
            self._waits = True  # should the signature never come, ask again
            out.after(self.config.record_gap_s, Timer(RECORD))
        out.emit(NodeRecordWanted(seq_min=seq_min, sick=self.marks()))
