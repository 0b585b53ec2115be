"""The contacts machine: addresses, dialling, floods, clocks, and what was lost."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.contacts.book import WORDS, Book
from agentmesh.core.contacts.config import ContactsConfig
from agentmesh.core.contacts.machine import Contacts
from agentmesh.core.contacts.messages import ClockSkew, CutOff, DialWanted, ForgetContact, HangUp, StoreContact
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer, WallTime
from agentmesh.core.messages import (
    AddressHint,
    MemberAlive,
    MemberDead,
    MemberLeft,
    NeighbourDown,
    NeighbourUp,
    NodeHeard,
    PeerDown,
    PeerUp,
)
from agentmesh.identity.node_record import NodeRecord, node_body, read_node_record, sign_node_record
from agentmesh.ids import NodeId
from tests.support.records import EPOCH, key

KEYS = {NodeId(key(1000 + n).did): key(1000 + n) for n in range(60)}
NODES = sorted(KEYS)
ME, A, B, C = NODES[0], NODES[1], NODES[2], NODES[3]


def record_of(node: NodeId, *addresses: str, seq: int = 1) -> NodeRecord:
    body = node_body(seq=seq, iat=EPOCH, wire=1, addresses=addresses)
    return read_node_record(sign_node_record(KEYS[node], body), now=EPOCH)


class Bench:
    """A machine with a clock that tests turn by hand; timers fire when their time comes."""

    def __init__(self, node: NodeId = ME, **config: Any) -> None:
        self.now_s = 50.0
        self.wall = WallTime()
        self.wall.set(EPOCH, self.now_s)
        self.machine = Contacts(node, ContactsConfig(**config), random.Random(3), self.wall)
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0

    def feed(self, incoming: Any) -> Outbox:
        out = Outbox()
        self.machine.handle(incoming, self.now_s, out)
        return self.took(out)

    def took(self, out: Outbox) -> Outbox:
        self.machine.assert_invariants()
        for delay_s, timer in out.timers:
            self._count += 1
            self._timers.append((self.now_s + delay_s, self._count, timer))
        return out

    def run(self, seconds: float) -> list[tuple[float, Any]]:
        """Let time pass; return (seconds since the start, event) as they come."""
        start_s, end_s = self.now_s, self.now_s + seconds
        events: list[tuple[float, Any]] = []
        while due := [t for t in self._timers if t[0] <= end_s]:
            first = min(due, key=lambda t: t[:2])
            self._timers.remove(first)
            self.now_s = max(self.now_s, first[0])
            events += [(self.now_s - start_s, event) for event in self.feed(first[2]).events]
        self.now_s = end_s
        return events

    def up(self, peer: NodeId, *addresses: str, source: Any = "link") -> Outbox:
        return self.feed(PeerUp(peer, addresses, source))

    def clock(self, peer: NodeId, off_s: float) -> list[Any]:
        out = Outbox()
        self.machine.note_clock(peer, int((self.wall.unix_s(self.now_s) + off_s) * 1000), self.now_s, out)
        return self.took(out).events


def dials(events: list[Any]) -> list[DialWanted]:
    return [event for event in events if isinstance(event, DialWanted)]


def test_a_named_seed_is_dialled_at_once_and_again_ever_later_until_it_is_up() -> None:
    bench = Bench()
    assert dials(bench.feed(AddressHint(A, ("memory:a",), "static")).events) == [DialWanted(A, ("memory:a",))]
    times = [at for at, _ in bench.run(300)]
    waits = [b - a for a, b in pairwise([0.0, *times])]
    assert waits[0] <= 1.3
    assert all(later > sooner for sooner, later in pairwise(waits[:5]))
    assert max(waits) <= 60 * 1.3
    bench.up(A, "memory:a")
    assert not dials([event for _, event in bench.run(300)])


def test_a_lost_neighbour_is_dialled_again_within_a_second() -> None:
    bench = Bench()
    bench.up(A, "memory:a")
    bench.feed(NeighbourUp(A, zone=True))
    bench.feed(PeerDown(A))
    assert bench.run(1.0)[0][1] == DialWanted(A, ("memory:a",))


def test_of_two_nodes_that_hear_of_each_other_on_the_lan_the_higher_id_waits_a_moment() -> None:
    low, high = Bench(ME), Bench(NODES[-1])
    assert dials(low.feed(AddressHint(NODES[-1], ("memory:z",), "mdns")).events)
    assert not dials(high.feed(AddressHint(ME, ("memory:me",), "mdns")).events)
    assert dials([event for _, event in high.run(0.6)])


def test_a_node_known_by_hearsay_is_forgotten_after_eight_dials_in_vain() -> None:
    bench = Bench()
    first = dials(bench.feed(AddressHint(A, ("memory:a",), "peer")).events)
    later = dials([event for _, event in bench.run(3600)])
    assert len(first) + len(later) == 8
    assert bench.machine.addresses_of(A) == ()


def test_neighbours_are_dialled_and_strangers_are_not_once_there_are_links() -> None:
    bench = Bench(links_min=2)
    for node in NODES[10:12]:
        bench.up(node, "memory:x")
    bench.feed(NodeHeard(record_of(A, "memory:a"), B))
    assert not dials([event for _, event in bench.run(60)])
    assert dials(bench.feed(NeighbourUp(A, zone=False)).events + [e for _, e in bench.run(1)])
    bench.feed(NeighbourUp(B, zone=False))
    assert dials(bench.feed(NodeHeard(record_of(B, "memory:b"), A)).events), "its address came later"


def test_contacts_of_an_earlier_run_are_dialled_only_until_there_are_links() -> None:
    bench = Bench(links_min=2, dials_at_once=1)
    for number, node in enumerate(NODES[5:20]):
        bench.feed(AddressHint(node, (f"memory:{number}",), "stored"))
    bench.up(NODES[5], "memory:0")
    bench.up(NODES[6], "memory:1")
    bench.run(1.0)
    assert not dials([event for _, event in bench.run(600)])


def test_dials_are_spread_out() -> None:
    bench = Bench(dials_at_once=4)
    times = [0.0] * len(dials([e for n in NODES[1:21] for e in bench.feed(AddressHint(n, ("m:a",), "static")).events]))
    times += [at for at, event in bench.run(10) if isinstance(event, DialWanted)]
    assert all(sum(start <= at < start + 1.0 for at in times) <= 5 for start in times)
    assert len(times) >= 20


def test_hearsay_never_displaces_a_proven_address() -> None:
    bench = Bench(addresses_max=2)
    bench.up(A, "memory:proven", "memory:said")
    for number in range(10):
        bench.feed(AddressHint(A, (f"memory:lie{number}",), "peer"))
    assert bench.machine.addresses_of(A)[0] == "memory:proven"
    assert bench.machine.addresses_of(A) == ("memory:proven", "memory:said")


def test_gossip_about_a_lost_node_does_not_hurry_its_dials() -> None:
    def dialled(gossip: bool) -> int:
        bench = Bench()
        bench.feed(AddressHint(A, ("memory:a",), "static"))
        count = 0
        for second in range(120):
            if gossip:
                bench.feed(AddressHint(A, (f"memory:{second}",), "peer"))
            count += len(dials([event for _, event in bench.run(1)]))
        return count

    assert dialled(gossip=True) == dialled(gossip=False)


@pytest.mark.parametrize("address", ["", "no scheme", "UPPER:x", "memory:", "memory:" + "x" * 300, "memory:with space"])
def test_malformed_addresses_are_passed_over(address: str) -> None:
    bench = Bench()
    bench.feed(AddressHint(A, (address, "memory:good"), "static"))
    assert bench.machine.addresses_of(A) == ("memory:good",)


def test_records_that_pass_by_fill_only_their_share_of_the_book() -> None:
    bench = Bench(heard_max=4, contacts_max=8)
    bench.feed(AddressHint(A, ("memory:a",), "static"))
    for node in NODES[2:40]:
        bench.feed(NodeHeard(record_of(node, "memory:n"), A))
    assert len(bench.machine.book.known) == 5
    assert bench.machine.addresses_of(A) == ("memory:a",)
    assert bench.machine.addresses_of(NODES[39]) == ("memory:n",), "the newest are kept"


def test_hints_about_ourselves_are_passed_over() -> None:
    bench = Bench()
    bench.feed(AddressHint(ME, ("memory:me",), "static"))
    bench.feed(NodeHeard(record_of(ME, "memory:me"), A))
    bench.up(ME, "memory:me")
    assert not bench.machine.book.known


def test_a_contact_is_stored_when_its_link_comes_up_and_forgotten_after_a_day() -> None:
    bench = Bench()
    assert bench.up(A, "memory:a").records == [StoreContact(A, ("memory:a",))]
    bench.feed(PeerDown(A))
    bench.now_s += 86_400 + 120
    out = bench.feed(Timer("contacts.tend"))
    assert out.records == [ForgetContact(A)]
    assert bench.machine.addresses_of(A) == ()


@pytest.mark.parametrize(("off_s", "told"), [(0, False), (40, False), (3600, True), (-3600, True)])
def test_a_clock_off_by_an_hour_is_reported_when_it_begins_and_when_it_ends(off_s: int, told: bool) -> None:
    bench = Bench()
    bench.up(A, "memory:a")
    events = bench.clock(A, off_s)
    assert bool(events) is told
    assert not bench.clock(A, off_s), "told once"
    if told:
        assert isinstance(events[0], ClockSkew)
        assert abs(events[0].skew_s - off_s) <= 1
        assert bench.clock(A, 0) == [ClockSkew(A, 0.0)]


def test_a_flood_is_dropped_and_reported_once_and_others_are_still_heard() -> None:
    bench = Bench(messages_per_s=10, messages_burst=20)
    out = Outbox()
    guard = bench.machine.guard
    admitted = sum(guard.admits(A, "Ping", 1, bench.now_s, out) for _ in range(1000))
    assert admitted == 20
    assert [type(e) for e in out.events] == [PeerMisbehaved]
    assert out.events[0].code == "peer.flood"
    assert guard.admits(B, "Ping", 1, bench.now_s, out)
    assert guard.admits(A, "Ping", 1, bench.now_s + 1, out)


def test_entries_count_as_well_as_messages() -> None:
    bench = Bench(items_per_s=10, items_burst=100)
    out = Outbox()
    assert bench.machine.guard.admits(A, "Records", 100, bench.now_s, out)
    assert not bench.machine.guard.admits(A, "Records", 50, bench.now_s, out)


def test_a_thousand_senders_cannot_make_the_guard_grow() -> None:
    bench = Bench(guards_max=16)
    out = Outbox()
    for node in NODES:
        assert bench.machine.guard.admits(node, "Ping", 1, bench.now_s, out)
    bench.machine.assert_invariants()


def test_links_that_nobody_wants_are_given_up_beyond_the_limit_longest_first() -> None:
    bench = Bench(links_spare_max=1)
    for node in NODES[1:7]:
        bench.up(node, "memory:x")
        bench.now_s += 1
    bench.feed(NeighbourUp(NODES[1], zone=True))
    bench.feed(AddressHint(NODES[2], ("memory:x",), "static"))
    assert [e for _, e in bench.run(31) if isinstance(e, HangUp)] == [
        HangUp(NODES[3]),
        HangUp(NODES[4]),
        HangUp(NODES[5]),
    ]


class TestCutOff:
    """What a node knows when much of the mesh is gone."""

    def test_one_lost_node_of_many_is_no_partition(self) -> None:
        bench = self.meshed(10)
        assert not bench.feed(MemberDead(NODES[1], 1)).events or bench.machine.cut_off() is None

    def test_half_of_the_nodes_lost_is_told_with_counts_and_time(self) -> None:
        bench = self.meshed(10)
        at_s = bench.now_s
        for node in NODES[1:6]:
            bench.feed(MemberDead(node, 1))
            bench.now_s += 1
        assert bench.machine.cut_off() == CutOff(5, 10, at_s, isolated=False)

    def test_a_node_that_lost_everybody_is_isolated(self) -> None:
        bench = self.meshed(2)
        events = [e for n in NODES[1:3] for e in bench.feed(MemberDead(n, 1)).events + bench.feed(PeerDown(n)).events]
        events += [e for n in NODES[1:3] for e in bench.feed(NeighbourDown(n)).events]
        assert CutOff(2, 2, bench.now_s, isolated=True) in events

    def test_who_left_on_purpose_is_not_lost(self) -> None:
        bench = self.meshed(2)
        bench.feed(MemberLeft(NODES[1], 1))
        bench.feed(PeerDown(NODES[1]))
        assert bench.machine.cut_off() is None

    @pytest.mark.parametrize("back", [lambda n: MemberAlive(n), lambda n: PeerUp(n, ("memory:x",), "link")])
    def test_the_verdict_ends_when_the_lost_come_back(self, back: Any) -> None:
        bench = self.meshed(3)
        for node in NODES[1:4]:
            bench.feed(MemberDead(node, 1))
        assert bench.machine.cut_off() is not None
        ended = [e for n in NODES[1:4] for e in bench.feed(back(n)).events if isinstance(e, CutOff)]
        assert ended[-1].lost == 0
        assert bench.machine.cut_off() is None

    def test_lost_nodes_are_dialled_in_turn_every_other_second_until_they_answer(self) -> None:
        bench = self.meshed(8)
        for node in NODES[1:9]:
            bench.feed(MemberDead(node, 1))
            bench.feed(NeighbourDown(node))
            bench.feed(PeerDown(node))
        dialled = dials([e for _, e in bench.run(60)])
        assert {d.node_id for d in dialled} == set(NODES[1:9])
        assert len(dialled) >= 60 / 2.4

    def test_an_old_loss_counts_no_longer_while_others_are_in_touch(self) -> None:
        bench = self.meshed(3)
        bench.feed(MemberDead(NODES[1], 1))
        assert bench.machine.cut_off() is not None
        told = [e for _, e in bench.run(1_000) if isinstance(e, CutOff)]
        assert told[-1].lost == 0
        assert bench.machine.cut_off() is None
        assert bench.machine.lost() == [NODES[1]]

    def test_an_isolated_node_says_so_for_as_long_as_it_is(self) -> None:
        bench = self.meshed(2)
        for node in NODES[1:3]:
            bench.feed(MemberDead(node, 1))
            bench.feed(NeighbourDown(node))
            bench.feed(PeerDown(node))
        bench.run(5_000)
        verdict = bench.machine.cut_off()
        assert verdict is not None
        assert verdict.isolated

    @staticmethod
    def meshed(count: int) -> Bench:
        bench = Bench(links_min=0)
        for node in NODES[1 : count + 1]:
            bench.up(node, "memory:x")
            bench.feed(NeighbourUp(node, zone=True))
        return bench


@given(
    st.lists(
        st.tuples(
            st.sampled_from(NODES[:12]),
            st.lists(st.sampled_from([f"m:{n}" for n in range(9)]), max_size=4),
            st.sampled_from([*WORDS, "heard"]),
        ),
        max_size=60,
    )
)
def test_the_book_keeps_its_bounds_and_best_words_whatever_is_said(said: list[tuple[NodeId, list[str], str]]) -> None:
    book = Book(ContactsConfig(contacts_max=6, heard_max=3, addresses_max=3))
    for now_s, (node, addresses, source) in enumerate(said):
        known = book.known.get(node)
        before = known.best if known is not None else len(WORDS)
        if source == "heard":
            book.hear(node, tuple(addresses), now_s)
        else:
            book.note(node, addresses, source, now_s)
        book.assert_invariants()
        if known is not None and book.known.get(node) is known:
            assert known.best <= before
