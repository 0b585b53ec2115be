"""The part of Consul's HTTP API that the bridge uses, after its documentation; no Consul binary is to be had from Debian or PyPI.

Faithful in what a client can trip over: ``X-Consul-Index`` with blocking queries that may return without a change, checks that
are born critical, TTLs that run out, 404 for unknown checks, 403 without the token. Time is told by the test (``pass_time``).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NODE = "host-1"


class Consul:
    """One agent with its catalogue, which can be killed and started again where it was."""

    def __init__(self, token: str = "") -> None:
        self.token = token
        self.index = 10
        self.services: dict[str, dict[str, Any]] = {}
        self.checks: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.now_s = 0.0
        self.changed = threading.Condition()
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    def start(self) -> None:
        consul = self

        class Bound(_Handler):
            """Handler of this Consul."""

            world = consul

        class Server(ThreadingHTTPServer):
            """Ends the connections that are open when it is closed, as a dead process would."""

            daemon_threads = True
            allow_reuse_address = True
            open: set[Any] = set()  # noqa: RUF012

            def process_request(self, request: Any, client_address: Any) -> None:
                self.open.add(request)
                super().process_request(request, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away, or one whose connection was cut, is no news."""

        Server.open = set()
        self._server = Server(("127.0.0.1", self.port), Bound)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def kill(self) -> None:
        """Go away with every open connection. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            for connection in list(server.open):  # pyright: ignore[reportAttributeAccessIssue]
                with contextlib.suppress(OSError):
                    connection.shutdown(2)
            with self.changed:
                self.changed.notify_all()

    @property
    def is_up(self) -> bool:
        return self._server is not None

    def touch(self) -> None:
        """Note a change of the catalogue."""
        with self.changed:
            self.index += 1
            self.changed.notify_all()

    def put(self, key: str, entry: dict[str, Any], tags: tuple[str, ...] = ("a2a",), **service: Any) -> None:
        """Register a service as another program would; ``entry`` is its meta."""
        self.services[key] = {"ID": key, "Name": key, "Tags": list(tags), "Meta": entry, **service}
        self.touch()

    def delete(self, key: str) -> None:
        del self.services[key]
        self.touch()

    def pass_time(self, seconds: float) -> None:
        """Let TTLs run: what nobody renewed turns critical, and is removed when it has been so long enough."""
        self.now_s += seconds
        for check_id, check in list(self.checks.items()):
            over_s = self.now_s - check["renewed_s"] - check["ttl_s"]
            if over_s > 0:
                check["status"] = "critical"
            if over_s > 60:
                self.services.pop(check["service"], None)
                del self.checks[check_id]
                self.touch()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            return json.loads(connection.getresponse().read() or b"null")
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    world: Consul
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        world, parts = self.world, urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        if not self._allowed():
            return
        if "index" in query:
            with world.changed:
                world.changed.wait_for(lambda: world.index > int(query["index"]) or not world.is_up, timeout=5)
        if parts.path == "/v1/catalog/services":
            names: dict[str, list[str]] = {"consul": []}
            for service in list(world.services.values()):
                names[service["Name"]] = sorted({*names.get(service["Name"], []), *service["Tags"]})
            self._answer(200, names)
        elif parts.path.startswith("/v1/catalog/service/"):
            name = unquote(parts.path.removeprefix("/v1/catalog/service/"))
            self._answer(
                200,
                [
                    {
                        "Node": NODE, "Address": "127.0.0.1", "ServiceID": s["ID"], "ServiceName": s["Name"],
                        "ServiceTags": s["Tags"], "ServiceMeta": s.get("Meta") or {},
                        "ServiceAddress": s.get("Address", ""), "ServicePort": s.get("Port", 0),
                    }
                    for s in list(world.services.values())
                    if s["Name"] == name and (not query.get("tag") or query["tag"] in s["Tags"])
                ],
            )  # fmt: skip
        else:
            self._answer(404, None)

    def do_PUT(self) -> None:
        world, path = self.world, urlsplit(self.path).path
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self._allowed():
            return
        world.requests.append(path)
        tail = unquote(path.rpartition("/")[2])
        if path == "/v1/agent/service/register":
            service = json.loads(raw)
            check = service.pop("Check", None)
            assert all(len(k) <= 128 and len(v) <= 512 for k, v in service["Meta"].items()), "Consul refuses such meta"
            world.services[service["ID"]] = service
            if check is not None:
                ttl_s = float(check["TTL"].removesuffix("s"))
                status = check.get("Status", "critical")
                world.checks[check["CheckID"]] = {
                    "service": service["ID"], "ttl_s": ttl_s, "renewed_s": world.now_s, "status": status,
                }  # fmt: skip
            world.touch()
            self._answer(200, None)
        elif path.startswith("/v1/agent/service/deregister/"):
            if world.services.pop(tail, None) is None:
                self._answer(404, f'Unknown service ID "{tail}"')
                return
            for check_id in [c for c, check in world.checks.items() if check["service"] == tail]:
                del world.checks[check_id]
            world.touch()
            self._answer(200, None)
        elif path.startswith("/v1/agent/check/update/"):
            if tail not in world.checks:
                self._answer(404, f'Unknown check ID "{tail}"')
                return
            world.checks[tail].update(status=json.loads(raw)["Status"], renewed_s=world.now_s)
            self._answer(200, None)
        else:
            self._answer(404, None)

    def _allowed(self) -> bool:
        if self.world.token and self.headers.get("X-Consul-Token") != self.world.token:
            self._answer(403, "Permission denied")
            return False
        return True

    def _answer(self, status: int, value: Any) -> None:
        body = value.encode() if isinstance(value, str) else b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Consul-Index", str(self.world.index))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
