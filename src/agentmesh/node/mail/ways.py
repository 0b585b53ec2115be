"""Mail streams: one that this node opened to each peer it sends frames to, and one that each peer opened (mail.md §3).

A way is opened when there is something to send, kept while it is used, and tried again and again, ever less often, while
something waits and the peer cannot be reached. A link that comes up ends the waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable

from agentmesh.errors import Closed, MeshError, NoRoute, StateError
from agentmesh.ids import NodeId, short
from agentmesh.net.base import Contact, Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.links import Links, Peer
from agentmesh.wire import v1

_log = logging.getLogger("agentmesh.mail")

#: Peers with a way at once.
WAYS_MAX = 4_096
#: Handshake frames that wait for one peer.
_FRAMES_MAX = 4_096
#: Bytes that one parcel may take: enough for hundreds of small letters, little enough that an urgent one comes through soon.
PARCEL_BYTES = 128 * 1024
#: Frames of one peer that are read before others have their turn.
_FRAMES_AT_ONCE = 8
#: How long a peer that did not answer is left alone, seconds: doubled each time.
_RETRY_S, _RETRY_MAX_S = 0.25, 30.0
#: After so long without a frame a stream is closed, so that an idle link may go.
_IDLE_S = 60.0


class Way:
    """The stream to one peer."""

    __slots__ = ("away_s", "frames", "is_idle", "is_open", "is_ready", "is_running", "node", "tries", "used_s", "wake")

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.frames: deque[bytes] = deque()
        self.wake = asyncio.Event()
        self.is_open = self.is_ready = self.is_running = self.is_idle = False
        self.tries = 0
        #: When something last went over it, monotonic seconds.
        self.used_s = 0.0
        #: Since when it is wanted and not open, monotonic seconds; 0 = it is open, or nobody wants it.
        self.away_s = 0.0


class Ways:
    """Keep the streams.

    Args:
        links: Links to peers.
        contact_of: Where a node may be.
        scope: Owns the tasks.
        rng: For jitter.
        on_open, on_lost: A stream to a peer is open, or not any more.
        fill: Returns the next parcel for a peer, encoded, of about so many bytes; None if there is none.
        on_frame: Takes a frame of a peer.
        is_wanted: Whether anything waits for a peer.
    """

    def __init__(
        self,
        links: Links,
        contact_of: Callable[[NodeId], Contact],
        scope: TaskScope,
        rng: random.Random,
        *,
        on_open: Callable[[NodeId], None],
        on_lost: Callable[[NodeId], None],
        fill: Callable[[NodeId, int], bytes | None],
        on_frame: Callable[[NodeId, bytes], None],
        is_wanted: Callable[[NodeId], bool],
    ) -> None:
        self._links, self._contact_of, self._scope, self._rng = links, contact_of, scope, rng
        self._on_open, self._on_lost, self._fill = on_open, on_lost, fill
        self._on_frame, self._is_wanted = on_frame, is_wanted
        self._ways: dict[NodeId, Way] = {}
        self._incoming: dict[NodeId, Stream] = {}

    def is_open(self, node: NodeId) -> bool:
        """Say whether frames can go to a peer now."""
        way = self._ways.get(node)
        return way is not None and way.is_open

    def tries(self, node: NodeId) -> int:
        """Return how often in a row a node could not be reached."""
        way = self._ways.get(node)
        return 0 if way is None else way.tries

    def away_s(self, node: NodeId, now_s: float) -> float:
        """Return for how long a node could not be reached although there was something for it; 0 if it can."""
        way = self._ways.get(node)
        return now_s - way.away_s if way is not None and way.away_s else 0.0

    def push(self, node: NodeId, frame: bytes) -> None:
        """Send a frame as soon as there is a way. What is too much for a slow peer is dropped; its sender asks again."""
        way = self._way(node)
        if way is not None and len(way.frames) < _FRAMES_MAX:
            way.frames.append(frame)
            self._begin(way)

    def ready(self, node: NodeId) -> None:
        """Ask ``fill`` for parcels as soon as there is a way."""
        way = self._way(node)
        if way is not None:
            way.is_ready = True
            self._begin(way)

    def need(self, node: NodeId) -> None:
        """Open a way, if there is none."""
        way = self._way(node)
        if way is not None:
            self._begin(way)

    def on_up(self, node: NodeId) -> None:
        """Try at once: a link to the node is up."""
        way = self._ways.get(node)
        if way is None and self._is_wanted(node):
            way = self._way(node)
        if way is not None:
            way.tries = 0
            if way.is_running or way.frames or self._is_wanted(node):
                self._begin(way)

    def _way(self, node: NodeId) -> Way | None:
        way = self._ways.get(node)
        if way is None:
            if len(self._ways) >= WAYS_MAX:
                idle = next((w.node for w in self._ways.values() if not w.is_running), None)
                if idle is None:
                    return None
                del self._ways[idle]
            way = self._ways[node] = Way(node)
        return way

    def _begin(self, way: Way) -> None:
        if way.is_running:
            way.wake.set()
            return
        with contextlib.suppress(MeshError):  # closed: the node shuts down
            self._scope.spawn(self._run(way), f"way-{short(way.node)}")
            way.is_running = True
            way.away_s = way.away_s or time.monotonic()

    async def _run(self, way: Way) -> None:
        try:
            while True:
                try:
                    await self._use(way)
                    if not way.frames and not way.is_ready:
                        return
                except (Closed, NoRoute, StateError) as error:
                    _log.debug("no mail stream to %s: %s", short(way.node), error)
                except MeshError as error:
                    _log.info("no mail stream to %s: %s", short(way.node), error)
                way.frames.clear()  # handshakes begin again with a new stream
                if not self._is_wanted(way.node):
                    return
                way.wake.clear()
                delay_s = min(_RETRY_S * 2 ** min(way.tries, 10), _RETRY_MAX_S) * self._rng.uniform(0.5, 1.0)
                way.tries += 1
                if not self._links.is_connected(way.node) or way.tries > 1:
                    await self._pause(way, delay_s)
        finally:
            way.is_running = way.is_ready = False
            way.away_s = 0.0

    async def _pause(self, way: Way, delay_s: float) -> None:
        """Wait, but no longer than until a link is up."""
        until_s = time.monotonic() + delay_s
        while (left_s := until_s - time.monotonic()) > 0 and not (
            way.tries <= 1 and self._links.is_connected(way.node)
        ):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await way.wake.wait()
            way.wake.clear()
            if way.tries == 0:  # ``on_up``
                return

    async def _use(self, way: Way) -> None:
        """Open the stream and send what there is until nothing came for long."""
        peer = await self._links.connect(self._contact_of(way.node))
        if peer.calls_only:
            raise NoRoute("that node is of another mesh; messages stay within one", code="mail.abroad")
        stream = await peer.link.open_stream()
        watcher = self._scope.spawn(_watch(peer, way), "watch")
        try:
            await stream.send(v1.encode(v1.MailOpen(v=v1.WIRE_VERSION)))
            way.is_open = True
            way.away_s = 0.0
            self._on_open(way.node)
            way.tries = 0
            await self._feed(way, peer, stream)
            await stream.finish()
        finally:
            watcher.cancel()
            if way.is_open:
                way.is_open = False
                way.away_s = time.monotonic()
                self._on_lost(way.node)

    async def _feed(self, way: Way, peer: Peer, stream: Stream) -> None:
        frames, fill, node = way.frames, self._fill, way.node
        while True:
            peer.used_s = way.used_s = time.monotonic()
            while frames:
                await stream.send(frames.popleft())
            if way.is_ready:
                way.is_ready = False
                while (parcel := fill(node, PARCEL_BYTES)) is not None:
                    await stream.send(parcel)
                    if frames:
                        way.is_ready = True
                        break
                continue
            way.wake.clear()
            await way.wake.wait()
            if way.is_idle and not frames and not way.is_ready:
                return
            way.is_idle = False
            if peer.link.is_closed:
                raise Closed("the link is gone", code="unreached.closed.link")

    def turn(self, now_s: float) -> None:
        """Let go of streams that were not used for long."""
        for way in self._ways.values():
            if way.is_open and now_s - way.used_s > _IDLE_S and not self._is_wanted(way.node):
                way.is_idle = True
                way.wake.set()

    async def serve(self, peer: Peer, stream: Stream) -> None:
        """Read the frames of a peer until it ends its stream; a newer stream of the same peer takes the place of an older."""
        node = peer.link.peer
        older = self._incoming.get(node)
        self._incoming[node] = stream
        if older is not None:
            older.reset(0)
        try:
            count = 0
            while (raw := await stream.recv()) is not None:
                self._on_frame(node, raw)
                if not self.is_open(node):
                    self.need(node)  # ours was quiet for longer and is closed: without one nothing is acknowledged
                peer.used_s = time.monotonic()
                count += 1
                if count % _FRAMES_AT_ONCE == 0:
                    await asyncio.sleep(0)  # a full stream must not keep everybody else waiting
        finally:
            if self._incoming.get(node) is stream:
                del self._incoming[node]


async def _watch(peer: Peer, way: Way) -> None:
    """Wake the way when its link is gone."""
    await peer.link.wait_closed()
    way.wake.set()
