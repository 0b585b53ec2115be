"""What two real daemons show after real calls: read by the reference parser, by the dashboard and by a real Prometheus."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agentmesh.obs.metrics import METRICS
from tests.support.daemons import ECHO, Daemon, Mesh, script, sees_agent, wait_until
from tests.support.pages import ROOT, blocks
from tests.support.prometheus import PROGRAM, TOOL, prometheus

pytestmark = pytest.mark.e2e

DASHBOARD = ROOT / "docs" / "grafana" / "agentmesh.json"
HOWTO = ROOT / "docs" / "howto" / "watch-with-prometheus.md"
BYTES_MAX = 60_000
#: Of these nothing happens in a mesh that is well and has no partners; they are held to the table instead.
RARE = {
    "agentmesh_directory_refused_total",
    "agentmesh_federation_lag_seconds",
    "agentmesh_misbehaviour_total",
    "agentmesh_state_refused_total",
}
#: Labels that Prometheus itself puts on.
TARGET = {"instance", "job"}


class Used(NamedTuple):
    """What an expression of PromQL relies on."""

    metrics: dict[str, set[str]]
    grouped: set[str]


def used_by(expression: str) -> Used:
    """Return the metrics of an expression with the labels of their selectors, and the labels that it groups by."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    metrics: dict[str, set[str]] = {}
    for name, selector in re.findall(r"\b((?:agentmesh|process)_\w+)\b(?:\{([^}]*)\})?", text):
        metrics.setdefault(name, set()).update(re.findall(r"(\w+)\s*[=!]~?=?\s*\"", selector))
    lists = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", text)
    return Used(metrics, {label.strip() for one in lists for label in one.split(",")})


