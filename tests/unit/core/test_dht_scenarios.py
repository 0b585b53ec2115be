"""Worlds of DHT machines: lookups, crashes, liars, churn, and records that come back."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.messages import Check, Checked, FindNode, FindReply, FindValue, Hint, Store, Stored
from agentmesh.core.dht.place import number_of as number_of_public
from agentmesh.core.messages import Advertise, MemberDead, MemberLeft, PeerUp, Provide, ProvidersWanted, Received
from agentmesh.ids import Key, NodeId
from tests.support.dht_world import Node, World, number_of


def joined(count: int, **world: Any) -> World:
    """Return a world in which every newcomer knew one node only, chosen at random."""
    made = World(**world)
    made.add(1)
    for _ in range(count - 1):
        other = made.rng.choice(made.order)
        made.give(made.add(1)[0], PeerUp(other.id, (other.address,), "link"))
        made.run(0.05)
    made.run(40)
    return made


def published(world: World, count: int, among: list[Node] | None = None) -> list[tuple[Node, Key]]:
    """Let agents live behind some nodes; return owners and keys once the records are stored."""
    owners = world.rng.sample(among or world.order, count)
    keys: list[tuple[Node, Key]] = []
    for number, owner in enumerate(owners):
        _, (key,) = world.advertise(owner, f"agent {number}")
        keys.append((owner, key))
        world.run(0.1)
    world.run(5)
    return keys


def looked_up(world: World, keys: list[tuple[Node, Key]], among: list[Node] | None = None) -> tuple[int, list[int]]:
    """Look each key up from somewhere; return how many were found with the right owner, and the hops."""
    among = among or [n for n in world.order if n.alive and n.lie is None]
    queries: dict[int, Node] = {}
    for owner, key in keys:
        asker = world.rng.choice(among)
        while asker is owner:
            asker = world.rng.choice(among)
        queries[world.look_up(asker, key)] = owner
        world.run(0.05)
    world.run(8)
    assert all(query in world.done for query in queries), "a lookup did not end"
    right = [q for q, owner in queries.items() if {p.node_id for _, p in world.hits.get(q, [])} == {owner.id}]
    assert not [q for q in queries if q in world.hits and q not in right], "a record of nobody was accepted"
    return len(right), [world.done[q][1].hops for q in right]


# Lookups


def test_lookups_end_with_the_nearest_nodes_there_are_and_few_hops() -> None:
    world = World(3)
    world.add_warm(300)
    hops: list[int] = []
    for number in range(40):
        key = Key(bytes([number, 7 * number % 256]) * 16)
        asker = world.rng.choice(world.order)
        query = world.look_up(asker, key, 0)
        world.run(3)
        done = world.done[query][1]
        true = [n for n in world.nearest(key, 21) if n != asker.id][:20]
        assert done.nearest[0] == true[0]
        # One that answers late may be left out: the walk does not wait for it.
        assert len(set(done.nearest) & set(true)) >= 18
        hops.append(done.hops)
    assert max(hops) <= 3
    assert world.bytes_max <= 1_200
    world.assert_invariants()


def test_every_newcomer_that_knows_one_node_only_finds_and_is_found() -> None:
    world = joined(60)
    keys = published(world, 20)
    found, hops = looked_up(world, keys)
    assert found == 20
    assert max(hops) <= 3
    for _, key in keys[:5]:
        assert {n.id for n in world.holders(key)} == set(world.nearest(key, 20))
    newcomer = world.add()[0]
    world.give(newcomer, PeerUp(world.order[3].id, (world.order[3].address,), "link"))
    query = world.look_up(newcomer, keys[0][1])
    world.run(1)
    assert world.hits[query][0][1].node_id == keys[0][0].id
    world.assert_invariants()


def test_a_hit_is_told_before_the_lookup_is_over_and_enough_hits_end_it() -> None:
    world = World(4)
    world.add_warm(200)
    ((_, key),) = published(world, 1)
    query = world.look_up(world.order[5], key)
    world.run(3)
    assert world.hits[query][0][0] < world.done[query][0]
    few = world.look_up(world.order[6], key, 1)
    world.run(3)
    assert world.hits[few][0][0] == world.done[few][0]
    assert world.done[few][1].asked < world.done[query][1].asked


def test_many_providers_under_one_key_are_all_found() -> None:
    world = World(5)
    world.add_warm(100)
    key = Key(b"\x21" * 32)
    owners = world.rng.sample(world.order, 40)
    for number, owner in enumerate(owners):
        agent, _ = world.advertise(owner, f"a{number}")
        world.give(owner, Advertise(agent, (key,)))
        world.run(0.2)
    world.run(3)
    query = world.look_up(world.order[0], key, 64)
    world.run(4)
    assert {p.node_id for _, p in world.hits[query]} == {o.id for o in owners}
    assert world.bytes_max <= 1_200


def test_a_lookup_survives_thirty_percent_of_nodes_dead_and_loss() -> None:
    world = World(6, loss=0.05, encode=False)
    world.add_warm(300)
    keys = published(world, 60)
    owners = [owner for owner, _ in keys]
    world.crash(world.rng.sample([n for n in world.order if n not in owners], 90))
    found, hops = looked_up(world, keys)
    assert found == 60
    assert max(hops) <= 5


def test_the_size_of_the_network_is_estimated_within_a_factor_of_two() -> None:
    world = World(7)
    world.add_warm(500)
    estimates = [node.dht.size_estimate() for node in world.order]
    assert 250 < statistics.median(estimates) < 1000
    small = World(7)
    small.add_warm(8)
    assert {node.dht.size_estimate() for node in small.order} == {8}


# Liars


def collude(world: World, node: Node, received: Received, honest: Any) -> Any:
    """Name the nearest of the other liars, and show no value."""
    if not isinstance(honest, FindReply):
        return honest
    target = number_of_question(received.message)
    liars = heapq.nsmallest(20, (n for n in world.order if n.lie), key=lambda n: number_of(n) ^ target)
    return FindReply(rpc=honest.rpc, hints=[Hint(n.keys.public, n.address) for n in liars])


def invent(world: World, node: Node, received: Received, honest: Any) -> Any:
    """Name nodes that nobody is, ground to lie near the key."""
    if not isinstance(honest, FindReply):
        return honest
    target = number_of_question(received.message)
    pool = sorted((node.rng.randbytes(32) for _ in range(200)), key=lambda p: number_of_public(p) ^ target)
    return FindReply(rpc=honest.rpc, hints=[Hint(public, "udp:10.250.0.1:1") for public in pool[:20]])


def withhold(world: World, node: Node, received: Received, honest: Any) -> Any:
    """Acknowledge everything, show nothing."""
    if isinstance(honest, FindReply):
        return FindReply(rpc=honest.rpc, hints=honest.hints)
    return honest


def silence(world: World, node: Node, received: Received, honest: Any) -> Any:
    """Take records and say nothing when asked."""
    return None if isinstance(honest, FindReply) else honest


def misdirect(world: World, node: Node, received: Received, honest: Any) -> Any:
    """Name the right nodes at wrong addresses."""
    if not isinstance(honest, FindReply):
        return honest
    return FindReply(rpc=honest.rpc, hints=[Hint(h.public, "udp:10.250.0.1:1") for h in honest.hints])


def forge(world: World, node: Node, received: Received, honest: Any) -> Any:
    """Show records of the liar's own making in place of what is asked for."""
    if not isinstance(received.message, FindValue) or not isinstance(honest, FindReply):
        return honest
    spoiled = [raw[:-1] + bytes([raw[-1] ^ 1]) for raw in honest.values]
    elsewhere = [p.raw for held in node.dht.values.keys.values() for p in held if p.key != received.message.key]
    return FindReply(rpc=honest.rpc, hints=honest.hints, values=(spoiled + elsewhere)[:3] or [b"\x93junk"], total=3)


