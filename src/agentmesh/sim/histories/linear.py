"""Is a history of compare-and-set linearizable? After Wing and Gong 1993, with Lowe's just-in-time order and a memory
(2017).

A history is linearizable if every call can be given one moment between its start and its answer so that, in the order
of these
moments, each answer is what one single copy would have said. A write whose outcome is unknown may take its moment at
any time after its start,
or never. Keys are independent (a store that is linearizable for each key is so as a whole), so each is judged alone.

The judge goes through starts and answers by time and keeps every possible world: which of the open calls took place
already, and what
the copy then holds. An answer strikes out all worlds in which it cannot be. It is exact: no false alarm, and nothing missed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from agentmesh.errors import LimitError

#: Worlds held at once; beyond, the judge gives up and says so.
WORLDS_MAX = 200_000

Verb = Literal["get", "put", "delete"]
Answer = Literal["ok", "conflict", "unknown"]


class Call(NamedTuple):
    """One call of one client on one key.

    Attributes:
        client: Who; for people.
        verb: What.
        key: On what.
        start_s: Before it was sent.
        end_s: After the answer came; what is unknown has none that counts.
        answer: "ok", "conflict" (a put or delete against another revision: nothing was done), or "unknown".
        value: put: what is written. get: what was read, None if there was nothing.
        revision: get, put: of the value, where the store tells; 0 for none or unknown.
        expect: put, delete: the revision that must be there; 0 = nothing there, None = whatever.
        found: delete: whether there was anything.
    """

    client: str
    verb: Verb
    key: str
    start_s: float
    end_s: float
    answer: Answer = "ok"
    value: object = None
    revision: int = 0
    expect: int | None = None
    found: bool = True


class Violation(NamedTuple):
    """What no single copy could have answered."""

    key: str
    call: Call
    why: str

    def __str__(self) -> str:
        call = self.call
        return f"key {self.key}: {call.client} {call.verb} from {call.start_s:.4f} to {call.end_s:.4f} s: {self.why}"


#: What the copy holds: (value, revision), revision 0 where nobody was told it yet; None for nothing.
_Held = tuple[object, int] | None
#: A possible world: which open calls took place, what the copy holds, and the highest revision that was told.
_World = tuple[int, _Held, int]


def check(history: Iterable[Call]) -> list[Violation]:
    """Judge a history of any number of keys.

    Returns:
        The first violation of each key, by key; empty if it is linearizable.

    Raises:
        LimitError: too many calls were open at once to judge (code "history.undecided").
    """
    keys: dict[str, list[Call]] = {}
    for call in history:
        keys.setdefault(call.key, []).append(call)
    found = [_check_key(key, keys[key]) for key in sorted(keys)]
    return [violation for violation in found if violation is not None]


def _check_key(key: str, calls: list[Call]) -> Violation | None:
    # At equal times a start comes before an answer: the two may then have overlapped.
    events: list[tuple[float, int, int]] = []
    for at, call in enumerate(calls):
        if call.answer == "unknown" and call.verb == "get":
            continue  # says nothing, does nothing
        events.append((call.start_s, 0, at))
        if call.answer != "unknown":
            events.append((call.end_s, 1, at))
    events.sort()
    places: dict[int, int] = {}  # open call → its bit
    free: list[int] = []
    worlds: set[_World] = {(0, None, 0)}
    for _, is_end, at in events:
        if not is_end:
            places[at] = 1 << (free.pop() if free else len(places))
            continue
        bit = places[at]
        worlds = _after(worlds, at, bit, calls, places)
        if not worlds:
            return Violation(key, calls[at], _why(calls[at]))
        del places[at]
        free.append(bit.bit_length() - 1)
    return None


def _after(worlds: set[_World], at: int, bit: int, calls: list[Call], places: dict[int, int]) -> set[_World]:
    """Return the worlds in which that call has taken place, its bit free again; each open call may have gone before it."""
    done: set[_World] = set()
    seen = set(worlds)
    stack = list(worlds)
    order = sorted(places.items())
    doubtful = [(place, calls[other].expect or 0) for other, place in order if calls[other].answer == "unknown"]
    while stack:
        mask, held, last = stack.pop()
        if mask & bit:
            done.add(_settled((mask & ~bit, held, last), doubtful))
            continue
        for other, place in order:
            if mask & place:
                continue
            step = _step(calls[other], held)
            if step is None:
                continue
            now = step[0]
            world = (mask | place, now, last if now is None else max(last, now[1]))
            if other == at:
                done.add(_settled((world[0] & ~bit, now, world[2]), doubtful))
            elif world not in seen:
                if len(seen) >= WORLDS_MAX:
                    raise LimitError("too many calls were open at once", code="history.undecided")
                seen.add(world)
                stack.append(world)
    return done


def _settled(world: _World, doubtful: list[tuple[int, int]]) -> _World:
    """Count unknown writes that can never take place any more, because revisions only rise, as done: it is all the same."""
    mask, held, last = world
    there = held[1] if held else 0
    for place, expect in doubtful:
        if 0 < expect <= last and expect != there:
            mask |= place
    return mask, held, last


def _step(call: Call, held: _Held) -> tuple[_Held] | None:
    """Return what the copy holds after a call, or None if it could not have answered so."""
    if call.verb == "get":
        if held is None or call.value is None:
            return (None,) if held is None and call.value is None else None
        value, revision = held
        if value != call.value or (revision and call.revision and revision != call.revision):
            return None
        return ((value, revision or call.revision),)
    there = 0 if held is None else held[1]
    # A revision that nobody was told may be any but 0.
    fits = call.expect is None or (call.expect == there if held is None or there else call.expect != 0)
    misfits = call.expect is not None and (call.expect != there if held is None or there else True)
    if call.answer == "conflict":
        return (held,) if misfits else None
    if not fits:
        return None  # of an unknown write this is the world in which it never took place, which is there already
    if call.verb == "put":
        if call.revision and call.revision <= there:
            return None  # revisions only rise
        return ((call.value, call.revision),)
    if call.answer == "ok" and call.found != (held is not None):
        return None
    return (None,)


def _why(call: Call) -> str:
    if call.verb == "get":
        return f"read {call.value!r} at revision {call.revision}, which was not there at any moment of the call"
    against = "whatever was there" if call.expect is None else f"revision {call.expect}"
    return f"answered {call.answer!r} to a {call.verb} against {against}, which fits no order of the calls"
