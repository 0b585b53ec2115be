"""A plain HTTP agent in a thread of the test: it says what it hears, whatever path it is asked at; at ``/broken`` it fails."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator


class _Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_broken = self.path.rstrip("/").endswith("/broken")
        answer = json.dumps({"error": "out of order"} if is_broken else {"text": body["text"]}).encode()
        self.send_response(500 if is_broken else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        return None


@contextlib.contextmanager
def plain_agent() -> Iterator[str]:
    """Give its URL; it outlives every daemon of the test."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
