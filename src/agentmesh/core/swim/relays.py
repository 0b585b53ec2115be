"""Probes that this node runs for others (docs/spec/swim.md §3)."""

from __future__ import annotations

from dataclasses import dataclass

from agentmesh.ids import NodeId

#: A late answer is still passed on for so long after the nack.
_LATE_S = 1.0
_WAIT_S_MIN = 0.05
_WAIT_S_MAX = 2.0


@dataclass(slots=True, eq=False)
class Relay:
    """One probe for another node.

    Attributes:
        origin: Who asked.
        nonce: Its nonce.
        target: Who is probed.
        nack_s: When to say that there was no answer.
        end_s: When to forget it.
        nacked: It was said.
    """

    origin: NodeId
    nonce: int
    target: NodeId
    nack_s: float
    end_s: float
    nacked: bool = False


class Relays:
    """Probes for others, by our nonce.

    Args:
        relays_max: At most so many at once.
    """

    __slots__ = ("_running", "relays_max")

    def __init__(self, relays_max: int) -> None:
        self.relays_max = relays_max
        self._running: dict[int, Relay] = {}

    def __bool__(self) -> bool:
        return bool(self._running)

    def admit(self, own_nonce: int, origin: NodeId, nonce: int, target: NodeId, wait_ms: int, now_s: float) -> bool:
        """Begin one; False if there are too many."""
        if len(self._running) >= self.relays_max:
            return False
        nack_s = now_s + min(max(wait_ms / 1000, _WAIT_S_MIN), _WAIT_S_MAX)
        self._running[own_nonce] = Relay(origin, nonce, target, nack_s, nack_s + _LATE_S)
        return True

    def take(self, own_nonce: int, peer: NodeId) -> Relay | None:
        """Return, and end, the one that this answer of ``peer`` belongs to."""
        relay = self._running.get(own_nonce)
        if relay is None or relay.target != peer:
            return None
        return self._running.pop(own_nonce)

    def expire(self, now_s: float) -> tuple[list[Relay], float]:
        """Return those to be nacked now, and when the next one is due; forget the old ones."""
        if not self._running:
            return [], float("inf")
        nacked: list[Relay] = []
        next_s = float("inf")
        for nonce, relay in list(self._running.items()):
            if now_s >= relay.end_s:
                del self._running[nonce]
            elif relay.nacked:
                next_s = min(next_s, relay.end_s)
            elif now_s >= relay.nack_s:
                relay.nacked = True
                nacked.append(relay)
                next_s = min(next_s, relay.end_s)
            else:
                next_s = min(next_s, relay.nack_s)
        return nacked, next_s

    def due_s(self, now_s: float) -> float:
        """Return when the next nack or forgetting is due; never before ``now_s``."""
        return max(
            now_s, min((r.end_s if r.nacked else r.nack_s for r in self._running.values()), default=float("inf"))
        )

    def assert_invariants(self) -> None:
        """Raise AssertionError if the bound is broken."""
        assert len(self._running) <= self.relays_max
