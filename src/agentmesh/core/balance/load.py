"""What this node knows of one replica from its own calls: how many run, how long they take, how they end."""

from __future__ import annotations

from math import exp

from agentmesh.core.balance.breaker import Breaker
from agentmesh.core.balance.config import BalanceConfig


class Load:
    """One replica.

    Attributes:
        running: Calls of this node that run there.
        turn: When it was last chosen, counted in choices; 0 = never.
        passed: Its place in the weighted round: each call moves it on by 1 / weight.
        breaker: Whether it is to be avoided.
    """

    __slots__ = ("_bad", "_config", "_cost_s", "_counted_s", "_good", "_seen_s", "breaker", "passed", "running", "turn")

    def __init__(self, config: BalanceConfig) -> None:
        self._config = config
        self.running = self.turn = 0
        self.passed = 0.0
        self.breaker = Breaker(config)
        self._cost_s: float | None = None
        self._seen_s = 0.0
        self._good = self._bad = 0.0
        self._counted_s = 0.0

    def latency_s(self, now_s: float) -> float | None:
        """Return the peak-sensitive average of what calls took, faded since; None if nobody knows."""
        if self._cost_s is None:
            return None
        return self._cost_s * exp(-max(0.0, now_s - self._seen_s) / self._config.decay_s)

    def cost_s(self, now_s: float) -> float:
        """Return what one more call is expected to take there, seconds; 0 of a replica that was never tried."""
        latency_s = self.latency_s(now_s)
        if latency_s is None:
            return self._config.unknown_s * self.running
        return latency_s * (self.running + 1)

    def took(self, seconds: float, now_s: float) -> None:
        """Note how long a call took: a longer one counts at once, a shorter one bit by bit."""
        seconds = min(max(0.0, seconds), self._config.cost_s_max)
        before_s = self.latency_s(now_s)
        if before_s is None or seconds > before_s:
            self._cost_s = seconds
        else:
            weight = exp(-max(0.0, now_s - self._seen_s) / self._config.decay_s)
            self._cost_s = (self._cost_s or 0.0) * weight + seconds * (1.0 - weight)
        self._seen_s = now_s

    def failed(self, seconds: float, now_s: float) -> None:
        """Note a failure: it makes the replica look slow, however quick it was."""
        self._age(now_s)
        self._bad += 1.0
        self.took(max(seconds, self._config.failure_s, 2.0 * (self.latency_s(now_s) or 0.0)), now_s)

    def succeeded(self, seconds: float, now_s: float) -> None:
        """Note a call that was answered."""
        self._age(now_s)
        self._good += 1.0
        self.took(seconds, now_s)

    def dropped(self, seconds: float, now_s: float) -> None:
        """Note a call that its caller gave up: it took at least so long."""
        if seconds > (self.latency_s(now_s) or 0.0):
            self.took(seconds, now_s)

    def outcomes(self, now_s: float) -> tuple[float, float]:
        """Return how many calls were answered and how many failed lately, both fading."""
        self._age(now_s)
        return self._good, self._bad

    def _age(self, now_s: float) -> None:
        fade = exp(-max(0.0, now_s - self._counted_s) / self._config.window_s)
        self._good *= fade
        self._bad *= fade
        self._counted_s = now_s
