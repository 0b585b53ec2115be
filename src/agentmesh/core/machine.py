"""The contract of every sans-IO machine.

``machine.handle(input, now_s, out)`` reads one input and writes effects to ``out``; it does no I/O, reads no clock, holds
no private key, and takes randomness from the ``random.Random`` given at construction. Timers are never cancelled: each
carries a token, and a machine ignores one whose token is stale. Machines do not raise for bad peers, they emit
``PeerMisbehaved``. The daemon's driver and the simulator drive the same code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

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


class Send(NamedTuple):
    """One message on its way.

    Attributes:
        to: The peer.
        message: One of the classes that ``wire.v1`` lists.
        at: Where the peer may be, when the sender knows better than the address book (a hint from a lookup); else empty.
        link: True = over a link only, never as a datagram: a second way to a peer that does not answer on the first.
    """

    to: NodeId
    message: Any
    at: tuple[str, ...] = ()
    link: bool = False


@dataclass(slots=True)
class Outbox:
    """What a machine wants done, in order: four verbs and nothing else."""

    sends: list[Send] = field(default_factory=list[Send])
    timers: list[tuple[float, Timer]] = field(default_factory=list[tuple[float, Timer]])
    records: list[Any] = field(default_factory=list[Any])
    events: list[Any] = field(default_factory=list[Any])

    def send(self, to: NodeId, message: Any, at: tuple[str, ...] = (), *, link: bool = False) -> None:
        """Send a message to a peer: as a datagram or over a link, dialled if need be; it may get lost (``Send``)."""
        self.sends.append(Send(to, message, at, link))

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


class WallTime:
    """The wall clock as the machines of one brain see it: what was last read, carried on by monotonic time.

    The brain sets it at every ``WallClock`` input; machines only read. It judges ``iat`` and ``exp`` of signed things and
    tells skew; intervals are never measured with it.
    """

    __slots__ = ("_at_s", "_unix_s")

    def __init__(self) -> None:
        self._unix_s = self._at_s = 0.0

    def set(self, unix_s: float, now_s: float) -> None:
        """Note what the wall clock shows at monotonic ``now_s``; both in seconds."""
        self._unix_s, self._at_s = unix_s, now_s

    def unix_s(self, now_s: float) -> int:
        """Return unix seconds at monotonic ``now_s``."""
        return int(self._unix_s + (now_s - self._at_s))
