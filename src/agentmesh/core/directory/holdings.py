"""All that one directory holds: agents, the nodes behind them, words about those, and the set that peers compare.

This is the only place that changes any of them, so that the sums, the indexes and the node's picture of its agents agree.
Callers have verified what they bring.
"""

from __future__ import annotations

import math

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.messages import AGENT, NODE, ZONE, AgentChanged, AgentGone, Line, RenewalDue
from agentmesh.core.directory.nodes import Nodes, NodeState, node_line, node_position, word_value
from agentmesh.core.directory.ranges import RangeSet
from agentmesh.core.directory.reports import Reports, report_line, report_rank
from agentmesh.core.directory.table import Entry, Rank, Table, entry_line
from agentmesh.core.machine import Outbox, WallTime
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.reader import Reader
from agentmesh.identity.zone_report import Row, ZoneReport
from agentmesh.ids import Key, NodeId

Item = Entry | NodeState | ZoneReport

#: How often a local agent's overdue signature is asked for again, seconds.
_DUE_AGAIN_S = 60.0
#: A report that speaks of an incarnation so far above the known one is made up: refuting it must stay possible.
_SEQ_LEAP_MAX = 1_000_000
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
        if record.leaving:
            self._down(state, self.config.leave_grace_s, record.iat, now_s)
        elif state.up or record.seq > state.dead_seq or record.iat >= state.down_iat:
            if not state.up and state.blamed is not None and record.iat > state.down_iat:
                self._note_lie(state, now_s)
            self._up(state, now_s, fresh=record.iat > state.life_iat)
        state.life_iat = max(state.life_iat, record.iat)
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
        """Note that a node became a neighbour."""
        self.watched[node] = None
        self.see(node, now_s, out, up=True)

    def unwatch(self, node: NodeId, now_s: float) -> None:
        """Note that a node is no neighbour any longer, which says nothing of its life."""
        self.watched.pop(node, None)
        state = self.nodes.get(node)
        if state is not None and state.direct:
            state.heard_s = now_s
            state.direct = False
            self._expect_node(state)

    def see(self, node: NodeId, now_s: float, out: Outbox, *, up: bool, seq: int = 0) -> None:
        """Note what this node sees itself: a node lives, or its incarnation ``seq`` is dead."""
        state = self.nodes.get(node)
        if state is None:
            return
        state.direct = up and node in self.watched
        if up:
            self._up(state, now_s, fresh=True)
        elif state.record is None or seq >= state.record.seq:
            self._down(state, self.config.lease_gone_s, self.wall.unix_s(now_s), now_s)
            state.dead_seq = max(state.dead_seq, seq)
        self._tell(state, out)
        self._expect_node(state)

    def see_left(self, node: NodeId, now_s: float, out: Outbox) -> None:
        """Note that a node said to SWIM that it leaves."""
        state = self.nodes.get(node)
        if state is not None:
            state.direct = False
            self._down(state, self.config.leave_grace_s, self.wall.unix_s(now_s), now_s)
            self._tell(state, out)

    def _hear_row(self, state: NodeState, row: Row, report: ZoneReport, now_s: float, out: Outbox) -> None:
        """Believe one row about a node, unless something better is known (docs/spec/directory.md §6)."""
        _, seq, dead = row
        known_seq = 0 if state.record is None else state.record.seq
        same_zone = report.zone_key == state.row_zone
        if state.node == self.node_id or (report.iat < state.row_iat and not same_zone):
            return
        if state.record is not None and (state.record.site != report.site or seq > known_seq + _SEQ_LEAP_MAX):
            return
        if dead:
            if state.direct or seq < known_seq or self._is_liar(report.reporter, now_s):
                return
            if state.up:
                state.blamed = report.reporter
            self._down(state, self.config.lease_gone_s, report.iat, now_s)
            state.dead_seq = max(state.dead_seq, seq)
        else:
            left = state.record is not None and state.record.leaving
            later = same_zone or report.iat > state.down_iat
            if not state.up and (left or not later or seq < max(known_seq, state.dead_seq, 1)):
                return
            self._up(state, now_s, fresh=report.iat > state.life_iat)
            state.life_iat = max(state.life_iat, report.iat)
        state.row_iat, state.row_zone = report.iat, report.zone_key
        self._tell(state, out)

    def _up(self, state: NodeState, now_s: float, *, fresh: bool) -> None:
        if fresh or not state.up:
            state.heard_s = now_s
        if not state.up:
            self.revivals += state.lacking
            state.up, state.since_s, state.lacking, state.blamed = True, now_s, False, None
            state.gone_after_s = math.inf
            self.release(state)
        self._expect_node(state)

    def _down(self, state: NodeState, gone_after_s: float, iat: int, now_s: float) -> None:
        if state.up:
            state.up, state.since_s, state.gone_after_s = False, now_s, gone_after_s
        state.gone_after_s = min(state.gone_after_s, gone_after_s)
        state.down_iat = max(state.down_iat, iat)
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

    def _note_lie(self, state: NodeState, now_s: float) -> None:
        """Count once per report that a node who was reported dead says otherwise."""
        assert state.blamed is not None
        since_s, count, last_iat = self._lies.pop(state.blamed, (now_s, 0, 0))
        if now_s - since_s > self.config.word_age_s:
            since_s, count = now_s, 0
        if len(self._lies) >= _REPORTERS_MAX:
            del self._lies[next(iter(self._lies))]
        self._lies[state.blamed] = (since_s, count + (state.row_iat != last_iat), state.row_iat)

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
            if state.up and state.dead_seq < 0 and not state.word and not state.direct:
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
                self._down(state, self.config.lease_gone_s, unix_s, now_s)
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
