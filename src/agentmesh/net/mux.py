"""The multiplexer on asyncio: one Link over any ordered byte pipe, driving ``mux_core.MuxCore``.

One reader task digests what the pipe brings, one writer task hands everything queued since its last turn to the pipe
in one write (an engine call through FFI costs 50–90 µs whatever its size; adr/0001). Keepalive by PING. All transports
share this file, so that back-pressure, limits and closing behave alike on each of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from agentmesh.errors import Closed, DecodeError, LimitError, MeshError, StateError
from agentmesh.ids import NodeId
from agentmesh.net.base import PathKind, Traffic
from agentmesh.net.certificate import PeerCertificate
from agentmesh.net.mux_core import (
    RESET_BUFFER_FULL,
    RESET_TOO_MANY_STREAMS,
    MuxCore,
)
from agentmesh.net.mux_stream import CoreStream, Event, Limits
from agentmesh.net.tasks import TaskScope

_T = TypeVar("_T")

_RESETS = {
    RESET_TOO_MANY_STREAMS: ("the peer has too many streams open", "too_many_streams"),
    RESET_BUFFER_FULL: ("more was sent than the reader took", "buffer_full"),
}
#: Bytes handed to the pipe at once. Measured (adr/0001): beyond it throughput gains nothing and small frames wait longer.
WRITE_BYTES_MAX = 256 * 1024
#: Seconds between PINGs, and how many of them may go by without a byte from the peer before the link is dead (15 s).
PING_INTERVAL_S = 5.0
SILENT_PINGS_MAX = 3
#: Longest the last words of a closing link may take, in seconds.
_GOODBYE_S = 1.0
#: How long the FIN that ends a stream on both sides may wait for company, in seconds: an engine write costs 70 µs.
_LAST_WORD_S = 0.005


class Pipe(Protocol):
    """An ordered, reliable byte pipe: what an engine has to offer to carry links."""

    async def read(self) -> bytes:
        """Return some bytes, or b"" at the end. Raises OSError or MeshError when the pipe breaks."""
        ...

    async def write(self, data: bytes) -> None:
        """Write all of it, waiting for room. Raises OSError or MeshError when the pipe breaks."""
        ...

    async def aclose(self) -> None:
        """Close and release everything. Idempotent, never raises OSError."""
        ...


class MuxStream:
    """One request stream of a MuxLink (``net.base.Stream``)."""

    __slots__ = ("_core", "_drained", "_link", "_receiver", "_turn")

    def __init__(self, link: MuxLink, core: CoreStream) -> None:
        self._link = link
        self._core = core
        core.user = self
        self._receiver: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._turn = asyncio.Lock()

    async def send(self, message: bytes) -> None:
        """Send one message, waiting for room (see ``net.base.Stream.send``)."""
        core = self._core
        async with self._turn:
            self._check_open()
            if core.fin_sent:
                raise StateError("the stream was finished, nothing more can be sent", code="state.stream_finished")
            if not self._link.queue(core, message):
                await self._await_drained()

    async def recv(self) -> bytes | None:
        """Return the next message, or None after the peer finished (see ``net.base.Stream.recv``)."""
        core = self._core
        while True:
            if core.inbox:
                return self._link.take_message(core)
            if core.fin_received and core.reset_code is None:
                return None
            self._check_open()
            if self._receiver is not None:
                raise StateError("another task already waits for a message", code="state.stream_busy")
            self._receiver = self._link.loop.create_future()
            self._link.want(core)
            try:
                await self._receiver
            finally:
                self._receiver = None

    async def finish(self) -> None:
        """Say that nothing more will be sent (see ``net.base.Stream.finish``)."""
        async with self._turn:
            if not self._link.is_closed:
                self._link.finish(self._core)

    def reset(self, code: int = 0) -> None:
        """Give the stream up at once (see ``net.base.Stream.reset``)."""
        self._link.reset(self._core, code)
        self.wake_receiver()
        self.wake_sender()

    def wake_receiver(self) -> None:
        """Let a waiting ``recv`` look again; the link calls this."""
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def wake_sender(self) -> None:
        """Let a waiting ``send`` look again; the link calls this."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _check_open(self) -> None:
        if (code := self._core.reset_code) is not None:
            what, name = _RESETS.get(code, (f"the stream was reset (code {code})", "reset"))
            raise Closed(what, code=f"unreached.closed.{name}", extra={"reset": code})
        self._link.check_open()

    async def _await_drained(self) -> None:
        """Wait until the message is with the pipe. Cancelled half-way, the stream is reset: half a message is no message."""
        core = self._core
        try:
            while core.is_sending:
                self._drained = self._link.loop.create_future()
                await self._drained
                self._check_open()
        except asyncio.CancelledError:
            if not self._link.withdraw(core):
                self.reset()
            raise
        finally:
            self._drained = None
        self._check_open()


