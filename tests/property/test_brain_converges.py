"""Whatever happens to links and messages: once they are whole again, every node holds the same agents, and the true ones."""

from __future__ import annotations

import itertools

import pytest

from agentmesh.core.brain import BrainConfig
from agentmesh.core.directory.messages import AgentGone
from agentmesh.core.exchange.config import ExchangeConfig
from tests.support.brains import World

#: Nobody dials by itself, so that a chain of links stays one.
UNDIALLED = BrainConfig(exchange=ExchangeConfig(links_max=0))
#: Seeds that once failed stay here for ever.
REGRESSIONS: tuple[int, ...] = ()


def storm(seed: int) -> World:
    """Play a random story on 2 to 8 nodes, then heal everything."""
    world = World(seed)
    rng = world.rng
    first = world.add()
    for _ in range(rng.randint(1, 7)):
        world.introduce(world.add(), rng.choice(world.nodes[:-1]))
    agents = 0
    world.loss, world.double, world.delay_s = rng.choice([0.0, 0.1, 0.4]), 0.1, (0.001, rng.choice([0.01, 0.3, 0.9]))
    for _ in range(rng.randint(5, 25)):
        node = rng.choice([n for n in world.nodes if n.alive])
        match rng.randrange(8):
            case 0 | 1:
                agents += 1
                world.register(node, agents)
            case 2:
                if node.agents:
                    world.register(node, int.from_bytes(rng.choice(list(node.agents)).seed, "big"), name="renamed")
            case 3:
                if node.agents:
                    world.withdraw(node, int.from_bytes(rng.choice(list(node.agents)).seed, "big"))
            case 4:
                world.split({n.number: rng.randrange(2) for n in world.nodes})
            case 5:
                world.split({})
            case 6:
                if node is not first and len(world.nodes) < 10:
                    world.crash(node)
                    world.introduce(world.add(), first)
            case _:
                if node.links:
                    world.unlink(node, world.nodes[rng.choice(list(node.links))])
        world.run(rng.choice([0.01, 0.5, 5.0, 40.0]))
    world.loss = world.double = 0.0
    world.split({})
    for node in world.nodes:
        if node is not first:
            world.introduce(node, first)
    return world


def check_convergence(seed: int) -> None:
    world = storm(seed)
    took_s = world.run(180, until=world.agree)
    assert world.agree(), (seed, world.truth(), world.views())
    assert (
        took_s <= 125
    )  # redial within 60 s; agents of the dead leave 90 s after their last renewal, whatever the hops
    marks = {frozenset(view.items()) for view in world.views()}
    assert len(marks) == 1, seed
    world.run(60)
    assert world.agree(), f"seed {seed}: agreement did not last"
    assert not world.blamed(), (seed, world.blamed())


@pytest.mark.parametrize("seed", [*REGRESSIONS, *range(12)])
def test_directories_agree_after_any_storm(seed: int) -> None:
    check_convergence(seed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_directories_agree_after_many_storms() -> None:
    for seed in range(1000, 1600):
        check_convergence(seed)


def test_the_same_seed_gives_the_same_story() -> None:
    def digest() -> tuple[int, list[str]]:
        world = storm(4)
        return world.sent, [repr(event) for node in world.nodes for event in node.events]

    assert digest() == digest()


def test_newcomers_see_each_others_agents_within_three_seconds_of_meeting() -> None:
    world = World(7)
    world.delay_s = (0.05, 0.1)
    a, b = world.add(), world.add()
    for number in range(40):
        world.register(a, number)
        world.register(b, 100 + number)
    world.introduce(a, b, "mdns")
    world.introduce(b, a, "mdns")
    assert world.run(10, until=world.agree) <= 1.5


def test_an_agent_registered_later_is_seen_across_a_chain_of_nodes_within_a_second() -> None:
    world = World(8, UNDIALLED)
    world.delay_s = (0.02, 0.05)
    chain = [world.add() for _ in range(6)]
    for left, right in itertools.pairwise(chain):
        world.link(left, right)
    world.register(chain[0], 1)
    assert world.run(5, until=world.agree) <= 1.0


@pytest.mark.parametrize(("nodes", "config"), [(2, None), (6, None), (6, UNDIALLED)])
def test_agents_of_a_dead_node_are_gone_after_ninety_seconds_on_every_node(
    nodes: int, config: BrainConfig | None
) -> None:
    world = World(9, config)
    everyone = [world.add() for _ in range(nodes)]
    for newcomer in everyone[1:]:
        world.introduce(newcomer, everyone[0])
    world.register(everyone[-1], 1)
    world.run(100)
    assert world.agree()
    assert len(world.truth()) == 1
    world.crash(everyone[-1])
    assert world.run(80, until=world.agree) > 50, "a short silence is no death"
    world.run(91 - 80)
    assert world.agree()
    gone = [e for e in everyone[0].events if isinstance(e, AgentGone)]
    assert [e.why for e in gone] == ["lease"]


def test_leases_hold_as_long_as_the_owner_lives_even_across_a_chain() -> None:
    world = World(10, UNDIALLED)
    chain = [world.add() for _ in range(8)]
    for left, right in itertools.pairwise(chain):
        world.link(left, right)
    world.register(chain[0], 1)
    world.run(600)
    assert [len(node.links) for node in chain] == [1, 2, 2, 2, 2, 2, 2, 1]
    assert world.agree()
    assert not [e for node in chain for e in node.events if isinstance(e, AgentGone)]
