"""Evidence about agents and nodes: two decayed sums each, for and against (Jøsang and Ismail, The Beta Reputation System, 2002).

All evidence here is this node's own: what others say arrives as statements and is kept apart (``network``). Two rules bound
what one party can do with many calls. Within an hour evidence of one sort weighs less and less, up to a limit per subject. And
what an agent does counts for its node too, under the node's own limit, so that a thousand agents behind one node are one source.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from agentmesh.core.trust.config import WRONGS, Kind, TrustConfig

_HOUR_S = 3_600.0
#: The part of the table that is given up at once when it is full.
_ROOM = 10


class Sums(NamedTuple):
    """Evidence for and against a subject, each 0 or more."""

    good: float
    bad: float


NOTHING = Sums(0.0, 0.0)


@dataclass(slots=True)
class Tally:
    """What is remembered of one subject. All sums are as of ``at_s``.

    Attributes:
        node: The node it lives behind; "" if it is a node itself.
        good, bad: Decayed evidence.
        wrong: The part of ``bad`` that is of ``WRONGS``: what a node's agents answer for too.
        hour_good, hour_luck, hour_wrong: What the last hour added, fading within the hour.
        since_s: When the first of it was noted.
        at_s: When it was last brought up to date.
    """

    node: str
    good: float = 0.0
    bad: float = 0.0
    wrong: float = 0.0
    hour_good: float = 0.0
    hour_luck: float = 0.0
    hour_wrong: float = 0.0
    since_s: float = 0.0
    at_s: float = 0.0


class Ledger:
    """The table of subjects, bounded. Times are seconds of a clock that never goes back (``node.trust``).

    Args:
        config: Knobs.
    """

    def __init__(self, config: TrustConfig) -> None:
        self._config = config
        self._tallies: dict[str, Tally] = {}
        #: Subjects that made room for others and are still stored; whoever stores the table empties this.
        self.forgotten: list[str] = []

    def __len__(self) -> int:
        return len(self._tallies)

    def subjects(self) -> Iterator[tuple[str, Tally]]:
        """Go through all subjects, those noted first first."""
        return iter(self._tallies.items())

    def get(self, subject: str) -> Tally | None:
        """Return what is remembered of a subject, as of its ``at_s``."""
        return self._tallies.get(subject)

    def restore(self, subject: str, tally: Tally) -> None:
        """Take back what was stored; a subject beyond ``subjects_max`` is left out."""
        if len(self._tallies) < self._config.subjects_max and _is_sane(tally):
            self._tallies[subject] = tally

    def note(self, subject: str, kind: Kind, now_s: float, *, node: str = "") -> float:
        """Take a piece of evidence.

        Args:
            subject: An agent or a node.
            kind: What happened.
            now_s: When.
            node: For an agent the node it lives behind, which shares in the evidence; else "".

        Returns:
            What it weighed in the end, 0 or less than its weight if the hour had brought much already.
        """
        weighed = self._add(subject, kind, now_s, node)
        if node and node != subject:
            self._add(node, kind, now_s, "")
        return weighed

    def _add(self, subject: str, kind: Kind, now_s: float, node: str) -> float:
        config = self._config
        weight = config.weights[kind]
        tally = self._tallies.get(subject)
        if tally is None:
            if not weight:
                return 0.0
            self._make_room(now_s)
            tally = self._tallies[subject] = Tally(node, since_s=now_s, at_s=now_s)
        self._age(tally, now_s)
        if node:
            tally.node = node
        if weight > 0:
            added = _within(weight, tally.hour_good, config.hour_good)
            tally.hour_good += added
            tally.good += added
            return added
        if kind in WRONGS:
            added = _within(-weight, tally.hour_wrong, config.hour_wrong)
            tally.hour_wrong += added
            tally.wrong += added
        else:
            added = _within(-weight, tally.hour_luck, config.hour_luck)
            tally.hour_luck += added
        tally.bad += added
        return -added

    def _age(self, tally: Tally, now_s: float) -> None:
        passed_s = now_s - tally.at_s
        if passed_s <= 0:
            return
        kept, kept_hour = 0.5 ** (passed_s / self._config.half_life_s), math.exp(-passed_s / _HOUR_S)
        tally.good *= kept
        tally.bad *= kept
        tally.wrong *= kept
        tally.hour_good *= kept_hour
        tally.hour_luck *= kept_hour
        tally.hour_wrong *= kept_hour
        tally.at_s = now_s

    def _make_room(self, now_s: float) -> None:
        """Forget those of whom least is known: who floods the table with new names pushes out other new names only."""
        if len(self._tallies) < self._config.subjects_max:
            return
        masses = ((self._mass(tally, now_s), subject) for subject, tally in self._tallies.items())
        for _, subject in heapq.nsmallest(max(1, self._config.subjects_max // _ROOM), masses):
            del self._tallies[subject]
            self.forgotten.append(subject)

    def _mass(self, tally: Tally, now_s: float) -> float:
        return (tally.good + tally.bad) * self._kept(tally, now_s)

    def _kept(self, tally: Tally, now_s: float) -> float:
        return 0.5 ** (max(0.0, now_s - tally.at_s) / self._config.half_life_s)

    def sums(self, subject: str, now_s: float) -> Sums:
        """Return the evidence about a subject as it counts now; nothing for one that is not known."""
        tally = self._tallies.get(subject)
        if tally is None:
            return NOTHING
        kept = self._kept(tally, now_s)
        return Sums(tally.good * kept, tally.bad * kept)

    def wrong(self, subject: str, now_s: float) -> float:
        """Return the evidence against a subject that is of ``WRONGS``, as it counts now."""
        tally = self._tallies.get(subject)
        return 0.0 if tally is None else tally.wrong * self._kept(tally, now_s)

    def heaviest(self, number: int, now_s: float) -> list[tuple[str, Tally]]:
        """Return the subjects of whom most is known, at most ``number``, heaviest first."""
        return heapq.nlargest(number, self._tallies.items(), key=lambda item: (self._mass(item[1], now_s), item[0]))

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken."""
        config = self._config
        assert len(self._tallies) <= config.subjects_max
        for tally in self._tallies.values():
            assert _is_sane(tally)
            assert tally.hour_good <= config.hour_good + 1e-9
            assert tally.hour_luck <= config.hour_luck + 1e-9
            assert tally.hour_wrong <= config.hour_wrong + 1e-9


def _within(weight: float, used: float, limit: float) -> float:
    """Return what a weight adds when the hour has used so much of its limit: all at first, nothing at the end."""
    return max(0.0, min(weight * (1.0 - used / limit), limit - used))


def _is_sane(tally: Tally) -> bool:
    sums = (tally.good, tally.bad, tally.wrong, tally.hour_good, tally.hour_luck, tally.hour_wrong)
    return all(math.isfinite(one) and one >= 0.0 for one in sums) and tally.wrong <= tally.bad + 1e-9
