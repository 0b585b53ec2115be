"""The SWIM machine: probes the nodes the overlay asks it to watch and says who lives (docs/spec/swim.md).

It follows SWIM (Das, Gupta, Motivala, DSN 2002) with Lifeguard (arXiv 1707.00788). Departures: members are the overlay's
neighbours only; doubts are first-hand and travel one hop; nobody is declared dead on hearsay; before it is, it is asked in
every way for ``burst_s``; the dead are pinged now and then.

Here are the inputs, the timers, and the answers to questions. ``probing`` asks, ``verdicts`` judges silence, ``intake`` reads
rumours; they share ``ground``.
"""

from __future__ import annotations

import random

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer, WallTime
from agentmesh.core.messages import (
    LocalNode,
    MemberLeft,
    NodeHeard,
    PeerDown,
    ProbeWanted,
    Received,
    Spoke,
    Unwatch,
    Watch,
)
from agentmesh.core.swim.config import SwimConfig
from agentmesh.core.swim.ground import EARLY_S, NEVER_S, WAKE, Ground
from agentmesh.core.swim.intake import Intake
from agentmesh.core.swim.members import MemberView, State, new_member, retransmits
from agentmesh.core.swim.messages import Ack, Ping, PingReq, Tell, Vouch
from agentmesh.core.swim.probing import Probing
from agentmesh.core.swim.relays import Relays
from agentmesh.core.swim.verdicts import Verdicts
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.reader import Reader
from agentmesh.ids import NodeId, node_id

