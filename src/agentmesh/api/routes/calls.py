"""Routes that call agents and stop calls."""

from __future__ import annotations

import re

import msgspec

from agentmesh.api.backend import Call
from agentmesh.api.sse import stream_of_call
from agentmesh.api.table import Ask, EventStream, RouteRow
from agentmesh.codec.tracecontext import in_headers
from agentmesh.errors import (
    AgentCanceled,
    AgentFailed,
    AgentNotFound,
    BudgetExceeded,
    Busy,
    Closed,
    DecodeError,
    LoopDetected,
    MeshError,
    NoRoute,
    ReadOnly,
    ReplayError,
    RunNotFound,
    SignatureError,
    Timeout,
    Unauthorized,
    UsageError,
)
from agentmesh.node.presented import Presented
from agentmesh.sdk.requests import CALL_BYTES_MAX
from agentmesh.sdk.types import CallRequest, CancelResult, GrantRequest, GrantView, Reply

HOPS_MAX = 64
#: The receipt of a call that came with a call token; empty if its agent keeps its key to itself.
RECEIPT_HEADER = "agentmesh-receipt"
_ID = re.compile(r"[0-9A-Za-z_.:\-]{1,128}")


def check_call(request: CallRequest) -> None:
    """Refuse names and ids that could not be carried on, in logs, URLs and headers; the node judges the rest.

    Raises:
        UsageError: the message names the field. No state changed.
    """
    if not request.to or len(request.to) > 300 or not request.to.isprintable():
        raise UsageError("'to' is the name or id of an agent", code="call.to")
    for name, value in (
        ("run_id", request.run_id),
        ("task_id", request.task_id),
        ("parent_task_id", request.parent_task_id),
        ("context_id", request.context_id),
    ):
        if value is not None and not _ID.fullmatch(value):
            raise UsageError(f"'{name}' is 1 to 128 letters, digits and _ . : -", code="call.bad_id")
    if len(request.hops) > HOPS_MAX or any(len(hop) > 300 for hop in request.hops):
        raise UsageError(f"'hops' lists at most {HOPS_MAX} agents", code="call.hops")
    for name, text in (
        ("skill", request.skill),
        ("from_agent", request.from_agent),
    ):
        if text is not None and len(text) > 300:
            raise UsageError(f"'{name}' has at most 300 characters", code="call.text")


async def call_agent(ask: Ask) -> msgspec.Struct | EventStream:
    """Answer ``POST /api/v1/calls``: the hot path."""
    request: CallRequest = ask.body
    check_call(request)
    if not request.traceparent:
        request.traceparent, request.tracestate = in_headers(ask.asked)
    call = await (ask.backend.call(request) if ask.presented is None else _call_by_token(ask, ask.presented, request))
    if request.stream:
        return stream_of_call(call)
    try:
        reply = await call.reply()
        if ask.presented is not None:
            ask.headers[RECEIPT_HEADER] = reply.receipt
        return reply
    except MeshError as error:
        error.extra.setdefault("run_id", call.run_id)
        error.extra.setdefault("task_id", call.task_id)
        if ask.presented is not None:
            ask.headers[RECEIPT_HEADER] = str(error.extra.get("receipt", ""))
        raise
    except BaseException:
        await call.aclose()
        raise


async def _call_by_token(ask: Ask, presented: Presented, request: CallRequest) -> Call:
    """Start a call in the name of whoever signed its token."""
    if ask.rights.agents is not None:
        detail = ask.backend.agent(request.to)
        for one in detail.replicas or [detail.agent]:
            ask.rights.require_call(one.name, one.agent_id)
    return await (await ask.site.node.admit(presented, request)).start()


async def cancel_task(ask: Ask) -> CancelResult:
    """Answer ``POST /api/v1/tasks/{task_id}/cancel``."""
    return await ask.backend.cancel(ask.path["task_id"])


async def make_grant(ask: Ask) -> GrantView:
    """Answer ``POST /api/v1/grants``."""
    return await ask.site.node.grant(ask.body)


ROWS = (
    RouteRow(
        "POST",
        "/api/v1/calls",
        call_agent,
        "Call an agent and wait for its reply, or stream its events",
        Reply,
        CallRequest,
        (
            AgentNotFound,
            UsageError,
            AgentFailed,
            AgentCanceled,
            Timeout,
            NoRoute,
            Closed,
            Busy,
            BudgetExceeded,
            LoopDetected,
            ReadOnly,
        ),
        stream="asked",
        body_bytes_max=CALL_BYTES_MAX,
        description=(
            "With stream true the answer is a stream of server-sent events: one per EventV1 (event = kind, id = seq), "
            "then one last 'reply' (Reply) or 'problem' (Problem). A client that goes away cancels a streaming call."
        ),
        scope="call",
    ),
    RouteRow(
        "POST",
        "/api/v1/tasks/{task_id}/cancel",
        cancel_task,
        "Ask a running task to stop",
        CancelResult,
        errors=(RunNotFound, NoRoute, Closed),
        path_params={"task_id": "Id of the task."},
        scope="call",
    ),
    RouteRow(
        "POST",
        "/api/v1/grants",
        make_grant,
        "Let an agent act in one's name, within bounds",
        GrantView,
        GrantRequest,
        (UsageError, AgentNotFound, Unauthorized, DecodeError, SignatureError, ReplayError, ReadOnly),
        description="Signed with a key of this node and kept nowhere: whoever is named as its holder may use it until it ends.",
        scope="admin",
    ),
)
