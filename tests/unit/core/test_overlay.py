"""The overlay machine of one node: requests, zones, records, the dead, hostile peers, shapes of graphs."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer, WallTime
from agentmesh.core.messages import (
    LocalNode,
    MemberAlive,
    MemberDead,
    MemberLeft,
    NeighbourBad,
    NeighbourDown,
    NeighbourUp,
    NodeHeard,
    PeerUp,
    Received,
    Unwatch,
    Watch,
    ZoneChanged,
)
from agentmesh.core.overlay.candidates import Candidates, head, shared_bits
from agentmesh.core.overlay.config import OverlayConfig
from agentmesh.core.overlay.machine import Overlay
from agentmesh.core.overlay.messages import (
    Disconnect,
    ForwardJoin,
    Here,
    Join,
    JoinReply,
    LinkCheck,
    NearAsk,
    NearReply,
    Neighbour,
    NeighbourReply,
    Shuffle,
    ShuffleReply,
)
from agentmesh.core.overlay.passive import Passive
from agentmesh.core.overlay.shape import largest_component_after, shape_of, tail_of
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.reader import Reader
from tests.support.overlay_world import EPOCH, record_of

KEYS = [KeyPair((7_000 + n).to_bytes(32, "big")) for n in range(160)]
RECORDS = [record_of(key, capacity=n % 5) for n, key in enumerate(KEYS)]
ME, A, B, C = RECORDS[0], RECORDS[1], RECORDS[2], RECORDS[3]
READER = Reader(4_096)


class Bench:
    """One overlay with a clock turned by hand."""

    def __init__(self, record: NodeRecord = ME, **config: Any) -> None:
        self.now_s = 100.0
        wall = WallTime()
        wall.set(EPOCH, self.now_s)
        self.overlay = Overlay(record.node_id, OverlayConfig(**config), random.Random(1), READER, wall)
        self.timer: tuple[float, Timer] | None = None
        self.feed(LocalNode(record))

    def feed(self, incoming: Any) -> Outbox:
        out = Outbox()
        self.overlay.handle(incoming, self.now_s, out)
        self.overlay.assert_invariants()
        for delay_s, timer in out.timers:
            self.timer = (self.now_s + delay_s, timer)
        return out

    def say(self, record: NodeRecord, message: Any) -> Outbox:
        return self.feed(Received(record.node_id, message))

    def run(self, seconds: float) -> list[Any]:
        """Let time pass; return all sends and events."""
        end_s, seen = self.now_s + seconds, []
        while self.timer is not None and self.timer[0] <= end_s:
            (self.now_s, timer), self.timer = self.timer, None
            out = self.feed(timer)
            seen += [*out.sends, *out.events]
        self.now_s = end_s
        return seen

    def linked(self, *records: NodeRecord) -> None:
        for record in records:
            self.say(record, Neighbour(record.raw, 0, 1))
            assert record.node_id in self.overlay.long_links()


def sent(out: Outbox, kind: type[Any]) -> list[Any]:
    return [send.message for send in out.sends if isinstance(send.message, kind)]


def codes(out: Outbox) -> list[str]:
    return [event.code for event in out.events if isinstance(event, PeerMisbehaved)]


def watched(out: Outbox) -> list[bytes]:
    return [event.record.raw for event in out.events if isinstance(event, Watch)]


def newer(number: int, **members: Any) -> NodeRecord:
    return record_of(KEYS[number], seq=2, capacity=number % 5, **members)


def test_the_number_of_links_follows_capacity_within_its_band() -> None:
    config = OverlayConfig()
    for tier, centre in enumerate(config.long_by_tier):
        targets = [config.long_target(tier, record.key) for record in RECORDS]
        assert min(targets) >= max(5, int(centre / 2**0.5))
        assert max(targets) <= max(5, centre * 2**0.5)
        assert tier < 1 or len(set(targets)) > 2
    assert {OverlayConfig(long_spread=1.0).long_target(2, record.key) for record in RECORDS} == {15}


def test_a_node_without_links_joins_through_any_peer_that_comes_up_and_asks_whom_it_names() -> None:
    bench = Bench()
    assert sent(bench.feed(PeerUp(A.node_id)), Join) == [Join(ME.raw)]
    assert not sent(bench.feed(PeerUp(B.node_id)), Join), "not twice at once"
    bench.say(A, JoinReply([A.raw, C.raw]))
    asked = [send.to for send in bench.run(0.1) if getattr(send, "to", None) and isinstance(send.message, Neighbour)]
    assert sorted(asked) == sorted([A.node_id, C.node_id])


def test_an_accepted_request_makes_a_watched_neighbour_and_a_disconnect_ends_it() -> None:
    bench = Bench()
    bench.feed(PeerUp(A.node_id))
    bench.say(A, JoinReply([A.raw]))
    bench.run(0.05)
    out = bench.say(A, NeighbourReply(True))
    assert watched(out) == [A.raw]
    assert NeighbourUp(A.node_id, False) in out.events
    bench.say(A, Disconnect())
    assert bench.overlay.long_links() == []


def test_an_unanswered_request_is_given_up_after_half_a_second() -> None:
    bench = Bench()
    bench.feed(PeerUp(A.node_id))
    bench.say(A, JoinReply([A.raw]))
    bench.run(0.05)
    assert any(getattr(s, "message", None) == Disconnect() and s.to == A.node_id for s in bench.run(0.6))
    assert A.node_id not in bench.overlay.passive()
    assert sent(bench.say(A, NeighbourReply(True)), Disconnect), "what comes too late is undone"


def test_an_acceptance_nobody_asked_for_makes_no_link() -> None:
    bench = Bench()
    assert sent(bench.say(A, NeighbourReply(True)), Disconnect)
    assert bench.overlay.long_links() == []


def full_bench() -> Bench:
    bench = Bench()
    bench.linked(*RECORDS[5 : 5 + bench.overlay.long_target])
    return bench


def test_a_full_node_refuses_who_has_enough_and_takes_who_has_too_few() -> None:
    bench = full_bench()
    assert [m.accepted for m in sent(bench.say(A, Neighbour(A.raw, 5, 1)), NeighbourReply)] == [False]
    assert [m.accepted for m in sent(bench.say(A, Neighbour(A.raw, 2, 1)), NeighbourReply)] == [True]


def test_a_node_without_links_is_never_refused() -> None:
    bench = full_bench()
    bench.say(A, Neighbour(A.raw, 1, 1))
    before = bench.overlay.long_links()
    out = bench.say(B, Neighbour(B.raw, 0, 1))
    assert [m.accepted for m in sent(out, NeighbourReply)] == [True]
    gone = set(before) - set(bench.overlay.long_links())
    assert len(gone) == 1
    assert [send.to for send in out.sends if isinstance(send.message, Disconnect)] == sorted(gone)
    assert gone <= set(bench.overlay.passive()), "who was put out stays in reserve"


def test_who_lacks_many_links_is_put_between_two_but_not_again_at_once() -> None:
    bench = full_bench()
    hub, other = RECORDS[4], RECORDS[9 + 40]
    out = bench.say(hub, Neighbour(hub.raw, 10, 20))
    assert [m.accepted for m in sent(out, NeighbourReply)] == [True]
    assert sent(out, Disconnect) == [Disconnect(hub.raw)], "the other end is told whom to ask instead"
    assert len(bench.overlay.long_links()) == bench.overlay.long_target
    assert [m.accepted for m in sent(bench.say(other, Neighbour(other.raw, 10, 20)), NeighbourReply)] == [False]
    bench.run(0.6)
    assert [m.accepted for m in sent(bench.say(other, Neighbour(other.raw, 10, 20)), NeighbourReply)] == [True]


def test_a_claim_to_lack_more_links_than_the_signed_capacity_allows_is_not_believed() -> None:
    bench = full_bench()
    low = RECORDS[55]
    assert low.capacity == 0
    assert [m.accepted for m in sent(bench.say(low, Neighbour(low.raw, 5, 50)), NeighbourReply)] == [False]


def test_who_is_disconnected_in_favour_of_another_asks_that_one() -> None:
    bench = Bench()
    bench.linked(A)
    out = bench.say(A, Disconnect(B.raw))
    assert [send.to for send in out.sends if isinstance(send.message, Neighbour)] == [B.node_id]


def test_a_one_sided_link_is_found_and_dropped() -> None:
    bench = Bench()
    assert sent(bench.say(A, LinkCheck()), Disconnect)
    bench.linked(A)
    assert not sent(bench.say(A, LinkCheck()), Disconnect)
    assert any(isinstance(getattr(s, "message", None), LinkCheck) for s in bench.run(40))


def test_walks_are_cut_to_the_longest_and_end_in_an_introduction() -> None:
    bench = Bench()
    bench.linked(A, B)
    out = bench.say(A, ForwardJoin(C.raw, 1_000_000))
    assert [(s.to, s.message.ttl) for s in out.sends if isinstance(s.message, ForwardJoin)] == [(B.node_id, 5)]
    out = bench.say(A, ForwardJoin(C.raw, -5))
    assert [s.to for s in out.sends if isinstance(s.message, JoinReply)] == [C.node_id]
    assert C.node_id in bench.overlay.passive()


def test_walks_are_rationed() -> None:
    bench = Bench(walks_burst=10.0)
    bench.linked(A, B)
    assert sum(bool(bench.say(A, ForwardJoin(C.raw, 6)).sends) for _ in range(50)) <= 11


def test_up_to_twenty_nodes_are_one_zone_and_all_are_neighbours() -> None:
    bench = Bench()
    for record in RECORDS[1:20]:
        bench.feed(NodeHeard(record, A.node_id))
    events = bench.run(0.3)
    assert bench.overlay.zone() == ("", 0, tuple(r.node_id for r in sorted(RECORDS[:20], key=lambda r: r.key)))
    assert bench.overlay.zone_name == "/"
    assert sum(isinstance(event, NeighbourUp) and event.zone for event in events) == 19
    assert sum(isinstance(event, ZoneChanged) for event in events) == 1, "one change, not nineteen"


def test_more_nodes_make_a_zone_of_those_that_share_a_prefix() -> None:
    bench = Bench()
    for record in RECORDS[1:60]:
        bench.feed(NodeHeard(record, record.node_id))
    bench.run(0.5)
    _, depth, members = bench.overlay.zone()
    own = head(ME.key)
    assert 1 <= depth <= 3
    assert set(members) == {r.node_id for r in RECORDS[:60] if shared_bits(head(r.key), own) >= depth}
    assert bench.overlay.zone_name == "/" + format(own, "064b")[:depth]


def test_zones_never_span_sites() -> None:
    bench = Bench()
    elsewhere = record_of(KEYS[1], site="asia")
    bench.feed(NodeHeard(elsewhere, B.node_id))
    bench.feed(NodeHeard(B, B.node_id))
    bench.run(0.5)
    assert set(bench.overlay.zone()[2]) == {ME.node_id, B.node_id}
    bench.feed(NodeHeard(newer(2, site="asia"), B.node_id))
    bench.run(0.5)
    assert bench.overlay.zone()[2] == (ME.node_id,)
    bench.feed(LocalNode(newer(0, site="asia")))
    bench.feed(NodeHeard(newer(1, site="asia"), A.node_id))
    bench.run(0.5)
    assert bench.overlay.zone()[0] == "asia"
    assert A.node_id in bench.overlay.zone()[2]


def test_a_new_zone_mate_is_greeted_unless_it_spoke_first() -> None:
    bench = Bench()
    bench.feed(NodeHeard(A, B.node_id))
    bench.say(B, Here(B.raw))
    greeted = [s.to for s in bench.run(0.3) if isinstance(getattr(s, "message", None), Here)]
    assert greeted == [A.node_id]


def test_marks_bring_what_the_asker_lacks_and_ask_for_what_we_lack() -> None:
    bench = Bench()
    for record in (A, B):
        bench.feed(NodeHeard(record, record.node_id))
    asker = Bench(C)
    asker.feed(NodeHeard(A, A.node_id))
    asker.feed(NodeHeard(ME, ME.node_id))
    ask = next(s.message for s in asker.run(1) if getattr(s, "to", "") == ME.node_id and isinstance(s.message, NearAsk))
    out = bench.say(C, ask)
    reply = sent(out, NearReply)[0]
    assert reply.records == [B.raw], "only what was not named"
    answer = sent(asker.say(ME, reply), NearReply)[0]
    assert answer.records == [C.raw], "the asker itself was not known"
    bench.say(C, answer)
    bench.run(0.5)
    assert C.node_id in bench.overlay.zone()[2]


def test_the_dead_leave_every_view_and_hearsay_does_not_bring_them_back() -> None:
    bench = Bench()
    bench.linked(A)
    bench.feed(NodeHeard(A, A.node_id))
    bench.run(0.5)
    out = bench.feed(MemberDead(A.node_id, 1))
    assert NeighbourDown(A.node_id) in out.events
    assert Unwatch(A.node_id) in out.events
    bench.feed(NodeHeard(A, B.node_id))
    bench.say(B, Neighbour(B.raw, 0, 1))
    bench.run(1)
    assert A.node_id not in bench.overlay.neighbours()
    assert A.node_id not in bench.overlay.zone()[2]
    for back in (MemberAlive(A.node_id), NodeHeard(newer(1), B.node_id)):
        bench.feed(MemberDead(A.node_id, 2))
        bench.feed(back)
        bench.run(2)
        assert A.node_id in bench.overlay.zone()[2], back
        bench.feed(MemberDead(A.node_id, 1))


def test_an_older_death_does_not_count_but_makes_swim_look_again() -> None:
    bench = Bench()
    fresh = newer(1)
    bench.say(fresh, Neighbour(fresh.raw, 0, 1))
    out = bench.feed(MemberDead(A.node_id, 1))
    assert watched(out) == [fresh.raw]
    assert A.node_id in bench.overlay.long_links()


def test_a_dead_neighbour_is_asked_whether_it_is_back_and_its_own_word_brings_it_back() -> None:
    bench = Bench()
    bench.linked(A)
    bench.feed(MemberDead(A.node_id, 1))
    bench.say(A, Here(A.raw))
    assert A.node_id in bench.overlay.dead(), "not in the moment of its death"
    asked = [s for s in bench.run(4) if getattr(s, "to", "") == A.node_id and s.message == Here(ME.raw, reply=True)]
    assert asked
    bench.say(A, Here(A.raw))
    bench.run(2)
    assert A.node_id in bench.overlay.zone()[2]
    for _ in range(6):
        bench.feed(MemberDead(A.node_id, 1))
        bench.run(61)
        bench.say(A, Here(A.raw))
    bench.feed(MemberDead(A.node_id, 1))
    bench.run(20)
    bench.say(A, Here(A.raw))
    assert A.node_id in bench.overlay.dead(), "who keeps dying waits longer"


def test_a_candidate_that_others_hold_for_dead_is_asked_and_only_silence_buries_it() -> None:
    bench = Bench(zone_split_above=1, zone_half_min=1, zone_sure=1)
    for record in RECORDS[1:40]:
        bench.feed(NodeHeard(record, record.node_id))
    bench.run(0.5)
    mates = bench.overlay.zone()[2]
    far = [r for r in RECORDS[1:40] if r.node_id not in mates][:2]
    marks = b"".join(r.key[:6] + (1).to_bytes(2, "big") for r in far)
    out = bench.say(B, NearReply([], gone=marks))
    assert [s.to for s in out.sends] == [r.node_id for r in far]
    assert bench.overlay.dead() == []
    bench.say(far[0], Here(far[0].raw))
    bench.run(6)
    assert bench.overlay.dead() == []
    bench.run(2)
    assert far[1].node_id in bench.overlay.dead()
    assert far[0].node_id not in bench.overlay.dead()


@pytest.mark.parametrize("seq", [1, 2])
def test_a_mate_that_lost_its_place_among_the_candidates_comes_back_with_its_newest_record(seq: int) -> None:
    bench = Bench()
    bench.feed(NodeHeard(record_of(KEYS[1], seq=1), A.node_id))
    bench.run(1)
    bench.feed(NodeHeard(record_of(KEYS[1], seq=2), A.node_id))
    assert A.node_id in bench.overlay.zone()[2]
    bench.overlay._zone.candidates.drop(A.node_id)  # pyright: ignore[reportPrivateUsage]
    bench.feed(NodeHeard(record_of(KEYS[1], seq=seq), A.node_id))
    known = bench.overlay.record_of(A.node_id)
    assert known is not None
    assert known.seq == 2


def test_who_leaves_is_gone_until_a_higher_seq() -> None:
    for word in (NodeHeard(newer(1, leaving=True), B.node_id), MemberLeft(A.node_id, 2)):
        bench = Bench()
        bench.linked(A)
        bench.feed(word)
        assert bench.overlay.neighbours() == []
        bench.run(30)
        bench.say(A, LinkCheck())
        bench.feed(NodeHeard(A, A.node_id))
        assert A.node_id in bench.overlay.dead()
        bench.feed(NodeHeard(record_of(KEYS[1], seq=3), A.node_id))
        assert A.node_id not in bench.overlay.dead()


def test_leaving_parts_from_all_neighbours() -> None:
    bench = Bench()
    bench.linked(A, B)
    bench.feed(NodeHeard(C, C.node_id))
    bench.run(0.5)
    goodbye = newer(0, leaving=True)
    out = bench.feed(LocalNode(goodbye))
    assert {s.to for s in out.sends if s.message == Here(goodbye.raw)} == {A.node_id, B.node_id, C.node_id}
    assert {s.to for s in out.sends if isinstance(s.message, Disconnect)} == {A.node_id, B.node_id}
    assert bench.overlay.neighbours() == []
    assert not [s for s in bench.run(60) if hasattr(s, "message")]


def test_a_new_own_record_is_told_to_neighbours_if_it_says_anything_new_and_theirs_replaces_the_old() -> None:
    bench = Bench()
    bench.linked(A)
    assert bench.feed(LocalNode(newer(0))).sends == [], "a refutation is for SWIM to spread"
    mine = record_of(KEYS[0], seq=3, capacity=1)
    assert [s.to for s in bench.feed(LocalNode(mine)).sends] == [A.node_id]
    theirs = newer(1)
    events = bench.say(A, Here(theirs.raw)).events
    assert [(event.record.raw, event.via) for event in events] == [(theirs.raw, A.node_id)]
    assert not bench.say(A, Here(theirs.raw)).events, "told once"


def test_a_bad_neighbour_is_kept_out_for_a_minute() -> None:
    bench = Bench()
    bench.linked(A)
    bench.feed(NodeHeard(A, A.node_id))
    bench.run(0.5)
    out = bench.feed(NeighbourBad(A.node_id, -5.0))
    assert NeighbourDown(A.node_id) in out.events
    assert A.node_id in bench.overlay.zone()[2], "still a member: others must agree"
    assert [m.accepted for m in sent(bench.say(A, Neighbour(A.raw, 0, 3)), NeighbourReply)] == [False]
    assert NeighbourUp(A.node_id, True) in bench.run(62)


def test_forged_records_cost_their_sender_and_spare_the_rest() -> None:
    bench = Bench()
    bench.feed(PeerUp(A.node_id))
    forged = B.raw[:-1] + bytes([B.raw[-1] ^ 1])
    out = bench.say(A, JoinReply([forged, b"", C.raw]))
    assert codes(out) == ["overlay.record"] * 2
    assert bench.overlay.passive() == [C.node_id]


def test_nobody_speaks_with_the_record_of_another() -> None:
    for message in (Join(B.raw), Neighbour(B.raw, 0, 5), Here(B.raw, reply=True)):
        bench = Bench()
        out = bench.say(A, message)
        assert codes(out) == ["overlay.impostor"]
        assert not out.sends
        assert bench.overlay.long_links() == []


def test_expired_records_are_skipped_and_held_against_nobody() -> None:
    bench = Bench()
    bench.feed(PeerUp(A.node_id))
    bench.overlay._ground.wall.set(EPOCH + 100_000, bench.now_s)  # pyright: ignore[reportPrivateUsage]
    out = bench.say(A, JoinReply([A.raw]))
    assert not out.events
    assert bench.overlay.passive() == []


def test_floods_are_cut() -> None:
    bench = Bench()
    bench.linked(A)
    bench.say(B, Join(B.raw))
    assert codes(bench.say(B, Join(B.raw))) == ["overlay.join_flood"]
    assert codes(bench.say(A, Shuffle([A.raw] * 100, 3))) == ["overlay.too_many"]
    assert codes(bench.say(A, NearAsk(b"x" * 9, 0))) == ["overlay.marks"]
    assert codes(bench.say(A, NearAsk(b"x" * 8 * 10_000, 0))) == ["overlay.marks"]
    before = bench.overlay.passive()
    for kind in (JoinReply, ShuffleReply):
        for _ in range(5):
            bench.say(C, kind([record.raw for record in RECORDS[20:36]]))
    assert bench.overlay.passive() == before, "nobody asked for these"
    assert sent(bench.say(C, Shuffle([C.raw], 6)), Disconnect), "only links may shuffle"


def test_one_peer_cannot_fill_the_reserve_nor_push_out_what_others_told() -> None:
    rng = random.Random(1)
    passive = Passive(42, 10)
    for number, record in enumerate(RECORDS[1:33]):
        passive.put(record, RECORDS[40 + number % 8].node_id, rng)
    others = set(passive.entries)
    for record in RECORDS[80:]:
        passive.put(record, A.node_id, rng)
        passive.assert_invariants()
    assert others <= set(passive.entries)
    assert len(passive.entries) == 42


def test_one_peer_cannot_push_out_candidates_that_were_met() -> None:
    table = Candidates(OverlayConfig(candidates_max=40), head(ME.key))
    for record in RECORDS[1:30]:
        table.put(record, record.node_id, met=True)
    near = {c.record.node_id for c in table.nearest(12)}
    for record in RECORDS[30:]:
        table.put(record, A.node_id, met=False)
        table.assert_invariants()
    assert {n for n in near if n not in table.entries} == set()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 13), st.integers(1, 14), st.integers(0, 2**16)), max_size=60))
def test_whatever_peers_send_bounds_hold_and_nothing_is_raised(steps: list[tuple[int, int, int]]) -> None:
    bench = Bench(candidates_max=12, passive_max=8, tombs_max=4, bad_max=2, bucket_keep=1)
    for what, who, number in steps:
        record = RECORDS[who]
        raws = [RECORDS[(number + at) % 60].raw for at in range(number % 20)]
        if number % 7 == 0:
            raws.append(b"\x00" * (number % 300))
        marks = bytes(number % 256 for _ in range(8 * (number % 30)))
        message: Any = (
            Join(record.raw),
            JoinReply(raws),
            ForwardJoin(RECORDS[number % 60].raw, number - 2**15),
            Neighbour(record.raw, number % 9 - 2, number % 70 - 5),
            NeighbourReply(number % 2 == 0, raws),
            Disconnect(RECORDS[number % 60].raw if number % 2 else b""),
            LinkCheck(),
            Shuffle(raws, number),
            ShuffleReply(raws),
            NearAsk(marks, number - 5),
            NearReply(raws, marks, marks[:40]),
            Here(record.raw, number % 2 == 0),
            MemberDead(record.node_id, 1),
            NeighbourBad(record.node_id, -1.0),
        )[what]
        bench.feed(message if what >= 12 else Received(record.node_id, message))
        bench.run(number % 5)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(1, 119), max_size=80), st.randoms(use_true_random=False))
def test_depth_depends_on_who_is_known_and_not_on_the_order(numbers: set[int], rng: random.Random) -> None:
    config = OverlayConfig(candidates_max=150)
    order = sorted(numbers)
    depths: list[int] = []
    for _ in range(2):
        table = Candidates(config, head(ME.key))
        for number in order:
            table.put(RECORDS[number], RECORDS[number].node_id, met=True)
        depths.append(table.depth())
        rng.shuffle(order)
    assert depths[0] == depths[1]
    bits = [shared_bits(head(RECORDS[number].key), head(ME.key)) for number in order]
    members = 1 + sum(b >= depths[0] for b in bits)
    assert members >= min(config.zone_half_min, 1 + len(order))
    if len(order) < config.zone_split_above:
        assert depths[0] == 0


# -- shapes --


def test_the_shape_of_small_graphs_is_as_counted_by_hand() -> None:
    clique = {n: [m for m in range(6) if m != n] for n in range(6)}
    shape = shape_of(clique, random.Random(1))
    assert (shape.nodes, shape.edges, shape.clustering, shape.path_length) == (6, 15, 1.0, 1.0)
    ring = shape_of({n: [(n + 1) % 8] for n in range(8)}, random.Random(1))
    assert (ring.edges, ring.clustering, ring.diameter_seen, ring.components) == (8, 0.0, 4, 1)
    assert ring.path_length == pytest.approx((2 * 1 + 2 * 2 + 2 * 3 + 4) / 7)
    parts = shape_of({0: [1], 1: [], 2: [3], 3: [2, 4], 4: []}, random.Random(1))
    assert (parts.components, parts.largest_component) == (2, 0.6)
    assert shape_of({}, random.Random(1)).nodes == 0


def test_a_star_falls_apart_without_its_centre() -> None:
    star = {0: list(range(1, 11)), **{n: [0] for n in range(1, 11)}}
    assert largest_component_after(star, {0}) == 0.1
    assert largest_component_after(star, {1, 2}) == 1.0


def test_the_exponent_of_a_drawn_power_law_is_found() -> None:
    rng = random.Random(5)
    degrees = [int(2.5 * (1 - rng.random()) ** (-1 / 1.5) + 0.5) for _ in range(20_000)]
    exponent, fit, start, tail = tail_of(degrees)
    assert exponent == pytest.approx(2.5, abs=0.1)
    assert fit < 0.02
    assert tail > 500
    assert start < 30
    assert tail_of([7] * 1000)[3] == 0, "one degree is no tail"
