"""Messages and topics in the blocking client; what each method does is said in ``sdk.messaging`` and ``sdk.topics``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar, Unpack

from agentmesh.errors import Closed, MeshError, UsageError
from agentmesh.sdk import message_requests as wanted
from agentmesh.sdk.deliveries import InboxPlace, Published, Received, TopicPlace, reply_request
from agentmesh.sdk.message_requests import (
    Patience,
    PublishOptions,
    SendOptions,
    SubscribeOptions,
    decode_event,
)
from agentmesh.sdk.requests import Request
from agentmesh.sdk.sse import Frame
from agentmesh.wire.message_limits import LEASE_S, LEASE_S_MAX, split_patterns
from agentmesh.wire.message_views import (
    CloudEventView,
    DeadLetters,
    GroupView,
    MailView,
    MessageView,
    PresenceView,
    PublishedView,
    SentView,
    SubscribeRequest,
    TopicList,
    TopicRequest,
    TopicRules,
    TopicView,
)

T = TypeVar("T")


class SyncCarrier:
    """Base of the mixins; ``SyncMesh`` does the work."""

    def _send(self, request: Request[T]) -> T:
        """Send a request and read its answer."""
        raise NotImplementedError

    def _streaming(self, request: Request[Any]) -> AbstractContextManager[Iterator[Frame]]:
        """Open a stream; it is open when the context is entered."""
        raise NotImplementedError

    def _remember(self, reader: SyncReader) -> None:
        """Settle what a reader left unsettled when this client closes."""
        raise NotImplementedError

    def _forget(self, reader: SyncReader) -> None:
        """The reader has ended."""
        raise NotImplementedError

    def _send_patiently(self, request: Request[T], patience: Patience) -> T:
        """Send a request that may be repeated, for as long as the patience lasts while the daemon is away."""
        while True:
            try:
                answer = self._send(request)
            except MeshError as error:
                time.sleep(patience.next_delay_s(error))
            else:
                patience.answered()
                return answer


class SyncReader:
    """An inbox or a subscription that somebody reads."""

    def close(self, *, done: bool = True) -> None:
        """End; what was handed out last counts as done, or is given back."""
        raise NotImplementedError


class SyncMessage(Received):
    """As ``sdk.messaging.Message``, blocking."""

    __slots__ = ("_mesh",)

    def __init__(self, view: MessageView, agent: str, mesh: SyncCarrier) -> None:
        super().__init__(view, agent)
        self._mesh = mesh

    def ack(self) -> None:
        """Say that it is done; it does not come again. Idempotent."""
        if (request := self.settle_request(back=False)) is not None:
            self._mesh._send(request)  # pyright: ignore[reportPrivateUsage]

    def give_back(self) -> None:
        """Have it handed out again. Idempotent; nothing happens once it is acknowledged."""
        if (request := self.settle_request(back=True)) is not None:
            self._mesh._send(request)  # pyright: ignore[reportPrivateUsage]


class SyncEvent(Published):
    """As ``sdk.topics.Event``, blocking."""

    __slots__ = ("_mesh",)

    def __init__(self, view: CloudEventView, topic: str, group: str, mesh: SyncCarrier) -> None:
        super().__init__(view, topic, group)
        self._mesh = mesh

    def ack(self) -> None:
        """Say that the work is done. Idempotent; without a consumer group nothing happens."""
        if (request := self.settle_request(back=False)) is not None:
            self._mesh._send(request)  # pyright: ignore[reportPrivateUsage]

    def give_back(self) -> None:
        """Have it handed out again. Idempotent, as ``ack``."""
        if (request := self.settle_request(back=True)) is not None:
            self._mesh._send(request)  # pyright: ignore[reportPrivateUsage]


class _Settling(SyncReader):
    """What both readers share: the last thing handed out is settled once."""

    def __init__(self, mesh: SyncCarrier, retry_for_s: float, auto: bool) -> None:
        self._mesh, self._auto, self._patience = mesh, auto, Patience(retry_for_s)
        self._current: SyncMessage | SyncEvent | None = None
        self._closed = False

    def _settle(self, *, back: bool) -> None:
        one, self._current = self._current, None
        if one is None or not (self._auto or back):
            return
        request = one.settle_request(back=back)
        if request is None:
            return
        if back:
            with contextlib.suppress(MeshError):
                self._mesh._send(request)  # pyright: ignore[reportPrivateUsage]
        else:
            self._mesh._send_patiently(request, self._patience)  # pyright: ignore[reportPrivateUsage]


class SyncInbox(_Settling):
    """As ``sdk.messaging.Inbox``, blocking."""

    def __init__(
        self,
        mesh: SyncCarrier,
        agent: str,
        *,
        wait_s: float | None,
        lease_s: int,
        limit: int,
        retry_for_s: float,
        auto: bool,
    ) -> None:
        if not 1 <= lease_s <= LEASE_S_MAX:
            raise UsageError(f"lease_s is 1 to {LEASE_S_MAX}", code="mail.lease")
        super().__init__(mesh, retry_for_s, auto)
        self._place = InboxPlace(agent, wait_s=wait_s, limit=limit, lease_s=lease_s)

    def __iter__(self) -> SyncInbox:
        """Return self."""
        return self

    def __next__(self) -> SyncMessage:
        """Acknowledge the message before and wait for the next one. Raises as ``Inbox``."""
        if self._closed:
            raise StopIteration
        self._settle(back=False)
        while True:
            view = self._place.next(time.monotonic())
            if view is not None:
                message = SyncMessage(view, self._place.agent, self._mesh)
                if self._place.is_repeated(view):
                    message.ack()
                    continue
                self._current = message
                self._mesh._remember(self)  # pyright: ignore[reportPrivateUsage]
                return message
            request = self._place.poll(time.monotonic())
            if request is None:
                self.close()
                raise StopIteration
            page = self._mesh._send_patiently(request, self._patience)  # pyright: ignore[reportPrivateUsage]
            self._place.take(page, time.monotonic())

    def __enter__(self) -> SyncInbox:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; the last message is given back if its work failed."""
        self.close(done=error is None)

    def close(self, *, done: bool = True) -> None:
        """End; see ``SyncReader``. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._mesh._forget(self)  # pyright: ignore[reportPrivateUsage]
        self._settle(back=not done)
        if left := self._place.left():
            with contextlib.suppress(MeshError):
                self._mesh._send(wanted.ack(self._place.agent, left, back=True))  # pyright: ignore[reportPrivateUsage]


class SyncSubscription(_Settling):
    """As ``sdk.topics.Subscription``, blocking."""

    def __init__(self, mesh: SyncCarrier, asked: SubscribeRequest, *, retry_for_s: float, auto: bool) -> None:
        super().__init__(mesh, retry_for_s, auto)
        self._asked, self._place = asked, TopicPlace(asked)
        self._stack: contextlib.ExitStack | None = None
        self._frames: Iterator[Frame] | None = None

    def __iter__(self) -> SyncSubscription:
        """Return self."""
        return self

    def __next__(self) -> SyncEvent:
        """Return the next event. Raises as ``Subscription``."""
        if self._closed:
            raise StopIteration
        self._settle(back=False)
        if self._frames is None:
            self.open()
        while True:
            try:
                view = decode_event(self._next_frame())
            except MeshError as error:
                self._end_stream()
                time.sleep(self._patience.next_delay_s(error))
                continue
            self._patience.answered()
            if self._place.accept(view):
                self._current = SyncEvent(view, self._asked.topic, self._asked.group, self._mesh)
                return self._current

    def __enter__(self) -> SyncSubscription:
        """Begin to follow. Raises as the first step of the iteration."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; work that failed is given back."""
        self.close(done=error is None)

    def open(self) -> None:
        """Begin to follow, if that has not been done. Raises as the first step of the iteration."""
        if self._frames is None:
            stack = contextlib.ExitStack()
            stream = self._mesh._streaming(self._place.request())  # pyright: ignore[reportPrivateUsage]
            self._frames = stack.enter_context(stream)
            self._stack = stack
            self._mesh._remember(self)  # pyright: ignore[reportPrivateUsage]

    def close(self, *, done: bool = True) -> None:
        """End; see ``SyncReader``. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._mesh._forget(self)  # pyright: ignore[reportPrivateUsage]
        try:
            self._settle(back=not done)
        finally:
            self._end_stream()

    def _next_frame(self) -> Frame:
        if self._frames is None:
            self.open()
        assert self._frames is not None
        try:
            return next(self._frames)
        except StopIteration:
            raise Closed("the daemon ended the stream", code="daemon.closed", hint="agentmesh status") from None

    def _end_stream(self) -> None:
        stack, self._stack, self._frames = self._stack, None, None
        if stack is not None:
            stack.close()


class SyncMessaging(SyncCarrier):
    """The part of ``SyncMesh`` for messages and topics. Arguments and errors as in ``Mesh``."""

    def send(self, to: str, payload: str | bytes | None = None, **options: Unpack[SendOptions]) -> SentView:
        """Send a message."""
        return self._send(wanted.send(wanted.message_request(to, payload, **options)))

    def reply(self, message: Received, payload: str | bytes | None = None, **options: Unpack[SendOptions]) -> SentView:
        """Answer a message to its sender."""
        return self._send(wanted.send(reply_request(message, payload, **options)))

    def inbox(
        self,
        agent: str = "",
        *,
        wait_s: float | None = None,
        lease_s: int = LEASE_S,
        limit: int = 16,
        retry_for_s: float = 60.0,
        auto_ack: bool = True,
    ) -> SyncInbox:
        """Return what comes for an agent, to be iterated."""
        return SyncInbox(
            self, agent, wait_s=wait_s, lease_s=lease_s, limit=limit, retry_for_s=retry_for_s, auto=auto_ack
        )

    def peek(self, agent: str = "", *, limit: int = 100) -> list[MessageView]:
        """Return what waits in an inbox and leave it there."""
        return self._send(wanted.inbox(agent, limit=limit, wait_s=0, lease_s=1, peek=True)).messages

    def sent(self, message_id: str) -> SentView:
        """Return what became of a message of this node."""
        return self._send(wanted.sent(message_id))

    def mail(self) -> MailView:
        """Return the courier in figures."""
        return self._send(wanted.mail())

    def dead_letters(self, *, limit: int = 100, start: int = 0) -> DeadLetters:
        """Return messages that were given up, newest first."""
        return self._send(wanted.dead(limit, start))

    def retry(self, message_id: str) -> SentView:
        """Send a dead letter again."""
        return self._send(wanted.retry(message_id))

    def groups(self) -> list[GroupView]:
        """Return the groups that agents of this node are in or made."""
        return self._send(wanted.groups()).groups

    def set_group(self, name: str, members: Sequence[str]) -> GroupView:
        """Make a group, or change who is in it."""
        return self._send(wanted.set_group(name, members))

    def remove_group(self, name: str) -> GroupView:
        """End a group."""
        return self._send(wanted.remove_group(name))

    def publish(
        self, subject: str, payload: str | bytes | None = None, **options: Unpack[PublishOptions]
    ) -> PublishedView:
        """Publish to all who follow a subject."""
        return self._send(wanted.publish(subject, payload, **options))

    def subscribe(
        self, *subjects: str, retry_for_s: float = 60.0, auto_ack: bool = True, **options: Unpack[SubscribeOptions]
    ) -> SyncSubscription:
        """Return what is published under some subjects, to be iterated."""
        asked = SubscribeRequest(subjects=split_patterns(",".join(subjects)), **options)
        return SyncSubscription(self, asked, retry_for_s=retry_for_s, auto=auto_ack)

    def topics(self) -> TopicList:
        """Return durable topics, patterns that are followed at the node, and its rules."""
        return self._send(wanted.topics())

    def create_topic(self, name: str, subjects: Sequence[str], **limits: int) -> TopicView:
        """Make a durable topic or change its limits."""
        return self._send(wanted.create_topic(TopicRequest(name=name, subjects=list(subjects), **limits)))

    def remove_topic(self, name: str) -> bool:
        """Delete a durable topic with all it keeps; say whether there was one."""
        return self._send(wanted.remove_topic(name)).removed

    def set_topic_rules(self, rules: Sequence[TopicRules]) -> TopicList:
        """Say who may publish and subscribe at the node."""
        return self._send(wanted.set_topic_rules(rules))

    def presence(self) -> list[PresenceView]:
        """Return which agents are there, left, or were lost, newest first."""
        return self._send(wanted.presence()).agents
