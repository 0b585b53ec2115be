"""Contenders for one lock over the compare-and-set store, with clocks that run wrong, jump, and processes that sleep.

What must hold whatever the clocks do: a fencing token is of one holder only, tokens rise from holder to holder, and the
resource takes nothing under an older token after a newer one. That no two believe at once that they hold the lock is
promised only where nobody sleeps and clocks run evenly (``calm``).
"""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Literal, NamedTuple

from agentmesh.core.locks import Contender, Keep, Lease, Take, write_lease
from agentmesh.sim.histories.critical import Store
from agentmesh.sim.histories.linear import Call, check
from agentmesh.sim.histories.play import Part, Play

Flaw = Literal["", "impatient", "no fence", "token kept"]
FLAWS: tuple[Flaw, ...] = ("impatient", "no fence", "token kept")
CONTENDERS, END_S = 4, 20.0
KEY, TTL_S = "lock", 1.0
#: How often a write is lost on its way, and how often its answer.
_LOST, _DEAF = 0.04, 0.05


class Work(NamedTuple):
    """The resource took work."""

    at_s: float
    holder: str
    token: int


class Hold(NamedTuple):
    """A contender believed that it held the lock, from when it heard so to when its clock says that it is over."""

    holder: str
    token: int
    from_s: float
    to_s: float


class Record(NamedTuple):
    """One play: calls of the store, work that the resource took, and who believed what."""

    calls: list[Call]
    works: list[Work]
    holds: list[Hold]
    calm: bool


class _Clock:
    """A monotonic clock that runs at a rate of its own and, if it is a bad one, jumps ahead."""

    def __init__(self, play: Play, rate: float) -> None:
        self._play, self.rate, self.jumped_s = play, rate, 0.0

    def __call__(self) -> float:
        return self._play.now_s * self.rate + self.jumped_s


class _Stage:
    """What all contenders of one play share."""

    def __init__(self, seed: int, flaw: Flaw) -> None:
        self.chance = random.Random(f"locks/{seed}")  # noqa: S311 a simulation
        self.flaw = flaw
        self.play, self.store = Play(), Store(self.chance)
        self.out = Record([], [], [], calm=seed % 2 == 0)
        self.fence = 0

    def work(self, holder: str, token: int) -> None:
        """Ask the resource to do something under a token."""
        if token >= self.fence or self.flaw == "no fence":
            self.fence = max(self.fence, token)
            self.out.works.append(Work(self.play.now_s, holder, token))

    def over(self, holder: str) -> None:
        """Take note that a holder gives the lock back and believes no longer that it has it."""
        now_s = self.play.now_s
        self.out.holds[:] = [
            hold._replace(to_s=min(hold.to_s, now_s)) if hold.holder == holder else hold for hold in self.out.holds
        ]


def record(seed: int, flaw: Flaw = "") -> Record:
    """Play one history of ``END_S`` virtual seconds; every second seed is a calm one."""
    stage = _Stage(seed, flaw)
    for at in range(CONTENDERS):
        stage.play.start(_contend(f"holder {at}", stage), stage.chance.uniform(0, 1))
    stage.play.run(END_S)
    return stage.out


def _contend(name: str, stage: _Stage) -> Part:
    chance, play, calm = stage.chance, stage.play, stage.out.calm
    clock = _Clock(play, 1.0 if calm else chance.choice([0.5, 0.9, 1.0, 1.1, 3.0]))
    contender, delay = Contender(), 300 if calm else 60
    renewals = 0
    while True:
        start_s = play.now_s
        yield chance.expovariate(delay)
        held = stage.store.get(KEY)
        yield chance.expovariate(delay)
        value, revision = held or (None, 0)
        stage.out.calls.append(Call(name, "get", KEY, start_s, play.now_s, "ok", value, revision))
        seen = contender.see(KEY, value, revision, clock())
        step = contender.judge(seen, name, "node", clock())
        if stage.flaw == "impatient" and not isinstance(step, Keep) and seen is not None:
            step = Take(seen.revision)
        if not isinstance(step, Take | Keep):
            yield min(max(0.0, (step.seen.until_s - clock()) / clock.rate), chance.uniform(0.05, 0.5))
            continue
        if isinstance(step, Keep) and renewals > 3 and chance.random() < 0.3:
            renewals = 0
            stage.over(name)
            yield from _write(name, stage, None, step.expect)
            contender.forget(KEY)
            yield chance.uniform(0, 0.5)
            continue
        old = seen.token if seen is not None and stage.flaw == "token kept" else 0
        lease = write_lease(Lease(name, "node", round(TTL_S * 1000), step.token if isinstance(step, Keep) else old))
        sent_s, until_s = clock(), play.now_s + TTL_S / clock.rate
        written = yield from _write(name, stage, lease, step.expect)
        if written is None:
            contender.forget(KEY)
            continue
        mine = contender.see(KEY, lease, written, sent_s)
        if mine is None or mine.revision != written:
            continue
        renewals += 1
        stage.out.holds.append(Hold(name, mine.token, play.now_s, until_s))
        if not calm and chance.random() < 0.15:
            clock.jumped_s += chance.choice([0.5, 5.0, 3600.0])
        if not calm and chance.random() < 0.2:
            yield chance.uniform(1, 4)  # asleep, and does not know it
        for _ in range(3):
            if calm and clock() >= mine.until_s:
                break
            stage.work(name, mine.token)
            yield TTL_S / 12


def _write(name: str, stage: _Stage, lease: bytes | None, expect: int) -> Generator[float, None, int | None]:
    """Write or delete; return the revision, or None: it failed, or nobody knows."""
    chance, play, calls = stage.chance, stage.play, stage.out.calls
    fate, delay = chance.random(), 300 if stage.out.calm else 60
    # Unknown until the answer is there, also if the play ends before.
    call = Call(name, "delete" if lease is None else "put", KEY, play.now_s, 0.0, "unknown", lease, 0, expect)
    place = len(calls)
    calls.append(call)
    yield chance.expovariate(delay)
    if fate < _LOST:
        return None
    found = KEY in stage.store.held
    done, revision = stage.store.write(KEY, lease, expect)
    yield chance.expovariate(delay)
    if fate < _LOST + _DEAF:
        return None
    told = revision if done and lease is not None else 0
    calls[place] = call._replace(end_s=play.now_s, answer="ok" if done else "conflict", revision=told, found=found)
    return revision if done else None


def judge(record: Record) -> list[str]:
    """Return what is wrong with a play, in words."""
    found = [str(violation) for violation in check(record.calls)]
    holders: dict[int, str] = {}
    for hold in record.holds:
        if holders.setdefault(hold.token, hold.holder) != hold.holder:
            found.append(f"token {hold.token} is of {holders[hold.token]} and of {hold.holder}")
    for one, other in zip(record.works, record.works[1:], strict=False):
        if other.token < one.token:
            found.append(
                f"work under token {other.token} of {other.holder} after token {one.token}, at {other.at_s:.3f} s"
            )
    if record.calm:
        found += _overlaps(record.holds)
    return found


def _overlaps(holds: list[Hold]) -> list[str]:
    last: dict[str, Hold] = {}
    found: list[str] = []
    for hold in holds:
        for other in last.values():
            if other.holder != hold.holder and other.token < hold.token and hold.from_s < other.to_s:
                found.append(
                    f"{hold.holder} took the lock at {hold.from_s:.3f} s, {other.holder} had it to {other.to_s:.3f} s"
                )
        last[hold.holder] = hold
    return found
