"""What is plugged into the OpenTelemetry SDK. Imported only where spans are exported (``obs.otel``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from agentmesh.obs.spans import Span

_KINDS = {"client": SpanKind.CLIENT, "server": SpanKind.SERVER}


class OnBatch(Protocol):
    """Is told how a batch went, in the thread that sent it."""

    def __call__(self, *, good: bool, changed: bool) -> None:
        """Take note; ``changed``: the batch before went otherwise."""
        ...


class GivenIds(IdGenerator):
    """Gives the ids that were set before: they are in the events and headers of the call already."""

    trace_id = span_id = 0
    is_random = False

    def generate_trace_id(self) -> int:
        """Return the id of the trace."""
        return self.trace_id

    def generate_span_id(self) -> int:
        """Return the id of the span."""
        return self.span_id

    def is_trace_id_random(self) -> bool:
        """Say whether whoever began the trace drew its id by lot."""
        return self.is_random


class Counted(SpanExporter):
    """Counts what another exporter sends and what it gives up. Written in the exporter's thread, read anywhere."""

    def __init__(self, inner: SpanExporter, on_batch: OnBatch) -> None:
        self._inner, self._on_batch = inner, on_batch
        self.sent = self.failed = 0
        self.failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            good = result is SpanExportResult.SUCCESS
            if good:
                self.sent += len(spans)
            else:
                self.failed += len(spans)
            was, self.failing = self.failing, not good
            self._on_batch(good=good, changed=was == good)
        return result

    def shutdown(self) -> None:
        """Close the inner exporter."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the inner exporter."""
        return self._inner.force_flush(timeout_millis)


def record(tracer: Tracer, ids: GivenIds, span: Span) -> None:
    """Give a span that is over to the SDK."""
    trace = span.trace
    ids.trace_id, ids.span_id, ids.is_random = int(trace.trace_id, 16), int(trace.span_id, 16), bool(trace.flags & 2)
    around = Context()
    if trace.parent_id:
        state = TraceState.from_header([trace.state]) if trace.state else None
        parent = SpanContext(
            ids.trace_id,
            int(trace.parent_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(trace.flags),
            trace_state=state,
        )
        around = set_span_in_context(NonRecordingSpan(parent), around)
    made = tracer.start_span(
        span.name, around, _KINDS[span.kind], attributes=dict(span.attributes), start_time=span.began_ns
    )
    for mark in span.marks:
        made.add_event(mark.name, dict(mark.attributes), mark.at_ns)
    if span.error:
        made.set_status(Status(StatusCode.ERROR, span.detail or span.error))
    made.end(span.ended_ns)
