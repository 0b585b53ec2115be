"""Run one turn of an A2A task through the node and fold its EventV1s into the task.

    message (agent)     chunks of one artifact, "response" (a second turn: "response-2"), closed by ``last_chunk``
    artifact            artifact of the same id
    status working      status update; completed, failed, canceled, rejected and input-required end the turn
    tool, reasoning     status update "working" whose ``metadata[EXT]`` holds ``tool`` or ``reasoning``; clients that do not
                        know the extension see that the agent is at work
    error               text of the failed status, and ``metadata[EXT].error``

``metadata[EXT]`` of every status update, and so of the task, names run, call, agent and node: ``agentmesh trace RUN_ID``. In that
of the last one stands the receipt, if the agent gave one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from a2a.types.a2a_pb2 import (
    Artifact,
    Message,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)

from agentmesh.api.a2a.parts import parts_to_proto, plain_text, text_part, to_struct
from agentmesh.api.a2a.tasks import TERMINAL, TaskRecord
from agentmesh.api.backend import Call, View
from agentmesh.errors import AgentCanceled, AgentFailed, MeshError, Refused, to_wire
from agentmesh.identity.manifest import EXT
from agentmesh.wire.event import EventV1, is_end, state_of

STATES: dict[str, int] = {
    "submitted": TaskState.TASK_STATE_SUBMITTED,
    "working": TaskState.TASK_STATE_WORKING,
    "input-required": TaskState.TASK_STATE_INPUT_REQUIRED,
    "completed": TaskState.TASK_STATE_COMPLETED,
    "failed": TaskState.TASK_STATE_FAILED,
    "canceled": TaskState.TASK_STATE_CANCELED,
    "rejected": TaskState.TASK_STATE_REJECTED,
}
_TEXT_MAX = 4000


class Fold:
    """Fold the events of one turn into its task.

    Args:
        record: The task.
        now_us: Wall clock in microseconds, for what no event dates.
    """

    def __init__(self, record: TaskRecord, *, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._record = record
        self._now_us = now_us
        self._response_id = "response" if record.turn == 1 else f"response-{record.turn}"
        self._answered = False
        self._open_delta = False
        self._said: list[str] = []
        self._error: dict[str, Any] | None = None
        self._who: dict[str, Any] = {}
        self.ended = False
        #: What the agent signed of the turn; it goes with the last status.
        self.receipt = ""

    def take(self, event: EventV1) -> None:
        """Fold one event; what follows the end of the turn is ignored.

        Raises:
            LimitError: the answer is larger than a task may be. The event was not folded.
        """
        if self.ended:
            return
        record = self._record
        record.lamport = max(record.lamport, event.lamport)
        for name, value in (("agent_id", event.agent_id), ("agent", event.agent), ("node_id", event.node_id)):
            if value:
                self._who[name] = value
        payload = event.payload
        match event.kind:
            case "message":
                self._message(payload)
            case "artifact":
                self._artifact(payload)
            case "status":
                self._status(payload, event.ts)
            case "tool":
                self._working(event.ts, {"tool": payload})
            case "reasoning":
                self._working(event.ts, {"reasoning": payload})
            case "error":
                self._error = payload

    def fail(self, error: MeshError) -> None:
        """End the turn with an error: a lawful no is "rejected", a cancellation "canceled", all else "failed"."""
        lawful = "rejected" if isinstance(error, Refused) else "failed"
        state = "canceled" if isinstance(error, AgentCanceled) else lawful
        self._error = self._error or to_wire(error)
        self.end(state, error.detail)

    def end(self, state: str, detail: str = "", ts: int | None = None) -> None:
        """End the turn in a terminal state or in "input-required"."""
        if self.ended:
            return
        self.ended = True
        if self._answered:
            self._publish_artifact(
                Artifact(artifact_id=self._response_id, parts=[text_part("")]), append=True, last=True
            )
        extra: dict[str, Any] = {"receipt": self.receipt} if self.receipt else {}
        text = detail
        if state in ("failed", "rejected", "canceled"):
            if self._error is not None:
                extra["error"] = self._error
                text = str(self._error.get("message") or detail)
            if not text and state != "canceled":
                text = "the agent failed without saying why"
        elif state == "input-required":
            text = "".join(self._said) or detail
        else:
            text = ""
        self._publish_status(STATES[state], self._now_us() if ts is None else ts, extra, text)
        self._record.end_turn()

    def _message(self, payload: dict[str, Any]) -> None:
        if payload.get("role", "agent") == "user":
            return
        raw: list[Any] = payload.get("parts") or []
        parts = parts_to_proto(raw)
        if not parts:
            return
        texts = [plain_text(part) for part in raw]
        delta = bool(payload.get("delta")) and all(text is not None for text in texts)
        if not (delta and self._open_delta):
            self._record.stop_joining()
            if self._answered and self._said:
                self._said.append("\n")
        self._said.extend(text for text in texts if text)
        artifact = Artifact(artifact_id=self._response_id, name="response", parts=parts)
        self._publish_artifact(artifact, append=self._answered, joins=delta)
        self._answered = True
        self._open_delta = delta

    def _artifact(self, payload: dict[str, Any]) -> None:
        artifact_id = str(payload.get("artifact_id") or "artifact")[:256]
        if artifact_id == self._response_id:
            artifact_id = f"agent:{artifact_id}"
        artifact = Artifact(artifact_id=artifact_id, parts=parts_to_proto(payload.get("parts")))
        for name in ("name", "description"):
            if isinstance(payload.get(name), str):
                setattr(artifact, name, payload[name][:_TEXT_MAX])
        if not artifact.parts:
            artifact.parts.append(text_part(""))
        append = bool(payload.get("append")) and self._record.has_artifact(artifact_id)
        self._publish_artifact(artifact, append=append, last=bool(payload.get("last")))

    def _status(self, payload: dict[str, Any], ts: int) -> None:
        state = str(payload.get("state"))
        if state not in STATES:
            return
        detail = _text_of_status(payload)
        if STATES[state] in TERMINAL or state == "input-required":
            self.end(state, detail, ts)
        elif detail or (state == "working" and self._record.state != STATES[state]):
            # A remote agent may say "submitted" after its node said "working"; a task does not go back.
            self._publish_status(TaskState.TASK_STATE_WORKING, ts, {}, detail)

    def _working(self, ts: int, extra: dict[str, Any]) -> None:
        self._publish_status(TaskState.TASK_STATE_WORKING, ts, extra, "")

    def _publish_artifact(self, artifact: Artifact, *, append: bool, last: bool = False, joins: bool = False) -> None:
        record = self._record
        self._record.publish(
            TaskArtifactUpdateEvent(
                task_id=record.id, context_id=record.context_id, artifact=artifact, append=append, last_chunk=last
            ),
            joins=joins,
        )

    def _publish_status(self, state: int, ts: int, extra: dict[str, Any], text: str) -> None:
        record = self._record
        status = status_of(state, ts)
        if text:
            status.message.CopyFrom(
                Message(
                    message_id=f"{record.call_id}-{record.lamport}-{state}",
                    role=Role.ROLE_AGENT,
                    task_id=record.id,
                    context_id=record.context_id,
                    parts=[text_part(text[:_TEXT_MAX])],
                )
            )
        about = {"run_id": record.run_id, "task_id": record.call_id, **self._who, **extra}
        record.publish(
            TaskStatusUpdateEvent(
                task_id=record.id, context_id=record.context_id, status=status, metadata=to_struct({EXT: about})
            )
        )


def status_of(state: int, ts: int) -> TaskStatus:
    """Return a status with its time, ``ts`` in microseconds since 1970."""
    status = TaskStatus(state=state)  # pyright: ignore[reportArgumentType]
    status.timestamp.FromMicroseconds(ts)
    return status


def _text_of_status(payload: dict[str, Any]) -> str:
    for name in ("message", "detail", "text"):
        if isinstance(value := payload.get(name), str):
            return value
    return ""


class Executor:
    """Runs turns against the node."""

    def __init__(self, backend: View) -> None:
        self._backend = backend

    async def run(self, record: TaskRecord, begin: Callable[[], Awaitable[Call]]) -> None:
        """Run one turn to its end. Every way out leaves the task ended; nothing is raised but cancellation.

        Args:
            record: Its task.
            begin: Starts the call.
        """
        fold = Fold(record)
        try:
            call = await begin()
            record.run_id, record.call_id = call.run_id, call.task_id
            last: EventV1 | None = None
            try:
                async for event in call:
                    if last is None and event.kind == "status" and is_end(state_of(event.payload)):
                        last = event  # told with the receipt, which is signed after it
                    elif last is None:
                        fold.take(event)
                await _end(fold, call, last)
            finally:
                await call.aclose()
        except MeshError as error:
            fold.fail(error)
        finally:
            if not fold.ended:
                # Cancelled before the node took the call, or a bug: nobody may wait for this task for ever.
                fold.fail(
                    AgentCanceled("the task was canceled") if _cancelling() else AgentFailed("the call broke off")
                )

    async def rebuild(self, task_id: str, agent: str) -> TaskRecord | None:
        """Return a task of that agent as the event log tells it, or None. It is not followable."""
        events = [event for event in await self._backend.task_events(task_id) if event.task_id == task_id]
        name = agent.rpartition("/")[2]  # what the tenant's view tells is the tenant's
        if not events or not any(event.agent == name for event in events):
            return None
        first = events[0]
        task = Task(id=task_id, context_id=first.run_id, status=status_of(TaskState.TASK_STATE_SUBMITTED, first.ts))
        asked = next((event for event in events if event.kind == "status" and event.payload.get("input")), None)
        if asked is not None:
            parts = parts_to_proto(asked.payload["input"])
            task.history.append(Message(message_id=asked.id, role=Role.ROLE_USER, task_id=task_id, parts=parts))
        record = TaskRecord(task, agent)
        record.run_id = first.run_id
        fold = Fold(record, now_us=lambda: events[-1].ts)
        for event in events:
            fold.take(event)
        return record


async def _end(fold: Fold, call: Call, last: EventV1 | None) -> None:
    """End a turn as its call ended, with the receipt. Raises MeshError: it never reached an agent, or may not be told."""
    try:
        reply = await call.reply()
    except MeshError as error:
        fold.receipt = str(error.extra.get("receipt", ""))
        if last is None or state_of(last.payload) in ("completed", "input-required"):
            raise
        fold.take(last)
    else:
        fold.receipt = reply.receipt
        if last is not None:
            fold.take(last)
        fold.end(reply.state)


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
