"""The contract of every sans-IO machine.

``machine.handle(input, now_s, out)`` reads one input and writes effects to ``out``; it does no I/O, reads no clock, holds
no private key, and takes randomness from the ``random.Random`` given at construction. Timers are never cancelled: each
carries a token, and a machine ignores one whose token is stale. Machines do not raise for bad peers, they emit
``PeerMisbehaved``. The daemon's driver and the simulator drive the same code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from agentmesh.ids import NodeId


@dataclass(frozen=True, slots=True)
class Timer:
    """A wish to be woken: ``name`` says for what, a stale ``token`` is ignored."""

    name: str
    token: int = 0


@dataclass(frozen=True, slots=True)
class PeerMisbehaved:
    """A peer broke the protocol. Feeds trust; ``code`` is an error code such as "peer.signature"."""

    peer: NodeId
    code: str
    detail: str


@dataclass(slots=True)
class Outbox:
    """What a machine wants done, in order: four verbs and nothing else."""

    sends: list[tuple[NodeId, Any]] = field(default_factory=list[tuple[NodeId, Any]])
    timers: list[tuple[float, Timer]] = field(default_factory=list[tuple[float, Timer]])
    records: list[Any] = field(default_factory=list[Any])
    events: list[Any] = field(default_factory=list[Any])

    def send(self, to: NodeId, message: Any) -> None:
        """Send a message to a peer; lost if there is no link."""
        self.sends.append((to, message))

    def after(self, delay_s: float, timer: Timer) -> None:
        """Wake the machine with ``timer`` after ``delay_s`` seconds."""
        self.timers.append((delay_s, timer))

    def store(self, record: Any) -> None:
        """Keep a record durably."""
        self.records.append(record)

    def emit(self, event: Any) -> None:
        """Tell the node about something."""
        self.events.append(event)


class Machine(Protocol):
    """What the brain composes."""

    def handle(self, incoming: Any, now_s: float, out: Outbox) -> None:
        """Take one input at monotonic time ``now_s`` (seconds) and write effects to ``out``."""
        ...

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of the machine is broken (tests and simulator call it)."""
        ...
