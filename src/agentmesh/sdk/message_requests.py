"""Requests of messages, topics, shared state and locks, and what both clients make of the answers. No I/O (see ``requests``)."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack
from urllib.parse import urlencode

import msgspec

from agentmesh.errors import Closed, DecodeError, MeshError, NoRoute, Timeout
from agentmesh.sdk.context import current
from agentmesh.sdk.requests import ANSWER_TIMEOUT_S, BODY_BYTES_MAX, Request, body_of, error_of_problem, segment
from agentmesh.sdk.sse import Frame
from agentmesh.wire.message_limits import MESSAGE_BODY_BYTES_MAX, NODE, STATE_BODY_BYTES_MAX
from agentmesh.wire.message_views import (
    AckRequest,
    AckView,
    CloudEventView,
    DeadLetters,
    DeliveryName,
    GroupList,
    GroupRequest,
    GroupView,
    InboxPage,
    LeaseRequest,
    MailView,
    MessageKind,
    MessageRequest,
    PresenceList,
    PriorityName,
    PublishedView,
    PublishRequest,
    RulesRequest,
    SentView,
    Start,
    SubscribeRequest,
    TopicList,
    TopicRemoved,
    TopicRequest,
    TopicRules,
    TopicView,
)
from agentmesh.wire.state_views import (
    LevelName,
    LockList,
    LockRequest,
    LockView,
    SpaceList,
    StateChange,
    StateHistory,
    StateKeys,
    StateView,
)


class SendOptions(TypedDict, total=False):
    """What a message may say besides recipient and text; fields of ``MessageRequest``, which documents them."""

    data: Any
    data_base64: str | None
    content_type: str
    sender: str
    kind: MessageKind
    priority: PriorityName
    delivery: DeliveryName
    durable: bool
    ttl_s: float | None
    conversation: str
    message_id: str
    reply_to: str
    headers: dict[str, str]


class PublishOptions(TypedDict, total=False):
    """What a publication may say besides subject and text; fields of ``PublishRequest``."""

    data: Any
    data_base64: str | None
    content_type: str
    sender: str
    retain: bool
    message_id: str
    headers: dict[str, str]


class SubscribeOptions(TypedDict, total=False):
    """What a subscriber may say besides patterns; fields of ``SubscribeRequest``."""

    agent: str
    topic: str
    start: Start
    offset: int
    since: float
    group: str
    member: str


class LockOptions(TypedDict, total=False):
    """How a lock is taken; fields of ``LockRequest``."""

    ttl_s: float
    wait_s: float
    holder: str
    agent: str


# -- messages ---------------------------------------------------------------------------------------------------------


def message_request(to: str, payload: str | bytes | None, **options: Unpack[SendOptions]) -> MessageRequest:
    """Describe a message. Bytes travel as base64; inside an agent it is sent in that agent's name."""
    given: dict[str, Any] = {**options}
    given.setdefault("sender", _me())
    # A repeated request must not send twice, so the id is made here.
    given["message_id"] = given.get("message_id") or str(uuid.uuid4())
    return MessageRequest(to=to, **_payload(payload, given))


def send(request: MessageRequest) -> Request[SentView]:
    """Send a message."""
    return Request("POST", "/api/v1/messages", SentView, body_of(request, MESSAGE_BODY_BYTES_MAX))


def sent(message_id: str) -> Request[SentView]:
    """Ask what became of a message."""
    return Request("GET", f"/api/v1/messages/{segment(message_id)}", SentView)


def mail() -> Request[MailView]:
    """Ask for the courier in figures."""
    return Request("GET", "/api/v1/messages", MailView)


def dead(limit: int = 100, start: int = 0) -> Request[DeadLetters]:
    """Ask for messages that were given up."""
    return Request("GET", f"/api/v1/messages/dead?limit={limit}&start={start}", DeadLetters)


def retry(message_id: str) -> Request[SentView]:
    """Send a dead letter again."""
    return Request("POST", f"/api/v1/messages/{segment(message_id)}/retry", SentView)


