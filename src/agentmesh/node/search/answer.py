"""From what an index found to an answer: trust and health join the text, and who is no answer is told why. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from agentmesh.core.search.model import Found, Hit, Passage
from agentmesh.core.search.rank import HEALTH, Parts, score_of
from agentmesh.core.trust.opinion import Verdict
from agentmesh.identity.manifest import Manifest
from agentmesh.node.resolve import Directory, Entry, matches_node
from agentmesh.node.search.wanted import Wanted
from agentmesh.wire.search_views import DiscoverHit, DiscoverView, HitSource, NearMiss, ScoreView, WeightsView
from agentmesh.wire.views import AgentView

TIERS = ("low", "unknown", "medium", "high", "own")
#: Letters of a passage that are shown beside a hit.
_MATCHED_CHARS_MAX = 240
#: Names of filters as the index has them → as people have them.
_NAMES = {"price_micros_max": "price_max", "node_id": "node"}
_WORD = re.compile(r"\w+")
_HOLLOW = Passage("agent", "", "")


class Eyes(Protocol):
    """What the node knows of agents besides their texts."""

    def view(self, entry: Entry) -> AgentView:
        """Show an entry of the directory."""
        ...

    def verdict(self, agent_id: str) -> Verdict:
        """Return what this node thinks of an agent."""
        ...

    def is_revoked(self, manifest: Manifest) -> bool:
        """Say whether the key of the agent, or of its node, may do nothing here."""
        ...

    def name_of(self, node: str) -> str:
        """Return the name of a node for people."""
        ...


class _Judged(NamedTuple):
    """One agent of which the text speaks, before it is shown."""

    hit: Hit
    entry: Entry
    parts: Parts
    score: float
    missed: tuple[str, ...]


def answer(
    wanted: Wanted, found: Found, directory: Directory, eyes: Eyes, source_of: Callable[[Entry], HitSource]
) -> DiscoverView:
    """Return the answer to a query with words.

    Args:
        wanted: What was asked.
        found: What the index, or ``by_words``, found; agents that the directory does not hold are passed over.
        directory: The agents that the asker may see.
        eyes: What the node knows of them.
        source_of: Says where an agent came from.
    """
    hits: list[_Judged] = []
    near: list[_Judged] = []
    for hit in (*found.hits, *found.near):
        entry = directory.entry(hit.agent_id)
        if entry is None:
            continue
        one = _judge(wanted, hit, entry, directory, eyes)
        (near if one.missed else hits).append(one)
    for some in (hits, near):
        some.sort(key=lambda one: (-one.score, one.hit.agent_id))
    scores = [-one.score for one in hits]
    return DiscoverView(
        hits=[_hit(one, eyes, source_of(one.entry)) for one in hits[: wanted.limit]],
        near=[_near(one, wanted, scores, eyes) for one in near[: wanted.near]],
        needs=list(found.needs),
        weights=_mix(wanted),
        embedder=found.embedder,
        notes=[*wanted.notes, *found.notes],
        total=len(hits),
    )


def listing(wanted: Wanted, directory: Directory, eyes: Eyes, missed: Callable[[Entry], Sequence[str]]) -> DiscoverView:
    """Return the answer to a query without words: all that meet the filters, by name; who is ill is listed as such.

    Args:
        wanted: What was asked.
        directory: The agents that the asker may see.
        eyes: What the node knows of them.
        missed: Filters of the index that an entry does not meet.
    """
    found: list[tuple[tuple[str, str, str], Entry]] = []
    for entry in directory.entries():
        manifest = entry.manifest
        if missed(entry) or _missed_here(wanted, entry, eyes) or eyes.is_revoked(manifest):
            continue
        found.append(((manifest.name.casefold(), eyes.name_of(manifest.node_id), manifest.agent_id), entry))
    found.sort(key=lambda one: one[0])
    hits: list[DiscoverHit] = []
    for _, entry in found[: wanted.limit]:
        parts = _parts(entry, 0.0, eyes)
        judged = _Judged(Hit(entry.manifest.agent_id, 0.0, _HOLLOW), entry, parts, score_of(parts, wanted.weights), ())
        hits.append(_hit(judged, eyes, "local"))
    return DiscoverView(hits=hits, weights=_mix(wanted), notes=list(wanted.notes), total=len(found))


def by_words(query: str, entries: Iterable[Entry], missed: Callable[[Entry], Sequence[str]]) -> Found:
    """Find agents by the words of a query alone, for as long as there is no index: by how many of them a text contains.

    Args:
        query: What is needed.
        entries: Where to look.
        missed: Filters of the index that an entry does not meet.
    """
    words = _words(query)
    hits: list[Hit] = []
    near: list[Hit] = []
    for entry in entries if words else ():
        best, passage = 0.0, _HOLLOW
        texts = _texts(entry.manifest)
        whole = "\n".join(text for _, text in texts).casefold()
        share = sum(word in whole for word in words) / len(words)
        for skill, text in texts if share else ():
            folded = text.casefold()
            count = sum(word in folded for word in words)
            if count > best:
                best, passage = count, Passage("skill" if skill else "agent", skill, text)
        if share:
            hit = Hit(entry.manifest.agent_id, share, passage, tuple(missed(entry)), share)
            (near if hit.missed else hits).append(hit)
    return Found(_ordered(hits), _ordered(near), (query,))


def _words(query: str) -> list[str]:
    """Return the words of a query; those of a script without spaces two signs at a time, those of two letters not at all."""
    words: dict[str, None] = {}
    for word in _WORD.findall(query.casefold()):
        if word.isascii() and len(word) > 2:
            words[word] = None
        elif not word.isascii():
            words.update((word[at : at + 2], None) for at in range(max(1, len(word) - 1)))
    return list(words)


def _texts(manifest: Manifest) -> list[tuple[str, str]]:
    """Return the texts of a card: skill id ("" for the agent itself) and text."""
    texts = [("", f"{manifest.name}: {manifest.description}")]
    for skill in manifest.skills:
        told = [skill.get("name"), skill.get("description"), *skill.get("tags", []), *skill.get("examples", [])]
        texts.append((str(skill.get("id", "")), " ".join(str(one) for one in (skill.get("id", ""), *told) if one)))
    return texts


def _mix(wanted: Wanted) -> WeightsView:
    return WeightsView(**{name: round(weight, 4) for name, weight in wanted.weights._asdict().items()})


def _ordered(hits: list[Hit]) -> tuple[Hit, ...]:
    return tuple(sorted(hits, key=lambda hit: (-hit.text, hit.agent_id)))


def _parts(entry: Entry, text: float, eyes: Eyes) -> Parts:
    health = "unknown" if entry.healthy is None else "healthy" if entry.healthy else "unhealthy"
    return Parts(text, eyes.verdict(entry.manifest.agent_id).score, HEALTH[health])


def _judge(wanted: Wanted, hit: Hit, entry: Entry, directory: Directory, eyes: Eyes) -> _Judged:
    parts = _parts(entry, hit.text, eyes)
    missed = [_NAMES.get(name, name) for name in hit.missed]
    manifest = entry.manifest
    if eyes.is_revoked(manifest):
        missed.insert(0, "revoked")
    if entry.healthy is False and "health" not in missed:
        missed.insert(0, "health")
    missed += (name for name in _missed_here(wanted, entry, eyes) if name not in missed)
    if not manifest.signed and not entry.local and not missed and _has_signed(manifest.name, directory):
        missed.append("signature")
    return _Judged(hit, entry, parts, score_of(parts, wanted.weights), tuple(missed))


def _missed_here(wanted: Wanted, entry: Entry, eyes: Eyes) -> list[str]:
    """Return the filters of the daemon that an agent does not meet."""
    missed: list[str] = []
    if wanted.healthy and entry.healthy is not True:
        missed.append("health")
    if wanted.trust_tier:
        tier = eyes.verdict(entry.manifest.agent_id).tier
        if TIERS.index(tier) < TIERS.index(wanted.trust_tier):
            missed.append("trust_tier")
    if wanted.node and not matches_node(entry, wanted.node, eyes.name_of):
        missed.append("node")
    return missed


def _has_signed(name: str, directory: Directory) -> bool:
    """Say whether a signed agent of that name may be called: an unsigned stranger is not offered beside it."""
    return any(one.manifest.signed and one.healthy is not False for one in directory.by_name(name))


def _hit(one: _Judged, eyes: Eyes, source: HitSource) -> DiscoverHit:
    passage, view = one.hit.passage, eyes.view(one.entry)
    return DiscoverHit(
        agent=view,
        score=_score(one),
        matched=passage.text[:_MATCHED_CHARS_MAX],
        matched_skill=passage.skill,
        source=source,
        organisation=view.organisation,
    )


def _near(one: _Judged, wanted: Wanted, scores: Sequence[float], eyes: Eyes) -> NearMiss:
    view = eyes.view(one.entry)
    would = score_of(one.parts._replace(health=1.0), wanted.weights) if "health" in one.missed else one.score
    place = bisect_left(scores, -would) + 1
    reasons = " and ".join(_reason(name, wanted, view) for name in one.missed)
    return NearMiss(
        agent=view, score=_score(one), missed=list(one.missed), why=f"would be {_ordinal(place)}, but {reasons}"
    )


def _score(one: _Judged) -> ScoreView:
    return ScoreView(
        total=round(one.score, 4),
        text=round(one.parts.text, 4),
        trust=round(one.parts.trust, 4),
        health=one.parts.health,
        lexical=round(one.hit.lexical, 4),
        vector=round(one.hit.vector, 4),
    )


def _ordinal(place: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(place, f"number {place}")


def _reason(name: str, wanted: Wanted, view: AgentView) -> str:
    filters = wanted.filters
    match name:
        case "health" if view.status == "unknown":
            return "its health was not checked yet"
        case "health":
            why = "its node does not answer" if view.lease_s is not None else "its health check fails"
            return f"{why}: {view.detail}" if view.detail else why
        case "trust_tier":
            return f"its trust is {view.trust_tier}, and at least {wanted.trust_tier} is asked for"
        case "node":
            return f"it lives at {view.node_name or view.node_id}"
        case "signature":
            return "it is not signed, and another agent of its name is"
        case "revoked":
            return "its key, or that of its node, is revoked"
        case "protocol":
            return f"it does not say that it speaks {filters.protocol}"
        case "tag":
            return f"it has no tag {filters.tag}"
        case "skill":
            return f"it has no skill {filters.skill}"
        case "model":
            return f"it does not say that it runs on {filters.model}"
        case "context_window_min":
            return f"it does not say that its context window has {filters.context_window_min} tokens"
        case "price_max":
            usd = (filters.price_micros_max or 0) / 1_000_000
            return f"it does not say that a call costs at most {usd:g} US dollars"
        case "organisation":
            return f"{filters.organisation} does not vouch for it"
        case "location":
            return f"it does not say that it is at {filters.location}"
        case _:
            return f"it does not meet {name}"
