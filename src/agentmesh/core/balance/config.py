"""What can be tuned about balancing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Strategy = Literal["auto", "latency", "least-connections", "round-robin", "weighted", "sticky"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


@dataclass(frozen=True, slots=True)
class BalanceConfig:
    """Knobs of balancing (docs/explain/balancing.md).

    Attributes:
        decay_s: A latency that is not seen again counts 1/e after so long. Raise it where calls are rare. Default 10 (Finagle,
            linkerd).
        unknown_s: A replica whose latency nobody knows yet counts as so slow while a first call runs there. Default 1.0.
        failure_s: A failed call counts as so slow, and as at least twice what the replica's calls took, however quickly it
            failed: failing fast must not attract calls. Default 1.0.
        cost_s_max: No call counts as slower. Default 60: one long call does not keep a replica away for an hour.
        strikes: Failures in a row after which a replica is set back. Default 5 (Envoy).
        window_s: Successes and failures count 1/e after so long. Default 30 (Envoy's interval, thrice).
        volume_min: So many outcomes in the window, here and at the other replicas, before ratios are compared. Default 10.
        ratio_over: … and a replica is set back whose share of failures is so much above that of the others. Default 0.3.
        set_back_s: First time that a replica is set back for; doubled each time. Default 5.
        set_back_s_max: … up to this. Default 300 (Envoy).
        forgive_s: So long without another fault takes back one doubling. Default 60.
        probe_s_max: A probe without an outcome is given up after so long, and another call may be one. Default 30.
        replicas_max: Replicas remembered; the one that was used longest ago gives way. Default 10 000: a full directory.
        retry_ratio: Retries per call that the budget allows in the long run. Default 0.2 (Finagle, gRPC).
        retry_per_s: … and so many per second on top, for nodes with few calls. Default 10 (Finagle).
        retry_reserve: Of which so many may be saved up. Default 100 (Finagle: ten seconds' worth).
        retry_window_s: What calls earned counts 1/e after so long. Default 10 (Finagle).
    """

    decay_s: float = 10.0
    unknown_s: float = 1.0
    failure_s: float = 1.0
    cost_s_max: float = 60.0
    strikes: int = 5
    window_s: float = 30.0
    volume_min: float = 10.0
    ratio_over: float = 0.3
    set_back_s: float = 5.0
    set_back_s_max: float = 300.0
    forgive_s: float = 60.0
    probe_s_max: float = 30.0
    replicas_max: int = 10_000
    retry_ratio: float = 0.2
    retry_per_s: float = 10.0
    retry_reserve: float = 100.0
    retry_window_s: float = 10.0
