"""``Mesh``: the async client of the daemon beside this program.

    async with Mesh() as mesh:
        reply = await mesh.call("calc", "6 * 7")
        print(reply, reply.run_id)

It speaks the HTTP API on loopback and holds no state of the mesh itself. aiohttp loads with the first request.
``sdk.sync`` has the same methods without asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack

from agentmesh.errors import Closed, MeshError, NoRoute, RunNotFound, StateError, UsageError
from agentmesh.sdk import requests, sights
from agentmesh.sdk.calling import CallOptions, call_request
from agentmesh.sdk.carrier import Reader
from agentmesh.sdk.messaging import Messaging
from agentmesh.sdk.requests import Address, DiscoverOptions, Following, Request, RowFilters, RunFilters
from agentmesh.sdk.sse import Frame, SseParser, decode_answer, decode_frame
from agentmesh.sdk.state import SharedState
from agentmesh.sdk.topics import Publishing
from agentmesh.sdk.types import (
    AgentDetail,
    AgentView,
    CallRequest,
    CancelResult,
    DiscoverView,
    FederationView,
    GrantRequest,
    GrantView,
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
    TopologyView,
    TraceRows,
    TraceView,
    TrustList,
    TrustView,
)
from agentmesh.wire.event import EventV1

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

_CONNECTIONS_MAX = 1000
#: Under the five seconds after which the daemon closes an idle connection, so that none is reused while it closes.
_KEEPALIVE_S = 3.0


class Mesh(Messaging, Publishing, SharedState):
    """Talk to the daemon beside this program; the bases send messages, publish, and share state.

    Args:
        home: Its home directory; default ``$AGENTMESH_HOME``, else the platform's.
        url: Its address, e.g. ``http://127.0.0.1:6374``; default from the home directory.
        token: Its API token; default from the home directory.

    Every method raises NoRoute (code "daemon.unreachable" or "daemon.not_running") when no daemon answers, Closed when it
    goes away mid-answer, Timeout when it does not answer in time, Unauthorized when the token is wrong.
    """

    def __init__(
        self, home: str | PathLike[str] | None = None, url: str | None = None, token: str | None = None
    ) -> None:
        self._address = Address(home, url, token)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._readers: dict[int, Reader] = {}

    async def __aenter__(self) -> Mesh:
        """Return self; connections open with the first request."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; what an inbox or subscription handed out last is given back if its work failed."""
        await self._end_readers(done=error is None)
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; streams still open end. Idempotent."""
        await self._end_readers(done=True)
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(
        self,
        to: str,
        text: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Reply:
        """Call an agent and wait for its reply. Cancelling the awaiting task cancels the remote one.

        Args:
            to: Agent name, ``name@node``, or agent id.
            text: The input as text, unless ``data`` or ``parts`` gives it.
            options: As in ``CallOptions``.

        Raises:
            AgentNotFound: no such agent; carries near names.
            AgentFailed: the agent failed, with its own text; AgentCanceled when the task was canceled.
            Timeout: no reply in time.
            NoRoute, Closed: no replica can be reached, or it went away.
            Refused: budget, trust, rate, loop, kill switch.
            UsageError, LimitError: the request makes no sense or is too large. Nothing was called.
        """
        request = call_request(to, text, **options)
        try:
            reply = await self._send(requests.call(request))
        except asyncio.CancelledError:
            await self._cancel_quietly(request.task_id or "")
            raise
        requests.observe(reply.lamport)
        return reply

    def stream(
        self,
        to: str,
        text: str | None = None,
        **options: Unpack[CallOptions],
    ) -> CallStream:
        """Call an agent and yield its events as they happen; arguments as in ``call``.

        Leaving the loop early cancels the call, at once when the stream is used as ``async with mesh.stream(…) as s``.
        """
        request = call_request(to, text, stream=True, **options)
        return CallStream(self, request)

    async def discover(self, query: str = "", **options: Unpack[DiscoverOptions]) -> list[AgentView]:
        """Return the agents that meet a need, best first; all of them by name without query and options.

        ``search`` also says why: scores and their parts, near misses, who was asked.

        Args:
            query: What is needed, in words.
            options: As in ``DiscoverOptions``.

        Raises:
            UsageError: the request makes no sense. Nothing was asked.
        """
        if options:
            return [hit.agent for hit in (await self.search(query, **options)).hits]
        return (await self._send(requests.agents(query))).agents

    async def search(self, query: str = "", **options: Unpack[DiscoverOptions]) -> DiscoverView:
        """Return the agents that meet a need with the parts of their scores. Arguments and errors as ``discover``."""
        return await self._send(requests.discover(requests.discover_request(query, **options)))

    async def watch_search(
        self, query: str = "", *, watch: bool = True, **options: Unpack[DiscoverOptions]
    ) -> AsyncGenerator[DiscoverView]:
        """Yield the answer each time that it changes: the local one at once, then with what other nodes know.

        Args:
            query: What is needed, in words.
            watch: Go on with every change of the directory; False ends when no other node is waited for any more.
            options: As in ``DiscoverOptions``.

        Raises:
            UsageError: the request makes no sense. Nothing was asked.
            Closed: the daemon ended the stream.
        """
        request = requests.watch_discover(requests.discover_request(query, **options), watch=watch)
        async for frame in self._frames(request):
            yield decode_answer(frame)
        if watch:
            raise Closed("the daemon ended the stream", code="daemon.closed", hint="agentmesh status")

    async def agent(self, ref: str) -> AgentDetail:
        """Return one agent with its signed manifest. Raises AgentNotFound."""
        return await self._send(requests.agent(ref))

    async def register(
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
        """Register the agents behind a URL and return them; fields as in ``RegisterRequest``.

        Raises:
            UsageError, Unauthorized, SignatureError, NoRoute, AgentFailed: it was not registered.
        """
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
        return (await self._send(requests.register(request))).agents

    async def deregister(self, ref: str) -> AgentView:
        """Withdraw an agent that is registered here. Raises AgentNotFound."""
        return await self._send(requests.deregister(ref))

    async def cancel(self, task_id: str) -> CancelResult:
        """Ask a running task to stop. Raises RunNotFound."""
        return await self._send(requests.cancel(task_id))

    async def trace(self, ref: str = "last", *, after: int = 0, remote: bool = True) -> TraceView:
        """Return a run: by run or task id, unique prefix, "last" or "last~N". Raises RunNotFound, UsageError."""
        return await self._send(requests.trace(ref, after, remote))

    async def receipts(self, ref: str = "last") -> list[ReceiptView]:
        """Return the receipts kept at the node of a run or task, oldest first. Raises RunNotFound, UsageError."""
        return (await self._send(requests.receipts(ref))).receipts

    async def policy(self) -> PolicyView:
        """Return who may call what at the node."""
        return await self._send(requests.policy())

    async def explain_policy(self, caller: str, callee: str, *, skill: str = "", purpose: str = "") -> RulingView:
        """Say whether a call would pass at the node, and why. Raises AgentNotFound, UsageError."""
        return await self._send(requests.explain_policy(caller, callee, skill, purpose))

    async def grant(self, to: str, audience: Sequence[str], scopes: Sequence[str], **bounds: Any) -> GrantView:
        """Let an agent act in this node's or a local agent's name; ``bounds`` are the other fields of ``GrantRequest``.

        Args:
            to: Name or id of the agent that may act.
            audience: Names or ids of the agents that it may call so.
            scopes: ``call.SKILL``, or ``call.*``.

        Raises:
            UsageError, AgentNotFound, Unauthorized, PeerError: nothing was granted.
        """
        request = GrantRequest(to=to, audience=list(audience), scopes=list(scopes), **bounds)
        return await self._send(requests.grant(request))

    async def trust_list(self, *, tier: str = "", query: str = "", limit: int = 500) -> TrustList:
        """Return how far the node trusts every agent, the least trusted first, with a histogram.

        Args:
            tier: Only this one: "low", "unknown", "medium", "high", "own".
            query: Only agents with this in name, id or node's name.
            limit: At most so many, 1 to 10,000.
        """
        return await self._send(requests.trust_list(tier=tier, query=query, limit=limit))

    async def trust(self, ref: str) -> TrustView:
        """Return how far the node trusts an agent or node, and why. Raises AgentNotFound."""
        return await self._send(requests.trust(ref))

    async def report_abuse(self, ref: str, reason: str) -> TrustView:
        """Report abuse by an agent or node; return what the node thinks of it then. Raises AgentNotFound, UsageError."""
        return await self._send(requests.report_abuse(ref, reason))

    async def federation(self) -> FederationView:
        """Return how federation stands: seeds and partners."""
        return await self._send(requests.federation())

    async def orders(self) -> OrdersView:
        """Return the operators that the node obeys, and their orders."""
        return await self._send(requests.orders())

    async def take_order(self, order: str) -> OrderTaken:
        """Hand an operator's order to the node, which obeys and spreads it. Raises PeerError, Unauthorized."""
        return await self._send(requests.take_order(order))

    async def find_runs(self, limit: int = 50, **filters: Unpack[RunFilters]) -> RunList:
        """Return runs that fit, newest first, how many there are, and where to go on. Raises UsageError."""
        return await self._send(requests.runs(limit, **filters))

    async def rows(self, ref: str = "last", *, remote: bool = True, **filters: Unpack[RowFilters]) -> TraceRows:
        """Return a run as rows without payloads; ``ref`` as for ``trace``. Raises RunNotFound, UsageError, LimitError."""
        return await self._send(requests.rows(ref, remote, **filters))

    async def event(self, seq: int) -> EventV1:
        """Return one event of the node's log, with its payload. Raises RecordNotFound."""
        return (await self._send(requests.event(seq))).event

    async def runs(self, limit: int = 50) -> list[RunView]:
        """Return the newest runs first."""
        return (await self._send(requests.runs(limit))).runs

    async def status(self) -> StatusView:
        """Return the state of the node."""
        return await self._send(requests.status())

    async def peers(self) -> list[PeerView]:
        """Return every known node."""
        return (await self._send(requests.peers())).peers

    async def net(self) -> NetView:
        """Ask node after node for its neighbours and return the shape of the mesh; takes up to about five seconds."""
        return await self._send(requests.net())

    async def topology(self, window_s: int = 300, source: str = "", zone: str = "") -> TopologyView:
        """Return machines, agents and who called whom, as the node saw it.

        Args:
            window_s: Calls of so many seconds, 60 to 3600.
            source: Only machines that were found so ("mdns", "static", "dht", "federation", "wan", …); "" = all.
            zone: Only machines of this zone; "" = all.

        Raises:
            UsageError: the window is out of range.
        """
        return await self._send(sights.topology(window_s, source, zone))

    async def stats(self) -> StatsView:
        """Return the node in figures: calls, runs and refusals of the last hour, and agents that fail."""
        return await self._send(sights.stats())

    async def add_seeds(self, seeds: list[str]) -> list[PeerView]:
        """Connect to further nodes, ``did:key:…@host:port``. Raises UsageError, ConfigError."""
        return (await self._send(requests.add_seeds(seeds))).peers

    async def store_events(self, events: list[EventV1]) -> Stored:
        """Store events; returns when they are on disk. Raises StoreError, LimitError."""
        return await self._send(requests.store_events(events))

    async def shutdown(self) -> None:
        """End the daemon gracefully; returns when it has agreed, not when it is gone."""
        await self._send(requests.shutdown())

    async def follow(
        self, run: str | None = None, after: int | None = None, *, retry_for_s: float = 60.0
    ) -> AsyncGenerator[EventV1]:
        """Yield the event log live, reconnecting by itself without loss or repetition.

        Args:
            run: Only this run (id, prefix, "last"), from its start. Without it, everything from now on.
            after: Start after this seq instead.
            retry_for_s: Give up after so many seconds without a daemon.

        Raises:
            RunNotFound: no such run.
            NoRoute: the daemon was not there at first, or stayed away.
        """
        place = Following(run, after, retry_for_s)
        connected = False
        while True:
            try:
                async for item in self._items(place.request()):
                    connected = True
                    if isinstance(item, MeshError):
                        raise item
                    if isinstance(item, EventV1) and place.accept(item):
                        yield item
                error: MeshError = Closed("the daemon ended the stream", code="daemon.closed")
                connected = True
            except (NoRoute, Closed, requests.Timeout) as failure:
                error = failure
                if not connected and isinstance(failure, NoRoute):
                    raise
            await asyncio.sleep(place.next_delay_s(error))

    # -- carrying bytes ------------------------------------------------------------------------------------------------

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise StateError("this Mesh is closed", code="state.closed")
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX, keepalive_timeout=_KEEPALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=256 * 1024,
            )
        return self._session

    @contextlib.asynccontextmanager
    async def _open(
        self, request: Request[Any], timeout: aiohttp.ClientTimeout
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Send a request and give its response; every failure of the connection becomes a MeshError."""
        import aiohttp
        from yarl import URL

        session = self._open_session()
        base, token = self._address.get()
        try:
            async with session.request(
                request.method,
                URL(base + request.path, encoded=True),
                data=request.body,
                headers=requests.headers_of(request, token),
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                yield response
        except TimeoutError as error:
            raise requests.too_slow(timeout.total or timeout.sock_read or request.timeout_s) from error
        except aiohttp.ClientConnectorError as error:
            raise requests.unreachable(base, error) from error
        except aiohttp.InvalidURL as error:
            raise UsageError(f"{base!r} is no URL of a daemon", code="usage.url") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise requests.broke_off(error) from error

    async def _send(self, request: Request[T]) -> T:
        """Send a request and read its answer; once more when the daemon has moved to another port meanwhile."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=request.timeout_s)
        try:
            async with self._open(request, timeout) as response:
                return requests.parse(request, response.status, await _read(response))
        except NoRoute as error:
            if error.code != "daemon.unreachable" or not self._address.moved():
                raise
        async with self._open(request, timeout) as response:
            return requests.parse(request, response.status, await _read(response))

    async def _items(self, request: Request[Any]) -> AsyncGenerator[EventV1 | Reply | MeshError]:
        """Open a stream and yield what it says; a problem instead of a stream is raised."""
        async with contextlib.aclosing(self._frames(request)) as frames:
            async for frame in frames:
                yield decode_frame(frame)

    async def _frames(self, request: Request[Any]) -> AsyncGenerator[Frame]:
        async with self._streaming(request) as frames:
            async for frame in frames:
                yield frame

    @contextlib.asynccontextmanager
    async def _streaming(self, request: Request[Any]) -> AsyncGenerator[AsyncIterator[Frame]]:
        """Open a stream; a problem instead of one is raised."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=requests.STREAM_SILENCE_S)
        try:
            async with self._open(request, timeout) as response:
                if response.status != 200:
                    raise requests.error_of_problem(await _read(response), response.status)
                yield _frames_of(response, timeout)
        except NoRoute as error:
            if error.code == "daemon.unreachable":
                self._address.moved()
            raise

    def _remember(self, reader: Reader) -> None:
        self._readers[id(reader)] = reader

    def _forget(self, reader: Reader) -> None:
        self._readers.pop(id(reader), None)

    async def _end_readers(self, *, done: bool) -> None:
        for reader in list(self._readers.values()):
            with contextlib.suppress(MeshError):
                await reader.aclose(done=done)

    async def _cancel_quietly(self, task_id: str) -> None:
        """Cancel a task whose caller is gone. The cancel may overtake the call by a moment, so unknown is asked again."""
        with contextlib.suppress(MeshError, TimeoutError):
            async with asyncio.timeout(requests.CANCEL_TIMEOUT_S):
                while True:
                    try:
                        await self.cancel(task_id)
                        return
                    except RunNotFound:
                        await asyncio.sleep(0.05)


class CallStream:
    """The events of one call under way. Iterate it once; after that ``reply`` has the outcome.

    Attributes:
        task_id: The task, known from the start; ``Mesh.cancel`` takes it.
    """

    def __init__(self, mesh: Mesh, request: CallRequest) -> None:
        self._mesh = mesh
        self._request = request
        self._events: AsyncGenerator[EventV1] | None = None
        self._reply: Reply | None = None
        self.task_id: str = request.task_id or ""

    @property
    def reply(self) -> Reply:
        """The outcome. Raises StateError before the events have ended."""
        if self._reply is None:
            raise StateError("the stream has not ended with a reply", code="state.no_reply")
        return self._reply

    def __aiter__(self) -> AsyncIterator[EventV1]:
        """Start the call and yield its events. Raises as ``Mesh.call``."""
        if self._events is not None:
            raise StateError("a stream can be read once", code="state.read_twice")
        self._events = self._read()
        return self._events

    async def __aenter__(self) -> CallStream:
        """Return self."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Give the call up if it still runs: the daemon cancels it. Idempotent."""
        if self._events is not None:
            await self._events.aclose()

    async def _read(self) -> AsyncGenerator[EventV1]:
        items = self._mesh._items(requests.call(self._request))  # pyright: ignore[reportPrivateUsage]
        async with contextlib.aclosing(items):
            async for item in items:
                if isinstance(item, EventV1):
                    requests.observe(item.lamport)
                    yield item
                elif isinstance(item, Reply):
                    self._reply = item
                    requests.observe(item.lamport)
                    return
                else:
                    raise item
        raise Closed("the daemon ended the stream before the reply", code="daemon.closed", hint="agentmesh status")


async def _frames_of(response: aiohttp.ClientResponse, timeout: aiohttp.ClientTimeout) -> AsyncGenerator[Frame]:
    """Yield the frames of a stream. Raises Closed, Timeout: it broke off; LimitError: a frame is too large."""
    import aiohttp

    parser = SseParser()
    try:
        async for piece in response.content.iter_any():
            for frame in parser.feed(piece):
                yield frame
    except TimeoutError as error:
        raise requests.too_slow(timeout.sock_read or 0.0) from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise requests.broke_off(error) from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read a whole answer. Raises LimitError when it is larger than is read."""
    length = response.content_length
    if length is not None and length <= requests.ANSWER_BYTES_MAX:
        return await response.read()
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > requests.ANSWER_BYTES_MAX:
            raise requests.too_large()
    return bytes(body)
