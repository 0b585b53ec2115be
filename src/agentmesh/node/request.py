"""Checking a call request before anything starts. Pure."""

from __future__ import annotations

import re
from typing import Any

from agentmesh.core.budget.gate import PRIORITY_MAX
from agentmesh.errors import UsageError
from agentmesh.identity.budget import BUDGET_KEYS, Budget
from agentmesh.identity.claims import AMOUNT_MAX
from agentmesh.identity.grant import CHAIN_MAX, GRANT_CHARS_MAX
from agentmesh.node.baggage import check_baggage
from agentmesh.wire.views import CallRequest

_TIMEOUT_S_MIN, _TIMEOUT_S_MAX = 0.05, 86_400.0
_HEDGE_MS_MAX = 600_000
_ID_CHARS_MAX = 128
_TEXT_CHARS_MAX = 512
_ID = re.compile(r"[!-~]+", re.ASCII)


def budget_of(request: CallRequest) -> Budget:
    """Return what a call may use at most. Raises UsageError (code "call.budget")."""
    amounts: dict[str, Any] = request.budget
    for name, value in amounts.items():
        if name not in BUDGET_KEYS or type(value) is not int or not 0 <= value <= AMOUNT_MAX:
            raise UsageError(
                f"the call's budget for {name[:40]!r} is {str(value)[:40]!r}",
                code="call.budget",
                why=f"a budget bounds {', '.join(BUDGET_KEYS)}, each by an integer from 0 to 10^15",
                hint="1.50 USD is usd_micros: 1500000",
            )
    return Budget(**amounts)


def parts_of(request: CallRequest) -> list[dict[str, Any]]:
    """Check a call request and return its parts. Raises UsageError."""
    given = [request.text is not None, request.data is not None, request.parts is not None]
    if sum(given) != 1:
        raise UsageError("a call takes exactly one of text, data and parts", code="call.no_input")
    if request.timeout_s is not None and not _TIMEOUT_S_MIN <= request.timeout_s <= _TIMEOUT_S_MAX:
        raise UsageError(
            f"timeout_s is {request.timeout_s:g}; it goes from {_TIMEOUT_S_MIN} to {_TIMEOUT_S_MAX:g} s",
            code="call.bad_timeout",
        )
    if request.hedge_ms is not None and not (request.idempotent and 1 <= request.hedge_ms <= _HEDGE_MS_MAX):
        raise UsageError(
            f"hedge_ms goes from 1 to {_HEDGE_MS_MAX} ms, and only with idempotent",
            code="call.bad_hedge",
            why="a call that is hedged may run twice",
        )
    for field in (request.run_id, request.task_id, request.parent_task_id, request.context_id):
        if field is not None and not (0 < len(field) <= _ID_CHARS_MAX):
            raise UsageError(f"ids have 1 to {_ID_CHARS_MAX} characters", code="call.bad_id")
    for field in (request.run_id, request.task_id):  # they stand in the call token, and so in headers elsewhere
        if field is not None and not _ID.fullmatch(field):
            raise UsageError("ids of runs and tasks are printable ASCII without spaces", code="call.bad_id")
    for name, text in (("purpose", request.purpose), ("skill", request.skill or "")):
        if len(text) > _TEXT_CHARS_MAX or not text.isprintable():
            raise UsageError(
                f"the {name} is one line of at most {_TEXT_CHARS_MAX} printable characters", code=f"call.bad_{name}"
            )
    if not 0 <= request.priority <= PRIORITY_MAX:
        raise UsageError(f"priority is {request.priority}; it goes from 0 to {PRIORITY_MAX}", code="call.priority")
    check_baggage(request.baggage)
    if len(request.grants) > CHAIN_MAX or any(not 0 < len(grant) <= GRANT_CHARS_MAX for grant in request.grants):
        raise UsageError(
            f"a call carries at most {CHAIN_MAX} grants of {GRANT_CHARS_MAX} characters", code="call.bad_grants"
        )
    if not 0 <= request.lamport <= 2**52:
        raise UsageError("lamport is out of range", code="call.bad_id")
    if request.text is not None:
        return [{"text": request.text}]
    if request.data is not None:
        return [{"data": request.data}]
    parts = request.parts or []
    if not parts:
        raise UsageError("parts is empty", code="call.no_input")
    for part in parts:
        if sum(k in part for k in ("text", "data", "url", "raw")) != 1:
            raise UsageError("each part has exactly one of text, data, url and raw (A2A 1.0)", code="call.bad_part")
    return parts
