"""Serve the API of a node double: on a real socket in this loop or in a thread, or straight through ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import uvicorn

from agentmesh.adapters.bridges.spec import read_spec
from agentmesh.api.access import Access
from agentmesh.api.app import Api, create_app
from agentmesh.api.console.sessions import Sessions
from agentmesh.daemon.http import SOCKET_FRAME_BYTES_MAX, socket_protocol
from agentmesh.errors import RecordNotFound, StateError
from agentmesh.sdk.types import BridgeChange, BridgeView, ImportRequest, ImportView, Problem, RefusedEntry
from agentmesh.store.keys import KeptKey
from agentmesh.store.sessions import KeptSession
from tests.api.node_double import FakeBackend

TOKEN = "test-token-of-forty-three-characters-in-all"


class Shelf:
    """Keeps keys in memory."""

    def __init__(self, *kept: KeptKey) -> None:
        self.kept = {one.name: one for one in kept}

    def all(self) -> list[KeptKey]:
        return list(self.kept.values())

    def add(self, key: KeptKey) -> None:
        if key.name in self.kept:
            raise StateError("taken", code="keys.exists")
        self.kept[key.name] = key

    def remove(self, name: str) -> bool:
        return self.kept.pop(name, None) is not None


class SessionsKept:
    """Keeps sessions of the console in memory."""

    def __init__(self) -> None:
        self.kept: dict[bytes, KeptSession] = {}

    def all(self) -> list[KeptSession]:
        return list(self.kept.values())

    def put(self, session: KeptSession) -> None:
        self.kept[session.hash] = session

    def remove(self, hash: bytes) -> None:
        self.kept.pop(hash, None)

    def clear(self) -> None:
        self.kept.clear()


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def problem(self) -> Problem:
        assert self.headers["content-type"] == "application/problem+json", self
        problem = msgspec.json.decode(self.body, type=Problem)
        assert problem.status == self.status
        return problem


@dataclass
class Served:
    """A running API and the double behind it."""

    backend: FakeBackend
    app: Api
    url: str
    shutdowns: list[str] = field(default_factory=list)
    server: uvicorn.Server | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def raw(self, request: bytes) -> Answer:
        """Send bytes on a new connection and read one answer until the server closes or the body is complete."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            lines = head.decode().split("\r\n")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
            body = await asyncio.wait_for(reader.readexactly(int(headers.get("content-length", "0"))), 10)
            return Answer(int(lines[0].split()[1]), headers, body)
        finally:
            writer.close()

    async def ask(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one request with the right token and Host unless ``headers`` says otherwise; "" leaves a header out."""
        all_headers = {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Bearer {TOKEN}", **(headers or {})}
        if body is not None:
            all_headers.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{k}: {v}\r\n" for k, v in all_headers.items() if v)
        return await self.raw(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + (body or b""))


class FakeRegistries:
    """Bridges that exist on paper."""

    def __init__(self) -> None:
        self.urls: list[str] = []

    def bridges(self) -> list[BridgeView]:
        return [self._view(url) for url in self.urls]

    async def add_bridge(self, url: str) -> BridgeChange:
        self.urls.append(read_spec(url).url)
        return BridgeChange(bridge=self._view(url))

    async def remove_bridge(self, url: str) -> BridgeChange:
        if url not in self.urls:
            raise RecordNotFound("no bridge leads there", code="bridge.unknown")
        self.urls.remove(url)
        return BridgeChange(bridge=self._view(url))

    async def import_from(self, request: ImportRequest) -> ImportView:
        return ImportView(kind="catalog", found=[request.url], refused=[RefusedEntry(key="a", code="c", reason="r")])

    def _view(self, url: str) -> BridgeView:
        return BridgeView(
            name=url, url=url, kind="etcd", way="both", refusals=[RefusedEntry(key="a", code="c", reason="r")]
        )


def build(backend: FakeBackend, shutdowns: list[str] | None = None, port: int = 6374, **options: Any) -> Api:
    """Make the application on a double."""
    calls = shutdowns if shutdowns is not None else []
    options.setdefault("access", Access(TOKEN, Shelf(), sessions=Sessions(SessionsKept)))
    options.setdefault("registries", FakeRegistries())
    return create_app(backend, port_of=lambda: port, on_shutdown=lambda: calls.append("now"), **options)


def _config(app: Api) -> uvicorn.Config:
    return uvicorn.Config(
        app, port=0, http="httptools", ws=socket_protocol, ws_max_size=SOCKET_FRAME_BYTES_MAX, lifespan="off",
        log_config=None, access_log=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextlib.asynccontextmanager
async def serving(backend: FakeBackend | None = None, **options: Any) -> AsyncIterator[Served]:
    """Serve on a real socket in this event loop."""
    backend = backend or FakeBackend()
    shutdowns: list[str] = []
    app = build(backend, shutdowns, **options)
    server = _Server(_config(app))
    server.ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        await server.ready.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield Served(backend, app, f"http://127.0.0.1:{port}", shutdowns, server)
        finally:
            app.end_streams()
            server.should_exit = True


@contextlib.contextmanager
def serving_in_thread(**options: Any) -> Iterator[Served]:
    """Serve on a real socket in a thread with its own loop, for clients that block."""
    started: list[tuple[Served, asyncio.AbstractEventLoop, asyncio.Event]] = []
    ready = threading.Event()

    async def main() -> None:
        over = asyncio.Event()
        async with serving(**options) as served:
            started.append((served, asyncio.get_running_loop(), over))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    served, loop, over = started[0]
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        assert not thread.is_alive()


async def ask_app(
    app: Api,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    query: bytes = b"",
    headers: list[tuple[bytes, bytes]] | None = None,
    pieces: list[bytes] | None = None,
) -> Answer:
    """Ask the application without a socket."""
    given = [(b"host", b"localhost"), (b"authorization", f"Bearer {TOKEN}".encode())] if headers is None else headers
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,
        "raw_path": path.encode(), "root_path": "", "query_string": query, "headers": given,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 6374),
    }  # fmt: skip
    waiting = list(pieces) if pieces is not None else [body]
    gone = asyncio.Event()
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not waiting:
            await gone.wait()
            return {"type": "http.disconnect"}
        piece = waiting.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = sent[0]
    assert start["type"] == "http.response.start"
    headers_out = {k.decode(): v.decode() for k, v in start["headers"]}
    return Answer(start["status"], headers_out, b"".join(m.get("body", b"") for m in sent[1:]))