def inbox(agent: str, *, limit: int, wait_s: int, lease_s: int, peek: bool = False) -> Request[InboxPage]:
    """Ask for what waits."""
    query = {"limit": limit, "wait_s": wait_s, "lease_s": lease_s, **({"peek": "true"} if peek else {})}
    return Request("GET", f"{_inbox(agent)}?{urlencode(query)}", InboxPage, timeout_s=ANSWER_TIMEOUT_S + wait_s)


def ack(agent: str, message_ids: Sequence[str], *, back: bool = False) -> Request[AckView]:
    """Acknowledge messages, or give them back."""
    body = body_of(AckRequest(message_ids=list(message_ids), back=back), BODY_BYTES_MAX)
    return Request("POST", f"{_inbox(agent)}/ack", AckView, body)


def groups() -> Request[GroupList]:
    """Ask for the groups."""
    return Request("GET", "/api/v1/groups", GroupList)


def set_group(name: str, members: Sequence[str]) -> Request[GroupView]:
    """Make or change a group."""
    body = body_of(GroupRequest(members=list(members)), BODY_BYTES_MAX)
    return Request("PUT", f"/api/v1/groups/{segment(name)}", GroupView, body)


def remove_group(name: str) -> Request[GroupView]:
    """End a group."""
    return Request("DELETE", f"/api/v1/groups/{segment(name)}", GroupView)


def _inbox(agent: str) -> str:
    return f"/api/v1/inbox/{segment(agent or NODE)}"


# -- topics -----------------------------------------------------------------------------------------------------------


def publish(subject: str, payload: str | bytes | None, **options: Unpack[PublishOptions]) -> Request[PublishedView]:
    """Publish."""
    given: dict[str, Any] = {**options}
    given.setdefault("sender", _me())
    given["message_id"] = given.get("message_id") or str(uuid.uuid4())
    request = PublishRequest(**_payload(payload, given))
    body = body_of(request, MESSAGE_BODY_BYTES_MAX)
    return Request("POST", f"/api/v1/topics/{segment(subject)}", PublishedView, body)


def subscribe(wanted: SubscribeRequest) -> Request[CloudEventView]:
    """Open the stream of what is published."""
    query = {"subjects": ",".join(wanted.subjects)}
    for name in ("agent", "topic", "offset", "group", "member"):
        if value := getattr(wanted, name):
            query[name] = str(value)
    if wanted.start != "new":
        query["start"] = wanted.start
    if wanted.since:
        query["since"] = str(int(wanted.since))
    return Request("GET", f"/api/v1/topics/events?{urlencode(query)}", CloudEventView)


def ack_work(topic: str, group: str, leases: Sequence[str], *, back: bool = False) -> Request[AckView]:
    """Say that work is done, or give it back."""
    body = body_of(LeaseRequest(leases=list(leases), back=back), BODY_BYTES_MAX)
    return Request("POST", f"/api/v1/topics/{segment(topic)}/groups/{segment(group)}/ack", AckView, body)


def topics() -> Request[TopicList]:
    """Ask for the topics and rules."""
    return Request("GET", "/api/v1/topics", TopicList)


def create_topic(request: TopicRequest) -> Request[TopicView]:
    """Make or change a durable topic."""
    return Request("PUT", "/api/v1/topics", TopicView, body_of(request, BODY_BYTES_MAX))


def remove_topic(name: str) -> Request[TopicRemoved]:
    """Delete a durable topic."""
    return Request("DELETE", f"/api/v1/topics/{segment(name)}", TopicRemoved)


def set_topic_rules(rules: Sequence[TopicRules]) -> Request[TopicList]:
    """Say who may publish and subscribe."""
    return Request("PUT", "/api/v1/topics/rules", TopicList, body_of(RulesRequest(rules=list(rules)), BODY_BYTES_MAX))


def presence() -> Request[PresenceList]:
    """Ask which agents are there."""
    return Request("GET", "/api/v1/presence", PresenceList)


# -- state and locks --------------------------------------------------------------------------------------------------


def spaces() -> Request[SpaceList]:
    """Ask for the spaces."""
    return Request("GET", "/api/v1/state", SpaceList)


def keys(space: str, prefix: str = "", limit: int = 1000) -> Request[StateKeys]:
    """Ask for the keys of a space."""
    return Request("GET", f"/api/v1/state/{segment(space)}?{urlencode({'prefix': prefix, 'limit': limit})}", StateKeys)


