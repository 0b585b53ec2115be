"""Calls as spans, for exporters: the caller's side when a call is over where it was made, the callee's where it was served.

Names follow the semantic conventions of OpenTelemetry for agents, pinned (adr/0008; docs/reference/opentelemetry.md). What was
said in a call, its purpose and the words of an agent's error are content: they are left out unless ``content`` is on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from agentmesh.codec.tracecontext import TraceContext
from agentmesh.errors import AgentFailed, MeshError
from agentmesh.identity.budget import BUDGET_KEYS, Budget, Usage
from agentmesh.identity.claims import hash_of
from agentmesh.ids import NodeId
from agentmesh.node.call import Call
from agentmesh.node.callee import Ended, Visit
from agentmesh.node.figures import outcome_of
from agentmesh.obs.spans import CONTENT_MAX, MARKS_MAX, Mark, Span, Value, fit_text
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1, text_of
from agentmesh.wire.views import SpanExportView

_GOOD = ("completed", "input-required")


class SpanKit(NamedTuple):
    """Where spans go.

    Attributes:
        take: Takes one that is over; returns at once and never raises.
        content: Whether what was said in calls goes along.
        view: Says how they are exported.
        warnings: Says what people should know of that.
    """

    take: Callable[[Span], None]
    content: bool
    view: Callable[[], SpanExportView]
    warnings: Callable[[], list[str]]


class Spans:
    """Make spans of calls that are sampled. A check only to hear what an agent tells; it refuses nothing.

    Args:
        kit: Where they go.
        node_id: This node.
        way_to: Node id → (path, transport) of the link to it.
    """

    def __init__(self, kit: SpanKit, node_id: NodeId, way_to: Callable[[NodeId], tuple[str, str]]) -> None:
        self._kit, self._node_id, self._way_to = kit, node_id, way_to

    async def enter(self, visit: Visit) -> None:
        """Listen to what the agent tells from now on. Never raises."""
        if visit.trace.sampled:
            visit.listener = _Heard(content=self._kit.content)

    def leave(self, visit: Visit, ended: Ended) -> None:
        """Nothing was taken."""

    def served(self, visit: Visit, ended: Ended) -> None:
        """Tell of a call that ended at an agent beside this node."""
        if not visit.trace.sampled:
            return
        message, manifest, claims = visit.message, visit.agent.manifest, visit.token.claims
        attributes = _common(message, manifest.agent_id, manifest.name, ended.state, ended.receipt)
        attributes["gen_ai.agent.version"] = manifest.version
        attributes["agentmesh.caller.id"] = visit.token.caller
        if visit.peer == self._node_id:
            attributes["agentmesh.path"] = "local"
        elif visit.peer:
            attributes["agentmesh.caller.node.id"] = visit.peer
            attributes["agentmesh.path"], attributes["agentmesh.transport"] = self._way_to(visit.peer)
        _amounts(attributes, "budget", claims.budget)
        if ended.state != "rejected":
            _amounts(attributes, "usage", visit.witness.spent)
        heard = visit.listener if isinstance(visit.listener, _Heard) else _NOTHING
        said = _content(message.parts, heard.text(), ended.state) if self._kit.content else {}
        self._give(visit.trace, "server", manifest.name, visit.witness.wall_s, attributes, said, ended.error, heard)

    def turned_away(self, peer: NodeId, message: v1.CallOpen, error: MeshError) -> None:
        """Tell nothing: who is not known must not be able to write into anybody's traces. The caller's side tells."""

    def made(self, call: Call) -> None:
        """Tell of a call that is over where it was made."""
        message = call.opening
        if message is None or not call.trace.sampled:
            return
        attributes = _common(message, call.agent_id, call.agent, outcome_of(call), call.receipt)
        attributes["agentmesh.caller.id"], attributes["agentmesh.caller.name"] = message.caller, message.caller_name
        if call.transport != "none":  # else it went nowhere
            attributes["agentmesh.path"], attributes["agentmesh.transport"] = call.path, call.transport
        if call.node_id and call.node_id != self._node_id:
            attributes["agentmesh.callee.node.id"] = call.node_id
        if call.tried:
            attributes["agentmesh.tried"] = len(call.tried)
        _amounts(attributes, "budget", call.budget)
        said: dict[str, Value] = {}
        if self._kit.content:
            heard = _Heard(content=True)
            for event in call.events:
                heard(event)
            said = _content(message.parts, heard.text(), outcome_of(call))
        self._give(call.trace, "client", call.agent, call.seconds, attributes, said, call.error, _NOTHING)

    def _give(
        self,
        trace: TraceContext,
        kind: Literal["client", "server"],
        agent: str,
        seconds: float,
        attributes: dict[str, Value],
        said: dict[str, Value],
        error: MeshError | None,
        heard: _Heard,
    ) -> None:
        state = str(attributes["agentmesh.state"])
        code = error.code if error is not None else "" if state in _GOOD else state
        if code:
            attributes["error.type"] = code
        told = error is not None and (self._kit.content or not isinstance(error, AgentFailed))
        if heard.left_out:
            attributes["agentmesh.marks.left_out"] = heard.left_out
        ended_ns = time.time_ns()
        self._kit.take(
            Span(
                trace,
                kind,
                fit_text(f"invoke_agent {agent}"),
                # By the clock that nobody sets: a wall clock that jumped meanwhile would make spans end before they began.
                ended_ns - max(0, int(seconds * 1e9)),
                ended_ns,
                {n: fit_text(v) if isinstance(v, str) else v for n, v in attributes.items() if v != ""} | said,
                code,
                fit_text(error.detail) if error is not None and told else "",
                heard.marks,
            )
        )


class _Heard:
    """What an agent told in one call, as far as a span holds it."""

    def __init__(self, *, content: bool) -> None:
        self._content = content
        self._said: list[str] = []
        self._room = CONTENT_MAX
        self.marks: list[Mark] = []
        self.left_out = 0

    def __call__(self, event: EventV1) -> None:
        """Take an event of the callee."""
        if event.kind == "tool":
            self._mark(event)
        elif self._content and self._room > 0 and event.kind in ("message", "artifact"):
            text = text_of(event.payload.get("parts"))[: self._room]
            self._room -= len(text)
            self._said.append(text)

    def _mark(self, event: EventV1) -> None:
        if len(self.marks) >= MARKS_MAX:
            self.left_out += 1
            return
        payload = event.payload
        attributes: dict[str, Value] = {"gen_ai.operation.name": "execute_tool"}
        attributes["gen_ai.tool.name"] = fit_text(str(payload.get("name") or "?"), 200)
        if self._content:
            for name, key in (("arguments", "args"), ("result", "result")):
                if payload.get(key) is not None:
                    attributes[f"gen_ai.tool.call.{name}"] = _json(payload[key])
        self.marks.append(Mark(event.ts * 1000, "agentmesh.tool", attributes))

    def text(self) -> str:
        """Return what was said."""
        return "".join(self._said)


#: Of calls that nothing was heard of, and of callers: an agent's tools are told on its own side.
_NOTHING = _Heard(content=False)


def _common(message: v1.CallOpen, agent_id: str, agent: str, state: str, receipt: str) -> dict[str, Value]:
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "agentmesh",
        "gen_ai.agent.id": agent_id,
        "gen_ai.agent.name": agent,
        "agentmesh.run.id": message.run_id,
        "agentmesh.task.id": message.task_id,
        "agentmesh.state": state,
        "agentmesh.hops": len(message.hops),
    }
    for name, value in (
        ("gen_ai.conversation.id", message.context_id),
        ("agentmesh.task.parent_id", message.parent_task_id),
        ("agentmesh.skill", message.skill),
        ("agentmesh.receipt.digest", hash_of(receipt) if receipt else None),
    ):
        if value:
            attributes[name] = value
    return attributes


def _amounts(attributes: dict[str, Value], what: str, amounts: Budget | Usage) -> None:
    for key in BUDGET_KEYS:
        value = getattr(amounts, key)
        if value is not None:
            attributes[f"agentmesh.{what}.{key}"] = value


def _content(asked: Sequence[Mapping[str, Any]], answer: str, state: str) -> dict[str, Value]:
    """Return what was said as the conventions have it: messages of text parts, as JSON."""
    said: dict[str, Value] = {"gen_ai.input.messages": _messages("user", text_of(list(asked)))}
    if answer:
        finish = "stop" if state in _GOOD else "error"
        said["gen_ai.output.messages"] = _messages("assistant", answer, finish_reason=finish)
    return said


def _messages(role: str, text: str, **more: str) -> str:
    parts = [{"type": "text", "content": fit_text(text, CONTENT_MAX)}]
    return msgspec.json.encode([{"role": role, "parts": parts, **more}]).decode()


def _json(value: object) -> str:
    try:
        return fit_text(msgspec.json.encode(value).decode(), CONTENT_MAX)
    except (TypeError, ValueError, RecursionError):
        return "?"
