"""Publications for agents that a rule names: not broadcast, but sent to each end to end encrypted (docs/spec/topics.md §8).

The payload of such a message is the publication as its publisher signed it, its scope ``topic:`` and the subject. The recipient's
node hands it to subscriptions in that agent's name, and to nobody else.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from agentmesh.core.courier.message import Delivery, Kind, Message
from agentmesh.errors import MeshError
from agentmesh.identity.publication import Publication, read_publication
from agentmesh.ids import did_of, public_key_of

if TYPE_CHECKING:
    from agentmesh.node.mail.inbox import Waiting
    from agentmesh.node.mail.mailroom import Mailroom

_log = logging.getLogger("agentmesh.topics")

SCOPE = "topic:"
CONTENT_TYPE = "application/vnd.agentmesh.publication"
#: Of the subject in the scope, which is for people: the publication itself has the whole one.
_SCOPE_CHARS = 240
#: A live topic is of now: who cannot be reached within this does not hear of it.
_TTL_MS = 60_000


class TopicLetters:
    """Send and receive publications as messages.

    Args:
        room: The mailroom of this node.
        take: Takes a publication for an agent here, by did:key.
    """

    def __init__(self, room: Mailroom, take: Callable[[Publication, str], None]) -> None:
        self._room, self._take = room, take
        self._ids = random.Random(os.urandom(16))  # noqa: S311 ids need be unique, not secret
        #: Messages that were not taken by the mailroom, and those that came and were no publication of their sender.
        self.unsent = self.bad = 0
        room.on_message(SCOPE, self._on_messages)

    async def send(self, one: Publication, raw: bytes, recipients: Sequence[str]) -> None:
        """Send a publication to agents, by id.

        Raises:
            MeshError: the mailroom took it for none of them.
        """
        messages = [
            Message(
                id=self._ids.randbytes(16),
                sender=one.publisher,
                recipient=public_key_of(did),
                kind=Kind.BROADCAST,
                sent_ms=one.ts_ms,
                payload=raw,
                delivery=Delivery.AT_LEAST_ONCE,
                ttl_ms=_TTL_MS,
                content_type=CONTENT_TYPE,
                scope=SCOPE + one.subject[:_SCOPE_CHARS],
                durable=False,
            )
            for did in recipients
        ]
        errors = [error for error in await self._room.post(messages, SCOPE + one.subject) if error is not None]
        self.unsent += len(errors)
        if errors and len(errors) == len(messages):
            raise errors[0]
        for error in errors[:1]:
            _log.warning("a publication was not sent to %d of %d agents: %s", len(errors), len(messages), error)

    def _on_messages(self, ones: list[Waiting]) -> None:
        for waiting in ones:
            message = waiting.message
            try:
                one = read_publication(message.payload)
            except MeshError:
                self.bad += 1
                continue
            if one.publisher != message.sender:
                self.bad += 1
                continue
            self._take(one, did_of(message.recipient))
