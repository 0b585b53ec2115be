"""An agent process: serve agents on a loopback port and keep them registered with the daemon.

Registration is renewed every 10 s. A daemon that restarted, moved to another port or forgot us is found again through the
home directory; meanwhile the agents keep serving. At the end they are withdrawn, so that no stale name stays behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar

from agentmesh.errors import MeshError, NotFound, UsageError, row_of
from agentmesh.net.tasks import TaskScope
from agentmesh.sdk import requests
from agentmesh.sdk.agent import Agent
from agentmesh.sdk.locate import home_dir, locate, not_running
from agentmesh.sdk.requests import Request
from agentmesh.sdk.serving import AgentApp
from agentmesh.sdk.types import RegisterRequest

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

#: Seconds between renewals; the daemon drops an agent after three missed ones.
RENEW_INTERVAL_S = 10.0
#: Seconds between tries while the daemon is away: doubled each time up to the most.
RETRY_MIN_S, RETRY_MAX_S = 0.25, 5.0
REQUEST_TIMEOUT_S = 10.0
WITHDRAW_TIMEOUT_S = 2.0
AGENTS_MAX = 256
_ANSWER_BYTES_MAX = 8 * 1024 * 1024
_state = {"served": False}


class AgentProcess:
    """Serve and register agents; an async context manager.

    Args:
        agents: One or more, with different names.
        home, url, token: Where the daemon is; see ``sdk.locate``.
        renew_interval_s: Seconds between renewals.
        port: Where to listen on loopback; 0 for any free port.
        secret: First segment of every path; random when left out, and better left out.

    Raises:
        UsageError: no agent, one without a skill, or two of one name.
    """

    def __init__(
        self,
        agents: list[Agent],
        *,
        home: str | os.PathLike[str] | None = None,
        url: str | None = None,
        token: str | None = None,
        renew_interval_s: float = RENEW_INTERVAL_S,
        port: int = 0,
        secret: str | None = None,
    ) -> None:
        _check(agents)
        self._where = (None if home is None else os.fspath(home), url, token)
        secret = secret or secrets.token_urlsafe(24)
        self.app = AgentApp(agents, secret, home=self._where[0], url=url, token=token)
        self._socket = _listen(port)
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/{secret}"
        self._renew_interval_s = renew_interval_s
        self._scope = TaskScope("agent-process")
        self._server: Any = None
        self._serving: asyncio.Task[Any] | None = None
        self._keeper: asyncio.Task[Any] | None = None
        self._agents = agents
        self._listeners: list[asyncio.Task[Any]] = []
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> AgentProcess:
        """Serve and register; nothing is left running if that fails.

        Raises:
            NoRoute, Unauthorized, Refused: the daemon does not answer or refused.
        """
        try:
            await self.open()
            await self.register()
        except BaseException:
            await self.aclose()
            raise
        self._keeper = self._scope.spawn(self._keep(), "renew")
        self._listen_to_messages()
        return self

    def _listen_to_messages(self) -> None:
        for agent in self._agents:
            if agent.hears is not None:
                from agentmesh.sdk.hearing import Listener

                listener = Listener(agent.name, agent.hears, self._where, _say)
                self._listeners.append(self._scope.spawn(listener.run(), f"messages of {agent.name}"))

    async def __aexit__(self, *exc: object) -> None:
        """Withdraw the agents and stop."""
        await self.aclose()

    async def open(self) -> None:
        """Serve on the loopback port, without registering."""
        self._server = _server(self.app)
        self._serving = self._scope.spawn(self._server.serve(sockets=[self._socket]), "http")

    async def wait(self) -> None:
        """Wait until the server ends, which it does only when told to."""
        if self._serving is not None:
            await asyncio.shield(self._serving)

    async def register(self) -> None:
        """Register every agent of this process with the daemon.

        Raises:
            NoRoute, Unauthorized, Refused, NotFound, UsageError: as the daemon answered; nothing is registered.
        """
        asked = RegisterRequest(url=self.base_url, door="sdk", ephemeral=True)
        views = (await self._ask(requests.register(asked))).agents
        self.app.agent_ids = {view.name: view.agent_id for view in views}

    async def aclose(self) -> None:
        """Withdraw the agents, cancel what they still serve, stop listening. Idempotent."""
        if self._keeper is not None:
            # Before the withdrawal: a renewal under way would register the agents again.
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        for listener in self._listeners:
            # Before the withdrawal as well: what is at work is given back while its inbox is there.
            listener.cancel()
            await asyncio.wait({listener})
        await self._withdraw()
        await self.app.aclose()
        if self._server is not None:
            self._server.should_exit = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), 3.0)
        await self._scope.aclose(timeout_s=1.0)
        self._socket.close()
        if self._session is not None:
            await self._session.close()

    async def _withdraw(self) -> None:
        ids, self.app.agent_ids = list(self.app.agent_ids.values()), {}
        with contextlib.suppress(MeshError, TimeoutError):
            async with asyncio.timeout(WITHDRAW_TIMEOUT_S):
                for agent_id in ids:
                    await self._ask(requests.deregister(agent_id))

    async def _keep(self) -> None:
        """Renew for ever; find the daemon again when it is gone."""
        retry_s = RETRY_MIN_S
        lost = False
        wait_s = self._renew_interval_s
        while True:
            await asyncio.sleep(wait_s)
            try:
                if lost or not await self._renew():
                    await self.register()
                if lost:
                    _say("the daemon is back; registered again")
                lost, retry_s, wait_s = False, RETRY_MIN_S, self._renew_interval_s
            except MeshError as error:
                if not lost:
                    _say(f"{error.detail}; trying again until it is back")
                lost, wait_s = True, retry_s
                retry_s = min(retry_s * 2, RETRY_MAX_S)

    async def _renew(self) -> bool:
        """Renew each agent; False when the daemon does not know one of them."""
        try:
            for agent_id in list(self.app.agent_ids.values()):
                if not (await self._ask(requests.renew(agent_id))).renewed:
                    return False
        except NotFound:
            return False
        return bool(self.app.agent_ids)

    async def _ask(self, request: Request[T]) -> T:
        """Ask the daemon. Raises what ``sdk.requests.parse`` and ``sdk.locate.locate`` raise, NoRoute and Timeout."""
        import aiohttp

        # Read the files each time: a restarted daemon may have another port and token.
        base, token = await asyncio.to_thread(locate, *self._where)
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        try:
            async with self._session.request(
                request.method,
                base + request.path,
                data=request.body,
                headers=requests.headers_of(request, token),
                timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
                allow_redirects=False,
            ) as response:
                return requests.parse(request, response.status, await _read(response))
        except TimeoutError as error:
            raise requests.too_slow(REQUEST_TIMEOUT_S) from error
        except (aiohttp.ClientError, OSError) as error:
            raise not_running(f"{base} does not answer: {error}") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > _ANSWER_BYTES_MAX:
            raise requests.too_large()
        pieces.append(chunk)
    return b"".join(pieces)


def _check(agents: list[Agent]) -> None:
    if not agents:
        raise UsageError("run() needs at least one agent", code="agent.none", hint="run(hello)")
    if len(agents) > AGENTS_MAX:
        raise UsageError(f"at most {AGENTS_MAX} agents fit one process", code="agent.too_many")
    names: set[str] = set()
    for agent in agents:
        if not isinstance(agent, Agent):  # pyright: ignore[reportUnnecessaryIsInstance] - people forget the decorator
            raise UsageError(f"{agent!r} is no agent", code="agent.none", hint="put @agent above the function")
        if not agent.skills:
            raise UsageError(
                f"{agent.name} has no skill", code="agent.none", hint=f"put @{agent.name}.skill above a function"
            )
        if agent.name in names:
            raise UsageError(f"two agents are named {agent.name!r}", code="agent.bad_name")
        names.add(agent.name)


def _listen(port: int) -> socket.socket:
    # The protocol is named because asyncio switches Nagle's algorithm off only where it is: 40 ms per answer otherwise.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(512)
    return listener


def _server(app: AgentApp) -> Any:
    """Return a uvicorn server that leaves signals to us."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            yield

    return Server(
        uvicorn.Config(
            app,  # pyright: ignore[reportArgumentType] - uvicorn types scopes one by one
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
    )


def _say(text: str) -> None:
    print(f"agentmesh: {text}", file=sys.stderr, flush=True)


def served() -> bool:
    """Say whether ``run_blocking`` was entered in this process."""
    return _state["served"]


def print_error(error: MeshError) -> None:
    """Print an error in three lines on stderr: what, why, next."""
    lines = [f"error[{error.code}] {error.detail}"]
    lines += [f"why: {error.why}"] if error.why else []
    lines += [f"next: {error.hint}"] if error.hint else []
    print("\n".join(lines), file=sys.stderr, flush=True)


def run_blocking(
    agents: list[Agent],
    *,
    home: str | os.PathLike[str] | None = None,
    url: str | None = None,
    token: str | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; see ``sdk.agent.run``."""
    _check(agents)
    _state["served"] = True
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_until_signal(agents, home, url, token))
    except MeshError as error:
        print_error(error)
        raise SystemExit(row_of(error).exit) from None
    except KeyboardInterrupt:
        raise SystemExit(0) from None


async def _until_signal(
    agents: list[Agent], home: str | os.PathLike[str] | None, url: str | None, token: str | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not possible on Windows or outside the main thread; there Ctrl-C arrives as KeyboardInterrupt.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop.set)
    async with AgentProcess(agents, home=home, url=url, token=token) as process:
        for name, agent_id in process.app.agent_ids.items():
            _say(f"{name} is registered ({agent_id}) at {home_dir(home)}; Ctrl-C withdraws it")
        await stop.wait()
