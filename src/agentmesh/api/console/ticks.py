"""The console's live stream: what there is to look at again, at most ten times a second (docs/spec/console.md §2).

One ``Ticker`` serves every client. It follows the event log once while anybody listens and keeps, bounded, which run had its
newest event where. A client is a position: what changed since then is worked out when it takes its next frame, so whoever
reads slowly gets wider frames, and nothing is queued for anyone.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence

import msgspec

from agentmesh.api.backend import Backend
from agentmesh.errors import Busy, MeshError
from agentmesh.net.tasks import TaskScope
from agentmesh.wire.console_views import Marks, Tick, Topic

_log = logging.getLogger("agentmesh.api")

#: Shortest time between two frames of one client, seconds.
BEAT_S = 0.1
#: Most runs named in a frame; of more the page asks for everything again.
RUNS_NAMED_MAX = 200
#: Runs remembered: a client that lags behind by more is told to ask for everything again.
RUNS_KEPT_MAX = 1_000
CLIENTS_MAX = 64
#: How long the log is still followed when nobody listens, seconds: who reconnects finds what it missed.
LINGER_S = 30.0
_RETRY_S = 1.0
_TOPICS: tuple[Topic, ...] = ("agents", "peers", "orders", "trust")

_encode = msgspec.json.Encoder().encode


class Ticker:
    """Tell the clients of one node's console what changed.

    Args:
        node: The node.
        beat_s: Shortest time between two frames of one client, seconds.
        now: The wall clock, Unix seconds.
        home: The home directory, if commands must be told it.
    """

    def __init__(
        self, node: Backend, *, beat_s: float = BEAT_S, now: Callable[[], float] = time.time, home: str = ""
    ) -> None:
        self._node, self._beat_s, self._now, self._home = node, beat_s, now, home
        self._instance = secrets.token_hex(8)
        self._name = self._version = ""
        self._marks = node.marks()
        #: Run → position of its newest event, the oldest first; those at or below ``_floor`` are forgotten.
        self._runs: dict[str, int] = {}
        self._seq = self._floor = self._marks.seq
        self._clients = 0
        self._closed = False
        self._beaten: asyncio.Event = asyncio.Event()
        self._frames: dict[Marks, bytes] = {}
        self._scope: TaskScope | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def clients(self) -> int:
        """How many listen now."""
        return self._clients

    def check_room(self) -> None:
        """Raise Busy if no further client can be served."""
        if self._clients >= CLIENTS_MAX:
            raise Busy(f"{CLIENTS_MAX} pages listen already", code="refused.busy.streams", retry_after_s=5)

    async def frames(self, after: int | None) -> AsyncGenerator[bytes]:
        """Yield frames for one client: the first at once, then one whenever something changed.

        Args:
            after: ``seq`` of the last frame that the client took, of this stream or an earlier one; None = it begins.
        """
        self._clients += 1
        try:
            self._start()
            yield b"retry: 1000\n\n"
            taken = self._marks
            # Which topics changed while it was away nobody knows, so that all are named.
            yield self._frame(self._tick(after, _TOPICS))
            while not self._closed:
                if self._marks == taken:
                    await self._beaten.wait()
                    continue
                since, taken = taken, self._marks
                yield self._since(since)
        finally:
            self._clients -= 1

    def close(self) -> None:
        """End; clients' streams are ended by whoever serves them. Idempotent."""
        self._closed = True
        if self._running is not None:
            self._running.cancel()

    def _since(self, since: Marks) -> bytes:
        """Return the frame for what changed since; made once for all clients that took the same frame before."""
        frame = self._frames.get(since)
        if frame is None:
            now = self._marks
            changed: list[Topic] = [topic for topic in _TOPICS if getattr(now, topic) != getattr(since, topic)]
            frame = self._frame(self._tick(since.seq, changed))
            if len(self._frames) < CLIENTS_MAX:
                self._frames[since] = frame
        return frame

    def _tick(self, after: int | None, changed: Sequence[Topic]) -> Tick:
        marks = self._marks
        tick = Tick(
            seq=marks.seq,
            changed=list(changed),
            read_only=marks.read_only,
            now_ms=int(self._now() * 1000),
            instance=self._instance,
            node_name=self._name,
            version=self._version,
            home=self._home,
        )
        if after is None or not self._floor <= after <= marks.seq:
            tick.resync = True
            return tick
        tick.events = marks.seq - after
        for run, seq in reversed(self._runs.items()):
            if seq <= after:
                break
            tick.runs.append(run)
        if len(tick.runs) > RUNS_NAMED_MAX:
            tick.runs.clear()
            tick.resync = True
        tick.runs.reverse()
        if tick.runs:
            tick.changed = ["runs", *tick.changed]
        return tick

    def _frame(self, tick: Tick) -> bytes:
        return b"id: %d\nevent: tick\ndata: " % tick.seq + _encode(tick) + b"\n\n"

    # What happens

    def _start(self) -> None:
        if self._running is not None and not self._running.done():
            return
        status = self._node.status()
        self._name, self._version = status.node_name, status.version
        self._marks = self._node.marks()
        self._runs.clear()
        self._frames.clear()
        self._seq = self._floor = self._marks.seq
        self._running = self._scoped().spawn(self._run(), "ticks")

    def _scoped(self) -> TaskScope:
        if self._scope is None:
            self._scope = TaskScope("console", tasks_max=4)
        return self._scope

    async def _run(self) -> None:
        """Look ten times a second whether anything changed, until nobody listened for a while."""
        following = self._scoped().spawn(self._follow(), "follow")
        try:
            alone_s = 0.0
            while alone_s < LINGER_S:
                await asyncio.sleep(self._beat_s)
                alone_s = 0.0 if self._clients else alone_s + self._beat_s
                marks = self._node.marks()._replace(seq=self._seq)
                if marks != self._marks:
                    self._marks = marks
                    self._frames.clear()
                    beaten, self._beaten = self._beaten, asyncio.Event()
                    beaten.set()
        finally:
            following.cancel()

    async def _follow(self) -> None:
        """Note where each run had its newest event; if the log cannot be read, what was missed is told as a resync."""
        while True:
            events = self._node.follow(self._seq)
            try:
                async for event in events:
                    self._note(event.run_id, event.seq)
                return  # the log is closed: the daemon ends
            except MeshError as error:
                _log.warning("the console's stream cannot follow the event log: %s", error)
                await asyncio.sleep(_RETRY_S)
                self._runs.clear()
                self._seq = self._floor = self._node.marks().seq
            finally:
                if isinstance(events, AsyncGenerator):
                    await events.aclose()

    def _note(self, run: str, seq: int) -> None:
        self._seq = max(self._seq, seq)
        self._runs.pop(run, None)
        self._runs[run] = seq
        if len(self._runs) > RUNS_KEPT_MAX:
            oldest = next(iter(self._runs))
            self._floor = max(self._floor, self._runs.pop(oldest))
