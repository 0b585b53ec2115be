"""The circuit breaker of one replica: closed, open for a while, then half-open for one probe."""

from __future__ import annotations

from typing import Literal

from agentmesh.core.balance.config import BalanceConfig

BreakerState = Literal["closed", "open", "half-open"]


class Breaker:
    """Says whether a replica is to be avoided. Times are monotonic seconds; a clock that jumps ends a wait, never prolongs it.

    Attributes:
        strikes: Failures in a row.
        length_s: How long it is or was open, seconds; 0 while it never was.
    """

    __slots__ = ("_closed_s", "_config", "_opened_s", "_openings", "_probe_s", "length_s", "strikes")

    def __init__(self, config: BalanceConfig) -> None:
        self._config = config
        self.strikes = 0
        self.length_s = 0.0
        self._openings = 0
        self._opened_s: float | None = None
        self._probe_s: float | None = None
        self._closed_s = 0.0

    def state(self, now_s: float) -> BreakerState:
        """Return its state; half-open only while no probe runs."""
        if self._opened_s is None:
            return "closed"
        if 0 <= now_s - self._opened_s < self.length_s:
            return "open"
        if self._probe_s is not None and 0 <= now_s - self._probe_s < self._config.probe_s_max:
            return "open"
        return "half-open"

    def began(self, now_s: float) -> None:
        """Note that a call went there: in half-open it is the probe."""
        if self.state(now_s) == "half-open":
            self._probe_s = now_s

    def succeeded(self, began_s: float, now_s: float) -> None:
        """Note a good outcome; closes the breaker unless the call began before it opened."""
        if self._opened_s is None:
            self.strikes = 0
        elif not began_s < self._opened_s <= now_s:
            self._opened_s = self._probe_s = None
            self.strikes, self._closed_s = 0, now_s

    def dropped(self, began_s: float) -> None:
        """Note that a call ended without saying anything of the replica; if it was the probe, another may be."""
        if self._probe_s == began_s:
            self._probe_s = None

    def failed(self, began_s: float, now_s: float, *, is_outlier: bool) -> None:
        """Note a bad outcome; opens the breaker after enough in a row, of an outlier, and of a probe."""
        if self._opened_s is not None:
            waits = self._probe_s is None and self.state(now_s) == "open"
            if waits or began_s < self._opened_s <= now_s:
                return  # known already
            self._open(now_s)
            return
        self.strikes += 1
        if is_outlier or self.strikes >= self._config.strikes:
            # Who behaved for a while is met as at first; who flaps is not.
            self._openings -= min(self._openings, int(max(0.0, now_s - self._closed_s) / self._config.forgive_s))
            self._open(now_s)

    def _open(self, now_s: float) -> None:
        self.length_s = min(self._config.set_back_s * 2.0 ** min(self._openings, 60), self._config.set_back_s_max)
        self._openings += 1
        self._opened_s, self._probe_s = now_s, None
