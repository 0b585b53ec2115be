"""``/api/v1/ws``: messages and topics over one WebSocket (docs/reference/http-api.md, "WebSocket").

A client asks in JSON frames ``{"id": 1, "op": …}`` and is answered ``{"id": 1, "ok": …}`` or ``{"id": 1, "problem": …}``. What
it follows comes as ``{"on": 1, …}``, by the id of the frame that asked. Requests of one socket are done one after the
other; a client that does not read is waited for, and its subscriptions lose the oldest as every slow subscriber's do.

Loaded with the first socket: a daemon that has none does not pay for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from agentmesh.api.body import decode_body
from agentmesh.api.messaging import Mail, Topics
from agentmesh.api.owned import mail_of, topics_of
from agentmesh.api.problems import problem_of, unexpected
from agentmesh.api.sse import SEND_TIMEOUT_S, Streams
from agentmesh.api.table import Ask
from agentmesh.errors import LimitError, MeshError, RecordNotFound, UsageError
from agentmesh.net.tasks import TaskScope
from agentmesh.wire.message_limits import ACKS_MAX, LEASE_S, LEASE_S_MAX, NODE
from agentmesh.wire.message_views import MessageRequest, PublishRequest, SubscribeRequest

_log = logging.getLogger("agentmesh.api")

#: Subscriptions and inboxes of one socket.
FOLLOWS_MAX = 64
#: Requests of one batch.
BATCH_MAX = 1000
_POLL_S = 30.0
#: Close codes of RFC 6455: we go away, a bug of ours.
_GOING, _BUG = 1001, 1011

_encode = msgspec.json.Encoder().encode


class _Op(msgspec.Struct, kw_only=True, tag_field="op", forbid_unknown_fields=True):
    id: int


class Subscribe(SubscribeRequest, kw_only=True, tag_field="op", tag="subscribe", forbid_unknown_fields=True):
    """Follow subjects; fields of ``SubscribeRequest``. Events come as ``{"on": id, "event": CloudEvent}``."""

    id: int


class Inbox(_Op, tag="inbox"):
    """Follow an inbox. Messages come as ``{"on": id, "messages": […]}``, at most ``window`` that are not acknowledged."""

    agent: str = ""
    window: int = 64
    lease_s: int = LEASE_S


class Stop(_Op, tag="stop"):
    """End what the frame with the id ``on`` began to follow."""

    on: int


class Publication(PublishRequest):
    """One item of ``Publish``."""

    subject: str


class Publish(_Op, tag="publish"):
    """Publish a batch; answered with one view or problem for each, in order."""

    items: list[Publication]


class SendOp(_Op, tag="send"):
    """Send a batch; answered as ``Publish``."""

    messages: list[MessageRequest]


class Ack(_Op, tag="ack"):
    """Acknowledge messages of an inbox, or give them back."""

    message_ids: list[str]
    agent: str = ""
    back: bool = False


class Done(_Op, tag="done"):
    """Acknowledge work of a consumer group, or give it back."""

    topic: str
    group: str
    leases: list[str]
    back: bool = False


_decoder = msgspec.json.Decoder(Subscribe | Inbox | Stop | Publish | SendOp | Ack | Done)


class _Follow:
    """One subscription or inbox of a socket."""

    __slots__ = ("agent", "moved", "out", "task")

    def __init__(self, agent: str | None = None) -> None:
        self.task: asyncio.Task[Any] | None = None
        #: Of an inbox: whose, and the ids that were handed out and not settled yet.
        self.agent = agent
        self.out: dict[str, None] = {}
        self.moved = asyncio.Event()


class Socket:
    """Serve one WebSocket.

    Args:
        ask: Whoever opened it, and the node.
    """

    def __init__(self, ask: Ask, receive: Receive, send: Send) -> None:
        self._mail: Mail = mail_of(ask)
        self._ask, self._receive, self._raw_send = ask, receive, send
        self._scope = TaskScope("api-socket", tasks_max=FOLLOWS_MAX)
        self._follows: dict[int, _Follow] = {}
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Serve until the client goes away; what it did not acknowledge is given back."""
        try:
            while True:
                event = await self._receive()
                if event["type"] == "websocket.disconnect":
                    return
                if event["type"] == "websocket.receive":
                    await self._take(event.get("text") or event.get("bytes") or b"")
        except TimeoutError:
            _log.info("dropped a socket whose client took nothing for %g s", SEND_TIMEOUT_S)
        finally:
            await self._scope.aclose()
            await self._give_back()

    async def _take(self, raw: str | bytes) -> None:
        number = 0
        try:
            op = decode_body(_decoder, raw.encode() if isinstance(raw, str) else raw)
            number = op.id
            answer: Any = await self._do(op)
        except MeshError as error:
            await self._tell({"id": number, "problem": problem_of(error)})
            return
        except Exception:  # noqa: BLE001 - the HTTP edge
            _log.exception("a request on a socket failed")
            await self._tell({"id": number, "problem": unexpected()})
            return
        await self._tell({"id": number, "ok": answer})

    async def _do(self, op: Any) -> Any:
        if isinstance(op, Publish):
            _check_batch(op.items)
            topics = topics_of(self._ask)
            return [await _each(topics.publish(item.subject, item)) for item in op.items]
        if isinstance(op, SendOp):
            _check_batch(op.messages)
            return [await _each(self._mail.send(request)) for request in op.messages]
        if isinstance(op, Ack):
            return await self._acknowledge(op)
        if isinstance(op, Done):
            _check_batch(op.leases)
            return await topics_of(self._ask).acknowledge(op.topic, op.group, op.leases, back=op.back)
        if isinstance(op, Stop):
            await self._stop(op.on)
            return None
        self._follow(op)
        return None

    def _follow(self, op: Subscribe | Inbox) -> None:
        if op.id in self._follows:
            raise UsageError(f"id {op.id} is in use on this socket", code="ws.id")
        if len(self._follows) >= FOLLOWS_MAX:
            raise LimitError(f"a socket follows at most {FOLLOWS_MAX} things", code="ws.follows")
        if isinstance(op, Subscribe):
            follow = _Follow()
            work = self._pump_topics(op, topics_of(self._ask))
        else:
            if not (1 <= op.window <= ACKS_MAX and 1 <= op.lease_s <= LEASE_S_MAX):
                raise UsageError(f"window is 1 to {ACKS_MAX}, lease_s 1 to {LEASE_S_MAX}", code="ws.inbox")
            follow = _Follow("" if op.agent == NODE else op.agent)
            work = self._pump_inbox(op, follow)
        self._follows[op.id] = follow
        follow.task = self._scope.spawn(self._carry(op.id, work), f"follow {op.id}")

    async def _carry(self, number: int, work: Any) -> None:
        """Run a pump to its end and tell why it ended."""
        try:
            await work
            problem = None
        except MeshError as error:
            problem = problem_of(error)
        except TimeoutError:
            return  # the client takes nothing; the socket ends
        except Exception:  # noqa: BLE001 - the HTTP edge
            _log.exception("following on a socket failed")
            problem = unexpected()
        self._follows.pop(number, None)
        await self._tell({"on": number, "end": True, "problem": problem})

    async def _pump_topics(self, op: Subscribe, topics: Topics) -> None:
        fields = {name: getattr(op, name) for name in SubscribeRequest.__struct_fields__}
        events = topics.subscribe(SubscribeRequest(**fields))
        try:
            async for event in events:
                await self._tell({"on": op.id, "event": event})
        finally:
            await events.aclose()

    async def _pump_inbox(self, op: Inbox, follow: _Follow) -> None:
        agent = follow.agent or ""
        while True:
            room = op.window - len(follow.out)
            if room <= 0:
                follow.moved.clear()
                try:
                    # What is not settled within its lease is handed out again, so it holds no place any longer.
                    async with asyncio.timeout(op.lease_s):
                        await follow.moved.wait()
                except TimeoutError:
                    follow.out.clear()
                continue
            page = await self._mail.inbox(
                agent, limit=min(room, ACKS_MAX), wait_s=_POLL_S, lease_s=float(op.lease_s), peek=False
            )
            if page.messages:
                follow.out.update(dict.fromkeys(one.message_id for one in page.messages))
                await self._tell({"on": op.id, "messages": page.messages})

    async def _acknowledge(self, op: Ack) -> Any:
        _check_batch(op.message_ids)
        agent = "" if op.agent == NODE else op.agent
        done = await self._mail.ack(agent, op.message_ids, back=op.back)
        for follow in self._follows.values():
            if follow.agent == agent:
                for one in op.message_ids:
                    follow.out.pop(one, None)
                follow.moved.set()
        return done

    async def _stop(self, number: int) -> None:
        follow = self._follows.pop(number, None)
        if follow is None or follow.task is None:
            raise RecordNotFound(f"nothing is followed under the id {number}", code="ws.unknown")
        follow.task.cancel()
        await asyncio.wait({follow.task})
        await self._give_back_of(follow)

    async def _give_back(self) -> None:
        for follow in self._follows.values():
            await self._give_back_of(follow)

    async def _give_back_of(self, follow: _Follow) -> None:
        if follow.agent is None or not follow.out:
            return
        try:
            await self._mail.ack(follow.agent, list(follow.out), back=True)
        except MeshError as error:
            _log.info("messages of a closed socket come again when their lease is over: %s", error)

    async def _tell(self, frame: dict[str, Any]) -> None:
        """Send a frame, in whole. Raises TimeoutError: the client takes nothing."""
        text = _encode(frame).decode()
        async with self._sending, asyncio.timeout(SEND_TIMEOUT_S):
            await self._raw_send({"type": "websocket.send", "text": text})


async def _each(work: Any) -> Any:
    """Return what one request of a batch came to: its answer, or its problem."""
    try:
        return await work
    except MeshError as error:
        return {"problem": problem_of(error)}


def _check_batch(items: Sequence[Any]) -> None:
    if not 0 < len(items) <= BATCH_MAX:
        raise UsageError(f"a batch has 1 to {BATCH_MAX} entries", code="ws.batch")


async def serve_socket(ask: Ask, streams: Streams, scope: Scope, receive: Receive, send: Send) -> None:
    """Accept a WebSocket and serve it until one of both ends it. Raises Busy, Closed: it was not accepted."""
    streams.check_room()
    if (await receive())["type"] != "websocket.connect":
        return
    await send({"type": "websocket.accept"})
    code = _BUG
    try:
        async with streams.lasting():
            await Socket(ask, receive, send).run()
            code = 0
    except TimeoutError:
        code = _GOING
    except asyncio.CancelledError:
        code = 0  # whoever cancels says why
        raise
    finally:
        if code:
            try:
                await send({"type": "websocket.close", "code": code})
            except (OSError, RuntimeError):
                _log.debug("the client of a socket had gone already")
