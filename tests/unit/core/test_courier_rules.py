"""Rules of the courier one by one: bad peers, turns, acknowledgements, windows, bounds (docs/spec/courier.md)."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.core.courier.config import CourierConfig
from agentmesh.core.courier.inputs import (
    WINDOW_OPEN,
    Arrived,
    Item,
    PathUp,
    Room,
    SessionDown,
    SessionUp,
    Submit,
    Taken,
    Window,
)
from agentmesh.core.courier.machine import Courier
from agentmesh.core.courier.message import MESSAGE_BYTES_MAX
from agentmesh.core.courier.messages import CREDIT_FIRST, Letter, Parcel, decode_frame, encode_frame
from agentmesh.core.courier.ranges import Ranges
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.errors import DecodeError
from agentmesh.ids import NodeId
from tests.support.decoders import MAIL_FRAMES
from tests.support.mail_net import MailNet, MailNode, Weather, check_accounts, unended

B = NodeId("b")


def told(events: list[Any], kind: str) -> list[Any]:
    return [event for event in events if type(event).__name__ == kind]


def pair(config: CourierConfig | None = None, **weather: Any) -> tuple[MailNet, MailNode, MailNode]:
    net = MailNet(0, Weather(**weather))
    a, b = net.node("a", config), net.node("b", config)
    net.session(1, a, b)
    net.link(a, b)
    return net, a, b


class One:
    """A courier with session 1 to b and session 2 to c, of which 1 has sent two letters and delivered and taken two."""

    def __init__(self, config: CourierConfig | None = None) -> None:
        self.courier = Courier(config)
        self.now_s = 0.0
        self.timers: list[Timer] = []
        self.feed(SessionUp(1, B), PathUp(B), SessionUp(2, NodeId("c")), PathUp(NodeId("c")))
        self.feed(Submit(1, items(2)), Room(B, 10_000))
        self.feed(Arrived(B, Parcel(1, [letter(1), letter(2, 1)], [], 300, 1, [])), Taken(1, [2, 1]))

    def feed(self, *incoming: Any) -> list[Any]:
        """Return the events; the last outbox is kept."""
        events: list[Any] = []
        for one in incoming:
            self.out = Outbox()
            self.courier.handle(one, self.now_s, self.out)
            self.courier.assert_invariants()
            events += self.out.events
            self.timers += [timer for _, timer in self.out.timers]
        return events


def items(count: int, conversation: str = "c", **fields: Any) -> list[Item]:
    start = fields.pop("start", 0)
    rest = {"lane": 1, "expires_s": 1e6, "body": b"body", **fields}
    return [Item(start + at, conversation, **rest) for at in range(count)]


def letter(seq: int, after: int = 0, **fields: Any) -> Letter:
    return Letter(**{"seq": seq, "after": after, "lane": 1, "ttl_ms": 1_000, "again": False, "body": b"x", **fields})


def parcel(
    *letters: Letter, session: int = 1, acks: Any = (), credit: int = 300, floor: int = 1, gone: Any = ()
) -> Parcel:
    return Parcel(session, list(letters), list(acks), credit, floor, list(gone))


# Bad peers

BAD: dict[str, tuple[Parcel, str]] = {
    "acknowledges what was never sent": (parcel(acks=[1, 3]), "courier.ack_unsent"),
    "acknowledges backwards": (parcel(acks=[2, 1]), "courier.acks"),
    "acknowledges twice": (parcel(acks=[1, 2, 2, 2]), "courier.acks"),
    "acknowledges half a range": (parcel(acks=[1]), "courier.acks"),
    "acknowledges from nought": (parcel(acks=[0, 1]), "courier.acks"),
    "takes a negative number": (parcel(credit=-1), "courier.credit"),
    "sends more than it may": (parcel(letter(3), letter(1 << 50)), "courier.beyond_credit"),
    "numbers from nought": (parcel(letter(0)), "courier.beyond_credit"),
    "comes after itself": (parcel(letter(5, 5)), "courier.after"),
    "comes after the future": (parcel(letter(5, 6)), "courier.after"),
    "comes after less than nothing": (parcel(letter(5, -1)), "courier.after"),
    "has no time": (parcel(letter(3, ttl_ms=0)), "courier.ttl"),
    "has less than no time": (parcel(letter(3, ttl_ms=-5)), "courier.ttl"),
    "has a fifth lane": (parcel(letter(3, lane=4)), "courier.malformed"),
    "is too large": (parcel(letter(3, body=bytes(MESSAGE_BYTES_MAX + 300))), "courier.malformed"),
    "was acknowledged what was not": (parcel(floor=4), "courier.floor"),
    "has no floor": (parcel(floor=0), "courier.floor"),
    "gives up what was acknowledged": (parcel(floor=3, gone=[2, 0]), "courier.gone"),
    "gives up what it may not send": (parcel(gone=[1 << 50, 0]), "courier.beyond_credit"),
    "gives up half a letter": (parcel(gone=[3]), "courier.malformed"),
    "gives up after itself": (parcel(gone=[3, 3]), "courier.after"),
    "speaks in another's session": (parcel(session=2), "courier.session"),
    "sends a good letter with a bad one": (parcel(letter(3), letter(4), letter(5, 9)), "courier.after"),
}


@pytest.mark.parametrize("bad", BAD, ids=lambda name: name.replace(" ", "_"))
def test_a_peer_that_breaks_a_rule_is_blamed_by_code_and_changes_nothing(bad: str) -> None:
    what, code = BAD[bad]
    one = One()
    before = (one.courier.received, one.courier.letters, one.courier.bytes)
    events = one.feed(Arrived(B, what))
    assert [(type(event), event.peer, event.code) for event in events] == [(PeerMisbehaved, B, code)]
    assert one.out.sends == one.out.timers == []
    assert (one.courier.received, one.courier.letters, one.courier.bytes) == before
    (delivered,) = told(one.feed(Arrived(B, parcel(letter(3, 2), letter(4)))), "Deliver")
    assert [each.seq for each in delivered.letters] == [3, 4]
    (done,) = told(one.feed(Arrived(B, parcel(acks=[1, 2]))), "Delivered")
    assert done.tags == [0, 1]


_number = st.one_of(st.integers(-2, 12), st.sampled_from([200, 256, 257, 300, 1 << 53, (1 << 64) - 1]))
_letters = st.builds(
    letter, _number, _number, lane=st.integers(-1, 4), ttl_ms=st.integers(-1, 2), body=st.binary(max_size=9)
)
_parcels = st.builds(
    Parcel,
    st.integers(0, 3),
    st.lists(_letters, max_size=6),
    st.lists(_number, max_size=6),
    _number,
    _number,
    st.lists(_number, max_size=6),
    st.booleans(),
)


@given(st.lists(st.one_of(_parcels, st.integers(0, 4)), max_size=25))
@settings(max_examples=300)
def test_whatever_a_peer_says_the_courier_stands_and_delivers_no_letter_twice(said: list[Any]) -> None:
    one, seen = One(), {1, 2}
    for what in said:
        one.now_s += 0.2
        events = one.feed(*([Arrived(B, what)] if isinstance(what, Parcel) else [Submit(1, items(what)), Room(B, 500)]))
        for event in told(events, "Deliver"):
            assert event.session == 1
            seqs = [each.seq for each in event.letters]
            assert not seen & set(seqs)
            seen.update(seqs)
            if len(seqs) % 2:
                one.feed(Taken(1, seqs))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_are_refused(raw: bytes) -> None:
    try:
        frame = decode_frame(raw)
    except DecodeError:
        return
    assert decode_frame(encode_frame(frame)) == frame


@pytest.mark.parametrize("raw", MAIL_FRAMES)
def test_a_frame_is_read_as_it_was_written(raw: bytes) -> None:
    assert encode_frame(decode_frame(raw)) == raw


@pytest.mark.parametrize(
    "frame",
    [
        parcel(letter(0)),
        parcel(letter(1, lane=4)),
        parcel(letter(1, ttl_ms=0)),
        parcel(letter(1 << 53)),
        parcel(letter(1, body=bytes(MESSAGE_BYTES_MAX + 300))),
        parcel(*[letter(1)] * 1_025),
        parcel(acks=[1] * 130),
        parcel(gone=[1] * 514),
        parcel(floor=0),
        parcel(session=-1),
    ],
)
def test_what_breaks_a_bound_of_the_wire_form_is_no_frame(frame: Parcel) -> None:
    with pytest.raises(DecodeError):
        decode_frame(encode_frame(frame))


def test_a_parcel_of_no_session_is_counted_and_ignored() -> None:
    one = One()
    assert one.feed(Arrived(B, parcel(letter(1), session=9))) == []
    assert one.courier.strays == 1


def test_a_peer_that_allows_everything_is_sent_no_more_than_we_keep_track_of() -> None:
    one = One(CourierConfig(flight_letters_max=10))
    one.feed(Arrived(B, parcel(credit=1 << 52)))
    one.feed(Submit(1, items(50, start=10)), Room(B, 1 << 20))
    assert one.courier.sessions[1].sending.seq == 10


# Ranges


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)), max_size=30))
def test_ranges_are_a_set_of_numbers(added: list[tuple[int, int]]) -> None:
    ranges, model = Ranges(), set[int]()
    for lo, more in added:
        new = {number for a, b in ranges.add(lo, lo + more) for number in range(a, b + 1)}
        assert new == set(range(lo, lo + more + 1)) - model
        model |= new
        ranges.assert_invariants()
        assert ranges.count == len(model)
        assert [number for number in range(80) if number in ranges] == sorted({0, *model})
    flat = ranges.flat(99)
    assert {n for at in range(0, len(flat), 2) for n in range(flat[at], flat[at + 1] + 1)} == model


@given(st.sets(st.integers(1, 80), min_size=1), st.sets(st.integers(1, 80), min_size=1), st.randoms())
def test_ranges_take_numbers_in_any_order(first: set[int], second: set[int], rng: Any) -> None:
    ranges = Ranges()
    for numbers in (list(first), list(second)):
        rng.shuffle(numbers)
        ranges.add_all(numbers)
        ranges.assert_invariants()
    assert {n for n in range(1, 90) if n in ranges} == first | second


# Turns


@given(
    st.integers(1, 6),
    st.lists(st.integers(1, 3_000), min_size=1, max_size=20),
    st.lists(st.integers(1, 4_000), min_size=1, max_size=5),
)
@settings(max_examples=60)
def test_a_letter_waits_a_bounded_time_on_every_lane_of_every_session(
    sessions: int, sizes: list[int], rooms: list[int]
) -> None:
    config = CourierConfig(quantum_bytes=1_000, parcel_letters=8, queue_bytes_max=1 << 30, bytes_max=1 << 30)
    courier, out = Courier(config), Outbox()
    courier.handle(PathUp(B), 0.0, out)
    for session in range(1, sessions + 1):
        courier.handle(SessionUp(session, B), 0.0, out)
        courier.handle(Arrived(B, parcel(session=session, credit=1 << 20)), 0.0, out)
        for lane in range(4):  # the one that is watched comes behind a letter of its lane, among a flood on all others
            bodies = [bytes(sizes[(lane + at) % len(sizes)]) for at in range(2 if lane == 0 else 400)]
            batch = [Item(at, f"{lane}", lane, 1e6, body) for at, body in enumerate(bodies)]
            courier.handle(Submit(session, batch), 0.0, out)
    around, largest = 200, max(sizes) + 100
    round_bytes = sum(config.weights) * config.quantum_bytes + 5 * (largest + around)
    bound = 2 * sessions * round_bytes * (2 + largest // config.quantum_bytes)
    waiting, sent = set(range(1, sessions + 1)), 0
    at = 0
    while waiting:
        out = Outbox()
        courier.handle(Room(B, rooms[at % len(rooms)]), 0.0, out)
        at += 1
        for send in out.sends:
            sent += around + sum(len(each.body) + 48 for each in send.message.letters)
            if any(each.lane == 0 and each.after for each in send.message.letters):
                waiting.discard(send.message.session)
        assert sent <= bound, f"sessions {waiting} wait while {sent} bytes went"
        if not out.sends:
            break
    assert not waiting


def test_lanes_share_a_full_path_by_their_weights() -> None:
    courier, out = Courier(CourierConfig(quantum_bytes=4_000)), Outbox()
    for one in (PathUp(B), SessionUp(1, B), Arrived(B, parcel(credit=1 << 20))):
        courier.handle(one, 0.0, out)
    for lane in range(4):
        batch = [Item(at, f"{lane}", lane, 1e6, bytes(200)) for at in range(3_500)]
        courier.handle(Submit(1, batch), 0.0, out)
    shares = [0, 0, 0, 0]
    for _ in range(120):
        out = Outbox()
        courier.handle(Room(B, 10_000), 0.0, out)
        for send in out.sends:
            for each in send.message.letters:
                shares[each.lane] += 1
    assert [share / shares[0] for share in shares] == pytest.approx([1, 2, 4, 8], rel=0.2)


def test_sessions_of_one_path_get_equal_shares() -> None:
    courier, out = Courier(CourierConfig(quantum_bytes=4_000)), Outbox()
    courier.handle(PathUp(B), 0.0, out)
    for session in (1, 2, 3):
        courier.handle(SessionUp(session, B), 0.0, out)
        courier.handle(Arrived(B, parcel(session=session, credit=1 << 20)), 0.0, out)
        size = 5_000 if session == 3 else 200
        courier.handle(Submit(session, [Item(at, "", 1, 1e6, bytes(size)) for at in range(2_000)]), 0.0, out)
    share = {1: 0, 2: 0, 3: 0}
    for _ in range(60):
        out = Outbox()
        courier.handle(Room(B, 10_000), 0.0, out)
        for send in out.sends:
            share[send.message.session] += sum(len(each.body) + 48 for each in send.message.letters)
    assert max(share.values()) <= 1.3 * min(share.values()), share


def test_a_conversation_keeps_its_order_over_lanes() -> None:
    net, a, b = pair(room_bytes=300)
    a.submit(1, ["c", "other"] * 20, lane=0)
    a.submit(1, ["c"], lane=3)
    a.submit(1, ["urgent"], lane=3)
    net.run(5)
    check_accounts(a, b, 1)
    assert len(b.got) == 42
    assert b.got.index((1, "urgent", 41)) < 10
    assert [number for _, conversation, number in b.got if conversation == "c"][-1] == 40


@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=30), st.integers(1, 8_000))
def test_what_is_sent_fits_the_room_but_for_a_single_letter(sizes: list[int], room: int) -> None:
    one = One()
    one.feed(Submit(1, [Item(10 + at, "", at % 4, 1e6, bytes(size)) for at, size in enumerate(sizes)]))
    sent = 0
    while sent < len(sizes):
        events = one.feed(Room(B, room))
        letters = [len(send.message.letters) for send in one.out.sends]
        assert sum(letters) >= 1
        assert sum(len(encode_frame(send.message)) for send in one.out.sends) <= room or letters == [1]
        sent += sum(letters)
        assert bool(told(events, "Ready")) == (sent < len(sizes))


def test_ready_is_told_once_until_there_is_room() -> None:
    one = One()
    assert len(told(one.feed(Submit(1, items(1, start=10)), Submit(1, items(200, start=11))), "Ready")) == 1
    assert len(told(one.feed(Room(B, 1_000)), "Ready")) == 1
    assert told(one.feed(Room(B, 1 << 20)), "Ready") == []


# Acknowledging


def test_sixty_four_taken_letters_are_acknowledged_at_once_and_fewer_within_ten_milliseconds() -> None:
    one = One()
    assert [delay_s for delay_s, _ in one.out.timers] == [0.01]
    (_, timer) = one.out.timers[0]
    one.now_s = 0.01
    one.feed(timer)
    assert [(send.message.acks, send.message.letters) for send in one.out.sends] == [([1, 2], [])]
    one.feed(Arrived(B, parcel(*[letter(seq) for seq in range(3, 67)])))
    assert one.out.sends == []
    one.feed(Taken(1, list(range(3, 67))))
    assert [send.message.acks for send in one.out.sends] == [[1, 66]]


def test_acknowledgements_ride_on_letters() -> None:
    one = One()
    ((_, timer),) = one.out.timers
    one.feed(Submit(1, items(1, start=10)), Room(B, 1_000))
    assert [send.message.acks for send in one.out.sends] == [[1, 2]]
    one.now_s = 0.02
    one.feed(timer)
    assert one.out.sends == []


def test_a_letter_that_came_twice_is_delivered_once_and_acknowledged_again() -> None:
    net, _, b = pair()
    first = parcel(letter(1, body=b"c/1 "), letter(2, 1, body=b"c/2 "))
    b.feed(Arrived(NodeId("a"), decode_frame(encode_frame(first))))
    net.run(1)
    b.feed(Arrived(NodeId("a"), decode_frame(encode_frame(first))))
    parcels: list[Any] = []
    net.tap = lambda _sender, _to, each: not parcels.append(each) and False
    net.run(1)
    assert b.got == [(1, "c", 1), (1, "c", 2)]
    assert [each.acks for each in parcels] == [[1, 2]]


def test_what_is_not_taken_is_not_acknowledged_and_the_sender_repeats_it_ever_less_often() -> None:
    net, a, _ = pair(take_s=1e6)
    parcels: list[float] = []
    net.tap = lambda sender, _to, each: not (parcels.append(net.now_s) if sender == "a" and each.letters else None)
    a.submit(1, ["c"])
    net.run(60)
    assert a.sent[0].ended == []
    gaps = [later - earlier for earlier, later in pairwise(parcels)]
    assert 6 <= len(gaps) <= 14
    assert gaps[:3] == sorted(gaps[:3])
    assert gaps[-1] <= 8.1


def test_only_a_few_are_repeated_while_the_peer_may_just_be_slow() -> None:
    net, a, _ = pair(take_s=1e6)
    a.submit(1, ["c"] * 250)
    net.run(1.5)
    assert 0 < a.courier.repeats <= CourierConfig().probe_letters


def test_round_trips_are_measured_from_letters_sent_once_and_an_answer_ends_the_doubling() -> None:
    one = One()
    sending = one.courier.sessions[1].sending
    one.now_s = 0.02
    one.feed(one.timers[-1])
    assert sending.rto_s() == 1.0
    for _ in range(4):
        one.now_s += sending.rto_s() + 0.001
        one.feed(one.timers[-1], Room(B, 10_000))
    assert one.courier.repeats == 8
    assert sending.rto_s() == 8.0
    one.now_s += 0.3  # of which copy this is the round trip, nobody knows
    one.feed(Arrived(B, parcel(acks=[1, 2])))
    assert sending.rto_s() == 1.0
    one.feed(Submit(1, items(1, start=10)), Room(B, 1_000))
    one.now_s += 0.4
    one.feed(Arrived(B, parcel(acks=[1, 3])))
    assert sending.rto_s() == pytest.approx(0.4 + 4 * 0.2)


def test_a_letter_comes_after_the_last_of_its_conversation_that_is_not_acknowledged() -> None:
    one = One()
    one.feed(Submit(1, items(1, "other", start=10)), Room(B, 1_000))
    one.feed(Submit(1, items(1, start=11)), Room(B, 1_000))
    assert [each.after for send in one.out.sends for each in send.message.letters] == [2]
    one.feed(Arrived(B, parcel(acks=[1, 2, 4, 4])), Submit(1, items(1, start=12)), Room(B, 1_000))
    assert [(each.seq, each.after) for send in one.out.sends for each in send.message.letters] == [(5, 0)]


def test_a_new_path_repeats_what_did_not_arrive_and_nothing_else() -> None:
    net, a, b = pair()
    a.submit(1, ["c"] * 20)
    net.run(1)
    net.cut(a, b)
    a.submit(1, ["c"] * 5)
    net.link(a, b)
    net.run(1)
    assert a.courier.repeats == 0
    a.submit(1, ["c"] * 7)
    net.run(0.0015)
    net.cut(a, b)
    net.link(a, b)
    net.run(0.1)  # sooner than any repetition for lack of an answer
    assert a.courier.repeats == 7
    assert len(b.got) == 32
    check_accounts(a, b, 1)


def test_couriers_that_were_cut_off_say_to_which_nodes_they_want_a_path() -> None:
    net, a, b = pair()
    net.cut(a, b)
    assert a.courier.unreached() == []
    a.submit(1, ["c"])
    assert a.courier.unreached() == ["b"]
    net.link(a, b)
    assert a.courier.unreached() == []


# Delivery levels, time


def test_at_most_once_is_never_repeated_and_comes_back_when_it_was_lost() -> None:
    net, a, b = pair()
    copies: dict[int, int] = {}

    def tap(_sender: NodeId, _to: NodeId, each: Parcel) -> bool:
        for one in each.letters:
            copies[one.seq] = copies.get(one.seq, 0) + 1
        return net.now_s > 0.01

    net.tap = tap
    a.submit(1, ["c"] * 3, acked=False)
    net.run(0.02)
    a.submit(1, ["c"] * 2)
    net.run(20)
    assert set(copies.values()) == {1}
    assert [sent.ended for sent in a.sent.values()] == [["lost"]] * 3 + [["Delivered"]] * 2
    assert [number for _, _, number in b.got] == [3, 4]
    a.submit(1, ["c"], acked=False)
    net.run(0.0015)
    net.cut(a, b)
    assert a.sent[5].ended == ["lost"]
    a.submit(1, ["c"], acked=False)
    assert a.sent[6].ended == ["no_path"]


def test_what_expires_is_told_without_a_path_and_lets_the_rest_of_its_conversation_go_on() -> None:
    net, a, b = pair()
    net.tap = lambda *_: False
    a.submit(1, ["c"], ttl_s=2.0)
    a.submit(1, ["c"] * 3)
    net.run(1)
    net.cut(a, b)
    a.submit(1, ["c"], ttl_s=1.0)
    net.run(3)
    assert a.sent[0].ended == a.sent[4].ended == ["Expired"]
    net.tap = None
    net.link(a, b)
    net.run(5)
    assert [number for _, _, number in b.got] == [1, 2, 3]
    assert not unended(a)


def test_an_expired_letter_does_not_let_later_ones_overtake_an_earlier_one() -> None:
    one = One()
    events = one.feed(Arrived(B, parcel(letter(5, 4), gone=[4, 3])))
    assert told(events, "Deliver") == []
    (delivered,) = told(one.feed(Arrived(B, parcel(letter(3, 2)))), "Deliver")
    assert [each.seq for each in delivered.letters] == [3, 5]


def test_a_letter_given_up_while_it_waits_for_an_earlier_one_is_not_delivered() -> None:
    one = One()
    one.feed(Arrived(B, parcel(letter(5, 4, body=b"x" * 100), letter(6, 5))))
    assert one.courier.held_bytes == 101
    one.feed(Arrived(B, parcel(gone=[5, 4])))
    assert one.courier.held_bytes == 1
    (delivered,) = told(one.feed(Arrived(B, parcel(letter(4)))), "Deliver")
    assert [each.seq for each in delivered.letters] == [4, 6]


def test_the_time_left_shrinks_with_every_copy() -> None:
    net, a, _ = pair(take_s=1e6)
    left: list[int] = []
    net.tap = lambda sender, _to, each: not (left.extend(one.ttl_ms for one in each.letters) if sender == "a" else None)
    a.submit(1, ["c"], ttl_s=20.0)
    net.run(30)
    assert left == sorted(left, reverse=True)
    assert left[0] == pytest.approx(19_999, abs=2)
    assert left[-1] > 0
    assert a.sent[0].ended == ["Expired"]


def test_stale_timers_do_nothing() -> None:
    one = One()
    one.now_s = 50.0
    one.feed(Timer("courier.wake", 0), Timer("courier.wake", 999))
    assert one.out.sends == one.out.timers == one.out.events == []


# Windows


def test_a_closed_window_stops_the_sender_and_an_opened_one_lets_it_go_on_though_word_of_it_is_lost() -> None:
    net, a, b = pair()
    b.feed(Window(1, 0, 0))
    a.submit(1, ["c"] * (CREDIT_FIRST + 40))
    net.run(2)
    assert len(b.got) == CREDIT_FIRST
    assert len(told(a.events, "Blocked")) == 1
    net.tap = lambda sender, *_: sender != "b"
    b.feed(Window(1, 30, 1 << 20))
    net.run(0.5)
    net.tap = None
    net.run(10)
    assert len(b.got) == CREDIT_FIRST + 30
    assert len(told(a.events, "Unblocked")) == 1
    b.feed(Window(1, 1_000, 1 << 20))
    net.run(1)
    assert len(b.got) == CREDIT_FIRST + 40
    assert not unended(a)
    assert len(told(a.events, "Unblocked")) == 2


def test_a_window_in_bytes_lets_as_many_letters_come_as_would_fill_it_at_their_mean_size() -> None:
    net, a, b = pair()
    b.feed(Window(1, 0, 0))
    a.submit(1, ["c"] * (CREDIT_FIRST + 100), size=2_000)
    net.run(3)
    assert len(b.got) == CREDIT_FIRST
    b.feed(Window(1, 1_000, 20_000))
    net.run(3)
    assert CREDIT_FIRST + 8 <= len(b.got) <= CREDIT_FIRST + 10


def test_no_more_is_allowed_beyond_a_letter_that_is_missing_than_can_be_kept_track_of() -> None:
    one = One(CourierConfig(window_letters=260))
    rest = [letter(seq) for seq in range(4, 201)]
    one.feed(Arrived(B, parcel(*rest)), Taken(1, [each.seq for each in rest]))
    assert one.courier.sessions[1].receiving.credit == 2 + 260
    one.feed(Arrived(B, parcel(letter(3))), Taken(1, [3]), Arrived(B, Parcel(1, [], [], 300, 1, [], ask=True)))
    assert one.courier.sessions[1].receiving.credit == 200 + 260


def test_a_window_wide_open_is_none_and_need_not_be_renewed() -> None:
    net, a, b = pair(CourierConfig(window_letters=50))
    b.feed(Window(1, 3, 1 << 20))
    a.submit(1, ["c"] * 600)
    net.run(3)
    assert len(b.got) == CREDIT_FIRST
    b.feed(Window(1, WINDOW_OPEN, 1 << 40))
    net.run(3)
    assert len(b.got) == 600
    assert b.courier.sessions[1].receiving.credit == 650


def test_a_node_that_takes_nothing_is_not_flooded() -> None:
    net, a, b = pair(CourierConfig(window_letters=100), take_s=1e6)
    a.submit(1, ["c"] * 2_000)
    net.run(20)
    assert len(b.got) == CREDIT_FIRST
    assert b.courier.untaken_bytes < CREDIT_FIRST * 100


def test_what_waits_for_a_lost_letter_is_bounded_and_the_lost_letter_always_finds_room() -> None:
    config = CourierConfig(held_bytes_max=10_000, window_bytes=4_000)
    net, a, b = pair(config, room_bytes=2_000)
    first = True

    def tap(sender: NodeId, _to: NodeId, each: Parcel) -> bool:
        nonlocal first
        lost = first and sender == "a" and bool(each.letters)
        first = first and not lost
        return not lost

    net.tap = tap
    a.submit(1, ["c"] * 200, size=300)
    net.run(0.5)
    assert 0 < b.courier.held_bytes <= 8_000
    net.run(30)
    assert len(b.got) == 200
    check_accounts(a, b, 1)


# Bounds


def test_a_node_whose_disk_stands_still_holds_a_bounded_amount_of_all_sessions_together() -> None:
    courier, out = Courier(CourierConfig(held_bytes_max=100_000)), Outbox()
    for session in range(50):
        courier.handle(SessionUp(session, B), 0.0, out)
        for at in range(3):
            body = parcel(letter(at + 1, at, body=bytes(10_000)), session=session)
            courier.handle(Arrived(B, body), 0.0, out)
    assert 100_000 <= courier.untaken_bytes <= 110_000
    first = told(out.events, "Deliver")[0]
    for event in told(out.events, "Deliver"):
        courier.handle(Taken(event.session, [each.seq for each in event.letters]), 0.0, out)
    assert abs(courier.untaken_bytes) < 1
    late = parcel(letter(1, body=bytes(200_000)), session=49)
    assert first.session == 0
    out = Outbox()
    courier.handle(Arrived(B, late), 0.0, out)
    assert len(told(out.events, "Deliver")) == 1


def test_a_peer_that_asks_all_the_time_is_answered_every_ten_milliseconds() -> None:
    one, answers = One(), 0
    question = Parcel(1, [], [], 300, 1, [], ask=True)
    for at in range(100):
        one.now_s = 0.001 * at
        one.feed(Arrived(B, question))
        answers += len(one.out.sends)
    assert 10 <= answers <= 12


def test_what_finds_no_room_comes_back_at_once_from_the_first_that_does_not_fit() -> None:
    one = One(CourierConfig(queue_letters_max=10, queue_bytes_max=100))
    (full,) = told(one.feed(Submit(1, items(12, start=10))), "Returned")
    assert (full.tags, full.reason) == ([18, 19, 20, 21], "full")
    batch = [Item(30, "", 1, 1e6, bytes(20)), Item(31, "", 1, 1e6, bytes(70)), Item(32, "", 1, 1e6, b"")]
    (full,) = told(One(CourierConfig(queue_letters_max=10, queue_bytes_max=95)).feed(Submit(1, batch)), "Returned")
    assert full.tags == [31, 32]


def test_sessions_share_one_bound() -> None:
    one = One(CourierConfig(letters_max=10))
    one.feed(Submit(1, items(6, start=10)))
    (full,) = told(one.feed(Submit(2, items(6, start=20))), "Returned")
    assert full.tags == [22, 23, 24, 25]
    one.feed(SessionDown(1, "over"))
    assert told(one.feed(Submit(2, items(6, start=30))), "Returned") == []


def test_a_session_too_many_is_refused_and_what_is_sent_in_none_comes_back() -> None:
    one = One(CourierConfig(sessions_max=2))
    (refused,) = one.feed(SessionUp(3, B))
    assert (type(refused).__name__, refused.session, refused.reason) == ("Refused", 3, "full")
    (back,) = one.feed(Submit(3, items(2, start=10)))
    assert (back.tags, back.reason) == ([10, 11], "no_session")
    one = One(CourierConfig(paths_max=2))
    assert [type(event).__name__ for event in one.feed(SessionUp(3, NodeId("d")))] == ["Refused"]


def test_a_session_that_is_quiet_for_long_is_told_once() -> None:
    net, a, b = pair()
    a.submit(1, ["c"])
    net.run(500)
    assert told(a.events, "Idle") == told(b.events, "Idle") == []
    net.run(2_000)
    assert len(told(a.events, "Idle")) == len(told(b.events, "Idle")) == 1
    carried = net.carried
    net.run(5_000)
    assert net.carried == carried
    a.submit(1, ["c"])
    net.run(700)
    assert len(told(a.events, "Idle")) == 2


def _held_bytes(make: Callable[[], Any]) -> int:
    gc.collect()
    tracemalloc.start()
    kept = make()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept
    return size


def test_an_idle_session_holds_less_than_four_kilobytes() -> None:
    def make() -> Courier:
        courier, out = Courier(), Outbox()
        for session in range(1_000):
            courier.handle(SessionUp(session, NodeId(f"node-{session}")), 0.0, out)
        return courier

    assert _held_bytes(make) / 1_000 <= 4_096


def test_ten_thousand_queued_messages_hold_less_than_ten_megabytes() -> None:
    def make() -> Courier:
        courier, out = Courier(), Outbox()
        courier.handle(SessionUp(1, B), 0.0, out)
        batch = [Item(10**9 + at, f"conversation {at}", 1, 1e6 + at, bytes([at % 256]) * 256) for at in range(10_000)]
        courier.handle(Submit(1, batch), 0.0, out)
        return courier

    assert _held_bytes(make) <= 10_000_000
