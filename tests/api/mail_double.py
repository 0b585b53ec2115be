"""The mail of the backend double: messages to agents beside a node that is no node, kept in memory."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from agentmesh.errors import AgentNotFound, RecordNotFound
from agentmesh.wire.message_views import (
    AckView,
    DeadLetter,
    DeadLetters,
    GroupView,
    InboxPage,
    MailView,
    MessageRequest,
    MessageView,
    SentView,
)

OWNER = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"


class MailDouble:
    """Delivers at once; ``known`` are the agents it has. "nobody" is never reached, so what it gets is dead."""

    def __init__(self) -> None:
        self.known = {"", "echo", "nobody"}
        self.requests: list[MessageRequest] = []
        self.boxes: dict[str, list[MessageView]] = {}
        self.views: dict[str, SentView] = {}
        self.letters: list[DeadLetter] = []
        self.named: dict[str, GroupView] = {}

    def _check(self, agent: str) -> None:
        if agent not in self.known:
            raise AgentNotFound.near(agent, self.known)

    async def send(self, request: MessageRequest) -> SentView:
        self._check(request.to)
        self._check(request.sender)
        self.requests.append(request)
        message_id = request.message_id or str(uuid.uuid4())
        if message_id in self.views:
            return self.views[message_id]
        data = request.text if request.text is not None else request.data
        message = MessageView(
            message_id=message_id,
            sender=OWNER,
            recipient=OWNER,
            kind=request.kind,
            data=data,
            data_base64=request.data_base64,
            cursor=len(self.views) + 1,
        )
        view = SentView(message_id=message_id, to=request.to, state="delivered")
        if request.to == "nobody":
            view.state, view.reason = "dead", "mail.refused"
            self.letters.insert(0, DeadLetter(message=message, reason="mail.refused", why="it is nobody", ended_ts=1))
        else:
            self.boxes.setdefault(request.to, []).append(message)
        self.views[message_id] = view
        return view

    async def sent(self, message_id: str) -> SentView:
        if message_id not in self.views:
            raise RecordNotFound(f"no message {message_id}", code="not_found.message")
        return self.views[message_id]

    async def inbox(self, agent: str, *, limit: int, wait_s: float, lease_s: float, peek: bool) -> InboxPage:
        self._check(agent)
        box = self.boxes.get(agent, [])
        return InboxPage(messages=box[:limit], waiting=len(box))

    async def ack(self, agent: str, message_ids: Sequence[str], *, back: bool) -> AckView:
        self._check(agent)
        box = self.boxes.get(agent, [])
        named = [one for one in box if one.message_id in message_ids]
        if not back:
            self.boxes[agent] = [one for one in box if one not in named]
        return AckView(done=len(named))

    async def figures(self) -> MailView:
        return MailView(sent=len(self.views), delivered=len(self.views) - len(self.letters), dead=len(self.letters))

    async def dead(self, limit: int, start: int) -> DeadLetters:
        return DeadLetters(letters=self.letters[start : start + limit], total=len(self.letters))

    async def retry(self, message_id: str) -> SentView:
        for letter in self.letters:
            if letter.message.message_id == message_id:
                self.letters.remove(letter)
                self.views[message_id] = SentView(message_id=message_id, to="nobody", state="queued")
                return self.views[message_id]
        raise RecordNotFound(f"no dead letter {message_id}", code="not_found.message")

    async def groups(self) -> list[GroupView]:
        return list(self.named.values())

    async def set_group(self, name: str, members: Sequence[str]) -> GroupView:
        for member in members:
            self._check(member)
        epoch = self.named[name].epoch + 1 if name in self.named else 1
        self.named[name] = GroupView(name=name, owner=OWNER, members=list(members), epoch=epoch)
        return self.named[name]

    async def remove_group(self, name: str) -> GroupView:
        if name not in self.named:
            raise RecordNotFound(f"no group {name!r}", code="not_found.group")
        return self.named.pop(name)
