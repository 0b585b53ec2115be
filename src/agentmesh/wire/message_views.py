"""The shapes of messages, topics, groups and presence in the HTTP API (docs/spec/mail.md, topics.md); as in ``wire.views``.

Times are unix microseconds (``ts``, as in events) unless the name says seconds. Payloads are JSON (``data``) where they
are JSON or
text, and ``data_base64`` where not, as in CloudEvents 1.0.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

MessageKind = Literal["state-sync", "command", "query", "response", "heartbeat", "broadcast"]
PriorityName = Literal["low", "normal", "high", "critical"]
DeliveryName = Literal["at-most-once", "at-least-once", "effectively-once"]
#: queued: it waits here · carried: a third node keeps it for the recipient · delivered: the recipient's node has it ·
#: read: the recipient has acknowledged it · expired, dead: it was given up, ``reason`` says why.
MessageState = Literal["queued", "carried", "delivered", "read", "expired", "dead"]
Start = Literal["new", "all", "last"]


class MessageRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/messages``: one message to an agent, a group, a topic or all.

    Attributes:
        to: Agent name, ``name@node`` or id; ``group:NAME``; ``topic:SUBJECT``; ``*`` = every agent of the mesh.
        text, data, data_base64: The payload, one of them.
        content_type: MIME type; "" = by the payload.
        sender: Name or id of an agent of this node in whose name it is sent; "" = the node itself.
        kind, priority, delivery: See docs/spec/mail.md §2.
        durable: On disk at this node before this is answered, and at the recipient's before it counts as delivered.
        ttl_s: Given up after so long; null = a day.
        conversation: Messages of one conversation arrive in order.
        reply_to: Id of the message that this one answers.
        message_id: A UUID by which a repeated request is known; "" = a new one.
        headers: Small texts for the recipient, such as ``traceparent``.
    """

    to: str
    text: str | None = None
    data: Any = None
    data_base64: str | None = None
    content_type: str = ""
    sender: str = ""
    kind: MessageKind = "command"
    priority: PriorityName = "normal"
    delivery: DeliveryName = "at-least-once"
    durable: bool = True
    ttl_s: float | None = None
    conversation: str = ""
    reply_to: str = ""
    message_id: str = ""
    headers: dict[str, str] = {}


class SentView(msgspec.Struct, kw_only=True):
    """A message of this node, or what became of it.

    Attributes:
        message_id: UUID.
        to: As it was asked.
        recipient, recipient_name: Agent id and name; "" for a message to many.
        state: See ``MessageState``.
        copies: To how many it went: 1, or the members of a group.
        reason: Code of the error that ended or holds it up; "" for none.
        ts, expires_ts: When it was sent, and when it is given up.
        tries: How often it went out.
    """

    message_id: str
    to: str
    recipient: str = ""
    recipient_name: str = ""
    state: MessageState = "queued"
    copies: int = 1
    reason: str = ""
    ts: int = 0
    expires_ts: int = 0
    tries: int = 0


class MessageView(msgspec.Struct, kw_only=True):
    """A message as its recipient sees it.

    Attributes:
        message_id, sender, sender_name, recipient, recipient_name: Who to whom; names are for people.
        kind, priority, delivery, conversation, reply_to, content_type, headers: As sent.
        scope: "" = to this agent alone; "group:NAME", "*".
        data, data_base64: The payload, one of them.
        encrypted: Whether it came over a network, and so end to end encrypted; False from an agent beside this node.
        ts, received_ts, expires_ts: When it was sent, came here, and ends.
        tries: How often it was handed out, this time included.
        cursor: Its place in the inbox, only rising.
    """

    message_id: str
    sender: str
    recipient: str
    kind: MessageKind = "command"
    sender_name: str = ""
    recipient_name: str = ""
    priority: PriorityName = "normal"
    delivery: DeliveryName = "at-least-once"
    conversation: str = ""
    reply_to: str = ""
    scope: str = ""
    content_type: str = "text/plain"
    data: Any = None
    data_base64: str | None = None
    headers: dict[str, str] = {}
    encrypted: bool = False
    ts: int = 0
    received_ts: int = 0
    expires_ts: int = 0
    tries: int = 1
    cursor: int = 0


class InboxPage(msgspec.Struct, kw_only=True):
    """``GET /api/v1/inbox/{agent}``: what waits for an agent of this node, oldest first.

    Attributes:
        messages: Handed out for ``lease_s``; what is not acknowledged by then is handed out again.
        waiting: How many wait in all.
        bytes: What they take.
    """

    messages: list[MessageView]
    waiting: int = 0
    bytes: int = 0


class AckRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Ids of messages that are done (acknowledged), or given back (``back``) to be handed out again."""

    message_ids: list[str]
    back: bool = False


class AckView(msgspec.Struct, kw_only=True):
    """How many of the named messages were there."""

    done: int


class DeadLetter(msgspec.Struct, kw_only=True):
    """A message that was given up, kept for a week.

    Attributes:
        message: It.
        reason, why: Code, and a sentence.
        ended_ts: When.
        side: Where it was given up: "out" = before it reached the recipient's node, "in" = at this node's inbox.
    """

    message: MessageView
    reason: str
    why: str
    ended_ts: int
    side: Literal["out", "in"] = "out"


class DeadLetters(msgspec.Struct, kw_only=True):
    """``GET /api/v1/messages/dead``."""

    letters: list[DeadLetter]
    total: int = 0


class MailView(msgspec.Struct, kw_only=True):
    """The courier in figures: ``GET /api/v1/messages``. The audit holds: sent = delivered + expired + dead + queued.

    Attributes:
        queued, queued_bytes: Messages of this node that are not delivered yet.
        inbox, inbox_bytes: Messages for agents here that they have not acknowledged.
        carried, carried_bytes: Sealed mail that this node keeps for others.
        sent, delivered, expired, dead: Since the store was made.
        received, repeated: Messages that came for agents here, and those of them that had come before and were dropped.
        sessions: Open end-to-end sessions.
        outgoing: The oldest of what is queued, at most 100.
    """

    queued: int = 0
    queued_bytes: int = 0
    inbox: int = 0
    inbox_bytes: int = 0
    carried: int = 0
    carried_bytes: int = 0
    sent: int = 0
    delivered: int = 0
    expired: int = 0
    dead: int = 0
    received: int = 0
    repeated: int = 0
    sessions: int = 0
    outgoing: list[SentView] = []


class PublishRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/topics/{subject}``.

    Attributes:
        text, data, data_base64, content_type, headers: As in ``MessageRequest``.
        sender: In whose name; "" = the node.
        retain: Keep it as the last value of its subject, for those who subscribe later.
        message_id: A UUID by which a repeated request is known; "" = a new one.
    """

    text: str | None = None
    data: Any = None
    data_base64: str | None = None
    content_type: str = ""
    sender: str = ""
    retain: bool = False
    message_id: str = ""
    headers: dict[str, str] = {}


class PublishedView(msgspec.Struct, kw_only=True):
    """What became of it: its id; the durable topic that keeps it ("" for none) and its offset there; local subscribers
    it went to.
    """

    message_id: str
    subject: str
    topic: str = ""
    offset: int = 0
    subscribers: int = 0


class CloudEventView(msgspec.Struct, kw_only=True):
    """One thing that was published, as a CloudEvent 1.0 in JSON: what subscribers get, by SSE and WebSocket.

    Attributes:
        specversion: "1.0".
        id: UUID of the publication.
        source: did:key of the publisher.
        type: "dev.agentmesh.topic" or what the publisher named in the header ``ce-type``.
        subject: The topic's subject.
        time: RFC 3339, UTC.
        datacontenttype, data, data_base64: The payload.
        retained: Extension: it is the last value of its subject and not new.
        offset: Extension: its offset in a durable topic; 0 in others.
        lease: Extension: what a member of a consumer group acknowledges; "" outside of groups.
        lost: Extension: how many this subscriber has lost just before this one, because it was too slow.
        traceparent: Extension: W3C trace context that the publisher gave in a header of that name; "" for none.
    """

    id: str
    source: str
    subject: str
    time: str
    type: str = "dev.agentmesh.topic"
    specversion: str = "1.0"
    datacontenttype: str = "text/plain"
    data: Any = None
    data_base64: str | None = None
    retained: bool = False
    offset: int = 0
    lease: str = ""
    lost: int = 0
    traceparent: str = ""


class SubscribeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a subscriber wants.

    Attributes:
        subjects: Patterns: ``a.b`` · ``*`` one word · ``>`` all further words.
        agent: In whose name; "" = the node.
        topic: Name of a durable topic to read from; "" = what is published from now on.
        start: "new" · "all" from the oldest that is kept · "last" the last value of each subject first.
        offset: From this offset on (durable topics), instead of ``start``; 0 = not given.
        since: From this time on, unix seconds (durable topics), instead of ``start``; 0 = not given.
        group: Consumer group of a durable topic: its members share the work.
        member: Name of this member; "" = made up.
    """

    subjects: list[str]
    agent: str = ""
    topic: str = ""
    start: Start = "new"
    offset: int = 0
    since: float = 0.0
    group: str = ""
    member: str = ""


class TopicRules(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Who may publish to and subscribe to subjects; the first rule whose pattern fits decides, without one all members may.

    Attributes:
        pattern: Of subjects.
        publish, subscribe: Agent ids, names of this node's agents, node ids, ``org:ID``, or ``*``.
    """

    pattern: str
    publish: list[str] = msgspec.field(default_factory=lambda: ["*"])
    subscribe: list[str] = msgspec.field(default_factory=lambda: ["*"])


class TopicRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``PUT /api/v1/topics``: make a durable topic, or change its limits; as ``engines.base.TopicSpec``."""

    name: str
    subjects: list[str]
    records_max: int = 1_000_000
    bytes_max: int = 1024 * 1024 * 1024
    age_s_max: int = 7 * 86_400


class TopicView(msgspec.Struct, kw_only=True):
    """A durable topic, or a subject with subscribers here.

    Attributes:
        name: Of a durable topic; "" for a subject pattern that somebody here follows.
        subjects, records_max, bytes_max, age_s_max: As made.
        node_id: The node that keeps it; "" where an engine does.
        engine: "sqlite", "nats"; "" for what is not durable.
        first, next: Oldest offset, and the one that comes next.
        subscribers: Here.
        groups: Consumer group → records that wait for it.
    """

    name: str = ""
    subjects: list[str] = []
    records_max: int = 0
    bytes_max: int = 0
    age_s_max: int = 0
    node_id: str = ""
    engine: str = ""
    first: int = 0
    next: int = 0
    subscribers: int = 0
    groups: dict[str, int] = {}


class TopicList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/topics``."""

    topics: list[TopicView]
    rules: list[TopicRules] = []


class GroupRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``PUT /api/v1/groups/{name}``: who is in a group from now on (ids, names); the key is renewed when somebody leaves."""

    members: list[str]


class GroupView(msgspec.Struct, kw_only=True):
    """A group: who is in it, who made it, and how often its members changed."""

    name: str
    owner: str
    members: list[str]
    member_names: list[str] = []
    epoch: int = 1


class PresenceView(msgspec.Struct, kw_only=True):
    """One agent's presence, also published under ``presence.AGENT_ID`` with ``retain``.

    Attributes:
        agent_id, name, node_id: Who.
        state: "join" it is there · "leave" it said goodbye · "lost" it does not answer.
        ts: Since when.
    """

    agent_id: str
    name: str
    node_id: str
    state: Literal["join", "leave", "lost"]
    ts: int


class GroupList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/groups``."""

    groups: list[GroupView]


class PresenceList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/presence``, newest first."""

    agents: list[PresenceView]


class RulesRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``PUT /api/v1/topics/rules``: all rules of this node from now on, the first that fits decides."""

    rules: list[TopicRules]


class LeaseRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/topics/{topic}/groups/{group}/ack``: work that is done, or given back (``back``)."""

    leases: list[str]
    back: bool = False


class TopicRemoved(msgspec.Struct, kw_only=True):
    """``DELETE /api/v1/topics/{name}``: whether there was such a topic."""

    name: str
    removed: bool


class CloudEventIn(msgspec.Struct, kw_only=True):
    """``POST /api/v1/cloudevents``: one CloudEvent 1.0 in the structured mode; extensions that we do not know are passed over.

    Attributes:
        specversion: "1.0".
        id, source, type: As in CloudEvents; ``source`` and ``id`` together are what a repeated event is known by.
        subject: The topic's subject; "" = ``type``.
        time: Not kept: what is published has the time of its publication.
        datacontenttype, data, data_base64: The payload.
        retain: Extension: keep it as the last value of its subject.
        sender: Extension: agent of this node in whose name it is published; "" = the node.
    """

    id: str
    source: str
    type: str
    specversion: str = "1.0"
    subject: str = ""
    time: str = ""
    datacontenttype: str = ""
    data: Any = None
    data_base64: str | None = None
    retain: bool = False
    sender: str = ""
