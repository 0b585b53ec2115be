"""The Adapter contract: how an agent of some framework becomes callable (install, discover, invoke, cancel).

One file per door. ``tests/contract/test_adapter.py`` runs the same cases on each of them and on every later adapter.
An adapter declares what its door cannot do; it never fakes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from agentmesh.node.door import Door


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a door can do; a contract case is skipped only where this says no."""

    stream: bool = True
    cancel: bool = True
    multi_turn: bool = True
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class Discovered:
    """One agent found behind an address.

    Attributes:
        name: Its name, as people will type it (see ``ids.is_name``; adapters make it fit).
        description: One or more sentences, never empty.
        version: Its own version text, never empty.
        skills: ``[{id, name, description, tags[]}]``, at least one.
        input_modes, output_modes: MIME types, at least one each.
        target: What ``open`` needs to reach it again, JSON-ready.
        capabilities: What the door can do with it.
        extra: Further manifest params the agent declares (models, context_window, pricing, qps_budget, …).
    """

    name: str
    description: str
    version: str
    skills: list[dict[str, Any]]
    input_modes: list[str]
    output_modes: list[str]
    target: dict[str, Any]
    capabilities: Capabilities = Capabilities()
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an installation: what is done and what undoes it."""

    what: str
    undo: str


class Adapter(Protocol):
    """One door."""

    @property
    def name(self) -> str:
        """Its short name: "a2a", "http", "sdk"."""
        ...

    async def install(self, *, plan_only: bool = False) -> list[Step]:
        """Prepare a framework on this machine so that its agents can be called; the steps taken, [] when nothing is needed.

        Idempotent: a second run returns []. Doors that need no preparation always return [].
        """
        ...

    async def discover(self, url: str) -> list[Discovered]:
        """Ask what agents are behind a URL.

        Raises:
            UsageError: not a usable URL (code "agent.bad_url").
            NoRoute: nothing answers there (code "agent.unreachable").
            DecodeError: what answers is no agent of this door (code "agent.not_this_door").
        """
        ...

    def open(self, target: dict[str, Any]) -> Door:
        """Return the door to one discovered agent; does no I/O."""
        ...

    async def aclose(self) -> None:
        """Free what the adapter holds. Idempotent."""
        ...
