"""The request handler behind a2a-sdk's JSON-RPC and REST dispatchers: A2A methods on top of the node.

One handler serves every agent; which one is meant is in the call context (``agent_key``, ``agent_ref``), put there by
``MeshContextBuilder`` from what ``edge`` found. A client that goes away does not cancel its task (A2A 1.0 §3.1): it can
come back with ``GetTask`` or ``SubscribeToTask``. Push notifications are not offered, and say so.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, NoReturn, cast

from a2a.server.context import ServerCallContext
from a2a.server.events import Event
from a2a.server.request_handlers.request_handler import (
    RequestHandler,
    validate_request_params,  # pyright: ignore[reportUnknownVariableType]
)
from a2a.server.routes import create_jsonrpc_routes, create_rest_routes
from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskState,
)
from a2a.types.a2a_pb2 import Message as A2AMessage
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import (
    A2AError,
    ExtendedAgentCardNotConfiguredError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from a2a.utils.task import apply_history_length, validate_history_length, validate_page_size
from google.protobuf.json_format import ParseDict, ParseError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Router
from starlette.types import Message, Receive, Scope, Send

from agentmesh.api.a2a.executor import Executor, Fold, status_of
from agentmesh.api.a2a.parts import parts_from_proto, struct_to_json
from agentmesh.api.a2a.tasks import TERMINAL, TaskBook, TaskRecord
from agentmesh.api.backend import Admitted, View
from agentmesh.codec.tracecontext import in_headers
from agentmesh.core.budget.gate import PRIORITY_USUAL
from agentmesh.errors import AgentCanceled, Busy, RunNotFound, Unauthorized, UsageError
from agentmesh.identity.grant import GRANT_CHARS_MAX
from agentmesh.identity.manifest import EXT
from agentmesh.identity.token import digest_of
from agentmesh.net.tasks import TaskScope
from agentmesh.node.baggage import read_baggage
from agentmesh.sdk.types import CallRequest

#: A2A knows no deadline; a client may name its own in ``metadata[EXT].timeout_s``.
CALL_TIMEOUT_S = 600.0
#: How long a cancel waits for the task to end before it answers with the task as it is.
_CANCEL_WAIT_S = 10.0
_ID_MAX = 128
#: Methods and paths by which a message comes.
_MESSAGES = frozenset({"SendMessage", "SendStreamingMessage", "message:send", "message:stream"})


class MeshContextBuilder(DefaultServerCallContextBuilder):
    """Puts what ``edge`` found into the call context: the agent, the node as the client may use it, the call of its token."""

    def build(self, request: Request) -> ServerCallContext:
        """Build the context of one request."""
        context = super().build(request)
        context.state["headers"] = plain_headers(request.scope["headers"])
        for name, value in zip(
            ("agent_key", "agent_ref", "node", "admitted"), request.scope["agentmesh.a2a"], strict=True
        ):
            context.state[name] = value
        return context


class MeshRequests(RequestHandler):
    """A2A methods for every agent of the mesh.

    Args:
        scope: Owns the running turns.
        book: The tasks.
    """

    def __init__(self, scope: TaskScope, book: TaskBook | None = None) -> None:
        self.book = book or TaskBook()
        self._scope = scope
        self._turns: dict[str, asyncio.Task[Any]] = {}

    @validate_request_params
    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task:
        """Start or continue a task and answer when its turn is over, or at once with ``returnImmediately``."""
        validate_history_length(params.configuration)
        record = self._open(params, context)
        if not params.configuration.return_immediately:
            await record.wait()
        return apply_history_length(record.snapshot(), params.configuration)

    @validate_request_params
    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """Start or continue a task and yield it, then every update until its turn is over."""
        validate_history_length(params.configuration)
        record = self._open(params, context)
        async for event in record.follow():
            yield apply_history_length(event, params.configuration) if isinstance(event, Task) else event

    @validate_request_params
    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """Yield a task as it is now, then every update until its turn is over."""
        record = self.book.get(params.id, _key(context))
        if record is None:
            record = await Executor(_node(context)).rebuild(params.id, _key(context))
            if record is None:
                raise TaskNotFoundError
            if record.state not in TERMINAL:
                raise UnsupportedOperationError(
                    f"task {params.id} was not started here; agentmesh trace {record.run_id} -f   follows it"
                )
        if record.state in TERMINAL:
            raise UnsupportedOperationError(f"task {params.id} is over: {TaskState.Name(record.state)}")  # pyright: ignore[reportArgumentType]
        async for event in record.follow():
            yield event

    @validate_request_params
    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task:
        """Return a task, from the event log if it is no longer kept here."""
        validate_history_length(params)
        record = self.book.get(params.id, _key(context)) or await Executor(_node(context)).rebuild(
            params.id, _key(context)
        )
        if record is None:
            raise TaskNotFoundError
        return apply_history_length(record.snapshot(), params)

    @validate_request_params
    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """Return one page of the agent's tasks kept here, last changed first."""
        validate_history_length(params)
        if params.HasField("page_size"):
            validate_page_size(params.page_size)
        self.book.evict()
        tasks, token, total = self.book.page(_key(context), params)
        for task in tasks:
            if not params.include_artifacts:
                task.ClearField("artifacts")
        return ListTasksResponse(
            tasks=[apply_history_length(task, params) for task in tasks],
            next_page_token=token,
            page_size=params.page_size or len(tasks),
            total_size=total,
        )

    @validate_request_params
    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task:
        """Cancel a task: the agent is told, and the task is returned once its turn is over."""
        record = self.book.get(params.id, _key(context))
        if record is None:
            return await self._cancel_elsewhere(params.id, _key(context), _node(context))
        if record.state in TERMINAL:
            raise TaskNotCancelableError(f"task {params.id} is over already")
        if record.running:
            await self._cancel_turn(record, _node(context))
            if record.state in TERMINAL and record.state != TaskState.TASK_STATE_CANCELED:
                raise TaskNotCancelableError(f"task {params.id} ended before it could be canceled")
        else:
            Fold(record).fail(AgentCanceled("the task was canceled while it waited for input"))
        return record.snapshot()

    async def _cancel_turn(self, record: TaskRecord, node: View) -> None:
        try:
            if record.run_id:
                await node.cancel(record.call_id)
            else:
                # The node has not taken the call yet; there is nothing to cancel but our own waiting.
                self._turns[record.id].cancel()
        except RunNotFound:
            return
        try:
            async with asyncio.timeout(_CANCEL_WAIT_S):
                await record.wait()
        except TimeoutError:
            return

    async def _cancel_elsewhere(self, task_id: str, agent: str, node: View) -> Task:
        executor = Executor(node)
        record = await executor.rebuild(task_id, agent)
        if record is None:
            raise TaskNotFoundError
        if record.state in TERMINAL:
            raise TaskNotCancelableError(f"task {task_id} is over already")
        try:
            result = await node.cancel(task_id)
        except RunNotFound:
            raise TaskNotCancelableError(f"task {task_id} is not running on this node") from None
        if not result.canceled:
            raise TaskNotCancelableError(f"task {task_id} is over already")
        return (await executor.rebuild(task_id, agent) or record).snapshot()

    def _open(self, params: SendMessageRequest, context: ServerCallContext) -> TaskRecord:
        """Start the turn that a message asks for.

        Raises:
            A2AError: unknown or finished task, another context, or something we do not offer. Nothing was started.
        """
        message = params.message
        if params.configuration.HasField("task_push_notification_config"):
            raise PushNotificationNotSupportedError
        if len(message.task_id) > _ID_MAX or len(message.context_id) > _ID_MAX or len(message.message_id) > _ID_MAX:
            raise InvalidParamsError(f"ids have at most {_ID_MAX} characters")
        said, admitted = request_of(params, context), cast("Admitted | None", context.state["admitted"])
        if admitted is not None and admitted.digest != digest_of(said.parts or [], said.skill, said.context_id):
            raise InvalidParamsError("this is not the message that the call token was made for")
        record = self._continued(message, _key(context)) if message.task_id else self._begun(params, context)
        if record.turn == 1:
            record.begin_turn()
        node, request = _node(context), _of_task(said, record)
        begin = functools.partial(node.call, request) if admitted is None else admitted.start
        task = self._scope.spawn(Executor(node).run(record, begin), record.id)
        self._turns[record.id] = task
        task.add_done_callback(lambda done: self._turn_over(record.id, done))
        return record

    def _turn_over(self, task_id: str, task: asyncio.Task[Any]) -> None:
        if self._turns.get(task_id) is task:
            del self._turns[task_id]

    def _begun(self, params: SendMessageRequest, context: ServerCallContext) -> TaskRecord:
        message = params.message
        task_id = secrets.token_hex(16)
        message.task_id = task_id
        message.context_id = message.context_id or secrets.token_hex(16)
        task = Task(
            id=task_id,
            context_id=message.context_id,
            status=status_of(TaskState.TASK_STATE_SUBMITTED, time.time_ns() // 1000),
            history=[message],
        )
        record = TaskRecord(task, _key(context))
        try:
            self.book.add(record)
        except Busy as busy:
            raise UnsupportedOperationError(f"{busy.detail}; try again in {busy.retry_after_s:g} s") from busy
        return record

    def _continued(self, message: A2AMessage, agent: str) -> TaskRecord:
        record = self.book.get(message.task_id, agent)
        if record is None:
            raise TaskNotFoundError(f"task {message.task_id} not found")
        if message.context_id and message.context_id != record.context_id:
            raise InvalidParamsError(f"task {record.id} belongs to another context")
        if record.state in TERMINAL:
            raise UnsupportedOperationError(f"task {record.id} is over: send the message without a task id")
        if record.running:
            raise UnsupportedOperationError(f"task {record.id} is at work; wait until it asks for input")
        message.context_id = record.context_id
        record.begin_turn(message)
        return record

    async def on_get_extended_agent_card(self, params: object, context: ServerCallContext) -> AgentCard:
        """Refuse: there is one card, and it is public on loopback."""
        raise ExtendedAgentCardNotConfiguredError

    async def on_create_task_push_notification_config(self, params: object, context: ServerCallContext) -> NoReturn:
        """Refuse: push notifications are not offered."""
        raise PushNotificationNotSupportedError

    async def on_get_task_push_notification_config(self, params: object, context: ServerCallContext) -> NoReturn:
        """Refuse: push notifications are not offered."""
        raise PushNotificationNotSupportedError

    async def on_list_task_push_notification_configs(self, params: object, context: ServerCallContext) -> NoReturn:
        """Refuse: push notifications are not offered."""
        raise PushNotificationNotSupportedError

    async def on_delete_task_push_notification_config(self, params: object, context: ServerCallContext) -> NoReturn:
        """Refuse: push notifications are not offered."""
        raise PushNotificationNotSupportedError


def plain_headers(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by name; the trace context is that of all headers of its names."""
    traceparent, tracestate = in_headers(headers)
    plain = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    return {**plain, "traceparent": traceparent or "", "tracestate": tracestate}


def request_of(params: SendMessageRequest, context: ServerCallContext) -> CallRequest:
    """Return the call that a message asks for, as far as the message says it."""
    return _said(params, str(context.state["agent_ref"]), context.state.get("headers", {}))


def _said(params: SendMessageRequest, ref: str, headers: Mapping[str, str]) -> CallRequest:
    message = params.message
    metadata = {**struct_to_json(params.metadata), **struct_to_json(message.metadata)}
    ours = metadata.pop(EXT, None)
    mesh = cast("dict[str, Any]", ours) if isinstance(ours, dict) else {}
    lamport = mesh.get("lamport")
    return CallRequest(
        to=ref,
        parts=parts_from_proto(message.parts),
        skill=_text(mesh.get("skill")),
        timeout_s=_timeout(mesh.get("timeout_s")),
        context_id=message.context_id or None,
        run_id=_text(mesh.get("run_id")),
        parent_task_id=_text(mesh.get("parent_task_id")),
        lamport=int(lamport) if isinstance(lamport, int) and 0 <= lamport < 2**53 else 0,
        hops=_texts(mesh.get("hops")),
        from_agent=_text(mesh.get("from_agent")) or "",
        stream=True,
        traceparent=str(headers.get("traceparent", "")) or None,
        tracestate=str(headers.get("tracestate", "")),
        metadata=metadata,
        budget=cast("dict[str, Any]", budget) if isinstance(budget := mesh.get("budget"), dict) else {},
        priority=priority if type(priority := mesh.get("priority")) is int else PRIORITY_USUAL,
        baggage=read_baggage(str(headers.get("baggage", ""))),
    )


def _of_task(request: CallRequest, record: TaskRecord) -> CallRequest:
    """Make a call one turn of its task."""
    request.context_id = record.context_id
    if record.turn == 1:
        request.task_id = record.id
        request.lamport = request.lamport or record.lamport
    else:
        request.task_id, request.run_id = secrets.token_hex(16), record.run_id or None
        request.parent_task_id, request.lamport = record.call_id, record.lamport
    return request


class MeshRouter:
    """The A2A routes of all agents: JSON-RPC, REST 1.0, and REST 0.3 under ``v1/`` (ASGI).

    Args:
        requests: Answers every method.
    """

    def __init__(self, requests: MeshRequests) -> None:
        context_builder = MeshContextBuilder()
        routes: list[BaseRoute] = []
        for path in ("/a2a/{agent}", "/a2a/{agent}/"):
            routes += create_jsonrpc_routes(requests, path, context_builder, enable_v0_3_compat=True)
        rest = create_rest_routes(requests, context_builder, enable_v0_3_compat=True, path_prefix="/a2a/{agent}")
        # a2a-sdk adds a mount for tenants in front of every prefix; there is one tenant here.
        routes += [route for route in rest if not isinstance(route, Mount)]
        self._router = Router(routes=routes, redirect_slashes=False)

    def message_in(
        self, decoded: object, rest: str, ref: str, headers: list[tuple[bytes, bytes]]
    ) -> tuple[str, CallRequest]:
        """Return (messageId, the call that it asks for) of the message in a request that brings a call token.

        Args:
            decoded: Its body.
            rest: The path behind the agent; "" for JSON-RPC.
            ref: The agent as the path names it.
            headers: Of the request, names in lower case.

        Raises:
            Unauthorized: the request is no message of A2A 1.0 (code "token.no_call").
            UsageError: it cannot be read.
        """
        body = cast("dict[str, Any]", decoded) if isinstance(decoded, dict) else {}
        if (rest or str(body.get("method"))) not in _MESSAGES:
            raise Unauthorized(
                "this request is no call, and a call token came with it",
                code="token.no_call",
                why="call tokens are for messages of A2A 1.0, JSON-RPC or HTTP+JSON",
                hint="leave the header DPoP out",
            )
        said: Any = body if rest else body.get("params")
        try:
            params = ParseDict(said, SendMessageRequest(), ignore_unknown_fields=True)
        except (ParseError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"the message cannot be read: {error}", code="body.invalid") from error
        request = _said(params, ref, plain_headers(headers))
        ours = struct_to_json(params.message.metadata).get(EXT) or struct_to_json(params.metadata).get(EXT)
        chain = cast("dict[str, Any]", ours).get("chain") if isinstance(ours, dict) else None
        request.grants = (
            [str(one)[: GRANT_CHARS_MAX + 1] for one in cast("list[object]", chain)] if isinstance(chain, list) else []
        )
        return params.message.message_id, request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        The 0.3 REST side of a2a-sdk reads its request only after it has begun its answer, and breaks off when the request is
        wrong. So the beginning is held back until there is something to send, and what went wrong becomes an error answer.
        """
        held: list[Message] = []

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                held.append(message)
                return
            while held:
                await send(held.pop())
            await send(message)

        try:
            await self._router(scope, receive, hold)
        except (A2AError, ParseError) as error:
            if not held:
                return
            payload = build_rest_error_payload(error)
            await JSONResponse(payload, status_code=payload["error"]["code"])(scope, receive, send)


def build(scope: TaskScope) -> tuple[MeshRouter, TaskBook]:
    """Return the routes of all agents and their tasks."""
    for name in ("a2a.server.routes.jsonrpc_dispatcher", "a2a.utils.error_handlers", "a2a.compat.v0_3.jsonrpc_adapter"):
        logging.getLogger(name).addFilter(_is_ours_to_know)
    requests = MeshRequests(scope)
    return MeshRouter(requests), requests.book


def _is_ours_to_know(record: logging.LogRecord) -> bool:
    """Keep a2a-sdk from filling the log with a client's mistakes; real faults still reach it."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return record.levelno >= logging.ERROR
    return not isinstance(error, A2AError | ParseError | TypeError | ValueError)


def _key(context: ServerCallContext) -> str:
    return str(context.state["agent_key"])


def _node(context: ServerCallContext) -> View:
    return cast("View", context.state["node"])


def _text(value: object) -> str | None:
    return value[:_ID_MAX] if isinstance(value, str) and value else None


def _texts(value: object) -> list[str]:
    items = cast("list[object]", value)[:64] if isinstance(value, list) else []
    return [item[:_ID_MAX] for item in items if isinstance(item, str)]


def _timeout(value: object) -> float:
    """Return the deadline the client names in seconds, within what a call may take."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return CALL_TIMEOUT_S
    return min(max(float(value), 0.05), 86_400.0)
