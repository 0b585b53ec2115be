"""The long streams between nodes that share state: one for each pair, opened when there is something to say.

What is sent to a node that cannot be reached is lost; replicas compare themselves when it is back. A peer that does not read is
dropped once too much waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from agentmesh.core.messages import PeerDown, PeerUp, Received
from agentmesh.errors import DecodeError, LimitError, MeshError
from agentmesh.ids import NodeId, short
from agentmesh.net.base import Contact, Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.links import Links, Peer
from agentmesh.wire import v1
from agentmesh.wire.state import FRAME_BYTES, FRAME_MESSAGES_MAX, decode_frame, encode_message, frame_of

_log = logging.getLogger("agentmesh.state")

#: Bytes that wait for one peer. More than this, and it is dropped: a comparison brings what it missed.
_QUEUE_BYTES_MAX = 16 * 1024 * 1024
_LINES_MAX = 256
#: How long one peer's messages may occupy the loop at a stretch, seconds.
_TURN_S = 0.005
#: A node that could not be dialled is not dialled again for so long, seconds.
_REST_S = 1.0


class _Line:
    """What goes to one peer.

    Attributes:
        streams: Those that are open; the first one is written to. Two, if both sides opened one at once.
        queue: Encoded messages.
        bytes: In the queue.
    """

    __slots__ = ("bytes", "is_opening", "queue", "streams", "wake")

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.queue: deque[bytes] = deque()
        self.bytes = 0
        self.wake = asyncio.Event()
        self.is_opening = False


class Wires:
    """Carry messages of replicas.

    Args:
        links: To peers.
        contact_of: Returns where a node might be reached.
        feed: Takes ``PeerUp``, ``PeerDown`` and ``Received``.
        on_misbehaved: Called with (peer, code, detail).
    """

    def __init__(
        self,
        links: Links,
        *,
        contact_of: Callable[[NodeId], Contact],
        feed: Callable[[Any], None],
        on_misbehaved: Callable[[NodeId, str, str], None],
    ) -> None:
        self._links, self._contact_of, self._feed, self._on_misbehaved = links, contact_of, feed, on_misbehaved
        self._scope = TaskScope("state-wires")
        self._lines: dict[NodeId, _Line] = {}
        self._rest_until_s: dict[NodeId, float] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def send(self, to: NodeId, message: Any) -> None:
        """Send a message, over a stream that is opened if need be; lost if that fails. Never waits."""
        line = self._lines.get(to) or self.open(to)
        if line is None:
            return
        raw = encode_message(message)
        line.queue.append(raw)
        line.bytes += len(raw)
        line.wake.set()
        if line.bytes > _QUEUE_BYTES_MAX:
            _log.warning("node %s does not read what changed in shared state, closing", short(to))
            self._drop(to, line)

    def on_up(self, node: NodeId) -> None:
        """Open a stream to a node whose link is up now, whatever failed before."""
        self._rest_until_s.pop(node, None)
        self.open(node)

    def open(self, to: NodeId) -> _Line | None:
        """Begin to open a stream to a node, unless there is one; None: not now."""
        line = self._lines.get(to)
        if line is not None:
            return line
        now_s = asyncio.get_running_loop().time()
        if len(self._lines) >= _LINES_MAX or self._rest_until_s.get(to, 0.0) > now_s:
            return None
        self._rest_until_s.pop(to, None)
        line = self._lines[to] = _Line()
        line.is_opening = True
        with contextlib.suppress(MeshError):  # The node stops.
            self._scope.spawn(self._open(to, line), "open", quiet=True)
        return line

    async def _open(self, to: NodeId, line: _Line) -> None:
        try:
            peer = await self._links.connect(self._contact_of(to))
            if peer.calls_only:
                raise LimitError("nodes of other meshes share no state")
            stream = await peer.link.open_stream()
            await stream.send(v1.encode(v1.StateOpen(v=v1.WIRE_VERSION)))
        except MeshError as error:
            _log.debug("no stream for shared state to %s: %s", short(to), error)
            line.is_opening = False
            if not line.streams and self._lines.get(to) is line:
                del self._lines[to]
                if len(self._rest_until_s) > _LINES_MAX:
                    self._rest_until_s.clear()
                self._rest_until_s[to] = asyncio.get_running_loop().time() + _REST_S
            return
        line.is_opening = False
        peer.calls += 1  # the link is in use
        try:
            await self._run(to, line, stream)
        finally:
            peer.calls -= 1

    async def serve(self, peer: Peer, stream: Stream) -> None:
        """Speak on a stream that a peer opened, until it ends."""
        node = peer.link.peer
        line = self._lines.get(node)
        if line is None:
            if len(self._lines) >= _LINES_MAX:
                stream.reset(1)
                return
            line = self._lines[node] = _Line()
        await self._run(node, line, stream)

    async def _run(self, node: NodeId, line: _Line, stream: Stream) -> None:
        if self._lines.get(node) is not line or len(line.streams) >= 2:
            stream.reset(1)
            return
        line.streams.append(stream)
        if len(line.streams) == 1:
            self._scope.spawn(self._write(node, line, stream), "write", quiet=True)
            self._feed(PeerUp(node))
        try:
            while (payload := await stream.recv()) is not None:
                begin_s = time.monotonic()
                for message in decode_frame(payload):
                    self._feed(Received(node, message, by_link=True))
                    if time.monotonic() - begin_s > _TURN_S:
                        await asyncio.sleep(0)  # a frame may hold thousands of writes, each to be verified
                        begin_s = time.monotonic()
        except (DecodeError, LimitError) as error:
            self._on_misbehaved(node, error.code, str(error))
        except MeshError:
            pass
        finally:
            self._drop(node, line)

    async def _write(self, node: NodeId, line: _Line, stream: Stream) -> None:
        try:
            while True:
                if not line.queue:
                    line.wake.clear()
                    await line.wake.wait()
                batch: list[bytes] = []
                size = 0
                while line.queue and size < FRAME_BYTES and len(batch) < FRAME_MESSAGES_MAX:
                    size += len(line.queue[0])
                    batch.append(line.queue.popleft())
                line.bytes -= size
                await stream.send(frame_of(batch))
        except MeshError:
            self._drop(node, line)

    def _drop(self, node: NodeId, line: _Line) -> None:
        if self._lines.get(node) is not line:
            return
        del self._lines[node]
        line.queue.clear()
        line.bytes = 0
        for stream in line.streams:
            stream.reset(0)
        if line.streams:
            self._feed(PeerDown(node))

    async def aclose(self) -> None:
        """Close all streams. Idempotent."""
        self._feed = _drop_input
        for node, line in list(self._lines.items()):
            self._drop(node, line)
        await self._scope.aclose()


def _drop_input(_: Any) -> None:
    """Take what comes after the end."""
