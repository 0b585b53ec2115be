"""Doubles of the courier, topics, shared state and locks: as small as they can be and still do what their Protocols promise."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from agentmesh.errors import AgentNotFound, Busy, MeshError, RecordNotFound, StateError, UsageError
from agentmesh.wire.message_views import (
    AckView,
    CloudEventView,
    DeadLetter,
    DeadLetters,
    GroupView,
    InboxPage,
    MailView,
    MessageRequest,
    MessageView,
    PresenceView,
    PublishedView,
    PublishRequest,
    SentView,
    SubscribeRequest,
    TopicList,
    TopicRequest,
    TopicRules,
    TopicView,
)
from agentmesh.wire.state_views import (
    LockList,
    LockRequest,
    LockView,
    Sibling,
    SpaceList,
    SpaceView,
    StateChange,
    StateEntry,
    StateHistory,
    StateKeys,
    StateView,
)

NODE = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"


class FakeMail:
    """An inbox per recipient; what was handed out waits in ``leased``."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.failure: MeshError | None = None
        self.unknown: set[str] = {"nobody"}
        self.boxes: dict[str, list[MessageView]] = {}
        self.leased: dict[str, MessageView] = {}
        self.done: list[str] = []
        self.given_back: list[str] = []
        self.sent_views: dict[str, SentView] = {}
        self.letters: list[DeadLetter] = []
        self.grouped: dict[str, GroupView] = {}
        self.grown = asyncio.Condition()
        self.waiters = 0

    def _ask(self, *what: Any) -> None:
        self.asked.append(what)
        if self.failure is not None:
            raise self.failure

    async def send(self, request: MessageRequest) -> SentView:
        self._ask("send", request)
        if request.to in self.unknown:
            raise AgentNotFound(f"no agent {request.to}")
        message_id = request.message_id or str(uuid.uuid4())
        if message_id in self.sent_views:
            return self.sent_views[message_id]
        data = request.data if request.text is None else request.text
        view = MessageView(
            message_id=message_id, sender=request.sender or NODE, recipient=request.to, kind=request.kind,
            priority=request.priority, delivery=request.delivery, conversation=request.conversation,
            reply_to=request.reply_to, data=data, data_base64=request.data_base64, headers=request.headers,
        )  # fmt: skip
        await self.put(request.to, view)
        self.sent_views[message_id] = SentView(message_id=message_id, to=request.to, state="delivered", ts=1)
        return self.sent_views[message_id]

    async def put(self, agent: str, *views: MessageView) -> None:
        """Lay messages into an inbox and wake whoever waits for it."""
        self.boxes.setdefault(agent, []).extend(views)
        async with self.grown:
            self.grown.notify_all()

    async def sent(self, message_id: str) -> SentView:
        self._ask("sent", message_id)
        if message_id not in self.sent_views:
            raise RecordNotFound(f"no message {message_id}")
        return self.sent_views[message_id]

    async def inbox(self, agent: str, *, limit: int, wait_s: float, lease_s: float, peek: bool) -> InboxPage:
        self._ask("inbox", agent, limit, wait_s, lease_s, peek)
        if agent in self.unknown:
            raise AgentNotFound(f"no agent {agent}")
        box = self.boxes.setdefault(agent, [])
        if not box and wait_s > 0:
            self.waiters += 1
            try:
                async with asyncio.timeout(wait_s), self.grown:
                    await self.grown.wait_for(lambda: bool(box))
            except TimeoutError:
                pass
            finally:
                self.waiters -= 1
        found = box[:limit]
        if not peek:
            del box[:limit]
            self.leased.update({view.message_id: view for view in found})
        return InboxPage(messages=found, waiting=len(box) + len(found))

    async def ack(self, agent: str, message_ids: Sequence[str], *, back: bool) -> AckView:
        self._ask("ack", agent, list(message_ids), back)
        known = [one for one in message_ids if one in self.leased]
        for one in known:
            view = self.leased.pop(one)
            if back:
                view.tries += 1
                await self.put(agent, view)
        (self.given_back if back else self.done).extend(known)
        return AckView(done=len(known))

    async def figures(self) -> MailView:
        self._ask("figures")
        return MailView(sent=len(self.sent_views), outgoing=list(self.sent_views.values()))

    async def dead(self, limit: int, start: int) -> DeadLetters:
        self._ask("dead", limit, start)
        return DeadLetters(letters=self.letters[start : start + limit], total=len(self.letters))

    async def retry(self, message_id: str) -> SentView:
        self._ask("retry", message_id)
        return await self.sent(message_id)

    async def groups(self) -> list[GroupView]:
        return list(self.grouped.values())

    async def set_group(self, name: str, members: Sequence[str]) -> GroupView:
        self._ask("set_group", name, list(members))
        epoch = self.grouped[name].epoch + 1 if name in self.grouped else 1
        self.grouped[name] = GroupView(name=name, owner=NODE, members=list(members), epoch=epoch)
        return self.grouped[name]

    async def remove_group(self, name: str) -> GroupView:
        if name not in self.grouped:
            raise RecordNotFound(f"no group {name}")
        return self.grouped.pop(name)


