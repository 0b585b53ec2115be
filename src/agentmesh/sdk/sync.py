"""``SyncMesh``: the client of the daemon beside this program, for scripts and the CLI.

    with SyncMesh() as mesh:
        print(mesh.call("calc", "6 * 7"))

Same methods as ``sdk.client.Mesh`` over ``http.client``; neither asyncio nor aiohttp is imported. One connection per
request, so nothing is held between calls; not for use from several threads at once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse
from os import PathLike
from types import TracebackType
from typing import Any, Literal, TypeVar, Unpack
from urllib.parse import urlsplit

from agentmesh.errors import Closed, MeshError, NoRoute, RunNotFound, StateError, Timeout, UsageError
from agentmesh.sdk import requests, sights
from agentmesh.sdk.calling import CallOptions, call_request
from agentmesh.sdk.requests import Address, DiscoverOptions, Following, Request, RowFilters, RunFilters
from agentmesh.sdk.sse import Frame, SseParser, decode_answer, decode_frame
from agentmesh.sdk.sync_messaging import SyncMessaging, SyncReader
from agentmesh.sdk.sync_state import SyncSharedState
from agentmesh.sdk.types import (
    AgentDetail,
    AgentView,
    BridgeChange,
    BridgeView,
    CallRequest,
    CancelResult,
    DiscoverView,
    FederationView,
    GrantRequest,
    GrantView,
    HealthView,
    ImportRequest,
    ImportView,
    KeyMade,
    KeyRequest,
    KeyView,
    NetView,
    OrdersView,
    OrderTaken,
    PeerView,
    PolicyView,
    ReceiptView,
    RegisterRequest,
    Reply,
    RulingView,
    RunList,
    RunView,
    StatsView,
    StatusView,
    Stored,
    TenantRequest,
    TenantView,
    TopologyView,
    TraceRows,
    TraceView,
    TrustList,
    TrustView,
)
from agentmesh.wire.console_views import LoginLink, SessionsEnded
from agentmesh.wire.event import EventV1

T = TypeVar("T")


class SyncMesh(SyncMessaging, SyncSharedState):
    """Talk to the daemon beside this program, blocking. Arguments and errors as in ``sdk.client.Mesh``."""

    def __init__(
        self, home: str | PathLike[str] | None = None, url: str | None = None, token: str | None = None
    ) -> None:
        self._address = Address(home, url, token)
        self._readers: dict[int, SyncReader] = {}

    def __enter__(self) -> SyncMesh:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; what an inbox or subscription handed out last is given back if its work failed."""
        self._end_readers(done=error is None)

    def close(self) -> None:
        """Settle what readers were handed last and end their streams; no other connection outlives its request."""
        self._end_readers(done=True)

    def call(
        self,
        to: str,
        text: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Reply:
        """Call an agent and wait for its reply. Ctrl-C cancels the remote task. Arguments and errors as ``Mesh.call``."""
        request = call_request(to, text, **options)
        try:
            reply = self._send(requests.call(request))
        except KeyboardInterrupt:
            self._cancel_quietly(request.task_id or "")
            raise
        requests.observe(reply.lamport)
        return reply

    def stream(
        self,
        to: str,
        text: str | None = None,
        **options: Unpack[CallOptions],
    ) -> SyncCallStream:
        """Call an agent and iterate over its events as they happen; closing the stream early cancels the call."""
        request = call_request(to, text, stream=True, **options)
        return SyncCallStream(self, request)

    def discover(self, query: str = "", **options: Unpack[DiscoverOptions]) -> list[AgentView]:
        """Return the agents that meet a need, best first; all of them by name without query and options. As ``Mesh.discover``."""
        if options:
            return [hit.agent for hit in self.search(query, **options).hits]
        return self._send(requests.agents(query)).agents

    def search(self, query: str = "", **options: Unpack[DiscoverOptions]) -> DiscoverView:
        """Return the agents that meet a need with the parts of their scores. Arguments and errors as ``Mesh.discover``."""
        return self._send(requests.discover(requests.discover_request(query, **options)))

    def watch_search(
        self, query: str = "", *, watch: bool = True, **options: Unpack[DiscoverOptions]
    ) -> Iterator[DiscoverView]:
        """Iterate over the answer each time that it changes. Arguments and errors as ``Mesh.watch_search``."""
        request = requests.watch_discover(requests.discover_request(query, **options), watch=watch)
        for frame in self._frames(request):
            yield decode_answer(frame)
        if watch:
            raise Closed("the daemon ended the stream", code="daemon.closed", hint="agentmesh status")

    def agent(self, ref: str) -> AgentDetail:
        """Return one agent with its signed manifest. Raises AgentNotFound."""
        return self._send(requests.agent(ref))

    def register(
        self,
        url: str,
        *,
        door: Literal["auto", "a2a", "http", "sdk"] = "auto",
        name: str | None = None,
        description: str | None = None,
        unsigned: bool = False,
        card: dict[str, Any] | None = None,
        ephemeral: bool = False,
        params: dict[str, Any] | None = None,
    ) -> list[AgentView]:
        """Register the agents behind a URL and return them. Errors as ``Mesh.register``."""
        request = RegisterRequest(
            url=url,
            door=door,
            name=name,
            description=description,
            unsigned=unsigned,
            card=card,
            ephemeral=ephemeral,
            params=params or {},
        )
        return self._send(requests.register(request)).agents

    def deregister(self, ref: str) -> AgentView:
        """Withdraw an agent that is registered here. Raises AgentNotFound."""
        return self._send(requests.deregister(ref))

    def cancel(self, task_id: str) -> CancelResult:
        """Ask a running task to stop. Raises RunNotFound."""
        return self._send(requests.cancel(task_id))

    def trace(self, ref: str = "last", *, after: int = 0, remote: bool = True) -> TraceView:
        """Return a run: by run or task id, unique prefix, "last" or "last~N". Raises RunNotFound, UsageError."""
        return self._send(requests.trace(ref, after, remote))

    def receipts(self, ref: str = "last") -> list[ReceiptView]:
        """Return the receipts kept at the node of a run or task, oldest first. Raises RunNotFound, UsageError."""
        return (self._send(requests.receipts(ref))).receipts

    def policy(self) -> PolicyView:
        """Return who may call what at the node."""
        return self._send(requests.policy())

    def explain_policy(self, caller: str, callee: str, *, skill: str = "", purpose: str = "") -> RulingView:
        """Say whether a call would pass at the node, and why. Raises AgentNotFound, UsageError."""
        return self._send(requests.explain_policy(caller, callee, skill, purpose))

    def grant(self, to: str, audience: Sequence[str], scopes: Sequence[str], **bounds: Any) -> GrantView:
        """Let an agent act in this node's or a local agent's name. Arguments and errors as ``Mesh.grant``."""
        request = GrantRequest(to=to, audience=list(audience), scopes=list(scopes), **bounds)
        return self._send(requests.grant(request))

    def trust_list(self, *, tier: str = "", query: str = "", limit: int = 500) -> TrustList:
        """Return how far the node trusts every agent, the least trusted first, with a histogram.

        Args:
            tier: Only this one: "low", "unknown", "medium", "high", "own".
            query: Only agents with this in name, id or node's name.
            limit: At most so many, 1 to 10,000.
        """
        return self._send(requests.trust_list(tier=tier, query=query, limit=limit))

    def trust(self, ref: str) -> TrustView:
        """Return how far the node trusts an agent or node, and why. Raises AgentNotFound."""
        return self._send(requests.trust(ref))

    def report_abuse(self, ref: str, reason: str) -> TrustView:
        """Report abuse by an agent or node; return what the node thinks of it then. Raises AgentNotFound, UsageError."""
        return self._send(requests.report_abuse(ref, reason))

    def federation(self) -> FederationView:
        """Return how federation stands: seeds and partners."""
        return self._send(requests.federation())

    def orders(self) -> OrdersView:
        """Return the operators that the node obeys, and their orders."""
        return self._send(requests.orders())

    def take_order(self, order: str) -> OrderTaken:
        """Hand an operator's order to the node, which obeys and spreads it. Raises PeerError, Unauthorized."""
        return self._send(requests.take_order(order))

    def find_runs(self, limit: int = 50, **filters: Unpack[RunFilters]) -> RunList:
        """Return runs that fit, newest first, how many there are, and where to go on. Raises UsageError."""
        return self._send(requests.runs(limit, **filters))

    def rows(self, ref: str = "last", *, remote: bool = True, **filters: Unpack[RowFilters]) -> TraceRows:
        """Return a run as rows without payloads; ``ref`` as for ``trace``. Raises RunNotFound, UsageError, LimitError."""
        return self._send(requests.rows(ref, remote, **filters))

    def event(self, seq: int) -> EventV1:
        """Return one event of the node's log, with its payload. Raises RecordNotFound."""
        return (self._send(requests.event(seq))).event

    def runs(self, limit: int = 50) -> list[RunView]:
        """Return the newest runs first."""
        return self._send(requests.runs(limit)).runs

    def health(self) -> HealthView:
        """Return a sign of life, within 3 s."""
        return self._send(requests.health())

    def status(self) -> StatusView:
        """Return the state of the node."""
        return self._send(requests.status())

    def peers(self) -> list[PeerView]:
        """Return every known node."""
        return self._send(requests.peers()).peers

    def net(self) -> NetView:
        """Ask node after node for its neighbours and return the shape of the mesh; takes up to about five seconds."""
        return self._send(requests.net())

    def topology(self, window_s: int = 300, source: str = "", zone: str = "") -> TopologyView:
        """Return machines, agents and who called whom, as the node saw it.

        Args:
            window_s: Calls of so many seconds, 60 to 3600.
            source: Only machines that were found so ("mdns", "static", "dht", "federation", "wan", …); "" = all.
            zone: Only machines of this zone; "" = all.

        Raises:
            UsageError: the window is out of range.
        """
        return self._send(sights.topology(window_s, source, zone))

    def stats(self) -> StatsView:
        """Return the node in figures: calls, runs and refusals of the last hour, and agents that fail."""
        return self._send(sights.stats())

    def keys(self) -> list[KeyView]:
        """Return the API keys of the node, never the keys themselves."""
        return self._send(requests.keys()).keys

    def add_key(self, request: KeyRequest) -> KeyMade:
        """Make an API key; what it returns holds the key, this one time. Raises UsageError, StateError, LimitError."""
        return self._send(requests.add_key(request))

    def revoke_key(self, name: str) -> KeyView:
        """Revoke an API key at once. Raises RecordNotFound."""
        return self._send(requests.revoke_key(name))

    def console_login(self, *, same_user: bool = False) -> LoginLink:
        """Make a link that opens the console logged in, once.

        Args:
            same_user: Good only for programs of the user that this one runs as, where the system tells (Linux): for links
                that are handed to a program on its command line, which every user can read.
        """
        return self._send(sights.console_login(same_user))

    def end_console_sessions(self) -> SessionsEnded:
        """End every session of the console, in every browser."""
        return self._send(sights.end_console_sessions())

    def bridges(self) -> list[BridgeView]:
        """Return the bridges of the node to other registries."""
        return self._send(requests.bridges()).bridges

    def add_bridge(self, url: str) -> BridgeChange:
        """Open a bridge to another registry. Raises UsageError, StateError, LimitError."""
        return self._send(requests.add_bridge(url))

    def remove_bridge(self, url: str) -> BridgeChange:
        """Close a bridge. Raises NotFound."""
        return self._send(requests.remove_bridge(url))

    def import_agents(self, url: str, kind: Any = "auto", *, dry_run: bool = False) -> ImportView:
        """Register the agents of a card, an AI Catalog or an MCP registry. Raises UsageError, Unreached, DecodeError."""
        return self._send(requests.import_agents(ImportRequest(url=url, kind=kind, dry_run=dry_run)))

    def tenants(self) -> list[TenantView]:
        """Return the tenants of the node and what each uses."""
        return self._send(requests.tenants()).tenants

    def save_tenant(self, request: TenantRequest) -> TenantView:
        """Make a tenant, or change what is settled for it. Raises UsageError, LimitError."""
        return self._send(requests.save_tenant(request))

    def remove_tenant(self, name: str) -> TenantView:
        """Remove a tenant with its keys, its agents and its running calls. Raises RecordNotFound."""
        return self._send(requests.remove_tenant(name))

    def add_seeds(self, seeds: list[str]) -> list[PeerView]:
        """Connect to further nodes, ``did:key:…@host:port``. Raises UsageError, ConfigError."""
        return self._send(requests.add_seeds(seeds)).peers

    def store_events(self, events: list[EventV1]) -> Stored:
        """Store events; returns when they are on disk. Raises StoreError, LimitError."""
        return self._send(requests.store_events(events))

    def shutdown(self) -> None:
        """End the daemon gracefully; returns when it has agreed, not when it is gone."""
        self._send(requests.shutdown())

    def follow(
        self, run: str | None = None, after: int | None = None, *, retry_for_s: float = 60.0
    ) -> Iterator[EventV1]:
        """Iterate over the event log live, reconnecting without loss or repetition. As ``Mesh.follow``."""
        place = Following(run, after, retry_for_s)
        connected = False
        while True:
            try:
                for item in self._items(place.request()):
                    connected = True
                    if isinstance(item, MeshError):
                        raise item
                    if isinstance(item, EventV1) and place.accept(item):
                        yield item
                error: MeshError = Closed("the daemon ended the stream", code="daemon.closed")
                connected = True
            except (NoRoute, Closed, Timeout) as failure:
                error = failure
                if not connected and isinstance(failure, NoRoute):
                    raise
            time.sleep(place.next_delay_s(error))

    # -- carrying bytes ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self, request: Request[Any], timeout_s: float) -> Generator[HTTPResponse]:
        """Send a request and give its response; every failure of the connection becomes a MeshError."""
        base, token = self._address.get()
        connection = _connection(base, timeout_s)
        try:
            try:
                connection.connect()
            except OSError as error:
                raise requests.unreachable(base, error) from error
            try:
                headers = {**requests.headers_of(request, token), "Connection": "close"}
                connection.request(request.method, request.path, body=request.body, headers=headers)
                yield connection.getresponse()
            except TimeoutError as error:
                raise requests.too_slow(timeout_s) from error
            except (HTTPException, OSError) as error:
                raise requests.broke_off(error) from error
        finally:
            connection.close()

    def _send(self, request: Request[T]) -> T:
        """Send a request and read its answer; once more when the daemon has moved to another port meanwhile."""
        try:
            with self._open(request, request.timeout_s) as response:
                return requests.parse(request, response.status, _read(response))
        except NoRoute as error:
            if error.code != "daemon.unreachable" or not self._address.moved():
                raise
        with self._open(request, request.timeout_s) as response:
            return requests.parse(request, response.status, _read(response))

    def _items(self, request: Request[Any]) -> Iterator[EventV1 | Reply | MeshError]:
        """Open a stream and yield what it says; a problem instead of a stream is raised."""
        with contextlib.closing(self._frames(request)) as frames:
            for frame in frames:
                yield decode_frame(frame)

    def _frames(self, request: Request[Any]) -> Generator[Frame]:
        with self._streaming(request) as frames:
            yield from frames

    @contextlib.contextmanager
    def _streaming(self, request: Request[Any]) -> Generator[Iterator[Frame]]:
        """Open a stream; a problem instead of one is raised."""
        try:
            with self._open(request, requests.STREAM_SILENCE_S) as response:
                if response.status != 200:
                    raise requests.error_of_problem(_read(response), response.status)
                yield _frames_of(response)
        except NoRoute as error:
            if error.code == "daemon.unreachable":
                self._address.moved()
            raise

    def _remember(self, reader: SyncReader) -> None:
        self._readers[id(reader)] = reader

    def _forget(self, reader: SyncReader) -> None:
        self._readers.pop(id(reader), None)

    def _end_readers(self, *, done: bool) -> None:
        for reader in list(self._readers.values()):
            with contextlib.suppress(MeshError):
                reader.close(done=done)

    def _cancel_quietly(self, task_id: str) -> None:
        """Cancel a task whose caller is gone. The cancel may overtake the call by a moment, so unknown is asked again."""
        give_up = time.monotonic() + requests.CANCEL_TIMEOUT_S
        with contextlib.suppress(MeshError):
            while time.monotonic() < give_up:
                try:
                    self.cancel(task_id)
                    return
                except RunNotFound:
                    time.sleep(0.05)


class SyncCallStream:
    """The events of one call under way. Iterate it once; after that ``reply`` has the outcome.

    Attributes:
        task_id: The task, known from the start; ``SyncMesh.cancel`` takes it.
    """

    def __init__(self, mesh: SyncMesh, request: CallRequest) -> None:
        self._mesh = mesh
        self._request = request
        self._items: Iterator[EventV1 | Reply | MeshError] | None = None
        self._reply: Reply | None = None
        self.task_id: str = request.task_id or ""

    @property
    def reply(self) -> Reply:
        """The outcome. Raises StateError before the events have ended."""
        if self._reply is None:
            raise StateError("the stream has not ended with a reply", code="state.no_reply")
        return self._reply

    def __iter__(self) -> Iterator[EventV1]:
        """Start the call and yield its events. Raises as ``Mesh.call``."""
        if self._items is not None:
            raise StateError("a stream can be read once", code="state.read_twice")
        self._items = self._mesh._items(requests.call(self._request))  # pyright: ignore[reportPrivateUsage]
        return self._read(self._items)

    def __enter__(self) -> SyncCallStream:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Give the call up if it still runs: the daemon cancels it. Idempotent."""
        close = getattr(self._items, "close", None)
        if close is not None:
            close()

    def _read(self, items: Iterator[EventV1 | Reply | MeshError]) -> Iterator[EventV1]:
        try:
            for item in items:
                if isinstance(item, EventV1):
                    requests.observe(item.lamport)
                    yield item
                elif isinstance(item, Reply):
                    self._reply = item
                    requests.observe(item.lamport)
                    return
                else:
                    raise item
        finally:
            self.close()
        raise Closed("the daemon ended the stream before the reply", code="daemon.closed", hint="agentmesh status")


def _connection(base: str, timeout_s: float) -> HTTPConnection:
    try:
        parts = urlsplit(base)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("http://HOST:PORT is expected")
        return HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
    except ValueError as error:
        raise UsageError(f"{base!r} is no URL of a daemon: {error}", code="usage.url") from error


def _frames_of(response: HTTPResponse) -> Generator[Frame]:
    """Yield the frames of a stream. Raises Closed, Timeout: it broke off; LimitError: a frame is too large."""
    parser = SseParser()
    while True:
        try:
            piece = response.read1(65536)
        except TimeoutError as error:
            raise requests.too_slow(requests.STREAM_SILENCE_S) from error
        except (HTTPException, OSError) as error:
            raise requests.broke_off(error) from error
        if not piece:
            return
        yield from parser.feed(piece)


def _read(response: HTTPResponse) -> bytes:
    """Read a whole answer. Raises LimitError when it is larger than is read."""
    body = response.read(requests.ANSWER_BYTES_MAX + 1)
    if len(body) > requests.ANSWER_BYTES_MAX:
        raise requests.too_large()
    return body
