"""The judge of publications that neighbours bring (docs/spec/topics.md §4): from cheap to dear, the signature last but one.

"bad" is what nobody honest passes on; "stale" is what came before, is too old, or is more than one publisher may say.
What is good reaches the node as ``TopicHeard``. A node that never hears of a topic pays for none of the tables.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from agentmesh.core.machine import Outbox, WallTime
from agentmesh.core.messages import Delivered
from agentmesh.core.topics.config import TopicsConfig
from agentmesh.core.topics.subjects import PRESENCE, is_subject
from agentmesh.errors import MeshError
from agentmesh.identity.publication import Publication, read_publication
from agentmesh.ids import NodeId

#: Kind of its broadcasts.
TOPIC = "topic"

Verdict = Literal["new", "stale", "bad"]


class TopicHeard(NamedTuple):
    """Event: a publication of another node arrived for the first time; its signature holds.

    Attributes:
        publication, raw: What was said, and as it travels.
        via: The neighbour that brought it.
    """

    publication: Publication
    raw: bytes
    via: NodeId


class Allowance:
    """So many publications at once, and so many a second over time.

    Args:
        rate, burst: How many.
        now_s: Monotonic seconds.
    """

    __slots__ = ("_burst", "_left", "_rate", "_seen_s")

    def __init__(self, rate: float, burst: int, now_s: float) -> None:
        self._rate, self._burst, self._left, self._seen_s = rate, burst, float(burst), now_s

    def left(self, now_s: float) -> float:
        """Return how many may pass now."""
        passed_s, self._seen_s = now_s - self._seen_s, now_s
        if passed_s > 0:
            self._left = min(float(self._burst), self._left + passed_s * self._rate)
        return self._left

    def take(self) -> None:
        """Let one pass; call ``left`` before."""
        self._left -= 1.0


class TopicIntake:
    """Judge publications and tell the node of them.

    Args:
        config: Bounds.
        wall: What the wall clock shows.
    """

    __slots__ = ("_all", "_config", "_last", "_publishers", "_seen", "_wall", "dropped")

    def __init__(self, config: TopicsConfig, wall: WallTime) -> None:
        self._config, self._wall = config, wall
        #: What was judged last: it is delivered right after, and need not be read again.
        self._last: tuple[bytes, Publication] | None = None
        self._seen: dict[bytes, float] = {}
        self._publishers: dict[bytes, Allowance] = {}
        self._all: Allowance | None = None
        #: Good publications that were one too many.
        self.dropped = 0

    def judge(self, raw: bytes, now_s: float) -> Verdict:
        """Say whether a publication is to be delivered and passed on."""
        try:
            one = read_publication(raw)
        except MeshError:
            return "bad"
        if not is_subject(one.subject) or one.subject.startswith(PRESENCE):
            return "bad"
        if abs(one.ts_ms / 1000 - self._wall.unix_s(now_s)) > self._config.age_s_max:
            return "stale"
        # One id names one publication of its publisher, whatever else it says the second time.
        name = one.publisher[:16] + one.id
        if name in self._seen:
            return "stale"
        if not self._has_room(one.publisher, now_s):
            self.dropped += 1
            return "stale"
        while self._seen and (
            len(self._seen) >= self._config.seen_max or now_s - next(iter(self._seen.values())) > self._config.age_s_max
        ):
            del self._seen[next(iter(self._seen))]
        self._seen[name] = now_s
        self._last = raw, one
        return "new"

    def _has_room(self, publisher: bytes, now_s: float) -> bool:
        config = self._config
        if self._all is None:
            self._all = Allowance(config.rate_all, config.burst_all, now_s)
        own = self._publishers.pop(publisher, None)
        if own is None:
            while len(self._publishers) >= config.publishers_max:
                del self._publishers[next(iter(self._publishers))]
            own = Allowance(config.rate, config.burst, now_s)
        self._publishers[publisher] = own
        # Both or neither: a publisher that is out of room must not use up that of the others.
        if own.left(now_s) < 1.0 or self._all.left(now_s) < 1.0:
            return False
        own.take()
        self._all.take()
        return True

    def handle(self, delivered: Delivered, now_s: float, out: Outbox) -> None:
        """Tell the node of a publication that was judged good."""
        raw, last = delivered.payload, self._last
        self._last = None
        one = last[1] if last is not None and last[0] is raw else read_publication(raw, trusted=True)
        out.emit(TopicHeard(one, raw, delivered.via))

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken."""
        assert len(self._seen) <= self._config.seen_max
        assert len(self._publishers) <= self._config.publishers_max
