"""Do reads of replicated state show what they must? Causal and session guarantees, quorum reads, and what is left at
the end.

Here a write is known by its dot and a read by which writes its replica had seen, so nothing has to be guessed: each
rule is one
look at a table, and each breach has a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from agentmesh.core.state import types
from agentmesh.core.state.causality import Dot
from agentmesh.core.state.cell import Cell
from agentmesh.core.state.ops import COUNTER, LWW, MAP, REGISTER, SET

Rule = Literal[
    "read your writes",
    "monotonic reads",
    "monotonic writes",
    "writes follow reads",
    "regular",
    "out of thin air",
    "converged",
    "kept",
    "value",
]


class Act(NamedTuple):
    """What one session did on one key, in the order in which it did it.

    Attributes:
        session: A client that hands its token on from call to call.
        key: On what.
        start_s, end_s: When; ``end_s`` infinite if no answer came.
        level: "local", "causal" or "quorum".
        dot: Of the write; None for a read.
        path: Field or item written, "" if there is none.
        cell: Read: what the replica that answered knew of the key; None = nothing.
        covered: Write: other writes that it replaced.
        removes: Write: that it leaves nothing of its own.
        by: Write: what an increment added.
    """

    session: str
    key: str
    start_s: float
    end_s: float
    level: str
    dot: Dot | None = None
    path: str = ""
    cell: Cell | None = None
    covered: tuple[Dot, ...] = ()
    removes: bool = False
    by: int = 0


class Breach(NamedTuple):
    """A rule that was broken, and where."""

    rule: Rule
    session: str
    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.session} on {self.key}: {self.what}"


class _Past:
    """What came before a point of a session: writes by key, each with why it is there."""

    __slots__ = ("of",)

    def __init__(self) -> None:
        self.of: dict[str, dict[Dot, Rule]] = {}

    def add(self, key: str, dot: Dot, rule: Rule) -> None:
        self.of.setdefault(key, {}).setdefault(dot, rule)


def check_causal(acts: Sequence[Act]) -> list[Breach]:
    """Judge sessions whose reads are CAUSAL.

    A read must show every write to its key that lies in the session's past: its own, those that it has read before, and what
    came before these, if they were CAUSAL or above, in the sessions that wrote them.

    Args:
        acts: Of all sessions, by the time at which they ended.
    """
    pasts: dict[str, _Past] = {}
    before: dict[Dot, tuple[str, dict[str, frozenset[Dot]]]] = {}  # write → session, and what came before it
    keys: dict[Dot, str] = {act.dot: act.key for act in acts if act.dot is not None}
    by_key: dict[str, list[Dot]] = {}
    for dot, key in keys.items():
        by_key.setdefault(key, []).append(dot)
    found: list[Breach] = []
    for act in acts:
        past = pasts.setdefault(act.session, _Past())
        if act.dot is not None:
            if act.level != "local":  # such a write waited for what its session had seen; a LOCAL one promises no order
                before[act.dot] = act.session, {key: frozenset(dots) for key, dots in past.of.items()}
            if act.end_s != float("inf"):  # an answer brings the token that names the write
                past.add(act.key, act.dot, "read your writes")
            continue
        saw = [dot for dot in by_key.get(act.key, ()) if act.cell is not None and act.cell.seen.covers(dot)]
        if act.level != "local":
            due: dict[Dot, Rule] = past.of.get(act.key, {})
            for dot in due:
                if dot not in saw:
                    found.append(Breach(due[dot], act.session, act.key, f"{_name(dot)} is not there"))
        for dot in saw:
            past.add(act.key, dot, "monotonic reads")
            writer, earlier = before.get(dot, ("", {}))
            for key, dots in earlier.items():
                for other in sorted(dots):
                    rule: Rule = "writes follow reads"
                    if before.get(other, ("", {}))[0] == writer:
                        rule = "monotonic writes"
                    past.add(key, other, rule)
    return found


def check_regular(acts: Iterable[Act]) -> list[Breach]:
    """Judge QUORUM reads: each shows all QUORUM writes that were answered before it began, and nothing that nobody wrote."""
    every = list(acts)
    writes = [act for act in every if act.dot is not None]
    known = {act.dot: act for act in writes}
    found: list[Breach] = []
    for act in every:
        if act.dot is not None:
            continue
        live = set[Dot]() if act.cell is None else {dot for _, _, dot, _ in act.cell.live()}
        for dot in sorted(live):
            write = known.get(dot)
            if write is None or write.start_s > act.end_s or write.key != act.key:
                found.append(Breach("out of thin air", act.session, act.key, f"nobody had written {_name(dot)}"))
        if act.level != "quorum":
            continue
        for write in writes:
            if write.key != act.key or write.level != "quorum" or write.end_s >= act.start_s or write.dot is None:
                continue
            if act.cell is None or not act.cell.seen.covers(write.dot):
                found.append(
                    Breach("regular", act.session, act.key, f"{_name(write.dot)} was answered before, and is not there")
                )
    return found


def check_end(acts: Iterable[Act], replicas: Sequence[dict[str, Cell]]) -> list[Breach]:
    """Judge what is left after the network healed: all replicas agree, and no answered write is lost.

    Args:
        acts: All that was done; writes without an answer may be there or not.
        replicas: Of each replica that lived to the end, key → cell.
    """
    found: list[Breach] = []
    first = replicas[0]
    for at, other in enumerate(replicas[1:], 1):
        for key in sorted({*first, *other}):
            if key not in first or key not in other or types.encode(first[key]) != types.encode(other[key]):
                found.append(Breach("converged", f"replica {at}", key, "differs from replica 0"))
    writes: dict[str, list[Act]] = {}
    for act in acts:
        if act.dot is not None:
            writes.setdefault(act.key, []).append(act)
    for key in sorted(writes):
        found += _check_kept(key, writes[key], first.get(key))
    return found


def _check_kept(key: str, writes: list[Act], cell: Cell | None) -> list[Breach]:
    found: list[Breach] = []
    there = [act for act in writes if act.dot is not None and cell is not None and cell.seen.covers(act.dot)]
    for act in writes:
        if act.dot is not None and act.end_s != float("inf") and act not in there:
            found.append(Breach("kept", act.session, key, f"{_name(act.dot)} was answered, and is gone"))
    if cell is None:
        return found
    replaced = {dot for act in there for dot in act.covered}
    live = {dot: kind for kind, _, dot, _ in cell.live()}
    expected = {act.dot for act in there if not act.removes and act.dot not in replaced and act.dot is not None}
    kinds = set(cell.parts)
    if kinds <= {REGISTER, LWW, MAP, SET}:
        for dot in sorted(expected - set(live)):
            found.append(Breach("kept", "replica 0", key, f"nobody replaced {_name(dot)}, and it is not shown"))
        for dot in sorted(set(live) - expected):
            found.append(Breach("value", "replica 0", key, f"{_name(dot)} was replaced, and is shown"))
    if kinds == {COUNTER} and types.value(cell) != sum(act.by for act in there):
        total = sum(act.by for act in there)
        found.append(
            Breach("value", "replica 0", key, f"the counter shows {types.value(cell)}, the increments make {total}")
        )
    return found


def _name(dot: Dot) -> str:
    return f"write {dot.n} of {dot.writer.hex()[:6]}"
