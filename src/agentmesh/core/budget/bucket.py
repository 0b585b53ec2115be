"""A token bucket: at most ``burst`` at once, and ``rate`` a second over time (docs/spec/guard.md §2)."""

from __future__ import annotations

import math

from agentmesh.errors import UsageError

#: Rounding may leave a bucket this much short of a whole call.
_NEARLY = 1e-9
#: Highest rate, calls a second, and largest burst that a bucket can have.
RATE_MAX, BURST_MAX = 1_000_000.0, 1_000_000


class Bucket:
    """Full at the start. A clock that jumps forward fills it up to ``burst`` at most; one that jumps back adds nothing.

    Args:
        rate: Calls a second, > 0.
        burst: Calls at once, ≥ 1; None for what one second brings, at least one.
        now_s: Monotonic seconds.

    Raises:
        UsageError: a rate or burst outside its range (code "guard.rate").
    """

    __slots__ = ("_seen_s", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: int | None, now_s: float) -> None:
        if not 0 < rate <= RATE_MAX or (burst is not None and not 1 <= burst <= BURST_MAX):
            raise UsageError(f"a rate of {rate!r} calls a second with bursts of {burst!r}", code="guard.rate")
        self.rate = float(rate)
        self.burst = max(1, math.ceil(rate)) if burst is None else burst
        self._tokens, self._seen_s = float(self.burst), now_s

    def _fill(self, now_s: float) -> None:
        passed_s = now_s - self._seen_s
        self._seen_s = now_s
        if passed_s > 0:
            self._tokens = min(float(self.burst), self._tokens + passed_s * self.rate)

    def wait_s(self, now_s: float, calls: int = 1) -> float:
        """Return the seconds until so many more calls may have passed, one after the other; 0 if they may now."""
        self._fill(now_s)
        missing = calls - self._tokens
        return missing / self.rate if missing > _NEARLY else 0.0

    def take(self, now_s: float) -> bool:
        """Let one call pass if it may; False changes nothing."""
        self._fill(now_s)
        if self._tokens < 1.0 - _NEARLY:
            return False
        self._tokens = max(0.0, self._tokens - 1.0)
        return True

    def is_full(self, now_s: float) -> bool:
        """Say whether it could be forgotten and made anew without letting anybody pass who may not."""
        self._fill(now_s)
        return self._tokens >= self.burst

    def change(self, rate: float, burst: int | None, now_s: float) -> Bucket:
        """Return a bucket of another rate that holds no more than this one does. Raises UsageError."""
        self._fill(now_s)
        other = Bucket(rate, burst, now_s)
        other._tokens = min(other._tokens, self._tokens)
        return other
