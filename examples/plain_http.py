"""An agent that knows nothing of the mesh: the standard library, POST /rpc, JSON in and out.

Start it, then: agentmesh register http://127.0.0.1:8001 --name shouter
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Shouter(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"text": request["text"].upper()})

    def do_GET(self) -> None:
        self.answer({"ok": True} if self.path == "/health" else {"name": "shouter", "description": "Shouts."})

    def answer(self, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8001), Shouter)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
