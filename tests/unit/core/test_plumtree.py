"""Plumtree, one machine at a time: what it says to whom, whom it trusts, what it keeps (docs/spec/plumtree.md §2–§6)."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.core.messages import Delivered, NeighbourBad, NeighbourDown, NeighbourUp, Publish, Received
from agentmesh.core.plumtree.config import PlumtreeConfig
from agentmesh.core.plumtree.machine import Plumtree
from agentmesh.core.plumtree.messages import (
    IDS_MAX,
    Gossip,
    Graft,
    IDontWant,
    IHave,
    Offer,
    Prune,
    Recent,
    message_id,
)
from agentmesh.ids import NodeId
from tests.support.plumtree_net import judge_all_new

ME = NodeId("me")
MESSAGES = (Gossip, Graft, IDontWant, IHave, Offer, Prune, Recent)


class One:
    """A machine, its clock, and its timers."""

    def __init__(self, long: int = 3, zone: int = 0, **knobs: Any) -> None:
        self.now_s = 100.0
        self.machine = Plumtree(ME, PlumtreeConfig(**knobs), random.Random(1), judge_all_new)
        self.timers: list[tuple[float, Timer]] = []
        for i in range(long):
            self.give(NeighbourUp(NodeId(f"long{i}"), False))
        for i in range(zone):
            self.give(NeighbourUp(NodeId(f"zone{i:02d}"), True))

    def give(self, incoming: Any) -> Outbox:
        out = Outbox()
        self.machine.handle(incoming, self.now_s, out)
        self.machine.assert_invariants()
        self.timers += [(self.now_s + delay_s, timer) for delay_s, timer in out.timers]
        return out

    def hear(self, peer: str, message: Any) -> Outbox:
        return self.give(Received(NodeId(peer), message))

    def wait(self, seconds: float) -> Outbox:
        """Let time pass; return all that the timers made the machine do."""
        until_s = self.now_s + seconds
        total = Outbox()
        while True:
            due = [entry for entry in self.timers if entry[0] <= until_s]
            if not due:
                break
            entry = min(due, key=lambda e: e[0])
            self.timers.remove(entry)
            self.now_s = entry[0]
            out = self.give(entry[1])
            total.sends += out.sends
            total.events += out.events
        self.now_s = until_s
        return total


def sent(out: Outbox, kind: type) -> list[tuple[str, Any]]:
    """Return whom messages of a class went to."""
    return [(send.to, send.message) for send in out.sends if isinstance(send.message, kind)]


def told(out: Outbox, kind: type) -> list[Any]:
    """Return events of a class."""
    return [event for event in out.events if isinstance(event, kind)]


def gossip(payload: bytes, **fields: Any) -> Gossip:
    return Gossip(kind="agent", hops=fields.pop("hops", 1), payload=payload, **fields)


def have(*payloads: bytes, hops: int = 2) -> IHave:
    return IHave(ids=[message_id("agent", p) for p in payloads], hops=[hops] * len(payloads))


def test_a_new_message_is_delivered_once_and_pushed_to_the_other_eager_neighbours() -> None:
    one = One(long=3)
    out = one.hear("long0", gossip(b"x", hops=4))
    assert told(out, Delivered) == [Delivered("agent", b"x", NodeId("long0"), 4)]
    assert [(to, m.hops) for to, m in sent(out, Gossip)] == [("long1", 5), ("long2", 5)]
    again = one.hear("long1", gossip(b"x", hops=2))
    assert not again.events
    assert not sent(again, Gossip)


def test_who_brings_a_second_copy_along_the_tree_is_pruned_and_told_by_announcement_from_then_on() -> None:
    one = One(long=3)
    one.hear("long0", gossip(b"x"))
    out = one.hear("long1", gossip(b"x"))
    assert sent(out, Prune) == [("long1", Prune())]
    assert one.machine.eager() == ("long0", "long2")
    assert one.machine.lazy() == ("long1",)
    out = one.hear("long0", gossip(b"y"))
    assert [to for to, _ in sent(out, Gossip)] == ["long2"]
    assert [to for to, _ in sent(one.wait(0.05), IHave)] == ["long1"]


def test_a_copy_that_left_the_tree_somewhere_prunes_nobody() -> None:
    one = One(long=3)
    one.hear("long0", gossip(b"x", tree=False))
    assert not sent(one.hear("long1", gossip(b"x")), Prune)
    one.hear("long0", gossip(b"y"))
    assert not sent(one.hear("long1", gossip(b"y", tree=False)), Prune)
    assert set(one.machine.eager()) == {"long0", "long1", "long2"}


def test_the_last_link_to_the_tree_is_not_pruned_when_two_messages_cross() -> None:
    one = One(long=2)
    one.hear("long0", gossip(b"x"))
    one.hear("long1", gossip(b"y"))
    one.hear("long1", gossip(b"x"))
    one.hear("long0", gossip(b"y"))
    assert one.machine.eager() == ("long0",)


def test_a_neighbour_that_always_comes_second_is_pruned_whatever_it_says() -> None:
    one = One(long=3, late_max=5)
    for i in range(5):
        one.hear("long0", gossip(b"%d" % i))
        out = one.hear("long1", gossip(b"%d" % i, tree=False))
    assert sent(out, Prune)


def test_an_announced_message_that_does_not_come_is_fetched_without_changing_the_tree() -> None:
    one = One(long=3)
    one.hear("long1", Prune())
    assert not one.hear("long1", have(b"x")).sends
    assert not sent(one.wait(0.1), Graft)
    out = one.wait(0.2)
    assert sent(out, Graft)[0] == ("long1", Graft(ids=[message_id("agent", b"x")]))
    assert [to for to, _ in sent(out, IDontWant)] == ["long0", "long2"]
    out = one.hear("long1", gossip(b"x", tree=False, asked=True))
    assert told(out, Delivered)
    assert "long1" in one.machine.lazy()
    assert not sent(out, Gossip)
    assert [to for to, _ in sent(out, Offer)] == ["long0", "long2"]


def test_a_message_that_comes_in_time_is_not_fetched() -> None:
    one = One(long=3)
    one.hear("long1", have(b"x"))
    one.hear("long0", gossip(b"x"))
    assert not sent(one.wait(5), Graft)


def test_the_next_announcer_is_asked_when_the_first_does_not_deliver() -> None:
    one = One(long=3)
    one.hear("long1", have(b"x"))
    one.hear("long2", have(b"x"))
    asked = [to for to, _ in sent(one.wait(0.45), Graft)]
    assert asked[:3] == ["long1", "long2", "long1"]


def test_fetches_of_many_ids_travel_together_and_end() -> None:
    one = One(long=1, attempts_max=3)
    one.hear("long0", have(*(b"%d" % i for i in range(50))))
    grafts = sent(one.wait(60), Graft)
    assert [len(m.ids) for _, m in grafts] == [50, 50, 50]
    assert not one.timers


def test_repeated_misses_make_the_announcer_an_eager_parent() -> None:
    one = One(long=3, promote_holes=3)
    one.hear("long1", Prune())
    for i in range(3):
        assert "long1" not in one.machine.eager()
        one.hear("long1", have(b"%d" % i))
        one.wait(0.25)
        out = one.hear("long1", gossip(b"%d" % i, tree=False, asked=True))
    assert sent(out, Graft) == [("long1", Graft(ids=[], keep=True))]
    assert "long1" in one.machine.eager()


def test_rare_misses_never_add_up_to_a_promotion() -> None:
    one = One(long=3)
    one.hear("long1", Prune())
    for i in range(200):
        if i % 10 == 0:
            one.hear("long1", have(b"%d" % i))
            one.wait(0.25)
            one.hear("long1", gossip(b"%d" % i, tree=False, asked=True))
        else:
            one.hear("long0", gossip(b"%d" % i))
    assert "long1" in one.machine.lazy()


def test_an_announcer_becomes_eager_at_once_when_nobody_else_is() -> None:
    one = One(long=2)
    one.hear("long0", Prune())
    one.hear("long1", Prune())
    one.hear("long1", have(b"x"))
    assert sent(one.wait(0.3), Graft)[0] == ("long1", Graft(ids=[message_id("agent", b"x")], keep=True))
    assert one.machine.eager() == ("long1",)


def test_a_graft_is_answered_with_the_payload_and_keep_makes_eager() -> None:
    one = One(long=2)
    one.hear("long0", gossip(b"x"))
    one.hear("long1", Prune())
    id_ = message_id("agent", b"x")
    assert sent(one.hear("long1", Graft(ids=[id_, b"?" * 16])), Gossip) == [
        ("long1", gossip(b"x", hops=2, tree=False, asked=True))
    ]
    assert "long1" in one.machine.lazy()
    one.hear("long1", Graft(ids=[], keep=True))
    assert "long1" in one.machine.eager()


def test_a_much_nearer_announcer_takes_the_place_of_the_eager_parent() -> None:
    one = One(long=2)
    one.hear("long1", Prune())
    one.hear("long1", have(b"x", hops=2))
    out = one.hear("long0", gossip(b"x", hops=9))
    assert sent(out, Graft) == [("long1", Graft(ids=[], keep=True))]
    assert sent(out, Prune)
    assert one.machine.eager() == ("long1",)


def test_the_wait_grows_while_pushes_are_merely_late_and_shrinks_while_they_are_lost() -> None:
    def first_fetch_s(one: One, i: int) -> float:
        one.hear("long1", have(b"probe%d" % i))
        start_s = one.now_s
        while not sent(one.wait(0.005), Graft):
            assert one.now_s < start_s + 1
        return one.now_s - start_s

    late, lost = One(long=3), One(long=3)
    for i in range(20):
        late_s, lost_s = first_fetch_s(late, i), first_fetch_s(lost, i)
        late.hear("long0", gossip(b"probe%d" % i))
        lost.hear("long1", gossip(b"probe%d" % i, asked=True, tree=False))
    assert lost_s < 0.12 < 0.2 < late_s


def test_own_messages_go_to_all_long_links_and_are_not_judged() -> None:
    one = One(long=3)
    one.hear("long1", Prune())
    out = one.give(Publish("agent", b"garbage of my own"))
    assert sorted(to for to, _ in sent(out, Gossip)) == ["long0", "long1", "long2"]
    assert [m.tree for to, m in sent(out, Gossip) if to == "long1"] == [False]
    assert not told(out, Delivered)
    assert one.machine.seen(message_id("agent", b"garbage of my own"))


def test_a_large_payload_is_offered_fetched_at_once_and_retried_elsewhere() -> None:
    big = b"b" * 20_000
    id_ = message_id("agent", big)
    author = One(long=2)
    out = author.give(Publish("agent", big))
    offer = Offer(kind="agent", id=id_, hops=1, size_bytes=len(big))
    assert sent(out, Offer) == [("long0", offer), ("long1", offer)]
    assert not sent(out, Gossip)
    one = One(long=3)
    one.hear("long0", offer)
    one.hear("long1", offer)
    assert [to for to, _ in sent(one.wait(0.01), Graft)] == ["long0"]
    assert not sent(one.wait(0.1), Graft), "a large payload takes its time"
    assert [to for to, _ in sent(one.wait(0.3), Graft)] == ["long1"]
    out = one.hear("long1", gossip(big, asked=True, tree=False))
    assert told(out, Delivered)
    assert [to for to, _ in sent(out, Offer)] == ["long2"]


def test_a_payload_above_a_kilobyte_is_declined_at_the_other_eager_neighbours() -> None:
    one = One(long=3)
    assert not sent(one.hear("long0", gossip(b"s" * 1024)), IDontWant)
    out = one.hear("long0", gossip(b"l" * 1025))
    assert [to for to, _ in sent(out, IDontWant)] == ["long1", "long2"]


def test_nothing_is_pushed_to_who_declined_it_but_it_is_announced() -> None:
    one = One(long=3)
    one.hear("long1", IDontWant(ids=[message_id("agent", b"x")]))
    assert [to for to, _ in sent(one.hear("long0", gossip(b"x")), Gossip)] == ["long2"]
    assert [to for to, _ in sent(one.wait(0.05), IHave)] == ["long1"]


def test_nobody_is_told_of_what_he_announced_or_brought() -> None:
    one = One(long=3)
    for peer in ("long1", "long2"):
        one.hear(peer, Prune())
    one.hear("long1", have(b"x"))
    one.hear("long0", gossip(b"x"))
    assert [to for to, _ in sent(one.wait(0.05), IHave)] == ["long2"]


def test_announcements_do_not_grow_with_the_zone() -> None:
    for size in (10, 40, 200):
        one = One(long=1, zone=size)
        one.hear("long0", gossip(b"x"))
        assert len(one.machine.eager()) == 1 + 2
        assert 3 <= len(sent(one.wait(0.05), IHave)) <= 5


def test_every_zone_mate_is_told_by_as_many_as_it_tells() -> None:
    names = [NodeId(f"m{i:02d}") for i in range(14)]
    told_by = dict.fromkeys(names, 0)
    for me in names:
        machine = Plumtree(me, PlumtreeConfig(zone_eager=0), random.Random(1), judge_all_new)
        for mate in names:
            machine.handle(NeighbourUp(mate, True), 0.0, Outbox())
        for mate in machine.lazy():
            told_by[mate] += 1
    assert set(told_by.values()) == {5}


def test_a_stale_message_is_remembered_and_neither_delivered_nor_passed_on() -> None:
    one = One(long=3)
    out = one.hear("long0", gossip(b"stale news"))
    assert not out.sends
    assert not out.events
    assert one.machine.seen(message_id("agent", b"stale news"))
    assert one.machine.score(NodeId("long0"), one.now_s) == 0
    assert not sent(one.wait(5), IHave)


def test_invalid_messages_are_charged_to_everybody_who_brings_them_and_end_the_neighbourhood() -> None:
    one = One(long=3)
    out = one.hear("long0", gossip(b"garbage"))
    assert [e.code for e in told(out, PeerMisbehaved)] == ["plumtree.invalid"]
    assert not out.sends
    assert told(one.hear("long1", gossip(b"garbage")), PeerMisbehaved)
    out = one.hear("long0", gossip(b"garbage2"))
    assert [e.node for e in told(out, NeighbourBad)] == ["long0"]
    assert "long0" not in one.machine.eager() + one.machine.lazy()
    assert not one.hear("long0", gossip(b"good")).events, "who is on the grey list is ignored"
    assert told(one.hear("long1", gossip(b"good")), Delivered)


def test_a_bad_name_survives_parting_and_fades() -> None:
    one = One(long=2)
    for i in range(2):
        one.hear("long0", gossip(b"garbage%d" % i))
    one.give(NeighbourDown(NodeId("long0")))
    assert told(one.give(NeighbourUp(NodeId("long0"), False)), NeighbourBad)
    one.give(NeighbourDown(NodeId("long0")))
    one.wait(600)
    assert not told(one.give(NeighbourUp(NodeId("long0"), False)), NeighbourBad)
    assert one.machine.score(NodeId("long0"), one.now_s) > -2


def test_a_neighbour_that_announces_and_never_delivers_is_dropped_and_asked_last_before() -> None:
    one = One(long=3)
    bad: list[NeighbourBad] = []
    for i in range(80):
        one.hear("long1", have(b"%d" % i))
        one.hear("long2", have(b"%d" % i))
        out = one.wait(0.5)
        bad += told(out, NeighbourBad)
        first = [(to, m) for to, m in sent(out, Graft) if have(b"%d" % i).ids[0] in m.ids]
        if i > 10 and first:
            assert first[0][0] == "long2", "who broke promises is not the first to be asked"
        one.hear("long2", gossip(b"%d" % i, asked=True, tree=False))
        for j in range(4):
            one.hear("long1", IHave(ids=[message_id("fake", b"%d %d" % (i, j))], hops=[2]))
    assert [event.node for event in bad] == ["long1"]


def test_what_other_machines_hold_against_a_neighbour_counts_and_our_own_reports_do_not_count_twice() -> None:
    one = One(long=2)
    one.give(PeerMisbehaved(NodeId("long0"), "plumtree.invalid", ""))
    assert one.machine.score(NodeId("long0"), one.now_s) == 0
    outs = [one.give(PeerMisbehaved(NodeId("long0"), "swim.forged", "")) for _ in range(5)]
    assert told(outs[-1], NeighbourBad)


def test_a_flood_of_ids_or_bytes_is_cut_off_and_reported() -> None:
    one = One(long=2, ids_burst=100, ids_per_s=10)
    out = Outbox()
    for i in range(300):
        out.events += one.hear("long0", gossip(b"%d" % i)).events
    assert len(told(out, Delivered)) == 100
    assert [e.code for e in told(out, PeerMisbehaved)] == ["plumtree.flood"]
    assert told(one.hear("long1", gossip(b"299")), Delivered), "another neighbour can still bring it"
    one = One(long=2, bytes_burst=10_000, bytes_per_s=10)
    for _ in range(20):
        out = one.hear("long0", gossip(b"r" * 1000))
    assert one.machine.counters()["refused"] >= 10, "replays cost bytes too"


def test_pushing_on_after_a_prune_is_charged() -> None:
    one = One(long=2)
    for i in range(20):
        one.hear("long0", gossip(b"%d" % i))
        one.hear("long1", gossip(b"%d" % i))
        one.wait(4)
    assert one.machine.score(NodeId("long1"), one.now_s) < -5


def test_strangers_are_not_heard_and_not_served() -> None:
    one = One(long=1)
    one.hear("long0", gossip(b"x"))
    assert not one.hear("nobody", Graft(ids=[message_id("agent", b"x")])).sends
    out = one.hear("nobody", gossip(b"y"))
    assert not out.events
    assert not one.machine.seen(message_id("agent", b"y"))


def test_comparing_recent_ids_gives_both_sides_what_they_lack() -> None:
    a, b = One(long=1), One(long=1)
    a.hear("long0", gossip(b"only a"))
    b.hear("long0", gossip(b"only b"))
    recent = sent(a.give(NeighbourUp(NodeId("new"), False)), Recent)[0][1]
    out = b.hear("long0", recent)
    assert sent(out, IHave)[0][1].ids == [message_id("agent", b"only b")]
    answer = sent(out, Recent)[0][1]
    assert answer.answer
    out = a.hear("long0", answer)
    assert sent(out, IHave)[0][1].ids == [message_id("agent", b"only a")]
    assert not sent(out, Recent)


def test_an_idle_node_sends_nothing_and_sets_no_timer() -> None:
    one = One(long=5, zone=12)
    assert not one.timers
    one.hear("long0", gossip(b"x"))
    rounds = sent(one.wait(120), Recent)
    assert 1 <= len(rounds) <= 9
    assert not one.timers, "silence after traffic"
    one.hear("long0", gossip(b"y"))
    assert sent(one.wait(10), Recent), "and it wakes again"


def test_payloads_and_ids_are_kept_within_age_number_and_bytes() -> None:
    one = One(long=1, cache_bytes_max=5_000, cache_max=20, seen_max=60)
    for i in range(100):
        one.hear("long0", gossip(b"%03d" % i + b"x" * 500))
    assert not sent(one.hear("long0", Graft(ids=[message_id("agent", b"000" + b"x" * 500)])), Gossip)
    assert sent(one.hear("long0", Graft(ids=[message_id("agent", b"099" + b"x" * 500)])), Gossip)
    one.wait(70)
    assert not sent(one.hear("long0", Graft(ids=[message_id("agent", b"099" + b"x" * 500)])), Gossip)
    assert one.machine.seen(message_id("agent", b"099" + b"x" * 500))
    one.wait(600)
    one.hear("long0", gossip(b"later"))
    assert not one.machine.seen(message_id("agent", b"099" + b"x" * 500))


def test_a_neighbour_that_parts_is_asked_no_longer() -> None:
    one = One(long=3)
    one.hear("long1", have(b"x"))
    one.hear("long2", have(b"x"))
    one.wait(0.3)
    one.give(NeighbourDown(NodeId("long1")))
    assert [to for to, _ in sent(one.wait(0.01), Graft)] == ["long2"]
    one.give(NeighbourDown(NodeId("long2")))
    assert not sent(one.wait(10), Graft)


def test_an_answer_that_comes_after_its_question_was_given_up_is_no_offence() -> None:
    one = One(long=3)
    one.hear("long1", have(b"x"))
    assert [to for to, _ in sent(one.wait(600), Graft)] == ["long1"] * one.machine.config.attempts_max
    one.hear("long0", gossip(b"x"))
    assert not told(one.hear("long1", gossip(b"x", asked=True, tree=False)), PeerMisbehaved)
    assert told(one.hear("long2", gossip(b"x", asked=True, tree=False)), PeerMisbehaved)


def test_messages_survive_the_wire() -> None:
    union: Any = Gossip | Offer | IHave | Graft | Prune | IDontWant | Recent
    for message in (
        gossip(b"x"),
        gossip(b"x", asked=True, tree=False),
        have(b"x"),
        Graft(ids=[b"i"], keep=True),
        Prune(),
    ):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=union) == message


PEERS = st.sampled_from(["long0", "long1", "zone00", "zone01", "nobody"])
PAYLOADS = st.sampled_from([b"a", b"b", b"c", b"garbage", b"stale", b"l" * 2000, b"big" * 9000, b"huge" * 20_000])
IDS = st.one_of(PAYLOADS.map(lambda p: message_id("agent", p)), st.binary(max_size=20))
LISTS = st.one_of(st.lists(IDS, max_size=4), st.just([b"i" * 16] * (IDS_MAX + 1)))
HOPS = st.integers(-(2**40), 2**40) | st.integers(1, 9)
INPUTS = st.one_of(
    st.builds(
        Received,
        PEERS,
        st.one_of(
            st.builds(
                Gossip, kind=st.text(max_size=20), hops=HOPS, payload=PAYLOADS, tree=st.booleans(), asked=st.booleans()
            ),
            st.builds(Gossip, kind=st.just("agent"), hops=st.integers(1, 9), payload=PAYLOADS),
            st.builds(IHave, ids=LISTS, hops=st.lists(HOPS, max_size=4)),
            LISTS.map(lambda ids: IHave(ids=ids, hops=[1] * len(ids))),
            st.builds(Graft, ids=LISTS, keep=st.booleans()),
            st.just(Prune()),
            st.builds(IDontWant, ids=LISTS),
            st.builds(Offer, kind=st.text(max_size=20), id=IDS, hops=HOPS, size_bytes=HOPS),
            st.builds(Recent, prefixes=st.binary(max_size=40), span_ms=HOPS, answer=st.booleans()),
            st.just("something else"),
        ),
    ),
    st.builds(NeighbourUp, PEERS.map(NodeId), st.booleans()),
    st.builds(NeighbourDown, PEERS.map(NodeId)),
    st.builds(Publish, st.just("agent"), st.sampled_from([b"a", b"mine", b"big" * 9000])),
    st.builds(PeerMisbehaved, PEERS.map(NodeId), st.just("peer.flood"), st.just("")),
    st.builds(Timer, st.sampled_from(["plumtree.fetch", "swim.tick"]), st.integers(0, 5)),
    st.floats(0.001, 50),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(INPUTS, max_size=40))
def test_whatever_comes_no_message_is_delivered_twice_and_no_bound_breaks(inputs: list[Any]) -> None:
    one = One(long=2, zone=2, missing_max=6, promised_max=4, unwanted_max=3, cache_max=4, scores_max=1)
    delivered: dict[bytes, float] = {}
    for item in inputs:
        start_s = one.now_s
        out = one.wait(item) if isinstance(item, float) else one.give(item)
        for event in told(out, Delivered):
            id_ = message_id(event.kind, event.payload)
            assert start_s - delivered.get(id_, -1e9) > 600
            assert judge_all_new(event.kind, event.payload, 0) == "new"
            delivered[id_] = one.now_s
        for to, message in [(send.to, send.message) for send in out.sends]:
            assert to != ME
            assert isinstance(message, MESSAGES)
            assert len(getattr(message, "ids", ())) <= IDS_MAX
    one.wait(100)
    assert not one.timers, "a machine left alone falls silent"
