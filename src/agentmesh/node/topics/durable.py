"""Durable topics: which there are, who keeps each, and how to reach it (docs/spec/topics.md §6).

A topic is kept by the node that made it, or by the bus that several nodes share. Nodes learn of each other's topics by
retained publications under ``$topics.NAME``, signed by the owner. A name belongs to whoever was first heard to have it, and
so do subjects.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from agentmesh.core.topics.subjects import TOPICS, PatternTable, check_pattern, is_topic_name, overlaps
from agentmesh.engines.base import TopicSpec, TopicStore
from agentmesh.errors import LimitError, MeshError, RecordNotFound, StateError, Unauthorized, UsageError
from agentmesh.identity.publication import Publication
from agentmesh.ids import NodeId
from agentmesh.wire.message_views import TopicView

_log = logging.getLogger("agentmesh.topics")

#: Topics of other nodes that are remembered, and patterns of all topics.
KNOWN_MAX, _PATTERNS_MAX, _PATTERNS_EACH_MAX = 1_000, 20_000, 64
_LIMIT_MAX = 2**62
_KEEPERS_MAX = 4_096


class StoreOpener(Protocol):
    """Opens the store of durable topics when it is needed first."""

    def __call__(self) -> TopicStore:
        """Return the store, not open yet."""
        ...


class Announced(msgspec.Struct, kw_only=True):
    """What a node says of a durable topic that it keeps: the payload of ``$topics.NAME``."""

    subjects: list[str]
    records_max: int
    bytes_max: int
    age_s_max: int


class Known(NamedTuple):
    """One durable topic.

    Attributes:
        spec: What it is.
        owner: The node that keeps it; "" = the store of this node or its bus.
    """

    spec: TopicSpec
    owner: str


class Durable:
    """The durable topics that are known here.

    Args:
        node_id: This node.
        opener: Makes the store.
        path: Of the store's file; without it nothing is kept yet, and nothing is opened. None: the store is shared and opened
            at once.
    """

    def __init__(self, node_id: NodeId, opener: Callable[[], TopicStore], path: Path | None) -> None:
        self._node_id, self._opener, self._path = node_id, opener, path
        self._store: TopicStore | None = None
        self._known: dict[str, Known] = {}
        self._table: PatternTable[str] = PatternTable(_PATTERNS_MAX)
        #: Subjects that were published lately, and the topic that keeps each.
        self._keepers: dict[str, Known | None] = {}

    @property
    def is_shared(self) -> bool:
        """Whether several nodes share the store."""
        return self._path is None

    async def open(self) -> None:
        """Open the store if it keeps anything. Raises ConfigError, StoreError, Unreached."""
        if self._path is None or self._path.exists():
            await self._opened()

    async def _opened(self) -> TopicStore:
        if self._store is None:
            store = self._opener()
            await store.open()
            self._store = store
            await self.refresh()
        return self._store

    async def refresh(self) -> None:
        """Look again which topics the store keeps: others may have made some on a shared one."""
        if self._store is None:
            if self._path is None:
                await self._opened()
            return
        kept = {spec.name: spec for spec in await self._store.topics()}
        for name in [name for name, known in self._known.items() if not known.owner and name not in kept]:
            self._forget(name)
        for spec in kept.values():
            self._learn(Known(spec, ""))

    def _learn(self, known: Known) -> None:
        if self._known.get(known.spec.name) == known:
            return
        self._forget(known.spec.name)
        self._keepers.clear()
        self._known[known.spec.name] = known
        for pattern in known.spec.subjects:
            self._table.add(pattern, known.spec.name)

    def _forget(self, name: str) -> None:
        old = self._known.pop(name, None)
        self._keepers.clear()
        if old is not None:
            for pattern in old.spec.subjects:
                self._table.remove(pattern, name)

    # What there is

    def all(self) -> list[Known]:
        """Return all topics that are known, by name."""
        return [self._known[name] for name in sorted(self._known)]

    def get(self, name: str) -> Known:
        """Return a topic. Raises RecordNotFound (code "topic.unknown")."""
        known = self._known.get(name)
        if known is None:
            raise RecordNotFound(f"no durable topic {name[:80]!r} is known here", code="topic.unknown")
        return known

    def keeper_of(self, subject: str) -> Known | None:
        """Return the topic that keeps a subject, None if none does."""
        if not self._known:
            return None
        if subject not in self._keepers:
            if len(self._keepers) >= _KEEPERS_MAX:
                del self._keepers[next(iter(self._keepers))]
            names = self._table.match(subject)
            self._keepers[subject] = self._known[names[0]] if names else None
        return self._keepers[subject]

    @property
    def store(self) -> TopicStore:
        """The open store. Raises StateError (code "topic.no_store"): nothing is kept here."""
        if self._store is None:
            raise StateError("no durable topic is kept here", code="topic.no_store")
        return self._store

    async def view(self, known: Known) -> TopicView:
        """Return a topic for people; what another node keeps is not asked for its offsets."""
        spec = known.spec
        view = TopicView(
            name=spec.name,
            subjects=list(spec.subjects),
            records_max=spec.records_max,
            bytes_max=spec.bytes_max,
            age_s_max=spec.age_s_max,
            node_id=known.owner or ("" if self.is_shared else self._node_id),
        )
        if not known.owner and self._store is not None:
            view.engine = str(getattr(self._store, "url", "")).partition(":")[0]
            try:
                view.first, view.next = await self._store.bounds(spec.name)
                groups = getattr(self._store, "groups", None)
                if groups is not None:
                    view.groups = await groups(spec.name)
            except MeshError as error:
                _log.warning("the topic %s cannot be looked at: %s", spec.name, error)
        return view

    # Making and removing

    async def create(self, spec: TopicSpec) -> Known:
        """Make a topic here, or change one. Raises StateError (code "topic.overlap"), UsageError, LimitError, StoreError."""
        for name, other in self._known.items():
            if name == spec.name and other.owner:
                raise StateError(f"another node keeps a topic {name!r}", code="topic.overlap")
            if name != spec.name and any(overlaps(a, b) for a in spec.subjects for b in other.spec.subjects):
                raise StateError(f"subjects of {spec.name!r} are kept by the topic {name!r}", code="topic.overlap")
        store = await self._opened()
        await store.create(spec)
        known = Known(spec, "")
        self._learn(known)
        return known

    async def remove(self, name: str) -> bool:
        """Delete a topic of this node. Raises Unauthorized (code "topic.foreign"): another node keeps it."""
        known = self._known.get(name)
        if known is None:
            return False
        if known.owner:
            raise Unauthorized(f"another node keeps the topic {name!r}", code="topic.foreign")
        removed = await self.store.remove(name)
        self._forget(name)
        return removed

    # What others say

    def announcement(self, spec: TopicSpec) -> bytes:
        """Return what is said of a topic of this node."""
        return msgspec.json.encode(
            Announced(
                subjects=list(spec.subjects),
                records_max=spec.records_max,
                bytes_max=spec.bytes_max,
                age_s_max=spec.age_s_max,
            )
        )

    def hear(self, one: Publication) -> bool:
        """Take what another node says of a topic that it keeps; say whether it is to be believed."""
        name, owner = one.subject.removeprefix(TOPICS), one.did
        old = self._known.get(name)
        if owner == self._node_id or not is_topic_name(name) or (old is not None and old.owner != owner):
            return False
        if not one.payload:
            self._forget(name)
            return True
        try:
            said = msgspec.json.decode(one.payload, type=Announced)
            spec = _spec(name, said)
            if old is None and len(self._known) >= KNOWN_MAX:
                raise LimitError(f"{KNOWN_MAX} durable topics are known", code="topic.too_many")
            for other in self._known.values():
                if other.spec.name != name and any(overlaps(a, b) for a in spec.subjects for b in other.spec.subjects):
                    raise StateError(f"its subjects are kept by {other.spec.name!r}", code="topic.overlap")
            self._learn(Known(spec, owner))
        except (MeshError, msgspec.MsgspecError, RecursionError) as error:
            _log.info("the topic %r of another node is not used: %s", name, error)
            return False
        return True

    async def aclose(self) -> None:
        """Close the store. Idempotent."""
        if self._store is not None:
            await self._store.aclose()
            self._store = None


def _spec(name: str, said: Announced) -> TopicSpec:
    """Return what was said, checked. Raises UsageError."""
    if not 0 < len(said.subjects) <= _PATTERNS_EACH_MAX:
        raise UsageError("a topic without subjects, or with too many", code="topic.subjects")
    for pattern in said.subjects:
        check_pattern(pattern)
        # Whoever claims everything would be asked for everything.
        if pattern[0] in "*>$":
            raise UsageError(f"{pattern!r} begins with no word of its own", code="topic.subjects")
    limits = (said.records_max, said.bytes_max, said.age_s_max)
    if not all(0 < limit < _LIMIT_MAX for limit in limits):
        raise UsageError("a limit that is none", code="topic.limits")
    return TopicSpec(name, tuple(said.subjects), *limits)
