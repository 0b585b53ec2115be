"""Clients of a compare-and-set store with delays, lost requests and lost answers; and what breaks when the store is broken."""

from __future__ import annotations

import random
from typing import Any, Literal

from agentmesh.sim.histories.linear import Call
from agentmesh.sim.histories.play import Part, Play

#: How a store may be broken on purpose, to see that the judge sees it. "" = it is right.
Flaw = Literal["", "stale read", "lost write", "expect ignored", "false success", "done twice"]
FLAWS: tuple[Flaw, ...] = ("stale read", "lost write", "expect ignored", "false success", "done twice")
CLIENTS, CALLS, KEYS = 4, 12, 2
#: How often a request is lost on its way, its answer is lost, and it arrives after its client gave up.
_LOST, _DEAF, _LATE = 0.04, 0.05, 0.03
#: How often a broken store is so, once it could be.
_FLAWED = 0.15


class Store:
    """Small values with one rising revision over all keys."""

    def __init__(self, chance: random.Random, flaw: Flaw = "") -> None:
        self._chance, self._flaw = chance, flaw
        self.revision = 0
        self.held: dict[str, tuple[Any, int]] = {}
        self._old: dict[str, tuple[Any, int] | None] = {}

    def _fails(self, flaw: Flaw) -> bool:
        return self._flaw == flaw and self._chance.random() < _FLAWED

    def get(self, key: str) -> tuple[Any, int] | None:
        """Return (value, revision), or None."""
        if key in self._old and self._fails("stale read"):
            return self._old[key]
        return self.held.get(key)

    def write(self, key: str, value: Any, expect: int | None) -> tuple[bool, int]:
        """Write, or delete (None); return (done, the revision that it got or that is there)."""
        before = self.held.get(key)
        there = before[1] if before else 0
        if expect is not None and expect != there and not self._fails("expect ignored"):
            return (True, self.revision + 1) if self._fails("false success") else (False, there)
        self._old[key] = before
        self.revision += 1
        if self._fails("lost write"):
            return True, self.revision
        if value is None:
            self.held.pop(key, None)
        else:
            self.held[key] = value, self.revision
        return True, self.revision

    def again(self, key: str, value: Any) -> None:
        """Do a write a second time, as a client library would that repeats what it must not."""
        if self._fails("done twice"):
            self.revision += 1
            self.held[key] = value, self.revision


def record(seed: int, flaw: Flaw = "") -> list[Call]:
    """Play one history: ``CLIENTS`` clients, ``CALLS`` calls each, on ``KEYS`` keys."""
    chance = random.Random(f"critical {seed}")  # noqa: S311
    play, store, calls = Play(), Store(chance, flaw), list[Call]()
    for at in range(CLIENTS):
        play.start(_client(f"client {at}", play, store, calls, chance), chance.uniform(0, 0.02))
    play.run()
    return calls


def _client(name: str, play: Play, store: Store, calls: list[Call], chance: random.Random) -> Part:
    known: dict[str, int] = {}
    for number in range(CALLS):
        yield chance.expovariate(100)
        key = f"key {chance.randrange(KEYS)}"
        start_s = play.now_s
        if chance.random() < 0.45:
            yield chance.expovariate(200)
            held = store.get(key)
            yield chance.expovariate(200)
            known[key] = held[1] if held else 0
            value, revision = held or (None, 0)
            calls.append(Call(name, "get", key, start_s, play.now_s, "ok", value, revision))
            continue
        value = None if chance.random() < 0.15 else f"{name} {number}"
        expect = None if chance.random() < 0.2 else known.get(key, 0)
        verb = "delete" if value is None else "put"
        fate = chance.random()
        yield chance.expovariate(200)
        if fate < _LOST + _LATE:
            if fate < _LATE:
                play.start(_late(store, key, value, expect), chance.expovariate(20))
            calls.append(Call(name, verb, key, start_s, play.now_s, "unknown", value, 0, expect))
            known.pop(key, None)
            continue
        found = key in store.held
        done, revision = store.write(key, value, expect)
        if done and value is not None:
            play.start(_again(store, key, value), chance.expovariate(100))
        yield chance.expovariate(200)
        if fate < _LOST + _LATE + _DEAF:
            calls.append(Call(name, verb, key, start_s, play.now_s, "unknown", value, 0, expect))
            continue
        answer = "ok" if done else "conflict"
        told = revision if done and verb == "put" else 0
        calls.append(Call(name, verb, key, start_s, play.now_s, answer, value, told, expect, found))
        known[key] = revision if done and verb == "put" else 0 if done else revision


def _late(store: Store, key: str, value: Any, expect: int | None) -> Part:
    store.write(key, value, expect)
    return
    yield


def _again(store: Store, key: str, value: Any) -> Part:
    store.again(key, value)
    return
    yield
