"""The directory machine, one peer at a time."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.codec.canonical import canonical
from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.machine import DUE, Directory
from agentmesh.core.directory.messages import (
    AGENT,
    BATCH_MAX,
    LINES_MAX,
    NODE,
    RANGES_MAX,
    ZONE,
    AgentChanged,
    AgentGone,
    Line,
    Listing,
    Ranges,
    RangeSum,
    RecordRefused,
    Records,
    RenewalDue,
    Seek,
    SeqBehind,
    Sought,
    Want,
)
from agentmesh.core.directory.own import RECORD, REFUTE
from agentmesh.core.directory.sync import SYNC
from agentmesh.core.directory.zone import REPORT
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer, WallTime
from agentmesh.core.messages import (
    Advertise,
    Delivered,
    Find,
    FindDone,
    Found,
    Leaving,
    LocalGone,
    LocalNode,
    LocalRecord,
    LocalStatus,
    Lookup,
    LookupDone,
    LookupHit,
    MemberAlive,
    MemberDead,
    MemberLeft,
    NeighbourDown,
    NeighbourUp,
    NodeHeard,
    NodeRecordWanted,
    PeerDown,
    PeerUp,
    ProbeWanted,
    Publish,
    Received,
    SignatureWanted,
    Signed,
    Suggested,
    ZoneChanged,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest, sign_card
from agentmesh.identity.provider import sign_provider
from agentmesh.identity.reader import Reader
from agentmesh.identity.search_keys import search_keys
from agentmesh.identity.statement import sign_statement
from agentmesh.identity.zone_report import CLEARED, DEAD, LIVES, ZoneReport, zone_report_body
from agentmesh.ids import Key, NodeId, capability_key, dht_key
from tests.support.directories import node_record
from tests.support.records import EPOCH, card, key, record, tombstone

NODES = {NodeId(key(1000 + n).did): key(1000 + n) for n in range(6)}
ME, OWNER, OTHER, THIRD, FOURTH, FIFTH = NODES
AGENT1 = key(1)


class Bench:
    """A directory whose clock tests turn by hand; its timers fire when ``tick`` passes them."""

    def __init__(self, *neighbours: NodeId, **config: Any) -> None:
        self.now_s = 100.0
        self.wall = WallTime()
        self.wall.set(EPOCH, self.now_s)
        self.reader = Reader()
        self.directory = Directory(ME, DirectoryConfig(**config), random.Random(1), self.reader, self.wall)
        self.timers: list[tuple[float, int, Timer]] = []
        self.count = itertools.count()
        self.feed(LocalNode(node_record(NODES[ME], self.reader)))
        for node in neighbours:
            self.feed(NeighbourUp(node, zone=False))

    def feed(self, incoming: Any) -> Outbox:
        out = Outbox()
        self.directory.handle(incoming, self.now_s, out)
        self.directory.assert_invariants()
        self.timers += [(self.now_s + delay, next(self.count), timer) for delay, timer in out.timers]
        return out

    def tick(self, seconds: float, *only: str) -> Outbox:
        """Let time pass; return all effects but those of comparisons, unless they are asked for."""
        end_s, told = self.now_s + seconds, Outbox()
        while due := sorted(t for t in self.timers if t[0] <= end_s):
            at = due[0]
            self.timers.remove(at)
            self.now_s = max(self.now_s, at[0])
            out = self.feed(at[2])
            if at[2].name != SYNC or SYNC in only:
                told.sends += out.sends
                told.events += out.events
        self.now_s = end_s
        return told

    def hear(self, peer: NodeId, message: Any) -> Outbox:
        self.now_s += 0.1
        return self.feed(Received(peer, message))

    def give(self, peer: NodeId, *manifests: Manifest) -> Outbox:
        return self.hear(peer, Records(records=[m.raw for m in manifests]))

    def deliver(self, kind: str, payload: bytes, via: NodeId = OTHER) -> Outbox:
        """Deliver a broadcast as plumtree would: only if it is judged new."""
        assert self.directory.judge(kind, payload, self.now_s) == "new"
        return self.feed(Delivered(kind, payload, via, 2))

    def record(self, node: NodeId, **members: Any) -> Any:
        return node_record(NODES[node], self.reader, at=EPOCH + self.now_s - 100, **members)

    @property
    def held(self) -> dict[str, int]:
        return {e.manifest.agent_id: e.manifest.seq for e in self.directory.table.live()}

    def entry(self, agent: KeyPair = AGENT1) -> Any:
        return self.directory.table.get(agent.did)


def line_of(manifest: Manifest, **over: Any) -> Line:
    members: dict[str, Any] = {
        "kind": AGENT,
        "position": search_keys(manifest)[0],
        "seq": manifest.seq,
        "mark": manifest.mark,
        "gone": manifest.tombstone,
        "signed": manifest.signed,
    }
    return Line(**{**members, **over})


def sent(out: Outbox, to: NodeId, kind: type[Any]) -> list[Any]:
    return [send.message for send in out.sends if send.to == to and isinstance(send.message, kind)]


def told(out: Outbox, kind: type[Any]) -> list[Any]:
    return [event for event in out.events if isinstance(event, kind)]


def codes(out: Outbox) -> list[str]:
    return [event.code for event in told(out, PeerMisbehaved)]


def mark_of(node: NodeId) -> bytes:
    return dht_key(NODES[node].public)[:8]


def report(
    reporter: NodeId, *rows: tuple[NodeId, int, int], seq: int = EPOCH, iat: int = EPOCH, depth: int = 0
) -> bytes:
    """Return a zone report as its reporter would sign it; rows say LIVES, DEAD or CLEARED."""
    body = zone_report_body(
        site="", depth=depth, seq=seq, iat=iat, rows=tuple((mark_of(n), s, said) for n, s, said in rows)
    )
    return sign_statement(NODES[reporter], b"zone", body)


# Spreading


def test_a_new_local_record_is_broadcast_and_advertised_under_all_its_keys() -> None:
    bench = Bench(OWNER)
    manifest = record(AGENT1, ME)
    out = bench.feed(LocalRecord(manifest))
    assert told(out, Publish)[0] == Publish("agent", manifest.raw)
    assert told(out, Advertise) == [Advertise(manifest.agent_id, search_keys(manifest))]
    again = record(AGENT1, ME, seq=2)
    out = bench.feed(LocalRecord(again))
    assert Publish("agent", again.raw) in out.events
    assert told(out, Advertise) == [], "its keys are the same"
    renamed = bench.feed(LocalRecord(record(AGENT1, ME, seq=3, name="other")))
    assert len(told(renamed, Advertise)) == 1
    assert told(bench.feed(LocalRecord(tombstone(AGENT1, ME, seq=4))), Advertise) == [Advertise(manifest.agent_id, ())]


def test_an_unsigned_record_is_not_broadcast_but_compared_with_neighbours() -> None:
    bench = Bench(OWNER, require_signed=False)
    out = bench.feed(LocalRecord(record(AGENT1, ME, signed=False)))
    assert not any(e.kind == "agent" for e in told(out, Publish))
    listing = sent(bench.hear(OWNER, Ranges(ranges=[RangeSum("", 0, bytes(16))])), OWNER, Listing)
    assert [line.signed for line in listing[0].lines] == [False]
    assert bench.directory.judge("agent", record(key(2), OWNER, signed=False).raw, bench.now_s) == "bad"


def test_a_broadcast_is_judged_new_once_then_stale_and_bad_if_forged() -> None:
    bench = Bench(OWNER)
    manifest = record(AGENT1, OWNER)
    judge = bench.directory.judge
    assert bench.deliver("agent", manifest.raw).events == [AgentChanged(AGENT1.did)]
    assert judge("agent", manifest.raw, bench.now_s) == "stale"
    assert judge("agent", record(AGENT1, OWNER, seq=2).raw, bench.now_s) == "new"
    forged = canonical({**sign_card(AGENT1, card(AGENT1, OWNER, seq=9)), "description": "forged"})
    assert judge("agent", forged, bench.now_s) == "bad"
    assert judge("agent", b"\xff" * 70_000, bench.now_s) == "bad"
    assert judge("node", manifest.raw, bench.now_s) == "bad"
    assert judge("zone", b"", bench.now_s) == "bad"
    assert judge("nonsense", manifest.raw, bench.now_s) == "bad"
    assert judge("agent", record(key(2), OWNER, exp=EPOCH + 5).raw, bench.now_s + 60) == "stale", (
        "only a clock is wrong"
    )


def test_node_records_and_reports_signed_long_ago_are_stale_as_broadcasts() -> None:
    bench = Bench(OWNER)
    node, zone = bench.record(OWNER, seq=3).raw, report(OWNER, (THIRD, 1, DEAD))
    assert bench.directory.judge("node", node, bench.now_s) == "new"
    assert bench.directory.judge("zone", zone, bench.now_s) == "new"
    bench.now_s += 700
    assert bench.directory.judge("node", node, bench.now_s) == "stale"
    assert bench.directory.judge("zone", zone, bench.now_s) == "stale"


# Comparing


def test_a_new_neighbour_is_compared_with_at_once_and_equals_say_nothing() -> None:
    bench = Bench()
    assert sent(bench.feed(NeighbourUp(OWNER, zone=True)), OWNER, Ranges) == [
        Ranges(ranges=[RangeSum("", 0, bytes(16))])
    ]
    assert bench.hear(OWNER, Ranges(ranges=[RangeSum("", 0, bytes(16))])).sends == []


def test_an_idle_node_compares_with_one_neighbour_every_thirty_seconds() -> None:
    bench = Bench(OWNER, OTHER, THIRD)
    bench.tick(40)
    out = bench.tick(300, SYNC)
    assert 8 <= len(out.sends) <= 12
    assert len({send.to for send in out.sends}) > 1
    assert all(isinstance(send.message, Ranges) for send in out.sends)


def test_what_a_listing_shows_newer_is_asked_for_and_taken_in() -> None:
    bench = Bench(OWNER)
    manifest = record(AGENT1, OWNER)
    out = bench.hear(OWNER, Listing(prefixes=[], lines=[line_of(manifest)]))
    assert sent(out, OWNER, Want) == [Want(positions=[dht_key(AGENT1.public)])]
    assert bench.give(OWNER, manifest).events == [AgentChanged(AGENT1.did)]
    newer = record(AGENT1, OWNER, seq=2)
    assert sent(bench.hear(OWNER, Listing(prefixes=[], lines=[line_of(newer)])), OWNER, Want)
    bench.give(OWNER, newer)
    assert bench.held == {AGENT1.did: 2}


def test_a_listing_of_a_whole_range_is_answered_with_what_it_lacks_or_shows_older() -> None:
    bench = Bench(OWNER, OTHER)
    first, second = record(AGENT1, OWNER, seq=2), record(key(2), OWNER)
    bench.give(OWNER, first, second)
    out = bench.hear(OTHER, Listing(prefixes=[""], lines=[line_of(record(AGENT1, OWNER, seq=1))]))
    (offer,) = sent(out, OTHER, Listing)
    assert offer.prefixes == []
    assert sorted(line.seq for line in offer.lines) == [1, 2]
    out = bench.hear(OTHER, Listing(prefixes=[""], lines=[line_of(first)], room=False))
    assert not sent(out, OTHER, Listing), "who has no room is not offered what it does not know"


def test_large_ranges_are_cut_and_small_ones_listed() -> None:
    bench = Bench(OWNER, OTHER)
    bench.give(OWNER, *(record(key(5000 + n), OWNER) for n in range(40)))
    (cut,) = sent(bench.hear(OTHER, Ranges(ranges=[RangeSum("", 50, bytes(16))])), OTHER, Ranges)
    assert [each.prefix for each in cut.ranges] == list("0123456789abcdef")
    assert sum(each.count for each in cut.ranges) == 40
    wrong = [RangeSum(each.prefix, each.count + 1, each.total) for each in cut.ranges[:3]]
    out = bench.hear(OTHER, Ranges(ranges=[*wrong, *cut.ranges[3:]]))
    (listing,) = sent(out, OTHER, Listing)
    assert listing.prefixes == ["0", "1", "2"]
    assert len(listing.lines) == sum(each.count for each in cut.ranges[:3])


def test_a_record_wanted_from_one_peer_is_not_wanted_from_a_second_at_once_but_is_later() -> None:
    bench = Bench(OWNER, OTHER)
    listing = Listing(prefixes=[], lines=[line_of(record(AGENT1, OWNER))])
    assert sent(bench.hear(OWNER, listing), OWNER, Want)
    assert not sent(bench.hear(OTHER, listing), OTHER, Want)
    bench.now_s += 2
    assert sent(bench.hear(OTHER, listing), OTHER, Want)


def test_asked_for_records_are_sent_once_and_nothing_is_said_to_be_nothing() -> None:
    bench = Bench(OWNER)
    manifest = record(AGENT1, ME)
    bench.feed(LocalRecord(manifest))
    at = dht_key(AGENT1.public)
    out = bench.hear(OWNER, Want(positions=[at, bytes(32), at, b"short"]))
    assert sent(out, OWNER, Records) == [Records(records=[manifest.raw], words=[])]
    assert sent(bench.hear(THIRD, Want(positions=[bytes(32)])), THIRD, Records) == [Records(records=[])]


def test_records_are_split_by_bytes_and_one_want_is_answered_within_bounds() -> None:
    bench = Bench(OWNER, records_bytes=4000, want_batches=2)
    agents = [key(20 + n) for n in range(9)]
    for agent in agents:
        bench.feed(LocalRecord(record(agent, ME)))
    parts = sent(bench.hear(OWNER, Want(positions=[dht_key(a.public) for a in agents])), OWNER, Records)
    assert len(parts) == 2
    assert all(0 < len(part.records) < 9 for part in parts)


def test_news_from_a_comparison_make_more_comparisons_soon_and_fresh_ones_only_one_round() -> None:
    bench = Bench(OWNER, OTHER, THIRD)
    bench.tick(60)
    bench.give(OWNER, record(AGENT1, OWNER, iat=EPOCH - 100))
    assert len(bench.tick(5, SYNC).sends) > 15
    bench = Bench(OWNER, OTHER, THIRD)
    bench.tick(60)
    bench.give(OWNER, record(AGENT1, OWNER, iat=EPOCH + 60))
    assert 3 <= len(bench.tick(8, SYNC).sends) <= 5


# Whose record wins


def test_an_older_record_is_a_race_at_first_and_a_replay_later() -> None:
    bench = Bench(OWNER, OTHER)
    old, new = record(AGENT1, OWNER, seq=1), record(AGENT1, OWNER, seq=2)
    bench.give(OWNER, new)
    assert codes(bench.give(OTHER, old)) == []
    bench.now_s += 30
    out = bench.give(OTHER, old)
    assert codes(out) == ["manifest.replay"]
    assert sent(out, OTHER, Records)[0].records == [new.raw]
    assert bench.held == {AGENT1.did: 2}


@pytest.mark.parametrize("flip", [False, True])
def test_of_two_records_under_one_seq_the_lower_hash_wins_in_either_order_and_the_owner_is_blamed(flip: bool) -> None:
    bench = Bench(OWNER, OTHER)
    pair = sorted(
        [record(AGENT1, OWNER, description="one"), record(AGENT1, OWNER, description="two")], key=lambda m: m.mark
    )
    first, second = pair[::-1] if flip else pair
    bench.give(OWNER, first)
    assert codes(bench.give(OWNER, second)) == ["manifest.equivocation"]
    assert [e.mark for e in bench.directory.table.live()] == [pair[0].mark]
    assert codes(bench.give(OTHER, pair[1])) == [], "who passes it on is not to blame"


def test_an_unsigned_record_never_replaces_a_signed_one_however_high_its_seq() -> None:
    bench = Bench(OWNER, OTHER, require_signed=False)
    bench.give(OWNER, record(AGENT1, OWNER, seq=1))
    lied = record(AGENT1, OTHER, seq=99, signed=False)
    assert not sent(bench.hear(OTHER, Listing(prefixes=[], lines=[line_of(lied)])), OTHER, Want)
    bench.give(OTHER, lied)
    assert bench.held == {AGENT1.did: 1}
    bench = Bench(OWNER, OTHER, require_signed=False)
    bench.give(OTHER, lied)
    assert bench.held == {AGENT1.did: 99}
    bench.give(OWNER, record(AGENT1, OWNER, seq=1))
    assert bench.held == {AGENT1.did: 1}, "a signed one replaces it"


def test_unsigned_records_are_neither_asked_for_nor_blamed_where_signatures_are_required() -> None:
    bench = Bench(OWNER)
    unsigned = record(AGENT1, OWNER, signed=False)
    assert not sent(bench.hear(OWNER, Listing(prefixes=[], lines=[line_of(unsigned)])), OWNER, Want)
    out = bench.give(OWNER, unsigned)
    assert codes(out) == []
    assert [e.code for e in told(out, RecordRefused)] == ["manifest.unsigned"]
    assert bench.held == {}


def test_a_tombstone_ends_an_agent_and_outlives_replays_of_its_manifest() -> None:
    bench = Bench(OWNER, OTHER)
    manifest = record(AGENT1, OWNER)
    bench.give(OWNER, manifest)
    out = bench.deliver("agent", tombstone(AGENT1, OWNER).raw)
    assert out.events == [AgentGone(AGENT1.did, "echo", "withdrawn")]
    assert bench.held == {}
    assert bench.directory.table.named("echo") == []
    bench.tick(3600)
    assert bench.directory.judge("agent", manifest.raw, bench.now_s) == "stale"
    assert codes(bench.give(OTHER, manifest)) == ["manifest.replay"]
    assert bench.held == {}
    bench.give(OWNER, record(AGENT1, OWNER, seq=3))
    assert bench.held == {AGENT1.did: 3}, "a newer manifest brings it back"


def test_manifests_and_tombstones_are_dropped_when_their_time_is_over() -> None:
    bench = Bench(OWNER)
    bench.give(OWNER, tombstone(AGENT1, OWNER), record(key(2), OWNER, exp=EPOCH + 40))
    assert told(bench.tick(42), AgentGone) == [AgentGone(key(2).did, "echo", "expired")]
    assert len(bench.directory.table) == 1
    bench.tick(86_390)
    assert len(bench.directory.table) == 0


# Nodes that die, leave, come back


def test_agents_of_a_node_seen_dead_are_unhealthy_at_once_and_dropped_after_ninety_seconds() -> None:
    bench = Bench(OWNER)
    bench.give(OWNER, record(AGENT1, OWNER))
    bench.tick(2000)
    assert bench.entry().healthy
    assert bench.entry().lease_left_s(bench.now_s) == float("inf")
    assert AgentChanged(AGENT1.did) in bench.feed(MemberDead(OWNER, 1)).events
    assert bench.entry().healthy is False
    assert told(bench.tick(89), AgentGone) == []
    assert bench.entry().lease_left_s(bench.now_s) == pytest.approx(1.0)
    assert told(bench.tick(2), AgentGone) == [AgentGone(AGENT1.did, "echo", "lease")]
    assert bench.held == {}


def test_a_node_reported_dead_by_its_zone_is_believed_dead_until_it_says_otherwise_itself() -> None:
    bench = Bench(OTHER)
    bench.give(OTHER, record(AGENT1, OWNER))
    assert AgentChanged(AGENT1.did) in bench.deliver("zone", report(THIRD, (OWNER, 5, DEAD))).events
    assert bench.entry().healthy is False
    bench.tick(10)
    assert AgentChanged(AGENT1.did) in bench.deliver("node", bench.record(OWNER, seq=6).raw).events
    assert bench.entry().healthy
    assert told(bench.tick(200), AgentGone) == []


def test_a_later_report_brings_a_node_back_if_its_signer_knew_of_the_death_and_an_older_one_does_not() -> None:
    bench = Bench(OTHER)
    bench.give(OTHER, record(AGENT1, OWNER))
    bench.deliver("zone", report(THIRD, (OWNER, 5, DEAD), seq=EPOCH + 7))
    assert bench.directory.judge("zone", report(THIRD, (OWNER, 5, CLEARED), seq=EPOCH + 6), bench.now_s) == "stale"
    bench.deliver("zone", report(FOURTH, (OWNER, 5, LIVES), seq=EPOCH + 8))
    assert bench.entry().healthy is False, "its signer may not have noticed yet"
    bench.deliver("zone", report(THIRD, (OWNER, 5, CLEARED), seq=EPOCH + 9))
    assert bench.entry().healthy
    bench.deliver("zone", report(FOURTH, (OWNER, 4, DEAD), seq=EPOCH + 10))
    assert bench.entry().healthy
    bench.feed(NodeHeard(bench.record(OWNER, seq=6), OTHER))
    bench.deliver("zone", report(THIRD, (OWNER, 5, DEAD), seq=EPOCH + 11))
    assert bench.entry().healthy, "the incarnation that died is an old one"
    bench.deliver("zone", report(THIRD, (OWNER, 6, DEAD), seq=EPOCH + 12))
    assert bench.entry().healthy is False
    bench.deliver("zone", report(FOURTH, (OWNER, 7, LIVES), seq=EPOCH + 13))
    assert bench.entry().healthy, "a newer incarnation is an answer of its own"


@settings(max_examples=60, deadline=None)
@given(
    claims=st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 4), st.sampled_from([LIVES, DEAD, CLEARED])), max_size=4
    ),
    own=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), max_size=2),
    seed=st.randoms(use_true_random=False),
)
def test_whoever_heard_the_same_words_thinks_the_same_of_a_node_in_whatever_order_they_came(
    claims: list[tuple[int, int, int]], own: list[tuple[int, int]], seed: random.Random
) -> None:
    reporters = [THIRD, FOURTH, FIFTH, OTHER]

    def told_in_order(order: list[int]) -> bool:
        bench = Bench(OTHER)
        bench.give(OTHER, record(AGENT1, OWNER))
        reader, unix_s = bench.reader, EPOCH + 10
        holdings, out = bench.directory.holdings, Outbox()
        for at in order:
            if at < len(claims):
                seq, later_s, said = claims[at]
                # Zones of different depth, as in a mesh that was split: each has its own report of the node.
                raw = report(reporters[at], (OWNER, seq, said), seq=EPOCH + later_s, iat=EPOCH + later_s)
                told_by = dataclasses.replace(reader.zone(raw, unix_s), zone_key=Key(bytes([at]) * 32), depth=at)
                holdings.hear_report(told_by, bench.now_s, out)
            else:
                seq, later_s = own[at - len(claims)]
                holdings.hear_record(node_record(NODES[OWNER], reader, at=EPOCH + later_s, seq=seq), bench.now_s, out)
        holdings.assert_invariants()
        return bool(bench.entry().healthy)

    order = list(range(len(claims) + len(own)))
    other = seed.sample(order, len(order))
    assert told_in_order(order) == told_in_order(other)


def test_a_report_counts_for_agents_that_are_learned_of_later() -> None:
    bench = Bench(OTHER)
    bench.deliver("zone", report(THIRD, (OWNER, 5, DEAD), iat=EPOCH - 50))
    bench.give(OTHER, record(AGENT1, OWNER, iat=EPOCH - 60))
    assert bench.held == {}, "its node died after it was signed"
    bench.give(OTHER, record(AGENT1, OWNER, seq=2, iat=EPOCH - 40))
    assert bench.entry().healthy is False, "signed later: it may be coming back"


def test_what_this_node_sees_itself_outweighs_reports() -> None:
    bench = Bench(OWNER)
    bench.give(OWNER, record(AGENT1, OWNER))
    bench.deliver("zone", report(THIRD, (OWNER, 5, DEAD)))
    assert bench.entry().healthy
    bench.feed(NeighbourDown(OWNER))
    bench.deliver("zone", report(THIRD, (OWNER, 5, DEAD), seq=EPOCH + 1))
    assert bench.entry().healthy is False
    bench.feed(MemberAlive(OWNER))
    assert bench.entry().healthy


def test_a_dead_node_that_the_overlay_takes_in_again_by_hearsay_is_back_only_when_it_answers() -> None:
    for death in (lambda bench: bench.feed(MemberDead(OWNER, 5)), lambda bench: bench.feed(NeighbourDown(OWNER))):
        bench = Bench(OWNER, OTHER)
        bench.give(OWNER, record(AGENT1, OWNER))
        death(bench)
        bench.feed(NeighbourDown(OWNER))
        bench.deliver("zone", report(THIRD, (OWNER, 5, DEAD)))
        bench.feed(NeighbourUp(OWNER, zone=True))
        assert bench.entry().healthy is False
        bench.feed(MemberAlive(OWNER))
        assert bench.entry().healthy
        bench.deliver("zone", report(THIRD, (OWNER, 5, DEAD), seq=EPOCH + 5))
        assert bench.entry().healthy, "it answers this node"


def test_a_node_that_nobody_speaks_of_is_taken_for_dead_after_fifteen_minutes() -> None:
    bench = Bench(OTHER)
    bench.give(OTHER, record(AGENT1, OWNER), record(key(2), THIRD))
    bench.tick(800)
    bench.deliver("zone", report(FOURTH, (THIRD, 1, LIVES), iat=EPOCH + 800))
    bench.tick(150)
    assert bench.entry().healthy is False
    assert bench.entry(key(2)).healthy
    bench.tick(90)
    assert list(bench.held) == [key(2).did]


def test_a_peer_that_slept_does_not_bring_dead_agents_back() -> None:
    bench = Bench(OTHER)
    manifest = record(AGENT1, OWNER)
    bench.give(OTHER, manifest)
    bench.deliver("zone", report(THIRD, (OWNER, 5, DEAD)))
    bench.tick(100)
    assert bench.held == {}
    for _ in range(5):
        bench.tick(120)
        bench.give(OTHER, manifest)
        assert bench.directory.judge("agent", manifest.raw, bench.now_s) == "stale"
    assert bench.held == {}
    bench.feed(Delivered("node", bench.record(OWNER, seq=6).raw, OTHER, 1))
    bench.give(OTHER, manifest)
    assert bench.held == {AGENT1.did: 1}, "its node is back"


def test_sick_marks_of_a_node_make_those_agents_unhealthy_and_no_others() -> None:
    bench = Bench(OTHER)
    bench.give(OTHER, record(AGENT1, OWNER), record(key(2), OWNER))
    sick = (dht_key(AGENT1.public)[:8],)
    assert bench.deliver("node", bench.record(OWNER, seq=2, sick=sick).raw).events == [AgentChanged(AGENT1.did)]
    assert (bench.entry().healthy, bench.entry(key(2)).healthy) == (False, True)
    assert [e.manifest.agent_id for e in bench.directory.table.named("echo")] == [key(2).did, AGENT1.did]
    assert bench.deliver("node", bench.record(OWNER, seq=3).raw).events == [AgentChanged(AGENT1.did)]
    assert bench.entry().healthy


def test_who_is_sick_is_told_to_neighbours_who_missed_the_broadcast() -> None:
    bench = Bench(OTHER)
    bench.give(OTHER, record(AGENT1, OWNER))
    word = bench.record(OWNER, seq=2, sick=(dht_key(AGENT1.public)[:8],))
    bench.deliver("node", word.raw)
    bench.deliver("zone", zone := report(THIRD, (FOURTH, 5, DEAD)))
    (listing,) = sent(bench.hear(OTHER, Ranges(ranges=[RangeSum("", 0, bytes(16))])), OTHER, Listing)
    wanted = [line.position for line in listing.lines if line.kind in (NODE, ZONE)]
    assert len(wanted) == 2
    (answer,) = sent(bench.hear(OTHER, Want(positions=wanted)), OTHER, Records)
    assert sorted(answer.words) == [(NODE, word.raw), (ZONE, zone)]
    late = Bench(OTHER)
    late.give(OTHER, record(AGENT1, OWNER))
    late.hear(OTHER, answer)
    assert late.entry().healthy is False


def test_a_node_that_leaves_takes_its_agents_along_after_a_moment_unless_it_comes_back() -> None:
    for back in (False, True):
        bench = Bench(OTHER)
        bench.give(OTHER, record(AGENT1, OWNER))
        bench.hear(OTHER, Records(records=[], words=[(NODE, bench.record(OWNER, seq=2, leaving=True).raw)]))
        assert bench.entry().healthy is False
        bench.tick(3)
        if back:
            bench.feed(Delivered("node", bench.record(OWNER, seq=3).raw, OTHER, 1))
        assert len(told(bench.tick(5), AgentGone)) == (not back)
    bench = Bench(OWNER)
    bench.give(OWNER, record(AGENT1, OWNER))
    bench.feed(MemberLeft(OWNER, 2))
    assert len(told(bench.tick(6), AgentGone)) == 1


def test_a_reporter_whose_reports_are_refuted_again_and_again_is_not_believed() -> None:
    bench = Bench(OTHER)
    bench.give(OTHER, record(AGENT1, OWNER))
    for n in range(1, 5):
        bench.tick(5)
        at = int(EPOCH + bench.now_s - 100)
        bench.deliver("zone", report(THIRD, (OWNER, n, DEAD), seq=EPOCH + 100 + n, iat=at))
        assert bench.entry().healthy is False, n
        bench.tick(3)
        bench.deliver("node", bench.record(OWNER, seq=n + 1).raw)
        assert bench.entry().healthy
    bench.deliver("zone", report(THIRD, (OWNER, 9, DEAD), seq=EPOCH + 200, iat=at))
    assert bench.entry().healthy
    bench.deliver("zone", report(FOURTH, (OWNER, 9, DEAD), seq=EPOCH + 201, iat=at))
    assert bench.entry().healthy is False, "others are"


def test_a_made_up_incarnation_far_above_the_real_one_is_not_believed() -> None:
    bench = Bench(OTHER)
    bench.give(OTHER, record(AGENT1, OWNER))
    bench.feed(NodeHeard(bench.record(OWNER, seq=2), OTHER))
    bench.deliver("zone", report(THIRD, (OWNER, 2**53 - 1, DEAD)))
    assert bench.entry().healthy


# What this node says of its zone


def zone_bench(*members: NodeId) -> tuple[Bench, list[NodeId]]:
    """Return a directory in a zone with an agent behind each member, and the members by rising key."""
    bench = Bench(*(m for m in members if m != ME))
    order = sorted(members, key=lambda node: dht_key(NODES[node].public))
    for node in members:
        if node != ME:
            bench.feed(NodeHeard(bench.record(node, seq=3), node))
            bench.give(node, record(key(500 + list(NODES).index(node)), node, name=f"a{list(NODES).index(node)}"))
    bench.feed(ZoneChanged("", 0, tuple(order)))
    bench.tick(10)
    return bench, order


def own_report(bench: Bench, out: Outbox) -> ZoneReport:
    """Sign what the directory wants signed, give it back, and return it as it was published."""
    wanted = told(out, SignatureWanted)[0]
    raw = sign_statement(NODES[ME], wanted.context, wanted.body)
    published = told(bench.feed(Signed(wanted.context, raw)), Publish)
    assert published == [Publish("zone", raw)]
    return bench.reader.zone(raw, bench.wall.unix_s(bench.now_s))


def test_the_member_with_the_lowest_key_reports_a_death_at_once_and_the_next_ones_in_turn() -> None:
    waits: list[float] = []
    order = sorted((ME, OWNER, OTHER, THIRD), key=lambda node: dht_key(NODES[node].public))
    victim = order[-1] if order[-1] != ME else order[-2]
    above = [n for n in order if n != ME and n != victim]
    for members in ([ME, victim], [ME, above[0], victim], [ME, above[0], above[1], victim]):
        bench, zone = zone_bench(*members)
        bench.feed(MemberDead(victim, 3))
        bench.feed(ZoneChanged("", 0, tuple(n for n in zone if n != victim)))
        start_s = bench.now_s
        while not told(out := bench.tick(0.05, REPORT), SignatureWanted):
            assert bench.now_s < start_s + 4
        waits.append(bench.now_s - start_s)
        said = own_report(bench, out)
        assert (mark_of(victim), 3, True) in said.rows
        assert len(said.rows) == len(members)
        turn = [n for n in zone if n != victim].index(ME)
        assert (0.25 if turn == 0 else 0.6 + 0.4 * turn) <= waits[-1] <= (0.6 if turn == 0 else 0.9 + 0.4 * turn)


def test_who_hears_the_death_reported_keeps_silent() -> None:
    bench, order = zone_bench(ME, OWNER, OTHER, THIRD)
    victim, reporter = [n for n in order if n != ME][:2]
    bench.feed(MemberDead(victim, 3))
    bench.deliver("zone", report(reporter, (victim, 3, DEAD), (reporter, 3, LIVES), seq=EPOCH + 50))
    assert told(bench.tick(60), SignatureWanted) == []


def test_a_report_that_lacks_a_known_death_does_not_silence() -> None:
    bench, order = zone_bench(ME, OWNER, OTHER, THIRD)
    first, second = [n for n in order if n != ME][:2]
    bench.feed(MemberDead(first, 3))
    bench.feed(MemberDead(second, 3))
    bench.deliver("zone", report(THIRD, (first, 3, DEAD), seq=EPOCH + 50))
    said = own_report(bench, bench.tick(4))
    assert {row[0] for row in said.rows if row[2]} == {mark_of(first), mark_of(second)}
    assert said.seq > EPOCH + 50


def test_a_member_wrongly_reported_dead_is_asked_and_reported_alive_again_once_it_answers() -> None:
    bench, order = zone_bench(ME, OWNER, OTHER)
    victim = next(n for n in order if n != ME)
    accuser = OTHER if victim == OWNER else OWNER
    out = bench.deliver("zone", report(accuser, (victim, 3, DEAD), seq=EPOCH + 50))
    assert told(out, ProbeWanted) == [ProbeWanted(victim)]
    assert told(bench.tick(20), SignatureWanted) == [], "who has not noticed yet does not take back what others have"
    bench.feed(MemberAlive(victim))
    said = own_report(bench, bench.tick(4))
    assert (mark_of(victim), 3, CLEARED) in said.rows
    assert said.grave, "whoever missed the broadcast is to find it by comparing"
    assert said.seq > EPOCH + 50


def test_a_report_for_another_reason_repeats_a_death_that_is_being_looked_into() -> None:
    bench, order = zone_bench(ME, OWNER, OTHER, THIRD)
    first, second, accuser = (n for n in order if n != ME)
    bench.deliver("zone", report(accuser, (first, 3, DEAD), seq=EPOCH + 50))
    bench.feed(MemberDead(second, 3))
    said = own_report(bench, bench.tick(4))
    assert {row[0] for row in said.rows if row[2] == DEAD} == {mark_of(first), mark_of(second)}


def test_a_dead_member_that_lives_by_the_word_of_others_is_asked_and_reported_again_only_after_a_while() -> None:
    bench, order = zone_bench(ME, OWNER, OTHER)
    victim = next(n for n in order if n != ME)
    other = OTHER if victim == OWNER else OWNER
    bench.feed(MemberDead(victim, 3))
    own_report(bench, bench.tick(4))
    out = bench.deliver("zone", report(other, (victim, 3, CLEARED), seq=EPOCH + 5000, iat=EPOCH + 20))
    assert told(out, ProbeWanted) == [ProbeWanted(victim)]
    assert told(bench.tick(29), SignatureWanted) == []
    assert (mark_of(victim), 3, DEAD) in own_report(bench, bench.tick(5)).rows


def test_a_quiet_zone_is_reported_on_every_five_minutes_by_one_and_not_at_all_without_agents() -> None:
    bench, _order = zone_bench(ME, OWNER)
    assert told(bench.tick(280), SignatureWanted) == []
    assert len(own_report(bench, bench.tick(30)).rows) == 2
    other = OWNER
    bench.tick(200)
    bench.deliver("zone", report(other, (ME, 1, LIVES), seq=EPOCH + 9000, iat=EPOCH + 500))
    assert told(bench.tick(250), SignatureWanted) == [], "another one did"
    empty = Bench(OWNER)
    empty.feed(ZoneChanged("", 0, (ME, OWNER)))
    empty.feed(MemberDead(OWNER, 1))
    assert told(empty.tick(400), SignatureWanted) == []


def test_reports_about_other_sites_and_from_far_above_this_zone_are_not_taken() -> None:
    bench = Bench(OTHER)
    bench.give(OTHER, record(AGENT1, OWNER))
    bench.feed(ZoneChanged("", 8, (ME,)))
    assert bench.directory.judge("zone", report(THIRD, (OWNER, 5, DEAD)), bench.now_s) == "stale"
    bench.hear(OTHER, Records(records=[], words=[(ZONE, report(THIRD, (OWNER, 5, DEAD)))]))
    assert bench.entry().healthy


# What this node says of itself


def sign_own(bench: Bench, out: Outbox, **over: Any) -> Outbox:
    """Sign the record that is wanted and give it back."""
    (wanted,) = told(out, NodeRecordWanted)
    seq = max(wanted.seq_min, 10) + 1
    made = bench.record(ME, seq=seq, sick=wanted.sick or (), leaving=wanted.leaving, **over)
    return bench.feed(LocalNode(made))


def test_the_first_agent_makes_this_nodes_record_known_and_other_records_of_it_are_not_published() -> None:
    bench = Bench(OWNER)
    out = bench.feed(LocalRecord(record(AGENT1, ME)))
    assert [e.kind for e in told(out, Publish)] == ["agent", "node"]
    bench.tick(10)
    assert told(bench.feed(LocalNode(bench.record(ME, seq=5))), Publish) == [], "a refutation is SWIM's matter"


def test_a_change_of_health_is_signed_and_published_and_not_too_often() -> None:
    bench = Bench(OWNER)
    manifest = record(AGENT1, ME)
    bench.feed(LocalRecord(manifest))
    assert bench.entry().healthy is None
    bench.tick(5)
    assert not told(bench.feed(LocalStatus(manifest.agent_id, True)), NodeRecordWanted)
    out = bench.feed(LocalStatus(manifest.agent_id, False))
    assert told(out, NodeRecordWanted)[0].sick == (dht_key(AGENT1.public)[:8],)
    assert bench.directory.sick_marks() == (dht_key(AGENT1.public)[:8],)
    assert [e.kind for e in told(sign_own(bench, out), Publish)] == ["node"]
    wanted = 0
    for n in range(100):
        bench.feed(LocalStatus(manifest.agent_id, n % 2 == 0))
        wanted += len(told(bench.tick(0.1), NodeRecordWanted))
    assert wanted <= 6


def test_leaving_says_so_to_all_and_to_each_neighbour() -> None:
    bench = Bench(OWNER, OTHER)
    bench.feed(LocalRecord(record(AGENT1, ME)))
    out = sign_own(bench, bench.feed(Leaving()))
    (published,) = told(out, Publish)
    for peer in (OWNER, OTHER):
        assert sent(out, peer, Records) == [Records(records=[], words=[(NODE, published.payload)])]
    assert bench.feed(Leaving()).events == []


def test_a_living_node_refutes_its_death_unless_its_zone_does() -> None:
    for refuted in (False, True):
        bench = Bench(OTHER)
        bench.feed(LocalRecord(record(AGENT1, ME)))
        bench.tick(20)
        bench.deliver("zone", report(THIRD, (ME, 4, DEAD)))
        bench.tick(1)
        if refuted:
            bench.deliver("zone", report(FOURTH, (ME, 4, CLEARED), seq=EPOCH + 5))
        out = bench.tick(5, REFUTE)
        assert [e.seq_min for e in told(out, NodeRecordWanted)][:1] == ([] if refuted else [4])
        if not refuted:
            wanted = told(out, NodeRecordWanted)[0]
            out = bench.feed(LocalNode(bench.record(ME, seq=wanted.seq_min + 1)))
            assert [e.kind for e in told(out, Publish) + told(bench.tick(3, RECORD), Publish)] == ["node"]


def test_an_agent_said_to_live_here_but_unknown_here_is_disowned() -> None:
    bench = Bench(OWNER)
    out = bench.give(OWNER, record(AGENT1, ME, seq=3))
    assert bench.held == {}
    assert told(out, NodeRecordWanted)[0].sick == (dht_key(AGENT1.public)[:8],)
    bench.feed(LocalRecord(record(AGENT1, ME, seq=4)))
    assert bench.directory.sick_marks() == ()


def test_withdrawing_without_a_tombstone_is_told_as_sick_and_others_drop_it() -> None:
    bench = Bench(OWNER, require_signed=False)
    unsigned = record(AGENT1, ME, signed=False)
    bench.feed(LocalRecord(unsigned))
    bench.tick(5)
    out = bench.feed(LocalGone(AGENT1.did))
    assert told(out, AgentGone) == [AgentGone(AGENT1.did, "echo", "withdrawn")]
    mark = told(out, NodeRecordWanted)[0].sick
    assert mark == (dht_key(AGENT1.public)[:8],)
    assert bench.feed(LocalGone(AGENT1.did)).events == []
    other = Bench(OWNER, require_signed=False)
    theirs = record(AGENT1, OWNER, signed=False)
    other.give(OWNER, theirs)
    other.tick(300)
    other.deliver("node", other.record(OWNER, seq=2, sick=mark).raw)
    assert other.entry().healthy is False
    assert told(other.tick(91), AgentGone) == [AgentGone(AGENT1.did, "echo", "lease")]
    other.give(OWNER, theirs)
    assert other.held == {}


def test_a_fresh_signature_is_asked_for_at_half_life_of_a_local_manifest() -> None:
    bench = Bench()
    bench.feed(LocalRecord(record(AGENT1, ME, exp=EPOCH + 1000)))
    assert told(bench.tick(400), RenewalDue) == []
    assert told(bench.tick(101), RenewalDue) == [RenewalDue(AGENT1.did, "echo")]
    assert told(bench.tick(30), RenewalDue) == []
    assert told(bench.tick(31), RenewalDue) == [RenewalDue(AGENT1.did, "echo")]


def test_nobody_can_replace_a_local_agent_and_a_higher_seq_elsewhere_is_reported() -> None:
    bench = Bench(OWNER)
    bench.feed(LocalRecord(record(AGENT1, ME, seq=3)))
    out = bench.deliver("agent", record(AGENT1, ME, seq=9).raw)
    assert out.events == [SeqBehind(AGENT1.did, "echo", 9, elsewhere=False)]
    out = bench.give(OWNER, record(AGENT1, OWNER, seq=10))
    assert out.events == [SeqBehind(AGENT1.did, "echo", 10, elsewhere=True)]
    assert bench.held == {AGENT1.did: 3}
    assert bench.give(OWNER, record(AGENT1, OWNER, seq=2)).events == []


def test_registering_below_what_the_mesh_holds_is_reported() -> None:
    bench = Bench(OWNER)
    bench.give(OWNER, record(AGENT1, OWNER, seq=9))
    assert SeqBehind(AGENT1.did, "echo", 9, elsewhere=True) in bench.feed(LocalRecord(record(AGENT1, ME, seq=3))).events


# Searches


def find(bench: Bench, text: str = "echo", **over: Any) -> Outbox:
    return bench.feed(Find(7, capability_key(text), **over))


def provider(bench: Bench, node: NodeId, agent: KeyPair = AGENT1, text: str = "echo") -> Any:
    at = capability_key(text)
    now = bench.wall.unix_s(bench.now_s)
    raw = sign_provider(NODES[node], at, agent=agent.did, seq=1, iat=now, addresses=("memory:9",))
    return bench.reader.provider(raw, at, now)


def test_what_is_known_here_is_found_at_once_and_enough_is_enough() -> None:
    bench = Bench(OWNER)
    bench.give(OWNER, record(AGENT1, OWNER), record(key(2), OWNER, name="other"))
    out = find(bench, agents_max=1)
    assert out.events == [Found(7, AGENT1.did), FindDone(7, 1)]
    assert told(find(bench, "say", agents_max=9), Found) == [Found(7, AGENT1.did), Found(7, key(2).did)]
    bench.tick(10)
    assert told(bench.feed(Find(8, dht_key(key(2).public), agents_max=1)), Found) == [Found(8, key(2).did)]


def test_neighbours_and_the_dht_are_asked_and_the_search_ends_when_all_have_answered() -> None:
    bench = Bench(OWNER, OTHER, THIRD, FOURTH)
    out = find(bench)
    assert [type(send.message) for send in out.sends] == [Seek] * 3
    assert told(out, Lookup) == [Lookup(7, capability_key("echo"), 16)]
    asked = [send.to for send in out.sends]
    for peer in asked[:2]:
        assert bench.hear(peer, Sought(key=capability_key("echo"), records=[])).events == []
    out = bench.hear(asked[2], Sought(key=capability_key("echo"), records=[record(AGENT1, THIRD).raw]))
    assert told(out, Found) == [Found(7, AGENT1.did)]
    assert bench.feed(LookupDone(7, capability_key("echo"), 0, (), 0, 1)).events == [FindDone(7, 1)]


def test_a_provider_from_the_dht_is_asked_for_its_manifest_which_must_name_it() -> None:
    bench = Bench()
    bench.tick(11)
    find(bench)
    out = bench.feed(LookupHit(7, (provider(bench, FOURTH), provider(bench, FIFTH, key(2)))))
    assert [(send.to, send.at) for send in out.sends] == [(FOURTH, ("memory:9",)), (FIFTH, ("memory:9",))]
    bench.feed(LookupDone(7, capability_key("echo"), 2, (), 1, 3))
    assert bench.give(FOURTH, record(AGENT1, FOURTH)).events == [AgentChanged(AGENT1.did), Found(7, AGENT1.did)]
    # The other one answers with an agent of somebody else's: it gets nothing in, and the search ends.
    assert bench.give(FIFTH, record(key(2), OTHER)).events == [FindDone(7, 1)]
    assert list(bench.held) == [AGENT1.did]


def test_a_newcomer_that_searches_before_it_knows_anybody_asks_its_first_peer_and_the_dht_again() -> None:
    bench = Bench()
    find(bench)
    assert told(bench.feed(LookupDone(7, capability_key("echo"), 0, (), 0, 0)), FindDone) == []
    out = bench.feed(PeerUp(FOURTH, ("memory:4",), "link"))
    assert sent(out, FOURTH, Seek) == [Seek(key=capability_key("echo"), agents_max=16)]
    assert [type(event) for event in out.events] == [Lookup]
    bench.feed(LookupDone(7, capability_key("echo"), 0, (), 0, 0))
    assert bench.feed(PeerDown(FOURTH)).events == [FindDone(7, 0)]


def test_a_manifest_without_the_key_is_not_found_and_a_silent_provider_costs_only_time() -> None:
    bench = Bench()
    find(bench, timeout_s=2.0)
    bench.feed(LookupHit(7, (provider(bench, FOURTH), provider(bench, FIFTH, key(2)))))
    bench.feed(LookupDone(7, capability_key("echo"), 2, (), 1, 3))
    assert told(bench.give(FOURTH, record(AGENT1, FOURTH, name="renamed")), Found) == []
    assert bench.tick(3).events == [FindDone(7, 0)]
    assert bench.feed(LookupHit(7, (provider(bench, FOURTH),))).sends == []


def test_a_seek_is_answered_for_strangers_too_with_healthy_ones_first_and_within_bounds() -> None:
    bench = Bench(OWNER, records_bytes=3000)
    bench.give(OWNER, *(record(key(20 + n), OWNER) for n in range(9)))
    (answer,) = sent(bench.hear(FIFTH, Seek(key=capability_key("echo"), agents_max=100)), FIFTH, Sought)
    assert 0 < len(answer.records) < 9
    assert sum(map(len, answer.records)) <= 3000
    (answer,) = sent(bench.hear(FIFTH, Seek(key=capability_key("nobody"))), FIFTH, Sought)
    assert answer.records == []
    assert codes(bench.hear(FIFTH, Seek(key=b"short"))) == ["directory.key"]


def test_searches_are_bounded() -> None:
    bench = Bench(finds_max=2, find_wants_max=3)
    for query in range(2):
        bench.feed(Find(query, capability_key("echo")))
    assert bench.feed(Find(9, capability_key("echo"))).events == [FindDone(9, 0)]
    hits = tuple(provider(bench, FOURTH, key(40 + n)) for n in range(8))
    assert len(bench.feed(LookupHit(0, hits)).sends) == 3


# Hostile peers


def hostile() -> dict[str, tuple[bytes, str]]:
    """Return by name: a record and the code it must be refused with."""
    good = record(AGENT1, OTHER)
    signed = sign_card(AGENT1, card(AGENT1, OTHER))
    floats = json.loads(good.raw)
    floats["capabilities"]["extensions"][0]["params"]["rate"] = 1.5
    return {
        "forged": (canonical({**signed, "description": "forged"}), "signature.invalid"),
        "signed by another": (
            canonical({**card(AGENT1, OTHER), "signatures": sign_card(key(7), card(key(7), OTHER))["signatures"]}),
            "signature.kid",
        ),
        "floats": (json.dumps(floats).encode(), "json.float"),
        "10 MB": (b'{"a":"' + b"x" * 10_000_000 + b'"}', "json.too_large"),
        "5000 deep": (b"[" * 5000, "json.too_deep"),
        "duplicate member": (b'{"name":"a","name":"b"}', "json.duplicate"),
        "garbage": (b"\x00\xff", "json.utf8"),
        "empty": (b"", "json.malformed"),
        "forged tombstone": (
            canonical({"tombstone": json.loads(tombstone(AGENT1, OTHER).raw)["tombstone"][:-4] + "AAAA"}),
            "signature.invalid",
        ),
    }


@pytest.mark.parametrize("name", hostile())
def test_a_hostile_record_is_dropped_with_its_code_and_changes_nothing(name: str) -> None:
    raw, code = hostile()[name]
    bench = Bench(OWNER, OTHER)
    bench.give(OWNER, record(key(2), OWNER))
    before = bench.held
    out = bench.hear(OTHER, Records(records=[raw]))
    assert codes(out) == [code]
    assert [e.peer for e in out.events] == [OTHER]
    assert bench.held == before
    assert bench.directory.judge("agent", raw, bench.now_s) == "bad"
    assert bench.give(OTHER, record(AGENT1, OTHER)).events == [AgentChanged(AGENT1.did)], "the next good one is taken"


@pytest.mark.parametrize(("off_s", "code"), [(-3600, "manifest.not_yet_valid"), (90_000, "manifest.expired")])
def test_a_clock_off_by_an_hour_is_reported_with_a_hint_and_blames_nobody(off_s: int, code: str) -> None:
    bench = Bench(OWNER)
    bench.wall.set(EPOCH + off_s, bench.now_s)
    (refused,) = bench.give(OWNER, record(AGENT1, OWNER)).events
    assert isinstance(refused, RecordRefused)
    assert refused.code == code
    assert "clock" in refused.hint
    assert bench.held == {}


@pytest.mark.parametrize(
    "message",
    [
        Ranges(ranges=[RangeSum("zz", 1, bytes(16))]),
        Ranges(ranges=[RangeSum("", -1, bytes(16))]),
        Ranges(ranges=[RangeSum("", 1, b"short")]),
        Ranges(ranges=[RangeSum("0", 1, bytes(16))] * (RANGES_MAX + 1)),
        Listing(prefixes=["G"], lines=[]),
        Listing(prefixes=[""] * (RANGES_MAX + 1), lines=[]),
        Listing(prefixes=[], lines=[Line(AGENT, b"short", 1)]),
        Listing(prefixes=[], lines=[Line(AGENT, bytes(32), 1)] * (LINES_MAX + 1)),
    ],
)
def test_a_digest_that_no_honest_node_sends_is_held_against_the_sender(message: Any) -> None:
    bench = Bench(OWNER)
    out = bench.hear(OWNER, message)
    assert codes(out) == ["directory.digest"]
    assert not out.sends


def test_lines_of_unknown_kinds_and_impossible_seqs_are_not_asked_for() -> None:
    bench = Bench(OWNER)
    lines = [Line(9, bytes(32), 1), Line(AGENT, bytes(32), 0), Line(AGENT, bytes(32), 2**53)]
    assert bench.hear(OWNER, Listing(prefixes=[], lines=lines)).sends == []


def test_messages_with_too_many_entries_are_dropped_whole() -> None:
    bench = Bench(OWNER)
    manifest = record(AGENT1, OWNER)
    for message in (
        Want(positions=[bytes(32)] * (BATCH_MAX + 1)),
        Records(records=[manifest.raw] * (BATCH_MAX + 1)),
        Records(records=[], words=[(NODE, b"")] * (BATCH_MAX + 1)),
    ):
        assert codes(bench.hear(OWNER, message)) == ["directory.batch"]
    assert bench.held == {}


def test_one_small_message_never_makes_a_large_answer_larger_than_its_bounds() -> None:
    bench = Bench(OWNER, OTHER, node_agents_max=10_000)
    bench.give(OWNER, *(record(key(7000 + n), OWNER) for n in range(200)))
    bench.give(OWNER, *(record(key(8000 + n), OWNER) for n in range(200)))
    out = bench.hear(OTHER, Listing(prefixes=[""] * RANGES_MAX, lines=[]))
    assert sum(len(each.lines) for each in sent(out, OTHER, Listing)) <= LINES_MAX
    out = bench.hear(OTHER, Ranges(ranges=[RangeSum("", 900, bytes(16))] * RANGES_MAX))
    assert sum(len(each.ranges) for each in sent(out, OTHER, Ranges)) <= RANGES_MAX


def test_a_stranger_is_answered_but_only_what_was_asked_of_it_is_taken_in() -> None:
    bench = Bench(OWNER)
    bench.give(OWNER, record(key(2), OWNER))
    assert bench.give(FIFTH, record(AGENT1, FIFTH)).events == []
    assert bench.hear(FIFTH, Records(records=[], words=[(ZONE, report(THIRD, (OWNER, 1, DEAD)))])).events == []
    assert sent(bench.hear(FIFTH, Ranges(ranges=[RangeSum("", 0, bytes(16))])), FIFTH, Listing)
    assert sent(bench.hear(FIFTH, Listing(prefixes=[], lines=[line_of(record(AGENT1, FIFTH))])), FIFTH, Want)
    bench.give(FIFTH, record(AGENT1, FIFTH))
    assert sorted(bench.held) == sorted([key(2).did, AGENT1.did])


@pytest.mark.parametrize("kind", [NODE, ZONE, 5])
def test_a_forged_word_is_held_against_its_sender(kind: int) -> None:
    bench = Bench(OWNER)
    bench.give(OWNER, record(AGENT1, OWNER))
    raw = report(THIRD, (OWNER, 1, DEAD))
    out = bench.hear(OWNER, Records(records=[], words=[(kind, raw[:-1] + bytes([raw[-1] ^ 1]))]))
    assert len(codes(out)) == 1
    assert bench.entry().healthy


def test_one_peer_cannot_fill_the_table_nor_push_out_what_others_brought() -> None:
    bench = Bench(OWNER, OTHER, THIRD, entries_max=20, node_agents_max=100)
    for n in range(5):
        bench.give(OWNER, record(key(100 + n), OWNER, name=f"good{n}"))
    refused = 0
    for n in range(40):
        # Each claims to live at another node, so that no rule about nodes stops it.
        out = bench.give(OTHER, record(key(200 + n), key(300 + n).did, name=f"flood{n}"))
        refused += sum(e.code == "directory.full" for e in told(out, RecordRefused))
    names = [e.manifest.name for e in bench.directory.table.live()]
    assert len(names) == 20
    assert refused == 25
    assert {f"good{n}" for n in range(5)} <= set(names)
    # A third peer, and this node itself, still find room; the flooder pays.
    assert AgentChanged(key(150).did) in bench.give(THIRD, record(key(150), THIRD, name="late")).events
    gone = told(bench.feed(LocalRecord(record(key(151), ME, name="mine"))), AgentGone)
    assert [(e.why, e.name[:5]) for e in gone] == [("evicted", "flood")]


def test_what_a_peer_suggests_is_verified_and_the_first_that_nobody_honest_sends_ends_it() -> None:
    bench = Bench(OTHER)
    good, later, ours = (record(key(n), node, name=f"a{n}") for n, node in ((1, OWNER), (2, OWNER), (3, ME)))
    forged = good.raw.replace(b"Repeats", b"Invents")
    out = bench.feed(Suggested(OTHER, (good.raw, ours.raw, forged, later.raw)))
    assert list(bench.held) == [AGENT1.did]
    assert len(codes(out)) == 1
    assert AgentChanged(AGENT1.did) in out.events
    assert not told(bench.feed(Suggested(OTHER, (record(key(4), OWNER, signed=False).raw,))), AgentChanged)


def test_of_what_a_peer_suggests_only_the_first_find_room_in_a_full_table() -> None:
    bench = Bench(OWNER, OTHER, entries_max=10, node_agents_max=100)
    for n in range(10):
        bench.give(OTHER, record(key(100 + n), OWNER, name=f"old{n}"))
    found = tuple(record(key(200 + n), OWNER, name=f"found{n}").raw for n in range(6))
    bench.feed(Suggested(OTHER, found, sought=2))
    names = [e.manifest.name for e in bench.directory.table.live()]
    assert len(names) == 10
    assert [name for name in names if name.startswith("found")] == ["found0", "found1"]


def test_agents_that_claim_a_node_by_hearsay_make_way_for_those_it_speaks_for_itself() -> None:
    bench = Bench(OWNER, OTHER, node_agents_max=3)
    for n in range(5):
        bench.give(OTHER, record(key(100 + n), OWNER, name=f"claimed{n}"))
    assert len(bench.held) == 3
    for n in range(5):
        bench.give(OWNER, record(key(200 + n), OWNER, name=f"own{n}"))
    assert sorted(e.manifest.name for e in bench.directory.table.live()) == ["own0", "own1", "own2"]


def test_an_agent_that_its_node_confirms_no_longer_counts_as_hearsay() -> None:
    bench = Bench(OWNER, OTHER, node_agents_max=2)
    confirmed, claimed = record(key(100), OWNER, name="confirmed"), record(key(101), OWNER, name="claimed")
    bench.give(OTHER, confirmed, claimed)
    bench.hear(OWNER, Listing(prefixes=[], lines=[line_of(confirmed)]))
    bench.give(OWNER, record(key(102), OWNER, name="own"))
    bench.give(OWNER, record(key(103), OWNER, name="late"))
    assert sorted(e.manifest.name for e in bench.directory.table.live()) == ["confirmed", "own"]


def test_words_about_nodes_without_agents_here_are_bounded() -> None:
    bench = Bench(OWNER, spare_nodes_max=5, reports_max=3)
    for n in range(20):
        owner = key(4000 + n)
        word = node_record(owner, bench.reader, seq=1, leaving=True)
        bench.hear(OWNER, Records(records=[], words=[(NODE, word.raw)]))
        body = zone_report_body(site=f"s{n}", depth=0, seq=1, iat=EPOCH, rows=((b"x" * 8, 1, DEAD),))
        bench.hear(OWNER, Records(records=[], words=[(ZONE, sign_statement(owner, b"zone", body))]))
    assert len(bench.directory.holdings.nodes) <= 6
    assert len(bench.directory.holdings.reports) == 3


def test_everything_said_of_dead_nodes_is_forgotten_in_the_end() -> None:
    bench = Bench(OTHER)
    bench.give(OTHER, record(AGENT1, OWNER))
    bench.deliver("zone", report(THIRD, (OWNER, 5, DEAD)))
    bench.tick(2500)
    assert len(bench.directory.holdings.nodes) == 0
    assert len(bench.directory.holdings.reports) == 0
    assert len(bench.directory.holdings.held) == 0


def test_an_idle_directory_is_woken_by_comparisons_only() -> None:
    bench = Bench(OWNER)
    bench.feed(LocalRecord(record(AGENT1, ME, exp=EPOCH + 86_400)))
    bench.tick(60)
    fired: list[str] = []
    feed = bench.feed
    bench.feed = lambda incoming: fired.append(incoming.name) or feed(incoming)  # type: ignore[method-assign]
    bench.tick(300)
    assert fired.count(SYNC) <= 12
    assert len(fired) - fired.count(SYNC) - fired.count(DUE) == 0
    assert fired.count(DUE) <= 1
