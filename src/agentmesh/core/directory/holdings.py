"""All that one directory holds: agents, the nodes behind them, words about those, and the set that peers compare.

This is the only place that changes any of them, so that the sums, the indexes and the node's picture of its agents agree.
Callers have verified what they bring.
"""

from __future__ import annotations

import math

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.messages import AGENT, NODE, ZONE, AgentChanged, AgentGone, Line, RenewalDue
from agentmesh.core.directory.nodes import LEFT, Claim, Nodes, NodeState, claim_of, node_line, node_position, word_value
from agentmesh.core.directory.ranges import RangeSet
from agentmesh.core.directory.reports import Reports, report_line, report_rank
from agentmesh.core.directory.table import Entry, Rank, Table, entry_line
from agentmesh.core.machine import Outbox, WallTime
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.reader import Reader
from agentmesh.identity.zone_report import CLEARED, DEAD, Row, ZoneReport
from agentmesh.ids import Key, NodeId

Item = Entry | NodeState | ZoneReport

#: How often a local agent's overdue signature is asked for again, seconds.
_DUE_AGAIN_S = 60.0
#: A report that speaks of an incarnation so far above the known one is made up: refuting it must stay possible.
_SEQ_LEAP_MAX = 1_000_000
#: Reports that do not know that somebody is missed here may still be on their way for so long, seconds.
_BELATED_S = 30
#: Reporters whose refuted reports are counted.
_REPORTERS_MAX = 256


