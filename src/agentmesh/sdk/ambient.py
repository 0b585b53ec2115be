"""The span that the program itself is in, if it uses OpenTelemetry: mesh calls go out within it, and agents work within theirs.

OpenTelemetry is never imported here. A program that uses it has imported its API long before; one that does not pays a look
into ``sys.modules``.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from agentmesh.codec.tracecontext import TraceContext, read_trace


def ambient() -> TraceContext | None:
    """Return the span that the running code is in; None where OpenTelemetry is not in use or knows of none."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None or not hasattr(api, "get_current_span"):  # half imported by another thread
        return None
    here = api.get_current_span().get_span_context()
    if not here.is_valid:
        return None
    # Read anew rather than built: what other code put there is as strictly checked as a header.
    return read_trace(
        f"00-{here.trace_id:032x}-{here.span_id:016x}-{int(here.trace_flags) & 0xFF:02x}", here.trace_state.to_header()
    )


@contextmanager
def within(traceparent: str | None, tracestate: str) -> Generator[None]:
    """Let the code inside be part of a span that is somewhere else: spans that it opens are children of that one."""
    api: Any = sys.modules.get("opentelemetry.trace")
    trace = read_trace(traceparent, tracestate)
    if trace is None or api is None or not hasattr(api, "set_span_in_context"):
        yield
        return
    from opentelemetry import context

    parent = api.SpanContext(
        int(trace.trace_id, 16),
        int(trace.span_id, 16),
        is_remote=True,
        trace_flags=api.TraceFlags(trace.flags),
        trace_state=api.TraceState.from_header([trace.state]),
    )
    token = context.attach(api.set_span_in_context(api.NonRecordingSpan(parent)))
    try:
        yield
    finally:
        context.detach(token)
