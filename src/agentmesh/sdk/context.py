"""Where a running agent function finds the call it serves: run, task, logical time and the way the call has come.

``sdk.process`` sets it around each invocation; ``sdk.client`` reads it, so that a ``Mesh.call`` made inside an agent
becomes part of the same run. It follows asyncio tasks and the SDK's worker threads by itself (contextvars).
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass, field


@dataclass(slots=True)
class CallContext:
    """The call that the running function serves.

    Attributes:
        run_id: The run it is part of.
        task_id: The task: parent of every call made from here.
        agent_name: Name of the serving agent.
        agent_id: Its did:key, "" before the daemon has told it.
        hops: Agent ids the call has passed through, first caller first.
        lamport: Logical time of the run; calls made from here send it and raise it by what comes back.
        deadline_s: Seconds that were left for the whole call when it arrived.
        context_id: Conversation, if any.
        caller, caller_name: Who called.
        traceparent, tracestate: W3C trace context, if any; calls made from here are part of the trace.
        budget: What the call may use at most: any of ``calls``, ``tokens``, ``usd_micros``, ``wall_ms``.
        baggage: What goes along with every call of the run, such as a language; calls made from here pass it on.
        home: The daemon's home directory that this agent registered with, if it was told one.
        url, token: Address and token of the daemon that this agent registered with, if it was told them.
    """

    run_id: str
    task_id: str
    agent_name: str = ""
    agent_id: str = ""
    hops: list[str] = field(default_factory=list[str])
    lamport: int = 0
    deadline_s: float = 60.0
    context_id: str | None = None
    caller: str = ""
    caller_name: str = ""
    traceparent: str | None = None
    tracestate: str = ""
    budget: dict[str, int] = field(default_factory=dict[str, int])
    baggage: dict[str, str] = field(default_factory=dict[str, str])
    home: str | None = None
    url: str | None = None
    token: str | None = field(default=None, repr=False)

    def observe(self, lamport: int) -> None:
        """Raise the logical time to one that was seen (Lamport 1978, IR2)."""
        self.lamport = max(self.lamport, lamport)


_current: ContextVar[CallContext | None] = ContextVar("agentmesh_call", default=None)


def current() -> CallContext | None:
    """Return the call that the running code serves; None outside an agent function."""
    return _current.get()


def enter(context: CallContext | None) -> Token[CallContext | None]:
    """Set the current call; undo with ``leave``."""
    return _current.set(context)


def leave(token: Token[CallContext | None]) -> None:
    """Restore what was current before ``enter``."""
    _current.reset(token)