class Holdings:
    """The state of one directory.

    Args:
        node_id: This node.
        config: Bounds and intervals.
        reader: For search keys.
        wall: The wall clock.
    """

    def __init__(self, node_id: NodeId, config: DirectoryConfig, reader: Reader, wall: WallTime) -> None:
        self.node_id = node_id
        self.config = config
        self.wall = wall
        self.held: RangeSet[Item] = RangeSet()
        self.table = Table(node_id, config, self.held, reader.keys)  # pyright: ignore[reportArgumentType]
        self.nodes = Nodes(config)
        self.reports = Reports(config.reports_max)
        #: When something here is over next, monotonic; ``expire`` then.
        self.due_s = math.inf
        #: Rises whenever a node came back whose agents may be lacking here.
        self.revivals = 0
        #: Nodes that are neighbours: this node sees them itself.
        self.watched: dict[NodeId, None] = {node_id: None}
        self._lies: dict[NodeId, tuple[float, int, int]] = {}

    def at(self, kind: int, position: bytes) -> tuple[Item | None, Rank | None]:
        """Return the item of a kind at a position, also one that is not compared, and its rank."""
        if kind == AGENT:
            item = self.held.get(position)
            return (item, item.rank) if isinstance(item, Entry) else (None, None)
        if kind == NODE:
            state = self.nodes.at(position)
            return (state, state.rank) if state is not None and state.record is not None else (None, None)
        report = self.reports.get(position)
        return (report, report_rank(report)) if report is not None else (None, None)

    # Agents

    def put(self, entry: Entry, now_s: float, out: Outbox, *, asked: bool = False) -> bool:
        """Hold an entry that outranks what is held of its agent; False = there is no room (``Table.put``)."""
        old = self.table.get(entry.manifest.agent_id)
        was_live = old is not None and not old.manifest.tombstone
        evicted = self.table.put(entry, asked=asked)
        if evicted is None:
            self.release(entry.node)
            return False
        self.nodes.spare.pop(entry.node.node, None)
        for each in (*evicted, *([old] if old is not None else [])):
            self.release(each.node)
        for victim in evicted:
            if not victim.manifest.tombstone:
                out.emit(AgentGone(victim.manifest.agent_id, victim.manifest.name, "evicted"))
        if not entry.manifest.tombstone:
            entry.noted = entry.node.healthy(entry.key)
            out.emit(AgentChanged(entry.manifest.agent_id))
        elif was_live:
            out.emit(AgentGone(entry.manifest.agent_id, entry.manifest.name, "withdrawn"))
        self._expect_entry(entry, now_s)
        self._expect_node(entry.node)
        return True

    def drop(self, entry: Entry, why: str, out: Outbox) -> None:
        """Take an entry out."""
        self.table.remove(entry)
        self.release(entry.node)
        if not entry.manifest.tombstone:
            out.emit(AgentGone(entry.manifest.agent_id, entry.manifest.name, why))  # pyright: ignore[reportArgumentType]

    # Nodes

    def node(self, node: NodeId, now_s: float, out: Outbox, key: Key | None = None) -> NodeState:
        """Return what is known of a node, making a place for it; ``release`` it if no agent follows."""
        state = self.nodes.get(node)
        if state is None:
            if len(self.nodes.spare) >= self.config.spare_nodes_max:
                self._forget(self.nodes.known[next(iter(self.nodes.spare))])
            state = self.nodes.add(node, key, now_s)
            state.direct = node in self.watched
            for row, report in self.reports.words_on(state.key):
                self._hear_row(state, row, report, now_s, out)
            self._expect(now_s + self.config.forget_s)
        return state

    def hear_record(self, record: NodeRecord, now_s: float, out: Outbox, *, keep: bool = False) -> bool:
        """Merge a node's record; ``keep`` = remember it for its own sake if it says who is sick, or that it leaves."""
        state = self.nodes.get(record.node_id)
        if state is None and keep and (record.leaving or record.sick):
            state = self.node(record.node_id, now_s, out, record.key)
        if state is None or (state.record is not None and state.record.seq >= record.seq):
            return False
        if state.record is None or state.record.sick != record.sick:
            state.sick_s = now_s
        state.record = record
        if state.word:
            self.held.put(node_position(state.key), word_value(NODE, state.key, record.seq, 0), state)
        else:
            self.held.discard(node_position(state.key))
        if state.best[0] > record.seq + _SEQ_LEAP_MAX:
            state.best = (0, 0, True)  # what was said before it was known was made up
        if record.leaving:
            state.direct = False
            self._claim(state, (record.seq, LEFT, False), record.iat, now_s)
        else:
            if state.blamed is not None and record.iat > state.blamed[1]:
                self._note_lie(state.blamed, now_s)
                state.blamed = None
            if record.iat >= state.missed_iat:
                state.missed_iat = 0
            self._claim(state, (record.seq, record.iat, True), record.iat, now_s)
        self._tell(state, out)
        self._expect_unsigned(state)
        return True

    def hear_report(self, report: ZoneReport, now_s: float, out: Outbox) -> None:
        """Hold a report that ``reports.is_newer`` and believe its rows, as far as they are not about this node."""
        for former in self.reports.put(report):
            self.held.discard(former.zone_key)
        if report.grave:
            self.held.put(report.zone_key, word_value(ZONE, report.zone_key, report.seq, report.mark), report)
        for row in report.rows:
            state = self.nodes.marked(row[0])
            if state is not None:
                self._hear_row(state, row, report, now_s, out)
        self._expect(now_s + max(0, report.exp - self.wall.unix_s(now_s)) + 1)

    def watch(self, node: NodeId, now_s: float, out: Outbox) -> None:
        """Note that a node became a neighbour, which may be hearsay: one that is not up must answer first (``see``)."""
        self.watched[node] = None
        state = self.nodes.get(node)
        if state is not None and state.up:
            self.see(node, now_s, out, up=True)

    def unwatch(self, node: NodeId, now_s: float, out: Outbox) -> None:
        """Note that a node is no neighbour any longer, which says nothing of its life; what others say counts now."""
        self.watched.pop(node, None)
        state = self.nodes.get(node)
        if state is not None and state.direct:
            state.heard_s = now_s
            state.direct = False
            self._judge(state, now_s)
            self._tell(state, out)

    def see(self, node: NodeId, now_s: float, out: Outbox, *, up: bool) -> None:
        """Note what this node sees itself: a node answers, or does not."""
        state = self.nodes.get(node)
        if state is None:
            return
        state.direct = up and node in self.watched
        if up:
            state.missed_iat = 0
            state.heard_s = now_s
            seq, clock, lives = state.best
            if not lives and clock < LEFT:
                state.best = (seq, max(clock, self.wall.unix_s(now_s)), True)
        else:
            state.missed_iat = state.down_iat = max(state.down_iat, self.wall.unix_s(now_s))
        self._judge(state, now_s)
        self._tell(state, out)

    def see_left(self, node: NodeId, seq: int, now_s: float, out: Outbox) -> None:
        """Note that a node said to SWIM that it leaves."""
        state = self.nodes.get(node)
        if state is not None:
            state.direct = False
            self._claim(state, (seq, LEFT, False), self.wall.unix_s(now_s), now_s)
            self._tell(state, out)

    def _hear_row(self, state: NodeState, row: Row, report: ZoneReport, now_s: float, out: Outbox) -> None:
        """Take in what one row says about a node (docs/spec/directory.md §6)."""
        if state.node == self.node_id:
            return
        record = state.record
        if record is not None and (record.site != report.site or row[1] > record.seq + _SEQ_LEAP_MAX):
            return
        claim = claim_of(row, report)
        if row[2] == DEAD:
            if self._is_liar(report.reporter, now_s):
                return
            if state.best[2] and claim > state.best:
                state.blamed = (report.reporter, report.iat)
        elif state.missed_iat and report.iat >= state.missed_iat + (0 if row[2] == CLEARED else _BELATED_S):
            state.missed_iat = 0
        self._claim(state, claim, report.iat, now_s)
        self._tell(state, out)

    def _claim(self, state: NodeState, claim: Claim, iat: int, now_s: float) -> None:
        """Let a claim that was signed at ``iat`` count, if it outranks the best one."""
        if claim[2] and iat > state.life_iat:
            state.life_iat = iat
            state.heard_s = now_s
        if claim > state.best:
            state.best = claim
            if not claim[2]:
                state.down_iat = max(state.down_iat, iat)
        self._judge(state, now_s)

    def _judge(self, state: NodeState, now_s: float) -> None:
        """Draw the conclusion from what is known of a node."""
        up = state.deemed_up
        if up and not state.up:
            self.revivals += state.lacking
            state.up, state.since_s, state.heard_s, state.lacking = True, now_s, now_s, False
            state.gone_after_s = math.inf
            self.release(state)
        elif not up:
            if state.up:
                state.up, state.since_s = False, now_s
            left = not state.best[2] and state.best[1] == LEFT
            grace_s = self.config.leave_grace_s if left else self.config.lease_gone_s
            state.gone_after_s = min(state.gone_after_s, grace_s)
        self._expect_node(state)

    def _tell(self, state: NodeState, out: Outbox) -> None:
        """Tell the node about agents whose health changed with their node's."""
        for entry in self.table.behind(state.node):
            if (
                not entry.local
                and not entry.manifest.tombstone
                and entry.noted is not (now := state.healthy(entry.key))
            ):
                entry.noted = now
                out.emit(AgentChanged(entry.manifest.agent_id))

    def _note_lie(self, blamed: tuple[NodeId, int], now_s: float) -> None:
        """Count once per report that a node who was reported dead says otherwise."""
        reporter, iat = blamed
        since_s, count, last_iat = self._lies.pop(reporter, (now_s, 0, 0))
        if now_s - since_s > self.config.word_age_s:
            since_s, count = now_s, 0
        if len(self._lies) >= _REPORTERS_MAX:
            del self._lies[next(iter(self._lies))]
        self._lies[reporter] = (since_s, count + (iat != last_iat), iat)

    def _is_liar(self, reporter: NodeId, now_s: float) -> bool:
        since_s, count, _ = self._lies.get(reporter, (0.0, 0, 0))
        return count >= self.config.reporter_lies_max and now_s - since_s <= self.config.word_age_s

    def release(self, state: NodeState) -> None:
        """Mark a node without agents here as one that may go; forget it at once if there is nothing to remember.

        One that was said to be dead is remembered: the report is held and would count again.
        """
        if self.nodes.get(state.node) is state and not self.table.has_agents(state.node):
            self.nodes.spare[state.node] = None
            self._expect_node(state)
            if state.up and not state.down_iat and not state.word and not state.direct:
                self._forget(state)

    def _forget(self, state: NodeState) -> None:
        self.held.discard(node_position(state.key))
        self.nodes.remove(state)

    # Time

    def expire(self, now_s: float, out: Outbox) -> None:
        """Drop what is over, and say which local agents need a fresh signature; call it at ``due_s``."""
        unix_s = self.wall.unix_s(now_s)
        self.due_s = math.inf
        for report in self.reports.expired(unix_s):
            self.held.discard(report.zone_key)
            self.reports.remove(report)
        self._expect(now_s + self.reports.next_exp() - unix_s + 1)
        for state in list(self.nodes.known.values()):
            if state.node in self.nodes.spare:
                if now_s >= max(state.since_s, state.heard_s) + self.config.forget_s:
                    self._forget(state)
                    continue
                self._expect_node(state)
            elif state.up and not state.direct and now_s >= state.heard_s + self.config.silent_s:
                state.down_iat = max(state.down_iat, unix_s)
                state.missed_iat = max(1, unix_s - _BELATED_S)  # any report signed from now on brings it back
                self._judge(state, now_s)
                self._tell(state, out)
            elif state.up:
                self._expect_node(state)  # entries say when those of a dead node are over
        for entry in list(self.table.entries.values()):
            if entry.local:
                if now_s >= entry.due_s:
                    entry.due_s = now_s + _DUE_AGAIN_S
                    out.emit(RenewalDue(entry.manifest.agent_id, entry.manifest.name))
            elif entry.manifest.exp < unix_s:
                self.drop(entry, "expired", out)
                continue
            elif not entry.manifest.tombstone and self._is_over(entry, now_s):
                entry.node.lacking = not entry.node.up
                self.drop(entry, "lease", out)
                continue
            self._expect_entry(entry, now_s)

    def _is_over(self, entry: Entry, now_s: float) -> bool:
        """Say whether an entry goes though its manifest is valid: its node is gone, or disowned an unsigned one."""
        if entry.lease_left_s(now_s) <= 0:
            return True
        return now_s >= self._disowned_until_s(entry)

    def _disowned_until_s(self, entry: Entry) -> float:
        """Return when an unsigned agent goes that its own node calls sick: it may have been withdrawn, without proof."""
        if entry.manifest.signed or not entry.node.up or entry.node.healthy(entry.key):
            return math.inf
        return max(entry.node.sick_s, entry.since_s) + self.config.lease_gone_s

    def _expect(self, at_s: float) -> None:
        """Look at everything again no later than this."""
        self.due_s = min(self.due_s, at_s)

    def _expect_entry(self, entry: Entry, now_s: float) -> None:
        if entry.local:
            self._expect(entry.due_s)
            return
        self._expect(now_s + max(0, entry.manifest.exp - self.wall.unix_s(now_s)) + 1)
        if not entry.manifest.tombstone:
            self._expect(now_s + entry.lease_left_s(now_s))
            self._expect(self._disowned_until_s(entry))

    def _expect_node(self, state: NodeState) -> None:
        if state.node in self.nodes.spare:
            self._expect(max(state.since_s, state.heard_s) + self.config.forget_s)
        elif not state.up:
            self._expect(state.since_s + state.gone_after_s)
        elif not state.direct:
            self._expect(state.heard_s + self.config.silent_s)

    def _expect_unsigned(self, state: NodeState) -> None:
        if state.record is not None and state.record.sick and not self.config.require_signed:
            self._expect(state.sick_s + self.config.lease_gone_s)

    def assert_invariants(self) -> None:
        """Raise AssertionError if the parts do not agree."""
        self.held.assert_invariants()
        self.table.assert_invariants()
        self.nodes.assert_invariants()
        self.reports.assert_invariants()
        words = [s for s in self.nodes.known.values() if s.word]
        grave = [r for r in self.reports.held.values() if r.grave]
        assert len(self.held) == len(self.table) + len(words) + len(grave)
        for state in self.nodes.known.values():
            assert (state.node in self.nodes.spare) != self.table.has_agents(state.node)
        for entry in self.table.entries.values():
            assert entry.node is self.nodes.get(entry.manifest.node_id)
        assert len(self._lies) <= _REPORTERS_MAX


def line_of(item: Item) -> Line:
    """Return the line of any item."""
    if isinstance(item, Entry):
        return entry_line(item)
    if isinstance(item, NodeState):
        assert item.record is not None
        return node_line(item.record)
    return report_line(item)
