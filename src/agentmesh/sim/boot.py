"""How a world comes up: at once with memories of an earlier run, or one node after the other through one that is there."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentmesh.core.messages import AddressHint, NodeHeard
from agentmesh.sim.brains import warm
from agentmesh.sim.node import DOWN, SimNode

if TYPE_CHECKING:
    from agentmesh.sim.world import World

#: Nodes remembered on each level of the prefix tree, as a Kademlia table would.
_PER_LEVEL = 2
#: Stored contacts that a node is given to dial; of the others it has the records only.
_HINTS = 8


def start(world: World, newcomers: int = 0) -> list[SimNode]:
    """Let the nodes of a world start, spread over ``world.boot_s``, and give the first ones their agents.

    Args:
        world: The world, still empty.
        newcomers: So many nodes at the end stay down for now; ``join`` starts them later.

    Returns:
        The newcomers.
    """
    plan = world.scenario.world
    rng = random.Random(f"boot/{world.seed}")  # noqa: S311 a simulation
    first = world.nodes[: len(world.nodes) - newcomers]
    for node in world.nodes:
        node.skew_s = rng.uniform(-plan.skew_s, plan.skew_s) if plan.skew_s else 0.0
        world.duties.sign_record(node)
    with_agent = set(rng.sample(range(len(first)), round(plan.agents * len(first))))
    ranked = sorted(first, key=lambda node: node.dht_key)
    keys = [node.dht_key for node in ranked]
    for node in first:
        delay_s = rng.uniform(0, plan.boot_s)
        seen = [] if plan.start == "join" else _memories(node, ranked, keys, rng, plan.stored, plan.nearest)
        skill = f"skill-{rng.randrange(plan.skills)}" if node.index in with_agent else ""
        world.call(delay_s, lambda n=node, s=seen, k=skill: _begin(world, n, s, k))
    return world.nodes[len(first) :]


def _begin(world: World, node: SimNode, memories: list[SimNode], skill: str) -> None:
    world.boot(node)
    if memories:
        warm(node.brain, [(other.node_id, other.address) for other in memories])
    for other in memories[-_HINTS:]:
        node.stored[other.node_id] = (other.address,)
        world.feed(node, AddressHint(other.node_id, (other.address,), "stored"))
    for other in memories:
        if other.record is not None:
            world.feed(node, NodeHeard(other.record, other.node_id))
    if not memories and node.index:
        introduce(world, node, world.nodes[0])
    if skill:
        world.duties.new_agent(node, skill)


def introduce(world: World, node: SimNode, known: SimNode) -> None:
    """Tell a node of one other, as its operator would: an address and nothing else."""
    node.stored[known.node_id] = (known.address,)  # as a seed in the settings, it is there at every start
    world.feed(node, AddressHint(known.node_id, (known.address,), "static"))


def join(world: World, node: SimNode, known: SimNode) -> None:
    """Start a node that knows one other node's address only."""
    assert node.state == DOWN
    world.boot(node)
    introduce(world, node, known)


def _memories(
    node: SimNode, ranked: list[SimNode], keys: Sequence[bytes], rng: random.Random, stored: int, nearest: int
) -> list[SimNode]:
    """Return whom a node remembers: its nearest by key, some on each level of the prefix tree, some at random."""
    place = bisect_left(keys, node.dht_key)
    low = max(0, min(place - nearest // 2, len(ranked) - nearest))
    chosen = {other.index: other for other in ranked[low : low + nearest]}
    own = int.from_bytes(node.dht_key, "big")
    for level in range(max(1, len(ranked).bit_length())):
        shift = 255 - level
        begin = ((own >> shift) ^ 1) << shift  # the first key of the other half of the subtree that both share
        start_at = bisect_left(keys, begin.to_bytes(32, "big"))
        end = begin + (1 << shift)
        end_at = len(keys) if end >> 256 else bisect_left(keys, end.to_bytes(32, "big"))
        for _ in range(min(_PER_LEVEL, end_at - start_at)):
            other = ranked[rng.randrange(start_at, end_at)]
            chosen.setdefault(other.index, other)
    for other in rng.sample(ranked, min(stored, len(ranked))):
        chosen.setdefault(other.index, other)
    chosen.pop(node.index, None)
    return list(chosen.values())
