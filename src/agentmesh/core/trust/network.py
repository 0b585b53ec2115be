"""What other nodes say they saw, and how far their word counts: statements, weighted by EigenTrust.

Only evidence is taken from others, never a score: a score is an opinion, and opinions of opinions feed on themselves. A word
counts by the trust of the node that says it, relative to the roots; a word of somebody about itself or its own agents does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from agentmesh.core.trust.config import TrustConfig
from agentmesh.core.trust.evidence import NOTHING, Sums


class Said(NamedTuple):
    """What one node says it saw of one subject.

    Attributes:
        subject: An agent or a node.
        node: The node it lives behind; "" if it is a node itself.
        good, bad: Evidence for and against it, each 0 or more.
        since: Unix seconds of the first of it, as the issuer says.
    """

    subject: str
    node: str
    good: float
    bad: float
    since: int = 0


class Word(NamedTuple):
    """What one node says of a subject, and what that is worth here.

    Attributes:
        issuer: Who says it.
        weight: How far its word counts, 0 … 1.
        said: The row of its statement.
    """

    issuer: str
    weight: float
    said: Said


class _Kept(NamedTuple):
    seq: int
    made_s: float
    rows: tuple[Said, ...]


class Network:
    """The statements of other nodes, the newest of each, bounded.

    Args:
        config: Knobs.
        own: This node.
        roots: The operator's other nodes.
    """

    def __init__(self, config: TrustConfig, own: str, roots: Sequence[str] = ()) -> None:
        self._config = config
        self.own = own
        #: Nodes that are trusted beforehand, this one first.
        self.roots: tuple[str, ...] = (own, *(root for root in dict.fromkeys(roots) if root != own))
        self._kept: dict[str, _Kept] = {}
        self._about: dict[str, dict[str, Said]] = {}
        self._weights: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def seq_of(self, issuer: str) -> int:
        """Return the sequence number of the statement kept of a node, 0 if none is."""
        kept = self._kept.get(issuer)
        return 0 if kept is None else kept.seq

    def weight_of(self, issuer: str) -> float:
        """Return how far a node's word counts, 0 … 1, as of the last ``weigh``."""
        return self._weights.get(issuer, 0.0)

    def issuers(self) -> list[str]:
        """Return the nodes whose statements are kept, those that count most first."""
        return sorted(self._kept, key=lambda issuer: (-self.weight_of(issuer), issuer))

    def take(self, issuer: str, seq: int, rows: Iterable[Said], made_s: float) -> bool:
        """Keep a verified statement in place of an older one of its issuer.

        Args:
            issuer: Who signed it.
            seq: Its number.
            rows: What it says; rows about the issuer itself or its agents are left out.
            made_s: When it was made, on the ledger's clock.

        Returns:
            False if it is not newer than the one kept, or if there is no room and its issuer counts least. Nothing changed.
        """
        if issuer == self.own or seq <= self.seq_of(issuer):
            return False
        if issuer not in self._kept and len(self._kept) >= self._config.issuers_max:
            least = min(self._kept, key=lambda one: (self.weight_of(one), self._kept[one].made_s, one))
            if self.weight_of(least) > self.weight_of(issuer):
                return False
            self.drop(least)
        self.drop(issuer)
        kept = tuple(row for row in rows if issuer not in (row.subject, row.node))
        self._kept[issuer] = _Kept(seq, made_s, kept)
        for row in kept:
            self._about.setdefault(row.subject, {})[issuer] = row
        return True

    def drop(self, issuer: str) -> None:
        """Forget what a node said."""
        kept = self._kept.pop(issuer, None)
        for row in () if kept is None else kept.rows:
            words = self._about[row.subject]
            del words[issuer]
            if not words:
                del self._about[row.subject]

    def expire(self, now_s: float) -> list[str]:
        """Forget statements that are stale; return their issuers."""
        old = [issuer for issuer, kept in self._kept.items() if now_s - kept.made_s > self._config.stale_s]
        for issuer in old:
            self.drop(issuer)
        return old

    # EigenTrust

    def seen(self, own: Mapping[str, Sums]) -> dict[str, dict[str, float]]:
        """Return who saw which node do well, for ``eigentrust``.

        Everybody gives the roots a reserve beside, so that one good call does not pass on all the trust there is.

        Args:
            own: This node's own evidence about other nodes.
        """
        graph = {self.own: {node: sums.good - sums.bad for node, sums in own.items() if sums.good > sums.bad}}
        for issuer, kept in self._kept.items():
            graph[issuer] = {
                row.subject: row.good - row.bad for row in kept.rows if not row.node and row.good > row.bad
            }
        reserve = self._config.reserve / len(self.roots)
        for saw in graph.values():
            for root in self.roots:
                saw[root] = saw.get(root, 0.0) + reserve
        return graph

    def weigh(self, trust: Mapping[str, float]) -> None:
        """Set how far each node's word counts: its EigenTrust as a part of the most trusted root's."""
        top = max((trust.get(root, 0.0) for root in self.roots), default=0.0)
        self._weights = {node: min(1.0, value / top) for node, value in trust.items() if value > 0.0} if top else {}

    def words(self, subject: str, node: str) -> list[Word]:
        """Return what is said of a subject, weightiest first; words of its own node do not count and are left out."""
        words = [
            Word(issuer, self.weight_of(issuer), said)
            for issuer, said in self._about.get(subject, {}).items()
            if issuer not in (subject, node)
        ]
        return sorted(words, key=lambda word: (-word.weight, word.issuer))

    def sums(self, subject: str, node: str, now_s: float) -> Sums:
        """Return what others saw of a subject, each word by its weight and its age; together at most ``config.network``."""
        if subject not in self._about:
            return NOTHING
        limit, good, bad = self._config.network, 0.0, 0.0
        for issuer, weight, said in self.words(subject, node):
            whole = said.good + said.bad
            if weight and whole:
                age_s = max(0.0, now_s - self._kept[issuer].made_s)
                part = weight * min(1.0, limit / whole) * 0.5 ** (age_s / self._config.half_life_s)
                good += part * said.good
                bad += part * said.bad
        whole = good + bad
        part = min(1.0, limit / whole) if whole else 0.0
        return Sums(good * part, bad * part)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken."""
        assert len(self._kept) <= self._config.issuers_max
        assert self.own not in self._kept
        assert sum(len(kept.rows) for kept in self._kept.values()) == sum(len(words) for words in self._about.values())
        assert all(words for words in self._about.values())
