"""The node's side of the search process: starts it on first use, keeps its index in step with the directory, asks it.

    client = SearchClient(path, source, scope, home=home)
    found = await client.search("check a German rental contract", Filters(tag="law"), limit=10)
    client.changed(agent_id)        # its manifest came, changed or went

Nothing runs before the first query, and nothing needs to be told before it: whenever the process starts, the source says which
agents there are, and only what changed since is read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from agentmesh.core.search.model import QUERY_CHARS_MAX, Document, Filters, Found
from agentmesh.errors import Busy, Closed, MeshError, StateError, Timeout
from agentmesh.net.tasks import TaskScope
from agentmesh.node.search.frames import (
    LENGTH,
    Answer,
    Asked,
    Failed,
    Look,
    Open,
    Reconcile,
    Reply,
    Request,
    Search,
    State,
    Update,
    Wanted,
    framed,
    length_of,
    told_of,
)

#: Requests under way at once; more are refused.
REQUESTS_MAX = 64
QUERY_TIMEOUT_S = 3.0
#: How long the first query waits for agents to be indexed before it is answered from those that are.
SYNC_WAIT_S = 1.5
#: The very first start reads the lexicon, a second of work; a busy machine takes many.
_START_TIMEOUT_S = 90.0
_UPDATE_TIMEOUT_S = 120.0
_BATCH = 200
_END_TIMEOUT_S = 3.0
#: Changes remembered one by one; beyond, everything is compared again.
_CHANGED_MAX = 20_000


class Source(Protocol):
    """What there is to be found: the directory, as the index needs it. Called on the daemon's loop."""

    def versions(self) -> Mapping[str, str]:
        """Return the id of every agent that may be found, with the version of its document."""
        ...

    def document(self, agent_id: str) -> Document | None:
        """Return the document of an agent, None if it may not be found any more."""
        ...


class SearchSettings(msgspec.Struct, frozen=True):
    """By what vectors are made.

    Attributes:
        embedder: "builtin", "minilm", "auto", or the address of an endpoint.
        model: Name of the endpoint's model.
        key_file: File with the endpoint's key.
        models_dir: Where local models are; "": in the home.
    """

    embedder: str = "builtin"
    model: str = ""
    key_file: str = ""
    models_dir: str = ""


