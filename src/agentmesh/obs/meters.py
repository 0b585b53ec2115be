"""What is counted while calls run: plain integers and fixed buckets, read when somebody scrapes (``obs.metrics``).

No locks: everything here is used from the daemon's one loop. An observation costs well under a microsecond.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

#: Label value of everything beyond the bound of a table.
OTHER = "other"
#: Bounds of durations, seconds: from what a local call takes to what a model thinks.
CALL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
#: Bounds of short work and short waits, seconds.
SHORT_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0)
#: Bounds of shares, 0 … 1.
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Snapshot(NamedTuple):
    """What a histogram held at one moment.

    Attributes:
        bounds: Upper bounds, ascending.
        counts: Observations up to each bound and above the one before; one more than bounds, for those above all.
        sum: Of all observations.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class Histogram:
    """Observations in fixed buckets.

    Args:
        bounds: Upper bounds of the buckets, ascending; each includes its bound.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Take one observation. What is below 0, which only a clock that was set can bring forth, counts as 0."""
        if value > 0.0:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value
        else:
            self._counts[0] += 1

    def read(self) -> Snapshot:
        """Return what it holds."""
        return Snapshot(self._bounds, tuple(self._counts), self._sum)


class Checks:
    """How long checks took, those that held apart from those that did not."""

    __slots__ = ("good", "refused")

    def __init__(self) -> None:
        self.good, self.refused = Histogram(SHORT_S), Histogram(SHORT_S)

    def note(self, seconds: float, *, good: bool) -> None:
        """Take note of one check."""
        (self.good if good else self.refused).observe(seconds)


class Counts:
    """Counters by labels, bounded: what comes when the table is full counts under ``OTHER``.

    Args:
        labels: How many labels each counter has.
        series_max: Most combinations of labels, those of ``OTHER`` left out.
        open_label: Which label becomes ``OTHER`` then; the others are of few values and stay as they are.
    """

    __slots__ = ("_counts", "_open_label", "_series_max", "labels")

    def __init__(self, labels: int, *, series_max: int = 500, open_label: int = 0) -> None:
        self.labels = labels
        self._series_max, self._open_label = series_max, open_label
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, labels: tuple[str, ...], count: int = 1) -> None:
        """Count under these labels."""
        counts = self._counts
        if labels in counts:
            counts[labels] += count
            return
        if len(counts) >= self._series_max:
            at = self._open_label
            labels = (*labels[:at], OTHER, *labels[at + 1 :])
        counts[labels] = counts.get(labels, 0) + count

    def read(self) -> dict[tuple[str, ...], int]:
        """Return every counter by its labels."""
        return dict(self._counts)
