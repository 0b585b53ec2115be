"""The exchange machine: contacts, dialling, silence, floods."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.brain import Brain, BrainConfig
from agentmesh.core.directory.messages import Digest
from agentmesh.core.exchange.config import ExchangeConfig
from agentmesh.core.exchange.contacts import WORDS, Contacts
from agentmesh.core.exchange.messages import (
    Bye,
    ClockSkew,
    DialWanted,
    PeerHint,
    PeerLeft,
    Peers,
    PeerSilent,
    Ping,
    Pong,
    StoreContact,
)
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.core.messages import AddressHint, Leaving, PeerDown, PeerUp, Received, WallClock
from agentmesh.ids import NodeId
from tests.support.brains import EPOCH, key

NODES = sorted(NodeId(key(1000 + n).did) for n in range(60))
ME, A, B, C = NODES[0], NODES[1], NODES[2], NODES[3]


class Bench:
    """A brain with a clock that tests turn by hand; timers fire when their time comes."""

    def __init__(self, node: NodeId = ME, **config: Any) -> None:
        self.now_s = 50.0
        self.brain = Brain(node, BrainConfig(exchange=ExchangeConfig(**config)), random.Random(3))
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        self.feed(WallClock(EPOCH))

    def feed(self, incoming: Any) -> Outbox:
        out = Outbox()
        self.brain.handle(incoming, self.now_s, out)
        self.brain.assert_invariants()
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

    def addresses(self, node: NodeId) -> tuple[str, ...]:
        return self.brain.addresses_of(node)


def dials(events: list[Any]) -> list[DialWanted]:
    return [event for event in events if isinstance(event, DialWanted)]


def to(out: Outbox, peer: NodeId, kind: type[Any]) -> list[Any]:
    return [message for node, message, *_ in out.sends if node == peer and isinstance(message, kind)]


def test_a_brain_wants_to_know_the_time_first() -> None:
    brain = Brain(ME, BrainConfig(), random.Random(1))
    with pytest.raises(AssertionError, match="WallClock"):
        brain.handle(PeerUp(A), 0.0, Outbox())


def test_a_named_seed_is_dialled_at_once_and_again_ever_later_until_it_is_up() -> None:
    bench = Bench()
    out = bench.feed(AddressHint(A, ("tls:192.0.2.1:1",), "static"))
    assert dials(out.events) == [DialWanted(A, ("tls:192.0.2.1:1",))]
    times = [at for at, event in bench.run(600) if isinstance(event, DialWanted)]
    gaps = [later - earlier for earlier, later in pairwise([0.0, *times])]
    assert 0.6 <= gaps[0] <= 1.5
    assert all(later > earlier * 1.05 for earlier, later in pairwise(gaps[:5]))
    assert max(gaps) <= 60 * 1.3 + 1
    assert len(times) >= 10, "a seed is never given up"
    bench.up(A, "tls:192.0.2.1:1")
    assert not dials([event for _, event in bench.run(300)])


def test_a_lost_peer_is_dialled_again_within_a_second() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    bench.feed(PeerDown(A))
    times = [at for at, event in bench.run(2) if isinstance(event, DialWanted)]
    assert times
    assert times[0] <= 1.0


def test_of_two_nodes_that_hear_of_each_other_the_higher_id_waits_a_moment() -> None:
    low, high = Bench(ME), Bench(A)
    assert dials(low.feed(AddressHint(A, ("tls:192.0.2.1:1",), "mdns")).events)
    assert not dials(high.feed(AddressHint(ME, ("tls:192.0.2.2:1",), "mdns")).events)
    assert dials([event for _, event in high.run(0.6)])
    assert dials(Bench(A).feed(AddressHint(ME, ("tls:192.0.2.2:1",), "static")).events), (
        "a seed is dialled without delay"
    )


def test_a_node_known_by_hearsay_is_forgotten_after_eight_dials_in_vain() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    bench.feed(Received(A, Peers(peers=[PeerHint(B, ["tls:192.0.2.9:1"])])))
    bench.run(0.1)
    for _ in range(40):
        bench.feed(Received(A, Pong(nonce=0)))  # keeps the link alive
        bench.run(15)
    assert [c.node_id for c in bench.brain.contacts()] == [A]


def test_no_more_links_are_sought_than_wanted_except_to_named_nodes() -> None:
    bench = Bench(links_max=2)
    bench.up(A, "tls:192.0.2.1:1")
    bench.up(B, "tls:192.0.2.2:1")
    assert not dials(bench.feed(AddressHint(C, ("tls:192.0.2.3:1",), "mdns")).events)
    assert not dials([event for _, event in bench.run(30)])
    assert dials(bench.feed(AddressHint(NODES[4], ("tls:192.0.2.4:1",), "static")).events)
    bench.feed(PeerDown(A))
    assert {d.node_id for d in dials([e for _, e in bench.run(5)])} >= {C}


def test_dials_are_spread_out() -> None:
    bench = Bench(dials_at_once=4)
    bench.up(A, "tls:192.0.2.1:1")
    hints = [PeerHint(node, ["tls:192.0.2.9:1"]) for node in NODES[10:50]]
    out = bench.feed(Received(A, Peers(peers=hints)))
    assert len(dials(out.events)) <= 4
    later = [at for at, event in bench.run(5) if isinstance(event, DialWanted)]
    assert len(later) <= 4 * 6


def test_connected_nodes_are_told_of_each_other_at_once() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    out = bench.up(B, "tls:192.0.2.2:1", "ws:ws://192.0.2.2/mesh")
    assert to(out, A, Peers) == [Peers(peers=[PeerHint(B, ["tls:192.0.2.2:1", "ws:ws://192.0.2.2/mesh"])])]
    assert to(out, B, Peers) == [Peers(peers=[PeerHint(A, ["tls:192.0.2.1:1"])])]
    assert out.records == [StoreContact(B, ("tls:192.0.2.2:1", "ws:ws://192.0.2.2/mesh"))]


def test_hearsay_is_dialled_but_not_passed_on() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    heard = bench.feed(Received(A, Peers(peers=[PeerHint(B, ["tls:192.0.2.9:1"])])))
    assert dials(heard.events) == [DialWanted(B, ("tls:192.0.2.9:1",))]
    told = to(bench.up(C, "tls:192.0.2.3:1"), C, Peers)
    assert [hint.node_id for message in told for hint in message.peers] == [A]


def test_gossip_never_displaces_a_proven_address() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    bench.up(B, "tls:192.0.2.2:1")
    for n in range(20):
        lies = [f"tls:203.0.113.{n}:{port}" for port in range(1, 9)]
        bench.feed(Received(B, Peers(peers=[PeerHint(A, lies)])))
    assert bench.addresses(A)[0] == "tls:192.0.2.1:1"
    assert len(bench.addresses(A)) == 8
    bench.feed(PeerDown(A))
    (wanted,) = dials([event for _, event in bench.run(0.9)])
    assert wanted.addresses[0] == "tls:192.0.2.1:1"


def test_gossip_that_repeats_a_proven_address_does_not_lower_its_worth() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    bench.up(B, "tls:192.0.2.2:1")
    bench.feed(Received(B, Peers(peers=[PeerHint(A, ["tls:192.0.2.1:1"])])))
    contact = next(c for c in bench.brain.contacts() if c.node_id == A)
    assert contact.source == "link"
    assert contact.shared == ["tls:192.0.2.1:1"]


def test_an_address_heard_on_the_lan_only_is_not_passed_on() -> None:
    bench = Bench()
    bench.feed(AddressHint(A, ("tls:192.0.2.1:1",), "mdns"))
    bench.up(A, source="peer")
    told = to(bench.up(B, "tls:192.0.2.2:1"), B, Peers)
    assert told == [Peers(peers=[])]


def test_gossip_about_a_lost_node_does_not_hurry_its_dials() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    bench.feed(AddressHint(B, ("tls:192.0.2.2:1",), "static"))
    bench.run(60)
    bench.feed(Received(A, Pong(nonce=0)))
    for n in range(50):
        assert not dials(bench.feed(Received(A, Peers(peers=[PeerHint(B, [f"tls:203.0.113.{n}:1"])]))).events)
    assert dials(bench.feed(AddressHint(B, ("tls:192.0.2.77:1",), "mdns")).events), "a better word does"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "192.0.2.1:1",
        "tls:",
        "tls:a b",
        "tls:\x1b[0m",
        "TLS:192.0.2.1:1",
        "tls:" + "x" * 300,
        "tls:host\n",
        "tls:hôst:1",
    ],
)
def test_malformed_addresses_are_passed_over(address: str) -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1", address)
    bench.feed(Received(A, Peers(peers=[PeerHint(B, [address, "tls:192.0.2.2:1"])])))
    assert bench.addresses(A) == ("tls:192.0.2.1:1",)
    assert bench.addresses(B) == ("tls:192.0.2.2:1",)


def test_one_peer_can_make_us_remember_only_so_many_nodes() -> None:
    bench = Bench(told_max=10)
    bench.up(A, "tls:192.0.2.1:1")
    for node in NODES[10:50]:
        bench.feed(Received(A, Peers(peers=[PeerHint(node, ["tls:192.0.2.9:1"])])))
    assert len(bench.brain.contacts()) == 11


def test_hints_about_ourselves_and_without_addresses_are_passed_over() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    out = bench.feed(Received(A, Peers(peers=[PeerHint(ME, ["tls:192.0.2.9:1"]), PeerHint(B, [])])))
    assert out.events == []
    assert [c.node_id for c in bench.brain.contacts()] == [A]


def test_a_malformed_node_id_and_too_many_hints_are_held_against_the_peer() -> None:
    bench = Bench(hints_max=3)
    bench.up(A, "tls:192.0.2.1:1")
    for hints, code in (
        ([PeerHint("did:key:zBad", ["tls:x:1"])], "id.malformed"),
        ([PeerHint(B, [])] * 4, "exchange.batch"),
    ):
        out = bench.feed(Received(A, Peers(peers=hints)))
        assert [e.code for e in out.events if isinstance(e, PeerMisbehaved)] == [code]


def test_a_ping_is_answered_with_the_clock_and_a_bye_is_reported() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    bench.now_s += 2.5
    assert to(bench.feed(Received(A, Ping(nonce=7))), A, Pong) == [Pong(nonce=7, clock_ms=(EPOCH * 1000) + 2500)]
    assert bench.feed(Received(A, Bye(reason="x" * 5000))).events == [PeerLeft(A, "x" * 200)]


def test_a_silent_peer_is_pinged_and_then_reported_once() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    events = bench.run(200)
    assert [(round(at), event) for at, event in events if isinstance(event, PeerSilent)] == [(45, PeerSilent(A))]


def test_a_peer_that_falls_silent_again_is_reported_again() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    assert PeerSilent(A) in [event for _, event in bench.run(60)]
    bench.feed(Received(A, Ping(nonce=1)))
    assert PeerSilent(A) in [event for _, event in bench.run(60)]


def test_a_peer_that_answers_pings_is_not_silent() -> None:
    bench = Bench()
    out = bench.up(A, "tls:192.0.2.1:1")
    for _ in range(20):
        for ping in to(out, A, Ping):
            bench.feed(Received(A, Pong(nonce=ping.nonce, clock_ms=int((EPOCH + bench.now_s - 50) * 1000))))
        for _ in range(16):
            bench.now_s += 1
            out = bench.feed(Timer("exchange.tick"))
            assert PeerSilent(A) not in out.events
            if to(out, A, Ping):
                break


@pytest.mark.parametrize(("off_s", "told"), [(0, False), (100, False), (-3600, True), (3600, True)])
def test_a_clock_off_by_an_hour_is_reported_when_it_begins_and_when_it_ends(off_s: int, told: bool) -> None:
    bench = Bench()
    (ping,) = to(bench.up(A, "tls:192.0.2.1:1"), A, Ping)
    bench.now_s += 0.2
    wrong = Pong(nonce=ping.nonce ^ 1, clock_ms=1)
    assert bench.feed(Received(A, wrong)).events == [], "a pong that answers nothing is nothing"
    out = bench.feed(Received(A, Pong(nonce=ping.nonce, clock_ms=(EPOCH + off_s) * 1000)))
    skews = [e for e in out.events if isinstance(e, ClockSkew)]
    assert [round(e.skew_s) for e in skews] == ([off_s] if told else [])


def test_a_flood_is_dropped_and_reported_once_and_others_are_still_heard() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    bench.up(B, "tls:192.0.2.2:1")
    outs = [bench.feed(Received(A, Ping(nonce=n))) for n in range(3000)]
    answered = sum(len(to(out, A, Pong)) for out in outs)
    assert answered == 500
    assert [e.code for out in outs for e in out.events if isinstance(e, PeerMisbehaved)] == ["peer.flood"]
    assert to(bench.feed(Received(B, Ping(nonce=1))), B, Pong)
    bench.now_s += 1.0
    assert to(bench.feed(Received(A, Ping(nonce=1))), A, Pong), "and the flooder again, once it slows down"


def test_entries_count_as_well_as_messages() -> None:
    bench = Bench(items_burst=10, items_per_s=1)
    bench.up(A, "tls:192.0.2.1:1")
    peers = Peers(peers=[PeerHint(B, [])] * 6)
    assert not bench.feed(Received(A, peers)).events
    assert [e.code for e in bench.feed(Received(A, peers)).events if isinstance(e, PeerMisbehaved)] == ["peer.flood"]


def test_leaving_says_goodbye_to_everybody() -> None:
    bench = Bench()
    bench.up(A, "tls:192.0.2.1:1")
    out = bench.feed(Leaving("restart"))
    assert to(out, A, Bye) == [Bye(reason="restart")]
    assert to(out, A, Digest)


def test_a_node_once_met_is_forgotten_after_a_day() -> None:
    bench = Bench(forget_s=100)
    bench.up(A, "tls:192.0.2.1:1")
    bench.feed(AddressHint(B, ("tls:192.0.2.2:1",), "static"))
    bench.feed(PeerDown(A))
    bench.run(60)
    assert {c.node_id for c in bench.brain.contacts()} == {A, B}
    bench.run(100)
    assert {c.node_id for c in bench.brain.contacts()} == {B}, "but a named one never"


@given(
    st.lists(
        st.tuples(
            st.integers(0, 11),
            st.lists(st.integers(0, 20), max_size=5),
            st.sampled_from(WORDS),
            st.sampled_from([None, 0, 1]),
        ),
        max_size=60,
    )
)
def test_the_contact_table_keeps_its_bounds_and_best_words_whatever_is_said(
    said: list[tuple[int, list[int], str, int | None]],
) -> None:
    config = ExchangeConfig(contacts_max=6, told_max=3, addresses_max=3)
    contacts = Contacts(config)
    for at, (node, numbers, source, teller) in enumerate(said):
        told_by = NODES[50 + teller] if teller is not None and source == "peer" else None
        addresses = [f"tls:192.0.2.{n}:1" for n in numbers]
        before = contacts.known.get(NODES[node])
        proven = [a for a, w in before.words.items() if w == 0] if before else []
        contacts.note(NODES[node], addresses, source, float(at), told_by)
        contacts.assert_invariants()
        if before is not None and source != "link" and NODES[node] in contacts.known:
            assert set(proven) <= set(contacts.known[NODES[node]].words)