def fits(pattern: str, subject: str) -> bool:
    """Say whether a subject is one of a pattern."""
    have, want = subject.split("."), pattern.split(".")
    for at, word in enumerate(want):
        if word == ">":
            return len(have) > at
        if at >= len(have) or word not in ("*", have[at]):
            return False
    return len(have) == len(want)


class FakeTopics:
    """One durable topic holds everything that was ever published, at its offset."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.failure: MeshError | None = None
        self.log: list[CloudEventView] = []
        self.made: dict[str, TopicView] = {}
        self.rules: list[TopicRules] = []
        self.acked: list[tuple[str, str, tuple[str, ...], bool]] = []
        self.followers = 0
        self.grown = asyncio.Condition()

    def _ask(self, *what: Any) -> None:
        self.asked.append(what)
        if self.failure is not None:
            raise self.failure

    async def publish(self, subject: str, request: PublishRequest) -> PublishedView:
        self._ask("publish", subject, request)
        data = request.data if request.text is None else request.text
        view = CloudEventView(
            id=request.message_id, source=request.sender or NODE, subject=subject, time="2026-11-21T00:00:00Z",
            datacontenttype=request.content_type or "text/plain", data=data, data_base64=request.data_base64,
            offset=len(self.log) + 1,
        )  # fmt: skip
        self.log.append(view)
        async with self.grown:
            self.grown.notify_all()
        return PublishedView(message_id=request.message_id, subject=subject, offset=view.offset)

    async def subscribe(self, request: SubscribeRequest) -> AsyncGenerator[CloudEventView, None]:
        self._ask("subscribe", request)
        if request.topic == "missing":
            raise RecordNotFound("no topic missing")
        at = len(self.log)
        if request.topic:
            at = request.offset - 1 if request.offset else (0 if request.start == "all" else at)
        self.followers += 1
        try:
            while True:
                while at < len(self.log):
                    event, at = self.log[at], at + 1
                    if any(fits(pattern, event.subject) for pattern in request.subjects):
                        event = msgspec.structs.replace(event, lease=f"lease-{at}" if request.group else "")
                        yield event if request.topic else msgspec.structs.replace(event, offset=0)
                async with self.grown:
                    while at >= len(self.log):
                        await self.grown.wait()
        finally:
            self.followers -= 1

    async def acknowledge(self, topic: str, group: str, leases: Sequence[str], *, back: bool) -> AckView:
        self._ask("acknowledge", topic, group)
        self.acked.append((topic, group, tuple(leases), back))
        return AckView(done=len(leases))

    async def list_topics(self) -> TopicList:
        return TopicList(topics=list(self.made.values()), rules=self.rules)

    async def create(self, request: TopicRequest) -> TopicView:
        self._ask("create", request)
        self.made[request.name] = TopicView(name=request.name, subjects=request.subjects, engine="sqlite", next=1)
        return self.made[request.name]

    async def remove(self, name: str) -> bool:
        return self.made.pop(name, None) is not None

    async def set_rules(self, rules: Sequence[TopicRules]) -> TopicList:
        self.rules = list(rules)
        return await self.list_topics()

    async def presence(self) -> list[PresenceView]:
        return [PresenceView(agent_id=NODE, name="echo", node_id=NODE, state="join", ts=1)]


class FakeState:
    """Keys of every space, written by one writer."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.failure: MeshError | None = None
        self.kept: dict[tuple[str, str], StateView] = {}
        self.told: dict[tuple[str, str], list[StateEntry]] = {}
        self.changes: list[StateView] = []
        self.grown = asyncio.Condition()
        self.watchers = 0

    def _ask(self, *what: Any) -> None:
        self.asked.append(what)
        if self.failure is not None:
            raise self.failure

    async def get(self, space: str, key: str, *, level: str, token: str) -> StateView:
        self._ask("get", space, key, level, token)
        return self.kept.get((space, key)) or StateView(space=space, key=key, exists=False)

    async def change(self, space: str, key: str, change: StateChange) -> StateView:
        self._ask("change", space, key, change)
        old = self.kept.get((space, key))
        value: Any = old.value if old is not None else None
        types = {"increment": "counter", "add": "set", "discard": "set", "put": "map"}
        type_ = change.type or types.get(change.op, "register")
        if (
            old is not None
            and old.exists
            and old.type != type_
            and change.op not in ("delete", "remove", "cut", "resolve")
        ):
            raise StateError(f"{key} is a {old.type}", code="state.type")
        if change.op == "increment":
            value = (value or 0) + change.by
        elif change.op == "add":
            value = [*(value or []), change.value]
        elif change.op == "discard":
            value = [one for one in value or [] if one != change.value]
        elif change.op == "put":
            value = {**(value or {}), change.field: change.value}
        elif change.op == "remove":
            value = {name: one for name, one in (value or {}).items() if name != change.field}
        elif change.op == "insert":
            whole = value or ([] if type_ == "list" else "")
            at = len(whole) if change.at < 0 else change.at
            value = whole[:at] + ([change.value] if type_ == "list" else change.value) + whole[at:]
        elif change.op == "cut":
            value = value[: change.at] + value[change.at + change.count :]
        else:
            value = change.value
        told = self.told.setdefault((space, key), [])
        told.insert(0, StateEntry(op=change.op, writer=NODE, ts=len(told) + 1, value=change.value))
        view = StateView(
            space=space, key=key, type=type_, value=value, exists=change.op != "delete",  # pyright: ignore
            version={"n": len(told)}, token=f"t{len(self.changes) + 1}", level=change.level, writer=NODE,
            siblings=[Sibling(value=1, writer=NODE, ts=1)] if change.op == "resolve" else [],
        )  # fmt: skip
        self.kept[space, key] = view
        self.changes.append(view)
        async with self.grown:
            self.grown.notify_all()
        return view

    async def history(self, space: str, key: str) -> StateHistory:
        self._ask("history", space, key)
        return StateHistory(space=space, key=key, entries=self.told.get((space, key), []))

    async def watch(self, space: str, prefix: str, *, initial: bool) -> AsyncGenerator[StateView, None]:
        self._ask("watch", space, prefix, initial)
        self.watchers += 1
        try:
            at = len(self.changes)
            if initial:
                for (name, key), view in sorted(self.kept.items()):
                    if name == space and key.startswith(prefix):
                        yield view
            while True:
                async with self.grown:
                    while at >= len(self.changes):
                        await self.grown.wait()
                view, at = self.changes[at], at + 1
                if view.space == space and view.key.startswith(prefix):
                    yield view
        finally:
            self.watchers -= 1

    async def spaces(self) -> SpaceList:
        names = sorted({space for space, _ in self.kept})
        return SpaceList(spaces=[SpaceView(space=name, keys=1, holders=[NODE]) for name in names], engine="sqlite:")

    async def keys(self, space: str, prefix: str, limit: int) -> StateKeys:
        self._ask("keys", space, prefix, limit)
        found = [view for (name, key), view in sorted(self.kept.items()) if name == space and key.startswith(prefix)]
        return StateKeys(space=space, keys=found[:limit], total=len(found))


