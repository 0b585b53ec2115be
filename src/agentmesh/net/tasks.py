"""The one door through which tasks are spawned: a scope that owns them, logs their failures and ends with them.

A bare ``asyncio.create_task`` may be garbage-collected and swallows its exception; ruff bans it. A scope keeps a strong
reference, bounds how many run at once, and cancels what is left when it closes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from agentmesh.errors import Busy, StateError

_log = logging.getLogger("agentmesh.tasks")


class TaskScope:
    """Own a bounded set of tasks.

    Args:
        name: For logs and task names.
        tasks_max: Most tasks alive at once.
    """

    def __init__(self, name: str, *, tasks_max: int = 10_000) -> None:
        self.name = name
        self.tasks_max = tasks_max
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str = "", *, quiet: bool = False) -> asyncio.Task[Any]:
        """Start a task owned by this scope; ``quiet`` leaves its failure to whoever awaits it instead of the log.

        Raises:
            StateError: the scope is closed. The coroutine was closed unrun.
            Busy: ``tasks_max`` tasks are alive. The coroutine was closed unrun.
        """
        if self._closed or len(self._tasks) >= self.tasks_max:
            coroutine.close()
            if self._closed:
                raise StateError(f"task scope {self.name!r} is closed", code="state.closed")
            raise Busy(f"{self.tasks_max} tasks are running in {self.name!r}", code="refused.busy.tasks")
        task: asyncio.Task[Any] = asyncio.create_task(coroutine, name=f"{self.name}:{name}")  # noqa: TID251
        self._tasks.add(task)
        task.add_done_callback(self._done_quiet if quiet else self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task %s failed", task.get_name(), exc_info=error)

    def _done_quiet(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """Cancel every task and wait for them, at most ``timeout_s``. Idempotent."""
        self._closed = True
        current = asyncio.current_task()
        tasks = [t for t in self._tasks if t is not current]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
