"""Messages to every agent that this node knows: one copy for each, encrypted to it as any message (docs/spec/sealed.md §9).

What shall reach a whole large mesh is published on a topic instead, where the mesh itself passes it on, in clear.
"""

from __future__ import annotations

import msgspec

from agentmesh.errors import LimitError, UsageError
from agentmesh.ids import public_key_of
from agentmesh.node.mail import views
from agentmesh.node.mail.host import MailDesk
from agentmesh.node.resolve import Directory
from agentmesh.wire.message_views import MessageRequest, SentView

EVERYBODY = "*"
#: Most copies of one message.
COPIES_MAX = 1_000


class Broadcasts:
    """Write to everybody.

    Args:
        desk: Where messages are taken.
        directory: Agents that may be written to.
    """

    def __init__(self, desk: MailDesk, directory: Directory) -> None:
        self._desk, self._directory = desk, directory

    async def send(self, request: MessageRequest, sender: bytes) -> SentView:
        """Send to every agent but the sender (``MailDesk.many``).

        Raises:
            UsageError: nobody else is known (code "message.recipient"), or ``to`` is no ``*``.
            LimitError: more agents than ``COPIES_MAX`` are known (code "message.too_many"); none was written to.
            MeshError: none of the copies was taken; that of the first.
        """
        if request.to != EVERYBODY:
            raise UsageError(f"{request.to[:80]!r} is nobody", code="message.scope", hint="* alone means everybody")
        message = views.message_of(request, sender, sender, self._desk.room.unix_ms(), EVERYBODY)
        if request.message_id and (known := await self._desk.known(message.id)):
            return known
        agents = [public_key_of(entry.manifest.agent_id) for entry in self._directory.entries()]
        others = [agent for agent in dict.fromkeys(agents) if agent != sender]
        if not others:
            raise UsageError("no other agent is known", code="message.recipient", hint="agentmesh agents")
        if len(others) > COPIES_MAX:
            raise LimitError(
                f"{len(others)} agents are known, at most {COPIES_MAX} are written to at once",
                code="message.too_many",
                hint="publish to a topic that they follow:   agentmesh pub SUBJECT TEXT",
            )
        copies = [msgspec.structs.replace(message, recipient=agent) for agent in others]
        failed = [error for error in await self._desk.room.post(copies, EVERYBODY) if error is not None]
        if len(failed) == len(others):
            raise failed[0]
        view = await self._desk.sent(views.id_text(message.id))
        view.copies, view.recipient, view.recipient_name = len(others) - len(failed), "", ""
        if failed:
            view.reason = view.reason or failed[0].code
        return view
