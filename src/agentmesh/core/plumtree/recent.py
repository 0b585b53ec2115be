"""What was received: payloads for a while, ids for longer (docs/spec/plumtree.md §5)."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentmesh.core.plumtree.config import PlumtreeConfig
from agentmesh.core.plumtree.messages import PREFIX_BYTES, RECENT_MAX
from agentmesh.ids import NodeId

#: Neighbours remembered per message as having it; beyond it one is told needlessly.
_HOLDERS_MAX = 96


@dataclass(slots=True, eq=False)
class Kept:
    """A message that can be handed out.

    Attributes:
        kind, payload: As published.
        hops: Links crossed to come here.
        at_s: When it came.
        via: Who brought it, None = published here.
        tree: It came along the tree.
        fetched: It came as the answer to a fetch.
        asked: Who was asked for it: their late answers are no offence.
        holders: Neighbours known to have it or not to want it.
    """

    kind: str
    payload: bytes
    hops: int
    at_s: float
    via: NodeId | None
    tree: bool
    asked: list[NodeId]
    fetched: bool = False
    holders: list[NodeId] = field(default_factory=list[NodeId])

    def note_holder(self, node: NodeId) -> None:
        """Remember that a neighbour need not be told."""
        if len(self.holders) < _HOLDERS_MAX and node not in self.holders:
            self.holders.append(node)


class RecentTable:
    """Ids seen and payloads kept, both in the order of arrival and bounded by age and number."""

    __slots__ = ("_config", "bytes_kept", "kept", "seen")

    def __init__(self, config: PlumtreeConfig) -> None:
        self._config = config
        self.kept: dict[bytes, Kept] = {}
        self.seen: dict[bytes, float] = {}
        self.bytes_kept = 0

    def admit(self, id_: bytes, now_s: float, kept: Kept | None) -> None:
        """Remember an id and, unless it is stale or bad, its payload."""
        self.seen[id_] = now_s
        if kept is not None:
            self.kept[id_] = kept
            self.bytes_kept += len(kept.payload)
        self.expire(now_s)

    def expire(self, now_s: float) -> None:
        """Drop what is too old or too much."""
        config = self._config
        kept = self.kept
        while kept:
            id_ = next(iter(kept))
            old = kept[id_]
            if (
                now_s - old.at_s < config.cache_s
                and len(kept) <= config.cache_max
                and self.bytes_kept <= config.cache_bytes_max
            ):
                break
            del kept[id_]
            self.bytes_kept -= len(old.payload)
        seen = self.seen
        while seen:
            id_ = next(iter(seen))
            if now_s - seen[id_] < config.seen_s and len(seen) <= config.seen_max:
                break
            del seen[id_]

    def prefixes(self, span_s: float, now_s: float) -> bytes:
        """Return the prefixes of the ids kept that came within ``span_s``, newest first."""
        parts: list[bytes] = []
        for id_, kept in reversed(self.kept.items()):
            if now_s - kept.at_s > span_s or len(parts) >= RECENT_MAX:
                break
            parts.append(id_[:PREFIX_BYTES])
        return b"".join(parts)

    def lacking(self, theirs: set[bytes], span_s: float, now_s: float, ids_max: int) -> list[bytes]:
        """Return ids that came within ``span_s`` and whose prefix another does not name, newest first."""
        ids: list[bytes] = []
        for looked, (id_, kept) in enumerate(reversed(self.kept.items())):
            if now_s - kept.at_s > span_s or len(ids) >= ids_max or looked >= RECENT_MAX:
                break
            if id_[:PREFIX_BYTES] not in theirs:
                ids.append(id_)
        return ids

    def knows_all(self, theirs: set[bytes], now_s: float) -> bool:
        """Say whether an id seen lately stands behind every prefix."""
        unknown = set(theirs)
        horizon_s = now_s - 3 * self._config.cache_s
        for id_, seen_s in reversed(self.seen.items()):
            if not unknown or seen_s < horizon_s:
                break
            unknown.discard(id_[:PREFIX_BYTES])
        return not unknown

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule is broken."""
        config = self._config
        assert len(self.kept) <= config.cache_max
        assert len(self.seen) <= config.seen_max
        assert self.bytes_kept == sum(len(kept.payload) for kept in self.kept.values()) <= config.cache_bytes_max
        assert all(id_ in self.seen for id_ in self.kept)
