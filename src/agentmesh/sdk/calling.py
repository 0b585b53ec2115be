"""How a call is described: what a caller may say of it, and the run and trace that it becomes part of. No I/O."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Literal, TypedDict, Unpack

from agentmesh.sdk.ambient import ambient
from agentmesh.sdk.context import current
from agentmesh.sdk.types import CallRequest, Strategy


class CallOptions(TypedDict, total=False):
    """What a call may say besides whom it calls; fields of ``CallRequest``, which documents units and bounds.

    Attributes:
        data, parts: The input, instead of text; exactly one of them. ``parts`` are A2A 1.0 parts in JSON form.
        skill: Skill id, if the agent has several.
        timeout_s: For the whole call, 0.05 to 86400; the node's setting when left out.
        context_id: Conversation to continue.
        task_id: For a safe retry: a repeated id returns the first result.
        metadata: JSON object passed to the agent.
        purpose: Why; signed into the call token and shown with the receipt.
        grants: Grants for the caller that allow the call, root first (``Mesh.grant``).
        balance: How to choose among replicas; "" for the node's setting.
        idempotent: It may safely run more than once: when a replica is lost on the way, another one is asked.
        hedge_ms: Ask a second replica after so long without an answer; only with ``idempotent``.
        budget: What it may use at most: any of ``calls``, ``tokens``, ``usd_micros``, ``wall_ms``.
        priority: 0 to 9: which of this caller's own calls goes first where they wait.
        baggage: What goes along with the call and all made from it; an agent adds to what came with the call it serves.
        traceparent, tracestate: W3C trace context that the call is to be part of. Left out, it is the span that the program is
            in (OpenTelemetry), or that of the call which an agent serves.
    """

    data: Any
    parts: list[dict[str, Any]] | None
    skill: str | None
    timeout_s: float | None
    context_id: str | None
    task_id: str | None
    metadata: dict[str, Any] | None
    purpose: str
    grants: Sequence[str]
    balance: Strategy | Literal[""]
    idempotent: bool
    hedge_ms: int | None
    budget: dict[str, int] | None
    priority: int
    baggage: dict[str, str] | None
    traceparent: str | None
    tracestate: str


def call_request(
    to: str, text: str | None = None, *, stream: bool = False, **options: Unpack[CallOptions]
) -> CallRequest:
    """Describe a call. Inside an agent it becomes part of the run that the agent serves (``sdk.context``)."""
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if "grants" in given:
        given["grants"] = list(given["grants"])
    given.setdefault("task_id", secrets.token_hex(16))
    request = CallRequest(to=to, text=text, stream=stream, **given)
    if (context := current()) is not None:
        request.run_id = context.run_id
        request.parent_task_id = context.task_id
        request.lamport = context.lamport
        request.hops = list(context.hops)
        request.from_agent = context.agent_id or context.agent_name
        request.baggage = {**context.baggage, **request.baggage}
    if not request.traceparent:
        if (here := ambient()) is not None:
            request.traceparent, request.tracestate = here.traceparent, here.state
        elif context is not None:
            request.traceparent, request.tracestate = context.traceparent, context.tracestate
    return request