def number_of_question(question: Any) -> int:
    return int.from_bytes(question.target if isinstance(question, FindNode) else question.key, "big")


@pytest.mark.parametrize("lie", [collude, invent, withhold, silence, misdirect, forge])
def test_one_liar_in_five_neither_hides_a_record_nor_plants_one(lie: Callable[..., Any]) -> None:
    world = World(8, encode=False)
    world.add_warm(150)
    for node in world.rng.sample(world.order, 30):
        node.lie = lie
    keys = published(world, 20, [n for n in world.order if not n.lie])
    found, _ = looked_up(world, keys)
    assert found == 20
    world.assert_invariants()
    accused = {event.peer for _, event in world.blamed}
    assert all(world.nodes[peer].lie for peer in accused), "an honest node is accused"
    assert accused or lie is not forge


def test_lying_neighbours_evict_no_honest_contact() -> None:
    world = World(9)
    world.add_warm(120)
    victim = world.order[0]
    before = {c.place.node for c in victim.dht.contacts()}
    for fresh in world.add(80):
        world.give(victim, Received(fresh.id, FindNode(rpc=1, target=b"\x00" * 32, at=fresh.address)))
        world.run(0.02)
    world.run(5)
    assert before <= {c.place.node for c in victim.dht.contacts()}
    world.assert_invariants()


# Records


