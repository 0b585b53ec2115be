"""The "mailbox" door: an agent without a server, which only sends and receives messages (docs/spec/mail.md §7).

Its URL is ``mailbox:`` or ``mailbox:NAME``, with ``?skill=…`` for each thing that others find it by; nothing listens there. It
reads its inbox when it likes, so it is always healthy; a call to it is refused, since nobody would answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl, unquote

from agentmesh.adapters.base import Capabilities, Discovered, Step
from agentmesh.errors import NoRoute, UsageError
from agentmesh.node.door import Door, Happening, Health, Invocation

SCHEME = "mailbox:"
#: Skills of one mailbox, and characters of one.
_SKILLS_MAX, _SKILL_CHARS_MAX = 32, 64


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
        path, _, query = url.removeprefix(SCHEME).partition("?")
        name = unquote(path.strip("/")) or "mailbox"
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
                    },
                    *_skills_in(query),
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


def _skills_in(query: str) -> list[dict[str, Any]]:
    """Return the skills that a URL names. Raises UsageError: they cannot be read."""
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=_SKILLS_MAX)
    except ValueError as error:
        raise UsageError(f"the skills of a mailbox cannot be read: {error}", code="agent.bad_url") from error
    skills: dict[str, dict[str, Any]] = {}
    for key, value in given:
        if key != "skill" or not 0 < len(value) <= _SKILL_CHARS_MAX or not value.isprintable():
            raise UsageError(
                f"{key[:20]}={value[:80]!r} is no skill of a mailbox",
                code="agent.bad_url",
                why=f"a skill is a line of at most {_SKILL_CHARS_MAX} characters",
                hint="agentmesh register 'mailbox:alice?skill=review'",
            )
        skills[value] = {"id": value, "name": value, "description": value, "tags": [value]}
    skills.pop("messages", None)
    return list(skills.values())
