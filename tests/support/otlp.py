"""An OTLP receiver of our own: decodes what exporters send, or behaves as badly as it is told to."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

Mode = Literal["good", "hangs", "fails", "closes", "garbage"]


@dataclass
class Got:
    """One span as it arrived."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    error: str
    seconds: float
    resource: dict[str, Any]


@dataclass
class Receiver:
    """What arrived, and how to answer."""

    url: str = ""
    mode: Mode = "good"
    spans: list[Got] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def _read(receiver: Receiver, body: bytes) -> None:
    for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _values(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                receiver.spans.append(
                    Got(
                        span.name,
                        span.kind,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.trace_state,
                        _values(span.attributes),
                        [(event.name, _values(event.attributes)) for event in span.events],
                        span.status.message if span.status.code == 2 else "",
                        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                        resource,
                    )
                )


@contextmanager
def receiving(mode: Mode = "good") -> Iterator[Receiver]:
    """Run a receiver on loopback until the block ends."""
    receiver = Receiver(mode=mode)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
            if receiver.mode == "closes":
                self.close_connection = True
                return
            if receiver.mode == "hangs":
                receiver.released.wait()
                self.close_connection = True
                return
            if receiver.mode == "fails":
                self._answer(500, b"no \x00 room \xff" * 100)
                return
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            receiver.raw.append(body)
            assert self.path == "/v1/traces", self.path
            _read(receiver, body)
            self._answer(
                200, b"\xff" * 1000 if receiver.mode == "garbage" else ExportTraceServiceResponse().SerializeToString()
            )

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        server.server_close()
