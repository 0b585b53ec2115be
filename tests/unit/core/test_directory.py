"""The directory machine, one peer at a time."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from agentmesh.codec.canonical import canonical
from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.machine import TICK, Directory
from agentmesh.core.directory.messages import (
    BATCH_MAX,
    AgentChanged,
    AgentGone,
    Digest,
    Lease,
    RecordRefused,
    Records,
    RenewalDue,
    SeqBehind,
    Want,
)
from agentmesh.core.directory.spread import RELAY
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.core.messages import LocalGone, LocalRecord, LocalStatus, PeerDown, PeerUp, Received, WallClock
from agentmesh.identity.manifest import Manifest, sign_card
from agentmesh.ids import NodeId
from tests.support.brains import EPOCH, card, key, record, tombstone

ME, OWNER, OTHER, THIRD = (NodeId(key(1000 + n).did) for n in range(4))
AGENT = key(1)


class Bench:
    """A directory with a clock that tests turn by hand."""

    def __init__(self, *peers: NodeId, **config: Any) -> None:
        self.now_s = 100.0
        self.directory = Directory(ME, DirectoryConfig(**config), random.Random(1))
        self.feed(WallClock(EPOCH))
        for peer in peers:
            self.feed(PeerUp(peer))

    def feed(self, incoming: Any) -> Outbox:
        out = Outbox()
        self.directory.handle(incoming, self.now_s, out)
        self.directory.assert_invariants()
        return out

    def tick(self, seconds: float) -> Outbox:
        """Let time pass with one tick at its end."""
        self.now_s += seconds
        return self.feed(Timer(TICK))

    def hear(self, peer: NodeId, message: Any) -> Outbox:
        self.now_s += 0.1
        return self.feed(Received(peer, message))

    def give(self, peer: NodeId, manifest: Manifest, age_ms: int = 0, **lease: Any) -> Outbox:
        return self.hear(peer, Records(records=[(manifest.raw, lease_of(manifest, age_ms, **lease))]))

    @property
    def held(self) -> dict[str, int]:
        return {e.manifest.agent_id: e.manifest.seq for e in self.directory.table.live()}


def lease_of(manifest: Manifest, age_ms: int = 0, **over: Any) -> Lease:
    members: dict[str, Any] = {
        "agent_id": manifest.agent_id,
        "seq": manifest.seq,
        "age_ms": age_ms,
        "gone": manifest.tombstone,
        "signed": manifest.signed,
        "mark": manifest.mark,
    }
    return Lease(**{**members, **over})


def sent(out: Outbox, to: NodeId, kind: type[Any]) -> list[Any]:
    return [message for peer, message, *_ in out.sends if peer == to and isinstance(message, kind)]


def codes(out: Outbox) -> list[str]:
    return [event.code for event in out.events if isinstance(event, PeerMisbehaved)]


def test_the_wall_clock_must_be_known_before_a_record_is_judged() -> None:
    directory = Directory(ME, DirectoryConfig(), random.Random(1))
    with pytest.raises(AssertionError, match="WallClock"):
        directory.handle(LocalRecord(record(AGENT, ME)), 0.0, Outbox())


def test_a_new_link_gets_the_whole_digest_even_when_it_is_empty() -> None:
    bench = Bench()
    assert sent(bench.feed(PeerUp(OWNER)), OWNER, Digest) == [Digest(leases=[], full=True)]
    manifest = record(AGENT, ME)
    bench.feed(LocalRecord(manifest))
    assert sent(bench.feed(PeerUp(OTHER)), OTHER, Digest) == [Digest(leases=[lease_of(manifest)], full=True)]


def test_a_digest_larger_than_one_message_is_split_and_no_part_calls_itself_complete() -> None:
    bench = Bench(OWNER)
    for n in range(BATCH_MAX + 1):
        bench.feed(LocalRecord(record(key(5000 + n), ME)))
    parts = sent(bench.feed(PeerUp(OTHER)), OTHER, Digest)
    assert [(len(part.leases), part.full) for part in parts] == [(BATCH_MAX, False), (1, False)]


def test_what_a_peer_has_newer_is_asked_for_and_taken_in() -> None:
    bench = Bench(OWNER)
    manifest = record(AGENT, OWNER)
    assert sent(bench.hear(OWNER, Digest(leases=[lease_of(manifest)])), OWNER, Want) == [Want(agent_ids=[AGENT.did])]
    out = bench.give(OWNER, manifest)
    assert out.events == [AgentChanged(AGENT.did)]
    assert bench.held == {AGENT.did: 1}
    newer = record(AGENT, OWNER, seq=2)
    assert sent(bench.hear(OWNER, Digest(leases=[lease_of(newer)])), OWNER, Want)
    bench.give(OWNER, newer)
    assert bench.held == {AGENT.did: 2}


def test_a_record_wanted_from_one_peer_is_not_wanted_from_a_second_at_once_but_is_later() -> None:
    bench = Bench(OWNER, OTHER)
    digest = Digest(leases=[lease_of(record(AGENT, OWNER))])
    assert sent(bench.hear(OWNER, digest), OWNER, Want)
    assert not sent(bench.hear(OTHER, digest), OTHER, Want)
    bench.now_s += 2
    assert sent(bench.hear(OTHER, digest), OTHER, Want)


def test_asked_for_records_are_sent_and_unknown_ones_passed_over() -> None:
    bench = Bench(OWNER)
    manifest = record(AGENT, ME)
    bench.feed(LocalRecord(manifest))
    out = bench.hear(OWNER, Want(agent_ids=[AGENT.did, key(9).did, AGENT.did, "nonsense"]))
    assert sent(out, OWNER, Records) == [Records(records=[(manifest.raw, lease_of(manifest))])]


def test_records_are_split_by_bytes() -> None:
    bench = Bench(OWNER, records_bytes=4000)
    agents = [key(20 + n) for n in range(5)]
    for agent in agents:
        bench.feed(LocalRecord(record(agent, ME)))
    bench.tick(1)
    parts = sent(bench.hear(OWNER, Want(agent_ids=[a.did for a in agents])), OWNER, Records)
    assert len(parts) > 1
    assert sum(len(part.records) for part in parts) == 5


def test_a_local_agent_is_pushed_whole_and_a_heard_one_is_announced_to_all_but_source_and_owner() -> None:
    bench = Bench(OWNER, OTHER, THIRD)
    manifest = record(AGENT, ME)
    out = bench.feed(LocalRecord(manifest))
    for peer in (OWNER, OTHER, THIRD):
        assert sent(out, peer, Records) == [Records(records=[(manifest.raw, lease_of(manifest))])]
    heard = record(key(2), OWNER)
    bench.now_s += 1
    out = bench.give(OTHER, heard)
    assert [peer for peer, *_ in out.sends] == [THIRD]
    assert sent(out, THIRD, Digest)[0].leases == [lease_of(heard, 1000)]


def test_a_burst_of_registrations_makes_two_messages_per_peer() -> None:
    bench = Bench(OWNER)
    outs = [bench.feed(LocalRecord(record(key(20 + n), ME))) for n in range(30)]
    timers = [timer for out in outs for _, timer in out.timers]
    assert len(timers) == 1
    bench.now_s += 0.05
    outs.append(bench.feed(timers[0]))
    batches = [message for out in outs for message in sent(out, OWNER, Records)]
    assert [len(batch.records) for batch in batches] == [1, 29]


def test_a_newer_record_held_here_is_pushed_to_a_peer_that_shows_an_older_one() -> None:
    bench = Bench(OWNER, OTHER)
    newer = record(AGENT, OWNER, seq=5)
    bench.give(OWNER, newer)
    out = bench.hear(OTHER, Digest(leases=[lease_of(record(AGENT, OWNER, seq=4))]))
    assert [raw for part in sent(out, OTHER, Records) for raw, _ in part.records] == [newer.raw]


def test_a_complete_digest_is_answered_with_what_it_lacks() -> None:
    bench = Bench(OWNER, OTHER)
    bench.give(OWNER, record(AGENT, OWNER))
    assert sent(bench.hear(OTHER, Digest(leases=[], full=True)), OTHER, Digest)[0].leases[0].agent_id == AGENT.did
    assert not sent(bench.hear(OTHER, Digest(leases=[])), OTHER, Digest)


def test_asking_the_same_thing_many_times_in_one_message_does_not_multiply_the_answer() -> None:
    bench = Bench(OWNER, OTHER)
    bench.give(OWNER, record(AGENT, OWNER, seq=5))
    older = lease_of(record(AGENT, OWNER, seq=4))
    for message in (Digest(leases=[older] * BATCH_MAX), Want(agent_ids=[AGENT.did] * BATCH_MAX)):
        assert [len(part.records) for part in sent(bench.hear(OTHER, message), OTHER, Records)] == [1]


# Whose record wins


def test_an_older_record_is_a_race_at_first_and_a_replay_later() -> None:
    bench = Bench(OWNER, OTHER)
    old, new = record(AGENT, OWNER, seq=1), record(AGENT, OWNER, seq=2)
    bench.give(OWNER, new)
    assert codes(bench.give(OTHER, old)) == []
    bench.now_s += 30
    out = bench.give(OTHER, old)
    assert codes(out) == ["manifest.replay"]
    assert sent(out, OTHER, Records)[0].records[0][0] == new.raw
    assert bench.held == {AGENT.did: 2}


@pytest.mark.parametrize("flip", [False, True])
def test_of_two_records_under_one_seq_the_lower_hash_wins_in_either_order_and_the_owner_is_blamed(flip: bool) -> None:
    bench = Bench(OWNER, OTHER)
    pair = sorted(
        [record(AGENT, OWNER, description="one"), record(AGENT, OWNER, description="two")], key=lambda m: m.mark
    )
    first, second = pair[::-1] if flip else pair
    bench.give(OWNER, first)
    assert codes(bench.give(OWNER, second)) == ["manifest.equivocation"]
    assert [e.mark for e in bench.directory.table.live()] == [pair[0].mark]
    assert codes(bench.give(OTHER, pair[1])) == [], "who passes it on is not to blame"


def test_a_digest_line_with_the_same_seq_and_a_lower_hash_is_asked_for() -> None:
    bench = Bench(OWNER)
    low, high = sorted(
        [record(AGENT, OWNER, description="one"), record(AGENT, OWNER, description="two")], key=lambda m: m.mark
    )
    bench.give(OWNER, high)
    assert sent(bench.hear(OWNER, Digest(leases=[lease_of(low)])), OWNER, Want)
    bench.give(OWNER, low)
    assert not sent(bench.hear(OWNER, Digest(leases=[lease_of(high)])), OWNER, Want)


def test_an_unsigned_record_never_replaces_a_signed_one_however_high_its_seq() -> None:
    bench = Bench(OWNER, OTHER, require_signed=False)
    bench.give(OWNER, record(AGENT, OWNER, seq=1))
    lied = record(AGENT, OTHER, seq=99, signed=False)
    assert not sent(bench.hear(OTHER, Digest(leases=[lease_of(lied)])), OTHER, Want)
    bench.give(OTHER, lied)
    assert bench.held == {AGENT.did: 1}
    bench = Bench(OWNER, OTHER, require_signed=False)
    bench.give(OTHER, lied)
    assert bench.held == {AGENT.did: 99}
    bench.give(OWNER, record(AGENT, OWNER, seq=1))
    assert bench.held == {AGENT.did: 1}, "a signed one replaces it"


def test_unsigned_records_are_neither_asked_for_nor_blamed_where_signatures_are_required() -> None:
    bench = Bench(OWNER)
    unsigned = record(AGENT, OWNER, signed=False)
    assert not sent(bench.hear(OWNER, Digest(leases=[lease_of(unsigned)])), OWNER, Want)
    out = bench.give(OWNER, unsigned)
    assert codes(out) == []
    assert [e.code for e in out.events if isinstance(e, RecordRefused)] == ["manifest.unsigned"]
    assert bench.held == {}


def test_a_tombstone_ends_an_agent_and_outlives_replays_of_its_manifest() -> None:
    bench = Bench(OWNER, OTHER)
    manifest = record(AGENT, OWNER)
    bench.give(OWNER, manifest)
    out = bench.give(OWNER, tombstone(AGENT, OWNER))
    assert out.events == [AgentGone(AGENT.did, "echo", "withdrawn")]
    assert bench.held == {}
    assert bench.directory.table.named("echo") == []
    bench.tick(3600)
    assert codes(bench.give(OTHER, manifest)) == ["manifest.replay"]
    assert bench.held == {}
    bench.give(OWNER, record(AGENT, OWNER, seq=3))
    assert bench.held == {AGENT.did: 3}, "a newer manifest brings it back"


def test_a_tombstone_is_dropped_when_its_time_is_over() -> None:
    bench = Bench(OWNER)
    bench.give(OWNER, tombstone(AGENT, OWNER))
    bench.tick(86_390)
    assert len(bench.directory.table) == 1
    out = bench.tick(12)
    assert len(bench.directory.table) == 0
    assert out.events == []


# Leases


def test_an_agent_that_nobody_renews_is_gone_after_ninety_seconds() -> None:
    bench = Bench(OWNER)
    bench.give(OWNER, record(AGENT, OWNER))
    bench.tick(89)
    assert bench.directory.table.live()[0].lease_left_s(bench.now_s) == pytest.approx(1.0)
    assert bench.held
    assert bench.tick(1.5).events == [AgentGone(AGENT.did, "echo", "lease")]
    assert bench.held == {}


def test_the_owners_renewal_keeps_an_agent_and_is_passed_on_to_others_aged_by_nothing_but_time() -> None:
    bench = Bench(OWNER, OTHER)
    manifest = record(AGENT, OWNER)
    bench.give(OWNER, manifest)
    bench.tick(40)
    out = bench.hear(OWNER, Digest(leases=[lease_of(manifest)]))
    (_, relay) = next((d, t) for d, t in out.timers if t.name == RELAY)
    bench.now_s += 0.5
    told = bench.feed(relay)
    assert sent(told, OTHER, Digest) == [Digest(leases=[lease_of(manifest, 500)])]
    assert not sent(told, OWNER, Digest)
    bench.tick(60)
    assert bench.held


def test_hearsay_ages_by_a_hop_and_never_looks_younger_than_its_source() -> None:
    bench = Bench(OTHER, THIRD)
    manifest = record(AGENT, OWNER)
    bench.give(OTHER, manifest, age_ms=10_000)
    entry = bench.directory.table.live()[0]
    assert bench.now_s - entry.renewed_s == pytest.approx(11.0)
    for _ in range(200):  # its own echo, back and forth
        (digest,) = sent(bench.feed(PeerUp(OTHER)), OTHER, Digest)
        bench.feed(Received(THIRD, digest))
    assert bench.now_s - entry.renewed_s == pytest.approx(11.0)


def test_a_dead_agents_echo_does_not_bring_it_back() -> None:
    bench = Bench(OTHER)
    manifest = record(AGENT, OWNER)
    bench.give(OTHER, manifest)
    bench.tick(95)
    assert not sent(bench.hear(OTHER, Digest(leases=[lease_of(manifest, 89_500)])), OTHER, Want)
    bench.give(OTHER, manifest, age_ms=89_500)
    assert bench.held == {}


def test_only_the_owners_word_counts_while_it_is_connected() -> None:
    bench = Bench(OWNER, OTHER)
    manifest = record(AGENT, OWNER)
    bench.give(OWNER, manifest)
    bench.tick(60)
    bench.hear(OTHER, Digest(leases=[lease_of(manifest, 0, healthy=False)]))
    entry = bench.directory.table.live()[0]
    assert entry.healthy
    assert entry.lease_left_s(bench.now_s) < 31
    bench.feed(PeerDown(OWNER))
    bench.hear(OTHER, Digest(leases=[lease_of(manifest, 0, healthy=False)]))
    assert entry.healthy is False
    assert entry.lease_left_s(bench.now_s) > 80


def test_a_change_of_health_is_told_at_once() -> None:
    bench = Bench(OWNER)
    manifest = record(AGENT, ME)
    bench.feed(LocalRecord(manifest))
    assert bench.directory.table.live()[0].healthy is None
    bench.now_s += 1
    assert not bench.feed(LocalStatus(manifest.agent_id, True)).sends
    out = bench.feed(LocalStatus(manifest.agent_id, False))
    assert sent(out, OWNER, Digest) == [Digest(leases=[lease_of(manifest, healthy=False)])]
    assert out.events == [AgentChanged(AGENT.did)]
    assert not bench.feed(LocalStatus(manifest.agent_id, False)).events


def test_local_agents_are_renewed_at_every_peer_and_digests_compared_with_some_in_turn() -> None:
    bench = Bench(OWNER, OTHER, THIRD, sync_peers=1)
    bench.feed(LocalRecord(record(AGENT, ME)))
    full: list[NodeId] = []
    for _ in range(3):
        out = bench.tick(30)
        for peer in (OWNER, OTHER, THIRD):
            (digest,) = sent(out, peer, Digest)
            assert [(lease.agent_id, lease.age_ms) for lease in digest.leases] == [(AGENT.did, 0)]
            if digest.full:
                full.append(peer)
    assert full == [OWNER, OTHER, THIRD]


def test_a_manifest_past_its_time_is_dropped_though_its_lease_runs() -> None:
    bench = Bench(OWNER)
    manifest = record(AGENT, OWNER, exp=EPOCH + 40)
    bench.give(OWNER, manifest)
    bench.tick(30)
    bench.hear(OWNER, Digest(leases=[lease_of(manifest)]))
    assert bench.tick(12).events == [AgentGone(AGENT.did, "echo", "expired")]


def test_a_fresh_signature_is_asked_for_at_half_life_of_a_local_manifest() -> None:
    bench = Bench()
    bench.feed(LocalRecord(record(AGENT, ME, exp=EPOCH + 1000)))
    assert bench.tick(400).events == []
    assert bench.tick(101).events == [RenewalDue(AGENT.did, "echo")]
    assert bench.tick(30).events == []
    assert bench.tick(31).events == [RenewalDue(AGENT.did, "echo")]


def test_leaving_makes_peers_stop_offering_the_local_agents() -> None:
    bench = Bench(OWNER)
    bench.feed(LocalRecord(record(AGENT, ME)))
    out = Outbox()
    bench.directory.leave(bench.now_s, out)
    assert [lease.healthy for digest in sent(out, OWNER, Digest) for lease in digest.leases] == [False]


# This node's own agents


def test_nobody_can_replace_a_local_agent_and_a_higher_seq_elsewhere_is_reported() -> None:
    bench = Bench(OWNER)
    bench.feed(LocalRecord(record(AGENT, ME, seq=3)))
    out = bench.give(OWNER, record(AGENT, ME, seq=9))
    assert out.events == [SeqBehind(AGENT.did, "echo", 9, elsewhere=False)]
    out = bench.give(OWNER, record(AGENT, OWNER, seq=10))
    assert out.events == [SeqBehind(AGENT.did, "echo", 10, elsewhere=True)]
    assert bench.held == {AGENT.did: 3}
    assert bench.give(OWNER, record(AGENT, OWNER, seq=2)).events == []


def test_registering_below_what_the_mesh_holds_is_reported() -> None:
    bench = Bench(OWNER)
    bench.give(OWNER, record(AGENT, OWNER, seq=9))
    assert SeqBehind(AGENT.did, "echo", 9, elsewhere=True) in bench.feed(LocalRecord(record(AGENT, ME, seq=3))).events


def test_an_agent_said_to_live_here_but_unknown_here_is_not_taken_in() -> None:
    bench = Bench(OWNER)
    bench.give(OWNER, record(AGENT, ME, seq=3))
    assert bench.held == {}


def test_withdrawing_a_local_agent_tells_every_peer() -> None:
    bench = Bench(OWNER)
    bench.feed(LocalRecord(record(AGENT, ME)))
    bench.now_s += 1
    dead = tombstone(AGENT, ME)
    out = bench.feed(LocalRecord(dead))
    assert out.events == [AgentGone(AGENT.did, "echo", "withdrawn")]
    assert [raw for part in sent(out, OWNER, Records) for raw, _ in part.records] == [dead.raw]
    assert bench.held == {}


def test_withdrawing_without_a_tombstone_stops_offers_at_once() -> None:
    bench = Bench(OWNER, require_signed=False)
    bench.feed(LocalRecord(record(AGENT, ME, signed=False)))
    out = bench.feed(LocalGone(AGENT.did))
    assert [lease.healthy for digest in sent(out, OWNER, Digest) for lease in digest.leases] == [False]
    assert out.events == [AgentGone(AGENT.did, "echo", "withdrawn")]
    assert bench.feed(LocalGone(AGENT.did)).events == []


# Hostile peers


def hostile() -> dict[str, tuple[bytes, Lease, str]]:
    """Return by name: a record, its lease, and the code it must be refused with."""
    good = record(AGENT, OTHER)
    signed = sign_card(AGENT, card(AGENT, OTHER))
    lease = lease_of(good)
    floats = json.loads(good.raw)
    floats["capabilities"]["extensions"][0]["params"]["rate"] = 1.5
    other = record(key(7), OTHER)
    return {
        "forged": (canonical({**signed, "description": "forged"}), lease, "signature.invalid"),
        "signed by another": (
            canonical({**card(AGENT, OTHER), "signatures": sign_card(key(7), card(key(7), OTHER))["signatures"]}),
            lease,
            "signature.kid",
        ),
        "lease of another": (other.raw, lease, "directory.lease"),
        "lease of another seq": (good.raw, lease_of(good, seq=2), "directory.lease"),
        "floats": (json.dumps(floats).encode(), lease, "json.float"),
        "10 MB": (b'{"a":"' + b"x" * 10_000_000 + b'"}', lease, "json.too_large"),
        "200 deep": (b'{"a":' * 200 + b"1" + b"}" * 200, lease, "json.too_deep"),
        "5000 deep": (b"[" * 5000, lease, "json.too_deep"),
        "duplicate member": (b'{"name":"a","name":"b"}', lease, "json.duplicate"),
        "garbage": (b"\x00\xff", lease, "json.utf8"),
        "empty": (b"", lease, "json.malformed"),
        "negative age": (good.raw, lease_of(good, -1), "directory.lease"),
        "huge age": (good.raw, lease_of(good, 2**62), "directory.lease"),
        "zero seq": (good.raw, lease_of(good, seq=0), "directory.lease"),
        "forged tombstone": (
            canonical({"tombstone": json.loads(tombstone(AGENT, OTHER).raw)["tombstone"][:-4] + "AAAA"}),
            lease,
            "signature.invalid",
        ),
    }


@pytest.mark.parametrize("name", hostile())
def test_a_hostile_record_is_dropped_with_its_code_and_changes_nothing(name: str) -> None:
    raw, lease, code = hostile()[name]
    bench = Bench(OWNER, OTHER)
    bench.give(OWNER, record(key(2), OWNER))
    before = bench.held
    out = bench.hear(OTHER, Records(records=[(raw, lease)]))
    assert codes(out) == [code]
    assert [e.peer for e in out.events] == [OTHER]
    assert bench.held == before
    assert bench.give(OTHER, record(AGENT, OTHER)).events == [AgentChanged(AGENT.did)], "the next good one is taken in"


@pytest.mark.parametrize(("off_s", "code"), [(-3600, "manifest.not_yet_valid"), (90_000, "manifest.expired")])
def test_a_clock_off_by_an_hour_is_reported_with_a_hint_and_blames_nobody(off_s: int, code: str) -> None:
    bench = Bench(OWNER)
    bench.feed(WallClock(EPOCH + off_s))
    out = bench.give(OWNER, record(AGENT, OWNER))
    (refused,) = out.events
    assert isinstance(refused, RecordRefused)
    assert refused.code == code
    assert "clock" in refused.hint
    assert bench.held == {}


def test_leases_that_no_honest_node_writes_are_held_against_the_sender() -> None:
    good = lease_of(record(AGENT, OWNER))
    for change in (
        {"agent_id": "did:key:zNo"},
        {"age_ms": -5},
        {"age_ms": 2**60},
        {"seq": 0},
        {"seq": 2**53},
        {"mark": -1},
    ):
        bench = Bench(OWNER)
        members = {name: getattr(good, name) for name in good.__struct_fields__}
        out = bench.hear(OWNER, Digest(leases=[Lease(**{**members, **change})]))
        assert codes(out) == ["directory.lease"], change
        assert not out.sends


def test_messages_with_too_many_entries_are_dropped_whole() -> None:
    bench = Bench(OWNER)
    manifest = record(AGENT, OWNER)
    for message in (
        Digest(leases=[lease_of(manifest)] * (BATCH_MAX + 1)),
        Want(agent_ids=[AGENT.did] * (BATCH_MAX + 1)),
        Records(records=[(manifest.raw, lease_of(manifest))] * (BATCH_MAX + 1)),
    ):
        assert codes(bench.hear(OWNER, message)) == ["directory.batch"]
    assert bench.held == {}


def test_a_stranger_without_a_link_is_not_heard() -> None:
    bench = Bench(OWNER)
    assert bench.give(OTHER, record(AGENT, OTHER)).events == []
    assert bench.held == {}


def test_one_peer_cannot_fill_the_table_nor_push_out_what_others_brought() -> None:
    bench = Bench(OWNER, OTHER, THIRD, entries_max=20, node_agents_max=100)
    for n in range(5):
        bench.give(OWNER, record(key(100 + n), OWNER, name=f"good{n}"))
    refused = 0
    for n in range(40):
        # Each claims to live at another node, so that no rule about nodes stops it.
        out = bench.give(OTHER, record(key(200 + n), key(300 + n).did, name=f"flood{n}"))
        refused += sum(isinstance(e, RecordRefused) and e.code == "directory.full" for e in out.events)
    names = [e.manifest.name for e in bench.directory.table.live()]
    assert len(names) == 20
    assert refused == 25
    assert {f"good{n}" for n in range(5)} <= set(names)
    # A third peer, and this node itself, still find room; the flooder pays.
    assert AgentChanged(key(150).did) in bench.give(THIRD, record(key(150), THIRD, name="late")).events
    gone = [e for e in bench.feed(LocalRecord(record(key(151), ME, name="mine"))).events if isinstance(e, AgentGone)]
    assert [(e.why, e.name[:5]) for e in gone] == [("evicted", "flood")]


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
    bench.give(OTHER, confirmed)
    bench.give(OTHER, claimed)
    bench.hear(OWNER, Digest(leases=[lease_of(confirmed)]))
    bench.give(OWNER, record(key(102), OWNER, name="own"))
    bench.give(OWNER, record(key(103), OWNER, name="late"))
    assert sorted(e.manifest.name for e in bench.directory.table.live()) == ["confirmed", "own"]


def test_a_known_record_with_an_impossible_lease_does_not_live_longer() -> None:
    bench = Bench(OWNER)
    manifest = record(AGENT, OWNER)
    bench.give(OWNER, manifest)
    for age_ms in (-(10**9), 2**60):
        assert codes(bench.give(OWNER, manifest, age_ms=age_ms)) == ["directory.lease"]
    assert bench.directory.table.live()[0].lease_left_s(bench.now_s) <= 90


def test_ages_are_rounded_up() -> None:
    bench = Bench(OWNER)
    bench.give(OWNER, record(AGENT, OWNER))
    bench.now_s += 0.0101
    (digest,) = sent(bench.feed(PeerUp(OTHER)), OTHER, Digest)
    assert digest.leases[0].age_ms == 11


def test_replicas_of_a_name_come_healthy_first() -> None:
    bench = Bench(OWNER, OTHER)
    bench.give(OWNER, record(key(1), OWNER), healthy=False)
    bench.give(OTHER, record(key(2), OTHER))
    assert [e.manifest.agent_id for e in bench.directory.table.named("echo")] == [key(2).did, key(1).did]
    bench.give(OTHER, record(key(2), OTHER, name="renamed", seq=2))
    assert [e.manifest.agent_id for e in bench.directory.table.named("echo")] == [key(1).did]
    assert bench.directory.table.named("nobody") == []
