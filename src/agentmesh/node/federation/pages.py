"""Read a page that a seed answered with: every entry is verified on its own, as if it had come from anybody. Pure; for a thread.

A seed can tell only records that their owners signed, of agents that its own organisation vouches for, or, if it has none, that
live at the very node that answers; other organisations only where the operator here allows them. What does not hold is left out,
with its reason; the rest of the page counts.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from agentmesh.core.federation.messages import Item
from agentmesh.errors import DecodeError, MeshError
from agentmesh.identity.claims import is_did
from agentmesh.identity.manifest import MANIFEST_BYTES_MAX, Manifest, read_record
from agentmesh.identity.node_record import NodeRecord, read_node_record
from agentmesh.identity.order import Order, Revoke, read_order
from agentmesh.identity.voucher import Membership, read_membership
from agentmesh.wire.federation import (
    CARD_TYPE,
    NODES_MAX,
    ORDERS_MAX,
    PAGE_ENTRIES_MAX,
    TOMBSTONE_TYPE,
    WITHDRAWN_TYPE,
    CatalogEntry,
    CatalogPage,
)

_decoder = msgspec.json.Decoder(CatalogPage)
_NODE_CHARS_MAX = 8_192


class Federated(NamedTuple):
    """What is kept of an entry.

    Attributes:
        manifest: Verified; a tombstone too.
        member: Whose the agent is; None where a node federates that belongs to nobody.
        reshare: It may be passed on.
    """

    manifest: Manifest
    member: Membership | None
    reshare: bool

    @property
    def organisation(self) -> str:
        """did:key of the organisation; "" for none."""
        return "" if self.member is None else self.member.organisation


class Source(NamedTuple):
    """Who tells, and of whom it may.

    Attributes:
        node: The node that answered; proven.
        organisation: That it belongs to; proven; "" for none.
        allow: Organisations besides that.
    """

    node: str
    organisation: str
    allow: Collection[str] = ()


class Page(NamedTuple):
    """A page as it is to be used.

    Attributes:
        items: Entries, verified or with the reason why not.
        nodes: Records of the nodes behind them; those that do not hold are left out.
        orders: Revocations that the seed's own organisation signed.
        evidence: A trust statement, unverified.
    """

    items: tuple[Item, ...]
    nodes: tuple[NodeRecord, ...]
    orders: tuple[Order, ...]
    evidence: str
    next_cursor: str
    more: bool


def read_page(body: bytes, source: Source, *, now: int) -> Page:
    """Decode and verify a page.

    Raises:
        DecodeError: it is none (code "federation.page"). What is wrong with single entries is told in them.
    """
    try:
        page = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"what the seed answered is no page: {str(error)[:200]}", code="federation.page") from error
    extra = page.metadata.mesh
    if len(page.entries) > PAGE_ENTRIES_MAX or len(extra.nodes) > NODES_MAX or len(extra.orders) > ORDERS_MAX:
        raise DecodeError(f"{len(page.entries)} entries on one page", code="federation.page")
    return Page(
        read_entries(page.entries, source, now=now),
        tuple(record for text in extra.nodes if (record := _node_of(text, now)) is not None),
        tuple(order for raw in extra.orders if (order := _order_of(raw, source)) is not None),
        extra.evidence,
        page.metadata.next_cursor,
        extra.more,
    )


def read_entries(entries: Sequence[CatalogEntry], source: Source, *, now: int) -> tuple[Item, ...]:
    """Verify entries one by one."""
    return tuple(_item_of(entry, source, now) for entry in entries)


def _item_of(entry: CatalogEntry, source: Source, now: int) -> Item:
    agent = entry.identifier
    if not is_did(agent):
        return Item("card", "", refused="federation.identifier", detail="an identifier that is no did:key")
    if entry.media_type == WITHDRAWN_TYPE:
        return Item("withdrawn", agent)
    try:
        return _record_of(entry, source, now)
    except MeshError as error:
        return Item("card", agent, refused=error.code, detail=f"{entry.display_name[:64]!r}: {error.detail}"[:300])


def _record_of(entry: CatalogEntry, source: Source, now: int) -> Item:
    """Return the item of a record that holds. Raises MeshError for any other."""
    tombstone = entry.media_type == TOMBSTONE_TYPE
    if not tombstone and entry.media_type != CARD_TYPE:
        raise DecodeError(f"an entry of type {entry.media_type[:80]!r}", code="federation.media_type")
    raw = bytes(entry.data)
    if len(raw) > MANIFEST_BYTES_MAX:
        raise DecodeError(f"a card of {len(raw)} bytes", code="federation.too_large")
    manifest = read_record(raw, now=now, require_signed=True)
    if manifest.agent_id != entry.identifier or entry.trust_manifest.identity not in ("", entry.identifier):
        raise DecodeError("the entry names another agent than its card", code="federation.identifier")
    if manifest.tombstone != tombstone:
        raise DecodeError("the entry says that it is something else than it is", code="federation.media_type")
    member = None
    if not tombstone:
        member = read_membership(manifest, now=now)
        _check_source(manifest, member, source)
    kept = Federated(manifest, member, entry.metadata.mesh.reshare)
    return item_of(kept)


def item_of(kept: Federated) -> Item:
    """Return the item of a record that was verified."""
    manifest = kept.manifest
    kind = "tombstone" if manifest.tombstone else "card"
    terms = int(kept.reshare)
    return Item(kind, manifest.agent_id, manifest.seq, manifest.mark, manifest.exp, terms, body=kept)


def _check_source(manifest: Manifest, member: Membership | None, source: Source) -> None:
    """Raise DecodeError unless a seed may tell of an agent (code "federation.foreign")."""
    organisation = "" if member is None else member.organisation
    if organisation and (organisation == source.organisation or organisation in source.allow):
        return
    if not organisation and not source.organisation and manifest.node_id == source.node:
        return
    raise DecodeError(
        "the seed tells of an agent that is not its own",
        code="federation.foreign",
        why=f"it belongs to {organisation or 'nobody'}, the seed to {source.organisation or 'nobody'}",
        hint='allow = ["did:key:…"]   under [seeds.NAME] of federation.toml',
    )


def _node_of(text: str, now: int) -> NodeRecord | None:
    try:
        if len(text) > _NODE_CHARS_MAX:
            return None
        return read_node_record(base64.b64decode(text, validate=True), now=now)
    except (MeshError, binascii.Error, ValueError):
        return None


def _order_of(raw: str, source: Source) -> Order | None:
    try:
        order = read_order(raw)
    except MeshError:
        return None
    return order if order.operator == source.organisation and isinstance(order.body, Revoke) else None
