"""Play and judge many histories: ``python -m agentmesh.sim histories`` (docs/spec/state.md §4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from agentmesh.errors import UsageError
from agentmesh.sim.histories import critical, linear, locking, replicas, spaces

#: Violations that a report keeps in words.
SHOWN_MAX = 20


class Verdict(NamedTuple):
    """One history: how many calls it has, and what is wrong with it."""

    calls: int
    wrong: list[str]


class Kind(NamedTuple):
    """One kind of play: what it is, how its seeds are played and judged, how it can be broken, and how many of eight it gets."""

    title: str
    judge: Callable[[int, str], Verdict]
    flaws: tuple[str, ...]
    share: int = 2


def _critical(seed: int, flaw: str) -> Verdict:
    calls = critical.record(seed, flaw)  # type: ignore[arg-type]
    return Verdict(len(calls), [str(one) for one in linear.check(calls)])


def _locks(seed: int, flaw: str) -> Verdict:
    play = locking.record(seed, flaw)  # type: ignore[arg-type]
    return Verdict(len(play.calls) + len(play.works), locking.judge(play))


def _replicas(seed: int, flaw: str) -> Verdict:
    play = replicas.record(seed, flaw)  # type: ignore[arg-type]
    return Verdict(len(play.acts), [str(one) for one in replicas.judge(play)])


def _spaces(seed: int, flaw: str) -> Verdict:
    play = spaces.record(seed, flaw)  # type: ignore[arg-type]
    return Verdict(len(play.acts), [str(one) for one in spaces.judge(play)])


KINDS: dict[str, Kind] = {
    "critical": Kind("compare-and-set with lost and late calls: linearizable", _critical, critical.FLAWS),
    "locks": Kind("contenders with bad clocks: one holder a token, no work under an old one", _locks, locking.FLAWS),
    "replicas": Kind("sessions over gossiping replicas: causal, converged, nothing lost", _replicas, replicas.FLAWS, 3),
    "spaces": Kind(
        "the node's own replicas with cuts, deaths and lost links: QUORUM, CAUSAL, converged", _spaces, spaces.FLAWS
    ),
}


class Summary(NamedTuple):
    """What came of many histories.

    Attributes:
        histories, calls: Kind → how many.
        broken: How many histories have something wrong.
        wrong: The first of it: (kind, seed, what).
    """

    histories: dict[str, int]
    calls: dict[str, int]
    broken: int
    wrong: list[tuple[str, int, str]]


def run(count: int, seed: int = 1, kinds: tuple[str, ...] = (), flaw: str = "") -> Summary:
    """Play and judge ``count`` histories, the kinds in turn, the slower ones less often.

    Args:
        count: How many.
        seed: Of the first; each has its own, so that one can be played again alone.
        kinds: Which; all if empty.
        flaw: How what is played is to be broken on purpose; kinds that have no such flaw are left out.

    Raises:
        UsageError: a kind or flaw that there is not (code "history.kind").
    """
    chosen = [name for name in KINDS if (not kinds or name in kinds) and (not flaw or flaw in KINDS[name].flaws)]
    if not chosen or any(name not in KINDS for name in kinds) or count < 1:
        flaws = sorted({one for kind in KINDS.values() for one in kind.flaws})
        raise UsageError(
            f"no histories of {', '.join(kinds) or 'any kind'}" + (f" with {flaw!r}" if flaw else ""),
            code="history.kind",
            why=f"kinds are {', '.join(KINDS)}; flaws are {', '.join(flaws)}",
        )
    summary = Summary(dict.fromkeys(chosen, 0), dict.fromkeys(chosen, 0), 0, [])
    broken = 0
    turns = [name for name in chosen for _ in range(KINDS[name].share)]
    for at in range(count):
        name = turns[at % len(turns)]
        verdict = KINDS[name].judge(seed + at, flaw)
        summary.histories[name] += 1
        summary.calls[name] += verdict.calls
        broken += bool(verdict.wrong)
        summary.wrong.extend((name, seed + at, what) for what in verdict.wrong[: SHOWN_MAX - len(summary.wrong)])
    return summary._replace(broken=broken)
