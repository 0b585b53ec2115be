"""Making brains and the reader they share: the one place that knows how a brain is constructed."""

from __future__ import annotations

import random
from dataclasses import fields, is_dataclass, replace
from typing import Any

from agentmesh.core.brain import Brain, BrainConfig
from agentmesh.errors import UsageError
from agentmesh.identity.reader import Reader
from agentmesh.ids import NodeId
from agentmesh.sim.scenario import Scenario


def new_config(scenario: Scenario) -> BrainConfig:
    """Return the daemon's settings with the scenario's changes.

    Raises:
        UsageError: there is no such machine or field (code "sim.field").
    """
    config = BrainConfig()
    for machine, changes in scenario.brain.items():
        part: Any = getattr(config, machine, None)
        known = {field.name for field in fields(part)} if is_dataclass(part) else set[str]()
        for name in changes:
            if name not in known:
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


def is_member(brain: Brain) -> bool:
    """Say whether a node has neighbours."""
    return bool(brain.neighbours())


def is_cut_off(brain: Brain) -> bool:
    """Say whether a node knows that it is cut off from much of the mesh."""
    return brain.cut_off() is not None


def shape_figures(brains: dict[NodeId, Brain], rng: random.Random) -> dict[str, float | int]:
    """Return the shape of the graph of all neighbours."""
    return {}
