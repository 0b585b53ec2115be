"""Fold what an A2A agent sends about one task into happenings with exactly one end. Pure: no I/O.

The rules, each from a server met in the wild (research: adapters §5):

- Events of 0.3 may come from a 1.0 endpoint; both spellings are read everywhere. Timestamps are ignored.
- A working status message is progress, not answer; it becomes a status with text. If the task completes with neither
  message nor artifact text, what those messages said last is the answer.
- Artifacts are the answer: an update replaces the artifact of its id unless ``append`` is true. A snapshot (a whole task)
  repeats what is known already; only what differs is passed on.
- A completion message that repeats the artifacts' text is dropped; one beside artifact text is a status text.
- The answer may stand only in the task's history.
"""

from __future__ import annotations

from typing import Any

from agentmesh.adapters.a2a_parts import (
    artifact_of,
    is_agent,
    message_of,
    read_parts,
    state_of,
    status_of,
    task_of,
)
from agentmesh.adapters.shape import mapping, members, usage_in
from agentmesh.errors import AgentFailed, LimitError
from agentmesh.identity.manifest import EXT
from agentmesh.node.door import Happening
from agentmesh.wire.event import TERMINAL_STATES, text_of

ARTIFACTS_MAX = 1000
ANSWER_CHARS_MAX = 64 * 1024 * 1024
PROGRESS_MAX = 2000
#: Remarks of one task on how to undo it.
UNDO_MAX = 8