def expressions() -> list[str]:
    """Return every expression of the dashboard."""
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def scrape(node: Daemon, accept: str = "", *, credential: str | None = None) -> tuple[int, str]:
    """Return status and text of ``/metrics``."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    with contextlib.closing(connection):
        secret = node.token if credential is None else credential
        headers = {"Accept": accept, **({"Authorization": f"Bearer {secret}"} if secret else {})}
        connection.request("GET", "/metrics", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def labels_in(text: str) -> dict[str, set[str]]:
    """Return the names of samples with the labels that they have."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    """Two nodes between which calls went well, failed and were refused, and one of which got a datagram that is none."""
    root = tmp_path_factory.mktemp("metrics")
    mesh = Mesh(root)
    file = root / "echo_agent.py"
    file.write_text(ECHO, "utf-8")
    try:
        near, far = mesh.pair()
        with script([sys.executable, str(file)], far.env):
            wait_until(lambda: sees_agent(near, "echo"), "the agent to be known")
            wait_until(lambda: 'agentmesh_agents{health="healthy",place="here"} 1' in scrape(far)[1], "its first check")
            for _ in range(5):
                near.post("/api/v1/calls", {"to": "echo", "text": "hello"})
            assert near.ask("POST", "/api/v1/calls", {"to": "echo", "text": "x", "budget": {"wall_ms": 0}})[0] >= 400
            assert near.ask("POST", "/api/v1/calls", {"to": "nobody", "text": "x"})[0] == 404
            udp = near.get("/api/v1/status")["udp"]["address"].rpartition(":")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(b"none of yours", ("127.0.0.1", int(udp[2])))
            wait_until(lambda: "agentmesh_datagrams_dropped_total{" in scrape(near)[1], "the datagram to be dropped")
            yield near, far
    finally:
        mesh.aclose()


def test_what_happened_between_two_daemons_is_in_the_figures_of_both(pair: tuple[Daemon, Daemon]) -> None:
    near, far = (
        {
            (s.name, *sorted(s.labels.items())): s.value
            for f in text_string_to_metric_families(scrape(node)[1])
            for s in f.samples
        }
        for node in pair
    )

    def calls(values: dict[Any, float], direction: str, outcome: str) -> float:
        return sum(
            value
            for (name, *labels), value in values.items()
            if name == "agentmesh_calls_total" and {("direction", direction), ("outcome", outcome)} <= set(labels)
        )

    assert (calls(near, "out", "completed"), calls(far, "in", "completed")) == (5, 5)
    assert (calls(near, "out", "rejected"), calls(far, "in", "rejected")) == (1, 1)
    assert calls(near, "out", "failed") == 1
    assert far["agentmesh_refusals_total", ("code", "budget.wall"), ("direction", "in")] == 1
    assert far["agentmesh_agents", ("health", "healthy"), ("place", "here")] == 1
    for values in (near, far):
        assert values[("agentmesh_events_lost_total",)] == 0
        assert values[("process_resident_memory_bytes",)] > 10_000_000


def test_a_key_for_reading_scrapes_and_who_has_none_does_not(pair: tuple[Daemon, Daemon]) -> None:
    near, _ = pair
    key = near.cli("keys", "add", "prometheus", "--scope", "read").out.strip()
    assert scrape(near, credential=key)[0] == 200
    assert scrape(near, credential="")[0] == 401


def test_the_dashboard_is_small_and_for_a_current_grafana() -> None:
    assert DASHBOARD.stat().st_size <= BYTES_MAX
    board = json.loads(DASHBOARD.read_text("utf-8"))
    assert board["schemaVersion"] >= 39
    assert [one["name"] for one in board["templating"]["list"]] == ["datasource", "instance"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    for panel in board["panels"]:
        assert panel["type"] == "row" or panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_every_metric_and_label_of_the_dashboard_is_in_a_real_scrape(pair: tuple[Daemon, Daemon]) -> None:
    pair[0].post("/api/v1/state/metrics/one", {"op": "set", "value": 1})
    near, far = (labels_in(scrape(node)[1]) for node in pair)
    shown = {name: near.get(name, set()) | far.get(name, set()) for name in near | far}
    for name in RARE:
        shown.setdefault(name, set(METRICS[name].labels))
    found = expressions()
    assert len(found) > 40
    for expression in found:
        used = used_by(expression)
        assert used.metrics, expression
        for name, labels in used.metrics.items():
            assert name in shown, (name, expression)
            assert labels <= shown[name] | TARGET, (name, labels, expression)
        assert used.grouped <= {label for name in used.metrics for label in shown[name]} | TARGET, expression


def test_every_metric_of_the_table_is_on_the_dashboard() -> None:
    used = {name for expression in expressions() for name in used_by(expression).metrics}
    bare = {re.sub(r"_(bucket|sum|count|gsum|gcount)$", "", name) for name in used}
    assert set(METRICS) <= bare | used


def test_a_metric_that_is_not_there_would_be_found() -> None:
    used = used_by('sum by (le, queue) (rate(agentmesh_a_bucket{x="}",y=~"b"}[5m])) / on (job) process_b')
    assert used == Used({"agentmesh_a_bucket": {"x", "y"}, "process_b": set()}, {"le", "queue", "job"})


@pytest.mark.skipif(PROGRAM is None or TOOL is None, reason="no Prometheus here (Debian: apt-get install prometheus)")
def test_a_real_prometheus_scrapes_without_a_complaint_and_answers_the_dashboard(
    pair: tuple[Daemon, Daemon], tmp_path: Path
) -> None:
    near, _ = pair
    for accept in ("", "application/openmetrics-text; version=1.0.0"):
        status, _ = scrape(near, accept)
        assert status == 200
    checked = subprocess.run(
        [str(TOOL), "check", "metrics"], input=scrape(near)[1], capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    (tmp_path / "agentmesh.key").write_text(near.token, "ascii")
    config, rules = (block.text for block in blocks(HOWTO) if block.kind == "yaml")
    config = config.replace("127.0.0.1:6374", f"127.0.0.1:{near.port}").replace("15s", "1s")
    (tmp_path / "rules.yml").write_text(rules, "utf-8")
    config += "\nrule_files: [rules.yml]\n"
    with prometheus(tmp_path, config) as one:

        def is_up() -> bool:
            (target,) = one.get("targets")["activeTargets"] or [{"health": "unknown", "lastError": ""}]
            assert target["health"] != "down", target["lastError"]
            return target["health"] == "up" and len(one.query("agentmesh_calls_total")) > 0

        wait_until(is_up, "a good scrape", timeout_s=60)
        assert [r["value"][1] for r in one.query('up{job="agentmesh"}')] == ["1"]
        for expression in expressions():
            one.query(expression.replace("$__rate_interval", "1m").replace("$instance", ".*"))
        assert one.query("agentmesh_events_lost_total")[0]["value"][1] == "0"
        groups = one.get("rules")["groups"]
        assert {rule["name"] for group in groups for rule in group["rules"]} >= {
            "AgentMeshDown",
            "AgentMeshLosesEvents",
        }
        assert not re.findall(r"level=(?:warn|error).*", one.log())
