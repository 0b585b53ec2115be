"""How many retries a node may make, as a share of its calls: an outage must not be multiplied by those who meet it."""

from __future__ import annotations

from math import exp

from agentmesh.core.balance.config import BalanceConfig


class RetryBudget:
    """Calls earn a share of a retry each; what they earned fades. A small reserve fills with time.

    Args:
        config: Rates and bounds.
        now_s: Monotonic seconds. A clock that runs backwards earns nothing.
    """

    __slots__ = ("_config", "_earned", "_now_s", "_reserve")

    def __init__(self, config: BalanceConfig, now_s: float) -> None:
        self._config, self._now_s = config, now_s
        self._reserve, self._earned = config.retry_reserve, 0.0

    def earn(self, now_s: float) -> None:
        """Note a call."""
        self._age(now_s)
        self._earned += self._config.retry_ratio

    def take(self, now_s: float) -> bool:
        """Take one retry; False, and nothing is taken, when the budget is spent."""
        self._age(now_s)
        if self._earned >= 1.0:
            self._earned -= 1.0
        elif self._earned + self._reserve >= 1.0:
            self._reserve -= 1.0 - self._earned
            self._earned = 0.0
        else:
            return False
        return True

    def left(self, now_s: float) -> float:
        """Return how many retries may be made now."""
        self._age(now_s)
        return self._earned + self._reserve

    def _age(self, now_s: float) -> None:
        config, passed_s = self._config, max(0.0, now_s - self._now_s)
        self._now_s = now_s
        self._earned *= exp(-passed_s / config.retry_window_s)
        self._reserve = min(config.retry_reserve, self._reserve + passed_s * config.retry_per_s)
