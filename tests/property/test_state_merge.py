"""Every type of shared state against a dumb model: any order, any duplication, any grouping of changes and whole copies."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentmesh.core.state import types
from agentmesh.core.state.causality import Dot
from agentmesh.core.state.cell import Cell
from agentmesh.core.state.ops import COUNTER, LIST, LWW, MAP, REGISTER, SET, TEXT, Op
from agentmesh.errors import MeshError, StateError

WRITERS = [bytes([65 + at]) * 16 for at in range(5)]
small = st.integers(0, 3)
CHANGES: dict[str, st.SearchStrategy[Op]] = {
    REGISTER: st.builds(
        Op, op=st.sampled_from(["set", "set", "set", "resolve", "delete"]), type=st.just(REGISTER), value=small
    ),
    LWW: st.builds(Op, op=st.sampled_from(["set", "set", "set", "resolve", "delete"]), type=st.just(LWW), value=small),
    MAP: st.builds(
        Op,
        op=st.sampled_from(["put", "put", "remove", "resolve"]),
        type=st.just(MAP),
        field=st.sampled_from(["a", "b"]),
        value=small,
    ),
    COUNTER: st.builds(Op, op=st.just("increment"), type=st.just(COUNTER), by=st.integers(-3, 3)),
    SET: st.builds(Op, op=st.sampled_from(["add", "add", "discard"]), type=st.just(SET), value=small),
    LIST: st.builds(Op, op=st.sampled_from(["insert", "insert", "delete"]), type=st.just(LIST), value=small),
    TEXT: st.builds(
        Op, op=st.sampled_from(["insert", "insert", "delete"]), type=st.just(TEXT), value=st.sampled_from("abc")
    ),
}
DELETE = Op(op="delete")


class Write(NamedTuple):
    """What the model knows of a write: who and what, and the writes that it replaced."""

    at: int
    change: Op
    replaced: frozenset[int]
    stamp: int


class Net:
    """Replicas that write, and hand changes and whole copies to each other; beside each the set of writes it has heard of."""

    def __init__(self, count: int) -> None:
        self.cells: list[Cell | None] = [None] * count
        self.known: list[set[int]] = [set() for _ in range(count)]
        self.writes: list[Write] = []
        self.deltas: list[Cell] = []
        self.used = [0] * count

    def live(self, at: int, path: str | None = None) -> set[int]:
        """Return the writes that a replica must show: heard of, not replaced by another one heard of, no removal."""
        known = self.known[at]
        gone = set().union(*(self.writes[n].replaced for n in known)) if known else set()
        return {
            n
            for n in known - gone
            if self.writes[n].change.op not in ("delete", "remove", "discard")
            or (self.writes[n].change.op == "delete" and self.writes[n].change.type == LWW)
            if path is None or _path(self.writes[n].change) == path
        }

    def write(self, at: int, change: Op, gap: int, stamp: int) -> None:
        cell = self.cells[at]
        dot = Dot(WRITERS[at], self.used[at] + gap)
        try:
            after, delta = types.apply(cell, change, dot, stamp)
        except StateError:
            return
        assert types.merge(cell, delta) == after  # the change says all that happened
        if cell is not None:
            assert types.merge(cell, delta).cost == after.cost
            assert types.merge(after, cell) == after  # monotone: the old state adds nothing
        assert types.decode(types.encode(after)) == after
        assert len(types.encode(after)) <= after.cost
        self.used[at] = dot.n
        there = self.live(at) if change.op == "delete" else self.live(at, _path(change))
        if (change.op == "set" and change.type == REGISTER) or change.op == "put":
            there = {max(there, key=lambda n: (self.writes[n].stamp, WRITERS[self.writes[n].at]))} if there else set()
        elif change.op == "increment":
            there = set()
        self.known[at].add(len(self.writes))
        self.writes.append(Write(at, change, frozenset(there), delta.stamp))
        self.deltas.append(types.decode(types.encode(delta)))
        self.cells[at] = after

    def deliver(self, to: int, which: int) -> None:
        if self.deltas:
            which %= len(self.deltas)
            self.cells[to] = types.merge(self.cells[to], self.deltas[which])
            self.known[to].add(which)
            if self.writes[which].change.op == "increment":  # a sum says what was counted before, too
                self.known[to] |= {n for n in range(which) if self.writes[n].at == self.writes[which].at}

    def copy(self, to: int, source: int) -> None:
        cell = self.cells[source]
        if cell is not None:
            self.cells[to] = types.merge(self.cells[to], cell)
            self.known[to] |= self.known[source]


def _path(change: Op) -> str:
    return change.field if change.type == MAP else repr(change.value) if change.type == SET else ""


def steps(kind: str) -> st.SearchStrategy[list[Any]]:
    at = st.integers(0, 4)
    return st.lists(
        st.one_of(
            st.tuples(st.just("write"), at, CHANGES[kind], st.integers(1, 3), st.integers(0, 40)),
            st.tuples(st.just("deliver"), at, st.integers(0, 99)),
            st.tuples(st.just("copy"), at, at),
        ),
        max_size=25,
    )


def check(net: Net, at: int, kind: str) -> None:
    """Compare what a replica shows with what the writes that it has heard of say."""
    cell, live = net.cells[at], net.live(at)
    writes = net.writes
    top = lambda of: max(of, key=lambda n: (writes[n].stamp, WRITERS[writes[n].at]))  # noqa: E731
    shown = types.value(cell)
    if kind == REGISTER:
        assert shown == (writes[top(live)].change.value if live else None)
        expected = sorted(writes[n].change.value for n in live)
        assert sorted(one.value for one in types.siblings(cell)) == (expected if len(live) > 1 else [])
    elif kind == LWW:
        gone = not live or writes[top(live)].change.op == "delete"
        assert shown == (None if gone else writes[top(live)].change.value)
    elif kind == MAP:
        fields = sorted({_path(writes[n].change) for n in live})
        assert (shown or {}) == {field: writes[top(net.live(at, field))].change.value for field in fields}
        several = [n for n in live if len(net.live(at, _path(writes[n].change))) > 1]
        expected = sorted(repr({_path(writes[n].change): writes[n].change.value}) for n in several)
        assert sorted(repr(one.value) for one in types.siblings(cell)) == expected
    elif kind == SET:
        assert sorted(shown or []) == sorted({writes[n].change.value for n in live})
    elif kind == COUNTER:
        assert (shown or 0) == sum(writes[n].change.by for n in net.known[at])


@pytest.mark.parametrize("kind", [REGISTER, LWW, MAP, COUNTER, SET])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_replicas_show_what_the_writes_that_they_heard_of_say_in_any_order(kind: str, data: st.DataObject) -> None:
    net = run(5, data.draw(steps(kind)))
    for at in range(5):
        check(net, at, kind)
    settle(net, data)
    check(net, 0, kind)


@pytest.mark.parametrize("kind", [LIST, TEXT])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_documents_agree_however_edits_arrive_and_keep_every_insertion(kind: str, data: st.DataObject) -> None:
    pytest.importorskip("loro")
    net = run(4, data.draw(steps(kind)))
    settle(net, data)
    if not any(write.change.op == "delete" for write in net.writes):
        inserted = sorted(str(write.change.value) for write in net.writes)
        assert sorted(str(item) for item in types.value(net.cells[0]) or []) == inserted


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_two_types_for_one_new_key_agree_on_one_and_list_the_other(data: st.DataObject) -> None:
    kinds = st.sampled_from([REGISTER, LWW, MAP, COUNTER, SET])
    mixed = kinds.flatmap(lambda kind: st.one_of(CHANGES[kind], st.just(DELETE)))
    net = Net(3)
    for at, change, to in data.draw(st.lists(st.tuples(st.integers(0, 2), mixed, st.integers(0, 2)), max_size=12)):
        cell = net.cells[at]
        try:
            after, delta = types.apply(cell, change, Dot(WRITERS[at], net.used[at] + 1), len(net.deltas))
        except MeshError as error:
            assert error.code == "state.type"  # noqa: PT017
            continue
        assert types.merge(cell, delta) == after
        net.used[at] += 1
        net.deltas.append(delta)
        net.cells[at] = after
        net.cells[to] = types.merge(net.cells[to], delta)
    settle(net, data)
    cell = net.cells[0]
    kinds_there = [
        kind for kind in (cell.parts if cell else {}) if types.exists(Cell(cell.seen, {kind: cell.parts[kind]}, 0))
    ]
    if len(kinds_there) > 1:
        assert {type(one.value).__name__ for one in types.siblings(cell)}
        assert len(types.siblings(cell)) >= len(kinds_there)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_join_is_commutative_associative_and_idempotent(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([REGISTER, LWW, MAP, COUNTER, SET]))
    net = run(
        3,
        data.draw(
            steps(kind).map(
                lambda some: [
                    (one[0], one[1] % 3, *[n % 3 if one[0] == "copy" else n for n in one[2:]]) for one in some
                ]
            )
        ),
    )
    cells = [cell for cell in [*net.cells, *net.deltas] if cell is not None]
    if len(cells) < 3:
        return
    one, two, six = (data.draw(st.sampled_from(cells)) for _ in range(3))
    assert types.merge(one, two) == types.merge(two, one)
    assert types.merge(types.merge(one, two), six) == types.merge(one, types.merge(two, six))
    assert types.merge(one, one) is one
    both = types.merge(one, two)
    assert types.merge(both, one) is both
    assert types.encode(types.merge(one, two)) == types.encode(types.merge(two, one))


def run(count: int, program: list[Any]) -> Net:
    net = Net(count)
    for verb, at, *rest in program:
        if verb == "write":
            net.write(at % count, *rest)
        elif verb == "deliver":
            net.deliver(at % count, *rest)
        else:
            net.copy(at % count, rest[0] % count)
    return net


def settle(net: Net, data: st.DataObject) -> None:
    """Hand everything to everybody, to each in an order of its own, some of it twice; all must agree."""
    chance = random.Random(data.draw(st.integers(0, 1 << 32)))
    for at in range(len(net.cells)):
        order = list(range(len(net.deltas)))
        chance.shuffle(order)
        cell = net.cells[at]
        for which in order:
            cell = types.merge(cell, net.deltas[which])
        for which in order[: len(order) // 2]:
            cell = types.merge(cell, net.deltas[which])
        net.cells[at] = cell
        net.known[at] = set(range(len(net.deltas)))
    first = net.cells[0]
    for other in net.cells[1:]:
        assert other == first
        assert types.value(other) == types.value(first)
        assert types.siblings(other) == types.siblings(first)
    if first is not None:
        assert {types.encode(cell) for cell in net.cells if cell is not None} == {types.encode(first)}
