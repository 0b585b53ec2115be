"""What can be tuned about publications (docs/spec/topics.md §4)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicsConfig:
    """Knobs of the judge.

    Attributes:
        age_s_max: A publication older, or further ahead of our clock, is dropped. Default two hours: clocks may be an hour
            off, and a broadcast takes seconds.
        seen_max: Names of publications remembered for that time. Default 20,000 (2 MB when full), as many as Plumtree
            remembers; what comes again after more than that is one old publication delivered twice.
        rate, burst: Publications that one publisher may have broadcast, a second and at once. Defaults 100 and 1,000.
        rate_all, burst_all: The same for all publishers together: below what Plumtree takes of one neighbour (400 a second),
            through which everything may come. Defaults 300 and 4,000.
        publishers_max: Publishers counted apart. Default 1,024.
    """

    age_s_max: int = 7_200
    seen_max: int = 20_000
    rate: float = 100.0
    burst: int = 1_000
    rate_all: float = 300.0
    burst_all: int = 4_000
    publishers_max: int = 1_024
