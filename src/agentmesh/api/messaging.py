"""What the HTTP API asks of a node about messages, topics, shared state and locks (docs/spec/mail.md, topics.md, state.md).

``Backend`` has one attribute for each of these. Methods raise what their subject's spec page lists; refusals leave
nothing changed.
References to agents are names, ``name@node`` or ids, as everywhere. All views are in ``wire.message_views`` and
``wire.state_views``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from agentmesh.wire.message_views import (
    AckView,
    CloudEventView,
    DeadLetters,
    GroupView,
    InboxPage,
    MailView,
    MessageRequest,
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


class Mail(Protocol):
    """Messages (``backend.mail``)."""

    async def send(self, request: MessageRequest) -> SentView:
        """Take a message; it is on disk when this returns, if it is durable.

        Raises:
            AgentNotFound, UsageError, LimitError: it was not taken.
            Busy: too much waits for that recipient or at this node already (code "mail.full"); it was not taken.
            StoreError: it could not be stored and was not taken.
        """
        ...

    async def sent(self, message_id: str) -> SentView:
        """Return what became of a message of this node. Raises RecordNotFound."""
        ...

    async def inbox(self, agent: str, *, limit: int, wait_s: float, lease_s: float, peek: bool) -> InboxPage:
        """Hand out what waits for an agent here ("" = for the node itself), waiting if there is nothing; ``peek`` only
        looks.

        Raises:
            AgentNotFound: it is none of this node's agents.
        """
        ...

    async def ack(self, agent: str, message_ids: Sequence[str], *, back: bool) -> AckView:
        """Acknowledge messages that were handed out, or give them back. Raises AgentNotFound, UsageError (an id that is
        none).
        """
        ...

    async def figures(self) -> MailView:
        """Return the courier in figures."""
        ...

    async def dead(self, limit: int, start: int) -> DeadLetters:
        """Return messages that were given up, newest first."""
        ...

    async def retry(self, message_id: str) -> SentView:
        """Send a dead letter again, with a new time to live. Raises RecordNotFound."""
        ...

    async def groups(self) -> list[GroupView]:
        """Return the groups that agents of this node are in or made."""
        ...

    async def set_group(self, name: str, members: Sequence[str]) -> GroupView:
        """Make a group, or change who is in it. Raises AgentNotFound, UsageError, Unauthorized (another node made it)."""
        ...

    async def remove_group(self, name: str) -> GroupView:
        """End a group. Raises RecordNotFound, Unauthorized."""
        ...


class Topics(Protocol):
    """Publish and subscribe (``backend.topics``)."""

    async def publish(self, subject: str, request: PublishRequest) -> PublishedView:
        """Publish. Raises UsageError (subject), Unauthorized (rules), LimitError, Busy, Unreached and StoreError
        (durable topics).
        """
        ...

    def subscribe(self, request: SubscribeRequest) -> AsyncGenerator[CloudEventView, None]:
        """Yield what is published; a subscriber that is too slow loses the oldest and hears how many, nobody else does.

        Raises:
            UsageError, Unauthorized, RecordNotFound (no such durable topic): on the first step.
        """
        ...

    async def acknowledge(self, topic: str, group: str, leases: Sequence[str], *, back: bool) -> AckView:
        """Say that work of a consumer group is done, or give it back. Raises RecordNotFound."""
        ...

    async def list_topics(self) -> TopicList:
        """Return the durable topics that are known here, patterns that are followed here, and the rules."""
        ...

    async def create(self, request: TopicRequest) -> TopicView:
        """Make a durable topic, kept by this node or its bus. Raises UsageError, StateError (code "topic.overlap")."""
        ...

    async def remove(self, name: str) -> bool:
        """Delete a durable topic of this node or its bus; say whether there was one. Raises Unauthorized: another node
        keeps it.
        """
        ...

    async def set_rules(self, rules: Sequence[TopicRules]) -> TopicList:
        """Replace this node's rules. Raises UsageError."""
        ...

    async def presence(self) -> list[PresenceView]:
        """Return which agents are there, left, or were lost, newest first."""
        ...


class State(Protocol):
    """Shared state (``backend.state``). A level that cannot be given is an error, never less."""

    async def get(self, space: str, key: str, *, level: LevelName, token: str) -> StateView:
        """Read a key; one that is not there has ``exists`` False.

        Raises:
            UsageError: space, key or token make no sense.
            NoRoute: the level cannot be given now (code "state.no_quorum", "engine.unreachable"), within 2 s.
            StateError: the level cannot be given here at all (code "state.no_engine").
            Timeout: CAUSAL: what the token has seen did not come in time.
        """
        ...

    async def change(self, space: str, key: str, change: StateChange) -> StateView:
        """Do one operation. Raises as ``get``, and StateError (codes "state.type", "state.conflict"), LimitError,
        StoreError, and Timeout
        (code "engine.unknown_outcome", "state.unknown_outcome": it may or may not have been done)."""
        ...

    async def history(self, space: str, key: str) -> StateHistory:
        """Return what was done to a key."""
        ...

    def watch(self, space: str, prefix: str, *, initial: bool) -> AsyncGenerator[StateView, None]:
        """Yield every key of a space that begins so when it changes (``initial``: first as they are); a slow watcher
        sees the latest only.
        """
        ...

    async def spaces(self) -> SpaceList:
        """Return the spaces of which this node has a replica."""
        ...

    async def keys(self, space: str, prefix: str, limit: int) -> StateKeys:
        """Return keys of a space, in order."""
        ...


class Locks(Protocol):
    """Locks, leases, leaders (``backend.locks``)."""

    async def acquire(self, name: str, request: LockRequest) -> LockView:
        """Take or renew a lock.

        Raises:
            Busy: another one has it (code "lock.held", ``extra["holder"]``). StateError: renewing what is not held (code
            "lock.lost").
            NoRoute, Timeout: the engine does not answer (codes "engine.*"); with "engine.unknown_outcome" it may be held
            until its end.
        """
        ...

    async def release(self, name: str, holder: str) -> LockView:
        """Give a lock back. Raises StateError (code "lock.lost"): it is not this holder's any more."""
        ...

    async def show(self, name: str) -> LockView:
        """Return a lock, held or not."""
        ...

    async def list_locks(self, prefix: str) -> LockList:
        """Return locks that are held."""
        ...
