"""Sessions over replicas of the real types that gossip under loss, duplication and partitions.

The replicas here are as small as they can be: writes are handed on in causal order, a session's token is the version
vector of the replica that answered. What is tried are the types and the judges; the replica of the node has plays of its own.
"""

from __future__ import annotations

import random
from typing import Literal, NamedTuple

from agentmesh.core.state import types
from agentmesh.core.state.causality import Dot, VersionVector, writer_of
from agentmesh.core.state.cell import Cell
from agentmesh.core.state.clock import HybridClock
from agentmesh.core.state.ops import COUNTER, LWW, MAP, REGISTER, SET, Op
from agentmesh.sim.histories.play import Part, Play
from agentmesh.sim.histories.sessions import Act, Breach, check_causal, check_end, check_regular

Flaw = Literal["", "out of order", "token ignored", "newest only", "change lost", "clock only"]
FLAWS: tuple[Flaw, ...] = ("out of order", "token ignored", "newest only", "change lost", "clock only")
REPLICAS, SESSIONS, CALLS, END_S = 4, 5, 14, 3.0
KEYS = (REGISTER, SET, COUNTER, MAP, LWW)
_LOSS, _TWICE, _WHOLE = 0.25, 0.1, 0.15
#: How long a CAUSAL call waits for what its token has seen before it is refused.
_PATIENCE_S = 0.5
_START_MS = 1_790_000_000_000


class _Change(NamedTuple):
    dot: Dot
    after: VersionVector
    key: str
    delta: Cell


class _Replica:
    """A copy of one space: its cells, how far it is with each writer, and the changes to hand on."""

    def __init__(self, at: int, flaw: Flaw) -> None:
        self.writer, self.clock, self.flaw = writer_of(bytes([at + 1]) * 32), HybridClock(), flaw
        self.cells: dict[str, Cell] = {}
        self.vector = VersionVector()
        self.changes: dict[Dot, _Change] = {}

    def write(self, key: str, change: Op, now_ms: int) -> tuple[Dot, Cell | None, Cell]:
        """Do one operation; return its dot and the key before and after."""
        dot = Dot(self.writer, self.vector.get(self.writer) + 1)
        before = self.cells.get(key)
        after, delta = types.apply(before, change, dot, self.clock.tick(now_ms))
        self.changes[dot] = _Change(dot, self.vector, key, types.decode(types.encode(delta)))
        self.cells[key], self.vector = after, self.vector.up_to(dot)
        return dot, before, after

    def take(self, changes: list[_Change], now_ms: int) -> None:
        """Take what another replica hands on, as far as it builds on what is here."""
        for change in changes:
            if self.vector.covers(change.dot) or (
                self.flaw != "out of order" and not self.vector.descends(change.after)
            ):
                continue
            self.vector, self.changes[change.dot] = self.vector.up_to(change.dot), change
            self.clock.observe(change.delta.stamp, now_ms)
            if self.flaw != "change lost" or change.dot.n % 3:
                self._merge(change.key, change.delta)

    def take_whole(self, cells: dict[str, Cell], vector: VersionVector, changes: dict[Dot, _Change]) -> None:
        """Take all that another replica has."""
        for key, cell in cells.items():
            self._merge(key, cell)
        self.vector = self.vector.join(vector)
        self.changes = {**changes, **self.changes}

    def _merge(self, key: str, other: Cell) -> None:
        merged = types.merge(self.cells.get(key), types.decode(types.encode(other)))
        if self.flaw == "newest only" and REGISTER in merged.parts and len(merged.parts[REGISTER][b""]) > 1:
            dots = merged.parts[REGISTER][b""]
            top = max(dots, key=lambda dot: (dots[dot].stamp, dot))
            merged = Cell(merged.seen, {REGISTER: {b"": {top: dots[top]}}}, merged.stamp)
        if self.flaw == "clock only" and (mine := self.cells.get(key)) is not None and mine.stamp > other.stamp:
            merged = mine
        self.cells[key] = merged

    def missing(self, vector: VersionVector) -> list[_Change]:
        """Return the changes that somebody who has seen that has not, in the order in which they may be taken."""
        wanted = [change for dot, change in self.changes.items() if not vector.covers(dot)]
        return sorted(wanted, key=lambda change: (change.delta.stamp, change.dot))


class Record(NamedTuple):
    """One play: what sessions did, and what the replicas held at the end."""

    acts: list[Act]
    ends: list[dict[str, Cell]]
    refused: int


class _Stage:
    def __init__(self, seed: int, flaw: Flaw) -> None:
        self.chance, self.play, self.flaw = random.Random(f"replicas/{seed}"), Play(), flaw  # noqa: S311 a simulation
        self.replicas = [_Replica(at, flaw) for at in range(REPLICAS)]
        self.acts: list[Act] = []
        self.refused = 0
        start_s = self.chance.uniform(0, END_S / 2)
        #: Between these times replicas below ``cut`` and the others hear nothing of each other.
        self.cut_s, self.cut = (
            (start_s, start_s + self.chance.uniform(0.3, END_S / 2)),
            self.chance.randrange(1, REPLICAS),
        )

    def now_ms(self, at: int) -> int:
        """Wall clock of a replica; each is off by a little."""
        return _START_MS + int(self.play.now_s * 1000) + (at * 7919) % 3001 - 1500

    def apart(self, one: int, other: int) -> bool:
        return self.cut_s[0] <= self.play.now_s < self.cut_s[1] and (one < self.cut) != (other < self.cut)


