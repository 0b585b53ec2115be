"""The calls of a run as its events tell them: who called whom, how it stands, since when."""

from __future__ import annotations

from collections.abc import Sequence

from agentmesh.store.roworder import Key
from agentmesh.wire.console_views import TaskRow
from agentmesh.wire.event import EventV1, is_end
from agentmesh.wire.rows import one_line

_TEXT_CHARS_MAX = 120
#: Memory of a call, bytes (measured).
_TASK_BYTES = 900
_FIRST: Key = (-1, -1, b"")


class _Task:
    """One call; ``*_key`` say which event a member was taken from."""

    __slots__ = (
        "agent",
        "agent_id",
        "agent_key",
        "caller",
        "end_key",
        "ended",
        "events",
        "first_ts",
        "from_node",
        "last_ts",
        "parent",
        "skill",
        "state",
        "state_key",
        "to_node",
    )

    def __init__(self, ts: int) -> None:
        self.first_ts = self.last_ts = ts
        self.events = 0
        self.parent = self.agent = self.agent_id = self.caller = self.skill = self.state = ""
        self.from_node = self.to_node = ""
        self.agent_key: Key | None = None
        self.state_key = self.end_key = _FIRST
        self.ended = True

    def name(self, event: EventV1, key: Key) -> None:
        """Take the names of the agent from the earliest event that has one."""
        if event.agent or event.agent_id:
            self.agent_key = key
            self.agent = one_line(event.agent or "", _TEXT_CHARS_MAX)
            self.agent_id = one_line(event.agent_id or "", _TEXT_CHARS_MAX)

    def turn(self, event: EventV1, key: Key, state: str) -> int:
        """Take a state that an event names; return by how much the number of open calls rises."""
        # A replica that lost to another one is told to stop and says so late: what was completed is not canceled by that.
        is_rivalry = {state, self.state} == {"completed", "canceled"}
        if state == "completed" if is_rivalry else key > self.state_key:
            self.state = one_line(state, 40)
            self.state_key = max(key, self.state_key)
        begun = state == "submitted"
        if begun and not self.caller:
            payload = event.payload
            self.caller, self.skill = _text(payload.get("from")), _text(payload.get("skill"))
            self.from_node, self.to_node = _text(event.node_id), _text(payload.get("to_node"))
        was = self.ended
        if (begun or is_end(state)) and key > self.end_key:
            self.end_key, self.ended = key, not begun
        return was - self.ended


class RunTasks:
    """All calls of a run, numbered in order of arrival."""

    __slots__ = ("_alone", "_numbers", "_tasks", "open")

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._tasks: list[_Task] = []
        #: What events without a task say of an end.
        self._alone = _Task(0)
        #: How many were begun and have not ended.
        self.open = 0

    @property
    def bytes(self) -> int:
        """Estimate of the memory that they take."""
        return len(self._tasks) * _TASK_BYTES

    def number(self, task_id: str) -> int | None:
        """Return the number of a call."""
        return self._numbers.get(task_id)

    def add(self, events: Sequence[EventV1], keys: Sequence[Key], states: Sequence[str | None]) -> list[int]:
        """Count events in and return the numbers of their calls, -1 for none.

        Args:
            events: In order of arrival.
            keys: Their places in the order of the run.
            states: What those name that are a status, else None.
        """
        numbers, tasks, out = self._numbers, self._tasks, list[int]()
        for event, key, state in zip(events, keys, states, strict=True):
            task_id = event.task_id
            if task_id is None:
                number, task = -1, self._alone
            elif task_id in numbers:
                number = numbers[task_id]
                task = tasks[number]
            else:
                number = numbers[task_id] = len(tasks)
                task = _Task(key[1])
                tasks.append(task)
            out.append(number)
            task.events += 1
            ts = key[1]
            if ts > task.last_ts:
                task.last_ts = ts
            elif ts < task.first_ts:
                task.first_ts = ts
            if event.parent_task_id and not task.parent:
                task.parent = event.parent_task_id[:_TEXT_CHARS_MAX]
            if task.agent_key is None or key < task.agent_key:
                task.name(event, key)
            if state:
                self.open += task.turn(event, key, state)
        return out

    def rows(self) -> list[TaskRow]:
        """Return every call; ``path`` is "local" or not told."""
        parents = [self._numbers.get(task.parent, -1) if task.parent else -1 for task in self._tasks]
        depths = _depths(parents)
        return [
            TaskRow(
                task_id=task_id,
                parent=parent,
                depth=depth,
                agent=task.agent,
                agent_id=task.agent_id,
                caller=task.caller,
                skill=task.skill,
                state=task.state,
                first_ts=task.first_ts,
                last_ts=task.last_ts,
                events=task.events,
                path="local" if task.to_node and task.to_node == task.from_node else "",
            )
            for task_id, task, parent, depth in zip(self._numbers, self._tasks, parents, depths, strict=True)
        ]

    def ends(self) -> list[tuple[str, str]]:
        """Return (node of the caller, node of the callee) of every call, "" where unknown."""
        return [(task.from_node, task.to_node) for task in self._tasks]


def _depths(parents: list[int]) -> list[int]:
    """Return how many calls stand above each, and cut every circle that parents claim (in ``parents`` too)."""
    depths = [-1] * len(parents)
    for number in range(len(parents)):
        way: list[int] = []
        at = number
        while at >= 0 and depths[at] == -1:
            depths[at] = -2
            way.append(at)
            at = parents[at]
        if at >= 0 and depths[at] == -2:
            parents[way[-1]] = -1
            at = -1
        depth = depths[at] if at >= 0 else -1
        for one in reversed(way):
            depth += 1
            depths[one] = depth
    return depths


def _text(value: object) -> str:
    return one_line(value, _TEXT_CHARS_MAX) if isinstance(value, str) else ""
