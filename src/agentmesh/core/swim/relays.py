"""Probes that this node runs for others (docs/spec/swim.md §3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agentmesh.ids import NodeId

#: A late answer is still passed on for so long after the nack.
_LATE_S = 1.0
_WAIT_S_MIN = 0.05
_WAIT_S_MAX = 2.0
_NEVER_S = math.inf


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

    __slots__ = ("_due_s", "_running", "relays_max")

    def __init__(self, relays_max: int) -> None:
        self.relays_max = relays_max
        self._running: dict[int, Relay] = {}
        #: No nack is due before; earlier than the first one where that was answered meanwhile.
        self._due_s = _NEVER_S

    def __bool__(self) -> bool:
        return bool(self._running)

    def admit(self, own_nonce: int, origin: NodeId, nonce: int, target: NodeId, wait_ms: int, now_s: float) -> bool:
        """Begin one; False if there are too many."""
        if len(self._running) >= self.relays_max:
            self._forget(now_s)
            if len(self._running) >= self.relays_max:
                return False
        nack_s = now_s + min(max(wait_ms / 1000, _WAIT_S_MIN), _WAIT_S_MAX)
        self._running[own_nonce] = Relay(origin, nonce, target, nack_s, nack_s + _LATE_S)
        self._due_s = min(self._due_s, nack_s)
        return True

    def take(self, own_nonce: int, peer: NodeId, now_s: float) -> Relay | None:
        """Return, and end, the one that this answer of ``peer`` belongs to, unless it comes too late."""
        relay = self._running.get(own_nonce)
        if relay is None or relay.target != peer or now_s >= relay.end_s:
            return None
        return self._running.pop(own_nonce)

    def expire(self, now_s: float) -> tuple[list[Relay], float]:
        """Return those to be nacked now, and when the next one is due; forget the old ones.

        Nobody has to be woken for forgetting: it is done with the next nack, or when there is no room.
        """
        nacked: list[Relay] = []
        if now_s >= self._due_s:
            self._forget(now_s)
            self._due_s = _NEVER_S
            for relay in self._running.values():
                if relay.nacked:
                    continue
                if now_s >= relay.nack_s:
                    relay.nacked = True
                    nacked.append(relay)
                elif relay.nack_s < self._due_s:
                    self._due_s = relay.nack_s
        return nacked, self._due_s

    def due_s(self, now_s: float) -> float:
        """Return when the next nack is due, or might be; never before ``now_s``."""
        return max(now_s, self._due_s)

    def _forget(self, now_s: float) -> None:
        for nonce in [nonce for nonce, relay in self._running.items() if now_s >= relay.end_s]:
            del self._running[nonce]

    def assert_invariants(self) -> None:
        """Raise AssertionError if the bound is broken, or a nack could be overslept."""
        assert len(self._running) <= self.relays_max
        assert all(relay.nacked or self._due_s <= relay.nack_s for relay in self._running.values())
