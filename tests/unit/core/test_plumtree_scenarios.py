"""Plumtree in networks of some hundred nodes: who is reached, how often, how soon (docs/spec/plumtree.md §7).

Links take 10–50 ms; zones are cliques of 14; long links have power-law degrees 3…60. The figures for 10,000 nodes are in
docs/reference/network-figures.md; here the same rules are held with a margin on networks that run in a second.
"""

from __future__ import annotations

import random
from typing import Any

from agentmesh.core.plumtree.config import PlumtreeConfig
from agentmesh.core.plumtree.messages import Gossip, IHave, message_id
from tests.support.plumtree_net import PlumtreeNet, delays_s, quantile


def settled(net: PlumtreeNet, casts: int = 10) -> None:
    """Let the tree form."""
    rng = random.Random(7)
    for i in range(casts):
        net.publish(rng.randrange(len(net.nodes)), b"settle %d" % i)
        net.run(1.2)


def steady(net: PlumtreeNet, casts: int = 6, gap_s: float = 5.0) -> tuple[float, float, int]:
    """Broadcast from random nodes; return p99 in seconds, mean RMR, and how many were missed."""
    rng = random.Random(8)
    rmr, missed = 0.0, 0
    delays: list[float] = []
    for i in range(casts):
        author = rng.choice(net.alive())
        cast = net.publish(author, b"steady %d" % i)
        net.run(gap_s)
        rmr += net.rmr(cast) / casts
        missed += len(net.missed(cast, author))
        delays += delays_s(cast)
    return quantile(sorted(delays), 0.99), rmr, missed


def test_without_loss_everybody_is_reached_fast_and_hardly_anybody_twice() -> None:
    net = PlumtreeNet(1)
    net.build(250)
    settled(net)
    p99_s, rmr, missed = steady(net)
    assert missed == 0
    assert rmr <= 0.1
    assert p99_s < 0.3
    degree = sum(len(node.eager()) for node in net.nodes) / len(net.nodes)
    assert degree < 2.2, "the eager links are a tree"


def test_with_a_tenth_lost_on_links_that_retransmit_the_same_holds() -> None:
    net = PlumtreeNet(2, loss=0.1)
    net.build(250)
    settled(net, 25)
    p99_s, rmr, missed = steady(net)
    assert missed == 0
    assert rmr <= 0.1
    assert p99_s < 0.5


def test_with_a_tenth_gone_for_good_everybody_is_reached() -> None:
    net = PlumtreeNet(3, loss=0.1, kills=True)
    net.build(250)
    settled(net)
    p99_s, rmr, missed = steady(net)
    assert missed == 0
    assert rmr <= 0.25
    assert p99_s < 0.6


def test_the_path_of_the_last_delivery_stays_short() -> None:
    net = PlumtreeNet(4)
    net.build(250)
    settled(net)
    cast = net.publish(150, b"last hop")
    net.run(3)
    assert max(cast.hops.values()) <= 15


def test_after_half_crashed_at_once_everybody_alive_is_reached_before_anybody_noticed() -> None:
    net = PlumtreeNet(5)
    net.build(250)
    settled(net)
    victims = random.Random(3).sample(range(250), 125)
    net.crash(victims, noticed_after_s=8.0)
    net.run(0.1)
    for i, author in enumerate(net.alive()[:3]):
        cast = net.publish(author, b"after crash %d" % i)
        net.run(5.0)
        assert net.missed(cast, author) == []
    net.run(8.0)
    settled(net)
    net.run(5.0)
    p99_s, rmr, missed = steady(net)
    assert missed == 0
    assert rmr <= 0.1
    assert p99_s < 0.4


def test_many_senders_at_once_share_the_tree() -> None:
    net = PlumtreeNet(6, loss=0.1)
    net.build(84)
    settled(net)
    before = dict(net.sent)
    casts = [(i, net.publish(i, b"one of many %d" % i)) for i in range(0, 84, 2)]
    net.run(8.0)
    assert all(net.missed(cast, author) == [] for author, cast in casts)
    assert sum(net.rmr(cast) for _, cast in casts) / len(casts) <= 0.2
    announcements = net.sent["IHave"] - before["IHave"]
    assert announcements < 0.7 * len(casts) * 84 * 6, "announcements travel together"


def test_large_payloads_reach_everybody_by_fetch_once_each() -> None:
    net = PlumtreeNet(7, loss=0.1)
    net.build(150)
    settled(net)
    cast = net.publish(3, b"L" * 50_000)
    net.run(10.0)
    assert net.missed(cast, 3) == []
    assert net.rmr(cast) <= 0.05
    assert net.sent["Offer"] > 0


