"""Messages in the async client: ``mesh.send``, ``mesh.inbox``, ``mesh.reply``, groups (docs/howto/messages.md)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Unpack

from agentmesh.errors import MeshError, UsageError
from agentmesh.sdk import message_requests as wanted
from agentmesh.sdk.carrier import Carrier, Reader
from agentmesh.sdk.deliveries import InboxPlace, Received, reply_request
from agentmesh.sdk.message_requests import Patience, SendOptions
from agentmesh.wire.message_limits import LEASE_S, LEASE_S_MAX
from agentmesh.wire.message_views import DeadLetters, GroupView, MailView, MessageView, SentView


class Message(Received):
    """A message that an inbox handed out: ``text``, ``data``, ``bytes``, ``sender``, ``conversation``, ``view``.

    It comes again unless it is acknowledged. The loop over an inbox does that by itself when its body has ended.
    """

    __slots__ = ("_mesh",)

    def __init__(self, view: MessageView, agent: str, mesh: Carrier) -> None:
        super().__init__(view, agent)
        self._mesh = mesh

    async def ack(self) -> None:
        """Say that it is done; it does not come again. Idempotent."""
        if (request := self.settle_request(back=False)) is not None:
            await self._mesh._send(request)  # pyright: ignore[reportPrivateUsage]

    async def give_back(self) -> None:
        """Have it handed out again, to this reader or another one. Idempotent; nothing happens once it is acknowledged."""
        if (request := self.settle_request(back=True)) is not None:
            await self._mesh._send(request)  # pyright: ignore[reportPrivateUsage]


class Inbox(Reader):
    """What comes for an agent of this node, or for the node itself; iterate it.

        async for message in mesh.inbox("planner"):
            print(message.sender_name, message.text)

    A message is acknowledged when the next one is asked for, when the loop is left, or with ``mesh``; it is given back
    when the loop is left by an exception within ``async with mesh.inbox(…)`` or ``async with Mesh()``. A program that is killed
    in between gets it again.
    """

    def __init__(
        self,
        mesh: Carrier,
        agent: str,
        *,
        wait_s: float | None,
        lease_s: int,
        limit: int,
        retry_for_s: float,
        auto: bool,
    ) -> None:
        if not 1 <= lease_s <= LEASE_S_MAX:
            raise UsageError(f"lease_s is 1 to {LEASE_S_MAX}", code="mail.lease")
        self._mesh, self._auto, self._patience = mesh, auto, Patience(retry_for_s)
        self._place = InboxPlace(agent, wait_s=wait_s, limit=limit, lease_s=lease_s)
        self._current: Message | None = None
        self._closed = False

    def __aiter__(self) -> Inbox:
        """Return self."""
        return self

    async def __anext__(self) -> Message:
        """Acknowledge the message before and wait for the next one.

        Raises:
            AgentNotFound: there is no such agent at this node.
            NoRoute, Closed: the daemon stayed away for too long.
        """
        if self._closed:
            raise StopAsyncIteration
        await self._settle(back=False)
        while True:
            view = self._place.next(time.monotonic())
            if view is not None:
                message = Message(view, self._place.agent, self._mesh)
                if self._place.is_repeated(view):
                    await message.ack()
                    continue
                self._current = message
                self._mesh._remember(self)  # pyright: ignore[reportPrivateUsage]
                return message
            request = self._place.poll(time.monotonic())
            if request is None:
                await self.aclose()
                raise StopAsyncIteration
            page = await self._mesh._send_patiently(request, self._patience)  # pyright: ignore[reportPrivateUsage]
            self._place.take(page, time.monotonic())

    async def __aenter__(self) -> Inbox:
        """Return self."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; the last message is given back if its work failed."""
        await self.aclose(done=error is None)

    async def aclose(self, *, done: bool = True) -> None:
        """End; see ``Reader``. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._mesh._forget(self)  # pyright: ignore[reportPrivateUsage]
        await self._settle(back=not done)
        if left := self._place.left():
            await _quietly(self._mesh, wanted.ack(self._place.agent, left, back=True))

    async def _settle(self, *, back: bool) -> None:
        message, self._current = self._current, None
        if message is None or not (self._auto or back):
            return
        request = message.settle_request(back=back)
        if request is None:
            return
        if back:
            self._place.forget(message.view)
            await _quietly(self._mesh, request)
        else:
            await self._mesh._send_patiently(request, self._patience)  # pyright: ignore[reportPrivateUsage]


async def _quietly(mesh: Carrier, request: Any) -> None:
    """Give back; what cannot be given back comes again when its lease is over."""
    try:
        await mesh._send(request)  # pyright: ignore[reportPrivateUsage]
    except MeshError:
        return


class Messaging(Carrier):
    """The part of ``Mesh`` that sends and receives messages."""

    async def send(self, to: str, payload: str | bytes | None = None, **options: Unpack[SendOptions]) -> SentView:
        """Send a message; it is kept until it is delivered or its time is over, and survives restarts of both sides.

        Args:
            to: Agent name, ``name@node`` or id; ``group:NAME``; ``topic:SUBJECT``; ``*`` = every agent of the mesh.
            payload: Text or bytes, unless ``data`` gives JSON.
            options: As in ``SendOptions``.

        Raises:
            AgentNotFound: no such agent. UsageError, LimitError: it makes no sense or is too large.
            Busy: too much waits already (code "mail.full"). In each case nothing was sent.
            Closed, Timeout: it may have been sent; repeat with the same ``message_id``.
        """
        return await self._send(wanted.send(wanted.message_request(to, payload, **options)))

    async def reply(
        self, message: Received, payload: str | bytes | None = None, **options: Unpack[SendOptions]
    ) -> SentView:
        """Answer a message to its sender, in its conversation and in the name of whoever received it. Raises as ``send``."""
        return await self._send(wanted.send(reply_request(message, payload, **options)))

    def inbox(
        self,
        agent: str = "",
        *,
        wait_s: float | None = None,
        lease_s: int = LEASE_S,
        limit: int = 16,
        retry_for_s: float = 60.0,
        auto_ack: bool = True,
    ) -> Inbox:
        """Return what comes for an agent, to be iterated.

        Args:
            agent: Name or id of an agent of this node; "" = the node itself.
            wait_s: End when nothing came for so long; None = never, 0 = with what is there.
            lease_s: A message that is not done after so many seconds is handed out again.
            limit: Messages fetched at a time.
            retry_for_s: Give up after so many seconds without a daemon.
            auto_ack: Acknowledge each message when the next one is asked for; False = call ``message.ack()``.
        """
        return Inbox(self, agent, wait_s=wait_s, lease_s=lease_s, limit=limit, retry_for_s=retry_for_s, auto=auto_ack)

    async def fetch(
        self, agent: str = "", *, limit: int = 16, wait_s: int = 0, lease_s: int = LEASE_S
    ) -> list[Message]:
        """Return what waits in an inbox, at most one page, each to be acknowledged; ``inbox`` does so by itself.

        Raises:
            AgentNotFound: there is no such agent at this node.
        """
        page = await self._send(wanted.inbox(agent, limit=limit, wait_s=wait_s, lease_s=lease_s))
        return [Message(view, agent, self) for view in page.messages]

    async def peek(self, agent: str = "", *, limit: int = 100) -> list[MessageView]:
        """Return what waits in an inbox and leave it there. Raises AgentNotFound."""
        return (await self._send(wanted.inbox(agent, limit=limit, wait_s=0, lease_s=1, peek=True))).messages

    async def sent(self, message_id: str) -> SentView:
        """Return what became of a message of this node. Raises RecordNotFound."""
        return await self._send(wanted.sent(message_id))

    async def mail(self) -> MailView:
        """Return the courier in figures, and what waits to be delivered."""
        return await self._send(wanted.mail())

    async def dead_letters(self, *, limit: int = 100, start: int = 0) -> DeadLetters:
        """Return messages that were given up, newest first, with the reason."""
        return await self._send(wanted.dead(limit, start))

    async def retry(self, message_id: str) -> SentView:
        """Send a dead letter again. Raises RecordNotFound."""
        return await self._send(wanted.retry(message_id))

    async def groups(self) -> list[GroupView]:
        """Return the groups that agents of this node are in or made."""
        return (await self._send(wanted.groups())).groups

    async def set_group(self, name: str, members: Sequence[str]) -> GroupView:
        """Make a group, or change who is in it. Raises AgentNotFound, UsageError, Unauthorized."""
        return await self._send(wanted.set_group(name, members))

    async def remove_group(self, name: str) -> GroupView:
        """End a group. Raises RecordNotFound, Unauthorized."""
        return await self._send(wanted.remove_group(name))
