"""``/a2a/<agent>/``: routes, size caps, leniency and errors; everything that must not cost memory before it is used.

Open without a token, so that an unmodified A2A client works; ``api.guard`` still lets only this machine in. A client that
brings an API key sees and calls what the key allows; one that brings a call token calls as whoever signed it, once the node
found that it holds. The a2a-sdk is imported at the first A2A call, in a thread, so that the daemon goes on answering meanwhile.

Departures from the letter of A2A, both found with real clients:
- A request without ``A2A-Version`` counts as 0.3 (A2A 1.0 §3.6.2), yet some 1.0 clients leave it out. A method that only
  1.0 has, or a REST path that only 1.0 has, is taken as 1.0.
- An agent that does not exist is HTTP 404 also for JSON-RPC, with a JSON-RPC error as its body.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from agentmesh.api.a2a.cards import base_url, edge_card
from agentmesh.api.backend import Admitted, Backend, View
from agentmesh.api.body import decode_body, read_body
from agentmesh.api.guard import RIGHTS
from agentmesh.api.limited import OfCaller, view_of
from agentmesh.api.problems import headers_of
from agentmesh.api.scopes import ANONYMOUS, FORBIDDEN, Rights
from agentmesh.api.tokens import PRESENTED
from agentmesh.errors import AgentNotFound, Closed, DecodeError, LimitError, MeshError, UsageError, row_of, to_wire
from agentmesh.net.tasks import TaskScope
from agentmesh.node.presented import Presented
from agentmesh.wire.v1 import CALL_BYTES_MAX

if TYPE_CHECKING:
    from agentmesh.api.a2a.requests import MeshRouter
    from agentmesh.api.a2a.tasks import TaskBook

#: Largest request body: as large as one call message between nodes.
BODY_BYTES_MAX = CALL_BYTES_MAX
_CARD_PATHS = frozenset({".well-known/agent-card.json", ".well-known/agent.json"})
_JSONRPC_CODES = {413: -32600, 400: -32700, 422: -32600}
_REST_STATUS = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 413: "OUT_OF_RANGE", 422: "INVALID_ARGUMENT"}

#: Methods of JSON-RPC about tasks that began before, as A2A 1.0 spells them.
_ABOUT_TASKS = frozenset({"GetTask", "ListTasks", "CancelTask", "SubscribeToTask"})
#: Query parameters of A2A's REST binding that are counts.
_COUNTS = frozenset({"historyLength", "history_length", "pageSize", "page_size"})
_COUNT = re.compile("[0-9]{1,9}")

_any_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class A2AEdge:
    """The A2A endpoints of all agents of the mesh.

    Args:
        backend: The node.
        port_of: The HTTP port this node listens on; asked when a card is served.
    """

    def __init__(self, backend: Backend, *, port_of: Callable[[], int]) -> None:
        self._backend = backend
        self._port_of = port_of
        self._scope = TaskScope("a2a", tasks_max=2000)
        self._loading = asyncio.Lock()
        self._router: MeshRouter | None = None
        self._book: TaskBook | None = None

    def routes(self) -> list[BaseRoute]:
        """Return the routes for the application."""
        return [Route("/a2a/{agent}", self), Route("/a2a/{agent}/{rest:path}", self)]

    async def aclose(self) -> None:
        """Cancel the calls under way. Idempotent."""
        await self._scope.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        ref: str = scope["path_params"]["agent"]
        rest: str = scope["path_params"].get("rest", "")
        method: str = scope["method"]
        rights: Rights = scope.get(RIGHTS, ANONYMOUS)
        try:
            node = view_of(self._backend, rights)
            if method in ("GET", "HEAD") and (rest in _CARD_PATHS or rest == "manifest.json"):
                rights.require("call" if "call" in rights.scopes else "read")
                await node.look_for(ref)
                await self._card(node, ref, rest, scope)(scope, receive, send)
                return
            rights.require("call")
            body = await self._body(scope, receive) if method == "POST" else b""
        except Closed:
            return
        except MeshError as error:
            await _refusal(error, is_jsonrpc=not rest and method == "POST", rpc_id=None)(scope, receive, send)
            return
        await self._dispatch(node, rights, ref, rest, body, scope, receive, send)

    def _card(self, node: View, ref: str, rest: str, scope: Scope) -> Response:
        detail = node.agent(ref)
        if rest == "manifest.json":
            return JSONResponse(detail.card)
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        return JSONResponse(edge_card(detail, base_url(host, self._port_of(), ref)))

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        return await read_body(scope, receive, BODY_BYTES_MAX)

    async def _dispatch(
        self,
        node: View,
        rights: Rights,
        ref: str,
        rest: str,
        body: bytes,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        is_jsonrpc = not rest and scope["method"] == "POST"
        rpc_id: str | int | None = None
        decoded: object = None
        is_v1 = not rest.startswith("v1/")
        try:
            if body:
                # a2a-sdk parses again; here we make sure that it can, since its REST side answers 500 to broken text.
                decoded = decode_body(_any_decoder, body)
                if is_jsonrpc:
                    rpc_id, is_v1 = _peek(decoded)
            elif is_jsonrpc:
                raise DecodeError("the body is empty", code="body.malformed")
            _check_query(scope["query_string"])
            name = self._key_of(node, rights.tenant, ref)
            rights.require_call(name, ref)
            key = _key(rights.tenant, name)
            router = await self._loaded()
            admitted: Admitted | None = None
            if PRESENTED in scope:
                caller, admitted = await self._admit(router, ref, rest, decoded, scope)
                key, node = _key(caller, name), OfCaller(self._backend, rights, caller)
        except MeshError as error:
            await _refusal(error, is_jsonrpc=is_jsonrpc, rpc_id=rpc_id)(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if is_v1 and not any(name == b"a2a-version" and value for name, value in headers):
            headers = [*(pair for pair in headers if pair[0] != b"a2a-version"), (b"a2a-version", b"1.0")]
        inner = {**scope, "headers": headers, "agentmesh.a2a": (key, ref, node, admitted)}
        await router(inner, _replay(body, receive), send)

    async def _admit(
        self, router: MeshRouter, ref: str, rest: str, decoded: object, scope: Scope
    ) -> tuple[str, Admitted | None]:
        """Check the call token of a request, before a2a-sdk hears of it; return who signed it, and the call if it is one.

        Raises:
            MeshError: as ``Backend.admit`` and ``Backend.prove``; Unauthorized with code "token.no_call" for other requests.
        """
        presented: Presented = scope[PRESENTED]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        interface = base_url(headers.get("host", ""), self._port_of(), ref)
        presented = presented._replace(addresses=(interface, *presented.addresses))
        method, params = _asked(decoded) if not rest else ("", None)
        if method in _ABOUT_TASKS:
            return await self._backend.prove(presented, ref, [{"data": params}], method), None
        message_id, request = router.message_in(decoded, rest, ref, scope["headers"])
        admitted = await self._backend.admit(presented._replace(task_id=message_id), request)
        return admitted.caller, admitted

    def _key_of(self, node: View, tenant: str, ref: str) -> str:
        """Return the name of the agent. One that is gone still has its tasks."""
        try:
            return node.agent(ref).agent.name
        except AgentNotFound:
            name = ref.partition("@")[0]
            if self._book is not None and self._book.knows(_key(tenant, name)):
                return name
            raise

    async def _loaded(self) -> MeshRouter:
        if self._router is None:
            async with self._loading:
                if self._router is None:
                    requests = await asyncio.to_thread(importlib.import_module, "agentmesh.api.a2a.requests")
                    self._router, self._book = requests.build(self._scope)
        assert self._router is not None
        return self._router


def a2a_routes(backend: Backend, *, port_of: Callable[[], int]) -> list[BaseRoute]:
    """Return the A2A routes for ``create_app``. Whoever must end the calls at shutdown makes an ``A2AEdge`` instead."""
    return A2AEdge(backend, port_of=port_of).routes()


def _peek(decoded: object) -> tuple[str | int | None, bool]:
    """Return (id of a JSON-RPC request, whether its method is spelled as 1.0 does: ``SendMessage``)."""
    if not isinstance(decoded, dict):
        return None, False
    request: dict[str, object] = decoded  # pyright: ignore[reportUnknownVariableType]
    rpc_id, method = request.get("id"), request.get("method")
    usable = isinstance(rpc_id, str | int) and not isinstance(rpc_id, bool)
    return rpc_id if usable else None, isinstance(method, str) and method[:1].isupper()  # pyright: ignore[reportReturnType]


def _asked(decoded: object) -> tuple[str, object]:
    """Return method and parameters of a JSON-RPC request."""
    request: dict[str, object] = decoded if isinstance(decoded, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    return str(request.get("method")), request.get("params")


def _check_query(query: bytes) -> None:
    """Raise UsageError for counts that are none; a2a-sdk's 0.3 side would answer 500."""
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise UsageError("the query has too many fields", code="usage.query") from error
    for name, value in pairs:
        if name in _COUNTS and not _COUNT.fullmatch(value):
            raise UsageError(f"{name} is no whole number that is 0 or more", code="usage.query")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body that was read already, then whatever comes (the disconnect)."""
    given = False

    async def replay() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _refusal(error: MeshError, *, is_jsonrpc: bool, rpc_id: str | int | None) -> Response:
    """Return an error in the shape of the binding, with the reason as google.rpc.ErrorInfo (A2A 1.0 §9.5, §11.6)."""
    status = 403 if error.code in FORBIDDEN else row_of(error).http
    text = f"{error.detail}: {error.hint}" if error.hint else error.detail
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": error.code.upper().replace(".", "_"),
        "domain": "agentmesh.dev",
        "metadata": {name: _flat(value) for name, value in to_wire(error).items() if value},
    }
    if is_jsonrpc:
        # A body that cannot be read is an answer of the JSON-RPC layer, which speaks HTTP 200, as a2a-sdk does.
        http = 200 if isinstance(error, DecodeError | UsageError) else status
        code = _JSONRPC_CODES.get(status, -32000)
        return JSONResponse(
            {"jsonrpc": "2.0", "id": rpc_id, "error": {"code": code, "message": text, "data": [info]}},
            status_code=http,
            headers=headers_of(error, http),
        )
    payload = {"code": status, "status": _REST_STATUS.get(status, "INTERNAL"), "message": text, "details": [info]}
    headers = headers_of(error, status)
    if isinstance(error, LimitError):
        headers["connection"] = "close"
    return JSONResponse({"error": payload}, status_code=status, headers=headers)


def _key(owner: str, name: str) -> str:
    """Return what the tasks of an agent are kept under: those of each tenant, and of each caller with a token, apart."""
    return f"{owner}/{name}" if owner else name


def _flat(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
