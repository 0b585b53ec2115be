"""Asking members whether they live: one per round, more of them when something is odd (docs/spec/swim.md §3)."""

from __future__ import annotations

from agentmesh.core.machine import Outbox
from agentmesh.core.swim.ground import EARLY_S, Ground
from agentmesh.core.swim.members import Member, Probe
from agentmesh.core.swim.verdicts import Verdicts
from agentmesh.ids import NodeId


class Probing:
    """Probes of one node, and whose turn it is.

    Args:
        ground: What all parts share.
        verdicts: Take over who did not answer.

    Attributes:
        greetings: How many more times every member is to be pinged, because this machine slept.
    """

    __slots__ = ("_at", "_ground", "_members", "_order", "_verdicts", "greetings")

    def __init__(self, ground: Ground, verdicts: Verdicts) -> None:
        self._ground = ground
        self._members = ground.members
        self._verdicts = verdicts
        self._order: list[NodeId] = []
        self._at = 0
        self.greetings = 0

    # Rounds

    def admit(self, node: NodeId) -> None:
        """Give a new member a random place in what is left of this pass; in the next pass it takes part anyway."""
        if len(self._order) < 2 * self._ground.config.members_max:
            self._order.insert(self._ground.rng.randint(self._at, len(self._order)), node)

    def probe_next(self, now_s: float, out: Outbox) -> None:
        """Probe the next member in this pass that is neither suspected nor being probed; each pass has a new order."""
        for _ in range(2):
            while self._at < len(self._order):
                member = self._members.get(self._order[self._at])
                self._at += 1
                if member is not None and member.suspicion is None and member.probe is None:
                    self._probe(member, now_s, out, in_round=True)
                    return
            self._order = list(self._members)
            self._ground.rng.shuffle(self._order)
            self._at = 0

    # Outside the rounds

    def check(self, member: Member, now_s: float, out: Outbox) -> None:
        """Probe a member outside the rounds, because somebody or something says that it may be gone; not too often."""
        ground = self._ground
        if (
            member.probe is None
            and member.suspicion is None
            and ground.record is not None
            and now_s - member.checked_s >= ground.config.check_interval_s * ground.slowness
            and len(ground.probed) < ground.config.checks_max
        ):
            member.checked_s = now_s
            self._probe(member, now_s, out, in_round=False)

    def greet(self, now_s: float, out: Outbox) -> None:
        """Ping everybody, so as to be heard by those who suspect this node."""
        ground = self._ground
        self.greetings -= 1
        if self.greetings:
            ground.wake_at(now_s + ground.config.burst_interval_s, now_s, out)
        for member in list(self._members.values()):
            ground.nonce += 1
            ground.ping(member, ground.nonce, now_s, out)

    # Stages of a probe

    def _probe(self, member: Member, now_s: float, out: Outbox, *, in_round: bool) -> None:
        ground = self._ground
        config = ground.config
        slower = 1 + ground.awareness
        timeout_s = min(member.timeout_s(config) * slower, config.timeout_s_max)
        end_s = now_s + max(config.interval_s * slower, 2 * timeout_s)
        ground.nonce += 1
        member.probe = Probe(ground.nonce, now_s, now_s + timeout_s, end_s, in_round)
        ground.probed[member.record.node_id] = member
        ground.ping(member, ground.nonce, now_s, out)
        ground.wake_at(now_s + timeout_s, now_s, out)

    def advance_due(self, now_s: float, out: Outbox) -> None:
        """Go on with the probes whose time it is."""
        for member in list(self._ground.probed.values()):
            probe = member.probe
            if probe is not None and now_s >= probe.due_s - EARLY_S:
                self._advance(member, probe, now_s, out)

    def _advance(self, member: Member, probe: Probe, now_s: float, out: Outbox) -> None:
        """Go to the next stage of a probe: to help and the link, or to failure."""
        ground = self._ground
        if not probe.wide:
            probe.wide = True
            probe.due_s = probe.end_s
            ground.ask_widely(member, probe, (probe.end_s - now_s) / 2, out)
            ground.ping(member, probe.nonce, now_s, out, link=True)
            return
        ground.end_probe(member)
        if probe.round and not all(probe.helpers.values()):
            ground.raise_awareness()  # a helper that is silent too makes our own links the likelier culprit
        self._verdicts.suspect(member, probe.started_s, now_s, out)

    def end_all(self) -> None:
        """End all probes without a verdict."""
        for member in list(self._ground.probed.values()):
            self._ground.end_probe(member)

    def assert_invariants(self) -> None:
        """Raise AssertionError if the bound is broken."""
        assert len(self._order) <= 2 * self._ground.config.members_max
