"""A connection to a NATS cluster that goes on to the next server as soon as the present one does not answer.

The client library's own reconnecting is off: it would keep to a server that answers pings while cut off from its cluster, and
send buffered writes long after their callers were told that nothing is known of them. nats-py is loaded with the first call.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, cast

from agentmesh.engines.base import CALL_TIMEOUT_S
from agentmesh.engines.place import Place, read_secret, tls_of
from agentmesh.engines.refusals import closed, unknown_outcome, unreachable, unsafe
from agentmesh.errors import ConfigError, DecodeError, MeshError, NoRoute, Timeout, Unauthorized
from agentmesh.net.tasks import TaskScope

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

#: Below it, streams and replicas were lost (research: p2p-reliability §1.3).
VERSION_MIN = (2, 12, 3)
CONNECT_TIMEOUT_S = 0.5
#: How long one server may take to answer what can be asked again elsewhere.
TRY_TIMEOUT_S = 0.7
_PAUSE_S = 0.05
_CLOSE_S = 1.0
#: JetStream says that nothing was done: not now (8, 9, 23, 74), wrong last sequence (71, 164), too large (54), full (47, 77), not
#: allowed or not there (39, 59, 60).
NOTHING_DONE = frozenset({10008, 10009, 10023, 10039, 10047, 10054, 10059, 10060, 10071, 10074, 10077, 10164})


def _is_no_noise(record: logging.LogRecord) -> bool:
    # nats-py's readers say at each end of a TLS connection that they would keep it half open; asyncio warns that it cannot.
    return "eof_received() has no effect when using ssl" not in str(record.msg)


class Wire:
    """One live connection and what waits for answers on it."""

    def __init__(self, client: Client, inbox: str) -> None:
        self.client = client
        self.inbox = inbox
        self.is_retired = False
        self.users = 0
        self.waiting: dict[str, asyncio.Future[Msg]] = {}
        self.feeds: list[asyncio.Queue[Msg | None]] = []
        self._serial = 0

    def ticket(self) -> tuple[str, asyncio.Future[Msg]]:
        """Return a reply subject and the future of what comes there."""
        self._serial += 1
        name = f"{self._serial:x}"
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self.waiting[name] = future
        return f"{self.inbox}.{name}", future

    def drop(self, reply: str) -> None:
        """Wait for this reply no longer."""
        self.waiting.pop(reply.rpartition(".")[2], None)

    async def take(self, message: Msg) -> None:
        """Hand a reply to whoever waits for it."""
        future = self.waiting.get(message.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(message)

    def fail(self) -> None:
        """The connection is gone: nothing will come any more."""
        self.is_retired = True
        for feed in self.feeds:
            feed.put_nowait(None)
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError("the connection broke"))
                future.exception()


class NatsLink:
    """Requests to a cluster, each within ``CALL_TIMEOUT_S``.

    Args:
        place: Where.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.url = place.url
        self.is_cluster = False
        self._wire: Wire | None = None
        self._next = 0
        self._closed = False
        self._lock = asyncio.Lock()
        self._scope = TaskScope(f"engine:{place.scheme}")

    async def request(
        self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None, *, timeout_s: float
    ) -> Msg:
        """Send one request to one server.

        Raises:
            NoRoute: nobody took it; nothing was done.
            Timeout: it was sent, and no answer came (code "engine.unknown_outcome").
            Unauthorized, ConfigError, StateError: see ``base``.
        """
        from nats.errors import Error

        wire = await self.wire()
        wire.users += 1
        reply, future = wire.ticket()
        try:
            try:
                await wire.client.publish(subject, payload, reply=reply, headers=headers)
            except (Error, OSError) as error:
                self.suspect(wire)
                raise unreachable(self.url, error) from error
            try:
                async with asyncio.timeout(timeout_s):
                    message = await future
            except (TimeoutError, ConnectionResetError) as error:
                self.suspect(wire)
                raise unknown_outcome(self.url, error or "no answer in time") from error
        finally:
            wire.drop(reply)
            self._leave(wire)
        if not message.data and (message.headers or {}).get("Status") == "503":
            raise unreachable(self.url, "no server leads the stream")
        return message

    async def request_many(
        self, items: Sequence[tuple[str, bytes, dict[str, str]]], *, timeout_s: float, is_json: bool = True
    ) -> list[dict[str, Any]]:
        """Send requests one behind the other without waiting in between, and return the answers in order.

        Args:
            items: Subject, payload, headers.
            timeout_s: For all of them.
            is_json: Answers are objects; else they are not looked at, and given as empty ones.

        Raises:
            NoRoute: nobody took any of them. Timeout: some were sent, and not all were answered (code "engine.unknown_outcome").
        """
        from nats.errors import Error

        wire = await self.wire()
        wire.users += 1
        tickets: list[tuple[str, asyncio.Future[Msg]]] = []
        try:
            for subject, payload, headers in items:
                ticket = wire.ticket()
                tickets.append(ticket)
                await wire.client.publish(subject, payload, reply=ticket[0], headers=headers or None)
            async with asyncio.timeout(timeout_s):
                messages = [await future for _, future in tickets]
        except (Error, OSError, TimeoutError) as error:
            self.suspect(wire)
            raise unknown_outcome(self.url, error or "no answer in time") from error
        finally:
            for reply, _ in tickets:
                wire.drop(reply)
            self._leave(wire)
        unheard = sum(not one.data and (one.headers or {}).get("Status") == "503" for one in messages)
        if unheard and unheard == len(messages):
            raise unreachable(self.url, "no server leads the stream")
        if unheard:
            raise unknown_outcome(self.url, "the stream lost its leader in between")
        return [read_object(one.data) for one in messages] if is_json else [{} for _ in messages]

    async def pull(self, subject: str, body: dict[str, Any], limit: int, timeout_s: float) -> list[Msg] | None:
        """Take up to ``limit`` messages from a pull consumer; None: there is no such consumer.

        Raises:
            NoRoute: the server went away; what it sent meanwhile is handed out again by it.
        """
        from nats.errors import Error

        wire = await self.wire()
        found: list[Msg] = []
        inbox = wire.client.new_inbox()
        async with self.listening(wire, inbox) as queue:
            try:
                await wire.client.publish(subject, json.dumps(body).encode(), reply=inbox)
                async with asyncio.timeout(timeout_s):
                    while len(found) < limit:
                        message = await queue.get()
                        if message is None:
                            raise ConnectionResetError("the connection broke")
                        status = (message.headers or {}).get("Status")
                        if status == "503":
                            return found or None
                        if status == "100":
                            continue
                        if status:  # 404, 408: no more; 409: it was deleted or moved
                            is_gone = status == "409" and "Deleted" in (message.headers or {}).get("Description", "")
                            return None if is_gone and not found else found
                        found.append(message)
            except (Error, OSError, TimeoutError) as error:
                self.suspect(wire)
                if found:
                    return found
                raise unreachable(self.url, error or "no answer in time") from error
        return found

    def fresh_name(self) -> str:
        """Return a name that nobody has."""
        return uuid.uuid4().hex

    async def ask(self, path: str, body: dict[str, Any] | None = None, *, writes: bool = False) -> dict[str, Any]:
        """Ask JetStream's API, other servers if one does not answer; an "error" in the answer is the caller's.

        Args:
            path: Below ``$JS.API.``.
            body: JSON.
            writes: It must not be asked twice if the first outcome is unknown.

        Raises:
            NoRoute, Timeout, Unauthorized, ConfigError: see ``base``.
        """
        return await self.retried(f"$JS.API.{path}", json.dumps(body).encode() if body else b"", writes=writes)

    async def retried(
        self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None, *, writes: bool = False
    ) -> dict[str, Any]:
        """Ask until somebody answers or time is up; what ``writes`` is sent anew only if nothing was done. As ``ask``."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CALL_TIMEOUT_S
        error: MeshError
        while True:
            left = until - loop.time()
            try:
                return read_object(
                    (
                        await self.request(
                            subject, payload, headers, timeout_s=left if writes else min(left, TRY_TIMEOUT_S)
                        )
                    ).data
                )
            except NoRoute as gone:
                error = gone
                self.suspect()
            except Timeout as unknown:
                if writes:
                    raise
                error = unreachable(self.url, unknown.why or unknown)
            if until - loop.time() < 2 * _PAUSE_S:
                raise error
            await asyncio.sleep(_PAUSE_S)

    @contextlib.asynccontextmanager
    async def listening(self, wire: Wire, subject: str) -> AsyncGenerator[asyncio.Queue[Msg | None]]:
        """Have all that comes to a subject on one connection put into a queue; None when the connection broke."""
        queue: asyncio.Queue[Msg | None] = asyncio.Queue()

        async def take(message: Msg) -> None:
            queue.put_nowait(message)

        wire.users += 1
        wire.feeds.append(queue)
        try:
            subscription = await cast("Any", wire.client).subscribe(subject, cb=take)
            try:
                yield queue
            finally:
                with contextlib.suppress(Exception):
                    await subscription.unsubscribe()
        finally:
            wire.feeds.remove(queue)
            self._leave(wire)

    async def wire(self) -> Wire:
        """Return the live connection, making one if need be. Raises as ``request``, but Timeout."""
        if self._closed:
            raise closed(self.url)
        if self._wire is not None and not self._wire.is_retired:
            return self._wire
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._renewed()
        except TimeoutError as error:
            raise unreachable(self.url, "no server answers") from error

    async def _renewed(self) -> Wire:
        async with self._lock:
            if self._wire is not None and not self._wire.is_retired:
                return self._wire
            error: Exception | None = None
            async with _within(CALL_TIMEOUT_S - CONNECT_TIMEOUT_S):
                for _ in self.place.servers:
                    server = self.place.servers[self._next % len(self.place.servers)]
                    self._next += 1
                    try:
                        self._wire = await self._connect(server)
                    except (OSError, DecodeError) as failed:
                        error = failed
                        continue
                    return self._wire
            raise unreachable(self.url, error or "no server answers")

    async def _connect(self, server: str) -> Wire:
        if importlib.util.find_spec("nats") is None:
            raise ConfigError(
                "nats-py is not installed", code="engine.not_installed", hint="pip install 'agentmeshd[nats]'"
            )
        from nats.aio.client import Client
        from nats.errors import AuthorizationError, Error

        client = Client()
        wire = Wire(client, client.new_inbox())

        async def gone() -> None:
            wire.fail()

        tls = tls_of(self.place)
        if tls is not None:
            logging.getLogger("asyncio").addFilter(_is_no_noise)  # adding it again changes nothing
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await client.connect(
                    f"{'tls' if tls else 'nats'}://{server}",
                    name="agentmesh",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=cast("int", 0.01),
                    connect_timeout=cast("int", CONNECT_TIMEOUT_S),
                    ping_interval=1,
                    max_outstanding_pings=2,
                    error_cb=_quiet,
                    closed_cb=gone,
                    disconnected_cb=gone,
                    tls=tls,
                    **self._credentials(),
                )
            await cast("Any", client).subscribe(f"{wire.inbox}.*", cb=wire.take)
            await self._fits(client)
        except BaseException as error:
            self._scope.spawn(_close(client), "close")
            if isinstance(error, AuthorizationError) or "authorization" in str(error).lower():
                raise Unauthorized(
                    f"{self.url} refuses us",
                    code="engine.unauthorized",
                    hint="see ?secret=FILE in docs/spec/engines.md",
                ) from error
            if isinstance(error, Error):
                raise OSError(f"{server}: {error or type(error).__name__}") from error
            raise
        return wire

    async def _fits(self, client: Client) -> None:
        version = client.connected_server_version
        if (version.major, version.minor, version.patch) < VERSION_MIN:
            raise unsafe(
                self.url,
                f"NATS {version.major}.{version.minor}.{version.patch} can lose what it acknowledged",
                f"upgrade it to {'.'.join(map(str, VERSION_MIN))} or later",
            )
        info: dict[str, Any] = client._server_info  # pyright: ignore[reportPrivateUsage] there is no other way to it
        self.is_cluster = bool(info.get("cluster"))
        if not info.get("jetstream"):
            raise unsafe(self.url, "it runs without JetStream", "add jetstream { } to its configuration")

    def _credentials(self) -> dict[str, Any]:
        if not self.place.secret:
            return {}
        user, colon, password = read_secret(self.place.secret).partition(":")
        return {"user": user, "password": password} if colon else {"token": user}

    def suspect(self, wire: Wire | None = None) -> None:
        """Use another server from now on instead of this one, or the present one; what waits for its answers goes on waiting."""
        wire = wire or self._wire
        if wire is not None and not wire.is_retired:
            wire.is_retired = True
            if not wire.users:
                self._end(wire)

    def _leave(self, wire: Wire) -> None:
        wire.users -= 1
        if wire.is_retired and not wire.users:
            self._end(wire)

    def _end(self, wire: Wire) -> None:
        if not self._closed:
            self._scope.spawn(_close(wire.client), "close")

    async def aclose(self) -> None:
        """Disconnect. Idempotent."""
        self._closed = True
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.fail()
            await _close(wire.client)
        await self._scope.aclose()


async def _close(client: Client) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_S):
            await client.close()


@contextlib.asynccontextmanager
async def _within(seconds: float) -> AsyncGenerator[None]:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            yield


async def _quiet(error: Exception) -> None:
    """Errors reach whoever waits; the library would print them too."""


def read_object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError("NATS answered what is no JSON", code="engine.bad_answer", why=str(error)) from error
    if not isinstance(found, dict):
        raise DecodeError("NATS answered what is no JSON object", code="engine.bad_answer")
    return cast("dict[str, Any]", found)


def error_of(answer: dict[str, Any]) -> tuple[int, str]:
    """Return code and text of JetStream's error in an answer; (0, "") for none."""
    error: Any = answer.get("error")
    if not isinstance(error, dict):
        return 0, ""
    fields = cast("dict[str, Any]", error)
    code = fields.get("err_code") or fields.get("code")
    return code if isinstance(code, int) and code else -1, str(fields.get("description"))[:300]
