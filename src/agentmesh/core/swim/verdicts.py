"""Who lives, is suspected, is dead: begin a suspicion, confirm it, last chance, declare or clear (docs/spec/swim.md §5)."""

from __future__ import annotations

from agentmesh.core.machine import Outbox
from agentmesh.core.messages import MemberAlive, MemberDead, MemberSuspected, NodeHeard
from agentmesh.core.swim.ground import EARLY_S, Ground
from agentmesh.core.swim.members import ACCUSERS_MAX, Member, Suspicion, suspicion_s
from agentmesh.core.swim.messages import Doubt, Tell, Vouch
from agentmesh.ids import NodeId


class Verdicts:
    """The way from a probe in vain to a death, and back. Args: ground: what all parts share."""

    __slots__ = ("_gone", "_ground", "_members")

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._members = ground.members
        self._gone = ground.gone

    # Towards death

    def suspect(self, member: Member, since_s: float, now_s: float, out: Outbox) -> None:
        """Begin to suspect a member whose probe, begun at ``since_s``, was in vain; tell some, and ask it again."""
        ground = self._ground
        node = member.record.node_id
        ground.nonce += 1
        suspicion = member.suspicion = Suspicion(ground.nonce, since_s, now_s)
        member.since_s = now_s
        ground.suspects[node] = member
        out.emit(MemberSuspected(node))
        ground.rumours.doubt(node, member.key, member.record.seq, dead=False)
        told = Tell((), (Doubt(member.key, member.record.seq, False),))
        for other in ground.pick_members(max(1, ground.config.tell_fanout // ground.slowness), node):
            out.send(other, told)
        self._pursue(member, suspicion, now_s, out)

    def pursue_due(self, now_s: float, out: Outbox) -> None:
        """Ask the suspects whose time it is."""
        for member in list(self._ground.suspects.values()):
            suspicion = member.suspicion
            if suspicion is not None and now_s >= suspicion.due_s - EARLY_S:
                self._pursue(member, suspicion, now_s, out)

    def confirm(self, member: Member, accuser: NodeId, now_s: float, out: Outbox) -> None:
        """Count another member's doubt; it brings the last chance of a suspect nearer."""
        if len(member.accusers) < ACCUSERS_MAX:
            member.accusers[accuser] = None
        suspicion = member.suspicion
        if suspicion is not None and suspicion.burst_s is None:
            due_s = max(now_s, self._deadline_s(member, suspicion) - self._ground.config.burst_s)
            if due_s < suspicion.due_s:
                suspicion.due_s = due_s
                self._ground.wake_at(due_s, now_s, out)

    def prolong(self, slept_s: float, now_s: float) -> None:
        """Take a sleep of this machine out of every suspicion, and let the last chances begin afresh."""
        for member in self._ground.suspects.values():
            suspicion = member.suspicion
            if suspicion is not None:
                suspicion.since_s += slept_s
                suspicion.burst_s = None
                suspicion.due_s = now_s

    def _deadline_s(self, member: Member, suspicion: Suspicion) -> float:
        return suspicion.since_s + suspicion_s(self._ground.config, len(self._members), len(member.accusers))

    def _pursue(self, member: Member, suspicion: Suspicion, now_s: float, out: Outbox) -> None:
        """Ask a suspect again; near the deadline in every way and often; then declare it dead."""
        ground = self._ground
        config = ground.config
        deadline_s = self._deadline_s(member, suspicion)
        if suspicion.burst_s is None and now_s >= deadline_s - config.burst_s - EARLY_S:
            suspicion.burst_s = now_s
            suspicion.tries = 0
        if suspicion.burst_s is None:
            suspicion.due_s = min(now_s + config.suspect_interval_s * ground.slowness, deadline_s - config.burst_s)
        else:
            end_s = suspicion.burst_s + config.burst_s * ground.slowness
            if now_s >= end_s - EARLY_S:
                self._declare_dead(member, now_s, out)
                return
            suspicion.due_s = min(now_s + config.burst_interval_s * ground.slowness, end_s)
            if suspicion.tries % 2 == 0:
                ground.ask_widely(member, suspicion, config.burst_interval_s, out)
        ground.ping(member, suspicion.nonce, now_s, out)
        if suspicion.tries % 2 == 0:
            ground.ping(member, suspicion.nonce, now_s, out, link=True)
        suspicion.tries += 1
        ground.wake_at(suspicion.due_s, now_s, out)

    def _declare_dead(self, member: Member, now_s: float, out: Outbox) -> None:
        record = member.record
        self._ground.unwatch(record.node_id)
        self._gone.admit(record, now_s, left=False)
        self._ground.rumours.doubt(record.node_id, member.key, record.seq, dead=True)
        out.emit(MemberDead(record.node_id, record.seq))

    # Signs of life

    def heard(self, peer: NodeId, now_s: float, out: Outbox) -> None:
        """Note that a peer proved by its own key that it lives."""
        member = self._members.get(peer)
        if member is not None:
            member.heard_s = now_s
            if not member.proven:
                member.proven = True
                if member.suspicion is None and not member.asked:
                    out.emit(MemberAlive(peer))
            if member.probe is not None or member.suspicion is not None or member.accusers or member.asked:
                self._clear(member, now_s, out)
            return
        departed = self._gone.get(peer) if self._gone else None
        if departed is not None and not departed.left:
            self._gone.drop(peer)
            self._ground.rumours.drop_doubt(peer)
            out.emit(NodeHeard(departed.record, peer))
            out.emit(MemberAlive(peer))
            for node, other in self._gone.pick_burst(now_s):  # where one comes back, a partition may have healed
                self._ground.ping_departed(node, other, now_s, out)

    def on_vouch(self, peer: NodeId, vouch: Vouch, now_s: float, out: Outbox) -> None:
        """Take a helper's word: what it shows holds off suspicion, but not for ever (docs/spec/swim.md §5.3)."""
        for member in (*self._ground.probed.values(), *self._ground.suspects.values()):
            asked = member.suspicion if member.probe is None else member.probe
            if asked is not None and asked.nonce == vouch.nonce and peer in asked.helpers:
                asked.helpers[peer] = True
                if vouch.alive and self._trusts(member, now_s):
                    self._clear(member, now_s, out)
                return

    def on_newer_record(self, member: Member, now_s: float) -> None:
        """Let the last chance of a member begin once more: it lived when it signed, which may be a while ago."""
        suspicion = member.suspicion
        if suspicion is not None and suspicion.burst_s is not None and self._trusts(member, now_s):
            suspicion.burst_s = now_s

    def _clear(self, member: Member, now_s: float, out: Outbox) -> None:
        """End probe and suspicion of a member: it lives."""
        ground = self._ground
        probe = member.probe
        if probe is not None:
            ground.end_probe(member)
            if probe.round and ground.awareness:
                ground.awareness -= 1
        if member.accusers:
            member.accusers.clear()
        if member.suspicion is not None or member.asked:
            node = member.record.node_id
            member.asked = False
            if member.suspicion is not None:
                member.suspicion = None
                member.since_s = now_s
                del ground.suspects[node]
                ground.rumours.drop_doubt(node)
            out.emit(MemberAlive(node))

    def _trusts(self, member: Member, now_s: float) -> bool:
        """Say whether it was heard itself so lately that others may speak for it."""
        return now_s - member.heard_s <= self._ground.config.vouch_s_max
