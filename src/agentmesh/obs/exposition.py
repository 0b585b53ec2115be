"""Readings as text for Prometheus: format 0.0.4, or OpenMetrics for who asks for it. Written by ``prometheus_client``.

That library is imported with the first scrape (1.3 MB); a daemon that nobody scrapes does not pay for it. What it tells of the
process (CPU, memory, file descriptors) stands beside our own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from agentmesh.obs.meters import Snapshot
from agentmesh.obs.metrics import METRICS, Labels, Metric, Readings

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

#: A longer ``Accept`` header is not read.
_ACCEPT_CHARS_MAX = 1_000
_OPEN_METRICS = "application/openmetrics-text"


def wants_open_metrics(accept: str) -> bool:
    """Say whether an ``Accept`` header asks for OpenMetrics. Anything unreadable does not."""
    kinds = accept[:_ACCEPT_CHARS_MAX].lower().split(",")
    return any(
        kind.partition(";")[0].strip() == _OPEN_METRICS and "q=0" not in kind.replace(" ", "").split(";")
        for kind in kinds
    )


def expose(readings: Readings, accept: str = "") -> tuple[bytes, str]:
    """Return the text of a scrape and its content type. Takes milliseconds: call it in a thread.

    Args:
        readings: The values.
        accept: The ``Accept`` header.
    """
    from prometheus_client import exposition
    from prometheus_client.openmetrics import exposition as open_metrics

    page = _Page(readings)
    if wants_open_metrics(accept):
        encode: Callable[[object], bytes] = vars(open_metrics)["generate_latest"]  # it has no annotations
        return encode(page), open_metrics.CONTENT_TYPE_LATEST
    return exposition.generate_latest(page), exposition.CONTENT_TYPE_PLAIN_0_0_4


class _Page:
    """What the library's encoders ask for families (``Collector``)."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Family]:
        from prometheus_client.process_collector import ProcessCollector

        for name, metric in METRICS.items():
            if (values := self._readings.values.get(name)) is not None:
                yield _family(metric, values)
            elif (histograms := self._readings.histograms.get(name)) is not None:
                yield _histogram(metric, histograms)
        yield from ProcessCollector(registry=None).collect()


def _family(metric: Metric, values: dict[Labels, float]) -> Family:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric, histograms: dict[Labels, Snapshot]) -> Family:
    from prometheus_client.core import GaugeHistogramMetricFamily, HistogramMetricFamily

    make = GaugeHistogramMetricFamily if metric.kind == "gaugehistogram" else HistogramMetricFamily
    family = make(metric.name, metric.help, labels=metric.labels)
    for labels, one in histograms.items():
        bounds = [*(str(bound) for bound in one.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(one.counts), strict=True))
        family.add_metric(labels, buckets, one.sum)
    return family
