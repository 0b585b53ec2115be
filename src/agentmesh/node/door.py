"""What the node asks of whoever carries a call to an agent beside it.

``adapters/`` implements ``Door`` for A2A, plain HTTP and the Python SDK. A door yields ``Happening``s; the node gives
them ids, time and order and turns them into events. Exactly one of them is terminal (a status in a terminal state); the
node refuses anything after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from agentmesh.identity.budget import UNBOUNDED, Budget
from agentmesh.wire.event import Kind


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call as the agent sees it.

    Attributes:
        task_id: The task; a repeated id must not run twice.
        run_id: The run it belongs to.
        parts: A2A 1.0 parts in JSON form.
        agent_name: Name of the called agent (one process may serve several).
        skill: Skill id, if the caller chose one.
        context_id: Conversation, if any.
        caller: did:key of the calling agent or node.
        caller_name: Its name, for people.
        deadline_s: Seconds left for the whole call, > 0.
        traceparent, tracestate: W3C trace context: this node's span of the call, which what the agent does belongs to.
        lamport: Logical time of the run when the call arrived.
        hops: Agent ids the call has passed through, first caller first.
        metadata: What the caller sent along.
        budget: What it may use at most, its own further calls included.
        baggage: What goes along with every call of the run (W3C baggage).
    """

    task_id: str
    run_id: str
    parts: list[dict[str, Any]]
    agent_name: str = ""
    skill: str | None = None
    context_id: str | None = None
    caller: str = ""
    caller_name: str = ""
    deadline_s: float = 60.0
    traceparent: str | None = None
    tracestate: str = ""
    lamport: int = 0
    hops: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    budget: Budget = UNBOUNDED
    baggage: dict[str, str] = field(default_factory=dict[str, str])


class Happening(NamedTuple):
    """One thing the agent did: ``kind`` and ``payload`` as in EventV1."""

    kind: Kind
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Health:
    """Result of one health check."""

    status: Literal["healthy", "unhealthy"]
    detail: str = ""


class Door(Protocol):
    """One agent behind one protocol."""

    def invoke(self, call: Invocation) -> AsyncIterator[Happening]:
        """Run the call, yielding happenings; the last is a terminal status.

        Closing the iterator early cancels the call. The door enforces ``deadline_s`` itself only as far as its own sockets
        go; the node also enforces it from outside.

        Raises:
            AgentFailed: the agent failed or answered garbage; ``detail`` is its own text.
            NoRoute, Closed: the agent cannot be reached, or went away mid-call.
            LimitError: the answer is larger than allowed.
        """
        ...

    async def cancel(self, task_id: str) -> None:
        """Ask the agent to stop the task. Unknown tasks are ignored. Never raises for an agent that is gone."""
        ...

    async def health(self) -> Health:
        """Ask whether the agent is alive, within 3 s. Never raises."""
        ...

    async def aclose(self) -> None:
        """Free what the door holds (connections, its own child processes). Idempotent."""
        ...
