"""Export of spans: ids as they travelled, standard variables, and receivers that hang, fail or go away."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from agentmesh.codec.tracecontext import TraceContext
from agentmesh.errors import ConfigError
from agentmesh.obs import otel
from agentmesh.obs.otel import SpanExport, endpoint_of
from agentmesh.obs.spans import Mark, Span
from tests.support.otlp import Mode, receiving

TRACE = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 3, "foo=1", "1111111111111111")


def span(trace: TraceContext = TRACE, **more: Any) -> Span:
    fields: dict[str, Any] = {
        "kind": "server", "name": "invoke_agent x", "began_ns": 1_700_000_000_000_000_000,
        "ended_ns": 1_700_000_001_500_000_000, "attributes": {"gen_ai.operation.name": "invoke_agent", "agentmesh.hops": 2},
    }  # fmt: skip
    return Span(trace, **{**fields, **more})


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 another thread does it
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send at once, and heed nothing of this machine's environment."""
    for name in ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


def export_to(url: str, environ: dict[str, str] | None = None) -> SpanExport:
    return SpanExport(
        endpoint_of(url, {}), {"service.name": "agentmesh", "agentmesh.node.name": "n"}, "1.2", environ or {}
    )


async def test_a_span_arrives_with_the_ids_that_travelled_and_all_that_it_says() -> None:
    with receiving() as receiver:
        export = export_to(receiver.url)
        export.take(
            span(
                marks=[Mark(1_700_000_000_500_000_000, "agentmesh.tool", {"gen_ai.tool.name": "t"})],
                error="agent.failed",
            )
        )
        root = TraceContext("1" * 32, "2" * 16)
        export.take(span(root, kind="client"))
        await until(lambda: len(receiver.spans) == 2)
        served, asked = receiver.spans
        assert (served.trace_id, served.span_id, served.parent_id, served.state) == (
            *TRACE[:2],
            TRACE.parent_id,
            "foo=1",
        )
        assert (served.kind, served.seconds, served.error) == (2, 1.5, "agent.failed")
        assert served.attributes == {"gen_ai.operation.name": "invoke_agent", "agentmesh.hops": 2}
        assert served.events == [("agentmesh.tool", {"gen_ai.tool.name": "t"})]
        assert (served.resource["service.name"], served.resource["agentmesh.node.name"]) == ("agentmesh", "n")
        assert (asked.trace_id, asked.span_id, asked.parent_id, asked.kind, asked.error) == (*root[:2], "", 3, "")
        await until(lambda: export.view().sent == 2)
        assert (export.view().waiting, export.view().failed, export.warnings()) == (0, 0, [])
        await export.aclose()


async def test_the_standard_variables_are_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"OTEL_SERVICE_NAME": "mine", "OTEL_RESOURCE_ATTRIBUTES": "team=a,service.name=other"}
    for name, value in {
        **named,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=s3cret",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }.items():
        monkeypatch.setenv(name, value)
    with receiving() as receiver:
        export = export_to(receiver.url, named)
        export.take(span())
        await until(lambda: receiver.spans)
        assert receiver.headers[0]["x-key"] == "s3cret"
        assert receiver.headers[0]["content-encoding"] == "gzip"
        resource = receiver.spans[0].resource
        assert (resource["service.name"], resource["team"]) == ("mine", "a")
        await export.aclose()


@pytest.mark.parametrize(
    ("setting", "environ", "endpoint"),
    [
        ("", {}, ""),
        ("http://a:4318", {}, "http://a:4318/v1/traces"),
        ("http://a:4318/", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b"}, "http://a:4318/v1/traces"),
        ("https://a/otlp", {}, "https://a/otlp/v1/traces"),
        ("https://a/v1/traces", {}, "https://a/v1/traces"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:4318/"}, "http://b:4318/v1/traces"),
        (
            "",
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://b"},
            "http://c/x",
        ),
        ("off", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b"}, ""),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b", "OTEL_TRACES_EXPORTER": "none"}, ""),
        ("http://a", {"OTEL_SDK_DISABLED": "TRUE"}, ""),
        ("http://a", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://a/v1/traces"),
    ],
)
def test_where_spans_go(setting: str, environ: dict[str, str], endpoint: str) -> None:
    assert endpoint_of(setting, environ) == endpoint


def test_a_protocol_that_is_not_spoken_is_said() -> None:
    with pytest.raises(ConfigError) as refused:
        endpoint_of("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert refused.value.code == "otel.protocol"


@pytest.mark.parametrize("mode", ["fails", "closes", "hangs"])
async def test_a_bad_receiver_costs_spans_and_nothing_else(
    mode: Mode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otel, "CLOSE_S", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with receiving(mode) as receiver, caplog.at_level(logging.INFO):
        export = export_to(receiver.url)
        for number in range(20):
            export.take(span(TRACE.child(f"{number + 1:016x}")))
        await until(lambda: export.view().failed == 20)
        view = export.view()
        assert (view.sent, view.waiting) == (0, 0)
        assert view.problem
        assert view.problem.isprintable()
        assert "20 spans were not taken" in export.warnings()[0]
        said = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.name for record in said] == ["agentmesh.otel"]  # once, and not by the library
        receiver.mode = "good"
        receiver.released.set()
        async with asyncio.timeout(30):
            while not export.view().sent:  # on a slow machine the first ones may be late for the exporter's second
                export.take(span())
                await asyncio.sleep(0.1)
        await until(lambda: export.view().problem == "")
        await export.aclose()


async def test_what_waits_is_bounded_and_a_receiver_that_hangs_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otel, "CLOSE_S", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    with receiving("hangs") as receiver:
        export = export_to(receiver.url)
        for number in range(otel.QUEUE_MAX + 100):
            export.take(span(TRACE.child(f"{number + 1:016x}")))
        view = export.view()
        assert (view.dropped, view.waiting) == (100, otel.QUEUE_MAX)
        assert "100 spans" in export.warnings()[0]
        async with asyncio.timeout(30):
            await export.aclose()


async def test_an_answer_of_garbage_to_taken_spans_harms_nobody() -> None:
    with receiving("garbage") as receiver:
        export = export_to(receiver.url)
        export.take(span())
        await until(lambda: export.view().sent == 1)
        await export.aclose()


def test_without_the_libraries_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if "exporter" in name else find(name, *a))
    with pytest.raises(ConfigError) as refused:
        export_to("http://127.0.0.1:1")
    assert refused.value.code == "otel.missing"
    assert "pip install 'agentmeshd[otel]'" in str(refused.value.hint)


def test_settings_of_the_library_that_make_no_sense_are_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999")
    with pytest.raises(ConfigError) as refused:
        export_to("http://127.0.0.1:1")
    assert refused.value.code == "otel.config"


async def test_what_could_be_secret_in_an_address_is_not_shown() -> None:
    export = SpanExport("http://user:pw@127.0.0.1:1/v1/traces?key=s", {}, "1", {})
    assert export.view().endpoint == "http://127.0.0.1:1/v1/traces"
    await export.aclose()


def test_a_node_that_exports_nothing_loads_nothing_for_it() -> None:
    code = "import sys, agentmesh.daemon.app\nsys.exit(any(m.startswith('opentelemetry') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
