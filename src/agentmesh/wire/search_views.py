"""The shapes of discovery: what is asked, and the agents that answer with the parts of their scores (RQ0 §4.3)."""

from __future__ import annotations

from typing import Literal

import msgspec

from agentmesh.wire.views import AgentView, TrustTier

Scope = Literal["local", "mesh"]
HitSource = Literal["local", "peer", "dht", "federation"]


class WeightsView(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The mix of a score, α, β, γ; scaled so that they sum to 1."""

    text: float = 0.7
    trust: float = 0.2
    health: float = 0.1


class DiscoverFilters(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What an agent must be, whatever its text says. All that is given must hold; letter case does not count.

    Attributes:
        protocol, tag, skill, model: One of its own; a model may be named by its beginning.
        context_window_min: Tokens.
        price_max, budget: The most that one call may cost, US dollars in a text ("0.05"); the smaller of both holds.
        trust_tier: At least this tier: "low" < "unknown" < "medium" < "high" < "own".
        health: "healthy" leaves out those not checked yet.
        location: Its site or place, or the beginning of it.
        organisation: did:key, or a name of the policy files.
        node: Name, id or short id of the node beside it.
    """

    protocol: str = ""
    tag: str = ""
    skill: str = ""
    model: str = ""
    context_window_min: int = 0
    price_max: str = ""
    budget: str = ""
    trust_tier: TrustTier | Literal[""] = ""
    health: Literal["", "healthy"] = ""
    location: str = ""
    organisation: str = ""
    node: str = ""


class DiscoverRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/discover``.

    Attributes:
        query: What is needed, in words; "" lists all that meet the filters.
        filters: What must hold.
        weights: The mix; null for the node's own.
        limit: Most hits, 1 … 1,000.
        near: Most near misses, 0 … 100.
        scope: "mesh" also asks zone peers, seeds and the DHT.
        time_ms: Patience with the others, 0 … 30,000; what comes later is not waited for.
    """

    query: str = ""
    filters: DiscoverFilters = msgspec.field(default_factory=DiscoverFilters)
    weights: WeightsView | None = None
    limit: int = 10
    near: int = 3
    scope: Scope = "mesh"
    time_ms: int = 800


class ScoreView(msgspec.Struct, kw_only=True):
    """A score and its parts, each 0 … 1: ``total = α·text + β·trust + γ·health``; lexical and vector are parts of ``text``."""

    total: float
    text: float
    trust: float
    health: float
    lexical: float = 0.0
    vector: float = 0.0


class DiscoverHit(msgspec.Struct, kw_only=True):
    """One answer.

    Attributes:
        agent: Who.
        score: Why here.
        matched: The words of its card that fit best: its own words, untrusted.
        matched_skill: The skill that they are of; "" for the agent itself.
        source: Where it came from: known before ("local"), from a peer, the DHT, or an organisation that federates.
        organisation: did:key of the organisation that vouches for it; "" for none.
    """

    agent: AgentView
    score: ScoreView
    matched: str = ""
    matched_skill: str = ""
    source: HitSource = "local"
    organisation: str = ""


class NearMiss(msgspec.Struct, kw_only=True):
    """An agent whose text fits and that is no answer.

    Attributes:
        agent, score: Who, and how it would stand.
        missed: "health", "trust_tier", "signature" (unsigned beside a signed agent of its name), "revoked", or the filter that it
            does not meet.
        why: The same in a sentence.
    """

    agent: AgentView
    score: ScoreView
    missed: list[str]
    why: str


class AskedView(msgspec.Struct, kw_only=True):
    """What became of asking others: how many were asked, answered in time, or failed; ``done`` when none is waited for."""

    asked: int = 0
    answered: int = 0
    failed: int = 0
    done: bool = True


class DiscoverView(msgspec.Struct, kw_only=True):
    """Answer of ``POST /api/v1/discover``; with ``Accept: text/event-stream`` one of these for each change of the list.

    Attributes:
        hits: Best first.
        near: Near misses, best first.
        needs: The query taken apart, one text for each need.
        weights: The mix that was used.
        embedder: By which meaning was compared; "" if only words were.
        notes: What people should know ("the model file is missing, the built-in embedder answers").
        asked: Other nodes.
        total: Agents that meet the filters and that the text speaks for, shown or not, as far as the list was made: at least 100
            beyond ``limit``.
        took_ms: Since the request came.
    """

    hits: list[DiscoverHit]
    near: list[NearMiss] = []
    needs: list[str] = []
    weights: WeightsView = msgspec.field(default_factory=WeightsView)
    embedder: str = ""
    notes: list[str] = []
    asked: AskedView = msgspec.field(default_factory=AskedView)
    total: int = 0
    took_ms: float = 0.0
