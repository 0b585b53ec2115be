"""Who may scrape: the scope ``read``, or anybody on this machine if the operator opens it; never a tenant, never a web page."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families

from agentmesh.api.access import Access
from agentmesh.api.app import Api
from agentmesh.api.metrics import MetricsEdge
from agentmesh.errors import Closed
from agentmesh.obs.metrics import Readings
from agentmesh.sdk.types import KeyRequest
from tests.api.node_double import FakeBackend
from tests.api.serving import TOKEN, Answer, Shelf, ask_app, build

HOST = (b"host", b"localhost")


async def measure() -> Readings:
    readings = Readings()
    readings.set("agentmesh_calls_total", 3, "out", "completed", "direct", "iroh")
    return readings


class Scraped:
    """An API with keys of every kind."""

    def __init__(self, **options: Any) -> None:
        backend = FakeBackend()
        backend.tenants["acme"] = FakeBackend()
        access = Access(TOKEN, Shelf())
        keys = {"reads": ["read"], "calls": ["call"]}
        self.secrets = {"operator": TOKEN}
        for name, scopes in keys.items():
            self.secrets[name] = access.add_key(KeyRequest(name=name, scopes=scopes)).secret
        self.secrets["tenant"] = access.add_key(KeyRequest(name="t", scopes=["read"], tenant="acme")).secret
        self.app: Api = build(backend, access=access, extra_routes=MetricsEdge(measure).routes(), **options)

    async def ask(self, who: str = "", method: str = "GET", **headers: str) -> Answer:
        sent = [HOST, *((name.encode(), value.encode()) for name, value in headers.items())]
        if who:
            sent.append((b"authorization", f"Bearer {self.secrets.get(who, who)}".encode()))
        return await ask_app(self.app, method, "/metrics", headers=sent)


@pytest.mark.parametrize("who", ["operator", "reads"])
async def test_the_scope_read_opens_the_metrics(who: str) -> None:
    answer = await Scraped().ask(who)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    samples = [s for f in text_string_to_metric_families(answer.body.decode()) for s in f.samples]
    assert [s.value for s in samples if s.name == "agentmesh_calls_total"] == [3.0]


async def test_who_asks_for_open_metrics_gets_it() -> None:
    answer = await Scraped().ask("reads", accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert any(family.name == "agentmesh_calls" for family in read_open_metrics(answer.body.decode()))


@pytest.mark.parametrize(
    ("who", "status", "code"),
    [
        ("", 401, "refused.token"),
        ("wrong", 401, "refused.token"),
        ("calls", 403, "refused.scope"),
        ("tenant", 403, "refused.tenant"),
    ],
)
async def test_nobody_else_reads_them(who: str, status: int, code: str) -> None:
    answer = await Scraped().ask(who)
    assert (answer.status, answer.problem().code) == (status, code)


async def test_the_setting_opens_them_to_programs_here_and_to_no_web_page() -> None:
    scraped = Scraped(metrics_open=True)
    assert (await scraped.ask()).status == 200
    assert (await scraped.ask(origin="https://evil.example")).problem().code == "refused.origin"
    evil = await ask_app(scraped.app, "GET", "/metrics", headers=[(b"host", b"evil.example")])
    assert evil.problem().code == "refused.host"
    assert (await scraped.ask("tenant")).problem().code == "refused.tenant"


async def test_only_get_reads_them() -> None:
    assert (await Scraped().ask("reads", "POST")).status == 405


async def test_a_daemon_that_stops_says_so() -> None:
    async def stopping() -> Readings:
        raise Closed("the daemon is stopping", code="daemon.stopping")

    app = build(FakeBackend(), extra_routes=MetricsEdge(stopping).routes())
    answer = await ask_app(app, "GET", "/metrics")
    assert answer.problem().code == "daemon.stopping"
