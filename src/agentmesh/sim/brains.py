"""Making brains and the reader they share: the one place that knows how a brain is constructed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentmesh.core.brain import Brain, BrainConfig
from agentmesh.core.overlay.shape import largest_component_after, shape_of
from agentmesh.errors import UsageError
from agentmesh.identity.reader import Reader
from agentmesh.ids import NodeId
from agentmesh.sim.scenario import Scenario

#: How often 80 % of the nodes are drawn and removed; the mean is reported, and the worst.
_DRAWS = 5


def new_config(scenario: Scenario) -> BrainConfig:
    """Return the daemon's settings with the scenario's changes.

    Raises:
        UsageError: there is no such machine or field (code "sim.field").
    """
    config = BrainConfig()
    for machine, changes in scenario.brain.items():
        part: Any = getattr(config, machine, None)
        for name in changes:
            if not hasattr(part, name):
                raise UsageError(f"there is no setting brain.{machine}.{name}", code="sim.field")
        config = replace(config, **{machine: replace(part, **changes)})
    return config


def new_brain(node: NodeId, config: BrainConfig, rng: random.Random, reader: Reader) -> Brain:
    """Return the brain of one run of a node."""
    return Brain(node, config, rng, reader)


def new_reader(size: int) -> Reader:
    """Return the reader that all nodes of a world share: each record is verified once, not once per node.

    So a signature costs CPU once in a world and 60 µs per node outside; docs/spec/simulator.md §7 says so.
    """
    return Reader(memory_max=max(4_096, 64 * size))


def warm(brain: Brain, contacts: Sequence[tuple[NodeId, str]]) -> None:
    """Let a node begin with what its DHT table held in an earlier run."""
    brain.warm(contacts, settled=True)


def is_member(brain: Brain) -> bool:
    """Say whether a node has neighbours."""
    return bool(brain.neighbours())


def watches(brain: Brain, node: NodeId) -> bool:
    """Say whether a node has another for a neighbour, which SWIM probes then."""
    return node in brain.neighbours()


def is_cut_off(brain: Brain) -> bool:
    """Say whether a node knows that it is cut off from much of the mesh."""
    return brain.cut_off() is not None


def shape_figures(brains: Mapping[NodeId, Brain], rng: random.Random) -> dict[str, float | int]:
    """Return the shape of the graph of all neighbours, and which share of the rest stays connected when many go."""
    graph = {node: [peer for peer in brain.neighbours() if peer in brains] for node, brain in brains.items()}
    shape = shape_of(graph, rng)
    ranked = sorted(graph, key=lambda node: -len(graph[node]))
    order = list(graph)
    random80 = [largest_component_after(graph, rng.sample(order, len(order) * 8 // 10)) for _ in range(_DRAWS)]
    return {
        "clustering": round(shape.clustering, 4),
        "path_length": round(shape.path_length, 3),
        "diameter_seen": shape.diameter_seen,
        "tail_exponent": round(shape.tail_exponent, 3),
        "tail_fit": round(shape.tail_fit, 4),
        "tail_from_degree": shape.tail_from,
        "tail_nodes": shape.tail_nodes,
        "degree_p50": shape.degree_p50,
        "degree_p99": shape.degree_p99,
        "degree_max": shape.degree_max,
        "largest_component_ratio": round(shape.largest_component, 5),
        "connected_after_top20_ratio": round(largest_component_after(graph, ranked[: len(ranked) // 5]), 5),
        "connected_after_random80_ratio": round(sum(random80) / _DRAWS, 5),
        "connected_after_random80_min_ratio": round(min(random80), 5),
    }
