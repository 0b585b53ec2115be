"""Export spans by OTLP over HTTP (``agentmeshd[otel]``). Imported only where an endpoint is set; the libraries on ``open``.

The SDK does the work: its batch processor has a thread of its own, its exporter retries, compresses and reads the standard
``OTEL_*`` variables. Here stands what it leaves open: the ids are ours (they travelled long before the span was over), what
waits is bounded and what is lost is counted, and a collector that is down does not fill the log.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from agentmesh.errors import ConfigError
from agentmesh.obs.spans import Span, fit_text
from agentmesh.wire.views import SpanExportView

_log = logging.getLogger("agentmesh.otel")

#: Version of the semantic conventions that our attributes follow (adr/0008).
SEMCONV = "1.41.0"
#: Spans that may wait to be sent; more are dropped and counted.
QUEUE_MAX = 2_048
#: How long a daemon that stops waits until what is left is sent.
CLOSE_S = 3.0
_PATH = "/v1/traces"
#: One line in the log in so many seconds while spans cannot be sent.
_SAY_AGAIN_S = 300.0
_LIBRARY_LOG = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
INSTALL = "pip install 'agentmeshd[otel]'"


def endpoint_of(setting: str, environ: Mapping[str, str]) -> str:
    """Return where spans go, "" for nowhere.

    Args:
        setting: ``otel_endpoint``: a base address, "off", or "" for what the environment says.
        environ: ``OTEL_SDK_DISABLED``, ``OTEL_TRACES_EXPORTER`` and ``OTEL_EXPORTER_OTLP_[TRACES_]{ENDPOINT,PROTOCOL}`` count.

    Raises:
        ConfigError: the environment asks for what this exporter does not speak ("otel.protocol").
    """
    if setting == "off" or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    if setting:
        return _with_path(setting)
    if environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return ""
    whole, base = (environ.get(f"OTEL_EXPORTER_OTLP_{name}", "") for name in ("TRACES_ENDPOINT", "ENDPOINT"))
    if not whole and not base:
        return ""
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    if protocol not in ("", "http/protobuf"):
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol[:40]!r}, only http/protobuf is spoken here",
            code="otel.protocol",
            hint="agentmesh config set otel_endpoint http://HOST:4318   or otel_endpoint off",
        )
    return whole or _with_path(base)


def _with_path(base: str) -> str:
    parts = urlsplit(base)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith(_PATH) else path + _PATH))


class SpanExport:
    """Sends spans on. ``take`` never waits and never raises.

    Args:
        endpoint: Whole URL of the receiver.
        resource: Attributes of this process; those of the environment come before them.
        version: Of AgentMesh.
        environ: The environment.

    Raises:
        ConfigError: the libraries are not installed ("otel.missing"), or a variable makes no sense ("otel.config").
    """

    def __init__(self, endpoint: str, resource: Mapping[str, str], version: str, environ: Mapping[str, str]) -> None:
        if any(_is_missing(name) for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")):
            raise ConfigError(
                "spans are to be exported, but the libraries for it are not installed",
                code="otel.missing",
                why="they are an extra, so that nodes which export nothing stay small",
                hint=f"{INSTALL}   then agentmesh down and agentmesh up; or agentmesh config set otel_endpoint off",
            )
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        from agentmesh.obs.otel_parts import Counted, GivenIds

        self.endpoint = endpoint
        self._shown = _shown(endpoint)
        self._given = self.dropped = 0
        self._quiet = _Quiet()
        self._say_at_s = 0.0
        own = dict(resource)
        if environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
            own.pop("service.name", None)
        try:
            self._counted = Counted(OTLPSpanExporter(endpoint=endpoint), self._on_batch)
            self._ids = GivenIds()
            self._provider = TracerProvider(
                sampler=ALWAYS_ON,  # what is not sampled does not come here
                resource=Resource.create(own),
                shutdown_on_exit=False,
                id_generator=self._ids,
            )
            self._provider.add_span_processor(BatchSpanProcessor(self._counted, max_queue_size=QUEUE_MAX))
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"the settings of OpenTelemetry make no sense: {fit_text(str(error), 300)}",
                code="otel.config",
                hint="env | grep OTEL_",
            ) from error
        self._tracer = self._provider.get_tracer("agentmesh", version)
        logging.getLogger(_LIBRARY_LOG).addFilter(self._quiet)
        _log.info("spans go to %s", self._shown)

    def take(self, span: Span) -> None:
        """Take a span that is over; it is dropped, and counted, when too many wait."""
        if self._waiting >= QUEUE_MAX:
            self.dropped += 1
            return
        from agentmesh.obs.otel_parts import record

        self._given += 1
        record(self._tracer, self._ids, span)

    @property
    def _waiting(self) -> int:
        return self._given - self._counted.sent - self._counted.failed

    def view(self) -> SpanExportView:
        """Return how it stands."""
        counted = self._counted
        return SpanExportView(
            endpoint=self._shown,
            sent=counted.sent,
            failed=counted.failed,
            dropped=self.dropped,
            waiting=max(0, self._waiting),
            problem=(self._quiet.reason or "no reason given") if counted.failing else "",
        )

    def warnings(self) -> list[str]:
        """Return what people should know."""
        view = self.view()
        if not view.problem and not view.dropped:
            return []
        lost = view.failed + view.dropped
        reason = f" ({view.problem})" if view.problem else ""
        return [f"{lost} spans were not taken by {view.endpoint}{reason}; calls are not held up by it"]

    def _on_batch(self, *, good: bool, changed: bool) -> None:
        """Say in the log when sending begins to fail or works again; called in the exporter's thread."""
        now_s = time.monotonic()
        if good:
            if changed:
                _log.info("spans are taken again by %s", self._shown)
        elif changed or now_s >= self._say_at_s:
            self._say_at_s = now_s + _SAY_AGAIN_S
            _log.warning("spans are not taken by %s: %s", self._shown, self._quiet.reason or "no reason given")

    async def aclose(self) -> None:
        """Send what is left, for ``CLOSE_S`` at most. Idempotent."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()

        def close() -> None:
            try:
                self._provider.shutdown()
            finally:
                try:
                    loop.call_soon_threadsafe(over.set)
                except RuntimeError:
                    return  # the loop is gone: nobody waits any more

        # No executor: the interpreter would wait for its threads, and this one for a receiver that hangs.
        threading.Thread(target=close, name="otel-close", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_S):
                await over.wait()
        except TimeoutError:
            _log.warning("%d spans were not sent before the daemon stopped", self._waiting)
        logging.getLogger(_LIBRARY_LOG).removeFilter(self._quiet)


class _Quiet(logging.Filter):
    """Keeps the exporter's own lines out of the log, and the newest as the reason."""

    reason = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the text of a line; let none through: what they say is said once, in our words."""
        if record.levelno >= logging.WARNING:
            self.reason = fit_text(" ".join(record.getMessage().split()), 200)
        return False


def _is_missing(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is None
    except ModuleNotFoundError:
        return True


def _shown(endpoint: str) -> str:
    """Return an address without what could be secret in it."""
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