def test_records_go_to_the_nearest_and_to_as_many_as_configured() -> None:
    world = World(10, config=DhtConfig(store_set=8))
    world.add_warm(150)
    for _, key in published(world, 10):
        assert {n.id for n in world.holders(key)} == set(world.nearest(key, 8))


def test_after_half_of_all_nodes_crash_records_are_found_and_spread_again() -> None:
    world = World(11, encode=False)
    world.add_warm(150)
    keys = published(world, 30)
    world.crash(world.rng.sample(world.order, 75))
    alive = [(owner, key) for owner, key in keys if owner.alive]
    found, _ = looked_up(world, keys)
    assert found == 30, "a record was lost, though 20 held it"
    world.run(60)
    for _, key in alive:
        near = set(world.nearest(key, 10))
        assert len(near & {n.id for n in world.holders(key)}) >= 8, "nobody stores it at the nodes that are nearest now"
    world.assert_invariants()


def test_a_record_whose_replicas_all_die_is_back_within_ten_seconds() -> None:
    world = World(12, config=DhtConfig(store_set=4))
    world.add_warm(150)
    back: list[float] = []
    for number in range(6):
        owner = next(n for n in world.order if n.alive and not n.dht.provides.adverts)
        _, (key,) = world.advertise(owner, f"lonely {number}")
        world.run(4)
        holders = world.holders(key)
        world.crash([n for n in holders if n is not owner])
        since = world.now_s
        while not world.holders(key) and world.now_s < since + 30:
            world.run(0.25)
        back.append(world.now_s - since)
    assert max(back) <= 10.0


def test_a_death_that_is_told_is_looked_into_at_once() -> None:
    world = World(13, config=DhtConfig(store_set=4))
    world.add_warm(100)
    owner = world.order[0]
    _, (key,) = world.advertise(owner, "told")
    world.run(3)
    dead = [n for n in world.holders(key) if n is not owner]
    world.crash(dead)
    world.give(owner, MemberDead(dead[0].id, 1))
    world.run(4.9)
    assert len(world.holders(key)) >= 3


def test_a_replica_that_forgot_gets_the_record_again() -> None:
    world = World(14, config=DhtConfig(store_set=3, tick_s=1.0))
    world.add_warm(60)
    ((owner, key),) = published(world, 1)
    for holder in world.holders(key):
        holder.dht.values.drop(key)
    world.run(30)
    assert len(world.holders(key)) >= 3
    owner.dht.assert_invariants()


def test_a_node_looks_again_where_its_records_belong_some_time_after_it_joined() -> None:
    world = World(16, config=DhtConfig(store_set=3))
    world.add_warm(60)
    ((owner, key),) = published(world, 1)
    # As if it had placed the record by a table that was nearly empty: elsewhere, and nobody watches these replicas.
    for holder in world.holders(key):
        holder.dht.values.drop(key)
    provides = owner.dht.provides
    for node in list(provides.replicas):
        provides._forget_replica(node)  # pyright: ignore[reportPrivateUsage]
    world.run(40)
    target = int.from_bytes(key, "big")
    nearest = sorted(world.order, key=lambda node: number_of(node) ^ target)[:3]
    assert set(world.holders(key)) >= set(nearest)
    owner.dht.assert_invariants()


def test_a_new_nearest_node_is_given_the_records_it_should_hold() -> None:
    world = joined(40, config=DhtConfig(store_set=5))
    keys = published(world, 20)
    fresh = world.add(10)
    for node in fresh:
        world.give(node, PeerUp(world.order[1].id, (world.order[1].address,), "link"))
        world.run(0.5)
    world.run(30)
    for _, key in keys:
        due = set(world.nearest(key, 5)) & {n.id for n in fresh}
        assert due <= {n.id for n in world.holders(key)}


def test_records_are_signed_afresh_and_those_of_the_gone_expire() -> None:
    world = World(15, config=DhtConfig(tick_s=60.0, store_set=5), encode=False)
    world.add_warm(25)
    (stays, key), (goes, gone_key) = published(world, 2)
    first = world.holders(key)[0].dht.held(key)[0].seq
    world.run(1_400)
    assert min(n.dht.held(key)[0].seq for n in world.holders(key)) > first
    world.crash([goes])
    world.run(3_700)
    assert world.holders(key)
    assert not [n for n in world.holders(gone_key) if n.alive]
    assert sum(isinstance(e, ProvidersWanted) for e in stays.events) >= 4


def test_an_agent_that_is_withdrawn_is_not_provided_again() -> None:
    world = World(16, config=DhtConfig(tick_s=60.0, store_set=5), encode=False)
    world.add_warm(15)
    owner = world.order[0]
    agent, (key,) = world.advertise(owner, "short")
    world.run(3)
    world.give(owner, Advertise(agent, ()))
    late = world.sign(owner, agent, (key,))
    world.give(owner, Provide(agent, late))
    world.run(4_500)
    assert not world.holders(key)
    assert sum(isinstance(e, ProvidersWanted) for e in owner.events) == 1
    owner.dht.assert_invariants()


