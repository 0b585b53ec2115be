"""Knobs of trust: what each kind of evidence weighs, how fast it fades, and where the tiers begin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "completed",
    "failed",
    "rejected",
    "canceled",
    "timeout",
    "unreached",
    "missed_lease",
    "bad_signature",
    "protocol_abuse",
    "abuse_report",
]
Tier = Literal["unknown", "low", "medium", "high", "own"]

#: What one piece of evidence weighs: for the subject if positive, against it if negative (docs/spec/trust.md §2).
WEIGHTS: dict[Kind, float] = {
    "completed": 1.0,
    "failed": -1.0,
    "rejected": -0.1,
    "canceled": 0.0,
    "timeout": -1.0,
    "unreached": -0.1,
    "missed_lease": -0.25,
    "bad_signature": -10.0,
    "protocol_abuse": -5.0,
    "abuse_report": -20.0,
}
#: Kinds that say that somebody did wrong. The others that count against a subject may be bad luck: a link that is cut, a
#: machine that sleeps; a burst of them is bounded much lower.
WRONGS: frozenset[Kind] = frozenset(("bad_signature", "protocol_abuse", "abuse_report"))


@dataclass(frozen=True, slots=True)
class TrustConfig:
    """Knobs.

    Attributes:
        weights: Weight of each kind; see ``WEIGHTS``. All are guesses that keep an order: what happens to everybody < what is
            the agent's own fault < what only a liar does < what a person says.
        half_life_s: Evidence counts half after this long. Thirty days: a month of good work outweighs a bad day, and what
            was earned does not last a year. Raise it where agents are called rarely.
        base: Score of whom nothing is known of, 0 to 1. Low on purpose: below every threshold, so that a new key is worth no
            more than a bad name (docs/spec/trust.md §5).
        root_base: The same for the operator's own nodes (``trust_roots``) and the agents behind them.
        neutral: Where the choice between replicas begins instead of at ``base``, which would leave newcomers without calls.
        prior: How much evidence the base stands for. With 4, one good call lifts a newcomer to 0.28, an hour of them to 0.4, and
            "high" takes some hours. A guess.
        hour_good: Evidence for a subject that one hour can add at most; more good calls within it weigh less and less. A guess:
            half a prior, so that trust takes hours however many calls one party makes.
        hour_luck: Evidence against it that one hour can add at most, of kinds that may be bad luck. As ``hour_good``.
        hour_wrong: The same for ``WRONGS``. Two reports of a person.
        network: What all others together can add at most, in evidence, and what one of them can say at most. Two priors: what
            others say makes a start, and own evidence outweighs it after some hours. A guess.
        issuers_max: Nodes whose statements are kept; those that count least go. Each is up to 256 rows of about 200 bytes.
        stale_s: A statement counts no longer this long after it was made. A week: a node that is away for days keeps its word.
        subjects_max: Agents and nodes remembered; those with the least evidence go. About 300 bytes each.
        restart: Share of trust that EigenTrust gives to the roots in every round (``a`` in the paper). 0.2: the more, the
            less somebody counts who is far from the roots.
        reserve: Evidence that everybody gives to the roots in EigenTrust: who saw little passes little on. As ``prior``.
        rounds_max, change_min: EigenTrust ends after so many rounds, or when no more than this moves in one.
        medium, high: Where these tiers begin; below ``medium`` is "low".
        known: Evidence below which a subject's tier is "unknown": a tenth of one good call.
    """

    weights: dict[Kind, float] = field(default_factory=lambda: dict(WEIGHTS))
    half_life_s: float = 30 * 86_400.0
    base: float = 0.1
    root_base: float = 0.7
    neutral: float = 0.5
    prior: float = 4.0
    hour_good: float = 2.0
    hour_luck: float = 2.0
    hour_wrong: float = 40.0
    network: float = 8.0
    issuers_max: int = 128
    stale_s: float = 7 * 86_400.0
    subjects_max: int = 10_000
    restart: float = 0.2
    reserve: float = 4.0
    rounds_max: int = 100
    change_min: float = 1e-9
    medium: float = 0.3
    high: float = 0.6
    known: float = 0.1