class MuxLink:
    """One authenticated link (``net.base.Link``) over a pipe. Engines subclass it for path, rtt and datagrams.

    Args:
        pipe: The byte pipe, after its handshake.
        peer: The peer's proven id.
        scheme: Scheme of the transport.
        dialed: True on the dialling side.
        remote_address: Where the peer is seen, with its scheme.
        limits: Bounds of the multiplexer.
        early: Bytes read behind the handshake.
        ping_interval_s: Seconds between keepalive PINGs.
    """

    def __init__(
        self,
        pipe: Pipe,
        peer: NodeId,
        scheme: str,
        *,
        dialed: bool,
        remote_address: str = "",
        limits: Limits | None = None,
        early: bytes = b"",
        ping_interval_s: float = PING_INTERVAL_S,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._pipe = pipe
        self._peer = peer
        self._scheme = scheme
        self._dialed = dialed
        self._remote_address = remote_address
        self._core = MuxCore(dialed, limits)
        self._early = early
        self._traffic = Traffic()
        self._reason: str | None = None
        self._goodbye: str | None = None
        self._violation: DecodeError | None = None
        self._accepters: deque[asyncio.Future[None]] = deque()
        self._writer_idle: asyncio.Future[None] | None = None
        self._flushed: asyncio.Future[None] | None = None
        self._lazy_flush: asyncio.TimerHandle | None = None
        self._closed = self.loop.create_future()
        self._closing = asyncio.Lock()
        self._rtt_s: float | None = None
        self._pings = self._silent_pings = 0
        self._ping_sent_s = 0.0
        self._ping_interval_s = ping_interval_s
        #: By which a CA admitted the peer; the transport sets it.
        self.certificate: PeerCertificate | None = None
        self._scope = TaskScope(f"link:{scheme}", tasks_max=16)
        self._reader: asyncio.Task[None] | None = self._scope.spawn(self._read(), "read")
        self._writer: asyncio.Task[None] | None = self._scope.spawn(self._write(), "write")
        self._keepalive = self.loop.call_soon(self._ping)

    # ---- what the contract names -------------------------------------------------------------------------------

    @property
    def peer(self) -> NodeId:
        """The peer's proven id."""
        return self._peer

    @property
    def scheme(self) -> str:
        """Scheme of the transport."""
        return self._scheme

    @property
    def path(self) -> PathKind:
        """How bytes travel."""
        return "direct"

    @property
    def remote_address(self) -> str:
        """Where the peer is seen."""
        return self._remote_address

    @property
    def dialed(self) -> bool:
        """True on the dialling side."""
        return self._dialed

    @property
    def rtt_s(self) -> float | None:
        """Round trip of the last answered PING in seconds."""
        return self._rtt_s

    @property
    def datagram_bytes_max(self) -> int:
        """0: a byte pipe has no datagrams."""
        return 0

    @property
    def is_closed(self) -> bool:
        """True once the link is gone."""
        return self._reason is not None

    def tally(self, traffic: Traffic) -> None:
        """Count what went over the link so far, and all that will, into ``traffic``. Call it once."""
        traffic.sent += self._traffic.sent
        traffic.received += self._traffic.received
        self._traffic = traffic

    @property
    def core(self) -> MuxCore:
        """The machine inside, for figures (held bytes, refused streams) and tests."""
        return self._core

    async def open_stream(self) -> MuxStream:
        """Open a stream (see ``net.base.Link.open_stream``)."""
        self.check_open()
        stream = MuxStream(self, self._core.open())
        self._wake_writer()
        return stream

    async def accept_stream(self) -> MuxStream:
        """Wait for the peer's next stream (see ``net.base.Link.accept_stream``)."""
        while (core := self._core.accept()) is None:
            self.check_open()
            waiter = self.loop.create_future()
            self._accepters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_accepter()  # Cancelled just after the wake-up: pass it on.
                raise
            finally:
                with suppress(ValueError):
                    self._accepters.remove(waiter)
        return MuxStream(self, core)

    def send_datagram(self, payload: bytes) -> None:
        """Raise LimitError: a byte pipe has no datagrams."""
        self.check_open()
        raise LimitError(f"{self._scheme} links carry no datagrams", code="limit.datagram_unsupported")

    async def recv_datagram(self) -> bytes:
        """Wait until the link closes, since none will ever come. Raises Closed."""
        await self.wait_closed()
        raise self._gone()

    async def wait_closed(self) -> str:
        """Wait until the link is gone and return the reason."""
        await asyncio.shield(self._closed)
        return self._reason or ""

    async def aclose(self, reason: str = "") -> None:
        """Say goodbye, close the link and all its streams. Idempotent."""
        async with self._closing:
            if self._reason is None:
                self._core.goaway(0, reason or "closed by the peer")
                # The peer may hang up before the last words are known to be out: that is no broken connection then.
                self._goodbye = reason or "closed here"
                await self._last_words()
                self._shut(self._goodbye)
                # The peer hangs up when it has read that. Hanging up first could take the words out of its hands: QUIC and
                # TCP both drop what a closed end has not delivered.
                if self._reader is not None:
                    await asyncio.wait([self._reader], timeout=_GOODBYE_S)
            await self._scope.aclose()
            await self._pipe.aclose()
            # A cancelled task keeps its traceback, whose frames keep the engine's objects and so its sockets.
            self._reader = self._writer = None

    async def until_closed(self, waiting: Coroutine[Any, Any, _T]) -> _T:
        """Await something of the engine, but no longer than the link lives. Raises Closed."""
        if self.is_closed:
            waiting.close()
            raise self._gone()
        task = self._scope.spawn(waiting, "wait")
        try:
            await asyncio.wait((task, self._closed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
        if task.done() and not task.cancelled():
            return task.result()
        raise self._gone()

    # ---- what streams call -------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise what became of the link, if it is gone: DecodeError when the peer broke the protocol, else Closed."""
        if self._reason is not None:
            raise self._gone()

    def queue(self, stream: CoreStream, message: bytes) -> bool:
        """Queue a message (see ``MuxCore.send``)."""
        straight = self._core.send(stream, message)
        self._wake_writer()
        return straight

    def take_message(self, stream: CoreStream) -> bytes:
        """Take a received message and grant room for the next."""
        message = self._core.take_message(stream)
        self._wake_writer()
        return message

    def want(self, stream: CoreStream) -> None:
        """Wait for a message of the stream."""
        self._core.want(stream)
        self._wake_writer()

    def withdraw(self, stream: CoreStream) -> bool:
        """Take back a message that waits (see ``MuxCore.abandon``)."""
        return self._core.abandon(stream)

    def finish(self, stream: CoreStream) -> None:
        """Queue FIN. The second FIN of a stream tells nobody anything urgent: it waits a moment for other bytes to go with."""
        is_last_word = stream.fin_received
        self._core.finish(stream)
        if not is_last_word:
            self._wake_writer()
        elif self._lazy_flush is None:
            self._lazy_flush = self.loop.call_later(_LAST_WORD_S, self._flush_lazily)

    def _flush_lazily(self) -> None:
        self._lazy_flush = None
        self._wake_writer()

    def reset(self, stream: CoreStream, code: int) -> None:
        """Queue RESET."""
        self._core.reset(stream, code & 0xFFFF)
        self._wake_writer()

    # ---- the two tasks -----------------------------------------------------------------------------------------

    async def _read(self) -> None:
        reason = "the peer is gone"
        try:
            data = self._early or await self._pipe.read()
            self._early = b""
            while data:
                self._silent_pings = 0
                self._traffic.received += len(data)
                for event in self._core.receive(data):
                    if event.kind == "goaway":
                        reason = f"the peer closed: {event.value}"
                        return
                    self._on_event(event)
                self._wake_writer()
                data = await self._pipe.read()
        except DecodeError as error:
            self._violation = error
            reason = f"the peer broke the protocol: {error.detail}"
            self._core.goaway(1, error.code)
            await self._last_words()
            self._shut(reason)
            with suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._drain()
        except (OSError, MeshError) as error:
            reason = f"the connection broke: {error}"
        finally:
            self._shut(reason)
            if self._writer is not None:
                self._writer.cancel()
            if self._flushed is not None and not self._flushed.done():
                self._flushed.set_result(None)  # Nobody is left to flush for.
            await self._pipe.aclose()

    def _on_event(self, event: Event) -> None:
        kind, stream = event.kind, event.stream
        if kind == "pong":
            if event.value == self._pings:
                self._rtt_s = self.loop.time() - self._ping_sent_s
        elif kind == "opened":
            self._wake_accepter()
        elif stream is not None and stream.user is not None:
            user: MuxStream = stream.user
            user.wake_receiver()
            if kind == "reset":
                user.wake_sender()

    async def _write(self) -> None:
        core = self._core
        try:
            while True:
                pieces = core.take(WRITE_BYTES_MAX) if core.has_output else None
                if pieces:
                    data = b"".join(pieces)
                    self._traffic.sent += len(data)
                    await self._pipe.write(data)
                    # Only now: a message counts as sent when the pipe has it, so that writers feel the pipe's pressure.
                    if core.drained:
                        for stream in core.drained:
                            stream.user.wake_sender()
                        core.drained.clear()
                    continue
                if self._flushed is not None and not self._flushed.done():
                    self._flushed.set_result(None)
                self._writer_idle = self.loop.create_future()
                await self._writer_idle
        except (OSError, MeshError) as error:
            self._shut(f"the connection broke: {error}")
            self._cancel_reader()

    def _cancel_reader(self) -> None:
        if self._reader is not None:
            self._reader.cancel()

    def _wake_writer(self) -> None:
        idle = self._writer_idle
        if idle is not None and not idle.done() and (self._core.has_output or self._flushed is not None):
            idle.set_result(None)

    async def _drain(self) -> None:
        """Read and drop until the peer hangs up."""
        with suppress(OSError, MeshError):
            while await self._pipe.read():
                pass

    async def _last_words(self) -> None:
        """Give the writer a moment to tell the peer why."""
        self._flushed = self.loop.create_future()
        self._wake_writer()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._flushed

    def _wake_accepter(self) -> None:
        for waiter in self._accepters:
            if not waiter.done():
                waiter.set_result(None)
                return

    def _ping(self) -> None:
        """Send a PING, or give the link up after too many without a single byte from the peer.

        Counting own ticks and not seconds keeps links alive over a suspended machine or a stalled loop.
        """
        if self._silent_pings >= SILENT_PINGS_MAX:
            self._shut(f"the peer was silent for {SILENT_PINGS_MAX * self._ping_interval_s:.0f} s")
            self._cancel_reader()
            return
        self._silent_pings += 1
        self._pings += 1
        self._ping_sent_s = self.loop.time()
        self._core.ping(self._pings)
        self._wake_writer()
        self._keepalive = self.loop.call_later(self._ping_interval_s, self._ping)

    def _shut(self, reason: str) -> None:
        """Mark the link gone and wake everyone who waits on it. Idempotent; the first reason stands."""
        if self._reason is not None:
            return
        self._reason = self._goodbye or reason
        self._keepalive.cancel()
        if self._lazy_flush is not None:
            self._lazy_flush.cancel()
        if not self._closed.done():
            self._closed.set_result(None)
        for waiter in self._accepters:
            if not waiter.done():
                waiter.set_result(None)
        for core in self._core.streams:
            if core.user is not None:
                core.user.wake_receiver()
                core.user.wake_sender()

    def _gone(self) -> MeshError:
        if self._violation is not None:
            return DecodeError(self._violation.detail, code=self._violation.code)
        return Closed(f"the link is gone: {self._reason}", code="unreached.closed.link")