def test_too_few_acknowledgements_are_tried_again_when_nodes_come() -> None:
    world = World(17)
    lonely = world.add()[0]
    _, (key,) = world.advertise(lonely, "first")
    world.run(5)
    assert [n.id for n in world.holders(key)] == [lonely.id]
    for node in world.add(6):
        world.give(node, PeerUp(lonely.id, (lonely.address,), "link"))
        world.give(lonely, PeerUp(node.id, (node.address,), "peer"))
    world.run(10)
    assert len(world.holders(key)) == 7


def test_a_node_that_leaves_is_out_of_the_table_at_once() -> None:
    world = World(18)
    world.add_warm(20)
    node, gone = world.order[0], world.order[1]
    world.give(node, MemberLeft(gone.id, 2))
    assert gone.id not in {c.place.node for c in node.dht.contacts()}


# All together


def test_under_churn_records_of_living_owners_stay_findable() -> None:
    world = joined(50, encode=False, loss=0.02, latency_s=(0.005, 0.08))
    keys = published(world, 12, world.order[:20])
    owners = {owner.id for owner, _ in keys}
    for _ in range(10):
        world.crash(world.rng.sample([n for n in world.order if n.alive and n.id not in owners], 3))
        for node in world.add(3):
            other = world.rng.choice([n for n in world.order if n.alive and n is not node])
            world.give(node, PeerUp(other.id, (other.address,), "link"))
        world.run(6)
        world.assert_invariants()
    found, _ = looked_up(world, keys)
    assert found == 12


def test_idle_nodes_send_at_most_one_question_per_tick() -> None:
    world = World(19)
    world.add_warm(80)
    published(world, 10)
    world.run(500)  # until they have looked again where they are, and where their records belong
    before = world.sent
    world.run(100)
    questions = (world.sent - before) / 2 / len(world.order) / 100
    assert questions <= 1.25 / world.config.tick_s


def _traced(seed: int) -> tuple[str, int]:
    world = World(seed, loss=0.05)
    world.add_warm(60)
    keys = published(world, 8)
    world.crash(world.order[50:])
    looked_up(world, [(o, k) for o, k in keys if o.alive], world.order[:50])
    return world.trace.hexdigest(), world.sent


def test_the_same_seed_sends_the_same_bytes() -> None:
    assert _traced(20) == _traced(20)
    assert _traced(20) != _traced(21)


def test_all_chance_and_order_is_the_seed_s_under_any_hash_seed() -> None:
    import subprocess
    import sys

    code = "from tests.unit.core.test_dht_scenarios import _traced; print(_traced(22)[0])"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert digests != {""}


def test_stored_contacts_are_proven_again_and_the_dead_among_them_go() -> None:
    world = World(23)
    world.add_warm(30)
    node = world.add()[0]
    ghost = NodeId(World(99).add()[0].id)
    node.dht.warm([(world.order[1].id, world.order[1].address), (ghost, "udp:10.9.9.9:1"), (node.id, "")])
    assert len(node.dht.contacts()) == 2
    world.give(node, Received(world.order[2].id, Check(rpc=1, at=world.order[2].address)))
    world.run(60)
    known = {c.place.node for c in node.dht.contacts()}
    assert ghost not in known
    assert len(known) >= 25


def test_a_store_is_answered_with_how_many_records_are_held() -> None:
    world = World(24)
    node, other = world.add(2)
    agent, keys = world.advertise(other, "x", keys=3)
    items = world.sign(other, agent, keys)
    world.give(node, PeerUp(other.id, (other.address,)))
    sent: list[Any] = []
    other.lie = lambda w, n, r, m: sent.append(m) or m
    from agentmesh.core.dht.messages import Item

    world.give(node, Received(other.id, Store(rpc=5, items=[Item(k, raw) for k, raw in items])))
    world.give(node, Received(other.id, Check(rpc=6, keys=[*keys, Key(b"\x00" * 32)])))
    assert node.dht.stored_count == 3
    answers: list[Any] = []
    node.lie = lambda w, n, r, m: answers.append(m) or m
    world.give(node, Received(other.id, Check(rpc=6, keys=[*keys, Key(b"\x00" * 32)])))
    assert answers[0] == Checked(rpc=6, held=[1, 1, 1, 0], at=node.address)
    world.give(node, Received(other.id, Store(rpc=7, items=[Item(k, raw) for k, raw in items])))
    assert answers[-1] == Stored(rpc=7, kept=3)
