"""What one agent may be asked at once and over time, and what one caller of it may ask."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Limits of one agent.

    Attributes:
        concurrency: Calls running at once, ≥ 1. From the manifest or the operator.
        qps: Calls a second over time; None for no bound.
        burst: Calls at once under ``qps``; None for one second's worth.
        queue: Calls that may wait, ≥ 0. Default 100: at one slot and a second each, more than anybody waits for (guess).
        wait_s: Longest wait of one call, seconds. Default 10: a person still waits so long (guess).
        callers: Callers that are remembered, ≥ 1. Default 10,000, about 5 MB.
    """

    concurrency: int
    qps: float | None = None
    burst: int | None = None
    queue: int = 100
    wait_s: float = 10.0
    callers: int = 10_000


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """Limits of one caller at one agent, beside those of the agent.

    Attributes:
        qps, burst: As in ``GateLimits``.
        concurrency: Calls running at once; None for no bound but the agent's.
        queue: Calls that may wait; None for no bound but the agent's.
        weight: Its share beside that of others who wait too, ≥ 1.
        last: Whether it is served only when no other caller waits; the grey list of policy asks for that.
    """

    qps: float | None = None
    burst: int | None = None
    concurrency: int | None = None
    queue: int | None = None
    weight: int = 1
    last: bool = False


#: The limits of a caller that nothing is said of.
NO_LIMITS = CallerLimits()
