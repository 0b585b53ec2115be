"""Routes of topics: publish, follow, durable topics and who works on them, rules, presence (docs/spec/topics.md)."""

from __future__ import annotations

from agentmesh.api.owned import topics_of
from agentmesh.api.sse import stream_of_items
from agentmesh.api.table import Ask, EventStream, Param, RouteRow
from agentmesh.errors import Busy, DecodeError, Full, LimitError, NoRoute, RecordNotFound, StateError, UsageError
from agentmesh.wire.cloudevents import request_of, write_cloudevent
from agentmesh.wire.message_limits import ACKS_MAX, MESSAGE_BODY_BYTES_MAX, PATTERNS_MAX, split_patterns
from agentmesh.wire.message_views import (
    AckView,
    CloudEventIn,
    CloudEventView,
    LeaseRequest,
    PresenceList,
    PublishedView,
    PublishRequest,
    RulesRequest,
    SubscribeRequest,
    TopicList,
    TopicRemoved,
    TopicRequest,
    TopicView,
)


async def publish(ask: Ask) -> PublishedView:
    """Answer ``POST /api/v1/topics/{subject}``."""
    return await topics_of(ask).publish(ask.path["subject"], ask.body)


async def publish_cloudevent(ask: Ask) -> PublishedView:
    """Answer ``POST /api/v1/cloudevents``."""
    event: CloudEventIn = ask.body
    return await topics_of(ask).publish(event.subject or event.type, request_of(event))


async def follow_topics(ask: Ask) -> EventStream:
    """Answer ``GET /api/v1/topics/events``."""
    query = ask.query
    offset: int = query["offset"]
    if ask.last_event_id is not None and query["topic"]:
        offset = ask.last_event_id + 1
    start = query["start"] or "new"
    if start not in ("new", "all", "last"):
        raise UsageError("'start' is new, all or last", code="topic.start")
    request = SubscribeRequest(
        subjects=split_patterns(query["subjects"]),
        agent=query["agent"],
        topic=query["topic"],
        start=start,
        offset=offset,
        since=float(query["since"]),
        group=query["group"],
        member=query["member"],
    )
    return await stream_of_items(topics_of(ask).subscribe(request), _event_frame)


async def list_topics(ask: Ask) -> TopicList:
    """Answer ``GET /api/v1/topics``."""
    return await topics_of(ask).list_topics()


async def create_topic(ask: Ask) -> TopicView:
    """Answer ``PUT /api/v1/topics``."""
    return await topics_of(ask).create(ask.body)


async def remove_topic(ask: Ask) -> TopicRemoved:
    """Answer ``DELETE /api/v1/topics/{name}``."""
    name = ask.path["name"]
    return TopicRemoved(name=name, removed=await topics_of(ask).remove(name))


async def set_topic_rules(ask: Ask) -> TopicList:
    """Answer ``PUT /api/v1/topics/rules``."""
    request: RulesRequest = ask.body
    return await topics_of(ask).set_rules(request.rules)


async def ack_work(ask: Ask) -> AckView:
    """Answer ``POST /api/v1/topics/{topic}/groups/{group}/ack``."""
    request: LeaseRequest = ask.body
    if not 0 < len(request.leases) <= ACKS_MAX:
        raise UsageError(f"1 to {ACKS_MAX} leases are acknowledged at a time", code="topic.ack")
    return await topics_of(ask).acknowledge(ask.path["topic"], ask.path["group"], request.leases, back=request.back)


async def list_presence(ask: Ask) -> PresenceList:
    """Answer ``GET /api/v1/presence``."""
    return PresenceList(agents=await topics_of(ask).presence())


def _event_frame(event: CloudEventView) -> bytes:
    # Spelled once for all who follow: what is costly is done by the first.
    head = f"id: {event.offset}\nevent: topic\ndata: " if event.offset else "event: topic\ndata: "
    return head.encode() + write_cloudevent(event) + b"\n\n"


_SUBJECT = {"subject": "Words divided by dots, such as build.linux.done."}

ROWS = (
    RouteRow(
        "GET",
        "/api/v1/topics",
        list_topics,
        "List durable topics, patterns that are followed here, and the rules",
        TopicList,
        scope="read",
    ),
    RouteRow(
        "PUT",
        "/api/v1/topics",
        create_topic,
        "Make a durable topic, or change its limits",
        TopicView,
        TopicRequest,
        (UsageError, StateError, Full, NoRoute),
        scope="message",
    ),
    RouteRow(
        "GET",
        "/api/v1/topics/events",
        follow_topics,
        "Follow what is published",
        None,
        errors=(UsageError, RecordNotFound, Busy),
        params=(
            Param(
                "subjects",
                "string",
                "",
                f"At most {PATTERNS_MAX} patterns, divided by commas: a.b, * for one word, > for all further words.",
                chars_max=8192,
            ),
            Param("agent", "string", "", "Agent of this node in whose name; the node if left out.", chars_max=300),
            Param("topic", "string", "", "Name of a durable topic to read from.", chars_max=64),
            Param("start", "string", "new", "new, all (the oldest that is kept), or last (the last values first)."),
            Param("offset", "integer", 0, "From this offset of the durable topic on."),
            Param("since", "integer", 0, "From this time on, unix seconds; of a durable topic."),
            Param("group", "string", "", "Consumer group of the durable topic: its members share the work."),
            Param("member", "string", "", "Name of this member of the group."),
        ),
        stream="always",
        description=(
            "Server-sent events: event = topic, data = a CloudEvent 1.0, id = its offset in a durable topic. Reconnect with "
            "Last-Event-ID and a durable topic goes on after it. A subscriber that is too slow loses the oldest and is "
            "told how many (lost)."
        ),
        scope="message",
    ),
    RouteRow(
        "PUT",
        "/api/v1/topics/rules",
        set_topic_rules,
        "Say who may publish and subscribe",
        TopicList,
        RulesRequest,
        (UsageError, Full),
        scope="admin",
    ),
    RouteRow(
        "POST",
        "/api/v1/topics/{subject}",
        publish,
        "Publish to a subject",
        PublishedView,
        PublishRequest,
        (UsageError, LimitError, Busy, NoRoute, Full),
        path_params=_SUBJECT,
        body_bytes_max=MESSAGE_BODY_BYTES_MAX,
        scope="message",
    ),
    RouteRow(
        "POST",
        "/api/v1/topics/{topic}/groups/{group}/ack",
        ack_work,
        "Say that work of a consumer group is done, or give it back",
        AckView,
        LeaseRequest,
        (RecordNotFound, UsageError, NoRoute),
        path_params={"topic": "Name of the durable topic.", "group": "Name of the consumer group."},
        scope="message",
    ),
    RouteRow(
        "DELETE",
        "/api/v1/topics/{name}",
        remove_topic,
        "Delete a durable topic with all it keeps",
        TopicRemoved,
        errors=(UsageError, Full, NoRoute),
        path_params={"name": "Name of the durable topic."},
        scope="message",
    ),
    RouteRow(
        "POST",
        "/api/v1/cloudevents",
        publish_cloudevent,
        "Publish a CloudEvent 1.0 (structured mode, application/cloudevents+json)",
        PublishedView,
        CloudEventIn,
        (DecodeError, UsageError, LimitError, Busy, NoRoute, Full),
        body_bytes_max=MESSAGE_BODY_BYTES_MAX,
        scope="message",
    ),
    RouteRow(
        "GET",
        "/api/v1/presence",
        list_presence,
        "Show which agents are there, left, or were lost, newest first",
        PresenceList,
        scope="read",
    ),
)
