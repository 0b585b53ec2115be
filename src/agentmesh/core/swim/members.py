"""What SWIM keeps about the nodes it watches, and the arithmetic of round trips and suspicion (docs/spec/swim.md §3, §5)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from agentmesh.core.swim.config import SwimConfig
from agentmesh.identity.node_record import NodeRecord
from agentmesh.ids import NodeId, public_key_of

#: "alive" also before the first answer; "dead" and "left" are told of nodes that are watched no longer.
State = Literal["alive", "suspect", "dead", "left"]
#: Accusers counted for one member; far more than shorten anything.
ACCUSERS_MAX = 16
_UNMEASURED_S = -1.0


class MemberView(NamedTuple):
    """One member as people and other modules see it.

    Attributes:
        node: The member.
        state: "alive" or "suspect".
        seq: Incarnation: ``seq`` of its newest record known here.
        rtt_s: Smoothed round trip of direct probes, seconds; None before the first answer.
        since_s: Monotonic time at which the state began.
    """

    node: NodeId
    state: State
    seq: int
    rtt_s: float | None
    since_s: float


@dataclass(slots=True, eq=False)
class Probe:
    """One question "do you live?", asked in up to three ways.

    Attributes:
        nonce: Of the direct ping and of the requests to helpers.
        started_s: When it began.
        due_s: When the next stage begins: help is asked for, or the probe has failed.
        end_s: When it has failed.
        round: It belongs to the rounds, and its result to the awareness.
        wide: Helpers and the link were asked as well: the round trip says nothing any more.
        helpers: Who was asked, and whether it answered that it got no answer either: then we and our links are in order.
    """

    nonce: int
    started_s: float
    due_s: float
    end_s: float
    round: bool
    wide: bool = False
    helpers: dict[NodeId, bool] = field(default_factory=dict[NodeId, bool])


@dataclass(slots=True, eq=False)
class Suspicion:
    """A member that did not answer a whole probe.

    Attributes:
        nonce: Of the pings and of the requests to helpers.
        since_s: Start of our own first probe in vain.
        due_s: Next time to ask.
        tries: Times asked.
        burst_s: When the last chance began; None before.
        helpers: Who was asked; they may vouch.
    """

    nonce: int
    since_s: float
    due_s: float
    tries: int = 0
    burst_s: float | None = None
    helpers: dict[NodeId, bool] = field(default_factory=dict[NodeId, bool])


@dataclass(slots=True, eq=False)
class Member:
    """A watched node.

    Attributes:
        record: Its newest known record.
        key: Its 32 key bytes, as doubts spell them.
        since_s: When its state began.
        heard_s: Last time it proved with its own key that it lives; the time of ``Watch`` before.
        proven: It did so at least once.
        rtt_s, rtt_dev_s: Smoothed round trip and its deviation (RFC 6298); negative before the first.
        probe, suspicion: Running ones.
        accusers: Members that doubt it as well, as they said themselves.
        checked_s: Last time it was probed because of what others said.
        asked: Its next sign of life is to be told (``ProbeWanted``).
    """

    record: NodeRecord
    key: bytes
    since_s: float
    heard_s: float
    proven: bool = False
    rtt_s: float = _UNMEASURED_S
    rtt_dev_s: float = 0.0
    probe: Probe | None = None
    suspicion: Suspicion | None = None
    accusers: dict[NodeId, None] = field(default_factory=dict[NodeId, None])
    checked_s: float = -math.inf
    asked: bool = False

    @property
    def node(self) -> NodeId:
        """Return its id."""
        return self.record.node_id

    def measure(self, rtt_s: float) -> None:
        """Take a round trip into account."""
        if self.rtt_s < 0:
            self.rtt_s, self.rtt_dev_s = rtt_s, rtt_s / 2
        else:
            self.rtt_dev_s += (abs(rtt_s - self.rtt_s) - self.rtt_dev_s) / 4
            self.rtt_s += (rtt_s - self.rtt_s) / 8

    def timeout_s(self, config: SwimConfig) -> float:
        """Return how long a direct answer is waited for: 4 × a round trip that few exceed, within the configured bounds."""
        usual_s = 4 * (self.rtt_s + 2 * self.rtt_dev_s)
        return min(max(usual_s, config.timeout_s_min), config.timeout_s_max)


def new_member(record: NodeRecord, now_s: float) -> Member:
    """Return a member that was not heard of yet."""
    return Member(record, public_key_of(record.node_id), now_s, now_s)


def suspicion_s(config: SwimConfig, members: int, accusers: int) -> float:
    """Return how long a member may be silent before it is declared dead, seconds.

    Lifeguard: the more members say independently that it is silent, the shorter, from the maximum to the minimum by
    log(accusers + 1) / log(confirmations + 1). Who has too few other members to be confirmed takes the minimum.

    Args:
        config: Minimum, ratio and number of confirmations.
        members: Members watched.
        accusers: Others that doubt it as well.

    Source: Dadgar, Phillips, Currey: Lifeguard (arXiv 1707.00788) §IV-B.
    """
    least_s = max(config.suspicion_mult * math.log10(max(members, 1) + 1) * config.interval_s, config.suspicion_floor_s)
    needed = min(config.confirmations, members - 1)
    if needed < 1 or accusers >= needed:
        return least_s
    most_s = least_s * config.suspicion_max_ratio
    return most_s - (most_s - least_s) * math.log(accusers + 1) / math.log(needed + 1)


def retransmits(config: SwimConfig, members: int) -> int:
    """Return how often one rumour is sent: mult × ⌈log10(members + 1)⌉, at least mult."""
    return config.retransmit_mult * max(1, math.ceil(math.log10(members + 1)))
