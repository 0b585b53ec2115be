"""The SWIM machine: probes the nodes the overlay asks it to watch and says who lives (docs/spec/swim.md).

It follows SWIM (Das, Gupta, Motivala, DSN 2002) with Lifeguard (arXiv 1707.00788). Departures: members are the overlay's
neighbours only; doubts are first-hand and travel one hop; nobody is declared dead on hearsay; before it is, it is asked in
every way for ``burst_s``; the dead are pinged now and then.
"""

from __future__ import annotations

import math
import random

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer, WallTime
from agentmesh.core.messages import (
    LocalNode,
    MemberAlive,
    MemberDead,
    MemberLeft,
    MemberSuspected,
    NodeHeard,
    NodeRecordWanted,
    PeerDown,
    Received,
    Unwatch,
    Watch,
)
from agentmesh.core.swim.config import SwimConfig
from agentmesh.core.swim.gone import Departed, Gone
from agentmesh.core.swim.members import (
    ACCUSERS_MAX,
    Member,
    MemberView,
    Probe,
    State,
    Suspicion,
    new_member,
    retransmits,
    suspicion_s,
)
from agentmesh.core.swim.messages import DOUBTS_MAX, RECORDS_MAX, Ack, Doubt, Ping, PingReq, Tell, Vouch
from agentmesh.core.swim.refutation import Refutation
from agentmesh.core.swim.relays import Relays
from agentmesh.core.swim.rumours import Rumours
from agentmesh.errors import PeerError, ReplayError
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.reader import Reader
from agentmesh.ids import NodeId, node_id, public_key_of

ROUND = Timer("swim.round")
WAKE = Timer("swim.wake")
#: Timers may fire this much early, and count nevertheless.
_EARLY_S = 1e-3
_NEVER_S = math.inf


