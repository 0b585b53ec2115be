"""The contracts of the store: what the node may ask of an event log and of its small state, whatever keeps them.

``eventlog.EventLog`` (JSONL and SQLite) implements ``Events``; ``state.StateStore`` (SQLite) implements ``State``.
Other backends come as further implementations of the same Protocols.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from agentmesh.wire.event import EventV1
from agentmesh.wire.rows import RunQuery


@dataclass(frozen=True, slots=True)
class EventLogConfig:
    """Settings of the event log; docs/reference/events.md lists them for users.

    Attributes:
        segment_bytes_max: A JSONL segment that reached this size is closed and the next one begun. One group may overshoot.
            Smaller makes retention finer, larger makes fewer files. Default 64 MB (issue 2).
        events_bytes_max: Above this total the oldest whole segments are dropped, never the one being written, so it is
            at least one segment. 0 keeps all. Default 1 GiB, about two million events (guess).
        queue_events_max: Events accepted but not yet written, at most. Raise it for larger bursts; a batch must fit.
        queue_bytes_max: The same in encoded bytes. It bounds the memory that a stalled disk can cost.
        group_events_max: Events written and synced as one group, at most (one batch is never split). Larger groups
            give more events per second and a later acknowledgement.
        group_bytes_max: The same in encoded bytes.
        linger_s: How long events that nobody waits for may wait for company before their group is written. Each group costs
            a sync and a transaction, whatever its size: at 2,500 events/s, 50 ms take nine tenths of that cost away. A
            durable append or a reader ends the wait at once. 0 writes every group as soon as the last one is done.
        retry_s: Seconds between tries to write when the disk refused.
        follow_batch: Events a follower reads from the index at once, when it is behind.
        recent_events_max: Newest events kept in memory while somebody follows, so that live followers need no disk.
        recent_bytes_max: The same in encoded bytes.
        read_bytes_max: Encoded bytes that one ``run_events`` or ``task_events`` may load. Above it: LimitError.
        rows_bytes_max: Memory of the tables of runs that somebody looks at (``rows``), about: 190 bytes an event, so runs of
            half a million events can be shown. The longest unused goes first. An idle node has none.
        rows_idle_s: Seconds without a look after which they all go.
    """

    segment_bytes_max: int = 64_000_000
    events_bytes_max: int = 1 << 30
    queue_events_max: int = 50_000
    queue_bytes_max: int = 64 << 20
    group_events_max: int = 4096
    group_bytes_max: int = 8 << 20
    linger_s: float = 0.05
    retry_s: float = 1.0
    follow_batch: int = 256
    recent_events_max: int = 1024
    recent_bytes_max: int = 4 << 20
    read_bytes_max: int = 256 << 20
    rows_bytes_max: int = 128 << 20
    rows_idle_s: float = 60.0


class Fate(NamedTuple):
    """What became of events since the log was opened.

    Attributes:
        accepted: Taken.
        stored: Written.
        known: Copies of stored ones, left out.
        returned: Not written, and whoever waited for them was told so.
        waiting: For the disk.
        lost: None of these: always 0 unless there is a bug.
    """

    accepted: int
    stored: int
    known: int
    returned: int
    waiting: int
    lost: int


@dataclass(slots=True)
class Report:
    """What the event log found and mended since it was opened.

    Attributes:
        torn_bytes: Bytes cut from the end of the last segment, kept aside in ``events/torn-*.bin``.
        garbage_lines: Unreadable lines found by this opening; they stay in the JSONL and are skipped.
        promoted: Older records (RQ4 §2.4) found by this opening and read as EventV1.
        rows_added: Events that the index lacked and that were added from the JSONL.
        rows_removed: Rows of the index without their line, removed.
        rebuilt: The index was built anew from the JSONL.
        segments_dropped, events_dropped: Oldest segments dropped to stay under ``events_bytes_max``.
        unreadable: Events whose line could not be read when asked for.
        problem: Why the log cannot write now; "" while it is healthy.
        notes: What happened, a sentence each, oldest first, at most 20.
    """

    torn_bytes: int = 0
    garbage_lines: int = 0
    promoted: int = 0
    rows_added: int = 0
    rows_removed: int = 0
    rebuilt: bool = False
    segments_dropped: int = 0
    events_dropped: int = 0
    unreadable: int = 0
    problem: str = ""
    notes: list[str] = field(default_factory=list[str])

    def note(self, sentence: str) -> None:
        """Add a sentence for people; the newest 20 are kept and repeats are dropped."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            del self.notes[:-20]

    @property
    def sentences(self) -> list[str]:
        """Return what ``status.warnings`` shows: the notes, then the present problem."""
        return [*self.notes, *([self.problem] if self.problem else [])]