def get_state(space: str, key: str, level: LevelName, token: str) -> Request[StateView]:
    """Read a key."""
    query = urlencode({"level": level, **({"token": token} if token else {})})
    return Request("GET", f"{_key(space, key)}?{query}", StateView)


def change_state(space: str, key: str, change: StateChange) -> Request[StateView]:
    """Change a key."""
    return Request("POST", _key(space, key), StateView, body_of(change, STATE_BODY_BYTES_MAX))


def state_history(space: str, key: str) -> Request[StateHistory]:
    """Ask what was done to a key."""
    return Request("GET", f"{_key(space, key)}/history", StateHistory)


def watch_state(space: str, prefix: str, *, initial: bool) -> Request[StateView]:
    """Open the stream of changes of a space."""
    query = urlencode({"prefix": prefix, "initial": "true" if initial else "false"})
    return Request("GET", f"/api/v1/state/{segment(space)}?{query}", StateView, headers={"Accept": "text/event-stream"})


def locks(prefix: str = "") -> Request[LockList]:
    """Ask for the locks that are held."""
    return Request("GET", f"/api/v1/locks?{urlencode({'prefix': prefix})}", LockList)


def show_lock(name: str) -> Request[LockView]:
    """Ask for one lock."""
    return Request("GET", f"/api/v1/locks/{segment(name)}", LockView)


def acquire(name: str, request: LockRequest) -> Request[LockView]:
    """Take or renew a lock."""
    body = body_of(request, BODY_BYTES_MAX)
    return Request("POST", f"/api/v1/locks/{segment(name)}", LockView, body, ANSWER_TIMEOUT_S + max(0, request.wait_s))


def release(name: str, holder: str) -> Request[LockView]:
    """Give a lock back."""
    return Request("DELETE", f"/api/v1/locks/{segment(name)}?{urlencode({'holder': holder})}", LockView)


def _key(space: str, key: str) -> str:
    return f"/api/v1/state/{segment(space)}/{segment(key)}"


# -- shared by both clients -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Patience:
    """How long somebody goes on trying to reach a daemon that is away, and how long to wait before the next try.

    Attributes:
        retry_for_s: Seconds without an answer after which it gives up.
    """

    retry_for_s: float = 60.0
    _delay_s: float = 0.0
    _waited_s: float = 0.0

    def answered(self) -> None:
        """Note that the daemon answered."""
        self._delay_s = self._waited_s = 0.0

    def next_delay_s(self, error: MeshError) -> float:
        """Return how long to wait before the next try; raise the error when it has been long enough, or is another one."""
        if not isinstance(error, NoRoute | Closed | Timeout) or self._waited_s >= self.retry_for_s:
            raise error
        if not error.code.startswith("daemon."):
            raise error
        self._delay_s = min(max(0.1, self._delay_s * 2), 5.0)
        self._waited_s += self._delay_s
        return self._delay_s


def decode_event(frame: Frame) -> CloudEventView:
    """Return what a frame of a subscription says. Raises MeshError: what went wrong; DecodeError: it says neither."""
    return _decoded(frame, _event_decoder)


def decode_state(frame: Frame) -> StateView:
    """Return what a frame of a watch says. Raises as ``decode_event``."""
    return _decoded(frame, _state_decoder)


_event_decoder = msgspec.json.Decoder(CloudEventView)
_state_decoder = msgspec.json.Decoder(StateView)


def _decoded(frame: Frame, decoder: msgspec.json.Decoder[Any]) -> Any:
    if frame.event == "problem":
        raise error_of_problem(frame.data, 500)
    try:
        return decoder.decode(frame.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not what was asked for: {error}", code="daemon.answer") from error


def _payload(payload: str | bytes | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options with the payload among them."""
    if isinstance(payload, bytes):
        given["data_base64"] = base64.b64encode(payload).decode()
    elif payload is not None:
        given["text"] = payload
    return given


def _me() -> str:
    """Return the agent that runs here, "" if none does."""
    context = current()
    return "" if context is None else context.agent_id or context.agent_name