def record(seed: int, flaw: Flaw = "") -> Record:
    """Play one history: ``SESSIONS`` sessions, ``CALLS`` calls each, on one key of each type; then heal and settle."""
    stage = _Stage(seed, flaw)
    for at in range(REPLICAS):
        stage.play.start(_gossip(at, stage), stage.chance.uniform(0, 0.1))
    for at in range(SESSIONS):
        stage.play.start(_session(f"session {at}", at, stage), stage.chance.uniform(0, 0.3))
    stage.play.run(END_S)
    for _ in range(2):
        for at, one in enumerate(stage.replicas):
            for other in stage.replicas:
                if one is not other:
                    one.take(other.missing(one.vector), stage.now_ms(at))
    return Record(stage.acts, [replica.cells for replica in stage.replicas], stage.refused)


def judge(record: Record) -> list[Breach]:
    """Return the rules that a play broke."""
    return [*check_causal(record.acts), *check_regular(record.acts), *check_end(record.acts, record.ends)]


def _gossip(at: int, stage: _Stage) -> Part:
    chance, mine = stage.chance, stage.replicas[at]
    while True:
        yield chance.expovariate(15)
        to = chance.randrange(REPLICAS)
        if to == at or stage.apart(at, to) or chance.random() < _LOSS:
            continue
        other = stage.replicas[to]
        for _ in range(2 if chance.random() < _TWICE else 1):
            if chance.random() < _WHOLE and stage.flaw != "change lost":
                news = _whole(at, to, dict(mine.cells), mine.vector, dict(mine.changes), stage)
            else:
                news = _hand(at, to, mine.missing(other.vector), stage)
            stage.play.start(news, chance.expovariate(40))


def _hand(at: int, to: int, changes: list[_Change], stage: _Stage) -> Part:
    if not stage.apart(at, to):
        if stage.flaw == "out of order":
            stage.chance.shuffle(changes)
            changes = changes[: max(1, len(changes) // 2)]
        stage.replicas[to].take(changes, stage.now_ms(to))
    return
    yield


def _whole(
    at: int, to: int, cells: dict[str, Cell], vector: VersionVector, changes: dict[Dot, _Change], stage: _Stage
) -> Part:
    if not stage.apart(at, to):
        stage.replicas[to].take_whole(cells, vector, changes)
        for cell in cells.values():
            stage.replicas[to].clock.observe(cell.stamp, stage.now_ms(to))
    return
    yield


def _session(name: str, home: int, stage: _Stage) -> Part:
    chance, token = stage.chance, VersionVector()
    for number in range(CALLS):
        yield chance.expovariate(12)
        at = home % REPLICAS if chance.random() < 0.6 else chance.randrange(REPLICAS)
        replica, key = stage.replicas[at], chance.choice(KEYS)
        level = "causal" if chance.random() < 0.7 else "local"
        start_s = stage.play.now_s
        if level == "causal" and stage.flaw != "token ignored":
            while not replica.vector.descends(token) and stage.play.now_s < start_s + _PATIENCE_S:
                yield 0.01
            if not replica.vector.descends(token):
                stage.refused += 1
                continue
        if chance.random() < 0.5:
            cell = replica.cells.get(key)
            stage.acts.append(Act(name, key, start_s, stage.play.now_s, level, cell=cell))
        else:
            change = change_of(key, f"{name} {number}", chance)
            dot, before, after = replica.write(key, change, stage.now_ms(at))
            was = set[Dot]() if before is None else {dot for _, _, dot, _ in before.live()}
            live = {dot for _, _, dot, _ in after.live()}
            by = change.by if change.op == "increment" else 0
            stage.acts.append(
                Act(
                    name,
                    key,
                    start_s,
                    stage.play.now_s,
                    level,
                    dot,
                    "",
                    None,
                    tuple(sorted(was - live)),
                    dot not in live,
                    by,
                )
            )
        token = token.join(replica.vector)


def change_of(key: str, value: str, chance: random.Random) -> Op:
    """Return some operation that fits the key of that type."""
    roll = chance.random()
    if key == COUNTER:
        return Op(op="increment", type=COUNTER, by=chance.randint(-3, 9))
    if key == SET:
        return Op(op="add" if roll < 0.7 else "discard", type=SET, value=chance.randrange(4))
    if key == MAP:
        return Op(op="put" if roll < 0.7 else "remove", type=MAP, field=chance.choice("abc"), value=value)
    return Op(op="set" if roll < 0.8 else "resolve" if roll < 0.9 else "delete", type=key, value=value)
