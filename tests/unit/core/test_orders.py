"""The orders machine: what it keeps, passes on, asks for and refuses."""

from __future__ import annotations

import random
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.core.messages import PeerDown, PeerUp, Received
from agentmesh.core.orders.book import Book, line_of, slot_of
from agentmesh.core.orders.config import OrdersConfig
from agentmesh.core.orders.machine import OrderSpread
from agentmesh.core.orders.messages import (
    Line,
    LocalOrder,
    Obey,
    OrderHeard,
    Orders,
    OrdersHeld,
    OrdersWanted,
    Slot,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.order import Body, Lists, Order, Resume, Revoke, Stop, read_order, sign_order
from agentmesh.ids import NodeId

NOW = 1_800_000_000
OPERATOR, SECOND = KeyPair.generate(b"O" * 32), KeyPair.generate(b"P" * 32)
STRANGERS = [KeyPair.generate(bytes([i, i >> 8, 7, 7]) * 8) for i in range(1, 60)]
ME, A, B, C = (NodeId(KeyPair.generate(bytes([90 + i]) * 32).did) for i in range(4))
_names = count()


def order(seq: int = 1, body: Body | None = None, key: KeyPair = OPERATOR, *, audience: tuple[str, ...] = ()) -> Order:
    raw = sign_order(key, body or Stop("x"), seq=seq, iat=NOW, jti=f"j{next(_names)}", audience=audience)
    return read_order(raw)


class Bench:
    """One machine with a clock of the test."""

    def __init__(self, *peers: NodeId, **config: Any) -> None:
        config.setdefault("operators", (OPERATOR.did,))
        self.machine = OrderSpread(ME, OrdersConfig(**config), random.Random(1))
        self.now_s = 100.0
        self.timer: tuple[float, Timer] | None = None
        for peer in peers:
            self.give(PeerUp(peer))

    def give(self, incoming: Any) -> Outbox:
        out = Outbox()
        self.machine.handle(incoming, self.now_s, out)
        self.machine.assert_invariants()
        for delay_s, timer in out.timers:
            self.timer = (self.now_s + delay_s, timer)
        return out

    def hear(self, peer: NodeId, message: Any) -> Outbox:
        return self.give(Received(peer, message))

    def tick(self) -> Outbox:
        """Let the next timer fire."""
        assert self.timer is not None
        self.now_s, timer = self.timer
        self.timer = None
        return self.give(timer)


def sent(out: Outbox, to: NodeId, kind: type[Any]) -> list[Any]:
    return [send.message for send in out.sends if send.to == to and type(send.message) is kind]


def misbehaved(out: Outbox) -> list[str]:
    return [event.code for event in out.events if isinstance(event, PeerMisbehaved)]


def heard(out: Outbox) -> list[Order]:
    return [event.order for event in out.events if isinstance(event, OrderHeard)]


def test_a_new_order_goes_to_every_peer_but_the_one_that_brought_it_and_is_told_once() -> None:
    bench, stop = Bench(A, B, C), order()
    out = bench.hear(A, Orders(orders=[stop.raw]))
    assert [one.raw for one in heard(out)] == [stop.raw]
    assert not sent(out, A, Orders)
    assert sent(out, B, Orders) == sent(out, C, Orders) == [Orders(orders=[stop.raw])]
    again = bench.hear(B, Orders(orders=[stop.raw]))
    assert not again.sends
    assert not again.events


def test_a_large_order_is_announced_and_fetched() -> None:
    bench = Bench(A, B)
    large = order(body=Lists(deny=tuple(f"tag:{i:0>100}" for i in range(60))))
    out = bench.hear(A, Orders(orders=[large.raw]))
    (announced,) = sent(out, B, OrdersHeld)
    assert announced == OrdersHeld(lines=[line_of(large)], whole=False)
    other = Bench(C)
    assert sent(other.hear(C, announced), C, OrdersWanted) == [OrdersWanted(slots=[slot_of(large)])]
    answer = bench.hear(B, OrdersWanted(slots=[slot_of(large), slot_of(large), Slot(bytes(32), 0, b"")]))
    assert sent(answer, B, Orders) == [Orders(orders=[large.raw])]


def test_older_orders_and_those_for_single_nodes_that_one_for_all_replaced_are_not_taken() -> None:
    bench = Bench(A)
    narrow, wide, late = order(3, audience=(str(A),)), order(5), order(6, Resume(), audience=(str(B),))
    for one in (narrow, wide, late, order(4), order(4, Resume(), audience=(str(A),)), order(2, audience=(str(C),))):
        bench.hear(A, Orders(orders=[one.raw]))
    assert {held.order.raw for held in bench.machine.book.slots.values()} == {wide.raw, late.raw}


@pytest.mark.parametrize("raw", ["", "a.b.c", "x" * 60_000, "\ud800"])
def test_what_is_no_order_is_held_against_who_sent_it(raw: str) -> None:
    out = Bench(A, B).hear(A, Orders(orders=[raw]))
    assert len(misbehaved(out)) == 1
    assert not out.sends


def test_a_forged_order_is_neither_kept_nor_passed_on_and_costs_one_look() -> None:
    bench, good = Bench(A, B), order()
    forged = good.raw.rpartition(".")[0] + "." + order(9).raw.rpartition(".")[2]
    out = bench.hear(A, Orders(orders=[forged]))
    assert misbehaved(out) == ["signature.invalid"]
    assert not bench.machine.book.slots
    assert not bench.hear(A, Orders(orders=[forged])).events
    assert heard(bench.hear(B, Orders(orders=[good.raw]))), "the true one is still welcome"


def test_a_comparison_brings_what_is_newer_on_either_side_and_nothing_else() -> None:
    ours, theirs, both = order(5), order(7, Revoke()), order(3, Lists())
    here, there = Bench(B), Bench(A)
    for bench, mine in ((here, (ours, both, order(6, Revoke()))), (there, (theirs, both, order(4)))):
        for one in mine:
            bench.give(LocalOrder(one))
    out = here.hear(B, OrdersHeld(lines=there.machine.book.lines()))
    (given,) = sent(out, B, Orders)
    (wanted,) = sent(out, B, OrdersWanted)
    assert given.orders == [ours.raw]
    assert wanted.slots == [slot_of(theirs)]
    there.hear(A, given)
    (answer,) = sent(there.hear(A, wanted), A, Orders)
    here.hear(B, answer)
    assert {line.mark for line in here.machine.book.lines()} == {line.mark for line in there.machine.book.lines()}
    settled = here.hear(B, OrdersHeld(lines=there.machine.book.lines()))
    assert not settled.sends


def test_a_node_compares_when_a_link_comes_up_soon_after_news_and_now_and_then_for_ever() -> None:
    bench = Bench(A)
    assert bench.timer is None, "who holds nothing is silent"
    bench.give(LocalOrder(order()))
    assert sent(bench.give(PeerUp(B)), B, OrdersHeld)
    times = [bench.now_s]
    for _ in range(5):
        assert any(type(send.message) is OrdersHeld for send in bench.tick().sends)
        times.append(bench.now_s)
    pauses = [late - early for early, late in pairwise(times)]
    assert max(pauses[:3]) < 0.5
    assert min(pauses[3:]) > 10


def test_strangers_orders_are_passed_on_within_what_one_peer_may_bring() -> None:
    bench = Bench(A, B, stranger_burst=5.0, stranger_per_s=0.5)
    flood = [order(key=key) for key in STRANGERS[:20]]
    out = bench.hear(A, Orders(orders=[one.raw for one in flood]))
    assert len(sent(out, B, Orders)) == 5
    assert not heard(out)
    assert heard(bench.hear(A, Orders(orders=[order().raw]))), "an operator of ours is taken all the same"
    assert len(sent(bench.hear(B, Orders(orders=[flood[-1].raw])), A, Orders)) == 1, (
        "and other peers have their own share"
    )
    bench.give(PeerDown(A))
    bench.give(PeerUp(A))
    assert not sent(bench.hear(A, Orders(orders=[flood[10].raw])), B, Orders), "a new link forgives nothing"
    bench.now_s += 4
    assert sent(bench.hear(A, Orders(orders=[flood[10].raw])), B, Orders)


def test_when_strangers_are_too_many_who_brought_most_loses_first() -> None:
    bench = Bench(A, B, strangers_max=6, stranger_burst=99.0)
    kept = order(key=STRANGERS[50])
    bench.hear(B, Orders(orders=[kept.raw]))
    for key in STRANGERS[:30]:
        bench.hear(A, Orders(orders=[order(key=key).raw]))
    assert bench.machine.book.get(slot_of(kept)) is not None
    assert len(bench.machine.book.slots) == 6


def test_a_large_order_of_a_stranger_is_not_carried() -> None:
    large = order(body=Lists(deny=tuple(f"tag:{i:0>100}" for i in range(60))), key=SECOND)
    assert not Bench(A, B).hear(A, Orders(orders=[large.raw])).sends


def test_an_operator_that_is_obeyed_later_is_obeyed_with_what_is_held() -> None:
    bench, stop = Bench(A), order(key=SECOND)
    assert not heard(bench.hear(A, Orders(orders=[stop.raw])))
    out = bench.give(Obey((OPERATOR.did, SECOND.did)))
    assert [one.raw for one in heard(out)] == [stop.raw]
    assert not heard(bench.give(Obey((OPERATOR.did, SECOND.did))))


@pytest.mark.parametrize(
    "message",
    [
        Orders(orders=["x"] * 65),
        OrdersWanted(slots=[Slot(bytes(32), 0, b"")] * 513),
        OrdersHeld(lines=[Line(Slot(bytes(32), 0, b""), 1, bytes(8))] * 513),
        OrdersHeld(lines=[Line(Slot(bytes(31), 0, b""), 1, bytes(8))]),
        OrdersHeld(lines=[Line(Slot(bytes(32), 3, b""), 1, bytes(8))]),
        OrdersHeld(lines=[Line(Slot(bytes(32), 0, b"1"), 1, bytes(8))]),
        OrdersHeld(lines=[Line(Slot(bytes(32), 0, b""), -1, bytes(8))]),
        OrdersHeld(lines=[Line(Slot(bytes(32), 0, b""), 1, b"")]),
    ],
)
def test_messages_out_of_bounds_are_held_against_who_sent_them(message: Any) -> None:
    out = Bench(A).hear(A, message)
    assert len(misbehaved(out)) == 1
    assert not out.sends


_pool = [
    order(seq, body, key, audience=audience)
    for key in (OPERATOR, SECOND, *STRANGERS[:6])
    for seq in (1, 2, 3)
    for body in (Stop(f"s{seq}"), Resume(), Revoke())
    for audience in ((), (str(A),), (str(B),))
]


@settings(max_examples=60)
@given(st.permutations(range(len(_pool))))
def test_whatever_the_order_in_which_they_come_all_hold_the_same_of_those_they_obey(sequence: list[int]) -> None:
    config = OrdersConfig(operators=(OPERATOR.did, SECOND.did), strangers_max=7)
    book, straight = Book(config), Book(config)
    for at in sequence:
        if book.is_news(_pool[at]):
            book.put(_pool[at], A)
        book.assert_invariants()
    for one in _pool:
        if straight.is_news(one):
            straight.put(one, A)
    ours = {slot: held.order.rank for slot, held in book.slots.items() if book.obeys(held.order.operator)}
    assert ours == {s: h.order.rank for s, h in straight.slots.items() if straight.obeys(h.order.operator)}


@settings(max_examples=60)
@given(st.lists(st.integers(0, len(_pool) - 1), max_size=60))
def test_within_a_slot_nothing_ever_goes_back(picks: list[int]) -> None:
    book = Book(OrdersConfig(operators=(OPERATOR.did,)))
    best: dict[Slot, Any] = {}
    for pick in picks:
        if book.is_news(_pool[pick]):
            book.put(_pool[pick], A)
        for slot, held in book.slots.items():
            if book.obeys(held.order.operator):
                assert held.order.rank >= best.get(slot, held.order.rank)
                best[slot] = held.order.rank
