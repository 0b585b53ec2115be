"""Which agents each partner sees now, as pages of an AI Catalog (docs/spec/federation.md §4).

Shown are agents that the partner's list names and that this node may speak for: those beside it, and those of other nodes of its
own mesh that its organisation vouches for. Federated agents are passed on only if who told of them allows that and the list names
them by id. Whoever is revoked is shown to nobody.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from agentmesh.errors import UsageError
from agentmesh.identity.manifest import Manifest
from agentmesh.identity.node_record import NodeRecord
from agentmesh.ids import NodeId
from agentmesh.node.federation.feed import Feed, Place
from agentmesh.node.federation.rules import Partner, Rules
from agentmesh.wire.federation import (
    CARD_TYPE,
    NODES_MAX,
    PAGE_BYTES,
    PAGE_ENTRIES_MAX,
    TOMBSTONE_TYPE,
    WITHDRAWN_TYPE,
    CatalogEntry,
    CatalogPage,
    EntryExtra,
    EntryMetadata,
    PageExtra,
    PageMetadata,
    TrustManifest,
)

_TAGS_MAX = 64
_TIME_CHARS_MAX = 40


class Known(Protocol):
    """What this node knows of agents and nodes."""

    def manifests(self) -> Sequence[Manifest]:
        """Return the manifests of every agent that could be shown: of this mesh, and federated ones."""
        ...

    def record(self, agent: str, /) -> Manifest | None:
        """Return the newest record of an agent, be it a tombstone."""
        ...

    def may_show(self, manifest: Manifest, partner: Partner, /) -> bool:
        """Say whether this node may speak for an agent to a partner whose list names it."""
        ...

    def node(self, node: NodeId, /) -> NodeRecord | None:
        """Return what a node says of itself."""
        ...


class Exports:
    """Keep the view of each partner.

    Args:
        known: What could be shown.
        secret: Random bytes of this run, for cursors.
        on_change: Called with a partner's key when its view changed.
    """

    def __init__(self, known: Known, secret: bytes, on_change: Callable[[str], None] = lambda _: None) -> None:
        self._known, self._secret = known, secret
        self.on_change = on_change
        self.feeds: dict[str, Feed] = {}
        self._partners: Mapping[str, Partner] = {}

    def reload(self, rules: Rules) -> None:
        """Take other rules: every view is looked at again."""
        before, self._partners = self._partners, rules.partners
        for key in [key for key, one in rules.partners.items() if key in before and before[key].reshare != one.reshare]:
            # All that the partner sees is another thing now, so it begins anew: its cursor is unknown to a fresh feed.
            self._secret = hashlib.sha256(self._secret).digest()
            self.feeds[key] = Feed(key, self._secret)
        for key in [key for key in self.feeds if key not in rules.partners]:
            del self.feeds[key]
        for key in rules.partners:
            self.feeds.setdefault(key, Feed(key, self._secret))
        self.refresh()

    def refresh(self) -> None:
        """Look at every agent again: somebody was revoked, or the organisation of this node is another one."""
        if not self._partners:
            return
        manifests = {manifest.agent_id: manifest for manifest in self._known.manifests()}
        for key, feed in self.feeds.items():
            changed = False
            for agent in [agent for agent, place in feed.places.items() if not place.gone and agent not in manifests]:
                changed |= feed.touch(agent, 0, 0)
            for manifest in manifests.values():
                changed |= self._touch(self._partners[key], feed, manifest)
            if changed:
                self.on_change(key)

    def changed(self, agent: str) -> None:
        """Look at one agent again."""
        if not self._partners:
            return
        record = self._known.record(agent)
        for key, feed in self.feeds.items():
            if record is None or record.tombstone:
                touched = feed.touch(agent, 0, 0)
            else:
                touched = self._touch(self._partners[key], feed, record)
            if touched:
                self.on_change(key)

    def _touch(self, partner: Partner, feed: Feed, manifest: Manifest) -> bool:
        if self.is_shown(partner, manifest):
            place = feed.places.get(manifest.agent_id)
            if place is not None and place.seq == manifest.seq:
                return False
            return feed.touch(manifest.agent_id, manifest.seq, manifest.mark)
        return feed.touch(manifest.agent_id, 0, 0)

    def is_shown(self, partner: Partner, manifest: Manifest) -> bool:
        """Say whether a partner sees an agent."""
        return manifest.signed and partner.sees(manifest) and self._known.may_show(manifest, partner)

    def shown(self, key: str) -> list[str]:
        """Return the ids of the agents that a partner sees."""
        feed = self.feeds.get(key)
        return [] if feed is None else [agent for agent, place in feed.places.items() if not place.gone]

    def page(self, partner: Partner, *, cursor: str, updated_since: str, limit: int) -> CatalogPage:
        """Return what changed for a partner since a cursor, oldest change first.

        Args:
            partner: Whose view.
            cursor: Of an earlier page; "" = from the beginning.
            updated_since: RFC 3339; leave out what was signed before. For a listing without a cursor.
            limit: Entries, 1 … ``PAGE_ENTRIES_MAX``.

        Raises:
            DecodeError, ReplayError: the cursor is none, or unknown here (``Feed.read``).
            UsageError: ``updated_since`` is no time.
        """
        feed = self.feeds[partner.key]
        rev, since = feed.read(cursor) if cursor else (0, _seconds(updated_since))
        changes = feed.after(rev)
        entries: list[CatalogEntry] = []
        nodes: dict[str, None] = {}
        size, at = 0, 0
        for at, (agent, place) in enumerate(changes, 1):  # noqa: B007 where it stopped is used below
            rev = place.rev
            entry, node = self._entry(partner, agent, place, since)
            if entry is not None:
                entries.append(entry)
                size += len(bytes(entry.data))
            if node:
                nodes[node] = None
            if len(entries) >= min(limit, PAGE_ENTRIES_MAX) or size >= PAGE_BYTES or len(nodes) >= NODES_MAX:
                break
        more = at < len(changes)
        records = [record for node in nodes if (record := self._known.node(NodeId(node))) is not None]
        extra = PageExtra(more=more, nodes=[base64.b64encode(record.raw).decode("ascii") for record in records])
        metadata = PageMetadata(count=len(entries), next_cursor=feed.cursor(rev, since), mesh=extra)
        return CatalogPage(entries=entries, metadata=metadata)

    def _entry(self, partner: Partner, agent: str, place: Place, since: int) -> tuple[CatalogEntry | None, str]:
        """Return the entry of a change, if there is one to tell, and the node behind it."""
        record = self._known.record(agent)
        if place.gone:
            if record is not None and record.tombstone:
                return _entry_of(record, TOMBSTONE_TYPE), ""
            return CatalogEntry(
                identifier=agent, media_type=WITHDRAWN_TYPE, trust_manifest=TrustManifest(identity=agent)
            ), ""
        if record is None or record.tombstone or record.iat < since or not self.is_shown(partner, record):
            return None, ""  # it changes again in a moment, and is told then
        entry = _entry_of(record, CARD_TYPE)
        entry.metadata.mesh.reshare = partner.reshare
        return entry, record.node_id

    def assert_invariants(self) -> None:
        """Raise AssertionError if a feed is off."""
        assert self.feeds.keys() == self._partners.keys()
        for feed in self.feeds.values():
            feed.assert_invariants()


def _entry_of(record: Manifest, media_type: str) -> CatalogEntry:
    tags = dict.fromkeys(str(tag) for skill in record.skills for tag in skill.get("tags", ()))
    return CatalogEntry(
        identifier=record.agent_id,
        display_name=record.name,
        media_type=media_type,
        data=msgspec.Raw(record.raw),
        tags=list(tags)[:_TAGS_MAX],
        version=record.version,
        updated_at=datetime.fromtimestamp(record.iat, UTC).isoformat().replace("+00:00", "Z"),
        trust_manifest=TrustManifest(identity=record.agent_id),
        metadata=EntryMetadata(mesh=EntryExtra(seq=str(record.seq))),
    )


def _seconds(text: str) -> int:
    """Return unix seconds of an RFC 3339 time; 0 for "". Raises UsageError."""
    if not text:
        return 0
    try:
        if len(text) > _TIME_CHARS_MAX:
            raise ValueError("too long")
        at = datetime.fromisoformat(text)
        return max(0, int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError) as error:
        shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(0))
        raise UsageError(
            "updated_since is no time", code="federation.since", hint=f"RFC 3339, such as {shown}"
        ) from error
