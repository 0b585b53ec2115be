"""What is handed to a program: messages and published events, and the place of a reader in an inbox or a topic. No I/O.

A message or a lease is settled once: acknowledged, or given back to be handed out again.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict, deque
from typing import Any, Unpack

import msgspec

from agentmesh.errors import DecodeError, StateError
from agentmesh.sdk import message_requests as wanted
from agentmesh.sdk.message_requests import SendOptions
from agentmesh.sdk.requests import Request
from agentmesh.wire.message_views import (
    AckView,
    CloudEventView,
    InboxPage,
    MessageKind,
    MessageRequest,
    MessageView,
    SubscribeRequest,
)

#: Ids remembered by a reader so that an effectively-once message is not seen twice after a lost acknowledgement.
_SEEN_MAX = 10_000
#: One request waits so long, seconds; then the next one does.
_POLL_S = 20


class Payload:
    """What a message or an event carries, in the three ways that programs want it."""

    __slots__ = ("_base64", "data")

    def __init__(self, data: Any, data_base64: str | None) -> None:
        self.data, self._base64 = data, data_base64

    @property
    def text(self) -> str:
        """The payload as text: JSON where it is no text."""
        if self._base64 is not None:
            return self.bytes.decode("utf-8", "replace")
        return self.data if isinstance(self.data, str) else msgspec.json.encode(self.data).decode()

    @property
    def bytes(self) -> bytes:
        """The payload as bytes. Raises DecodeError: the daemon sent no base64."""
        if self._base64 is None:
            return self.text.encode()
        try:
            return base64.b64decode(self._base64, validate=True)
        except binascii.Error as error:
            raise DecodeError("a payload that is no base64", code="daemon.answer") from error

    def __str__(self) -> str:
        return self.text


class Received(Payload):
    """A message as it came.

    Attributes:
        view: All that is known of it.
        data: The payload if it is JSON or text, None for bytes.
    """

    __slots__ = ("agent", "settled", "view")

    def __init__(self, view: MessageView, agent: str) -> None:
        super().__init__(view.data, view.data_base64)
        self.view, self.agent, self.settled = view, agent, False

    @property
    def id(self) -> str:
        """UUID of the message."""
        return self.view.message_id

    @property
    def sender(self) -> str:
        """Who sent it: agent or node id."""
        return self.view.sender

    @property
    def sender_name(self) -> str:
        """Name of the sender, for people."""
        return self.view.sender_name

    @property
    def kind(self) -> MessageKind:
        """What it is for."""
        return self.view.kind

    @property
    def conversation(self) -> str:
        """Within it, messages of one sender come in the order sent."""
        return self.view.conversation

    @property
    def reply_to(self) -> str:
        """Id of the message that it answers, "" for none."""
        return self.view.reply_to

    def settle_request(self, *, back: bool) -> Request[AckView] | None:
        """Return the request that settles it; None if it is settled."""
        if self.settled:
            return None
        self.settled = True
        return wanted.ack(self.agent, [self.id], back=back)

    def __repr__(self) -> str:
        return f"<Message {self.id} from {self.sender_name or self.sender}>"


class Published(Payload):
    """An event of a topic as it came.

    Attributes:
        view: The CloudEvent.
        data: The payload if it is JSON or text, None for bytes.
    """

    __slots__ = ("_group", "_topic", "settled", "view")

    def __init__(self, view: CloudEventView, topic: str, group: str) -> None:
        super().__init__(view.data, view.data_base64)
        self.view, self._topic, self._group = view, topic, group
        self.settled = not view.lease

    @property
    def subject(self) -> str:
        """Under which it was published."""
        return self.view.subject

    @property
    def source(self) -> str:
        """did:key of the publisher."""
        return self.view.source

    @property
    def offset(self) -> int:
        """Its place in a durable topic; 0 in others."""
        return self.view.offset

    @property
    def retained(self) -> bool:
        """Whether it is the last value of its subject, and not new."""
        return self.view.retained

    @property
    def lost(self) -> int:
        """How many this subscriber lost just before, because it was too slow."""
        return self.view.lost

    def settle_request(self, *, back: bool) -> Request[AckView] | None:
        """Return the request that settles it; None if it is settled, or nobody waits for that."""
        if self.settled:
            return None
        self.settled = True
        return wanted.ack_work(self._topic, self._group, [self.view.lease], back=back)

    def __repr__(self) -> str:
        return f"<Event {self.subject} {self.view.id}>"


class InboxPlace:
    """How far the reader of an inbox is.

    Args:
        agent: Whose inbox; "" = the node's.
        wait_s: The reader ends when nothing came for so long; None = never, 0 = with what is there.
        limit: Messages fetched at a time.
        lease_s: For how long.
    """

    def __init__(self, agent: str, *, wait_s: float | None, limit: int, lease_s: int) -> None:
        self.agent, self._wait_s, self._limit, self._lease_s = agent, wait_s, limit, lease_s
        self._waiting: deque[MessageView] = deque()
        self._fresh_until_s = 0.0
        self._idle_since_s: float | None = None
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def poll(self, now_s: float) -> Request[InboxPage] | None:
        """Return the next request; None when the reader has waited long enough."""
        if self._idle_since_s is None:
            self._idle_since_s = now_s
            first = True
        else:
            first = False
        if self._wait_s is None:
            wait_s = float(_POLL_S)
        else:
            wait_s = self._wait_s - (now_s - self._idle_since_s)
            if wait_s <= 0 and not first:
                return None
        poll_s = max(0, min(_POLL_S, -int(-wait_s // 1)))
        return wanted.inbox(self.agent, limit=self._limit, wait_s=poll_s, lease_s=self._lease_s)

    def take(self, page: InboxPage, now_s: float) -> None:
        """Take what was handed out."""
        self._waiting.extend(page.messages)
        if page.messages:
            # Half of the lease is left to whoever works on the last of them.
            self._fresh_until_s = now_s + self._lease_s / 2
            self._idle_since_s = None

    def next(self, now_s: float) -> MessageView | None:
        """Return the next message that may still be worked on; None: poll."""
        if now_s > self._fresh_until_s:
            self._waiting.clear()
        return self._waiting.popleft() if self._waiting else None

    def is_repeated(self, view: MessageView) -> bool:
        """Say whether this reader has had it already and it must not be seen twice; remember it."""
        if view.delivery != "effectively-once":
            return False
        key = (view.sender, view.message_id)
        if key in self._seen:
            return True
        self._seen[key] = None
        while len(self._seen) > _SEEN_MAX:
            self._seen.popitem(last=False)
        return False

    def forget(self, view: MessageView) -> None:
        """Let a message be seen again that was given back."""
        self._seen.pop((view.sender, view.message_id), None)

    def left(self) -> list[str]:
        """Return the ids that were fetched and never handed to the program; they are given back."""
        ids = [view.message_id for view in self._waiting]
        self._waiting.clear()
        return ids


class TopicPlace:
    """How far a subscriber is, across reconnects.

    Args:
        asked: What it asked for.
    """

    def __init__(self, asked: SubscribeRequest) -> None:
        self.asked = asked
        self._next = 0

    def request(self) -> Request[CloudEventView]:
        """Return the request that goes on where the last stream ended."""
        asked = self.asked
        if self._next and not asked.group:
            asked = msgspec.structs.replace(asked, offset=self._next, start="new", since=0.0)
        return wanted.subscribe(asked)

    def accept(self, event: CloudEventView) -> bool:
        """Note an event; say whether it is new."""
        if not event.offset or not self.asked.topic or self.asked.group:
            return True
        if event.offset < self._next:
            return False
        self._next = event.offset + 1
        return True


def reply_request(message: Received, payload: str | bytes | None, **options: Unpack[SendOptions]) -> MessageRequest:
    """Describe the answer to a message. Raises StateError: nobody is named as its sender."""
    if not message.sender:
        raise StateError("this message names no sender", code="mail.no_sender")
    given: SendOptions = {
        "kind": "response",
        "reply_to": message.id,
        "conversation": message.conversation,
        "sender": message.agent,
        "delivery": message.view.delivery,
        **options,
    }
    return wanted.message_request(message.sender, payload, **given)
