"""Messages for an agent that serves: its inbox is read and each message handed to the function under ``@NAME.on_message``."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from agentmesh.errors import MeshError
from agentmesh.sdk.client import Mesh
from agentmesh.sdk.message_requests import SendOptions
from agentmesh.sdk.messaging import Message

#: A message that failed so often is taken out of the inbox.
TRIES_MAX = 5
#: Seconds before a message that failed is handed in again, doubled each time; and the wait for a daemon that is away.
RETRY_MIN_S, RETRY_MAX_S = 0.5, 15.0
_REPLIES = uuid.UUID("0d9f6c0e-52a1-4f0c-8f8e-1d7f9d0a4c55")

Handler = Callable[[Message], Any]


class Listener:
    """Read one agent's inbox for as long as its process serves.

    Args:
        agent: Name of the agent.
        handler: Gets each message; what it returns goes back to the sender, None is no answer. A plain function runs in a thread.
        where: home, url and token of the daemon, as for ``Mesh``.
        say: Tells people what went wrong.
    """

    def __init__(
        self, agent: str, handler: Handler, where: tuple[str | None, str | None, str | None], say: Callable[[str], None]
    ) -> None:
        self._agent, self._handler, self._where, self._say = agent, handler, where, say

    async def run(self) -> None:
        """Hand messages in, one after the other, until canceled. What was not done then comes again."""
        retry_s = RETRY_MIN_S
        while True:
            try:
                async with Mesh(*self._where) as mesh:
                    async for message in mesh.inbox(self._agent, auto_ack=False):
                        retry_s = RETRY_MIN_S
                        await self._hear(mesh, message)
            except MeshError:
                # The daemon is away, or does not know the agent again yet: its process says so and mends it.
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, RETRY_MAX_S)

    async def _hear(self, mesh: Mesh, message: Message) -> None:
        try:
            answer = await self._call(message)
        except Exception as error:  # noqa: BLE001 - the user's function: whatever it raises is its answer
            await self._failed(mesh, message, error)
            return
        if answer is not None:
            await self._answer(mesh, message, answer, {})
        await message.ack()

    async def _call(self, message: Message) -> Any:
        if inspect.iscoroutinefunction(self._handler):
            handled: Awaitable[Any] = self._handler(message)
            return await handled
        return await asyncio.to_thread(self._handler, message)

    async def _failed(self, mesh: Mesh, message: Message, error: Exception) -> None:
        tries = message.view.tries
        what = f"{self._agent} failed at message {message.id} ({type(error).__name__}: {error})"
        if tries < TRIES_MAX:
            self._say(f"{what}; try {tries} of {TRIES_MAX}")
            await asyncio.sleep(min(RETRY_MIN_S * 2 ** (tries - 1), RETRY_MAX_S))
            await message.give_back()
            return
        self._say(f"{what}; given up after {tries} tries")
        if message.kind == "query":
            await self._answer(mesh, message, str(error), {"error": type(error).__name__})
        await message.ack()

    async def _answer(self, mesh: Mesh, message: Message, answer: Any, headers: dict[str, str]) -> None:
        # Its id follows from the message's: an answer that is given again after a crash is the same one.
        options: SendOptions = {"message_id": str(uuid.uuid5(_REPLIES, message.id)), "headers": headers}
        text = answer if isinstance(answer, str | bytes) else None
        if text is None:
            options["data"] = answer
        await mesh.reply(message, text, **options)
