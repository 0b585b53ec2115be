"""Publish and subscribe at one node: what the HTTP API offers (``api.messaging.Topics``; docs/spec/topics.md).

A publication goes to everybody here who follows its subject, to the durable topic that keeps it, and signed to all other
nodes. What others publish is judged by this node's rules before anybody here sees it. Subjects whose rule names who may
subscribe are never broadcast: such a publication goes to agents here, and through ``letters`` to those named elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from agentmesh.core.topics.config import TopicsConfig
from agentmesh.core.topics.intake import Allowance, TopicHeard
from agentmesh.core.topics.rules import ANYBODY, Rule, may
from agentmesh.core.topics.subjects import PRESENCE, TOPICS, check_subject, is_subject
from agentmesh.engines.base import TopicSpec
from agentmesh.errors import Busy, MeshError, StateError, StoreError, Unauthorized, Unreached, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.publication import Publication, check_publication, read_publication, sign_publication
from agentmesh.net.tasks import TaskScope
from agentmesh.node.topics.durable import Durable, Known
from agentmesh.node.topics.events import JSON_TYPE, id_of, id_text, payload_of, view_of
from agentmesh.node.topics.fanout import Fanout
from agentmesh.node.topics.following import Following
from agentmesh.node.topics.presence import Presence
from agentmesh.node.topics.rulefile import RuleFile
from agentmesh.node.topics.serving import record_id
from agentmesh.node.topics.who import Who
from agentmesh.store.topics import Retained, RetainedStore
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

_log = logging.getLogger("agentmesh.topics")

#: Requests with an id of their own that are known again.
_ANSWERED_MAX = 4_096
#: A retained value is kept although its clock is ahead of ours by so much.
_AHEAD_MS = 7_200_000
_REFRESH_S = 10.0
#: Tasks that look at a shared store at once.
_LOOKS_MAX = 8


class Letters(Protocol):
    """Sends a publication end to end encrypted to agents that a rule names (the mailroom)."""

    async def send(self, one: Publication, raw: bytes, recipients: Sequence[str]) -> None:
        """Take it for these agents, by id. Raises MeshError: it was not taken for any."""
        ...


class Topics:
    """Topics of one node.

    Args:
        key: The node's.
        fanout, rules, retained, durable, presence, who, following: The parts.
        broadcast: Sends a signed publication to all nodes.
        has_neighbours: Whether there is anybody to broadcast to.
        refuse: Raises ReadOnly while nothing may be published.
        refusal_of: Says why a key may do nothing here.
        scope: Owns the tasks.
        note: Takes note of a change of the rules: what was changed.
    """

    def __init__(
        self,
        key: KeyPair,
        *,
        fanout: Fanout,
        rules: RuleFile,
        retained: RetainedStore,
        durable: Durable,
        presence: Presence,
        who: Who,
        following: Following,
        broadcast: Callable[[bytes], None],
        has_neighbours: Callable[[], bool],
        refuse: Callable[[], None],
        refusal_of: Callable[[str], MeshError | None],
        scope: TaskScope,
        note: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._key, self._fanout, self._rules, self._retained = key, fanout, rules, retained
        self._durable, self._presence, self._who, self._following = durable, presence, who, following
        self._broadcast, self._has_neighbours, self._refuse = broadcast, has_neighbours, refuse
        self._refusal_of, self._scope, self._note = refusal_of, scope, note
        #: Set where there is a mailroom.
        self.letters: Letters | None = None
        config = TopicsConfig()
        # A little less than what others let pass, so that nothing that was taken here is dropped there.
        self._allowance = Allowance(0.9 * config.rate, int(0.9 * config.burst), time.monotonic())
        self._answered: dict[tuple[bytes, bytes], PublishedView] = {}
        self._ids = random.Random(os.urandom(16))  # noqa: S311 ids need be unique, not secret
        self._warned: dict[str, None] = {}
        self.published = self.heard = self.refused = self.unflooded = 0

    # Publishing

    async def publish(self, subject: str, request: PublishRequest) -> PublishedView:
        """Publish; what it raises is said in ``api.messaging.Topics.publish``."""
        self._refuse()
        check_subject(subject)
        if _is_own(subject):
            raise UsageError(f"{subject!r} is one of the mesh's own subjects", code="topic.reserved")
        party, key = self._who.signer(request.sender)
        rule = self._rules.of(subject)
        if rule is not None and not may(rule.publish, self._who.names(party.did)):
            raise Unauthorized(
                f"{request.sender or 'this node'} may not publish to {subject!r}",
                code="topic.publish",
                why=f"the rule of {rule.pattern!r} names others",
                hint="topics.toml in the home directory has the rules",
            )
        payload, content_type = payload_of(request)
        id_ = id_of(request, self._ids.randbytes(16))
        again = self._answered.get((key.public, id_)) if request.message_id else None
        if again is not None:
            return again
        now_ms = time.time_ns() // 1_000_000
        if request.retain:
            now_ms = self._after_last(subject, now_ms)
        one = Publication(id_, key.public, now_ms, subject, payload, content_type, request.retain, request.headers)
        view = await self._publish(one, key, rule)
        if request.message_id:
            while len(self._answered) >= _ANSWERED_MAX:
                del self._answered[next(iter(self._answered))]
            self._answered[key.public, id_] = view
        return view

    async def _publish(self, one: Publication, key: KeyPair, rule: Rule | None) -> PublishedView:
        """Hand a publication to all whom it is for: first to whoever keeps it, so that a failure leaves nothing done."""
        keeper = self._durable.keeper_of(one.subject)
        named = rule is not None and ANYBODY not in rule.subscribe
        elsewhere = self._named_elsewhere(rule) if rule is not None and named else []
        if elsewhere and self.letters is None:
            raise StateError(
                f"{len(elsewhere)} agents that may follow {one.subject!r} live elsewhere, and this node sends no mail",
                code="topic.no_mail",
            )
        floods = not named and self._has_neighbours()
        if floods and not self._has_room():
            if keeper is None:
                raise Busy(
                    "more is published from here than the mesh passes on",
                    code="topic.rate",
                    retry_after_s=1.0,
                    hint="publish less often, or keep the subject in a durable topic and let readers read that",
                )
            self.unflooded += 1
            floods = False
        is_signed = floods or one.retain or keeper is not None or elsewhere
        if is_signed:
            raw = sign_publication(key, one)
        else:
            check_publication(one)
            raw = b""
        offset = 0 if keeper is None else await self._append(keeper, one, raw)
        if elsewhere and self.letters is not None:
            await self.letters.send(one, raw, elsewhere)
        if one.retain:
            self._keep_own(one, raw, private=named, is_kept=keeper is not None)
        subscribers = self._deliver(one, offset=offset)
        if floods:
            self._broadcast(raw)
        self.published += 1
        return PublishedView(
            message_id=id_text(one.id),
            subject=one.subject,
            topic="" if keeper is None else keeper.spec.name,
            offset=offset,
            subscribers=subscribers,
        )

    def _has_room(self) -> bool:
        if self._allowance.left(time.monotonic()) < 1.0:
            return False
        self._allowance.take()
        return True

    def _named_elsewhere(self, rule: Rule) -> list[str]:
        """Return the agents that a rule names and that do not live beside this node."""
        return [name for name in rule.subscribe if name.startswith("did:") and self._who.is_agent_elsewhere(name)]

    async def _append(self, keeper: Known, one: Publication, raw: bytes) -> int:
        store = self._following.store_of(keeper, "")
        record = (one.subject, raw, record_id(one))
        return (await store.append(keeper.spec.name, [record]))[0]

    def _after_last(self, subject: str, now_ms: int) -> int:
        """Return a time after that of the value that is retained, so that the new one is the last."""
        held = self._retained.get(subject)
        return max(now_ms, held.ts_ms + 1) if held is not None and held.ts_ms < now_ms + _AHEAD_MS else now_ms

    def _keep(self, one: Publication, raw: bytes, *, private: bool = False) -> bool:
        """Keep a retained value if it is the last of its subject. Raises StoreError."""
        value = Retained(one.subject, one.ts_ms, one.id, raw, not one.payload, private, one.publisher)
        return self._retained.put(value)

    def _keep_own(self, one: Publication, raw: bytes, *, private: bool, is_kept: bool) -> None:
        """Retain what was published here; if a durable topic has it already, a failure is no reason to say that it was not."""
        try:
            self._keep(one, raw, private=private)
        except StoreError as error:
            if not is_kept:
                raise
            self._warn(f"a retained value is not kept: {error}")

    def _deliver(self, one: Publication, *, retained: bool = False, offset: int = 0) -> int:
        """Hand a publication to everybody here who follows its subject and may."""
        targets = self._fanout.targets(one.subject)
        if not targets:
            return 0
        return self._fanout.publish(targets, view_of(one, retained=retained, offset=offset), len(one.payload) + 256)

    # What others publish

    def hear(self, event: TopicHeard) -> None:
        """Take a publication of another node."""
        self._take(event.publication, event.raw, fresh=True)

    def take_retained(self, one: Publication, raw: bytes) -> bool:
        """Take a retained value that a neighbour had; say whether it was news."""
        if not one.retain or one.ts_ms > time.time_ns() // 1_000_000 + _AHEAD_MS:
            return False
        return self._take(one, raw, fresh=False)

    def take_letter(self, one: Publication, recipient: str) -> None:
        """Take a publication that came end to end encrypted for one agent here: nobody else gets it."""
        if not is_subject(one.subject) or _is_own(one.subject) or not self._admits(one):
            return
        targets = [target for target in self._fanout.targets(one.subject) if recipient in target.who]
        if targets:
            self.heard += 1
            self._fanout.publish(targets, view_of(one), len(one.payload) + 256)

    def _admits(self, one: Publication) -> bool:
        """Say whether this node's rules let its publisher say that, and count if they do not."""
        rule, did = self._rules.of(one.subject), one.did
        if self._refusal_of(did) is None and (rule is None or may(rule.publish, self._who.names(did))):
            return True
        self.refused += 1
        return False

    def _take(self, one: Publication, raw: bytes, *, fresh: bool) -> bool:
        subject = one.subject
        if not is_subject(subject) or not self._admits(one):
            return False
        try:
            if subject[0] == "$":
                return self._take_own_subject(one, raw)
            if subject.startswith(PRESENCE):
                return False
            kept = one.retain and self._keep(one, raw)
        except StoreError as error:
            self._warn(f"a retained value is not kept: {error}")
            kept = False
        if fresh or kept:
            self.heard += 1
            self._deliver(one, retained=not fresh)
        return kept

    def _take_own_subject(self, one: Publication, raw: bytes) -> bool:
        """Take what a node says of a durable topic. Raises StoreError."""
        if not one.subject.startswith(TOPICS):
            return False
        if not one.retain:
            self._look_again()
            return False
        held = self._retained.get(one.subject)
        if held is not None and not held.empty and held.publisher != one.publisher:
            return False  # the name is somebody else's
        if held is not None and (held.ts_ms, held.id) >= one.rank:
            return False
        return self._durable.hear(one) and self._keep(one, raw)

    def _warn(self, text: str) -> None:
        if text not in self._warned and len(self._warned) < 16:
            self._warned[text] = None
            _log.error("%s", text)

    def warnings(self) -> list[str]:
        """Return what people should know."""
        return [*([self._rules.warning] if self._rules.warning else []), *self._warned]

    # Subscribing

    def subscribe(self, request: SubscribeRequest) -> AsyncGenerator[CloudEventView, None]:
        """Yield what is published; what it raises is said in ``api.messaging.Topics.subscribe``."""
        return self._following.follow(request)

    async def acknowledge(self, topic: str, group: str, leases: Sequence[str], *, back: bool) -> AckView:
        """Say that work of a consumer group is done, or give it back. Raises RecordNotFound."""
        store = self._following.store_of(self._durable.get(topic), "")
        done = await (store.nack(topic, group, leases) if back else store.ack(topic, group, leases))
        self._following.settled(topic, group, leases)
        return AckView(done=done)

    # Durable topics, rules and presence

    async def list_topics(self) -> TopicList:
        """Return the durable topics that are known here, patterns that are followed here, and the rules."""
        topics = [await self._durable.view(known) for known in self._durable.all()]
        topics += [
            TopicView(subjects=[pattern], subscribers=count) for pattern, count in self._fanout.followed().items()
        ]
        rules = [
            TopicRules(pattern=rule.pattern, publish=list(rule.publish), subscribe=list(rule.subscribe))
            for rule in self._rules.rules
        ]
        return TopicList(topics=topics, rules=rules)

    async def create(self, request: TopicRequest) -> TopicView:
        """Make a durable topic here, or change one; what it raises is said in ``Durable.create``."""
        self._refuse()
        spec = TopicSpec(
            request.name, tuple(request.subjects), request.records_max, request.bytes_max, request.age_s_max
        )
        known = await self._durable.create(spec)
        self._announce(spec.name, self._durable.announcement(spec))
        return await self._durable.view(known)

    async def remove(self, name: str) -> bool:
        """Delete a durable topic of this node; say whether there was one. Raises Unauthorized: another node keeps it."""
        self._refuse()
        removed = await self._durable.remove(name)
        if removed:
            self._announce(name, b"")
        return removed

    def _announce(self, name: str, payload: bytes) -> None:
        """Tell all nodes of a topic of this one; of one on a bus only that there is something new to be looked at."""
        shared = self._durable.is_shared
        subject = f"{TOPICS}{name}"
        now_ms = self._after_last(subject, time.time_ns() // 1_000_000)
        one = Publication(
            self._ids.randbytes(16),
            self._key.public,
            now_ms,
            subject,
            b"" if shared else payload,
            JSON_TYPE,
            not shared,
        )
        raw = sign_publication(self._key, one)
        if not shared:
            self._keep(one, raw)
        self._broadcast(raw)

    async def set_rules(self, rules: Sequence[TopicRules]) -> TopicList:
        """Replace this node's rules. Raises UsageError, LimitError, Full: nothing changed."""
        self._refuse()
        self._rules.replace([Rule(one.pattern, tuple(one.publish), tuple(one.subscribe)) for one in rules])
        await self._note("topics.toml", f"{len(rules)} rules")
        return await self.list_topics()

    async def presence(self) -> list[PresenceView]:
        """Return which agents are there, left, or were lost, newest first."""
        return self._presence.views()

    def presence_changed(self, view: PresenceView) -> None:
        """Tell those here who follow it that an agent came, left, or was lost."""
        subject = presence_subject(view.agent_id)
        if self._fanout.targets(subject):
            self._deliver(presence_publication(self._key, view))

    # Life

    async def open(self) -> None:
        """Open what is kept, and learn the topics of other nodes that were known before. Never fails for damage."""
        self._rules.refresh()
        for value in self._retained.values(TOPICS):
            try:
                one = _kept(value)
                if one.publisher != self._key.public:
                    self._durable.hear(one)
            except MeshError as error:
                self._warn(f"what is kept of {value.subject!r} cannot be read: {error}")
        try:
            await self._durable.open()
        except MeshError as error:
            # A shared store that is not up yet is asked again soon; the daemon warns for as long as it is not.
            if not (self._durable.is_shared and isinstance(error, Unreached)):
                self._warn(f"durable topics cannot be used: {error}")
        self._scope.spawn(self._refresh_loop(), "refresh")

    async def _refresh_loop(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_S)
            await self._look()

    def _look_again(self) -> None:
        """Look at the shared store soon: another node made or removed a topic there."""
        if self._durable.is_shared and len(self._scope) < _LOOKS_MAX:
            self._scope.spawn(self._look(), "look")

    async def _look(self) -> None:
        try:
            self._retained.forget_empty(time.time_ns() // 1_000_000)
            if self._durable.is_shared:
                await self._durable.refresh()
        except MeshError as error:
            _log.warning("topics were not looked at: %s", error)

    async def aclose(self) -> None:
        """Stop. Idempotent."""
        await self._scope.aclose()
        await self._durable.aclose()
        self._retained.close()


def _is_own(subject: str) -> bool:
    """Say whether a subject is one of the mesh's own, under which nobody publishes."""
    return subject[0] == "$" or subject.startswith(PRESENCE)


def _kept(value: Retained) -> Publication:
    return read_publication(value.raw, trusted=True)


def presence_subject(agent_id: str) -> str:
    """Return the subject of an agent's presence: its id without the part that all ids share."""
    return PRESENCE + agent_id.removeprefix("did:key:")


def presence_publication(key: KeyPair, view: PresenceView) -> Publication:
    """Return what is published here of an agent's presence; it is not signed and never sent."""
    id_ = random.Random(f"{view.agent_id} {view.ts} {view.state}").randbytes(16)  # noqa: S311 one change, one id
    payload = msgspec.json.encode(view)
    return Publication(id_, key.public, view.ts // 1_000, presence_subject(view.agent_id), payload, JSON_TYPE, True)