ROUND = Timer("swim.round")


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
        "_gone",
        "_ground",
        "_intake",
        "_members",
        "_probing",
        "_refutation",
        "_relays",
        "_rumours",
        "_verdicts",
        "config",
        "node_id",
    )

    def __init__(self, node_id: NodeId, config: SwimConfig, rng: random.Random, reader: Reader, wall: WallTime) -> None:
        self.node_id = node_id
        self.config = config
        ground = self._ground = Ground(node_id, config, rng, wall)
        self._members, self._gone, self._rumours = ground.members, ground.gone, ground.rumours
        self._verdicts = Verdicts(ground)
        self._probing = Probing(ground, self._verdicts)
        self._intake = Intake(ground, reader, self._probing, self._verdicts)
        self._refutation = self._intake.refutation
        self._relays = Relays(config.relays_max)

    # Queries

    @property
    def awareness(self) -> int:
        """How unsure this node is of itself, 0 (well) … ``awareness_max`` (Lifeguard's local health)."""
        return self._ground.awareness

    @property
    def alive_count(self) -> int:
        """Number of members that are not suspected."""
        return len(self._members) - len(self._ground.suspects)

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

    def asks(self, node: NodeId) -> bool:
        """Say whether a watched node is being asked and has not answered yet: any sign of life would help."""
        return node in self._ground.suspects or node in self._ground.probed

    # Inputs

    def handle(self, incoming: object, now_s: float, out: Outbox) -> None:
        """Take one input (``core.messages``) and write effects; inputs of other machines are ignored."""
        if now_s > self._ground.late_s:
            self._on_overslept(now_s, out)
        if isinstance(incoming, Received):
            self._on_received(incoming.peer, incoming.message, now_s, out)
        elif isinstance(incoming, Timer):
            if incoming.name == ROUND.name:
                self._on_round(now_s, out)
            elif incoming.name == WAKE.name:
                self._on_wake(now_s, out)
        elif isinstance(incoming, NodeHeard):
            self._intake.note_record(incoming.record, None, now_s, out)
        elif isinstance(incoming, Watch):
            self._on_watch(incoming.record, now_s, out)
        elif isinstance(incoming, Unwatch):
            self._ground.unwatch(incoming.node)
        elif isinstance(incoming, PeerDown):
            member = self._members.get(incoming.peer)
            if member is not None:
                self._probing.check(member, now_s, out)
        elif isinstance(incoming, Spoke):
            self._verdicts.heard(incoming.node, now_s, out)
        elif isinstance(incoming, ProbeWanted):
            self._on_probe_wanted(incoming.node, now_s, out)
        elif isinstance(incoming, LocalNode):
            self._on_local_node(incoming.record, now_s, out)

    def _on_local_node(self, record: NodeRecord, now_s: float, out: Outbox) -> None:
        ground = self._ground
        first, ground.record = ground.record is None, record
        ground.seq = record.seq
        if first:
            ground.round_due_s = now_s + ground.rng.uniform(0, self.config.interval_s)
            ground.late_s = ground.round_due_s + self.config.pause_s
            out.after(ground.round_due_s - now_s, ROUND)
            return
        if record.leaving:
            told = list(self._members)  # there will be no later packet to carry it
        else:
            self._rumours.pass_on(self.node_id, record.raw)
            told = ground.pick_members(self.config.tell_fanout, None)
        for node in dict.fromkeys([*told, *self._refutation.take_owed()]):
            ground.tell_record(node, record.raw, out)

    def _on_watch(self, record: NodeRecord, now_s: float, out: Outbox) -> None:
        node = record.node_id
        if node == self.node_id:
            return
        if node in self._members:
            self._intake.note_record(record, None, now_s, out)
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
        self._probing.admit(node)
        self._ground.times_max = retransmits(self.config, len(self._members))
        self._probing.check(member, now_s, out)

    def _on_probe_wanted(self, node: NodeId, now_s: float, out: Outbox) -> None:
        member = self._members.get(node)
        if member is not None:
            member.asked = True
            self._probing.check(member, now_s, out)
            return
        departed = self._gone.get(node)
        if departed is not None and not departed.left:
            self._ground.ping_departed(node, departed, now_s, out)

    # Timers

    def _on_round(self, now_s: float, out: Outbox) -> None:
        ground = self._ground
        if now_s < ground.round_due_s - EARLY_S:
            return
        ground.ease(now_s)
        length_s = self.config.interval_s * (1 + ground.awareness)
        ground.round_due_s = now_s + length_s
        ground.late_s = min(ground.round_due_s, ground.wake_s) + self.config.pause_s
        out.after(length_s, ROUND)
        if self._refutation and ground.record is not None:
            for node in self._refutation.take_owed():
                ground.tell_record(node, ground.record.raw, out)
        self._probing.probe_next(now_s, out)
        if self._gone:
            due = self._gone.pick_due(now_s)
            if due is not None:
                ground.ping_departed(due[0], due[1], now_s, out)

    def _on_wake(self, now_s: float, out: Outbox) -> None:
        ground = self._ground
        if now_s < ground.wake_s - EARLY_S:
            return
        ground.woken(now_s + EARLY_S)
        ground.late_s = min(ground.round_due_s, ground.wake_s) + self.config.pause_s
        if self._probing.greetings:
            self._probing.greet(now_s, out)
        if ground.suspects:
            self._verdicts.pursue_due(now_s, out)
        if ground.probed:
            self._probing.advance_due(now_s, out)
        if not (self._relays or ground.suspects or ground.probed):
            return
        nacked, next_s = self._relays.expire(now_s)
        for relay in nacked:
            out.send(relay.origin, Vouch(relay.nonce, False))
            target = self._members.get(relay.target)
            if target is not None:
                self._probing.check(target, now_s, out)  # a helper's own probe in vain is worth a whole one
        for member in ground.suspects.values():
            next_s = min(next_s, member.suspicion.due_s if member.suspicion else NEVER_S)
        for member in ground.probed.values():
            next_s = min(next_s, member.probe.due_s if member.probe else NEVER_S)
        if next_s < NEVER_S:
            ground.wake_at(next_s, now_s, out)

    def _on_overslept(self, now_s: float, out: Outbox) -> None:
        """This machine, not its peers, was silent: judge nothing by what was missed, and say that we are here."""
        ground = self._ground
        slept_s = now_s - (ground.late_s - self.config.pause_s)
        ground.note_sleep(now_s)
        if ground.pace == 1:
            self._probing.greetings = self.config.greetings
        self._probing.end_all()
        self._verdicts.prolong(slept_s, now_s)
        ground.round_due_s, ground.late_s = now_s, now_s + self.config.pause_s
        ground.woken(now_s)
        ground.armed.append(now_s)
        ground.wake_s = now_s
        out.after(0.0, ROUND)
        out.after(0.0, WAKE)

    # Messages

    def _on_received(self, peer: NodeId, message: object, now_s: float, out: Outbox) -> None:
        if self._ground.record is None:
            return
        # By exact type: messages have no subclasses, and ``isinstance`` is slow for a class that has a metaclass.
        if type(message) is Ping:
            records, doubts = message.records, message.doubts
            if (not records and not doubts) or self._intake.read(peer, records, doubts, now_s, out):
                self._on_ping(peer, message, now_s, out)
        elif type(message) is Ack:
            records, doubts = message.records, message.doubts
            if (not records and not doubts) or self._intake.read(peer, records, doubts, now_s, out):
                self._on_ack(peer, message, now_s, out)
        elif type(message) is Tell:
            self._intake.read(peer, message.records, message.doubts, now_s, out)
        elif type(message) is PingReq:
            self._on_ping_req(peer, message, now_s, out)
        elif type(message) is Vouch:
            self._verdicts.on_vouch(peer, message, now_s, out)

    def _on_ping(self, peer: NodeId, ping: Ping, now_s: float, out: Outbox) -> None:
        self._verdicts.heard(peer, now_s, out)
        ground = self._ground
        member = self._members.get(peer)
        record = member.record if member is not None else ground.record_of(peer)
        first = None
        if 0 < ping.held < ground.seq and ground.record is not None:
            first = ground.record.raw
            if not self._rumours.fits(first):
                ground.tell_record(peer, first, out)
                first = None
        elif record is not None and ping.seq < record.seq:
            first = record.raw  # it forgot what it signed before: show it, so that it signs above that
        records, doubts = self._rumours.pick(peer, first, None, ground.times_max)
        held = record.seq if record is not None else 0
        out.send(peer, Ack(ping.nonce, ground.seq, held, ground.wall.unix_s(now_s) * 1000, records, doubts))

    def _on_ack(self, peer: NodeId, ack: Ack, now_s: float, out: Outbox) -> None:
        member = self._members.get(peer)
        if member is not None:
            probe = member.probe
            if probe is not None and probe.nonce == ack.nonce and not probe.wide:
                member.measure(now_s - probe.started_s)
        if self._relays:
            relay = self._relays.take(ack.nonce, peer, now_s)
            if relay is not None:
                out.send(relay.origin, Vouch(relay.nonce, True))
        self._verdicts.heard(peer, now_s, out)
        ground = self._ground
        if 0 < ack.held < ground.seq and ground.record is not None and ground.record_of(peer) is not None:
            ground.tell_record(peer, ground.record.raw, out)

    def _on_ping_req(self, peer: NodeId, request: PingReq, now_s: float, out: Outbox) -> None:
        ground = self._ground
        if len(request.target) != 32:
            out.emit(PeerMisbehaved(peer, "swim.target", f"a node is 32 key bytes, not {len(request.target)}"))
            return
        if request.target == ground.key:
            out.send(peer, Vouch(request.nonce, True))
            return
        target = node_id(request.target)
        # Strangers may not use this node to reach strangers.
        if peer not in self._members and target not in self._members:
            return
        ground.nonce += 1
        if not self._relays.admit(ground.nonce, peer, request.nonce, target, request.wait_ms, now_s):
            return
        member = self._members.get(target)
        if member is not None:
            ground.ping(member, ground.nonce, now_s, out)
        else:
            out.send(target, Ping(ground.nonce, ground.seq, 0, ground.wall.unix_s(now_s) * 1000))
        ground.wake_at(self._relays.due_s(now_s), now_s, out)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of SWIM is broken."""
        self._ground.assert_invariants()
        self._probing.assert_invariants()
        self._relays.assert_invariants()
        self._refutation.assert_invariants()
