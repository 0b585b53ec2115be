"""Topics in memory, for the HTTP API: what is published goes to who subscribes; durable topics are lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from agentmesh.core.topics.subjects import check_pattern, check_subject, matches
from agentmesh.errors import RecordNotFound
from agentmesh.wire.message_views import (
    AckView,
    CloudEventView,
    PresenceView,
    PublishedView,
    PublishRequest,
    SubscribeRequest,
    TopicList,
    TopicRequest,
    TopicRules,
    TopicView,
)

AGENT = "did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG"
NODE = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"


class FakeTopics:
    """Implements ``api.messaging.Topics``.

    Attributes:
        kept: Durable topic → its events, the first at offset 1.
        agents: What ``presence`` says.
        done: Leases that were acknowledged, or given back.
        followers: Who subscribes now.
    """

    def __init__(self, ask: Callable[..., None]) -> None:
        self._ask = ask
        self.made: dict[str, TopicRequest] = {}
        self.kept: dict[str, list[CloudEventView]] = {}
        self.rules: list[TopicRules] = []
        self.agents = [PresenceView(agent_id=AGENT, name="echo", node_id=NODE, state="join", ts=1)]
        self.done: list[tuple[str, str, tuple[str, ...], bool]] = []
        self.followers: list[tuple[SubscribeRequest, asyncio.Queue[CloudEventView]]] = []
        self._count = 0

    async def publish(self, subject: str, request: PublishRequest) -> PublishedView:
        self._ask("publish", subject, request)
        check_subject(subject)
        self._count += 1
        data: Any = request.text if request.text is not None else request.data
        event = CloudEventView(
            id=request.message_id or f"00000000-0000-4000-8000-{self._count:012x}",
            source=NODE,
            subject=subject,
            time="2026-01-01T00:00:00.000Z",
            datacontenttype=request.content_type or ("text/plain" if request.text is not None else "application/json"),
            data=data,
            data_base64=request.data_base64,
        )
        view = PublishedView(message_id=event.id, subject=subject)
        for name, made in self.made.items():
            if any(matches(pattern, subject) for pattern in made.subjects):
                event.offset = view.offset = len(self.kept[name]) + 1
                view.topic = name
                self.kept[name].append(event)
        for follower, queue in self.followers:
            if any(matches(pattern, subject) for pattern in follower.subjects):
                queue.put_nowait(event)
                view.subscribers += 1
        return view

    async def subscribe(self, request: SubscribeRequest) -> AsyncGenerator[CloudEventView, None]:
        self._ask("subscribe", request)
        for pattern in request.subjects:
            check_pattern(pattern)
        queue: asyncio.Queue[CloudEventView] = asyncio.Queue()
        if request.topic:
            for event in self._kept(request.topic)[max(0, request.offset - 1) :]:
                queue.put_nowait(event)
        follower = (request, queue)
        self.followers.append(follower)
        try:
            while True:
                yield await queue.get()
        finally:
            self.followers.remove(follower)

    def _kept(self, topic: str) -> list[CloudEventView]:
        if topic not in self.kept:
            raise RecordNotFound(f"no durable topic {topic!r}", code="topic.unknown")
        return self.kept[topic]

    async def acknowledge(self, topic: str, group: str, leases: Sequence[str], *, back: bool) -> AckView:
        self._ask("acknowledge", topic, group, tuple(leases), back)
        self._kept(topic)
        self.done.append((topic, group, tuple(leases), back))
        return AckView(done=len(leases))

    async def list_topics(self) -> TopicList:
        self._ask("list_topics")
        return TopicList(topics=[self._view(made) for made in self.made.values()], rules=self.rules)

    def _view(self, made: TopicRequest) -> TopicView:
        return TopicView(
            name=made.name,
            subjects=made.subjects,
            records_max=made.records_max,
            bytes_max=made.bytes_max,
            age_s_max=made.age_s_max,
            node_id=NODE,
            engine="sqlite",
            first=1,
            next=len(self.kept[made.name]) + 1,
        )

    async def create(self, request: TopicRequest) -> TopicView:
        self._ask("create_topic", request)
        self.made[request.name] = request
        self.kept.setdefault(request.name, [])
        return self._view(request)

    async def remove(self, name: str) -> bool:
        self._ask("remove_topic", name)
        self.kept.pop(name, None)
        return self.made.pop(name, None) is not None

    async def set_rules(self, rules: Sequence[TopicRules]) -> TopicList:
        self._ask("set_rules", tuple(rules))
        self.rules = list(rules)
        return await self.list_topics()

    async def presence(self) -> list[PresenceView]:
        self._ask("presence")
        return self.agents
