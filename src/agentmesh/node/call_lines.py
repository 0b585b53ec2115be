"""One line of daemon.log for each call that is over, at its caller's node and at its callee's (docs/reference/logs.md).

Who called whom, for what, within which budget, and how it ended: ids, names and codes. What was said, by people or agents, is
never in it: no parts, no answers, no texts of errors, no purpose.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from agentmesh.codec.tracecontext import read_trace
from agentmesh.errors import CallerError, MeshError, Refused
from agentmesh.ids import NodeId
from agentmesh.node.call import Call
from agentmesh.node.callee import Ended, Visit
from agentmesh.node.figures import outcome_of
from agentmesh.wire import v1
from agentmesh.wire.views import CallRequest

_log = logging.getLogger("agentmesh.call")

#: Names and ids that others chose are cut to so many characters.
_CHARS_MAX = 200
#: Calls turned away for their token in a minute that get a line each; of the others there is one line with their number.
_TURNED_AWAY_MAX = 60
_WINDOW_S = 60.0


class CallLines:
    """Write the lines.

    Args:
        node_id: This node.
        way_to: Node id → (path, transport) of the link to it.
        is_on: Whether lines are wanted.
        now_s: The monotonic clock.
    """

    def __init__(
        self,
        node_id: NodeId,
        way_to: Callable[[NodeId], tuple[str, str]],
        *,
        is_on: bool = True,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node_id, self._way_to, self._is_on, self._now_s = node_id, way_to, is_on, now_s
        self._window_s = -_WINDOW_S
        self._turned_away = 0

    def _is_wanted(self) -> bool:
        return self._is_on and _log.isEnabledFor(logging.INFO)

    def served(self, visit: Visit, ended: Ended) -> None:
        """Write the line of a call at an agent beside this node."""
        if not self._is_wanted():
            return
        message, claims, manifest, witness = visit.message, visit.token.claims, visit.agent.manifest, visit.witness
        peer = visit.peer
        path, transport = (
            ("local", "local") if peer == self._node_id else self._way_to(peer) if peer else ("local", "http")
        )
        used = witness.usage
        _write(
            "in",
            ended.state,
            ended.error,
            witness.wall_s,
            trace_id=visit.trace.trace_id,
            span_id=visit.trace.span_id,
            run_id=claims.trace_id,
            task_id=message.task_id,
            caller_id=visit.token.caller,
            caller=message.caller_name,
            agent_id=message.agent_id,
            agent=manifest.name,
            skill=message.skill,
            node_id=peer,
            path=path,
            transport=transport,
            budget=claims.budget.to_claim(),
            used=witness.spent.to_claim() if used is not None else None,
        )

    def turned_away(self, peer: NodeId, message: v1.CallOpen, error: MeshError) -> None:
        """Write the line of a call whose token does not hold: who called is only what it claims."""
        if not self._is_wanted() or not self._has_room():
            return
        path, transport = ("local", "http") if peer == self._node_id else self._way_to(peer)
        trace = read_trace(message.traceparent)
        _write(
            "in",
            "rejected",
            error,
            0.0,
            trace_id="" if trace is None else trace.trace_id,
            run_id=message.run_id,
            task_id=message.task_id,
            claimed_id=message.caller,
            agent_id=message.agent_id,
            skill=message.skill,
            node_id=peer,
            path=path,
            transport=transport,
        )

    def made(self, call: Call) -> None:
        """Write the line of a call that was started here."""
        if not self._is_wanted():
            return
        opening = call.opening
        _write(
            "out",
            outcome_of(call),
            call.error,
            call.seconds,
            trace_id=call.trace.trace_id,
            span_id=call.trace.span_id,
            run_id=call.run_id,
            task_id=call.task_id,
            caller_id="" if opening is None else opening.caller,
            caller="" if opening is None else opening.caller_name,
            agent_id=call.agent_id,
            agent=call.agent,
            skill=None if opening is None else opening.skill,
            node_id=call.node_id,
            path="none" if call.transport == "none" else call.path,
            transport=call.transport,
            budget=call.budget.to_claim(),
            tried=len(call.tried) or None,
        )

    def unstarted(self, request: CallRequest, error: MeshError) -> None:
        """Write the line of a call that was not started; one that was asked for in a wrong way has none."""
        if not self._is_wanted() or isinstance(error, CallerError):
            return
        trace = read_trace(request.traceparent)
        _write(
            "out",
            "rejected" if isinstance(error, Refused) else "failed",
            error,
            0.0,
            trace_id="" if trace is None else trace.trace_id,
            run_id=request.run_id,
            task_id=request.task_id,
            caller=request.from_agent,
            agent=request.to,
            skill=request.skill,
            path="none",
            transport="none",
        )

    def _has_room(self) -> bool:
        """Say whether one more call that was turned away gets a line of its own."""
        now_s = self._now_s()
        if now_s - self._window_s >= _WINDOW_S:
            if self._turned_away > _TURNED_AWAY_MAX:
                more = self._turned_away - _TURNED_AWAY_MAX
                _log.warning("%d more calls were turned away within a minute", more, extra={"count": more})
            self._window_s, self._turned_away = now_s, 0
        self._turned_away += 1
        return self._turned_away <= _TURNED_AWAY_MAX


def _write(direction: str, result: str, error: MeshError | None, seconds: float, **fields: Any) -> None:
    """Write a line; a field that says nothing is left out."""
    extra: dict[str, Any] = {"direction": direction, "result": result}
    if error is not None:
        extra["code"] = error.code
    extra["ms"] = round(max(0.0, seconds) * 1000, 3)
    for name, value in fields.items():
        if value:
            extra[name] = value[:_CHARS_MAX] if isinstance(value, str) else value
    _log.info("call", extra=extra)
