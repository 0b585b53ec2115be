"""Some hundred overlays together: forming through one seed, capacity, crashes, hubs, leaving, splits, flapping."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise

from agentmesh.core.messages import LocalNode, Received
from agentmesh.core.overlay.messages import NearReply, Shuffle
from agentmesh.core.overlay.shape import largest_component_after, shape_of
from tests.support.overlay_world import World, record_of


def formed(seed: int, nodes: int, loss: float = 0.0, wait_s: float = 20.0, *, check: bool = False) -> World:
    world = World(seed, loss, check=check)
    world.grow(nodes, 0.01)
    world.run(wait_s)
    return world


@cache
def quiet() -> World:
    """Return a formed world that tests only look at."""
    return formed(1, 130)


def test_nodes_that_join_through_one_seed_end_in_one_component_with_agreed_zones() -> None:
    world = quiet()
    assert shape_of(world.graph(), random.Random(1)).components == 1
    assert shape_of(world.long_graph(), random.Random(1)).components == 1, "the long links hold alone, too"
    assert world.zone_errors() == 0
    sizes = [len(world.machines[node].overlay.zone()[2]) for node in world.living()]
    assert min(sizes) >= 9
    assert max(sizes) <= 30
    assert world.misdeeds == []


def test_the_peer_graph_is_clustered_and_small() -> None:
    shape = shape_of(quiet().graph(), random.Random(1))
    assert shape.clustering > 0.5
    assert shape.path_length < 3.5


def test_links_are_symmetric_and_follow_capacity() -> None:
    world = quiet()
    assert world.one_sided() == 0
    for machine in world.machines.values():
        links, target = len(machine.overlay.long_links()), machine.overlay.long_target
        assert links >= 5
        assert links >= 0.8 * target
        assert links <= target + 1 + target // 8


def test_neighbours_are_the_zone_and_the_long_links_and_all_are_watched() -> None:
    for machine in quiet().machines.values():
        overlay = machine.overlay
        expected = {*overlay.long_links(), *overlay.zone()[2]} - {machine.record.node_id}
        assert set(machine.neighbours) == expected
        assert set(machine.watched) == expected
        assert machine.zones[-1][1].members == overlay.zone()[2]
        assert [node for node, zone in machine.neighbours.items() if not zone] == [
            node for node in machine.neighbours if node in overlay.long_links()
        ]


def test_the_mesh_holds_without_its_hubs_and_without_half_of_its_nodes() -> None:
    graph = quiet().graph()
    hubs = sorted(graph, key=lambda node: -len(graph[node]))[: len(graph) // 5]
    assert largest_component_after(graph, set(hubs)) >= 0.99
    lost = random.Random(1).sample(list(graph), len(graph) // 2)
    assert largest_component_after(graph, set(lost)) >= 0.98


def test_a_mesh_at_rest_is_quiet() -> None:
    world = formed(2, 30, wait_s=120)
    world.sent.clear()
    changes = sum(len(machine.zones) for machine in world.machines.values())
    world.run(60)
    assert sum(world.sent.values()) / 60 / 30 < 0.8, world.sent
    assert sum(len(machine.zones) for machine in world.machines.values()) == changes


def test_it_forms_over_links_that_lose_every_fifth_message() -> None:
    world = formed(3, 44, loss=0.2, wait_s=60)
    assert shape_of(world.graph(), random.Random(1)).components == 1
    assert world.zone_errors() <= 6, "a lost message at the very end may be under repair"
    assert min(len(links) for links in world.long_graph().values()) >= 2


def test_after_half_of_it_crashes_at_once_the_rest_is_one_mesh_and_repaired() -> None:
    world = formed(4, 80)
    seed = next(iter(world.machines))
    world.kill([seed, *random.Random(4).sample(world.living()[1:], 39)])
    assert shape_of(world.graph(), random.Random(1)).largest_component >= 0.99
    world.run(12)
    assert shape_of(world.graph(), random.Random(1)).components == 1
    assert min(len(links) for links in world.long_graph().values()) >= 3
    world.run(28)
    assert world.zone_errors() == 0
    assert min(len(world.machines[node].overlay.zone()[2]) for node in world.living()) >= 7


def test_the_last_ones_find_together_when_their_neighbours_die() -> None:
    world = formed(5, 30, check=True)
    world.kill(world.living()[3:])
    world.run(60)
    assert all(len(world.machines[node].overlay.zone()[2]) == 3 for node in world.living())


def test_who_leaves_is_missed_by_nobody_and_comes_back_with_a_higher_seq() -> None:
    world = formed(6, 30, check=True)
    leaver = world.living()[7]
    machine = world.machines[leaver]
    world.feed(leaver, LocalNode(record_of(machine.key, seq=2, leaving=True)))
    world.run(3)
    assert all(leaver not in peers for node, peers in world.graph().items() if node != leaver)
    world.feed(leaver, LocalNode(record_of(machine.key, seq=3)))
    world.link(leaver, world.living()[0])
    world.run(15)
    assert world.zone_errors() == 0
    assert len(world.graph()[leaver]) >= 7


def test_both_sides_of_a_split_go_on_and_mix_again_within_seconds_of_its_end() -> None:
    world = formed(7, 44)
    nodes = world.living()
    world.split(lambda node: nodes.index(node) % 2)
    world.run(40)
    graph = world.graph()
    assert all(world.group[peer] == world.group[node] for node, peers in graph.items() for peer in peers)
    assert shape_of(graph, random.Random(1)).components == 2
    world.split(lambda node: 0)
    world.run(10)
    assert shape_of(world.graph(), random.Random(1)).components == 1
    world.run(50)
    assert world.zone_errors() == 0
    mixed = sum(
        nodes.index(peer) % 2 != nodes.index(node) % 2 for node, peers in world.graph().items() for peer in peers
    )
    assert mixed > 0.25 * sum(len(peers) for peers in world.graph().values())


def test_two_meshes_that_grew_apart_become_one_by_a_single_link() -> None:
    world = World(8, check=False)
    world.grow(40, 0.01)
    first = world.living()
    other = world.add().record.node_id
    for _ in range(29):
        world.link(world.add().record.node_id, other)
        world.run(0.01)
    world.run(15)
    assert shape_of(world.graph(), random.Random(1)).components == 2
    world.link(first[3], other)
    world.run(60)
    assert shape_of(world.graph(), random.Random(1)).components == 1
    assert world.zone_errors() == 0


def test_a_node_at_the_border_of_a_split_does_not_make_zones_flap() -> None:
    world = formed(9, 27)
    before = {node: len(machine.zones) for node, machine in world.machines.items()}
    restless = world.living()[-1]
    seq = 2
    for _ in range(8):
        world.feed(restless, LocalNode(record_of(world.machines[restless].key, seq=seq, leaving=True)))
        world.run(8)
        world.feed(restless, LocalNode(record_of(world.machines[restless].key, seq=seq + 1)))
        world.link(restless, world.living()[0])
        world.feed(restless, LocalNode(record_of(world.machines[restless].key, seq=seq + 2)))
        world.run(8)
        seq += 3
    depths: list[int] = []
    for node, machine in world.machines.items():
        if node != restless:
            seen = [change.depth for _, change in machine.zones[before[node] :]]
            depths.append(sum(one != other for one, other in pairwise(seen)))
    assert max(depths) <= 5, "eight comings and goings may change the depth a few times, not sixteen"


def test_a_flooding_neighbour_neither_empties_nor_fills_the_views_of_the_others() -> None:
    world = formed(10, 30, check=True)
    victim, villain = world.living()[0], world.living()[1]
    invented = [
        record_of(type(world.machines[victim].key)((9_000_000 + n).to_bytes(32, "big"))).raw for n in range(160)
    ]
    honest = set(world.graph()[victim])
    for at in range(0, 160, 16):
        world.feed(victim, Received(villain, NearReply(invented[at : at + 16])))
        world.feed(victim, Received(villain, Shuffle([world.machines[villain].record.raw, *invented[at : at + 15]], 0)))
    world.run(20)
    machine = world.machines[victim]
    strangers = [node for node in machine.overlay.passive() if node not in world.machines]
    assert len(strangers) <= 11
    assert len(honest - set(machine.neighbours)) <= 12
    assert shape_of(world.graph(), random.Random(1)).components == 1


def test_the_same_seed_gives_the_same_run() -> None:
    runs: list[list[tuple[float, str]]] = []
    for _ in range(2):
        world = World(11, 0.1, check=False)
        world.trace = []
        world.grow(30, 0.02)
        world.run(5)
        runs.append(world.trace)
    assert len(runs[0]) > 1000
    assert runs[0] == runs[1]