class Swim:
    """Failure detection of one node.

    Args:
        node_id: This node.
        config: Bounds and intervals.
        rng: For the order of probes, for whom to ask for help, and for the phase of the rounds.
        reader: Verifies node records.
        wall: Judges their time.
    """

    __slots__ = (
        "_at",
        "_awareness",
        "_gone",
        "_greetings",
        "_key",
        "_late_s",
        "_members",
        "_nonce",
        "_order",
        "_probing",
        "_reader",
        "_record",
        "_refutation",
        "_relays",
        "_rng",
        "_round_due_s",
        "_rumours",
        "_seq",
        "_suspects",
        "_times_max",
        "_wake_s",
        "_wall",
        "config",
        "node_id",
    )

    def __init__(self, node_id: NodeId, config: SwimConfig, rng: random.Random, reader: Reader, wall: WallTime) -> None:
        self.node_id = node_id
        self.config = config
        self._rng = rng
        self._reader = reader
        self._wall = wall
        self._key = public_key_of(node_id)
        self._record: NodeRecord | None = None
        self._seq = 0
        self._members: dict[NodeId, Member] = {}
        self._order: list[NodeId] = []
        self._at = 0
        self._probing: dict[NodeId, Member] = {}
        self._suspects: dict[NodeId, Member] = {}
        self._gone = Gone(config)
        self._relays = Relays(config.relays_max)
        self._rumours = Rumours(config.rumours_max, config.packet_bytes_max)
        self._times_max = retransmits(config, 1)
        self._awareness = 0
        self._greetings = 0
        self._nonce = rng.getrandbits(31)
        self._round_due_s = self._late_s = self._wake_s = _NEVER_S
        self._refutation = Refutation(config.refute_interval_s)

    # Queries

    @property
    def awareness(self) -> int:
        """How unsure this node is of itself, 0 (well) … ``awareness_max`` (Lifeguard's local health)."""
        return self._awareness

    @property
    def alive_count(self) -> int:
        """Number of members that are not suspected."""
        return len(self._members) - len(self._suspects)

    def members(self) -> list[MemberView]:
        """Return the watched nodes, in the order in which they were first watched."""
        return [
            MemberView(
                node,
                "alive" if member.suspicion is None else "suspect",
                member.record.seq,
                None if member.rtt_s < 0 else member.rtt_s,
                member.since_s,
            )
            for node, member in self._members.items()
        ]

    def state(self, node: NodeId) -> State | None:
        """Return what is thought of a node; None if it is not watched, nor was lately."""
        member = self._members.get(node)
        if member is not None:
            return "alive" if member.suspicion is None else "suspect"
        departed = self._gone.get(node)
        if departed is None:
            return None
        return "left" if departed.left else "dead"

    # Inputs

    def handle(self, incoming: object, now_s: float, out: Outbox) -> None:
        """Take one input (``core.messages``) and write effects; inputs of other machines are ignored."""
        if now_s > self._late_s:
            self._on_overslept(now_s, out)
        if isinstance(incoming, Received):
            self._on_received(incoming.peer, incoming.message, now_s, out)
        elif isinstance(incoming, Timer):
            if incoming.name == ROUND.name:
                self._on_round(now_s, out)
            elif incoming.name == WAKE.name:
                self._on_wake(now_s, out)
        elif isinstance(incoming, NodeHeard):
            self._note_record(incoming.record, None, now_s, out)
        elif isinstance(incoming, Watch):
            self._on_watch(incoming.record, now_s, out)
        elif isinstance(incoming, Unwatch):
            self._unwatch(incoming.node)
        elif isinstance(incoming, PeerDown):
            member = self._members.get(incoming.peer)
            if member is not None:
                self._check(member, now_s, out)
        elif isinstance(incoming, LocalNode):
            self._on_local_node(incoming.record, now_s, out)

    def _on_local_node(self, record: NodeRecord, now_s: float, out: Outbox) -> None:
        first, self._record = self._record is None, record
        self._seq = record.seq
        if first:
            self._round_due_s = now_s + self._rng.uniform(0, self.config.interval_s)
            self._late_s = self._round_due_s + self.config.pause_s
            out.after(self._round_due_s - now_s, ROUND)
            return
        if record.leaving:
            told = list(self._members)  # there will be no later packet to carry it
        else:
            self._rumours.pass_on(self.node_id, record.raw)
            told = self._pick_members(self.config.tell_fanout, None)
        for node in dict.fromkeys([*told, *self._refutation.take_owed()]):
            self._tell_record(node, record.raw, out)

    def _on_watch(self, record: NodeRecord, now_s: float, out: Outbox) -> None:
        node = record.node_id
        if node == self.node_id:
            return
        if node in self._members:
            self._note_record(record, None, now_s, out)
            return
        departed = self._gone.get(node)
        if departed is not None and departed.record.seq >= record.seq:
            record = departed.record
        if record.leaving:
            self._gone.admit(record, now_s, left=True)
            out.emit(MemberLeft(node, record.seq))
            return
        if len(self._members) >= self.config.members_max:
            return
        self._gone.drop(node)
        self._rumours.drop_doubt(node)
        member = self._members[node] = new_member(record, now_s)
        if len(self._order) < 2 * self.config.members_max:
            self._order.insert(self._rng.randint(self._at, len(self._order)), node)
        self._times_max = retransmits(self.config, len(self._members))
        self._check(member, now_s, out)

    def _unwatch(self, node: NodeId) -> Member | None:
        member = self._members.pop(node, None)
        if member is not None:
            self._probing.pop(node, None)
            self._suspects.pop(node, None)
            self._rumours.drop(node)
            self._times_max = retransmits(self.config, len(self._members))
        return member

    # Rounds and probes

    def _on_round(self, now_s: float, out: Outbox) -> None:
        if now_s < self._round_due_s - _EARLY_S:
            return
        length_s = self.config.interval_s * (1 + self._awareness)
        self._round_due_s = now_s + length_s
        self._late_s = min(self._round_due_s, self._wake_s) + self.config.pause_s
        out.after(length_s, ROUND)
        if self._refutation and self._record is not None:
            for node in self._refutation.take_owed():
                self._tell_record(node, self._record.raw, out)
        member = self._pick_target()
        if member is not None:
            self._probe(member, now_s, out, in_round=True)
        if self._gone:
            due = self._gone.pick_due(now_s)
            if due is not None:
                self._ping_departed(due[0], due[1], now_s, out)

    def _pick_target(self) -> Member | None:
        """Return the next member in this pass that is neither suspected nor being probed; each pass has a new order."""
        for _ in range(2):
            while self._at < len(self._order):
                member = self._members.get(self._order[self._at])
                self._at += 1
                if member is not None and member.suspicion is None and member.probe is None:
                    return member
            self._order = list(self._members)
            self._rng.shuffle(self._order)
            self._at = 0
        return None

    def _pick_members(self, count: int, but: NodeId | None) -> list[NodeId]:
        """Return up to so many random members that seem well."""
        well = [n for n, m in self._members.items() if m.suspicion is None and n != but]
        return well if len(well) <= count else self._rng.sample(well, count)

    def _probe(self, member: Member, now_s: float, out: Outbox, *, in_round: bool) -> None:
        slower = 1 + self._awareness
        timeout_s = min(member.timeout_s(self.config) * slower, self.config.timeout_s_max)
        end_s = now_s + max(self.config.interval_s * slower, 2 * timeout_s)
        self._nonce += 1
        member.probe = Probe(self._nonce, now_s, now_s + timeout_s, end_s, in_round)
        self._probing[member.record.node_id] = member
        self._ping(member, self._nonce, now_s, out)
        self._wake_at(now_s + timeout_s, now_s, out)

    def _check(self, member: Member, now_s: float, out: Outbox) -> None:
        """Probe a member outside the rounds, because somebody or something says that it may be gone; not too often."""
        if (
            member.probe is None
            and member.suspicion is None
            and self._record is not None
            and now_s - member.checked_s >= self.config.check_interval_s
            and len(self._probing) < self.config.checks_max
        ):
            member.checked_s = now_s
            self._probe(member, now_s, out, in_round=False)

    def _ping(self, member: Member, nonce: int, now_s: float, out: Outbox, *, link: bool = False) -> None:
        record = member.record
        doubt = None
        if member.suspicion is not None:  # Lifeguard's buddy system: whom it concerns hears it first
            doubt = Doubt(member.key, record.seq, False)
        records, doubts = self._rumours.pick(record.node_id, None, doubt, self._times_max)
        clock_ms = self._wall.unix_s(now_s) * 1000
        out.send(record.node_id, Ping(nonce, self._seq, record.seq, clock_ms, records, doubts), link=link)

    def _ping_departed(self, node: NodeId, departed: Departed, now_s: float, out: Outbox) -> None:
        self._nonce += 1
        seq = departed.record.seq
        doubt = Doubt(public_key_of(node), seq, True)
        out.send(node, Ping(self._nonce, self._seq, seq, self._wall.unix_s(now_s) * 1000, (), (doubt,)))

    def _greet(self, now_s: float, out: Outbox) -> None:
        """Ping everybody, so as to be heard by those who suspect this node."""
        self._greetings -= 1
        if self._greetings:
            self._wake_at(now_s + self.config.burst_interval_s, now_s, out)
        for member in list(self._members.values()):
            self._nonce += 1
            self._ping(member, self._nonce, now_s, out)

    def _ask_widely(self, member: Member, asked: Probe | Suspicion, wait_s: float, out: Outbox) -> None:
        """Let helpers ask a member."""
        node = member.record.node_id
        request = PingReq(asked.nonce, member.key, int(wait_s * 1000))
        for helper in self._pick_members(self.config.helpers, node):
            asked.helpers.setdefault(helper, False)
            out.send(helper, request)

    def _wake_at(self, due_s: float, now_s: float, out: Outbox) -> None:
        if due_s < self._wake_s:
            self._wake_s = due_s
            self._late_s = min(self._late_s, due_s + self.config.pause_s)
            out.after(max(0.0, due_s - now_s), WAKE)

    def _on_wake(self, now_s: float, out: Outbox) -> None:
        if now_s < self._wake_s - _EARLY_S:
            return
        self._wake_s = _NEVER_S
        self._late_s = self._round_due_s + self.config.pause_s
        if self._greetings:
            self._greet(now_s, out)
        if self._suspects:
            for member in list(self._suspects.values()):
                suspicion = member.suspicion
                if suspicion is not None and now_s >= suspicion.due_s - _EARLY_S:
                    self._pursue(member, suspicion, now_s, out)
        if self._probing:
            for member in list(self._probing.values()):
                probe = member.probe
                if probe is not None and now_s >= probe.due_s - _EARLY_S:
                    self._advance(member, probe, now_s, out)
        if not (self._relays or self._suspects or self._probing):
            return
        nacked, next_s = self._relays.expire(now_s)
        for relay in nacked:
            out.send(relay.origin, Vouch(relay.nonce, False))
            target = self._members.get(relay.target)
            if target is not None:
                self._check(target, now_s, out)  # a helper's own probe in vain is worth a whole one
        for member in self._suspects.values():
            next_s = min(next_s, member.suspicion.due_s if member.suspicion else _NEVER_S)
        for member in self._probing.values():
            next_s = min(next_s, member.probe.due_s if member.probe else _NEVER_S)
        if next_s < _NEVER_S:
            self._wake_at(next_s, now_s, out)

    def _advance(self, member: Member, probe: Probe, now_s: float, out: Outbox) -> None:
        """Go to the next stage of a probe: to help and the link, or to failure."""
        if not probe.wide:
            probe.wide = True
            probe.due_s = probe.end_s
            self._ask_widely(member, probe, (probe.end_s - now_s) / 2, out)
            self._ping(member, probe.nonce, now_s, out, link=True)
            return
        self._end_probe(member)
        if probe.round and not all(probe.helpers.values()):
            self._raise_awareness()  # a helper that is silent too makes our own links the likelier culprit
        node = member.record.node_id
        self._nonce += 1
        suspicion = member.suspicion = Suspicion(self._nonce, probe.started_s, now_s)
        member.since_s = now_s
        self._suspects[node] = member
        out.emit(MemberSuspected(node))
        self._rumours.doubt(node, member.key, member.record.seq, dead=False)
        told = Tell((), (Doubt(member.key, member.record.seq, False),))
        for other in self._pick_members(self.config.tell_fanout, node):
            out.send(other, told)
        self._pursue(member, suspicion, now_s, out)

    def _end_probe(self, member: Member) -> None:
        member.probe = None
        self._probing.pop(member.record.node_id, None)

    def _raise_awareness(self) -> None:
        self._awareness = min(self._awareness + 1, self.config.awareness_max)

    def _on_overslept(self, now_s: float, out: Outbox) -> None:
        """This machine, not its peers, was silent: judge nothing by what was missed, and say that we are here."""
        slept_s = now_s - (self._late_s - self.config.pause_s)
        self._raise_awareness()
        self._greetings = self.config.greetings
        for member in list(self._probing.values()):
            self._end_probe(member)
        for member in self._suspects.values():
            suspicion = member.suspicion
            if suspicion is not None:
                suspicion.since_s += slept_s
                suspicion.burst_s = None
                suspicion.due_s = now_s
        self._round_due_s, self._late_s = now_s, now_s + self.config.pause_s
        self._wake_s = now_s
        out.after(0.0, ROUND)
        out.after(0.0, WAKE)

    # Suspicion

    def _deadline_s(self, member: Member, suspicion: Suspicion) -> float:
        return suspicion.since_s + suspicion_s(self.config, len(self._members), len(member.accusers))

    def _pursue(self, member: Member, suspicion: Suspicion, now_s: float, out: Outbox) -> None:
        """Ask a suspect again; near the deadline in every way and often; then declare it dead."""
        deadline_s = self._deadline_s(member, suspicion)
        config = self.config
        if suspicion.burst_s is None and now_s >= deadline_s - config.burst_s - _EARLY_S:
            suspicion.burst_s = now_s
            suspicion.tries = 0
        if suspicion.burst_s is None:
            suspicion.due_s = min(now_s + config.suspect_interval_s, deadline_s - config.burst_s)
        else:
            end_s = suspicion.burst_s + config.burst_s
            if now_s >= end_s - _EARLY_S:
                self._declare_dead(member, now_s, out)
                return
            suspicion.due_s = min(now_s + config.burst_interval_s, end_s)
            if suspicion.tries % 2 == 0:
                self._ask_widely(member, suspicion, config.burst_interval_s, out)
        self._ping(member, suspicion.nonce, now_s, out)
        if suspicion.tries % 2 == 0:
            self._ping(member, suspicion.nonce, now_s, out, link=True)
        suspicion.tries += 1
        self._wake_at(suspicion.due_s, now_s, out)

    def _declare_dead(self, member: Member, now_s: float, out: Outbox) -> None:
        record = member.record
        self._unwatch(record.node_id)
        self._gone.admit(record, now_s, left=False)
        self._rumours.doubt(record.node_id, member.key, record.seq, dead=True)
        out.emit(MemberDead(record.node_id, record.seq))

    def _clear(self, member: Member, now_s: float, out: Outbox) -> None:
        """End probe and suspicion of a member: it lives."""
        probe = member.probe
        if probe is not None:
            self._end_probe(member)
            if probe.round and self._awareness:
                self._awareness -= 1
        if member.accusers:
            member.accusers.clear()
        if member.suspicion is not None:
            node = member.record.node_id
            member.suspicion = None
            member.since_s = now_s
            del self._suspects[node]
            self._rumours.drop_doubt(node)
            out.emit(MemberAlive(node))

    def _heard(self, peer: NodeId, now_s: float, out: Outbox) -> None:
        """Note that a peer proved by its own key that it lives."""
        member = self._members.get(peer)
        if member is not None:
            member.heard_s = now_s
            if not member.proven:
                member.proven = True
                if member.suspicion is None:
                    out.emit(MemberAlive(peer))
            if member.probe is not None or member.suspicion is not None or member.accusers:
                self._clear(member, now_s, out)
            return
        departed = self._gone.get(peer) if self._gone else None
        if departed is not None and not departed.left:
            self._gone.drop(peer)
            self._rumours.drop_doubt(peer)
            out.emit(NodeHeard(departed.record, peer))
            out.emit(MemberAlive(peer))
            for node, other in self._gone.pick_burst(now_s):  # where one comes back, a partition may have healed
                self._ping_departed(node, other, now_s, out)

    def _believe(self, member: Member, now_s: float, out: Outbox) -> None:
        """Somebody else shows that a member lives: holds off suspicion, but not for ever."""
        if self._trusts(member, now_s):
            self._clear(member, now_s, out)

    def _trusts(self, member: Member, now_s: float) -> bool:
        return now_s - member.heard_s <= self.config.vouch_s_max

    # Messages

    def _on_received(self, peer: NodeId, message: object, now_s: float, out: Outbox) -> None:
        if self._record is None:
            return
        if isinstance(message, Ping):
            records, doubts = message.records, message.doubts
            if (not records and not doubts) or self._read_rumours(peer, records, doubts, now_s, out):
                self._on_ping(peer, message, now_s, out)
        elif isinstance(message, Ack):
            records, doubts = message.records, message.doubts
            if (not records and not doubts) or self._read_rumours(peer, records, doubts, now_s, out):
                self._on_ack(peer, message, now_s, out)
        elif isinstance(message, Tell):
            self._read_rumours(peer, message.records, message.doubts, now_s, out)
        elif isinstance(message, PingReq):
            self._on_ping_req(peer, message, now_s, out)
        elif isinstance(message, Vouch):
            self._on_vouch(peer, message, now_s, out)

    def _on_ping(self, peer: NodeId, ping: Ping, now_s: float, out: Outbox) -> None:
        self._heard(peer, now_s, out)
        record = self._record_of(peer)
        first = None
        if 0 < ping.held < self._seq and self._record is not None:
            first = self._record.raw
            if not self._rumours.fits(first):
                self._tell_record(peer, first, out)
                first = None
        elif record is not None and ping.seq < record.seq:
            first = record.raw  # it forgot what it signed before: show it, so that it signs above that
        records, doubts = self._rumours.pick(peer, first, None, self._times_max)
        held = record.seq if record is not None else 0
        out.send(peer, Ack(ping.nonce, self._seq, held, self._wall.unix_s(now_s) * 1000, records, doubts))

    def _on_ack(self, peer: NodeId, ack: Ack, now_s: float, out: Outbox) -> None:
        member = self._members.get(peer)
        if member is not None:
            probe = member.probe
            if probe is not None and probe.nonce == ack.nonce and not probe.wide:
                member.measure(now_s - probe.started_s)
        if self._relays:
            relay = self._relays.take(ack.nonce, peer)
            if relay is not None:
                out.send(relay.origin, Vouch(relay.nonce, True))
        self._heard(peer, now_s, out)
        if 0 < ack.held < self._seq and self._record is not None and self._record_of(peer) is not None:
            self._tell_record(peer, self._record.raw, out)

    def _on_ping_req(self, peer: NodeId, request: PingReq, now_s: float, out: Outbox) -> None:
        if len(request.target) != 32:
            out.emit(PeerMisbehaved(peer, "swim.target", f"a node is 32 key bytes, not {len(request.target)}"))
            return
        if request.target == self._key:
            out.send(peer, Vouch(request.nonce, True))
            return
        target = node_id(request.target)
        # Strangers may not use this node to reach strangers.
        if peer not in self._members and target not in self._members:
            return
        self._nonce += 1
        if not self._relays.admit(self._nonce, peer, request.nonce, target, request.wait_ms, now_s):
            return
        member = self._members.get(target)
        if member is not None:
            self._ping(member, self._nonce, now_s, out)
        else:
            out.send(target, Ping(self._nonce, self._seq, 0, self._wall.unix_s(now_s) * 1000))
        self._wake_at(self._relays.due_s(now_s), now_s, out)

    def _on_vouch(self, peer: NodeId, vouch: Vouch, now_s: float, out: Outbox) -> None:
        for member in (*self._probing.values(), *self._suspects.values()):
            asked = member.suspicion if member.probe is None else member.probe
            if asked is not None and asked.nonce == vouch.nonce and peer in asked.helpers:
                asked.helpers[peer] = True
                if vouch.alive:
                    self._believe(member, now_s, out)
                return

    # Rumours

    def _read_rumours(
        self, peer: NodeId, records: tuple[bytes, ...], doubts: tuple[Doubt, ...], now_s: float, out: Outbox
    ) -> bool:
        """Take in what a packet carries; False if the packet is to be dropped."""
        if len(records) > RECORDS_MAX or len(doubts) > DOUBTS_MAX:
            out.emit(PeerMisbehaved(peer, "swim.too_many", f"{len(records)} + {len(doubts)} rumours"))
            return False
        for raw in records:
            try:
                record = self._reader.node(raw, self._wall.unix_s(now_s))
            except ReplayError:
                continue  # out of date, or a clock is wrong: the sender need not be at fault
            except PeerError as error:
                out.emit(PeerMisbehaved(peer, "swim.record", f"{error.code}: {error}"))
                return False
            if record.node_id == self.node_id:
                self._on_own_record(record, now_s, out)
            else:
                self._note_record(record, peer, now_s, out)
        for doubt in doubts:
            if len(doubt.node) != 32:
                out.emit(PeerMisbehaved(peer, "swim.target", f"a node is 32 key bytes, not {len(doubt.node)}"))
                return False
            if doubt.node == self._key:
                self._refute(peer, doubt, now_s, out)
            elif peer in self._members:
                self._accuse(peer, doubt, now_s, out)
        return True

    def _on_own_record(self, record: NodeRecord, now_s: float, out: Outbox) -> None:
        """Sign above a record of an earlier self that this one forgot; only our own key could have made it."""
        if record.seq < self._seq or self._record is None or record.raw == self._record.raw:
            return
        if self._refutation.admit_forgotten(record.seq, now_s):
            out.emit(NodeRecordWanted(seq_min=record.seq))

    def _note_record(self, record: NodeRecord, via: NodeId | None, now_s: float, out: Outbox) -> None:
        """Take a record of another node in, if it is newer; ``via`` = the peer that sent it to this machine."""
        node = record.node_id
        member = self._members.get(node)
        if member is None:
            departed = self._gone.get(node) if self._gone else None
            if departed is None or record.seq <= departed.record.seq:
                return
            if record.leaving or departed.left:
                self._gone.drop(node)
                if record.leaving:
                    self._gone.admit(record, now_s, left=True)
            else:
                departed.record = record  # it signed something after it was given up
                self._ping_departed(node, departed, now_s, out)
        elif record.seq <= member.record.seq:
            return
        else:
            member.record = record
            if record.leaving:
                self._unwatch(node)
                self._gone.admit(record, now_s, left=True)
                out.emit(MemberLeft(node, record.seq))
            elif member.suspicion is not None and member.suspicion.burst_s is not None and self._trusts(member, now_s):
                member.suspicion.burst_s = now_s  # it lived when it signed, which may be a while ago: ask once more
        if via is not None:
            self._rumours.pass_on(node, record.raw)
            out.emit(NodeHeard(record, via))

    def _accuse(self, accuser: NodeId, doubt: Doubt, now_s: float, out: Outbox) -> None:
        """A member says that another gave it no answer: ask ourselves, and let it count if we get none either."""
        node = node_id(doubt.node)
        member = self._members.get(node)
        if member is None or node == accuser:
            return
        if doubt.seq < member.record.seq:
            self._rumours.pass_on(node, member.record.raw)  # the verdict does not hang on it: we ask ourselves anyway
        if len(member.accusers) < ACCUSERS_MAX:
            member.accusers[accuser] = None
        suspicion = member.suspicion
        if suspicion is None:
            self._check(member, now_s, out)
        elif suspicion.burst_s is None:
            due_s = max(now_s, self._deadline_s(member, suspicion) - self.config.burst_s)
            if due_s < suspicion.due_s:
                suspicion.due_s = due_s
                self._wake_at(due_s, now_s, out)

    def _refute(self, accuser: NodeId, doubt: Doubt, now_s: float, out: Outbox) -> None:
        """Somebody doubts this node: show it a newer record, signed for this if need be."""
        record = self._record
        if record is None or record.leaving or self._record_of(accuser) is None or doubt.seq > record.seq:
            return  # above our own seq: a lie, or our past is forgotten, and then the accuser shows it (``_on_ping``)
        self._refutation.owe(accuser)
        if doubt.seq == record.seq and self._refutation.admit(accuser, doubt.seq, now_s, dead=doubt.dead):
            self._raise_awareness()
            out.emit(NodeRecordWanted(seq_min=doubt.seq))

    def _tell_record(self, to: NodeId, raw: bytes, out: Outbox) -> None:
        out.send(to, Tell((raw,)), link=not self._rumours.fits(raw))

    def _record_of(self, node: NodeId) -> NodeRecord | None:
        member = self._members.get(node)
        if member is not None:
            return member.record
        departed = self._gone.get(node) if self._gone else None
        return departed.record if departed is not None else None

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of SWIM is broken."""
        config = self.config
        assert self.node_id not in self._members
        assert len(self._members) <= config.members_max
        assert len(self._order) <= 2 * config.members_max
        assert 0 <= self._awareness <= config.awareness_max
        assert len(self._probing) <= config.checks_max + 1
        for node, member in self._members.items():
            assert node == member.record.node_id
            assert self._gone.get(node) is None
            assert (member.probe is not None) == (node in self._probing)
            assert (member.suspicion is not None) == (node in self._suspects)
            assert member.probe is None or member.suspicion is None
            assert len(member.accusers) <= ACCUSERS_MAX
        self._gone.assert_invariants()
        self._relays.assert_invariants()
        self._rumours.assert_invariants()
        self._refutation.assert_invariants()
