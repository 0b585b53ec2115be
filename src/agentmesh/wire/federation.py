"""The shapes of federation: a page of an AI Catalog whose entries hold signed A2A cards, hints, and what status tells.

Names are those of the AI Catalog and of the MCP registry's paging (``updated_since``, ``cursor``, ``limit``, ``nextCursor``), so
that aggregators read a page without knowing us; what is ours stands under the URI of our extension. docs/spec/federation.md §4.
"""

from __future__ import annotations

import msgspec

from agentmesh.ids import EXT

#: Media type of a page.
CATALOG_TYPE = "application/ai-catalog+json"
#: ``mediaType`` of an entry: a signed card, a signed tombstone, and the seed's own word that it shows the agent no longer.
CARD_TYPE = "application/a2a-agent-card+json"
TOMBSTONE_TYPE = "application/vnd.agentmesh.tombstone+json"
WITHDRAWN_TYPE = "application/vnd.agentmesh.withdrawn+json"
#: Header of an answer that carries its proof (``identity.federation_proof``).
PROOF_HEADER = "federation-proof"

#: Entries of one page at most, and bytes of one.
PAGE_ENTRIES_MAX = 500
PAGE_BYTES_MAX = 8 * 1024 * 1024
#: Bytes of cards put into one page, at least one card.
PAGE_BYTES = 1024 * 1024
#: Node records and orders in one page, at most.
NODES_MAX = 500
ORDERS_MAX = 4
#: Longest push, bytes.
PUSH_BYTES_MAX = 2 * 1024 * 1024


class TrustManifest(msgspec.Struct, kw_only=True, rename="camel"):
    """Who an entry is about, as the AI Catalog says it; the card in ``data`` proves it."""

    identity: str = ""
    identity_type: str = "did"


class EntryExtra(msgspec.Struct, kw_only=True):
    """What is ours of an entry: the owner's sequence number, for people, and whether the partner may pass the agent on."""

    seq: str = ""
    reshare: bool = False


class EntryMetadata(msgspec.Struct, kw_only=True, rename={"mesh": EXT}):
    """Vendor metadata of an entry."""

    mesh: EntryExtra = msgspec.field(default_factory=EntryExtra)


class CatalogEntry(msgspec.Struct, kw_only=True, rename="camel"):
    """One agent.

    Attributes:
        identifier: did:key.
        display_name, tags, version: As its card says.
        media_type: What ``data`` is.
        data: The record as its owner signed it, byte for byte.
        updated_at: RFC 3339; for people and aggregators, never used to decide.
    """

    identifier: str
    display_name: str = ""
    media_type: str = CARD_TYPE
    data: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    tags: list[str] = []
    version: str = ""
    updated_at: str = ""
    trust_manifest: TrustManifest = msgspec.field(default_factory=TrustManifest)
    metadata: EntryMetadata = msgspec.field(default_factory=EntryMetadata)


class PageExtra(msgspec.Struct, kw_only=True):
    """What is ours of a page.

    Attributes:
        more: There is more now; ``nextCursor`` alone does not say so, since it is also where to go on next time.
        nodes: Records of the nodes behind the entries, as they signed them, base64: where calls go.
        orders: Revocations by the seed's organisation.
        evidence: What the seed saw of the agents that it shows (``identity.trust_statement``), advice; "" on all but a last page.
    """

    more: bool = False
    nodes: list[str] = []
    orders: list[str] = []
    evidence: str = ""


class PageMetadata(msgspec.Struct, kw_only=True, rename={"next_cursor": "nextCursor", "mesh": EXT}):
    """Paging: entries on this page, and the cursor to go on from."""

    count: int = 0
    next_cursor: str = ""
    mesh: PageExtra = msgspec.field(default_factory=PageExtra)


class CatalogPage(msgspec.Struct, kw_only=True, rename="camel"):
    """Answer of ``GET /federation/pull``."""

    spec_version: str = "1.0"
    entries: list[CatalogEntry] = []
    metadata: PageMetadata = msgspec.field(default_factory=PageMetadata)


class Push(msgspec.Struct, kw_only=True):
    """``POST /federation/push``: a hint that something changed, and perhaps what did, as a pull would tell it."""

    entries: list[CatalogEntry] = []


class Pushed(msgspec.Struct, kw_only=True):
    """Answer to a push: how many entries were looked at; the pull that follows brings the rest."""

    taken: int = 0


# What people see


class RefusedView(msgspec.Struct, kw_only=True):
    """Entries that were refused for one reason: code, how many, and the last one's words."""

    code: str
    count: int
    detail: str = ""


class SeedView(msgspec.Struct, kw_only=True):
    """One seed that this node pulls from.

    Attributes:
        url: Its address.
        organisation, node_id: Who answers there, as it proved; "" before the first answer.
        entries: Agents of it that are shown here.
        held: Records of it that are kept, tombstones and what is not shown included.
        lag_s: Seconds since the last whole pull; null before the first.
        next_s: Seconds until the next one; 0 while one is under way.
        failures: Failed pulls since then.
        error: Why the last one failed; "" if it did not.
        admitted: Records taken since this node started.
        refused: What was refused, and why.
    """

    url: str
    organisation: str = ""
    node_id: str = ""
    entries: int = 0
    held: int = 0
    lag_s: float | None = None
    next_s: float = 0.0
    failures: int = 0
    error: str = ""
    admitted: int = 0
    refused: list[RefusedView] = []


class PartnerView(msgspec.Struct, kw_only=True):
    """One partner that agents are shown to.

    Attributes:
        name: In federation.toml.
        key: did:key of the organisation or node.
        agents: Names of the agents that it sees now, at most 100.
        count: How many it sees.
        pulled_s: Seconds since it last pulled; null if it did not since this node started.
        behind: Changes that it has not pulled.
        refused: Requests of it that were refused.
        hint: Why the last hint did not arrive; "" if it did, or none is sent.
    """

    name: str
    key: str
    agents: list[str] = []
    count: int = 0
    pulled_s: float | None = None
    behind: int = 0
    refused: int = 0
    hint: str = ""


class FederationView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/federation``.

    Attributes:
        organisation: did:key that this node belongs to; "" for none.
        listen: Where partners can pull; "" = nowhere.
        seeds, partners: Whom this node pulls from, and whom it shows agents to.
        problem: What is wrong with federation.toml; "" if nothing.
    """

    organisation: str = ""
    listen: str = ""
    seeds: list[SeedView] = []
    partners: list[PartnerView] = []
    problem: str = ""
