"""What the mesh asks of an engine that others keep consistent or durable for us (research: p2p-reliability §1.3, §3;
adr/0009).

    CriticalStore   compare-and-set on small values, linearisable: locks, leases, leaders, LINEARIZABLE state
    TopicStore      durable topics with offsets, and consumer groups that share their work

SQLite gives both on one machine; NATS JetStream gives both, and etcd the first, on several.
``tests/contract/test_critical.py``
and ``test_topic_store.py`` run the same cases on each. There is no Raft of our own.

Every method may raise, besides what it names: NoRoute (code "engine.unreachable": nothing was done), Timeout (code
"engine.unknown_outcome": a write was sent and it is not known whether it took place; it is never reported as a success
or as a
failure), Unauthorized, and StateError (code "engine.closed").
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

#: Of one value, and of one record of a topic.
VALUE_BYTES_MAX = 256 * 1024
RECORD_BYTES_MAX = 1024 * 1024 + 16 * 1024
KEY_CHARS_MAX = 512
#: Longest a call may take before it is "engine.unknown_outcome" or "engine.unreachable": a minority must refuse within 2 s.
CALL_TIMEOUT_S = 1.8


class Versioned(NamedTuple):
    """A value and the revision that wrote it; revisions of one store only rise, over all of its keys."""

    value: bytes
    revision: int


class Change(NamedTuple):
    """A key was written (``value``) or deleted (None) at ``revision``."""

    key: str
    value: bytes | None
    revision: int


class CriticalStore(Protocol):
    """Linearisable compare-and-set on small values. Keys are texts of ``A-Z a-z 0-9 _ - . /``, at most ``KEY_CHARS_MAX``."""

    @property
    def url(self) -> str:
        """Where it is, without credentials: ``sqlite:…``, ``nats://…``, ``etcd://…``."""
        ...

    @property
    def warnings(self) -> list[str]:
        """What its operator should know, in sentences, such as what could not be checked."""
        ...

    async def open(self) -> None:
        """Connect and check that the engine can promise what is asked of it. Every other method does so if it must.

        Raises:
            ConfigError: it cannot, such as a NATS server older than 2.12.3 or a bucket with one replica (code
            "engine.unsafe").
        """
        ...

    async def get(self, key: str) -> Versioned | None:
        """Return the current value, never a stale one; None if there is none."""
        ...

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        """Write and return the new revision.

        Args:
            key, value: What.
            expect: The revision that must be the current one; 0 = the key must not exist; None = whatever is there.

        Raises:
            StateError: another revision is there (code "state.conflict", ``extra["revision"]`` if known). Nothing was
            written.
            LimitError: the value or key is too large. Nothing was written.
        """
        ...

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        """Delete and say whether there was anything; ``expect`` and errors as in ``put``."""
        ...

    async def keys(self, prefix: str = "", limit: int = 1000) -> list[str]:
        """Return the keys that begin so, in order, at most ``limit``."""
        ...

    def watch(self, prefix: str, after: int = 0) -> AsyncGenerator[Change, None]:
        """Yield changes of keys that begin so, in order of revision, from after that revision on (0 = what is there,
        then changes).
        """
        ...

    async def aclose(self) -> None:
        """Disconnect. Idempotent."""
        ...


class TopicSpec(NamedTuple):
    """A durable topic.

    Attributes:
        name: Unique in its store: letters, digits, ``-`` and ``_``.
        subjects: Patterns of the subjects that it keeps (docs/spec/topics.md §2).
        records_max, bytes_max, age_s_max: The oldest records go when one of these is exceeded.
    """

    name: str
    subjects: tuple[str, ...]
    records_max: int = 1_000_000
    bytes_max: int = 1024 * 1024 * 1024
    age_s_max: int = 7 * 86_400


class Record(NamedTuple):
    """One kept record: its offset (from 1, rising by one within a topic as the store allows), time (unix ms), subject,
    bytes.
    """

    offset: int
    ts_ms: int
    subject: str
    body: bytes


class Lease(NamedTuple):
    """A record handed to one member of a consumer group; ``tries`` counts from 1."""

    record: Record
    token: str
    tries: int


class TopicStore(Protocol):
    """Durable topics. Everything appended is on disk (group commit) when ``append`` returns."""

    async def open(self) -> None:
        """Connect; as ``CriticalStore.open``."""
        ...

    async def create(self, spec: TopicSpec) -> None:
        """Make the topic or change its limits. Raises StateError (code "topic.overlap"): a subject of it is kept by
        another.
        """
        ...

    async def remove(self, name: str) -> bool:
        """Delete a topic with all it keeps; say whether there was one."""
        ...

    async def topics(self) -> list[TopicSpec]:
        """Return all topics by name."""
        ...

    async def append(self, topic: str, records: Sequence[tuple[str, bytes, str]]) -> list[int]:
        """Keep records (subject, bytes, id) and return their offsets in order; one whose id came within 10 minutes is
        not kept twice.

        Raises:
            RecordNotFound: no such topic. StoreError: the disk is full. Nothing was kept.
        """
        ...

    async def read(self, topic: str, offset: int, limit: int = 256, wait_s: float = 0.0) -> list[Record]:
        """Return records from that offset on (those that are gone are passed over), waiting if there is none yet."""
        ...

    async def offset_at(self, topic: str, ts_ms: int) -> int:
        """Return the offset of the first record at or after a time; that of the next one to come if there is none."""
        ...

    async def bounds(self, topic: str) -> tuple[int, int]:
        """Return the offset of the oldest record, and the offset that the next one will get."""
        ...

    async def fetch(
        self, topic: str, group: str, member: str, *, limit: int = 16, wait_s: float = 0.0, ack_wait_s: float = 30.0
    ) -> list[Lease]:
        """Take work of a consumer group: each record goes to one member, and to another one if it is not acknowledged in
        time.
        """
        ...

    async def ack(self, topic: str, group: str, tokens: Sequence[str]) -> int:
        """Say that leased records are done; return how many were still ours."""
        ...

    async def nack(self, topic: str, group: str, tokens: Sequence[str], delay_s: float = 0.0) -> int:
        """Give leased records back, to be handed out again after a delay."""
        ...

    async def aclose(self) -> None:
        """Disconnect. Idempotent."""
        ...