class FakeLocks:
    """Locks that never end by themselves; the test takes one away with ``lose``."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.failure: MeshError | None = None
        self.held: dict[str, LockView] = {}
        self.tokens = 0
        self.renewed = asyncio.Event()
        self.freed = asyncio.Condition()

    async def acquire(self, name: str, request: LockRequest) -> LockView:
        self.asked.append(("acquire", name, request))
        if self.failure is not None:
            raise self.failure
        have = self.held.get(name)
        if request.renew:
            self.renewed.set()
            if have is None or have.holder != request.holder:
                raise StateError(f"{name} is not held by {request.holder}", code="lock.lost")
            return have
        if have is not None and request.wait_s > 0:
            async with self.freed:
                await self.freed.wait_for(lambda: name not in self.held)
        elif have is not None:
            raise Busy(f"{name} is held", code="lock.held", retry_after_s=1, extra={"holder": have.holder})
        self.tokens += 1
        holder = request.holder or f"holder-{self.tokens}"
        view = LockView(name=name, holder=holder, node_id=NODE, token=self.tokens, held=True, ttl_s=request.ttl_s)
        self.held[name] = view
        return view

    async def release(self, name: str, holder: str) -> LockView:
        self.asked.append(("release", name, holder))
        have = self.held.get(name)
        if have is None or have.holder != holder:
            raise StateError(f"{name} is not held by {holder}", code="lock.lost")
        await self.lose(name)
        return LockView(name=name)

    async def lose(self, name: str) -> None:
        """Take a lock away from whoever has it."""
        del self.held[name]
        async with self.freed:
            self.freed.notify_all()

    async def show(self, name: str) -> LockView:
        if not name.isascii():
            raise UsageError("a name of a lock is ASCII", code="lock.name")
        return self.held.get(name) or LockView(name=name)

    async def list_locks(self, prefix: str) -> LockList:
        return LockList(locks=[view for name, view in self.held.items() if name.startswith(prefix)], engine="sqlite:")