def test_a_small_mesh_that_is_one_zone_is_reached_whole() -> None:
    net = PlumtreeNet(8, loss=0.1, kills=True)
    net.build(30, zone_size=30, tiers=((0, 1.0),))
    settled(net)
    _, rmr, missed = steady(net, casts=10)
    assert missed == 0
    assert rmr <= 0.4


def test_who_was_cut_off_for_some_seconds_gets_what_was_said_meanwhile() -> None:
    net = PlumtreeNet(9)
    net.build(60)
    settled(net)
    links = dict(net.links[5])
    for mate in links:
        net.disconnect(5, mate)
    casts = [net.publish(20, b"meanwhile %d" % i) for i in range(10)]
    net.run(15.0)
    assert all(net.missed(cast, 20) == [5] for cast in casts)
    net.connect(5, next(iter(links)), zone=False)
    net.run(3.0)
    assert all(net.missed(cast, 20) == [] for cast in casts)


def test_lost_announcements_are_made_up_for_by_comparing() -> None:
    net = PlumtreeNet(10)
    net.build(60)
    settled(net)
    mute: dict[int, Any] = {
        i: lambda to, m: [] if to == 7 and isinstance(m, Gossip | IHave) else [m] for i in range(60)
    }
    net.twist = mute
    cast = net.publish(30, b"nobody tells 7")
    net.run(1.0)
    assert net.missed(cast, 30) == [7]
    net.twist = {}
    net.run(10.0)
    assert net.missed(cast, 30) == []


def test_a_fifth_that_withholds_everything_keeps_nobody_from_anything() -> None:
    net = PlumtreeNet(11)
    net.build(140)
    silent = random.Random(1).sample(range(140), 28)
    for i in silent:
        net.twist[i] = lambda to, m: [] if isinstance(m, Gossip) else [m]
    settled(net, 15)
    honest = [i for i in range(140) if i not in silent]
    missed = 0
    for i in range(10):
        cast = net.publish(honest[i * 9], b"spite %d" % i)
        net.run(6.0)
        missed += sum(1 for j in honest if j != honest[i * 9] and j not in cast.arrived_s)
    assert missed == 0
    assert not [event for _, event in net.bad if int(event.node[1:]) not in silent], "no honest node is called bad"


def test_garbage_and_floods_of_a_few_reach_only_their_neighbours_who_part_with_them() -> None:
    net = PlumtreeNet(12)
    net.build(150)
    settled(net)
    before = [node.counters()["received"] for node in net.nodes]
    for mate in list(net.links[9]):
        for i in range(5):
            net.carry(9, mate, Gossip(kind="agent", hops=1, payload=b"garbage %d" % i))
            net.carry(9, mate, IHave(ids=[message_id("fake", b"%d %d" % (mate, i))], hops=[1]))
    net.run(3.0)
    heard = [i for i, node in enumerate(net.nodes) if node.counters()["received"] > before[i]]
    assert sorted(heard) == sorted(net.links[9])
    assert sorted(i for i, _ in net.bad) == sorted(net.links[9])
    assert all(event.node == "n00009" for _, event in net.bad)
    cast = net.publish(100, b"and life goes on")
    net.run(5.0)
    assert [i for i in net.missed(cast, 100) if i != 9] == []


def test_an_idle_network_is_silent() -> None:
    net = PlumtreeNet(13)
    net.build(60)
    net.run(1.0)
    assert net.pending() == 0
    net.publish(3, b"one message")
    net.run(100.0)
    total = sum(net.sent.values())
    net.run(1000.0)
    assert net.pending() == 0
    assert sum(net.sent.values()) == total
    assert net.sent["Recent"] <= 60 * 16


def test_the_same_seed_gives_the_same_story() -> None:
    def story(seed: int) -> list[str]:
        lines: list[str] = []
        net = PlumtreeNet(seed, loss=0.1, kills=True)
        net.trace = lambda now_s, a, b, message: lines.append(f"{now_s:.6f} {a} {b} {message}")
        net.build(60)
        settled(net, 4)
        return lines

    assert story(5) == story(5) != story(6)


def test_rules_hold_after_every_step_of_a_bad_day() -> None:
    net = PlumtreeNet(14, loss=0.1, kills=True, checks=True, config=PlumtreeConfig(seen_max=200, cache_max=20))
    net.build(42)
    rng = random.Random(2)
    for i in range(25):
        net.publish(rng.choice(net.alive()), b"bad day %d" % i + b"." * rng.choice((10, 2000, 9000)))
        if i % 5 == 2:
            net.crash([rng.choice(net.alive())], noticed_after_s=3.0)
        if i % 5 == 4:
            a = rng.choice(net.alive())
            mates = [b for b in net.links[a] if b not in net.dead]
            net.disconnect(a, rng.choice(mates))
        net.run(0.4)
    net.run(90.0)
    assert net.pending() == 0
