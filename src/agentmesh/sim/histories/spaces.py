"""Sessions at all levels below LINEARIZABLE over the replicas of the node itself, with a cut, a crash and a death.

The world is ``sim.spaces``: the machine that the daemon runs, in virtual time. Every second play is a hasty one, whose calls
are as near to each other as messages are. One node may die for good and never say what it alone had; so LOCAL and CAUSAL
writes that only it had may be gone, QUORUM writes may not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any, Literal, NamedTuple

from agentmesh.core.state.causality import Dot, VersionVector
from agentmesh.core.state.cell import Cell, decode
from agentmesh.core.state.inputs import Done, KeepWrite, LocalRead, LocalWrite
from agentmesh.core.state.levels import ConsistencyLevel
from agentmesh.core.state.ops import Op
from agentmesh.core.state.space import Space
from agentmesh.sim.histories.replicas import KEYS, change_of
from agentmesh.sim.histories.sessions import Act, Breach, Rule, check_causal, check_end, check_regular
from agentmesh.sim.spaces import SpacesWorld

#: "quorum of one": what is told to be QUORUM was LOCAL. "token ignored": CAUSAL without what the session has seen.
Flaw = Literal["", "quorum of one", "token ignored"]
FLAWS: tuple[Flaw, ...] = ("quorum of one", "token ignored")
NODES, SESSIONS, CALLS = 5, 4, 16
SPACE = "team"
#: Longest that a call may take: 1.8 s and what the world needs to notice. Who was asked and died never answers.
_ANSWER_S = 2.5
#: How long replicas may take to agree after everything healed.
_SETTLE_S = 60.0
_UNANSWERED = float("inf")

#: What CAUSAL promises (``core.state.levels``). Order among the writes of several sessions it does not: a node may hear of
#: a write before it hears of one that its writer had read.
PROMISED: tuple[Rule, ...] = ("read your writes", "monotonic reads")

_Session = Generator["float | int", None, None]


class Record(NamedTuple):
    """One play.

    Attributes:
        acts: What sessions did and heard.
        ends: What the living replicas held at the end.
        refused: Calls that were refused, by code.
        agreed: Whether the replicas agreed in time.
    """

    acts: list[Act]
    ends: list[dict[str, Cell]]
    refused: dict[str, int]
    agreed: bool


class _Stage:
    def __init__(self, seed: int, flaw: Flaw) -> None:
        self.flaw, self.calm = flaw, seed % 2 == 0
        self.chance = random.Random(f"histories/spaces/{seed}")  # noqa: S311 a simulation
        self.world = SpacesWorld(NODES, seed)
        self.world.on_done = self._on_done
        for seat in self.world.seats:
            seat.skew_s = self.chance.uniform(-2, 2)
        self.acts: list[Act] = []
        self.deltas: dict[Dot, Cell] = {}
        self.refused: dict[str, int] = {}
        self.busy = [False] * NODES
        self._waiting: dict[int, _Session] = {}
        self.running = 0

    def start(self, session: _Session, delay_s: float) -> None:
        self.running += 1
        self.world.call(delay_s, lambda: self._go_on(session))

    def _go_on(self, session: _Session) -> None:
        for wish in session:
            if isinstance(wish, float):
                self.world.call(wish, lambda: self._go_on(session))
                return
            if wish not in self.world.done:
                self._waiting[wish] = session
                self.world.call(_ANSWER_S, lambda wish=wish: self._give_up(wish))
                return
        self.running -= 1

    def _give_up(self, ref: int) -> None:
        session = self._waiting.pop(ref, None)
        if session is not None:
            self._go_on(session)

    def _on_done(self, _seat: int, done: Done) -> None:
        session = self._waiting.pop(done.ref, None)
        if session is not None:
            self.world.call(0.0, lambda: self._go_on(session))


def record(seed: int, flaw: Flaw = "") -> Record:
    """Play one history: ``SESSIONS`` sessions, ``CALLS`` calls each, on one key of each type; then heal and settle."""
    stage = _Stage(seed, flaw)
    world, chance = stage.world, stage.chance
    world.run(1.1)
    for at in range(NODES):
        world.write(at, lambda ref: LocalWrite(ref, SPACE, "start", Op(op="increment")))
    world.run(2.0)
    for at in range(SESSIONS):
        stage.start(_session(f"session {at}", stage), chance.uniform(0, 0.3 if stage.calm else 0.05))
    lonely, crashed, dead = chance.sample(range(NODES), 3)
    at_s = chance.uniform(0.2, 1.5)
    rest = [at for at in range(NODES) if at != lonely]
    world.call(at_s, lambda: world.cut([lonely], rest))
    world.call(at_s + chance.uniform(1, 9), world.heal)
    world.call(chance.uniform(0.2, 4), lambda: world.stop(crashed))
    for _ in range(chance.randrange(12)):
        pair = chance.sample(range(NODES), 2)
        world.call(chance.uniform(0, 6 if stage.calm else 0.5), lambda pair=pair: world.break_link(*pair))
    dies = chance.random() < 0.5
    if dies:
        world.call(12.0, lambda: world.stop(dead))
    world.run(14.0)
    world.heal()
    if not world.seats[crashed].up:
        world.start(crashed)
    agreed = world.run_until(lambda: not stage.running and _agree(world), _SETTLE_S, 0.5) is not None
    ends = [_cells(world, at) for at in range(NODES) if world.seats[at].up]
    acts = [_finish(act, stage, ends, dead if dies else -1) for act in stage.acts]
    return Record(
        sorted(acts, key=lambda act: (min(act.end_s, act.start_s + 99), act.start_s)), ends, stage.refused, agreed
    )


def _agree(world: SpacesWorld) -> bool:
    digests = world.digests(SPACE)
    return len(digests) == sum(seat.up for seat in world.seats) and len(set(digests.values())) == 1


def _cells(world: SpacesWorld, at: int) -> dict[str, Cell]:
    keys = world.seats[at].replica.spaces[SPACE].keys
    return {key: held.cell for key, held in keys.items() if held.cell is not None and key != "start"}


def _finish(act: Act, stage: _Stage, ends: list[dict[str, Cell]], dead: int) -> Act:
    """Add what is known only at the end: which writes a write replaced, and whether it could be lost with its node."""
    if act.dot is None:
        return act
    delta = stage.deltas[act.dot]
    own = {dot for _, _, dot, _ in delta.live()}
    covered = tuple(sorted(dot for dot in stage.deltas if dot not in own and dot != act.dot and delta.seen.covers(dot)))
    covered = tuple(dot for dot in covered if any(one.dot == dot and one.key == act.key for one in stage.acts))
    lost = act.level != "quorum" and dead >= 0 and act.dot.writer == stage.world.seats[dead].replica.ground.writer
    if lost and not any(act.key in end and end[act.key].seen.covers(act.dot) for end in ends):
        act = act._replace(end_s=_UNANSWERED)
    return act._replace(covered=covered, removes=act.dot not in own)


def judge(play: Record) -> list[Breach]:
    """Return the rules that a play broke."""
    causal = [breach for breach in check_causal(play.acts) if breach.rule in PROMISED]
    found = [*causal, *check_regular(play.acts), *check_end(play.acts, play.ends)]
    if not play.agreed:
        found.append(
            Breach("converged", "all", "*", f"the replicas did not agree within {_SETTLE_S:g} s after the heal")
        )
    return found


def _session(name: str, stage: _Stage) -> _Session:
    chance, world, token = stage.chance, stage.world, VersionVector()
    home = chance.randrange(NODES)
    for number in range(CALLS):
        yield chance.expovariate(4 if stage.calm else 100)
        at = home if chance.random() < 0.5 else chance.randrange(NODES)
        seat = world.seats[at]
        if not seat.up or stage.busy[at]:
            continue
        level = chance.choice([ConsistencyLevel.LOCAL, ConsistencyLevel.CAUSAL, ConsistencyLevel.QUORUM])
        key = chance.choice(KEYS)
        change = change_of(key, f"{name} {number}", chance) if chance.random() < 0.5 else None
        vector = None if level == ConsistencyLevel.LOCAL or stage.flaw == "token ignored" else token
        given = level
        if level == ConsistencyLevel.QUORUM and stage.flaw == "quorum of one":
            given, vector = ConsistencyLevel.LOCAL, None
        start_s, kept, life = world.now_s, len(seat.disk.records), seat.life
        stage.busy[at] = True
        ref = world.write(at, _wanted(key, change, given, vector))
        yield ref
        stage.busy[at] = False
        done = world.done.get(ref)
        act = Act(name, key, start_s, world.now_s, level.word)
        if change is not None:
            dot = _written(stage, seat.disk.records[kept:], key, seat.replica.ground.public)
            if dot is not None:
                by = change.by if change.op == "increment" else 0
                answered = done is not None and done.error is None
                stage.acts.append(act._replace(dot=dot, by=by, end_s=world.now_s if answered else _UNANSWERED))
        elif done is not None and done.error is None:
            held = seat.replica.spaces[SPACE].keys.get(key)
            stage.acts.append(act._replace(cell=None if held is None else held.cell))
        if done is not None and done.error is not None:
            stage.refused[done.error.code] = stage.refused.get(done.error.code, 0) + 1
        elif done is not None and seat.up and seat.life == life:
            token = token.join(_token(seat.replica.spaces[SPACE], key))


def _token(space: Space, key: str) -> VersionVector:
    """Return what an answer about a key names as seen, as ``node.state.spaces`` does."""
    held = space.keys.get(key)
    return space.seen if held is None else space.seen.join(held.top())


def _wanted(
    key: str, change: Op | None, level: ConsistencyLevel, vector: VersionVector | None
) -> Callable[[int], LocalRead | LocalWrite]:
    if change is None:
        return lambda ref: LocalRead(ref, SPACE, key, level, vector)
    return lambda ref: LocalWrite(ref, SPACE, key, change, level, vector)


def _written(stage: _Stage, records: list[Any], key: str, public: bytes) -> Dot | None:
    """Return the dot of the write that this node made meanwhile; a session has the node to itself."""
    for record in records:
        if isinstance(record, KeepWrite) and record.key == key and record.n and record.write.writer == public:
            stage.deltas[record.write.dot] = decode(record.write.delta)
            return record.write.dot
    return None
