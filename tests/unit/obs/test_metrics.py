"""What is counted is what is shown: buckets, bounds, both text formats, and a page that names every metric."""

from __future__ import annotations

import importlib.util
import re
from bisect import bisect_left
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families

from agentmesh.obs.exposition import expose, wants_open_metrics
from agentmesh.obs.meters import CALL_S, OTHER, SHORT_S, Counts, Histogram
from agentmesh.obs.metrics import METRICS, Readings
from tests.support.pages import ROOT

HOSTILE = '"}\n# TYPE evil counter\nevil 1\\ \u202e<script>\ud800'


def full() -> Readings:
    """Return readings with one series of every metric, whose labels hold hostile text."""
    readings = Readings()
    histogram = Histogram(SHORT_S)
    histogram.observe(0.002)
    for metric in METRICS.values():
        labels = [HOSTILE.encode("utf-8", "replace").decode()] * len(metric.labels)
        if metric.kind in ("histogram", "gaugehistogram"):
            readings.set_histogram(metric.name, histogram.read(), *labels)
        else:
            readings.set(metric.name, 7, *labels)
    return readings


@given(st.lists(st.floats(min_value=-1, max_value=1_000, allow_nan=False), max_size=50))
def test_a_histogram_holds_what_a_dumb_model_holds(values: list[float]) -> None:
    histogram = Histogram(CALL_S)
    for value in values:
        histogram.observe(value)
    held = histogram.read()
    model = Counter(bisect_left(CALL_S, max(0.0, value)) for value in values)
    assert held.counts == tuple(model[place] for place in range(len(CALL_S) + 1))
    assert abs(held.sum - sum(max(0.0, value) for value in values)) < 1e-6
    assert held.sum >= 0


@given(st.lists(st.tuples(st.sampled_from(("in", "out")), st.text(max_size=3)), max_size=60))
def test_counters_are_bounded_and_nothing_goes_uncounted(events: list[tuple[str, str]]) -> None:
    counts = Counts(2, series_max=8, open_label=1)
    for labels in events:
        counts.add(labels)
    held = counts.read()
    assert sum(held.values()) == len(events)
    assert len([labels for labels in held if labels[1] != OTHER]) <= 8
    for direction in ("in", "out"):
        assert sum(n for (d, _), n in held.items() if d == direction) == sum(d == direction for d, _ in events)


def test_both_formats_are_read_back_by_the_reference_parsers_with_every_metric_in_them() -> None:
    text, content_type = expose(full())
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    plain = {sample.name for family in text_string_to_metric_families(text.decode()) for sample in family.samples}
    text, content_type = expose(full(), "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = list(read_open_metrics(text.decode()))
    assert text.endswith(b"# EOF\n")
    names = {sample.name for family in families for sample in family.samples}
    for metric in METRICS.values():
        suffix = "_bucket" if "histogram" in metric.kind else ""
        assert metric.name + suffix in plain
        assert metric.name + suffix in names
    assert not any("evil" in name for name in plain | names)


def test_hostile_label_values_come_back_as_they_were_and_break_out_of_nothing() -> None:
    text, _ = expose(full())
    hostile = HOSTILE.encode("utf-8", "replace").decode()
    values = {
        value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name.startswith("agentmesh_")
        for name, value in sample.labels.items()
        if name != "le"
    }
    assert values == {hostile}


@given(st.text(max_size=2_000))
def test_no_accept_header_makes_a_scrape_fail(accept: str) -> None:
    assert isinstance(wants_open_metrics(accept), bool)


def test_open_metrics_is_only_for_who_asks_for_it() -> None:
    prometheus = (
        "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
        "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    )
    assert wants_open_metrics(prometheus)
    assert not wants_open_metrics("text/plain")
    assert not wants_open_metrics("*/*")
    assert not wants_open_metrics("application/openmetrics-text; q=0")
    assert not wants_open_metrics("application/openmetrics-text-not")


def test_names_follow_the_conventions() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"agentmesh_[a-z]+(_[a-z]+)*", metric.name)
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert not re.search(r"_(ms|millis|kb|mb|count|sum|bucket)$", metric.name)
        assert bool(metric.labels) == bool(metric.values), metric.name


def test_the_page_of_metrics_is_fresh() -> None:
    spec = importlib.util.spec_from_file_location("metrics_page", ROOT / "tools" / "metrics_page.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text("utf-8")
    assert page == tool.page(), "next: make docs"
    shown = set(re.findall(r"^\| `(agentmesh_\w+)` \| (?:counter|gauge)", page, re.MULTILINE))
    assert shown >= {name for name, metric in METRICS.items() if "histogram" not in metric.kind}
