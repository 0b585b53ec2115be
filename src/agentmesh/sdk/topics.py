"""Topics in the async client: ``mesh.publish`` and ``mesh.subscribe`` (docs/howto/messages.md)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Unpack

from agentmesh.errors import Closed, MeshError
from agentmesh.sdk import message_requests as wanted
from agentmesh.sdk.carrier import Carrier, Reader
from agentmesh.sdk.deliveries import Published, TopicPlace
from agentmesh.sdk.message_requests import Patience, PublishOptions, SubscribeOptions, decode_event
from agentmesh.sdk.sse import Frame
from agentmesh.wire.message_limits import split_patterns
from agentmesh.wire.message_views import (
    CloudEventView,
    PresenceView,
    PublishedView,
    SubscribeRequest,
    TopicList,
    TopicRequest,
    TopicRules,
    TopicView,
)


class Event(Published):
    """An event that a subscription handed out: ``subject``, ``text``, ``data``, ``bytes``, ``offset``, ``lost``, ``view``.

    As a member of a consumer group it comes again, to this member or another one, unless it is acknowledged. The loop over a
    subscription does that by itself when its body has ended.
    """

    __slots__ = ("_mesh",)

    def __init__(self, view: CloudEventView, topic: str, group: str, mesh: Carrier) -> None:
        super().__init__(view, topic, group)
        self._mesh = mesh

    async def ack(self) -> None:
        """Say that the work is done. Idempotent; without a consumer group nothing happens."""
        if (request := self.settle_request(back=False)) is not None:
            await self._mesh._send(request)  # pyright: ignore[reportPrivateUsage]

    async def give_back(self) -> None:
        """Have it handed out again. Idempotent, as ``ack``."""
        if (request := self.settle_request(back=True)) is not None:
            await self._mesh._send(request)  # pyright: ignore[reportPrivateUsage]


class Subscription(Reader):
    """What is published under some subjects; iterate it.

        async with mesh.subscribe("build.*") as events:
            async for event in events: ...

    It follows from the moment that the context is entered, or the loop begun. It goes on after a restart of the daemon: a
    durable topic where it was, others with what is published from then on.
    """

    def __init__(self, mesh: Carrier, asked: SubscribeRequest, *, retry_for_s: float, auto: bool) -> None:
        self._mesh, self._auto, self._patience = mesh, auto, Patience(retry_for_s)
        self._asked, self._place = asked, TopicPlace(asked)
        self._stack: contextlib.AsyncExitStack | None = None
        self._frames: AsyncIterator[Frame] | None = None
        self._current: Event | None = None
        self._closed = False

    def __aiter__(self) -> Subscription:
        """Return self."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event.

        Raises:
            UsageError, Unauthorized, RecordNotFound: this cannot be followed.
            NoRoute, Closed: the daemon stayed away for too long.
        """
        if self._closed:
            raise StopAsyncIteration
        await self._settle(back=False)
        if self._frames is None:
            await self._open()
        while True:
            try:
                view = decode_event(await self._next_frame())
            except MeshError as error:
                await self._end_stream()
                await asyncio.sleep(self._patience.next_delay_s(error))
                continue
            self._patience.answered()
            if self._place.accept(view):
                self._current = Event(view, self._asked.topic, self._asked.group, self._mesh)
                self._mesh._remember(self)  # pyright: ignore[reportPrivateUsage]
                return self._current

    async def __aenter__(self) -> Subscription:
        """Begin to follow. Raises as the first step of the iteration."""
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; work that failed is given back."""
        await self.aclose(done=error is None)

    async def aclose(self, *, done: bool = True) -> None:
        """End; see ``Reader``. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._mesh._forget(self)  # pyright: ignore[reportPrivateUsage]
        try:
            await self._settle(back=not done)
        finally:
            await self._end_stream()

    async def _next_frame(self) -> Frame:
        if self._frames is None:
            await self._open()
        assert self._frames is not None
        try:
            return await anext(self._frames)
        except StopAsyncIteration:
            raise Closed("the daemon ended the stream", code="daemon.closed", hint="agentmesh status") from None

    async def _open(self) -> None:
        if self._frames is None:
            stack = contextlib.AsyncExitStack()
            stream = self._mesh._streaming(self._place.request())  # pyright: ignore[reportPrivateUsage]
            self._frames = await stack.enter_async_context(stream)
            self._stack = stack
            self._mesh._remember(self)  # pyright: ignore[reportPrivateUsage]

    async def _end_stream(self) -> None:
        stack, self._stack, self._frames = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    async def _settle(self, *, back: bool) -> None:
        event, self._current = self._current, None
        if event is None or not (self._auto or back):
            return
        request = event.settle_request(back=back)
        if request is None:
            return
        if back:
            with contextlib.suppress(MeshError):
                await self._mesh._send(request)  # pyright: ignore[reportPrivateUsage]
        else:
            await self._mesh._send_patiently(request, self._patience)  # pyright: ignore[reportPrivateUsage]


class Publishing(Carrier):
    """The part of ``Mesh`` that publishes and subscribes."""

    async def publish(
        self, subject: str, payload: str | bytes | None = None, **options: Unpack[PublishOptions]
    ) -> PublishedView:
        """Publish to all who follow a subject.

        Args:
            subject: Words divided by dots, such as ``build.linux.done``.
            payload: Text or bytes, unless ``data`` gives JSON.
            options: As in ``PublishOptions``; ``retain=True`` keeps it for those who subscribe later.

        Raises:
            UsageError, LimitError, Unauthorized, Busy: nothing was published.
        """
        return await self._send(wanted.publish(subject, payload, **options))

    def subscribe(
        self, *subjects: str, retry_for_s: float = 60.0, auto_ack: bool = True, **options: Unpack[SubscribeOptions]
    ) -> Subscription:
        """Return what is published under some subjects, to be iterated.

        Args:
            subjects: Patterns: ``a.b``, ``*`` for one word, ``>`` for all further words.
            retry_for_s: Give up after so many seconds without a daemon.
            auto_ack: Of a consumer group: acknowledge each event when the next one is asked for.
            options: As in ``SubscribeOptions``: ``topic`` reads a durable one from ``start``, ``offset`` or ``since``; with
                ``group`` its members share the work.
        """
        asked = SubscribeRequest(subjects=split_patterns(",".join(subjects)), **options)
        return Subscription(self, asked, retry_for_s=retry_for_s, auto=auto_ack)

    async def topics(self) -> TopicList:
        """Return durable topics, patterns that are followed at the node, and its rules."""
        return await self._send(wanted.topics())

    async def create_topic(self, name: str, subjects: Sequence[str], **limits: int) -> TopicView:
        """Make a durable topic or change its limits: ``records_max``, ``bytes_max``, ``age_s_max``.

        Raises:
            UsageError, StateError (code "topic.overlap"): nothing changed.
        """
        return await self._send(wanted.create_topic(TopicRequest(name=name, subjects=list(subjects), **limits)))

    async def remove_topic(self, name: str) -> bool:
        """Delete a durable topic with all it keeps; say whether there was one."""
        return (await self._send(wanted.remove_topic(name))).removed

    async def set_topic_rules(self, rules: Sequence[TopicRules]) -> TopicList:
        """Say who may publish and subscribe at the node. Raises UsageError."""
        return await self._send(wanted.set_topic_rules(rules))

    async def presence(self) -> list[PresenceView]:
        """Return which agents are there, left, or were lost, newest first."""
        return (await self._send(wanted.presence())).agents