class SearchClient:
    """Ask the search process.

    Args:
        path: The index, an SQLite file; made if absent, and made anew if damaged.
        source: What there is to be found.
        scope: Where its tasks run; closing it does not close the client.
        home: The node's home; models are below it unless the settings say where.
        settings: By what vectors are made.
        command: The process; for tests.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        scope: TaskScope,
        *,
        home: Path,
        settings: SearchSettings | None = None,
        command: tuple[str, ...] = (sys.executable, "-m", "agentmesh.node.search.worker"),
    ) -> None:
        self._path, self._source, self._scope, self._home = path, source, scope, home
        self._settings = settings or SearchSettings()
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._is_open = False
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._number = 0
        self._changed: dict[str, None] = {}
        self._sync: asyncio.Task[None] | None = None
        self._synced = False
        self._closed = False

    @property
    def is_running(self) -> bool:
        """Whether the process is up and has opened the index."""
        return self._process is not None and self._is_open

    @property
    def pid(self) -> int | None:
        """Process id while it is up."""
        return None if self._process is None else self._process.pid

    # Asking

    async def search(
        self,
        query: str,
        filters: Filters | None = None,
        *,
        limit: int = 10,
        near: int = 3,
        timeout_s: float = QUERY_TIMEOUT_S,
    ) -> Found:
        """Answer a query; starts the process if need be, and once more if it dies over this query.

        Args:
            query: What is needed; what is beyond ``QUERY_CHARS_MAX`` is not read, and the answer says so.
            filters: What must hold.
            limit, near: Hits and near misses at most.
            timeout_s: For the whole of it.

        Raises:
            Busy: ``REQUESTS_MAX`` are under way (code "search.busy"). Nothing was sent.
            Timeout: no answer in time (code "search.timeout").
            Closed: the process died twice or cannot be started (code "search.died").
            StoreError: the index cannot be read or written.
            StateError: closed.
        """
        request = Search(query[: QUERY_CHARS_MAX + 1], filters or Filters(), limit, near)
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    return await self._search(request, timeout_s)
                except Closed:
                    if self._closed:
                        raise
                    return await self._search(request, timeout_s)
        except TimeoutError:
            raise Timeout(
                f"the search gave no answer within {timeout_s:g} s",
                code="search.timeout",
                why="it is starting, or the machine is very busy",
            ) from None

    async def _search(self, request: Search, timeout_s: float) -> Found:
        await self._started()
        syncing = self._begin_sync()
        if syncing is not None:
            await asyncio.wait({syncing}, timeout=min(SYNC_WAIT_S, timeout_s / 2))
        reply = await self._ask(request)
        if not isinstance(reply, Answer):
            raise _unexpected(reply)
        found = reply.found
        if syncing is not None and not syncing.done():
            notes = (*found.notes, "agents are still being indexed; ask again for the rest")
            found = msgspec.structs.replace(found, notes=notes)
        return found

    async def state(self) -> State | None:
        """Return how the index is, None if the process does not run. Raises as ``search``."""
        if not self.is_running:
            return None
        reply = await self._ask(Look())
        if not isinstance(reply, State):
            raise _unexpected(reply)
        return reply

    # Keeping in step

    def changed(self, agent_id: str) -> None:
        """Say that the document of an agent is new, other or gone; costs nothing while the process does not run."""
        if not self.is_running:
            return
        if len(self._changed) < _CHANGED_MAX:
            self._changed[agent_id] = None
        else:
            self._synced = False
        self._begin_sync()

    async def settled(self) -> None:
        """Return when everything the source has is indexed; for tests and benches. Raises as ``search``."""
        await self._started()
        while (syncing := self._begin_sync()) is not None:
            await asyncio.wait({syncing})
            if not self.is_running:
                raise _died()

    def _begin_sync(self) -> asyncio.Task[None] | None:
        """Return the task that brings the index in step, None if it is."""
        if self._sync is None and (not self._synced or self._changed) and self.is_running and not self._closed:
            self._sync = self._scope.spawn(self._bring_in_step(), "search-sync", quiet=True)
            self._sync.add_done_callback(self._sync_done)
        return self._sync

    def _sync_done(self, task: asyncio.Task[None]) -> None:
        self._sync = None

    async def _bring_in_step(self) -> None:
        if not self._synced:
            self._changed.clear()
            self._synced = True  # what changes from here on is told one by one
            try:
                reply = await self._ask(Reconcile(dict(self._source.versions())))
            except BaseException:
                self._synced = False
                raise
            self._changed.update(dict.fromkeys(reply.agent_ids if isinstance(reply, Wanted) else ()))
        while self._changed:
            batch = [*self._changed][:_BATCH]
            for agent_id in batch:
                del self._changed[agent_id]
            try:
                await self._send_batch(batch)
            except MeshError:
                self._synced = False  # compared again at the next query
                raise

    async def _send_batch(self, batch: Iterable[str]) -> None:
        update = Update([], [])
        for agent_id in batch:
            document = self._source.document(agent_id)
            if document is None:
                update.removed.append(agent_id)
            else:
                update.documents.append(document)
        async with asyncio.timeout(_UPDATE_TIMEOUT_S):
            await self._ask(update)

    # The process

    async def _started(self) -> None:
        """Return when the process is up. It goes on starting if the query that needed it is given up."""
        if self._closed:
            raise StateError("the search is closed", code="search.closed")
        if self.is_running:
            return
        if self._starting is None:
            self._starting = self._scope.spawn(self._start(), "search-start", quiet=True)
            self._starting.add_done_callback(self._start_done)
        await asyncio.shield(self._starting)

    def _start_done(self, task: asyncio.Task[None]) -> None:
        self._starting = None

    async def _start(self) -> None:
        self._synced = False
        environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environ,
                limit=1 << 20,
            )
        except OSError as error:
            raise Closed(f"the search process cannot be started: {error}", code="search.died") from error
        self._process = process
        self._reading = self._scope.spawn(self._read(process), "search-read", quiet=True)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await self._ask(self._opening())
        except BaseException as error:
            self._lose(process)
            if isinstance(error, TimeoutError):
                raise _died() from None
            raise
        self._is_open = True

    def _opening(self) -> Open:
        own = self._settings
        return Open(str(self._path), str(self._home), own.embedder, own.model, own.key_file, own.models_dir)

    async def _ask(self, body: Request) -> Reply:
        """Send a request and return its reply; an error in it is raised."""
        process = self._process
        if process is None or process.stdin is None:
            raise _died()
        if len(self._waiting) >= REQUESTS_MAX:
            raise Busy(f"{REQUESTS_MAX} searches are under way", code="search.busy", retry_after_s=0.5)
        self._number += 1
        number = self._number
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answered
        try:
            process.stdin.write(framed(Asked(number, body)))
            await process.stdin.drain()
            reply = await answered
        except (BrokenPipeError, ConnectionResetError):
            self._lose(process)
            raise _died() from None
        finally:
            self._waiting.pop(number, None)
        if isinstance(reply, Failed):
            raise reply.raised()
        return reply

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out replies until the process ends."""
        stream = process.stdout
        assert stream is not None
        try:
            while True:
                told = told_of(await stream.readexactly(length_of(await stream.readexactly(LENGTH.size))))
                if (waiting := self._waiting.get(told.number)) is not None and not waiting.done():
                    waiting.set_result(told.body)
        except (asyncio.IncompleteReadError, MeshError):
            pass  # it ended, or talks nonsense
        finally:
            self._lose(process)
            await process.wait()

    def _lose(self, process: asyncio.subprocess.Process) -> None:
        """Give up a process: whoever waits for it hears so, and the next query starts another one. Idempotent."""
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if process is self._process:
            self._process = None
            self._is_open = False
            for waiting in list(self._waiting.values()):
                if not waiting.done():
                    waiting.set_exception(_died())

    @property
    def waiting(self) -> int:
        """Questions that are not answered yet."""
        return len(self._waiting)

    async def aclose(self) -> None:
        """End the process. Idempotent; further queries raise StateError."""
        self._closed = True
        if self._sync is not None:
            self._sync.cancel()
        if (starting := self._starting) is not None:
            starting.cancel()
            await asyncio.wait({starting}, timeout=_END_TIMEOUT_S)
        process, reading = self._process, self._reading
        if process is not None and process.stdin is not None:
            process.stdin.close()
        if reading is not None:
            await asyncio.wait({reading}, timeout=_END_TIMEOUT_S)
        if process is not None:
            self._lose(process)  # it does not listen
            await process.wait()


def _died() -> Closed:
    return Closed("the search process ended", code="search.died", hint="ask again; it starts anew")


def _unexpected(reply: Reply) -> MeshError:
    return Closed(f"the search process answered out of turn ({type(reply).__name__})", code="search.died")
