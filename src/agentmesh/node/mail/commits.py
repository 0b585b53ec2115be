"""Group commit: what many messages want written goes to disk together, in one thread of its own.

While one batch is on its way to the disk, what comes meanwhile gathers for the next; so batches form by themselves under load,
and a lone message waits for one fsync only. The thread and the file are made when the first thing is to be written or read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from agentmesh.errors import MeshError, StateError, StoreError
from agentmesh.net.tasks import TaskScope
from agentmesh.store.mail import Batch, DeadRow, Ended, InRow, MailStore, OutRow

_log = logging.getLogger("agentmesh.mail")
_T = TypeVar("_T")

#: Notes (not messages) that may wait while the disk refuses to be written; the oldest go, and are repeated after a restart.
_NOTES_MAX = 100_000


class Commits:
    """Write messages in groups.

    Args:
        path: The file.
        scope: Owns the writing task.
        tally: Counts that are written along with every batch.
    """

    def __init__(self, path: Path, scope: TaskScope, tally: Callable[[], dict[str, int]]) -> None:
        self.path = path
        self._tally = tally
        #: The last number given to a message: tags of outgoing ones and cursors of inboxes only rise, also over restarts.
        self.number = 0
        self._scope = scope
        self._thread: ThreadPoolExecutor | None = None
        self._store: MailStore | None = None
        self._next = Batch()
        self._done: asyncio.Future[set[int]] | None = None
        self._wake = asyncio.Event()
        self._running = False
        self._closed = False

    @property
    def exists(self) -> bool:
        """Whether there is a file, or will be."""
        return self._store is not None or self.path.exists()

    async def read(self, job: Callable[[MailStore], _T]) -> _T:
        """Run something with the store, between two batches. Raises StoreError, ConfigError, StateError (closed)."""
        if self._closed:
            raise StateError("the mail room is closed", code="state.closed")
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="mail")
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: job(self._opened()))

    def _opened(self) -> MailStore:
        if self._store is None:
            self._store = MailStore.open(self.path)
        return self._store

    async def add(self, out: list[OutRow], came: list[InRow]) -> set[int]:
        """Put messages on disk; return the cursors of those that had come before.

        Raises:
            StoreError: none of them is on disk.
        """
        batch = self._next
        batch.out += out
        batch.came += came
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        done = self._done
        self._begin()
        return await asyncio.shield(done)

    async def settle(self) -> None:
        """Wait until what was noted so far is written, or cannot be."""
        if self._running or not self._next.is_empty:
            with contextlib.suppress(MeshError):
                await self.add([], [])

    def note(
        self,
        *,
        ended: list[Ended] | None = None,
        taken: list[tuple[int]] | None = None,
        tries: list[tuple[int, int]] | None = None,
        dead: list[DeadRow] | None = None,
    ) -> None:
        """Have changes written soon; they are kept for the next batch while the disk refuses."""
        batch = self._next
        batch.ended += ended or ()
        batch.taken += taken or ()
        batch.tries += tries or ()
        batch.dead += dead or ()
        self._begin()

    def _begin(self) -> None:
        if not self._running and not self._closed:
            with contextlib.suppress(MeshError):
                self._scope.spawn(self._write(), "commit")
                self._running = True

    async def _write(self) -> None:
        try:
            while self._done is not None or not self._next.is_empty:
                batch, self._next = self._next, Batch()
                batch.tally = self._tally()
                done, self._done = self._done, None
                try:
                    again = set(await self.read(lambda store, batch=batch: store.commit(batch)))
                except MeshError as error:
                    self._put_back(batch)
                    if done is None:
                        _log.error("what became of messages cannot be written, tried again later: %s", error)
                        return
                    done.set_exception(error)
                    done.exception()  # those who waited may be gone
                    if not self._next.out and not self._next.came:
                        return
                else:
                    if done is not None and not done.done():
                        done.set_result(again)
        finally:
            self._running = False
            if self._done is not None and not self._done.done():
                self._done.set_exception(StoreError("messages cannot be written", code="store.error"))
                self._done.exception()
                self._done = None

    def _put_back(self, batch: Batch) -> None:
        """Keep the notes of a batch that failed for the next one; its messages were not taken."""
        later = self._next
        later.ended = (batch.ended + later.ended)[-_NOTES_MAX:]
        later.taken = (batch.taken + later.taken)[-_NOTES_MAX:]
        later.tries = (batch.tries + later.tries)[-_NOTES_MAX:]
        later.dead = (batch.dead + later.dead)[-_NOTES_MAX:]

    async def aclose(self) -> None:
        """Write what still waits, close file and thread. Idempotent."""
        if self._closed:
            return
        if not self._next.is_empty:
            batch, self._next = self._next, Batch()
            batch.tally = self._tally()
            with contextlib.suppress(MeshError):
                await self.read(lambda store: store.commit(batch))
        self._closed = True
        store, thread, self._store, self._thread = self._store, self._thread, None, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(
                thread, lambda: store.close() if store is not None else None
            )
            thread.shutdown(wait=False)
