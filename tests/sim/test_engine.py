"""The simulator itself, driven with a toy brain: time, packets, links, faults, findings (docs/spec/simulator.md)."""

from __future__ import annotations

import random
from heapq import heappop
from typing import Any

import pytest

from agentmesh.core.machine import Send
from agentmesh.core.messages import LocalNode, PeerDown, PeerUp, Received, WallClock
from agentmesh.core.swim.messages import Ack, Ping
from agentmesh.errors import UsageError
from agentmesh.sim.agenda import Agenda
from agentmesh.sim.links import Ether, Link
from agentmesh.sim.node import DOWN, UP, SimNode
from agentmesh.sim.runner import Run
from agentmesh.sim.scenario import Fault, Links, Scenario, load, names, parse
from agentmesh.sim.story import Story
from tests.sim.toy import Toy


class Clock:
    """Real time that stands still unless asked."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.001
        return self.now_s


def run_of(text: str = "", size: int = 8, seed: int = 1, maker: Any = Toy) -> Run:
    return Run(parse(f'title = "test"\nsettle_s = 5\nduration_s = 40\n{text}', "test"), size, seed, maker)


def logs(node: SimNode, kind: type) -> list[tuple[float, Any]]:
    brain: Any = node.brain
    return [
        (at_s, getattr(item, "message", item))
        for at_s, item in brain.log
        if isinstance(item, kind) or (isinstance(item, Received) and isinstance(item.message, kind))
    ]


# -- the order of events ---------------------------------------------------------------------------------------------


def test_events_come_by_time_and_then_in_the_order_in_which_they_were_put_in() -> None:
    rng, agenda = random.Random(5), Agenda()
    pushed: list[tuple[int, int]] = []
    taken: list[tuple[int, int]] = []
    now_us = 0
    for _ in range(60):  # a step of up to 50 ms: within one slot, or over some of them
        until_us = now_us + rng.randrange(50_000)
        while agenda.near or agenda.advance(until_us):
            if agenda.near[0][0] > until_us:
                break
            at_us, _, _, _, number, _ = heappop(agenda.near)
            taken.append((at_us, number))
            if rng.random() < 0.3:  # what happens brings more, now and later
                pushed.append((at_us + rng.choice([0, 0, 5_000]), len(pushed)))
                agenda.push(pushed[-1][0], None, 0, pushed[-1][1], 0)
        now_us = until_us
        for _ in range(20):
            pushed.append((now_us + rng.choice([0, 3, 16_384, rng.randrange(200_000)]), len(pushed)))
            agenda.push(pushed[-1][0], None, 0, pushed[-1][1], 0)
    assert taken == sorted(taken)
    left = sorted({*pushed} - {*taken})
    assert len(left) == len(agenda) == len(pushed) - len(taken)
    assert left[0][0] >= now_us > taken[-1][0]


# -- packets and delays ---------------------------------------------------------------------------------------------


def ether_of(**fields: Any) -> Ether:
    return Ether(Links(**fields), random.Random(1), 7)


def test_a_pair_has_one_delay_both_ways_and_packets_stay_within_the_bounds() -> None:
    ether = ether_of(min_ms=10, max_ms=50, jitter=0.05)
    nodes = [SimNode(i, 1, 0, "") for i in range(40)]
    bases = [ether.base_us(a, b) for a in nodes for b in nodes if a is not b]
    assert all(ether.base_us(a, b) == ether.base_us(b, a) for a in nodes for b in nodes)
    delays = [ether.delay_us(a, b) for a in nodes for b in nodes]
    assert 10_000 <= min(delays) <= 11_500
    assert 48_000 <= max(delays) <= 50_000
    assert 28_000 < sum(bases) / len(bases) < 32_000


def test_lognormal_delays_have_the_asked_median() -> None:
    ether = ether_of(latency="lognormal", min_ms=1, max_ms=500, median_ms=20, sigma=0.6, jitter=0)
    nodes = [SimNode(i, 1, 0, "") for i in range(60)]
    bases = sorted(ether.base_us(a, b) for a in nodes for b in nodes if a.index < b.index)
    assert 18_000 < bases[len(bases) // 2] < 22_000
    assert bases[-1] > 50_000


def test_the_asked_share_of_packets_is_lost() -> None:
    ether = ether_of(loss=0.25)
    assert 2_300 < sum(ether.is_lost() for _ in range(10_000)) < 2_700


def test_a_slow_node_makes_its_delays_longer() -> None:
    ether = ether_of(latency="fixed", median_ms=10, jitter=0)
    a, b = SimNode(0, 1, 0, ""), SimNode(1, 1, 0, "")
    b.slow, b.lag_us = 5.0, 1_000
    assert ether.delay_us(a, b) == 51_000
    assert ether.delay_us(b, a) == 50_000


def test_datagrams_arrive_after_the_pairs_delay_and_probes_are_answered() -> None:
    run = run_of('[links]\nlatency = "fixed"\nmedian_ms = 20\njitter = 0')
    run.world.run(10)
    node = run.world.nodes[0]
    sent_at: dict[int, float] = {}
    acks = logs(node, Ack)
    assert len(acks) > 10
    for other in run.world.nodes:
        sent_at |= {ping.nonce: at_s for at_s, ping in logs(other, Ping)}
    assert all(at_s - sent_at[ack.nonce] == pytest.approx(0.02, abs=1e-5) for at_s, ack in acks)


def test_lost_datagrams_never_arrive_and_doubled_ones_arrive_twice() -> None:
    lossy, doubled = run_of("[links]\nloss = 0.9"), run_of('[links]\nduplicate = 1.0\n[world]\nencoding = "counted"')
    for run in (lossy, doubled):
        run.world.run(20)
    assert sum(node.brain.acks for node in lossy.world.nodes) < 20
    pings = [ping.nonce for node in doubled.world.nodes for _, ping in logs(node, Ping)]
    assert len(pings) > 1.9 * len(set(pings)) > 200


def test_a_repeated_datagram_is_refused_where_bytes_are_real() -> None:
    run = run_of("[links]\nduplicate = 1.0")
    run.world.run(20)
    pings = [ping.nonce for node in run.world.nodes for _, ping in logs(node, Ping)]
    assert len(pings) < 1.3 * len(set(pings)), "only what went by both ways comes twice"
    assert run.world.carriage.refused["datagram.replayed"] > 100


def test_flipped_bits_reach_the_real_decoders_and_none_gets_through() -> None:
    run = run_of("[links]\nflip = 0.5")
    run.world.run(20)
    refused = run.world.carriage.refused
    assert refused["signature.invalid"] > 50
    assert len(refused) >= 3
    assert not run.world.violations


def test_bytes_are_counted_alike_in_worlds_of_bytes_and_of_objects() -> None:
    real, counted = run_of('[world]\nencoding = "real"'), run_of('[world]\nencoding = "counted"')
    for run in (real, counted):
        run.world.run(20)
    assert real.world.digest() == counted.world.digest()
    assert [n.bytes_out for n in real.world.nodes] == [n.bytes_out for n in counted.world.nodes]
    assert real.world.nodes[0].bytes_out > 1_000


def test_signing_every_datagram_changes_nothing_but_the_cost() -> None:
    text = "[links]\nflip = 0.05\nduplicate = 0.1\n[world]\nskew_s = 40\nencoding = "
    sealed, real = run_of(f'{text}"sealed"'), run_of(f'{text}"real"')
    for run in (sealed, real):
        run.world.run(20)
    assert sealed.world.digest() == real.world.digest()
    assert sealed.world.carriage.refused == real.world.carriage.refused
    assert {"datagram.stale", "datagram.replayed", "signature.invalid"} <= set(real.world.carriage.refused)


def test_messages_over_a_link_keep_their_order_though_packets_are_lost() -> None:
    run = run_of("[links]\nloss = 0.3")
    run.world.run(5)
    a = run.world.nodes[0]
    b = run.world.by_id[next(iter(a.links))]
    for number in range(200):
        run.world.carriage.send_over_link(a, a.links[b.node_id], Ack(number, 1, 0, 0), 10)
    run.world.run(35)
    arrived = [m.nonce for _, m in logs(b, Ack) if m.nonce < 200]
    assert arrived == list(range(200))


def test_a_lossy_link_loses_messages_for_good() -> None:
    run = run_of('[links]\nloss = 0.5\nmode = "lossy"')
    run.world.run(5)
    a = next(node for node in run.world.nodes if node.links)
    b = run.world.by_id[next(iter(a.links))]
    for number in range(200):
        run.world.carriage.send_over_link(a, a.links[b.node_id], Ack(number, 1, 0, 0), 10)
    run.world.run(15)
    got = [m for _, m in logs(b, Ack) if m.nonce < 200]
    assert 50 < len(got) < 150


# -- nodes and their daemon's duties --------------------------------------------------------------------------------


def test_a_brain_gets_its_clock_and_its_signed_record_first() -> None:
    run = run_of("[world]\nskew_s = 30")
    run.world.run(45)
    skews = set[int]()
    for node in run.world.nodes:
        brain: Any = node.brain
        assert isinstance(brain.log[0][1], WallClock)
        record = brain.log[1][1]
        assert isinstance(record, LocalNode)
        assert record.record.node_id == node.node_id
        assert record.record.addresses == (node.address,)
        clocks = logs(node, WallClock)
        assert len(clocks) >= 2
        skews.add(round(clocks[0][1].unix_s - clocks[0][0] - 1_700_000_000))
    assert len(skews) > 3


def test_every_node_has_an_address_in_a_network_of_its_own() -> None:
    nodes = [SimNode(i, 1, 0, "") for i in (0, 1, 255, 256, 9_999)]
    assert len({node.address.rsplit(".", 1)[0] for node in nodes}) == 5
    assert nodes[4].address == "udp:10.39.15.7:6374"


def test_a_restarted_node_keeps_key_seq_and_contacts_and_nothing_else() -> None:
    run = run_of('[[faults]]\nkind = "crash"\ncount = 1\n[[faults]]\nkind = "restart"\nat_s = 5\ncount = 1')
    run.world.run(9)
    (node,) = run.faults.crashed
    old, stored, seq = node.brain, dict(node.stored), node.seq
    assert node.state == DOWN
    run.world.run(11)
    assert node.state == UP
    assert node.brain is not old
    assert stored
    brain: Any = node.brain
    assert list(brain.addresses)[: len(stored)] == list(stored)
    assert brain.log[1][1].record.seq > seq


# -- faults ---------------------------------------------------------------------------------------------------------


def test_a_crashed_node_takes_nothing_and_its_peers_learn_of_it_after_the_idle_timeout() -> None:
    run = run_of('[[faults]]\nkind = "crash"\ncount = 1')
    run.world.run(30)
    (node,) = run.faults.crashed
    brain: Any = node.brain
    assert max(at_s for at_s, _ in brain.log) <= 5.0
    downs = [at_s for other in run.world.nodes for at_s, down in logs(other, PeerDown) if down.peer == node.node_id]
    assert downs
    assert all(at_s == pytest.approx(20.0, abs=1e-3) for at_s in downs)


def test_a_dial_to_a_crashed_node_brings_no_link() -> None:
    run = run_of('[[faults]]\nkind = "crash"\ncount = 1')
    run.world.run(25)
    (node,) = run.faults.crashed
    other = next(n for n in run.world.nodes if n is not node)
    ups = len(logs(other, PeerUp))
    run.world.carriage.send_all(other, [Send(node.node_id, Ack(1, 1, 0, 0), (node.address,), True)])
    assert node.node_id in other.dialling
    run.world.run(40)
    assert node.node_id not in other.dialling
    assert len(logs(other, PeerUp)) == ups


def test_a_paused_node_gets_what_waited_when_it_goes_on() -> None:
    run = run_of('[[faults]]\nkind = "pause"\nshare = 0.25\nfor_s = 4')
    run.world.run(5.5)
    paused = [node for node in run.world.nodes if node.state != UP]
    assert len(paused) == 2
    run.world.run(12)
    for node in paused:
        brain: Any = node.brain
        times = [at_s for at_s, _ in brain.log]
        assert not [at_s for at_s in times if 5.001 < at_s < 8.999]
        assert len([at_s for at_s in times if at_s == pytest.approx(9.0, abs=1e-4)]) > 2
        assert times[-1] > 11


@pytest.mark.parametrize("one_way", [False, True])
def test_a_partition_stops_packets_between_the_sides_until_it_heals(one_way: bool) -> None:
    fault = f'[[faults]]\nkind = "partition"\nshare = 0.5\nfor_s = 10\none_way = {str(one_way).lower()}'
    run = run_of(fault)
    run.world.run(5.2)
    minority = {node.node_id for node in run.faults.cut}
    assert len(minority) == 4
    run.world.run(14.9)
    crossing = {"out": 0, "in": 0}
    for node in run.world.nodes:
        brain: Any = node.brain
        for at_s, item in brain.log:
            if isinstance(item, Received) and at_s > 5.1 and (item.peer in minority) != (node.node_id in minority):
                crossing["out" if item.peer in minority else "in"] += 1
    assert crossing["out"] == 0
    assert (crossing["in"] > 10) is one_way
    run.world.run(25)
    late = [
        item
        for node in run.world.nodes
        for at_s, item in node.brain.log
        if isinstance(item, Received) and at_s > 15.1 and (item.peer in minority) and node.node_id not in minority
    ]
    assert len(late) > 10
    assert not [n for n in run.world.nodes if logs(n, PeerDown)], "10 s is shorter than the idle timeout"


def test_links_across_a_long_partition_break_at_both_ends() -> None:
    run = run_of('[[faults]]\nkind = "partition"\nshare = 0.5')
    run.world.run(25)
    minority = {node.node_id for node in run.faults.cut}
    for node in run.world.nodes:
        assert all((peer in minority) == (node.node_id in minority) for peer in node.links)
        brain: Any = node.brain
        assert set(brain.peers) == set(node.links)


def test_what_was_sent_over_a_link_during_a_short_cut_arrives_after_it() -> None:
    run = run_of('[[faults]]\nkind = "partition"\nshare = 0.5\nfor_s = 5')
    run.world.run(6)
    a, b = next(
        (node, run.world.by_id[peer])
        for node in run.faults.cut
        for peer in node.links
        if run.world.by_id[peer].side != node.side
    )
    run.world.carriage.send_over_link(a, a.links[b.node_id], Ack(4711, 1, 0, 0), 10)
    run.world.run(9.9)
    assert not [m for _, m in logs(b, Ack) if m.nonce == 4711]
    run.world.run(11)
    assert [m for _, m in logs(b, Ack) if m.nonce == 4711]


def test_churn_crashes_and_restarts_at_the_asked_rate() -> None:
    run = run_of('[[faults]]\nkind = "churn"\nper_min = 0.6\ndown_s = 3\nfor_s = 30', size=40)
    crashes: list[SimNode] = []
    run.faults.on_crash.append(crashes.append)
    run.world.run(45)
    assert 6 <= len(crashes) <= 20
    assert all(node.state == UP for node in run.world.nodes)


def test_a_fault_changes_the_ether_only_for_its_time() -> None:
    run = run_of('[[faults]]\nkind = "loss"\namount = 0.4\nfor_s = 3')
    run.world.run(6)
    assert run.world.ether.loss == 0.4
    run.world.run(9)
    assert run.world.ether.loss == 0.0


# -- findings -------------------------------------------------------------------------------------------------------


class Raising(Toy):
    def handle(self, incoming: Any, now_s: float, out: Any) -> None:
        if now_s > 7 and isinstance(incoming, Received):
            raise KeyError("nobody caught this")
        super().handle(incoming, now_s, out)


class Breaking(Toy):
    def assert_invariants(self) -> None:
        assert len(self.log) < 60, "the log is too long"


def test_an_error_of_a_brain_is_a_violation_with_its_time_and_node() -> None:
    report = run_of(maker=Raising).execute(Clock())
    assert report.violations
    assert report.violations[0]["at_s"] > 7
    assert "KeyError" in report.violations[0]["what"]
    assert 0 <= report.violations[0]["node"] < 8
    assert len(report.violations) <= 100


def test_a_broken_invariant_is_found_while_the_world_runs() -> None:
    report = run_of(maker=Breaking).execute(Clock())
    assert "the log is too long" in report.violations[0]["what"]
    assert report.violations[0]["at_s"] < report.simulated_s


def test_an_honest_toy_violates_nothing_and_the_same_seed_gives_the_same_digest() -> None:
    text = '[links]\nloss = 0.1\nreorder = 0.2\n[[faults]]\nkind = "crash"\ncount = 1'
    first, again, other = (run_of(text, seed=seed).execute(Clock()) for seed in (3, 3, 4))
    assert not first.violations
    assert first.digest == again.digest
    assert first.events == again.events
    assert first.digest != other.digest


def test_a_story_tells_every_input_of_the_chosen_node() -> None:
    lines: list[str] = []
    run = run_of(size=3)
    story = Story(run.world, [1], lines.append)
    run.execute(Clock(), until_s=8)
    story.finish()
    brain: Any = run.world.nodes[1].brain
    assert len(lines) == len(brain.log)
    assert any("WallClock" in line for line in lines)
    assert any("← node" in line and "Ping" in line for line in lines)


def test_a_story_without_a_node_tells_what_led_to_the_first_violation() -> None:
    lines: list[str] = []
    run = run_of(maker=Raising)
    story = Story(run.world, None, lines.append)
    report = run.execute(Clock())
    story.finish()
    assert 10 < len(lines) <= 200
    assert f"{report.violations[0]['at_s']:.6f}" in lines[-1]


# -- scenarios ------------------------------------------------------------------------------------------------------


def test_every_scenario_of_the_package_is_readable_and_named() -> None:
    wanted = (
        "join broadcast half-crash crash-detect partition lookup lookup-byzantine replicas churn topology scale idle"
    )
    assert set(wanted.split()) <= set(names())
    for name in names():
        scenario = load(name)
        assert scenario.name == name
        assert scenario.title
        assert scenario.measures


def test_settings_change_fields_of_any_depth() -> None:
    scenario = load("broadcast", ["links.loss=0.25", "measures.0.count=3", 'links.mode="lossy"', "title=other"])
    assert (scenario.links.loss, scenario.measures[0].count, scenario.links.mode) == (0.25, 3, "lossy")
    assert scenario.title == "other"


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("links.loss=2", "share"),
        ("links.los=0.1", "los"),
        ("links.loss=a lot", "float"),
        ("links.loss", "key=value"),
        ("measures.9.count=1", "nothing of that name"),
        ("links.min_ms=-3", "rising"),
        ("duration_s=0", "positive"),
        ("faults.x.at_s=1", "nothing of that name"),
        ("world.capacity=[1]", "length"),
        ("checks=['sunshine']", "sunshine"),
    ],
)
def test_a_wrong_setting_is_refused_with_a_word_on_what_is_wrong(setting: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        load("half-crash", [setting])


def test_an_unknown_scenario_is_refused_with_the_list_of_those_there_are() -> None:
    with pytest.raises(UsageError, match="broadcast"):
        load("boardcast")


def test_a_world_of_one_node_is_refused() -> None:
    with pytest.raises(UsageError, match="2 to"):
        run_of(size=1)


def test_an_unknown_setting_of_a_machine_is_refused() -> None:
    with pytest.raises(UsageError, match=r"brain\.directory\.bogus"):
        run_of("[brain.directory]\nbogus = 1")


def test_a_scenario_is_plain_data() -> None:
    scenario = Scenario(title="t", faults=[Fault(kind="crash", share=0.5)])
    assert scenario.links == Links()


def test_a_link_names_its_other_end() -> None:
    a, b = SimNode(0, 1, 0, ""), SimNode(1, 1, 0, "")
    link = Link(a, b)
    assert (link.other(a), link.other(b)) == (b, a)
    assert link.is_current(a)
    a.life += 1
    assert not link.is_current(a)


def test_an_answer_goes_back_to_where_its_question_came_from_as_it_does_between_real_nodes() -> None:
    run = run_of()
    run.world.run(6)
    asker, asked = run.world.nodes[:2]
    run.world.carriage.lose_links(asked)
    asked.proven.clear()
    brain: Any = asked.brain
    brain.addresses = {}
    run.world.carriage.send_all(asker, [Send(asked.node_id, Ping(4_711, 1, 0, 0), (asked.address,))])
    run.world.run(6.3)
    assert 4_711 in {ack.nonce for _, ack in logs(asker, Ack)}