class TaskFold:
    """The story of one task.

    Attributes:
        task_id: The agent's own id of the task, "" before it said one.
        context_id: The agent's conversation id, "" before it said one.
        ended: True after the terminal happening.
    """

    def __init__(self) -> None:
        self.task_id = ""
        self.context_id = ""
        self.ended = False
        self._state = ""
        self._artifacts: dict[str, list[dict[str, Any]]] = {}
        self._size = 0
        self._answered = False
        self._progress = ""
        self._progress_id = ""
        self._used: dict[str, int] = {}
        self._seen_messages: set[str] = set()
        self._undo: list[dict[str, Any]] = []

    def feed(self, result: dict[str, Any]) -> list[Happening]:
        """Take one send result or stream event and return what it adds.

        Raises:
            AgentFailed: the task failed or was rejected; the text is the agent's own. ``ended`` is True.
            LimitError: more or larger artifacts than allowed.
        """
        if self.ended:
            return []
        return self._spent(result) + self._fold(result)

    def _spent(self, result: dict[str, Any]) -> list[Happening]:
        """Take what the agent says it has used so far: ``metadata[EXT].usage`` of a task, a message or an update."""
        said = message_of(result) or task_of(result) or status_of(result)
        used = usage_in(mapping(mapping(said.get("metadata")).get(EXT)).get("usage"))
        if not used or used == self._used:
            return []
        self._used = used
        return [Happening("status", {"state": "working", "usage": used})]

    def _fold(self, result: dict[str, Any]) -> list[Happening]:
        if message := message_of(result):
            return self._message(message)
        if task := task_of(result):
            return self._task(task)
        if update := status_of(result):
            self._ids(update.get("taskId"), update.get("contextId"))
            return self._status(mapping(update.get("status")))
        if update := artifact_of(result):
            self._ids(update.get("taskId"), update.get("contextId"))
            append, last = update.get("append") is True, update.get("lastChunk") is True
            return self._artifact(mapping(update.get("artifact")), append=append, last=last)
        return []

    def _ids(self, task_id: object, context_id: object) -> None:
        if isinstance(task_id, str) and task_id:
            self.task_id = task_id[:500]
        if isinstance(context_id, str) and context_id:
            self.context_id = context_id[:500]

    def _message(self, message: dict[str, Any]) -> list[Happening]:
        """A message instead of a task is the whole answer."""
        self._ids(message.get("taskId"), message.get("contextId"))
        return [*self._say(read_parts(message.get("parts"))), self._end("completed")]

    def _task(self, task: dict[str, Any]) -> list[Happening]:
        self._ids(task.get("id"), task.get("contextId"))
        out: list[Happening] = []
        for item in members(task.get("artifacts"))[: ARTIFACTS_MAX + 1]:
            artifact = mapping(item)
            if self._artifacts.get(_key(artifact)) != read_parts(artifact.get("parts")):
                out += self._artifact(artifact, append=False, last=True)
        return out + self._status(mapping(task.get("status")), history=members(task.get("history")))

    def _artifact(self, artifact: dict[str, Any], *, append: bool, last: bool) -> list[Happening]:
        key, parts = _key(artifact), read_parts(artifact.get("parts"))
        known = self._artifacts.get(key)
        if known is None and len(self._artifacts) >= ARTIFACTS_MAX:
            raise LimitError(f"the agent made more than {ARTIFACTS_MAX} artifacts", code="agent.answer_too_large")
        self._size += sum(len(str(p.get("text") or p.get("raw") or "")) for p in parts)
        if self._size > ANSWER_CHARS_MAX:
            raise LimitError("the agent's artifacts are too large", code="agent.answer_too_large")
        if append and known is not None:
            known.extend(parts)
        elif known == parts:
            return []  # the same again: nothing happened
        else:
            self._artifacts[key] = list(parts)
        payload: dict[str, Any] = {"artifact_id": key, "parts": parts, "append": append and known is not None}
        if last:
            payload["last"] = True
        if isinstance(name := artifact.get("name"), str) and name:
            payload["name"] = name[:200]
        if undo := self._new_undo(artifact):
            payload["undo"] = undo
        return [Happening("artifact", payload)]

    def _new_undo(self, said: dict[str, Any]) -> dict[str, Any]:
        """Return what an artifact or message says would undo the work, once; {} if nothing new."""
        undo = mapping(mapping(mapping(said.get("metadata")).get(EXT)).get("undo"))
        if not undo or undo in self._undo or len(self._undo) >= UNDO_MAX:
            return {}
        self._undo.append(undo)
        return undo

    def _status(self, status: dict[str, Any], history: list[Any] | None = None) -> list[Happening]:
        state, said = state_of(status.get("state"))
        message = mapping(status.get("message"))
        if undo := self._new_undo(message):
            return [Happening("status", {"state": "working", "undo": undo}), *self._status(status, history)]
        parts = read_parts(message.get("parts")) if is_agent(message.get("role")) else []
        text = text_of(parts)
        if state in ("submitted", "working"):
            return self._working(state, parts, text, str(message.get("messageId", ""))[:200])
        if state in ("failed", "rejected"):
            self.ended = True
            raise AgentFailed(
                text[:4000] or f"the agent {state} the task without saying why",
                code="agent.rejected" if state == "rejected" else None,
                extra={"state": state},
            )
        if state == "input-required":
            return [*self._say(parts), self._end(state, reason=said)]
        out: list[Happening] = []
        if state == "completed":
            out = self._conclude(parts, text, history or [])
        return [*out, self._end(state, text="" if self._answered or state == "completed" else text[:PROGRESS_MAX])]

    def _working(self, state: str, parts: list[dict[str, Any]], text: str, message_id: str) -> list[Happening]:
        if not text:
            changed, self._state = state != self._state, state
            return [Happening("status", {"state": state})] if changed else []
        if message_id and message_id == self._progress_id and not text.startswith(self._progress):
            self._progress += text  # pieces of one message
        elif text == self._progress:
            return []
        else:
            self._progress = text
        if len(self._progress) > ANSWER_CHARS_MAX:
            raise LimitError("the agent's answer is too large", code="agent.answer_too_large")
        self._progress_id, self._state = message_id, state
        return [Happening("status", {"state": state, "text": text, "parts": parts})]

    def _conclude(self, parts: list[dict[str, Any]], text: str, history: list[Any]) -> list[Happening]:
        """Decide what the answer is, now that the task has completed."""
        from_artifacts = [text_of(a) for a in self._artifacts.values()]
        if any(from_artifacts):
            if text and text not in from_artifacts and text != "".join(from_artifacts):
                return [Happening("status", {"state": "working", "text": text[:PROGRESS_MAX]})]
            return []
        if parts:
            return self._say(parts)
        if self._artifacts or self._answered:
            return []
        if said := _last_answer(history):
            return self._say(said)
        return self._say([{"text": self._progress}] if self._progress else [])

    def _say(self, parts: list[dict[str, Any]]) -> list[Happening]:
        if not parts:
            return []
        self._answered = True
        return [Happening("message", {"role": "agent", "parts": parts})]

    def _end(self, state: str, *, text: str = "", reason: str = "") -> Happening:
        self.ended = state in TERMINAL_STATES or state == "input-required"
        payload: dict[str, Any] = {"state": state}
        if self.context_id:
            payload["context_id"] = self.context_id
        if text:
            payload["text"] = text
        if reason == "auth-required":
            payload["reason"] = reason
        return Happening("status", payload)


def _key(artifact: dict[str, Any]) -> str:
    return str(artifact.get("artifactId") or artifact.get("name") or "artifact")[:200]


def _last_answer(history: list[Any]) -> list[dict[str, Any]]:
    """Return the parts of what the agent said after the last user message."""
    parts: list[dict[str, Any]] = []
    for item in reversed(history[-100:]):
        message = mapping(item)
        if not is_agent(message.get("role")):
            break
        parts = read_parts(message.get("parts")) + parts
    return parts
