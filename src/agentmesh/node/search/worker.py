"""The search process: ``python -m agentmesh.node.search.worker``, started by ``client.SearchClient`` and by nobody else.

One thread reads requests, the main thread works: queries first, then a small step of indexing, so that a query never waits for
more than one step. Ends when its parent does (end of input), or after ten minutes without a query.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from typing import BinaryIO

from agentmesh.core.search.model import Document
from agentmesh.errors import MeshError, StateError
from agentmesh.node.search.engine import Engine
from agentmesh.node.search.frames import (
    LENGTH,
    Answer,
    Asked,
    Failed,
    Look,
    Open,
    Reconcile,
    Reply,
    Search,
    State,
    Told,
    Update,
    Wanted,
    asked_of,
    framed,
    length_of,
)

IDLE_S = 600.0
#: Documents indexed between two looks at the queue: about 10 ms.
STEP_DOCUMENTS = 20
#: How long after the parent's end a step may still run.
_END_S = 10.0


class _Job:
    """One update that is being worked off."""

    def __init__(self, number: int, update: Update) -> None:
        self.number = number
        self.documents: deque[Document] = deque(update.documents)
        self.removed: deque[str] = deque(update.removed)


class Worker:
    """Works off requests.

    Args:
        inbox: Requests in their order; None when there will be no more.
        out: Where replies go.
        idle_s: Seconds without a query after which it ends.
    """

    def __init__(self, inbox: queue.Queue[Asked | None], out: BinaryIO, idle_s: float = IDLE_S) -> None:
        self._inbox, self._out, self._idle_s = inbox, out, idle_s
        self._engine: Engine | None = None
        self._jobs: deque[_Job] = deque()
        self._asked_s = time.monotonic()

    def run(self) -> None:
        """Work until there is nothing more to do, ever."""
        try:
            while True:
                left_s = self._asked_s + self._idle_s - time.monotonic()
                if left_s <= 0 and not self._jobs:
                    return
                wait_s = min(left_s, self._work_in_s())
                try:
                    asked = self._inbox.get(block=wait_s > 0, timeout=max(0.01, wait_s))
                except queue.Empty:
                    if self._work_in_s() == 0:
                        self._step()
                    continue
                if asked is None:
                    return
                self._take(asked)
        finally:
            if self._engine is not None:
                self._engine.close()

    def _work_in_s(self) -> float:
        """Return seconds until there is something to do beside queries; infinite if nothing is left."""
        if self._jobs:
            return 0.0
        rests_s = None if self._engine is None else self._engine.rests_s
        return float("inf") if rests_s is None else rests_s

    def _take(self, asked: Asked) -> None:
        if isinstance(asked.body, Update):
            self._jobs.append(_Job(asked.number, asked.body))
            return
        try:
            reply = self._answer(asked.body)
        except MeshError as error:
            reply = Failed.of(error)
        self._tell(asked.number, reply)

    def _answer(self, body: Open | Reconcile | Update | Search | Look) -> Reply:
        if isinstance(body, Open):
            if self._engine is not None:
                self._engine.close()
            self._engine = Engine.open(
                body.path,
                body.embedder,
                home=body.home,
                model=body.model,
                key_file=body.key_file,
                models_dir=body.models_dir,
            )
            self._asked_s = time.monotonic()
            return self._state()
        engine = self._opened()
        if isinstance(body, Search):
            self._asked_s = time.monotonic()
            return Answer(engine.search(body.query, filters=body.filters, limit=body.limit, near=body.near))
        if isinstance(body, Reconcile):
            known = engine.versions()
            gone = [agent_id for agent_id in known if agent_id not in body.versions]
            if gone:
                self._jobs.append(_Job(0, Update([], gone)))
            return Wanted([agent_id for agent_id, version in body.versions.items() if known.get(agent_id) != version])
        return self._state()

    def _step(self) -> None:
        """Do a little of the oldest update, or of the engine's own work."""
        engine = self._opened()
        if not self._jobs:
            engine.step()
            return
        job = self._jobs[0]
        try:
            engine.remove([job.removed.popleft() for _ in range(min(STEP_DOCUMENTS, len(job.removed)))])
            engine.update(
                [job.documents.popleft() for _ in range(min(STEP_DOCUMENTS, len(job.documents)))], embed=False
            )
        except MeshError as error:
            self._jobs.popleft()
            self._tell(job.number, Failed.of(error))
            return
        if not job.removed and not job.documents:
            self._jobs.popleft()
            self._tell(job.number, self._state())

    def _state(self) -> State:
        engine = self._opened()
        return State(len(engine), engine.embedder, engine.waiting, list(engine.notes))

    def _opened(self) -> Engine:
        if self._engine is None:
            raise StateError("no index was opened", code="search.closed")
        return self._engine

    def _tell(self, number: int, reply: Reply) -> None:
        if number:
            self._out.write(framed(Told(number, reply)))
            self._out.flush()


def read_requests(source: BinaryIO, inbox: queue.Queue[Asked | None]) -> None:
    """Put requests into the queue until the input ends or is damaged; then None."""
    try:
        while len(head := source.read(LENGTH.size)) == LENGTH.size:
            inbox.put(asked_of(source.read(length_of(head))))
    except (MeshError, OSError, ValueError) as error:
        print(f"agentmesh search: {error}", file=sys.stderr)
    inbox.put(None)


def main() -> None:
    """Run the process on its standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, whose end is ours
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints may get between the replies
    inbox: queue.Queue[Asked | None] = queue.Queue(maxsize=256)

    def reading() -> None:
        read_requests(sys.stdin.buffer, inbox)
        time.sleep(_END_S)  # a model or an endpoint may hold a step; the parent is gone, nobody waits for it
        os._exit(0)

    threading.Thread(target=reading, name="requests", daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        Worker(inbox, out).run()


if __name__ == "__main__":
    main()
