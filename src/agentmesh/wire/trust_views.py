"""The shapes of trust in the HTTP API (see ``views``, whose rules hold here too)."""

from __future__ import annotations

import msgspec

from agentmesh.wire.views import TrustTier


class TrustEventView(msgspec.Struct, kw_only=True):
    """One thing that happened with an agent or node.

    Attributes:
        ts: Unix microseconds.
        kind: What (docs/spec/trust.md §2).
        weight: What it added: above 0 for it, below 0 against it.
        detail: More of it, for people.
    """

    ts: int
    kind: str
    weight: float
    detail: str = ""


class TrustWordView(msgspec.Struct, kw_only=True):
    """What another node says it saw.

    Attributes:
        issuer, issuer_name: Who says it, signed.
        weight: How far its word counts here, 0 … 1 (EigenTrust).
        good, bad: The evidence it claims.
        since: Unix seconds of the first of it.
    """

    issuer: str
    issuer_name: str = ""
    weight: float = 0.0
    good: float = 0.0
    bad: float = 0.0
    since: int = 0


class TrustView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/trust/{agent_id}``: what this node thinks of an agent or node, and why.

    Attributes:
        subject, name: Who is judged.
        node_id, node_name: The node it lives behind, or itself.
        score, tier: The verdict, 0 … 1 and in a word.
        base: The score it would have without evidence.
        good, bad: This node's own evidence, faded to now; what its node did wrong is in ``bad``.
        others_good, others_bad: What others saw, by weight and bounded.
        events: The newest events behind ``good`` and ``bad``, newest first.
        words: What others say, weightiest first.
    """

    subject: str
    name: str = ""
    node_id: str = ""
    node_name: str = ""
    score: float = 0.0
    tier: TrustTier = "unknown"
    base: float = 0.0
    good: float = 0.0
    bad: float = 0.0
    others_good: float = 0.0
    others_bad: float = 0.0
    events: list[TrustEventView] = []
    words: list[TrustWordView] = []


class TrustBin(msgspec.Struct, kw_only=True):
    """One bar of the histogram: agents with a score from ``low`` to below ``high``; the last one takes 1 in.

    Attributes:
        low, high: Its edges.
        count: Agents in it, ``own`` included.
        own: This node's own agents, whose score is 1 without any evidence.
    """

    low: float
    high: float
    count: int = 0
    own: int = 0


class TrustRow(msgspec.Struct, kw_only=True):
    """One agent and what this node thinks of it.

    Attributes:
        agent_id, name: Who.
        node_id, node_name: The node it lives behind.
        score, tier: The verdict, 0 … 1 and in a word.
        organisation: did:key of the organisation that vouches for it; "" for none.
        receipts: Receipts that it signed and that are kept here.
    """

    agent_id: str
    name: str
    node_id: str = ""
    node_name: str = ""
    score: float = 0.0
    tier: TrustTier = "unknown"
    organisation: str = ""
    receipts: int = 0


class TrustList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/trust``: every agent that this node knows, the least trusted first.

    Attributes:
        agents: Those asked for.
        count, digest: All agents, and the digest over their ids, scores (two digits) and tiers; the CLI prints the same.
        matching: How many fit what was asked for.
        histogram: All agents by score.
        tiers: All agents by tier.
        half_life_s: Evidence counts half after this long.
        medium, high: Scores from which these tiers begin.
    """

    agents: list[TrustRow]
    count: int
    digest: str
    matching: int
    histogram: list[TrustBin] = []
    tiers: dict[str, int] = {}
    half_life_s: float = 0.0
    medium: float = 0.0
    high: float = 0.0


class AbuseReport(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/trust/{agent_id}/reports``: why an agent or node is reported, 1 to 200 characters in one line."""

    reason: str
