"""Server-sent events: frames of EventV1, and the response that carries them.

A frame is ``id: <seq>``, ``event: <kind>``, ``data: <EventV1 as JSON>``; those of a query are whole answers. sse-starlette
sends them, watches for a client that goes away and sends a comment every 15 s so that proxies and clients see life. Nothing
is queued here: the next event is asked for when the last one was written, so a slow client slows only its own stream, and is
dropped after ``SEND_TIMEOUT_S``; it resumes with ``Last-Event-ID``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

import anyio
import msgspec
from starlette.types import Message, Receive, Scope, Send

from agentmesh.api.backend import Call
from agentmesh.api.problems import encode_problem, problem_of, send_prepared, send_problem, unexpected
from agentmesh.api.table import Download, EventStream
from agentmesh.errors import Busy, Closed, MeshError
from agentmesh.net.tasks import TaskScope
from agentmesh.sdk.types import DiscoverView
from agentmesh.wire.event import EventV1, encode_json

_log = logging.getLogger("agentmesh.api")

HEARTBEAT_S = 15
#: A client that takes nothing for so long is dropped.
SEND_TIMEOUT_S = 60.0
#: Most streams open at once, and most requests that wait.
STREAMS_MAX = 512
WAITS_MAX = 4096
#: Longest wait for a call to be given up after its client went away.
CLOSE_TIMEOUT_S = 10.0

#: Turns of the loop that a subscription gets to begin, and to be refused as a whole answer, before its stream opens.
_STEPS_TO_BEGIN = 3

_encode = msgspec.json.Encoder().encode
S = TypeVar("S", bound=msgspec.Struct)


def event_frame(event: EventV1) -> bytes:
    """Return one event as a frame; without ``id`` when the log has not numbered it."""
    head = f"id: {event.seq}\nevent: {event.kind}\ndata: " if event.seq else f"event: {event.kind}\ndata: "
    return head.encode() + encode_json(event) + b"\n\n"


def problem_frame(error: MeshError | None) -> bytes:
    """Return the frame that ends a stream with an error; None stands for a bug."""
    problem = unexpected() if error is None else problem_of(error)
    return b"event: problem\ndata: " + encode_problem(problem) + b"\n\n"


def stream_of_call(call: Call) -> EventStream:
    """Return the stream of one call: its events, then ``reply`` or ``problem``. Ending it early cancels the call."""
    return EventStream(_call_frames(call), call.aclose)


def stream_of_log(events: AsyncIterator[EventV1]) -> EventStream:
    """Return the stream of a followed log; it ends with the client, at shutdown, or with ``problem``."""

    async def close() -> None:
        if isinstance(events, AsyncGenerator):
            await events.aclose()

    return EventStream(_log_frames(events), close)


def stream_of_answers(answers: AsyncGenerator[DiscoverView]) -> EventStream:
    """Return the stream of one query: a frame ``answer`` for each change of the list; it ends with them or ``problem``."""
    return EventStream(_answer_frames(answers), answers.aclose)


def item_frame(kind: str, item: msgspec.Struct, number: int = 0) -> bytes:
    """Return a struct as a frame; with ``id`` where its stream can be resumed after it."""
    head = f"id: {number}\nevent: {kind}\ndata: " if number else f"event: {kind}\ndata: "
    return head.encode() + _encode(item) + b"\n\n"


async def stream_of_items(items: AsyncGenerator[S], frame: Callable[[S], bytes]) -> EventStream:
    """Return the stream of what a subscription yields; it ends with it or ``problem``.

    The subscription begins before this returns, so that a client that sees the stream open misses nothing from then on.

    Raises:
        MeshError: the subscription was refused at once.
    """
    scope = TaskScope("api-stream", tasks_max=1)

    async def begin() -> S | None:
        return await anext(items, None)

    async def close() -> None:
        await scope.aclose()
        await items.aclose()

    first = scope.spawn(begin(), "first", quiet=True)
    for _ in range(_STEPS_TO_BEGIN):
        await asyncio.sleep(0)
    if first.done() and (failure := first.exception()) is not None:
        await close()
        raise failure
    return EventStream(_item_frames(first, items, frame), close)


async def _item_frames(
    first: asyncio.Task[S | None], items: AsyncGenerator[S], frame: Callable[[S], bytes]
) -> AsyncGenerator[bytes]:
    try:
        yield b"retry: 1000\n\n"
        item = await first
        while item is not None:
            yield frame(item)
            item = await anext(items, None)
    except MeshError as error:
        yield problem_frame(error)
    except Exception:  # noqa: BLE001 - the HTTP edge: headers are out, so a bug is told inside the stream
        _log.exception("a subscription failed")
        yield problem_frame(None)


async def _answer_frames(answers: AsyncGenerator[DiscoverView]) -> AsyncGenerator[bytes]:
    try:
        async for one in answers:
            yield b"event: answer\ndata: " + _encode(one) + b"\n\n"
    except MeshError as error:
        yield problem_frame(error)
    except Exception:  # noqa: BLE001 - the HTTP edge: headers are out, so a bug is told inside the stream
        _log.exception("a query failed")
        yield problem_frame(None)


async def _call_frames(call: Call) -> AsyncGenerator[bytes]:
    try:
        async for event in call:
            yield event_frame(event)
        yield b"event: reply\ndata: " + _encode(await call.reply()) + b"\n\n"
    except MeshError as error:
        error.extra.setdefault("run_id", call.run_id)
        error.extra.setdefault("task_id", call.task_id)
        yield problem_frame(error)
    except Exception:  # noqa: BLE001 - the HTTP edge: headers are out, so a bug is told inside the stream
        _log.exception("streaming task %s failed", call.task_id)
        yield problem_frame(None)


async def _log_frames(events: AsyncIterator[EventV1]) -> AsyncGenerator[bytes]:
    try:
        yield b"retry: 1000\n\n"
        async for event in events:
            yield event_frame(event)
    except MeshError as error:
        yield problem_frame(error)
    except Exception:  # noqa: BLE001 - the HTTP edge: headers are out, so a bug is told inside the stream
        _log.exception("following the event log failed")
        yield problem_frame(None)


class Streams:
    """The open streams of one server: bounded, and ended together at shutdown."""

    def __init__(self, *, streams_max: int = STREAMS_MAX, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.streams_max = streams_max
        self.heartbeat_s = heartbeat_s
        self._open: list[asyncio.Timeout] = []
        self._waiting: list[asyncio.Timeout] = []
        self._ended = False

    def __len__(self) -> int:
        return len(self._open)

    def check_room(self) -> None:
        """Say whether one more stream may be opened.

        Raises:
            Busy: too many are open.
            Closed: the daemon is stopping.
        """
        if self._ended:
            raise Closed("the daemon is stopping", code="daemon.stopping")
        if len(self._open) >= self.streams_max:
            raise Busy(f"{self.streams_max} event streams are open", code="refused.busy.streams", retry_after_s=5)

    def end_all(self) -> None:
        """End every stream now, cleanly, and open no more. Idempotent."""
        self._ended = True
        for clock in (*self._open, *self._waiting):
            clock.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def waiting(self) -> AsyncGenerator[None]:
        """Count what goes on in the body as a request that waits; ``end_all`` ends it.

        Raises:
            Busy: too many wait.
            Closed: the daemon is stopping.
        """
        stopping = Closed("the daemon is stopping", code="daemon.stopping")
        if self._ended:
            raise stopping
        if len(self._waiting) >= WAITS_MAX:
            raise Busy(f"{WAITS_MAX} requests wait", code="refused.busy.waits", retry_after_s=5)
        clock = asyncio.timeout(None)
        self._waiting.append(clock)
        try:
            async with clock:
                yield
        except TimeoutError:
            raise stopping from None
        finally:
            self._waiting.remove(clock)

    @contextlib.asynccontextmanager
    async def lasting(self) -> AsyncGenerator[None]:
        """Count what goes on in the body as an open stream; ``end_all`` ends it with TimeoutError."""
        clock = asyncio.timeout(0 if self._ended else None)
        self._open.append(clock)
        try:
            async with clock:
                yield
        finally:
            self._open.remove(clock)

    async def respond(self, stream: EventStream, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames until they end, the client goes away or takes nothing for too long, or ``end_all``."""
        # Loaded with the first stream: a daemon that serves none does not pay for it.
        from sse_starlette.sse import EventSourceResponse, SendTimeoutError

        progress = Progress(send)
        clock = asyncio.timeout(0 if self._ended else None)
        self._open.append(clock)
        try:
            async with clock:
                response = EventSourceResponse(
                    stream.frames, ping=self.heartbeat_s, send_timeout=SEND_TIMEOUT_S, cleanup_timeout=None, sep="\n"
                )
                await response(scope, receive, progress)
        except SendTimeoutError:
            _log.info("dropped an event stream whose client took nothing for %g s", SEND_TIMEOUT_S)
        except TimeoutError:
            await progress.finish(Closed("the daemon is stopping", code="daemon.stopping"))
        finally:
            self._open.remove(clock)
            # Whatever ended the stream, the call behind it is given up; a cancellation of this task waits for that.
            with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await stream.close()

    async def download(self, file: Download, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a file piece by piece. One that fails or is ended by ``end_all`` breaks off, so that nobody takes it for whole."""
        from starlette.responses import StreamingResponse

        headers = {
            "content-disposition": f'attachment; filename="{file.name}"',
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        }
        clock = asyncio.timeout(0 if self._ended else None)
        self._open.append(clock)
        progress = Progress(send)
        try:
            async with clock:
                await StreamingResponse(file.pieces, media_type=file.media_type, headers=headers)(
                    scope, receive, progress
                )
        except TimeoutError:
            if not progress.started:
                await send_problem(send, Closed("the daemon is stopping", code="daemon.stopping"))
        except Exception:  # noqa: BLE001 - the HTTP edge: headers are out, and the server closes what is not whole
            _log.exception("a download broke off")
            if not progress.started:
                await send_prepared(send, unexpected(), [])
        finally:
            self._open.remove(clock)


class Progress:
    """An ASGI ``send`` that knows how far the response has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = self.finished = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        await self._send(message)
        self.finished = message["type"] == "http.response.body" and not message.get("more_body", False)

    async def finish(self, error: MeshError) -> None:
        """End the response as if it were complete; answer with the error if it has not begun."""
        if not self.started:
            await send_problem(self._send, error)
        elif not self.finished:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
