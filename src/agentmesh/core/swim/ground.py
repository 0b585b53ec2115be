"""What all parts of SWIM stand on: the own record, who is watched, when to wake up, and how one member is asked.

Used by ``verdicts``, ``probing``, ``intake`` and ``machine`` only.
"""

from __future__ import annotations

import math
import random

from agentmesh.core.machine import Outbox, Timer, WallTime
from agentmesh.core.swim.config import SwimConfig
from agentmesh.core.swim.gone import Departed, Gone
from agentmesh.core.swim.members import ACCUSERS_MAX, Member, Probe, Suspicion, retransmits
from agentmesh.core.swim.messages import Doubt, Ping, PingReq, Tell
from agentmesh.core.swim.rumours import Rumours
from agentmesh.identity.node_record import NodeRecord
from agentmesh.ids import NodeId, public_key_of

WAKE = Timer("swim.wake")
#: Timers may fire this much early, and count nevertheless.
EARLY_S = 1e-3
NEVER_S = math.inf


class Ground:
    """State shared by the parts of ``Swim``. Args as of ``Swim``.

    The tables are never replaced, so each part may keep its own reference to them.

    Attributes:
        key: This node's 32 key bytes, as doubts spell them.
        record, seq: The own newest record and its incarnation; None and 0 before the first ``LocalNode``.
        members: The watched nodes, in the order in which they were first watched.
        probed, suspects: Those of them with a running probe, and with a running suspicion.
        gone: Former members.
        rumours: What rides on the next packets.
        times_max: A rumour is sent so often (docs/spec/swim.md §4.1).
        awareness: How unsure this node is of itself (§3.4).
        pace: More than 1 if this machine slept again and again lately (§3.7).
        slept_s, naps: When it last did, and how often lately.
        nonce: The one used last.
        round_due_s, wake_s: When the next round is due, and the next ``WAKE``; never = infinity.
        armed: When ``WAKE`` was asked for and has not come yet, the next one last; each was asked for because it is earlier
            than all before it, so the list is sorted, and a time that is in it need not be asked for again.
        late_s: An input after this means that this machine slept (§3.5).
    """

    __slots__ = (
        "armed",
        "awareness",
        "config",
        "gone",
        "key",
        "late_s",
        "members",
        "naps",
        "node_id",
        "nonce",
        "pace",
        "probed",
        "record",
        "rng",
        "round_due_s",
        "rumours",
        "seq",
        "slept_s",
        "suspects",
        "times_max",
        "wake_s",
        "wall",
    )

    def __init__(self, node_id: NodeId, config: SwimConfig, rng: random.Random, wall: WallTime) -> None:
        self.node_id, self.config, self.rng, self.wall = node_id, config, rng, wall
        self.key = public_key_of(node_id)
        self.record: NodeRecord | None = None
        self.seq = 0
        self.members: dict[NodeId, Member] = {}
        self.probed: dict[NodeId, Member] = {}
        self.suspects: dict[NodeId, Member] = {}
        self.gone = Gone(config)
        self.rumours = Rumours(config.rumours_max, config.packet_bytes_max)
        self.times_max = retransmits(config, 1)
        self.awareness = 0
        self.pace = 1
        self.slept_s = -NEVER_S
        self.naps = 0
        self.nonce = rng.getrandbits(31)
        self.round_due_s = self.late_s = self.wake_s = NEVER_S
        self.armed: list[float] = []

    # Members

    def record_of(self, node: NodeId) -> NodeRecord | None:
        """Return the newest known record of a node that is watched or was lately."""
        member = self.members.get(node)
        if member is not None:
            return member.record
        departed = self.gone.get(node) if self.gone else None
        return departed.record if departed is not None else None

    def pick_members(self, count: int, but: NodeId | None) -> list[NodeId]:
        """Return up to so many random members that seem well."""
        well = [n for n, m in self.members.items() if m.suspicion is None and n != but]
        return well if len(well) <= count else self.rng.sample(well, count)

    def unwatch(self, node: NodeId) -> None:
        """Forget a member, and what runs or is told about it."""
        if self.members.pop(node, None) is not None:
            self.probed.pop(node, None)
            self.suspects.pop(node, None)
            self.rumours.drop(node)
            self.times_max = retransmits(self.config, len(self.members))

    def end_probe(self, member: Member) -> None:
        """End the running probe of a member, if there is one, without a verdict."""
        member.probe = None
        self.probed.pop(member.record.node_id, None)

    def raise_awareness(self) -> None:
        """Become less sure of this node itself (docs/spec/swim.md §3.4)."""
        self.awareness = min(self.awareness + 1, self.config.awareness_max)

    def note_sleep(self, now_s: float) -> None:
        """Note that this machine slept; if it did so again and again, it has more to do than it can."""
        if now_s - self.slept_s > self.config.strain_s:
            self.naps = 0
        self.naps += 1
        self.slept_s = now_s
        self.pace = min(max(1, self.naps - 1), self.config.slowness_max)
        self.raise_awareness()

    def ease(self, now_s: float) -> None:
        """Go back to the usual pace if this machine kept up for a while."""
        if self.pace > 1 and now_s - self.slept_s > self.config.strain_s:
            self.pace = 1

    @property
    def slowness(self) -> int:
        """How many times slower than usual those are asked who do not answer, and how many fewer are told (§3.7).

        Many suspects, a low opinion of itself and late timers are all signs that answers are late, not members dead.
        """
        config = self.config
        slow = max(self.pace, 1 + self.awareness // 2, len(self.suspects) // config.suspects_usual)
        return min(slow, config.slowness_max)

    # Time

    def wake_at(self, due_s: float, now_s: float, out: Outbox) -> None:
        """See to it that the machine is woken at ``due_s`` or before."""
        if due_s < self.wake_s:
            self.wake_s = due_s
            self.armed.append(due_s)
            self.late_s = min(self.late_s, due_s + self.config.pause_s)
            out.after(max(0.0, due_s - now_s), WAKE)

    def woken(self, at_s: float) -> None:
        """Note that ``WAKE`` has come for every time up to ``at_s``, or will at once."""
        armed = self.armed
        while armed and armed[-1] <= at_s:
            armed.pop()
        self.wake_s = armed[-1] if armed else NEVER_S

    # Packets

    def ping(self, member: Member, nonce: int, now_s: float, out: Outbox, *, link: bool = False) -> None:
        """Ask a member whether it lives, with rumours; ``link`` = over a link only."""
        record = member.record
        doubt = None
        if member.suspicion is not None:  # Lifeguard's buddy system: whom it concerns hears it first
            doubt = Doubt(member.key, record.seq, False)
        records, doubts = self.rumours.pick(record.node_id, None, doubt, self.times_max)
        clock_ms = self.wall.unix_s(now_s) * 1000
        out.send(record.node_id, Ping(nonce, self.seq, record.seq, clock_ms, records, doubts), link=link)

    def ping_departed(self, node: NodeId, departed: Departed, now_s: float, out: Outbox) -> None:
        """Ask a departed node whether it is back, and tell it that it is thought dead (docs/spec/swim.md §6)."""
        self.nonce += 1
        seq = departed.record.seq
        doubt = Doubt(public_key_of(node), seq, True)
        out.send(node, Ping(self.nonce, self.seq, seq, self.wall.unix_s(now_s) * 1000, (), (doubt,)))

    def ask_widely(self, member: Member, asked: Probe | Suspicion, wait_s: float, out: Outbox) -> None:
        """Let helpers ask a member."""
        node = member.record.node_id
        request = PingReq(asked.nonce, member.key, int(wait_s * 1000))
        for helper in self.pick_members(max(1, self.config.helpers // self.slowness), node):
            asked.helpers.setdefault(helper, False)
            out.send(helper, request)

    def tell_record(self, to: NodeId, raw: bytes, out: Outbox) -> None:
        """Send a record by itself: over a link if no datagram can hold it."""
        out.send(to, Tell((raw,)), link=not self.rumours.fits(raw))

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of the shared tables is broken."""
        config = self.config
        assert self.wake_s == (self.armed[-1] if self.armed else NEVER_S)
        assert self.armed == sorted(self.armed, reverse=True)
        assert self.node_id not in self.members
        assert len(self.members) <= config.members_max
        assert 0 <= self.awareness <= config.awareness_max
        assert len(self.probed) <= config.checks_max + 1
        for node, member in self.members.items():
            assert node == member.record.node_id
            assert self.gone.get(node) is None
            assert (member.probe is not None) == (node in self.probed)
            assert (member.suspicion is not None) == (node in self.suspects)
            assert member.probe is None or member.suspicion is None
            assert len(member.accusers) <= ACCUSERS_MAX
        self.gone.assert_invariants()
        self.rumours.assert_invariants()
