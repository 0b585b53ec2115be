"""The A2A tasks of this node: each one followable from any connection, all of them together bounded.

A task keeps its current snapshot and the last updates. A follower starts from a snapshot and then reads the updates by
position, so it can neither miss one nor slow the call down; one that falls too far behind gets a fresh snapshot and goes
on from there. Finished tasks are dropped by age, count and bytes: the event log still knows them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable

from a2a.types.a2a_pb2 import (
    Artifact,
    ListTasksRequest,
    Message,
    Part,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatusUpdateEvent,
)
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
from a2a.utils.errors import InvalidParamsError
from a2a.utils.task import ListTasksCursor, decode_list_tasks_cursor, encode_list_tasks_cursor

from agentmesh.errors import Busy, LimitError

Update = TaskStatusUpdateEvent | TaskArtifactUpdateEvent

#: Most bytes of answer that one A2A task collects. The node has its own, larger flood limit.
TASK_BYTES_MAX = 32 * 1024 * 1024
#: Updates kept for followers; one that is further behind gets a snapshot instead.
_UPDATES_MAX = 1024
_UPDATES_BYTES_MAX = 4 * 1024 * 1024
_HISTORY_MAX = 100

TERMINAL = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
    }
)


class TaskRecord:
    """One A2A task.

    Attributes:
        agent: Name of the agent it belongs to.
        run_id: The mesh run, once the call was admitted.
        call_id: The mesh task of the current turn; the first turn's is the A2A task id itself.
        turn: 1, then one more for each message sent to a task that asked for input.
        lamport: Logical time of the run as last seen.
        running: Whether a turn is under way.
    """

    def __init__(self, task: Task, agent: str) -> None:
        self.agent = agent
        self.run_id = ""
        self.call_id = task.id
        self.turn = 1
        self.lamport = 0
        self.running = False
        self.changed_s = time.monotonic()
        self._task = task
        self._bytes = task.ByteSize()
        self._artifacts: dict[str, Artifact] = {}
        self._open_text: list[str] = []
        self._open_part: Part | None = None
        self._updates: deque[tuple[Update, int]] = deque()
        self._updates_bytes = 0
        self._next = 0
        self._followers = 0
        self._wake = asyncio.Event()

    @property
    def id(self) -> str:
        """A2A task id."""
        return self._task.id

    @property
    def context_id(self) -> str:
        """A2A context id."""
        return self._task.context_id

    @property
    def state(self) -> int:
        """Current ``TaskState``."""
        return self._task.status.state

    @property
    def bytes(self) -> int:
        """Roughly what it occupies."""
        return self._bytes + self._updates_bytes

    @property
    def timestamp_ns(self) -> int:
        """Time of the last status, nanoseconds since 1970."""
        return self._task.status.timestamp.ToNanoseconds()

    def snapshot(self) -> Task:
        """Return a copy of the task as it is now."""
        self._close_text()
        copy = Task()
        copy.CopyFrom(self._task)
        return copy

    def begin_turn(self, message: Message | None = None) -> None:
        """Mark a turn as running; a follow-up message goes into the history."""
        if message is not None:
            self.turn += 1
            self._archive_status_message()
            self._remember(message)
        self.running = True

    def end_turn(self) -> None:
        """Mark the turn as over: followers end after what they have not read yet."""
        self._close_text()
        self.running = False
        self.changed_s = time.monotonic()
        self._notify()

    def has_artifact(self, artifact_id: str) -> bool:
        """Say whether an artifact of that id was begun."""
        return artifact_id in self._artifacts

    def publish(self, update: Update, *, joins: bool = False) -> None:
        """Fold an update into the task and show it to followers.

        Args:
            update: Status or artifact update.
            joins: The artifact's text continues the text of the update before (a delta).

        Raises:
            LimitError: the task would grow over ``TASK_BYTES_MAX``. Nothing changed.
        """
        size = update.ByteSize()
        if self._bytes + size > TASK_BYTES_MAX and isinstance(update, TaskArtifactUpdateEvent):
            raise LimitError(f"the answer is larger than {TASK_BYTES_MAX} bytes", code="limit.answer")
        self._bytes += size
        if isinstance(update, TaskStatusUpdateEvent):
            self._archive_status_message()
            self._task.status.CopyFrom(update.status)
            self._task.metadata.MergeFrom(update.metadata)
        else:
            self._fold(update, joins)
        self._updates.append((update, size))
        self._updates_bytes += size
        self._next += 1
        self.changed_s = time.monotonic()
        while len(self._updates) > _UPDATES_MAX or self._updates_bytes > _UPDATES_BYTES_MAX:
            self._updates_bytes -= self._updates.popleft()[1]
        self._notify()

    def _fold(self, update: TaskArtifactUpdateEvent, joins: bool) -> None:
        artifact_id = update.artifact.artifact_id
        artifact = self._artifacts.get(artifact_id)
        if artifact is None:
            self._close_text()
            artifact = self._task.artifacts.add()
            artifact.CopyFrom(update.artifact)
            self._artifacts[artifact_id] = artifact
        elif not update.append:
            self._close_text()
            artifact.CopyFrom(update.artifact)
        elif joins and self._open_part is not None:
            # Thousands of deltas would each copy the whole text; they are joined when someone looks.
            self._open_text.extend(part.text for part in update.artifact.parts)
            return
        else:
            self._close_text()
            artifact.parts.extend(
                part for part in update.artifact.parts if part.text or part.WhichOneof("content") != "text"
            )
        if joins and artifact.parts:
            self._open_part = artifact.parts[-1]
            self._open_text = [self._open_part.text]

    def _close_text(self) -> None:
        if self._open_part is not None:
            joined = "".join(self._open_text)
            self._open_part.text = joined
            self._open_text = [joined]

    def stop_joining(self) -> None:
        """Let the next text start a part of its own."""
        self._close_text()
        self._open_part = None
        self._open_text = []

    def _archive_status_message(self) -> None:
        if self._task.status.HasField("message"):
            self._remember(self._task.status.message)
            self._task.status.ClearField("message")

    def _remember(self, message: Message) -> None:
        self._task.history.append(message)
        if len(self._task.history) > _HISTORY_MAX:
            del self._task.history[0]

    def _notify(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    async def follow(self) -> AsyncGenerator[Task | Update]:
        """Yield the task as it is now, then every update until the turn is over."""
        self._followers += 1
        try:
            position = self._next
            yield self.snapshot()
            while True:
                while position < self._next:
                    first = self._next - len(self._updates)
                    if position < first:
                        # The last status is said again, since some clients wait for it and not for a task.
                        position = self._next - (0 if self.running else 1)
                        yield self.snapshot()
                        continue
                    update = self._updates[position - first][0]
                    position += 1
                    yield update
                if not self.running:
                    return
                await self._wake.wait()
        finally:
            self._followers -= 1
            self.trim()

    async def wait(self) -> None:
        """Wait until no turn is running."""
        while self.running:
            await self._wake.wait()

    def trim(self) -> None:
        """Free the updates that nobody will read any more."""
        if not self.running and not self._followers:
            self._updates.clear()
            self._updates_bytes = 0


class TaskBook:
    """All A2A tasks of this node.

    Args:
        tasks_max: Most tasks kept; when all of them run, ``add`` refuses. 500 finished tasks are a day of a busy client (guess).
        bytes_max: Most bytes of finished tasks kept; older ones are read from the event log again.
        age_s: Finished tasks older than this are dropped.
        now: Monotonic clock in seconds.
    """

    def __init__(
        self,
        *,
        tasks_max: int = 500,
        bytes_max: int = 16 * 1024 * 1024,
        age_s: float = 3600.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks_max, self._bytes_max, self._age_s, self._now = tasks_max, bytes_max, age_s, now
        self._records: dict[str, TaskRecord] = {}

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: TaskRecord) -> None:
        """Keep a task, dropping old finished ones for it.

        Raises:
            Busy: every place is taken by a running task. Nothing changed.
        """
        self.evict()
        if len(self._records) >= self._tasks_max:
            self._drop_oldest_finished()
        if len(self._records) >= self._tasks_max:
            raise Busy(f"{self._tasks_max} A2A tasks are running on this node", code="refused.busy.tasks")
        self._records[record.id] = record

    def get(self, task_id: str, agent: str) -> TaskRecord | None:
        """Return a task of that agent."""
        record = self._records.get(task_id)
        return record if record is not None and record.agent == agent else None

    def knows(self, agent: str) -> bool:
        """Say whether any task of that agent is kept."""
        return any(record.agent == agent for record in self._records.values())

    def evict(self) -> None:
        """Drop finished tasks that are too old, or too many bytes together, oldest first."""
        finished = sorted((r for r in self._records.values() if not r.running), key=lambda r: r.changed_s)
        held = sum(record.bytes for record in finished)
        for record in finished:
            if held <= self._bytes_max and self._now() - record.changed_s <= self._age_s:
                break
            held -= record.bytes
            del self._records[record.id]

    def _drop_oldest_finished(self) -> None:
        finished = [record for record in self._records.values() if not record.running]
        if finished:
            del self._records[min(finished, key=lambda r: r.changed_s).id]

    def page(self, agent: str, params: ListTasksRequest) -> tuple[list[Task], str, int]:
        """Return one page of an agent's tasks, last changed first: (tasks, next page token or "", how many there are).

        Raises:
            InvalidParamsError: the page token is none of ours.
        """
        records = [record for record in self._records.values() if record.agent == agent and _matches(record, params)]
        records.sort(key=_position, reverse=True)
        total = len(records)
        if params.page_token:
            cursor = decode_list_tasks_cursor(params.page_token)
            if cursor is None:
                raise InvalidParamsError("the page token is not valid")
            records = [record for record in records if _position(record) < cursor.sort_key()]
        size = params.page_size or DEFAULT_LIST_TASKS_PAGE_SIZE
        token = ""
        if len(records) > size:
            last = records[size - 1]
            token = encode_list_tasks_cursor(ListTasksCursor(timestamp_ns=last.timestamp_ns, task_id=last.id))
        return [record.snapshot() for record in records[:size]], token, total


def _position(record: TaskRecord) -> tuple[bool, int, str]:
    return (True, record.timestamp_ns, record.id)


def _matches(record: TaskRecord, params: ListTasksRequest) -> bool:
    if params.context_id and record.context_id != params.context_id:
        return False
    if params.status and record.state != params.status:
        return False
    after = params.status_timestamp_after.ToNanoseconds() if params.HasField("status_timestamp_after") else 0
    return record.timestamp_ns >= after