class RunRow(NamedTuple):
    """One run as the index knows it: times in microseconds since 1970, events, name of the first agent, last state,
    calls, and names of agents (at most 8)."""

    run_id: str
    first_ts: int
    last_ts: int
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]  # hides tuple.count, as in sdk.types.RunView
    agent: str
    state: str
    tasks: int
    agents: list[str]


class RunPage(NamedTuple):
    """Runs that fit a query: some of them, how many there are in all, and where to go on; 0 at the end."""

    rows: list[RunRow]
    total: int
    next: int


class ContactRow(NamedTuple):
    """One known node: its id, addresses, how it was heard of, and when it was last seen (unix seconds)."""

    node_id: str
    addresses: tuple[str, ...]
    source: str
    last_seen: int


class Events(Protocol):
    """Append-only log of EventV1 with an index by run and task."""

    @property
    def count(self) -> int:
        """Events in the log."""
        ...

    @property
    def last_seq(self) -> int:
        """The last position given to an event; 0 in an empty log."""
        ...

    def append(self, event: EventV1) -> int:
        """Queue an event and return its position. Raises StoreError."""
        ...

    def append_copy(self, event: EventV1) -> None:
        """Queue another node's event unless its id is known in its run. Raises StoreError."""
        ...

    async def append_durable(self, events: Iterable[EventV1]) -> int:
        """Append events and return the last position once they are on disk. Raises StoreError."""
        ...

    async def flush(self) -> None:
        """Wait until everything appended so far is on disk. Raises StoreError."""
        ...

    async def run_events(self, run_id: str, after: int = 0, limit: int = 100_000) -> list[EventV1]:
        """Return a run's events in order."""
        ...

    async def task_events(self, task_id: str) -> list[EventV1]:
        """Return a task's events in order."""
        ...

    async def resolve(self, ref: str) -> str:
        """Return the run id that a reference names. Raises RunNotFound, UsageError."""
        ...

    async def event_at(self, seq: int) -> EventV1:
        """Return the event at a position. Raises RecordNotFound."""
        ...

    async def runs(self, query: RunQuery) -> RunPage:
        """Return runs that fit, newest first."""
        ...

    def follow(self, after_seq: int, run_id: str | None = None) -> AsyncIterator[EventV1]:
        """Yield events after a position as they arrive, without end."""
        ...

    async def aclose(self) -> None:
        """Write what is queued and close."""
        ...


class State(Protocol):
    """The node's small state: registrations, contacts, counters and single values."""

    def save_registration(self, name: str, registration: dict[str, Any]) -> None:
        """Store what is needed to offer an agent again after a restart."""
        ...

    def registrations(self) -> dict[str, dict[str, Any]]:
        """Return every registration by agent name."""
        ...

    def delete_registration(self, name: str) -> bool:
        """Forget a registration; say whether there was one."""
        ...

    def save_contact(self, node_id: str, addresses: Iterable[str], *, source: str, last_seen: int) -> None:
        """Store where a node may be reached."""
        ...

    def contacts(self, limit: int = 1000) -> list[ContactRow]:
        """Return known nodes, last seen first."""
        ...

    def next_seq(self, agent_id: str, now_ms: int) -> int:
        """Return the agent's next sequence number, larger than any before."""
        ...

    def close(self) -> None:
        """Close; further calls raise StateError."""
        ...
