"""A plain HTTP agent on the standard library, for the contract suite: ``plain_http.py PORT``. Prints its URL."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


class Handler(BaseHTTPRequestHandler):
    """Obey the words of the contract suite."""

    memory: ClassVar[dict[str, str]] = {}
    started = 0
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/rpc":
            self.send_error(404)
            return
        word, _, rest = body["text"].partition(" ")
        match word:
            case "hang":
                Handler.started += 1
                threading.Event().wait(60)
            case "fail":
                self.answer(500, "text/plain", rest.encode())
            case "empty":
                self.answer(200, "application/json", b"")
            case "flood":
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                while True:
                    self.wfile.write(b"x" * 2**20)
            case "wide":
                self.answer(200, "text/plain; charset=utf-8", ("你好🙂" * int(rest)).encode())
            case _:
                text = self.obey(word, rest, body.get("context_id", ""))
                self.answer(200, "application/json", json.dumps({"output": text}).encode())

    def obey(self, word: str, rest: str, conversation: str) -> str:
        match word:
            case "remember":
                self.memory[conversation] = rest
                return "ok"
            case "recall":
                return self.memory.get(conversation, "nothing")
            case "big":
                return "x" * int(rest)
            case "stream":
                return "".join(rest.split())
            case "started":
                return str(self.started)
            case _:
                return rest

    def answer(self, status: int, media: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def main() -> None:
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
