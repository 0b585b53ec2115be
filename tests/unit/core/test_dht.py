"""The parts of the DHT machine: table, walk, store, questions; and what hostile peers send it."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.core.dht.calls import FAILED
from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.machine import Dht
from agentmesh.core.dht.messages import (
    CHECK_KEYS_MAX,
    Check,
    Checked,
    FindNode,
    FindReply,
    FindValue,
    Hint,
    Item,
    Store,
    Stored,
)
from agentmesh.core.dht.place import Place, group_of, number_of, place_of
from agentmesh.core.dht.table import Table
from agentmesh.core.dht.values import Values
from agentmesh.core.dht.walk import Walk
from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer, WallTime
from agentmesh.core.messages import Lookup, LookupDone, LookupHit, NodeHeard, PeerUp, Received
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.provider import Provider, sign_provider
from agentmesh.identity.reader import Reader
from agentmesh.ids import AgentId, Key, NodeId, agent_id, node_id
from tests.support.dht_world import UNIX_S, World, record_of

ME = node_id(b"\x01" * 32)
KEY = Key(b"\x55" * 32)
OWNER = KeyPair(b"\x07" * 32)
AGENT = agent_id(b"\x09" * 32)


def node(number: int) -> NodeId:
    return node_id(hashlib.sha256(b"node %d" % number).digest())


def place(number: int, start: int = 0) -> Place:
    """Return a place whose key is freely chosen, for tests of the table alone."""
    return Place(node(start + number), hashlib.sha256(b"node %d" % (start + number)).digest(), number)


def machine(config: DhtConfig | None = None) -> Dht:
    wall = WallTime()
    wall.set(UNIX_S, 0.0)
    return Dht(ME, config or DhtConfig(), random.Random(1), Reader(), wall)


def give(dht: Dht, incoming: object, now_s: float = 0.0) -> Outbox:
    out = Outbox()
    dht.handle(incoming, now_s, out)
    dht.assert_invariants()
    return out


def signed(key: Key = KEY, *, seq: int = 1, iat: int = UNIX_S, life_s: int = 3_600, by: KeyPair = OWNER) -> bytes:
    return sign_provider(by, key, agent=AGENT, seq=seq, iat=iat, addresses=("udp:10.0.0.1:1",), life_s=life_s)


def codes(out: Outbox) -> list[str]:
    return [event.code for event in out.events if isinstance(event, PeerMisbehaved)]


# Table


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.lists(st.integers(1, 2**12), unique=True, max_size=80),
    target=st.integers(0, 2**12),
    count=st.integers(1, 30),
)
def test_the_nearest_contacts_are_those_of_brute_force(numbers: list[int], target: int, count: int) -> None:
    table = Table(place(0), DhtConfig(k=5))
    for number in numbers:
        table.admit(place(number), "", 0.0)
    table.assert_invariants()
    known = sorted((c.place.number for c in table.contacts.values()), key=lambda n: n ^ target)
    assert [c.place.number for c in table.nearest(target, count)] == known[:count]


def test_contacts_that_failed_are_named_only_when_there_are_too_few_others() -> None:
    table = Table(place(0), DhtConfig())
    for number in (1, 2, 3, 4):
        table.admit(place(number), "", 0.0)
    table.contacts[node(1)].failures = 1
    assert [c.place.number for c in table.nearest(1, 3)] == [3, 2, 4]
    assert [c.place.number for c in table.nearest(1, 4)] == [1, 3, 2, 4]


def test_a_flood_of_fresh_ids_evicts_nobody_from_a_full_bucket() -> None:
    config = DhtConfig(k=4)
    table = Table(place(0), config)
    old = [place(2**200 + i) for i in range(4)]
    for each in old:
        table.admit(each, "", 0.0)
    for i in range(1000):
        assert table.admit(place(2**200 + 100 + i), "", 1.0) == "waiting"
        table.assert_invariants()
    assert [c.place.node for c in table.buckets[200].contacts] == [p.node for p in old]
    heir = table.expire(old[0].node)
    assert heir is not None
    assert heir[0] == place(2**200 + 1099).node


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("udp:8.8.8.8:6374", "8.8.8.0/24"),
        ("iroh:8.8.8.77:1", "8.8.8.0/24"),
        ("tls:[2a00:1450:4001:80b::200e]:443", "2a00:1450:4001::/48"),
        ("udp:[::ffff:8.8.8.8]:1", "8.8.8.0/24"),
        ("ws:wss://8.8.4.4:443/mesh", "8.8.4.0/24"),
        ("udp:10.1.2.3:1", ""),
        ("udp:192.168.1.1:1", ""),
        ("udp:127.0.0.1:1", ""),
        ("udp:169.254.1.1:1", ""),
        ("udp:100.64.0.1:1", ""),
        ("udp:198.18.7.7:1", ""),
        ("udp:198.19.255.7:1", ""),
        ("udp:[fd00::1]:1", ""),
        ("udp:[fe80::1]:1", ""),
        ("iroh:https://relay.example/", ""),
        ("memory:a", ""),
        ("udp:999.9.9.9:1", ""),
        ("", ""),
    ],
)
def test_only_public_addresses_count_for_their_network(address: str, group: str) -> None:
    assert group_of(address) == group


def test_a_network_gets_two_places_of_a_bucket_and_three_of_the_table() -> None:
    table = Table(place(0), DhtConfig())
    assert [table.admit(place(2**200 + i), f"udp:8.8.8.{i}:1", 0.0) for i in range(3)] == [
        "admitted",
        "admitted",
        "crowded",
    ]
    assert [table.admit(place(2**190 + i), f"udp:8.8.8.{i}:1", 0.0) for i in range(2)] == ["admitted", "crowded"]
    assert table.admit(place(2**190 + 5), "udp:8.8.9.1:1", 0.0) == "admitted"
    table.move(table.contacts[place(2**190 + 5).node], "udp:8.8.8.9:1")
    assert table.contacts[place(2**190 + 5).node].address == "udp:8.8.9.1:1"
    table.expire(place(2**200).node)
    assert table.admit(place(2**200 + 9), "udp:8.8.8.9:1", 0.0) == "admitted"
    for i in range(10):
        table.admit(place(2**210 + i), f"udp:10.0.0.{i}:1", 0.0)
    assert len(table.buckets[210].contacts) == 10
    table.assert_invariants()


# Walk


def test_a_liar_s_invented_nodes_cost_no_more_than_its_credit() -> None:
    config = DhtConfig(referral_credit=3, alpha=3)
    walk = Walk(0, b"me", config)
    liar, honest = b"\x01" * 32, b"\x02" * 32
    for public in (liar, honest):
        walk.add_seed(public, node_id(public), number_of(public), "", 0)
    assert {walk.pick_next(), walk.pick_next()} == {walk.by_public[liar], walk.by_public[honest]}
    invented = sorted((hashlib.sha256(b"x%d" % i).digest() for i in range(3000)), key=number_of)[:20]
    walk.note_answer(walk.by_public[liar])
    walk.add_hints(walk.by_public[liar], [Hint(p, "") for p in invented])
    walk.note_answer(walk.by_public[honest])
    real = [hashlib.sha256(b"y%d" % i).digest() for i in range(20)]
    walk.add_hints(walk.by_public[honest], [Hint(p, "") for p in real])
    asked: list[bytes] = []
    for _ in range(40):
        candidate = walk.pick_next()
        if candidate is None:
            break
        asked.append(candidate.public)
        if candidate.public in invented:
            walk.note_late(candidate)
            walk.note_failure(candidate)
        else:
            walk.note_answer(candidate)
        walk.assert_invariants()
    assert sum(p in invented for p in asked) == 3
    assert walk.is_over()
    assert {c.public for c in walk.nearest(20)} <= {*real, liar, honest}


def test_what_a_node_says_of_itself_of_us_and_twice_is_left_out() -> None:
    walk = Walk(0, b"\x00" * 32, DhtConfig())
    source = b"\x01" * 32
    walk.add_seed(source, node_id(source), number_of(source), "", 0)
    candidate = walk.pick_next()
    assert candidate is not None
    other = b"\x03" * 32
    walk.add_hints(
        candidate,
        [Hint(source, ""), Hint(b"\x00" * 32, ""), Hint(other, "a"), Hint(other, "b"), Hint(b"short", "")],
    )
    assert list(walk.by_public) == [source, other]
    assert walk.by_public[other].addresses == ("a", "b")
    walk.assert_invariants()


def test_disjoint_paths_share_no_node() -> None:
    walk = Walk(0, b"me", DhtConfig())
    first, second = b"\x01" * 32, b"\x02" * 32
    walk.add_seed(first, node_id(first), number_of(first), "", 0)
    walk.add_seed(second, node_id(second), number_of(second), "", walk.add_path())
    a, b = walk.pick_next(), walk.pick_next()
    assert a is not None
    assert b is not None
    walk.note_answer(a)
    walk.note_answer(b)
    common = [Hint(bytes([i]) * 32, "") for i in range(10, 20)]
    walk.add_hints(a, common)
    walk.add_hints(b, common)
    assert all(c.path == 0 for c in walk.paths[0])
    assert len(walk.paths[0]) == 11
    assert [c.public for c in walk.paths[1]] == [second]
    walk.assert_invariants()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), alpha=st.integers(1, 4), late=st.booleans())
def test_a_walk_ends_whatever_is_answered_and_never_asks_twice(seed: int, alpha: int, late: bool) -> None:
    rng = random.Random(seed)
    config = DhtConfig(k=4, alpha=alpha, candidates_max=30, asked_max=25)
    walk = Walk(rng.getrandbits(256), b"me", config)
    for i in range(3):
        public = bytes([i]) * 32
        walk.add_seed(public, node_id(public), number_of(public), "", 0)
    asked: list[bytes] = []
    under_way: list[Any] = []
    for _ in range(500):
        while (candidate := walk.pick_next()) is not None:
            under_way.append(candidate)
            asked.append(candidate.public)
        if not under_way:
            break
        candidate = under_way.pop(rng.randrange(len(under_way)))
        if late:
            walk.note_late(candidate)
        if rng.random() < 0.4:
            walk.note_failure(candidate)
        else:
            walk.note_answer(candidate)
            walk.add_hints(candidate, [Hint(rng.randbytes(32), "") for _ in range(rng.randrange(6))])
        walk.assert_invariants()
    assert walk.is_over()
    assert len(asked) == len(set(asked)) <= 25


# Values


def provider(number: int, *, seq: int = 1, key: Key = KEY, by: int = 0, exp: int = UNIX_S + 100) -> Provider:
    agent = AgentId(f"agent {number}")
    return Provider(key, agent, NodeId(f"node {by}"), seq, UNIX_S, exp, (), b"%d" % number)


def test_the_highest_seq_of_an_agent_and_node_stays() -> None:
    values = Values(0, DhtConfig())
    assert values.admit(provider(1, seq=2), UNIX_S) == "kept"
    assert values.admit(provider(1, seq=1), UNIX_S) == "known"
    assert values.admit(provider(1, seq=3), UNIX_S) == "kept"
    assert values.admit(provider(1, seq=1, by=1), UNIX_S) == "kept"
    assert [(p.node_id, p.seq) for p in values.of(KEY, UNIX_S)] == [("node 0", 3), ("node 1", 1)]
    values.assert_invariants()


def test_an_expired_record_is_not_shown_and_is_forgotten() -> None:
    values = Values(0, DhtConfig())
    values.admit(provider(1, exp=UNIX_S + 10), UNIX_S)
    values.admit(provider(2, exp=UNIX_S + 90), UNIX_S)
    assert [p.raw for p in values.of(KEY, UNIX_S + 11)] == [b"2"]
    values.expire(UNIX_S + 91)
    assert values.count == 0
    assert not values.keys
    values.assert_invariants()


def test_a_key_full_of_live_records_takes_no_more_and_one_node_only_its_share() -> None:
    values = Values(0, DhtConfig(values_max=6, values_node_max=2))
    assert [values.admit(provider(i), UNIX_S) for i in range(3)] == ["kept", "kept", "full"]
    for by in range(1, 5):
        assert values.admit(provider(0, by=by), UNIX_S) == "kept"
    assert values.admit(provider(0, by=9), UNIX_S) == "full"
    assert values.admit(provider(0, seq=2), UNIX_S) == "kept"
    assert values.admit(provider(0, by=9, exp=UNIX_S + 300), UNIX_S + 101) == "kept"
    values.assert_invariants()


def test_when_room_runs_out_a_greedy_node_loses_first_and_then_the_farthest_keys() -> None:
    values = Values(0, DhtConfig(records_max=100))
    modest = [provider(i, key=Key(bytes([i]) * 32), by=i) for i in range(1, 20)]
    for each in modest:
        values.admit(each, UNIX_S)
    for i in range(500):
        values.admit(provider(i, key=Key(hashlib.sha256(b"%d" % i).digest()), by=99), UNIX_S)
        assert values.count <= 100
    values.assert_invariants()
    assert all(each in values.keys.get(each.key, []) for each in modest)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3), st.integers(1, 4), st.integers(0, 60)),
        max_size=80,
    )
)
def test_the_store_keeps_its_counts_whatever_comes(steps: list[tuple[int, int, int, int, int]]) -> None:
    values = Values(3, DhtConfig(records_max=12, values_max=4, values_node_max=2))
    now = UNIX_S
    for number, by, key, seq, life in steps:
        now += 1
        values.admit(provider(number, seq=seq, key=Key(bytes([key]) * 32), by=by, exp=now + life), now)
        values.assert_invariants()
        assert all(p.exp >= now for p in values.of(Key(bytes([key]) * 32), now))


# Questions of others


def test_a_node_named_by_others_enters_only_after_it_answered() -> None:
    dht = machine()
    heard = World(encode=False).add(1)[0]
    out = give(dht, NodeHeard(record_of(heard), node(1)))
    (ping,) = out.sends
    assert ping.to == heard.id
    assert isinstance(ping.message, Check)
    assert ping.at == (heard.address,)
    assert not dht.contacts()
    give(dht, Received(heard.id, Checked(rpc=ping.message.rpc, at="udp:10.0.0.9:1")), 0.1)
    assert [(c.place.node, c.address) for c in dht.contacts()] == [(heard.id, "udp:10.0.0.9:1")]


def test_an_answer_of_another_than_the_asked_node_is_no_answer() -> None:
    dht = machine()
    out = give(dht, Received(node(1), FindNode(rpc=5, target=KEY, at="udp:10.0.0.1:1")))
    ping = next(s for s in out.sends if isinstance(s.message, Check))
    out = give(dht, Received(node(2), Checked(rpc=ping.message.rpc, at="udp:10.0.0.2:1")))
    assert codes(out) == ["dht.answer"]
    assert not dht.contacts()
    out = give(dht, Received(node(1), Stored(rpc=ping.message.rpc, kept=1)))
    assert codes(out) == ["dht.answer"]
    assert not dht.contacts()
    assert codes(give(dht, Received(node(1), Checked(rpc=77)))) == []


def test_who_does_not_answer_three_times_gives_its_place_to_who_waits() -> None:
    dht = machine(DhtConfig(k=1))
    far = [node(i) for i in range(40) if dht.roster.table.index_of(place_of(node(i)).number) == 255][:2]
    give(dht, PeerUp(far[0], ("udp:10.0.0.1:1",)))
    give(dht, PeerUp(far[1], ("udp:10.0.0.2:1",)))
    assert [c.place.node for c in dht.contacts()] == [far[0]]
    out = Outbox()
    dht.roster.ping(far[0], "", 100.0, out)
    for attempt in range(3):
        (ping,) = [s for s in out.sends if s.to == far[0]]
        out = give(dht, Timer(FAILED, ping.message.rpc), 101.0 + attempt)
    (ping,) = [s for s in out.sends if s.to == far[1]]
    assert not dht.contacts()
    give(dht, Received(far[1], Checked(rpc=ping.message.rpc, at="udp:10.0.0.2:1")), 105.0)
    assert [c.place.node for c in dht.contacts()] == [far[1]]


def test_a_stored_record_is_found_again_and_one_signed_for_another_key_is_forged() -> None:
    dht = machine()
    out = give(dht, Received(node(1), Store(rpc=1, items=[Item(KEY, signed())])))
    assert [s.message for s in out.sends if isinstance(s.message, Stored)] == [Stored(rpc=1, kept=1)]
    out = give(dht, Received(node(2), FindValue(rpc=2, key=KEY)))
    (reply,) = [s.message for s in out.sends if isinstance(s.message, FindReply)]
    assert reply.values == [signed()]
    assert reply.total == 1
    for bad in (signed(Key(b"\x66" * 32)), signed()[:-1] + b"\x00", b"", b"\x00" * 300):
        out = give(dht, Received(node(3), Store(rpc=3, items=[Item(KEY, bad)])))
        assert codes(out) == ["dht.forged"]
        assert not [s for s in out.sends if isinstance(s.message, Stored)]
    assert [p.raw for p in dht.held(KEY)] == [signed()]


def test_an_expired_or_older_record_does_no_harm_and_is_no_lie() -> None:
    dht = machine()
    give(dht, Received(node(1), Store(rpc=1, items=[Item(KEY, signed(seq=5))])))
    old = signed(seq=4)
    over = signed(seq=9, iat=UNIX_S - 7_200)
    ahead = signed(seq=9, iat=UNIX_S + 900)
    out = give(dht, Received(node(1), Store(rpc=1, items=[Item(KEY, raw) for raw in (old, over, ahead)])))
    assert codes(out) == []
    assert [p.seq for p in dht.held(KEY)] == [5]


def test_many_values_are_reached_by_asking_from_other_places() -> None:
    dht = machine()
    raws = [signed(by=KeyPair(hashlib.sha256(b"o%d" % i).digest())) for i in range(20)]
    for raw in raws:
        give(dht, Received(node(1), Store(rpc=1, items=[Item(KEY, raw)])))
    seen: dict[bytes, None] = {}
    skip = 0
    for _ in range(6):
        out = give(dht, Received(node(2), FindValue(rpc=2, key=KEY, skip=skip)))
        (reply,) = [s.message for s in out.sends if isinstance(s.message, FindReply)]
        assert reply.total == 20
        assert 0 < len(reply.values) <= 6
        assert len(msgspec.msgpack.encode(reply)) <= 1_200
        seen.update(dict.fromkeys(reply.values))
        skip += len(reply.values)
    assert set(seen) == set(raws)


@pytest.mark.parametrize("length", [0, 1, 16, 27, 28, 60, 200])
def test_no_answer_is_larger_than_a_datagram(length: int) -> None:
    dht = machine()
    for i in range(60):
        give(dht, PeerUp(node(i), ("udp:" + "x" * length,)))
    for i in range(8):
        give(dht, Received(node(1), Store(rpc=1, items=[Item(KEY, signed(by=KeyPair(bytes([i + 1]) * 32)))])))
    for question in (FindNode(rpc=2**53 - 1, target=KEY), FindValue(rpc=2**53 - 1, key=KEY)):
        out = give(dht, Received(node(99), question))
        (reply,) = [s.message for s in out.sends if isinstance(s.message, FindReply)]
        assert len(msgspec.msgpack.encode(reply)) <= 1_200
        assert reply.hints
        assert len(reply.hints) == 20 or isinstance(question, FindValue) or length > 16


_bytes = st.binary(max_size=40)
_hostile = st.one_of(
    st.builds(FindNode, rpc=st.integers(), target=_bytes, at=st.text(max_size=300)),
    st.builds(FindValue, rpc=st.integers(), key=_bytes, skip=st.integers(), at=st.text(max_size=300)),
    st.builds(
        FindReply,
        rpc=st.sampled_from([1, 2, 3]),
        hints=st.lists(st.builds(Hint, public=_bytes, address=st.text(max_size=300)), max_size=25),
        values=st.lists(_bytes, max_size=9),
        total=st.integers(),
    ),
    st.builds(Store, rpc=st.integers(), items=st.lists(st.builds(Item, key=_bytes, value=_bytes), max_size=10)),
    st.builds(Stored, rpc=st.integers(), kept=st.integers()),
    st.builds(Check, rpc=st.integers(), keys=st.lists(_bytes, max_size=CHECK_KEYS_MAX + 2), at=st.text(max_size=300)),
    st.builds(Checked, rpc=st.integers(), held=st.lists(st.integers(), max_size=50), at=st.text(max_size=300)),
)


@settings(max_examples=150, deadline=None)
@given(messages=st.lists(_hostile, max_size=12), answer=st.booleans())
def test_whatever_a_peer_sends_nothing_raises_and_no_bound_breaks(messages: list[Any], answer: bool) -> None:
    dht = machine()
    give(dht, PeerUp(node(1), ("udp:10.0.0.1:1",)))
    out = give(dht, Lookup(1, KEY, 4))
    asked = [s.message.rpc for s in out.sends if isinstance(s.message, FindValue)]
    for message in messages:
        if answer and isinstance(message, FindReply | Stored | Checked):
            message.rpc = asked[0]
        give(dht, Received(node(1), message))
    assert not dht.held(KEY)


def test_a_forged_answer_ends_a_node_s_part_in_the_lookup_and_in_the_table() -> None:
    dht = machine()
    give(dht, PeerUp(node(1), ("udp:10.0.0.1:1",)))
    out = give(dht, Lookup(1, KEY, 4))
    (question,) = [s.message for s in out.sends if isinstance(s.message, FindValue)]
    forged = FindReply(rpc=question.rpc, values=[signed()[:-1] + b"\x01"], hints=[Hint(b"\x09" * 32, "")], total=1)
    out = give(dht, Received(node(1), forged))
    assert codes(out) == ["dht.forged"]
    assert not [e for e in out.events if isinstance(e, LookupHit)]
    (done,) = [e for e in out.events if isinstance(e, LookupDone)]
    assert done.providers == 0
    assert done.nearest == ()
    assert not dht.contacts()


def test_a_lookup_without_contacts_tells_what_is_held_here_and_ends() -> None:
    dht = machine()
    give(dht, Received(node(1), Store(rpc=1, items=[Item(KEY, signed())])))
    dht.roster.expel(node(1), 0.0, Outbox())
    out = give(dht, Lookup(7, KEY))
    (hit,) = [e for e in out.events if isinstance(e, LookupHit)]
    (done,) = [e for e in out.events if isinstance(e, LookupDone)]
    assert [p.raw for p in hit.providers] == [signed()]
    assert (done.query, done.providers, done.hops, done.asked) == (7, 1, 0, 0)


def test_more_lookups_than_may_run_wait_and_more_than_may_wait_end_at_once() -> None:
    dht = machine(DhtConfig(lookups_max=2, queue_max=3))
    give(dht, PeerUp(node(1), ("udp:10.0.0.1:1",)))
    events = [give(dht, Lookup(i, Key(bytes([i]) * 32))).events for i in range(6)]
    assert dht.running_lookups() == (0, 1)
    assert [len(e) for e in events] == [0, 0, 0, 0, 0, 1]
