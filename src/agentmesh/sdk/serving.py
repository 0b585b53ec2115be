"""The HTTP face of an agent process ("sdk" door): a small ASGI application.

    GET  /<secret>/.well-known/agentmesh.json   the agents, their skills and JSON schemas
    POST /<secret>/invoke/<agent>               InvokeRequest in, NDJSON lines {"kind", "payload"} out
    POST /<secret>/cancel/<task_id>             {"canceled": bool}
    GET  /<secret>/health                       {"ok": true}

The secret is random per process and known to the daemon only, and the Host header must be a loopback name: a web page in
this machine's browser cannot call an agent. Plain ASGI, because four routes need no framework and every call passes here.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from agentmesh.errors import AgentNotFound, Busy, DecodeError, LimitError, MeshError, row_of, to_wire
from agentmesh.net.tasks import TaskScope
from agentmesh.sdk.agent import Agent
from agentmesh.sdk.context import CallContext
from agentmesh.sdk.turn import InvokeRequest, Turn

if TYPE_CHECKING:
    from agentmesh.sdk.client import Mesh

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Largest request body, bytes.
BODY_BYTES_MAX = 16 * 1024 * 1024
#: Calls served at once by one process; more are refused as Busy.
CALLS_MAX = 1000
KIND = "agentmesh-sdk"
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")
_request_decoder = msgspec.json.Decoder(InvokeRequest)


class AgentApp:
    """Serve agents over ASGI.

    Args:
        agents: By unique name.
        secret: First segment of every path.
        home, url, token: Where nested calls find the daemon; see ``sdk.locate``.
    """

    def __init__(
        self,
        agents: list[Agent],
        secret: str,
        *,
        home: str | None = None,
        url: str | None = None,
        token: str | None = None,
    ) -> None:
        self.agents = {agent.name: agent for agent in agents}
        self.agent_ids: dict[str, str] = {}
        self._prefix = f"/{secret}/"
        self._where = (home, url, token)
        self._turns: dict[str, Turn] = {}
        self._mesh: Mesh | None = None
        self._scope = TaskScope("agent-calls", tasks_max=CALLS_MAX * 2 + 10)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        try:
            await self._route(scope, receive, send)
        except MeshError as error:
            await _json(send, row_of(error).http, {"error": to_wire(error)})

    async def aclose(self) -> None:
        """Cancel every call being served and wait for them. Idempotent."""
        for turn in list(self._turns.values()):
            turn.cancel()
        await self._scope.aclose(timeout_s=2.0)
        if self._mesh is not None:
            await self._mesh.aclose()

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"host"), "")
        path: str = scope["path"]
        if not _LOOPBACK.fullmatch(host):
            raise AgentNotFound("not here", code="not_found.path")
        if not hmac.compare_digest(path[: len(self._prefix)].encode(), self._prefix.encode()):
            raise AgentNotFound("not here", code="not_found.path")
        verb, _, rest = path[len(self._prefix) :].partition("/")
        match scope["method"], verb:
            case "POST", "invoke":
                await self._invoke(rest, receive, send)
            case "POST", "cancel":
                turn = self._turns.get(rest)
                if turn is not None:
                    turn.cancel()
                await _json(send, 200, {"canceled": turn is not None})
            case "GET", ".well-known" if rest == "agentmesh.json":
                await _json(send, 200, {"kind": KIND, "agents": [a.describe() for a in self.agents.values()]})
            case "GET", "health":
                await _json(send, 200, {"ok": True, "calls": len(self._turns)})
            case _:
                raise AgentNotFound("not here", code="not_found.path")

    async def _invoke(self, name: str, receive: Receive, send: Send) -> None:
        agent = self.agents.get(name)
        if agent is None:
            raise AgentNotFound.near(name, self.agents)
        request = _decode(await _body(receive))
        if request.task_id in self._turns:
            raise Busy(f"task {request.task_id[:80]} is already running", code="refused.busy.task")
        if len(self._turns) >= CALLS_MAX:
            raise Busy(f"{CALLS_MAX} calls are being served", code="refused.busy.calls")
        turn = Turn(agent, request, self._context(agent, request), self._shared_mesh)
        self._turns[request.task_id] = turn
        task = self._scope.spawn(turn.run(), request.task_id)
        watch = self._scope.spawn(_watch(receive, turn), "watch")
        try:
            await _stream(turn, send)
        finally:
            watch.cancel()
            if not task.done():
                turn.cancel()
            self._turns.pop(request.task_id, None)

    def _shared_mesh(self) -> Mesh:
        if self._mesh is None:
            from agentmesh.sdk.client import Mesh

            home, url, token = self._where
            self._mesh = Mesh(home=home, url=url, token=token)
        return self._mesh

    def _context(self, agent: Agent, request: InvokeRequest) -> CallContext:
        home, url, token = self._where
        return CallContext(
            run_id=request.run_id,
            task_id=request.task_id,
            agent_name=agent.name,
            agent_id=self.agent_ids.get(agent.name, ""),
            hops=list(request.hops),
            lamport=request.lamport,
            deadline_s=request.deadline_s,
            context_id=request.context_id,
            caller=request.caller,
            caller_name=request.caller_name,
            traceparent=request.traceparent,
            tracestate=request.tracestate,
            budget=dict(request.budget),
            baggage=dict(request.baggage),
            home=home,
            url=url,
            token=token,
        )


def _decode(body: bytes) -> InvokeRequest:
    try:
        return _request_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not an invocation: {error}", code="agent.bad_request") from error


async def _body(receive: Receive) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DecodeError("the request ended early", code="agent.bad_request")
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > BODY_BYTES_MAX:
            raise LimitError(f"a request of more than {BODY_BYTES_MAX} bytes", code="agent.request_too_large")
        pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces)


async def _watch(receive: Receive, turn: Turn) -> None:
    """Cancel the call when whoever asked goes away: closing the answer early is how a caller gives up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    turn.cancel()


async def _stream(turn: Turn, send: Send) -> None:
    batch = await turn.outlet.take()
    headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
    whole = turn.outlet.ended
    if whole:
        headers.append((b"content-length", str(len(batch)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": batch, "more_body": not whole})
    while not whole:
        batch = await turn.outlet.take()
        whole = turn.outlet.ended
        await send({"type": "http.response.body", "body": batch, "more_body": not whole})


async def _json(send: Send, status: int, body: Any) -> None:
    encoded = msgspec.json.encode(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(encoded)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": encoded})
