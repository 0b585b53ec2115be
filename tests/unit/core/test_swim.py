"""One SWIM machine: what it answers, what it refuses, what it keeps (docs/spec/swim.md)."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer, WallTime
from agentmesh.core.messages import (
    LocalNode,
    MemberAlive,
    MemberDead,
    MemberLeft,
    MemberSuspected,
    NodeHeard,
    NodeRecordWanted,
    PeerDown,
    ProbeWanted,
    Received,
    Spoke,
    Unwatch,
    Watch,
)
from agentmesh.core.swim.config import SwimConfig
from agentmesh.core.swim.machine import ROUND, WAKE, Swim
from agentmesh.core.swim.members import retransmits, suspicion_s
from agentmesh.core.swim.messages import Ack, Doubt, Ping, PingReq, Tell, Vouch
from agentmesh.core.swim.rumours import Rumours
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.reader import Reader
from agentmesh.ids import NodeId, node_id, public_key_of
from tests.support.swim_zone import EPOCH, key, signed

KEYS = [key(n).public for n in range(1, 40)]
IDS = [node_id(public) for public in KEYS]
ME, A, B, C = IDS[:4]
READER = Reader()


def record(number: int, seq: int, *, leaving: bool = False) -> NodeRecord:
    """Return a record of ``IDS[number]``."""
    return READER.node(signed(number + 1, seq, leaving=leaving), EPOCH)


class Bench:
    """One machine on a virtual clock; the test plays all its peers."""

    def __init__(self, watched: int = 3, config: SwimConfig | None = None, seq: int = 10) -> None:
        self.now_s = 50.0
        wall = WallTime()
        wall.set(EPOCH, self.now_s)
        self.swim = Swim(ME, config or SwimConfig(), random.Random(1), READER, wall)
        self.timers: list[tuple[float, Timer]] = []
        self.give(LocalNode(record(0, seq)))
        for n in range(1, watched + 1):
            self.give(Watch(record(n, 5)))

    def give(self, incoming: Any) -> Outbox:
        """Hand an input in."""
        out = Outbox()
        self.swim.handle(incoming, self.now_s, out)
        self.swim.assert_invariants()
        self.timers += [(self.now_s + delay_s, timer) for delay_s, timer in out.timers]
        return out

    def hear(self, peer: NodeId, message: Any) -> Outbox:
        """Let a peer say something."""
        return self.give(Received(peer, message))

    def run(self, seconds: float, answering: tuple[NodeId, ...] = ()) -> Outbox:
        """Let time pass; some peers answer pings at once."""
        end_s, whole = self.now_s + seconds, Outbox()
        while True:
            due = min(self.timers, key=lambda entry: entry[0], default=(end_s + 1, ROUND))
            if due[0] > end_s:
                break
            self.timers.remove(due)
            self.now_s = due[0]
            queue = [self.give(due[1])]
            while queue:
                out = queue.pop()
                whole.sends += out.sends
                whole.events += out.events
                queue += [
                    self.hear(s.to, Ack(s.message.nonce, 5, 0, 0))
                    for s in out.sends
                    if isinstance(s.message, Ping) and s.to in answering
                ]
        self.now_s = end_s
        return whole


def of(out: Outbox, kind: type) -> list[Any]:
    """Return the events of one kind."""
    return [event for event in out.events if isinstance(event, kind)]


def test_any_node_answers_any_ping_with_its_nonce_and_seq() -> None:
    (sent,) = Bench().hear(IDS[20], Ping(77, 3, 0, 0)).sends
    assert (sent.to, sent.message) == (IDS[20], Ack(77, 10, 0, EPOCH * 1000))


def test_who_holds_an_old_record_of_this_node_gets_the_new_one_with_the_answer() -> None:
    bench = Bench()
    (sent,) = bench.hear(A, Ping(1, 5, 9, 0)).sends
    assert sent.message.records == (record(0, 10).raw,)
    assert sent.message.held == 5  # and says in turn which record of the asker it holds
    assert bench.hear(A, Ping(2, 5, 10, 0)).sends[0].message.records == ()
    (told,) = bench.hear(A, Ack(2, 5, 9, 0)).sends
    assert told.message == Tell((record(0, 10).raw,))


def test_a_node_that_forgot_its_own_seq_is_shown_its_record_and_signs_above_it() -> None:
    bench = Bench()
    assert bench.hear(A, Ping(1, 2, 0, 0)).sends[0].message.records == (record(1, 5).raw,)
    later = record(0, 15).raw
    assert of(bench.hear(A, Ack(1, 5, 0, 0, (later,))), NodeRecordWanted) == [NodeRecordWanted(seq_min=15)]
    assert of(bench.hear(A, Ack(1, 5, 0, 0, (later,))), NodeRecordWanted) == []  # it is being signed


def test_a_newer_record_of_a_member_is_told_and_passed_on_and_an_older_one_is_not() -> None:
    bench = Bench()
    new = record(2, 6)
    assert of(bench.hear(A, Tell((new.raw,))), NodeHeard) == [NodeHeard(new, A)]
    assert of(bench.hear(A, Tell((new.raw, record(2, 4).raw))), NodeHeard) == []
    assert bench.hear(C, Ping(1, 5, 10, 0)).sends[0].message.records == (new.raw,)
    assert bench.hear(B, Ping(1, 6, 10, 0)).sends[0].message.records == ()  # not to its own subject


def test_a_member_that_says_it_leaves_is_left_and_not_watched_again_by_an_old_record() -> None:
    bench = Bench()
    assert of(bench.hear(B, Tell((record(1, 6, leaving=True).raw,))), MemberLeft) == [MemberLeft(A, 6)]
    assert bench.swim.state(A) == "left"
    assert of(bench.give(Watch(record(1, 5))), MemberLeft) == [MemberLeft(A, 6)]
    bench.give(NodeHeard(record(1, 7), B))
    bench.give(Watch(record(1, 7)))
    assert bench.swim.state(A) == "alive"


def test_silence_is_asked_directly_then_through_helpers_and_a_link_then_suspected_then_declared() -> None:
    bench = Bench(3)
    bench.run(3, answering=(A, B, C))
    out = bench.run(30, answering=(B, C))
    to_a = [s for s in out.sends if s.to == A and isinstance(s.message, Ping)]
    assert [s.link for s in to_a[:2]] == [False, True]
    asked = [s.to for s in out.sends if isinstance(s.message, PingReq)]
    assert set(asked) == {B, C}
    kinds = [type(e) for e in out.events]
    assert kinds.index(MemberSuspected) < kinds.index(MemberDead)
    assert of(out, MemberDead) == [MemberDead(A, 5)]
    assert bench.swim.state(A) == "dead"
    assert bench.swim.alive_count == 2


def test_what_others_say_makes_this_node_ask_but_never_declare() -> None:
    bench = Bench(6)
    bench.run(3, answering=tuple(IDS[1:7]))
    for _ in range(40):
        for accuser in (B, C, IDS[4]):
            bench.hear(accuser, Tell((), (Doubt(KEYS[1], 5, True), Doubt(KEYS[1], 99, False))))
        out = bench.run(0.5, answering=tuple(IDS[1:7]))
        assert not of(out, MemberSuspected)
        assert not of(out, MemberDead)
    assert bench.swim.state(A) == "alive"


def test_a_doubt_makes_the_member_be_probed_at_most_once_per_interval_and_a_strangers_doubt_not_at_all() -> None:
    bench = Bench(3)
    bench.run(5, answering=(A, B, C))
    doubt = Tell((), (Doubt(KEYS[1], 5, False),))
    assert bench.hear(IDS[20], doubt).sends == []
    assert [s.to for s in bench.hear(B, doubt).sends] == [A]
    bench.hear(A, Ack(0, 5, 0, 0))
    assert bench.hear(C, doubt).sends == []


def test_a_node_signs_anew_when_told_dead_or_when_a_suspicion_stays_but_not_for_every_doubt() -> None:
    bench = Bench()
    suspect = Tell((), (Doubt(KEYS[0], 10, False),))
    assert of(bench.hear(A, suspect), NodeRecordWanted) == []
    bench.run(1.5, answering=(A, B, C))
    assert of(bench.hear(A, suspect), NodeRecordWanted) == [NodeRecordWanted(seq_min=10)]
    bench.run(1.5, answering=(A, B, C))
    assert of(bench.hear(A, suspect), NodeRecordWanted) == []  # this accuser has had its answer
    assert of(bench.hear(B, Tell((), (Doubt(KEYS[0], 10, True),))), NodeRecordWanted) == [NodeRecordWanted(seq_min=10)]
    told = bench.give(LocalNode(record(0, 11))).sends
    assert {A, B} <= {s.to for s in told if s.message == Tell((record(0, 11).raw,))}
    assert of(bench.hear(C, Tell((), (Doubt(KEYS[0], 2**50, True),))), NodeRecordWanted) == []  # above our own: a lie
    assert of(bench.hear(IDS[20], Tell((), (Doubt(KEYS[0], 11, True),))), NodeRecordWanted) == []  # a stranger


def test_a_helper_pings_for_members_says_when_there_is_no_answer_and_does_not_serve_strangers() -> None:
    bench = Bench()
    bench.run(3, answering=(A, B, C))
    out = bench.hear(A, PingReq(9, KEYS[2], 100))
    ping = next(s for s in out.sends if s.to == B)
    out = bench.run(0.15)
    assert [s.message for s in out.sends if s.to == A and isinstance(s.message, Vouch)] == [Vouch(9, False)]
    out = bench.hear(C, Ack(ping.message.nonce, 5, 0, 0))
    assert not [s for s in out.sends if isinstance(s.message, Vouch)]  # not the target
    out = bench.hear(B, Ack(ping.message.nonce, 5, 0, 0))
    assert [(s.to, s.message) for s in out.sends] != []
    assert bench.hear(IDS[20], PingReq(9, KEYS[21], 100)).sends == []
    assert bench.hear(IDS[20], PingReq(9, KEYS[0], 100)).sends[0].message == Vouch(9, True)


def test_only_helpers_that_were_asked_can_vouch() -> None:
    bench = Bench(3)
    bench.run(3, answering=(A, B, C))
    out = bench.run(6, answering=(B, C))
    assert bench.swim.state(A) == "suspect"
    nonce = [s.message.nonce for s in out.sends if s.to == A and isinstance(s.message, Ping)][-1]
    bench.hear(IDS[20], Vouch(nonce, True))
    assert bench.swim.state(A) == "suspect"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Ping(1, 1, 0, 0, (b"no record",)), "swim.record"),
        (Tell((signed(2, 9)[:-1] + b"\0",)), "swim.record"),
        (Tell((b"",) * 13), "swim.too_many"),
        (Ack(1, 1, 0, 0, (), (Doubt(KEYS[1], 1, True),) * 25), "swim.too_many"),
        (Tell((), (Doubt(b"short", 1, True),)), "swim.target"),
        (PingReq(1, b"short", 5), "swim.target"),
    ],
)
def test_a_malformed_message_is_charged_to_its_sender_and_dropped(message: Any, code: str) -> None:
    out = Bench().hear(A, message)
    assert [(e.peer, e.code) for e in out.events] == [(A, code)]
    assert isinstance(out.events[0], PeerMisbehaved)
    assert out.sends == []


def test_an_outdated_record_is_skipped_without_blame() -> None:
    out = Bench().hear(A, Tell((signed(3, 50, at=EPOCH - 10 * 86_400),)))
    assert out.events == []


def test_every_table_keeps_its_bound() -> None:
    config = SwimConfig(members_max=5, dead_max=2, relays_max=3)
    bench = Bench(8, config)
    assert len(bench.swim.members()) == 5
    out = bench.hear(A, PingReq(1, KEYS[2], 100))
    for nonce in range(10):
        out = bench.hear(A, PingReq(nonce, KEYS[2], 100))
    assert out.sends == []
    bench.run(40)
    assert sum(bench.swim.state(node) == "dead" for node in IDS) == 2
    bench.give(Unwatch(A))
    assert bench.swim.members() == []


def test_a_dead_node_is_pinged_every_other_second_and_is_alive_as_soon_as_it_answers() -> None:
    bench = Bench(2)
    bench.run(3, answering=(A, B))
    bench.run(15, answering=(B,))
    assert bench.swim.state(A) == "dead"
    pings = [s.message for s in bench.run(10, answering=(B,)).sends if s.to == A]
    assert 4 <= len(pings) <= 6
    assert pings[0].doubts == (Doubt(KEYS[1], 5, True),)  # so that it knows, and signs a higher seq
    out = bench.hear(A, Ack(pings[-1].nonce, 5, 0, 0))
    assert [type(e) for e in out.events] == [NodeHeard, MemberAlive]


def test_a_member_that_is_asked_after_is_probed_at_once_and_its_answer_is_told_once() -> None:
    bench = Bench()
    bench.run(5, answering=(A, B, C))
    asked = bench.give(ProbeWanted(A))
    assert [s.to for s in asked.sends if isinstance(s.message, Ping)] == [A]
    told = bench.run(3, answering=(A, B, C))
    assert of(told, MemberAlive) == [MemberAlive(A)]
    assert of(bench.run(5, answering=(A, B, C)), MemberAlive) == []
    assert bench.give(ProbeWanted(IDS[20])).sends == [], "a stranger is not watched"


def test_a_dead_node_that_is_asked_after_is_pinged_at_once() -> None:
    bench = Bench(watched=1)
    bench.run(30)
    assert bench.swim.state(A) == "dead"
    assert [s.to for s in bench.give(ProbeWanted(A)).sends] == [A]
    assert of(bench.hear(A, Ack(1, 5, 0, 0)), MemberAlive) == [MemberAlive(A)]


def test_anything_that_a_suspect_says_over_its_link_ends_the_suspicion() -> None:
    bench = Bench(2)
    bench.run(3, answering=(A, B))
    assert not bench.swim.asks(A)
    while bench.swim.state(A) == "alive":
        bench.run(0.5, answering=(B,))
    assert bench.swim.asks(A)
    assert of(bench.give(Spoke(A)), MemberAlive) == [MemberAlive(A)]
    assert (bench.swim.state(A), bench.swim.asks(A)) == ("alive", False)
    bench.run(15, answering=(B,))
    assert bench.swim.state(A) == "dead", "it says nothing more"


def test_awareness_slows_the_rounds_and_success_wins_it_back() -> None:
    bench = Bench(6)
    bench.run(3, answering=tuple(IDS[1:7]))
    bench.run(6)  # nobody answers, helpers neither: it is rather us
    assert bench.swim.awareness >= 2
    bench.run(30, answering=tuple(IDS[1:7]))
    assert bench.swim.awareness == 0


def test_who_sleeps_again_and_again_is_overloaded_asks_less_and_recovers() -> None:
    bench = Bench(watched=12)
    bench.run(5, answering=tuple(IDS[1:13]))

    def nap() -> int:
        """Sleep for 2 s, then run for 1 s without an answer; return how many pings that cost."""
        bench.now_s += 2.0
        out = bench.give(ROUND)
        bench.timers = [(max(due_s, bench.now_s), timer) for due_s, timer in bench.timers]
        return sum(isinstance(s.message, Ping) for s in out.sends + bench.run(1.0).sends)

    pings = [nap() for _ in range(6)]
    assert min(pings[:2]) >= 36, "everybody is greeted thrice"
    assert max(pings[3:]) < min(pings[:2]) / 2
    bench.run(25, answering=tuple(IDS[1:13]))
    assert nap() >= 36


def test_who_slept_suspects_nobody_for_what_it_missed_trusts_itself_less_and_greets_everybody() -> None:
    bench = Bench(4)
    bench.run(3, answering=(A, B, C))
    while bench.swim.state(IDS[4]) != "suspect":
        bench.run(0.5, answering=(A, B, C))
    before = bench.swim.awareness
    bench.now_s += 60.0
    out = bench.give(ROUND)
    assert bench.swim.awareness == before + 1
    out.sends += bench.run(1.0).sends
    assert of(out, MemberDead) == []
    assert all(sum(s.to == node and isinstance(s.message, Ping) for s in out.sends) >= 3 for node in IDS[1:5])


@given(st.integers(1, 500), st.integers(0, 20))
def test_confirmations_shorten_a_suspicion_down_to_its_minimum_and_never_below(members: int, accusers: int) -> None:
    config = SwimConfig()
    now, more = suspicion_s(config, members, accusers), suspicion_s(config, members, accusers + 1)
    assert config.suspicion_floor_s <= more <= now <= config.suspicion_floor_s * config.suspicion_max_ratio
    if accusers >= config.confirmations:
        assert now == config.suspicion_floor_s


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 700), st.booleans()), max_size=30),
    st.integers(1, 8),
    st.booleans(),
)
def test_packets_stay_small_and_no_rumour_is_sent_more_often_than_allowed(
    entries: list[tuple[int, int, bool]], times_max: int, lead: bool
) -> None:
    rumours = Rumours(16, 1_200)
    for number, size, doubt in entries:
        if doubt:
            rumours.doubt(IDS[number], KEYS[number], 2**53 - 1, dead=True)
        else:
            rumours.pass_on(IDS[number], bytes([number]) * size)
        rumours.assert_invariants()
    counts: dict[Any, int] = {}
    first = (b"x" * 300, Doubt(KEYS[5], 2**53 - 1, False)) if lead else (None, None)
    for _ in range(16 * 2 * times_max):
        records, doubts = rumours.pick(IDS[31], *first, times_max)
        packet = Ping(2**63, 2**53, 2**53, 2**53, records, doubts)
        assert len(msgspec.msgpack.encode(packet)) <= 1_200
        for item in (*records, *(d.node for d in doubts if d is not first[1])):
            counts[item] = counts.get(item, 0) + 1
    counts.pop(first[0], None)
    assert all(count == times_max for count in counts.values())
    assert rumours.pick(IDS[31], None, None, times_max) == ((), ())


def test_a_rumour_is_sent_more_often_the_more_members_there_are() -> None:
    config = SwimConfig()
    assert [retransmits(config, n) for n in (0, 1, 9, 10, 99, 100)] == [4, 4, 4, 8, 8, 12]


_NODES = st.integers(0, 12)
_SEQS = st.integers(1, 12)
_DOUBTS = st.builds(lambda n, s, d: Doubt(KEYS[n], s, d), _NODES, _SEQS, st.booleans())
_RECORDS = st.builds(lambda n, s, leaving: record(n, s, leaving=leaving), _NODES, _SEQS, st.booleans())
_RAWS = st.lists(st.one_of(_RECORDS.map(lambda r: r.raw), st.binary(max_size=40)), max_size=3).map(tuple)
_RUMOURS = st.tuples(_RAWS, st.lists(_DOUBTS, max_size=4).map(tuple))
_NUMBERS = st.integers(-5, 2**62)
_MESSAGES = st.one_of(
    st.builds(lambda n, s, h, r: Ping(n, s, h, 0, *r), _NUMBERS, _NUMBERS, _NUMBERS, _RUMOURS),
    st.builds(lambda n, s, h, r: Ack(n, s, h, 0, *r), _NUMBERS, _NUMBERS, _NUMBERS, _RUMOURS),
    st.builds(lambda r: Tell(*r), _RUMOURS),
    st.builds(lambda n, t, w: PingReq(n, KEYS[t], w), _NUMBERS, _NODES, _NUMBERS),
    st.builds(Vouch, _NUMBERS, st.booleans()),
)
_INPUTS = st.one_of(
    st.builds(lambda n, m: Received(IDS[n], m), st.integers(1, 14), _MESSAGES),
    _RECORDS.filter(lambda r: r.node_id != ME).map(Watch),
    _RECORDS.map(lambda r: NodeHeard(r, A)),
    _NODES.map(lambda n: Unwatch(IDS[n])),
    _NODES.map(lambda n: PeerDown(IDS[n])),
    st.floats(0.01, 8.0),
    st.sampled_from([ROUND, WAKE, Timer("dht.tick")]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_INPUTS, max_size=60))
def test_nothing_that_happens_breaks_a_rule_and_no_peer_makes_it_raise(inputs: list[Any]) -> None:
    bench = Bench(4, SwimConfig(members_max=6, dead_max=3, relays_max=4, checks_max=3))
    alive = {view.node for view in bench.swim.members()}
    for incoming in inputs:
        out = bench.run(incoming, answering=(A,)) if isinstance(incoming, float) else bench.give(incoming)
        for event in out.events:
            if isinstance(event, MemberDead):
                assert event.node != ME
                assert public_key_of(event.node)
        alive = {view.node for view in bench.swim.members()}
        assert bench.swim.alive_count <= len(alive)
        for node in alive:
            assert bench.swim.state(node) in ("alive", "suspect")
