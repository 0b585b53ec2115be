"""The score of an agent or node: the mean of a Beta distribution over own evidence and what others saw (docs/spec/trust.md §4).

    score = (good + others.good + prior × base) / (good + bad + others.good + others.bad + prior)

What others saw is bounded (``TrustConfig.network``), so it decides where there is little own evidence and hardly counts where
there is much. The score rises with everything that speaks for the subject and falls with everything that speaks against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentmesh.core.trust.config import Tier, TrustConfig
from agentmesh.core.trust.evidence import NOTHING, Ledger, Sums
from agentmesh.core.trust.network import Network


class Verdict(NamedTuple):
    """What this node thinks of a subject.

    Attributes:
        score: 0 … 1.
        tier: The same in a word.
        base: The score without any evidence.
        own, others: The evidence behind it.
    """

    score: float
    tier: Tier
    base: float
    own: Sums
    others: Sums


class Opinions:
    """Judge agents and nodes by the ledger and by the words of others.

    Args:
        config: Knobs.
        own: This node.
        roots: The operator's other nodes.
    """

    def __init__(self, config: TrustConfig, own: str, roots: Sequence[str] = ()) -> None:
        self.config = config
        self.ledger = Ledger(config)
        self.network = Network(config, own, roots)

    def judge(self, subject: str, node: str, now_s: float) -> Verdict:
        """Return the verdict on a subject.

        Args:
            subject: An agent or a node.
            node: For an agent the node it lives behind, "" if that is not known or if it is a node.
            now_s: Seconds of the ledger's clock.
        """
        config, place = self.config, node or subject
        if place == self.network.own:
            return Verdict(1.0, "own", 1.0, NOTHING, NOTHING)
        is_root = place in self.network.roots
        base = config.root_base if is_root else config.base
        own = self.ledger.sums(subject, now_s)
        if node and node != subject:
            # An agent starts no better than its node stands, and answers for what its node did wrong: else a bad node would
            # only have to make a new agent.
            base = min(base, self.judge(node, "", now_s).score)
            theirs, its = self.ledger.wrong(node, now_s), self.ledger.wrong(subject, now_s)
            own = Sums(own.good, own.bad + max(0.0, theirs - its))
        others = self.network.sums(subject, node, now_s)
        score = score_of(own, others, base, config)
        return Verdict(score, tier_of(score, own, others, config, is_vouched=is_root), base, own, others)


def score_of(own: Sums, others: Sums, base: float, config: TrustConfig) -> float:
    """Return the score, 0 … 1: rising in ``good``, ``others.good`` and ``base``, falling in ``bad`` and ``others.bad``."""
    speaks_for = own.good + others.good + config.prior * base
    return speaks_for / (own.good + own.bad + others.good + others.bad + config.prior)


def reliance_of(verdict: Verdict, config: TrustConfig) -> float:
    """Return the score that a verdict's evidence makes from a neutral start, for the choice between replicas.

    There nothing is allowed or refused, and who starts low would never be called and so never rise.
    """
    return score_of(verdict.own, verdict.others, max(config.neutral, verdict.base), config)


def tier_of(score: float, own: Sums, others: Sums, config: TrustConfig, *, is_vouched: bool) -> Tier:
    """Return the tier of a score; "unknown" while there is next to no evidence about somebody for whom no operator vouches."""
    if not is_vouched and sum(own) + sum(others) < config.known:
        return "unknown"
    return "high" if score >= config.high else "medium" if score >= config.medium else "low"
