"""The "mailbox" door: an agent without a server, which only sends and receives messages (docs/spec/mail.md §7).

Its URL is ``mailbox:`` or ``mailbox:NAME``; nothing listens there. It reads its inbox when it likes, so it is always healthy; a
call to it is refused, since nobody would answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agentmesh.adapters.base import Capabilities, Discovered, Step
from agentmesh.errors import NoRoute, UsageError
from agentmesh.node.door import Door, Happening, Health, Invocation

SCHEME = "mailbox:"


class MailboxAdapter:
    """Register agents that have an inbox only."""

    name = "mailbox"

    async def install(self, *, plan_only: bool = False) -> list[Step]:
        """Return []: nothing to prepare."""
        return []

    async def discover(self, url: str) -> list[Discovered]:
        """Return the one agent that a ``mailbox:`` URL stands for. Raises UsageError: it is another URL."""
        if not url.startswith(SCHEME):
            raise UsageError(
                f"{url[:80]!r} is no mailbox",
                code="agent.bad_url",
                hint="agentmesh register mailbox: --name alice",
            )
        name = url.removeprefix(SCHEME).strip("/") or "mailbox"
        return [
            Discovered(
                name=name,
                description="Reads and sends messages; it cannot be called.",
                version="1.0.0",
                skills=[
                    {
                        "id": "messages",
                        "name": "Messages",
                        "description": "Takes messages in its inbox and answers when it likes.",
                        "tags": ["mailbox"],
                    }
                ],
                input_modes=["text/plain", "application/json"],
                output_modes=["text/plain", "application/json"],
                target={"mailbox": name},
                capabilities=Capabilities(),
            )
        ]

    def open(self, target: dict[str, Any]) -> Door:
        """Return the door, which does not open."""
        return MailboxDoor(str(target.get("mailbox", "")))

    async def aclose(self) -> None:
        """Do nothing."""


class MailboxDoor:
    """One agent that has an inbox only."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def invoke(self, call: Invocation) -> AsyncIterator[Happening]:
        """Refuse the call. Raises NoRoute (code "agent.mailbox"): nothing was done."""
        raise NoRoute(
            f"agent {(call.agent_name or self._name)[:80]!r} takes messages, not calls",
            code="agent.mailbox",
            why="it was registered as a mailbox: no program answers for it",
            hint=f"agentmesh send {(call.agent_name or self._name)[:64]} 'text'",
        )
        yield Happening("status", {})

    async def cancel(self, task_id: str) -> None:
        """Do nothing: no task runs."""

    async def health(self) -> Health:
        """Return healthy: the node keeps its inbox."""
        return Health("healthy")

    async def aclose(self) -> None:
        """Do nothing."""
