"""The flood guard: what one peer may send per second."""

from __future__ import annotations

from agentmesh.core.contacts.config import ContactsConfig
from agentmesh.core.machine import Outbox, PeerMisbehaved
from agentmesh.ids import NodeId

#: A flooding peer is reported once in so many seconds, not once per message.
_REPORT_S = 10.0


class Bucket:
    """A token bucket: ``per_s`` sustained, ``burst`` at once."""

    __slots__ = ("_at_s", "_left", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self.per_s, self.burst = per_s, burst
        self._left, self._at_s = burst, now_s

    def take(self, count: float, now_s: float) -> bool:
        """Take tokens; False, and nothing is taken, if there are too few."""
        left = self._left + (now_s - self._at_s) * self.per_s
        if left > self.burst:
            left = self.burst
        self._at_s = now_s
        if count > left:
            self._left = left
            return False
        self._left = left - count
        return True


class _Meter:
    __slots__ = ("items", "messages", "told_s")

    def __init__(self, config: ContactsConfig, now_s: float) -> None:
        self.messages = Bucket(config.messages_per_s, config.messages_burst, now_s)
        self.items = Bucket(config.items_per_s, config.items_burst, now_s)
        self.told_s = -1e9


class Guard:
    """Measure what each peer sends, whether it comes over a link or in datagrams.

    Args:
        config: Rates and bounds.
    """

    def __init__(self, config: ContactsConfig) -> None:
        self.config = config
        self._meters: dict[NodeId, _Meter] = {}

    def admits(self, peer: NodeId, kind: str, items: int, now_s: float, out: Outbox) -> bool:
        """Say whether a peer may send this much now; report it, once in a while, if not.

        Args:
            peer: Proven by its key.
            kind: Name of the message, for the report.
            items: Entries in the message, ≥ 1.
            now_s: Monotonic seconds.
            out: Where a flood is reported.
        """
        meter = self._meters.get(peer)
        if meter is None:
            if len(self._meters) >= self.config.guards_max:
                # The first in is not always the longest quiet one, but forgetting a meter only forgives what was sent.
                del self._meters[next(iter(self._meters))]
            meter = self._meters[peer] = _Meter(self.config, now_s)
        if meter.messages.take(1, now_s) and (items <= 1 or meter.items.take(items, now_s)):
            return True
        if now_s - meter.told_s >= _REPORT_S:
            meter.told_s = now_s
            out.emit(PeerMisbehaved(peer, "peer.flood", f"more control messages than agreed, last a {kind}"))
        return False

    def assert_invariants(self) -> None:
        """Raise AssertionError if the table grew beyond its bound."""
        assert len(self._meters) <= self.config.guards_max
